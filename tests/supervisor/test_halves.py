"""Two half journals: lanes record while a turn commits, and nothing is lost whatever becomes of the turn."""

from __future__ import annotations

import os
import tempfile
import threading
from collections import deque
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.identity import boot_id
from jobvisor.jobs.job import Claimed, State
from jobvisor.jobs.outcome import VERB_CODES
from jobvisor.jobs.store import Life, Rest, Store, open_store
from jobvisor.supervisor.board import VERDICT_CODES, Grave, Running
from jobvisor.supervisor.deaths.guilt import seen
from jobvisor.supervisor.deaths.settle import recall, settle
from jobvisor.supervisor.ledger.evidence import Read, read_ledger_of
from jobvisor.supervisor.ledger.halves import HalvedLedger
from jobvisor.supervisor.ledger.layout import HALF_BYTES, INLINE
from jobvisor.supervisor.ledger.ledger import Entry, Header, Journal
from jobvisor.supervisor.roster import WORKER
from tests.store.making import ended, enqueue, life
from tests.waiting import eventually

LANES = 3
owners = count(1)


def made(folder: Path, owner: int = 11, lanes: int = LANES) -> HalvedLedger:
    header = Header(owner, os.getpid(), 1, 1, 1, boot_id(), "database", "here", lanes)
    return HalvedLedger(str(folder), header)


def entry(job: int, body: bytes = b"", claim: int = 1) -> Entry:
    return Entry(claim, job, 1, 1, SYSTEM.boottime_ns(), 5, 0, body)


def found(folder: Path, owner: int = 11) -> Read:
    told = read_ledger_of(str(folder), owner)
    assert told is not None
    return told


def kept(folder: Path) -> list[int]:
    """The jobs whose records another process reads."""
    return sorted(record.job for record in found(folder).records)


def taken(journal: Journal) -> list[int]:
    return [record.job for record in journal.records]


def test_what_is_recorded_while_a_turn_commits_is_kept(tmp_path: Path) -> None:
    ledger = made(tmp_path)
    for turn in range(5):  # each half is used again
        first, second = 10 * turn + 1, 10 * turn + 2
        assert ledger.record(entry(first))
        before = [] if turn == 0 else [first - 9]
        journal = ledger.journal()
        assert taken(journal) == [*before, first]
        assert ledger.record(entry(second))
        assert kept(tmp_path) == [*before, first, second]
        ledger.settled(journal)
        assert kept(tmp_path) == [second]
    ledger.close()


def test_a_turn_that_failed_is_followed_by_one_with_the_same_records(tmp_path: Path) -> None:
    ledger = made(tmp_path)
    ledger.record(entry(1))
    assert taken(ledger.journal()) == [1]
    ledger.record(entry(2))
    journal = ledger.journal()
    assert taken(journal) == [1]
    assert (taken(ledger.whole()), kept(tmp_path)) == ([1, 2], [1, 2])
    ledger.settled(journal)
    journal = ledger.journal()
    assert taken(journal) == [2]
    ledger.settled(journal)
    assert (taken(ledger.whole()), kept(tmp_path)) == ([], [])
    ledger.settled(ledger.journal())  # of nothing
    ledger.record(entry(3))
    assert kept(tmp_path) == [3]
    ledger.close()


def test_a_record_that_has_no_room_is_refused_until_a_turn_has_opened_the_other_half(
    tmp_path: Path,
) -> None:
    ledger = made(tmp_path)
    largest = b"x" * INLINE
    jobs = iter(range(1, 1000))
    while ledger.record(entry(next(jobs), largest)):
        pass
    written = len(kept(tmp_path))
    assert written == HALF_BYTES // INLINE - 1
    assert ledger.record(entry(500))  # a small one has
    journal = ledger.journal()
    assert ledger.record(entry(999, largest))
    assert kept(tmp_path) == [*range(1, written + 1), 500, 999]
    ledger.settled(journal)
    assert kept(tmp_path) == [999]
    ledger.close()


def test_a_spare_of_another_life_shows_nothing_in_either_half(tmp_path: Path) -> None:
    before = made(tmp_path, 12)
    for job in (1, 2):
        before.record(entry(job))
        before.journal()
    before.retire()
    after = made(tmp_path)
    assert (kept(tmp_path), found(tmp_path).running) == ([], ())
    after.close()


