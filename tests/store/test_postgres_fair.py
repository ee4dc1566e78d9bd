"""Fair queues among several who write at once: nobody waits for another's turn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.job import NewJob, Terms
from tests.store.database import PostgresDatabase
from tests.store.making import claim, life, new, undone


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgresDatabase]:
    made = PostgresDatabase(tmp_path)
    yield made
    made.close()


def of(share: str) -> NewJob:
    return new(terms=Terms(share=share))


def mark(database: PostgresDatabase) -> int:
    return int(database.sql("SELECT turn FROM turns")[0][0])


def test_a_claim_passes_over_a_mark_that_somebody_holds(database: PostgresDatabase) -> None:
    one, other = database.open(), database.open()
    one.set_fair("default", fair=True)
    database.clock.move(1_000)
    one.enqueue([of("a")] * 10)
    who = life()
    with other.transaction():
        other._change("begin_turns", {"queue": "default"})  # type: ignore[attr-defined]
        # A claim that waited for this row would end by `lock_timeout`, with an error.
        assert len(claim(one, who, 1, limit=5)) == 5
        assert mark(database) == 0
    database.clock.move(1_000)
    assert len(claim(one, who, 2, limit=5)) == 5
    assert mark(database) == database.sql("SELECT max(turn) FROM jobs")[0][0]


def test_two_who_enqueue_for_one_share_at_once_do_not_wait(database: PostgresDatabase) -> None:
    one, other = database.open(), database.open()
    one.set_fair("default", fair=True)
    with one.transaction():
        one.enqueue_one(of("a"))
        other.enqueue_one(of("a"))
        other.enqueue_one(of("a"))
    # What is not committed is not seen: two of them have the same turn, and the ids tell who is first.
    turns = [row[0] for row in database.sql("SELECT turn FROM jobs ORDER BY id")]
    assert turns[0] == turns[1] < turns[2]


def test_a_promotion_among_others_gives_each_of_a_share_a_turn_of_its_own(
    database: PostgresDatabase,
) -> None:
    one, other = database.open(), database.open()
    one.set_fair("default", fair=True)
    one.enqueue([of("a")._replace(run_in_ms=1_000)] * 50)
    database.clock.move(2_000)
    with one.transaction():
        one._rows("promote_fair", {"limit": 20})  # type: ignore[attr-defined]
        assert other.promote() == 30  # the rest, without a wait
    assert one.promote() == 0
    turns = [row[0] for row in database.sql("SELECT turn FROM jobs")]
    assert min(turns) > 0
    assert len(set(turns)) >= 30


def test_lining_up_and_levelling_pass_over_what_somebody_holds(database: PostgresDatabase) -> None:
    one, other = database.open(), database.open()
    jobs = one.enqueue([of("a")] * 3)
    one.set_fair("default", fair=True)
    turned = "SELECT turn > 0 FROM jobs ORDER BY id"
    with undone(one):
        one.cancel(jobs[0][0])
        other.level_turns()
        assert [row[0] for row in database.sql(turned)] == [False, True, True]
    other.level_turns()
    assert [row[0] for row in database.sql(turned)] == [True] * 3
    one.set_fair("default", fair=False)
    with undone(one):
        one.cancel(jobs[0][0])
        other.level_turns()
        assert [row[0] for row in database.sql(turned)] == [True, False, False]
    other.level_turns()
    assert [row[0] for row in database.sql(turned)] == [False] * 3


def test_a_promotion_does_not_wait_for_a_mark_that_a_claim_raises(
    database: PostgresDatabase,
) -> None:
    one, other = database.open(), database.open()
    one.set_fair("default", fair=True)
    database.clock.move(1_000)
    one.enqueue([of("a")] * 5)
    one.enqueue([of("b")._replace(run_in_ms=500)])
    database.clock.move(1_000)
    with one.transaction():
        assert len(claim(one, life(), limit=5)) == 5  # it holds the mark, and the rows
        one.enqueue([of("a")])
        other.promote()
    turns = [row[0] for row in database.sql("SELECT turn FROM jobs ORDER BY id")]
    assert turns[5] > 0
