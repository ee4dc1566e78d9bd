"""Hosts whose clocks are an hour wrong: the database's time is the only one that counts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from jobvisor import Fixed
from tests.system.harness import ROOT, Build, House
from tests.system.history import check_nothing_left, marking, marks, wait_begun
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("postgres")]

HOUR = 3_600_000
TASKS = marking("""
    def clock(ctx):
        line = f"{ctx.job} {time.time() * 1000:.0f}\\n"
        descriptor = os.open("clocks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)

    @task
    def quick(ctx: Context):
        mark("start", ctx)
        clock(ctx)
        mark("end", ctx)

    @task
    def passes_on(ctx: Context):
        mark("start", ctx)
        clock(ctx)
        quick.using(run_in=1).enqueue()
        quick.enqueue()

    @task
    def endless(ctx: Context):
        mark("start", ctx)
        clock(ctx)
        while True:
            time.sleep(0.01)  # task body

    @task
    def stubborn(ctx: Context):
        mark("start", ctx)
        clock(ctx)
        if ctx.attempt < 3:
            raise ValueError("not yet")

    @task
    def snoozing(ctx: Context):
        mark("start", ctx)
        clock(ctx)
        if len(open("clocks").readlines()) < 2:
            raise Snooze(1)

    @task
    def gated(ctx: Context):
        mark("start", ctx)
        while not os.path.exists("gate"):
            time.sleep(0.005)  # task body
        mark("end", ctx)
    """)

QUICK = {"supervisor": {"dead_after": "3s"}, "log": {"level": "info"}}


# libfaketime 0.9.10 refuses the call that Python sleeps with since 3.11, where the monotonic clock is left
# alone (EINVAL from clock_nanosleep): whoever has a wrong clock here sleeps by select.
SLEEPS = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds)\n"


def wrong(house: House, clock: str, **environ: str) -> dict[str, str]:
    """The environment in which this is the time of day; intervals are the kernel's still."""
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("there is no faketime here")
    told = subprocess.run(
        [faketime, "-f", "+0", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=True
    )
    folder = house.folder / "sleeps"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SLEEPS)
    return {
        "PYTHONPATH": f"{ROOT}:{folder}",
        "LD_PRELOAD": told.stdout.strip(),
        "DONT_FAKE_MONOTONIC": "1",
        **({"FAKETIME": clock} if clock else {}),
        **environ,
    }


def start(house: House, clock: str, **environ: str) -> subprocess.Popen[bytes]:
    """A family whose host has this time."""
    told = wrong(house, clock, **environ)
    family = house.start(ready=False, fresh=False, prefix=(), output=None, **told)
    house.wait_ready(family)
    return family


def start_beside(house: House, name: str, clock: str) -> subprocess.Popen[bytes]:
    """The same with a state directory of its own."""
    text = (house.folder / "config.toml").read_text()
    text = text.replace(str(house.state_dir), str(house.folder / name))
    (house.folder / f"{name}.toml").write_text(text)
    told = wrong(house, clock)
    family = house.start(
        "-c", f"{name}.toml", ready=False, fresh=False, prefix=(), output=None, **told
    )
    status = house.folder / name / "status.json"
    eventually(lambda: status.exists() and '"idle"' in status.read_text(), what=f"{name} is ready")
    return family


@pytest.fixture
def house(build: Build) -> Iterator[House]:
    """Two families on one database, an hour ahead and an hour behind of it."""
    made = build(TASKS, config=QUICK)
    families = [start_beside(made, "ahead", "+1h"), start_beside(made, "behind", "-1h")]
    yield made
    codes = [made.stop(family) for family in families]
    assert codes == [0, 0]
    assert not made.said("declared dead")
    assert not made.said("came too late")
    check_nothing_left(made)


def hours_off(house: House) -> set[int]:
    """By how many hours the clocks were wrong under which tasks have run."""
    moments = dict(house.query("SELECT id, claimed_at FROM jobs"))
    told = [tuple(map(int, line.split())) for line in house.lines("clocks")]
    return {round((at - moments[job]) / HOUR) for job, at in told if moments.get(job)}


def check_moments(house: House) -> None:
    """Every moment of every row is near the database's now."""
    columns = ("created_at", "run_at", "claimed_at", "started_at", "finished_at")
    for column in columns:
        wrong_by = house.query(f"SELECT max(abs(extract(epoch FROM now() - {column}))) FROM jobs")
        assert wrong_by[0][0] < 60, column


def test_both_families_run_jobs_and_every_moment_is_the_databases(house: House) -> None:
    ids = [house.enqueue("quick") for _ in range(100)]
    house.wait_finished(ids)
    # Each runs some of a hundred, unless it has lost a hundred races; then it is given more.
    eventually(lambda: hours_off(house) == {-1, 1} or not house.enqueue("quick"), limit=20)
    eventually(lambda: house.query("SELECT 1 FROM jobs WHERE finished_at IS NULL") == [])
    check_moments(house)
    assert house.query("SELECT count(*) FROM jobs WHERE finished_at < started_at") == [(0,)]
    early = "SELECT count(*) FROM jobs WHERE started_at < claimed_at - interval '0.1 s'"
    assert house.query(early) == [(0,)]


def test_a_scheduled_job_runs_neither_early_nor_late(house: House) -> None:
    ids = [house.enqueue("quick", run_in=1 + number / 20) for number in range(20)]
    house.wait_finished(ids)
    late = [row[0] for row in house.query("SELECT claimed_at - run_at FROM jobs")]
    assert min(late) >= 0
    assert max(late) < 1_500
    assert {row[0] for row in house.query("SELECT run_at - created_at FROM jobs")} == {
        1_000 + number * 50 for number in range(20)
    }


def test_what_a_wrong_host_enqueues_is_due_by_the_databases_clock(house: House) -> None:
    ids = [house.enqueue("passes_on") for _ in range(10)]
    house.wait_finished(ids)
    eventually(lambda: house.query("SELECT 1 FROM jobs WHERE finished_at IS NULL") == [])
    assert house.query("SELECT count(*) FROM jobs") == [(30,)]
    check_moments(house)
    rows = house.query(
        "SELECT claimed_at - run_at, run_at - created_at FROM jobs WHERE task = 'app:quick'"
    )
    assert {delay for _late, delay in rows} == {0, 1_000}
    assert all(0 <= late < 1_500 for late, _delay in rows)


@pytest.mark.parametrize("clock", ["+1h", "-1h"])
def test_what_a_person_enqueues_on_a_wrong_host_is_due_by_the_databases_clock(
    house: House, clock: str
) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "jobvisor", "enqueue", "app:quick", "--in", "1s"],
        cwd=house.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **wrong(house, clock)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    ((job,),) = house.query("SELECT id FROM jobs")
    house.wait_finished([job], limit=10)
    check_moments(house)


