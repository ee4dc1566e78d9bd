"""The row as a frozen value, its states, and the table of legal moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

from jobvisor.jobs.clock import iso
from jobvisor.jobs.encode import plain
from jobvisor.jobs.errors import PayloadError


class State(StrEnum):
    """Where a job stands."""

    SCHEDULED = "scheduled"
    """Its time (`run_at`) lies ahead."""
    PENDING = "pending"
    """It may be claimed now."""
    BLOCKED = "blocked"
    """It waits for a limit or for another job."""
    RUNNING = "running"
    """A worker has claimed it."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING = frozenset({State.SCHEDULED, State.PENDING, State.BLOCKED})
UNFINISHED = frozenset({State.SCHEDULED, State.PENDING, State.BLOCKED, State.RUNNING})
WAITING = UNFINISHED - {State.RUNNING}
FINISHED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

#: JSON readers that know only floats (jq, JavaScript) round a greater whole number.
_EXACT_MAX = 2**53
_JOB_IDS = frozenset({"id", "job", "parent"})


def json_id(number: int) -> int | str:
    """A job's id as JSON has it: a number, or a text where readers would round the number.

    Ids count from 1, so only one that a stranger chose is a text. An owner or a family, which are
    63 random bits, is always told as a text.

    >>> json_id(7), json_id(2**60)
    (7, '1152921504606846976')
    """
    return number if abs(number) <= _EXACT_MAX else str(number)


Move = tuple[State | None, State | None]
"""One edge: from and to; None is "no row"."""


def _moves(*pairs: Move) -> frozenset[Move]:
    return frozenset(pairs)


# One verb per edge. A statement of another verb that finds `cancel_requested` on a running row
# moves it along the edge of cancel, where it would have left `running` for something unfinished.
# A retry or snooze whose delay has passed by the time it is settled is due: promoted at once.
MOVES: dict[str, frozenset[Move]] = {
    "enqueue": _moves((None, State.PENDING), (None, State.SCHEDULED), (None, State.BLOCKED)),
    "promote": _moves((State.SCHEDULED, State.PENDING)),
    "claim": _moves((State.PENDING, State.RUNNING)),
    "succeed": _moves((State.RUNNING, State.SUCCEEDED)),
    "retry": _moves((State.RUNNING, State.SCHEDULED), (State.RUNNING, State.PENDING)),
    "snooze": _moves((State.RUNNING, State.SCHEDULED), (State.RUNNING, State.PENDING)),
    "fail": _moves((State.RUNNING, State.FAILED)),
    # What waits for longer than it may; told as `cancel`, or past a deadline as `fail`.
    "expire": _moves(
        *((state, end) for state in WAITING for end in (State.CANCELLED, State.FAILED))
    ),
    "release": _moves((State.RUNNING, State.PENDING)),
    "rescue": _moves(
        (State.RUNNING, State.SCHEDULED),
        (State.RUNNING, State.PENDING),
        (State.RUNNING, State.FAILED),
    ),
    "block": _moves((State.PENDING, State.BLOCKED)),
    "unblock": _moves((State.BLOCKED, State.PENDING), (State.BLOCKED, State.SCHEDULED)),
    "cancel": _moves(*((state, State.CANCELLED) for state in UNFINISHED)),
    "requeue": _moves(*((state, State.PENDING) for state in FINISHED)),
    "reschedule": _moves(
        (State.SCHEDULED, State.SCHEDULED),
        (State.SCHEDULED, State.PENDING),
        (State.PENDING, State.SCHEDULED),
        (State.PENDING, State.PENDING),
        (State.BLOCKED, State.BLOCKED),
        (State.BLOCKED, State.SCHEDULED),
    ),
    "prune": _moves(*((state, None) for state in FINISHED)),
}


