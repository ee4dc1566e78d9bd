"""The values that tests of a store speak in: new jobs, lives, records, and jobs in each state."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from jobvisor.jobs import __version__
from jobvisor.jobs.job import Claimed, Job, NewJob, State
from jobvisor.jobs.outcome import VERB_CODES, Failure, Outcome
from jobvisor.jobs.store import Life, Record, Store
from jobvisor.jobs.store.base import Death, FamilyRow, Held

CRASH = Death("crash", "its worker was killed by SIGKILL", "here", 4242, None, "SIGKILL", None)
STOPPED = Death("stopped", "its worker was stopped (reload)", "here", 4242, None, "SIGKILL", "stop")
GONE = Death("vanished", "its worker vanished without evidence", "there", 17)

BROKEN = Failure("ValueError", "broken", "Traceback ...")

_ORDINARY = NewJob("app:f", "[]", "{}", "default", 0, None, 0, 4, None, 0, 0, None, None)
_owners = itertools.count(1_000)


def new(**values: Any) -> NewJob:
    """An ordinary job of `app:f`, but for these values."""
    return _ORDINARY._replace(**values)


def enqueue(store: Store, **values: Any) -> int:
    """The id of one more job."""
    return store.enqueue([new(**values)])[0][0]


def life(family: int = 1) -> Life:
    """A life that never was before."""
    owner = next(_owners)
    return Life(owner, family, f"worker {owner}", "here", "boot", 1, owner, owner)


def family(number: int = 1, **values: Any) -> FamilyRow:
    """A family."""
    row = FamilyRow(number, "main", "here", "boot", 1, 7, 8, __version__, "state", 30_000, 0, 0)
    return row._replace(**values)


def claim(
    store: Store,
    who: Life,
    number: int = 1,
    *,
    limit: int = 100,
    queues: Sequence[str] = ("default",),
) -> list[Claimed]:
    """What this life claims in one turn."""
    return store.turn(who, number, queues=queues, limit=limit).jobs


def ended(outcome: str | Outcome = "succeed", **values: Any) -> Outcome:
    """An outcome by its verb, with a failure where the verb has one."""
    if isinstance(outcome, Outcome):
        return outcome
    if outcome in ("retry", "fail", "cancel"):
        values.setdefault("failure", BROKEN)
    if outcome in ("retry", "snooze"):
        values.setdefault("deferred", outcome)
        values.setdefault("delay_ms", 5_000)
    if outcome == "cancel":
        values.setdefault("kind", "cancelled")
    return Outcome(outcome, **values)


def record(
    who: Life,
    number: int,
    job: Claimed | Job,
    outcome: str | Outcome = "succeed",
    *,
    age_ms: int = 0,
    duration_ms: int = 20,
    **values: Any,
) -> Record:
    """The record of one run, as a ledger of this life would hold it."""
    told = ended(outcome, **values)
    return Record(
        who.owner,
        number,
        job.id,
        job.attempt,
        VERB_CODES[told.verb],
        age_ms,
        duration_ms,
        told.delay_ms,
        told.body(),
    )


class UndoneError(Exception):
    """A transaction is to be undone."""


@contextmanager
def undone(store: Store) -> Iterator[None]:
    """A transaction that ends in an error, after all that is done in it."""
    with suppress(UndoneError), store.transaction():
        yield
        raise UndoneError


def held(store: Store, job: int, who: Life, number: int = 1) -> Held:
    """The running row under this fence, which must be there."""
    found = store.held(job, who.owner, number)
    assert found is not None
    return found


def running(store: Store, **values: Any) -> tuple[Life, Claimed]:
    """One job that has just been claimed, with the life that claimed it as its claim 1."""
    number = enqueue(store, **values)
    who = life()
    (job,) = claim(store, who, queues=[values.get("queue", "default")])
    assert job.id == number
    return who, job


def job_in(store: Store, state: State, **values: Any) -> int:
    """A job brought into a state by the verbs that lead there."""
    if state is State.SCHEDULED:
        return enqueue(store, run_in_ms=60_000, **values)
    if state is State.PENDING:
        return enqueue(store, **values)
    if state is State.BLOCKED:
        number = enqueue(store, **values)
        assert store.block(number)
        return number
    who, job = running(store, **values)
    if state is not State.RUNNING:
        verb = {State.SUCCEEDED: "succeed", State.FAILED: "fail", State.CANCELLED: "cancel"}[state]
        assert store.apply([record(who, 1, job, verb)], who).changed == 1
    assert store.get(job.id).state is state
    return job.id


def failed(store: Store, error: str = "ValueError", message: str = "no", **values: Any) -> int:
    """A job that has failed with this error."""
    who, job = running(store, **values)
    failure = Failure(error, message, "")
    assert store.apply([record(who, 1, job, "fail", failure=failure)], who).changed == 1
    return job.id
