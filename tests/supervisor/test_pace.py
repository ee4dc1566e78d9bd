"""How many jobs a turn should claim."""

from __future__ import annotations

from jobvisor.supervisor.running.pace import AHEAD_MOST_NS, AHEAD_NS, GROWTH, Pace

MS = 1_000_000


def after(pace: Pace, job_ns: int, turn_ns: int = 0, batches: int = 30) -> int:
    """What is claimed after so many batches of such jobs, with such turns between them."""
    now = 1
    for _ in range(batches):
        pace.began(now)
        took = pace.batch * job_ns
        pace.ended(now + took, took, pace.batch)
        now += took + turn_ns
    return pace.batch


def test_short_jobs_are_claimed_by_as_many_as_make_twenty_milliseconds() -> None:
    assert after(Pace(500), 2 * MS) == 10
    assert after(Pace(500), 1 * MS) == 20
    assert after(Pace(500), 10_000) == 500
    assert after(Pace(50), 10_000) == 50


def test_long_jobs_are_claimed_one_by_one() -> None:
    assert after(Pace(500), 30 * MS) == 1
    assert after(Pace(500), 10_000 * MS, turn_ns=100 * MS) == 1


def test_one_endless_job_does_not_keep_the_batches_of_short_ones_small_for_long() -> None:
    pace = Pace(500)
    assert after(pace, 10_000) == 500
    pace.began(1)
    pace.ended(3_600_000 * MS, 3_600_000 * MS, 1)
    assert pace.batch == 1
    assert after(pace, 10_000) == 500


def test_a_batch_grows_with_the_cost_of_a_turn_up_to_its_most() -> None:
    assert after(Pace(500), 2 * MS, turn_ns=MS // 2) == AHEAD_NS // (2 * MS)
    assert after(Pace(500), 2 * MS, turn_ns=MS) == 12
    assert after(Pace(500), 2 * MS, turn_ns=500 * MS) == AHEAD_MOST_NS // (2 * MS)


def test_one_quick_batch_does_not_fetch_hundreds_and_a_rest_begins_anew() -> None:
    pace = Pace(500)
    assert after(pace, 1000, batches=1) == GROWTH
    assert after(pace, 1000, batches=1) == GROWTH**2
    pace.rested()
    assert pace.batch == 1


def test_a_rest_is_no_turn() -> None:
    pace = Pace(500)
    now = 0
    for _ in range(20):
        pace.began(now)
        pace.ended(now + 2 * MS * pace.batch, 2 * MS * pace.batch, pace.batch)
        batch = pace.batch
        pace.rested()
        pace.batch = batch
        now += 1000 * MS
    assert pace.batch == 10
