"""The skeleton of a child: boot, step until stopped, shut down; a step returns how long to sleep."""

from __future__ import annotations

import os
import select
import signal
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.jobs.errors import EX_CONFIG, EX_OK, JobsError, StoreError
from jobvisor.jobs.identity import HOST, Identity
from jobvisor.jobs.log import reopen, say, set_role
from jobvisor.jobs.store import Life
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.application import Application
from jobvisor.supervisor.autopsy.autopsy import StackWriter
from jobvisor.supervisor.board import (
    ANSWERS,
    BEAT,
    BOOTING,
    GOING,
    LANE_COUNT,
    LEAVE,
    LEAVE_BY,
    OWNER,
    RUN,
    STATE,
    STOP,
    TICKS,
    VERDICT,
    Board,
    Slot,
)
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.roster import RoleRow
from jobvisor.supervisor.signals import PASSED_ON, Signals, drain, poke

if TYPE_CHECKING:
    from jobvisor.supervisor.counting.tally import Tally

SLEEP_MOST = 3600.0  # seconds; poll takes no more than 24 days
STAND_STILL = 0.1  # for a kill that does not come: the parent may have died
IDLE_LEAST, IDLE_MOST = 2.0, 30.0  # seconds for which a transaction may stand still


@dataclass(frozen=True, slots=True)
class Seat:
    """What a child is given at its fork, and all it is given."""

    config: Config
    board: Board
    slot: Slot
    owner: int
    family: int
    name: str
    parent: int
    """The pid of the parent."""
    lifeline: int
    """Readable (end of file) when the parent stops or is dead."""
    parent_poke: int
    caretaker_poke: int
    wake_read: int = -1
    """Readable when the parent or a sibling wants this child; -1 for a role that is told by a signal."""
    pool: int = 0
    """Which of the configured pools, for a worker."""
    generation: int = 0
    """The number of the configuration within its family."""
    application: Application | None = None
    """What the template that this child was forked from has imported; None where it imports by itself."""
    clock: Clock = SYSTEM


