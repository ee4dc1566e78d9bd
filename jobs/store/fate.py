"""What became of a commit whose answer was lost: asked for a while, and believed only of one server run.

A crash gives out again the numbers of transactions that never reached the disk, and so does a server that
takes over: what a number became is asked only of the incarnation that gave it out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psycopg

from jobvisor.jobs.clock import Clock

LOOK_UP_SECONDS = 10.0  # how long the fate of a lost COMMIT is asked for
LOOK_UP_EVERY = 0.25

Value = TypeVar("Value")

#: What the transaction of this incarnation and number became.
FATE = """
SELECT CASE WHEN {schema}.incarnation(false) = %s THEN pg_xact_status(%s::text::xid8) ELSE 'lost' END
"""
FATES: dict[str | None, str] = {
    "aborted": "nothing was changed",
    "lost": "and the server has crashed or another has taken over since: whether it was done is not known",
}
UNKNOWN = "whether it was done is not known"
NOT_THERE = "and the job is not there: it was not stored, or is done and gone"
GONE = b"SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = %s)"
NUMBER = "SELECT pg_current_xact_id()::text, {schema}.incarnation(false)"
INCARNATION = "SELECT {schema}.incarnation(true)"


def until_known(
    ask: Callable[[], Value | None], clock: Clock, on_wait: Callable[[], None]
) -> Value | None:
    """Ask until there is an answer; None after LOOK_UP_SECONDS. The server may be away meanwhile."""
    ends = clock.monotonic_ns() + int(LOOK_UP_SECONDS * 1e9)
    while clock.monotonic_ns() < ends:
        with suppress(psycopg.Error):
            answer = ask()
            if answer is not None:
                return answer
        on_wait()
        clock.sleep(LOOK_UP_EVERY)
    return None
