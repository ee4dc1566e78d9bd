"""Requests that may come twice, because an answer was lost: the second one makes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

from jobvisor.jobs.door import Door
from jobvisor.jobs.errors import InvalidOption, JobNotFound, StoreUnavailable
from jobvisor.jobs.job import Job, NewJob
from jobvisor.jobs.store import Store
from jobvisor.jobs.task import Call

__all__ = ["Requests", "Responded"]


class Responded(NamedTuple):
    """What a request has come to."""

    jobs: list[Job]
    """In the order of its calls; `created` is False of those that were there already."""
    repeated: bool
    """Whether this is the answer to an earlier request."""


class Requests(Door):
    """Verbs that are one transaction together."""

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that this thread asks of this client within the block is done together, or not at all.

        Other threads of the process wait meanwhile, on SQLite all writers do: be quick.
        """
        with self._store() as store, store.transaction():
            self._exports += 1  # a call within the block must not let go of the connection
            try:
                yield
            finally:
                self._exports -= 1

    def respond(
        self, calls: Sequence[Call], *, key: str | None = None, digest: str = "", who: str = ""
    ) -> Responded:
        """Store a job for each call, all or none, and note who did it.

        With a `key` a second request of the same key, within 24 hours of the first, makes nothing: its
        answer are the jobs of the first as they are then, finished ones too. `digest` tells requests
        apart: InvalidOption where another one has come with this key. JobNotFound where one of the jobs
        has been removed since; then nothing is made either.
        """
        if not calls:
            raise InvalidOption("calls is empty; a request makes at least one job")
        self._load_codec()
        new = [call.new_job(self._defaults, self._payload, self.home) for call in calls]
        with self.transaction(), self._store() as store:
            first = None if key is None else store.note_request(key, digest)
            if key is not None and first is not None:
                return Responded(self._first(first, digest), repeated=True)
            jobs = _stored(store, new)
            if key is not None:
                store.answer_request(key, [job.id for job in jobs])
            what = jobs[0].task if len(jobs) == 1 else f"{len(jobs)} jobs"
            store.note_action(who, "enqueue", f"{what}, from job {jobs[0].id}", len(jobs))
        if self.stage is not None:
            self.stage.enqueued(self._payload)
        return Responded(jobs, repeated=False)

    def _first(self, first: tuple[str, list[int]], digest: str) -> list[Job]:
        before, numbers = first
        if before != digest:
            raise InvalidOption(
                "another request has come with this Idempotency-Key; a new one needs a new key"
            )
        with self._store() as store:
            found = store.get_many(numbers)
        gone = next((number for number in numbers if number not in found), None)
        if gone is not None or not numbers:
            raise JobNotFound(f"job {gone} of this Idempotency-Key is not kept any more")
        return [found[number] for number in numbers]


def _stored(store: Store, new: Sequence[NewJob]) -> list[Job]:
    """Store them within a transaction: one by itself, many together, which is far faster on a server."""
    if len(new) == 1:
        return [store.enqueue_one(new[0])]
    made = store.enqueue(new)
    found = store.get_many(number for number, _ in made)
    if len(found) < len({number for number, _ in made}):
        raise StoreUnavailable("a job that held a unique key was removed meanwhile; try again")
    return [replace(found[number], created=created) for number, created in made]
