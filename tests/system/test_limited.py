"""Limits in a real family: the tasks themselves look whether a place is another's."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

import pytest

from jobvisor.jobs.task import OptionValues
from tests.system.harness import MARK, Build, House
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = (
    MARK
    + """
import fcntl

@task
def train(ctx: Context):
    # The system lets go of the lock when its process dies, so a place that is held twice is seen.
    with open(f"place-{ctx.place}", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            mark("violations", str(ctx.place))
        mark("places", str(ctx.place))
        time.sleep(0.02)  # task body

@task
def call(n):
    mark("calls", str(time.monotonic_ns()))

@task
def other(n):
    mark("others", str(n))
"""
)


def kill_one(house: House) -> bool:
    """The first worker, if it is there still: what the status says is a moment old."""
    with suppress(IndexError, ProcessLookupError):
        os.kill(house.workers()[0], signal.SIGKILL)
        return True
    return False


GPU: OptionValues = {"limit": "gpu", "retries": 50, "retry": 0}


@pytest.mark.lanes(1, 4)
@pytest.mark.stores("sqlite", "postgres")
def test_no_place_is_held_twice_whatever_dies(build: Build) -> None:
    house = build(TASKS, processes=3, config={"limits.gpu": {"concurrency": 2}})
    jobs = [house.enqueue("train", **GPU) for _ in range(60)]
    others = [house.enqueue("other", n) for n in range(10)]
    family = house.start()
    for count in (8, 16, 24):
        marked = lambda count=count: len(house.lines("places")) >= count  # noqa: E731
        eventually(marked, limit=120)
        eventually(lambda: kill_one(house), what="there is a worker to kill")
    house.wait_finished([*jobs, *others], limit=180)
    assert house.lines("violations") == []
    assert set(house.lines("places")) == {"0", "1"}
    assert house.query("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == [(70,)]
    assert house.stop(family) == 0


@pytest.mark.stores("sqlite", "postgres")
def test_a_rate_goes_on_while_all_rest_in_between(build: Build) -> None:
    limit = {"rate": "20/1s", "burst": 1}
    house = build(TASKS, processes=2, config={"limits.api": limit})
    jobs = [house.enqueue("call", n, limit="api:all") for n in range(12)]
    family = house.start()
    house.wait_finished(jobs)
    began = sorted(map(int, house.lines("calls")))
    assert began[-1] - began[0] >= 11 * 50e6 * 0.95  # never ahead of the rate
    assert house.stop(family) == 0


def test_a_limit_is_changed_while_the_family_works(build: Build) -> None:
    house = build(TASKS, processes=2, config={"limits.gpu": {"concurrency": 0}})
    jobs = [house.enqueue("train", **GPU) for _ in range(4)]
    family = house.start()
    eventually(lambda: house.query("SELECT count(*) FROM jobs WHERE state = 'blocked'") == [(4,)])
    house.client.limits.set("gpu", concurrency=1)
    house.wait_finished(jobs)
    assert house.lines("violations") == []
    house.client.limits.remove("gpu")
    # What the family's own file says counts again by itself.
    eventually(lambda: [one.limit.concurrency for one in house.client.limits.list()] == [0])
    late = house.enqueue("train", **GPU)
    eventually(lambda: house.client.get(late).state == "blocked")
    assert "0 of 0, 1st in line" in str(house.client.limits.waiting(late))
    assert house.stop(family) == 0
