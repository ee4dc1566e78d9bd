"""The clerks of a worker with several lanes: one for its turns, one for the clients that tasks enqueue with.

The commits of these wait for the disk, and no turn has to wait for that.
"""

from __future__ import annotations

from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.events import Events
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.supervisor.board import CLERK, CLIENTS_CLERK, TURN
from jobvisor.supervisor.clerk.client_store import ClientClerk, wait
from jobvisor.supervisor.clerk.handle import ClerkHandle
from jobvisor.supervisor.clerk.store import ClerkStore
from jobvisor.supervisor.role import Role

WAIT_SECONDS = 0.25  # between two looks of a worker at what else there is, while its clerk works


def hired(
    role: Role, path: str, prefix: str, events: Events
) -> tuple[ClerkStore, tuple[ClerkHandle, ...]]:
    """Two processes, forked from a worker before anything of a user's runs in it.

    Raises StoreUnavailable where the system has no process to give.
    """
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
    return ClerkStore(turns, events), (turns, clients)
