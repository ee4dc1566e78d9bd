"""What a client does with limits: `client.limits`."""

from __future__ import annotations

import builtins
from collections.abc import Callable
from contextlib import AbstractContextManager

from jobvisor.jobs.door import Door, id_of
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.job import Job
from jobvisor.jobs.limit import Limit, LimitStanding, Waiting, check_limit_name, limit_of
from jobvisor.jobs.store import Store

__all__ = ["Limited", "Limits"]


class Limits:
    """The limits of one database. What is set here counts more than what a config says.

    >>> from jobvisor import Client
    >>> with Client("memory://") as client:
    ...     client.limits.set("stripe", concurrency=5, rate="100/1m").rate_text
    ...     [each.limit.name for each in client.limits.list()]
    ...     client.limits.remove("stripe")
    '100/1m'
    ['stripe']
    True
    """

    def __init__(self, store: Callable[[], AbstractContextManager[Store]]) -> None:
        self._store = store

    def list(self, *, limit: int = 1_000) -> list[LimitStanding]:
        """The limits with what runs and waits, by name; of each up to 10,000 jobs are counted."""
        with self._store() as store:
            return store.limit_standings(limit)

    def set(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        rate: str | None = None,
        burst: int | None = None,
    ) -> Limit:
        """Say what a limit is, from now on and for all families; what is not given is not limited.

        `rate` is a number and a time, such as "100/1m"; `burst` how many may start at once after a
        pause (as many as the rate gives in a second). Jobs that run go on where it is made less.
        InvalidOption names what is wrong.
        """
        limit = limit_of(name, concurrency=concurrency, rate=rate, burst=burst)
        with self._store() as store:
            store.set_limit(limit)
        return limit

    def remove(self, name: str) -> bool:
        """Take back what was said of a limit; False if nothing was.

        What a family's config says of it counts again within seconds; without that its jobs wait.
        """
        check_limit_name(name)
        with self._store() as store:
            return store.remove_limit(name)

    def unknown(self, *, most: int = 100) -> builtins.list[str]:
        """Limits that jobs wait for and of which nobody has said what they are."""
        if most < 0:
            raise InvalidOption(f"most={most} must be 0 or more")
        with self._store() as store:
            return store.unknown_limits(most)

    def waiting(self, job: int | Job) -> Waiting | None:
        """Why a job waits for its limit; None where it does not."""
        number = id_of(job)
        with self._store() as store:
            return store.waiting_for_limit(number)


class Limited(Door):
    """A client's part of it."""

    @property
    def limits(self) -> Limits:
        """The limits of this database: list, set, remove."""
        return Limits(self._store)
