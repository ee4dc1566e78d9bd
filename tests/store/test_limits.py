"""Limits, on every kind of database: who begins, who waits, and who lets the next one begin."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from jobvisor.jobs.job import Claimed, Terms
from jobvisor.jobs.limit import CONFIG, Limit, limit_of
from jobvisor.jobs.store import Life, Store
from jobvisor.jobs.store.base import Rest, Turn
from jobvisor.jobs.store.limiting import KEYS_AT_ONCE, KEYS_LOOKED, LOOK_ON_MS, Limiting
from tests.clock import MovableClock
from tests.store.database import Database
from tests.store.making import CRASH, GONE, claim, enqueue, held, life, new, record
from tests.store.staged import client_of

KEY = "stripe"


def limited(store: Store, key: str = KEY, **values: Any) -> int:
    """The id of one more job with this limit."""
    return enqueue(store, terms=Terms(limit_key=key), **values)


def fill(store: Store, number: int, key: str = KEY, **values: Any) -> list[int]:
    """So many jobs with this limit, in one statement."""
    job = new(terms=Terms(limit_key=key), **values)
    return [each[0] for each in store.enqueue([job] * number)]


def turn(store: Store, who: Life, number: int, **values: Any) -> Turn:
    return store.turn(who, number, queues=("default",), **{"limit": 100, "lanes": 100, **values})


def ids(jobs: list[Claimed]) -> list[int]:
    return [job.id for job in jobs]


def states(store: Store, jobs: list[int]) -> list[str]:
    found = store.get_many(jobs)
    return [found[job].state.value for job in jobs]


def test_no_more_run_than_a_limit_has_places_and_each_has_its_own(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=2))
    jobs = fill(store, 5)
    got = turn(store, life(), 1)
    assert ids(got.jobs) == jobs[:2]
    assert [job.place for job in got.jobs] == [0, 1]
    assert got.parked == 3
    assert states(store, jobs) == ["running"] * 2 + ["blocked"] * 3
    assert {store.get(job).parked for job in jobs[2:]} == {f"limit:{KEY}"}
    assert turn(store, life(), 1).jobs == []


def test_a_job_without_a_limit_is_asked_nothing(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    job = enqueue(store)
    got = turn(store, life(), 1)
    assert (ids(got.jobs), got.jobs[0].place, got.parked) == ([job], None, 0)


def test_what_was_parked_counts_neither_as_a_run_nor_as_a_claim(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=0))
    job = limited(store)
    assert turn(store, life(), 1).parked == 1
    found = store.get(job)
    assert (found.attempt, found.started_at, found.place) == (0, None, None)
    store.set_limit(limit_of(KEY, concurrency=1))
    ((claimed),) = turn(store, life(), 1).jobs
    assert (claimed.attempt, claimed.claims) == (1, 1)


@pytest.mark.parametrize("verb", ["succeed", "retry", "snooze", "fail", "release", "cancel"])
def test_the_end_of_a_run_lets_the_next_one_begin_in_the_same_turn(store: Store, verb: str) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    first, second = fill(store, 2)
    who = life()
    (job,) = turn(store, who, 1).jobs
    got = turn(store, who, 2, journal=[record(who, 1, job, verb)])
    begun = first if verb == "release" else second  # given back, it is the first again
    assert (ids(got.jobs), got.jobs[0].place) == ([begun], 0)


def test_a_success_that_is_not_kept_frees_its_place(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    jobs = fill(store, 2)
    who = life()
    (job,) = turn(store, who, 1).jobs
    got = turn(store, who, 2, journal=[record(who, 1, job)], forget_succeeded=True)
    assert ids(got.jobs) == jobs[1:]


def test_whoever_settles_the_dead_lets_the_next_one_begin(store: Store, database: Database) -> None:
    store.set_limit(limit_of(KEY, concurrency=3))
    jobs = fill(store, 8)
    who = life()
    first, second, third = turn(store, who, 1).jobs
    other = database.open()  # which has claimed none of these
    with other.transaction():
        other.apply([record(who, 1, first)], who)
        other.rescue(second.id, who.owner, held(other, second.id, who), CRASH, 60_000)
        other.release_rest(who.owner)
    assert states(store, jobs) == ["succeeded", "scheduled", *["pending"] * 3, *["blocked"] * 3]
    assert ids(turn(store, life(), 1).jobs) == [third.id, jobs[3], jobs[4]]


def test_a_lost_machine_gives_its_places_back_with_its_rows(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    jobs = fill(store, 2)
    who = life()
    turn(store, who, 1)
    assert store.vanish(who.owner, GONE) == 1
    assert states(store, jobs) == ["pending", "blocked"]


def test_a_recall_gives_the_places_back_of_what_has_not_begun(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=2))
    jobs = fill(store, 3)
    who = life()
    first, _second = turn(store, who, 1).jobs
    store.release_rest(who.owner, Rest(held=(first.id,)))
    assert ids(turn(store, life(), 1).jobs) == [jobs[1]]
    assert states(store, jobs) == ["running", "running", "blocked"]


def test_a_candidate_that_is_cancelled_is_succeeded_by_the_next(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    jobs = fill(store, 3)
    who = life()
    (job,) = turn(store, who, 1).jobs
    store.apply([record(who, 1, job)], who)
    assert states(store, jobs) == ["succeeded", "pending", "blocked"]
    store.cancel(jobs[1])
    assert states(store, jobs) == ["succeeded", "cancelled", "pending"]


def test_a_parked_job_can_be_cancelled(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=0))
    job = limited(store)
    turn(store, life(), 1)
    assert store.cancel(job) == "cancelled"


def test_who_waits_goes_by_priority_then_by_age(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    old, new_, urgent = limited(store), limited(store), limited(store, priority=5)
    who = life()
    (job,) = turn(store, who, 1).jobs
    assert job.id == urgent
    (job,) = turn(store, who, 2, journal=[record(who, 1, job)]).jobs
    assert job.id == old
    (job,) = turn(store, who, 3, journal=[record(who, 2, job)]).jobs
    assert job.id == new_


def test_who_waits_is_let_before_a_younger_one_at_the_end_of_the_queue(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    old = fill(store, 4)
    who = life()
    (job,) = turn(store, who, 1).jobs
    store.enqueue([new()] * 50)
    young = limited(store)
    store.apply([record(who, 1, job)], who)
    assert states(store, [*old, young]) == ["succeeded", "pending", "blocked", "blocked", "pending"]
    (job,) = turn(store, who, 2, limit=1).jobs
    assert job.id == old[1]


def test_who_waits_and_is_urgent_is_let_before_a_candidate_that_is_not(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    first, urgent = limited(store, priority=10), limited(store, priority=10)
    who = life()
    (job,) = turn(store, who, 1).jobs
    assert job.id == first
    store.enqueue([new(priority=5)] * 50)
    low = limited(store)
    store.apply([record(who, 1, job)], who)
    assert states(store, [urgent, low]) == ["pending", "pending"]


def test_who_waits_behind_as_many_candidates_as_have_a_place_goes_on_waiting(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=0))
    late = fill(store, 2)
    turn(store, life(), 1)
    urgent = limited(store, priority=1)
    store.set_limit(limit_of(KEY, concurrency=2))
    assert states(store, [urgent, *late]) == ["pending", "pending", "blocked"]


def parked_for_three_keys(store: Store) -> list[int]:
    """Six hundred jobs of each."""
    jobs = [job for number in range(3) for job in fill(store, 600, f"{KEY}:{number}")]
    who, number = life(), 1
    while turn(store, who, number, limit=1_000).parked:
        number += 1
    return jobs


def test_whoever_says_what_a_limit_is_lets_begin_all_that_may(store: Store) -> None:
    jobs = parked_for_three_keys(store)
    store.set_limit(limit_of(KEY, concurrency=2_000))  # there may be nobody who goes on with it
    assert set(states(store, jobs)) == {"pending"}


def test_a_transaction_lets_begin_a_page_and_the_rest_falls_due_at_once(store: Store) -> None:
    jobs = parked_for_three_keys(store)
    with store.transaction():
        store.set_limit(limit_of(KEY, concurrency=2_000))
    assert states(store, jobs).count("pending") == 1_000
    assert store.promote() == 800
    assert states(store, jobs).count("pending") == 1_800
    assert store.look(("default",)).due_ms in (None, 0)
    store.promote()
    assert store.admit() is None


def test_every_key_has_the_limit_for_itself(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    jobs = [limited(store, f"{KEY}:{account}") for account in ("a", "b", "a")]
    got = turn(store, life(), 1)
    assert sorted((job.id, job.place) for job in got.jobs) == [(jobs[0], 0), (jobs[1], 0)]
    assert store.get(jobs[2]).parked == f"limit:{KEY}:a"


def test_each_queue_has_candidates_so_that_none_that_nobody_serves_keeps_a_place(
    store: Store,
) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    first = limited(store)
    elsewhere, here = limited(store, queue="unserved"), limited(store)
    who = life()
    (job,) = turn(store, who, 1).jobs
    assert job.id == first
    claim(store, life(), queues=("unserved",))
    got = turn(store, who, 2, journal=[record(who, 1, job)])
    assert ids(got.jobs) == [here]
    assert states(store, [elsewhere]) == ["pending"]


def test_of_one_key_a_worker_takes_no_more_than_its_lanes(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=5))
    jobs = fill(store, 9)
    got = turn(store, life(), 1, lanes=2)
    assert (ids(got.jobs), got.parked) == (jobs[:2], 4)
    assert states(store, jobs) == ["running"] * 2 + ["pending"] * 3 + ["blocked"] * 4
    assert ids(turn(store, life(), 1, lanes=2).jobs) == jobs[2:4]


def test_a_worker_that_has_a_key_in_all_its_lanes_takes_none_of_it(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=5))
    fill(store, 4)
    who = life()
    assert len(turn(store, who, 1, lanes=2).jobs) == 2
    assert turn(store, who, 2, lanes=2).jobs == []


def test_what_stands_behind_jobs_that_wait_is_reached(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=0))
    fill(store, 25)
    other = enqueue(store)
    who = life()
    turns = 0
    while True:
        turns += 1
        got = turn(store, who, turns, limit=10)
        if got.jobs:
            break
        assert got.parked == 10
    assert (ids(got.jobs), turns) == ([other], 3)
    assert store.look(("default",)).found is False


def test_an_unknown_limit_blocks_its_jobs_until_somebody_says_what_it_is(store: Store) -> None:
    job = limited(store, f"{KEY}:acct")
    turn(store, life(), 1)
    assert states(store, [job]) == ["blocked"]
    assert store.unknown_limits(10) == [KEY]
    store.set_limit(limit_of(KEY, concurrency=1))
    assert states(store, [job]) == ["pending"]
    assert store.unknown_limits(10) == []


def test_unknown_limits_are_named_once_each(store: Store) -> None:
    keys = ("b", "b:1", "b:2", "b-c", "b.c:1", "a:x", "known:1")
    for key in keys:
        limited(store, key)
    store.set_limit(limit_of("known", concurrency=0))
    turn(store, life(), 1)
    assert store.unknown_limits(10) == ["a", "b", "b-c", "b.c"]


def test_an_unknown_limit_is_named_among_many_that_are_known(store: Store) -> None:
    keys = ["a", "b", "c", "zz"]
    for name in keys[:3]:
        store.set_limit(limit_of(name, concurrency=0))
    store.enqueue([new(terms=Terms(limit_key=key)) for key in keys])
    turn(store, life(), 1)
    assert store.unknown_limits(2) == ["zz"]


def test_an_unblocked_job_waits_for_its_limit_no_more(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=0))
    job = limited(store)
    turn(store, life(), 1)
    assert store.unblock(job)
    assert store.get(job).parked is None


@pytest.mark.parametrize("within", [False, True])
def test_a_row_that_a_stranger_wrote_runs_under_its_limit_too(
    store: Store, database: Database, *, within: bool
) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    jobs = fill(store, 2)
    database.sql("UPDATE jobs SET special = 0")
    with store.transaction() if within else nullcontext():
        claimed = turn(store, life(), 1).jobs
    assert [(job.id, job.place) for job in claimed] == [(jobs[0], 0)]
    assert states(store, jobs) == ["running", "blocked"]


def test_a_job_that_is_held_back_waits_for_no_limit(store: Store, database: Database) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    job = limited(store)
    database.sql("UPDATE jobs SET parked = ? WHERE id = ?", f"limit:{KEY}", job)
    assert store.block(job)
    store.admit()
    assert states(store, [job]) == ["blocked"]


def test_a_waiting_job_that_is_replaced_leaves_its_line_to_the_next(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    terms = Terms(limit_key=KEY, conflict="replace")
    who = life()
    running = limited(store)
    (job,) = turn(store, who, 1).jobs
    assert job.id == running
    first = enqueue(store, unique_key="first", terms=terms)
    second, third = fill(store, 2)
    turn(store, who, 2)
    store.apply([record(who, 1, job)], who)
    assert states(store, [first, second, third]) == ["pending", "blocked", "blocked"]
    store.enqueue_one(new(unique_key="first", run_in_ms=60_000, terms=terms))
    assert states(store, [first, second, third]) == ["scheduled", "pending", "blocked"]


def test_many_that_are_replaced_leave_their_lines_too(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    terms = Terms(limit_key=KEY, conflict="replace")
    first = enqueue(store, unique_key="first", terms=terms)
    turn(store, life(), 1, limit=1)
    (second,) = fill(store, 1)
    turn(store, life(), 1)
    store.release_rest(store.get(first).owner or 0)
    assert states(store, [first, second]) == ["pending", "blocked"]
    other = terms._replace(limit_key="other")
    store.enqueue([new(), new(unique_key="first", terms=other)])
    assert states(store, [second]) == ["pending"]


def test_a_store_remembers_no_key_of_what_others_have_taken_from_it(
    store: Store, database: Database, clock: MovableClock
) -> None:
    store.set_limit(limit_of(KEY, concurrency=9))
    fill(store, 2)
    who = life()
    one, two = turn(store, who, 1).jobs
    database.open().release_rest(who.owner, Rest(held=(two.id,)))
    clock.move(60_000)
    turn(store, who, 2, limit=0)
    assert isinstance(store, Limiting)
    assert list(store._keys) == [two.id]
    assert one.id not in store._keys


def test_a_store_remembers_no_key_of_what_it_has_settled(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=9))
    fill(store, 4)
    who = life()
    one, two, three, _four = turn(store, who, 1).jobs
    store.apply([record(who, 1, one)], who)
    turn(store, who, 2, journal=[record(who, 1, two)], limit=0)
    turn(store, who, 3, rest=Rest(held=(three.id,)), limit=0)
    assert isinstance(store, Limiting)
    assert list(store._keys) == [three.id]


def test_more_places_let_begin_who_waits_and_fewer_let_run_who_runs(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    jobs = fill(store, 4)
    who = life()
    turn(store, who, 1)
    store.set_limit(limit_of(KEY, concurrency=3))
    assert ids(turn(store, who, 2).jobs) == jobs[1:3]
    store.set_limit(limit_of(KEY, concurrency=1))
    assert states(store, jobs) == ["running"] * 3 + ["blocked"]
    store.apply([record(who, 1, store.get(jobs[0]))], who)
    assert states(store, jobs[3:]) == ["blocked"]  # two run, where one may


def test_a_rate_that_becomes_a_concurrency_counts_what_runs_already(store: Store) -> None:
    store.set_limit(limit_of(KEY, rate="100/1s", burst=100))
    fill(store, 4)
    assert [job.place for job in turn(store, life(), 1, limit=3).jobs] == [None] * 3
    store.set_limit(limit_of(KEY, concurrency=3))
    assert turn(store, life(), 1).jobs == []


def test_a_removed_limit_blocks_its_jobs(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    assert store.remove_limit(KEY) is True
    assert store.remove_limit(KEY) is False
    job = limited(store)
    turn(store, life(), 1)
    assert states(store, [job]) == ["blocked"]


def test_what_was_set_at_run_time_wins_over_a_config(store: Store) -> None:
    config = limit_of(KEY, concurrency=2, source=CONFIG)
    store.declare_limits([config])
    assert store.limits() == [config]
    said = limit_of(KEY, concurrency=7)
    store.set_limit(said)
    store.declare_limits([config])
    store.declare_limits([config], missing=True)
    assert store.limits() == [said]
    store.remove_limit(KEY)
    store.declare_limits([config], missing=True)
    assert store.limits() == [config]


def test_the_last_config_wins(store: Store) -> None:
    store.declare_limits([limit_of(KEY, concurrency=2, source=CONFIG)])
    job = fill(store, 4)[3]
    turn(store, life(), 1)
    last = limit_of(KEY, concurrency=4, source=CONFIG)
    store.declare_limits([last])
    assert store.limits() == [last]
    assert states(store, [job]) == ["pending"]
    store.declare_limits([limit_of(KEY, concurrency=1, source=CONFIG)], missing=True)
    assert store.limits() == [last]


def test_no_place_is_ever_held_twice_whatever_writes_it(store: Store, database: Database) -> None:
    store.set_limit(limit_of(KEY, concurrency=2))
    jobs = fill(store, 2)
    turn(store, life(), 1)
    with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
        database.sql("UPDATE jobs SET limit_place = 0 WHERE id = ?", jobs[1])


def test_a_place_that_is_free_again_is_given_again(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=3))
    fill(store, 6)
    who = life()
    first, _second, third = turn(store, who, 1).jobs
    journal = [record(who, 1, first), record(who, 1, third)]
    got = turn(store, who, 2, journal=journal)
    assert sorted(job.place for job in got.jobs if job.place is not None) == [0, 2]


# -- rates


def test_a_burst_begins_at_once_and_then_one_with_each_step(
    store: Store, clock: MovableClock
) -> None:
    store.set_limit(limit_of(KEY, rate="10/1s", burst=3))
    jobs = fill(store, 6)
    who = life()
    got = turn(store, who, 1)
    assert (ids(got.jobs), got.parked) == (jobs[:3], 3)
    assert store.look(("default",)) == (False, 100, False)
    assert turn(store, who, 2).jobs == []
    for nth, job in enumerate(jobs[3:]):
        clock.move(99)
        assert store.look(("default",)).found is False
        clock.move(1)
        assert store.look(("default",)).found is True
        assert ids(turn(store, who, 3 + nth).jobs) == [job]
    clock.move(100)
    store.promote()
    assert store.look(("default",)).due_ms is None


def test_after_a_rest_no_more_than_a_burst_begins(store: Store, clock: MovableClock) -> None:
    store.set_limit(limit_of(KEY, rate="10/1s", burst=3))
    fill(store, 20)
    who = life()
    assert len(turn(store, who, 1).jobs) == 3
    clock.move(60_000)
    assert len(turn(store, who, 2).jobs) == 3
    assert turn(store, who, 3).jobs == []


def test_a_rate_is_kept_within_one_burst(store: Store, clock: MovableClock) -> None:
    store.set_limit(limit_of(KEY, rate="50/1s", burst=5))
    fill(store, 400)
    who, started = life(), 0
    for number in range(1, 101):
        got = turn(store, who, number)
        started += len(got.jobs)
        store.apply([record(who, number, job) for job in got.jobs], who)
        exact = 50 * (number - 1) * 37 / 1_000
        assert exact - 5 <= started <= exact + 5
        clock.move(37)


def test_of_a_key_with_a_rate_alone_a_worker_takes_no_more_than_its_batch(
    store: Store, clock: MovableClock
) -> None:
    store.set_limit(limit_of(KEY, rate="10/1s", burst=5))
    jobs = fill(store, 8)
    got = turn(store, life(), 1, batch=2)
    assert (ids(got.jobs), got.parked, got.returned) == (jobs[:2], 3, 3)
    assert states(store, jobs) == ["running"] * 2 + ["pending"] * 3 + ["blocked"] * 3
    assert {store.get(job).attempt for job in jobs[2:]} == {0}
    assert ids(turn(store, life(), 1).jobs) == jobs[2:5]  # what was put back is not spent
    clock.move(100)
    assert ids(turn(store, life(), 1, batch=2).jobs) == [jobs[5]]


def test_what_a_recall_gives_back_is_spent(store: Store) -> None:
    store.set_limit(limit_of(KEY, rate="1/1s", burst=1))
    fill(store, 2)
    who = life()
    assert len(turn(store, who, 1).jobs) == 1
    store.release_rest(who.owner)
    assert turn(store, who, 2).jobs == []


def test_a_clock_set_back_does_not_stop_a_rate(store: Store, clock: MovableClock) -> None:
    store.set_limit(limit_of(KEY, rate="10/1s", burst=2))
    fill(store, 8)
    clock.move(3_600_000)
    who = life()
    assert len(turn(store, who, 1).jobs) == 2
    clock.move(-3_600_000)
    store.admit()
    turn(store, who, 2)
    clock.move(200)
    assert len(turn(store, who, 3).jobs) >= 1


def test_a_rate_that_is_made_higher_counts_at_once(store: Store, clock: MovableClock) -> None:
    store.set_limit(limit_of(KEY, rate="60/1m", burst=50))
    fill(store, 60)
    assert len(turn(store, life(), 1).jobs) == 50
    store.set_limit(limit_of(KEY, rate="100/1s", burst=1))
    clock.move(10)
    assert len(turn(store, life(), 1).jobs) == 1


def test_both_a_rate_and_a_concurrency_are_kept(store: Store, clock: MovableClock) -> None:
    store.set_limit(limit_of(KEY, concurrency=2, rate="10/1s", burst=3))
    fill(store, 9)
    who = life()
    first = turn(store, who, 1).jobs
    assert len(first) == 2
    second = turn(store, who, 2, journal=[record(who, 1, job) for job in first]).jobs
    assert len(second) == 1  # the burst is used up
    clock.move(1_000)
    assert len(turn(store, who, 3).jobs) == 1  # and one runs


# -- the net, and what is shown


def test_the_caretaker_finds_what_nobody_has_let_begin(store: Store, database: Database) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    jobs = fill(store, 2)
    who = life()
    turn(store, who, 1)
    database.sql(
        "UPDATE jobs SET state = 'succeeded', finished_at = created_at WHERE id = ?", jobs[0]
    )
    assert states(store, jobs[1:]) == ["blocked"]
    assert store.admit() is None
    assert states(store, jobs[1:]) == ["pending"]


def test_the_caretaker_takes_its_time_where_nothing_was_missed(store: Store) -> None:
    """Else it would do nothing but look, while more keys wait than it looks at in one call."""
    store.set_limit(limit_of(KEY, concurrency=0))
    for number in range(KEYS_LOOKED + 1):
        limited(store, f"{KEY}:{number:03}")
    turn(store, life(), 1, limit=1_000)
    assert [store.admit(), store.admit(), store.admit()] == [LOOK_ON_MS, None, LOOK_ON_MS]


def test_keys_that_no_job_has_any_more_are_forgotten(store: Store, database: Database) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    limited(store, f"{KEY}:gone")
    limited(store, f"{KEY}:runs")
    limited(store, f"{KEY}:waits", run_in_ms=0)
    limited(store, f"{KEY}:waits")
    who = life()
    jobs = turn(store, who, 1).jobs
    gone = [record(who, 1, job) for job in jobs if store.get(job.id).limit == f"{KEY}:gone"]
    store.apply(gone, who)
    assert not store.trim_limit_keys()
    left = {row[0] for row in database.sql("SELECT key FROM limit_keys")}
    assert left == {f"{KEY}:runs", f"{KEY}:waits"}


def test_keys_are_forgotten_as_quickly_as_they_come_up(store: Store, database: Database) -> None:
    """Where each job has a key of its own, a page now and then would never be enough."""
    store.set_limit(limit_of(KEY, concurrency=1))
    for start in range(0, KEYS_AT_ONCE * 3, 100):
        keys = ", ".join(f"('{KEY}:{number}', '{KEY}')" for number in range(start, start + 100))
        database.sql(f"INSERT INTO limit_keys (key, name) VALUES {keys}")
    assert [store.trim_limit_keys() for _ in range(4)] == [True, True, True, False]
    assert database.sql("SELECT count(*) FROM limit_keys") == [(0,)]


def test_a_waiting_job_says_for_what(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=2))
    jobs = fill(store, 6)
    turn(store, life(), 1)
    assert str(store.waiting_for_limit(jobs[2])) == "limit stripe: 2 of 2, 1st in line"
    assert str(store.waiting_for_limit(jobs[5])) == "limit stripe: 2 of 2, 4th in line"
    assert store.waiting_for_limit(jobs[0]) is None
    urgent = limited(store, priority=1)
    turn(store, life(), 1)
    assert str(store.waiting_for_limit(urgent)) == "limit stripe: 2 of 2, 1st in line"
    assert str(store.waiting_for_limit(jobs[2])) == "limit stripe: 2 of 2, 2nd in line"


def test_a_job_that_waits_for_a_rate_says_until_when(store: Store) -> None:
    store.set_limit(limit_of(KEY, rate="1/1s", burst=1))
    jobs = fill(store, 2)
    turn(store, life(), 1)
    waits = store.waiting_for_limit(jobs[1])
    assert waits is not None
    assert waits.next_at is not None
    assert "1/1s, the next at" in str(waits)


def test_a_job_of_an_unknown_limit_says_so(store: Store) -> None:
    job = limited(store)
    turn(store, life(), 1)
    assert str(store.waiting_for_limit(job)) == "limit stripe: nobody has said what stripe is"


def test_limits_are_listed_with_what_runs_and_waits(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    store.set_limit(limit_of("stripe-2", concurrency=1))
    for key in (KEY, KEY, f"{KEY}:a", f"{KEY}:a", f"{KEY}:a", "stripe-2"):
        limited(store, key)
    turn(store, life(), 1)
    told = {each.limit.name: each for each in store.limit_standings()}
    assert [(e.running, e.waiting, e.keys) for e in told.values()] == [(2, 3, 2), (1, 0, 1)]


def test_a_drain_finds_what_will_get_a_place_among_many_that_will_not(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    fill(store, 1_001, "no:1")
    limited(store, "no:2")
    limited(store, "never")
    running, _waits = fill(store, 2)
    got = turn(store, life(), 1, limit=2_000)
    assert (ids(got.jobs), got.parked) == ([running], 1_004)
    assert store.has_work(("default",), 99) is True
    store.set_limit(limit_of(KEY, concurrency=0))
    assert store.has_work(("default",), 99) is False


def test_a_drain_waits_for_what_will_get_a_place(store: Store) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    fill(store, 2)
    limited(store, "unknown", queue="other")
    who = life()
    (job,) = turn(store, who, 1).jobs
    claim(store, life(), queues=("other",))
    assert store.has_work(("default",), 99) is True
    assert store.has_work(("other",), 99) is False
    assert job.place == 0


def test_a_row_that_may_not_wait_does_not_stop_the_others(store: Store, database: Database) -> None:
    store.set_limit(limit_of(KEY, concurrency=0))
    jobs = fill(store, 2)
    other = enqueue(store)
    database.refuse(f"new.state = 'blocked' AND new.id = {jobs[0]}", "not this one")
    got = turn(store, life(), 1)
    assert ids(got.jobs) == [other]


def test_a_limit_tells_of_itself_as_json() -> None:
    limit = limit_of(KEY, concurrency=5, rate="100/1m", burst=20)
    assert limit == Limit(KEY, 5, 100, 60_000, 20)
    assert limit.as_json() == {
        "name": KEY, "concurrency": 5, "rate": "100/1m", "burst": 20, "source": "set",
    }  # fmt: skip


def test_why_a_job_does_not_run_names_its_limit_and_its_place_in_line(
    store: Store, clock: MovableClock
) -> None:
    store.set_limit(limit_of(KEY, concurrency=1))
    jobs = fill(store, 3)
    turn(store, life(), 1)
    with client_of(store, clock) as client:
        why = {reason.code: reason.text for reason in client.why(jobs[2])}
        assert why["limit"] == "It waits for its limit stripe: 1 of 1, 2nd in line."
        assert "blocked" not in why
        (held,) = [each for each in client.waits() if each.code == "limit"]
        assert held.text == "2 jobs wait for the limit stripe"
