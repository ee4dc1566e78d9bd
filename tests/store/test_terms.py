"""What only few jobs have: how it is stored, found and claimed, and what a release before makes of it."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs import __version__
from jobvisor.jobs.errors import StoreRefused
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import Job, Special, State, Terms
from jobvisor.jobs.limit import limit_of
from jobvisor.jobs.store import Store, open_store, schema, tables
from jobvisor.jobs.store.finding import FIRST_LOOK
from tests.clock import StandingClock
from tests.older import SCHEMA_0_5, make_old, old_postgres
from tests.postgres import shared
from tests.store.database import Database
from tests.store.making import claim, enqueue, family, life, new
from tests.strangers import REFUSALS

TERMS = Terms(
    limit_key="stripe:7", share="tenant 7", weight=3, debounce_ms=60_000, deadline_in_ms=90_000,
    keep='{"failed": 86400000}',
)  # fmt: skip


def special_of(database: Database, job: int) -> int:
    return int(database.sql("SELECT special FROM jobs WHERE id = ?", job)[0][0])


def shown(job: Job) -> tuple[Any, ...]:
    """What is seen of these terms, the deadline as seconds from when it was first due."""
    assert job.deadline_at is not None
    ahead = (job.deadline_at - job.run_at).total_seconds()
    keep = (job.keep or {}).get("failed")
    return job.limit, job.share, job.weight, ahead, keep, job.parked, job.place


# -- stored


@pytest.mark.parametrize(
    "options", [{}, {"unique_key": "a"}, {"run_in_ms": 5_000}], ids=["plain", "unique", "later"]
)
def test_terms_come_with_a_job_however_it_is_enqueued(
    store: Store, options: dict[str, Any]
) -> None:
    made = [store.enqueue_one(new(terms=TERMS, **options))]
    options.pop("unique_key", None)
    page = [new(terms=TERMS, **options) for _ in range(101)]
    ids = [number for number, _ in store.enqueue([*page, new(), new(terms=TERMS, unique_key="b")])]
    with store.transaction():
        made.append(store.enqueue_one(new(terms=TERMS, **options)))
    found = store.get_many([*(job.id for job in made), *ids[:101], ids[102]])
    told = {shown(job) for job in (*made, *found.values())}
    assert told == {("stripe:7", "tenant 7", 3, 90.0, 86_400.0, None, None)}
    bare = store.get(ids[101])
    assert (bare.limit, bare.share, bare.deadline_at, bare.keep) == (None,) * 4


def test_a_moment_may_be_said_of_expiry_and_deadline(store: Store) -> None:
    terms = Terms(expires_at_ms=4_000_000_000_000, deadline_at_ms=5_000_000_000_000)
    ids = [number for number, _ in store.enqueue([new(terms=terms), new()])]
    for job in (store.enqueue_one(new(terms=terms)), store.get(ids[0])):
        assert job.expires_at is not None
        assert job.deadline_at is not None
        assert job.expires_at.timestamp() == 4e9
        assert job.deadline_at.timestamp() == 5e9


def test_a_claim_brings_what_is_special_and_nothing_of_an_ordinary_job(store: Store) -> None:
    store.set_limit(limit_of("stripe", concurrency=1))
    enqueue(store, terms=TERMS._replace(debounce_ms=None))
    enqueue(store)
    enqueue(store, terms=Terms(share="tenant"))
    limited = Special.LIMIT | Special.DEADLINE | Special.KEPT
    first, *others = [job.special for job in claim(store, life())]
    assert first & limited == limited
    assert others == [0, 0]


def test_a_claim_takes_the_earlier_turn_first_within_a_priority(
    store: Store, database: Database
) -> None:
    ids = [enqueue(store) for _ in range(4)]
    urgent = enqueue(store, priority=1)
    for job, turn in zip(ids, (30, 20, 0, 10), strict=True):
        database.sql("UPDATE jobs SET turn = ? WHERE id = ?", turn, job)
    database.sql("UPDATE jobs SET turn = 99 WHERE priority = 1")
    taken = [claim(store, life(), limit=1)[0].id for _ in range(5)]
    assert taken == [urgent, ids[2], ids[3], ids[1], ids[0]]


def test_a_copy_has_the_limit_and_the_share_of_its_model_and_no_deadline(
    store: Store, database: Database
) -> None:
    made = store.repeat(enqueue(store, terms=TERMS))
    assert (made.limit, made.share, made.weight, made.keep) == (
        "stripe:7", "tenant 7", 3, {"failed": 86_400.0},
    )  # fmt: skip
    assert made.deadline_at is None
    assert special_of(database, made.id) == Special.LIMIT | Special.KEPT


def test_a_requeued_job_has_no_deadline_and_no_place(store: Store, database: Database) -> None:
    job = enqueue(store, terms=TERMS)
    store.cancel(job)
    database.sql("UPDATE jobs SET limit_place = 1")
    store.requeue(job)
    found = store.get(job)
    assert (found.deadline_at, found.place, found.limit) == (None, None, "stripe:7")
    assert not special_of(database, job) & Special.DEADLINE


def test_pending_jobs_are_found_by_their_ids_where_they_have_turns(
    store: Store, database: Database
) -> None:
    ids = [enqueue(store) for _ in range(5)]
    database.sql("UPDATE jobs SET turn = 1000 - id")
    assert [job.id for job in store.find(Filter(state=State.PENDING), limit=3)] == ids[:1:-1]


def test_few_pending_jobs_are_found_behind_many_others_where_one_has_a_turn(
    store: Store, database: Database
) -> None:
    ids = [enqueue(store) for _ in range(5)]
    store.enqueue([new(run_in_ms=9_000)] * (FIRST_LOOK + 50))
    database.sql("UPDATE jobs SET turn = 5 WHERE id = ?", ids[2])
    page = store.page(Filter(state=State.PENDING), limit=5)
    assert ([job.id for job in page.jobs], page.looked) == (ids[::-1], 5)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("special", -1, "special is 0 to"),
        ("turn", -1, "turn is 0 to"),
        ("limit_key", "", "limit_key is a text of 1 to 500 characters"),
        ("share", "x" * 501, "share is a text of 1 to 500 characters"),
        ("weight", 0, "weight is 1 to 1_000"),
        ("parked", "", "parked is a text of 1 to 600 characters"),
        ("limit_place", -1, "limit_place is 0 to"),
        ("debounce_ms", -1, "debounce_ms is 0 to"),
        ("keep", "[]", "keep is the JSON of an object"),
    ],
)
def test_what_these_columns_cannot_hold_is_refused_with_a_word(
    database: Database, store: Store, column: str, value: Any, words: str
) -> None:
    assert store.find() == []
    # PostgreSQL looks at few columns of a row of which nothing is said to be special.
    columns, values = ("special", "?") if column == "special" else (f"special, {column}", "8, ?")
    with pytest.raises(REFUSALS, match=words):
        database.sql(f"INSERT INTO jobs (task, {columns}) VALUES ('app:f', {values})", value)


# -- beside a release before


def test_a_job_on_terms_is_refused_while_an_older_family_is_at_work(store: Store) -> None:
    store.add_family(family(version="0.2.0"))
    words = "enqueued with limit, deadline, and a family of release '0.2.0' is at work"
    for jobs in (
        [new(terms=Terms(limit_key="a", deadline_in_ms=5))],
        [new(), new(terms=Terms(limit_key="a", deadline_in_ms=5))],
    ):
        with pytest.raises(StoreRefused, match=words):
            store.enqueue(jobs)
    assert store.find() == []
    enqueue(store)
    store.remove_family(1)
    assert enqueue(store, terms=TERMS)


@pytest.mark.parametrize("version", [__version__, "99.1", "of somebody", "9" * 400])
def test_a_family_of_this_release_or_of_nobody_knows_is_in_no_ones_way(
    store: Store, version: str
) -> None:
    store.add_family(family(version=version))
    assert enqueue(store, terms=TERMS)


def test_a_bulk_that_is_refused_leaves_nothing_in_its_callers_transaction(store: Store) -> None:
    store.add_family(family(version="0.5.0"))
    jobs = [*[new()] * 101, new(terms=Terms()), new(terms=Terms(share="a"))]
    with store.transaction(), suppress(StoreRefused):
        store.enqueue(jobs)
    assert store.find() == []


def test_neither_a_copy_nor_an_import_goes_past_an_older_family(
    store: Store, database: Database
) -> None:
    job = enqueue(store, terms=Terms(limit_key="a"))
    plain = enqueue(store)
    rows = store.export(0, 10, finished=True)
    store.add_family(family(version="0.5.0"))
    database.clock.move(10_000)
    with pytest.raises(StoreRefused, match=f"job {job} .* has limit, and a family of release"):
        store.repeat(job)
    store.cancel(job)
    store.cancel(plain)
    assert store.delete([job, plain]) == [job, plain]
    with pytest.raises(StoreRefused, match="has limit_key, special, and a family of release"):
        store.import_(rows)
    assert store.find() == []
    assert store.import_(rows[1:]) == (1, 0)
    assert store.repeat(plain).limit is None


def test_a_family_that_was_killed_is_in_no_ones_way(store: Store, database: Database) -> None:
    store.add_family(family(version="0.2.0", dead_after_ms=1_000))
    database.clock.move(1_001)
    assert enqueue(store, terms=TERMS)


def test_families_are_looked_at_every_ten_seconds() -> None:
    clock = StandingClock()
    with closing(open_store("memory://", clock=clock)) as store:
        enqueue(store, terms=TERMS)
        store.add_family(family(version="0.2.0"))
        for passed_ms in (0, 9_900):
            clock.move(passed_ms)
            enqueue(store, terms=TERMS)
        clock.move(100)
        with pytest.raises(StoreRefused):
            enqueue(store, terms=TERMS)


FILLED = (
    "INSERT INTO jobs (task, state, priority) VALUES ('app:f', 'pending', 1), ('app:f', 'pending', 2),"
    " ('app:g', 'blocked', 0);"
)


def test_a_filled_file_of_0_5_0_becomes_ours(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    make_old(path, FILLED, numbers=SCHEMA_0_5)
    with closing(open_store(f"sqlite:///{path}")) as store:
        assert store.migrate() == (5, schema.SCHEMA)
        assert [(job.id, job.special) for job in claim(store, life())] == [(2, 0), (1, 0)]


def test_filled_tables_of_0_5_0_become_ours() -> None:
    url = shared().new_database()
    try:
        with closing(old_postgres(url, FILLED, numbers=SCHEMA_0_5)) as store:
            assert store.migrate() == (4, tables.SCHEMA)
            assert [(job.id, job.special) for job in claim(store, life())] == [(2, 0), (1, 0)]
    finally:
        shared().drop_database(url)


#: What 0.5.0 asks of an index by its name.
NAMED = {
    "jobs_listed": "state = 'failed' AND NOT (state > 'g' AND state <> 'scheduled')",
    "jobs_scheduled": "state = 'scheduled'",
    "jobs_pending": "state = 'pending' AND queue = 'q' AND priority = 1 AND id < 9 ORDER BY id DESC",
    "jobs_blocked": "state = 'blocked'",
    "jobs_running": "state = 'running'",
    "jobs_finished": "state = 'succeeded' AND finished_at IS NOT NULL",
    "jobs_failures": "state = 'failed' AND task = 'app:f'",
    "jobs_unknown": "state = 'scheduled' AND deferred = 'unknown' GROUP BY task ORDER BY task",
    "jobs_cancelling": "state = 'running' AND cancel_requested = 1 ORDER BY id",
}


@pytest.mark.parametrize("index", NAMED)
def test_the_indexes_that_0_5_0_names_are_still_of_use_to_it(tmp_path: Path, index: str) -> None:
    path = tmp_path / "jobs.db"
    with closing(open_store(f"sqlite:///{path}")) as store:
        store.migrate()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"SELECT id FROM jobs INDEXED BY {index} WHERE {NAMED[index]}")
