"""What an application calls: a door to its database, and all that goes through it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar, overload

from jobvisor.jobs.beside import Beside
from jobvisor.jobs.change import Change, Moved, Moves
from jobvisor.jobs.context import Nobody
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.follow import Follow
from jobvisor.jobs.job import Job
from jobvisor.jobs.limits import Limited
from jobvisor.jobs.look import Ids, Look
from jobvisor.jobs.pause import Pause
from jobvisor.jobs.registry import Registry, check_name
from jobvisor.jobs.requests import Requests
from jobvisor.jobs.schedules import Schedules
from jobvisor.jobs.sharing import Sharing
from jobvisor.jobs.step import Step
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.base import FamilyRow, Imported, JobRow
from jobvisor.jobs.sweep import Sweep, Swept
from jobvisor.jobs.task import NO_OPTIONS, Call, Options, OptionValues, Task
from jobvisor.jobs.why import Why

if TYPE_CHECKING:
    from jobvisor.jobs.executor import JobExecutor

__all__ = ["Client", "Export", "Moved", "Moves", "Swept", "list_of", "use_client"]

P = ParamSpec("P")
R = TypeVar("R")

Target = Task[..., Any] | Call | str

EXPORTED_AT_ONCE = 100  # with the largest arguments and results that is 200 MB


class Export(NamedTuple):
    """What a snapshot of a database holds, to be moved to another one."""

    running: int
    """How many jobs run."""
    families: list[FamilyRow]
    jobs: Iterator[JobRow]
    """In the order of their ids; a running one as a release would leave it."""


class Client(Look, Change, Sweep, Follow, Beside, Pause, Requests, Limited, Why, Sharing):
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

    _step: Step | None = None

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

        Raises PayloadError or InvalidOption before anything is stored, UniqueTaken where its key is held
        and `on_conflict` says so, StoreUnavailable if the
        database does not answer: then the job is there once or not at all.
        """
        call = _call_of(self._registry, target, args, kwargs)
        self._load_codec()
        new = call.new_job(self._defaults, self._payload, self.home)
        try:  # as `_store` does: a generator would cost each job a microsecond
            job = self._own_store().enqueue_one(new)
        finally:
            self._rest()
        if self.stage is None:
            return job
        self.stage.enqueued(self._payload)
        return replace(self.get(job.id), created=job.created, replaced=job.replaced)

    def enqueue_many(self, calls: Iterable[Call]) -> Ids:
        """Store many jobs in one transaction, all or none; their ids, in order.

        Calls are made by `task.call(...)`, with other options by `task.using(...).call(...)`, of a
        task that is only a name by `client.call(...)`. Where a unique key is taken the id is that of
        the job that holds it.
        """
        self._load_codec()
        calls = [_checked_call(number, call) for number, call in enumerate(calls)]
        home = self.home
        new = [call.new_job(self._defaults, self._payload, home) for call in calls]
        with self._store() as store:
            ids = [number for number, _created in store.enqueue(new)]
        if self.stage is not None:
            self.stage.enqueued(self._payload)
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

    # -- schedules

    @property
    def schedules(self) -> Schedules:
        """What is enqueued when: `list`, `get`, `add`, `remove`, `pause`, `resume`, `trigger`."""
        self._load_codec()
        return Schedules(
            self._store,
            self._payload,
            self._registry,
            self._defaults,
            call_of=lambda target: _call_of(self._registry, target, (), {}),
            enqueued=self._enqueued,
        )

    def _enqueued(self) -> None:
        if self.stage is not None:
            self.stage.enqueued(self._payload)

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

    def executor(self) -> JobExecutor:
        """A `concurrent.futures.Executor` whose calls are jobs: `submit(task, ...)`, `map(task, ...)`.

        Its futures have the results of their jobs, or JobFailed; `cancel()` cancels the job. What was
        submitted is run also when this program has ended.
        """
        # Most programs need no futures, and no module of them.
        from jobvisor.jobs.executor import JobExecutor  # noqa: PLC0415

        def call_of(target: Target, args: tuple[Any, ...]) -> Call:
            return _call_of(self._registry, target, args, {})

        return JobExecutor(self, call_of, clock=self._clock)

    # -- run

    def run_one(self, queues: Sequence[str] | None = None) -> Job | None:
        """Claim one job, run it here, settle it; the job as it is then, None if nothing was due.

        For other people's loops; tests have `jobvisor.testing`. Without `queues` every queue that
        has a pending job is served. The job's own failure is not raised: it is in the `state` and
        `error` of the answer. What is `@around` a run is around this one too; hooks are not called:
        this process has its own beginning and end. No timeout or memory limit is enforced. While the
        task runs this client's connection stays open, unless it was made with `hold=False`: do that on
        SQLite where the task opens the same file, because closing it there would drop this process's
        locks.

        A death of this process is noticed by the next family on the same database. Where the database
        goes away before the job is settled this raises, and the next call settles it.
        """
        self._load_codec()
        with self._store() as store:
            return self._own_step().take(store, None if queues is None else list_of(queues))

    def _own_step(self) -> Step:
        with self._lock:
            if self._step is None:
                self._step = Step(self._clock, self._events, self._execution, self._rest)
            return self._step

    def _execution(self, port: Nobody) -> Execution:
        return Execution(
            self._registry,
            clock=self._clock,
            port=port,
            worker="run_one",
            payload=self._payload,
            home=self.home,
            look=self.get,
        )


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


def _exported(store: Store, *, finished: bool) -> Iterator[JobRow]:
    after = 0
    while page := store.export(after, EXPORTED_AT_ONCE, finished=finished):
        yield from page
        after = page[-1].id


def list_of(queues: Sequence[str]) -> Sequence[str]:
    """Queues as they were given; one name alone is a common slip that would be taken by letters."""
    if isinstance(queues, str):
        raise InvalidOption(f"queues={queues!r} must be a list of names, such as [{queues!r}]")
    return queues
