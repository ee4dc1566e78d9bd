"""Whether a worker may go on in its process as its tasks have left it, and how it leaves where it may not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol

from jobvisor.jobs.errors import EX_DESCRIPTORS
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.log import descriptors as log_descriptors
from jobvisor.jobs.log import say
from jobvisor.jobs.store.base import WorkerStore
from jobvisor.supervisor.board import GOING, LEAVING_CODES
from jobvisor.supervisor.memory import resident
from jobvisor.supervisor.role import Role
from jobvisor.supervisor.running.cleanliness import Cleanliness
from jobvisor.supervisor.running.inspection import Finding, Inspection

#: What a line that says why is called on the board, where that is not the work of a task.
_GOING = {"recycled": "recycled", "clerk_gone": "clerk", "emptied": "scale"}


class Runs(Protocol):
    """The lane or the lanes of a worker."""

    @property
    def current(self) -> Claimed | None:
        """The job that runs; None where none does, or several."""

    def withdraw(self) -> None:
        """Nothing runs, for whoever settles this life."""


class Fitness:
    """One worker's process: clean, grown, or to be left."""

    def __init__(
        self,
        role: Role,
        lane: Runs,
        clean: Cleanliness,
        inspection: Inspection,
        max_memory: int,
    ) -> None:
        """`max_memory` is in bytes, 0 for as much as there is."""
        self._role = role
        self._lane = lane
        self._clean = clean
        self.inspection = inspection
        """When the process is to be looked over."""
        self._max_memory = max_memory
        self.on_lost: Callable[[], None] = _at_once
        """Called when descriptors are lost, before it leaves: jobs that run may end, in the ledger."""
        self.reason: str | None = None
        """Why this worker leaves by itself."""

    def trust_descriptors(self) -> None:
        """Check them before the database is asked, which may bring another connection."""
        self.check_descriptors()
        self._clean.hold([])  # until a task runs again

    def check_descriptors(self) -> None:
        """Leave, and be settled, where a task has closed our files or put its own in their place.

        Nothing is logged here: the log's descriptor may be a user's file by now, or the database.
        The parent logs the exit code.
        """
        self._accept_rotated_log()
        if self._clean.lost_descriptor() is not None:
            self.on_lost()
            self.leave_at_once(EX_DESCRIPTORS)

    @contextmanager
    def using(self, store: WorkerStore) -> Iterator[None]:
        """Ask the database while jobs run: its connection may be made anew, and is held again after it."""
        self.trust_descriptors()
        try:
            yield
        finally:
            self._clean.hold(store.descriptors())

    def leave_at_once(self, code: int) -> NoReturn:
        """End without another word to the database; what is in the ledger is settled from there.

        A job stays current while its outcome is in no ledger: it is charged, or it would run, and do
        the same, for ever. Unless others ran since the process was last looked over: then it may be
        innocent, and the next worker looks after each run of all these tasks.
        """
        job = self._lane.current
        others_ran = self.inspection.suspect(*([] if job is None else [job.task]))
        if job is None or others_ran:
            self._lane.withdraw()
        os._exit(code)

    def _accept_rotated_log(self) -> None:
        if self._role.log_rotated:
            self._role.log_rotated = False
            self._clean.accept(log_descriptors())

    def look_over(self, job: Claimed | None = None) -> None:
        """Leave where a task left the process changed or grown; `job` is the one that ran last."""
        self._accept_rotated_log()
        # First of all: without its descriptors whatever this process says or asks may go to a stranger.
        found = self.inspection.look()
        if found is not None and self._clean.still_has(log_descriptors()):
            self._say_found(found, job)
        if found is not None and found.code:
            self.leave_at_once(found.code)
        self._role.glance()
        self._role.signals.rearm()
        self.look_at_memory()

    def look_at_memory(self) -> None:
        """Leave where the process has grown too large."""
        limit = self._max_memory
        if limit and (held := resident(os.getpid()) or 0) > limit:
            self.leave("recycled", reason=f"it holds {held >> 20} MiB")

    def _say_found(self, found: Finding, job: Claimed | None) -> None:
        if found.jobs == 1 and job is not None:
            self.leave("dirty", job=job.id, task=job.task, what=found.what)
        else:
            tasks = ", ".join(found.tasks)
            self.leave("dirty_among", count=found.jobs, tasks=tasks, what=found.what)

    def leave_emptied(self) -> None:
        """Leave where a worker was added for suspects, and none waits any more."""
        self.leave("emptied")

    def leave(self, line: str, **fields: Any) -> None:
        """Leave after this job, and say why; the first reason counts."""
        if self.reason is None:
            self.reason = line
            self._role.slot[GOING] = LEAVING_CODES[_GOING.get(line, "dirty")]
            say(line, **fields)


def _at_once() -> None:
    """With one lane nothing runs when it is looked at."""
