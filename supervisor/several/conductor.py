"""The conductor of a worker with several lanes: it turns, fills the backlog, is woken, runs no user code."""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.errors import StoreError
from jobvisor.jobs.store.base import WorkerStore
from jobvisor.supervisor.board import (
    AHEAD,
    BEAT,
    BUSY,
    CURRENT,
    IDLE,
    STATE,
    VERDICT,
    WAITING_STATE,
)
from jobvisor.supervisor.role import Role
from jobvisor.supervisor.running.absence import Absence
from jobvisor.supervisor.running.company import Company
from jobvisor.supervisor.running.fitness import Fitness
from jobvisor.supervisor.several.flow import Flow
from jobvisor.supervisor.several.rounds import Rounds
from jobvisor.supervisor.several.seeking import Found, Seeking
from jobvisor.supervisor.several.shared import Shared
from jobvisor.supervisor.several.turns import TurnsOfSeveral, held_by

OUTCOMES_NS = 5_000_000  # how long an outcome waits for others before it is settled
LINGER_NS = 2 * SECOND  # an added quarantine waits for further suspects
QUIET_NS = 20_000_000  # without a turn, before it is worth its round trips to look for more
LEASE_NS, LEASE_TRIES = 5_000_000, 100  # between two looks for a lease, and how often; then
LEASE_LATER_NS = SECOND // 10
NOTICE_NS = SECOND // 20  # between two looks whether a verdict still stands
IDLE_NS = SECOND  # where nothing is due
FEW = 2
WIND_DOWN_SECONDS = 0.01  # between two looks whether all lanes have ended


