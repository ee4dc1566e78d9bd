"""Sessions on connections of their own, in every order their steps can take, as PostgreSQL's
isolation tester does it; and steps that meet a transaction which is still open.

Each order starts with one job in a queue of its own. Afterwards the faults stop: who is still
running is given up, the queue is drained, and the invariants are looked at.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial

import pytest

from jobvisor.jobs.errors import IllegalMove, JobNotFound
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import FINISHED, UNFINISHED, Claimed, Job, State
from jobvisor.jobs.store import Life, Record, Store
from tests.clock import MovableClock
from tests.store.database import Database
from tests.store.making import (
    CRASH,
    GONE,
    UndoneError,
    claim,
    enqueue,
    held,
    job_in,
    life,
    new,
    record,
)

ATTEMPTS_MAX = 3


class World:
    """One job, who has claimed it, and what was answered to whom."""

    def __init__(self, doors: Sequence[Store], clock: MovableClock, queue: str) -> None:
        self.doors = dict(zip("abc", doors, strict=True))
        self.clock = clock
        self.queue = queue
        self.lives = {name: life() for name in self.doors}
        self.claims = dict.fromkeys(self.doors, 0)
        self.runs: dict[str, tuple[int, Claimed]] = {}
        self.dead: set[int] = set()
        self.acknowledged = [self.enqueue("c")]
        self.ended: list[tuple[int, State]] = []  # (job, finished state) each time one was entered
        self.accepted: set[Record] = set()
        self.successes: set[int] = set()

    def job(self, number: int) -> Job | None:
        with suppress(JobNotFound):
            return self.doors["c"].get(number)
        return None

    def step(self, session: str, word: str) -> None:
        """One step of one session, by its name."""
        act: Callable[[str], object] = getattr(self, word)
        self.noting(lambda: act(session))

    def noting(self, act: Callable[[], object]) -> None:
        """Do it, and note what it moved into a finished state."""
        before = {number: self.job(number) for number in self.acknowledged}
        act()
        for number in self.acknowledged:
            was, now = before.get(number), self.job(number)
            if now is not None and now.finished:
                if was is None or not was.finished:
                    self.ended.append((number, now.state))
                else:
                    assert now == was  # what is finished stays as it is
            if now is not None:
                assert 0 <= now.attempt <= now.attempts_max  # I4

    # -- steps

    def enqueue(self, session: str) -> int:
        ((number, created),) = self.doors[session].enqueue(
            [new(queue=self.queue, attempts_max=ATTEMPTS_MAX, unique_key=self.queue)]
        )
        known = getattr(self, "acknowledged", [])
        if created:
            # The key was free: no job that held it is unfinished.
            assert all(one.state not in UNFINISHED for one in map(self.job, known) if one)
            known.append(number)
        else:
            assert number in known
        return number

    def claim(self, session: str) -> None:
        who = self.lives[session]
        self.claims[session] += 1
        number = self.claims[session]
        holders = self.holders()
        jobs = claim(self.doors[session], who, number, limit=1, queues=[self.queue])
        for job in jobs:
            assert job.id in self.acknowledged  # I2
            assert holders.get(job.id, set()) <= self.dead  # I3
            self.runs[session] = (number, job)

    def holders(self) -> dict[int, set[int]]:
        found: dict[int, set[int]] = {}
        for number in self.acknowledged:
            job = self.job(number)
            if job is not None and job.state is State.RUNNING and job.owner is not None:
                found[number] = {job.owner}
        return found

    def succeed(self, session: str) -> None:
        self.settle(session, "succeed")

    def retry(self, session: str) -> None:
        self.settle(session, "retry", delay_ms=0)

    def fail(self, session: str) -> None:
        self.settle(session, "fail")

    def settle(self, session: str, verb: str, **values: int) -> None:
        """The record of this session's run, whatever became of its row: any number of times."""
        if session not in self.runs:
            return
        number, job = self.runs[session]
        who = self.lives[session]
        if verb == "retry" and job.attempt >= job.attempts_max:
            verb, values = "fail", {}
        entry = record(who, number, job, verb, **values)
        fenced = self.doors["c"].held(job.id, who.owner, number) is not None
        applied = self.doors[session].apply([entry], who)
        assert applied.changed == int(fenced)  # I5: the row is changed by its owner's claim alone
        assert applied.rejected == []
        if applied.changed:
            self.accepted.add(entry)
            if verb == "succeed":
                self.successes.add(job.id)
        elif entry in self.accepted:
            assert applied.lost == []
        elif self.job(job.id) is not None:
            assert applied.lost == [entry]  # said, not dropped in silence

    def rescue(self, session: str) -> None:
        """Session a is found dead, and its current job is charged."""
        who = self.lives["a"]
        self.dead.add(who.owner)
        if "a" not in self.runs:
            return
        number, job = self.runs["a"]
        row = self.doors[session].held(job.id, who.owner, number)
        if row is not None:
            delay = 0 if row.attempt < row.attempts_max else None
            self.doors[session].rescue(job.id, who.owner, row, CRASH, delay)

    def vanish(self, session: str) -> None:
        self.dead.add(self.lives["a"].owner)
        self.doors[session].vanish(self.lives["a"].owner, GONE)

    def cancel(self, session: str) -> None:
        with suppress(IllegalMove, JobNotFound):
            self.doors[session].cancel(self.acknowledged[0])

    def prune(self, session: str) -> None:
        self.clock.move(1)
        self.doors[session].prune(dict.fromkeys(FINISHED, 0), limit=100)

    # -- afterwards

    def quiesce(self) -> None:
        """The faults stop: whoever still runs is given up, and one worker drains the queue."""
        store = self.doors["c"]
        for who in self.lives.values():
            self.dead.add(who.owner)
            self.noting(partial(store.vanish, who.owner, GONE))
        last = life()
        for number in range(1, 20):
            jobs = claim(store, last, number, queues=[self.queue])
            if not jobs:
                break
            journal = [record(last, number, job) for job in jobs]
            self.noting(partial(store.apply, journal, last))
            self.successes |= {job.id for job in jobs}

    def check(self) -> None:
        store = self.doors["c"]
        assert store.find(Filter(queue=self.queue, state=State.RUNNING)) == []  # I6
        for number in self.acknowledged:
            ends = [state for one, state in self.ended if one == number]
            assert len(ends) == 1  # I1, I5: in one finished state, entered once
            job = self.job(number)
            assert job is None or job.state is ends[0]
            assert (ends[0] is State.SUCCEEDED) == (number in self.successes)
        stored = {job.id for job in store.find(Filter(queue=self.queue))}
        assert stored <= set(self.acknowledged)  # I2


