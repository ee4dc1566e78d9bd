"""The stacks of the children, asked for by USR2: each writes its own into its file, the parent logs it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.log import say
from jobvisor.supervisor.autopsy.autopsy import ASK, read_answer
from jobvisor.supervisor.board import ANSWERS
from jobvisor.supervisor.child import send
from jobvisor.supervisor.parent.crew import Post

PATIENCE_NS = SECOND  # for a child that sits in native code, is stopped, or boots


@dataclass(frozen=True, slots=True)
class _Asked:
    """One that has not answered yet."""

    post: Post
    owner: int
    answers: int  # that it had given before
    until: int


class Stacks:
    """Who was asked and has not answered yet."""

    def __init__(self, folder: str, clock: Clock) -> None:
        """`folder` is where the children have their files."""
        self._folder = folder
        self._clock = clock
        self._asked: list[_Asked] = []

    def ask(self, posts: Iterable[Post]) -> None:
        """Let these tell where they stand."""
        until = self._clock.monotonic_ns() + PATIENCE_NS
        living = [post for post in posts if post.pid]
        self._asked = [_Asked(post, post.owner, post.slot[ANSWERS], until) for post in living]
        for post in living:
            send(post.pid, ASK)

    def is_busy(self) -> bool:
        """Whether `go_on` has something to do soon."""
        return bool(self._asked)

    def go_on(self) -> None:
        """Log what has been written since the last look."""
        now = self._clock.monotonic_ns()
        self._asked = [each for each in self._asked if not self._is_over(each, now)]

    def _is_over(self, asked: _Asked, now: int) -> bool:
        post = asked.post
        if post.owner != asked.owner or not post.pid:
            return True
        if post.slot[ANSWERS] != asked.answers:
            for stack in read_answer(self._folder, asked.owner).stacks:
                job = stack.job or "none"
                say("stack", name=post.name, pid=post.pid, job=job, trace=stack.text)
            return True
        if now > asked.until:
            say("stack_missing", name=post.name, pid=post.pid)
            return True
        return False
