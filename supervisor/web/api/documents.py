"""What the API answers, as its document describes it; what is sent is made by `as_json` of the things."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from jobvisor.jobs.job import State

JsonId = Annotated[
    int | str, Field(description="A number; a text of digits where it is above 2^53.")
]
Number = Annotated[int, Field(ge=0)]

_JOB: dict[str, Any] = {
    "id": 17, "task": "app.mail:send", "args": ["a@b.c"], "kwargs": {"subject": "Welcome"},
    "queue": "mail", "priority": 0, "state": "succeeded", "run_at": "2027-01-31T07:00:00.000+00:00",
    "attempt": 1, "attempts_max": 4, "timeout": 30.0, "memory": None, "unique": None, "result": 250,
    "error": None, "progress": None, "cancel_requested": False, "losses": 0,
    "owner": "4611686018427387904", "claim": 3, "created_at": "2027-01-31T07:00:00.000+00:00",
    "claimed_at": "2027-01-31T07:00:00.001+00:00", "started_at": "2027-01-31T07:00:00.001+00:00",
    "finished_at": "2027-01-31T07:00:00.900+00:00", "expires_at": None, "deferred": None,
    "headers": {"trace": "4bf92f35"}, "parent": None, "company": None, "cpu_ms": 12,
    "rss_bytes": None, "limit": None, "share": None, "weight": None, "parked": None, "place": None,
    "deadline_at": None, "keep": None,
    "unique_for": None, "unique_until": None, "created": True, "replaced": False,
}  # fmt: skip


class Document(BaseModel):
    """One JSON object. Further releases add members, so a reader passes over those it does not know."""


class Job(Document):
    """One requested call of a task, and what became of it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_JOB]})

    id: JsonId
    task: str
    args: Any = Field(description='A list; {"$unreadable": "why"} where it cannot be read.')
    kwargs: Any = Field(description='An object; {"$unreadable": "why"} where it cannot be read.')
    queue: str
    priority: int
    state: State
    run_at: datetime
    attempt: int
    attempts_max: int
    timeout: float | None = Field(description="Seconds.")
    memory: int | None = Field(description="Bytes.")
    unique: str | None
    result: Any
    error: str | None
    progress: Any
    cancel_requested: bool
    losses: int
    owner: str | None
    claim: int | None
    created_at: datetime
    claimed_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    deferred: str | None
    headers: dict[str, Any]
    parent: JsonId | None
    company: int | None
    cpu_ms: int | None
    rss_bytes: int | None
    limit: str | None
    share: str | None
    weight: int | None
    parked: str | None = Field(description="What a blocked job waits for.")
    place: int | None
    deadline_at: datetime | None
    keep: dict[str, float | None] | None = Field(
        description="Seconds that it is kept after its end, by the state of that; null is for ever."
    )
    created: bool = Field(
        description="False where enqueueing found this job instead of making one."
    )
    unique_for: str | None = Field(
        description="How long its key is held: `unfinished`, `waiting`, `kept`, or a duration."
    )
    unique_until: datetime | None
    replaced: bool = Field(
        description="True where enqueueing found it waiting, and gave it what was asked for now."
    )


class Attempt(Document):
    """One run of a job that did not succeed."""

    job: JsonId
    attempt: int
    owner: str
    claim: int
    outcome: str
    error_type: str | None
    message: str | None
    traceback: str | None
    host: str | None
    pid: int | None
    exit_code: int | None
    signal: str | None
    verdict: str | None
    started_at: datetime | None
    finished_at: datetime | None
    stack: str | None
    said: str | None
    cpu_ms: int | None
    rss_bytes: int | None


class Saying(Document):
    """What one run logged and printed last."""

    attempt: int
    outcome: str = Field(description="`running` for one that goes on.")
    started_at: datetime | None
    finished_at: datetime | None
    said: str | None


class Reason(Document):
    """One of the things that a job waits for."""

    code: str = Field(description="A word for programs.", examples=["later"])
    text: str = Field(examples=["It is due in 1h, at 2027-01-31T08:00:00.000Z."])


class WholeJob(Job):
    """A job with its unsuccessful runs, why it does not run, and what a running one has said so far."""

    why: list[Reason]
    attempts: list[Attempt]
    said: str | None = Field(description="Of a run that goes on in a worker of this machine.")


