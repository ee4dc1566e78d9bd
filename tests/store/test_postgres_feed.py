"""The feed under PostgreSQL's transactions: numbers are drawn in one order and committed in another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations, product
from pathlib import Path

import pytest

from jobvisor.jobs.store import Store
from jobvisor.jobs.store.feed import LATE_MOST, YOUNG_NS
from tests.postgres import Stranger
from tests.store.database import PostgresDatabase, RecycledDatabase
from tests.store.making import claim, enqueue, life, new
from tests.store.test_feed import Follower

OLD_MS = YOUNG_NS // 1_000_000

TELL = "SELECT tell('{number}', NULL, NULL)"
INSERT = "INSERT INTO jobs (id, task) VALUES (nextval('jobs_id_seq'), 'app:f') RETURNING id"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgresDatabase]:
    made = RecycledDatabase(tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(database: PostgresDatabase) -> Store:
    return database.open()


@pytest.fixture
def sessions(database: PostgresDatabase) -> Iterator[list[Stranger]]:
    """Three connections with transactions of their own."""
    made = [Stranger(database.url, database.schema) for _ in range(3)]
    yield made
    for each in made:
        each.close()


def orders(sessions: int) -> list[tuple[int, ...]]:
    """Every order of two steps of each session; the first to begin is always session 0."""
    every = set(permutations(sorted([*range(sessions)] * 2)))
    return sorted(order for order in every if list(dict.fromkeys(order)) == [*range(sessions)])


@pytest.mark.parametrize("ends", [*product(["COMMIT", "ROLLBACK"], repeat=2), ["COMMIT"] * 3])
def test_a_change_is_told_once_after_its_commit_in_whatever_order(
    store: Store, sessions: list[Stranger], ends: Sequence[str]
) -> None:
    follower = Follower(store)
    numbers = iter(range(100, 10_000))
    for order in orders(len(ends)):
        begun: dict[int, int] = {}
        for session in order:
            if session not in begun:
                begun[session] = next(numbers)
                sessions[session].sql("BEGIN")
                sessions[session].sql(TELL.format(number=begun[session]))
                assert follower.jobs() == []
            else:
                sessions[session].sql(ends[session])
                told = [begun[session]] if ends[session] == "COMMIT" else []
                assert follower.jobs() == told, order


@pytest.mark.parametrize("ends", [*product(["COMMIT", "ROLLBACK"], repeat=2), ["COMMIT"] * 3])
def test_a_new_job_is_told_once_after_its_commit_in_whatever_order(
    store: Store, sessions: list[Stranger], ends: Sequence[str]
) -> None:
    follower = Follower(store)
    for order in orders(len(ends)):
        begun: dict[int, int] = {}
        for session in order:
            if session not in begun:
                sessions[session].sql("BEGIN")
                begun[session] = sessions[session].sql(INSERT)[0][0]
                assert follower.jobs() == []
            else:
                sessions[session].sql(ends[session])
                told = [begun[session]] if ends[session] == "COMMIT" else []
                assert follower.jobs() == told, order


def test_what_is_under_way_when_somebody_begins_to_follow_is_told(
    store: Store, sessions: list[Stranger]
) -> None:
    Follower(store)
    sessions[0].sql("BEGIN")
    sessions[0].sql(TELL.format(number=7_000))
    sessions[1].sql("BEGIN")
    (number,) = sessions[1].sql(INSERT)[0]
    late = enqueue(store)
    store.cancel(late)
    follower = Follower(store)
    for session in sessions[:2]:
        session.sql("COMMIT")
    assert follower.jobs() == [number, 7_000]


def test_a_number_is_looked_for_as_long_as_its_transaction_may_live(
    database: PostgresDatabase, store: Store, sessions: list[Stranger]
) -> None:
    follower = Follower(store, 3_600)
    for number, session in enumerate(sessions, 7_000):
        session.sql("BEGIN")
        session.sql(TELL.format(number=number))
    for number, session in enumerate(sessions, 7_000):
        assert follower.jobs() == []
        database.clock.move(OLD_MS)
        assert follower.jobs() == []
        session.sql("COMMIT")
        assert follower.jobs() == [number]


def test_a_number_that_was_rolled_back_is_given_up(
    database: PostgresDatabase, store: Store, sessions: list[Stranger]
) -> None:
    follower = Follower(store)
    for statement in (TELL.format(number=7_000), INSERT):
        sessions[0].sql("BEGIN")
        sessions[0].sql(statement)
        sessions[0].sql("ROLLBACK")
    follower.jobs()
    assert follower.cursor.late_changes
    assert follower.cursor.late_jobs
    database.clock.move(OLD_MS)
    follower.jobs()
    assert follower.cursor.late_changes == follower.cursor.late_jobs == ()


def test_what_is_looked_for_again_is_bounded(database: PostgresDatabase, store: Store) -> None:
    follower = Follower(store)
    database.sql(
        "INSERT INTO jobs (id, task) SELECT nextval('jobs_id_seq') + 0 * nextval('jobs_id_seq'),"
        f" 'app:f' FROM generate_series(1, {LATE_MOST + 10})"
    )
    assert len(follower.jobs()) == LATE_MOST + 10
    assert len(follower.cursor.late_jobs) == LATE_MOST


def test_a_bulk_that_commits_late_is_told_whatever_came_after_it(
    database: PostgresDatabase, store: Store
) -> None:
    other = database.open()
    follower = Follower(store)
    with other.transaction():
        made = [number for number, _created in other.enqueue([new()] * 50)]
        single = enqueue(store)
        assert follower.jobs() == [single]
    assert follower.jobs() == made


def test_an_old_snapshot_keeps_nobody_from_following(
    store: Store, sessions: list[Stranger]
) -> None:
    sessions[0].sql("BEGIN ISOLATION LEVEL REPEATABLE READ")
    sessions[0].sql("INSERT INTO meta (key, value) VALUES ('somebody', 'else')")
    follower = Follower(store)
    number = enqueue(store)
    assert follower.jobs() == [number]
    claim(store, life())
    assert follower.jobs() == [number]


def test_a_crash_of_the_server_is_told_as_a_gap(database: PostgresDatabase, store: Store) -> None:
    follower = Follower(store)
    database.sql(
        "INSERT INTO incarnation (name) VALUES ('after') ON CONFLICT (one) DO UPDATE SET name = 'after'"
    )
    assert not follower.look().is_complete
    assert follower.jobs() == []


def test_a_job_with_an_id_of_a_strangers_own_hides_no_other(
    database: PostgresDatabase, store: Store
) -> None:
    follower = Follower(store)
    database.sql("INSERT INTO jobs (id, task) VALUES (1000000000000, 'app:f')")
    assert follower.jobs() == []
    number = enqueue(store)
    assert follower.jobs() == [number]
