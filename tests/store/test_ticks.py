"""Which jobs a look at the schedules makes: one for each promised tick, whoever looks, whatever clocks do."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from jobvisor import Client
from jobvisor.jobs.clock import from_datetime, iso, to_datetime
from jobvisor.jobs.described import BY_FUNCTION
from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.job import Job
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.schedule import Plan, planned
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.postgres import PostgresStore
from jobvisor.jobs.task import Call, Defaults
from jobvisor.jobs.ticker import CAUGHT_UP_MOST, LOOK_MS, ON_TIME_MS, PAGE, TICKS_AT_ONCE, Ticker
from jobvisor.jobs.timing import timing_of
from tests.clock import MovableClock
from tests.store.database import Database
from tests.store.making import enqueue, family

HOUR = 3_600_000
TOLD = {"app:report": '{"options": {}}'}


def plan(name: str = "s", every: str = "1m", **more: object) -> Plan:
    made = planned(name, Call("app:report", (1,)), timing_of(every=every), payload=Payload())
    return made._replace(**more)  # type: ignore[arg-type]  # of its fields


@pytest.fixture
def ticker(store: Store, clock: MovableClock) -> Ticker:
    store.note_tasks(TOLD)
    return Ticker(store, Defaults(), clock)


def jobs(store: Store) -> list[Job]:
    return list(reversed(store.find(limit=10_000)))


def ticks(store: Store) -> list[int]:
    """The ticks that jobs were made for, in minutes from the first moment of the clock."""
    start = MovableClock().now_ms()
    found = [datetime.fromisoformat(job.headers["scheduled_for"]) for job in jobs(store)]
    return [round((from_datetime(each) - start) / 60_000, 2) for each in found]  # type: ignore[misc]


def offset(clock: MovableClock) -> int:
    """From the first moment of the clock to its next whole minute."""
    return -clock.now_ms() % 60_000


def test_a_tick_is_a_job_with_the_options_of_its_task_and_the_headers_that_tell_it(
    store: Store, clock: MovableClock, ticker: Ticker
) -> None:
    options = {"queue": "mail", "retries": 1, "timeout": "30s", "headers": {"a": 1}}
    store.note_tasks({"app:report": json.dumps({"options": options})})
    store.add_schedule(plan())
    ahead = offset(clock)
    assert ticker.look() == min(ahead, LOOK_MS)
    clock.move(ahead - 1)
    assert ticker.look() == 1
    clock.move(1)
    assert ticker.look() == LOOK_MS
    [job] = jobs(store)
    assert (job.task, job.args, job.queue, job.attempts_max, job.timeout) == (
        "app:report", [1], "mail", 2, 30.0,
    )  # fmt: skip
    assert job.headers == {
        "a": 1,
        "schedule": "s",
        "scheduled_for": iso(to_datetime(clock.now_ms())),
    }
    assert store.schedule("s").row.last_job == job.id
    assert ticker.look() == LOOK_MS
    assert len(jobs(store)) == 1


def test_two_that_look_make_one_job(database: Database, store: Store, clock: MovableClock) -> None:
    store.note_tasks(TOLD)
    store.add_schedule(plan())
    lookers = [Ticker(database.open(), Defaults(), clock) for _ in range(2)]
    for _ in range(5):
        clock.move(60_000)
        for each in lookers:
            each.look()
    assert len(jobs(store)) == 5


@pytest.mark.parametrize(
    ("catch_up", "late", "wanted"), [("latest", 0, 1), ("none", 0, 0), ("none", ON_TIME_MS, 1)]
)
def test_what_nobody_was_there_for_is_made_up_for_as_the_schedule_says(
    store: Store, clock: MovableClock, ticker: Ticker, *, catch_up: str, late: int, wanted: int
) -> None:
    store.add_schedule(plan(catch_up=catch_up))
    clock.move(offset(clock) + HOUR + (late or ON_TIME_MS + 1))
    ticker.look()
    assert len(jobs(store)) == wanted
    assert store.schedule("s").row.last_tick == clock.now_ms()


def test_all_that_was_missed_is_the_newest_thousand_in_their_order(
    store: Store, clock: MovableClock, ticker: Ticker
) -> None:
    store.add_schedule(plan(every="1s", catch_up="all"))
    clock.move(-clock.now_ms() % 1_000 + HOUR)
    made = []
    while ticker.look() == 0:
        made.append(len(jobs(store)))
    assert made == list(range(TICKS_AT_ONCE, CAUGHT_UP_MOST, TICKS_AT_ONCE))  # a page each
    found = ticks(store)
    assert len(found) == CAUGHT_UP_MOST
    assert found == sorted(found)
    assert jobs(store)[-1].headers["scheduled_for"] == iso(to_datetime(clock.now_ms()))


def test_a_clock_that_jumps_an_hour_ahead_and_back_doubles_no_tick_and_loses_none(
    store: Store, clock: MovableClock, ticker: Ticker
) -> None:
    store.add_schedule(plan(every="10m"))

    def pass_by(minutes: int) -> None:
        for _ in range(minutes):
            clock.move(60_000)
            ticker.look()

    pass_by(30)
    clock.move(HOUR)
    pass_by(10)
    clock.move(-HOUR)
    pass_by(120)
    made = sorted(ticks(store))
    assert len(set(made)) == len(made)
    regular = {each for each in made if round(made[0] + (each - made[0]) % 10, 2) == made[0]}
    steps = sorted(round((each - made[0]) / 10) for each in regular)
    assert steps == list(range(steps[-1] + 1))
    assert len(steps) >= 15


def test_a_clock_that_goes_back_behind_all_that_is_known_goes_on_from_there(
    store: Store, clock: MovableClock, ticker: Ticker
) -> None:
    store.add_schedule(plan())
    clock.move(-HOUR)
    ticker.look()
    assert store.schedule("s").row.last_tick == clock.now_ms()
    clock.move(60_000)
    ticker.look()
    assert len(jobs(store)) == 1


def test_what_a_pause_hid_is_not_missed(store: Store, clock: MovableClock, ticker: Ticker) -> None:
    store.add_schedule(plan(catch_up="all"))
    store.pause_schedule("s")
    clock.move(HOUR)
    assert ticker.look() == LOOK_MS
    store.resume_schedule("s")
    ticker.look()
    assert jobs(store) == []
    clock.move(60_000)
    ticker.look()
    assert len(jobs(store)) == 1


def test_what_a_pause_hid_is_not_missed_either_where_the_clock_goes_back_over_its_end(
    store: Store, clock: MovableClock, ticker: Ticker
) -> None:
    store.add_schedule(plan(catch_up="all"))
    clock.move(60_000)
    ticker.look()
    store.pause_schedule("s")
    clock.move(2 * HOUR)
    store.resume_schedule("s")
    ticker.look()
    clock.move(-HOUR)  # it stood an hour ahead
    ticker.look()
    assert len(jobs(store)) == 1
    clock.move(5 * 60_000)
    ticker.look()
    assert len(jobs(store)) == 6
    clock.move(-2 * 60_000)
    ticker.look()
    clock.move(HOUR)
    while ticker.look() == 0:
        assert len(jobs(store)) > 6
    found = ticks(store)
    assert len(found) == len(set(found)) == 5 + 1 + 58


def test_with_overlap_skip_a_tick_makes_no_job_while_that_of_the_last_is_unfinished(
    store: Store, clock: MovableClock, ticker: Ticker
) -> None:
    store.add_schedule(plan(overlap="skip", catch_up="all"))
    clock.move(3 * 60_000)
    ticker.look()
    [first] = jobs(store)
    clock.move(60_000)
    ticker.look()
    assert len(jobs(store)) == 1
    store.cancel(first.id)
    clock.move(60_000)
    ticker.look()
    assert len(jobs(store)) == 2


def test_a_tick_whose_job_finds_its_unique_key_held_is_done_with_the_holder(
    store: Store, clock: MovableClock, ticker: Ticker
) -> None:
    store.note_tasks({"app:report": '{"options": {"unique": "only"}}'})
    holder = enqueue(store, task="app:report", unique_key="only")
    store.add_schedule(plan())
    clock.move(60_000)
    ticker.look()
    assert [job.id for job in jobs(store)] == [holder]
    assert store.schedule("s").row.last_job == holder
    assert store.schedule("s").made_ms is not None


@pytest.mark.parametrize("unique", [True, BY_FUNCTION])
def test_the_key_that_the_task_makes_of_the_arguments_goes_with_the_schedule(
    store: Store, clock: MovableClock, ticker: Ticker, unique: object
) -> None:
    store.note_tasks({"app:report": json.dumps({"options": {"unique": unique}})})
    keys = json.dumps({"same": "of-arguments", "unique": "of-arguments"})
    store.add_schedule(plan(keys=keys))
    store.add_schedule(plan("t", keys="no JSON"))
    clock.move(60_000)
    ticker.look()
    assert {job.unique for job in jobs(store)} == {"of-arguments", None}


def test_a_limit_that_a_function_makes_is_kept_and_without_it_no_job_is_made(
    store: Store, clock: MovableClock, ticker: Ticker, caplog: pytest.LogCaptureFixture
) -> None:
    store.note_tasks({"app:report": json.dumps({"options": {"limit": BY_FUNCTION}})})
    store.add_schedule(plan(keys='{"limit": "shop:7"}'))
    store.add_schedule(plan("t", keys="{}"))
    clock.move(60_000)
    ticker.look()
    assert [(job.headers["schedule"], job.limit) for job in jobs(store)] == [("s", "shop:7")]
    assert "the limit of app:report is made by a function" in caplog.text


def test_where_its_task_raises_for_a_held_key_the_tick_has_the_holder(
    store: Store, clock: MovableClock, ticker: Ticker
) -> None:
    options = {"unique": "only", "on_conflict": "raise"}
    store.note_tasks({"app:report": json.dumps({"options": options})})
    holder = enqueue(store, task="app:report", unique_key="only")
    store.add_schedule(plan())
    clock.move(60_000)
    ticker.look()
    assert store.schedule("s").row.last_job == holder


def test_the_job_of_a_task_that_nobody_has_told_of_waits_for_that_a_while(
    store: Store, clock: MovableClock
) -> None:
    store.add_schedule(plan())
    clock.move(60_000)
    young = Ticker(store, Defaults(retries=7), clock)
    young.look()
    assert jobs(store) == []
    clock.move(20_000)
    young.look()
    [job] = jobs(store)
    assert job.attempts_max == 8


def test_one_that_cannot_tick_keeps_no_other_from_it_and_is_told_once(
    store: Store, clock: MovableClock, ticker: Ticker, caplog: pytest.LogCaptureFixture
) -> None:
    store.add_schedule(plan("a", timezone="Nowhere/City", every_ms=None, cron="0 3 * * *"))
    store.add_schedule(plan("b", every_ms=None, cron="never"))
    store.add_schedule(plan("c", every_ms=0))
    store.add_schedule(plan("d"))
    clock.move(60_000)
    ticker.look()
    clock.move(60_000)
    ticker.look()
    assert len(jobs(store)) == 2
    assert len([line for line in caplog.records if "does not tick" in line.getMessage()]) == 3


def test_a_job_that_the_database_refuses_keeps_its_tick_for_later(
    store: Store, database: Database, clock: MovableClock, ticker: Ticker
) -> None:
    store.add_schedule(plan("a", queue="*"))
    store.add_schedule(plan("b"))
    clock.move(60_000)
    ticker.look()
    assert [job.headers["schedule"] for job in jobs(store)] == ["b"]
    database.sql("UPDATE schedules SET queue = 'short' WHERE name = 'a'")
    ticker.look()
    assert [job.queue for job in jobs(store)] == ["default", "short"]


def test_a_job_on_terms_waits_for_an_older_family_and_keeps_no_other_from_its_tick(
    store: Store, clock: MovableClock, ticker: Ticker
) -> None:
    store.note_tasks({"app:kept": '{"options": {"deadline": "1h"}}'})
    store.add_schedule(plan("a", task="app:kept"))
    store.add_schedule(plan("b"))
    store.add_family(family(version="0.5.0", dead_after_ms=HOUR))
    clock.move(60_000)
    ticker.look()
    assert [job.headers["schedule"] for job in jobs(store)] == ["b"]
    store.remove_family(1)
    ticker.look()
    assert [job.headers["schedule"] for job in jobs(store)] == ["b", "a"]


HELD = """
CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE lock_not_available; END $$;
CREATE TRIGGER held BEFORE INSERT ON jobs FOR EACH ROW WHEN (new.unique_key = 'only') EXECUTE FUNCTION held()
"""


@pytest.fixture
def held(store: Store, database: Database) -> Iterator[Callable[[], None]]:
    """A unique key that somebody holds in an open transaction; it is given back by a call."""
    if not isinstance(store, PostgresStore):
        pytest.skip("on SQLite nobody waits for a row")
    store.note_tasks({"app:only": '{"options": {"unique": "only"}}'})
    database.sql(HELD)

    def give_back() -> None:
        database.sql("DROP TRIGGER IF EXISTS held ON jobs; DROP FUNCTION IF EXISTS held()")

    yield give_back
    give_back()


def made_by(store: Store) -> list[str]:
    return [job.headers["schedule"] for job in jobs(store)]


def test_a_unique_key_that_somebody_holds_keeps_no_other_schedule_from_its_tick(
    held: Callable[[], None],
    store: Store,
    clock: MovableClock,
    ticker: Ticker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.add_schedule(plan("a", task="app:only"))
    store.add_schedule(plan("b"))
    clock.move(60_000)
    for _ in range(2):  # it is not waited for again so soon
        ticker.look()
    assert made_by(store) == ["b"]
    assert caplog.text.count("schedule a does not tick") == 1
    held()
    clock.move(60_000)
    ticker.look()
    assert made_by(store) == ["b", "a", "b"]


def test_a_look_that_waits_in_vain_twice_ends_and_the_next_begins_behind(
    held: Callable[[], None], store: Store, clock: MovableClock, ticker: Ticker
) -> None:
    store.add_schedule(plan("a", task="app:only"))
    store.add_schedule(plan("b", task="app:only"))
    store.add_schedule(plan("c"))
    clock.move(60_000)
    with pytest.raises(StoreUnavailable):
        ticker.look()
    ticker.look()
    assert made_by(store) == ["c"]
    held()


def test_a_look_takes_in_all_schedules_however_many_and_begins_with_any(
    store: Store, clock: MovableClock, ticker: Ticker
) -> None:
    many = [plan(f"m{number}", every="365d") for number in range(PAGE)]
    store.declare_schedules("config", "main", 1, [*many, plan("a"), plan("z")])
    clock.move(60_000)
    ticker._broke_off_at = "m5"
    ticker.look()
    assert made_by(store) == ["z", "a"]


def test_a_schedule_that_somebody_holds_is_his_to_look_after(
    store: Store, database: Database, clock: MovableClock
) -> None:
    if database.alone or not hasattr(database, "schema"):
        pytest.skip("writers of SQLite wait for each other anyway")
    store.note_tasks(TOLD)
    store.add_schedule(plan())
    clock.move(60_000)
    other = Ticker(database.open(), Defaults(), clock)
    with store.transaction():
        assert store.hold_schedule("s") is not None
        assert other.look() <= 1_000
        assert jobs(store) == []
    other.look()
    assert len(jobs(store)) == 1


def test_a_client_adds_lists_and_triggers() -> None:
    with Client("memory://") as client:
        made = client.schedules.add("s", "app:report", every="1h", args=[1], queue="mail")
        assert made == client.schedules.get("s")
        assert [each.name for each in client.schedules.list()] == ["s"]
        assert (made.every, made.paused, len(made.next), made.words) == (
            3600.0,
            None,
            3,
            "Every 1h",
        )
        assert made.next[0] > datetime.now(UTC)
        job = client.schedules.trigger("s")
        assert (job.task, job.args, job.queue) == ("app:report", [1], "mail")
        assert job.headers == {"schedule": "s"}
        assert client.schedules.get("s").last_tick is None
        assert client.schedules.pause("s")
        assert client.schedules.get("s").paused == "run time"
        assert client.schedules.resume("s")
        client.schedules.remove("s")
        assert client.schedules.list() == []
