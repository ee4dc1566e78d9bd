"""A look at the schedules: for each tick that is due a job is enqueued, once, whoever else looks.

There is no leader. A tick's row, its job and how far its schedule has been looked after are one transaction,
which holds the schedule: a process that is killed or stopped in it leaves all of it, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile

from jobvisor.jobs.clock import SECOND, SYSTEM, Clock, iso, to_datetime
from jobvisor.jobs.errors import (
    JobsError,
    RowRefused,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    UniqueTaken,
)
from jobvisor.jobs.job import FINISHED
from jobvisor.jobs.log import say
from jobvisor.jobs.schedule import ScheduleRow, Seen, Upcoming
from jobvisor.jobs.schedule_job import job_of_schedule, told_options
from jobvisor.jobs.store import Store
from jobvisor.jobs.task import NO_OPTIONS, Defaults, Options
from jobvisor.jobs.timing import Timing, stored_timing
from jobvisor.jobs.units import duration_text

__all__ = ["CAUGHT_UP_MOST", "LOOK_MS", "ON_TIME_MS", "Ticker"]

LOOK_MS = 5_000
"""Between two looks while nothing is due: what others change is seen by then."""
ON_TIME_MS = 30_000
"""A tick that is older was missed: nobody was there."""
CAUGHT_UP_MOST = 1_000
"""Of `catch_up = "all"`, at once."""
PAGE = 1_000  # schedules that one statement reads
TICKS_AT_ONCE = (
    50  # of one schedule in one transaction: a thousand take seconds, in which nobody else writes
)
HELD_MS = 1_000  # somebody else has it in hand
TOLD_WITHIN_NS = 15 * SECOND  # workers that have just started tell of their tasks by then
PUT_OFF_NS = 15 * SECOND  # one whose job waited in vain for what somebody else holds
_KEPT = 20_000  # names and timings that are remembered


class Ticker:
    """One process that looks at all schedules of a database, whichever family they are from."""

    def __init__(self, store: Store, defaults: Defaults, clock: Clock = SYSTEM) -> None:
        self._store = store
        self._defaults = defaults
        self._clock = clock
        self._young_until = clock.monotonic_ns() + TOLD_WITHIN_NS
        self._next: dict[tuple[Timing, int], int | None] = {}
        self._troubles: dict[str, str] = {}
        self._skipped: dict[str, int | None] = {}
        self._put_off: dict[str, int] = {}
        self._waited_in_vain = 0
        self._broke_off_at = ""
        self._made_now: list[tuple[int, int, int]] = []  # told when it is committed

    def look(self) -> int:
        """Enqueue what is due; in how many milliseconds there is something to do again."""
        for known in (self._next, self._troubles, self._skipped, self._put_off):
            if len(known) > _KEPT:
                known.clear()
        wait, self._waited_in_vain = LOOK_MS, 0
        # One at which a look broke off comes last at the next.
        begins_behind, self._broke_off_at = self._broke_off_at, ""
        for each in self._all_behind(begins_behind):
            wait = min(wait, self._look_after(each))
        return max(0, wait)

    def _all_behind(self, name: str) -> Iterator[Upcoming]:
        """Those behind this name, then the others."""
        yield from self._pages(name)
        if name:
            yield from takewhile(lambda each: each.name <= name, self._pages(""))

    def _pages(self, after: str) -> Iterator[Upcoming]:
        while page := self._store.upcoming_schedules(limit=PAGE, after=after):
            yield from page
            if len(page) < PAGE:
                return
            after = page[-1].name

    def _look_after(self, upcoming: Upcoming) -> int:
        """One that cannot tick, or whose job the database refuses, keeps no other from it."""
        name = upcoming.name
        if self._put_off.get(name, 0) > self._clock.monotonic_ns():
            return LOOK_MS
        try:
            due = self._due(upcoming)
            if due is not None and due <= upcoming.now_ms:
                wait = self._tick(name, upcoming.task)
            else:
                wait = LOOK_MS if due is None else due - upcoming.now_ms
        except JobsError as error:
            if not self._is_its_own(name, error):
                self._broke_off_at = name
                raise
            self._note_trouble(name, str(error))
            return LOOK_MS
        self._troubles.pop(name, None)
        self._put_off.pop(name, None)
        return wait

    def _is_its_own(self, name: str, error: JobsError) -> bool:
        """Whether an error is about this schedule alone, and not about the database.

        A unique key may be held by an open transaction, of whoever that is. Where the database answers
        then, this schedule is tried again later: each try takes as long as the patience of one statement.
        Two in one look are too many to wait for.
        """
        if not isinstance(error, StoreError) or isinstance(error, RowRefused | StoreRefused):
            return True
        if not isinstance(error, StoreUnavailable):
            return False
        self._put_off[name] = self._clock.monotonic_ns() + PUT_OFF_NS
        self._waited_in_vain += 1
        return self._waited_in_vain < 2 and self._answers()

    def _answers(self) -> bool:
        try:
            self._store.has_schedules()
        except StoreError:
            return False
        return True

    def _note_trouble(self, name: str, error: str) -> None:
        if self._troubles.get(name) != error:
            self._troubles[name] = error
            say("schedule_troubled", schedule=name, error=error)

    def _due(self, upcoming: Upcoming) -> int | None:
        """The first tick that nobody has looked after; None where there comes none."""
        since = self._since(upcoming.name, upcoming.last_tick, upcoming.now_ms)
        if since is None:
            return upcoming.now_ms
        key = _timing(upcoming), since
        if key not in self._next:
            self._next[key] = key[0].next_after(since)
        return self._next[key]

    def _since(self, name: str, last_tick: int, now: int) -> int | None:
        """Up to when ticks have been looked after; None where the clock went back and nothing tells it."""
        return last_tick if last_tick <= now else self._store.looked_after(name, now)

    def _tick(self, name: str, task: str) -> int:
        self._made_now.clear()
        more = False
        options = self._options(task)
        if options is None:
            return HELD_MS  # it is too early to know how
        with self._store.transaction():
            held = self._store.hold_schedule(name)
            if held is None or held.row.is_paused or held.row.task != task:
                return HELD_MS
            since = self._since(name, held.row.last_tick, held.now_ms)
            if since is None:
                self._store.move_schedule(name, held.now_ms)
            else:
                more = self._made(held, since, options) < held.now_ms
            ahead = _timing(held.row).next_after(held.now_ms)
        for made in self._made_now:
            _tell(name, *made)
        self._store.on_wait()  # many may be due at one moment: each shows that this process moves
        if more:
            return 0
        return LOOK_MS if ahead is None else ahead - held.now_ms

    def _made(self, held: Seen, since: int, options: Options) -> int:
        """Make the jobs of the ticks since then, a page of them: up to which moment that is all."""
        row, now = held.row, held.now_ms
        ticks = _wanted(row, _timing(row), since, now)
        if len(ticks) > TICKS_AT_ONCE:
            ticks = ticks[:TICKS_AT_ONCE]
            now = ticks[-1]
        last_job = row.last_job
        for tick in ticks:
            last_job = self._job_of(row, tick, last_job, options, held.now_ms) or last_job
        self._store.move_schedule(row.name, now, last_job)
        return now

    def _options(self, task: str) -> Options | None:
        options = told_options(self._store, task)
        if options is None and self._clock.monotonic_ns() > self._young_until:
            return NO_OPTIONS  # nobody will tell: its job waits for a worker that knows it
        return options

    def _job_of(
        self, row: ScheduleRow, tick: int, last_job: int | None, options: Options, now: int
    ) -> int | None:
        """The job of one tick; None where it had one, or has none because of the last one's."""
        if self._store.has_tick(row.name, tick):
            return None  # before the clock went back
        if row.overlap == "skip" and last_job is not None and self._is_unfinished(last_job):
            self._note_skipped(row.name, tick, last_job)
            return None
        new = job_of_schedule(row, options, self._defaults, tick)
        try:
            job = self._store.enqueue_one(new).id
        except (
            UniqueTaken
        ) as error:  # as the task has it: the job that holds the key is this tick's
            job = error.holder
        self._store.add_tick(row.name, tick, job)
        self._made_now.append((tick, job, now - tick))
        return job

    def _is_unfinished(self, job: int) -> bool:
        return any(each.state not in FINISHED for each in self._store.summaries([job]))

    def _note_skipped(self, name: str, tick: int, job: int) -> None:
        if self._skipped.get(name) != job:
            self._skipped[name] = job
            say("tick_skipped", schedule=name, tick=iso(to_datetime(tick)), job=job)


def _tell(name: str, tick: int, job: int, late: int) -> None:
    line = "tick_late" if late > ON_TIME_MS else "ticked"
    moment = iso(to_datetime(tick))
    say(line, schedule=name, tick=moment, job=job, late=duration_text(late))


def _wanted(row: ScheduleRow, timing: Timing, since: int, now: int) -> list[int]:
    """Of the ticks since then those that are to have a job."""
    if row.catch_up == "all":
        return timing.due(since, now, CAUGHT_UP_MOST)
    if row.catch_up == "none":
        since = max(since, now - ON_TIME_MS - 1)
    return timing.due(since, now, 1)


def _timing(row: ScheduleRow | Upcoming) -> Timing:
    return stored_timing(row.cron, row.every_ms, row.anchor, row.timezone)
