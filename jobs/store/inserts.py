"""Enqueueing on PostgreSQL: one job in one statement that commits by itself, many as a stream of rows."""

from __future__ import annotations

import json
import select
from collections.abc import Container, Iterable, Sequence

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
    held_apart,
    is_held,
    keys_of,
    needs_look,
    never_still,
    told_of_twins,
)
from jobvisor.jobs.store.rows import Changed, Stored, new_job_of
from jobvisor.jobs.store.server import ServerStore

_STORED = 1 + len(Stored._fields)  # of what comes back of a lone enqueue
TRUSTED_NS = 1_000_000_000  # after a rest this long a connection may be dead without a sign
COPIED_AT_ONCE = 100_000  # rows of a bulk enqueue in one statement: half a second of the server's
DEADLOCKS_MAX = 5  # tries of a bulk enqueue that another transaction stood in the way of
ROWS_AT_ONCE = 2_000  # of a bulk enqueue in one statement: some 400 kB


class Inserts(ServerStore):
    """What an application asks of the server."""

    def enqueue(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
        if len(jobs) < 2:
            return super().enqueue(jobs)
        for left in range(DEADLOCKS_MAX, 0, -1):
            try:
                return self._enqueue_many(jobs)
            except StoreUnavailable as error:
                # What was found taken, and then free, is taken late: out of the order.
                met = isinstance(error.__cause__, psycopg.errors.DeadlockDetected)
                if self._depth or not met or left == 1:
                    raise
        raise AssertionError("the last try returns or raises")

    def _enqueue_many(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
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
        """Those not copied: for later, for a time, or with a unique key that may be found held.

        New keys are taken first, by name; then jobs that wait, by id, as everybody takes them: else
        two of these at once, or one and who cancels many, would each wait for the other.
        """
        # All of a key after its first, in the order in which they were given, where one of them looks.
        looks = {job.unique_key for job in jobs if needs_look(job)}
        order, later = _by_key(jobs, stored, looks)
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
            for place in places:
                if ids[place] not in made:
                    later.append(place)
                elif is_held(jobs[place]):
                    self._hold_apart(ids[place], jobs[place])
        for place in self._by_holder(jobs, later):
            found[place] = self._enqueue_asking(jobs[place], found)

    def _hold_apart(self, number: int, job: NewJob) -> None:
        """A new job, which nobody else has seen, holds its key by a row of `uniques`."""
        asked = held_apart(number, job)
        if not self._rows("take_key", asked):
            raise never_still(
                job
            )  # whoever takes a key has its job in `jobs` first, and this one has
        self._rows("hold_apart", asked)

    def _by_holder(self, jobs: Sequence[NewJob], places: list[int]) -> list[int]:
        """Whose key nobody has comes first, by key; then who may change a job that waits, by its id."""
        if not places:
            return places
        asked = {"keys": keys_of(jobs[place] for place in places)}
        holders: dict[str | None, int] = dict(self._rows("holders", asked))

        def order(place: int) -> tuple[int, str, int]:
            key = jobs[place].unique_key
            return holders.get(key, 0), key or "", place

        return sorted(places, key=order)

    def _enqueue_asking(self, job: NewJob, found: list[tuple[int, bool]]) -> tuple[int, bool]:
        """One by itself, which looks who holds its key."""
        with told_of_twins(job, found):
            each = carried_out(enqueueing(job), self._asked)
        if each.replaced:
            self._replaced(each)
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

    def requeue_order(self, jobs: Iterable[int]) -> list[int]:
        numbers = sorted(jobs)
        keys: dict[int, str | None] = dict(
            self._rows("requeue_order", {"jobs": json.dumps(numbers)})
        )
        return sorted(numbers, key=lambda number: keys.get(number) or "")

    def _enqueued(self, number: int, job: NewJob) -> None:
        if self.events.active:
            self._moved("enqueue", number, Changed("", job.task, job.queue, 0, job.attempts_max))
        # Waking is the insert's own, by a trigger.

    def _skip_ids(self, greatest: int) -> None:
        self._rows("skip_ids", {"greatest": greatest})


def _by_key(
    jobs: Sequence[NewJob], stored: Container[int], looks: Container[str | None]
) -> tuple[list[int], list[int]]:
    """The places of those not stored by their keys; and apart those that come after the first of a key."""
    order: list[int] = []
    later: list[int] = []
    for place in sorted(
        (place for place in range(len(jobs)) if place not in stored),
        key=lambda place: jobs[place].unique_key or "",
    ):
        key = jobs[place].unique_key
        follows = bool(order) and key is not None and jobs[order[-1]].unique_key == key
        (later if follows and key in looks else order).append(place)
    return order, later


def _on_terms(job: NewJob) -> NewJob:
    return job if job.terms is not None else job._replace(terms=Terms())


def _has_arrived(connection: PatientConnection) -> bool:
    """Whether something was said that nobody has asked for, such as a farewell."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
