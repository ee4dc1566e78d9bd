"""A client of whatever store a test has."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jobvisor.jobs.client import Client
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.store import Store
from tests.clock import MovableClock
from tests.store.database import Database, PostgresDatabase, SqliteDatabase


class Staged:
    """One store, for every client of this process."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def enqueued(self, payload: Payload, /) -> None:
        """Nothing runs here by itself."""


@contextmanager
def client_of(store: Store, clock: MovableClock) -> Iterator[Client]:
    """A client that plays in this store."""
    before, Client.stage = Client.stage, Staged(store)
    try:
        with Client("memory://", clock=clock) as client:
            yield client
    finally:
        Client.stage = before


def client_to(database: Database) -> Client:
    """A client with a connection of its own, as another program has it."""
    if isinstance(database, PostgresDatabase):
        return Client(database.url, schema=database.schema, prefix=database.prefix)
    assert isinstance(database, SqliteDatabase)
    return Client(f"sqlite:///{database.path}", clock=database.clock, durability="normal")