class Conductor:
    """The main thread."""

    def __init__(
        self,
        role: Role,
        store: WorkerStore,
        shared: Shared,
        *,
        turns: TurnsOfSeveral,
        seeking: Seeking,
        rounds: Rounds,
        company: Company,
        fitness: Fitness,
        absence: Absence,
    ) -> None:
        self._role = role
        self._clock = role.clock
        self._slot = role.slot
        self._store = store
        self._lanes = shared.lanes
        self._backlog = shared.backlog
        self._outcomes = shared.outcomes
        self._bell = shared.bell
        self._turns = turns
        self._seeking = seeking
        self._rounds = rounds
        self._company = company
        self._fitness = fitness
        self._absence = absence
        self._flow = Flow()
        fitness.on_lost = self._wind_down
        self._grace_ns = role.seat.config.family.cancel_grace_ms * 1_000_000
        pool = role.seat.config.workers[role.seat.pool]
        self._batch_max, self._max_jobs = pool.batch_max, pool.max_jobs
        self._full = True  # whether there may be more than the last claim has taken
        self._turned_at = self._retry_at = 0
        self._lease_awaited = self._held_at = 0
        self.closed = False
        """Whether nothing begins any more: lanes look at it."""
        self.cut = False
        """Whether nothing can be stored from here any more."""
        self.broken: BaseException | None = None
        """What code of ours has raised in another thread: this process must end."""

    def fail(self, error: BaseException) -> None:
        """From any thread: code of ours has failed there, and the process must end."""
        self.broken = error
        self._bell.ring()

    def meanwhile(self) -> None:
        """While a clerk makes the turn that this thread waits for."""
        self._slot[BEAT] = now = self._clock.monotonic_ns()
        self._rounds.go_if_due(now)

    def step(self) -> None:
        """Whatever is due, then a sleep until the next thing is."""
        self._bell.silence()
        if self.broken is not None:
            raise self.broken
        now = self._clock.monotonic_ns()
        self._rounds.go_if_due(now)
        if now >= self._retry_at:
            try:
                self._proceed(now)
            except StoreError as error:
                self._fitness.check_descriptors()  # before a word of it goes into the log
                self._retry_at = now + int(self._absence.note(error) * SECOND)
        self._show()
        if self._fitness.reason is None or self.closed:  # else nothing would end this sleep
            self._role.sleep(self._until_next(self._clock.monotonic_ns()))

    def _proceed(self, now: int) -> None:
        if self._must_turn():
            with self._fitness.using(self._store):
                self._turn()
        elif self._turns.lacks_lease():
            self._lease_awaited += 1
            if not self._turns.registered:  # the first heartbeat is a moment away
                with self._fitness.using(self._store):
                    self._store.open()
        elif self._room() and now >= self._seek_from():
            with self._fitness.using(self._store):
                self._seek()
        if self._slot[VERDICT]:
            self._backlog.give_back()  # others may begin it meanwhile
        if not self._lanes.busy and not self._backlog.waiting:
            self._flow.rested()
            self._rounds.rest()
            if self._company.must_look_again():
                self._seeking.claimed(0)
            self._leave_if_empty(now)
        else:
            self._held_at = now

    def _leave_if_empty(self, now: int) -> None:
        """A quarantine that was added to its pool is there for suspects alone."""
        self._held_at = self._held_at or now
        if self._company.quarantine and now - self._held_at >= LINGER_NS:
            self._fitness.leave_emptied()

    def _must_turn(self) -> bool:
        """Whether something waits to be settled or given back, or lanes for jobs that there may be."""
        if self._backlog.owes() or len(self._outcomes):
            return True
        oldest = self._turns.oldest_ns
        if oldest and self._clock.boottime_ns() - oldest >= OUTCOMES_NS:
            return True
        if oldest and not self._lanes.busy:
            return True
        return self._full and self._room() > 0

    def _room(self) -> int:
        """How many jobs could begin at once."""
        if self._backlog.waiting:
            return 0
        return min(self._lanes.free, self._limit())

    def _limit(self) -> int:
        """How many jobs to claim: for the lanes that are free, and about 20 ms of work ahead."""
        if self.closed or self._slot[VERDICT] or self._turns.lacks_lease():
            return 0
        free, waiting = self._lanes.free, len(self._backlog.waiting)
        wanted = self._turns.reach.wish(self._batch, self._batch_max)
        wanted = self._company.limit(wanted, free - waiting, self._held)
        if self._max_jobs:
            wanted = min(wanted, self._max_jobs - self._backlog.taken)
        if self._turns.ledger is None:
            # Exactness needs no file where every outcome is its own transaction.
            wanted = min(wanted, 0 if self._lanes.busy else 1)
        return max(0, min(wanted, self._batch_max))

    @property
    def _batch(self) -> int:
        """How many jobs fill the lanes and keep them busy for a while, with those that wait for one."""
        return self._lanes.free + self._flow.ahead - len(self._backlog.waiting)

    @property
    def _held(self) -> int:
        return held_by(self._lanes, self._backlog)

    def _turn(self, *, woken: bool = False) -> int:
        limit, was_idle, settled = self._limit(), not self._lanes.busy, self._turns.settled
        claimed = self._turns.turn(limit, batch=max(1, self._batch), woken=woken)
        self._turned_at = self._clock.monotonic_ns()
        self._lease_awaited = 0
        if limit:
            # What was claimed and may not run here now is given back by the next turn, and seen again.
            self._full = claimed == limit or self._turns.reach.goes_on or self._backlog.owes()
            self._seeking.claimed(claimed)
            if self._turns.reach.is_held_up:
                self._seeking.wait_for_key(self._turns.reach.wait)
        self._flow.turned(self._turned_at, self._turns.settled - settled)
        self._lanes.deal()
        self._show()
        if claimed and was_idle:
            self._turns.wake_watchers()
        return claimed

    def _seek(self) -> None:
        """No claim that is known of has left anything: hear, or look."""
        held = self._lanes.busy or self._backlog.holds()
        found = self._seeking.seek(self._company.ask(self._held), holds_none=not held)
        if found is Found.OWNED:
            self._backlog.release_all()
        if found is Found.NOTHING or self._turn(woken=found is Found.WOKEN):
            return
        if not self._turns.reach.is_held_up:
            self._seeking.claimed_none()

    def _seek_from(self) -> int:
        """While outcomes come by the millisecond the turns that settle them look as well."""
        busy = self._lanes.busy and self._flow.per_second * QUIET_NS > SECOND
        return self._turned_at + QUIET_NS if busy else 0

    def _show(self) -> None:
        """How it stands, for who judges and recalls."""
        # What was given to a loop that a job blocks has a lane, and has not begun.
        begun = sum(map(bool, self._slot.column(CURRENT))) if self._lanes.busy else 0
        self._slot[AHEAD] = len(self._backlog.waiting) + max(0, self._lanes.busy - begun)
        holds = self._backlog.holds() or self._backlog.owes()
        if self._lanes.busy or (holds and not self._absence.failures):
            self._slot[STATE] = BUSY
        else:
            self._slot[STATE] = WAITING_STATE if self._absence.failures else IDLE

    # -- the sleep

    def _until_next(self, now: int) -> float:
        """Say what to be woken for, look once more whether that has come, then the seconds to sleep."""
        away = now < self._retry_at
        due = self._retry_at if away else now + self._due_in(now)
        if self._lanes.busy:
            due = min(due, self._rounds.due_ns)
        if not away and self._must_turn():
            return 0
        if self.closed and not self._lanes.busy:
            return 0
        return max(0, due - now) / SECOND

    def _due_in(self, now: int) -> int:
        oldest = self._turns.oldest_ns
        self._bell.for_outcome = not oldest
        # The last lanes that are busy: when they have ended, nothing is waited for.
        self._bell.for_room = self._full or self.closed or self._lanes.busy <= FEW
        due = LINGER_NS if self._company.quarantine else IDLE_NS
        if oldest:
            due = max(0, OUTCOMES_NS - (self._clock.boottime_ns() - oldest))
        hears = False
        if self._turns.lacks_lease():
            due = min(due, LEASE_NS if self._lease_awaited < LEASE_TRIES else LEASE_LATER_NS)
        elif self._slot[VERDICT]:
            due = min(due, NOTICE_NS)
        elif self._room():
            seek_from = self._seek_from()
            hears = now >= seek_from
            due = min(due, max(self._seeking.due_ns, seek_from) - now)
        self._role.watch(self._seeking.fileno() if hears else None)
        return due

    # -- the end

    def _wind_down(self) -> None:
        """Descriptors of ours are lost: nothing is asked or said any more, but what runs may end."""
        self.closed = True
        ends = self._clock.monotonic_ns() + self._grace_ns
        while self._lanes.busy > len(self._outcomes) and self._clock.monotonic_ns() < ends:
            self._role.beat()
            self._clock.sleep(WIND_DOWN_SECONDS)

    def end(self) -> None:
        """What has not begun goes back, what runs ends and is settled; then this life has nothing left."""
        self.closed = True
        while True:
            self._backlog.give_back()
            self._rounds.take_back()
            if not self._lanes.busy:
                break
            self._role.leaving()  # takes the signals that come meanwhile
            self._role.beat()
            self.step()
            self._turns.give_up(at_once=self.cut)
        self._turns.end()
