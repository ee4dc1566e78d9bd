"""What an application does with schedules: `client.schedules`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any

from jobvisor.jobs.errors import InvalidOption, JobsError, shown
from jobvisor.jobs.job import Job
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.schedule import Declared, Plan, Schedule, ScheduleRow, Seen, planned
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.base import Imported
from jobvisor.jobs.store.rows import moment_of, shown_value
from jobvisor.jobs.task import NO_OPTIONS, Call, Defaults, Options, Task
from jobvisor.jobs.units import Duration

__all__ = ["Schedules", "schedule_of"]

Listed = list[Schedule]
Rows = list[ScheduleRow]

LISTED_AT_ONCE = 1_000


class Schedules:
    """The verbs of the table `schedules`. A client makes it; what it stands for is the client's."""

    def __init__(
        self,
        store: Callable[[], AbstractContextManager[Store]],
        payload: Payload,
        registry: Registry,
        defaults: Defaults,
        *,
        call_of: Callable[[Task[..., Any] | Call | str], Call],
        enqueued: Callable[[], None],
    ) -> None:
        """`call_of` makes a call of what `add` is given, `enqueued` is called when a job was stored."""
        self._store = store
        self._payload = payload
        self._registry = registry
        self._defaults = defaults
        self._call_of = call_of
        self._enqueued = enqueued

    def list(self, *, limit: int = 10_000) -> Listed:
        """All of them by name, whatever they come from; at most `limit`."""
        with self._store() as store:
            return [schedule_of(seen, self._payload) for seen in store.schedules(limit=limit)]

    def get(self, name: str) -> Schedule:
        """One; ScheduleNotFound where there is none of this name."""
        with self._store() as store:
            return schedule_of(store.schedule(name), self._payload)

    def add(
        self,
        name: str,
        target: Task[..., Any] | Call | str,
        *,
        cron: str | None = None,
        every: Duration | None = None,
        timezone: str | None = None,
        anchor: datetime | None = None,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        catch_up: str = "latest",
        overlap: str = "allow",
        paused: bool = False,
        replace: bool = False,
    ) -> Schedule:
        """Add a schedule of a task, of a call of one (`report.call(2)`), or of a task's name.

        It ticks by `cron` in `timezone` (UTC), or `every` so often, counted from `anchor` (1970). Ticks count
        from now on. Of those that nobody was there for the `catch_up` says what is made: one job for the
        `latest`, `all` (the newest thousand), or `none`; with `overlap="skip"` a tick makes none while the
        job of the last one is unfinished. Its jobs have the options of the task, but for the queue.

        InvalidOption or PayloadError where something of it cannot be; ScheduleTaken where the name is taken:
        `replace=True` changes one that was added at run time.
        """
        # Most programs have no schedule, and need neither zones nor cron.
        from jobvisor.jobs.timing import timing_of  # noqa: PLC0415

        timing = timing_of(cron=cron, every=every, timezone=timezone, anchor=anchor)
        call = self._call(target, tuple(args), dict(kwargs or {}))
        plan = planned(
            name,
            call,
            timing,
            payload=self._payload,
            queue=queue or self._own_queue(call),
            catch_up=catch_up,
            overlap=overlap,
            paused=paused,
        )
        with self._store() as store, store.transaction():
            store.add_schedule(plan, replace=replace)
            return schedule_of(store.schedule(name), self._payload)

    def remove(self, name: str) -> None:
        """Remove one; ScheduleTaken where a living family declares it, so that it would come again."""
        with self._store() as store:
            store.remove_schedule(name)

    def pause(self, name: str) -> bool:
        """Let it tick no more, until `resume`, whatever is started meanwhile; False where it did not."""
        with self._store() as store:
            return store.pause_schedule(name)

    def resume(self, name: str) -> bool:
        """Let it tick again, from now on; False where no `pause` has stopped it."""
        with self._store() as store:
            return store.resume_schedule(name)

    def trigger(self, name: str) -> Job:
        """Enqueue its job now; this is no tick, and changes nothing about those to come."""
        from jobvisor.jobs.schedule_job import job_of_schedule, told_options  # noqa: PLC0415 - as above

        with self._store() as store, store.transaction():
            row = store.schedule(name).row
            task = self._registry.get(row.task)
            options = told_options(store, row.task) if task is None else task.options
            new = job_of_schedule(row, options or NO_OPTIONS, self._defaults, None)
            job = store.enqueue_one(new)
        self._enqueued()
        return job

    # -- for whoever declares or moves them

    def declare(self, source: str, family: str, by: int, plans: Iterable[Plan]) -> Declared:
        """See Store.declare_schedules."""
        with self._store() as store:
            return store.declare_schedules(source, family, by, plans)

    def rows(self) -> Rows:
        """All as they are stored, for `import_` elsewhere."""
        found: Rows = []
        after = ""
        with self._store() as store:
            while page := store.schedules(limit=LISTED_AT_ONCE, after=after):
                found += [seen.row for seen in page]
                after = found[-1].name
        return found

    def import_(self, rows: Iterable[ScheduleRow]) -> Imported:
        """Store exported ones; those whose name is there stay as they are."""
        with self._store() as store:
            return store.import_schedules(rows)

    def _call(
        self, target: Task[..., Any] | Call | str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Call:
        call = self._call_of(target)
        if not isinstance(target, Call):
            return Call(call.task, args, kwargs, call.options, call.function)
        if args or kwargs:
            raise InvalidOption(f"the call of {call.task} has its arguments already")
        return call

    def _own_queue(self, call: Call) -> str | None:
        """The queue that the caller chose; other options than the task's would be lost."""
        known = self._registry.get(call.task)
        options = NO_OPTIONS if known is None else known.options
        given = call.options
        if given.merged(Options(queue=options.queue)) != options.merged(
            Options(queue=options.queue)
        ):
            raise InvalidOption(
                f"a schedule has the options of its task but for the queue, and {shown(given)} are others "
                f"than those of {call.task}"
            )
        return None if given.queue == options.queue else given.queue


def schedule_of(seen: Seen, payload: Payload) -> Schedule:
    """A stored schedule as it is shown. What cannot be read says why in its place."""
    row = seen.row
    following, words, late = _timing_shown(seen)
    paused = "run time" if row.paused_at is not None else None
    return Schedule(
        name=row.name,
        source=row.source,
        family=row.family,
        task=row.task,
        args=shown_value(row.args, payload),
        kwargs=shown_value(row.kwargs, payload),
        queue=row.queue,
        cron=row.cron,
        every=None if row.every_ms is None else row.every_ms / 1_000,
        anchor=None if row.every_ms is None else moment_of(row.anchor),
        timezone=row.timezone,
        catch_up=row.catch_up,
        overlap=row.overlap,
        paused="config" if row.paused_config else paused,
        paused_at=None if row.paused_at is None else moment_of(row.paused_at),
        last_tick=None if seen.made_ms is None else moment_of(seen.made_ms),
        last_job=row.last_job,
        next=following,
        words=words,
        late=late,
        created_at=moment_of(row.created_at),
    )


def _timing_shown(seen: Seen) -> tuple[tuple[datetime, ...], str, float]:
    """Its next ticks, when it ticks in words, and for how long one has been due."""
    from jobvisor.jobs.timing import stored_timing  # noqa: PLC0415 - see above

    row = seen.row
    try:
        timing = stored_timing(row.cron, row.every_ms, row.anchor, row.timezone)
        if row.is_paused:
            return (), timing.words, 0
        following = tuple(timing.next_few(seen.now_ms))
        due = timing.next_after(row.last_tick)
    except JobsError as error:
        return (), str(error), 0
    late_ms = 0 if due is None else max(0, seen.now_ms - due)
    return following, timing.words, late_ms / 1_000
