"""What ended a life, and which of the jobs that ran in it are charged for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jobvisor.jobs.identity import HOST
from jobvisor.jobs.store import Life
from jobvisor.jobs.store.base import Death, Held
from jobvisor.supervisor.board import VERDICTS, Grave, Running
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.ledger import Header

#: Verdicts that are about the job they name; every other kill of ours is no job's doing.
_NAMING = {"timeout", "memory", "cancel"}


class Cause(NamedTuple):
    """What is known of the end of a life."""

    how: str
    """What its worker did or suffered, as a part of a sentence."""
    host: str
    pid: int
    outcome: str = "crash"
    """What it is called for a job that is charged, where there was no verdict."""
    exit_code: int | None = None
    signal: str | None = None
    verdict: str = ""
    """Why we killed it, in a word; "" where we did not."""
    job: int = 0
    """Whom the verdict is about; its claim follows."""
    claim: int = 0

    @property
    def text(self) -> str:
        """What it means where no job is charged."""
        if self.verdict:
            return f"its worker was stopped ({self.verdict}) for no fault of the job"
        return f"its worker {self.how}"


def seen(grave: Grave, *, oom: bool) -> Cause:
    """A death that its parent saw; `oom` where the kernel's killer was at work then."""
    ended = Exit(grave.pid, grave.status)
    how = f"was killed by {ended.signal}" if ended.signal else f"ended by {ended.cause}"
    outcome = "crash"
    verdict = VERDICTS[grave.verdict] if 0 <= grave.verdict < len(VERDICTS) else "force"
    if not verdict and oom and ended.signal == "SIGKILL":
        outcome, how = "oom", "was killed by the kernel: out of memory"
    return Cause(
        how, HOST, grave.pid, outcome, ended.code, ended.signal, verdict,
        grave.verdict_job, grave.verdict_claim,
    )  # fmt: skip


def unseen(header: Header) -> Cause:
    """A life that ended with its parent, so that nobody saw how."""
    return Cause("died together with its supervisor; nobody saw how", header.host, header.pid)


def overdue(header: Header, job: int, claim: int) -> Cause:
    """A life without its parent, killed by a caretaker at the timeout of a job."""
    return Cause(
        "was killed by SIGKILL", header.host, header.pid, signal="SIGKILL", verdict="timeout",
        job=job, claim=claim,
    )  # fmt: skip


def charged(running: Sequence[Running], cause: Cause) -> list[bool]:
    """Of each of these jobs whether the death is charged to it: all that is ever decided about guilt.

    A verdict charges whom it names, and nobody where it is about no job. Without one a job that ran
    alone pays; of several nobody knows whose fault it was.
    """
    if cause.verdict:
        named = (cause.job, cause.claim) if cause.verdict in _NAMING else None
        return [(run.job, run.claim) == named for run in running]
    return [len(running) == 1 for _ in running]


def death_of(cause: Cause, held: Held) -> Death:
    """What the death means for a job that it is charged to."""
    told = (cause.host, cause.pid, cause.exit_code, cause.signal, cause.verdict or None)
    if not cause.verdict:
        return Death(cause.outcome, cause.text, *told)
    outcome = "cancelled" if cause.verdict == "cancel" else cause.verdict
    return Death(outcome, _sentence(cause.verdict, held), *told)


def given_back(cause: Cause, company: int) -> Death:
    """What it means for one of so many jobs that ran, and that does not pay."""
    told = (cause.host, cause.pid, cause.exit_code, cause.signal, cause.verdict or None)
    ran = (
        ""
        if cause.verdict
        else f" while it ran {company} jobs, and nobody knows whose fault that was"
    )
    return Death("stopped", f"{cause.text}{ran}", *told)


def vanished(life: Life) -> Death:
    """A life that left no evidence: its machine or its ledger is gone."""
    return Death("vanished", "its worker vanished without evidence", life.host, life.pid)


def _sentence(verdict: str, held: Held) -> str:
    if verdict == "timeout":
        return f"killed at its timeout of {held.timeout_ms / 1000:g} s"
    if verdict == "memory":
        return f"killed over its memory limit of {held.memory_bytes >> 20} MiB"
    return "killed because it did not end when its cancel was asked for"
