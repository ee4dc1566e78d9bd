"""One step of a worker in this process: claim one job, run it, settle it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.context import Nobody
from jobvisor.jobs.events import Events, event_of
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.identity import HOST, Identity, unique_number
from jobvisor.jobs.job import Claimed, Job
from jobvisor.jobs.log import log_lost, say
from jobvisor.jobs.outcome import VERB_CODES
from jobvisor.jobs.store import Applied, Life, Record, Store
from jobvisor.jobs.store.base import Turn

PUT_OFF_AT_ONCE = 500  # of the jobs that must wait, in one transaction


class Step:
    """What `run_one` does, and what it still owes where that was broken off."""

    def __init__(
        self,
        clock: Clock,
        events: Events,
        execution: Callable[[Nobody], Execution],
        rest: Callable[[], None],
    ) -> None:
        """`execution` makes what runs a job; `rest` is called before, to let a connection go."""
        self._clock = clock
        self._events = events
        self._execution = execution
        self._rest = rest
        self._owed: dict[int, tuple[Life, Record | None]] = {}  # by owner: not settled yet

    def take(self, store: Store, queues: Sequence[str] | None) -> Job | None:
        """The job that was run, as it is then; of every queue with a pending job where none is named."""
        self._settle_owed(store)
        store.promote()
        # Else a caretaker sees to these, and there may be none.
        store.end_overdue()
        store.free_tasks()
        store.admit()
        served = store.pending_queues() if queues is None else queues
        life = Life(unique_number(), 0, "run_one", HOST, *Identity.mine())
        record: Record | None = None
        try:
            claim, turn = _claimed(store, life, served)
            for claimed in turn.jobs:
                self._tell("claim", claimed)
                record = self._run(life, claim, claimed)
                applied = store.apply([record], life)
                _say_rejected(applied)
                if applied.changed and record.verb == VERB_CODES["succeed"]:
                    self._tell("succeed", claimed)
            store.remove_owner(life.owner)
        except BaseException:
            # Of the database, or of a signal handler of the application's: what is not settled would
            # stay `running` for as long as this process lives.
            self._owed[life.owner] = (life, record)
            raise
        return store.get(turn.jobs[0].id) if turn.jobs else None

    def _tell(self, verb: str, claimed: Claimed) -> None:
        if self._events.of_all:
            self._events.emit(event_of(verb, claimed))

    def _settle_owed(self, store: Store) -> None:
        """Jobs that were not settled when they had run: the database was away, or a signal came."""
        for owner, (life, record) in list(self._owed.items()):
            with store.transaction():
                store.remove_owner(owner)
                applied = store.apply([record] if record is not None else [], life)
                log_lost(applied.lost)
                _say_rejected(applied)
                store.release_rest(owner)
            self._owed.pop(owner, None)

    def _run(self, life: Life, claim: int, claimed: Claimed) -> Record:
        self._rest()
        port = Nobody()
        execution = self._execution(port)
        began = self._clock.monotonic_ns()
        try:
            outcome = execution.run(claimed)
        finally:
            execution.close()
        took_ms = (self._clock.monotonic_ns() - began) // 1_000_000
        return Record(
            life.owner, claim, claimed.id, claimed.attempt, VERB_CODES[outcome.verb], 0, took_ms,
            outcome.delay_ms, outcome.body(), port.last,
        )  # fmt: skip


def _claimed(store: Store, life: Life, queues: Sequence[str]) -> tuple[int, Turn]:
    """The turn that claims a job, if there is one that may run, and its number.

    Others may stand behind what must wait: that is put off in pages, twice as many each time. One with a job
    that may run is undone, because no more than one is to be claimed, and a shorter one comes next.
    """
    claim, page = 1, 1
    turn: Turn | None = store.turn(life, claim, queues=queues, limit=1, register=True)
    while turn is None or (turn.parked and not turn.jobs):
        claim, page = claim + 1, page // 4 or 1 if turn is None else min(PUT_OFF_AT_ONCE, page * 2)
        turn = _tried(store, life, claim, queues, page)
    return claim, turn


def _tried(store: Store, life: Life, claim: int, queues: Sequence[str], page: int) -> Turn | None:
    """None where it was undone."""
    with suppress(_UndoneError), store.transaction():
        turn = store.turn(life, claim, queues=queues, limit=page)
        if page > 1 and turn.jobs:
            raise _UndoneError
        return turn
    return None


class _UndoneError(Exception):
    """More would have been claimed than is wanted."""


def _say_rejected(applied: Applied) -> None:
    """One line for each job that stays `running`, because the database refuses any end of it."""
    for record, refused in applied.rejected:
        say("row_refused", job=record.job, error=refused)
