"""The ledger of a worker with several lanes: two half journals, so that lanes record while a turn commits.

A turn takes the half that lanes write to and leaves them the other one, which is empty; when its
transaction has committed it empties what it took. (One journal that is emptied after the COMMIT loses what
was recorded during it: 8,400 of 28,500 outcomes, measured.) Where a turn fails its half stays as it is for
the next one, and the lanes go on in the other. Whoever settles a dead life applies both, in any order: a
record carries its job, claim and attempt.
"""

from __future__ import annotations

import threading

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.supervisor.ledger.layout import SECOND_TAIL_AT, TAIL_AT
from jobvisor.supervisor.ledger.ledger import Entry, Header, Journal, Ledger


class HalvedLedger(Ledger):
    """Recorded into by threads, settled by one of them. What `Ledger` calls its journal is the open half."""

    def __init__(self, folder: str, header: Header, clock: Clock = SYSTEM) -> None:
        super().__init__(folder, header, clock)
        self._taken: list[Entry] = []  # of the half that is being settled
        self._lock = threading.Lock()

    def record(self, entry: Entry) -> bool:
        """Keep an outcome of at most INLINE bytes, from any thread; False where there was no room.

        Room comes with a turn; an outcome that has none goes to the database by that turn itself.
        """
        with self._lock:
            return self._end - self._tail >= entry.size and super().record(entry)

    def journal(self) -> Journal:
        """Take the half that is recorded into, for a turn, and open the other one.

        Where the turn before has failed its half is still there: then it is that one, and none is opened.
        """
        with self._lock:
            if not self._taken and self._entries:
                self._open_other()
            taken = self._taken
        return Journal(self._records(taken), 0)

    def _open_other(self) -> None:
        """The other half, which is empty."""
        self._taken, self._entries = self._entries, []
        second = self._tail_at == TAIL_AT
        self._tail_at = SECOND_TAIL_AT if second else TAIL_AT
        self._begin_at, self._end = self.plan.journals[second]
        self._tail = self._begin_at

    @property
    def oldest_ns(self) -> int:
        """When the first of what is to be settled was recorded, by CLOCK_BOOTTIME; 0 where nothing is."""
        entries = self._taken or self._entries
        return entries[0].moment_ns if entries else 0

    def whole(self) -> Journal:
        """Both halves."""
        with self._lock:
            return Journal(self._records([*self._taken, *self._entries]), 0)

    def settled(self, journal: Journal) -> None:
        """What was taken is in the database: its half is empty."""
        if not journal.records:
            return
        with self._lock:
            if self._tail_at == TAIL_AT:
                self._words[SECOND_TAIL_AT] = self.plan.journals[1][0]
            else:
                self._words[TAIL_AT] = self.plan.journals[0][0]
            self._taken = []
