"""Jobs whose task no module defines: put off with growing delay, or failed where that is asked."""

from __future__ import annotations

import signal

import pytest

from tests.system.harness import MARK, Build
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.lanes(1, 4),
]

TASKS = f"{MARK}\n@task\ndef quick(n):\n    mark('quick', n)\n"


def test_an_unknown_task_is_deferred_with_growing_delay_and_costs_no_attempt(
    build: Build,
) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("not_yet", retries=0)
    other = house.enqueue("quick", 1)
    family = house.start()
    house.wait_finished([other])

    def seen(times: int) -> float | None:
        ((state, claims, ahead),) = house.query(
            "SELECT state, claims, run_at - claimed_at FROM jobs WHERE id = ?", job
        )
        return ahead if (state, claims) == ("scheduled", times) else None

    delays = [eventually(lambda n=n: seen(n), limit=10) for n in (1, 2)]  # type: ignore[misc]
    assert 900 <= (delays[0] or 0) <= 1200
    assert 1900 <= (delays[1] or 0) <= 2300
    found = house.client.get(job)
    assert (found.attempt, found.deferred) == (0, "unknown")
    assert "no module has the task 'app:not_yet'" in (found.error or "")
    assert house.stop(family) == 0


def test_many_jobs_of_one_unknown_task_make_one_warning(build: Build) -> None:
    house = build(TASKS, processes=1)
    ids = [house.enqueue("not_yet", n) for n in range(200)]
    family = house.start()
    eventually(
        lambda: house.query("SELECT count(*) FROM jobs WHERE deferred = 'unknown'") == [(200,)]
    )
    assert len(house.heard("which no module of [tasks] modules defines")) == 1
    assert house.query("SELECT count(*) FROM jobs WHERE attempt > 0") == [(0,)]
    assert house.stop(family) == 0
    assert len(ids) == 200


def test_a_deferred_job_runs_once_its_task_is_deployed(build: Build) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("not_yet", retries=0)
    family = house.start()
    eventually(lambda: house.client.get(job).deferred == "unknown")
    with (house.folder / "app.py").open("a") as source:
        source.write("\n@task\ndef not_yet():\n    return 'now'\n")
    family.send_signal(signal.SIGHUP)
    house.wait_finished([job], limit=10)
    found = house.client.get(job)
    assert (found.state, found.result, found.attempt) == ("succeeded", "now", 1)
    assert house.stop(family) == 0


def test_an_unknown_task_fails_where_that_is_configured(build: Build) -> None:
    house = build(TASKS, processes=1, config={"tasks": {"unknown": "fail"}})
    job = house.enqueue("not_yet", retries=3)
    family = house.start()
    house.wait_finished([job])
    assert house.client.get(job).state == "failed"
    assert house.history(job) == ["unknown"]
    assert "not_yet" in (house.client.get(job).error or "")
    assert house.stop(family) == 0
