"""When a post is filled again: at once after a useful life, with growing delay after useless ones."""

from __future__ import annotations

import random

from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.log import say
from jobvisor.supervisor.board import BORN
from jobvisor.supervisor.parent.crew import Post

USEFUL_NS = 10 * SECOND  # a ready child that lived this long is replaced at once
DELAY_FIRST, DELAY_CAP = 0.1, 30.0  # seconds
DOUBLINGS_MAX = 20


def was_useful(post: Post, now: int, *, ready: bool) -> bool:
    """Whether the life that ends here ran a job, or was there long enough to have run one."""
    return bool(post.slot.started) or (ready and now - post.slot[BORN] > USEFUL_NS)


def schedule(post: Post, now: int) -> None:
    """Set when the next child of this post is forked; jittered, so that not all come at once."""
    if not post.failures:
        post.spawn_at = now
        return
    delay = min(DELAY_FIRST * 2 ** min(post.failures, DOUBLINGS_MAX), DELAY_CAP)
    delay *= random.uniform(0.5, 1.0)
    post.spawn_at = now + int(delay * SECOND)
    say("child_backoff", role=post.name, delay=f"{delay:.1f} s")