def test_a_timeout_is_as_long_as_it_says(house: House) -> None:
    ids = [house.enqueue("endless", timeout=1, retries=0) for _ in range(4)]
    house.wait_finished(ids)
    assert {tuple(house.history(job)) for job in ids} == {("timeout",)}
    ran = [row[0] for row in house.query("SELECT finished_at - claimed_at FROM jobs")]
    assert min(ran) >= 1_000
    assert max(ran) < 3_000


def test_a_retry_comes_after_its_delay_whoever_runs_it(house: House) -> None:
    ids = [house.enqueue("stubborn", retry=Fixed(1)) for _ in range(6)]
    house.wait_finished(ids)
    for job in ids:
        assert house.client.get(job).attempt == 3
        first, second, third = (mark.at for mark in marks(house) if mark.job == job)
        for gap in (second - first, third - second):
            assert 0.99 < gap / 1e9 < 20  # of an hour
    check_moments(house)


def test_a_snooze_ends_when_it_says(house: House) -> None:
    job = house.enqueue("snoozing")
    house.wait_finished([job], limit=10)
    first, second = (mark.at for mark in marks(house))
    assert 0.99 < (second - first) / 1e9 < 20  # of an hour
    assert house.client.get(job).attempt == 1


def test_nobody_is_declared_dead_and_nothing_rescued_from_the_living(house: House) -> None:
    ids = [house.enqueue("gated", retry=Fixed(0)) for _ in range(4)]
    wait_begun(house, 4)
    house.wait_heartbeats(7)  # twice dead_after
    assert house.query("SELECT state, count(*) FROM jobs GROUP BY state") == [("running", 4)]
    assert house.query("SELECT count(*) FROM families WHERE died_at IS NULL") == [(2,)]
    behind = house.query("SELECT max(abs(extract(epoch FROM now() - heartbeat_at))) FROM families")
    assert behind[0][0] < 3
    (house.folder / "gate").touch()
    house.wait_finished(ids)
    assert len([mark for mark in marks(house) if mark.word == "start"]) == 4
    assert house.query("SELECT DISTINCT attempt, losses FROM jobs") == [(1, 0)]


