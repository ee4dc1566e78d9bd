"""Rows that strangers write with plain SQL: refused with a word, or kept and harmless to all others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobvisor.jobs.encode import Unreadable
from jobvisor.jobs.errors import JobsError, RowRefused
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import State
from jobvisor.jobs.store import Store, open_store, postgres, schema, tables
from jobvisor.jobs.store.base import Death
from tests.older import SCHEMA_0_2, SLOW, make_old, scripts
from tests.postgres import Stranger, shared
from tests.store.database import Database, PostgresDatabase
from tests.store.making import GONE, STOPPED, claim, enqueue, life, new, record
from tests.strangers import EXTREMES, LEAST, MOST, REFUSALS, STATES, written

HOUR_MS = 3_600_000


def run_good_jobs(store: Store, clock: Any) -> None:
    """Everything that a family and its people ask of a store, with a good job among it."""
    good = [enqueue(store), enqueue(store, run_in_ms=1_000)]
    clock.move(HOUR_MS)
    who = life()
    started: set[int] = set()
    for number in range(1, 200):
        store.look(["default"])
        turn = store.turn(who, number, queues=["default"], limit=50, register=number == 1)
        if not turn.jobs:
            break
        started |= {job.id for job in turn.jobs}
        records = [record(who, number, job) for job in turn.jobs]
        assert store.apply(records, who).rejected == []
    else:
        pytest.fail("the claims have no end")
    assert set(good) <= started
    assert {store.get(job).state for job in good} == {State.SUCCEEDED}
    store.promote()
    for _ in range(5):  # the fourth vanished worker fails a job
        for owner in store.ownerless(30_000):
            assert store.vanish(owner, GONE) > 0
        claim(store, life(), limit=500)
        clock.move(HOUR_MS)
    (
        store.counts(),
        store.oldest_pending(),
        store.cancelling([1]),
        store.running(),
        store.unfinished(),
    )
    store.has_work(["default"], 1), store.families(), store.strays()
    with store.snapshot():
        store.export(0, 10_000, finished=True)
    store.prune(dict.fromkeys((State.SUCCEEDED, State.CANCELLED), HOUR_MS), limit=10_000)


def look_at_all(store: Store) -> int:
    """Every row is shown, in every way; how many there are."""
    seen = store.find(limit=10_000)
    assert len(seen) == sum(sum(states.values()) for states in store.counts().values())
    for state in State:
        store.find(Filter(state=state), limit=10_000)
    for job in seen:
        json.dumps(job.as_json(), allow_nan=False)
        for run in store.attempts(job.id):
            json.dumps(run.as_json(), allow_nan=False)
    return len(seen)


@pytest.mark.parametrize("column", EXTREMES)
def test_extreme_rows_are_refused_or_shown_and_stop_nobody(
    database: Database, store: Store, column: str
) -> None:
    dates = isinstance(database, PostgresDatabase)
    kept = written(database.sql, column, STATES, dates=dates)
    assert look_at_all(store) == kept
    run_good_jobs(store, database.clock)
    look_at_all(store)


def test_a_moment_in_the_wrong_unit_is_refused_with_a_word(
    database: Database, store: Store
) -> None:
    assert store.find() == []
    value: Any = 1_700_000_000_000_000
    if isinstance(database, PostgresDatabase):
        value = "infinity"
    with pytest.raises(REFUSALS, match=r"created_at is .*of the years 1 to 9999"):
        database.sql("INSERT INTO jobs (task, created_at) VALUES ('app:f', ?)", value)


def test_what_cannot_be_read_says_why_in_its_place(database: Database, store: Store) -> None:
    database.sql("INSERT INTO jobs (task, args) VALUES ('app:f', '[{\"$nobody\": 1}]')")
    (job,) = store.find()
    value: object = job.args
    assert isinstance(value, Unreadable)
    assert "$nobody" in str(job.as_json()["args"])


def test_a_row_refused_at_its_claim_fails_alone(database: Database, store: Store) -> None:
    ids = [enqueue(store, priority=number) for number in (9, 5, 1)]
    database.refuse(f"new.id = {ids[1]} AND new.state = 'running'", "not this one")
    jobs = claim(store, life())
    assert [job.id for job in jobs] == [ids[0], ids[2]]
    culprit = store.get(ids[1])
    assert culprit.state == "failed"
    assert culprit.error is not None
    assert "not this one" in culprit.error


def test_a_row_that_nobody_may_change_stays_and_stops_no_other(
    database: Database, store: Store
) -> None:
    ids = [enqueue(store) for _ in range(3)]
    database.refuse(f"new.id = {ids[0]}", "never")
    assert [job.id for job in claim(store, life())] == ids[1:]
    later = enqueue(store)
    assert [job.id for job in claim(store, life(), limit=1)] == [later]
    assert store.get(ids[0]).state == "pending"


def test_a_row_refused_at_its_promotion_fails_alone(database: Database, store: Store) -> None:
    ids = [enqueue(store, run_in_ms=1_000) for _ in range(3)]
    database.refuse(f"new.id = {ids[0]} AND new.state = 'pending'", "not this one")
    database.clock.move(2_000)
    assert store.promote() == 2
    assert [store.get(job).state.value for job in ids] == ["failed", "pending", "pending"]


def test_a_row_refused_at_its_release_fails_alone(database: Database, store: Store) -> None:
    ids = [enqueue(store) for _ in range(3)]
    who = life()
    claim(store, who)
    database.refuse(f"new.id = {ids[0]} AND new.state = 'pending'", "not this one")
    assert store.release_rest(who.owner) == 2
    assert [store.get(job).state.value for job in ids] == ["failed", "pending", "pending"]


def test_a_row_refused_as_one_of_many_that_are_given_back_fails_alone(
    database: Database, store: Store
) -> None:
    ids = [enqueue(store) for _ in range(3)]
    who = life()
    claim(store, who)
    database.refuse(f"new.id = {ids[1]} AND new.state = 'pending'", "not this one")
    store.give_back_all(who.owner, [(job, 1, STOPPED) for job in ids])
    assert [store.get(job).state.value for job in ids] == ["pending", "failed", "pending"]
    assert [len(store.attempts(job)) for job in ids] == [1, 0, 1]


def test_a_row_refused_at_its_rescue_fails(database: Database, store: Store) -> None:
    (job, other) = [enqueue(store) for _ in range(2)]
    who = life()
    claim(store, who)
    database.refuse(f"new.id = {job} AND new.state <> 'failed'", "not this one")
    death = Death("crash", "killed", "here", 1)
    held = store.held(job, who.owner, 1)
    assert held is not None
    store.rescue(job, who.owner, held, death, 0)
    assert store.get(job).state == "failed"
    assert store.vanish(who.owner, death) == 1
    assert store.get(other).state == "pending"


def test_a_refused_new_job_is_an_error_of_ours(database: Database, store: Store) -> None:
    unknown = "CREATE UNIQUE INDEX theirs ON jobs (queue)"
    database.sql(unknown)
    enqueue(store, queue="one")
    with pytest.raises(RowRefused):
        store.enqueue([new(queue="one")])
    with pytest.raises(JobsError):
        store.enqueue([new(queue="one"), new(queue="two")])
    assert len(store.find()) == 1


def test_a_running_row_without_an_owner_is_rescued(database: Database, store: Store) -> None:
    database.sql("INSERT INTO jobs (task, state) VALUES ('app:f', 'running')")
    database.sql("INSERT INTO jobs (task, state, owner) VALUES ('app:f', 'running', 77)")
    who, mine = life(), enqueue(store)
    store.turn(who, 1, queues=["default"], limit=1, register=True)
    assert sorted(store.ownerless(30_000)) == [0, 77]
    for owner in (0, 77):
        assert store.vanish(owner, GONE) == 1
    assert [job.state.value for job in store.find()] == ["running", "pending", "pending"]
    assert store.get(mine).owner == who.owner
    assert store.ownerless(30_000) == []


# -- a table of 0.2.0, in which such rows stood already

BEFORE = """
INSERT INTO jobs (task, attempt, claims, losses) VALUES ('app:f', {most}, {most}, {least});
INSERT INTO jobs (task, created_at, claimed_at, started_at) VALUES ('app:f', {late}, {early}, {late});
INSERT INTO jobs (task, state, finished_at) VALUES ('app:f', 'failed', {late});
INSERT INTO jobs (task, state, id) VALUES ('app:f', 'running', 0);
INSERT INTO jobs (task, id) VALUES ('app:f', -7);
INSERT INTO jobs (task) VALUES ('app:good');
INSERT INTO attempts (job, attempt, owner, claim, outcome, finished_at) VALUES (0, 1, 1, 1, 'crash', {late});
INSERT INTO families VALUES
    (1, 'theirs', 'h', 'b', 1, {most}, 1, 'v', 's', {most}, {late}, {late}, NULL);
