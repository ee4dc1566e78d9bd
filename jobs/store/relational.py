"""Every verb of the queue, once, over named statements; a dialect brings statements and a connection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import (
    IllegalMove,
    JobNotFound,
    RowRefused,
    StoreUnavailable,
    UniqueTaken,
)
from jobvisor.jobs.events import Events
from jobvisor.jobs.filter import ID_MAX
from jobvisor.jobs.job import FINISHED, Attempt, Job, NewJob, Summary
from jobvisor.jobs.store.annals import Annals
from jobvisor.jobs.store.base import (
    NOTHING,
    Applied,
    FamilyRow,
    Life,
    Record,
    Rest,
    Sight,
    Turn,
    Unknown,
    Whom,
)
from jobvisor.jobs.store.dialect import check_id
from jobvisor.jobs.store.enqueueing import (
    MOVES_MET,
    Enqueued,
    carried_out,
    enqueueing,
    never_still,
    told_of_twins,
)
from jobvisor.jobs.store.finding import LATENCY_OF, Finding
from jobvisor.jobs.store.following import Following
from jobvisor.jobs.store.limiting import Seats
from jobvisor.jobs.store.older import OlderFamilies
from jobvisor.jobs.store.overdue import Overdue
from jobvisor.jobs.store.pausing import Pausing
from jobvisor.jobs.store.pruning import Pruning
from jobvisor.jobs.store.refusals import EACH_AT_ONCE
from jobvisor.jobs.store.rescheduling import Rescheduling
from jobvisor.jobs.store.rows import (
    NO_TURNS,
    Changed,
    Row,
    any_special,
    attempt_of,
    in_order,
    job_of,
    sight_of,
    summary_of,
    with_places,
)
from jobvisor.jobs.store.schedules import Schedules
from jobvisor.jobs.store.settlement import HISTORY_MAX, Settlement
from jobvisor.jobs.store.transfer import Transfer
from jobvisor.jobs.store.waiting import Waiting

PROMOTED_AT_ONCE = 1000  # a turn is short even when a million rows fall due in the same second
JOBS_AT_ONCE = 500  # by their ids in one statement; each may hold 2 MB
SUSPECTS_OF = 100  # of a queue
ATTEMPTS_AT_ONCE = 1_000  # jobs whose history is asked for in one statement


class RelationalStore(
    Pausing,
    Settlement,
    Transfer,
    Following,
    Finding,
    Schedules,
    Annals,
    Overdue,
    Rescheduling,
    Pruning,
    Waiting,
):
    """The logic of every verb but those that have a file of their own."""

    def __init__(self, clock: Clock, events: Events) -> None:
        super().__init__(clock, events)
        self._older = OlderFamilies(clock)

    # -- the application

    def enqueue(self, jobs: Sequence[NewJob]) -> list[tuple[int, bool]]:
        with self.transaction():
            self._older.refuse(jobs, self._rows)
            found: list[tuple[int, bool]] = []
            for job in jobs:
                with told_of_twins(job, found):
                    each = self._enqueue(job)
                found.append((each.id, each.created))
            return found

    def enqueue_one(self, job: NewJob) -> Job:
        with self.transaction():
            self._older.refuse((job,), self._rows)
            for _ in range(MOVES_MET):
                made = self._enqueue(job)
                if made.row is not None:
                    stored = job_of(made.row, self.payload)
                    return (
                        replace(stored, created=False, replaced=True) if made.replaced else stored
                    )
                # Between two statements a holder may be done, and not kept: then the key is free.
                with suppress(JobNotFound):
                    return replace(self.get(made.id), created=False)
        raise never_still(job)

    def _enqueue(self, job: NewJob) -> Enqueued:
        made = carried_out(enqueueing(job), self._asked)
        shared = job.terms is not None and job.terms.share is not None
        if shared and made.row is not None and (made.replaced or not self._inserts_turns):
            self._give_turns([made.id])
        if made.created:
            self._enqueued(made.id, job)
        elif made.replaced:
            self._replaced(made)
        return made

    def _replaced(self, made: Enqueued) -> None:
        self._pending_made = True  # it may be due sooner
        self._audience.note(made.id)
        if made.left is not None:
            self._freed.add(made.left)

    def _enqueued(self, number: int, job: NewJob) -> None:
        self._pending_made = True
        if self.events.is_heard("enqueue"):
            self._moved("enqueue", number, Changed("", job.task, job.queue, 0, job.attempts_max))

    def get(self, job: int) -> Job:
        check_id(job)
        rows = self._rows("get", {"job": job})
        if not rows:
            raise JobNotFound(f"there is no job {job}")
        return job_of(rows[0], self.payload)

    def get_many(self, jobs: Iterable[int]) -> dict[int, Job]:
        wanted = [job for job in dict.fromkeys(jobs) if 0 < job <= ID_MAX]
        found: dict[int, Job] = {}
        for start in range(0, len(wanted), JOBS_AT_ONCE):
            page = {"jobs": json.dumps(wanted[start : start + JOBS_AT_ONCE])}
            for row in self._rows("get_many", page):
                found[row[0]] = job_of(row, self.payload)
        return {job: found[job] for job in wanted if job in found}

    def summaries(self, jobs: Iterable[int]) -> list[Summary]:
        wanted = [job for job in dict.fromkeys(jobs) if 0 < job <= ID_MAX]
        found: list[Summary] = []
        for start in range(0, len(wanted), JOBS_AT_ONCE):
            page = {"jobs": json.dumps(wanted[start : start + JOBS_AT_ONCE])}
            found += map(summary_of, self._rows("summaries", page))
        return found

    def task_names(self, limit: int) -> list[str]:
        return [row[0] for row in self._rows("task_names", {"limit": limit})]

    def attempts(self, job: int) -> list[Attempt]:
        return [attempt_of(row) for row in self._rows("attempts", {"job": job})]

    def attempts_of(self, jobs: Iterable[int]) -> dict[int, list[Attempt]]:
        ids = list(dict.fromkeys(jobs))
        found: dict[int, list[Attempt]] = {job: [] for job in ids}
        asked = [job for job in ids if 0 < job <= ID_MAX]
        for start in range(0, len(asked), ATTEMPTS_AT_ONCE):
            page = {"jobs": json.dumps(asked[start : start + ATTEMPTS_AT_ONCE])}
            for row in self._rows("export_attempts", page):
                found[row[0]].append(attempt_of(row))
        return found

    def counts(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for queue, state, number in self._rows("counts", {}):
            found.setdefault(queue, {})[state] = number
        return found

    def unfinished(self) -> dict[str, dict[str, int]]:
        found: dict[str, dict[str, int]] = {}
        for queue, state, number in self._rows("unfinished", {}):
            found.setdefault(queue, {})[state] = number
        return found

    def pending_queues(self, limit: int = 1_000) -> list[str]:
        return [row[0] for row in self._rows("pending_queues", {"limit": limit})]

    def oldest_pending(self) -> dict[str, int]:
        return dict(self._rows("oldest_pending", {}))

    def unknown_tasks(self, limit: int) -> list[Unknown]:
        return [Unknown._make(row) for row in self._rows("unknown_tasks", {"limit": limit})]

    def cancel(self, job: int) -> str:
        check_id(job)
        with self.transaction():
            for _ in range(MOVES_MET):
                rows = self._rows("cancel", {"job": job})
                if rows:
                    self._moved("cancel", job, Changed._make(rows[0]))
                    return "cancelled"
                if self._rows("request_cancel", {"job": job}):
                    # On SQLite it wakes the caretaker, who carries the word.
                    self._pending_made = True
                    self._audience.note(job)
                    return "requested"
                state = self.get(job).state
                if state in FINISHED:
                    raise IllegalMove(f"job {job} is {state} already and cannot be cancelled")
                # It was claimed or given back between the two statements.
        raise StoreUnavailable(
            f"job {job} moved {MOVES_MET} times while it was being cancelled; try again"
        )

    def requeue(self, job: int) -> None:
        check_id(job)
        with self.transaction():
            rows, refused = self._attempted(self._requeue, job)
            if refused is not None:
                raise self._unique_taken(job, refused)
            if not rows:
                raise IllegalMove(
                    f"job {job} is {self.get(job).state}; only a finished job can be requeued"
                )
            # Its attempts begin anew, so that it may never come to one of those that look.
            self._change("trim_attempts", {"job": job, "kept": HISTORY_MAX})
            self._pending_made = True
            shared, _key, _debounced, *told = rows[0]
            if shared:
                self._give_turns([job])
            self._moved("requeue", job, Changed._make(told))

    def _requeue(self, job: int) -> list[Row]:
        """The row that starts over, under its key; UniqueTaken where another job has that."""
        rows = self._rows("requeue", {"job": job})
        for _shared, key, debounced, *_told in rows:
            if debounced:
                self._hold_again(job)
            elif key is not None:
                self._check_not_held_apart({job: key}, "requeued")
        return rows

    def requeue_order(self, jobs: Iterable[int]) -> list[int]:
        return sorted(jobs)

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
                self._give_turns([job])  # if it is pending now, of a share, and has none to come
                self._moved(verb, job, Changed._make(rows[0]))
            return bool(rows)

    def delete(self, jobs: Iterable[int]) -> list[int]:
        with self.transaction():
            rows = self._rows("delete", {"jobs": json.dumps(sorted(set(jobs)))})
            self._audience.note_all(row[0] for row in rows)
            return sorted(row[0] for row in rows)

    def repeat(
        self,
        job: int,
        *,
        args: str | None = None,
        kwargs: str | None = None,
        parent: int | None = None,
    ) -> Job:
        check_id(job)
        with self.transaction():
            model = self.get(job)
            terms = {"limit": model.limit, "share": model.share, "keep": model.keep}
            words = ", ".join(name for name, value in terms.items() if value is not None)
            self._older.refuse_stored(job, model.task, words, self._rows)
            told = {"job": job, "args": args, "kwargs": kwargs, "parent": parent}
            rows = self._rows("repeat", told)
            if not rows:
                raise JobNotFound(f"there is no job {job}")
            made = job_of(rows[0], self.payload)
            if made.share is not None:
                self._give_turns([made.id])
            self._pending_made = True
            row = Changed("", made.task, made.queue, 0, made.attempts_max)
            self._moved("enqueue", made.id, row)
            return made

    # -- workers

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
        woken: bool = False,  # noqa: ARG002 -- a look costs nothing that a claim could save here
        whom: Whom = Whom.ANYBODY,
        lanes: int = 1,
        batch: int | None = None,
    ) -> Turn:
        asked: dict[str, Any] = {
            "queues": queues, "limit": limit, "journal": journal, "rest": rest, "register": register,
            "forget_succeeded": forget_succeeded, "whom": whom,
            "seats": Seats(lanes, limit if batch is None else batch),
        }  # fmt: skip
        self._turning = life.owner
        if self._keys:
            self._check_keys()
        try:
            turn = self._turn(life, claim, careful=False, **asked)
        except RowRefused:
            turn = self._turn(life, claim, careful=True, **asked)
        return self._without_superseded(life, claim, turn)

    def _turn(
        self,
        life: Life,
        claim: int,
        *,
        careful: bool,
        queues: Sequence[str],
        limit: int,
        journal: Sequence[Record],
        rest: Rest | None,
        register: bool,
        forget_succeeded: bool,
        whom: Whom,
        seats: Seats,
    ) -> Turn:
        """`careful`: the database has refused a row of this turn, and one of them stops no other."""
        found: list[list[Row]] = []
        places: dict[int, int | None] = {}
        parked, returned = 0, 0
        turns: Mapping[int, int] = NO_TURNS
        with self.transaction():
            if register:
                self._change("add_owner", life._asdict())
            applied = NOTHING
            if journal:
                applied = self.apply(journal, life, forget_succeeded=forget_succeeded)
            if rest is not None:
                self.release_rest(life.owner, rest)
            self._admit_freed()  # before the claim, which may take what it lets begin
            if limit:
                version, is_due, is_key_due = self._rows("look", {})[0]
                if is_due:
                    self._promote(careful=careful)
                elif is_key_due:
                    self._admit_due()
                fair = bool(self._fair_among(queues))
                tell = fair and self._claims_tell_turns and not careful
                for queue in self._open_by(version, queues):
                    found.append(
                        self._claim(
                            life.owner, claim, queue, limit, whom=whom, careful=careful, tell=tell
                        )
                    )
                    limit -= len(found[-1])
                    if limit <= 0:
                        break
                if self._parked_tasks() or any(map(any_special, found)):
                    found, places, parked, returned = self._kept(
                        life.owner, claim, seats, found, careful=careful
                    )
                if fair and any(found):
                    turns = self._taken_turns(life.owner, claim, whom, told=tell)
        # After the commit: on SQLite the other workers wait for it.
        jobs = with_places([job for rows in found for job in in_order(rows, turns)], places)
        self._forget_keys(journal, rest, jobs)
        return Turn(self._with_deadlines(jobs), applied, parked, returned)

    def _claim(
        self,
        owner: int,
        claim: int,
        queue: str,
        limit: int,
        *,
        whom: Whom,
        careful: bool,
        tell: bool,
    ) -> list[Row]:
        """The rows of one queue; `tell`: with the turn of each, behind the rest."""
        parameters: dict[str, Any] = {
            "owner": owner, "claim": claim, "queue": queue, "limit": limit,
            "first": True,  # what other queues gave is off the limit already
            "entered": False,  # of a life that works job by job under locks of its own
            "woken": False,
            "places": True,
            "settings": self._pauses.version,
        }  # fmt: skip
        if not careful:
            rows = self._rows(whom.of("claim_fair" if tell else "claim"), parameters)
            self._audience.note_all(row[0] for row in rows)
            return rows
        rows, refused = self._attempted(self._rows, whom.of("claim"), parameters)
        if refused is not None:
            parameters |= {"limit": min(limit, EACH_AT_ONCE), **self._but_left()}
            ids = [{"job": row[0]} for row in self._rows(whom.of("claimable"), parameters)]
            rows = [row for _, row in self._each("claim_row", parameters, ids)]
        self._audience.note_all(row[0] for row in rows)
        return rows

    def look(self, queues: Sequence[str], owner: int = 0, *, whom: Whom = Whom.ANYBODY) -> Sight:
        owned = bool(owner and self._rows("owned", {"owner": owner})[0][0])
        self._recall_pauses()
        while True:
            seen = self._seen(self._pauses.open(queues), whom)
            due_ms, version = self._rows("next_due", {})[0]
            if not self._note_version(version):
                break  # else what it took for open may be paused, or the other way round
        if seen:
            return Sight(True, 0, owned)
        return sight_of(self._sooner(due_ms, queues), owned=owned)

    def _seen(self, queues: Iterable[str], whom: Whom) -> bool:
        asked = whom.of("has_pending")
        return any(self._rows(asked, {"queue": queue})[0][0] for queue in queues)

    def leave(
        self, life: Life, records: Iterable[Record], *, forget_succeeded: bool = False
    ) -> Applied:
        with self.transaction():
            self.remove_owner(life.owner)  # first: a turn whose answer was lost waits for this row
            applied = self.apply(records, life, forget_succeeded=forget_succeeded)
            self.release_rest(life.owner)
        return applied

    # -- caretakers

    def promote(self) -> int:
        try:
            return self._promote(careful=False)
        except RowRefused:
            return self._promote(careful=True)

    def _promote(self, *, careful: bool) -> int:
        limit, promote = {"limit": PROMOTED_AT_ONCE}, self._promotion()
        with self.transaction():
            if not careful:
                promoted = self._rows(promote, limit)
            else:
                promoted, refused = self._attempted(self._rows, promote, limit)
                if refused is not None:
                    due = self._rows("due", {"limit": EACH_AT_ONCE, **self._but_left()})
                    each = [{"job": row[0]} for row in due]
                    promoted = [row for _, row in self._each("promote_row", {}, each)]
            self._give_turns(row[0] for row in promoted if row[1])
            self._pending_made = self._pending_made or bool(promoted)
            self._audience.note_all(row[0] for row in promoted)
            return len(promoted) + self._admit_due()

    def _promotion(self) -> str:
        """The statement that promotes; it tells of each row whether turns are to be given for its share."""
        return "promote"

    def ownerless(self, claimed_before_ms_ago: int) -> list[int]:
        with self.transaction():
            rows, _refused = self._attempted(self._rows, "adopt", {})
            self._audience.note_all(row[0] for row in rows or ())
        return [row[0] for row in self._rows("ownerless", {"age": claimed_before_ms_ago})]

    def progress(self, job: int, owner: int, claim: int, progress: str) -> bool:
        parameters = {"job": job, "owner": owner, "claim": claim, "progress": progress}
        with self.transaction():
            self._audience.note(job)
            return self._change("progress", parameters) > 0

    def cancelling(self, owners: Iterable[int]) -> list[tuple[int, int, int]]:
        asked = {"owners": json.dumps(list(owners))}
        return [(job, owner, claim) for job, owner, claim in self._rows("cancelling", asked)]

    def latency(self, queues: Iterable[str]) -> int:
        longest = 0
        for queue in self._open(tuple(queues)):
            waited = self._rows("latency", {"queue": queue, "limit": LATENCY_OF})[0][0]
            longest = max(longest, waited or 0)
        return longest

    def suspects(self, queues: Iterable[str]) -> list[int]:
        return [
            row[0]
            for queue in self._open(tuple(queues))
            for row in self._rows("suspects", {"queue": queue, "limit": SUSPECTS_OF})
        ]

    def has_work(self, queues: Sequence[str], family: int) -> bool:
        # In one snapshot: between two a row could be claimed, and be missed in both.
        with self.snapshot():
            return bool(self._rows("family_runs", {"family": family})[0][0]) or any(
                self._rows("has_work", {"queue": queue})[0][0] for queue in self._open(queues)
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
