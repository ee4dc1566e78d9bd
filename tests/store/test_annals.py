"""What is kept beside the jobs: sums by the minute, who did what, and the tasks that workers have."""

from __future__ import annotations

import re
import uuid
from contextlib import closing
from pathlib import Path

import pytest

from jobvisor.jobs.annals import Sums
from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.errors import StoreRefused, StoreUnavailable
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.store import Store, open_store, schema, tables
from jobvisor.jobs.store.annals import REQUESTS_KEPT_MS, STATS_KEPT_MS, TASKS_KEPT_MS
from tests.clock import MovableClock
from tests.older import SCHEMA_0_4, make_old, old_postgres
from tests.postgres import Given, shared
from tests.store.database import Database, PostgresDatabase
from tests.store.making import new
from tests.store.staged import client_of

MINUTE = 60_000

#: What `grants` told in 0.4.0, by what a role is for.
_TABLES_0_4 = "jobs, attempts, families, owners"
GRANTS_0_4 = {
    "enqueue": (
        "SELECT ON jobs, meta",
        "INSERT ON jobs",
        "USAGE ON SEQUENCE jobs_id_seq",
        "SELECT, UPDATE ON SEQUENCE woken",
    ),
    "work": (
        f"SELECT, INSERT, UPDATE, DELETE ON {_TABLES_0_4}",
        "SELECT ON changes, meta, jobs_readable, attempts_readable",
        "SELECT, USAGE, UPDATE ON SEQUENCE jobs_id_seq, woken",
        "SELECT ON SEQUENCE changes_number_seq",
    ),
    "read": (
        f"SELECT ON {_TABLES_0_4}, changes, meta, jobs_readable, attempts_readable",
        "SELECT ON SEQUENCE jobs_id_seq, changes_number_seq",
    ),
}


def test_sums_of_several_families_add_up(store: Store) -> None:
    rows = [
        Sums(5 * MINUTE + 7, "mail", succeeded=2, run_ms=30, wait_max_ms=5, depth=4),
        Sums(5 * MINUTE, "mail", succeeded=1, failed=1, wait_max_ms=9, oldest_ms=8),
        Sums(5 * MINUTE, "other", retried=1, depth=2),
        Sums(6 * MINUTE, "mail", started=1, depth=1),
    ]
    store.add_stats(rows[:1])
    store.add_stats(rows[1:])
    mail = Sums(
        5 * MINUTE, "mail", succeeded=3, failed=1, run_ms=30, wait_max_ms=9, depth=4, oldest_ms=8
    )
    assert store.stats(0, 9 * MINUTE, step_ms=MINUTE, limit=9) == [mail, rows[2], rows[3]]
    assert store.stats(0, 6 * MINUTE, step_ms=MINUTE, queue="mail", limit=9) == [mail]
    both = mail._replace(at_ms=5 * MINUTE, queue="", retried=1, started=1, depth=6)
    assert store.stats_of_all(0, 9 * MINUTE, step_ms=5 * MINUTE, limit=9) == [both]
    store.add_stats([])


