"""Why a job does not run: each reason as a word for programs and a sentence for people.

Who makes a job wait for something of its own (a limit, a pause, a key) adds a function to `REASONS`, which
tells it of one job, and one to `SUMS`, which tells how many wait so. Both ask the database in a bounded time.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, NamedTuple

from jobvisor.jobs.annals import QUEUE, TASK, Paused
from jobvisor.jobs.clock import from_datetime, iso
from jobvisor.jobs.door import Door, id_of
from jobvisor.jobs.found import Count
from jobvisor.jobs.job import WAITING, Job, State
from jobvisor.jobs.store import Store
from jobvisor.jobs.units import duration_text

__all__ = ["Held", "Known", "Reason", "Why", "reasons_of", "sums_of"]

BEFORE_MOST = 1_000
COUNTED_MOST = 10_000
LIMITS_MOST = 100
LIMIT = "limit:"


class Reason(NamedTuple):
    """One of the things that a job waits for."""

    code: str
    """`later`, `retry`, `snooze`, `unknown_task`, `blocked`, `limit`, `no_family`, `unserved`, `company`,
    `behind`, `next`, `paused`, `expiry`, `expired`, `deadline`, `cancelling`, ..."""
    text: str

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        return self._asdict()


class Held(NamedTuple):
    """How many jobs wait for one reason."""

    code: str
    jobs: Count
    text: str
    """`17 jobs are to be tried again`."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes."""
        number, at_least = self.jobs
        return {"code": self.code, "jobs": number, "at_least": at_least, "text": self.text}


class Known(NamedTuple):
    """What whoever asks knows beside the database."""

    now_ms: int
    served: Collection[str] | None = None
    """The queues that the family here serves; None where nobody knows."""


class Why(Door):
    """The verbs that tell why jobs do not run."""

    def why(self, job: int | Job, *, served: Collection[str] | None = None) -> list[Reason]:
        """Why this job does not run; empty of one that runs, or is finished.

        `served` are the queues that a family of yours serves, where you know them.

        >>> from jobvisor import Client
        >>> with Client("memory://") as client:
        ...     job = client.enqueue("app.mail:send", 1)
        ...     [reason.code for reason in client.why(job, served=["mail"])]
        ['no_family', 'unserved', 'next']
        """
        with self._store() as store:
            found = store.get(id_of(job))
            return reasons_of(found, store, Known(self._clock.now_ms(), served))

    def waits(self, *, served: Collection[str] | None = None) -> list[Held]:
        """How many jobs wait for what, each counted up to 10,000."""
        with self._store() as store:
            return sums_of(store, Known(self._clock.now_ms(), served))


Ask = Callable[[Job, Store, Known], Iterable[Reason]]
Sum = Callable[[Store, Known], Iterable[Held]]


def reasons_of(job: Job, store: Store, known: Known) -> list[Reason]:
    """Why it does not run, what matters most first; none of one that runs, or is finished."""
    if job.state not in WAITING:
        return list(_cancelling(job))
    return [reason for ask in REASONS for reason in ask(job, store, known)]


def sums_of(store: Store, known: Known) -> list[Held]:
    """How many jobs wait for what, each counted up to a limit."""
    return [held for each in SUMS for held in each(store, known) if held.jobs.number]


def _cancelling(job: Job) -> Iterator[Reason]:
    if job.state is State.RUNNING and job.cancel_requested:
        yield Reason("cancelling", "It was asked to end, and is killed after cancel_grace.")


def _of_time(job: Job, _store: Store, known: Known) -> Iterator[Reason]:
    if job.state is not State.SCHEDULED:
        return
    due_ms = from_datetime(job.run_at)
    at = f"{_when(due_ms, known.now_ms)}, at {iso(job.run_at)}"
    if due_ms <= known.now_ms:
        yield Reason(
            "due", f"It has been due since {iso(job.run_at)}: the next claim makes it pending."
        )
    elif job.deferred == "retry":
        yield Reason(
            "retry", f"Attempt {job.attempt} of {job.attempts_max} failed; it is tried again {at}."
        )
    elif job.deferred == "snooze":
        yield Reason("snooze", f"Its task has put it off: it runs again {at}.")
    elif job.deferred == "unknown":
        yield Reason(
            "unknown_task", f"No module has its task {job.task!r}; it is looked for again {at}."
        )
    else:
        yield Reason("later", f"It is due {at}.")


def _of_block(job: Job, _store: Store, _known: Known) -> Iterator[Reason]:
    if job.state is State.BLOCKED and not (job.parked or "").startswith(("task:", LIMIT)):
        yield Reason("blocked", "It is blocked until what it waits for unblocks it.")


def _of_pause(job: Job, store: Store, _known: Known) -> Iterator[Reason]:
    pauses = list(_pauses_of(job, store))
    for each in pauses:
        yield Reason(
            "paused", f"Its {each.kind} {each.name!r} is {each}: `jobvisor resume` ends that."
        )
    if job.state is State.BLOCKED and job.parked == f"task:{job.task}" and not pauses:
        yield Reason("blocked", "Its task was paused: it is set free in a moment.")


