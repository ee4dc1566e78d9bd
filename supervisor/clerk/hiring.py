"""The store of a worker: with a connection of its own, or with clerks where several jobs run at once.

That is on SQLite alone; a connection to a server takes no harm from what a neighbour does with files.
There are two clerks then, one for the turns and one for the clients that tasks enqueue with: their commits
wait for the disk, and no turn has to wait for that.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.events import Events
from jobvisor.jobs.store import open_store
from jobvisor.jobs.store.base import WorkerStore
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.board import CLERK, CLIENTS_CLERK, LANE_COUNT, TURN
from jobvisor.supervisor.clerk.client_store import ClientClerk, wait
from jobvisor.supervisor.clerk.handle import ClerkHandle
from jobvisor.supervisor.clerk.store import ClerkStore
from jobvisor.supervisor.role import Role

WAIT_SECONDS = 0.25  # between two looks of a worker at what else there is, while its clerk works


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
        return _hired(role, os.path.realpath(target.path), database.prefix, events)
    store = open_store(
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
    return Opened(store)


def _hired(role: Role, path: str, prefix: str, events: Events) -> Opened:
    seat = role.seat
    # What a clerk does not need of its worker's.
    closing = {seat.lifeline, seat.parent_poke, seat.caretaker_poke, *role.signals.descriptors()}

    def make(durable: bool) -> SqliteStore:
        return SqliteStore(path, durable=durable, prefix=prefix, clock=role.clock, events=Events())

    def beat() -> None:
        if role.slot[TURN]:  # of what it does outside of a turn nobody judges how long it takes
            role.slot[TURN] = role.clock.monotonic_ns()

    def wait_as_role(descriptor: int, ready: int) -> None:
        role.wait_for(descriptor, ready, WAIT_SECONDS)

    try:
        turns = ClerkHandle(path, make, beat=beat, wait=wait_as_role, closing=closing)
        clients = ClerkHandle(path, make, wait=wait, closing=closing)
    except OSError as error:
        raise StoreUnavailable(f"no process for the database of this worker: {error}") from error
    role.slot[CLERK], role.slot[CLIENTS_CLERK] = turns.pid, clients.pid
    ClientClerk(clients, prefix).serve()
    return Opened(ClerkStore(turns, events), (turns, clients))
