"""What may be sent to the API: strict types, no member that nobody reads, bounded lists and texts."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.filter import IDS_MAX, TEXT_MAX, Filter
from jobvisor.jobs.job import State
from jobvisor.jobs.limit import BURST_MAX, CONCURRENCY_MAX
from jobvisor.jobs.share import SHARE_MAX, WEIGHT_MAX
from jobvisor.jobs.task import KEY_MAX, NAME_MAX, PRIORITY_MAX, PRIORITY_MIN, QUEUE_MAX, RETRIES_MAX
from jobvisor.supervisor.web.ordering import Order

__all__ = [
    "BULK_MAX",
    "Bulk",
    "BulkRescheduling",
    "Copying",
    "Filtering",
    "Id",
    "JobId",
    "Limiting",
    "Looking",
    "Narrowing",
    "NewJob",
    "NewJobs",
    "NewSchedule",
    "Pausing",
    "QueueName",
    "Rescheduling",
    "Scaling",
    "SinceText",
    "moment_or_duration",
]

ID_MAX = 2**63 - 1
LIMIT_MAX = 200
BULK_MAX = 1_000
"""Jobs of one call: more are sent in several, so that workers get in between."""


def read_id(value: Any) -> Any:
    """An id as a whole number, or as the text that documents have where readers would round a number."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,19}", value):
        return int(value)
    return value


Id = Annotated[
    int,
    BeforeValidator(read_id, json_schema_input_type=int | str),
    Field(ge=1, le=ID_MAX, strict=True),
]
"""A job's id in a body: a number, or a text of digits."""

JobId = Annotated[
    int,
    BeforeValidator(read_id, json_schema_input_type=int),
    Path(ge=1, le=ID_MAX, strict=True, description="The id of a job.", examples=[17]),
]
"""A job's id in a path."""

Text = Annotated[str, Field(max_length=TEXT_MAX)]
Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX)]
Queue = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:\-]+$", min_length=1, max_length=QUEUE_MAX)]
Seconds = Annotated[
    float | str,
    Field(
        description='Seconds as a number, or text such as "250ms", "30s", "1m30s", "7d".',
        examples=["1m30s"],
    ),
]


QueueName = Annotated[
    str | None,
    Query(alias="queue", pattern=r"^[A-Za-z0-9_.:\-]+$", max_length=QUEUE_MAX),
]
SinceText = Annotated[
    str | None,
    Query(
        max_length=100,
        description="What failed since then: a moment, or so long ago.",
        examples=["1h", "2027-01-31T08:00Z"],
    ),
]

StateWord = Literal[
    "scheduled", "pending", "blocked", "running", "succeeded", "failed", "cancelled"
]


class Form(BaseModel):
    """A body: what it does not know it refuses."""

    model_config = ConfigDict(strict=True, extra="forbid")


class RetryPolicy(Form):
    """How long after a failure a job is tried again."""

    kind: Annotated[str, Field(pattern="^(exponential|fixed|decorrelated)$")] = "exponential"
    first: Seconds | None = None
    factor: float | None = None
    cap: Seconds | None = None
    jitter: bool | None = None
    delay: Seconds | None = None
    """Of `fixed`."""


