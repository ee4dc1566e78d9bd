"""A client's way to its database: settings found once, one connection for all threads, anew after a fork."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.codec import NamedCodec, named_codec
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.events import Events
from jobvisor.jobs.job import Job
from jobvisor.jobs.keys import DURABILITIES
from jobvisor.jobs.log import is_logged, log_event
from jobvisor.jobs.payload import Codec, Payload
from jobvisor.jobs.registry import Registry, registry
from jobvisor.jobs.settings import Settings, find
from jobvisor.jobs.store import Store, open_store
from jobvisor.jobs.task import Defaults
from jobvisor.jobs.url import home_of, parse_url
from jobvisor.jobs.values import check_prefix

__all__ = ["Door", "Stage", "id_of"]


class Stage(Protocol):
    """A database for a test, in place of the one that a client names."""

    store: Store

    def enqueued(self, payload: Payload, /) -> None:
        """Called when one job or many have been stored, encoded by this."""


class Door:
    """Settings, codec and connection of a client; its verbs are in the classes made of it."""

    stage: ClassVar[Stage | None] = None
    """Where every client of this process plays instead of its own database: `jobvisor.testing`."""

    patience_s: ClassVar[float] = 30.0
    """How long PostgreSQL may take for one answer."""

    def __init__(
        self,
        url: str | None = None,
        *,
        codec: Codec | None = None,
        hold: bool | None = None,
        defaults: Defaults | None = None,
        durability: str | None = None,
        schema: str | None = None,
        prefix: str | None = None,
        notify: bool | None = None,
        settings: Settings | None = None,
        registry: Registry = registry,
        clock: Clock = SYSTEM,
    ) -> None:
        """What is not given here is found by one rule: environment, then the file, then the default.

        `durability` is "full" (an acknowledged job survives a power cut) or "normal", on SQLite;
        `schema` and `notify` are PostgreSQL's. `prefix` begins the names of our tables, beside those
        of an application; the family has the same. `codec` encrypts what is stored; where the family
        is to read it, `[database] codec` names it for both. `hold=False` connects for each call and
        leaves nothing open in between, as a client made in a worker does by itself on SQLite.
        `settings` are what a `Config` says (`config.settings`), in place of all that is found.
        """
        found = settings or find(url)
        self._settings: Settings = found
        self._durable = _is_durable(durability or found.durability)
        self._schema = found.schema if schema is None else schema
        self._prefix = found.prefix if prefix is None else check_prefix(prefix)
        self._notify = found.notify if notify is None else notify
        self._defaults = defaults or found.defaults
        self._payload = Payload(codec or named_codec(found.codec, found.path))
        self._registry = registry
        self._hold = found.hold if hold is None else hold
        self._clock = clock
        self._events = Events()
        self._events.subscribe(log_event, hears=is_logged)
        self._exports = 0
        self._lock_of = (os.getpid(), threading.Lock())
        self._store_of: tuple[int, Store] | None = None

    @property
    def url(self) -> str:
        """The database this client speaks to."""
        return self._settings.url

    @cached_property
    def _own_home(self) -> str:
        if parse_url(self.url).kind == "memory":
            return f"memory {id(self)}"
        return home_of(self.url, self._schema, self._prefix)

    @property
    def home(self) -> str:
        """The tables that this client speaks to, in one text."""
        return self._own_home if self.stage is None else "stage"

    @contextmanager
    def _store(self) -> Iterator[Store]:
        store = self._own_store()
        try:
            yield store
        finally:
            self._rest()

    def _own_store(self) -> Store:
        if self.stage is not None:
            self.stage.store.payload = self._payload
            return self.stage.store
        with self._lock:
            if self._store_of is None or self._store_of[0] != os.getpid():
                if self._store_of is not None:
                    self._store_of[1].close()  # of the process we were forked from: only forgotten
                store = self._open()
                store.payload = self._payload
                self._store_of = (os.getpid(), store)
            return self._store_of[1]

    def _open(self) -> Store:
        """The store of this process; nothing is connected yet."""
        return open_store(
            self.url,
            durable=self._durable,
            schema=self._schema,
            prefix=self._prefix,
            notify=self._notify,
            patience=self.patience_s,
            clock=self._clock,
            events=self._events,
        )

    @property
    def _lock(self) -> threading.Lock:
        """This process's own: a thread that held it at a fork is not in the copy to open it."""
        if self._lock_of[0] != os.getpid():
            self._lock_of = (os.getpid(), threading.Lock())
        return self._lock_of[1]

    def _rest(self) -> None:
        """No connection stays open in between where none is to be held."""
        store_of = self._store_of  # once: another thread may close this client
        if not self._hold and not self._exports and self.stage is None and store_of is not None:
            store_of[1].close()

    def _load_codec(self) -> None:
        """A codec that cannot be imported is the configuration's fault, and not a payload's."""
        if isinstance(self._payload.codec, NamedCodec):
            self._payload.codec.load()

    def another(self) -> Self:
        """A client of the same database with a connection of its own; of `memory://` this one itself.

        For a thread whose calls must not wait for those of others. What is not `self` is to be closed.
        """
        if self.stage is not None or parse_url(self.url).kind == "memory":
            return self
        return type(self)(
            codec=self._payload.codec,
            hold=True,
            defaults=self._defaults,
            durability="full" if self._durable else "normal",
            schema=self._schema,
            prefix=self._prefix,
            notify=self._notify,
            settings=self._settings,
            registry=self._registry,
            clock=self._clock,
        )

    def close(self) -> None:
        """Disconnect; a later call connects again."""
        with self._lock:
            store_of, self._store_of = self._store_of, None
        # Outside the lock: it waits for another thread's transaction, and a fork meanwhile must
        # not leave the copy with a lock that nobody opens.
        if store_of is not None:
            store_of[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def id_of(job: Any) -> int:
    """The id where a job is meant; the next call would say less well what is wrong with it."""
    if isinstance(job, Job):
        return job.id
    if isinstance(job, bool) or not isinstance(job, int):
        raise InvalidOption(
            f"{shown(job)} is no job; give its id, which is a whole number, or the Job that "
            "enqueue returned"
        )
    return job


def _is_durable(durability: str) -> bool:
    if durability not in DURABILITIES:
        raise InvalidOption(f"durability={durability!r} must be one of {', '.join(DURABILITIES)}")
    return durability == "full"
