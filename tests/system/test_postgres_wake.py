"""Idle workers on PostgreSQL are woken by NOTIFY: the poll is too slow to be what did it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path

import psycopg
import pytest

from jobvisor import Client
from jobvisor.jobs.clock import SYSTEM
from tests.postgres import Stranger
from tests.system.harness import MARK, Build, House, switches
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("postgres")]

TASKS = f"""{MARK}
@task
def quick(ctx: Context):
    mark("quick", f"{{ctx.job}} {{time.monotonic_ns()}}")

@task
def gated(ctx: Context):
    mark("began", ctx.attempt)
    if not os.path.exists("go"):
        gate("go")
        if not os.path.exists("ok"):
            raise Retry(after=0)
    mark("ended")
"""

SLOW = {"database": {"poll": "30s"}, "log": {"level": "info"}}
SOON = 10.0  # seconds: less than a poll, far more than a wake-up on a busy machine


def begun(house: House, job: int) -> int:
    """When a quick job began, by CLOCK_MONOTONIC; 0 before."""
    for line in house.lines("quick"):
        number, at = line.split()
        if int(number) == job:
            return int(at)
    return 0


def wait_begun(house: House, job: int, limit: float = SOON) -> int:
    return eventually(partial(begun, house, job), limit=limit, what=f"job {job} has begun")


def wait_idle(house: House, processes: int = 1) -> None:
    """Until every worker rests, and listens."""

    def is_idle() -> bool:
        states = [worker["state"] for worker in house.status()["workers"]]
        return states == ["idle"] * processes

    eventually(is_idle, what="the workers are idle")


def backends(house: House) -> list[int]:
    """The server's processes that serve the workers."""
    rows = house.query(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name LIKE 'jobvisor % worker%'"
    )
    return [row[0] for row in rows]


def start_second(house: House) -> subprocess.Popen[bytes]:
    """Another family with the same configuration, which has come to rest."""
    folder = house.folder / "second"
    text = (house.folder / "config.toml").read_text()
    (house.folder / "second.toml").write_text(text.replace(str(house.state_dir), str(folder)))
    family = house.start("-c", "second.toml", ready=False)

    def is_idle() -> bool:
        status = folder / "status.json"
        workers = json.loads(status.read_text())["workers"] if status.exists() else []
        return [worker["state"] for worker in workers] == ["idle"]

    eventually(is_idle, what="the second family is idle")
    return family


def test_an_enqueue_wakes_an_idle_worker_at_once(build: Build) -> None:
    house = build(TASKS, processes=1, config=SLOW)
    family = house.start()
    took = []
    for _ in range(10):
        wait_idle(house)
        before = SYSTEM.monotonic_ns()
        took.append(wait_begun(house, house.enqueue("quick")) - before)
    print(f"from before the enqueue to the start: p50 {sorted(took)[5] / 1e6:.1f} ms")
    assert house.stop(family) == 0


def test_a_strangers_insert_wakes_at_his_commit_and_not_before(build: Build) -> None:
    house = build(TASKS, processes=1, config=SLOW)
    family = house.start()
    wait_idle(house)
    assert house.database
    stranger = Stranger(house.database)
    stranger.sql("BEGIN")
    ((job,),) = stranger.sql("INSERT INTO jobs (task) VALUES ('app:quick') RETURNING id")
    # Within five milliseconds of the stranger nobody else would notify.
    eventually(lambda: house.query("SELECT 1 FROM pg_sleep(0.01)"))
    other = house.enqueue("quick")
    house.wait_finished([other], limit=SOON)
    before = SYSTEM.monotonic_ns()
    stranger.sql("COMMIT")
    assert wait_begun(house, job) > before
    stranger.close()
    assert house.stop(family) == 0


def test_a_job_that_falls_due_is_started_then_and_not_at_the_next_poll(build: Build) -> None:
    house = build(TASKS, processes=1, config=SLOW)
    family = house.start()
    wait_idle(house)
    before = SYSTEM.monotonic_ns()
    job = house.enqueue("quick", run_in=1)
    assert 0.95 < (wait_begun(house, job, limit=30) - before) / 1e9 < 1 + SOON
    assert house.stop(family) == 0


def test_without_notify_workers_poll_often_and_tell_nobody(build: Build) -> None:
    config = {"database": {"poll": "30s", "notify": False}}
    house = build(TASKS, processes=1, config=config)
    family = house.start()
    assert house.database
    with (
        Client(house.database, notify=False) as client,
        psycopg.connect(house.database, autocommit=True) as listener,
    ):
        listener.execute("LISTEN jobvisor")
        for _ in range(3):
            wait_idle(house)
            wait_begun(house, client.enqueue(client.call("app:quick")).id)
        assert list(listener.notifies(timeout=0.2)) == []
    assert house.stop(family) == 0


def test_a_burst_is_told_seldom_and_nothing_of_it_waits_for_a_poll(build: Build) -> None:
    house = build(TASKS, config=SLOW)
    family = house.start()
    wait_idle(house, 2)
    assert house.database

    def enqueue(count: int) -> None:
        assert house.database
        with Client(house.database) as client:
            for _ in range(count):
                client.enqueue(client.call("app:quick"))

    with psycopg.connect(house.database, autocommit=True) as listener:
        listener.execute("LISTEN jobvisor")
        threads = [threading.Thread(target=enqueue, args=(125,)) for _ in range(4)]
        began = SYSTEM.monotonic_ns()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        windows = (SYSTEM.monotonic_ns() - began) // 5_000_000
        unfinished = "SELECT count(*) FROM jobs WHERE finished_at IS NULL"
        eventually(lambda: house.query(unfinished) == [(0,)], limit=SOON, what="all have run")
        told = len(list(listener.notifies(timeout=0.2)))
    assert 0 < told <= min(windows + 2, 499)  # at most one in each 5 ms that it took
    assert len(house.lines("quick")) == 500
    assert house.stop(family) == 0