def orders(sessions: dict[str, Sequence[str]]) -> Iterator[list[tuple[str, str]]]:
    """Every order of the steps that keeps each session's own."""
    if not any(sessions.values()):
        yield []
    for name, steps in sessions.items():
        if steps:
            for rest in orders({**sessions, name: steps[1:]}):
                yield [(name, steps[0]), *rest]


SCENARIOS: dict[str, dict[str, Sequence[str]]] = {
    "two claims": {"a": ["claim", "succeed"], "b": ["claim", "succeed"]},
    "claims and retries": {"a": ["claim", "retry", "claim"], "b": ["claim", "retry", "claim"]},
    "a rescue": {"a": ["claim", "succeed"], "b": ["claim", "succeed"], "c": ["rescue"]},
    "a rescue and a record brought twice": {
        "a": ["claim", "fail", "fail"],
        "b": ["claim", "retry"],
        "c": ["rescue"],
    },
    "a life given up too early": {
        "a": ["claim", "succeed"],
        "b": ["claim", "fail"],
        "c": ["vanish", "vanish"],
    },
    "a cancel": {"a": ["claim", "succeed"], "b": ["claim", "retry"], "c": ["cancel"]},
    "a cancel and a rescue": {
        "a": ["claim", "succeed"],
        "b": ["claim", "succeed"],
        "c": ["rescue", "cancel"],
    },
    "the same key": {"a": ["claim", "fail"], "b": ["enqueue", "claim"], "c": ["enqueue"]},
    "a cancel and the same key": {
        "a": ["claim", "retry"],
        "b": ["enqueue", "claim"],
        "c": ["cancel", "enqueue"],
    },
    "a prune": {"a": ["claim", "succeed"], "b": ["claim", "fail"], "c": ["prune", "prune"]},
    "a prune and the same key": {
        "a": ["claim", "succeed", "succeed"],
        "b": ["enqueue", "claim"],
        "c": ["prune"],
    },
    "everything": {
        "a": ["claim", "succeed"],
        "b": ["claim", "succeed"],
        "c": ["rescue", "enqueue", "cancel"],
    },
}


@pytest.mark.parametrize("sessions", SCENARIOS.values(), ids=SCENARIOS.keys())
def test_the_invariants_hold_in_every_order_of_the_steps(
    database: Database, sessions: dict[str, Sequence[str]]
) -> None:
    doors = [database.open() for _ in "abc"]
    for number, order in enumerate(orders(sessions)):
        world = World(doors, database.clock, f"queue-{number}")
        try:
            for session, word in order:
                world.step(session, word)
            world.quiesce()
            world.check()
        except AssertionError as error:
            error.add_note(f"in the order {order}")
            raise


def test_every_order_is_tried_once() -> None:
    tried = [tuple(order) for order in orders({"a": ["x", "y"], "b": ["z"], "c": ["w"]})]
    assert len(tried) == len(set(tried)) == 12


# -- a step that meets an open transaction


Deed = Callable[[Store], object]


def beside_an_open_transaction(
    database: Database, first: Deed, second: Deed, *, commit: bool
) -> tuple[object, object]:
    """The first deed in a transaction that stays open while another connection does the second.

    What the second answers must be as if it had come after the end of the transaction.
    """
    mine, others = database.open(), database.open()
    begun = threading.Event()
    answers: list[object] = []

    def act() -> None:
        begun.set()
        answers.append(second(others))

    thread = threading.Thread(target=act)
    answer: object = None
    with suppress(UndoneError), mine.transaction():
        answer = first(mine)
        thread.start()
        begun.wait(30)
        thread.join(0.02)  # time enough to run into the transaction, were there nothing to wait for
        if not commit:
            raise UndoneError
    thread.join(30)
    assert not thread.is_alive()
    return answer, answers[0]


