"""What ended a life, and which of the jobs that ran in it are charged for that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jobvisor.jobs.identity import HOST
from jobvisor.jobs.store import Life
from jobvisor.jobs.store.base import Death, Held
from jobvisor.supervisor.board import (
    BLOCKS_LOOP,
    IN_THREAD,
    LOOP_STOOD_STILL,
    STOOD_STILL,
    VERDICTS,
    Grave,
    Running,
)
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.ledger.ledger import Header

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
    stood_still: bool = False
    """Whether the process had not moved for a second then: the named job may have waited for another."""
    only_loop: bool = False
    """Whether it was the loop alone that stood still."""
    lane: int | None = None
    """Whose thread a fatal signal has struck, or who has kept the loop waiting, where that is known."""
    blocker: int = 0
    """The job that has kept the loop waiting, where that is known."""

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
    only_loop = bool(grave.verdict & LOOP_STOOD_STILL)
    still = bool(grave.verdict & STOOD_STILL) or only_loop
    code = grave.verdict & ~(STOOD_STILL | LOOP_STOOD_STILL)
    verdict = VERDICTS[code] if 0 <= code < len(VERDICTS) else "force"
    if not verdict and oom and ended.signal == "SIGKILL":
        outcome, how = "oom", "was killed by the kernel: out of memory"
    return Cause(
        how, HOST, grave.pid, outcome, ended.code, ended.signal, verdict,
        grave.verdict_job, grave.verdict_claim, still, only_loop,
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


def examined(cause: Cause, running: Sequence[Running], at: int) -> Cause:
    """The cause with what the stacks prove of a loop that stood still until the death, at this moment.

    A job in a thread of its own had its turn all the same, and so had the one that kept the loop. Where
    that one has outlived its own timeout as well it is the one to pay; else it is the suspect.
    """
    if not cause.only_loop:
        return cause
    named = [run for run in running if (run.job, run.claim) == (cause.job, cause.claim)]
    if any(run.place in (IN_THREAD, BLOCKS_LOOP) for run in named):
        return cause._replace(stood_still=False)
    for run in running:
        if run.place == BLOCKS_LOOP:
            if cause.verdict == "timeout" and 0 < run.deadline <= at:
                return cause._replace(job=run.job, claim=run.claim, stood_still=False)
            return cause._replace(lane=run.lane, blocker=run.job)
    return cause


class Judged(NamedTuple):
    """What a death means for one of the jobs that ran in the process."""

    pays: bool
    """Whether the death is charged to it."""
    company: int | None = None
    """Among how many jobs it may run from now on; None where that stays as it was."""


def judged(running: Sequence[Running], cause: Cause) -> list[Judged]:
    """Of each of these jobs what the death means for it: all that is ever decided about guilt.

    A verdict charges whom it names, and nobody where it is about no job; of several only a verdict charges.
    Without one, a job that ran alone pays. Where a fatal signal struck the thread of one of several it is
    a suspect, perhaps an innocent one: another's native code may have broken the memory. So is one that has
    kept the loop waiting. Else all are, and run in half the company, so that a job which ends every process
    is alone after a few deaths.
    """
    several = len(running) > 1
    if cause.verdict and not (several and cause.stood_still and cause.job):
        named = (cause.job, cause.claim) if cause.verdict in _NAMING else None
        pays = [(run.job, run.claim) == named for run in running]
        return [Judged(each, 1 if each and several else None) for each in pays]
    if not several:
        return [Judged(pays=True, company=1) for _ in running]
    if cause.lane in [run.lane for run in running]:
        return [Judged(False, 1 if run.lane == cause.lane else None) for run in running]
    return [Judged(False, max(1, len(running) // 2)) for _ in running]


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
    text = cause.text
    if cause.verdict and cause.stood_still and cause.job and company > 1:
        killed = f"killed ({cause.verdict} of job {cause.job})"
        if cause.blocker:
            kept = f"job {cause.blocker} kept the event loop of its worker waiting"
            return Death("stopped", f"{kept}, which was {killed}", *told)
        text = f"its worker stood still and was {killed}"
    elif cause.verdict:
        return Death("stopped", text, *told)
    ran = f"while it ran {company} jobs, and nobody knows whose fault that was"
    return Death("stopped", f"{text} {ran}", *told)


def vanished(life: Life) -> Death:
    """A life that left no evidence: its machine or its ledger is gone."""
    return Death("vanished", "its worker vanished without evidence", life.host, life.pid)


def _sentence(verdict: str, held: Held) -> str:
    if verdict == "timeout" and held.is_overdue:
        return "killed at its deadline"
    if verdict == "timeout":
        return f"killed at its timeout of {held.timeout_ms / 1000:g} s"
    if verdict == "memory":
        return f"killed over its memory limit of {held.memory_bytes >> 20} MiB"
    return "killed because it did not end when its cancel was asked for"
