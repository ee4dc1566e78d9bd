"""Releases side by side: the database says which of them may still work on it."""

from __future__ import annotations

import pytest

from jobvisor.jobs.store.tables import SCHEMA
from tests.system.harness import MARK, Build, House
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("postgres")]

TASKS = f"""{MARK}
@task
def quick():
    mark("quick", os.getpid())
"""
CONFIG = {"supervisor": {"dead_after": "3s"}}


def migrated_by_a_later_release(house: House, oldest: int) -> None:
    """As its migration leaves it: the number of the schema, and the oldest one that may work on it."""
    house.query("UPDATE meta SET value = ? WHERE key = 'schema'", str(SCHEMA + 1))
    house.query("UPDATE meta SET value = ? WHERE key = 'oldest_schema'", str(oldest))


def test_a_family_goes_on_beside_a_newer_release_that_lets_it(build: Build) -> None:
    house = build(TASKS, processes=2, config=CONFIG)
    family = house.start()
    children = house.children(family.pid)
    migrated_by_a_later_release(house, SCHEMA)
    house.wait_heartbeats(2)  # it has looked by now
    house.wait_finished([house.enqueue("quick") for _ in range(20)])
    assert house.children(family.pid) == children
    assert not house.said("the database cannot be used")
    assert house.stop(family) == 0
    # And one more of it may start.
    assert house.drain() == 0


def test_a_family_stops_claiming_when_a_newer_release_locks_it_out_and_goes_on_when_it_may(
    build: Build,
) -> None:
    house = build(TASKS, processes=2, config=CONFIG)
    family = house.start()
    house.wait_finished([house.enqueue("quick")])
    children = house.children(family.pid)
    row = house.query("SELECT id FROM families")
    migrated_by_a_later_release(house, SCHEMA + 1)
    eventually(lambda: house.said(f"this release knows {SCHEMA}"), what="it says so")
    house.query("INSERT INTO jobs (task) VALUES ('app:quick')")
    house.wait_rounds(1)
    assert house.query("SELECT state, attempt FROM jobs ORDER BY id DESC LIMIT 1") == [
        ("pending", 0)
    ]
    assert len(house.said(f"this release knows {SCHEMA}")) <= 3  # one of each child
    assert f"has schema {SCHEMA + 1}" in house.said(f"this release knows {SCHEMA}")[0]
    assert family.poll() is None

    migrated_by_a_later_release(house, SCHEMA)
    house.wait_lines("quick", 2)
    assert house.children(family.pid) == children
    assert house.query("SELECT id FROM families") == row
    assert house.stop(family) == 0


def test_a_release_that_is_locked_out_does_not_start_and_says_why(build: Build) -> None:
    house = build(TASKS, config=CONFIG)
    migrated_by_a_later_release(house, SCHEMA + 1)
    family = house.start(ready=False)
    assert family.wait(30) == 78
    assert house.heard(
        f"has schema {SCHEMA + 1}, and this release knows {SCHEMA}; install a newer jobvisor"
    )
