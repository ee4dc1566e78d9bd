"""What an application shows live: the jobs that changed since it last looked, in short."""

from __future__ import annotations

from collections.abc import Iterable

from jobvisor.jobs.door import Door, id_of
from jobvisor.jobs.job import Job, Summary
from jobvisor.jobs.store.feed import Changes, Cursor

__all__ = ["Follow"]


class Follow(Door):
    """The verbs of whoever follows what changes."""

    def follow(self, seconds: float = 30) -> Cursor:
        """Ask for the feed of changes for 1 to 3,600 seconds, and again before they are over.

        The answer of the first call is where `changes` begins. Whoever changes jobs looks once a
        second whether somebody follows, so look at all you show once more when a second has passed.
        While nobody follows nothing is kept of what changes, and it costs nothing.
        """
        with self._store() as store:
            return store.follow(seconds)

    def changes(self, after: Cursor) -> Changes:
        """The ids of what is new, has changed or is gone since the cursor, and the next cursor.

        Where `is_complete` is False more may have changed than is told: look at everything anew.

        >>> from jobvisor import Client
        >>> with Client("memory://") as client:
        ...     begin = client.follow()
        ...     job = client.enqueue("app.mail:send", "a@b.c")
        ...     client.changes(begin).jobs == [job.id]
        True
        """
        with self._store() as store:
            return store.changes(after)

    def summaries(self, jobs: Iterable[int | Job]) -> list[Summary]:
        """Those of these jobs that there are, in short and in no order: no arguments, no results."""
        numbers = [id_of(job) for job in jobs]
        with self._store() as store:
            return store.summaries(numbers)
