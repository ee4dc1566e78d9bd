"""The store of a worker: with a connection of its own, or with clerks where several jobs run at once.

That is on SQLite alone; a connection to a server takes no harm from what a neighbour does with files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from jobvisor.jobs.events import Events
from jobvisor.jobs.store import open_store
from jobvisor.jobs.store.base import WorkerStore
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.board import LANE_COUNT
from jobvisor.supervisor.role import Role

if TYPE_CHECKING:
    from jobvisor.supervisor.clerk.handle import ClerkHandle


class Opened(NamedTuple):
    """What a worker has for its database."""

    store: WorkerStore
    clerks: tuple[ClerkHandle, ...] = ()

    def while_waiting(self, do: Callable[[], None]) -> None:
        """Have this called several times a second while the store waits for a clerk."""
        for clerk in self.clerks[:1]:
            clerk.meanwhile = do

    def look(self) -> None:
        """See whether a clerk has ended that nobody has asked since."""
        for clerk in self.clerks:
            clerk.look()

    def when_gone(self, tell: Callable[[str], None]) -> None:
        """Have a clerk that is found dead told, with how it ended."""
        for clerk in self.clerks:
            clerk.on_gone = tell


def opened_for(role: Role, events: Events) -> Opened:
    """Called in the boot of a worker, before anything of a user's runs in it: it may fork.

    Raises StoreUnavailable where the system has no process to give.
    """
    config = role.seat.config
    database = config.database
    target = parse_url(database.url)
    if role.slot[LANE_COUNT] > 1 and target.kind == "sqlite":
        from jobvisor.supervisor.clerk.hiring import hired  # noqa: PLC0415 -- one lane has no clerk

        opened = Opened(*hired(role, os.path.realpath(target.path), database.prefix, events))
    else:
        opened = Opened(_opened(role, events))
    if role.tally is not None:
        opened.store.tell_waits()
    return opened


def _opened(role: Role, events: Events) -> WorkerStore:
    config = role.seat.config
    database = config.database
    return open_store(
        database.url,
        durable=False,
        schema=database.schema,
        prefix=database.prefix,
        notify=database.notify,
        idle=role.idle_seconds,
        application=f"jobvisor {config.family.name} {role.seat.name}",
        clock=role.clock,
        events=events,
    )
