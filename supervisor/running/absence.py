"""While the database is away, full or locked a worker waits, seldom says so, and is judged by nobody."""

from __future__ import annotations

import random

from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.errors import EX_LOCKED, StoreError
from jobvisor.jobs.log import say
from jobvisor.jobs.store.base import WorkerStore
from jobvisor.supervisor.board import STATE, WAITING_STATE
from jobvisor.supervisor.role import Role
from jobvisor.supervisor.running.cleanliness import locks_database
from jobvisor.supervisor.running.fitness import Fitness

RETRY_FIRST, RETRY_CAP = 0.1, 5.0  # seconds between tries while the database is away
LOCKED_NS = 2 * SECOND  # no other process of ours writes for so long
# A wait for the lock is told every 100 ms; after a longer gap it is new.
LOCKED_GAP_NS = SECOND // 2
TOLD_AGAIN_NS = 30 * SECOND  # between two lines about a database that stays away


class Absence:
    """How one worker has fared with its database."""

    def __init__(self, role: Role, store: WorkerStore, database: str, fitness: Fitness) -> None:
        """`database` is the path of a SQLite file."""
        self._role = role
        self._store = store
        self._database = database
        self._fitness = fitness
        self._locked_since = self._locked_seen = 0
        self._told_at = 0  # when the last line about it was written
        self.failures = 0
        """Tries in a row that found it away."""

    def wait(self, error: StoreError) -> None:
        """Away, full, locked: keep the journal, say so, come back later; nobody judges this state."""
        self._role.slot[STATE] = WAITING_STATE
        self._role.pause(self.note(error))

    def note(self, error: StoreError) -> float:
        """Say so now and then; in how many seconds it is to be tried again."""
        self.failures += 1
        if self._role.tally is not None:
            self._role.tally.failed()
        now = self._role.clock.monotonic_ns()
        told = self._fitness.reason == "clerk_gone"  # it will not be back, and that was said
        if not told and (self.failures == 1 or now - self._told_at > TOLD_AGAIN_NS):
            self._told_at = now
            say("database_lost", error=str(error))
        # What it watched is closed now, and its number may be another file's.
        self._role.watch(None)
        self._store.close()
        delay: float = min(RETRY_FIRST * 2 ** min(self.failures, 10), RETRY_CAP)
        return delay * random.uniform(0.5, 1.0)

    def is_over(self) -> None:
        """The database has answered."""
        if self.failures:
            say("database_back", delay=f"{self.failures} tries")
        self.failures = 0

    def note_lock(self) -> None:
        """Somebody writes; where it is this very process, no patience helps.

        A connection that a task left in a transaction keeps everybody out until its process ends.
        What it did is in the ledger, so it ends at once and is settled.
        """
        self._role.beat()
        last, now = self._locked_seen, self._role.clock.monotonic_ns()
        self._locked_seen = now
        if now - last > LOCKED_GAP_NS:
            self._locked_since = now  # the first time in this wait
        elif (
            self._store.one_machine
            and now - self._locked_since > LOCKED_NS
            and locks_database(self._database)
        ):
            say("unsound", what="a task left the database open and locked")
            self._fitness.leave_at_once(EX_LOCKED)