class Jobs(Document):
    """A page of jobs, the newest first. It may be short, or empty, and not be the last."""

    jobs: list[Job]
    next: str | None = Field(description="The `cursor` of the next page; null: there is none.")


class Ids(Document):
    """The jobs that were stored, in order; where a unique key is taken it is who holds it."""

    ids: list[JsonId]


class Attempts(Document):
    """The unsuccessful runs of a job, oldest first."""

    attempts: list[Attempt]


class Log(Document):
    """What the runs of a job said, oldest first."""

    runs: list[Saying]


class Cancelled(Document):
    """What became of a job that was to be cancelled."""

    id: JsonId
    outcome: str = Field(description="`cancelled`, or `requested` of a running one.")


class Stack(Document):
    """Where a process is just now."""

    name: str
    pid: int
    lane: int
    job: JsonId | None
    stack: str


class Stacks(Document):
    """One for each job that runs there, or one of the process."""

    stacks: list[Stack]


class Refusal(Document):
    """A job that one verb for many has left as it was."""

    id: JsonId
    error: str


class Swept(Document):
    """What became of all jobs that a filter means."""

    jobs: Number = Field(description="How many matched; of a dry run how many would be tried.")
    outcomes: dict[str, int] = Field(
        description="`pending`, `scheduled`, `blocked`, `cancelled`, `requested` (of running ones), "
        "`removed`, `refused`: how many."
    )
    refusals: list[Refusal] = Field(description="The first twenty that were refused.")
    dry_run: bool
    at_least: bool = Field(description="Of a dry run: there are more, they were not counted.")


class Group(Document):
    """The failed jobs of one task with one type of error."""

    task: str
    error_type: str
    jobs: Number
    at_least: bool = Field(description="There may be more: counting has ended at its limit.")
    first: datetime
    last: datetime
    example: JsonId
    message: str | None


class Failures(Document):
    """Failed jobs by task and type of error; that which failed last comes first."""

    groups: list[Group]
    at_least: bool = Field(description="There are more groups than were looked at.")


class Parameter(Document):
    """What a task takes."""

    name: str
    kind: str = Field(
        description="`any`, `placed` (by place alone), `named`, `more` (*args) or `others` (**kwargs)."
    )
    required: bool


class Task(Document):
    """A task that a worker has told of."""

    name: str
    doc: str = ""
    aliases: list[str] = Field(default_factory=list)
    options: dict[str, Any] = Field(
        default_factory=dict, description="What the task itself says, in the words of `using`."
    )
    parameters: list[Parameter] | None = None
    arguments: dict[str, Any] | None = Field(
        None, description="JSON Schema of an object with all arguments, as `typed` ones are sent."
    )
    seen_at: datetime


class Tasks(Document):
    """The tasks that workers have told of in the last 30 days."""

    tasks: list[Task]


class Pause(Document):
    """Since when no job of a queue or task begins."""

    since: datetime
    until: datetime | None = Field(description="When it ends by itself; null: when it is resumed.")


class Paused(Pause):
    """A queue or a task that is paused."""

    kind: Literal["queue", "task"]
    name: str


class AllPaused(Document):
    """What is paused: the queues, then the tasks, by name."""

    paused: list[Paused]


class Resumed(Document):
    """What is not paused any more."""

    kind: Literal["queue", "task"]
    name: str
    was_paused: bool


class Fair(Document):
    """Whether a queue is fair."""

    queue: str
    fair: bool
    changed: bool = Field(description="Whether that is new.")


class Queue(Document):
    """One queue; a state that none of its jobs is in is left out."""

    served: bool | None = Field(description="By the family of this machine; null: not known.")
    oldest_pending_ms: int | None = Field(
        description="How long the longest waiting job has been due."
    )
    fair: bool = Field(description="Whether the jobs of each share come in turn.")
    paused: Pause | None = Field(description="Since when none of its jobs begins; null: it is not.")
    scheduled: Number | None = None
    pending: Number | None = None
    blocked: Number | None = None
    running: Number | None = None
    succeeded: Number | None = None
    failed: Number | None = None
    cancelled: Number | None = None


