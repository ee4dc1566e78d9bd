"""The contract every store keeps: one method per verb of the queue, and the values they speak in.

Who reads only this page knows the product. What is not in the conformance suite `tests/store/`
is not promised. No method waits for a user's code, and none is safe in a forked copy of the
process that opened the store: such a use is refused (`ForkedStore`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import ClassVar, NamedTuple

from jobvisor.jobs.annals import Action, KnownTask, Paused, Sums
from jobvisor.jobs.due import Due
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.found import Count, Failures, Page, Tally
from jobvisor.jobs.job import Attempt, Claimed, Job, NewJob, State, Summary
from jobvisor.jobs.limit import Limit, LimitStanding, Waiting
from jobvisor.jobs.outcome import Failure
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.pruning import BEGINNING, Place, Pruned, Rule
from jobvisor.jobs.schedule import Declared, Plan, ScheduleRow, Seen, Upcoming
from jobvisor.jobs.store.feed import AT_ONCE, Changes, Cursor

EVERY = Filter()
PAGE_MAX = 100_000
MANY = 1 << 40
"""More jobs than there are."""


class Record(NamedTuple):
    """How one run ended, as a ledger keeps it. `age_ms` is how long ago, `verb` a `VERB_CODES` code."""

    owner: int
    claim: int
    job: int
    attempt: int
    verb: int
    age_ms: int
    duration_ms: int
    delay_ms: int
    body: bytes
    progress: str | None = None
    """How far the job last said that it had come (JSON); None leaves what the row has."""
    cpu_ms: int | None = None
    """CPU time of the run, None where it was not read."""
    rss_bytes: int | None = None
    """The most memory that its process held in it, None where that was not read."""
    said: str | None = None
    """What an unsuccessful run logged or printed last."""


class Life(NamedTuple):
    """One process from fork to death, as the database knows it."""

    owner: int
    family: int
    name: str
    host: str
    boot_id: str
    pid_namespace: int
    pid: int
    start_ticks: int
    age_ms: int = 0
    """How long ago it entered."""


class Rest(NamedTuple):
    """What of an owner's running rows goes back: those of `claims` (None: of all) that are not held.

    A turn whose answer was lost has this claim alone to give back, a recall all but what runs, of all
    claims up to the one that it is about.
    """

    claims: tuple[int, ...] | None = None
    held: tuple[int, ...] = ()
    """The ids that stay."""
    up_to: int | None = None
    """The last claim that is meant."""


ALL = Rest()
"""Every running row of the owner: of a life that is settled, or holds nothing."""


class Whom(Enum):
    """Which rows a claim takes: a job that may end its process runs among no others.

    A suspect is one whose row has a company, and one that has a memory limit, which is its process's.
    The unsuspected are found behind at most ten thousand suspects of their queue, or by a higher priority:
    so a claim reads no million rows in vain. Those further back are claimed by whoever holds no job.
    """

    ANYBODY = ""
    UNSUSPECTED = "unsuspected"
    SUSPECTS = "suspects"

    def of(self, statement: str) -> str:
        """The name of a statement that is about these."""
        return f"{statement}_{self.value}" if self.value else statement


class Sight(NamedTuple):
    """What a look has found, without a lock."""

    found: bool
    """Whether a claim would find something."""
    due_ms: int | None
    """Else in how many milliseconds the next scheduled row is due; None where there is none."""
    owned: bool
    """Whether the owner that was asked about holds running rows."""


class FamilyRow(NamedTuple):
    """One family, as the database knows it; times are UTC milliseconds of the database's clock."""

    id: int
    name: str
    host: str
    boot_id: str
    pid_namespace: int
    pid: int
    start_ticks: int
    version: str
    state_dir: str
    dead_after_ms: int
    started_at: int = 0
    heartbeat_at: int = 0
    silent_ms: int = 0
    """How long ago the last heartbeat was."""
    died: bool = False
    """Declared dead: it may not beat again, and is being settled."""


class Held(NamedTuple):
    """A running row, as the settler of its dead owner needs it."""

    attempt: int
    attempts_max: int
    policy: str | None
    claim: int
    timeout_ms: int
    memory_bytes: int
    company: int | None = None
    deadline_ms: int | None = None
    """In how long its deadline is, over all its attempts; None where it has none."""

    @property
    def is_overdue(self) -> bool:
        """Whether it is past its deadline."""
        return self.deadline_ms is not None and self.deadline_ms <= 0


