"""Cancel, progress and stopping: what a person asks of a job, and what a job may ask."""

from __future__ import annotations

import signal

import pytest

from jobvisor.jobs.clock import SYSTEM
from tests.system.harness import MARK, Build
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

TASKS = f"""{MARK}
@task
def quick(n):
    mark("quick", n)

@task
def gated(n):
    mark("began", n)
    gate("go")
    mark("ended", n)

@task
def polite(ctx: Context):
    mark("began")
    while not ctx.cancelled:
        time.sleep(0.005)  # task body
    mark("cleaned up")
    raise Cancelled("as you wish")

@task
def checking(ctx: Context):
    mark("began", ctx.attempt)
    while not os.path.exists("go"):
        ctx.check()
        time.sleep(0.005)  # task body
    return "done"

@task
def obstinate(ctx: Context):
    mark("began")
    while True:
        try:
            ctx.check()
            time.sleep(0.005)  # task body
        except BaseException:
            mark("heard")
            time.sleep(600)  # task body

@task
def late(ctx: Context):
    mark("began")
    while not ctx.cancelled:
        time.sleep(0.005)  # task body
    return "finished all the same"

@task
def failing(ctx: Context):
    mark("began")
    while not ctx.cancelled:
        time.sleep(0.005)  # task body
    raise ValueError("not now")

@task
def telling(ctx: Context):
    ctx.progress(1, total=3, note="first")
    gate("second")
    ctx.progress(2, total=3)
    gate("go")

@task
def leaving(ctx: Context):
    mark("began", ctx.attempt)
    while not ctx.stopping:
        time.sleep(0.005)  # task body
    raise Release
"""


def test_a_pending_job_is_cancelled_at_once(build: Build) -> None:
    house = build(TASKS)
    job = house.enqueue("quick", 1)
    assert house.client.cancel(job) == "cancelled"
    assert house.client.get(job).state == "cancelled"
    assert house.drain() == 0
    assert house.lines("quick") == []


@pytest.mark.lanes(1, 4)
@pytest.mark.parametrize("name", ["polite", "checking"])
def test_a_running_job_that_listens_ends_soon_after_the_cancel(build: Build, name: str) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue(name, retries=3)
    family = house.start()
    (worker,) = house.workers()
    house.wait_lines("began")
    assert house.client.cancel(job) == "requested"
    began = SYSTEM.monotonic_ns()
    house.wait_finished([job])
    assert SYSTEM.monotonic_ns() - began < 9e9  # at ten its grace would be over
    assert house.client.get(job).state == "cancelled"
    assert house.history(job) == ["cancelled"]
    assert house.workers() == [worker]
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
def test_a_job_that_does_not_listen_is_killed_after_cancel_grace(build: Build) -> None:
    house = build(TASKS, processes=1, config={"supervisor": {"cancel_grace": "300ms"}})
    job = house.enqueue("obstinate", retries=3)
    family = house.start()
    house.wait_lines("began")
    assert house.client.cancel(job) == "requested"
    began = SYSTEM.monotonic_ns()
    house.wait_finished([job])
    assert SYSTEM.monotonic_ns() - began > 250_000_000
    assert house.client.get(job).state == "cancelled"
    (attempt,) = house.client.attempts(job)
    assert (attempt.outcome, attempt.verdict) == ("cancelled", "cancel")
    assert len(house.lines("began")) == 1
    house.wait_finished([house.enqueue("quick", 1)])
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
def test_a_success_wins_over_a_cancel_and_a_failure_does_not(build: Build) -> None:
    house = build(TASKS, processes=2)
    late, failing = house.enqueue("late"), house.enqueue("failing", retries=3)
    family = house.start()
    house.wait_lines("began", 2)
    assert [house.client.cancel(job) for job in (late, failing)] == ["requested", "requested"]
    house.wait_finished([late, failing])
    found = house.client.get(late)
    assert (found.state, found.result) == ("succeeded", "finished all the same")
    assert house.client.get(failing).state == "cancelled"
    assert house.stop(family) == 0


def test_a_claimed_job_that_has_not_begun_is_cancelled_and_never_runs(build: Build) -> None:
    house = build(TASKS, processes=1)
    first = [house.enqueue("quick", n, retries=0) for n in range(100)]
    gated = house.enqueue("gated", 1, retries=0)
    rest = [house.enqueue("quick", n, retries=0) for n in range(100, 200)]
    family = house.start(ready=False)
    house.wait_lines("began")
    answers = {house.client.cancel(job) for job in rest[:50]}
    assert answers <= {"cancelled", "requested"}
    eventually(
        lambda: all(house.client.get(job).state == "cancelled" for job in rest[:50]),
        what="those behind the running job are cancelled while it runs",
    )
    assert house.client.get(gated).state == "running"
    house.touch("go")
    house.wait_finished([*first, gated, *rest])
    ran = [str(n) for n in (*range(100), *range(150, 200))]
    assert sorted(house.lines("quick"), key=int) == ran
    assert house.stop(family) == 0


def test_a_long_job_does_not_keep_its_batch_waiting(build: Build) -> None:
    house = build(TASKS, processes=2)
    first = [house.enqueue("quick", n, retries=0) for n in range(300)]
    gated = house.enqueue("gated", 1, retries=0)
    rest = [house.enqueue("quick", n, retries=0) for n in range(300, 600)]
    family = house.start()
    house.wait_finished([*first, *rest], limit=20)
    assert house.client.get(gated).state == "running"
    house.touch("go")
    house.wait_finished([gated])
    assert sorted(house.lines("quick"), key=int) == [str(n) for n in range(600)]
    assert house.query("SELECT count(*) FROM jobs WHERE attempt <> 1") == [(0,)]
    assert house.stop(family) == 0


def test_progress_reaches_the_row_while_the_job_runs(build: Build) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("telling")
    family = house.start()
    expected = {"done": 1, "total": 3, "note": "first"}
    eventually(lambda: house.client.get(job).progress == expected)
    house.touch("second")
    eventually(lambda: house.client.get(job).progress == {"done": 2, "total": 3})
    assert house.client.get(job).state == "running"
    house.touch("go")
    house.wait_finished([job])
    assert house.stop(family) == 0


def test_a_job_that_asks_whether_it_should_stop_gives_itself_back(build: Build) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("leaving", retries=0)
    family = house.start()
    house.wait_lines("began")
    assert house.stop(family) == 0
    found = house.client.get(job)
    assert (found.state, found.attempt) == ("pending", 0)


@pytest.mark.lanes(1, 4)
def test_check_gives_a_job_back_when_its_worker_is_to_leave_before_the_next_one(
    build: Build,
) -> None:
    house = build(TASKS, processes=1, overlap=False)
    job = house.enqueue("checking", retries=0)
    family = house.start()
    house.wait_lines("began")
    family.send_signal(signal.SIGHUP)
    assert house.wait_lines("began", 2) == ["1", "1"]
    house.touch("go")
    house.wait_finished([job])
    assert (house.client.get(job).state, house.client.get(job).attempt) == ("succeeded", 1)
    assert house.stop(family) == 0