def test_a_dead_family_is_rescued_by_one_whose_clock_is_two_hours_behind(build: Build) -> None:
    house = build(TASKS, config=QUICK, processes=1)
    job = house.enqueue("gated", retry=Fixed(0))
    ahead = start(house, "+1h")
    wait_begun(house)
    behind = start_beside(house, "behind", "-1h")
    house.kill_family(ahead)
    wait_begun(house, 2)
    (house.folder / "gate").touch()
    house.wait_finished([job])
    assert house.history(job) == ["crash"]
    check_moments(house)
    assert house.stop(behind) == 0


def test_a_clock_that_is_ahead_prunes_nothing_before_its_time(build: Build) -> None:
    config = {**QUICK, "retention": {"succeeded": "30m"}}
    house = build(TASKS, config=config)
    family = house.start()
    job = house.enqueue("quick")
    house.wait_finished([job])
    assert house.stop(family) == 0
    # A caretaker prunes as soon as it is there, and each ten seconds.
    ahead = start(house, "+1h")
    more = house.enqueue("quick")
    house.wait_finished([more])
    eventually(lambda: house.status()["caretaker"]["state"] == "idle")
    assert house.stop(ahead) == 0
    assert house.client.get(job).state == "succeeded"
    assert not house.said("pruned")
    house.query("UPDATE jobs SET finished_at = finished_at - interval '31 min' WHERE id = ?", job)
    again = start(house, "-1h")
    eventually(lambda: house.said("pruned"), what="what is over is pruned")
    assert house.stop(again) == 0
    assert house.query("SELECT id FROM jobs") == [(more,)]


def set_clock(path: Path, clock: str) -> None:
    """All at once: nobody reads half of it."""
    beside = path.with_suffix(".new")
    beside.write_text(clock + "\n")
    beside.replace(path)


def test_a_clock_that_jumps_to_and_fro_under_a_family_changes_nothing(build: Build) -> None:
    house = build(TASKS, config=QUICK)
    told = house.folder / "clock.txt"
    set_clock(told, "+0")
    family = start(house, "", FAKETIME_TIMESTAMP_FILE=str(told), FAKETIME_NO_CACHE="1")
    pids = set(house.children(family.pid))
    ids = []
    for clock in ("+1h", "-1h", "+2d", "-2d", "+0"):
        set_clock(told, clock)
        ids += [house.enqueue("quick"), house.enqueue("quick", run_in=0.5)]
        ids.append(house.enqueue("stubborn", retry=Fixed(1)))
        house.wait_finished(ids[-3:-1], limit=10)
    house.wait_finished(ids)
    assert {abs(off) for off in hours_off(house)} >= {1, 48}
    check_moments(house)
    for job in ids[2::3]:
        runs = [mark.at for mark in marks(house) if mark.job == job]
        assert len(runs) == 3
        gaps = [(later - earlier) / 1e9 for earlier, later in pairwise(runs)]
        assert min(gaps) > 0.99
        assert max(gaps) < 20  # of an hour
    late = [row[0] for row in house.query("SELECT claimed_at - run_at FROM jobs")]
    assert min(late) >= 0
    assert max(late) < 2_000
    assert set(house.children(family.pid)) == pids
    assert house.stop(family) == 0
    assert not house.said("declared dead")