class AttemptRow(NamedTuple):
    """One row of a job's history as it is stored; moments are UTC milliseconds."""

    attempt: int
    owner: int
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
    started_at: int | None
    finished_at: int
    stack: str | None = None
    said: str | None = None
    cpu_ms: int | None = None
    rss_bytes: int | None = None


class JobRow(NamedTuple):
    """One job as it is stored, to be moved to another database: every column, and its history.

    Moments are UTC milliseconds; arguments, result, policy, progress and headers are their stored text.
    """

    id: int
    task: str
    args: str
    kwargs: str
    queue: str
    priority: int
    state: str
    run_at: int
    attempt: int
    attempts_max: int
    claims: int
    losses: int
    policy: str | None
    timeout_ms: int
    memory_bytes: int
    unique_key: str | None
    expires_at: int | None
    deferred: str | None
    cancel_requested: int
    owner: int | None
    claim: int | None
    created_at: int
    claimed_at: int | None
    started_at: int | None
    finished_at: int | None
    result: str | None
    error: str | None
    progress: str | None
    headers: str | None = None
    parent: int | None = None
    company: int | None = None
    cpu_ms: int | None = None
    rss_bytes: int | None = None
    special: int = 0
    turn: int = 0
    limit_key: str | None = None
    share: str | None = None
    weight: int | None = None
    parked: str | None = None
    limit_place: int | None = None
    debounce_ms: int | None = None
    deadline_at: int | None = None
    keep: str | None = None
    held_key: str | None = None
    held_until: int | None = None
    attempts: tuple[AttemptRow, ...] = ()
    """Oldest first."""


class SummaryRow(NamedTuple):
    """One job in short, as it is stored: moments are UTC milliseconds, `progress` is its text."""

    id: int
    task: str
    queue: str
    priority: int
    state: str
    run_at: int
    attempt: int
    attempts_max: int
    deferred: str | None
    cancel_requested: int
    claimed_at: int | None
    started_at: int | None
    finished_at: int | None
    error: str | None
    progress: str | None


class Unknown(NamedTuple):
    """A task that some worker was to run and none of its modules has."""

    task: str
    jobs: int
    """How many wait for it."""
    error: str | None
    """What one of them was told: it names the nearest task there is."""


class Ids(NamedTuple):
    """Ids of jobs, the oldest first."""

    found: list[int]
    after: int | None
    """Where the next page begins; None: there is none. A page may be empty, and not the last."""


class Imported(NamedTuple):
    """What became of imported rows: how many were added, and how many had been there already."""

    added: int
    known: int


#: In a word, how a run ended that left no record.
DEATHS = frozenset({"crash", "oom", "timeout", "memory", "stopped", "vanished"})


class Death(NamedTuple):
    """What is known of the end of a life, as it is written on the attempt it cost."""

    outcome: str  # one of DEATHS, or cancelled, which a record may tell too
    text: str
    host: str
    pid: int
    exit_code: int | None = None
    signal: str | None = None
    verdict: str | None = None
    stack: str | None = None
    """Where the job stood when its process was ended."""
    said: str | None = None
    """What it logged or printed last."""
    cpu_ms: int | None = None
    rss_bytes: int | None = None
    company: int | None = None
    """From now on the job runs among at most so many; None leaves what its row says."""


class Applied(NamedTuple):
    """What became of a journal: changed rows, lost claims, and records the database refused twice."""

    changed: int
    lost: list[Record]
    rejected: list[tuple[Record, str]]


class Turn(NamedTuple):
    """One committed turn: what was claimed, in the order to run it, and what became of the journal."""

    jobs: list[Claimed]
    applied: Applied
    parked: int = 0
    """How many others were claimed that must wait: others may stand behind them."""
    returned: int = 0
    """How many were put back, because another worker holds their key, or this one has no lane for it."""


NOTHING = Applied(0, [], [])


class Waker(ABC):
    """How a sleeper learns that a row may have become claimable: a hint, never the only way."""

    #: Whether the last `drain` heard of a row to claim, and a look before the claim is a detour.
    heard = False

    @abstractmethod
    def fileno(self) -> int | None:
        """What to poll for reading, or None where only polling the table helps."""

    @abstractmethod
    def drain(self) -> float | None:
        """Take what has arrived: seconds until one look is due (0 = now), None if nothing came.

        Also repairs the watch, so call it before each look: watch, drain, look, sleep. After it
        `fileno` may be another one, and a StoreError says that the database is away.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the descriptor; it wakes nobody from then on."""


