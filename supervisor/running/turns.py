"""A worker's transactions: each turn settles, promotes and claims.

What a full journal or a large outcome needs is settled between two of them.
Per turn: one transaction, then the journal is emptied, then the new claim is noted. A kill between
any two of these leaves a state from which `settle` finds out what had happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.errors import StoreError
from jobvisor.jobs.events import Events, event_of
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.log import say
from jobvisor.jobs.store import Applied, Record, Rest
from jobvisor.jobs.store.base import WorkerStore
from jobvisor.jobs.units import duration_text
from jobvisor.supervisor.board import (
    BUSY,
    CARETAKER_WATCHES,
    CLAIM,
    LACKS_LEDGER,
    LEASE_UNTIL,
    PARENT_WATCHES,
    REACHED,
    STATE,
    TURN,
)
from jobvisor.supervisor.deaths.settle import tell
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.ledger import Entry, Header, Ledger
from jobvisor.supervisor.role import Role
from jobvisor.supervisor.running.absence import RETRY_FIRST, Absence
from jobvisor.supervisor.running.cleanliness import Cleanliness
from jobvisor.supervisor.running.fitness import Fitness
from jobvisor.supervisor.running.lane import Lane
from jobvisor.supervisor.running.reach import Reach
from jobvisor.supervisor.running.successes import Successes
from jobvisor.supervisor.signals import poke

LEDGER_AGAIN_NS = 5 * SECOND  # how often a file is tried again on a full disk


class Turns:
    """One worker, its ledger and the database."""

    def __init__(
        self,
        role: Role,
        store: WorkerStore,
        events: Events,
        lane: Lane,
        clean: Cleanliness,
        *,
        fitness: Fitness,
        absence: Absence,
        successes: Successes,
    ) -> None:
        self._role = role
        self._seat = role.seat
        self._board = role.board
        self._slot = role.slot
        self._clock = role.clock
        self._store = store
        self._events = events
        self._lane = lane
        self._clean = clean
        self._fitness = fitness
        self._absence = absence
        self._successes = successes
        self._tally = role.tally
        config = role.seat.config
        self._queues = config.workers[role.seat.pool].queues
        self._forget = config.forgets
        self._state = StateDir(config.family.state_dir)
        self._claim = 0
        self._ledger_tried = 0
        self._counted = 0  # of what is recorded and not settled
        self.ledger: Ledger | None = None
        self.registered = False
        """Whether this life has a row, and has had a turn."""
        self.reach = Reach()
        self.unsure = False
        """Whether rows of ours may run that we do not hold: the next turn releases them."""

    def lacks_lease(self) -> bool:
        """Whether nothing may be started: others may take this family for dead."""
        return self._board[LEASE_UNTIL] < self._clock.boottime_ns()

    def take(self, limit: int, *, batch: int | None = None, woken: bool = False) -> list[Claimed]:
        """Settle what is recorded, and claim at most so many jobs; `woken` where one was told of.

        `batch`: so many it would be, if none had to wait.
        """
        if self._absence.failures or not self.registered:
            self._store.open()  # in no transaction, so nobody judges how long it takes
        with self._in_turn():
            return self._take(limit, batch, woken=woken)

    @contextmanager
    def _in_turn(self) -> Iterator[None]:
        """Until the state says what follows; a worker that hangs here is judged by when it moved last."""
        self._slot[TURN] = self._clock.monotonic_ns()
        self._role.beat()
        try:
            yield
        finally:
            self._slot[TURN] = 0

    def _take(self, limit: int, batch: int | None, *, woken: bool) -> list[Claimed]:
        if self.ledger is None:
            self._open_ledger()
        ledger = self.ledger
        if ledger is None:
            limit = min(limit, 1)
        self._count()
        claim = self._claim + 1
        self._claim = claim  # a number is used once, whether or not its COMMIT was answered
        self._lane.claim, self._lane.claimed_ns = claim, self._clock.monotonic_ns()
        unsure, self.unsure = self.unsure, True
        journal = ledger.journal() if ledger is not None else None
        turn = self._store.turn(
            self._role.life,
            claim,
            queues=self._queues,
            limit=limit,
            journal=journal.records if journal is not None else (),
            rest=Rest() if unsure else None,
            register=not self.registered,
            forget_succeeded=self._forget,
            woken=woken,
            batch=batch,
        )
        self.unsure = False
        self.reach.turned(turn)
        self.registered = True
        if not self._slot[REACHED]:
            self._slot[REACHED] = 1
            poke(self._seat.parent_poke)
            poke(self._seat.caretaker_poke)
        self._absence.is_over()
        if ledger is not None and journal is not None:
            ledger.settled(journal)
            ledger.claimed(claim)
            self._counted = 0
        self._lane.claimed(claim)
        self._slot[CLAIM] = claim
        if turn.jobs:
            self._slot[STATE] = BUSY
        if self._tally is not None:
            self._tally.turned(turn.jobs, len(turn.applied.lost))
        tell(turn.applied, self._state.rejected)
        if self._events.of_all:
            self._successes.tell(journal.records if journal is not None else [], turn.applied)
            for job in turn.jobs:
                self._events.emit(event_of("claim", job))
        return turn.jobs

    def _open_ledger(self) -> None:
        """With the database's name known: a ledger belongs to one database."""
        now = self._clock.monotonic_ns()
        if now < self._ledger_tried:
            return
        self._ledger_tried = now + LEDGER_AGAIN_NS
        life = self._role.life
        header = Header(
            self._seat.owner, life.pid, life.start_ticks, life.pid_namespace, life.family,
            life.boot_id, self._store.database_id(), life.host,
        )  # fmt: skip
        try:
            self.ledger = self._made_ledger(header)
        except OSError as error:
            # Exactness needs no file where every job is its own transaction; speed does.
            if not self._slot[LACKS_LEDGER]:
                say("ledger_refused", path=self._state.ledgers, error=str(error))
            self._slot[LACKS_LEDGER] = 1
        else:
            self._lane.use(self.ledger)
            self._slot[LACKS_LEDGER] = 0

    def _made_ledger(self, header: Header) -> Ledger:
        return Ledger(self._state.ledgers, header, self._clock)

    def wait_for_database(self, error: StoreError) -> None:
        """It is away, full, or locked: keep the journal, and come back later."""
        self.unsure = True
        self._absence.wait(error)

    def wake_watchers(self) -> None:
        """Let parent and caretaker look at this worker, which is busy."""
        # Only when they sleep: while anything is busy, and a moment longer, they look every 20 ms.
        if not self._board[PARENT_WATCHES]:
            poke(self._seat.parent_poke)
        if not self._board[CARETAKER_WATCHES]:
            poke(self._seat.caretaker_poke)

    # -- between two turns

    def commit(self, entry: Entry) -> None:
        """Settle one outcome that is in no ledger, for as long as it takes.

        A parent would kill in the end, at the stop_timeout; an orphan ends its wait by itself then.
        """
        self._lane.outlast()
        job = self._lane.current
        if self._tally is not None and job is not None:
            self._tally.count_runs([(job, entry)])
        record = entry.record(self._seat.owner, entry.moment_ns)
        alone_since = 0
        while True:
            try:
                self._settle([record])
            except StoreError as error:
                self.wait_for_database(error)
            else:
                return
            if self._role.alone:
                alone_since = alone_since or self._clock.monotonic_ns()
                if self._give_up(entry, alone_since):
                    return
            if self._role.leaving():
                self._clock.sleep(RETRY_FIRST)  # until stop_timeout it is tried on, not spun on

    def _give_up(self, entry: Entry, since: int) -> bool:
        """Whether an orphan has tried for as long as a family that stops; its job is given back then."""
        patience_ms = self._seat.config.family.stop_timeout_ms
        if self._clock.monotonic_ns() - since < patience_ms * 1_000_000:
            return False
        say("outcome_lost", job=entry.job, delay=duration_text(patience_ms))
        self._successes.forget(entry)
        return True

    def settle_now(self) -> bool:
        """The journal is full: settle it in a turn that claims nothing, keeping the claim."""
        ledger = self.ledger
        if ledger is None:
            return True
        self._count()
        journal = ledger.journal()
        try:
            self._settle(journal.records)
        except StoreError as error:
            self.wait_for_database(error)
            return False
        ledger.settled(journal)
        self._counted = 0
        return True

    def _settle(self, records: list[Record]) -> None:
        """Outside of a turn, in the middle of a claim."""
        self._fitness.trust_descriptors()
        with self._in_turn():
            applied = self._store.apply(records, self._role.life, forget_succeeded=self._forget)
            self._store.step_aside()
        self._clean.hold(self._store.descriptors())
        self._tell(applied)
        self._successes.tell(records, applied)
        self._events.tell()
        self._slot[STATE] = BUSY
        self.wake_watchers()  # while the database was away nobody watched this worker

    # -- the end

    def end(self) -> None:
        """Settle, release the rest, retire the ledger; what cannot be settled stays in its file."""
        self._fitness.trust_descriptors()
        self.unsure = True
        last = ""
        for _ in range(3):
            try:
                if self.registered or self.ledger is not None:
                    self._settle_all()
                self._store.close()
                self._events.tell()
            except StoreError as error:
                last = str(error)
                self._clock.sleep(RETRY_FIRST)
            else:
                return
        say("settle_left", error=last, path=self._state.ledgers)

    def _settle_all(self) -> None:
        ledger = self.ledger
        records = ledger.whole().records if ledger is not None else []
        self._count()
        with self._in_turn():
            applied = self._store.leave(self._role.life, records, forget_succeeded=self._forget)
        self._tell(applied)
        self._successes.tell(records, applied)
        if ledger is not None:
            ledger.retire()

    def _count(self) -> None:
        """Before what is recorded is settled: count what came since the last time."""
        if self._tally is not None and self.ledger is not None:
            entries = self.ledger.recorded(self._counted)
            self._tally.count_claimed(entries, self._claim)
            self._counted += len(entries)

    def _tell(self, applied: Applied) -> None:
        """What was settled outside of a turn that claims."""
        tell(applied, self._state.rejected)
        if self._tally is not None:
            self._tally.lost(len(applied.lost))
