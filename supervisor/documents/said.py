"""What a job said: of its past runs what is kept, of one that goes on what stands in its worker's ledger."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from jobvisor.jobs.job import Attempt, Job, Summary
from jobvisor.supervisor.autopsy.autopsy import Living, living
from jobvisor.supervisor.ledger.evidence import Words, read_running, read_words
from jobvisor.supervisor.ledger.layout import find_file

__all__ = ["Run", "run_of", "said_of"]


class Run(NamedTuple):
    """A run that goes on in a process of this machine."""

    life: Living
    path: str
    job: int
    claim: int

    @property
    def goes_on(self) -> bool:
        """Whether it has not ended."""
        found = read_running(self.path, self.life.owner)
        return any((each.job, each.claim) == (self.job, self.claim) for each in found)

    def words(self) -> Words | None:
        """What it has said so far; None where it has said nothing."""
        words = read_words(self.path, self.life.owner, self.job)
        return words if words is not None and words.claim == self.claim else None


class Piece(NamedTuple):
    """What a run has said since it was last asked."""

    text: str
    missed: bool
    """Before this it said more than could be read."""


class Speech:
    """What one run says, each part of it once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._end = 0

    def more(self) -> Piece | None:
        """What is new; None where nothing is."""
        words = self.run.words()
        if words is None or words.end <= self._end:
            return None
        fresh = words.end - self._end
        missed = bool(self._end) and fresh > len(words.kept)
        self._end = words.end
        return Piece(self._decoder.decode(words.kept[-fresh:]), missed)


def run_of(folder: str, job: Job | Summary) -> Run | None:
    with suppress(PermissionError):  # another user's family: the past runs are shown
        for life in living(folder):
            path = find_file(folder, life.owner)
            for run in read_running(path, life.owner) if path else ():
                if path and run.job == job.id:
                    return Run(life, path, job.id, run.claim)
    return None


def said_of(job: Job, attempts: Iterable[Attempt], run: Run | None) -> list[dict[str, Any]]:
    """What each run said, oldest first; `run` is the one that goes on, where that can be read here."""
    return [*map(_told, attempts), *([_told_running(job, run)] if run else [])]


def _told(attempt: Attempt) -> dict[str, Any]:
    told = attempt.as_json()
    names = ("attempt", "outcome", "started_at", "finished_at", "said")
    return {name: told[name] for name in names}


def _told_running(job: Job, run: Run) -> dict[str, Any]:
    words = run.words()
    started = job.as_json()["claimed_at"]
    return {
        "attempt": job.attempt, "outcome": "running", "started_at": started, "finished_at": None,
        "said": words.kept.decode(errors="replace") if words else None,
    }  # fmt: skip
