"""Enqueueing on PostgreSQL: one job in one statement that commits by itself, many as a stream of rows."""

from __future__ import annotations

import json
import select
from collections.abc import Container, Sequence

import psycopg

from jobvisor.jobs.errors import RowRefused, StoreUnavailable
from jobvisor.jobs.identity import unique_number
from jobvisor.jobs.job import Job, NewJob, Terms
from jobvisor.jobs.store import fate
from jobvisor.jobs.store.arrays import arrays, columns
from jobvisor.jobs.store.bulk import copy, is_ordinary
from jobvisor.jobs.store.connection import PatientConnection
from jobvisor.jobs.store.enqueueing import (
    carried_out,
    enqueueing,
    keys_of,
    needs_look,
    told_of_twins,
)
from jobvisor.jobs.store.rows import Changed, Stored, new_job_of
from jobvisor.jobs.store.server import ServerStore

_STORED = 1 + len(Stored._fields)  # of what comes back of a lone enqueue
TRUSTED_NS = 1_000_000_000  # after a rest this long a connection may be dead without a sign
COPIED_AT_ONCE = 100_000  # rows of a bulk enqueue in one statement: half a second of the server's
ROWS_AT_ONCE = 2_000  # of a bulk enqueue in one statement: some 400 kB


class Inserts(ServerStore):
    """What an application asks of the server."""

    def enqueue(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
        if len(jobs) < 2:
            return super().enqueue(jobs)
        with self.transaction():
            self._older.refuse(jobs, self._rows)
            ids, secured = self._reserved(len(jobs))
            plain = [] if secured else [n for n, job in enumerate(jobs) if is_ordinary(job)]
            for start in range(0, len(plain), COPIED_AT_ONCE):
                self._copy(
                    [(ids[place], jobs[place]) for place in plain[start : start + COPIED_AT_ONCE]]
                )
            found = [(number, True) for number in ids]
            if len(plain) < len(jobs):
                self._enqueue_others(jobs, ids, set(plain), found)
            if self.events.active:
                for (number, created), job in zip(found, jobs, strict=True):
                    if created:
                        self._enqueued(number, job)
        return found

    def enqueue_one(self, job: NewJob) -> Job:
        """In one round trip where a lost answer can be told from a connection that was dead before."""
        self._refuse_copy()
        with self._lock:
            if self._depth:
                return super().enqueue_one(job)
            with self._named_errors():
                made = self._enqueue_alone(job)
            told, self._events = self._events, []
        if made is None:
            return super().enqueue_one(job)
        for event in told:
            self.events.emit(event)
        return made

    def _enqueue_alone(self, job: NewJob) -> Job | None:
        """None, and nothing done, where it takes a transaction; a unique key that is held is such a case."""
        connection = self._connected()
        now = self.clock.monotonic_ns()
        if (
            job.terms is not None
            or self.pooled
            or now - self._answered_ns > TRUSTED_NS
            or _has_arrived(connection)
        ):
            # After a rest it may be dead: within a transaction that is found out before anything is done.
            self._answered_ns = now
            return None
        nonce = unique_number()
        try:
            name = "enqueue_alone_ordinary" if is_ordinary(job) else "enqueue_alone"
            cursor = self._ask(name, {**job._asdict(), "nonce": nonce})
        except psycopg.errors.UniqueViolation:
            return None  # its key is held by a row of `uniques`
        except psycopg.Error as error:
            if not connection.closed:
                raise
            number = self._look_for(nonce, connection.info.backend_pid, error)
            self._enqueued(number, job)
            return self.get(number)
        self._answered_ns = self.clock.monotonic_ns()
        row = cursor.fetchone()
        if row is None:
            return None
        number, *stored = row[:_STORED]
        self._enqueued(number, job)
        return new_job_of(number, job, Stored._make(stored), self.payload)

    def _look_for(self, nonce: int, backend: int, error: Exception) -> int:
        """The answer to a lone enqueue was lost: the id of the job, if it was stored.

        While the process that was to store it is still there, it may come yet.
        """

        def ask() -> int | None:
            self._greeted()
            # Before the look: what that process still stores is then seen by it.
            ((gone,),) = self._connected().execute(fate.GONE, [backend]).fetchall()
            rows = self._ask("enqueued_alone", {"nonce": nonce}).fetchall()
            if rows:
                return int(rows[0][0])
            return 0 if gone else None

        number = fate.until_known(ask, self.clock, self.on_wait)
        self.close()
        if not number:
            told = fate.UNKNOWN if number is None else fate.NOT_THERE
            raise StoreUnavailable(
                f"{self.place}: the connection broke at the commit, {told}; look for the job, then try again"
            ) from error
        return number

    def _reserved(self, count: int) -> tuple[list[int], bool]:
        """Ids for new jobs, and whether row security, which refuses COPY, applies to this role."""
        ((told, secured),) = self._rows("reserve", {"count": count})
        return [int(number) for number in told.split(",")], secured

    def _copy(self, rows: list[tuple[int, NewJob]]) -> None:
        stored = copy(self._connected().cursor(), self._statements["copy"], rows)
        if stored < len(rows):
            raise RowRefused(
                f"{self.place} stored {stored} of {len(rows)} jobs without an error; "
                f"look for a trigger on {self.schema}.{self._prefix}jobs that leaves rows out"
            )

    def _enqueue_others(
        self,
        jobs: Sequence[NewJob],
        ids: list[int],
        stored: Container[int],
        found: list[tuple[int, bool]],
    ) -> None:
        """Those not copied: for later, for a time, or with a unique key that may be found held."""
        # By their keys: two of these at once then wait for each other in one order.
        order = sorted(
            (place for place in range(len(jobs)) if place not in stored),
            key=lambda place: jobs[place].unique_key or "",
        )
        # All of a key one by one where one of them asks for it: in the order in which they were given.
        asked = {jobs[place].unique_key for place in order if needs_look(jobs[place])}
        asking = [place for place in order if jobs[place].unique_key in asked]
        if asking:
            order = [place for place in order if jobs[place].unique_key not in asked]
        for start in range(0, len(order), ROWS_AT_ONCE):
            places = order[start : start + ROWS_AT_ONCE]
            # One statement for both kinds, or the order of their keys would be lost.
            on_terms = any(jobs[place].terms is not None for place in places)
            page = [_on_terms(jobs[place]) if on_terms else jobs[place] for place in places]
            values = [
                {"id": ids[place], **job.parameters()}
                for place, job in zip(places, page, strict=True)
            ]
            name = "enqueue_many_on_terms" if on_terms else "enqueue_many"
            made = {row[0] for row in self._rows(name, arrays(columns(values)))}
            made -= self._given_way([(ids[place], jobs[place]) for place in places], made)
            asking += [place for place in places if ids[place] not in made]
        for place in sorted(asking, key=lambda place: jobs[place].unique_key or ""):
            found[place] = self._enqueue_asking(jobs[place], found)

    def _enqueue_asking(self, job: NewJob, found: list[tuple[int, bool]]) -> tuple[int, bool]:
        """One by itself, which looks who holds its key."""
        with told_of_twins(job, found):
            each = carried_out(enqueueing(job), self._asked)
        if each.replaced:
            self._replaced(each.id)
            if job.terms is not None and job.terms.share is not None:
                self._give_turns([each.id])  # to a new job the insert itself gives one
        return each.id, each.created

    def _given_way(self, page: list[tuple[int, NewJob]], made: set[int]) -> set[int]:
        """Those of some new jobs that are taken back, because a row of `uniques` holds their keys."""
        keyed = [
            (number, job) for number, job in page if job.unique_key is not None and number in made
        ]
        if not keyed:
            return set()
        asked = {"keys": keys_of(job for _number, job in keyed)}
        found: dict[str | None, bool] = dict(self._rows("held_keys", asked))
        if free := [key for key, holds in found.items() if not holds]:
            self._change("free_keys", {"keys": json.dumps(free)})
        gone = {number for number, job in keyed if found.get(job.unique_key)}
        for number in sorted(gone):
            self._change("give_way", {"job": number})
        return gone

    def _enqueued(self, number: int, job: NewJob) -> None:
        if self.events.active:
            self._moved("enqueue", number, Changed("", job.task, job.queue, 0, job.attempts_max))
        # Waking is the insert's own, by a trigger.

    def _skip_ids(self, greatest: int) -> None:
        self._rows("skip_ids", {"greatest": greatest})


def _on_terms(job: NewJob) -> NewJob:
    return job if job.terms is not None else job._replace(terms=Terms())


def _has_arrived(connection: PatientConnection) -> bool:
    """Whether something was said that nobody has asked for, such as a farewell."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
