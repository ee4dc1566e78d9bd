"""How a child is killed: asked for its stack first, then from C, then killed.

That is 50 ms after its verdict at the latest. Each look takes one step, so that a child which does not
answer keeps nobody waiting.
"""

from __future__ import annotations

from jobvisor.supervisor.autopsy.autopsy import ASK, ASK_NATIVE, NATIVE_NS
from jobvisor.supervisor.board import ANSWERS
from jobvisor.supervisor.child import kill_group, send
from jobvisor.supervisor.memory import peak
from jobvisor.supervisor.parent.crew import Post

PATIENCE_NS = 50_000_000
"""From the verdict to the kill, at the most."""

WRITING_NS = 10_000_000
"""For what is written from C, also where this process was late itself and the 50 ms are over."""


def ask(post: Post, now: int) -> None:
    """The verdict is written: let the child tell what it was doing. It may be stopped and never answer."""
    post.condemned_at, post.asked_native_at = now, 0
    post.answers = post.slot[ANSWERS]
    send(post.pid, ASK)


def go_on(post: Post, now: int) -> None:
    """The next step with one that was asked."""
    if post.killed:
        return
    waited = now - post.condemned_at
    if post.slot[ANSWERS] != post.answers:
        kill(post)
    elif waited >= NATIVE_NS and not post.asked_native_at:
        post.asked_native_at = now
        send(post.pid, ASK_NATIVE)
    elif waited >= PATIENCE_NS and now - post.asked_native_at >= WRITING_NS:
        kill(post)


def kill(post: Post) -> None:
    """At once, with all that its tasks have started."""
    post.killed = True
    post.peak = peak(post.pid) or 0  # not to be had any more when it is dead
    kill_group(post.pid)
