"""The family of this machine as its own status tells it, read again and again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from jobvisor.jobs.clock import SYSTEM, from_datetime
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.units import size_text
from jobvisor.supervisor.cli import brief
from jobvisor.supervisor.cli.top.pace import Pace, jobs_running
from jobvisor.supervisor.cli.top.page import Styled
from jobvisor.supervisor.cli.top.rows import cell
from jobvisor.supervisor.cli.top.usage import Usage
from jobvisor.supervisor.documents.limits import told_unknown_limits, unknown_limits_of_status
from jobvisor.supervisor.documents.standing import standing_of, trouble
from jobvisor.supervisor.documents.unknown import told_unknown, unknown_of_status
from jobvisor.supervisor.family import StateDir

__all__ = ["Local", "Reading"]

_STYLES = {"running": "bold green", "stopped": "bold red", "degraded": "bold red"}


class Reading(NamedTuple):
    """The status, and who held the family's lock then: 0 for a holder that is not visible here."""

    status: Mapping[str, Any]
    pid: int | None


class Local:
    """Its last status, how many jobs begin and end in a second, and the CPU that each worker uses."""

    def __init__(self, state: StateDir, name: str) -> None:
        self._state = state
        self._name = name
        self._pace = Pace()
        self._usage = Usage()
        self._status: Mapping[str, Any] = {"family": name, "state": "not yet known"}
        self._troubles: list[str] = []

    @property
    def id(self) -> str | None:
        """As the database knows it."""
        return self._status.get("family_id")

    @property
    def ledgers(self) -> str:
        """The folder by which its processes are found."""
        return self._state.ledgers

    @property
    def workers(self) -> list[Mapping[str, Any]]:
        """As the status has them."""
        return [each for each in self._status.get("workers") or [] if isinstance(each, dict)]

    @property
    def deaths(self) -> list[Mapping[str, Any]]:
        """The last ones, in the order in which they came."""
        return [each for each in self._status.get("deaths") or [] if isinstance(each, dict)]

    @property
    def cpu(self) -> Mapping[int, int]:
        """Percent of a CPU by pid."""
        return self._usage.percent

    def read(self) -> Reading:
        """Read the status once more; in any thread."""
        pid = self._state.holder()
        return Reading(standing_of(self._state, self._name), pid)

    def note(self, reading: Reading | None, error: Exception | None = None) -> None:
        """It has been read; where it could not be, the last one stays, and why is told."""
        if reading is None:
            self._troubles = [str(error)]
            return
        self._status, pid = reading
        self._troubles = _troubles(self._status, pid)
        self._pace.note(self._status)
        # A holder that has no number here is in another container: its pids are other processes' here.
        pids = [worker.get("pid") for worker in self.workers] if pid else []
        self._usage.look(number for number in pids if isinstance(number, int))

    def told(self) -> list[Styled]:
        """Who it is and how it goes, in two lines, then what is wrong."""
        status, state = self._status, cell(self._status.get("state"))
        words = [f"family {cell(status.get('family'))}: {state}"]
        words += [f"pid {status['pid']}"] if status.get("pid") else []
        words += [f"up {up}"] if (up := _since(status.get("started_at"))) else []
        lines = [Styled(", ".join(words), _STYLES.get(state, "bold yellow"))]
        if self.workers:
            lines.append(Styled("  ".join(self._figures())))
        return lines + [Styled(cell(trouble), "bold red") for trouble in self._troubles]

    def _figures(self) -> list[str]:
        rates, workers = self._pace.rates(), self.workers
        lanes = sum(worker.get("lanes") or 1 for worker in workers)
        running = sum(map(jobs_running, workers))
        rss = sum(worker.get("rss") or 0 for worker in workers)
        cpu = sum(self.cpu.get(worker.get("pid") or 0, 0) for worker in workers)
        told = [f"running {running} of {lanes}"]
        if rates is not None:
            told.append(f"begun {rates[0]:,.0f}/s  ended {rates[1]:,.0f}/s")
        told.append(f"cpu {cpu}%  memory {size_text(rss)}")
        if self._status.get("restarts"):
            told.append(f"restarts {self._status['restarts']}")
        return told


def _troubles(status: Mapping[str, Any], pid: int | None) -> list[str]:
    """What an operator should know, the most important first."""
    if pid is None:
        return ["it is not running: `jobvisor start` starts it"]
    reason = trouble(dict(status), pid)
    found = [reason] if reason and reason != status.get("state") else []
    reload = status.get("reload")
    if isinstance(reload, dict) and reload.get("state") == "refused":
        found.append(f"the last reload was refused: {reload.get('reason')}")
    found += told_unknown(unknown_of_status(status))
    return found + told_unknown_limits(unknown_limits_of_status(status))


def _since(moment: Any) -> str:
    try:
        return brief(SYSTEM.now_ms() - from_datetime(datetime.fromisoformat(str(moment))))
    except (ValueError, InvalidOption):
        return ""