class WorkerStore(ABC):
    """What a worker asks of its database, perhaps through another process: each verb is a whole.

    Every moment that a row is compared with is the database's own.
    """

    #: Whether all who use this database are on one machine, so that another boot id proves death.
    one_machine: ClassVar[bool]
    #: Called between two tries while somebody else holds the database, so that a beat can move.
    on_wait: Callable[[], None]
    #: Called again and again while the tables are brought up to this release, by this process or another.
    on_migrate: Callable[[], None]

    # -- life of the store

    @abstractmethod
    def open(self) -> None:
        """Connect now (else at first use), creating and migrating the schema where that is due."""

    @abstractmethod
    def close(self) -> None:
        """Disconnect; the next use connects again."""

    @abstractmethod
    def step_aside(self) -> None:
        """Before a user's function runs: close the connection it could break, or end listening on it.

        The next verb connects again.
        """

    @abstractmethod
    def descriptors(self) -> list[int]:
        """Open files that statements go into, and that must not become a user's file."""

    @abstractmethod
    def waker(self) -> Waker:
        """A new waker for this process, of whoever looks for something to claim."""

    @abstractmethod
    def database_id(self) -> str:
        """The random name this database was born with."""

    # -- workers

    @abstractmethod
    def tell_waits(self) -> None:
        """From now on a claim tells for how long its jobs had been due: for who counts that.

        Of a claim that may take 64 or more each eighth by its id: each costs 0.3 us.
        """

    @abstractmethod
    def turn(
        self,
        life: Life,
        claim: int,
        *,
        queues: Sequence[str],
        limit: int,
        journal: Sequence[Record] = (),
        rest: Rest | None = None,
        register: bool = False,
        forget_succeeded: bool = False,
        woken: bool = False,
        whom: Whom = Whom.ANYBODY,
        lanes: int = 1,
        batch: int | None = None,
    ) -> Turn:
        """One transaction: settle the journal, release the rest (if any), promote, claim.

        `woken`: a waker has just heard of a row. Others may be quicker, so that a store may promote
        nothing, and claim nothing where there is a doubt. `lanes`: so many jobs run at once here, and no
        more of one limit are taken, because a place is nobody else's meanwhile. `batch`: so many would be
        claimed if none had to wait (None: `limit`); no more are taken of a key that has a rate alone, because
        what begins late, or goes back, has used it up.
        """

    @abstractmethod
    def look(self, queues: Sequence[str], owner: int = 0, *, whom: Whom = Whom.ANYBODY) -> Sight:
        """Whether there is something to claim in these queues, and whether `owner` holds running rows.

        A paused queue is not asked. `due_ms` is also when the first pause of these queues ends.
        """

    @abstractmethod
    def apply(
        self, records: Iterable[Record], life: Life, *, forget_succeeded: bool = False
    ) -> Applied:
        """Settle authentic records: by anyone, any number of times, at any later time."""

    @abstractmethod
    def leave(
        self, life: Life, records: Iterable[Record], *, forget_succeeded: bool = False
    ) -> Applied:
        """The last transaction of a life: its records are settled, its other running rows go back.

        A turn of it whose answer was lost has ended by then, or claims nothing.
        """


