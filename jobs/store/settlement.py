"""The end of a run, written to its row and its history: as its record says, or as a death left it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from jobvisor.jobs.excerpt import first_part, last_part
from jobvisor.jobs.job import State
from jobvisor.jobs.outcome import VERB_CODES, VERB_NAMES, Failure, Outcome
from jobvisor.jobs.store.base import (
    ALL,
    DEATHS,
    NOTHING,
    Applied,
    Death,
    Held,
    Life,
    Record,
    Rest,
    failure_fields,
)
from jobvisor.jobs.store.limiting import Limiting
from jobvisor.jobs.store.rows import Changed, Row

LOSSES_MAX = 3  # a job may lose its worker without evidence three times; the fourth fails it
VANISHED_AT_ONCE = 500  # rows of a lost owner in one transaction

STACK_MAX = 8 * 1024  # bytes of UTF-8, as the table has it
SAID_MAX = 16 * 1024
CPU_MS_MAX = 10**12
RSS_BYTES_MAX = 2**62

HISTORY_MAX = 100  # runs of one job that are kept; some more between two looks
TRIMMED_EVERY = 10

SUCCEED = VERB_CODES["succeed"]
_job, _verb = (itemgetter(Record._fields.index(name)) for name in ("job", "verb"))


class Settlement(Limiting):
    """The verbs that end runs. Each statement carries the whole fence: id, state, owner, claim."""

    # -- by a record

    def apply(
        self, records: Iterable[Record], life: Life, *, forget_succeeded: bool = False
    ) -> Applied:
        ordered = sorted(records, key=_job)  # rows are locked in id order
        if not ordered:
            return NOTHING
        with self.transaction():
            succeeded, others = ordered, []
            if set(map(_verb, ordered)) != {SUCCEED}:
                succeeded = [record for record in ordered if record.verb == SUCCEED]
                others = [record for record in ordered if record.verb != SUCCEED]
            applied = Applied(0, [], [])
            self._note_ending(ordered)
            told = last_words(ordered, forget=forget_succeeded)
            if told:
                # Before the rows leave `running`; one the database refuses must not block the rest.
                self._attempted(self._change_many, "progress", told)
            if succeeded:
                applied = self._succeed(succeeded, life, forget_succeeded)
                if said := kept_words(succeeded, life, forget=forget_succeeded):
                    self._attempted(self._change_many, "keep_words", said)
            for record in others:
                applied = summed(applied, self._apply_guarded(record, life, forget_succeeded))
        if not self._depth:  # else whoever began the transaction may do all of it again
            self._forget_keys(ordered)
        return applied

    def _succeed(self, records: list[Record], life: Life, forget: bool) -> Applied:
        changed, refused = self._attempted(self._succeed_all, records, forget)
        if refused is None and forget and changed < len(records):
            changed, refused = self._attempted(self._keep_some, records, life, changed)
        self._audience.note_all(record.job for record in records)
        if refused is None:
            lost = [] if changed == len(records) else self._lost(records)
            return Applied(changed, lost, [])
        # One row the database refuses must not block the others: each by itself.
        applied = Applied(0, [], [])
        for record in records:
            applied = summed(applied, self._apply_guarded(record, life, forget))
        return applied

    def _keep_some(self, records: list[Record], life: Life, changed: int) -> int:
        """Of those that are forgotten some say themselves how long they are kept: these succeed as others do.

        The rest is gone, or was settled before: nothing of it is changed. How many have changed in all.
        """
        if told := last_words(records, forget=False):
            self._change_many("progress", told)
        changed += self._succeed_all(records, False)
        if said := kept_words(records, life, forget=False):
            self._change_many("keep_words", said)
        return changed

    def _succeed_all(self, records: list[Record], forget: bool) -> int:
        name, told = successes(records, forget=forget)
        each = [dict(zip(told, values, strict=True)) for values in zip(*told.values(), strict=True)]
        return self._change_many(name, each)

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
            changed = self._succeed_all([record], forget)
            return (changed or (self._keep_some([record], life, 0) if forget else 0)) > 0
        name, parameters, outcome = settling(record)
        rows = self._rows(name, parameters)
        if rows:
            self._settled(record, life, outcome, Changed._make(rows[0]))
        return bool(rows)

    def _settled(self, record: Record, life: Life, outcome: Outcome, row: Changed) -> None:
        """After a record other than a success changed its row: the history, and who wants to know."""
        if outcome.verb in ("retry", "fail", "cancel"):
            death = _death_of(record, outcome.kind, "", life)
            told = failure_fields(outcome.failure)
            self._add_attempt(record.attempt, _fence(record), death, _times(record), told)
        failure = outcome.failure
        self._moved(
            outcome.verb,
            record.job,
            row,
            error=_summary(failure),
            kind=outcome.kind if failure is not None else None,
            delay_ms=record.delay_ms,
        )

    def _fail_refused(self, record: Record, life: Life, reason: str) -> bool:
        fence, times = _fence(record), _times(record)
        rows = self._rows(
            "fail", {**fence, **times, **_cost(record), "company": None, "error": reason}
        )
        if rows:
            death = _death_of(record, "refused", reason, life)
            self._add_attempt(record.attempt, fence, death, times, {"message": reason})
            self._moved("fail", record.job, Changed._make(rows[0]), error=reason, kind="refused")
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
        if VERB_NAMES[record.verb] in ("snooze", "release"):
            return True  # they leave no history to tell by, and to come too late they lose nothing
        known = {"job": record.job, "owner": record.owner, "claim": record.claim}
        outcomes = [row[0] for row in self._rows("outcome_of", known)]
        if outcomes:
            return outcomes[0] not in DEATHS
        return (owner, claim) == (record.owner, record.claim) and (
            state in _FINISHING.get(VERB_NAMES[record.verb], (state,))
        )

    # -- by a death

    def held(self, job: int, owner: int, claim: int) -> Held | None:
        rows = self._rows("held", {"job": job, "owner": owner, "claim": claim})
        return Held._make(rows[0]) if rows else None

    def rescue(self, job: int, owner: int, held: Held, death: Death, delay_ms: int | None) -> None:
        fence = {"job": job, "owner": owner, "claim": held.claim}
        parameters = {
            **UNWITNESSED,
            **_cost(death),
            "company": _company(death, held),
            "error": death.text,
            "delay": delay_ms,
        }
        with self.transaction():
            name = "fail" if delay_ms is None else "retry"
            if rows := self._each(name, parameters, [fence]):
                self._add_attempt(held.attempt, fence, death, UNWITNESSED, {"message": death.text})
                self._rescued(job, Changed._make(rows[0][1]), death)

    def give_back(self, job: int, owner: int, held: Held, death: Death) -> None:
        fence = {"job": job, "owner": owner, "claim": held.claim}
        with self.transaction():
            if rows := self._each("release", {"company": _company(death, held)}, [fence]):
                self._add_attempt(held.attempt, fence, death, UNWITNESSED, {"message": death.text})
                self._moved(
                    "release", job, Changed._make(rows[0][1]), error=death.text, kind=death.outcome
                )

    def vanish(self, owner: int, death: Death, job: int | None = None) -> int:
        with self.transaction():
            rows = self._vanished(owner, job)
            history = []
            for number, claim, *told in rows:
                row = Changed._make(told)
                fence = {"job": number, "owner": owner, "claim": claim}
                text = {"message": death.text}
                history.append(_attempt(row.attempt + 1, fence, death, UNWITNESSED, text))
                self._rescued(number, row, death)
            if history:  # one statement for a page: to a server each would be a round trip
                self._change_many("add_attempt", history)
            return len(rows)

    def _rescued(self, job: int, row: Changed, death: Death) -> None:
        """A death that ends its job is told as any other failure: who listens for those hears of it."""
        verb = "fail" if row.state == State.FAILED else "rescue"
        self._moved(verb, job, row, error=death.text, kind=death.outcome)

    def _vanished(self, owner: int, job: int | None) -> list[Row]:
        parameters = {
            "owner": owner, "job": job, "losses_max": LOSSES_MAX, "limit": VANISHED_AT_ONCE,
            "error": f"its worker vanished {LOSSES_MAX + 1} times",
        }  # fmt: skip
        rows, refused = self._attempted(self._rows, "vanish", parameters)
        if refused is None:
            return list(rows)
        ids = [number for number, _claim in self._owned(owner) if job in (None, number)]
        return [row for _, row in self._each("vanish", parameters, [{"job": each} for each in ids])]

    def release_rest(self, owner: int, rest: Rest = ALL) -> int:
        with self.transaction():
            rows, refused = self._attempted(self._rows, "release_rest", resting(owner, rest))
            if refused is not None:
                rows = self._released(owner, rest)
            for job, *told in rows:
                self._moved("release", job, Changed._make(told))
            return len(rows)

    def _released(self, owner: int, rest: Rest) -> list[Row]:
        """The same, each row by itself."""
        fences = [
            {"job": job, "owner": owner, "claim": claim}
            for job, claim in self._owned(owner)
            if job not in rest.held
            and (rest.claims is None or claim in rest.claims)
            and (rest.up_to is None or claim <= rest.up_to)
        ]
        return [(job, *told) for job, told in self._each("release", {"company": None}, fences)]

    def give_back_all(self, owner: int, runs: Sequence[tuple[int, int, Death]]) -> list[int]:
        deaths = {(job, claim): death for job, claim, death in runs}
        asked = [(job, claim, death.company) for job, claim, death in runs]
        parameters = {"owner": owner, "runs": json.dumps(asked)}
        with self.transaction():
            rows, refused = self._attempted(self._rows, "release_many", parameters)
            if refused is not None:
                return self._given_back(owner, runs)
            history = []
            for job, claim, *told in rows:
                row, death = Changed._make(told), deaths[job, claim]
                fence = {"job": job, "owner": owner, "claim": claim}
                text = {"message": death.text}
                history.append(_attempt(row.attempt + 1, fence, death, UNWITNESSED, text))
                self._moved("release", job, row, error=death.text, kind=death.outcome)
            if history:
                self._change_many("add_attempt", history)
                self._trim_long(row["job"] for row in history)
            return [row["job"] for row in history]

    def _given_back(self, owner: int, runs: Sequence[tuple[int, int, Death]]) -> list[int]:
        """The same, each row by itself."""
        held = [(job, self.held(job, owner, claim), death) for job, claim, death in runs]
        for job, row, death in held:
            if row is not None:
                self.give_back(job, owner, row, death)
        return [job for job, row, _ in held if row is not None]

    def _trim_long(self, jobs: Iterable[int]) -> None:
        """Of many jobs those that have too long a history, which are few."""
        asked = {"jobs": json.dumps(sorted(set(jobs))), "kept": HISTORY_MAX}
        for (job,) in self._rows("long_histories", asked):
            self._change("trim_attempts", {"job": job, "kept": HISTORY_MAX})

    def _add_attempt(
        self,
        attempt: int,
        fence: Mapping[str, Any],
        death: Death,
        times: Mapping[str, Any],
        failure: Mapping[str, Any],
    ) -> None:
        self._change("add_attempt", _attempt(attempt, fence, death, times, failure))
        # A run that is given back counts no attempt; of the others each tenth looks.
        if death.outcome in ("stopped", "cancelled") or attempt % TRIMMED_EVERY == 0:
            self._change("trim_attempts", {"job": fence["job"], "kept": HISTORY_MAX})


#: Where a row stands after a record of these verbs; after the others it may have gone on since.
_FINISHING = {"succeed": ("succeeded",), "fail": ("failed", "cancelled"), "cancel": ("cancelled",)}
#: The times of a run whose end nobody recorded: it ended now, and began when it was claimed.
UNWITNESSED = {"age": 0, "duration": None}


def _summary(failure: Failure | None) -> str | None:
    return None if failure is None else failure.summary


def summed(left: Applied, right: Applied) -> Applied:
    return Applied(
        left.changed + right.changed, left.lost + right.lost, left.rejected + right.rejected
    )


def resting(owner: int, rest: Rest) -> dict[str, Any]:
    """The parameters of the statement that releases what is not held."""
    claims = None if rest.claims is None else json.dumps(rest.claims)
    return {
        "owner": owner, "claims": claims, "held": json.dumps(rest.held), "up_to": rest.up_to,
    }  # fmt: skip


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
        **_cost(record),
        "company": None,  # an outcome of its own clears it of all suspicion
        "delay": record.delay_ms,
        "deferred": outcome.deferred,
        "error": _summary(outcome.failure),
    }
    return name, parameters, outcome


def last_words(records: Iterable[Record], *, forget: bool) -> list[dict[str, Any]]:
    """How far jobs said that they had come, of those whose rows stay."""
    return [
        {**_fence(record), "progress": record.progress}
        for record in records
        if record.progress is not None and not (forget and record.verb == SUCCEED)
    ]


def kept_words(records: Iterable[Record], life: Life, *, forget: bool) -> list[dict[str, Any]]:
    """What jobs said that succeeded, where it is to be kept: after their rows are settled."""
    return [
        {
            **_fence(record),
            "host": life.host,
            "pid": life.pid,
            "said": last_part(record.said, SAID_MAX),
        }
        for record in records
        if record.said is not None and not forget
    ]


def successes(records: Sequence[Record], *, forget: bool) -> tuple[str, dict[str, list[Any]]]:
    """The statement that settles successes, and its parameters: of each the values for all records."""
    told: dict[str, list[Any]] = {
        "job": [record.job for record in records],
        "owner": [record.owner for record in records],
        "claim": [record.claim for record in records],
    }
    if forget:
        return "succeed_and_forget", told
    told["result"] = [record.body.decode("utf-8") if record.body else None for record in records]
    told["age"] = [record.age_ms for record in records]
    told["duration"] = [record.duration_ms for record in records]
    told["cpu_ms"] = [_within(record.cpu_ms, CPU_MS_MAX) for record in records]
    told["rss_bytes"] = [_within(record.rss_bytes, RSS_BYTES_MAX) for record in records]
    return "succeed", told


def _death_of(record: Record, outcome: str, text: str, life: Life) -> Death:
    """The end of a run that told of it itself, as the history has it."""
    return Death(
        outcome,
        text,
        life.host,
        life.pid,
        said=record.said,
        cpu_ms=record.cpu_ms,
        rss_bytes=record.rss_bytes,
    )


def _cost(told: Record | Death) -> dict[str, int | None]:
    """What a run cost, within what the columns take: no row is lost for a wrong number."""
    return {
        "cpu_ms": _within(told.cpu_ms, CPU_MS_MAX),
        "rss_bytes": _within(told.rss_bytes, RSS_BYTES_MAX),
    }


def _within(value: int | None, most: int) -> int | None:
    if value is None or 0 <= value <= most:
        return value
    return 0 if value < 0 else most


def _company(death: Death, held: Held) -> int | None:
    """The smaller one counts: a job may have been in two that died."""
    return min((each for each in (death.company, held.company) if each), default=None)


def _attempt(
    attempt: int,
    fence: Mapping[str, Any],
    death: Death,
    times: Mapping[str, Any],
    failure: Mapping[str, Any],
) -> dict[str, Any]:
    """The history of one unsuccessful run, as the statement takes it."""
    return {
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
        "stack": None if death.stack is None else first_part(death.stack, STACK_MAX),
        "said": None if death.said is None else last_part(death.said, SAID_MAX),
        **_cost(death),
    }
