"""Families that enqueue by schedules: with their schedulers stopped and killed, and clocks that jump."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.clock import SYSTEM, from_datetime
from jobvisor.jobs.job import Job
from tests.system.harness import Build, House, wait_heartbeats
from tests.system.test_postgres_clocks import start_beside
from tests.system.test_sqlite_clocks import step  # noqa: F401 - a fixture
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = """
    @task(retries=0)
    def tick(ctx: Context):
        assert ctx.scheduled_for is not None
    """
QUICK = {"supervisor": {"dead_after": "3s"}, "log": {"level": "debug"}}

HOUR_S = 3_600

Ticks = list[int]


def ticks(house: House, name: str = "") -> Ticks:
    """Of all jobs that ticks have made, of one schedule or of all, in UTC milliseconds."""
    made = "extract(epoch FROM tick) * 1000" if house.database else "tick"
    of = house.query(f"SELECT schedule, {made} FROM ticks ORDER BY tick")
    return [int(tick) for schedule, tick in of if name in ("", schedule)]


def wait_ticks(house: House, number: int, name: str = "") -> Ticks:
    eventually(lambda: len(ticks(house, name)) >= number, what=f"{number} ticks")
    return ticks(house, name)


def check_each_tick_has_one_job(house: House, apart_ms: int, name: str = "s") -> Ticks:
    """None is left out between the first and the last, and no job is one too many."""
    found = [from_datetime(tick) for tick, _ in jobs_of(house, name)]
    assert found == list(range(found[0], found[-1] + 1, apart_ms))
    return found


def check_each_was_the_newest(house: House, apart_ms: int, name: str) -> None:
    """What is left out had a newer one by the time that somebody looked; no job is one too many."""
    found = jobs_of(house, name)
    assert len(found) >= 3
    for tick, job in found:
        assert from_datetime(job.created_at) - from_datetime(tick) < 2 * apart_ms


def jobs_of(house: House, name: str) -> list[tuple[datetime, Job]]:
    """The ticks of a schedule with the one job of each."""
    known = ticks(house, name)
    jobs = house.client.list(limit=10_000)
    if ticks(house, name) != known:
        return jobs_of(house, name)  # one has come in between
    made = [job for job in jobs if job.headers.get("schedule") == name]
    found = {datetime.fromisoformat(job.headers["scheduled_for"]): job for job in made}
    assert len(found) == len(made) == len(known)
    return sorted(found.items())


def start_second(house: House) -> subprocess.Popen[bytes]:
    """A family of the same name on the same database."""
    text = (house.folder / "config.toml").read_text()
    (house.folder / "second.toml").write_text(
        text.replace(str(house.state_dir), str(house.folder / "second"))
    )
    return house.start("-c", "second.toml", ready=False)


def scheduler(folder: Path) -> int:
    """The pid of the scheduler of the family in this state directory; 0 where it has none."""
    try:
        status: dict[str, Any] = json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return 0
    told = status.get("scheduler")
    return int(told["pid"] or 0) if told and told["state"] == "idle" else 0


@pytest.mark.timeout(300)  # a machine that six tests share may starve two families for long
@pytest.mark.stores("sqlite", "postgres")
def test_no_tick_is_lost_or_doubled_while_schedulers_are_stopped_and_killed(build: Build) -> None:
    house = build(TASKS, config=QUICK | {"supervisor": {"dead_after": "15s"}})
    add = house.client.schedules.add
    add("s", "app:tick", every="1s", catch_up="all")
    add("cron", "app:tick", cron="* * * * * *", timezone="Europe/Berlin", catch_up="all")
    add("latest", "app:tick", cron="*/3 * * * * *", timezone="Asia/Kolkata")
    add("none", "app:tick", cron="*/3 * * * * *", catch_up="none")
    families = [house.start(), start_second(house)]
    folders = [house.state_dir, house.folder / "second"]

    def both() -> list[int]:
        eventually(lambda: all(map(scheduler, folders)), what="both families have a scheduler")
        return [scheduler(folder) for folder in folders]

    wait_ticks(house, 1, "none")
    for number in (signal.SIGSTOP, signal.SIGKILL):
        before, seen = both(), len(ticks(house, "none"))
        for pid in before:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        # One that does not move is killed by its parent; in either case there is another one.
        eventually(
            lambda: not set(before) & set(map(scheduler, folders)),  # noqa: B023 - called here
            what="others are there",
        )
        wait_ticks(house, seen + 1, "none")
    for family in families:
        house.stop(family)
    for name in ("s", "cron"):
        assert len(check_each_tick_has_one_job(house, 1_000, name)) >= 6
    for name in ("latest", "none"):
        check_each_was_the_newest(house, 3_000, name)


Step = Callable[[str], None]


@pytest.fixture
def two(build: Build, step: Step) -> Iterator[House]:  # noqa: F811
    """Two families on one file, with the clock of the host."""
    made = build(TASKS, config=QUICK)
    made.client.counts()
    families = [start_beside(made, name, "") for name in ("one", "two")]
    yield made
    assert [made.stop(family) for family in families] == [0, 0]


def test_a_clock_that_jumps_an_hour_both_ways_loses_and_doubles_no_tick(
    two: House,
    step: Step,  # noqa: F811
) -> None:
    check_jumps(two, step)


@pytest.mark.stores("postgres")
def test_a_server_whose_clock_jumps_an_hour_both_ways_loses_and_doubles_no_tick(
    build: Build,
) -> None:
    house = build(TASKS, config=QUICK)

    def jump(offset: str) -> None:
        """Of all that tell the time here, since they ask this function."""
        house.query(
            "CREATE OR REPLACE FUNCTION clock() RETURNS timestamptz LANGUAGE sql STABLE "
            f"AS $$SELECT statement_timestamp() + interval '{offset} s'$$"
        )

    families = [house.start(), start_second(house)]
    check_jumps(house, jump)
    assert [house.stop(family) for family in families] == [0, 0]


def check_jumps(two: House, set_to: Step) -> None:
    """With two families there, whose clock `set_to` sets."""
    two.client.schedules.add("s", "app:tick", every="1m", catch_up="all")
    set_to(f"+{HOUR_S}")
    ahead = wait_last_tick(two, HOUR_S)
    assert len(ahead) >= 60
    set_to("+0")
    wait_heartbeats(two.query, 7)
    found = ticks(two)
    assert found[: len(ahead)] == ahead
    assert len(found) <= len(ahead) + 1  # a minute may have ended before the clock was set
    set_to(f"+{HOUR_S + 600}")
    wait_last_tick(two, HOUR_S + 600)
    check_each_tick_has_one_job(two, 60_000)
    set_to(f"-{HOUR_S}")
    wait_heartbeats(two.query, 7)
    set_to(f"+{HOUR_S + 900}")
    wait_last_tick(two, HOUR_S + 900)
    assert len(check_each_tick_has_one_job(two, 60_000)) >= len(ahead) + 9 + 60


def wait_last_tick(house: House, ahead_s: int) -> Ticks:
    """Until a tick of the last minute has its job, by a clock that is so far ahead; it comes last of all."""

    def is_there() -> bool:
        moment = SYSTEM.now_ms() + ahead_s * 1_000
        return any(tick > moment - 60_000 for tick in ticks(house))

    eventually(is_there, what="all ticks have their jobs")
    return ticks(house)


@pytest.mark.stores("postgres")
def test_on_hosts_whose_clocks_are_wrong_the_time_of_the_database_counts(build: Build) -> None:
    house = build(TASKS, config=QUICK)
    house.client.schedules.add("s", "app:tick", every="1s", catch_up="all")
    families = [start_beside(house, "one", "+1h"), start_beside(house, "two", "-1h")]
    found = wait_ticks(house, 4)
    assert abs(found[-1] - SYSTEM.now_ms()) < 60_000
    assert [house.stop(family) for family in families] == [0, 0]
    check_each_tick_has_one_job(house, 1_000)


def test_a_family_has_a_scheduler_only_while_there_is_a_schedule(build: Build) -> None:
    house = build(TASKS, config=QUICK)
    family = house.start()
    wait_heartbeats(house.query, 2)
    assert house.status()["scheduler"] is None
    house.client.schedules.add("s", "app:tick", every="1s")
    wait_ticks(house, 1)
    house.client.schedules.remove("s")
    eventually(lambda: house.status()["scheduler"] is None, what="it has left")
    path = house.folder / "config.toml"
    before = path.read_text()
    path.write_text(f'{before}[[schedules]]\nname = "t"\ntask = "app:tick"\nevery = "1s"\n')
    house.command("reload")
    eventually(lambda: house.query("SELECT family FROM schedules") == [("main",)], what="declared")
    made = len(ticks(house))
    wait_ticks(house, made + 1)
    path.write_text(before)
    house.command("reload")
    eventually(lambda: house.status()["scheduler"] is None, what="it has left")
    assert house.query("SELECT count(*) FROM schedules") == [(0,)]
    assert house.stop(family) == 0


CODE = """
    @task(every="1s", retries=0)
    def tick(ctx: Context):
        pass

    @task
    def busy():
        while not os.path.exists("gate"):
            time.sleep(0.005)  # task body
    """


@pytest.mark.lanes(1, 4)
def test_a_schedule_in_code_is_declared_before_the_first_job_and_goes_with_the_code(
    build: Build,
) -> None:
    house = build(CODE, config=QUICK)
    for _ in range(8):
        house.enqueue("busy")
    family = house.start()
    wait_ticks(house, 1)  # though no worker rests
    [schedule] = house.client.schedules.list()
    assert (schedule.name, schedule.source, schedule.family) == ("app:tick", "code", "main")
    house.touch("gate")
    app = house.folder / "app.py"
    app.write_text(app.read_text().replace('every="1s", ', ""))
    house.command("reload")
    eventually(lambda: house.client.schedules.list() == [], what="it is gone")
    assert house.stop(family) == 0
