"""What comes with a job, and what its runs leave: headers, parent, company, cost, last words."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.job import State
from jobvisor.jobs.store import Store, open_store, schema, tables
from jobvisor.jobs.store.base import Death, Record
from tests.older import SCHEMA_0_3, make_old, old_postgres
from tests.postgres import shared
from tests.store.database import Database
from tests.store.making import CRASH, STOPPED, claim, enqueue, held, life, new, record, running
from tests.strangers import REFUSALS

HEADERS = '{"trace":"4bf9","user":7}'
COST: dict[str, Any] = {"cpu_ms": 1_234, "rss_bytes": 5 << 20}


def costly(made: Record, **values: Any) -> Record:
    """The same record of a run whose cost is known."""
    return made._replace(**COST, **values)


# -- headers and parent


@pytest.mark.parametrize(
    "options", [{}, {"unique_key": "a"}, {"run_in_ms": 5}], ids=["plain", "unique", "later"]
)
def test_headers_and_parent_come_with_a_job_however_it_is_enqueued(
    store: Store, options: dict[str, Any]
) -> None:
    bare = enqueue(store)
    told = {"headers": HEADERS, "parent": bare}
    made = [store.enqueue_one(new(**told, **options))]
    options.pop("unique_key", None)
    many = store.enqueue([new(**told, **options), new(**told, unique_key="b"), new()])
    with store.transaction():
        made.append(store.enqueue_one(new(**told, **options)))
    jobs = [store.get(number) for number in (*(job.id for job in made), many[0][0], many[1][0])]
    assert {(job.headers["trace"], job.headers["user"], job.parent) for job in (*jobs, *made)} == {
        ("4bf9", 7, bare)
    }
    assert [(job.headers, job.parent) for job in (store.get(bare), store.get(many[2][0]))] == [
        ({}, None)
    ] * 2


def test_a_whole_page_of_jobs_keeps_its_headers(store: Store) -> None:
    with_headers = [new(headers=f'{{"trace":"{n}"}}', parent=n + 1) for n in range(201)]
    ids = [number for number, _ in store.enqueue(with_headers)]
    found = store.get_many(ids)
    assert [(found[n].headers, found[n].parent) for n in ids] == [
        ({"trace": str(n)}, n + 1) for n in range(201)
    ]


def test_a_claim_brings_headers_and_company(store: Store, database: Database) -> None:
    enqueue(store, headers=HEADERS)
    enqueue(store)
    database.sql("UPDATE jobs SET company = 3 WHERE headers IS NULL")
    assert [(job.headers, job.company) for job in claim(store, life())] == [
        (HEADERS, None),
        (None, 3),
    ]


def test_headers_that_cannot_be_read_say_why_in_their_place(
    store: Store, database: Database
) -> None:
    # Python has no such number; a database that let it in must not hide the others.
    database.sql("INSERT INTO jobs (task, headers) VALUES ('app:f', ?)", '{"a": 1e999}')
    deep = '{"a": ' + "[" * 900 + "]" * 900 + "}"
    database.sql("INSERT INTO jobs (task, headers) VALUES ('app:f', ?)", deep)
    told = [job.as_json()["headers"] for job in store.find()]
    assert len(told) == 2
    assert "$unreadable" in told[1]


# -- what a run left


@pytest.mark.parametrize("verb", ["succeed", "retry", "fail", "snooze", "cancel"])
def test_an_end_tells_what_the_run_cost_and_clears_it_of_suspicion(
    store: Store, database: Database, verb: str
) -> None:
    who, job = running(store)
    database.sql("UPDATE jobs SET company = 2")
    said = "x" * 20_000 + "\0last words"
    assert store.apply([costly(record(who, 1, job, verb), said=said)], who).changed == 1
    row = store.get(job.id)
    assert (row.cpu_ms, row.rss_bytes, row.company) == (1_234, 5 << 20, None)
    runs = [(run.cpu_ms, run.rss_bytes) for run in store.attempts(job.id)]
    assert runs == ([] if verb == "snooze" else [(1_234, 5 << 20)])
    for run in store.attempts(job.id):
        assert run.said is not None
        assert run.said.endswith("\ufffdlast words")
        assert len(run.said.encode()) <= 16 * 1024


def test_words_of_many_successes_are_kept_once_each_and_only_of_rows_that_stand_so(
    store: Store,
) -> None:
    who = life()
    store.enqueue([new() for _ in range(4)])
    jobs = claim(store, who, limit=4)
    made = [record(who, 1, job)._replace(said=f"of {job.id}", cpu_ms=5) for job in jobs]
    made[1] = made[1]._replace(said=None)
    made[2] = made[2]._replace(claim=9)  # another claim has it
    for _ in range(2):
        store.apply(made, who)
    kept = [store.attempts(job.id) for job in jobs]
    assert [[(run.outcome, run.said, run.cpu_ms) for run in runs] for runs in kept] == [
        [("succeeded", f"of {jobs[0].id}", 5)], [], [], [("succeeded", f"of {jobs[3].id}", 5)],
    ]  # fmt: skip
    assert kept[0][0].finished_at == store.get(jobs[0].id).finished_at


def test_where_successes_are_not_kept_their_words_are_not_either(store: Store) -> None:
    who, job = running(store)
    store.apply([record(who, 1, job)._replace(said="x")], who, forget_succeeded=True)
    assert store.attempts(job.id) == []


def test_many_successes_tell_what_each_of_them_cost(store: Store) -> None:
    who = life()
    store.enqueue([new() for _ in range(120)])
    jobs = claim(store, who, limit=200)
    made = [record(who, 1, job)._replace(cpu_ms=job.id, rss_bytes=job.id << 20) for job in jobs]
    made[7] = record(who, 1, jobs[7])
    assert store.apply(made, who).changed == 120
    assert {(job.cpu_ms, job.rss_bytes) for job in store.find(limit=200)} == {
        *((each.cpu_ms, each.rss_bytes) for each in made)
    }


def test_a_cost_that_no_run_can_have_loses_no_outcome(store: Store) -> None:
    who = life()
    store.enqueue([new() for _ in range(60)])
    made = [record(who, 1, job)._replace(cpu_ms=-1, rss_bytes=2**63) for job in claim(store, who)]
    assert store.apply(made, who).changed == 60
    assert {(job.state.value, job.cpu_ms, job.rss_bytes) for job in store.find(limit=60)} == {
        ("succeeded", 0, 2**62)
    }


def test_a_death_tells_where_the_job_stood_and_what_it_had_said_and_cost(store: Store) -> None:
    who, job = running(store)
    death = CRASH._replace(stack="s" * 9_000, said="one\ntwo", **COST)
    store.rescue(job.id, who.owner, held(store, job.id, who), death, 0)
    (run,) = store.attempts(job.id)
    assert (run.stack, run.said, run.cpu_ms, run.rss_bytes) == (
        "s" * 8_192, "one\ntwo", 1_234, 5 << 20,
    )  # fmt: skip
    row = store.get(job.id)
    assert (row.cpu_ms, row.rss_bytes) == (1_234, 5 << 20)


def test_a_job_that_is_given_back_keeps_its_history_and_its_company(store: Store) -> None:
    who, job = running(store)
    store.give_back(
        job.id, who.owner, held(store, job.id, who), STOPPED._replace(stack="here", company=4)
    )
    assert store.get(job.id).company == 4
    assert store.attempts(job.id)[0].stack == "here"
    for number, company, left in ((2, 9, 4), (3, None, 4), (4, 2, 2)):
        claim(store, who, number)
        death = CRASH._replace(company=company)
        store.rescue(job.id, who.owner, held(store, job.id, who, number), death, 0)
        assert store.get(job.id).company == left
    (again,) = claim(store, who, 5)
    store.apply([record(who, 5, again, "release")], who)
    assert store.get(job.id).company == 2
    claim(store, who, 6)
    store.release_rest(who.owner)
    assert store.get(job.id).company == 2
    for number, company, left in ((7, None, 2), (8, 5, 2), (9, 1, 1)):
        claim(store, who, number)
        death = STOPPED._replace(company=company)
        assert store.give_back_all(who.owner, [(job.id, number, death)]) == [job.id]
        assert store.get(job.id).company == left
    claim(store, who, 10)
    store.vanish(who.owner, Death("vanished", "gone", "here", 1))
    assert store.get(job.id).company == 1


def test_a_requeued_job_has_cost_nothing_yet(store: Store) -> None:
    who, job = running(store, headers=HEADERS)
    store.apply([costly(record(who, 1, job))], who)
    store.requeue(job.id)
    row = store.get(job.id)
    assert (row.cpu_ms, row.rss_bytes, row.headers) == (None, None, {"trace": "4bf9", "user": 7})


# -- strangers, and releases before


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("headers", "[1]", "headers is a JSON object of at most 4 KiB"),
        ("headers", f'{{"a": "{"x" * 4_096}"}}', "headers is a JSON object of at most 4 KiB"),
        ("parent", 0, r"parent is 1 to 2\*\*62"),
        ("company", 0, "company is 1 to 32_767"),
        ("cpu_ms", -1, r"cpu_ms is 0 to 10\*\*12"),
        ("rss_bytes", -1, r"rss_bytes is 0 to 2\*\*62"),
    ],
)
def test_what_these_columns_cannot_hold_is_refused_with_a_word(
    database: Database, store: Store, column: str, value: Any, words: str
) -> None:
    assert store.find() == []
    with pytest.raises(REFUSALS, match=words):
        database.sql(f"INSERT INTO jobs (task, {column}) VALUES ('app:f', ?)", value)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("stack", "x" * 8_193, "stack is at most 8 KiB"),
        ("said", "x" * 16_385, "said is at most 16 KiB"),
        ("cpu_ms", -1, r"cpu_ms is 0 to 10\*\*12"),
        ("rss_bytes", -1, r"rss_bytes is 0 to 2\*\*62"),
    ],
)
def test_the_same_of_an_attempt(
    database: Database, store: Store, column: str, value: Any, words: str
) -> None:
    job = enqueue(store)
    insert = (
        f"INSERT INTO attempts (job, attempt, owner, claim, outcome, finished_at, {column}) "
        "SELECT id, 1, 1, 1, 'error', created_at, ? FROM jobs"
    )
    with pytest.raises(REFUSALS, match=words):
        database.sql(insert, value)
    assert store.attempts(job) == []


#: What 0.3.0 says to the tables in a turn, but for the clock.
BEFORE = {
    "enqueue": "INSERT INTO jobs (task, args, kwargs, queue, priority, state, attempts_max, timeout_ms, "
    "memory_bytes) VALUES ('app:f', '[]', '{}', 'default', 0, 'pending', 4, 0, 0)",
    "claim": "UPDATE jobs SET state = 'running', attempt = attempt + 1, claims = claims + 1, owner = 5, "
    "claim = 1, claimed_at = run_at, started_at = run_at, deferred = NULL, progress = NULL "
    "WHERE state = 'pending'",
    "succeed": "UPDATE jobs SET state = 'succeeded', result = NULL, error = NULL, finished_at = run_at "
    "WHERE id = 1 AND state = 'running' AND owner = 5 AND claim = 1",
    "fail": "UPDATE jobs SET state = 'failed', error = 'no', finished_at = run_at "
    "WHERE id = 2 AND state = 'running' AND owner = 5 AND claim = 1",
    "add_attempt": "INSERT INTO attempts (job, attempt, owner, claim, outcome, error_type, message, "
    "traceback, host, pid, exit_code, signal, verdict, started_at, finished_at) "
    "SELECT 2, 1, 5, 1, 'error', 'E', 'm', NULL, 'h', 1, NULL, NULL, NULL, run_at, run_at "
    "FROM jobs WHERE id = 2",
}  # fmt: skip


def test_a_release_that_does_not_know_these_columns_works_on_beside(
    database: Database, store: Store
) -> None:
    assert store.find() == []
    for name in ("enqueue", "enqueue", "claim", "succeed", "fail", "add_attempt"):
        database.sql(BEFORE[name])
    assert [job.state.value for job in store.find()] == ["failed", "succeeded"]
    (run,) = store.attempts(2)
    assert (run.stack, run.said, run.cpu_ms, run.rss_bytes) == (None, None, None, None)
    store.requeue(1)
    mine = enqueue(store, headers=HEADERS)
    database.sql(BEFORE["claim"])
    assert store.get(mine).state is State.RUNNING
    assert store.get(mine).headers == {"trace": "4bf9", "user": 7}


FILLED = "; ".join(
    [BEFORE["enqueue"]] * 3 + [BEFORE[name] for name in ("claim", "succeed", "fail", "add_attempt")]
)


def check_migrated(store: Store, before: int, newest: int) -> None:
    assert store.migrate() == (before, newest)
    assert [job.state.value for job in store.find()] == ["running", "failed", "succeeded"]
    assert {(job.company, job.parent, job.cpu_ms) for job in store.find()} == {(None, None, None)}
    assert store.attempts(2)[0].said is None
    assert store.vanish(5, CRASH) == 1
    assert [job.id for job in claim(store, life())] == [3]


def test_filled_tables_of_the_release_before_are_brought_up_on_sqlite(tmp_path: Path) -> None:
    make_old(tmp_path / "jobs.db", FILLED, numbers=SCHEMA_0_3)
    with closing(open_store(f"sqlite:///{tmp_path}/jobs.db", durable=False)) as store:
        check_migrated(store, SCHEMA_0_3["sqlite"], schema.SCHEMA)


def test_filled_tables_of_the_release_before_are_brought_up_on_postgresql() -> None:
    url = shared().new_database()
    with closing(old_postgres(url, FILLED, numbers=SCHEMA_0_3)) as store:
        check_migrated(store, SCHEMA_0_3["postgres"], tables.SCHEMA)
    shared().drop_database(url)


def test_people_see_these_columns_in_the_views(database: Database, store: Store) -> None:
    who, job = running(store, headers=HEADERS)
    store.apply([costly(record(who, 1, job, "fail"), said="bye")], who)
    found = database.sql("SELECT headers, parent, company, cpu_ms, rss_bytes FROM jobs_readable")
    assert [tuple(row)[1:] for row in found] == [(None, None, 1_234, 5 << 20)]
    assert database.sql("SELECT stack, said, cpu_ms FROM attempts_readable") == [
        (None, "bye", 1_234)
    ]
