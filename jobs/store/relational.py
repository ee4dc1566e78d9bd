"""Every verb of the queue, once, over named statements; a dialect brings statements and a connection."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from operator import attrgetter, itemgetter
from typing import Any

from jobvisor.jobs.clock import Clock, to_datetime
from jobvisor.jobs.errors import (
    IllegalMove,
    InvalidOption,
    JobNotFound,
    PayloadError,
    StoreUnavailable,
    UniqueTaken,
    shown,
)
from jobvisor.jobs.events import Event, Events
from jobvisor.jobs.job import FINISHED, Attempt, Claimed, Job, NewJob, State
from jobvisor.jobs.log import say
from jobvisor.jobs.outcome import VERB_CODES, VERB_NAMES, Failure, Outcome
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.store.base import (
    DEATHS,
    NOTHING,
    Applied,
    AttemptRow,
    Death,
    FamilyRow,
    Held,
    Imported,
    JobRow,
    Life,
    Record,
    Store,
    Turn,
    failure_fields,
)
from jobvisor.jobs.store.enqueueing import MOVES_MET, Enqueued, carried_out, enqueueing

PROMOTED_AT_ONCE = 1000  # a turn is short even when a million rows fall due in the same second
LOSSES_MAX = 3  # a job may lose its worker without evidence three times; the fourth fails it
VANISHED_AT_ONCE = 500  # rows of a lost owner in one transaction
ID_MAX = 2**63 - 1
IMPORTED_AT_ONCE = 500  # rows of an import in one statement,
IMPORTED_TEXT = 4 << 20  # or as many as hold so many characters, so that memory is bounded

SUCCEED = VERB_CODES["succeed"]


@cache
def statements(dialect: str) -> dict[str, str]:
    """The named statements of one dialect's file, in its order."""
    text = (
        resources.files("jobvisor.jobs.store").joinpath("sql", f"{dialect}.sql").read_text("utf-8")
    )
    named: dict[str, str] = {}
    for part in text.split("-- name: ")[1:]:
        name, _, rest = part.partition("\n")
        lines = [line for line in rest.splitlines() if not line.startswith("--")]
        named[name.strip()] = "\n".join(lines).strip().rstrip(";")
    return named


