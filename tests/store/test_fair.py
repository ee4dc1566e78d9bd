"""Fair queues: the shares of a queue are served in turn, however many jobs each has waiting."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest

from jobvisor.jobs.annals import TASK
from jobvisor.jobs.job import NewJob, Terms
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.base import Whom
from jobvisor.jobs.store.fairness import FORGOTTEN_MS, LEVELLED_AT_ONCE, LOOKED_AT_ONCE
from tests.clock import MovableClock
from tests.store.database import Database
from tests.store.making import claim, enqueue, life, new, record, running


@pytest.fixture
def fair(store: Store, clock: MovableClock) -> Store:
    """A store whose default queue has been fair for a second."""
    assert store.set_fair("default", fair=True)
    clock.move(1_000)
    return store


def of(share: str | None, weight: int | None = None, **values: object) -> NewJob:
    """A job of this share."""
    return new(terms=Terms(share=share, weight=weight), **values)


def many(share: str, number: int, weight: int | None = None, **values: object) -> list[NewJob]:
    return [of(share, weight, **values)] * number


def shares(store: Store, jobs: Iterable[object]) -> list[str | None]:
    """The shares of claimed jobs, in their order."""
    ids: list[int] = [job.id for job in jobs]  # type: ignore[attr-defined]
    found = store.get_many(ids)
    return [found[number].share for number in ids]


def taken(store: Store, number: int, *, at_once: int = 1) -> list[str | None]:
    """The shares of the next jobs that are claimed, in the order in which they would run."""
    found: list[str | None] = []
    who, turn = life(), 0
    while len(found) < number:
        turn += 1
        jobs = claim(store, who, turn, limit=at_once)
        assert jobs
        found += shares(store, jobs)
    return found


def turns(database: Database) -> list[int]:
    return [row[0] for row in database.sql("SELECT turn FROM jobs ORDER BY id")]


# -- in turn


@pytest.mark.parametrize("at_once", [1, 7, 105])
def test_shares_are_served_in_turn_whoever_came_first(fair: Store, at_once: int) -> None:
    fair.enqueue([*many("a", 50), *many("b", 50), *many("c", 5)])
    assert taken(fair, 105, at_once=at_once) == [*["a", "b", "c"] * 5, *["a", "b"] * 45]


def test_who_has_little_to_do_is_not_behind_a_hundred_thousand_of_another(fair: Store) -> None:
    fair.enqueue(many("large", 2_000))
    assert set(taken(fair, 100, at_once=50)) == {"large"}
    for number in range(100):
        fair.enqueue_one(of(f"small {number}"))
    first = taken(fair, 101, at_once=101)
    assert Counter(first).most_common(1) == [("large", 1)]
    assert len(set(first)) == 101


def test_a_share_of_weight_3_gets_three_times_as_much_within_5_percent(fair: Store) -> None:
    fair.enqueue([*many("light", 6_000), *many("heavy", 9_000, weight=3)])
    got = Counter(taken(fair, 10_000, at_once=500)[:10_000])
    assert got["heavy"] / got["light"] == pytest.approx(3, rel=0.05)


def test_who_enqueues_one_by_one_gets_no_more_than_his_share(fair: Store) -> None:
    fair.enqueue(many("backlog", 500))
    got: Counter[str | None] = Counter()
    who = life()
    fair.enqueue_one(of("stream"))
    for turn in range(1, 301):
        for share in shares(fair, claim(fair, who, turn, limit=1)):
            got[share] += 1
            if share == "stream":
                fair.enqueue_one(of("stream"))
    assert got["stream"] == pytest.approx(150, abs=2)


def test_a_rest_saves_up_nothing(fair: Store) -> None:
    fair.enqueue([*many("busy", 200), of("rested")])
    assert Counter(taken(fair, 100, at_once=10))["rested"] == 1
    fair.enqueue(many("rested", 100))
    assert taken(fair, 20).count("rested") == pytest.approx(10, abs=1)


def test_the_jobs_of_a_batch_run_in_their_turns(fair: Store) -> None:
    fair.enqueue([*many("a", 3), *many("b", 3), of("a", priority=1)])
    assert shares(fair, claim(fair, life())) == ["a", *["a", "b"] * 3]


def test_each_priority_is_a_fair_queue_of_its_own(fair: Store) -> None:
    fair.enqueue([*many("a", 10), *many("b", 10), *many("a", 2, priority=5), of("b", priority=5)])
    assert taken(fair, 7) == ["a", "b", "a", "a", "b", "a", "b"]


def test_a_job_of_no_share_goes_first_and_every_share_after_it(
    fair: Store, database: Database
) -> None:
    fair.enqueue(many("a", 3))
    enqueue(fair)
    database.sql("INSERT INTO jobs (task) VALUES ('app:f')")
    assert taken(fair, 3) == [None, None, "a"]


# -- which queue, and since when


def test_a_queue_is_fair_when_somebody_says_so(store: Store, database: Database) -> None:
    store.enqueue_one(of("a"))
    assert store.fair_queues() == []
    assert store.shares_in_vain(9) == ["default"]
    assert not store.set_fair("default", fair=False)
    assert store.set_fair("default", fair=True)
    assert not store.set_fair("default", fair=True)
    assert store.fair_queues() == ["default"]
    store.enqueue_one(of("a"))
    store.enqueue([of("a"), of("a", queue="other")])
    assert store.shares_in_vain(9) == ["other"]
    assert [bool(turn) for turn in turns(database)] == [False, True, True, False]


def test_a_fair_queue_with_jobs_of_no_share_is_named(store: Store) -> None:
    enqueue(store)
    assert store.shareless(9) == []
    store.set_fair("default", fair=True)
    store.set_fair("other", fair=True)
    store.enqueue_one(of("a", queue="other", priority=3))
    assert store.shareless(9) == ["default"]
    enqueue(store, queue="other")
    assert store.shareless(9) == ["default", "other"]
    assert store.shareless(1) == ["default"]


def test_jobs_of_a_share_go_by_age_in_a_queue_that_is_not_fair(
    store: Store, database: Database
) -> None:
    store.enqueue([*many("a", 3), of(None)])
    enqueue(store)
    assert turns(database) == [0] * 5
    assert [job.id for job in claim(store, life())] == [1, 2, 3, 4, 5]


def test_a_queue_that_is_fair_no_more_is_levelled(fair: Store, database: Database) -> None:
    fair.enqueue([*many("a", LEVELLED_AT_ONCE + 10), *many("b", 2, priority=1), of("c", queue="q")])
    assert not fair.level_turns()
    assert all(turns(database)[:-1])
    assert fair.set_fair("default", fair=False)
    assert fair.level_turns()
    assert not fair.level_turns()
    assert set(turns(database)) == {0}
    fair.enqueue_one(of("b"))
    assert taken(fair, 3) == ["b", "b", "a"]


def test_what_waits_when_a_queue_becomes_fair_is_lined_up_page_by_page(
    store: Store, clock: MovableClock
) -> None:
    store.enqueue([*many("large", LEVELLED_AT_ONCE), of("large", priority=1), of("other")])
    store.set_fair("default", fair=True)
    clock.move(1_000)
    assert store.level_turns()
    assert not store.level_turns()
    store.enqueue_one(of("small"))
    assert taken(store, 4) == ["large", "large", "other", "small"]


def test_what_waits_without_a_share_hides_none_behind_it_and_is_looked_at_once(
    store: Store, database: Database, clock: MovableClock
) -> None:
    store.enqueue([new()] * (LOOKED_AT_ONCE + 5))
    store.enqueue([*many("large", 2), of("other")])
    store.set_fair("default", fair=True)
    clock.move(1_000)
    assert store.level_turns()
    assert not store.level_turns()
    assert len(database.sql("SELECT id FROM jobs WHERE turn > 0")) == 3
    assert not store.level_turns(), "there is nothing to hurry for"
    late = enqueue(store)
    database.sql("UPDATE jobs SET share = 'late' WHERE id = ?", late)
    assert not store.level_turns(), "the end of the walk"
    assert database.sql("SELECT turn > 0 FROM jobs WHERE id = ?", late) == [(True,)]


@pytest.mark.parametrize("ends", ["cancel", "expire", "deadline"])
def test_what_ends_without_a_run_stands_in_no_line_any_more(
    fair: Store, database: Database, clock: MovableClock, ends: str
) -> None:
    """Else who comes next of its share looks through all of them, until the mark has passed them."""
    terms = Terms(share="a", deadline_in_ms=10 if ends == "deadline" else None)
    jobs = fair.enqueue([new(terms=terms, expires_in_ms=10 if ends == "expire" else None)] * 3)
    assert all(turns(database))
    clock.move(10)
    if ends == "cancel":
        for job, _ in jobs:
            fair.cancel(job)
    fair.end_overdue()
    assert turns(database) == [0, 0, 0]


def test_marks_of_a_queue_that_was_fair_long_ago_go(
    fair: Store, database: Database, clock: MovableClock
) -> None:
    fair.set_fair("other", fair=True)
    fair.set_fair("default", fair=False)
    clock.move(FORGOTTEN_MS + 1)
    fair.level_turns()
    assert database.sql("SELECT queue FROM turns") == [("other",)]


# -- when the turn is given, and when it is kept


@pytest.mark.parametrize("many_at_once", [False, True])
def test_a_delayed_job_gets_its_turn_when_it_is_due(
    fair: Store, database: Database, clock: MovableClock, *, many_at_once: bool
) -> None:
    later = many("a", 3, run_in_ms=1_000)
    if many_at_once:
        fair.enqueue(later)
    else:
        for job in later:
            fair.enqueue_one(job)
    assert turns(database) == [0, 0, 0]
    fair.enqueue(many("b", 3))
    clock.move(1_000)
    assert fair.promote() == 3
    given = turns(database)
    assert len(set(given[:3])) == 3
    assert min(given) > 0
    assert taken(fair, 6) == ["a", "b"] * 3


def test_what_becomes_due_in_a_turn_of_a_worker_gets_its_turn_too(
    fair: Store, clock: MovableClock
) -> None:
    fair.enqueue(many("a", 2, run_in_ms=1_000))
    fair.enqueue(many("b", 2))
    clock.move(1_000)
    assert taken(fair, 4) == ["a", "b"] * 2


@pytest.mark.parametrize("delay_ms", [0, 1_000])
def test_a_thousand_retries_of_one_share_do_not_come_before_another(
    fair: Store, clock: MovableClock, delay_ms: int
) -> None:
    fair.enqueue(many("large", 1_000))
    who = life()
    failed = claim(fair, who, limit=900)
    fair.apply([record(who, 1, job, "retry", delay_ms=delay_ms, age_ms=0) for job in failed], who)
    clock.move(delay_ms)
    fair.enqueue_one(of("small"))
    fair.promote()
    assert "small" in taken(fair, 3)


def test_a_retry_that_is_alone_comes_next_of_its_share(fair: Store, clock: MovableClock) -> None:
    fair.enqueue([*many("a", 3), *many("b", 3)])
    who = life()
    (first,) = claim(fair, who, limit=1)
    fair.apply([record(who, 1, first, "retry")], who)
    clock.move(5_000)
    assert fair.promote() == 1
    assert first.id in [job.id for job in claim(fair, life(), limit=3)]


def test_a_retry_keeps_a_turn_that_is_still_to_come(
    fair: Store, database: Database, clock: MovableClock
) -> None:
    fair.enqueue(many("a", 3))
    taken(fair, 1)  # and so no mark is raised for 100 ms
    who = life()
    second, third = claim(fair, who, 2, limit=2)
    before = turns(database)
    fair.apply(
        [record(who, 2, each, "retry", delay_ms=0, age_ms=0) for each in (second, third)], who
    )
    fair.promote()
    assert turns(database) == before


def test_a_release_keeps_the_turn(fair: Store, database: Database) -> None:
    fair.enqueue(many("a", 3))
    who = life()
    first, second = claim(fair, who, limit=2)
    before = turns(database)
    fair.apply([record(who, 1, each, "release") for each in (first, second)], who)
    assert turns(database) == before
    assert [job.id for job in claim(fair, life(), limit=2)] == [first.id, second.id]


def test_a_thousand_jobs_of_a_resumed_task_do_not_come_before_another_share(fair: Store) -> None:
    fair.pause(TASK, "app:f")
    fair.enqueue(many("large", 900))
    who = life()
    assert fair.turn(who, 1, queues=["default"], limit=900).parked == 900
    fair.enqueue([*many("other", 5, task="app:g")])
    taken(fair, 2)
    fair.resume(TASK, "app:f")
    assert not fair.free_tasks()
    fair.enqueue_one(of("small", task="app:g"))
    assert "small" in taken(fair, 5)


def test_what_waited_while_its_queue_was_fair_has_no_turn_when_it_is_not(
    fair: Store, database: Database, clock: MovableClock
) -> None:
    fair.enqueue(many("a", 3))
    who = life()
    fair.pause(TASK, "app:g")
    fair.enqueue_one(of("b", task="app:g"))
    jobs = claim(fair, who)
    fair.apply([record(who, 1, each, "retry", delay_ms=60_000) for each in jobs], who)
    assert all(turns(database))
    fair.set_fair("default", fair=False)
    clock.move(FORGOTTEN_MS + 1)
    fair.level_turns()  # it forgets that the queue was fair
    fair.promote()
    fair.resume(TASK, "app:g")
    fair.free_tasks()
    assert turns(database) == [0] * 4


def test_a_blocked_job_gets_its_turn_when_it_waits_no_longer(fair: Store) -> None:
    fair.enqueue_one(of("a"))
    assert fair.block(1)
    fair.enqueue(many("a", 50))
    taken(fair, 50, at_once=10)
    fair.enqueue(many("b", 2))
    assert fair.unblock(1)
    assert taken(fair, 2) in (["a", "b"], ["b", "a"])


def test_a_requeued_a_copied_and_an_imported_job_come_behind_their_share(
    fair: Store, database: Database
) -> None:
    who, job = running(fair, terms=Terms(share="a"))
    fair.apply([record(who, 1, job, "fail")], who)
    fair.enqueue(many("a", 3))
    fair.requeue(job.id)
    fair.repeat(job.id)
    (row,) = fair.export(job.id, 1, finished=False)
    fair.import_([row._replace(id=900)])
    requeued, *rest = turns(database)
    assert sorted(rest) == rest
    assert rest[2] < requeued < rest[3] < rest[4]


def test_the_mark_keeps_the_present_where_nothing_is_pending(
    fair: Store, database: Database, clock: MovableClock
) -> None:
    fair.enqueue(many("a", 10))
    taken(fair, 5)
    clock.move(101)
    taken(fair, 5, at_once=5)
    last = turns(database)[-1]
    assert database.sql("SELECT turn FROM turns WHERE turn > 0") == [(last,)]
    fair.enqueue_one(of("b"))
    assert turns(database)[-1] == last
    # Of what was claimed in the next 100 ms it is not told.
    clock.move(50)
    fair.enqueue(many("a", 1))
    taken(fair, 2)
    assert database.sql("SELECT turn FROM turns WHERE turn > 0") == [(last,)]


def test_a_suspect_that_is_claimed_out_of_the_line_does_not_move_the_present(
    fair: Store, clock: MovableClock
) -> None:
    fair.enqueue([*many("large", 200), of("large", memory_bytes=1 << 30)])
    who = life()
    taken(fair, 2)
    clock.move(1_000)
    (suspect,) = fair.turn(who, 1, queues=["default"], limit=1, whom=Whom.SUSPECTS).jobs
    assert suspect.id == 201
    fair.enqueue_one(of("small"))
    assert "small" in taken(fair, 3)


def test_a_row_with_an_old_turn_does_not_call_the_present_back(
    fair: Store, database: Database
) -> None:
    fair.enqueue(many("a", 20))
    who = life()
    first, *_rest = claim(fair, who, limit=10)
    fair.apply([record(who, 1, first, "release")], who)
    fair.enqueue_one(of("b"))
    assert turns(database)[-1] >= turns(database)[9]


@pytest.mark.parametrize("weights", [(1_000, 1), (None, 1)])
def test_turns_of_one_share_rise_by_what_its_weight_says(
    fair: Store, database: Database, weights: Sequence[int | None]
) -> None:
    fair.enqueue([of("a", weight) for weight in weights for _ in range(2)])
    given = turns(database)
    steps = [after - before for before, after in itertools.pairwise(given)]
    assert steps == [2**20 // (weight or 1) for weight in (weights[0], weights[1], weights[1])]