def _pauses_of(job: Job, store: Store) -> Iterator[Paused]:
    own = (QUEUE, job.queue), (TASK, job.task)
    return (each for each in store.paused() if (each.kind, each.name) in own)


def _of_family(_job: Job, store: Store, _known: Known) -> Iterator[Reason]:
    if not _living(store):
        yield Reason("no_family", "No family that uses this database is running: `jobvisor start`.")


def _of_queue(job: Job, store: Store, known: Known) -> Iterator[Reason]:
    if known.served is not None and job.queue not in known.served:
        whose = "No pool serves" if _living(store) <= 1 else "No pool of the family here serves"
        yield Reason(
            "unserved", f"{whose} its queue {job.queue!r}: add it to the queues of a [[workers]]."
        )


def _of_company(job: Job, _store: Store, _known: Known) -> Iterator[Reason]:
    if job.state is not State.PENDING:
        return
    if job.company is not None:
        others = "alone" if job.company <= 1 else f"among at most {job.company}"
        yield Reason(
            "company", f"A process that it ran in has died: it runs {others}, until it is cleared."
        )
    elif job.memory:
        yield Reason(
            "company", "It has a memory limit, so it runs in a worker that runs nothing else."
        )


def _of_limit(job: Job, store: Store, _known: Known) -> Iterator[Reason]:
    waiting = None if job.limit is None else store.waiting_for_limit(job.id)
    if waiting is not None:
        code = "unknown_limit" if waiting.limit is None else "limit"
        yield Reason(code, f"It waits for its {waiting}.")


def _of_others(job: Job, store: Store, _known: Known) -> Iterator[Reason]:
    if job.state is not State.PENDING or any(_pauses_of(job, store)):
        return
    before = store.before(job.id, most=BEFORE_MOST)
    if before.number:
        yield Reason(
            "behind", f"{_jobs(before, 'comes', 'come')} before it in queue {job.queue!r}."
        )
    else:
        yield Reason("next", f"It is the next of queue {job.queue!r}: it waits for a worker.")


def _of_expiry(job: Job, _store: Store, known: Known) -> Iterator[Reason]:
    if job.expires_at is None:
        return
    if from_datetime(job.expires_at) <= known.now_ms:
        yield Reason("expired", f"It has expired at {iso(job.expires_at)}, and will not run.")
    else:
        yield Reason(
            "expiry", f"It will not run any more if none begins it before {iso(job.expires_at)}."
        )


def _of_deadline(job: Job, _store: Store, _known: Known) -> Iterator[Reason]:
    if job.deadline_at is not None:
        yield Reason("deadline", f"It fails if it is not done by {iso(job.deadline_at)}.")


#: What a job that waits is asked, in the order in which its reasons are told.
REASONS: tuple[Ask, ...] = (
    _of_time,
    _of_pause,
    _of_block,
    _of_family,
    _of_queue,
    _of_limit,
    _of_company,
    _of_others,
    _of_expiry,
    _of_deadline,
)


def _ordinary(store: Store, _known: Known) -> Iterator[Held]:
    counted = store.held_back(most=COUNTED_MOST)
    for code, one, many in (
        ("later", "is due later", "are due later"),
        ("retry", "is to be tried again, or was put off", "are to be tried again, or were put off"),
        (
            "unknown_task",
            "waits for a task that no module has",
            "wait for a task that no module has",
        ),
        ("blocked", "is blocked", "are blocked"),
        ("company", "waits for a worker of its own", "wait for a worker of their own"),
    ):
        yield Held(code, counted[code], _jobs(counted[code], one, many))


def _in_paused_queues(store: Store, _known: Known) -> Iterator[Held]:
    paused = {each.name for each in store.paused() if each.kind == QUEUE}
    if not paused:
        return
    tally = store.tally()
    number = sum(tally.queues.get(queue, {}).get(State.PENDING, 0) for queue in paused)
    count = Count(number, State.PENDING in tally.at_least)
    yield Held(
        "paused",
        count,
        _jobs(count, "waits in a queue that is paused", "wait in queues that are paused"),
    )


def _limited(store: Store, _known: Known) -> Iterator[Held]:
    for each in store.limit_standings(LIMITS_MOST):
        counted = Count(each.waiting, each.waiting >= COUNTED_MOST)
        what = f"for the limit {each.limit.name}"
        yield Held("limit", counted, _jobs(counted, f"waits {what}", f"wait {what}"))


#: What is counted of all that wait.
SUMS: tuple[Sum, ...] = (_ordinary, _limited, _in_paused_queues)


def _living(store: Store) -> int:
    """How many families there are that were not declared dead, and were heard of lately."""
    return sum(
        not family.died and family.silent_ms <= family.dead_after_ms for family in store.families()
    )


def _when(at_ms: int, now_ms: int) -> str:
    left = at_ms - now_ms
    return f"in {duration_text(left if left < 10_000 else round(left, -3))}"


def _jobs(number: Count, one: str, many: str) -> str:
    if number == Count(1, at_least=False):
        return f"1 job {one}"
    return f"{number.number:,}{' or more' if number.at_least else ''} jobs {many}"