def test_threads_that_record_at_once_lose_nothing_while_turns_come_and_go(tmp_path: Path) -> None:
    lanes, each = 8, 400
    ledger = made(tmp_path, lanes=lanes)

    def run(lane: int) -> None:
        for number in range(each):
            one = entry(lane * each + number + 1, b"x" * (number % 50 * 40))
            eventually(lambda one=one: ledger.record(one), what="there is room")  # type: ignore[misc]

    threads = [threading.Thread(target=run, args=(lane,)) for lane in range(lanes)]
    for thread in threads:
        thread.start()
    settled: list[int] = []
    while len(settled) < lanes * each:
        journal = ledger.journal()
        read = [(record.job, record.body) for record in found(tmp_path).records]
        told = [(record.job, record.body) for record in journal.records]
        assert set(told) <= set(read)
        settled += taken(journal)
        ledger.settled(journal)
    for thread in threads:
        thread.join()
    assert sorted(settled) == list(range(1, lanes * each + 1))
    ledger.close()


VERBS = ("succeed", "fail", "retry", "snooze", "release")
WANTED = {
    "succeed": State.SUCCEEDED, "fail": State.FAILED,
    "retry": State.PENDING, "snooze": State.PENDING, "release": State.PENDING,
}  # fmt: skip


class Worker(RuleBasedStateMachine):
    """A worker with several lanes, what it writes into its ledger, and its death at any step.

    The rows are held against what the worker has recorded: an outcome that was recorded is never lost and
    never applied to another run, whatever became of the turns in between.
    """

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name)
        self.store: Store = open_store("memory://")
        self.ids: list[int] = []
        #: Of each job the last run that was recorded: its claim and verb; and which run is the latest.
        self.recorded: dict[int, tuple[int, int, str]] = {}
        self.runs: dict[int, tuple[int, int]] = {}
        self.enter()

    def enter(self) -> None:
        self.who: Life = life()
        self.ledger = made(self.path, self.who.owner)
        self.claim = 0
        self.backlog: deque[tuple[int, Claimed]] = deque()
        self.lanes: list[tuple[int, Claimed] | None] = [None] * LANES
        self.written = [False] * LANES
        self.lost: list[int] = []
        self.recalled = 0
        self.registered = False

    # -- the application

    @rule(number=st.integers(1, 4))
    def enqueue(self, number: int) -> None:
        self.ids += [enqueue(self.store) for _ in range(number)]

    # -- the conductor

    @rule(limit=st.integers(0, 4), answered=st.booleans())
    def turn(self, limit: int, answered: bool) -> None:
        """One that commits; where its answer is lost nothing of it is known here."""
        self.claim += 1
        journal = self.ledger.journal()
        turn = self.store.turn(
            self.who, self.claim, queues=["default"], limit=limit, journal=journal.records,
            rest=Rest(tuple(self.lost)) if self.lost else None, register=not self.registered,
        )  # fmt: skip
        assert not turn.applied.rejected
        if not answered:
            self.lost.append(self.claim)
            return
        self.registered = True
        self.lost.clear()
        self.ledger.settled(journal)
        self.ledger.claimed(self.claim)
        for job in turn.jobs:
            self.runs[job.id] = (self.who.owner, self.claim)
            self.backlog.append((self.claim, job))

    @rule()
    def refused_turn(self) -> None:
        """One that never reached the database."""
        self.claim += 1
        self.ledger.journal()

    # -- the lanes

    @rule(lane=st.integers(0, LANES - 1))
    def start(self, lane: int) -> None:
        if self.lanes[lane] is not None or not self.backlog:
            return
        claim, job = self.backlog.popleft()
        sheet = self.ledger.sheets[lane]
        sheet.claimed(claim)
        sheet.publish(job.id, 0)
        if claim <= self.recalled:  # the look
            sheet.withdraw()
            return
        self.lanes[lane] = (claim, job)

    @rule(lane=st.integers(0, LANES - 1), verb=st.sampled_from(VERBS), size=st.integers(0, 3000))
    def record(self, lane: int, verb: str, size: int) -> None:
        run = self.lanes[lane]
        if run is None or self.written[lane]:
            return
        claim, job = run
        values = {"delay_ms": 0} if verb in ("retry", "snooze") else {}
        outcome = ended(verb, **values)
        body = b'"%s"' % (b"x" * size) if verb == "succeed" and size else outcome.body()
        told = Entry(claim, job.id, job.attempt, VERB_CODES[verb], SYSTEM.boottime_ns(), 5, 0, body)
        assert self.ledger.record(told)
        self.written[lane] = True
        self.recorded[job.id] = (self.who.owner, claim, verb)

    @rule(lane=st.integers(0, LANES - 1))
    def withdraw(self, lane: int) -> None:
        if self.written[lane]:
            self.ledger.sheets[lane].withdraw()
            self.lanes[lane], self.written[lane] = None, False

    # -- the caretaker

    @precondition(lambda self: self.claim > 0)
    @rule(back=st.integers(0, 2))
    def recall(self, back: int) -> None:
        """As behind a long job: what has not begun goes back."""
        read = found(self.path, self.who.owner)
        claim = read.header.claim - back
        self.recalled = max(self.recalled, claim)
        recall(self.store, self.who, read, claim, forget=False)

    @rule(verdict=st.sampled_from(["", "timeout", "stop"]), named=st.integers(0, LANES - 1))
    def die(self, verdict: str, named: int) -> None:
        """And be settled, twice."""
        read = found(self.path, self.who.owner)
        before = {number: self.store.get(number) for number in self.ids}
        running = {(run.job, run.claim) for run in read.running}
        blamed = next((run for run in read.running if run.lane == named), Running(0, 0))
        grave = Grave(
            self.who.owner, 1, 1, -9, blamed.job, blamed.claim, VERDICT_CODES[verdict], 0, 0, 0,
            WORKER.number,
        )  # fmt: skip
        for _ in range(2):
            settle(
                self.store,
                self.who,
                read.records,
                read.running,
                seen(grave, oom=False),
                forget=False,
            )
        for number, row in before.items():
            mine = self.runs.get(number) == (row.owner, row.claim) and row.owner == self.who.owner
            if row.state is not State.RUNNING or not mine or self.is_recorded(number):
                continue
            after = self.store.get(number)
            recorded = {(record.job, record.claim) for record in read.records}
            company = [run for run in read.running if (run.job, run.claim) not in recorded]
            alone = len(company) == 1 and not verdict
            ran = (number, row.claim) in running
            pays = ran and (alone or (verdict == "timeout" and (number, row.claim) == blamed[:2]))
            history = [
                a
                for a in self.store.attempts(number)
                if a.claim == row.claim and a.owner == row.owner
            ]
            assert after.attempt == row.attempt - (not pays)
            assert [a.outcome == "stopped" for a in history] == ([not pays] if ran else [])
        assert self.store.owners(self.who.family) == []
        assert self.store.running() == 0
        self.check_recorded()
        self.ledger.close()
        self.enter()

    def is_recorded(self, number: int) -> bool:
        return self.recorded.get(number, ())[:2] == self.runs.get(number)

    def check_recorded(self) -> None:
        """After a settling: the last run of a job that was recorded ended as its record says."""
        for number, (owner, claim, verb) in self.recorded.items():
            if self.runs[number] == (owner, claim):
                state = self.store.get(number).state
                wanted = WANTED[verb]
                assert state is wanted or (wanted is State.PENDING and state is State.SCHEDULED)

    @invariant()
    def what_is_recorded_can_be_read_or_is_settled(self) -> None:
        read = {(record.claim, record.job) for record in found(self.path, self.who.owner).records}
        for number, (owner, claim, verb) in self.recorded.items():
            if owner == self.who.owner and self.runs[number] == (owner, claim):
                row = self.store.get(number)
                assert (
                    (claim, number) in read
                    or (row.owner, row.claim) != (owner, claim)
                    or (row.state is not State.RUNNING)
                ), verb

    def teardown(self) -> None:
        self.ledger.close()
        self.store.close()
        self.folder.cleanup()


@pytest.mark.timeout(300)
def test_a_worker_with_several_lanes_loses_no_outcome_and_charges_whom_it_should() -> None:
    run_state_machine_as_test(
        Worker,
        settings=settings(
            max_examples=int(os.environ.get("JOBVISOR_TEST_EXAMPLES", "40")), stateful_step_count=40,
            deadline=None, suppress_health_check=[HealthCheck.too_slow],
        ),
    )  # fmt: skip
