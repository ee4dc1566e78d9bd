"""When a worker's process is looked over, and whose jobs may have changed it.

A look takes some 10 us, too long for each of many short jobs. So it comes after the first runs of each
task, after a long run, after a hundred runs, before a rest, and after each run of a task that once was
found to leave its process changed. The family's board remembers those: the worker that found one is
replaced.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from typing import NamedTuple

from jobvisor.jobs.errors import EX_DESCRIPTORS, EX_LOCKED
from jobvisor.supervisor.board import DIRTY_AT, DIRTY_WORDS, Board
from jobvisor.supervisor.running.cleanliness import Cleanliness, locks_database

FIRST_RUNS = 3  # of each task, looked over one by one
LONG_NS = 1_000_000  # a run longer than this can afford to be looked over
EVERY = 100  # runs, at the latest
TASKS_MAX = 1000  # names that are remembered; they come from rows, so there may be any number

_ALWAYS = -1


class Finding(NamedTuple):
    """That a process is changed, and by whom."""

    what: str
    tasks: tuple[str, ...]
    """The tasks that ran since the last look."""
    jobs: int
    """How many jobs that were; of several nobody knows which one it was."""
    code: int
    """What the process must end with at once, 0 where it may still settle and leave."""


class Inspection:
    """What one worker knows of the runs since the last look at its process."""

    def __init__(self, clean: Cleanliness, board: Board, database: str) -> None:
        """`database` is the path of a SQLite file, "" for a server."""
        self._clean = clean
        self._board = board
        self._database = database
        self._left: dict[str, int] = {}  # how many runs of a task are still looked over one by one
        self._tasks: set[str] = set()
        self._jobs = 0
        self._thorough = False
        self._counts_begun = False  # or ended

    def is_due(self, task: str, took_ns: int) -> bool:
        """Note one run; whether the process must be looked over before the next."""
        left = self._left.get(task)
        if left is None:
            left = self._first_seen(task)
        self._tasks.add(task)
        self._jobs += 1
        if left:
            if left > 0:
                self._left[task] = left - 1
            self._thorough = True
            return True
        return took_ns > LONG_NS or self._jobs >= EVERY

    def begun(self, tasks: Collection[str]) -> None:
        """Note runs that begin, one for each of these; they are looked over when none goes on any more."""
        for task in set(tasks):
            left = self._left.get(task)
            if left is None:
                left = self._first_seen(task)
            if left:
                self._left[task] = max(left - 1, _ALWAYS)
                self._thorough = True
        self._tasks.update(tasks)
        self._jobs += len(tasks)
        self._counts_begun = True

    def _first_seen(self, task: str) -> int:
        if len(self._left) >= TASKS_MAX:
            self._left.clear()
        number = _number(task)
        known = self._board[DIRTY_AT + number % DIRTY_WORDS] == number
        self._left[task] = _ALWAYS if known else FIRST_RUNS
        return self._left[task]

    def look(self) -> Finding | None:
        """What was changed since the last look; None while all is as it was."""
        what, code = self._found()
        found = Finding(what, tuple(sorted(self._tasks)), self._jobs, code) if what else None
        if found is not None:
            self.suspect()
        self._jobs, self._thorough = 0, False
        self._tasks.clear()
        return found

    def _found(self) -> tuple[str | None, int]:
        lost = self._clean.lost_descriptor()
        if lost is not None:
            return lost, EX_DESCRIPTORS
        what = self._clean.stain()
        if what is None and self._thorough and self._database and locks_database(self._database):
            return "the database is open and locked", EX_LOCKED
        return what, 0

    def suspect(self, *others: str) -> bool:
        """Remember who ran since the last look, and these; whether anybody did."""
        for task in (*self._tasks, *others):
            number = _number(task)
            # Written by any worker, and a later name may take the place of an earlier one: it is a
            # hint, and who is forgotten is looked over less often.
            self._board[DIRTY_AT + number % DIRTY_WORDS] = number
        return self._jobs > (len(others) if self._counts_begun else 0)

    def is_behind(self) -> bool:
        """Whether anything ran since the last look."""
        return self._jobs > 0


def _number(task: str) -> int:
    """The same in every process, and never 0."""
    return zlib.crc32(task.encode(errors="replace")) + 1