def test_old_sums_go_and_so_do_those_of_a_wrong_clock(store: Store, clock: MovableClock) -> None:
    now = clock.now_ms()
    for minute in (now - STATS_KEPT_MS - MINUTE, now, now + STATS_KEPT_MS + 2 * MINUTE):
        store.add_stats([Sums(minute, "mail", failed=1)])
    assert not store.trim_stats()
    kept = store.stats(0, 1 << 45, step_ms=MINUTE, limit=9)
    assert [row.at_ms for row in kept] == [now // MINUTE * MINUTE]


def test_who_did_what_is_told_the_newest_first(store: Store, clock: MovableClock) -> None:
    store.note_action("ada", "requeue", "state=failed \0\ud800\x1b%_\\ \U0001f600", 12)
    clock.move(5)
    store.note_action("b" * 999, "cancel", "job 7", None)
    second, first = store.actions()
    assert first[2:] == ("ada", "requeue", "state=failed \ufffd\ufffd\ufffd%_\\ \U0001f600", 12)
    assert first.at == to_datetime(clock.now_ms() - 5)
    assert (len(second.who), second.number) == (200, None)
    assert store.actions(limit=1) == [second]
    assert store.actions(before=second.id) == [first]


def test_tasks_are_known_for_30_days_after_they_were_seen(
    store: Store, clock: MovableClock
) -> None:
    store.note_tasks({"app:f": '{"queue":"mail"}', "app:g": "{}"})
    clock.move(TASKS_KEPT_MS)
    store.note_tasks({"app:f": '{"queue":"other"}', "app:h": "[]"})
    now = to_datetime(clock.now_ms())
    known = [task.as_json()["name"] for task in store.tasks()]
    assert known == ["app:f", "app:g", "app:h"]
    assert store.tasks(limit=1) == [("app:f", {"queue": "other"}, now)]
    assert [task.name for task in store.tasks(after="app:g")] == ["app:h"]
    clock.move(1)
    store.note_tasks({})
    assert [task.name for task in store.tasks()] == ["app:f", "app:h"]


def test_what_a_stranger_wrote_hides_no_task(store: Store, database: Database) -> None:
    store.note_tasks({"app:f": "{}"})
    database.sql("UPDATE tasks SET told = 'no JSON'")
    assert [(task.name, task.told) for task in store.tasks()] == [("app:f", {})]


@pytest.mark.parametrize("step", [0, 1, 59_999])
def test_a_step_is_a_minute_at_least(store: Store, step: int) -> None:
    store.add_stats([Sums(MINUTE, "mail", failed=1)])
    assert len(store.stats(0, 9 * MINUTE, step_ms=step, limit=9)) == 1


def test_a_request_is_known_by_its_key_for_a_day(store: Store, clock: MovableClock) -> None:
    with store.transaction():
        assert store.note_request("a", "digest") is None
        store.answer_request("a", [3, 1])
    clock.move(REQUESTS_KEPT_MS - 1)
    assert store.note_request("a", "other") == ("digest", [3, 1])
    clock.move(2)
    assert store.note_request("a", "other") is None


def test_a_request_whose_transaction_fails_was_never_made(store: Store) -> None:
    def fail() -> None:
        with store.transaction():
            store.note_request("a", "digest")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert store.note_request("a", "digest") is None


def test_old_requests_go_a_page_at_a_time(
    store: Store, clock: MovableClock, database: Database
) -> None:
    for number in range(5):
        store.note_request(f"key {number}", "digest")
    clock.move(REQUESTS_KEPT_MS + 1)
    store.note_request("new", "digest")
    assert database.sql("SELECT key FROM requests") == [("new",)]


def test_a_request_that_is_never_there_when_it_is_looked_for_is_refused(
    store: Store, database: Database
) -> None:
    if isinstance(database, PostgresDatabase):
        database.sql(
            "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
        )
        database.sql(
            "CREATE TRIGGER away BEFORE INSERT ON requests FOR EACH ROW EXECUTE FUNCTION away()"
        )
    else:
        database.sql(
            "CREATE TRIGGER away BEFORE INSERT ON requests BEGIN SELECT RAISE(IGNORE); END"
        )
    with pytest.raises(StoreUnavailable, match="taken and freed 10 times meanwhile; try again"):
        store.note_request("a", "digest")


def test_a_task_may_tell_half_of_a_letter(store: Store, clock: MovableClock) -> None:
    told = {"doc": "half of \ud83d", "options": {"queue": "é"}}
    with client_of(store, clock) as client:
        client.note_tasks({"app:f": told, "app:g\ud83d": {}})
        assert [(each.name, each.told) for each in client.tasks()] == [
            ("app:f", told), ("app:g\ufffd", {}),
        ]  # fmt: skip


def test_what_a_stranger_wrote_as_the_jobs_of_a_request_is_none(
    store: Store, database: Database
) -> None:
    store.note_request("a", "digest")
    for text in ("no JSON", '{"a": 1}', '["x"]'):
        database.sql(f"UPDATE requests SET jobs = '{text}'")
        assert store.note_request("a", "digest") == ("digest", [])


# -- the release before

FAILED = (
    "INSERT INTO jobs (task, state, error, finished_at) SELECT 'app:f', 'failed', 'E: no', run_at "
    "FROM jobs WHERE state = 'pending'"
)
FILLED = f"INSERT INTO jobs (task) VALUES ('app:f'), ('app:g'); {FAILED}"


def check_migrated(store: Store, before: int, newest: int) -> None:
    assert store.migrate() == (before, newest)
    assert [(group.error_type, group.jobs.number) for group in store.failures().groups] == [
        ("E", 2)
    ]
    assert [job.id for job in store.find(Filter(state="failed"))] == [4, 3]
    store.note_action("ada", "requeue", "state=failed", 2)
    store.requeue(3)
    assert store.tally().queues["default"] == {"pending": 3, "failed": 1}
    assert len(store.actions()) == 1


def test_filled_tables_of_the_release_before_are_brought_up_on_sqlite(tmp_path: Path) -> None:
    make_old(tmp_path / "jobs.db", FILLED, numbers=SCHEMA_0_4)
    with closing(open_store(f"sqlite:///{tmp_path}/jobs.db", durable=False)) as store:
        check_migrated(store, SCHEMA_0_4["sqlite"], schema.SCHEMA)


def test_filled_tables_of_the_release_before_are_brought_up_on_postgresql() -> None:
    url = shared().new_database()
    with closing(old_postgres(url, FILLED, numbers=SCHEMA_0_4)) as store:
        check_migrated(store, SCHEMA_0_4["postgres"], tables.SCHEMA)
    shared().drop_database(url)


def test_roles_that_were_granted_their_rights_before_are_given_them_for_these_tables() -> None:
    if isinstance(shared(), Given):
        pytest.skip("a role would outlive the test on somebody's server")
    url = shared().new_database()
    owner = old_postgres(url, "SELECT 1", numbers=SCHEMA_0_4)
    database, roles = url.rpartition("/")[2], {}
    for purpose in ("work", "read", "enqueue"):
        roles[purpose] = f"{purpose}_{uuid.uuid4().hex[:8]}"
        shared().sql(f"CREATE ROLE {roles[purpose]} LOGIN")
        shared().sql(f"GRANT USAGE ON SCHEMA jobvisor TO {roles[purpose]}", database=database)
        for granted in GRANTS_0_4[purpose]:
            told = f"SET search_path = jobvisor; GRANT {granted} TO {roles[purpose]}"
            shared().sql(told, database=database)
    owner.migrate()
    stores = {
        purpose: open_store(re.sub(r"//[^@]*@", f"//{role}@", url))
        for purpose, role in roles.items()
    }
    stores["work"].add_stats([Sums(MINUTE, "mail", failed=1)])
    stores["work"].note_action("ada", "cancel", "job 7", None)
    stores["work"].note_tasks({"app:f": "{}"})
    assert not stores["work"].trim_stats()
    assert len(stores["read"].actions()) == 1
    assert [task.name for task in stores["read"].tasks()] == ["app:f"]
    stores["work"].pause("queue", "mail")
    assert [paused.name for paused in stores["read"].paused()] == ["mail"]
    assert stores["enqueue"].enqueue_one(new(unique_key="k")).created
    for refused in (lambda: stores["read"].note_tasks({}), stores["enqueue"].actions):
        with pytest.raises(StoreRefused, match="this user lacks a privilege"):
            refused()
    for store in (owner, *stores.values()):
        store.close()
    shared().drop_database(url)
    for role in roles.values():
        shared().sql(f"DROP ROLE {role}")
