"""Who follows is told of every job that changes, in every store, and costs nothing while nobody does."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable
from typing import NamedTuple

import pytest

from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.job import State
from jobvisor.jobs.store import Life, Store
from jobvisor.jobs.store.audience import TOLD_MOST
from jobvisor.jobs.store.base import Rest
from jobvisor.jobs.store.feed import KEPT, KEPT_MS, Changes, Cursor
from jobvisor.jobs.store.following import Following
from tests.clock import MovableClock
from tests.store.database import Database
from tests.store.making import (
    CRASH,
    GONE,
    STOPPED,
    claim,
    enqueue,
    held,
    job_in,
    life,
    new,
    record,
    running,
    undone,
)
from tests.store.processes import in_a_copy

FOLLOWED = 30  # seconds


class Follower:
    """Somebody who looks again and again; each look is told from where the last one ended."""

    def __init__(self, store: Store, seconds: float = FOLLOWED) -> None:
        self.store = store
        self.cursor: Cursor = store.follow(seconds)

    def look(self, **values: int) -> Changes:
        told = self.store.changes(self.cursor, **values)
        self.cursor = told.cursor
        return told

    def jobs(self) -> list[int]:
        """The ids of a look in which nothing is missing."""
        told = self.look()
        assert told.is_complete
        return sorted(told.jobs)


def written(database: Database) -> int:
    """How many changes were told; a beginning is not one."""
    return int(database.sql("SELECT count(*) FROM changes WHERE jobs IS NOT NULL")[0][0])


class Prepared(NamedTuple):
    """A deed on jobs that were there before: what it is to tell of, and the deed."""

    jobs: Iterable[int]
    deed: Callable[[], object]


def settles(verb: str) -> Callable[[Store, MovableClock], Prepared]:
    def prepare(store: Store, _clock: MovableClock) -> Prepared:
        who, job = running(store)
        return Prepared([job.id], lambda: store.apply([record(who, 1, job, verb)], who))

    return prepare


def turns(verb: str) -> Callable[[Store, MovableClock], Prepared]:
    """The turn of a worker that settles a run and claims the next job."""

    def prepare(store: Store, _clock: MovableClock) -> Prepared:
        who, job = running(store)
        number = enqueue(store)
        journal = [record(who, 1, job, verb)]

        def deed() -> None:
            turn = store.turn(who, 2, queues=["default"], limit=1, journal=journal)
            assert turn.applied.changed == 1
            assert len(turn.jobs) == 1

        return Prepared([job.id, number], deed)

    return prepare


def moves(
    state: State, act: Callable[[Store, int], object]
) -> Callable[[Store, MovableClock], Prepared]:
    def prepare(store: Store, _clock: MovableClock) -> Prepared:
        number = job_in(store, state)
        return Prepared([number], lambda: act(store, number))

    return prepare


def claims(store: Store, _clock: MovableClock) -> Prepared:
    number = enqueue(store)
    return Prepared([number], lambda: claim(store, life()))


def claims_of_two_queues(store: Store, _clock: MovableClock) -> Prepared:
    numbers = [enqueue(store, queue="a"), enqueue(store, queue="b")]
    return Prepared(numbers, lambda: claim(store, life(), queues=["a", "b"]))


def due(store: Store, clock: MovableClock) -> int:
    number = enqueue(store, run_in_ms=5_000, queue="elsewhere")
    clock.move(6_000)
    return number


def promotes(store: Store, clock: MovableClock) -> Prepared:
    return Prepared([due(store, clock)], store.promote)


def promotes_in_a_turn(store: Store, clock: MovableClock) -> Prepared:
    return Prepared([due(store, clock)], lambda: claim(store, life()))


def of_a_run(
    act: Callable[[Store, int, Life], object],
) -> Callable[[Store, MovableClock], Prepared]:
    def prepare(store: Store, _clock: MovableClock) -> Prepared:
        who, job = running(store)
        return Prepared([job.id], lambda: act(store, job.id, who))

    return prepare


def releases_in_a_turn(store: Store, job: int, who: Life) -> None:
    del job
    store.turn(who, 2, queues=["elsewhere"], limit=1, rest=Rest((1,)))


PRUNED = dict.fromkeys((State.SUCCEEDED, State.FAILED, State.CANCELLED), 0)

DEEDS: dict[str, Callable[[Store, MovableClock], Prepared]] = {
    **{verb: settles(verb) for verb in ("succeed", "fail", "retry", "snooze", "cancel", "release")},
    **{f"a turn that would {verb}": turns(verb) for verb in ("succeed", "fail", "retry")},
    "claim": claims,
    "claim of two queues": claims_of_two_queues,
    "promote": promotes,
    "promote in a turn": promotes_in_a_turn,
    "progress": of_a_run(lambda store, job, who: store.progress(job, who.owner, 1, "{}")),
    "request_cancel": moves(State.RUNNING, lambda store, job: store.cancel(job)),
    "cancel at once": moves(State.PENDING, lambda store, job: store.cancel(job)),
    "requeue": moves(State.FAILED, lambda store, job: store.requeue(job)),
    "block": moves(State.PENDING, lambda store, job: store.block(job)),
    "unblock": moves(State.BLOCKED, lambda store, job: store.unblock(job)),
    "prune": moves(State.SUCCEEDED, lambda store, _job: store.prune(PRUNED, limit=5)),
    "release_rest": of_a_run(lambda store, _job, who: store.release_rest(who.owner)),
    "release in a turn": of_a_run(releases_in_a_turn),
    "rescue": of_a_run(
        lambda store, job, who: store.rescue(job, who.owner, held(store, job, who), CRASH, 0)
    ),
    "give_back": of_a_run(
        lambda store, job, who: store.give_back(job, who.owner, held(store, job, who), STOPPED)
    ),
    "vanish": of_a_run(lambda store, _job, who: store.vanish(who.owner, GONE)),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_a_verb_has_changed_is_told_to_who_follows(
    store: Store, clock: MovableClock, deed: str
) -> None:
    prepared = DEEDS[deed](store, clock)
    follower = Follower(store)
    clock.move(1_001)
    prepared.deed()
    assert follower.jobs() == sorted(prepared.jobs)
    assert follower.jobs() == []


def test_what_is_not_kept_when_it_has_succeeded_is_told_too(
    store: Store, clock: MovableClock
) -> None:
    who, job = running(store)
    follower = Follower(store)
    clock.move(1_001)
    store.turn(
        who, 2, queues=["default"], limit=1, journal=[record(who, 1, job)], forget_succeeded=True
    )
    assert follower.jobs() == [job.id]


@pytest.mark.parametrize("deed", DEEDS)
def test_nothing_is_written_while_nobody_follows(
    database: Database, store: Store, clock: MovableClock, deed: str
) -> None:
    DEEDS[deed](store, clock).deed()
    assert written(database) == 0


def test_nothing_is_written_once_nobody_follows_any_more(
    database: Database, store: Store, clock: MovableClock
) -> None:
    Follower(store)
    clock.move(1_001)
    job_in(store, State.RUNNING)
    before = written(database)
    assert before > 0
    clock.move(FOLLOWED * 1_000)
    job_in(store, State.FAILED)
    assert written(database) == before


def test_who_heard_that_nobody_follows_tells_again_a_second_later(
    database: Database, store: Store, clock: MovableClock
) -> None:
    worker = database.open()
    who, job = running(worker)
    follower = Follower(store)
    clock.move(1_001)
    worker.apply([record(who, 1, job)], who)
    assert follower.jobs() == [job.id]


def test_one_who_follows_for_less_ends_no_longer_following(
    store: Store, clock: MovableClock
) -> None:
    store.follow(3_600)
    follower = Follower(store)
    clock.move(3_000_000)
    number = job_in(store, State.RUNNING)
    assert follower.jobs() == [number]


def test_a_time_to_follow_that_a_clock_set_back_has_left_does_not_last(
    database: Database, store: Store, clock: MovableClock
) -> None:
    clock.move(40_000_000)
    store.follow(3_600)
    clock.move(-40_000_000)
    job_in(store, State.RUNNING)
    assert written(database) == 0


@pytest.mark.parametrize("seconds", [0, -1, 3_601, float("nan")])
def test_nobody_can_follow_for_ever(store: Store, seconds: float) -> None:
    with pytest.raises(InvalidOption, match=r"must be 1 to 3600"):
        store.follow(seconds)


def test_new_jobs_are_told_though_who_enqueues_writes_nothing(
    database: Database, store: Store
) -> None:
    follower = Follower(store)
    made = [number for number, _created in store.enqueue([new(), new(), new(run_in_ms=9_000)])]
    made.append(store.enqueue_one(new()).id)
    assert follower.jobs() == made
    assert written(database) == 0


def test_a_strangers_insert_is_told_and_what_he_changes_is_not(
    database: Database, store: Store
) -> None:
    follower = Follower(store)
    database.sql("INSERT INTO jobs (task) VALUES ('app:f')")
    (number,) = follower.jobs()
    database.sql("UPDATE jobs SET priority = 7")
    assert follower.jobs() == []
    assert claim(store, life())[0].id == number
    assert follower.jobs() == [number]


def test_a_strangers_running_row_is_told_when_it_is_given_an_owner(
    database: Database, store: Store, clock: MovableClock
) -> None:
    _who, job = running(store)
    follower = Follower(store)
    clock.move(1_001)
    database.sql("UPDATE jobs SET owner = NULL")
    assert store.ownerless(0) == [0]
    assert follower.jobs() == [job.id]


def test_a_change_that_is_undone_is_not_told(store: Store) -> None:
    number = enqueue(store)
    follower = Follower(store)
    with undone(store):
        store.cancel(number)
    assert follower.jobs() == []
    store.cancel(number)
    assert follower.jobs() == [number]


def test_what_a_process_changed_that_died_before_its_commit_is_not_told(
    database: Database, store: Store
) -> None:
    if database.alone:
        pytest.skip("one connection is all there is")
    number = enqueue(store)
    follower = Follower(store)

    def change_and_die() -> None:
        other = database.open()
        assert isinstance(other, Following)
        with other.transaction():
            other.cancel(number)
            other._tell_changes()
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_copy(change_and_die) == ""
    assert follower.jobs() == []
    assert store.cancel(number) == "cancelled"
    assert follower.jobs() == [number]


def test_a_transaction_is_told_as_one_change(database: Database, store: Store) -> None:
    numbers = [enqueue(store) for _ in range(3)]
    follower = Follower(store)
    with store.transaction():
        for number in numbers:
            store.cancel(number)
    assert follower.jobs() == numbers
    assert written(database) == 1


def test_imported_jobs_are_told_under_whatever_id(store: Store, clock: MovableClock) -> None:
    enqueue(store, task="app:gone")
    rows = store.export(0, 10, finished=True)
    store.cancel(rows[0].id)
    store.prune(PRUNED, limit=1)
    follower = Follower(store)
    clock.move(1_001)
    assert store.import_(rows).added == 1
    assert follower.jobs() == [rows[0].id]


# -- gaps


def test_a_pause_in_following_is_told_as_a_gap(store: Store, clock: MovableClock) -> None:
    first, second = Follower(store), Follower(store)
    clock.move(FOLLOWED * 1_000)
    enqueue(store)
    assert not first.look().is_complete
    assert not first.look().is_complete
    store.follow(FOLLOWED)
    for follower in (first, second):
        assert not follower.look().is_complete
        assert follower.jobs() == []


def test_following_on_without_a_pause_is_no_gap(store: Store, clock: MovableClock) -> None:
    follower = Follower(store)
    for _ in range(3):
        clock.move(FOLLOWED * 1_000 - 1)
        store.follow(FOLLOWED)
        number = enqueue(store)
        assert follower.jobs() == [number]


def test_what_was_trimmed_before_it_was_seen_is_told_as_a_gap(
    store: Store, clock: MovableClock
) -> None:
    number = job_in(store, State.PENDING)
    follower = Follower(store, 3_600)
    store.block(number)
    store.unblock(number)
    clock.move(KEPT_MS)
    assert not store.trim_changes()
    assert not follower.look().is_complete
    store.block(number)
    assert follower.jobs() == [number]


def test_what_was_trimmed_after_it_was_seen_is_no_gap(store: Store, clock: MovableClock) -> None:
    number = job_in(store, State.PENDING)
    follower = Follower(store, 3_600)
    store.block(number)
    store.unblock(number)
    assert follower.jobs() == [number]
    clock.move(KEPT_MS)
    store.trim_changes()
    assert follower.jobs() == []


def test_trimming_leaves_the_newest_change_and_its_number(
    database: Database, store: Store, clock: MovableClock
) -> None:
    number = job_in(store, State.PENDING)
    Follower(store)
    store.block(number)
    store.unblock(number)
    newest = database.sql("SELECT max(number) FROM changes")
    clock.move(KEPT_MS)
    store.trim_changes()
    assert database.sql("SELECT number FROM changes") == newest


def test_more_changes_than_are_kept_are_trimmed_a_page_at_a_time(
    database: Database, store: Store
) -> None:
    number = job_in(store, State.PENDING)
    Follower(store)
    store.block(number)
    database.sql(f"UPDATE changes SET number = number + {KEPT + 5_000}")
    database.sql(_SERIES.format(last=4_500))
    pages = 1
    while store.trim_changes():
        pages += 1
    assert pages == 5
    assert written(database) == 1


_SERIES = """
WITH RECURSIVE series (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM series WHERE number < {last})
INSERT INTO changes (number, jobs, at) SELECT number, '1', at
FROM series CROSS JOIN (SELECT at FROM changes LIMIT 1) AS now
"""


def test_more_than_a_look_may_take_is_told_as_a_gap(store: Store) -> None:
    number = job_in(store, State.PENDING)
    follower = Follower(store)
    for _ in range(2):
        store.block(number)
        store.unblock(number)
    assert not follower.look(limit=3).is_complete
    assert follower.jobs() == []
    enqueue(store)
    store.enqueue([new(), new(), new()])
    assert not follower.look(limit=3).is_complete
    assert follower.jobs() == []


def test_a_transaction_that_changed_too_many_jobs_tells_that_they_are_more(
    store: Store,
) -> None:
    store.enqueue([new()] * (TOLD_MOST + 1))
    follower = Follower(store)
    assert isinstance(store, Following)
    with store.transaction():
        store._audience.note_all(range(1, TOLD_MOST + 2))
        store.cancel(1)
    told = follower.look()
    assert not told.is_complete
    store.cancel(2)
    assert follower.jobs() == [2]
