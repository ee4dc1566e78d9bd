"""Where children are forked: what each is given, what it must not inherit, and how it is woken."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterable
from importlib import import_module

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.log import say
from jobvisor.supervisor.backoff import schedule
from jobvisor.supervisor.board import (
    BACKOFF,
    BORN,
    FAILURES,
    FILLED,
    LEAVE,
    LEAVE_BY,
    LEAVING_CODES,
    PID,
    POOL,
    ROLE,
    SLOT_STATE,
    Board,
)
from jobvisor.supervisor.child import send, spawn
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.crew import Post
from jobvisor.supervisor.role import Role, Seat
from jobvisor.supervisor.roster import CARETAKER, ROSTER, RoleRow, Told
from jobvisor.supervisor.signals import drain, poke
from jobvisor.supervisor.stacks import Stacks


class Nursery:
    """The pipes between parent and children, and the fork."""

    def __init__(self, board: Board, clock: Clock) -> None:
        self._board = board
        self._clock = clock
        self._pid = os.getpid()
        self._parents_own: list[int] = []
        self.stacks = Stacks(clock)
        self._lifeline_read, self._lifeline_write = _pipe()
        self._poke_read, self._poke_write = _pipe()
        self._wakes = {row.number: _pipe() for row in ROSTER.values() if row.told is Told.BY_WORD}
        for row in ROSTER.values():
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
        poke(self._wakes[CARETAKER.number][1])

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
            poke(self._wakes[post.role.number][1])

    def fork(self, post: Post, config: Config, family: int) -> None:
        """A new child for a post; where the system gives no process it is tried again later."""
        slot = post.slot
        slot.clear()
        self._board.write_note(slot.index, "")
        post.owner = secrets.randbits(62) + 1
        pool = config.workers.index(config.pool(post.pool)) if post.pool else 0
        self._board.write_pool_name(slot.index, post.pool)
        slot[ROLE], slot[POOL] = post.role.number, pool
        slot[BORN] = self._clock.monotonic_ns()
        slot[FAILURES] = post.failures
        slot[SLOT_STATE] = FILLED
        try:
            post.pid = spawn(
                lambda: self._made(post, pool, config, family).run(), self.closed_by(post)
            )
        except OSError as error:
            post.failures += 1
            slot[SLOT_STATE] = BACKOFF
            schedule(post, self._clock.monotonic_ns())
            say("fork_failed", role=post.name, error=str(error), delay="a moment")
            return
        slot[PID] = post.pid
        say("child_started", role=post.name, pid=post.pid)

    def _made(self, post: Post, pool: int, config: Config, family: int) -> Role:
        """Called in the child."""
        wake_read, _ = self._wakes.get(post.role.number, (-1, -1))
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
            caretaker_poke=self._wakes[CARETAKER.number][1],
            wake_read=wake_read,
            stacks=self.stacks.descriptor,
            pool=pool,
            generation=post.generation,
            clock=self._clock,
        )
        return role_class(post.role)(seat)

    def closed_by(self, post: Post | None = None) -> list[int]:
        """What the child of a post closes first; without a post what any other child does."""
        own = post.role.number if post is not None else None
        closed = [*self._parents_own, self._lifeline_write, self._poke_read]
        closed += [read for number, (read, _) in self._wakes.items() if number != own]
        return [descriptor for descriptor in closed if descriptor >= 0]

    def close(self) -> None:
        """The family has left."""
        for descriptor in (
            self._lifeline_read, self._lifeline_write, self._poke_read, self._poke_write,
            *(end for pipe in self._wakes.values() for end in pipe),
        ):  # fmt: skip
            if descriptor >= 0:
                os.close(descriptor)
        self.stacks.close()


def _pipe() -> tuple[int, int]:
    return os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)


def role_class(row: RoleRow) -> type[Role]:
    """The class that a row names."""
    module, name = row.made_by.split(":")
    found: type[Role] = getattr(import_module(module), name)
    return found