class NewJob(Form):
    """A job to enqueue: a task, its arguments, and what `using` takes."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "task": "app.mail:send",
                    "args": ["a@b.c"],
                    "kwargs": {"subject": "Welcome"},
                    "run_in": "10m",
                    "unique": "welcome:42",
                }
            ]
        }
    )

    task: Name
    args: list[Any] = Field(default_factory=list, description="The arguments by place.")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="The arguments by name.")
    typed: bool = Field(
        False,
        description='Whether arguments hold tags as documents do: {"$date": "2027-01-31"} is a date.',
    )
    force: bool = Field(False, description="Enqueue it although no worker has told of such a task.")
    queue: Queue | None = None
    priority: Annotated[int, Field(ge=PRIORITY_MIN, le=PRIORITY_MAX)] | None = None
    retries: Annotated[int, Field(ge=0, le=RETRIES_MAX)] | None = None
    retry: Seconds | RetryPolicy | None = None
    timeout: Seconds | None = None
    memory: int | str | None = Field(
        None, description='Bytes, or text such as "512MB".', examples=["512MB"]
    )
    unique: Annotated[str, Field(min_length=1, max_length=KEY_MAX)] | bool | None = Field(
        None,
        description="While another job holds this key, it is the answer; true: for these arguments.",
    )
    unique_for: Seconds | None = Field(
        None,
        description="How long the key is held: `unfinished`, `kept` (as the job is), or from now on so long.",
        examples=["10m"],
    )
    on_conflict: Literal["return", "raise", "replace", "debounce"] | None = Field(
        None,
        description="What is done where it is held: `return` that job, `raise` (409), `replace` one that "
        "waits, or `debounce` it by `delay` and `max_wait`.",
    )
    delay: Seconds | None = Field(None, description="Of `debounce`: so long after the last call.")
    max_wait: Seconds | None = Field(None, description="And so long after the first at the latest.")
    limit: Annotated[str, Field(min_length=1, max_length=KEY_MAX)] | None = Field(
        None,
        description='The key of a limit: its name, or as "stripe:acct_1".',
        examples=["stripe"],
    )
    share: Annotated[str, Field(min_length=1, max_length=SHARE_MAX)] | None = Field(
        None, description="On whose behalf it runs in a fair queue.", examples=["tenant-7"]
    )
    weight: Annotated[int, Field(ge=1, le=WEIGHT_MAX)] | None = Field(
        None, description="Of that share: one of weight 3 comes three times as often as one of 1."
    )
    run_in: Seconds | None = None
    run_at: str | None = Field(
        None, description="A moment with its timezone.", examples=["2027-01-31T08:00+01:00"]
    )
    expires_in: Seconds | None = None
    expires_at: str | None = Field(
        None, description="A moment after which it may not begin; not with expires_in."
    )
    deadline: Seconds | None = Field(
        None, description="For how long after it is first due it may take, with all its attempts."
    )
    keep: Seconds | dict[str, Seconds] | None = Field(
        None,
        description='How long it is kept after its end, "forever", or by its state: {"succeeded": "1h"}.',
    )
    headers: dict[str, Any] | None = None

    def order(self) -> Order:
        """What is wanted, as the enqueueing takes it."""
        options = self.model_dump(
            exclude={"task", "args", "kwargs", "typed", "force"}, exclude_none=True
        )
        return Order(self.task, self.args, self.kwargs, options, self.typed, self.force)


class NewJobs(Form):
    """Jobs to enqueue in one transaction, all or none."""

    jobs: Annotated[list[NewJob], Field(min_length=1, max_length=BULK_MAX)]


class Copying(Form):
    """A copy of a job; arguments that are left out, or left as ***, are the job's own."""

    args: list[Any] | None = Field(
        None, description="All arguments by place, in the form that the job's document has."
    )
    kwargs: dict[str, Any] | None = Field(
        None, description="All arguments by name, in the form that the job's document has."
    )


class NewSchedule(Form):
    """A schedule to add: a task, its arguments, and when it is enqueued."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "nightly",
                    "task": "app.mail:send",
                    "args": ["a@b.c"],
                    "kwargs": {"subject": "Good morning"},
                    "cron": "0 3 * * *",
                    "timezone": "Europe/Berlin",
                }
            ]
        }
    )

    name: Name
    task: Name
    args: list[Any] = Field(default_factory=list, description="The arguments by place.")
    kwargs: dict[str, Any] = Field(default_factory=dict, description="The arguments by name.")
    typed: bool = Field(
        False,
        description='Whether arguments hold tags as documents do: {"$date": "2027-01-31"} is a date.',
    )
    force: bool = Field(False, description="Also where no worker has told of such a task.")
    cron: Annotated[str, Field(min_length=1, max_length=300)] | None = Field(
        None, description="Minute, hour, day of month, month, day of week; `cron` or `every`."
    )
    every: Seconds | None = None
    timezone: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        None, description="Whose clocks `cron` goes by; UTC unless it is given."
    )
    anchor: Annotated[str, Field(max_length=100)] | None = Field(
        None, description="From when `every` counts.", examples=["2027-01-31T08:00+01:00"]
    )
    queue: Queue | None = None
    catch_up: Literal["latest", "all", "none"] = "latest"
    overlap: Literal["allow", "skip"] = "allow"
    paused: bool = False
    replace: bool = Field(False, description="Change one of this name that was added at run time.")


class Narrowing(Form):
    """Which jobs are meant: those that are all of what is said."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"state": ["failed"], "task": ["app.mail:send"]}]}
    )

    state: Annotated[list[StateWord], Field(max_length=len(State))] | None = None
    queue: Text | None = None
    task: Annotated[list[Text], Field(max_length=100)] | None = None
    error: Text | None = Field(None, description="A part of the error.")
    error_type: Text | None = Field(
        None, description="The class of the error, as failures name it."
    )
    text: Text | None = Field(
        None,
        description="A part of task, error or unique key; of arguments as they are stored, too, "
        "where `[web] hide` is empty.",
    )
    since: str | None = Field(
        None, description="What ended, began or was due since then: a moment, or so long ago."
    )
    until: str | None = Field(None, description="And before then.")

    def filter(self) -> Filter:
        """The words of the client."""
        return Filter(
            state=self.state or None,
            queue=self.queue,
            task=self.task or None,
            error=self.error,
            error_type=self.error_type,
            text=self.text,
            since=moment_or_duration("since", self.since),
            until=moment_or_duration("until", self.until),
            ids=getattr(self, "ids", None),
        )


