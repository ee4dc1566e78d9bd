"""What an application calls: enqueue, look, wait, cancel, requeue."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar, NamedTuple, ParamSpec, Protocol, Self, TypeVar, overload

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.codec import NamedCodec, named_codec
from jobvisor.jobs.context import Nobody
from jobvisor.jobs.errors import (
    IllegalMove,
    InvalidOption,
    JobNotFound,
    JobsError,
    WaitTimeout,
    shown,
)
from jobvisor.jobs.events import Events
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.job import Attempt, Job, State
from jobvisor.jobs.keys import DURABILITIES
from jobvisor.jobs.log import log_event
from jobvisor.jobs.payload import Codec, Payload
from jobvisor.jobs.registry import Registry, check_name, registry
from jobvisor.jobs.settings import Settings, find
from jobvisor.jobs.step import Step
from jobvisor.jobs.store import Store, open_store
from jobvisor.jobs.store.base import FamilyRow, Imported, JobRow
from jobvisor.jobs.task import NO_OPTIONS, Call, Defaults, Options, OptionValues, Task
from jobvisor.jobs.units import Duration, duration_ms
from jobvisor.jobs.values import check_prefix
from jobvisor.jobs.watch import Watch

P = ParamSpec("P")
R = TypeVar("R")

Target = Task[..., Any] | Call | str
Jobs = list[Job]
Ids = list[int]
Attempts = list[Attempt]
Names = list[str]

WAIT_LONGEST = 3600.0  # seconds that a wait without a limit looks ahead; it goes on after them
PRUNED_AT_ONCE = 1000
IDS_AT_ONCE = 100_000  # of finished jobs each page is a sort of all of that state
TASK_NAMES_MAX = 1000
EXPORTED_AT_ONCE = 100  # with the largest arguments and results that is 200 MB


class Export(NamedTuple):
    """What a snapshot of a database holds, to be moved to another one."""

    running: int
    """How many jobs run."""
    families: list[FamilyRow]
    jobs: Iterator[JobRow]
    """In the order of their ids; a running one as a release would leave it."""


class Moved(NamedTuple):
    """What became of one of many jobs."""

    id: int
    outcome: str
    """`pending`, `cancelled`, `requested` (of a running one), or `refused`."""
    error: JobsError | None = None
    """Why it was refused."""


Moves = list[Moved]


class Stage(Protocol):
    """A database for a test, in place of the one that a client names."""

    store: Store

    def enqueued(self, payload: Payload, /) -> None:
        """Called when one job or many have been stored, encoded by this."""


class Client:
    """A door to one database, for any number of threads.

    What it is not told is found: JOBVISOR_DATABASE_URL and the other variables, then the file that
    JOBVISOR_CONFIG names, then ./config.toml; in a task it is what the family has. With a URL no
    file is needed; ./config.toml still says the rest (codec, durability, defaults) where it is ours.
    Nothing is connected before the first call. After a fork the copy connects anew by itself.

    >>> with Client("memory://") as client:
    ...     job = client.enqueue("app.mail:send", "a@b.c", subject="x")
    ...     job.state, job.args, client.get(job.id).kwargs
    (<State.PENDING: 'pending'>, ['a@b.c'], {'subject': 'x'})
    """

    stage: ClassVar[Stage | None] = None
    """Where every client of this process plays instead of its own database: `jobvisor.testing`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        codec: Codec | None = None,
        hold: bool | None = None,
        defaults: Defaults | None = None,
        durability: str | None = None,
        schema: str | None = None,
        prefix: str | None = None,
        notify: bool | None = None,
        settings: Settings | None = None,
        registry: Registry = registry,
        clock: Clock = SYSTEM,
    ) -> None:
        """What is not given here is found by one rule: environment, then the file, then the default.

        `durability` is "full" (an acknowledged job survives a power cut) or "normal", on SQLite;
        `schema` and `notify` are PostgreSQL's. `prefix` begins the names of our tables, beside those
        of an application; the family has the same. `codec` encrypts what is stored; where the family
        is to read it, `[database] codec` names it for both. `hold=False` connects for each call and
        leaves nothing open in between, as a client made in a worker does by itself on SQLite.
        `settings` are what a `Config` says (`config.settings`), in place of all that is found.
        """
        found = settings or find(url)
        self._settings: Settings = found
        self._durable = _is_durable(durability or found.durability)
        self._schema = found.schema if schema is None else schema
        self._prefix = found.prefix if prefix is None else check_prefix(prefix)
        self._notify = found.notify if notify is None else notify
        self._defaults = defaults or found.defaults
        self._payload = Payload(codec or named_codec(found.codec, found.path))
        self._registry = registry
        self._hold = found.hold if hold is None else hold
        self._clock = clock
        self._events = Events()
        self._events.subscribe(log_event)
        self._exports = 0
        self._lock = threading.Lock()
        self._store_of: tuple[int, Store] | None = None
        self._watch_of: tuple[int, Watch] | None = None
        self._step = Step(clock, self._events, self._execution, self._rest)

    @property
    def url(self) -> str:
        """The database this client speaks to."""
        return self._settings.url

    # -- enqueue

    @overload
    def enqueue(
        self, target: Task[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[R]: ...
    @overload
    def enqueue(self, target: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Job[R]: ...
    @overload
    def enqueue(self, target: Call[R], /) -> Job[R]: ...
    @overload
    def enqueue(self, target: str, /, *args: Any, **kwargs: Any) -> Job: ...
    def enqueue(self, target: Target, /, *args: Any, **kwargs: Any) -> Job:
        """Store a job of a task, of a call of one, or of a task's name.

        When it returns, the job is not lost any more. Type checkers hold the arguments against the
        task's, and know the type of `result`.

        Raises PayloadError or InvalidOption before anything is stored, StoreUnavailable if the
        database does not answer: then the job is there once or not at all.
        """
        call = _call_of(self._registry, target, args, kwargs)
        self._load_codec()
        new = call.new_job(self._defaults, self._payload)
        try:  # as `_store` does: a generator would cost each job a microsecond
            job = self._own_store().enqueue_one(new)
        finally:
            self._rest()
        if Client.stage is None:
            return job
        Client.stage.enqueued(self._payload)
        return replace(self.get(job.id), created=job.created)

    def enqueue_many(self, calls: Iterable[Call]) -> Ids:
        """Store many jobs in one transaction, all or none; their ids, in order.

        Calls are made by `task.call(...)`, with other options by `task.using(...).call(...)`, of a
        task that is only a name by `client.call(...)`. Where a unique key is taken the id is that of
        the job that holds it.
        """
        self._load_codec()
        calls = [_checked_call(number, call) for number, call in enumerate(calls)]
        new = [call.new_job(self._defaults, self._payload) for call in calls]
        with self._store() as store:
            ids = [number for number, _created in store.enqueue(new)]
        if Client.stage is not None:
            Client.stage.enqueued(self._payload)
        return ids

    def call(
        self, name: str, /, *args: Any, options: OptionValues | None = None, **kwargs: Any
    ) -> Call:
        """A call of a task by its name, with the options it has where this program knows it."""
        given = Options.of(options) if options else NO_OPTIONS
        known = self._registry.get(name)
        if known is None:
            return Call(check_name(name), args, kwargs, given)
        return Call(name, args, kwargs, known.options.merged(given), known.function)

    # -- look

    @overload
    def get(self, job: Job[R]) -> Job[R]: ...
    @overload
    def get(self, job: int) -> Job: ...
    def get(self, job: int | Job) -> Job:
        """One job as it is now, by its id or as a Job; JobNotFound if there is none any more."""
        number = _id(job)
        with self._store() as store:
            return store.get(number)

    def get_many(self, jobs: Iterable[int | Job]) -> dict[int, Job]:
        """Those of these jobs that there are, by their ids, in the order asked.

        Any number of them: more than 500 are read in several statements, each as of its moment.
        """
        numbers = [_id(job) for job in jobs]
        with self._store() as store:
            return store.get_many(numbers)

    def attempts(self, job: int | Job) -> Attempts:
        """The unsuccessful runs of a job, oldest first."""
        number = _id(job)
        with self._store() as store:
            store.get(number)
            return store.attempts(number)

    def attempts_of(self, jobs: Iterable[int | Job]) -> dict[int, Attempts]:
        """The same of many jobs in one call, by their ids; an empty list where there are none."""
        numbers = [_id(job) for job in jobs]
        with self._store() as store:
            return store.attempts_of(numbers)

    def list(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        task: str | None = None,
        error: str | None = None,
        within: Duration | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> Jobs:
        """The newest jobs, at most `limit`; `before` an id shows the page after it.

        `error` is a part of the error's text, in any case. `within="1h"` leaves out what ended (of
        a running job: began; of another: was due) longer ago.

        It reads from the newest on until it has enough. Where few match a task, a queue or an error,
        that is the whole table, or with a `state` all of that state: of a million finished jobs 0.3 s
        on SQLite and 1 s on PostgreSQL. Nobody waits for it.
        """
        wanted = None if state is None else _state(state)
        within_ms = None if within is None else duration_ms(within)
        with self._store() as store:
            return store.find(
                state=wanted,
                queue=queue,
                task=task,
                error=error,
                within_ms=within_ms,
                limit=limit,
                before=before,
            )

    def ids(
        self,
        state: str,
        *,
        queue: str | None = None,
        task: str | None = None,
        error: str | None = None,
        within: Duration | None = None,
    ) -> Iterator[int]:
        """The ids of all jobs in one state, narrowed as `list` is; the oldest first, in pages."""
        within_ms = None if within is None else duration_ms(within)
        page: Ids = []
        while page := self._page_of_ids(
            _state(state),
            queue=queue,
            task=task,
            error=error,
            within_ms=within_ms,
            after=page[-1] if page else 0,
        ):
            yield from page

    def _page_of_ids(self, state: State, **narrowed: Any) -> Ids:
        with self._store() as store:
            return store.find_ids(state, limit=IDS_AT_ONCE, **narrowed)

    def task_names(self) -> Names:
        """The names of the tasks that any job is of, at most 1,000; reads the whole table."""
        with self._store() as store:
            return store.task_names(TASK_NAMES_MAX)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs of each queue are in each state; reads the whole table.

        A queue without jobs is not in it, nor a state that none of its jobs is in, so read it by
        `get`: `client.counts().get("mail", {}).get("failed", 0)`. The states are plain texts:
        scheduled, pending, blocked, running, succeeded, failed, cancelled.

        >>> with Client("memory://") as client:
        ...     _ = client.enqueue("app.mail:send", "a@b.c")
        ...     client.counts()
        {'default': {'pending': 1}}
        """
        with self._store() as store:
            return store.counts()

    def oldest_pending(self) -> dict[str, float]:
        """For each queue with pending jobs: seconds the longest waiting one has been due."""
        with self._store() as store:
            return {queue: max(0, ms) / 1000 for queue, ms in store.oldest_pending().items()}

    @overload
    def wait(self, job: Job[R], timeout: float | None = None) -> Job[R]: ...
    @overload
    def wait(self, job: int, timeout: float | None = None) -> Job: ...
    def wait(self, job: int | Job, timeout: float | None = None) -> Job:
        """The job once it is finished; WaitTimeout after `timeout` seconds (None: for ever).

        Finished may be failed or cancelled: look at its `state` before you use its `result`.
        """
        job = _id(job)
        began = self._clock.monotonic_ns()
        with self._store() as store, self._own_watch().waiting(store.watcher):
            while True:
                seen = self._own_watch().changes
                found = store.get(job)
                if found.finished:
                    return found
                waited = (self._clock.monotonic_ns() - began) / 1e9
                left = WAIT_LONGEST if timeout is None else timeout - waited
                if left <= 0:
                    raise WaitTimeout(
                        f"job {job} is still {found.state} after {timeout} s; it goes on"
                    )
                self._rest()
                self._own_watch().sleep(seen, waited, left)

    def _own_watch(self) -> Watch:
        with self._lock:
            if self._watch_of is None or self._watch_of[0] != os.getpid():
                self._watch_of = (os.getpid(), Watch(self._clock))
            return self._watch_of[1]

    # -- change

    def cancel(self, job: int | Job) -> str:
        """`cancelled`, or `requested` of a running job; IllegalMove if it is finished."""
        number = _id(job)
        with self._store() as store:
            return store.cancel(number)

    @overload
    def requeue(self, job: Job[R]) -> Job[R]: ...
    @overload
    def requeue(self, job: int) -> Job: ...
    def requeue(self, job: int | Job) -> Job:
        """Start a finished job over at attempt 0, its history kept; UniqueTaken names a holder."""
        number = _id(job)
        with self._store() as store:
            store.requeue(number)
            return store.get(number)

    def cancel_many(self, jobs: Iterable[int | Job]) -> Moves:
        """`cancel` of each in one transaction; what became of each, in order.

        One that cannot be cancelled is told as such and stops nothing. Give thousands, not
        millions: nobody else may write meanwhile.
        """
        return self._move_many(jobs, lambda store, job: store.cancel(job))

    def requeue_many(self, jobs: Iterable[int | Job]) -> Moves:
        """`requeue` of each in one transaction, as `cancel_many` cancels."""
        return self._move_many(jobs, _requeued)

    def _move_many(self, jobs: Iterable[int | Job], move: Callable[[Store, int], str]) -> Moves:
        moved: Moves = []
        numbers = [_id(job) for job in jobs]
        with self._store() as store, store.transaction():
            for job in numbers:
                try:
                    moved.append(Moved(job, move(store, job)))
                except (IllegalMove, JobNotFound) as error:
                    moved.append(Moved(job, "refused", error))
        return moved

    def prune(self, older_than_ms: Mapping[str, int], *, dry_run: bool = False) -> dict[str, int]:
        """Remove finished jobs older than their state's time; how many, by state."""
        ages = {_state(state): age for state, age in older_than_ms.items()}
        with self._store() as store:
            counted = store.prunable(ages)
            if not dry_run:
                for state, age in ages.items():
                    counted[state] = _prune_all(store, state, age)
        return {state.value: number for state, number in counted.items()}

    def migrate(self) -> tuple[int, int]:
        """Create or update the schema; its number before and after."""
        with self._store() as store:
            return store.migrate()

    # -- move to another database

    @contextmanager
    def export(self, *, finished: bool = False) -> Iterator[Export]:
        """The unfinished jobs, or all, as they stand at one moment, for `import_` elsewhere.

        Read them within the block; nothing may be changed through this client in it.
        """
        with self._store() as store, store.snapshot():
            self._exports += 1  # another call within the block must not end the snapshot
            try:
                yield Export(store.running(), store.families(), _exported(store, finished=finished))
            finally:
                self._exports -= 1

    def import_(self, jobs: Iterable[JobRow]) -> Imported:
        """Store exported jobs under their ids, with their attempts: all or none, and no events.

        One that is there already, with this id, task and moment of creation, is left as it is.
        IllegalMove names an id that another job has here, UniqueTaken who holds a unique key,
        PayloadError a job that this database refuses. The ids must ascend.
        """
        with self._store() as store:
            return store.import_(jobs)

    # -- run

    def run_one(self, queues: Sequence[str] | None = None) -> Job | None:
        """Claim one job, run it here, settle it; the job as it is then, None if nothing was due.

        For other people's loops; tests have `jobvisor.testing`. Without `queues` every queue that
        has a pending job is served. The job's own failure is not raised: it is in the `state` and
        `error` of the answer. No timeout or memory limit is enforced. While the task runs this
        client's connection stays open, unless it was made with `hold=False`: do that on SQLite where
        the task opens the same file, because closing it there would drop this process's locks.

        A death of this process is noticed by the next family on the same database. Where the database
        goes away before the job is settled this raises, and the next call settles it.
        """
        self._load_codec()
        with self._store() as store:
            return self._step.take(store, None if queues is None else list_of(queues))

    def _execution(self, port: Nobody) -> Execution:
        return Execution(
            self._registry,
            clock=self._clock,
            port=port,
            worker="run_one",
            payload=self._payload,
        )

    def _rest(self) -> None:
        """No connection stays open in between where none is to be held."""
        store_of = self._store_of  # once: another thread may close this client
        if not self._hold and not self._exports and Client.stage is None and store_of is not None:
            store_of[1].close()

    def _load_codec(self) -> None:
        """A codec that cannot be imported is the configuration's fault, and not a payload's."""
        if isinstance(self._payload.codec, NamedCodec):
            self._payload.codec.load()

    # -- the connection

    @contextmanager
    def _store(self) -> Iterator[Store]:
        store = self._own_store()
        try:
            yield store
        finally:
            self._rest()

    def _own_store(self) -> Store:
        if Client.stage is not None:
            Client.stage.store.payload = self._payload
            return Client.stage.store
        with self._lock:
            if self._store_of is None or self._store_of[0] != os.getpid():
                if self._store_of is not None:
                    self._store_of[1].close()  # of the process we were forked from: only forgotten
                store = open_store(
                    self.url,
                    durable=self._durable,
                    schema=self._schema,
                    prefix=self._prefix,
                    notify=self._notify,
                    clock=self._clock,
                    events=self._events,
                )
                store.payload = self._payload
                self._store_of = (os.getpid(), store)
            return self._store_of[1]

    def close(self) -> None:
        """Disconnect; a later call connects again."""
        with self._lock:
            store_of, self._store_of = self._store_of, None
        # Outside the lock: it waits for another thread's transaction, and a fork meanwhile must
        # not leave the copy with a lock that nobody opens.
        if store_of is not None:
            store_of[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Default:
    """The client of `task.enqueue()`: found at first use, or given (`use_client`)."""

    client: Client | None = None

    @classmethod
    def get(cls) -> Client:
        if cls.client is None:
            cls.client = Client()
        return cls.client


def use_client(client: Client | None) -> Callable[[], None]:
    """Make `task.enqueue()` use this client (None: find one anew); call the answer to undo it.

    A web app whose settings are its own calls it once at start, before its threads begin: there is
    one such client in a process. A plain `Client()` does not become it, and is not changed by it.

    >>> undo = use_client(Client("memory://"))
    >>> undo()
    """
    before, _Default.client = _Default.client, client

    def undo() -> None:
        _Default.client = before

    return undo


Task.default_client = _Default.get


def _call_of(
    registry: Registry, target: Target, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Call:
    if isinstance(target, Task):
        return target.call(*args, **kwargs)
    if isinstance(target, str):
        known = registry.get(target)
        return (
            Call(check_name(target), args, kwargs) if known is None else known.call(*args, **kwargs)
        )
    if isinstance(target, Call):
        if args or kwargs:
            raise InvalidOption(f"the call of {target.task} has its arguments already")
        return target
    raise InvalidOption(
        f"{target!r} cannot be enqueued; it must be a task (a function under @task), "
        f"a call of one, or a task's name"
    )


def _checked_call(number: int, call: Any) -> Call:
    if isinstance(call, Call):
        return call
    how = f"{call.name}.call(...)" if isinstance(call, Task) else "task.call(...)"
    raise InvalidOption(f"calls[{number}] is {shown(call)}; it must be a call, made by {how}")


def _id(job: Any) -> int:
    """The id where a job is meant; the next call would say less well what is wrong with it."""
    if isinstance(job, Job):
        return job.id
    if isinstance(job, bool) or not isinstance(job, int):
        raise InvalidOption(
            f"{shown(job)} is no job; give its id, which is a whole number, or the Job that "
            "enqueue returned"
        )
    return job


def _is_durable(durability: str) -> bool:
    if durability not in DURABILITIES:
        raise InvalidOption(f"durability={durability!r} must be one of {', '.join(DURABILITIES)}")
    return durability == "full"


def _state(name: str) -> State:
    try:
        return State(name)
    except ValueError:
        raise InvalidOption(f"{name!r} is no state; it must be one of {', '.join(State)}") from None


def _exported(store: Store, *, finished: bool) -> Iterator[JobRow]:
    after = 0
    while page := store.export(after, EXPORTED_AT_ONCE, finished=finished):
        yield from page
        after = page[-1].id


def _requeued(store: Store, job: int) -> str:
    store.requeue(job)
    return "pending"


def _prune_all(store: Store, state: State, age: int) -> int:
    gone = 0
    while number := store.prune({state: age}, limit=PRUNED_AT_ONCE):
        gone += number
    return gone


def list_of(queues: Sequence[str]) -> Sequence[str]:
    """Queues as they were given; one name alone is a common slip that would be taken by letters."""
    if isinstance(queues, str):
        raise InvalidOption(f"queues={queues!r} must be a list of names, such as [{queues!r}]")
    return queues
