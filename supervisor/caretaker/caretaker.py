"""The caretaker: it keeps the family's lease, settles the dead, recalls behind long jobs, tidies up.

It runs no user code, so it is awake and connected whatever the workers do. Every duty may be cut by
a kill at any line: a new caretaker begins with the graves and ledgers it finds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.errors import SchemaError, StoreError, StoreUnavailable
from jobvisor.jobs.events import Events
from jobvisor.jobs.identity import Identity, boot_id, pid_namespace
from jobvisor.jobs.log import is_logged, log_event, say
from jobvisor.jobs.pruner import Pruner
from jobvisor.jobs.store import open_store
from jobvisor.supervisor.board import (
    BUSY,
    CARETAKER_WATCHES,
    DRAINED,
    DRAINING,
    IDLE,
    LEAVE,
    LIMITS_TOLD,
    OWNER,
    PID,
    QUEUES_TOLD,
    REACHED,
    RUN,
    SCHEDULED,
    STATE,
    STOP,
    TICKS,
    TURN,
    WAITING_STATE,
    Slot,
)
from jobvisor.supervisor.caretaker.demand import EVERY_SECONDS, Demand
from jobvisor.supervisor.caretaker.fairness import EVERY_SECONDS as FAIRNESS_SECONDS
from jobvisor.supervisor.caretaker.fairness import Fairness
from jobvisor.supervisor.caretaker.lease import Lease
from jobvisor.supervisor.caretaker.limits import (
    ADMITTED_EVERY,
    DECLARED_EVERY,
    TRIMMED_EVERY,
    Limits,
)
from jobvisor.supervisor.caretaker.progress import Progress
from jobvisor.supervisor.caretaker.suspicion import EVERY_SECONDS as SUSPICION_SECONDS
from jobvisor.supervisor.caretaker.suspicion import Suspicion
from jobvisor.supervisor.caretaker.told import Told
from jobvisor.supervisor.deaths.burial import Burial
from jobvisor.supervisor.deaths.oom import READ_EVERY
from jobvisor.supervisor.deaths.recall import Recall
from jobvisor.supervisor.deaths.rescue import Rescue
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.role import Role, Seat
from jobvisor.supervisor.signals import poke
from jobvisor.supervisor.status import Status
from jobvisor.supervisor.watch import Watch

if TYPE_CHECKING:
    from jobvisor.supervisor.caretaker.minutes import Minutes

TICK = 0.02  # seconds between two looks while a worker is busy
IDLE_SECONDS = 1.0  # and while none is
LEFT_TOLD = 20  # queues and states in the last line of a drain
PRUNE_EVERY, PRUNE_OFTEN = (
    10.0,
    1.0,
)  # seconds; the latter where some are kept for less than the former
PRUNED_TOLD = 100_000  # jobs in one line of the log
UNKNOWN_EVERY = 10.0  # seconds between two looks for jobs whose task no module has
SCHEDULES_EVERY = 5.0  # seconds between two looks whether there is a schedule
UNKNOWN_NOTED = 100  # names of them
HEARTBEAT_MOST = 10.0  # seconds between two heartbeats, where a third of `dead_after` is longer
# Seconds for one answer, so that a second try is in the lease.
PATIENCE_LEAST, PATIENCE_MOST = 1.0, 10.0
RETRY_FIRST, RETRY_CAP = 0.1, 2.0  # seconds between two tries for the database, well in the lease
TOLD_AGAIN_NS = 30 * SECOND  # between two lines about a database that stays away
FINAL_SECONDS = 5.0  # what the last settling may take when the family stops


class Caretaker(Role):
    """One process that looks after the family and its rows."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat)
        self._watch = Watch(self.board, CARETAKER_WATCHES, self.clock)
        config = seat.config
        self._config = config
        self._state = StateDir(config.family.state_dir)
        self._forget = config.forgets
        self._waiting = False
        self._failures = 0
        self._try_at = 0  # when an absent database is tried again
        self._ends = 0  # of the last settling
        self._told_at = 0  # when the last line about it was written
        self._pruner = Pruner(config.rules, self.clock)
        self._pruned = 0
        self._sooner = IDLE_SECONDS  # until a duty has more to do
        self._minutes: Minutes | None = None
        self._due: dict[Callable[[], float | None], int] = {}

    def boot(self) -> None:
        """Ready at once: the database may come later."""
        events = Events()
        events.subscribe(log_event, hears=is_logged)
        self.begin_to_count()
        if self.tally is not None:
            events.subscribe(self.tally.hear, hears=self.tally.hears)
        database, family = self._config.database, self._config.family
        self._store = open_store(
            database.url,
            durable=False,
            schema=database.schema,
            prefix=database.prefix,
            notify=database.notify,
            patience=min(max(family.dead_after_ms / 3000, PATIENCE_LEAST), PATIENCE_MOST),
            idle=self.idle_seconds,
            application=f"jobvisor {family.name} {self.seat.name}",
            clock=self.clock,
            events=events,
        )
        self._store.on_wait = self._store.on_migrate = self.beat
        parent = Identity.of(self.seat.parent) or Identity.mine()
        self._status = Status(self.board, self._config, self._state, self.clock, self.seat.family)
        self._lease = Lease(
            self._store,
            self.board,
            self.clock,
            family,
            row=(self.seat.family, parent, self._state.path),
            on_expelled=lambda: poke(self.seat.parent_poke),
        )
        self._burial = Burial(
            self._store,
            self._state,
            self.board,
            self._status,
            self.clock,
            family=self.seat.family,
            forget=self._forget,
            go_on=self._keep,
            tally=self.tally,
        )
        self._recall = Recall(
            self._store,
            self._state,
            self.board,
            self.clock,
            family=self.seat.family,
            forget=self._forget,
            tally=self.tally,
        )
        self._progress = Progress(self._store, self._state, self.board, self.clock)
        self._rescue = Rescue(
            self._store,
            self._state,
            self.board,
            self.clock,
            family=self.seat.family,
            dead_after_ms=family.dead_after_ms,
            forget=self._forget,
            alone=lambda: self.alone,
            go_on=self._go_on,
        )
        limits_told, queues_told = (
            Told(self.board, word, self.seat.family, self.seat.generation)
            for word in (LIMITS_TOLD, QUEUES_TOLD)
        )
        limits = Limits(self._store, self._config.limits, limits_told)
        fairness = Fairness(self._store, self._config.named_queues, queues_told)
        beat = min(family.dead_after_ms / 3000, HEARTBEAT_MOST)
        self._duties: dict[Callable[[], float | None], float] = {
            self._lease.renew: beat,
            self._rescue.judge_families: beat,
            self._rescue.rescue: family.dead_after_ms / 1000,
            self._recall.carry_cancels: 0.25,
            self._recall.relieve: 1.0,
            self._progress.carry: 0.25,
            self._promote: 1.0,
            limits.declare: DECLARED_EVERY,
            limits.admit: ADMITTED_EVERY,
            limits.trim: TRIMMED_EVERY,
            fairness.see_to: FAIRNESS_SECONDS,
            self._burial.note_memory: READ_EVERY,
            self._end_overdue: 1.0,
            self._free_tasks: 1.0,
            self._forget_pauses: 600.0,
            self._prune: PRUNE_OFTEN if self._is_short_kept() else PRUNE_EVERY,
            self._trim_changes: 10.0,
            self._trim_uniques: 10.0,
            self._note_unknown: UNKNOWN_EVERY,
            self._checkpoint: 1.0,
            self._look_drained: 0.05,
            self._trim_stats: 600.0,
            self._see_schedules: SCHEDULES_EVERY,
        }
        if self.tally is not None and self.board.counters is not None:
            # Only who counts has sums to write.
            from jobvisor.supervisor.caretaker.minutes import EVERY_SECONDS as A_WHILE  # noqa: PLC0415
            from jobvisor.supervisor.caretaker.minutes import Minutes  # noqa: PLC0415
            from jobvisor.supervisor.counting.totals import Reader  # noqa: PLC0415

            self._minutes = Minutes(self._store, Reader(self.board.counters), self.clock)
            self._duties[self._minutes.end_if_over] = A_WHILE
            self._duties[self._minutes.keep] = A_WHILE
        demand = Demand(
            self._store, self.board, self.clock, self._config.workers, self.seat.generation
        )
        if demand.is_of_use:
            self._duties[demand.look] = EVERY_SECONDS
        suspicion = Suspicion(
            self._store, self.board, self.clock, self._config.workers, self.seat.generation
        )
        if suspicion.is_of_use:
            self._duties[suspicion.look] = SUSPICION_SECONDS
        self.slot[STATE] = WAITING_STATE
        # A database that can never be used as it is ends the boot, with one sentence.
        with suppress(StoreUnavailable):
            self._store.open()

    def leaving(self) -> bool:
        """Only on the parent's word, since systemd sends TERM to everybody; or last, without a parent."""
        self.told_to_leave()
        if self.slot[LEAVE]:
            return True
        return self.alone and not self._family_lives()

    # -- the loop

    def step(self) -> float:
        """All that is due, in small slices."""
        if not self._waiting or self.clock.monotonic_ns() >= self._try_at:
            with self._database():
                self._do_if_due(self._lease.renew)  # whatever keeps the others waiting
                self._burial.settle_all()
                self._recall.behind_long_jobs()
                if self.alone:
                    self._stand_in_for_parent()
                self._do_duties()
        self._do_if_due(self._burial.note_memory)  # with or without a database
        if self._minutes is not None:
            self._do_if_due(self._minutes.end_if_over)
        self._show()
        return self._pause()

    def _go_on(self) -> bool:
        """In the middle of what may take long: do what cannot wait, and say whether there is time."""
        self._keep()
        self._burial.settle_all()
        self._recall.behind_long_jobs()
        self._show()
        return not self.leaving() or self.clock.monotonic_ns() < self._ends

    def _keep(self) -> None:
        """What must go on whatever else is done: this process moves, and the family has its lease."""
        self.beat()
        self._do_if_due(self._lease.renew)

    def _show(self) -> None:
        # Alone, the file is the next family's, which may be here already.
        if not self.alone:
            self._status.write_if_due(waiting=self._waiting)

    def _pause(self) -> float:
        if self._waiting or self.alone:
            return 0.1
        if self._watch.goes_on() or self.board[DRAINING]:
            return min(TICK, self._sooner)
        return self._sooner

    @contextmanager
    def _database(self) -> Iterator[None]:
        """One border for an absent database: said once, tried again, judged by nobody."""
        try:
            yield
        except StoreError as error:
            now = self.clock.monotonic_ns()
            if self.tally is not None:
                self.tally.failed()
            if not self._waiting or now - self._told_at > TOLD_AGAIN_NS:
                self._told_at = now
                say("database_lost", error=str(error))
            if isinstance(error, SchemaError):
                self._lease.end()  # what this release would write there is wrong by now
            self._waiting = True
            self._failures += 1
            most = min(RETRY_CAP, self._config.family.dead_after_ms / 6000)
            delay = min(RETRY_FIRST * 2 ** min(self._failures - 1, 10), most)
            self._try_at = now + int(delay * random.uniform(0.5, 1.0) * SECOND)
            self._rescue.database_was_away()
            self.slot[STATE] = WAITING_STATE
            self._store.close()
            # The heartbeat, a write, is due with the next try: a step whose duties happen not to
            # touch the database would prove nothing.
            self._due.pop(self._lease.renew, None)
        else:
            if self._waiting and self.slot[REACHED]:
                say("database_back", delay=f"{self._failures} tries")
            self._waiting = False
            self._failures = 0
            self.slot[REACHED] = 1
            self.slot[STATE] = IDLE

    def _do_duties(self) -> None:
        self._sooner = IDLE_SECONDS
        for duty in self._duties:
            self._do_if_due(self._lease.renew)  # each of the others may take its time
            self._do_if_due(duty)

    def _do_if_due(self, duty: Callable[[], float | None]) -> None:
        now = self.clock.monotonic_ns()
        if now >= self._due.get(duty, 0):
            self.beat()
            # Set before the duty: one that fails waits for its turn like one that succeeds.
            self._due[duty] = now + int(self._duties[duty] * SECOND)
            sooner = duty()
            if sooner is not None:
                self._due[duty] = now + int(sooner * SECOND)
                self._sooner = min(sooner, self._sooner)

    # -- duties

    def _promote(self) -> float | None:
        """A claim promotes; while all workers are busy nobody claims."""
        workers = self.board.workers()
        claims = any(slot[STATE] != BUSY or slot[TURN] for slot in workers)
        if not claims and self._store.look(()).due_ms == 0:
            self._store.promote()
        return None

    def _end_overdue(self) -> float | None:
        return TICK if self._store.end_overdue() else None

    def _free_tasks(self) -> float | None:
        return TICK if self._store.free_tasks() else None

    def _forget_pauses(self) -> float | None:
        return TICK if self._store.forget_pauses() else None

    def _prune(self) -> float | None:
        """A page in each step, until all are gone whose time is over."""
        step = self._pruner.step(self._store)
        self._pruned += step.gone
        if self._pruned and (not step.more or self._pruned >= PRUNED_TOLD):
            say("pruned", count=self._pruned)
            self._pruned = 0
        return step.pause

    def _is_short_kept(self) -> bool:
        return any(rule.age_ms < PRUNE_EVERY * 1000 for rule in self._config.rules)

    def _trim_changes(self) -> float | None:
        return TICK if self._store.trim_changes() else None

    def _see_schedules(self) -> None:
        """The parent has a scheduler while there is a schedule in this database, whoever made it."""
        there = int(self._store.has_schedules())
        if self.board[SCHEDULED] != there:
            self.board[SCHEDULED] = there
            poke(self.seat.parent_poke)

    def _trim_uniques(self) -> float | None:
        return TICK if self._store.trim_uniques() else None

    def _trim_stats(self) -> float | None:
        return TICK if self._store.trim_stats() else None

    def _note_unknown(self) -> float | None:
        """So that `health`, which asks no database, can tell of jobs whose task or limit nobody knows."""
        self._status.unknown = self._store.unknown_tasks(UNKNOWN_NOTED)
        self._status.unknown_limits = self._store.unknown_limits(UNKNOWN_NOTED)
        return None

    def _checkpoint(self) -> float | None:
        self._store.checkpoint()
        return None

    def _look_drained(self) -> float | None:
        if not self.board[DRAINING] or self.board[DRAINED]:
            return None
        # A journal may hold a retry that no row shows yet: only resting workers tell the truth.
        if self.board.busy():
            return None
        if not self._store.has_work(self._config.queues, self.seat.family):
            self.board[DRAINED] = 1
            poke(self.seat.parent_poke)
            say("drained", left=self._left())  # after the word: to count takes a while
        return None

    def _left(self) -> str:
        """What a drain does not wait for, in words: scheduled by somebody, unknown, not ours."""
        told = [
            f"{number} {state} in {queue}"
            for queue, states in sorted(self._store.unfinished().items())
            for state, number in sorted(states.items())
        ]
        return ", ".join([*told[:LEFT_TOLD], *(["..."] if told[LEFT_TOLD:] else [])]) or "nothing"

    # -- without a parent

    def _family_lives(self) -> bool:
        return any(self._worker_lives(slot) for slot in self.board.workers())

    def _worker_lives(self, slot: Slot) -> bool:
        identity = self._identity_of(slot)
        return identity is not None and bool(identity.alive())

    def _identity_of(self, slot: Slot) -> Identity | None:
        """Who sits there, by the pid and the start that the board keeps."""
        if not slot[PID] or not slot[TICKS]:
            return None
        return Identity(boot_id(), pid_namespace(), slot[PID], slot[TICKS])

    def _stand_in_for_parent(self) -> None:
        """Kill what is past its deadline, settle what has died, until the last has left."""
        for slot in self.board.busy():
            late = self._rescue.first_overdue(slot.running())
            identity = self._identity_of(slot)
            if late is not None and identity is not None and identity.alive():
                self._rescue.kill_overdue(self._state.ledgers, slot[OWNER], identity.pid, late)
        self._rescue.scan_ledgers(self._state.ledgers)

    # -- the end

    def shut_down(self) -> None:
        """The last settling: what it does not reach in five seconds stays in the files."""
        self._ends = self.clock.monotonic_ns() + int(FINAL_SECONDS * SECOND)
        while self.clock.monotonic_ns() < self._ends:
            self.beat()
            with self._database():
                self._do_if_due(self._lease.renew)  # whatever keeps the others waiting
                self._burial.settle_all()
                if self.alone:
                    self._rescue.scan_ledgers(self._state.ledgers)
                if self._minutes is not None:
                    self._minutes.write_all()
                if self.alone or self.board[STOP]:
                    self._lease.leave()
            if not self._waiting:
                break
            self.clock.sleep(0.1)
        # One that a reload replaces leaves a family that goes on.
        if not self.alone:
            self._status.write(waiting=self._waiting, stopped=self.board[STOP] != RUN)
        self._store.close()