class RelationalStore(Store):
    """The logic of every verb; what differs between databases is below the abstract line."""

    def __init__(self, clock: Clock, events: Events) -> None:
        self.clock = clock
        self.events = events
        self.on_wait = _nothing
        self.payload = Payload()
        self._pending_made = False
        self._events: list[Event] = []

    # -- what a dialect brings

    @abstractmethod
    def _rows(self, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run a statement; its rows."""

    @abstractmethod
    def _change(self, name: str, parameters: Mapping[str, Any]) -> int:
        """Run a statement; how many rows it changed."""

    @abstractmethod
    def _change_many(self, name: str, parameters: Sequence[Mapping[str, Any]]) -> int:
        """Run a statement for each; how many rows changed in all."""

    @abstractmethod
    def _attempted(self, action: Any, *arguments: Any) -> tuple[Any, str | None]:
        """Run an action under a savepoint; (its value, None), or (None, why the database refused)."""

    # -- the application

    def enqueue(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
        with self.transaction():
            made = map(self._enqueue, jobs)
            return [(each.id, each.row is not None) for each in made]

    def enqueue_one(self, job: NewJob) -> Job:
        with self.transaction():
            number, row = self._enqueue(job)
            return replace(self.get(number), created=False) if row is None else self._job(row)

    def _enqueue(self, job: NewJob) -> Enqueued:
        made = carried_out(enqueueing(job), self._rows)
        if made.row is not None:
            self._enqueued(made.id, job)
        return made

    def _enqueued(self, number: int, job: NewJob) -> None:
        self._pending_made = True
        if self.events.active:
            self._note("enqueue", number, ("", job.task, job.queue, 0, job.attempts_max))

    def get(self, job: int) -> Job:
        _check_id(job)
        rows = self._rows("get", {"job": job})
        if not rows:
            raise JobNotFound(f"there is no job {job}")
        return self._job(rows[0])

    def find(
        self,
        *,
        state: State | None = None,
        queue: str | None = None,
        task: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[Job]:
        if limit < 0:
            raise InvalidOption(f"limit={limit} must be 0 or more")
        if any("\0" in (name or "") for name in (queue, task)):
            return []  # no text in a database has one
        parameters: dict[str, Any] = {
            "queue": queue,
            "task": task,
            "limit": limit,
            "before": ID_MAX if before is None else max(min(before, ID_MAX), 0),
        }
        if state is None:
            return [self._job(row) for row in self._rows("find", parameters)]
        name = "find_finished" if state in FINISHED else "find_unfinished"
        return [self._job(row) for row in self._rows(name, {**parameters, "state": state.value})]

    def attempts(self, job: int) -> list[Attempt]:
        return [_attempt(row) for row in self._rows("attempts", {"job": job})]

    def counts(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for queue, state, number in self._rows("counts", {}):
            found.setdefault(queue, {})[state] = number
        return found

    def oldest_pending(self) -> dict[str, int]:
        return dict(self._rows("oldest_pending", {}))

    def cancel(self, job: int) -> str:
        _check_id(job)
        with self.transaction():
            for _ in range(MOVES_MET):
                rows = self._rows("cancel", {"job": job})
                if rows:
                    self._note("cancel", job, rows[0])
                    return "cancelled"
                if self._rows("request_cancel", {"job": job}):
                    # On SQLite it wakes the caretaker, who carries the word.
                    self._pending_made = True
                    return "requested"
                state = self.get(job).state
                if state in FINISHED:
                    raise IllegalMove(f"job {job} is {state} already and cannot be cancelled")
                # It was claimed or given back between the two statements.
        raise StoreUnavailable(
            f"job {job} moved {MOVES_MET} times while it was being cancelled; try again"
        )

    def requeue(self, job: int) -> None:
        _check_id(job)
        with self.transaction():
            rows, refused = self._attempted(self._rows, "requeue", {"job": job})
            if refused is not None:
                raise self._unique_taken(job, refused)
            if not rows:
                raise IllegalMove(
                    f"job {job} is {self.get(job).state}; only a finished job can be requeued"
                )
            self._pending_made = True
            self._note("requeue", job, rows[0])

    def _unique_taken(self, job: int, refused: str) -> Exception:
        key = self.get(job).unique
        rows = self._rows("holder", {"unique_key": key}) if key is not None else []
        if not rows:
            return IllegalMove(f"job {job} cannot be requeued: {refused}")
        error = UniqueTaken(
            f"job {job} cannot be requeued: job {rows[0][0]} holds its unique key {key!r}"
        )
        error.holder = rows[0][0]
        return error

    def block(self, job: int) -> bool:
        return self._simple_move("block", job)

    def unblock(self, job: int) -> bool:
        return self._simple_move("unblock", job)

    def _simple_move(self, verb: str, job: int) -> bool:
        with self.transaction():
            rows = self._rows(verb, {"job": job})
            if rows:
                self._changed(verb, job, rows[0])
            return bool(rows)

    def prune(self, older_than_ms: Mapping[State, int], *, limit: int) -> int:
        gone = 0
        for state, age in older_than_ms.items():
            if gone < limit:
                with self.transaction():
                    parameters = {"state": state.value, "age": age, "limit": limit - gone}
                    gone += self._change("prune", parameters)
        return gone

    def prunable(self, older_than_ms: Mapping[State, int]) -> dict[State, int]:
        return {
            state: self._rows("prunable", {"state": state.value, "age": age})[0][0]
            for state, age in older_than_ms.items()
        }

    # -- moving to another database

    def running(self) -> int:
        return int(self._rows("running", {})[0][0])

    def export(self, after: int, limit: int, *, finished: bool) -> list[JobRow]:
        with self.snapshot():
            page = {"after": after, "limit": limit, "finished": finished}
            rows = self._rows("export", page)
            histories: dict[int, list[AttemptRow]] = {}
            if rows:
                for job, *run in self._rows("export_attempts", _listed(row[0] for row in rows)):
                    histories.setdefault(job, []).append(AttemptRow._make(run))
        return [JobRow._make((*row, tuple(histories.get(row[0], ())))) for row in rows]

    def import_(self, rows: Iterable[JobRow]) -> Imported:
        added = known = 0
        with self.transaction():
            for page in _pages(rows):
                fresh = self._not_known(page)
                known += len(page) - len(fresh)
                added += len(fresh)
                if fresh:
                    self._skip_ids(fresh[-1].id)
                    self._import_page(fresh)
                    self._pending_made = True
        return Imported(added, known)

    def _not_known(self, page: list[JobRow]) -> list[JobRow]:
        found = {row[0]: row[1:] for row in self._rows("known", _listed(row.id for row in page))}
        for row in page:
            if row.id in found and found[row.id] != (row.task, row.created_at):
                task, created_at = found[row.id]
                raise IllegalMove(
                    f"job {row.id} ({row.task}) cannot be imported: here another job has this id, "
                    f"{task} of {to_datetime(created_at).isoformat(timespec='milliseconds')}"
                )
        return [row for row in page if row.id not in found]

    def _import_page(self, page: list[JobRow]) -> None:
        _, refused = self._attempted(self._import_all, page)
        if refused is None:
            return
        # One of them: each by itself tells which.
        for row in page:
            _, refused = self._attempted(self._import_all, [row])
            if refused is not None:
                raise self._not_imported(row, refused)

    def _import_all(self, page: list[JobRow]) -> None:
        self._change_many("import", [_values(row) for row in page])
        runs = [{"job": row.id, **run._asdict()} for row in page for run in row.attempts]
        if runs:
            self._change_many("import_attempt", runs)

    def _not_imported(self, row: JobRow, refused: str) -> Exception:
        rows: list[tuple[Any, ...]] = []
        if row.unique_key is not None and State(row.state) not in FINISHED:
            rows = self._attempted(self._rows, "holder", {"unique_key": row.unique_key})[0] or []
        if not rows:
            return PayloadError(f"job {row.id} cannot be imported: {refused}")
        return UniqueTaken(
            f"job {row.id} cannot be imported: job {rows[0][0]} holds its unique key "
            f"{row.unique_key!r}",
            holder=rows[0][0],
        )

    def _skip_ids(self, greatest: int) -> None:
        """Give out no id up to this one any more; SQLite's AUTOINCREMENT sees to it by itself."""

    # -- workers

    def turn(
        self,
        life: Life,
        claim: int,
        *,
        queues: Sequence[str],
        limit: int,
        journal: Sequence[Record] = (),
        release_rest: bool = False,
        register: bool = False,
        forget_succeeded: bool = False,
    ) -> Turn:
        jobs: list[Claimed] = []
        with self.transaction():
            if register:
                self._change("add_owner", life._asdict())
            applied = NOTHING
            if journal:
                applied = self.apply(journal, life, forget_succeeded=forget_succeeded)
            if release_rest:
                self.release_rest(life.owner)
            if limit:
                self.promote()
                for queue in queues:
                    jobs += self._claim(life.owner, claim, queue, limit - len(jobs))
                    if len(jobs) >= limit:
                        break
        return Turn(jobs, applied)

    def _claim(self, owner: int, claim: int, queue: str, limit: int) -> list[Claimed]:
        parameters = {
            "owner": owner, "claim": claim, "queue": queue, "limit": limit,
            "first": True,  # what other queues gave is off the limit already
            "entered": False,  # of a life that works job by job under locks of its own
        }  # fmt: skip
        return in_order(self._rows("claim", parameters))

    def look(self, queues: Sequence[str]) -> tuple[bool, int | None]:
        for queue in queues:
            if self._rows("has_pending", {"queue": queue})[0][0]:
                return True, 0
        due = self._rows("next_due", {})
        if not due:
            return False, None
        return due[0][0] <= 0, max(due[0][0], 0)

    def apply(
        self, records: Iterable[Record], life: Life, *, forget_succeeded: bool = False
    ) -> Applied:
        ordered = sorted(records, key=attrgetter("job"))  # rows are locked in id order
        if not ordered:
            return NOTHING
        with self.transaction():
            succeeded = [record for record in ordered if record.verb == SUCCEED]
            others = [record for record in ordered if record.verb != SUCCEED]
            applied = Applied(0, [], [])
            if succeeded:
                applied = self._succeed(succeeded, life, forget_succeeded)
            for record in others:
                applied = summed(applied, self._apply_guarded(record, life, forget_succeeded))
        return applied

    def _succeed(self, records: list[Record], life: Life, forget: bool) -> Applied:
        changed, refused = self._attempted(self._succeed_all, records, forget)
        if refused is None:
            lost = [] if changed == len(records) else self._lost(records)
            return Applied(changed, lost, [])
        # One row the database refuses must not block the others: each by itself.
        applied = Applied(0, [], [])
        for record in records:
            applied = summed(applied, self._apply_guarded(record, life, forget))
        return applied

    def _succeed_all(self, records: list[Record], forget: bool) -> int:
        return self._change_many(*successes(records, forget=forget))

    def _apply_guarded(self, record: Record, life: Life, forget: bool) -> Applied:
        changed, refused = self._attempted(self._apply_one, record, life, forget)
        if refused is not None:
            reason = f"the database refused the outcome of this run: {refused}"
            changed, refused = self._attempted(self._fail_refused, record, life, reason)
        if refused is not None:
            return Applied(0, [], [(record, refused)])
        return Applied(1, [], []) if changed else Applied(0, self._lost([record]), [])

    def _apply_one(self, record: Record, life: Life, forget: bool) -> bool:
        if record.verb == SUCCEED:
            return self._succeed_all([record], forget) > 0
        name, parameters, outcome = settling(record)
        rows = self._rows(name, parameters)
        if rows:
            self._settled(record, life, outcome, rows[0])
        return bool(rows)

    def _settled(self, record: Record, life: Life, outcome: Outcome, row: tuple[Any, ...]) -> None:
        """After a record other than a success changed its row: the history, and who wants to know."""
        if outcome.verb in ("retry", "fail", "cancel"):
            death = Death(outcome.kind, "", life.host, life.pid)
            failure = failure_fields(outcome.failure)
            self._add_attempt(record.attempt, _fence(record), death, _times(record), failure)
        self._changed(outcome.verb, record.job, row, outcome, record)

    def _fail_refused(self, record: Record, life: Life, reason: str) -> bool:
        fence, times = _fence(record), _times(record)
        rows = self._rows("fail", {**fence, **times, "error": reason})
        if rows:
            death = Death("refused", reason, life.host, life.pid)
            self._add_attempt(record.attempt, fence, death, times, {"message": reason})
            self._changed("fail", record.job, rows[0], error=reason, kind="refused")
        return bool(rows)

    def _lost(self, records: list[Record]) -> list[Record]:
        return [record for record in records if not self._settled_before(record)]

    def _settled_before(self, record: Record) -> bool:
        """Whether a record that changed nothing had been applied already.

        A row that is gone was pruned or not kept. The same owner under a later claim has seen this
        record through, and under the same claim where the row stands as the record would have it:
        a rescue, too, leaves the owner's name on the row. So has a row whose history knows the end
        that this record tells of, and not one that was found for it when its worker was gone.
        """
        rows = self._rows("standing", {"job": record.job})
        if not rows:
            return True
        state, owner, claim = rows[0]
        if owner == record.owner and claim is not None and claim > record.claim:
            return True
        known = {"job": record.job, "owner": record.owner, "claim": record.claim}
        outcomes = [row[0] for row in self._rows("outcome_of", known)]
        if outcomes:
            return outcomes[0] not in DEATHS
        return (owner, claim) == (record.owner, record.claim) and (
            state in _FINISHING.get(VERB_NAMES[record.verb], (state,))
        )

    # -- caretakers

    def promote(self) -> int:
        with self.transaction():
            promoted = self._change("promote", {"limit": PROMOTED_AT_ONCE})
            if promoted:
                self._pending_made = True
            return promoted

    def release_rest(self, owner: int, *, claim: int | None = None, current: int = 0) -> int:
        with self.transaction():
            parameters = {"owner": owner, "claim": claim, "current": current}
            rows = self._rows("release_rest", parameters)
            for row in rows:
                self._changed("release", row[0], row[1:])
            return len(rows)

    def held(self, job: int, owner: int, claim: int) -> Held | None:
        rows = self._rows("held", {"job": job, "owner": owner, "claim": claim})
        return Held._make(rows[0]) if rows else None

    def rescue(self, job: int, owner: int, held: Held, death: Death, delay_ms: int | None) -> None:
        fence = {"job": job, "owner": owner, "claim": held.claim}
        with self.transaction():
            parameters = {**fence, **UNWITNESSED, "error": death.text}
            if delay_ms is None:
                rows = self._rows("fail", parameters)
            else:
                rows = self._rows("retry", {**parameters, "delay": delay_ms})
            if rows:
                self._add_attempt(held.attempt, fence, death, UNWITNESSED, {"message": death.text})
                self._changed("rescue", job, rows[0], error=death.text, kind=death.outcome)

    def give_back(self, job: int, owner: int, held: Held, death: Death) -> None:
        fence = {"job": job, "owner": owner, "claim": held.claim}
        with self.transaction():
            rows = self._rows("release", fence)
            if rows:
                self._add_attempt(held.attempt, fence, death, UNWITNESSED, {"message": death.text})
                self._changed("release", job, rows[0], error=death.text, kind=death.outcome)

    def vanish(self, owner: int, death: Death, job: int | None = None) -> int:
        with self.transaction():
            rows = self._rows(
                "vanish",
                {
                    "owner": owner,
                    "job": job,
                    "losses_max": LOSSES_MAX,
                    "error": f"its worker vanished {LOSSES_MAX + 1} times",
                    "limit": VANISHED_AT_ONCE,
                },
            )
            for number, state, task, queue, attempt, attempts_max, claim in rows:
                fence = {"job": number, "owner": owner, "claim": claim}
                self._add_attempt(attempt + 1, fence, death, UNWITNESSED, {"message": death.text})
                told = (state, task, queue, attempt, attempts_max)
                self._changed("rescue", number, told, error=death.text, kind="vanished")
            return len(rows)

    def owns(self, owner: int) -> bool:
        return bool(self._rows("owned", {"owner": owner})[0][0])

    def ownerless(self, claimed_before_ms_ago: int) -> list[int | None]:
        return [row[0] for row in self._rows("ownerless", {"age": claimed_before_ms_ago})]

    def progress(self, job: int, owner: int, claim: int, progress: str) -> bool:
        parameters = {"job": job, "owner": owner, "claim": claim, "progress": progress}
        with self.transaction():
            return self._change("progress", parameters) > 0

    def cancelling(self) -> list[tuple[int, int, int]]:
        return [(job, owner, claim) for job, owner, claim in self._rows("cancelling", {})]

    def has_work(self, queues: Sequence[str], family: int) -> bool:
        # In one snapshot: between two a row could be claimed, and be missed in both.
        with self.snapshot():
            return bool(self._rows("family_runs", {"family": family})[0][0]) or any(
                self._rows("has_work", {"queue": queue})[0][0] for queue in queues
            )

    def add_family(self, family: FamilyRow) -> bool:
        with self.transaction():
            return self._change("add_family", {**family._asdict(), "family": family.id}) > 0

    def heartbeat(self, family: int, dead_after_ms: int | None = None) -> bool:
        parameters = {"family": family, "dead_after_ms": dead_after_ms}
        with self.transaction():
            return self._change("heartbeat", parameters) > 0

    def bury_family(self, family: FamilyRow) -> bool:
        parameters = {"family": family.id, "heartbeat_at": family.heartbeat_at}
        with self.transaction():
            return self._change("bury_family", parameters) > 0

    def families(self) -> list[FamilyRow]:
        return [FamilyRow._make(row) for row in self._rows("families", {})]

    def remove_family(self, family: int) -> None:
        with self.transaction():
            self._change("remove_family", {"family": family})

    def owners(self, family: int) -> list[Life]:
        return [Life._make(row) for row in self._rows("owners", {"family": family})]

    def strays(self) -> list[Life]:
        return [Life._make(row) for row in self._rows("strays", {})]

    def remove_owner(self, owner: int) -> None:
        with self.transaction():
            self._change("remove_owner", {"owner": owner})

    def database_id(self) -> str:
        return str(self._rows("meta", {"key": "database_id"})[0][0])

    # -- rows as values

    def _job(self, row: tuple[Any, ...]) -> Job:
        (
            number, task, args, kwargs, queue, priority, state, run_at, attempt, attempts_max,
            timeout_ms, memory_bytes, unique_key, result, error, progress, cancel_requested, losses,
            owner, claim, created_at, claimed_at, started_at, finished_at, expires_at, deferred,
        ) = row  # fmt: skip
        return Job(
            id=number,
            task=task,
            args=self._read(args),
            kwargs=self._read(kwargs),
            queue=queue,
            priority=priority,
            state=State(state),
            run_at=to_datetime(run_at),
            attempt=attempt,
            attempts_max=attempts_max,
            timeout=timeout_ms / 1000 if timeout_ms else None,
            memory=memory_bytes or None,
            unique=unique_key,
            result=None if result is None else self._read(result),
            error=error,
            progress=_progress(progress),
            cancel_requested=bool(cancel_requested),
            losses=losses,
            owner=owner,
            claim=claim,
            created_at=to_datetime(created_at),
            claimed_at=None if claimed_at is None else to_datetime(claimed_at),
            started_at=None if started_at is None else to_datetime(started_at),
            finished_at=None if finished_at is None else to_datetime(finished_at),
            expires_at=None if expires_at is None else to_datetime(expires_at),
            deferred=deferred,
        )

    def _read(self, text: str) -> Any:
        # Lenient: a row whose class or codec is not here must not hide the others from `list`.
        return self.payload.decode(text, lenient=True)

    # -- what every change leaves behind

    def _add_attempt(
        self,
        attempt: int,
        fence: Mapping[str, Any],
        death: Death,
        times: Mapping[str, Any],
        failure: Mapping[str, Any],
    ) -> None:
        self._change(
            "add_attempt",
            {
                "error_type": None,
                "message": None,
                "traceback": None,
                **failure,
                **fence,
                **times,
                "attempt": attempt,
                "outcome": death.outcome,
                "host": death.host,
                "pid": death.pid,
                "exit_code": death.exit_code,
                "signal": death.signal,
                "verdict": death.verdict,
            },
        )

    def _changed(
        self,
        verb: str,
        job: int,
        row: tuple[Any, ...],
        outcome: Outcome | None = None,
        record: Record | None = None,
        *,
        error: str | None = None,
        kind: str | None = None,
    ) -> None:
        """After a row (state, task, queue, attempt, attempts_max) changed: who wakes, who hears."""
        if row[0] in ("pending", "scheduled"):
            self._pending_made = True
        if not self.events.active:
            return
        if outcome is not None and outcome.failure is not None:
            error, kind = _summary(outcome.failure), outcome.kind
        self._note(
            verb, job, row, error=error, delay_ms=record.delay_ms if record else 0, kind=kind
        )

    def _note(
        self,
        verb: str,
        job: int,
        row: tuple[Any, ...],
        *,
        error: str | None = None,
        delay_ms: int = 0,
        kind: str | None = None,
    ) -> None:
        if self.events.active:
            state, task, queue, attempt, attempts_max = row
            self._events.append(
                Event(
                    verb=verb,
                    job=job,
                    task=task,
                    queue=queue,
                    attempt=attempt,
                    attempts_max=attempts_max,
                    error=error,
                    delay_ms=delay_ms,
                    kind=kind or state,
                )
            )


#: Where a row stands after a record of these verbs; after the others it may have gone on since.
_FINISHING = {"succeed": ("succeeded",), "fail": ("failed", "cancelled"), "cancel": ("cancelled",)}
#: The times of a run whose end nobody recorded: it ended now, and began when it was claimed.
UNWITNESSED = {"age": 0, "duration": None}


def _check_id(job: int) -> None:
    """A number that no database has is not asked for: PostgreSQL would take it for another type."""
    if not 0 < job <= ID_MAX:
        raise JobNotFound(f"there is no job {shown(job)}")


def _nothing() -> None:
    """Nobody wants to know that the store waits."""


def log_lost(records: Iterable[Record]) -> None:
    """One line for each outcome that came too late: somebody else had the job by then."""
    for record in records:
        say("lost_claim", job=record.job, verb=VERB_NAMES[record.verb], claim=record.claim)


def _progress(text: str | None) -> dict[str, Any] | None:
    """A stranger may have written anything there; that must not hide the job."""
    try:
        told = None if text is None else json.loads(text)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _summary(failure: Failure | None) -> str | None:
    if failure is None:
        return None
    return f"{failure.error_type}: {failure.message}" if failure.message else failure.error_type


def _listed(ids: Iterable[int]) -> dict[str, str]:
    """Any number of ids as one parameter of either dialect."""
    return {"jobs": json.dumps(list(ids))}


def _pages(rows: Iterable[JobRow]) -> Iterator[list[JobRow]]:
    """A bounded number of rows at a time, and of text."""
    page: list[JobRow] = []
    size = 0
    for row in rows:
        page.append(row)
        size += _size(row) + sum(map(_size, row.attempts))
        if len(page) >= IMPORTED_AT_ONCE or size >= IMPORTED_TEXT:
            yield page
            page, size = [], 0
    if page:
        yield page


def _size(row: tuple[Any, ...]) -> int:
    return sum(len(value) for value in row if isinstance(value, str))


def _values(row: JobRow) -> dict[str, Any]:
    values = row._asdict()
    del values["attempts"]
    return values


def summed(left: Applied, right: Applied) -> Applied:
    return Applied(
        left.changed + right.changed, left.lost + right.lost, left.rejected + right.rejected
    )


def _fence(record: Record) -> dict[str, Any]:
    return {"job": record.job, "owner": record.owner, "claim": record.claim}


def _times(record: Record) -> dict[str, Any]:
    """Ages, not moments: the settling statement adds its clock, which is the database's."""
    return {"age": record.age_ms, "duration": record.duration_ms}


def settling(record: Record) -> tuple[str, dict[str, Any], Outcome]:
    """The statement that settles a record other than a success, its parameters, and the outcome."""
    outcome = Outcome.from_body(VERB_NAMES[record.verb], record.delay_ms, record.body)
    name = "cancel_run" if outcome.verb == "cancel" else outcome.verb
    parameters = {
        **_fence(record),
        **_times(record),
        "delay": record.delay_ms,
        "deferred": outcome.deferred,
        "error": _summary(outcome.failure),
    }
    return name, parameters, outcome


def successes(records: Iterable[Record], *, forget: bool) -> tuple[str, list[dict[str, Any]]]:
    """The statement that settles successes, and its parameters for each."""
    if forget:
        return "succeed_and_forget", [_fence(record) for record in records]
    return "succeed", [_success(record) for record in records]


def _success(record: Record) -> dict[str, Any]:
    return {
        "job": record.job,
        "owner": record.owner,
        "claim": record.claim,
        "result": record.body.decode("utf-8") if record.body else None,
        "age": record.age_ms,
        "duration": record.duration_ms,
    }


def in_order(rows: list[tuple[Any, ...]]) -> list[Claimed]:
    """Claimed rows in the order to run them: RETURNING promises none."""
    rows.sort(key=itemgetter(0))
    jobs = [Claimed._make(row) for row in rows]
    jobs.sort(key=attrgetter("priority"), reverse=True)
    return jobs


def _attempt(row: tuple[Any, ...]) -> Attempt:
    (
        job, attempt, owner, claim, outcome, error_type, message, traceback, host, pid, exit_code,
        signal, verdict, started_at, finished_at,
    ) = row  # fmt: skip
    return Attempt(
        job=job,
        attempt=attempt,
        owner=owner,
        claim=claim,
        outcome=outcome,
        error_type=error_type,
        message=message,
        traceback=traceback,
        host=host,
        pid=pid,
        exit_code=exit_code,
        signal=signal,
        verdict=verdict,
        started_at=None if started_at is None else to_datetime(started_at),
        finished_at=to_datetime(finished_at),
    )