class Queues(Document):
    """The queues that are served here or have jobs."""

    queues: dict[str, Queue]
    at_least: list[State] = Field(
        description="The states of which there may be more than was counted."
    )


class Limit(Document):
    """What a limit is."""

    name: str
    concurrency: int | None = Field(description="How many of a key run at once; null: any number.")
    rate: str | None = Field(description='How many of a key start in a while, as "100/1m".')
    burst: int | None = Field(description="How many may start at once after a rest.")
    source: str = Field(description="Who says so: `config`, or `set` at run time.")


class LimitStanding(Limit):
    """And how its jobs stand; of each up to 10,000 are counted."""

    running: Number
    waiting: Number
    keys: Number


class Limits(Document):
    """The limits there are."""

    limits: list[LimitStanding]
    unknown: list[str] = Field(description="Those that jobs wait for and nobody has set.")


class RemovedLimit(Document):
    """A limit of which nobody says any more what it is."""

    name: str
    removed: bool


class Sums(Document):
    """What became of jobs in one step of time."""

    at: datetime
    queue: str
    started: int
    succeeded: int
    failed: int
    retried: int
    cancelled: int
    run_ms: int
    cpu_ms: int
    wait_ms: int
    wait_max_ms: int
    depth: int | None
    oldest_ms: int | None


class Statistics(Document):
    """Sums of the minutes of some time; a step in which nothing was noted is left out."""

    since: str
    step: str
    queue: str | None
    sums: list[Sums]


class Action(Document):
    """What somebody has done."""

    id: int
    at: datetime
    who: str
    verb: str
    what: str
    number: int | None


class Actions(Document):
    """The newest first."""

    actions: list[Action]
    next: str | None = Field(description="The `cursor` of the next page; null: there is none.")


class Schedule(Document):
    """What is enqueued when."""

    name: str
    source: str = Field(description="`config`, `code`, or `added` at run time.")
    family: str | None = Field(description="The family whose configuration or code declares it.")
    task: str
    args: Any
    kwargs: Any
    queue: str | None = Field(description="null is what the task says.")
    cron: str | None
    every: float | None = Field(description="Seconds.")
    anchor: datetime | None
    timezone: str
    catch_up: str
    overlap: str
    paused: str | None = Field(description="`config` or `run time`: by what it is paused.")
    paused_at: datetime | None
    last_tick: datetime | None
    last_job: JsonId | None
    next: list[datetime] = Field(description="The next three ticks; none while it is paused.")
    words: str = Field(description="When it ticks, or why it cannot.")
    late: float = Field(description="Seconds for which a tick has been due that made no job yet.")
    created_at: datetime


class Schedules(Document):
    """All schedules."""

    schedules: list[Schedule]


class Life(Document):
    """A process of a family that may hold running jobs."""

    owner: str
    name: str
    host: str
    pid: int
    started_at: datetime


class Family(Document):
    """A family, as the database knows it."""

    id: str
    name: str
    host: str
    pid: int
    version: str
    state_dir: str
    started_at: datetime
    heartbeat_at: datetime
    silent: float = Field(description="Seconds since its last heartbeat.")
    dead_after: float = Field(description="After so many seconds of silence others take its jobs.")
    died: bool
    lives: list[Life]


class Families(Document):
    """All families of the database."""

    families: list[Family]


class Health(Document):
    """Whether a family is well."""

    healthy: bool
    reason: str | None
    pid: int | None
    warnings: list[str]


class Worker(Document):
    """One worker of a family; further members as `jobvisor status --json` has them."""

    model_config = ConfigDict(extra="allow")

    slot: int
    pool: str | None
    pid: int | None
    state: str
    job: JsonId | None
    job_seconds: float | None
    rss: int | None
    up_seconds: float


class Workers(Document):
    """The workers of this machine's family."""

    workers: list[Worker]


class Status(Document):
    """A family as it describes itself: what `jobvisor status --json` tells, without the queues."""

    model_config = ConfigDict(extra="allow")

    family: str
    pid: int | None
    state: str
    workers: list[Worker]


class Pool(Document):
    """How many workers a pool has now."""

    pool: str
    workers: int
    least: int | None
    most: int | None


class Reloading(Document):
    """A reload that was asked for."""

    pid: int
    number: int = Field(
        description="The status has this number at `reload` when it tells of this one."
    )
