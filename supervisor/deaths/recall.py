"""A claim taken back: behind a long job, what its worker has not begun goes to the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.identity import HOST, boot_id, pid_namespace
from jobvisor.jobs.log import say
from jobvisor.jobs.store import Life, Store
from jobvisor.supervisor.board import (
    AHEAD,
    BUSY,
    CANCEL_CLAIM,
    CANCEL_JOB,
    CLAIM,
    CURRENT,
    FOREVER,
    GOING,
    LEAVING_CODES,
    OWNER,
    PID,
    RECALL,
    ROLE,
    SINCE,
    STATE,
    Board,
    Slot,
)
from jobvisor.supervisor.deaths.settle import recall, tell
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.evidence import read_ledger_of
from jobvisor.supervisor.roster import role_name

if TYPE_CHECKING:
    from jobvisor.supervisor.counting.tally import Tally

LONG_JOB_NS = 50_000_000  # a job longer than this does not keep its neighbours waiting
RECALL_WAIT = 0.002  # seconds for a recall word to be seen: far longer than any store buffer


class Recall:
    """What a caretaker recalls, and from whom it already has."""

    def __init__(
        self,
        store: Store,
        state: StateDir,
        board: Board,
        clock: Clock,
        *,
        family: int,
        forget: bool,
        tally: Tally | None = None,
    ) -> None:
        """`forget` keeps no succeeded rows; `tally` counts what was recalled."""
        self._store = store
        self._state = state
        self._board = board
        self._clock = clock
        self._family = family
        self._forget = forget
        self._tally = tally
        self._recalled: dict[int, tuple[int, int]] = {}

    def behind_long_jobs(self) -> None:
        """Every claim whose worker has been in one of its jobs for long, once."""
        for slot in self._board.busy():
            owner, claim = slot[OWNER], slot[CLAIM]
            if slot[STATE] != BUSY or not slot[AHEAD] or not self._waits(slot):
                continue
            if self._recalled.get(slot.index) != (owner, claim):
                self.recall(slot, owner, claim)
                self._recalled[slot.index] = (owner, claim)

    def _waits(self, slot: Slot) -> bool:
        """Whether a worker that has jobs ahead has begun none for long."""
        began = max(slot.column(SINCE), default=0)
        return any(slot.column(CURRENT)) and self._clock.monotonic_ns() - began >= LONG_JOB_NS

    def carry_cancels(self) -> float | None:
        """A duty: a job that is to be cancelled is asked where it runs, recalled where it has not begun."""
        slots = {slot[OWNER]: slot for slot in self._board.busy()}
        for job, owner, claim in self._store.cancelling(slots) if slots else ():
            slot = slots.get(owner)
            if slot is not None and slot[CLAIM] >= claim and not _asked(slot, job, claim):
                self.recall(slot, owner, claim)
        return None

    def relieve(self) -> float | None:
        """A duty: settle what workers finish that cannot do it, and release what they have not begun.

        A worker whose clerk is dead has no way to the database; its jobs may run on for long.
        """
        for slot in self._board.busy():
            if slot[GOING] == LEAVING_CODES["clerk"]:
                self.recall(slot, slot[OWNER], FOREVER)
        return None

    def recall(self, slot: Slot, owner: int, claim: int) -> None:
        """Settle what a worker has finished; release what it has not begun of the claims up to this one.

        FOREVER is of all, also of one whose commit the worker was never told of.
        """
        # Never back to an earlier one: what was released of a later one may not start either.
        slot[RECALL] = max(slot[RECALL], claim)
        # The worker publishes, then looks; we set the word, wait, then read what is published.
        self._clock.sleep(RECALL_WAIT)
        found = read_ledger_of(self._state.ledgers, owner, self._clock)
        if found is None or found.header.claim < claim < FOREVER:
            return
        name = role_name(slot[ROLE], slot.index)
        life = Life(owner, self._family, name, HOST, boot_id(), pid_namespace(), slot[PID], 0)
        applied, released = recall(self._store, life, found, claim, forget=self._forget)
        # The worker still has its journal: what came too late it finds out, and tells, by itself.
        tell(applied._replace(lost=[]), self._state.rejected)
        job = found.running[0].job if found.running else "none"
        if self._tally is not None:
            self._tally.recalled(released)
        say("recalled", count=released, job=job, settled=applied.changed)


def _asked(slot: Slot, job: int, claim: int) -> bool:
    """Ask a job to end where it runs; whether it does."""
    lanes = slot.lanes()
    for run in slot.running():
        if (run.job, run.claim) == (job, claim) and run.lane < len(lanes):
            words = lanes[run.lane]
            if (words[CANCEL_JOB], words[CANCEL_CLAIM]) != (job, claim):
                words[CANCEL_JOB], words[CANCEL_CLAIM] = job, claim
            return True
    return False