INSERT INTO owners VALUES (1, 1, 'theirs', 'h', 'b', 1, {least}, 1, {early});
"""


def old_sqlite(path: Path) -> Store:
    make_old(path, BEFORE.format(most=MOST, least=LEAST, late=MOST, early=LEAST))
    return open_store(f"sqlite:///{path}", durable=False)


def old_postgres(url: str) -> Store:
    store = open_store(url)
    assert isinstance(store, postgres.PostgresStore)
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("CREATE SCHEMA jobvisor")
        for script in scripts("postgres", SCHEMA_0_2).values():
            server.execute(store._worded(script).encode())
        server.execute("SET search_path = jobvisor")
        times = {"late": "'infinity'", "early": "'-infinity'"}
        server.execute(BEFORE.format(most=MOST, least=LEAST, **times).encode())
    return store


@pytest.fixture(params=["sqlite", "postgres"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A store on a database of 0.2.0, with the worst rows it let in."""
    if request.param == "sqlite":
        with closing(old_sqlite(tmp_path / "jobs.db")) as store:
            yield store
        return
    url = shared().new_database()
    with closing(old_postgres(url)) as store:
        yield store
    shared().drop_database(url)


def test_a_migration_brings_the_worst_rows_within_bounds(before: Store) -> None:
    newest = schema.SCHEMA if before.one_machine else tables.SCHEMA
    assert before.migrate() == (SCHEMA_0_2["sqlite" if before.one_machine else "postgres"], newest)
    seen = before.find()
    assert len(seen) == 6
    assert all(job.id > 0 and 0 <= job.attempt <= 1_000_000_000 for job in seen)
    assert all(1 <= moment.year <= 9999 for job in seen if (moment := job.started_at))
    assert [job.task for job in seen].count("app:good") == 1
    assert before.families() == []
    jobs = claim(before, life())
    assert {job.task for job in jobs} == {"app:f", "app:good"}
    assert enqueue(before) > max(job.id for job in seen)


def test_a_migration_that_takes_long_shows_again_and_again_that_it_goes_on(tmp_path: Path) -> None:
    make_old(tmp_path / "jobs.db", SLOW.format(steps=1_000_000))
    signs: list[None] = []
    with closing(open_store(f"sqlite:///{tmp_path}/jobs.db")) as store:
        store.on_migrate = lambda: signs.append(None)
        assert store.migrate() == (SCHEMA_0_2["sqlite"], schema.SCHEMA)
        assert signs
        signs.clear()
        store.counts()
        assert not signs


def test_a_migration_lets_a_turn_that_has_begun_end_first() -> None:
    url = shared().new_database()
    store, worker = old_postgres(url), Stranger(url, "jobvisor")
    try:
        worker.sql("BEGIN; SELECT 1 FROM owners FOR KEY SHARE")
        left = ["UPDATE jobs SET priority = 1; COMMIT"]  # of its turn

        def go_on() -> None:
            if left and worker.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") != [(0,)]:
                worker.sql(left.pop())

        store.on_wait = go_on
        assert store.migrate() == (SCHEMA_0_2["postgres"], tables.SCHEMA)
        assert left == []
    finally:
        worker.close()
        store.close()
        shared().drop_database(url)
