"""Schedules in the table: who declares them, who may change them, and what becomes of those nobody names."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress

import pytest

from jobvisor.jobs.errors import RowRefused, ScheduleNotFound, ScheduleTaken
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.schedule import CODE, CONFIG, Declared, Plan, ScheduleRow, planned
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.postgres import PostgresStore
from jobvisor.jobs.store.schedules import TICKS_KEPT_MS
from jobvisor.jobs.task import Call
from jobvisor.jobs.timing import timing_of
from tests.clock import MovableClock
from tests.store.database import Database
from tests.store.making import family
from tests.strangers import REFUSALS
from tests.waiting import eventually


def plan(name: str = "nightly", cron: str = "0 3 * * *", **more: object) -> Plan:
    made = planned(name, Call("app:report"), timing_of(cron=cron), payload=Payload())
    return made._replace(**more)  # type: ignore[arg-type]  # of its fields


def row(store: Store, name: str = "nightly") -> ScheduleRow:
    return store.schedule(name).row


def names(store: Store) -> list[str]:
    return [seen.row.name for seen in store.schedules()]


def enter(store: Store, number: int) -> int:
    store.add_family(family(number))
    return number


def test_what_is_declared_is_there_with_the_moment_from_which_it_ticks(
    store: Store, clock: MovableClock
) -> None:
    assert not store.has_schedules()
    told = store.declare_schedules(CONFIG, "main", 7, [plan(), plan("b", paused=True)])
    assert (told.changed, told.removed, told.refused) == (["b", "nightly"], [], {})
    assert store.has_schedules()
    assert row(store) == ScheduleRow(
        "nightly", CONFIG, "main", '["7"]', "app:report", "0 3 * * *", None, 0, "UTC", "[]", "{}",
        row(store).keys, None, "latest", "allow", 0, None, clock.now_ms(), None, clock.now_ms(),
    )  # fmt: skip
    assert row(store, "b").is_paused
    clock.move(5)
    assert (
        store.declare_schedules(CONFIG, "main", 7, [plan(), plan("b", paused=True)]).changed == []
    )
    assert row(store).last_tick == clock.now_ms() - 5


def test_another_timing_ticks_from_now_on_and_so_does_the_end_of_a_pause(
    store: Store, clock: MovableClock
) -> None:
    store.declare_schedules(CONFIG, "main", 7, [plan(), plan("b", paused=True), plan("c")])
    clock.move(60_000)
    changed = [plan(cron="0 4 * * *"), plan("b"), plan("c", queue="other")]
    assert store.declare_schedules(CONFIG, "main", 7, changed).changed == ["b", "c", "nightly"]
    since = {name: row(store, name).last_tick - clock.now_ms() for name in ("nightly", "b", "c")}
    assert since == {"nightly": 0, "b": 0, "c": -60_000}


def test_what_a_start_names_no_more_goes_once_no_living_family_of_the_name_declares_it(
    store: Store,
) -> None:
    old, new = enter(store, 1), enter(store, 2)
    store.declare_schedules(CONFIG, "main", old, [plan("a"), plan("b")])
    store.declare_schedules(CONFIG, "other", 9, [plan("x")])
    told = store.declare_schedules(CONFIG, "main", new, [plan("a"), plan("c")])
    assert (told.changed, told.removed) == (["c"], [])
    assert store.sweep_schedules(CONFIG, "main", new) == []
    assert names(store) == ["a", "b", "c", "x"]
    store.remove_family(old)
    assert store.sweep_schedules(CONFIG, "main", new) == ["b"]
    assert json.loads(row(store, "a").declared_by) == ["1", "2"]
    # The same family after a reload; x is of families of another name, of which none is there.
    assert store.declare_schedules(CONFIG, "main", new, [plan("c")]).removed == ["a"]
    assert names(store) == ["c", "x"]


def test_all_that_declare_a_new_name_at_once_are_noted(store: Store, database: Database) -> None:
    if not isinstance(store, PostgresStore):
        pytest.skip("one at a time writes to SQLite")
    other, found = database.open(), list[Declared]()
    for number in (1, 2):
        enter(store, number)
    second = threading.Thread(
        target=lambda: found.append(other.declare_schedules(CODE, "main", 2, [plan()]))
    )
    with store.transaction():
        store.declare_schedules(CODE, "main", 1, [plan()])
        second.start()
        eventually(lambda: waiting(database), what="the second waits")
    second.join()
    assert json.loads(row(store).declared_by) == ["1", "2"]
    assert found[0].changed == []


def test_whoever_waits_to_declare_or_to_sweep_asks_then_which_families_live(
    store: Store, database: Database
) -> None:
    if not isinstance(store, PostgresStore):
        pytest.skip("one at a time writes to SQLite")
    verbs: list[Callable[[Store], object]] = [
        lambda other: other.declare_schedules(CODE, "main", 1, [plan("y")]),
        lambda other: other.sweep_schedules(CODE, "main", 1),
    ]
    enter(store, 1)
    for number, verb in enumerate(verbs, 2):
        store.declare_schedules(CODE, "main", 99, [plan("left")])  # by one that is gone
        other = database.open()
        second = threading.Thread(target=verb, args=(other,))
        with store.transaction():
            enter(store, number)
            store.declare_schedules(CODE, "main", number, [plan("x"), plan("left")])
            database.sql("SELECT 1")
            second.start()
            eventually(lambda: waiting(database), what="the second waits")
        second.join()
        assert json.loads(row(store, "x").declared_by) == [str(number)]
        store.remove_family(number)


def waiting(database: Database) -> bool:
    return bool(database.sql("SELECT 1 FROM pg_locks WHERE NOT granted"))


def test_the_last_start_of_a_name_wins(store: Store) -> None:
    store.declare_schedules(CONFIG, "main", enter(store, 1), [plan(cron="0 1 * * *")])
    store.declare_schedules(CONFIG, "main", enter(store, 2), [plan(cron="0 2 * * *")])
    assert row(store).cron == "0 2 * * *"


def test_keys_that_a_worker_has_made_stay_while_the_call_is_the_same(store: Store) -> None:
    store.declare_schedules(CONFIG, "main", 1, [plan(keys='{"limit": "a"}')])
    assert store.declare_schedules(CONFIG, "main", 1, [plan(keys='{"same": "b"}')]).changed == []
    assert json.loads(row(store).keys) == {"limit": "a", "same": "b"}
    store.declare_schedules(CONFIG, "main", 1, [plan(keys='{"same": "c"}', args="[2]")])
    assert json.loads(row(store).keys) == {"same": "c"}


def test_a_name_that_a_living_family_of_another_name_declares_is_refused_and_then_taken_over(
    store: Store,
) -> None:
    store.declare_schedules(CONFIG, "one", enter(store, 1), [plan(cron="0 1 * * *")])
    told = store.declare_schedules(CONFIG, "two", enter(store, 2), [plan(cron="0 2 * * *")])
    assert told.refused == {"nightly": "in the configuration of family one"}
    store.remove_family(1)
    assert store.declare_schedules(CONFIG, "two", 2, [plan(cron="0 2 * * *")]).changed == [
        "nightly"
    ]
    assert (row(store).family, row(store).cron) == ("two", "0 2 * * *")


def test_the_configuration_of_a_family_counts_before_its_code(store: Store) -> None:
    enter(store, 1)
    store.declare_schedules(CODE, "main", 1, [plan("app:report", cron="0 1 * * *")])
    store.declare_schedules(CONFIG, "main", 1, [plan("app:report", cron="0 2 * * *")])
    told = store.declare_schedules(CODE, "main", 1, [plan("app:report", cron="0 1 * * *")])
    assert list(told.refused) == ["app:report"]
    assert (row(store, "app:report").source, row(store, "app:report").cron) == (CONFIG, "0 2 * * *")


def test_what_was_added_or_paused_at_run_time_no_start_changes(
    store: Store, clock: MovableClock
) -> None:
    store.add_schedule(plan(cron="0 1 * * *"))
    store.declare_schedules(CONFIG, "main", 1, [plan("b")])
    assert store.pause_schedule("b")
    assert not store.pause_schedule("b")
    told = store.declare_schedules(CONFIG, "main", 1, [plan(), plan("b")])
    assert told.refused == {"nightly": "at run time"}
    assert (row(store).cron, row(store, "b").paused_at) == ("0 1 * * *", clock.now_ms())
    clock.move(60_000)
    assert store.resume_schedule("b")
    assert not store.resume_schedule("b")
    assert row(store, "b").last_tick == clock.now_ms()


def test_one_of_a_name_is_added_once_and_changed_only_where_that_is_asked_for(store: Store) -> None:
    store.declare_schedules(CONFIG, "main", 1, [plan("b")])
    store.add_schedule(plan(paused=True))
    assert row(store).paused_at is not None
    with pytest.raises(ScheduleTaken, match="replace changes it"):
        store.add_schedule(plan())
    store.add_schedule(plan(cron="0 5 * * *"), replace=True)
    assert row(store).cron == "0 5 * * *"
    with pytest.raises(ScheduleTaken, match="in the configuration of family main"):
        store.add_schedule(plan("b"), replace=True)


def test_one_that_a_living_family_declares_cannot_be_removed(store: Store) -> None:
    store.declare_schedules(CONFIG, "main", enter(store, 1), [plan()])
    with pytest.raises(ScheduleTaken, match="would come again"):
        store.remove_schedule("nightly")
    store.remove_family(1)
    store.remove_schedule("nightly")
    for verb in (
        store.schedule,
        store.remove_schedule,
        store.pause_schedule,
        store.resume_schedule,
    ):
        with pytest.raises(ScheduleNotFound):
            verb("nightly")


def test_a_tick_has_one_job(store: Store, clock: MovableClock) -> None:
    store.add_schedule(plan())
    now = clock.now_ms()
    store.add_tick("nightly", now, 1)
    assert store.has_tick("nightly", now)
    assert not store.has_tick("nightly", now + 1)
    with pytest.raises(RowRefused):
        store.add_tick("nightly", now, 2)
    store.add_tick("nightly", now + 60_000, 3)
    assert store.looked_after("nightly", now + 59_999) == now
    assert store.looked_after("nightly", now - 1) is None
    assert store.schedule("nightly").made_ms == now + 60_000
    store.move_schedule("nightly", now + 1, 3)
    store.move_schedule("nightly", now + 2)
    assert (row(store).last_tick, row(store).last_job) == (now + 2, 3)


def test_ticks_are_kept_for_35_days_whether_or_not_their_schedule_is(
    store: Store, clock: MovableClock
) -> None:
    now = clock.now_ms()
    for name in ("a", "b", "c"):
        store.add_tick(name, now - TICKS_KEPT_MS - 1, 1)
        store.add_tick(name, now - TICKS_KEPT_MS, 1)
    assert not store.trim_ticks()
    for ago, kept in ((0, True), (1, False)):
        assert [store.has_tick(name, now - TICKS_KEPT_MS - ago) for name in "abc"] == [kept] * 3


def test_a_schedule_moves_to_another_database_with_where_it_stood(store: Store) -> None:
    store.add_schedule(plan())
    store.pause_schedule("nightly")
    store.move_schedule("nightly", 12_345, 6)
    told = row(store)
    store.remove_schedule("nightly")
    assert store.import_schedules([told]) == (1, 0)
    assert row(store) == told
    assert store.import_schedules([told._replace(cron="9 9 * * *")]) == (0, 1)
    assert row(store) == told


def test_a_stranger_may_add_one_by_plain_sql(store: Store, database: Database) -> None:
    database.sql("INSERT INTO schedules (name, task, cron) VALUES ('s', 'app:f', '0 3 * * *')")
    database.sql("UPDATE schedules SET declared_by = 'no JSON', keys = '['")
    assert (row(store, "s").source, row(store, "s").args) == ("added", "[]")
    assert store.sweep_schedules("added", "main", 1) == []
    name = uuid.uuid4().hex
    with pytest.raises(ScheduleNotFound, match=name):
        store.schedule(name)


@pytest.mark.parametrize(
    ("column", "value"), [("last_tick", -(10**15)), ("anchor", 10**15), ("declared_by", "[1e999]")]
)
def test_what_a_stranger_writes_is_refused_or_ends_no_look(
    store: Store, database: Database, column: str, value: int | str
) -> None:
    enter(store, 1)
    store.declare_schedules(CODE, "main", 1, [plan()])
    moment = isinstance(value, int) and isinstance(store, PostgresStore)
    with suppress(*REFUSALS):
        database.sql(f"UPDATE schedules SET {column} = " + ("moment(?)" if moment else "?"), value)
        assert column == "declared_by"
    store.declare_schedules(CODE, "main", 1, [plan()])
    assert timing_of(cron="0 3 * * *").next_after(-(10**15)) is None