if TYPE_CHECKING:  # a default is what type checkers know of; Python has it from 3.13 on
    from typing_extensions import TypeVar

    R_co = TypeVar("R_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    R_co = TypeVar("R_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Job(Generic[R_co]):
    """One requested call of a task, as the database had it when it was read.

    Type checkers know `Job[int]` where they know the task; `Job` alone is one of any.
    """

    id: int
    """Never used again, also after the row is pruned."""
    task: str
    """The task's name, "module:function" unless it was given another."""
    args: list[Any]
    kwargs: dict[str, Any]
    queue: str
    priority: int
    """Higher is earlier, within the queue."""
    state: State
    run_at: datetime
    """Not before this moment."""
    attempt: int
    """The runs that count so far; 0 before the first."""
    attempts_max: int
    timeout: float | None
    """Seconds from the start of the function, None for no limit."""
    memory: int | None
    """Bytes of its process group, None for no limit."""
    unique: str | None
    """The key that it was enqueued under: no other job has it while it is held."""
    result: R_co
    """What the function returned, once succeeded; None before and otherwise."""
    error: str | None
    """The last failure in one line."""
    progress: dict[str, Any] | None
    cancel_requested: bool
    losses: int
    """How often its worker vanished without evidence."""
    owner: int | None
    """The life that holds or last held it."""
    claim: int | None
    """The running number of the claim within that life."""
    created_at: datetime
    claimed_at: datetime | None
    started_at: datetime | None
    """While it runs: when it was claimed; after its end: when its function began."""
    finished_at: datetime | None
    expires_at: datetime | None
    """Not started any more after this moment."""
    deferred: str | None
    """Why it is scheduled: "retry", "snooze", "unknown" (task); None when it was asked for."""
    headers: dict[str, Any] = field(default_factory=dict)
    """What whoever enqueued it sent along, beside the arguments; empty where nobody did."""
    parent: int | None = None
    """The id of the job that enqueued it."""
    company: int | None = None
    """At most so many jobs run beside it, itself included, since it may have killed a worker; None: any."""
    cpu_ms: int | None = None
    """CPU time of its last run, None where it is not known."""
    rss_bytes: int | None = None
    """The most memory that the process of its last run held, None where it is not known."""
    limit: str | None = None
    """The key of the limit that it runs under."""
    share: str | None = None
    """On whose behalf it runs, in a fair queue."""
    weight: int | None = None
    """Of that share; None is 1."""
    parked: str | None = None
    """What it waits for while it is blocked."""
    place: int | None = None
    """The number of its place in its limit, while it runs."""
    deadline_at: datetime | None = None
    """Failed where it has not succeeded by then, over all its attempts."""
    keep: dict[str, float | None] | None = None
    """Seconds that it is kept after its end, by the state of that, None for ever; else as others are."""
    unique_for: str | None = None
    """How long its key is held: while it is `unfinished`, or `waiting` (debounced), as long as it is `kept`,
    or for a duration from its enqueue on."""
    unique_until: datetime | None = None
    """When its key is given back, where that was said as a duration."""
    created: bool = True
    """False when `enqueue` found this job under its unique key instead of making one."""
    replaced: bool = False
    """True when it was found waiting, and `enqueue` has given it what it was called with."""

    @property
    def finished(self) -> bool:
        """Whether it is in a state that only a person's `requeue` leaves."""
        return self.state in FINISHED

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes: times in ISO 8601, users' values in the payload's JSON form.

        `owner` is a text, because readers round a number of 63 bits; see `json_id`.
        """
        told = {name: _json_value(name, getattr(self, name)) for name in self.__slots__}
        users = {
            name: _users_value(getattr(self, name))
            for name in ("args", "kwargs", "result", "progress", "headers")
        }
        return told | users


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job that did not succeed: what the history keeps of it."""

    job: int
    attempt: int
    """Its number; a number comes again where an attempt was given back."""
    owner: int
    claim: int
    outcome: str
    """In one word: error, timeout, memory, crash, stopped, snooze, ..."""
    error_type: str | None
    message: str | None
    traceback: str | None
    host: str | None
    pid: int | None
    exit_code: int | None
    signal: str | None
    """The name of the signal that killed the process, such as SIGKILL."""
    verdict: str | None
    """Why the parent killed it, where it did."""
    started_at: datetime | None
    finished_at: datetime | None
    stack: str | None = None
    """Where it stood when its process was killed."""
    said: str | None = None
    """What it logged or printed last."""
    cpu_ms: int | None = None
    """CPU time of the run, None where it is not known."""
    rss_bytes: int | None = None
    """The most memory that its process held, None where it is not known."""

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes: times in ISO 8601, `owner` as a text."""
        return {name: _json_value(name, getattr(self, name)) for name in self.__slots__}


class Summary(NamedTuple):
    """A job in short, for whoever shows many: every name means what it does in a Job."""

    id: int
    task: str
    queue: str
    priority: int
    state: State
    run_at: datetime
    attempt: int
    attempts_max: int
    deferred: str | None
    cancel_requested: bool
    claimed_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    """The first 300 letters of the last failure."""
    progress: dict[str, Any] | None

    def as_json(self) -> dict[str, Any]:
        """What `json.dumps` takes, with the words of a Job."""
        told = {name: _json_value(name, value) for name, value in self._asdict().items()}
        return {**told, "progress": _users_value(self.progress)}


def _users_value(value: Any) -> Any:
    """What a stranger's SQL stored may have no JSON form, such as an infinite number: it says so."""
    try:
        return plain(value)
    except PayloadError as error:
        return {"$unreadable": str(error)}


def _json_value(name: str, value: Any) -> Any:
    if name == "owner":
        return None if value is None else str(value)
    if name in _JOB_IDS:
        return None if value is None else json_id(value)
    if isinstance(value, State):
        return value.value
    if isinstance(value, datetime):
        return iso(value)
    return value


class Special:
    """The bits of `special`: what whoever runs a job must look at. An ordinary job has none of them."""

    LIMIT = 1
    DEADLINE = 16
    KEPT = 64
    """It says itself for how long it is kept."""
    DEBOUNCED = 128
    """Its key is given back when it is claimed."""
    LAST = 1 << 20
    """Not in the table: the timeout of this run is what is left until its deadline."""


class Terms(NamedTuple):
    """What a new job has beside what every job has: nearly all have none of it, and pay for none."""

    limit_key: str | None = None
    """The limit that it runs under."""
    share: str | None = None
    """On whose behalf it runs, in a fair queue."""
    weight: int | None = None
    """Of the share; None is 1."""
    debounce_ms: int | None = None
    """A debounced job runs so long after its enqueue at the latest."""
    deadline_in_ms: int | None = None
    """Counted from the moment the job is first due, over all its attempts; None is never."""
    deadline_at_ms: int | None = None
    """The same as a moment in UTC milliseconds."""
    expires_at_ms: int | None = None
    """A moment in UTC milliseconds, in the place of the job's `expires_in_ms`."""
    keep: str | None = None
    """For how long it is kept after its end: milliseconds by the state of that, as a JSON object."""
    conflict: str = "return"
    """What is done where its unique key is held: `return`, `raise`, `replace` or `debounce`."""
    is_held: bool = False
    """Whether its key is held otherwise than while it is unfinished: by a row of `uniques`."""
    held_ms: int | None = None
    """For how long from its enqueue on; None: as long as its row is there, or until it is claimed."""

    @property
    def special(self) -> int:
        """What whoever runs it must look at, as bits of `Special`.

        >>> Terms(limit_key="stripe", deadline_in_ms=1_000).special
        17
        """
        return (
            Special.LIMIT * (self.limit_key is not None)
            | Special.DEADLINE
            * (self.deadline_in_ms is not None or self.deadline_at_ms is not None)
            | Special.KEPT * (self.keep is not None or self.held_ms is not None)
            | Special.DEBOUNCED * (self.debounce_ms is not None)
        )


class NewJob(NamedTuple):
    """What is stored at enqueue: a call with every option decided, as plain column values."""

    task: str
    args: str
    """Payload text of a list."""
    kwargs: str
    """Payload text of an object."""
    queue: str
    priority: int
    run_at_ms: int | None
    """A moment in UTC milliseconds; None is now."""
    run_in_ms: int
    """Added to now by the store, whose clock counts; 0 with a `run_at_ms`."""
    attempts_max: int
    policy: str | None
    """The retry policy as JSON; None is the default policy."""
    timeout_ms: int
    """0 for no limit."""
    memory_bytes: int
    """0 for no limit."""
    unique_key: str | None
    expires_in_ms: int | None
    """Counted from the moment the job is first due; None is never."""
    headers: str | None = None
    """What comes with it as the JSON of an object; None is nothing."""
    parent: int | None = None
    """The job that enqueues it."""
    terms: Terms | None = None
    """What only few jobs have."""

    def parameters(self) -> dict[str, Any]:
        """What the statements that enqueue it take, by name."""
        told = self._asdict()
        terms = told.pop("terms")
        if terms is not None:
            told |= terms._asdict() | {"special": terms.special}
        return told


class Claimed(NamedTuple):
    """One claimed row: what running it needs, in the order of the claim statement's columns.

    A named tuple made by `Claimed._make(row)`: 50,000 of them are made in a second.
    """

    id: int
    task: str
    args: str
    kwargs: str
    attempt: int
    attempts_max: int
    claims: int
    """How often it was claimed in all, attempts that were given back included."""
    policy: str | None
    timeout_ms: int
    memory_bytes: int
    expires_in_ms: int | None
    """Counted from the claim: not started any more after so long; None is never."""
    queue: str
    priority: int
    headers: str | None = None
    """The JSON of an object, None for nothing."""
    company: int | None = None
    """It may run among at most so many; None is any."""
    special: int = 0
    """What must be looked at, as bits of `Special`."""
    waited_ms: int | None = None
    """For how long it had been due; None where nobody counts that, or enough others tell it."""
    place: int | None = None
    """The number of its place in its limit. Of a job that has one it is put in after the claim."""
