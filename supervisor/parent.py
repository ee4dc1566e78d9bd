"""The parent: start, watch, reap, judge, replace, stop.

It has one thread, no database and no user code, so nothing that goes wrong elsewhere can hurt it.
Signals are noted by their handlers and obeyed here, between two sleeps.
"""

from __future__ import annotations

import os
import random
import secrets
import select
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.jobs.errors import EX_CONFIG, EX_OK, EX_TEMPFAIL, EX_UNAVAILABLE, ConfigError
from jobvisor.jobs.log import configure, reopen, say, set_role
from jobvisor.jobs.settings import parse_url, shown_url
from jobvisor.jobs.store import load_driver
from jobvisor.supervisor.board import (
    BACKOFF,
    BEAT,
    BOOTING,
    BORN,
    CANCEL_CLAIM,
    CANCEL_JOB,
    CARETAKER,
    CLAIM,
    CURRENT,
    DEADLINE,
    DEGRADED,
    DISMISSED,
    DRAIN,
    DRAINED,
    DRAINING,
    EMPTY,
    EXPELLED,
    FILLED,
    GRAVES_SETTLED,
    GRAVES_WRITTEN,
    LEASE_UNTIL,
    MEMORY,
    NOW,
    PARENT_WATCHES,
    PID,
    POOL,
    REACHED,
    RESTARTS,
    ROLE,
    ROLES,
    RUN,
    SCALE,
    SLOT_STATE,
    SLOTS,
    STARTED,
    STARTED_AT,
    STATE,
    STATES,
    STOP,
    TURN,
    VERDICT,
    VERDICT_CLAIM,
    VERDICT_CODES,
    VERDICT_JOB,
    WORKER,
    Board,
    Grave,
    Slot,
)
from jobvisor.supervisor.caretaker import FINAL_SECONDS, Caretaker
from jobvisor.supervisor.child import Exit, kill_group, reap, reap_strangers, send, spawn
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.memory import resident_of
from jobvisor.supervisor.role import Role, Seat
from jobvisor.supervisor.signals import HANDLED, Signals, drain, poke
from jobvisor.supervisor.worker import Worker

TICK_NS = 20_000_000  # between two looks while a worker is busy
IDLE_NS = 2 * SECOND  # between two looks while none is
OVERSLEPT_NS = SECOND  # a judge this late was stopped or suspended, and its children with it
MEMORY_EVERY_NS = 200_000_000
STUCK_NS = 10 * SECOND  # in its own transaction, without a beat
BEAT_LEAST_NS = 3 * SECOND  # an idle caretaker beats once a second, whatever `dead_after` is
USEFUL_NS = 10 * SECOND  # a child that lived this long is replaced at once
BACKOFF_FIRST, BACKOFF_CAP = 0.1, 30.0  # seconds
BOOTS_BEFORE_WRONG = 3
SURPRISED_SECONDS = 1.0  # after an error that nobody foresaw: one line a second at the most


@dataclass(slots=True, eq=False)
class Place:
    """Where a child belongs: its slot, its role, and how it has been going there."""

    slot: Slot
    role: int
    pool: int = 0
    pid: int = 0  # 0: nobody is here
    owner: int = 0
    failures: int = 0  # deaths and failed forks in a row
    bad_boots: int = 0  # of them, those that began and did not become ready
    spawn_at: int = 0
    leaving: str = ""  # why it was asked to leave: stop, reload, scale
    leave_by: int = 0
    killed: bool = False
    ready_seen: bool = False
    cancel_since: int = 0
    cancel_of: tuple[int, int] = field(default=(0, 0))

    @property
    def name(self) -> str:
        """As in logs: `worker 2`, `caretaker`."""
        role = ROLES[self.role]
        return role if self.role == CARETAKER else f"{role} {self.slot.index}"


