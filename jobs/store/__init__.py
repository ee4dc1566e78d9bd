"""Where the rows live: one contract, one body of logic, one file of statements per database."""

from __future__ import annotations

from jobs.clock import SYSTEM, Clock
from jobs.events import Events
from jobs.settings import parse_url
from jobs.store.base import Applied, Life, Record, Store, Turn
from jobs.store.sqlite import SqliteStore

__all__ = ["Applied", "Life", "Record", "Store", "Turn", "open_store"]


def open_store(
    url: str,
    *,
    durable: bool = True,
    clock: Clock = SYSTEM,
    events: Events | None = None,
) -> SqliteStore:
    """The store a database URL names; nothing is connected before its first use.

    `durable` commits survive power loss (`synchronous=FULL`); without it a commit survives the
    death of every process but not of the machine, which is enough where the work would be done again.
    """
    target = parse_url(url)
    path = ":memory:" if target.kind == "memory" else target.path
    return SqliteStore(path, durable=durable, clock=clock, events=events or Events())
