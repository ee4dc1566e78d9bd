"""What one child counts into its block: each run that ended, each turn, each death that it settled.

A run is noted when it ends and counted with all others of its turn in one pass, since to count by itself
each run of a job that does nothing would cost more than the rest of its bookkeeping.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import TypeVar

from jobvisor.jobs.events import Event
from jobvisor.jobs.job import Claimed, Job
from jobvisor.jobs.outcome import Outcome
from jobvisor.jobs.store import Record
from jobvisor.supervisor.autopsy.cost import SHORT_NS
from jobvisor.supervisor.counting.counters import Block, Pair
from jobvisor.supervisor.counting.layout import (
    BEFORE,
    BEFORE_OF,
    CLAIMED,
    COUNTED,
    COUNTED_OF,
    CPU_NS,
    DEATH_CAUSES,
    DEATHS_AT,
    ERRORS,
    LOST,
    OUTCOMES,
    OUTCOMES_AT,
    PAIR_WORDS,
    PAIRS_AT,
    RECALLED,
    RECALLS,
    RESCUE_BOUNDS_MS,
    RESCUE_MS,
    RESCUES_AT,
    RUN_BOUNDS_NS,
    RUN_NS,
    RUNS_AT,
    SUCCEED,
    TURN_BOUNDS,
    TURNS,
    TURNS_AT,
    WAIT_BOUNDS_MS,
    WAIT_MS,
    WAITS_AT,
)
from jobvisor.supervisor.ledger.ledger import Entry

# To ask all jobs of a claim for how long they waited was a third of what counting cost.
ASKED_OF, ASKED_EACH = 64, 8
KNOWN_MAX = 10_000  # names that are remembered: they come from rows, so there may be any number

_task, _queue = (itemgetter(Claimed._fields.index(name)) for name in ("task", "queue"))
_waited = itemgetter(Claimed._fields.index("waited_ms"))
_verb, _took, _cpu = (
    itemgetter(Entry._fields.index(name)) for name in ("verb", "took_ns", "cpu_ms")
)

Value = TypeVar("Value")

Ended = tuple[Claimed, Entry]
"""A run that has ended, and how."""

#: By the verb of an event: how a run ended that ended with its process.
_OF_VERB = {"rescue": "retried", "fail": "failed", "release": "released", "cancel": "cancelled"}


class Tally:
    """The writer of one block."""

    def __init__(
        self, block: Block, owner: int, knows: Callable[[str], object] = lambda _task: True
    ) -> None:
        """`owner` is the life that counts; what lives before it had counted in this place stays.

        `knows` says whether there is a task of this name: others are not counted by their names.
        """
        self._block = block
        self._knows = knows
        self._words = block.words
        self._rows: dict[Pair, int] = {
            pair: PAIRS_AT + row * PAIR_WORDS for row, pair in enumerate(block.pairs(), 1)
        }
        self._ended: list[Ended] = []
        # Of the last claim: its row where it has one, else each job's; not the jobs themselves, because their
        # memory is for those of the next claim (0.4 us a job, measured).
        self._row_of_all = 0
        self._claimed: list[tuple[int, int]] = []
        self._done = 0  # how many of them are counted
        # The life before may not be settled yet. Its claim first, and ours: in between they are nobody's.
        words = self._words
        words[BEFORE_OF], words[BEFORE] = 0, words[COUNTED]
        words[BEFORE_OF] = words[COUNTED_OF]
        words[COUNTED_OF], words[COUNTED] = 0, 0
        words[COUNTED_OF] = owner

    # -- runs

    def noting(
        self, recorded: Callable[[Claimed, Entry, Outcome], None]
    ) -> Callable[[Claimed, Entry, Outcome], None]:
        """The same, that also notes each run to be counted; called from any thread of several lanes."""
        note = self._ended.append

        def noted(job: Claimed, entry: Entry, outcome: Outcome) -> None:
            note((job, entry))
            recorded(job, entry, outcome)

        return noted

    def count_noted(self, claim: int) -> None:
        """Count what was noted since the last time; what runs of the claims up to this one comes later."""
        self._words[COUNTED] = claim
        ended = self._ended
        number = len(ended)
        if number:
            each = ended[:number]
            del ended[:number]  # threads may have noted more since
            self.count_runs(each)

    def count_claimed(self, entries: Sequence[Entry], claim: int) -> None:
        """Count these runs of the jobs that the last turn claimed, by one lane in their order.

        None of the claims up to this one runs any more. A kill in here loses some of the count: said first,
        so that who settles this life counts none of it again.
        """
        self._words[COUNTED] = claim
        if entries and self._row_of_all:
            self._count(self._row_of_all, entries)
        elif entries:
            for row, some in _grouped(self._rows_of(entries), entries).items():
                self._count(row, some)

    def _rows_of(self, entries: Sequence[Entry]) -> list[int]:
        """The rows of several pairs, for each of these runs."""
        claimed, at = self._claimed, self._done
        self._done = last = at + len(entries)
        if last <= len(claimed) and all(
            claimed[each][0] == entry.job for each, entry in enumerate(entries, at)
        ):
            return [row for _, row in claimed[at:last]]
        known = dict(claimed)  # one of them was too large for the ledger, and has been counted
        return [known.get(entry.job, PAIRS_AT) for entry in entries]

    def count_runs(self, ended: Sequence[Ended]) -> None:
        """Count these runs, in one pass for each pair."""
        jobs, entries = zip(*ended, strict=True)
        for row, some in _grouped(self._rows_for(jobs), entries).items():
            self._count(row, some)

    def count_records(self, ended: Iterable[tuple[Job, Record]]) -> None:
        """The same of what a dead worker had recorded, each with its job."""
        for job, told in ended:
            cpu_ms = -1 if told.cpu_ms is None else told.cpu_ms
            entry = Entry(
                told.claim, told.job, told.attempt, told.verb, 0, told.duration_ms, told.delay_ms, b"",
                cpu_ms=cpu_ms, took_ns=told.duration_ms * 1_000_000,
            )  # fmt: skip
            self._count(self._row((job.task, job.queue)), [entry])

    def _count(self, row: int, entries: Sequence[Entry]) -> None:
        words = self._words
        verbs = list(map(_verb, entries))
        succeeded = verbs.count(SUCCEED)
        words[row + OUTCOMES_AT] += succeeded
        if succeeded < len(verbs):
            for verb in verbs:
                if verb != SUCCEED and 0 < verb <= len(OUTCOMES):
                    words[row + OUTCOMES_AT + verb - 1] += 1
        took = list(map(_took, entries))
        longest = max(took)
        self._fill(row + RUNS_AT, took, longest, RUN_BOUNDS_NS)
        used = sum(took)
        words[row + RUN_NS] += used
        if longest >= SHORT_NS:
            # A short run is not measured: it is taken to have computed all the time.
            used = sum(each for each in took if each < SHORT_NS)
            used += sum(cpu for cpu in map(_cpu, entries) if cpu > 0) * 1_000_000
        words[row + CPU_NS] += used

    def _fill(
        self, at: int, values: list[int], greatest: int, bounds: tuple[int, ...], each: int = 1
    ) -> None:
        """Into the buckets, the values, each so many times."""
        words = self._words
        last = bisect_left(bounds, greatest)
        if not last or bisect_left(bounds, min(values)) == last:
            # As in most batches: a sort would be half of what counting costs.
            words[at + last] += len(values) * each
            return
        values.sort()
        done = 0
        for number in range(last):
            until = bisect_right(values, bounds[number], done)
            if until > done:
                words[at + number] += (until - done) * each
                done = until
        words[at + last] += (len(values) - done) * each

    def _rows_for(self, jobs: Sequence[Claimed]) -> list[int]:
        return [self._row(pair) for pair in zip(map(_task, jobs), map(_queue, jobs), strict=True)]

    def _row(self, pair: Pair) -> int:
        row = self._rows.get(pair)
        if row is None:
            entered = self._block.enter(pair) if self._knows(pair[0]) else 0
            row = PAIRS_AT + entered * PAIR_WORDS
            if len(self._rows) < KNOWN_MAX:
                self._rows[pair] = row
        return row

    # -- turns

    def turned(self, jobs: Sequence[Claimed], lost: int) -> None:
        """A turn is committed: what it claimed, and how many outcomes came too late."""
        words = self._words
        words[TURNS] += 1
        if lost:
            words[LOST] += lost
        self._row_of_all, self._claimed, self._done = 0, [], 0
        if not jobs:
            return
        words[CLAIMED] += len(jobs)
        words[TURNS_AT + bisect_left(TURN_BOUNDS, len(jobs))] += 1
        pair = _pair_of(jobs)
        if pair is not None:
            self._row_of_all = self._row(pair)
            self._count_waits(self._row_of_all, jobs)
            return
        rows = self._rows_for(jobs)
        self._claimed = [(job.id, row) for job, row in zip(jobs, rows, strict=True)]
        for row, some in _grouped(rows, jobs).items():
            self._count_waits(row, some)

    def _count_waits(self, row: int, jobs: Sequence[Claimed]) -> None:
        """Of many jobs some are asked, of which each stands for as many as there are for it."""
        asked = jobs if len(jobs) < ASKED_OF else jobs[::ASKED_EACH]
        known = [ms for ms in map(_waited, asked) if ms is not None]
        if len(known) < len(asked):  # a server tells it of some
            known = [ms for ms in map(_waited, jobs) if ms is not None]
        if not known:
            return
        each, over = divmod(len(jobs), len(known))
        if min(known) < 0:
            known = [max(0, ms) for ms in known]  # a clock was set back
        self._words[row + WAIT_MS] += sum(known) * each + sum(known[:over])
        at = row + WAITS_AT
        if over:
            self._fill(at, known[:over], max(known[:over]), WAIT_BOUNDS_MS)
        self._fill(at, known, max(known), WAIT_BOUNDS_MS, each)

    def lost(self, number: int) -> None:
        """So many outcomes came too late: their jobs were another's by then."""
        self._words[LOST] += number

    def failed(self) -> None:
        """The database could not be used."""
        self._words[ERRORS] += 1

    # -- what a caretaker does

    @staticmethod
    def hears(verb: str) -> bool:
        """Whether `hear` may do anything with an event of this verb."""
        return verb in _OF_VERB

    def hear(self, event: Event) -> None:
        """A run that has ended with its process, as the store tells of it."""
        if event.kind not in DEATH_CAUSES or event.verb not in _OF_VERB:
            return
        row = self._row((event.task, event.queue))
        self._words[row + DEATHS_AT + DEATH_CAUSES.index(event.kind)] += 1
        self._words[row + OUTCOMES_AT + OUTCOMES.index(_OF_VERB[event.verb])] += 1

    def rescued(self, after_ms: int) -> None:
        """A dead worker was settled, so long after its death."""
        self._words[RESCUES_AT + bisect_left(RESCUE_BOUNDS_MS, after_ms)] += 1
        self._words[RESCUE_MS] += after_ms

    def recalled(self, jobs: int) -> None:
        """A claim was taken back, of which so many jobs had not begun."""
        self._words[RECALLS] += 1
        self._words[RECALLED] += jobs


def _pair_of(jobs: Sequence[Claimed]) -> Pair | None:
    """That of all of them, as in most batches; None where there are several."""
    task, queue = jobs[0].task, jobs[0].queue
    number = len(jobs)
    same = number == 1 or (
        list(map(_task, jobs)).count(task) == number
        and list(map(_queue, jobs)).count(queue) == number
    )
    return (task, queue) if same else None


def _grouped(rows: Sequence[int], of: Sequence[Value]) -> dict[int, list[Value]]:
    """What belongs to these rows, by the row."""
    found: dict[int, list[Value]] = {}
    for row, each in zip(rows, of, strict=True):
        found.setdefault(row, []).append(each)
    return found