COMMIT = pytest.mark.parametrize("commit", [True, False], ids=["committed", "undone"])


@COMMIT
def test_two_claims_at_once_never_share_a_job(
    database: Database, store: Store, commit: bool
) -> None:
    number = enqueue(store)
    one, two = life(), life()
    first, second = beside_an_open_transaction(
        database, lambda door: claim(door, one), lambda door: claim(door, two), commit=commit
    )
    assert [job.id for job in first] == [number]  # type: ignore[attr-defined]
    if commit:
        assert second == []
        assert store.get(number).owner == one.owner
    else:
        assert store.get(number).owner in (None, two.owner)
        assert store.get(number).attempt == len(second)  # type: ignore[arg-type]


@COMMIT
def test_two_enqueues_of_one_key_at_once_are_one_job(
    database: Database, store: Store, commit: bool
) -> None:
    def deed(door: Store) -> tuple[int, bool]:
        return door.enqueue([new(unique_key="key")])[0]

    first, second = beside_an_open_transaction(database, deed, deed, commit=commit)
    (job,) = store.find()
    assert second == (job.id, not commit)
    assert first == (job.id, True) or not commit


def running_in(store: Store) -> tuple[Life, Claimed]:
    enqueue(store)
    who = life()
    (job,) = claim(store, who)
    return who, job


@COMMIT
def test_a_success_and_a_rescue_at_once_end_the_run_once(
    database: Database, store: Store, commit: bool
) -> None:
    who, job = running_in(store)
    row = held(store, job.id, who)
    beside_an_open_transaction(
        database,
        lambda door: door.apply([record(who, 1, job)], who),
        lambda door: door.rescue(job.id, who.owner, row, CRASH, 0),
        commit=commit,
    )
    assert store.get(job.id).state is (State.SUCCEEDED if commit else State.PENDING)
    assert len(store.attempts(job.id)) == (0 if commit else 1)


@COMMIT
def test_a_rescue_and_a_success_at_once_end_the_run_once(
    database: Database, store: Store, commit: bool
) -> None:
    who, job = running_in(store)
    row = held(store, job.id, who)
    late = record(who, 1, job)
    _, applied = beside_an_open_transaction(
        database,
        lambda door: door.rescue(job.id, who.owner, row, CRASH, 0),
        lambda door: door.apply([late], who),
        commit=commit,
    )
    assert store.get(job.id).state is (State.PENDING if commit else State.SUCCEEDED)
    assert applied == ((0, [late], []) if commit else (1, [], []))


@COMMIT
def test_a_cancel_and_a_claim_at_once_never_lose_the_cancel(
    database: Database, store: Store, commit: bool
) -> None:
    number = enqueue(store)
    who = life()
    _, jobs = beside_an_open_transaction(
        database,
        lambda door: door.cancel(number),
        lambda door: claim(door, who),
        commit=commit,
    )
    if commit:
        assert (jobs, store.get(number).state) == ([], State.CANCELLED)
    else:
        assert not store.get(number).cancel_requested


@COMMIT
def test_a_claim_and_a_cancel_at_once_never_lose_the_cancel(
    database: Database, store: Store, commit: bool
) -> None:
    number = enqueue(store)
    who = life()
    _, answer = beside_an_open_transaction(
        database, lambda door: claim(door, who), lambda door: door.cancel(number), commit=commit
    )
    row = store.get(number)
    assert answer == ("requested" if commit else "cancelled")
    assert (row.state, row.cancel_requested) == (
        State.RUNNING if commit else State.CANCELLED,
        True,
    )


@COMMIT
def test_a_requeue_and_a_prune_at_once_keep_the_requeued_job(
    database: Database, store: Store, commit: bool
) -> None:
    number = job_in(store, State.FAILED)
    database.clock.move(1_000)
    _, gone = beside_an_open_transaction(
        database,
        lambda door: door.requeue(number),
        lambda door: door.prune({State.FAILED: 0}, limit=9),
        commit=commit,
    )
    # A server's row that somebody has is left for the next time.
    assert gone in ((0,) if commit else (0, 1))
    assert store.prune({State.FAILED: 0}, limit=9) == int(not commit and gone == 0)
    assert [job.id for job in store.find()] == ([number] if commit else [])


@COMMIT
def test_one_record_brought_by_two_at_once_is_applied_once(
    database: Database, store: Store, commit: bool
) -> None:
    who, job = running_in(store)
    journal = [record(who, 1, job)]
    _, applied = beside_an_open_transaction(
        database,
        lambda door: door.apply(journal, who),
        lambda door: door.apply(journal, life()),
        commit=commit,
    )
    assert applied == ((0, [], []) if commit else (1, [], []))
    assert store.get(job.id).state is State.SUCCEEDED
