"""Where children are forked: what each is given, what it must not inherit, and how it is woken."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.identity import unique_number
from jobvisor.jobs.log import say
from jobvisor.supervisor.board import (
    BACKOFF,
    BORN,
    FAILURES,
    FAMILY,
    FILLED,
    LANE_COUNT,
    LEAVE,
    LEAVE_BY,
    LEAVING_CODES,
    LIFE,
    PID,
    POOL,
    ROLE,
    SLOT_STATE,
    Board,
)
from jobvisor.supervisor.child import send, spawn
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.backoff import schedule
from jobvisor.supervisor.parent.crew import Post
from jobvisor.supervisor.role import Role, Seat, import_for_lanes, role_class
from jobvisor.supervisor.roster import CARETAKER, TEMPLATE, WORKER, Told
from jobvisor.supervisor.signals import drain, poke


class Nursery:
    """The pipes between parent and children, and the fork."""

    def __init__(self, board: Board, clock: Clock) -> None:
        self._board = board
        self._clock = clock
        self._pid = os.getpid()
        self._parents_own: list[int] = []
        self._lifeline_read, self._lifeline_write = _pipe()
        self._poke_read, self._poke_write = _pipe()
        self._wake_caretaker = _pipe()
        self._wakes: dict[int, int] = {}  # of templates, by slot: there may be two at a time
        for row in (WORKER, CARETAKER):
            role_class(row)  # so that all children of the role share its memory

    def keep_from_children(self, descriptors: Iterable[int]) -> None:
        """Descriptors of the parent that a child closes first: the lock, its signals, the leashes."""
        self._parents_own += descriptors

    def fileno(self) -> int:
        """Readable when a child has something to show on the board; `drain` it then."""
        return self._poke_read

    def drain(self) -> None:
        """The board is looked at now: forget who asked for it."""
        drain(self._poke_read)

    def wake_caretaker(self) -> None:
        """There is something for it to do: a death, a change of the family."""
        poke(self._wake_caretaker[1])

    def wake(self, post: Post) -> None:
        """There is something on the board for a child that is told by a word."""
        own = self._wakes.get(post.slot.index)
        poke(self._wake_caretaker[1] if own is None else own)

    def cut_lifeline(self) -> None:
        """Every child that waits wakes up and sees the stop flag."""
        os.close(self._lifeline_write)
        self._lifeline_write = -1

    def ask_to_leave(
        self, post: Post, why: str, leave_by: int = 0, *, departs: bool = False
    ) -> None:
        """One child is to leave, in the manner of its role; past `leave_by` it is killed, 0 is never.

        `departs`: nobody takes its place in this post, which ends with it.
        """
        post.leaving, post.leave_by, post.departs = why, leave_by, departs
        post.slot[LEAVE_BY] = leave_by
        post.slot[LEAVE] = LEAVING_CODES[why]
        if post.role.told is Told.BY_SIGNAL:
            send(post.pid, signal.SIGTERM)
        else:
            self.wake(post)

    def fork(self, post: Post, config: Config, family: int) -> None:
        """A new child for a post; where the system gives no process it is tried again later."""
        slot = post.slot
        if slot[LANE_COUNT] > 1:
            with suppress(Exception):  # as the child will find, and say
                import_for_lanes(config)
        self.open_slot(post, config, family)
        try:
            wake_read = self._wake_of(post)
            try:
                pid = spawn(
                    lambda: self._made(post, config, family, wake_read).run(), self.closed_by(post)
                )
            finally:
                if _is_template(post):
                    os.close(wake_read)
        except OSError as error:
            self.forget(post)
            post.failures += 1
            slot[SLOT_STATE] = BACKOFF
            schedule(post, self._clock.monotonic_ns())
            say("fork_failed", role=post.name, error=str(error), delay="a moment")
            return
        self.hand_over(post, pid)

    def open_slot(self, post: Post, config: Config, family: int) -> None:
        """The slot of a post as a new life finds it; who was to have it before is not to enter any more."""
        slot = post.slot
        slot.clear()
        self._board.write_note(slot.index, "")
        post.owner = unique_number()
        pool = config.workers.index(config.pool(post.pool)) if post.pool else 0
        self._board.write_pool_name(slot.index, post.pool)
        slot[ROLE], slot[POOL] = post.role.number, pool
        slot[BORN] = self._clock.monotonic_ns()
        slot[FAILURES] = post.failures
        slot[FAMILY], slot[LIFE] = family, post.owner
        slot[SLOT_STATE] = FILLED

    def hand_over(self, post: Post, pid: int) -> None:
        """The post is this child's, which was forked for it."""
        post.pid = pid
        post.slot[PID] = pid
        say("child_started", role=post.name, pid=pid)

    def forget(self, post: Post) -> None:
        """Its child is gone, or never came."""
        wake = self._wakes.pop(post.slot.index, None)
        if wake is not None:
            os.close(wake)

    def _wake_of(self, post: Post) -> int:
        """What a child is woken by: a pipe of its own for a template; -1 where a signal does it."""
        if _is_template(post):
            read, self._wakes[post.slot.index] = _pipe()
            return read
        return self._wake_caretaker[0] if post.role is CARETAKER else -1

    def _made(self, post: Post, config: Config, family: int, wake_read: int) -> Role:
        """Called in the child."""
        seat = Seat(
            config=config,
            board=self._board,
            slot=post.slot,
            owner=post.owner,
            family=family,
            name=post.name,
            parent=self._pid,
            lifeline=self._lifeline_read,
            parent_poke=self._poke_write,
            caretaker_poke=self._wake_caretaker[1],
            wake_read=wake_read,
            pool=post.slot[POOL],
            generation=post.generation,
            clock=self._clock,
        )
        return role_class(post.role)(seat)

    def closed_by(self, post: Post | None = None) -> list[int]:
        """What the child of a post closes first; without a post what any other child does."""
        closed = [*self._parents_own, self._lifeline_write, self._poke_read, *self._wakes.values()]
        if post is None or post.role is not CARETAKER:
            closed.append(self._wake_caretaker[0])
        return [descriptor for descriptor in closed if descriptor >= 0]

    def close(self) -> None:
        """The family has left."""
        for descriptor in (
            self._lifeline_read, self._lifeline_write, self._poke_read, self._poke_write,
            *self._wake_caretaker, *self._wakes.values(),
        ):  # fmt: skip
            if descriptor >= 0:
                os.close(descriptor)


def _is_template(post: Post) -> bool:
    return post.role.number == TEMPLATE.number


def _pipe() -> tuple[int, int]:
    return os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
