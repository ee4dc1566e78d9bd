"""All that is known of the family and its database just now, as the lines and tables of the screen."""

from __future__ import annotations

from jobvisor.jobs.annals import Family
from jobvisor.supervisor.cli import brief
from jobvisor.supervisor.cli.top import rows
from jobvisor.supervisor.cli.top.database import Looked
from jobvisor.supervisor.cli.top.local import Local
from jobvisor.supervisor.cli.top.page import Styled
from jobvisor.supervisor.cli.top.rows import JOBS, WORKERS, Table, cell

__all__ = ["Seen"]

SLOW_S = 2.0
"""A database that has not answered for longer is told of."""


class Seen:
    """What was last heard of both, which one of them may have outlived."""

    def __init__(self, local: Local | None) -> None:
        self.local = local
        self.looked = Looked()
        self._tables: dict[str, Table] = {}
        self.away: str | None = None
        """Why the database could not be asked the last time."""

    def note(self, looked: Looked | None, error: Exception | None) -> None:
        """The database was asked; where it did not answer, what it said before stays."""
        self.away = None if error is None else str(error)
        if looked is not None:
            self.looked = looked
            self._tables.clear()

    def table(self, tab: str, narrowed: str) -> Table:
        """What one moves in."""
        if tab == WORKERS:
            local = self.local
            found = rows.workers(local.workers, local.cpu) if local else rows.workers((), {})
            return found.narrowed(narrowed)
        if tab not in self._tables:
            looked = self.looked
            self._tables[tab] = (
                rows.jobs(looked.jobs) if tab == JOBS else rows.failures(looked.failures)
            )
        found = self._tables[tab]
        return found if tab == JOBS else found.narrowed(narrowed)  # jobs are, by the database

    def queues(self) -> Table:
        """What waits."""
        return rows.queues(self.looked.queues, self.looked.at_least)

    def deaths(self) -> Table:
        """The workers that died last."""
        return rows.deaths(self.local.deaths if self.local else ())

    def head(self, silent_s: float) -> list[Styled]:
        """Who the family is, how it goes, what is wrong; `silent_s`: how long no answer has come."""
        lines = self.local.told() if self.local else []
        if self.away is not None:
            lines.insert(1, Styled(f"the database cannot be asked: {cell(self.away)}", "bold red"))
        elif silent_s > SLOW_S:
            told = f"the database has not answered for {silent_s:.0f} s"
            lines.insert(1, Styled(told, "bold yellow"))
        unserved = [
            f"no pool here serves queue {name!r}"
            for name, queue in self.looked.queues.items()
            if queue.get("served") is False and queue.get("pending")
        ]
        others = [each for family in self.looked.families if (each := self._other(family))]
        return lines + [Styled(cell(each), "yellow") for each in unserved] + others

    def _other(self, family: Family) -> Styled | None:
        """A family beside the one of this machine."""
        if self.local is not None and str(family.id) == self.local.id:
            return None
        told = f"family {cell(family.name)} on {cell(family.host)}, pid {family.pid}"
        silent = family.died or family.silent > family.dead_after
        if silent:
            return Styled(f"{told}: silent for {brief(int(family.silent * 1000))}", "bold red")
        return Styled(told, "dim")
