"""The parent: obey signals, reap and bury the dead, let judge, reload and stop go on, fork, sleep.

It has one thread, no database and no user code, so nothing that goes wrong elsewhere can hurt it.
Signals are noted by their handlers and obeyed here, between two sleeps.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.jobs.errors import EX_CONFIG, EX_OK, EX_TEMPFAIL, ConfigError
from jobvisor.jobs.identity import unique_number
from jobvisor.jobs.log import reopen, say, set_role
from jobvisor.jobs.store import load_driver
from jobvisor.jobs.url import parse_url, shown_url
from jobvisor.supervisor.autopsy.cost import cost_at_death
from jobvisor.supervisor.board import (
    BACKOFF,
    BOOTING,
    CLAIM,
    DEGRADED,
    DRAINED,
    DRAINING,
    EMPTY,
    EXPELLED,
    LEASE_UNTIL,
    PARENT_WATCHES,
    REACHED,
    RESTARTS,
    RUN,
    SLOT_STATE,
    SLOTS,
    STARTED_AT,
    STATE,
    VERDICT,
    VERDICT_CLAIM,
    VERDICT_JOB,
    Board,
    Grave,
    Running,
    jobs_text,
    state_name,
)
from jobvisor.supervisor.child import Exit, reap, reap_strangers, send
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import ENDED, STOPPING, StateDir
from jobvisor.supervisor.ledger.ledger import leave_grave
from jobvisor.supervisor.parent.backoff import schedule, was_useful
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.first_look import FirstLook
from jobvisor.supervisor.parent.first_start import FirstStart
from jobvisor.supervisor.parent.judge import Judge
from jobvisor.supervisor.parent.nursery import Nursery
from jobvisor.supervisor.parent.preload import Preload
from jobvisor.supervisor.parent.quarantine import Quarantine
from jobvisor.supervisor.parent.reload import Attempt, Reload
from jobvisor.supervisor.parent.scale import Scale
from jobvisor.supervisor.parent.stacks import Stacks
from jobvisor.supervisor.parent.stop import Stop
from jobvisor.supervisor.parent.succession import Succession
from jobvisor.supervisor.parent.timetable import Timetable
from jobvisor.supervisor.parent.trial import Trial
from jobvisor.supervisor.parent.website import Website
from jobvisor.supervisor.parent.wishes import Wish, Wishes
from jobvisor.supervisor.signals import HANDLED, Signals
from jobvisor.supervisor.watch import Watch

if TYPE_CHECKING:
    from jobvisor.supervisor.counting.restarts import Restarts

TICK_NS = 20_000_000  # between two looks while a worker is busy
IDLE_NS = 2 * SECOND  # between two looks while none is
TERM_AGAIN_NS = SECOND // 2  # a second TERM or INT within this is the first one passed on
SURPRISED_SECONDS = 1.0  # after an error that nobody foresaw: one line a second at the most


class Parent:
    """One family, from its first fork to its last join."""

    def __init__(
        self,
        config: Config,
        *,
        drain_and_stop: bool = False,
        leashes: Sequence[int] = (),
        ends_here: bool = False,
        look: FirstLook | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        """`leashes` are descriptors that stop the family when one is readable, for a script that embeds it.

        `ends_here` says that the process has nothing to do after `run`; `look` is answered before the
        first fork.
        """
        self._look = look
        self._config = config
        self._clock = clock
        self._leashes = leashes
        self._ends_here = ends_here
        self._board = Board()
        self._board[DRAINING] = int(drain_and_stop)
        self._board[STARTED_AT] = clock.now_ms()
        if parse_url(config.database.url).kind == "postgresql":
            self._board[LEASE_UNTIL] = 0  # there is none before the first heartbeat
        self._family = unique_number()
        self._state = StateDir(config.family.state_dir, clock)
        self._wishes = Wishes(self._state)
        self._crew = Crew(self._board)
        self._judge = Judge(self._crew, clock)
        self._stacks = Stacks(self._state.ledgers, clock)
        self._watch = Watch(self._board, PARENT_WATCHES, clock)
        self._first_start = FirstStart(self._crew, clock)
        self._code = EX_OK
        self._lock = -1
        self._term_at = 0  # when the first TERM or INT came
        self._restarts: Restarts | None = None
        self._woke = clock.monotonic_ns()

    # -- the whole life

    def run(self) -> int:
        """Fork, watch and stop; the exit code (0, 69, 75, 78)."""
        # Before the forks, so that they share its memory.
        load_driver(self._config.database.url, self._config.database.prefix)
        self._state.create()
        self._lock = self._state.lock()
        self._wishes.clear()  # what an earlier family did not live to see
        set_role("parent")
        self._signals = Signals(HANDLED)
        self._begin_to_count(self._config)
        self.prepare()
        self._nursery.keep_from_children([self._lock, *self._leashes, *self._signals.descriptors()])
        try:
            if self._look is not None:
                self._look.answer([self._signals.fileno(), *self._leashes])
        except ConfigError:
            self._close()
            raise
        self._poll = select.poll()
        for descriptor in (self._signals.fileno(), self._nursery.fileno(), *self._leashes):
            self._poll.register(descriptor, select.POLLIN)
        name, database = self._config.family.name, shown_url(self._config.database.url)
        say("started", family=name, workers=self._scale.total, database=database)
        self._woke = self._clock.monotonic_ns()
        self._first_start.begin()
        while not self._is_over():
            try:
                self._round()
            except Exception:  # noqa: BLE001 -- the border of the parent: a surprise must not orphan a family
                say("surprised", error=traceback.format_exc())
                self._clock.sleep(SURPRISED_SECONDS)  # what failed may be the poll itself
        self.leave_graves()
        self._state.note(self._lock, f"{ENDED} {self.exit_code}")
        self._close()
        say("stopped", family=self._config.family.name, code=self.exit_code)
        return self.exit_code

    def prepare(self) -> None:
        """Posts and pipes, before the first fork."""
        self._nursery = Nursery(self._board, self._clock)
        crew, nursery, board, clock = self._crew, self._nursery, self._board, self._clock
        self._scale = Scale(crew, nursery, board)
        self._succession = Succession(crew, nursery, clock, wanted=self._scale.wanted)
        self._quarantine = Quarantine(crew, nursery, board, clock)
        self._preload = Preload(crew, nursery, board, clock, of_our_own=self._ends_here)
        self._reload = Reload(crew, nursery, board, clock, self._succession, try_out=self._try_out)
        self._website = Website(crew, nursery, clock)
        self._timetable = Timetable(crew, nursery, board, clock)
        self._stop = Stop(self._crew, self._nursery, self._judge, self._board, self._clock)
        self._scale.furnish(self._config)
        self._preload.furnish(self._config)
        self._website.furnish(self._config)

    def _round(self) -> None:
        """All that the parent does, between two sleeps."""
        self._obey(self._signals.take())
        self._reap()
        self._judge.note_lateness(self._clock.monotonic_ns() - self._woke)
        self._judge.look(self._config.family)
        self._preload.go_on(self._judge.judges_from)
        self.proceed()
        self._stacks.go_on()
        self._fill_posts()
        self._wait()

    def _is_over(self) -> bool:
        return self._stop.is_over(hopeless=self._code != EX_OK)

    @property
    def exit_code(self) -> int:
        """As of now: 0 drained, 75 something had to be killed, else why the start came to nothing."""
        return self._code or (EX_TEMPFAIL if self._stop.forced else EX_OK)

    # -- signals

    def _obey(self, numbers: list[int]) -> None:
        for number in numbers:
            action = self._actions.get(number)
            if action is not None:
                action(self)

    def _on_term(self) -> None:
        """The first lets everybody finish, the second kills; both within a moment are one.

        A shell, systemd and the person at the terminal may each pass on the same wish.
        """
        now = self._clock.monotonic_ns()
        if not self._term_at:
            self._term_at = now
            self._begin_stop()
        elif now - self._term_at > TERM_AGAIN_NS:
            self._stop.force("force")

    def _on_quit(self) -> None:
        self._begin_stop()
        self._stop.force("force")

    def _on_hangup(self) -> None:
        if self._stop.stage == RUN:
            self._reload.read(self._config)

    def _on_more(self) -> None:
        self._scale_first_pool(1)

    def _on_fewer(self) -> None:
        self._scale_first_pool(-1)

    def _scale_first_pool(self, more: int) -> None:
        pool = self._config.workers[0]
        if self._stop.stage == RUN:
            self._scale.set(self._config, pool, self._scale.least(pool.name) + more)

    def _on_scale(self) -> None:
        """Commands have written how many workers they want in which pools."""
        for wish in self._wishes.take():
            self._grant(wish)

    def _grant(self, wish: Wish) -> None:
        pools = {pool.name: pool for pool in self._config.workers}
        if self._stop.stage != RUN:
            wish.answer(stopping=True)
        elif wish.pool not in pools:
            wish.answer(refused=f"there is no pool {wish.pool}; the family has {', '.join(pools)}")
        else:
            pool = pools[wish.pool]
            workers = wish.workers(self._scale.least(pool.name))
            refused = self._scale.set(self._config, pool, workers)
            wish.answer(**({"refused": refused} if refused else self._scale.told(pool.name)))

    def _on_reopen(self) -> None:
        reopen()
        for post in self._crew.living():
            send(post.pid, signal.SIGUSR1)
        self._preload.note_rotation()

    def _on_dump(self) -> None:
        for post in self._crew:
            slot = post.slot
            state, job = state_name(slot), jobs_text(slot)
            say("dump", name=post.name, pid=post.pid or "none", state=state, job=job)
        self._stacks.ask(self._crew)

    _actions: dict[int, Callable[[Parent], None]] = {  # noqa: RUF012 -- never changed
        signal.SIGTERM: _on_term,
        signal.SIGINT: _on_term,
        signal.SIGQUIT: _on_quit,
        signal.SIGHUP: _on_hangup,
        signal.SIGTTIN: _on_more,
        signal.SIGTTOU: _on_fewer,
        signal.SIGWINCH: _on_scale,
        signal.SIGUSR1: _on_reopen,
        signal.SIGUSR2: _on_dump,
    }

    # -- the dead

    def _reap(self) -> None:
        self._preload.hear()  # first: a worker may have died of which its template has just told
        for post in self._crew.living():
            ended = reap(post.pid)
            if ended is not None:
                self._bury(post, ended)
        if (os.getpid() == 1 or self._preload.takes_orphans) and not self._preload.awaits_child:
            reap_strangers([self._reload.trial_pid, *(post.pid for post in self._crew)])

    def _bury(self, post: Post, ended: Exit) -> None:
        """A child has ended: its grave for the caretaker, and the question who takes its place."""
        slot, now = post.slot, self._clock.monotonic_ns()
        self._note_grave(post, _grave(post, ended, now))
        self._nursery.wake_caretaker()
        _say_ended(post, ended)
        ready = slot[STATE] != BOOTING
        self._first_start.note_death(post, ready=ready)
        self._reload.note_death(post, self._config, ready=ready)
        last = self._stop.note_death(post, ended)
        asked = bool(post.leaving) and not last
        expected = asked or (ready and ended.status == 0) or (post.condemned_at and ready)
        fine = expected or was_useful(post, now, ready=ready)
        post.failures = 0 if fine else post.failures + 1
        # A life may be shorter than a look.
        post.has_worked = not post.failures and (post.has_worked or bool(slot[REACHED]))
        post.bad_boots = post.bad_boots + 1 if not ready or ended.status == EX_CONFIG else 0
        slot[SLOT_STATE] = BACKOFF if post.failures else EMPTY
        gone = self._preload.note_death(post, ended) or post.departs
        post.vacate()
        if gone:
            self._crew.remove(post)
            return
        if self._stop.stage == RUN:
            self._board[RESTARTS] += 1
            if self._restarts is not None:
                self._restarts.note(slot, ended)
        schedule(post, now)

    def _note_grave(self, post: Post, grave: Grave) -> None:
        """Every death of who runs jobs has room, since nobody is forked without it; others' may have none.

        A caretaker that cannot boot for hours would else write over the deaths it has to settle.
        """
        jobs_at_stake = sum(1 for other in self._crew.living() if other.role.runs_jobs)
        if post.role.runs_jobs or self._board.has_room_for_graves(jobs_at_stake + 1):
            self._board.bury(grave)

    def leave_graves(self) -> None:
        """Tell the next family what nobody could settle: it must not charge a job that we killed."""
        for grave in self._board.unsettled():
            with suppress(OSError):  # then it is a death that nobody saw
                leave_grave(self._state.ledgers, grave)

    # -- where the family stands

    def proceed(self) -> None:
        """Reload one by one, drain, stop in stages, give up where nothing can come of it."""
        if self._stop.stage == RUN:
            self._code = self._first_start.exit_code(self._config)
            self._come_back_as_another()
            self._take_up(self._reload.tried())
            self._reload.go_on(self._config)
            self._scale.go_on(self._config)
            self._quarantine.go_on(self._config)
            self._timetable.go_on(self._config)
            # Nothing may be left to do because nobody can do anything: that is told first.
            if self._code or (self._board[DRAINED] and self._first_start.ever_ready):
                self._begin_stop()
        else:
            self._reload.give_up()
        self._board[DEGRADED] = sum(1 for post in self._crew if post.failures)
        self._stop.go_on()

    def _take_up(self, config: Config | None) -> None:
        if config is not None:
            self._website.follow(self._config, config)
            self._timetable.follow(self._config, config)
            self._config = config
            self._preload.follow()
            self._reload.begin(config)
            self._scale.follow(config)

    def _begin_to_count(self, config: Config) -> None:
        """Have counters before the first child is forked that is to count; once there they stay."""
        if config.web.enabled and self._board.counters is None:
            # What a family that counts nothing need not import; its children share it.
            from jobvisor.supervisor.counting import restarts, tally  # noqa: F401, PLC0415
            from jobvisor.supervisor.counting.counters import Counters  # noqa: PLC0415

            self._board.counters = counters = Counters(SLOTS)
            self._restarts = restarts.Restarts(counters.parents())

    def _try_out(self, config: Config) -> Attempt:
        """New code is imported by its template, which then forks the new workers, or by a trial."""
        self._begin_to_count(config)
        candidate = self._preload.try_out(config, self._family)
        return candidate or Trial(config, self._nursery.closed_by(), self._clock)

    def _come_back_as_another(self) -> None:
        """Declared dead by somebody: all children finish what they run and leave; a new family follows."""
        if self._board[EXPELLED] != self._family:
            return
        say("expelled", family=self._config.family.name)
        self._family = unique_number()
        self._succession.replace_all(self._config.family.stop_timeout_ms)
        self._timetable.begin_anew()

    def _begin_stop(self) -> None:
        if self._stop.stage == RUN:
            self._state.note(self._lock, STOPPING)
            self._preload.begin_stop()
        self._stop.begin(self._config.family.stop_timeout_ms)

    # -- forks

    def _fill_posts(self) -> None:
        now = self._clock.monotonic_ns()
        for post in self._crew:
            if now >= post.spawn_at and self._is_to_be_filled(post):
                config = self._reload.config_of(post) or self._config
                lanes = config.pool(post.pool).concurrency if post.pool else 0
                if not self._crew.give_lanes(post, lanes):
                    post.spawn_at = now + SECOND
                    continue
                post.generation = self._crew.generation + post.on_trial
                self._preload.fork(post, config, self._family)

    def _is_to_be_filled(self, post: Post) -> bool:
        return not post.pid and not self._preload.holds(post) and self.may_fork(post)

    def may_fork(self, post: Post) -> bool:
        """A stopping family needs no worker, and one whose dead nobody settles gets no more of them.

        Who settles them is always let in.
        """
        settles = post.role.kept_while_stopping
        if self._stop.stage != RUN:
            return settles and not self._is_over()
        others = len(self._crew.living()) + self._preload.awaits_child
        return settles or self._board.has_room_for_graves(others + 1)

    # -- sleep

    def _wait(self) -> None:
        """Until a signal, a poke, or the next thing to look at; then say if that was far too late."""
        if self._is_over():
            return
        now = self._clock.monotonic_ns()
        until = self._next_look(now, watches=self._watch.goes_on())
        milliseconds = max(0, -((now - until) // 1_000_000))
        for descriptor, _event in self._poll.poll(milliseconds):
            self._heard(descriptor)
        self._woke = self._clock.monotonic_ns()
        self._judge.note_lateness(self._woke - now - milliseconds * 1_000_000)

    def _heard(self, descriptor: int) -> None:
        if descriptor == self._nursery.fileno():
            self._nursery.drain()
        elif descriptor in self._leashes:
            self._poll.unregister(descriptor)
            self._begin_stop()

    def _next_look(self, now: int, *, watches: bool) -> int:
        watchful = watches or self._stacks.is_busy() or self._stop.stage != RUN
        until = self._judge.next_look(now) or now + (TICK_NS if watchful else IDLE_NS)
        until = min(until, self._preload.until)
        for post in self._crew:
            slot = post.slot
            if not post.pid:
                if self._is_to_be_filled(post):
                    until = min(until, max(post.spawn_at, now + TICK_NS // 20))
            elif not post.condemned_at and not post.notice and (deadline := slot.first_deadline()):
                until = min(until, max(deadline, self._judge.judges_from, now))
            elif slot[STATE] == BOOTING:
                until = min(until, now + SECOND // 10)
        return until

    def _close(self) -> None:
        self._signals.close(ends_here=self._ends_here)
        self._nursery.close()
        os.close(self._lock)
        sys.stderr.flush()


def _grave(post: Post, ended: Exit, now: int) -> Grave:
    slot = post.slot
    current = next(iter(slot.running()), Running(0, slot[CLAIM]))
    cpu_ms, rss_bytes = cost_at_death(slot, ended, post.peak)
    return Grave(
        owner=post.owner,
        pid=post.pid,
        slot=slot.index,
        status=ended.status,
        verdict_job=slot[VERDICT_JOB],
        verdict_claim=slot[VERDICT_CLAIM],
        verdict=slot[VERDICT],
        at=now,
        current=current.job,
        claim=current.claim,
        role=post.role.number,
        cpu_ms=cpu_ms,
        rss_bytes=rss_bytes,
    )


def _say_ended(post: Post, ended: Exit) -> None:
    jobs = jobs_text(post.slot)
    unfinished = jobs != "none" and not post.leaving
    died = (ended.status or unfinished) and not post.condemned_at
    line = "child_died" if died else "child_ended"
    say(line, role=post.name, pid=ended.pid, cause=ended.cause, job=jobs)
