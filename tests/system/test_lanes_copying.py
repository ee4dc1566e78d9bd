"""Tasks in eight lanes copy the folder of their own database all the time, and enqueue, and are killed.

Each copy opens and closes the files of the database, and so drops every lock that its process holds on
them. No connection to it may be in that process.
"""

from __future__ import annotations

import pytest

from tests.system.harness import Build, House
from tests.system.history import (
    calls,
    check_each_succeeded,
    check_nothing_left,
    marking,
    marks,
)
from tests.system.test_exact_kill import kill_at_random_moments

pytestmark = pytest.mark.system

COPIES = marking("""
import shutil, threading

@task(retry=Fixed(0), retries=100)
def copies(ctx: Context):
    mark("start", ctx)
    folder = f"copies/{os.getpid()}-{threading.get_ident()}"
    os.makedirs(folder, exist_ok=True)
    for name in ("jobs.db", "jobs.db-wal", "jobs.db-shm"):
        try:
            shutil.copy(name, folder)
        except FileNotFoundError:
            pass
    if ctx.job % 5 == 0:
        child = follows.enqueue(ctx.job)
        os.write(_runs, f"follows {child.id} 1 {os.getpid()} 0\\n".encode())
    mark("end", ctx)

@task
def follows(ctx: Context, number):
    mark("end", ctx)
""")


def check_copied(house: House, jobs: int, kills: int) -> None:
    ids = calls(house, "copies", jobs)
    family = house.start()
    kill_at_random_moments(house, kills)
    house.wait_finished(ids, limit=300)
    followers = [mark.job for mark in marks(house) if mark.word == "follows"]
    house.wait_finished(followers)
    assert house.stop(family) == 0
    assert len(followers) >= jobs // 5
    check_each_succeeded(house, [*ids, *followers])
    check_nothing_left(house)


def test_a_database_that_eight_lanes_copy_all_the_time_stays_whole(build: Build) -> None:
    check_copied(build(COPIES, concurrency=8), jobs=1_000, kills=2)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_ten_thousand_copies_and_twenty_kills_harm_no_database(build: Build) -> None:
    check_copied(build(COPIES, concurrency=8), jobs=10_000, kills=20)