class Parent:
    """One family, from its first fork to its last join."""

    def __init__(
        self,
        config: Config,
        *,
        drain_and_stop: bool = False,
        leash: int = -1,
        ends_here: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        """`leash` is a descriptor whose end of file stops the family, for a script that embeds it.

        `ends_here` says that the process has nothing to do after `run`.
        """
        self._config = config
        self._clock = clock
        self._leash = leash
        self._ends_here = ends_here
        self._board = Board()
        self._board[DRAINING] = int(drain_and_stop)
        self._board[STARTED_AT] = clock.now_ms()
        if parse_url(config.database.url).kind == "postgresql":
            self._board[LEASE_UNTIL] = 0  # there is none before the first heartbeat
        self._family = secrets.randbits(62) + 1
        self._places: list[Place] = []
        self._free = list(range(SLOTS - 1, -1, -1))
        self._stage = RUN
        self._stop_by = 0
        self._forced = False
        self._code = EX_OK
        self._parted = False  # the caretaker has left for good
        self._ever_ready = False
        self._ever_reached = False
        self._failed_boots = 0
        self._renewing: list[Place] = []  # waiting for their turn in a reload
        self._dumping: list[Place] = []  # waiting for theirs to write their stack
        self._judge_from = 0
        self._memory_at = 0
        self._began = clock.monotonic_ns()
        self._woke = self._began

    # -- the whole life

    def run(self) -> int:
        """Fork, watch and stop; the exit code (0, 69, 75, 78)."""
        load_driver(self._config.database.url)  # before the forks, so that they share its memory
        state = StateDir(self._config.family.state_dir, self._clock)
        state.create()
        self._pid = os.getpid()
        self._lock = state.lock()
        set_role("parent")
        self._signals = Signals(HANDLED)
        self._lifeline_read, self._lifeline_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poke_read, self._poke_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._care_read, self._care_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._poll = select.poll()
        for descriptor in (self._signals.fileno(), self._poke_read, self._leash):
            if descriptor >= 0:
                self._poll.register(descriptor, select.POLLIN)
        self._furnish()
        database = shown_url(self._config.database.url)
        say("started", family=self._config.family.name, workers=self._scale(), database=database)
        self._woke = self._clock.monotonic_ns()
        while not self._finished():
            try:
                self._round()
            except Exception:  # noqa: BLE001 -- the border of the parent: a surprise must not orphan a family
                say("surprised", error=traceback.format_exc())
                self._clock.sleep(SURPRISED_SECONDS)  # what failed may be the poll itself
        self._close()
        say("stopped", family=self._config.family.name, code=self._exit_code())
        return self._exit_code()

    def _round(self) -> None:
        """All that the parent does, between two sleeps."""
        self._obey(self._signals.take())
        self._reap()
        self._judge()
        self._proceed()
        self._dump_next()
        self._replace()
        self._wait()

    def _furnish(self) -> None:
        """A place for each child of the configuration."""
        self._add_place(CARETAKER, 0)
        for index, pool in enumerate(self._config.workers):
            for _ in range(pool.processes):
                self._add_place(WORKER, index)
        self._board[SCALE] = self._scale()

    def _add_place(self, role: int, pool: int) -> Place:
        place = Place(self._board.slots[self._free.pop()], role, pool)
        place.slot.clear()
        self._places.append(place)
        return place

    def _remove_place(self, place: Place) -> None:
        place.slot.clear()
        self._places.remove(place)
        self._free.append(place.slot.index)
        self._free.sort(reverse=True)

    def _workers(self) -> list[Place]:
        return [place for place in self._places if place.role == WORKER]

    def _scale(self) -> int:
        """How many workers the first pool is to have."""
        staying = [p for p in self._workers() if p.pool == 0 and p.leaving != "scale"]
        return len(staying)

    def _exit_code(self) -> int:
        return self._code or (EX_TEMPFAIL if self._forced else EX_OK)

    # -- signals

    def _obey(self, numbers: list[int]) -> None:
        for number in numbers:
            action = self._actions.get(number)
            if action is not None:
                action(self)

    def _term(self) -> None:
        if self._stage == RUN:
            self._begin_stop()
        elif self._stage == DRAIN:
            self._force("force")

    def _quit(self) -> None:
        if self._stage == RUN:
            self._begin_stop()
        if self._stage == DRAIN:
            self._force("force")

    def _reload(self) -> None:
        if self._stage != RUN:
            return
        path = self._config.path
        say("reloading", path=path or "without a file: the children alone")
        if path is not None:
            try:
                config = Config.load(path)
                self._check_unchangeable(config)
                configure(config.log.level, config.log.format, file=config.log.file)
            except ConfigError as error:
                say("reload_refused", error=str(error))
                return
            self._config = config
        self._refurnish()

    def _check_unchangeable(self, new: Config) -> None:
        old = self._config
        if new.family.state_dir != old.family.state_dir:
            raise ConfigError(
                f"[supervisor] state_dir changed from {old.family.state_dir} to "
                f"{new.family.state_dir}; that needs a stop and a start"
            )
        if (new.database.url, new.database.schema) != (old.database.url, old.database.schema):
            raise ConfigError("[database] url or schema changed; that needs a stop and a start")

    def _refurnish(self) -> None:
        """Places as the new configuration wants them; those that stay are renewed one by one."""
        for index in range(max(len(self._config.workers), 1 + max(p.pool for p in self._places))):
            has = [p for p in self._workers() if p.pool == index and p.leaving != "scale"]
            pools = self._config.workers
            wanted = pools[index].processes if index < len(pools) else 0
            for place in has[wanted:]:
                self._ask_to_leave(place, "scale")
            for _ in range(min(wanted - len(has), len(self._free))):
                self._add_place(WORKER, index)
        self._renewing = [place for place in self._places if place.pid and not place.leaving]
        for place in self._places:
            place.spawn_at = 0  # what kept dying may do so no longer with the new configuration
        self._board[SCALE] = self._scale()

    def _more(self) -> None:
        if self._stage == RUN and self._free:
            self._add_place(WORKER, 0)
            self._scaled()

    def _fewer(self) -> None:
        staying = [p for p in self._workers() if p.pool == 0 and p.leaving != "scale"]
        if self._stage == RUN and len(staying) > 1:
            self._ask_to_leave(staying[-1], "scale")
            self._scaled()

    def _scaled(self) -> None:
        self._board[SCALE] = self._scale()
        say("scaled", count=self._scale())
        poke(self._care_write)

    def _reopen_logs(self) -> None:
        reopen()
        for place in self._places:
            if place.pid:
                send(place.pid, signal.SIGUSR1)

    def _dump(self) -> None:
        self._dumping = list(self._places)

    def _dump_next(self) -> None:
        """One child in each round: stacks written at the same time could not be told apart."""
        if not self._dumping:
            return
        place = self._dumping.pop(0)
        slot = place.slot
        state, job = STATES[slot[STATE]], slot[CURRENT] or "none"
        say("dump", name=place.name, pid=place.pid or "none", state=state, job=job)
        if place.pid:
            send(place.pid, signal.SIGUSR2)

    _actions: dict[int, Callable[[Parent], None]] = {  # noqa: RUF012 -- never changed
        signal.SIGTERM: _term,
        signal.SIGINT: _term,
        signal.SIGQUIT: _quit,
        signal.SIGHUP: _reload,
        signal.SIGTTIN: _more,
        signal.SIGTTOU: _fewer,
        signal.SIGUSR1: _reopen_logs,
        signal.SIGUSR2: _dump,
    }

    # -- the dead

    def _reap(self) -> None:
        for place in list(self._places):
            if place.pid:
                ended = reap(place.pid)
                if ended is not None:
                    self._bury(place, ended)
        if os.getpid() == 1:
            reap_strangers(place.pid for place in self._places)

    def _bury(self, place: Place, ended: Exit) -> None:
        """A child has ended: its grave for the caretaker, and the question who takes its place."""
        slot, now = place.slot, self._clock.monotonic_ns()
        self._board.bury(
            Grave(
                place.owner,
                place.pid,
                slot.index,
                ended.status,
                slot[VERDICT_JOB],
                slot[VERDICT_CLAIM],
                slot[VERDICT],
                now,
                slot[CURRENT],
                slot[CLAIM],
            )
        )
        poke(self._care_write)
        self._ever_reached = self._ever_reached or bool(slot[REACHED])
        self._say_ended(place, ended)
        ready = slot[STATE] != BOOTING
        useful = bool(slot[STARTED]) or (ready and now - slot[BORN] > USEFUL_NS)
        # The caretaker's last settling is over when it says so or its time is: what it could not
        # reach stays in the files. A death in the middle of it is a death like any other.
        last = place.role == CARETAKER and place.leaving == "stop"
        if last and (ended.status == 0 or place.killed):
            self._parted = True
            self._forced = self._forced or place.killed
        asked = bool(place.leaving) and not last
        expected = asked or (ready and ended.status == 0) or (place.killed and ready)
        place.failures = 0 if useful or expected else place.failures + 1
        refused = not ready or ended.status == EX_CONFIG
        place.bad_boots = place.bad_boots + 1 if refused else 0
        if not ready and not place.leaving and not self._ever_ready:
            self._failed_boots += 1
        place.pid = 0
        slot[SLOT_STATE] = BACKOFF if place.failures else EMPTY
        gone = place.leaving == "scale" and place.role == WORKER
        place.leaving, place.killed, place.ready_seen, place.cancel_of = "", False, False, (0, 0)
        if gone:
            self._remove_place(place)
            return
        if self._stage == RUN:
            self._board[RESTARTS] += 1
        self._schedule(place, now)

    def _say_ended(self, place: Place, ended: Exit) -> None:
        job = place.slot[CURRENT]
        line = "child_ended" if ended.status == 0 and not job else "child_died"
        if place.killed or place.leaving:
            line = "child_ended"
        say(line, role=place.name, pid=ended.pid, cause=ended.cause, job=job or "none")

    def _schedule(self, place: Place, now: int) -> None:
        if not place.failures:
            place.spawn_at = now
            return
        delay = min(BACKOFF_FIRST * 2 ** min(place.failures, 20), BACKOFF_CAP)
        delay *= random.uniform(0.5, 1.0)
        place.spawn_at = now + int(delay * SECOND)
        say("child_backoff", role=place.name, delay=f"{delay:.1f} s")

    # -- judgement

    def _judge(self) -> None:
        now = self._clock.monotonic_ns()
        self._note_oversleep(now - self._woke)  # it can be stopped outside of its sleep as well
        if now < self._judge_from:
            return
        for place in self._places:
            if not place.pid:
                continue
            self._judge_boot(place, now)
            if place.role == WORKER:
                self._judge_worker(place, now)
            else:
                self._judge_caretaker(place, now)
            if place.leaving and place.leave_by and now > place.leave_by:
                self._condemn(place, place.leaving)
        if now >= self._memory_at:
            self._memory_at = now + MEMORY_EVERY_NS
            self._judge_memory()

    def _judge_caretaker(self, place: Place, now: int) -> None:
        limit = max(self._config.family.dead_after_ms * 1_000_000 // 3, BEAT_LEAST_NS)
        if place.slot[BEAT] and now - place.slot[BEAT] > limit:
            self._condemn(place, "stuck")

    def _judge_boot(self, place: Place, now: int) -> None:
        slot = place.slot
        if slot[STATE] != BOOTING:
            if not place.ready_seen:
                place.ready_seen = True
                self._ever_ready = self._ever_ready or place.role == WORKER
            return
        if now - slot[BORN] > self._config.family.boot_timeout_ms * 1_000_000:
            self._condemn(place, "boot")

    def _judge_worker(self, place: Place, now: int) -> None:
        slot = place.slot
        if slot[STATE] == TURN and slot[BEAT] and now - slot[BEAT] > STUCK_NS:
            self._condemn(place, "stuck")
            return
        # The deadline was written before `current`, and the next one comes after it is 0 again:
        # read between two equal looks at `current` it is this job's.
        current, claim = slot[CURRENT], slot[CLAIM]
        deadline = slot[DEADLINE]
        if not current or slot[CURRENT] != current or slot[CLAIM] != claim:
            return
        if deadline and now >= deadline:
            self._condemn(place, "timeout", current, claim)
        elif (slot[CANCEL_JOB], slot[CANCEL_CLAIM]) == (current, claim):
            if place.cancel_of != (current, claim):
                place.cancel_of, place.cancel_since = (current, claim), now
            elif now - place.cancel_since > self._config.family.cancel_grace_ms * 1_000_000:
                self._condemn(place, "cancel", current, claim)

    def _judge_memory(self) -> None:
        """One look at all processes for all jobs that have a limit."""
        limited = [
            (place, place.slot[CURRENT], place.slot[CLAIM], place.slot[MEMORY])
            for place in self._workers()
            if place.pid and place.slot[MEMORY] and place.slot[CURRENT]
        ]
        resident = resident_of({place.pid for place, *_ in limited}) if limited else {}
        for place, current, claim, limit in limited:
            same = (place.slot[CURRENT], place.slot[CLAIM]) == (current, claim)
            if same and resident[place.pid] > limit:
                self._condemn(place, "memory", current, claim)

    def _condemn(self, place: Place, reason: str, job: int = 0, claim: int = 0) -> None:
        """The verdict first, then the kill: who settles finds out why, and whom it was about."""
        if place.killed:
            return
        slot = place.slot
        slot[VERDICT_JOB], slot[VERDICT_CLAIM] = job, claim
        slot[VERDICT] = VERDICT_CODES[reason]
        place.killed = True
        say(
            "child_verdict", role=place.name, pid=place.pid, reason=reason,
            job=job or slot[CURRENT] or "none",
        )  # fmt: skip
        kill_group(place.pid)

    # -- where the family stands

    def _proceed(self) -> None:
        """Reload one by one, drain, stop in stages, give up where nothing can come of it."""
        if self._stage == RUN:
            self._give_up_if_hopeless()
            self._come_back_as_another()
            self._renew_next()
            # Nothing may be left to do because nobody can do anything: that is told first.
            if self._board[DRAINED] and self._ever_ready:
                self._begin_stop()
        elif self._stage == DRAIN and self._clock.monotonic_ns() > self._stop_by:
            self._force("stop")
        self._board[DEGRADED] = sum(1 for place in self._places if place.failures)
        if self._stage != RUN and not any(place.pid for place in self._workers()):
            self._dismiss_caretaker()

    def _give_up_if_hopeless(self) -> None:
        reached = self._ever_reached or any(place.slot[REACHED] for place in self._places)
        self._ever_reached = reached
        boots = max(BOOTS_BEFORE_WRONG, len(self._workers()))
        caretaker = self._places[0]
        if not self._ever_ready and self._failed_boots >= boots:
            say("hopeless", boots=self._failed_boots)
            self._code = EX_CONFIG
        elif not reached and caretaker.bad_boots >= BOOTS_BEFORE_WRONG:
            say("hopeless", boots=caretaker.bad_boots)
            self._code = EX_CONFIG
        elif not reached and self._elapsed_ms() > self._config.database.connect_timeout_ms:
            say("unreachable", database=shown_url(self._config.database.url))
            self._code = EX_UNAVAILABLE
        if self._code:
            self._begin_stop()

    def _elapsed_ms(self) -> int:
        return (self._clock.monotonic_ns() - self._began) // 1_000_000

    def _come_back_as_another(self) -> None:
        """Declared dead by somebody: all children finish what they run and leave; a new family follows."""
        if self._stage != RUN or self._board[EXPELLED] != self._family:
            return
        say("expelled", family=self._config.family.name)
        self._family = secrets.randbits(62) + 1
        for place in self._places:
            if place.pid and not place.leaving:
                self._ask_to_leave(place, "reload")

    def _renew_next(self) -> None:
        """A reload replaces one child at a time, and only while all the others are there."""
        waiting = [place for place in self._places if place.leaving == "reload" or not place.pid]
        booting = [p for p in self._places if p.pid and p.slot[STATE] == BOOTING]
        if not self._renewing or waiting or booting:
            return
        place = self._renewing.pop(0)
        if place in self._places and place.pid and not place.leaving:
            self._ask_to_leave(place, "reload")

    def _ask_to_leave(self, place: Place, why: str) -> None:
        if not place.pid:
            if why == "scale":
                self._remove_place(place)
            return
        place.leaving = why
        place.leave_by = (
            self._clock.monotonic_ns() + self._config.family.stop_timeout_ms * 1_000_000
        )
        if place.role == WORKER:
            send(place.pid, signal.SIGTERM)
        else:
            self._board[DISMISSED] = place.owner
            poke(self._care_write)

    def _begin_stop(self) -> None:
        """Everybody finishes what runs; closing the lifeline wakes whoever waits."""
        if self._stage != RUN:
            return
        self._stage = DRAIN
        self._board[STOP] = DRAIN
        timeout_ms = self._config.family.stop_timeout_ms
        self._stop_by = self._clock.monotonic_ns() + timeout_ms * 1_000_000
        os.close(self._lifeline_write)
        self._lifeline_write = -1
        poke(self._care_write)
        say("draining", timeout=f"{timeout_ms / 1000:g} s")

    def _force(self, reason: str) -> None:
        """Whoever still runs is killed, its job given back."""
        self._stage = NOW
        self._board[STOP] = NOW
        running = [place for place in self._workers() if place.pid]
        if running:
            self._forced = True
            say("killing", count=len(running))
        for place in running:
            self._condemn(place, reason)

    def _dismiss_caretaker(self) -> None:
        caretaker = self._places[0]
        if caretaker.pid and self._board[DISMISSED] != caretaker.owner:
            self._board[DISMISSED] = caretaker.owner
            poke(self._care_write)
            caretaker.leaving = "stop"
            caretaker.leave_by = self._clock.monotonic_ns() + int((FINAL_SECONDS + 1) * SECOND)

    def _finished(self) -> bool:
        """All have left; a caretaker that died before the last settling was forked once more."""
        if self._stage == RUN or any(place.pid for place in self._places):
            return False
        unsettled = self._board[GRAVES_WRITTEN] - self._board[GRAVES_SETTLED]
        # The last grave is the caretaker's own, and a settled family leaves it alone.
        given_up = self._parted or self._places[0].failures >= 2
        return unsettled <= 1 or self._code != EX_OK or given_up

    # -- forks

    def _replace(self) -> None:
        now = self._clock.monotonic_ns()
        for place in self._places:
            if not place.pid and now >= place.spawn_at and self._may_fork(place):
                self._spawn(place)

    def _may_fork(self, place: Place) -> bool:
        """A stopping family needs no worker, and one whose dead nobody settles gets no more of them.

        The caretaker is always let in: it is the one that settles.
        """
        if self._stage != RUN:
            return place.role == CARETAKER and not self._finished()
        living = sum(1 for other in self._places if other.pid)
        return place.role == CARETAKER or self._board.has_room_for_graves(living + 1)

    def _spawn(self, place: Place) -> None:
        slot = place.slot
        slot.clear()
        place.owner = secrets.randbits(62) + 1
        slot[ROLE], slot[POOL] = place.role, place.pool
        slot[BORN] = self._clock.monotonic_ns()
        slot[SLOT_STATE] = FILLED
        place.leave_by = 0
        try:
            place.pid = spawn(lambda: self._role(place).run(), self._not_inherited(place))
        except OSError as error:
            place.failures += 1
            slot[SLOT_STATE] = BACKOFF
            self._schedule(place, self._clock.monotonic_ns())
            say("fork_failed", role=place.name, error=str(error), delay="a moment")
            return
        slot[PID] = place.pid
        say("child_started", role=place.name, pid=place.pid)

    def _role(self, place: Place) -> Role:
        """Called in the child."""
        seat = Seat(
            config=self._config,
            board=self._board,
            slot=place.slot,
            owner=place.owner,
            family=self._family,
            name=place.name,
            parent=self._pid,
            lifeline=self._lifeline_read,
            parent_poke=self._poke_write,
            caretaker_poke=self._care_write,
            caretaker_read=self._care_read if place.role == CARETAKER else -1,
            clock=self._clock,
        )
        if place.role == CARETAKER:
            return Caretaker(seat)
        return Worker(seat, self._config.workers[place.pool])

    def _not_inherited(self, place: Place) -> list[int]:
        closing = [self._lock, self._lifeline_write, self._poke_read, *self._signals.descriptors()]
        closing.append(self._leash)
        if place.role != CARETAKER:
            closing.append(self._care_read)
        return [descriptor for descriptor in closing if descriptor >= 0]

    # -- sleep

    def _wait(self) -> None:
        """Until a signal, a poke, or the next thing to look at; then say if that was far too late."""
        if self._finished():
            return
        now = self._clock.monotonic_ns()
        busy = bool(self._board.busy())
        self._board[PARENT_WATCHES] = int(busy)
        if not busy:
            # A worker that turned busy before it read the word just written did not poke.
            busy = bool(self._board.busy())
        until = self._next_look(now, busy)
        milliseconds = max(0, -((now - until) // 1_000_000))
        for descriptor, _event in self._poll.poll(milliseconds):
            self._heard(descriptor)
        self._woke = self._clock.monotonic_ns()
        self._note_oversleep(self._woke - now - milliseconds * 1_000_000)

    def _note_oversleep(self, late: int) -> None:
        """This process was stopped or suspended, and its children perhaps with it."""
        if late > OVERSLEPT_NS:
            self._judge_from = self._clock.monotonic_ns() + SECOND
            say("overslept", seconds=f"{late / SECOND:.1f}")

    def _heard(self, descriptor: int) -> None:
        if descriptor == self._poke_read:
            drain(descriptor)
        elif descriptor == self._leash:
            self._poll.unregister(descriptor)
            if self._stage == RUN:
                self._begin_stop()

    def _next_look(self, now: int, busy: bool) -> int:
        watchful = busy or self._dumping or self._stage != RUN
        until = now + (TICK_NS if watchful else IDLE_NS)
        for place in self._places:
            slot = place.slot
            if not place.pid:
                if self._may_fork(place):
                    until = min(until, max(place.spawn_at, now + TICK_NS // 20))
            elif slot[CURRENT] and slot[DEADLINE] and not place.killed:
                until = min(until, max(slot[DEADLINE], self._judge_from, now))
            elif slot[STATE] == BOOTING:
                until = min(until, now + SECOND // 10)
        return until

    def _close(self) -> None:
        self._signals.close(ends_here=self._ends_here)
        for descriptor in (
            self._lifeline_read, self._poke_read, self._poke_write, self._care_read,
            self._care_write, self._lock,
        ):  # fmt: skip
            os.close(descriptor)
        sys.stderr.flush()