def test_an_enqueue_whose_word_another_holds_back_waits_no_longer_than_the_poll(
    build: Build,
) -> None:
    """Who notified last may not have committed yet, or never does: then it is the poll that finds the row."""
    house = build(TASKS, processes=1, config={"database": {"poll": "1s"}})
    family = house.start()
    assert house.database
    stranger = Stranger(house.database)
    for _ in range(4):
        wait_idle(house)
        stranger.sql("BEGIN")
        stranger.sql("INSERT INTO jobs (task) VALUES ('app:quick')")
        wait_begun(house, house.enqueue("quick"), limit=1 + SOON)
        stranger.sql("ROLLBACK")
    stranger.close()
    assert house.stop(family) == 0


@pytest.mark.parametrize("pause", [True, False], ids=["after a while", "in the same moment"])
def test_a_worker_whose_backend_was_ended_listens_again_and_looks(
    build: Build, pause: bool
) -> None:
    house = build(TASKS, processes=1, config=SLOW)
    family = house.start()
    for _ in range(3):
        wait_idle(house)
        (before,) = backends(house)
        house.query("SELECT pg_terminate_backend(?)", before)
        if pause:
            eventually(
                lambda before=before: backends(house) not in ([], [before]),  # type: ignore[misc]
                what="the worker has a new connection",
            )
            wait_idle(house)
        wait_begun(house, house.enqueue("quick"))
    pids = house.workers()
    assert house.stop(family) == 0
    assert len(house.said("the database cannot be used")) <= 3
    assert len(pids) == 1


def test_a_job_that_a_killed_family_gives_back_wakes_anothers_idle_worker(build: Build) -> None:
    house = build(TASKS, processes=1, config=SLOW)
    first = house.start()
    job = house.enqueue("gated")
    house.wait_lines("began")
    other = start_second(house)
    house.touch("ok")
    first.send_signal(signal.SIGQUIT)
    house.wait_lines("began", 2)
    house.touch("go")
    house.wait_state(job, "succeeded")
    assert first.wait(30) == 75
    assert house.client.get(job).attempt == 1
    assert house.stop(other) == 0


def test_a_retry_of_a_leaving_worker_wakes_anothers_idle_worker(build: Build) -> None:
    house = build(TASKS, processes=1, config=SLOW)
    first = house.start()
    job = house.enqueue("gated")
    house.wait_lines("began")
    other = start_second(house)
    first.send_signal(signal.SIGTERM)
    eventually(lambda: house.status()["state"] == "stopping", what="the first family leaves")
    house.touch("go")
    before = SYSTEM.monotonic_ns()
    house.wait_state(job, "succeeded")
    assert (SYSTEM.monotonic_ns() - before) / 1e9 < 2 * SOON
    assert first.wait(30) == 0
    assert house.lines("began") == ["1", "2"]
    assert house.stop(other) == 0


def test_a_busy_worker_keeps_no_backlog_of_notifications(build: Build) -> None:
    house = build(TASKS, processes=1, config=SLOW)
    family = house.start()
    wait_idle(house)
    job = house.enqueue("gated")
    house.wait_lines("began")
    house.touch("ok")
    # Sent without waiting for it: on a busy machine the task runs before its server process has read it.
    eventually(
        lambda: has_left(house, backends(house)[0]), what="the busy worker has ended listening"
    )
    for _ in range(30):
        house.query("SELECT pg_notify('jobvisor', repeat('x', 4000)) FROM generate_series(1, 5)")
    assert house.query("SELECT pg_notification_queue_usage() < 0.001") == [(True,)]
    ((port,),) = house.query(
        "SELECT client_port FROM pg_stat_activity WHERE pid = ?", backends(house)[0]
    )
    assert unread(port) < 100  # the answer to UNLISTEN, and not one notification
    house.touch("go")
    house.wait_state(job, "succeeded")
    wait_idle(house)
    assert house.stop(family) == 0


def has_left(house: House, backend: int) -> bool:
    """Whether the last that this server process did was to end its listening."""
    query = "SELECT query, state FROM pg_stat_activity WHERE pid = ?"
    return house.query(query, backend) == [("UNLISTEN *", "idle")]


def unread(port: int) -> int:
    """How many bytes wait to be read at the end of a connection that has this port of ours."""
    found = re.search(
        rf"^ *\d+: [0-9A-F]{{8}}:{port:04X} \S+ 01 \S+:([0-9A-F]+) ",
        Path("/proc/net/tcp").read_text(),
        re.MULTILINE,
    )
    assert found, f"no connection has the port {port}"
    return int(found[1], 16)


def test_a_worker_connects_while_its_family_waits_for_its_first_lease(build: Build) -> None:
    house = build(TASKS, config=SLOW)
    with psycopg.connect(house.database or "") as other:
        other.execute("LOCK TABLE jobvisor.families IN ACCESS EXCLUSIVE MODE")
        family = house.start(ready=False)
        eventually(lambda: len(backends(house)) == 2, what="both workers are connected")
    house.wait_ready(family)
    assert house.stop(family) == 0


def test_an_idle_worker_asks_the_server_no_oftener_than_its_poll(build: Build) -> None:
    house = build(TASKS, processes=1, config=SLOW)
    family = house.start()
    wait_idle(house)
    (pid,) = house.workers()
    before = switches(pid)
    house.wait_rounds(1)  # five seconds, with a beat in each
    assert switches(pid) - before <= 10
    assert house.stop(family) == 0