class Looking(Narrowing):
    """What a list of jobs shows."""

    model_config = ConfigDict(strict=False)

    status: Annotated[list[StateWord], Field(max_length=len(State))] | None = Field(
        None, description="The old word for `state`.", json_schema_extra={"deprecated": True}
    )
    limit: Annotated[int, Field(ge=1, le=LIMIT_MAX)] = 50
    cursor: Annotated[str, Field(pattern="^[0-9]{1,19}$")] | None = Field(
        None, description="`next` of the page before."
    )

    def states(self) -> Looking:
        """The same with both words for the state as one."""
        both = [*(self.state or ()), *(self.status or ())]
        return self.model_copy(update={"state": both or None, "status": None})


class Filtering(Narrowing):
    """A filter in a body, which may name ids, too."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=IDS_MAX)] | None = None


class Bulk(Form):
    """A verb for many jobs."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"filter": {"state": ["failed"], "task": ["app.mail:send"]}, "dry_run": True}
            ]
        }
    )

    filter: Filtering
    dry_run: bool = Field(False, description="Only tell how many there are.")


class Pausing(Form):
    """Until when a queue or a task is paused."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"until": "2h"}]})

    until: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        None, description="A moment, or for so long; without it until it is resumed."
    )


class Sharing(Form):
    """Whether a queue is fair."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"fair": True}]})

    fair: bool = Field(description="Whether the jobs of each share come in turn.")


class Limiting(Form):
    """What a limit is: a concurrency, a rate, or both."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"concurrency": 5, "rate": "100/1m"}]}
    )

    concurrency: Annotated[int, Field(ge=0, le=CONCURRENCY_MAX)] | None = Field(
        None, description="How many run at once; 0 lets none begin."
    )
    rate: Annotated[str, Field(max_length=50)] | None = Field(
        None, description="How many start in a while.", examples=["100/1m"]
    )
    burst: Annotated[int, Field(ge=1, le=BURST_MAX)] | None = Field(
        None,
        description="How many may start at once after a rest; else what the rate gives in 1 s.",
    )


class Rescheduling(Form):
    """When jobs that wait are to be due; without either at once."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"run_in": "1h"}]})

    run_in: Seconds | None = None
    run_at: str | None = Field(
        None, description="A moment with its timezone.", examples=["2027-01-31T08:00+01:00"]
    )

    def when(self) -> dict[str, Any]:
        """As the client takes it."""
        at = None if self.run_at is None else moment("run_at", self.run_at)
        return {"run_in": self.run_in, "run_at": at}


class BulkRescheduling(Rescheduling, Bulk):
    """Another time for many jobs that wait; without one at once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"filter": {"queue": "mail"}, "run_in": "1h", "dry_run": True}]
        }
    )


class Scaling(Form):
    """How many workers a pool is to have."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"workers": "+1"}]})

    workers: (
        Annotated[int, Field(ge=0, le=999_999_999)]
        | Annotated[str, Field(pattern=r"^[+-]?[0-9]{1,9}$")]
    )


def moment_or_duration(name: str, text: str | None) -> datetime | str | None:
    """A moment where it begins like a year, else a duration."""
    if text is None or not re.match(r"[0-9]{4}-", text):
        return text
    return moment(name, text)


def moment(name: str, text: str) -> datetime:
    """A moment with its timezone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidOption(
            f"{name}: {text[:80]!r} is not a time; write 2027-01-31T08:00+01:00 or 2027-01-31T07:00Z"
        ) from None
    if found.utcoffset() is None:
        raise InvalidOption(f"{name}: {text[:80]!r} has no timezone; add one, such as Z or +01:00")
    return found
