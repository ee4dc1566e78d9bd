"""Pauses and deadlines with real families: obeyed by all, kept over restarts, and no worker spins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter

import pytest

from tests.system.harness import MARK, Build, House, seconds_for_sleeps
from tests.system.test_family_second import second_config
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

TASKS = f"""{MARK}
@task
def send(n):
    mark("sent", n)

@task
def other(n):
    mark("other", n)

@task
def stubborn():
    mark("began")
    while True:
        time.sleep(1)  # task body

@task
def fails():
    raise ValueError("not yet")

@task
def late():
    mark("late")

@task
def slow(n):
    mark("began", "%d %r" % (n, time.time()))
    time.sleep(0.2)  # task body

@task
def brief(n):
    mark("began", "%d %r" % (n, time.time()))
    time.sleep(0.004)  # task body
"""

#: Ends as one whose machine fails between the commit of a resume and the freeing of what is parked.
DIES = """
import os, signal, sys
from jobvisor import Client
with Client(sys.argv[1])._store() as store:
    assert store.resume("task", "app:send")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def sent(house: House) -> list[str]:
    return house.lines("sent") if (house.folder / "sent").exists() else []


def began(house: House) -> dict[int, float]:
    """When each job began that has; none began twice."""
    lines = [line.split() for line in house.lines("began")]
    found = {int(number): float(at) for number, at in lines}
    assert len(found) == len(lines)
    return found


def test_a_pause_is_obeyed_by_two_families_and_outlives_their_restart(build: Build) -> None:
    house = build(TASKS, queues=["mail", "default"], processes=1)
    first = house.start()
    second = house.start("-c", second_config(house), ready=False)
    house.enqueue("send", 0, queue="mail")
    house.wait_lines("sent")
    house.client.pause("mail")
    ids = [house.enqueue("send", n, queue="mail") for n in range(1, 21)]
    # Work goes on beside it, in both families: each of them has had turns since.
    house.wait_finished([house.enqueue("other", n) for n in range(40)])
    assert sent(house) == ["0"]
    # A worker whose other queue is empty sleeps: a turn for each look would take no second for these.
    for worker in house.workers():
        assert seconds_for_sleeps(worker, 8) > 1
    house.kill_family(first)
    assert house.stop(second) == 0
    third = house.start()
    house.wait_finished([house.enqueue("other", n) for n in range(40, 60)])
    assert sent(house) == ["0"]
    assert {house.client.get(job).state for job in ids} == {"pending"}
    assert house.client.resume("mail")
    house.wait_finished(ids)
    assert house.stop(third) == 0
    assert sorted(map(int, sent(house))) == list(range(21))


def test_a_drain_leaves_what_is_paused(build: Build) -> None:
    house = build(TASKS, queues=["mail", "default"])
    house.client.pause("mail")
    left, done = house.enqueue("send", 1, queue="mail"), house.enqueue("other", 1)
    assert house.drain() == 0
    assert (house.client.get(left).state, house.client.get(done).state) == ("pending", "succeeded")


@pytest.mark.lanes(1, 4)
def test_a_deadline_ends_what_runs_what_waits_for_a_retry_and_an_expiry_what_was_never_begun(
    build: Build,
) -> None:
    house = build(TASKS, queues=["default"], config={"supervisor": {"cancel_grace": "200ms"}})
    late = house.enqueue("late", queue="nobody", expires_in="1s")
    family = house.start()
    again = {"retries": 5, "retry": "1h"}
    runs = house.enqueue("stubborn", deadline="1s", **again)
    waits = house.enqueue("fails", deadline="2s", **again)
    house.wait_finished([runs, waits, late])
    found = house.client.get_many([runs, waits, late])
    assert [found[job].state for job in (runs, waits, late)] == ["failed", "failed", "cancelled"]
    assert "deadline" in (found[runs].error or "")
    assert (found[waits].error or "").startswith(
        "deadline: it was not done by its deadline; its last"
    )
    assert (found[late].error or "").startswith("expired: ")
    assert found[runs].attempt == 1
    [attempt] = house.client.attempts(runs)
    assert attempt.outcome == "timeout"
    assert "deadline" in (attempt.message or "")
    assert len(house.lines("began")) == 1
    assert not (house.folder / "late").exists()
    assert house.stop(family) == 0


def test_a_worker_that_dies_past_the_deadline_of_its_job_has_it_fail(build: Build) -> None:
    house = build(TASKS, queues=["default"], processes=1)
    family = house.start()
    job = house.enqueue("stubborn", deadline="1h", retries=5)
    house.wait_lines("began")
    moment = "deadline_at = 1000" if house.database is None else "deadline_at = '2001-01-01Z'"
    house.query(f"UPDATE jobs SET {moment} WHERE id = {job}")
    (worker,) = house.workers()

    os.kill(worker, signal.SIGKILL)
    house.wait_finished([job])
    assert house.client.get(job).state == "failed"
    eventually(lambda: house.client.attempts(job), what="the death is in the history")
    assert house.stop(family) == 0


@pytest.mark.lanes(4)
def test_a_pause_of_a_queue_in_which_all_lanes_are_busy_takes_effect_within_a_second(
    build: Build,
) -> None:
    house = build(TASKS, queues=["mail", "default"], processes=1)
    family = house.start()
    ids = [house.enqueue("slow", n, queue="mail") for n in range(60)]
    house.wait_lines("began", 9)
    since = house.client.pause("mail").since.timestamp()
    # Work goes on beside it for longer than a pause may take.
    house.wait_finished([house.enqueue("other", 0, run_in="2s")])
    assert max(began(house).values()) < since + 1
    states = Counter(house.client.get(job).state.value for job in ids)
    assert set(states) == {"succeeded", "pending"}
    assert states["succeeded"] == len(began(house))
    assert house.client.resume("mail")
    house.wait_finished(ids)
    assert len(began(house)) == 60
    assert house.stop(family) == 0


def test_what_a_resumer_left_parked_that_died_after_its_commit_is_set_free_by_a_family(
    build: Build,
) -> None:
    house = build(TASKS, queues=["default"], processes=1)
    house.client.pause(task="app:send")
    family = house.start()
    ids = [house.enqueue("send", n) for n in range(3)]
    eventually(
        lambda: {house.client.get(job).parked for job in ids} == {"task:app:send"},
        what="all are set aside",
    )
    url = house.database or f"sqlite:///{house.folder}/jobs.db"
    died = subprocess.run([sys.executable, "-c", DIES, url], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    house.wait_finished(ids)
    assert sorted(sent(house)) == ["0", "1", "2"]
    assert house.stop(family) == 0


def test_no_job_starts_that_expires_while_others_are_claimed_beside_it(build: Build) -> None:
    house = build(TASKS, queues=["default"], processes=2)
    family = house.start()
    house.client.pause("default")
    ids = [house.enqueue("brief", n, expires_in=f"{400 + 2 * n}ms") for n in range(300)]
    house.client.resume("default")
    house.wait_finished(ids)
    assert house.stop(family) == 0
    jobs, begun = house.client.get_many(ids), began(house)
    for number, job in enumerate(jobs[each] for each in ids):
        assert job.state == ("succeeded" if number in begun else "cancelled")
        assert job.expires_at is not None
        # It is looked at right before; a machine under load may then keep the process waiting.
        assert begun.get(number, 0) < job.expires_at.timestamp() + 0.5