class Role(ABC):
    """One child. Subclasses say what a boot, a step and the end are."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self.board = seat.board
        self.slot = seat.slot
        self.clock = seat.clock
        self.lifeline_cut = False
        self._sigterm_seen = False
        self.log_rotated = False
        self.tally: Tally | None = None
        """What this child counts, where its family counts and it is one that does."""
        self._poll = select.poll()
        self._watched: int | None = None

    def run(self) -> int:
        """The whole life; its exit code."""
        set_role(self.seat.name)
        self.slot[STATE] = BOOTING
        self.slot[OWNER] = self.seat.owner
        self.signals = Signals([signal.SIGTERM, signal.SIGUSR1])
        folder = StateDir(self.seat.config.family.state_dir).ledgers
        self.stacks = StackWriter(
            folder, self.seat.owner, self.seat.name, answered=self._answered, clock=self.clock
        )
        self.stacks.listen(all_threads=self.slot[LANE_COUNT] > 1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [*PASSED_ON, signal.SIGTERM])
        identity = Identity.mine()
        self.slot[TICKS] = identity.start_ticks
        self.life = Life(self.seat.owner, self.seat.family, self.seat.name, HOST, *identity)
        self._poll.register(self.seat.lifeline, select.POLLIN)
        self._poll.register(self.signals.fileno(), select.POLLIN)
        if self.seat.wake_read >= 0:
            self._poll.register(self.seat.wake_read, select.POLLIN)
        try:
            self.boot()
        except JobsError as error:
            # A user's module that cannot be imported; a database tells all in its one sentence.
            trace = None if isinstance(error, StoreError) else error.__cause__
            say("boot_failed", role=self.seat.name, error=str(error), trace=trace)
            self.board.write_note(self.slot.index, str(error))
            return EX_CONFIG if error.exit_code == EX_CONFIG else 1
        poke(self.seat.parent_poke)
        poke(self.seat.caretaker_poke)
        while not self.leaving():
            self.beat()
            self.sleep(self.step())
        self.shut_down()
        self.stacks.forget()
        return EX_OK

    def begin_to_count(self, knows: Callable[[str], object] = lambda _task: True) -> None:
        """In a boot: have a tally, where the family is to count; of a task that it `knows` by its name."""
        counters = self.board.counters
        if counters is not None and self.seat.config.web.enabled:
            # Imported by the parent where anybody counts, and nowhere else.
            from jobvisor.supervisor.counting.tally import Tally  # noqa: PLC0415

            block = counters.block(self.slot.index)
            self.tally = Tally(block, self.seat.owner, knows)

    def _answered(self) -> None:
        """Called in a signal handler. After a verdict the code stands still until the kill, which is near."""
        self.slot[ANSWERS] += 1
        if self.slot[VERDICT]:
            self.clock.sleep(STAND_STILL)

    @abstractmethod
    def boot(self) -> None:
        """Become ready; a JobsError here means that this child cannot work as configured."""

    @abstractmethod
    def leaving(self) -> bool:
        """Whether the next step must not be taken."""

    @abstractmethod
    def step(self) -> float:
        """One bounded piece of work; seconds until the next one is due (0 = at once)."""

    @abstractmethod
    def shut_down(self) -> None:
        """Leave nothing behind."""

    def beat(self) -> None:
        """Show that this process moves."""
        self.slot[BEAT] = self.clock.monotonic_ns()

    def hear(self, descriptor: int) -> None:
        """Let this descriptor end every sleep, too; whoever owns it empties it."""
        self._poll.register(descriptor, select.POLLIN)

    def watch(self, descriptor: int | None) -> None:
        """Let this descriptor end a sleep, instead of the one before."""
        if descriptor == self._watched:
            return
        if self._watched is not None:
            self._poll.unregister(self._watched)
        if descriptor is not None:
            self._poll.register(descriptor, select.POLLIN)
        self._watched = descriptor

    def sleep(self, seconds: float) -> None:
        """Wait for the time, a signal, the lifeline or a watched descriptor, whichever is first."""
        if seconds <= 0:
            return
        # Rounded up: a wait that ends too early would be followed by a second, empty one.
        milliseconds = int(min(seconds, SLEEP_MOST) * 1000 + 0.999)
        self._slept(self._poll.poll(milliseconds))

    def pause(self, seconds: float) -> None:
        """Wait for the whole time unless this child is to leave: what was awaited is known to be away.

        A sleep would end at once, and again, while a watched descriptor has something to tell.
        """
        ends = self.clock.monotonic_ns() + int(seconds * SECOND)
        quiet = self._quiet()
        while not self.leaving():
            left = ends - self.clock.monotonic_ns()
            if left <= 0:
                return
            self.beat()
            found = quiet.poll(min(left // 1_000_000 + 1, 1000))
            self._slept(found)
            if any(descriptor == self.seat.lifeline for descriptor, _ in found):
                quiet.unregister(self.seat.lifeline)

    def wait_for(self, descriptor: int, events: int, seconds: float) -> None:
        """Until a descriptor is ready for these events of `select.poll`, no longer than this.

        A signal and the lifeline are heard meanwhile, nothing else is: what else would end a sleep is
        looked at when this is over.
        """
        quiet = self._quiet()
        quiet.register(descriptor, events)
        found = quiet.poll(int(seconds * 1000) + 1)
        self._slept([event for event in found if event[0] != descriptor])

    def _quiet(self) -> select.poll:
        quiet = select.poll()
        quiet.register(self.signals.fileno(), select.POLLIN)
        if not self.lifeline_cut:
            quiet.register(self.seat.lifeline, select.POLLIN)
        return quiet

    def glance(self) -> None:
        """Whether the parent is still there, without waiting."""
        self._heard(self._poll.poll(0))

    def _slept(self, events: list[tuple[int, int]]) -> None:
        self._heard(events)
        if any(descriptor == self.signals.fileno() for descriptor, _ in events):
            # A signal that a task handles by itself (SIGALRM, for a time limit of its own) leaves a byte
            # and is noted nowhere: nobody else takes it, and it would end every later sleep at once.
            drain(self.signals.fileno())

    def _heard(self, events: list[tuple[int, int]]) -> None:
        for descriptor, _ in events:
            if descriptor == self.seat.lifeline:
                # It stays readable for ever: heard once, or every sleep would be none.
                self._poll.unregister(descriptor)
                self.lifeline_cut = True
                if self.alone:
                    say("orphaned")
            elif descriptor == self.seat.wake_read:
                drain(descriptor)

    def told_to_leave(self) -> bool:
        """Whether this child was sent SIGTERM; on the way the logs are reopened where that was asked."""
        if self.signals.pending():
            for number in self.signals.take():
                if number == signal.SIGUSR1:
                    reopen()
                    self.log_rotated = True
                else:
                    self._sigterm_seen = True
        return self._sigterm_seen

    def ends_soon(self) -> bool:
        """Whether a child that is to leave has `stop_timeout` or less for it: its jobs had better end."""
        if self.board[STOP] != RUN or self.lifeline_cut:
            return True
        if not self.slot[LEAVE] and not self.slot[GOING]:
            return True  # by somebody's own signal, of which nothing is known
        ends = self.slot[LEAVE_BY]
        soon = self.clock.monotonic_ns() + self.seat.config.family.stop_timeout_ms * 1_000_000
        return bool(ends) and soon >= ends

    @property
    def idle_seconds(self) -> float:
        """How long a transaction may stand still: a rescue that needs its locks must not wait longer."""
        return min(max(self.seat.config.family.dead_after_ms / 1000, IDLE_LEAST), IDLE_MOST)

    @property
    def alone(self) -> bool:
        """Whether the parent is dead: the lifeline was cut without its word, or while it stopped."""
        return self.lifeline_cut and (self.board[STOP] == RUN or os.getppid() != self.seat.parent)


def role_class(row: RoleRow) -> type[Role]:
    """The class that a row names."""
    module, name = row.made_by.split(":")
    found: type[Role] = getattr(import_module(module), name)
    return found


def import_for_lanes(config: Config) -> None:
    """What a worker of several lanes needs, with asyncio (30 ms, 2 MB): once for all that are forked here."""
    import_module("jobvisor.supervisor.several.worker")
    if parse_url(config.database.url).kind == "sqlite":
        import_module("jobvisor.supervisor.clerk.hiring")
