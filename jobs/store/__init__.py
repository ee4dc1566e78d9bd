"""Where the rows live: one contract, one body of logic, one file of statements per database."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.errors import MissingExtra
from jobvisor.jobs.events import Events
from jobvisor.jobs.store.base import Applied, Life, Record, Rest, Store, Turn
from jobvisor.jobs.store.statements import statements
from jobvisor.jobs.url import parse_url
from jobvisor.jobs.values import check_prefix

__all__ = [
    "Applied",
    "Life",
    "Record",
    "Rest",
    "Store",
    "Turn",
    "load_driver",
    "open_store",
    "use_stores",
]


class Instead(Protocol):
    """Makes a store of this SQLite file that is not connected here; None for a file that may be."""

    def __call__(
        self, path: str, prefix: str, clock: Clock, events: Events, /, *, durable: bool
    ) -> Store | None: ...


class _Process:
    instead: Instead | None = None


_process = _Process()


def use_stores(instead: Instead | None) -> Callable[[], None]:
    """Let every later `open_store` of a SQLite file ask this first; call the answer to undo it.

    For a process in which a connection to a file would not be safe: see supervisor/clerk/clerk.py.
    """
    before, _process.instead = _process.instead, instead

    def undo() -> None:
        _process.instead = before

    return undo


def load_driver(url: str, prefix: str = "") -> None:
    """Import and read what this database is spoken to with; a process that forks does it once for all.

    Raises MissingExtra where it is not installed: who has SQLite needs no driver.
    """
    kind = parse_url(url).kind
    if kind != "postgresql":
        import jobvisor.jobs.store.sqlite  # noqa: PLC0415

        statements("sqlite", prefix)
    else:
        statements("postgres")  # their prefix comes with the name of the schema
        try:
            import jobvisor.jobs.store.postgres  # noqa: F401, PLC0415
        except ImportError as error:
            raise MissingExtra(
                "PostgreSQL needs psycopg; run: pip install 'jobvisor[postgres]'"
            ) from error


def open_store(
    url: str,
    *,
    durable: bool = True,
    schema: str = "jobvisor",
    prefix: str = "",
    notify: bool = True,
    patience: float = 30.0,
    idle: float = 30.0,
    application: str = "jobvisor",
    clock: Clock = SYSTEM,
    events: Events | None = None,
) -> Store:
    """The store a database URL names; nothing is connected before its first use.

    `durable` is SQLite's: its commits survive power loss (`synchronous=FULL`); without it a commit
    survives the death of every process but not of the machine, which is enough where the work would
    be done again. `prefix` begins the names of all that is ours in a database that has other tables too.
    The others are PostgreSQL's, whose own `synchronous_commit` says what a commit is:
    `schema` holds the tables, `notify` wakes idle workers and is woken, `patience` is the longest an
    answer may take in seconds, `idle` what may pass between two statements of a transaction before the
    server ends it, `application` is how the server's own views call this connection.

    Raises MissingExtra where the driver is not installed.
    """
    target = parse_url(url)
    check_prefix(prefix)  # it becomes part of every statement
    told = events or Events()
    if target.kind == "sqlite" and _process.instead is not None:
        made = _process.instead(os.path.realpath(target.path), prefix, clock, told, durable=durable)
        if made is not None:
            return made
    if target.kind == "postgresql":
        load_driver(url, prefix)
        from jobvisor.jobs.store.postgres import PostgresStore  # noqa: PLC0415

        return PostgresStore(
            url,
            schema=schema,
            prefix=prefix,
            notify=notify,
            patience=patience,
            idle=idle,
            application=application,
            clock=clock,
            events=told,
        )
    from jobvisor.jobs.store.sqlite import SqliteStore  # noqa: PLC0415

    path = ":memory:" if target.kind == "memory" else target.path
    return SqliteStore(path, durable=durable, prefix=prefix, clock=clock, events=told)