class Store(WorkerStore):
    """A database of jobs. Verbs outside a `transaction` are one of their own."""

    #: How arguments and results are read for people.
    payload: Payload

    # -- life of the store

    @abstractmethod
    def check_schema(self) -> None:
        """SchemaError if the tables have moved on to what this release cannot work with."""

    @abstractmethod
    def migrate(self) -> tuple[int, int]:
        """Bring the schema up to this release; (number before, number after)."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[None]:
        """All verbs within commit together or not at all; wake-ups and events follow the commit."""

    @abstractmethod
    def snapshot(self) -> AbstractContextManager[None]:
        """All that is read within is as it stood at the first read; nothing may be changed within."""

    @abstractmethod
    def watcher(self) -> Waker:
        """A new waker that hears of every change, such as the end of a job."""

    # -- the application

    @abstractmethod
    def enqueue(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
        """Store jobs; (id, created) of each in order, the id of the holder where a unique key is taken.

        `NewJob.terms` say how long a key is held, and what is done where it is: UniqueTaken, or the
        waiting holder gets what the new job would have had. A holder that does not wait is left alone.
        """

    @abstractmethod
    def enqueue_one(self, job: NewJob) -> Job:
        """Store one job, as it stands then; `created` is False on the holder of its unique key.

        And `replaced` True, where that waited and has got what the new one would have had.
        """

    @abstractmethod
    def get(self, job: int) -> Job:
        """One job; raises JobNotFound."""

    @abstractmethod
    def get_many(self, jobs: Iterable[int]) -> dict[int, Job]:
        """Those of these jobs that there are, by their ids, in the order asked; read in pages."""

    @abstractmethod
    def summaries(self, jobs: Iterable[int]) -> list[Summary]:
        """The same in short, in no order."""

    def find(
        self, which: Filter = EVERY, *, limit: int = 50, before: int | None = None
    ) -> list[Job]:
        """Newest first, at most `limit`; `before` an id pages on. As many pages are read as that takes."""
        if limit < 0:
            raise InvalidOption(f"limit={limit} must be 0 or more")
        found: list[Job] = []
        while len(found) < limit:
            page = self.page(which, limit=min(limit - len(found), PAGE_MAX), before=before)
            found += page.jobs
            before = page.before
            if before is None:
                break
        return found

    @abstractmethod
    def page(self, which: Filter, *, limit: int = 50, before: int | None = None) -> Page:
        """Some jobs, newest first; `before` is where the last page said that the next one begins.

        Bounded: an index has the pending, scheduled, blocked, failed and cancelled ones in this order, and
        finds up to 5,000 of any other kind that is in one state;
        else rows are looked at from the newest on, 50,000 at the most or for about 25 ms, and the answer
        says how far it came. It locks nothing.
        """

    @abstractmethod
    def ids_page(self, which: Filter, *, limit: int, after: int = 0) -> Ids:
        """The same of ids alone, the oldest first; at most 8,000 rows are looked at."""

    @abstractmethod
    def hold(self, which: Filter) -> list[int]:
        """Those of its ids, at most 10,000, that match, held in the transaction that is open."""

    @abstractmethod
    def newest_id(self) -> int:
        """The greatest id of a job, 0 where there is none."""

    @abstractmethod
    def count(self, which: Filter, *, most: int = 10_000) -> Count:
        """How many match: counted up to `most`, and bounded as `page` is."""

    @abstractmethod
    def tally(self, *, most: int = 2_000) -> Tally:
        """How many jobs of each queue are in each state, of each state up to `most` counted.

        Pending ones are counted queue by queue, at least a hundred of each and 50,000 together.
        """

    @abstractmethod
    def waiting(self, limit: int) -> dict[str, int]:
        """Queue to how many ms the longest waiting of the hundred that claims take first has been due.

        Of at most `limit` queues; a hundred rows of each are read.
        """

    @abstractmethod
    def before(self, job: int, *, most: int) -> Count:
        """How many pending jobs of its queue a claim would take before this pending one."""

    @abstractmethod
    def held_back(self, *, most: int) -> dict[str, Count]:
        """How many jobs wait for what, by the codes of `Held`."""

    @abstractmethod
    def failures(self, *, since_ms: int | None = None, limit: int = 100) -> Failures:
        """Failed jobs by task and type of error; only those that failed at this moment or later.

        Each group is found by a step of an index: a thousand are looked at, and 20,000 jobs counted.
        """

    @abstractmethod
    def task_names(self, limit: int) -> list[str]:
        """The tasks of all jobs, by their name, at most `limit`. Reads the whole table."""

    @abstractmethod
    def attempts(self, job: int) -> list[Attempt]:
        """The unsuccessful runs of a job, oldest first; of more than a hundred the newest."""

    @abstractmethod
    def attempts_of(self, jobs: Iterable[int]) -> dict[int, list[Attempt]]:
        """The same of many jobs, by their ids; an empty list where there are none."""

    @abstractmethod
    def counts(self) -> dict[str, dict[str, int]]:
        """Queue to state to number of rows. Reads the whole table."""

    @abstractmethod
    def unfinished(self) -> dict[str, dict[str, int]]:
        """The same of the unfinished states alone; reads no finished row."""

    @abstractmethod
    def pending_queues(self, limit: int = 1_000) -> list[str]:
        """The queues with pending rows; quick, however many rows they have."""

    @abstractmethod
    def oldest_pending(self) -> dict[str, int]:
        """Queue to how many ms its longest waiting pending row has been due."""

    @abstractmethod
    def unknown_tasks(self, limit: int) -> list[Unknown]:
        """Tasks that jobs wait for because no worker knows them, by name, at most `limit`."""

    @abstractmethod
    def cancel(self, job: int) -> str:
        """`cancelled` at once, or `requested` of a running job; a finished one raises IllegalMove."""

    @abstractmethod
    def requeue_order(self, jobs: Iterable[int]) -> list[int]:
        """These in the order in which they are to be requeued, in the transaction that is open.

        On a server that of the keys that they come back under, in which those who enqueue take them.
        """

    @abstractmethod
    def requeue(self, job: int) -> None:
        """A finished job starts over at attempt 0, its history kept; UniqueTaken names a holder."""

    @abstractmethod
    def holder(self, key: str) -> int | None:
        """The job that holds a unique key now: unfinished, or for as long as was said; None: it is free."""

    @abstractmethod
    def trim_uniques(self) -> bool:
        """Remove a page of keys whose time is over, or whose job is gone; whether more may be."""

    @abstractmethod
    def reschedule(self, job: int, due: Due) -> str:
        """A job that waits gets another time; the state it has then. IllegalMove where it does not wait.

        So has one that would have expired by then. A blocked one stays blocked.
        """

    @abstractmethod
    def delete(self, jobs: Iterable[int]) -> list[int]:
        """Remove those of these jobs that are finished, with their history; their ids."""

    @abstractmethod
    def repeat(
        self,
        job: int,
        *,
        args: str | None = None,
        kwargs: str | None = None,
        parent: int | None = None,
    ) -> Job:
        """A new job like another one, pending at once, with other arguments where they are given.

        It has no unique key, and does not expire.
        """

    @abstractmethod
    def block(self, job: int) -> bool:
        """A pending job must wait; False if it was not pending."""

    @abstractmethod
    def unblock(self, job: int) -> bool:
        """A blocked job need not wait; False if it was not blocked."""

    @abstractmethod
    def prune(self, older_than_ms: Mapping[State, int], *, limit: int) -> int:
        """Remove finished jobs older than their state's time, at most `limit`; how many went.

        One that says itself how long it is kept, or whose key is held longer, does not.
        """

    @abstractmethod
    def prune_page(self, rule: Rule, after: Place = BEGINNING, *, limit: int) -> Pruned:
        """The same of one rule: of at most `limit` jobs behind a place those that are not kept longer.

        They are looked for without a lock.
        """

    @abstractmethod
    def prune_kept(self, *, limit: int) -> Pruned:
        """The same of those that say themselves how long they are kept."""

    @abstractmethod
    def prunable(self, rules: Iterable[Rule]) -> dict[State, int]:
        """How many jobs would go by these rules, by state."""

    @abstractmethod
    def prunable_kept(self, *, most: int = MANY) -> int:
        """And how many of those that say themselves how long they are kept."""

    # -- following what changes

    @abstractmethod
    def follow(self, seconds: float) -> Cursor:
        """Ask for the feed of changes for 1 to 3600 s, and again before they are over.

        Every call asks, the answer of the first one is where to begin. Whoever changes jobs looks once
        a second whether somebody follows: of what is changed in the first second after a pause some is
        not told, nor is it of what an application's longer transaction has changed in that second. So
        look at everything you show once when that second is over, and later once more at what was
        running then. A pause is told as a gap to whoever goes on from before it.
        """

    @abstractmethod
    def changes(self, after: Cursor, limit: int = AT_ONCE) -> Changes:
        """What is new, has changed or is gone since `after`; at most `limit` transactions and new jobs.

        A change is told once, after its transaction has committed, in whatever order they do, where
        this release has made it. New jobs are found by their ids: a stranger's INSERT is told, his UPDATE
        or DELETE is not, nor what an older release changes. Not told before they are changed: jobs
        under an id that the database did not give (`import_` tells its own), and those of more than a
        thousand ranges of ids that are waited for at once. Incomplete where nobody follows.
        """

    @abstractmethod
    def trim_changes(self) -> bool:
        """Remove a page of changes that are older than ten minutes or beyond 10,000; whether more may be."""

    # -- beside the jobs

    @abstractmethod
    def add_stats(self, rows: Iterable[Sums]) -> None:
        """Add to the sums of some minutes; at most a thousand rows."""

    @abstractmethod
    def stats(
        self, from_ms: int, to_ms: int, *, step_ms: int, queue: str | None = None, limit: int
    ) -> list[Sums]:
        """Sums by so many minutes and by queue, or of one queue; the oldest first."""

    @abstractmethod
    def stats_of_all(self, from_ms: int, to_ms: int, *, step_ms: int, limit: int) -> list[Sums]:
        """The same of all queues together."""

    @abstractmethod
    def trim_stats(self) -> bool:
        """Remove a page of what is older than 90 days; whether more may be."""

    @abstractmethod
    def note_action(self, who: str, verb: str, what: str, number: int | None) -> int:
        """Somebody has done something; the number of this note. The newest 100,000 are kept."""

    @abstractmethod
    def grow_action(self, action: int, more: int) -> None:
        """What this note tells of was done to so many more."""

    @abstractmethod
    def actions(self, *, limit: int = 50, before: int | None = None) -> list[Action]:
        """What was done, the newest first."""

    @abstractmethod
    def note_request(self, key: str, digest: str) -> tuple[str, list[int]] | None:
        """None where this key is new; else the digest of the first request with it, and its jobs.

        A key is known for a day. Within the transaction that makes the jobs: another request with it
        waits for that.
        """

    @abstractmethod
    def answer_request(self, key: str, jobs: Iterable[int]) -> None:
        """The request of this key has made these jobs, or found them."""

    @abstractmethod
    def note_tasks(self, tasks: Mapping[str, str]) -> None:
        """A worker has registered these tasks; what it tells of each is JSON."""

    @abstractmethod
    def tasks(self, *, limit: int = 1_000, after: str = "") -> list[KnownTask]:
        """The tasks that workers have registered in the last 30 days, by name."""

    # -- schedules

    @abstractmethod
    def has_schedules(self) -> bool:
        """Whether there is any."""

    @abstractmethod
    def schedules(self, *, limit: int = 1_000, after: str = "") -> list[Seen]:
        """All of them, by name."""

    @abstractmethod
    def upcoming_schedules(self, *, limit: int = 1_000, after: str = "") -> list[Upcoming]:
        """When those tick that are not paused, by name."""

    @abstractmethod
    def schedule(self, name: str) -> Seen:
        """One; raises ScheduleNotFound."""

    @abstractmethod
    def hold_schedule(self, name: str) -> Seen | None:
        """One, held in the transaction that is open; None where it is gone, or somebody else holds it."""

    @abstractmethod
    def declare_schedules(
        self, source: str, family: str, by: int, plans: Iterable[Plan]
    ) -> Declared:
        """A family of this name, and with this id, declares these, and no others, from this source.

        Those that it names it also changes; where the timing is another, ticks count from now on. Those of
        its name that it does not name go once no other living family declares them. One that was added at
        run time, or that a living family of another name declares, is left as it is.
        """

    @abstractmethod
    def sweep_schedules(self, source: str, family: str, by: int) -> list[str]:
        """Remove those of this name that neither this family nor another living one declares; their names."""

    @abstractmethod
    def add_schedule(self, plan: Plan, *, replace: bool = False) -> None:
        """Add one at run time, or change one that was; ScheduleTaken where the name is another's."""

    @abstractmethod
    def remove_schedule(self, name: str) -> None:
        """Remove one; ScheduleTaken where a living family declares it, so that it would come again."""

    @abstractmethod
    def pause_schedule(self, name: str) -> bool:
        """It ticks no more; False where it is paused at run time already. Raises ScheduleNotFound."""

    @abstractmethod
    def resume_schedule(self, name: str) -> bool:
        """It ticks again, from now on; False where it is not paused at run time."""

    @abstractmethod
    def move_schedule(self, name: str, last_tick: int, last_job: int | None = None) -> None:
        """Up to this moment its ticks have been looked after; and its last job, if it has another one."""

    @abstractmethod
    def looked_after(self, schedule: str, until_ms: int) -> int | None:
        """Where the clock was set back: up to when before this moment its ticks have been looked after.

        None where that is not known: it was added, changed or resumed only behind it.
        """

    @abstractmethod
    def has_tick(self, schedule: str, tick: int) -> bool:
        """Whether this tick made a job."""

    @abstractmethod
    def add_tick(self, schedule: str, tick: int, job: int) -> None:
        """This tick has made this job; RowRefused where it had made one."""

    @abstractmethod
    def trim_ticks(self) -> bool:
        """Remove a page of ticks older than 35 days, or of a schedule that has more than 100,000."""

    @abstractmethod
    def import_schedules(self, rows: Iterable[ScheduleRow]) -> Imported:
        """Store exported schedules; those whose name is there stay as they are."""

    @abstractmethod
    def known_task(self, name: str) -> KnownTask | None:
        """What workers have told of one task."""

    # -- pauses

    @abstractmethod
    def pause(
        self, kind: str, name: str, *, until_ms: int | None = None, for_ms: int | None = None
    ) -> Paused:
        """Nothing of this `queue` or `task` is claimed from the commit on, by anybody of this release.

        Until a moment, for so long, or until `resume`; a later pause says anew until when. What runs
        goes on. InvalidOption where the moment has passed, or 1,000 are paused already.
        """

    @abstractmethod
    def resume(self, kind: str, name: str) -> bool:
        """Its jobs are claimed again; False if it was not paused."""

    @abstractmethod
    def paused(self) -> list[Paused]:
        """What is paused now: the queues, then the tasks, by name."""

    # -- limits

    @abstractmethod
    def limits(self) -> list[Limit]:
        """Every limit, by its name."""

    @abstractmethod
    def set_limit(self, limit: Limit) -> None:
        """Say what a limit is; what waits for a place that it has now is admitted."""

    @abstractmethod
    def declare_limits(self, limits: Iterable[Limit], *, missing: bool = False) -> list[str]:
        """The same as a family's file says it: not where it was set at run time. The names that it changed.

        `missing`: nor where anybody says what it is; by a family that did so at its start.
        """

    @abstractmethod
    def remove_limit(self, name: str) -> bool:
        """Nobody says any more what it is: its jobs wait. False if nobody did."""

    @abstractmethod
    def limit_standings(self, limit: int = 1_000) -> list[LimitStanding]:
        """The first limits by name, with what runs and waits, of each counted up to 10,000."""

    @abstractmethod
    def unknown_limits(self, limit: int) -> list[str]:
        """Names of limits that jobs wait for and nobody has said anything of, at most `limit`."""

    @abstractmethod
    def waiting_for_limit(self, job: int) -> Waiting | None:
        """Why a job waits for its limit; None where it does not."""

    # -- fair queues

    @abstractmethod
    def fair_queues(self) -> list[str]:
        """The queues whose shares are served in turn, by name."""

    @abstractmethod
    def set_fair(self, queue: str, *, fair: bool) -> bool:
        """Serve the shares of a queue in turn from now on, or no more; whether that is new.

        What is pending already has no turn, and goes first.
        """

    @abstractmethod
    def shares_in_vain(self, limit: int) -> list[str]:
        """Queues that are not fair, and have jobs with a share; at most `limit`."""

    @abstractmethod
    def shareless(self, limit: int) -> list[str]:
        """Fair queues with pending jobs of no share, which go before all others; by name."""

    @abstractmethod
    def level_turns(self) -> bool:
        """Take the turns off a page of pending jobs of queues that are fair no more; whether more may be."""

    # -- moving to another database

    @abstractmethod
    def running(self) -> int:
        """How many jobs run now."""

    @abstractmethod
    def export(self, after: int, limit: int, *, finished: bool) -> list[JobRow]:
        """A page of the unfinished jobs, or of all, with ids above `after`, in their order.

        A running job is told as a release would leave it. Within a `snapshot` pages fit together.
        """

    @abstractmethod
    def import_(self, rows: Iterable[JobRow]) -> Imported:
        """Store exported jobs under their own ids, all or none; ids must ascend, and no job run.

        A job that is there already, which is one with this id, task and moment of creation, stays
        as it is. IllegalMove names an id that another job has, UniqueTaken who holds a unique key,
        PayloadError a job that this database refuses. No events.
        """

    # -- caretakers

    @abstractmethod
    def promote(self) -> int:
        """Scheduled rows that are due become pending, as do those whose limit lets them; how many."""

    @abstractmethod
    def admit(self) -> int | None:
        """A net: see that no job waits for a limit that has room, two hundred keys in a call.

        In how many ms to call again: for more keys, or because a rate lets the next one begin then; None:
        there is no hurry.
        """

    @abstractmethod
    def trim_limit_keys(self) -> bool:
        """Of a page of the keys of limits forget those that no job has; whether most of them were such."""

    @abstractmethod
    def end_overdue(self) -> bool:
        """End a page of what waits in vain; whether there may be more.

        What no run may begin any more (`expires_at`) is cancelled, what is past its deadline has failed.
        What runs is left to whoever judges it.
        """

    @abstractmethod
    def free_tasks(self) -> bool:
        """Free a page of what is parked for tasks that are paused no more; whether there may be more."""

    @abstractmethod
    def forget_pauses(self) -> bool:
        """Forget a page of pauses that ended by themselves a day ago; whether there may be more."""

    @abstractmethod
    def release_rest(self, owner: int, rest: Rest = ALL) -> int:
        """Rows that an owner owns and does not hold go back untouched; how many."""

    @abstractmethod
    def held(self, job: int, owner: int, claim: int) -> Held | None:
        """The running row under this fence, None if it has left."""

    @abstractmethod
    def rescue(self, job: int, owner: int, held: Held, death: Death, delay_ms: int | None) -> None:
        """A dead owner's current row runs again after `delay_ms`, or is failed (None); charged."""

    @abstractmethod
    def give_back(self, job: int, owner: int, held: Held, death: Death) -> None:
        """A row whose run was ended for no fault of its own goes back uncharged, with its history."""

    @abstractmethod
    def give_back_all(self, owner: int, runs: Sequence[tuple[int, int, Death]]) -> list[int]:
        """The same of many rows of one owner, each told by its job and claim; the jobs that went back."""

    @abstractmethod
    def vanish(self, owner: int, death: Death, job: int | None = None) -> int:
        """A page of an owner that vanished without evidence: uncharged, failed the fourth time.

        How many rows; 0 means that none is left.
        """

    @abstractmethod
    def ownerless(self, claimed_before_ms_ago: int) -> list[int]:
        """Owners no row of `owners` knows that hold rows claimed longer ago than this.

        0 stands for the owner of running rows that somebody's plain SQL left without one.
        """

    @abstractmethod
    def progress(self, job: int, owner: int, claim: int, progress: str) -> bool:
        """Note how far a running job has come (JSON)."""

    @abstractmethod
    def cancelling(self, owners: Iterable[int]) -> list[tuple[int, int, int]]:
        """(job, owner, claim) of these owners' running rows that were asked to end; all of them."""

    @abstractmethod
    def latency(self, queues: Iterable[str]) -> int:
        """For how many ms the longest waiting job has been due, among those that claims take first.

        Of each queue a hundred are read and no more, so that a queue of a million costs what a short
        one does. 0 where none waits.
        """

    @abstractmethod
    def suspects(self, queues: Iterable[str]) -> list[int]:
        """The pending suspects that claims take first, of each queue a hundred at the most."""

    @abstractmethod
    def has_work(self, queues: Sequence[str], family: int) -> bool:
        """Whether a draining family has something left: pending, a retry, snoozed, or running here.

        A paused queue is not waited for.
        """

    @abstractmethod
    def add_family(self, family: FamilyRow) -> bool:
        """A family enters; False means that it did before, and was declared dead since."""

    @abstractmethod
    def heartbeat(self, family: int, dead_after_ms: int | None = None) -> bool:
        """The family lives; False means that it was declared dead.

        Others will wait for `dead_after_ms` from here on, where it is given.
        """

    @abstractmethod
    def bury_family(self, family: FamilyRow) -> bool:
        """Declare a family dead, before its rows are touched; False if it has beaten since it was read."""

    @abstractmethod
    def families(self) -> list[FamilyRow]:
        """Every family."""

    @abstractmethod
    def remove_family(self, family: int) -> None:
        """A family has left, or is settled."""

    @abstractmethod
    def owners(self, family: int) -> list[Life]:
        """The lives of one family."""

    @abstractmethod
    def strays(self) -> list[Life]:
        """Lives whose family has no row: `run_one` in somebody's process, or a leaving cut short."""

    @abstractmethod
    def remove_owner(self, owner: int) -> None:
        """A settled life."""

    @abstractmethod
    def checkpoint(self) -> None:
        """Whatever the database wants done now and then, in a small step."""


def failure_fields(failure: Failure | None) -> dict[str, str | None]:
    """The columns of `attempts` that tell an error."""
    if failure is None:
        return {"error_type": None, "message": None, "traceback": None}
    return {
        "error_type": failure.error_type,
        "message": failure.message,
        "traceback": failure.traceback or None,
    }
