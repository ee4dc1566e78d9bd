"""Where a running job, or a process of a family of this machine, is just now: asked of the process itself."""

from __future__ import annotations

from typing import Any

from jobvisor.jobs.clock import SECOND, SYSTEM
from jobvisor.jobs.errors import JobsError
from jobvisor.supervisor.autopsy.autopsy import LOOK_NS, Living, Stack, ask, living, read_answer
from jobvisor.supervisor.ledger.evidence import read_ledger_of

__all__ = ["stacks_of_job", "stacks_of_process"]

PATIENCE_NS = SECOND
"""For an answer: code that runs gives it at once, on a busy machine somewhat later."""


def stacks_of_job(folder: str, job: int) -> list[dict[str, Any]]:
    """Where this job is, read by the ledgers of this folder; JobsError where it runs in none of them."""
    life = _find(folder, "", job)
    found = [each for each in _ask(folder, life) if each.job == job]
    if not found:
        raise JobsError(f"job {job} has just ended; `jobvisor show {job}` tells how")
    return [_told(life, each) for each in found]


def stacks_of_process(folder: str, name: str) -> list[dict[str, Any]]:
    """What a process does, by its name in the log: `worker 2`, `caretaker`; JobsError where there is none."""
    life = _find(folder, name, 0)
    return [_told(life, each) for each in _ask(folder, life)]


def _told(life: Living, found: Stack) -> dict[str, Any]:
    return {
        "name": life.name,
        "pid": life.identity.pid,
        "lane": found.lane,
        "job": found.job or None,
        "stack": found.text,
    }


def _find(folder: str, name: str, job: int) -> Living:
    lives = living(folder)
    for life in lives:
        if life.name == name if not job else _runs(folder, life, job):
            return life
    told = ", ".join(sorted(life.name for life in lives)) or "none"
    what = f"job {job} runs in no worker" if job else f"there is no process {name!r}"
    raise JobsError(f"{what} of the families in {folder}; the processes there: {told}")


def _runs(folder: str, life: Living, job: int) -> bool:
    found = read_ledger_of(folder, life.owner)
    return found is not None and any(run.job == job for run in found.running)


def _ask(folder: str, life: Living) -> list[Stack]:
    before = read_answer(folder, life.owner).moment_ns
    ends = SYSTEM.monotonic_ns() + PATIENCE_NS
    pid = life.identity.pid
    try:
        if not ask(life):
            raise JobsError(f"{life.name} (pid {pid}) has just ended")
    except PermissionError:
        raise JobsError(
            f"{life.name} (pid {pid}) is another user's; run this as that user or as root"
        ) from None
    while SYSTEM.monotonic_ns() < ends:
        SYSTEM.sleep(LOOK_NS / SECOND)
        answer = read_answer(folder, life.owner)
        if answer.moment_ns > before:
            return answer.stacks
    raise JobsError(f"{life.name} (pid {pid}) does not answer: {_why_silent(life)}")


def _why_silent(life: Living) -> str:
    """Why a process did not answer within a second, as far as the system knows."""
    if not life.identity.alive():
        return "it has just ended"
    if _state(life.identity.pid) in ("T", "t"):
        return "it is stopped (SIGSTOP, or a debugger); SIGCONT lets it go on"
    return "it sits in native code, or its task has taken SIGWINCH for itself"


def _state(pid: int) -> str:
    """One letter of the kernel's."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""
