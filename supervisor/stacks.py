"""The stacks of the children, asked for by USR2: each writes its own into shared memory, the parent logs it.

A child writes from C (faulthandler), so that one that is stuck in native code tells its stack as well.
Such a text is no log line; in shared memory it waits for the parent, who makes one of it.
"""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterable

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.log import say
from jobvisor.supervisor.child import send
from jobvisor.supervisor.crew import Post

STACK_MAX = 65_536  # bytes; a hundred threads are cut by faulthandler itself
PATIENCE_NS = SECOND  # for a child that is stopped, or boots


class Stacks:
    """Who is to be asked yet, and who is being asked: one child at a time, since all write to one place."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.descriptor = _memory()
        """What the children write to."""
        self._waiting: list[Post] = []
        self._asked: tuple[str, int] | None = None
        self._until = 0
        self._size = 0

    def ask(self, posts: Iterable[Post]) -> None:
        """Let these tell where they stand."""
        self._waiting = [post for post in posts if post.pid]

    def is_busy(self) -> bool:
        """Whether `go_on` has something to do soon."""
        return bool(self._waiting) or self._asked is not None

    def go_on(self) -> None:
        """Log what the last one wrote, then ask the next."""
        if self._asked is not None and not self._collect(*self._asked):
            return
        self._asked = None
        while self._waiting:
            post = self._waiting.pop(0)
            if post.pid:
                os.ftruncate(self.descriptor, 0)
                os.lseek(self.descriptor, 0, os.SEEK_SET)  # of all who share it
                self._asked, self._size = (post.name, post.pid), 0
                self._until = self._clock.monotonic_ns() + PATIENCE_NS
                send(post.pid, signal.SIGUSR2)
                return

    def _collect(self, name: str, pid: int) -> bool:
        """Whether it is over with this one: all is written when nothing came since the last look."""
        before, self._size = self._size, os.fstat(self.descriptor).st_size
        if self._size and self._size == before:
            text = os.pread(self.descriptor, STACK_MAX, 0).decode(errors="replace")
            say("stack", name=name, pid=pid, trace=text)
            return True
        return self._clock.monotonic_ns() > self._until

    def close(self) -> None:
        """The family has ended."""
        os.close(self.descriptor)


def _memory() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("jobvisor stacks")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
