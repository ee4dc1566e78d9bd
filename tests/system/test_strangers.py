"""A family among rows that strangers wrote with plain SQL: it lives on, and good jobs run."""

from __future__ import annotations

import json

import pytest

from tests.strangers import EXTREMES, LEAST, MOST, REFUSALS, written
from tests.system.harness import MARK, Build, House
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

TASKS = f"""{MARK}
@task
def quick(n):
    mark("quick", n)
"""

FAMILY = (
    "INSERT INTO families (id, name, host, boot_id, pid_namespace, pid, start_ticks, version, state_dir,"
    " dead_after_ms, started_at, heartbeat_at) VALUES"
    " ({id}, 'theirs', 'h', 'b', {n}, {pid}, {n}, 'v', {dir}, {after}, {at}, {at})"
)
OWNER = (
    "INSERT INTO owners (owner, family, name, host, boot_id, pid_namespace, pid, start_ticks, started_at)"
    " VALUES ({n}, {n}, 'theirs', 'h', 'b', {n}, {pid}, {n}, {at})"
)


def write_processes(house: House, *, dates: bool) -> None:
    """Families and owners that never were."""
    moments = ["'infinity'", "'-infinity'", "now()"] if dates else [MOST, LEAST, 0]
    kept = 0
    for number, at in enumerate(moments):
        for n in (MOST - number, LEAST + number, -1 - number):
            for pid in (MOST, 2**31 - 1, -1):
                for folder in ("''", f"'{'x' * 5000}'", "'a' || chr(10)", "'/proc/1/root'"):
                    values = {"id": kept + 5, "n": n, "pid": pid, "dir": folder, "at": at}
                    for text in (FAMILY, OWNER):
                        try:
                            house.query(text.format(after=MOST if pid == MOST else 1, **values))
                            kept += 1
                        except REFUSALS:
                            continue
    assert kept


def test_a_family_lives_on_among_the_rows_of_strangers(build: Build, store_kind: str) -> None:
    house = build(TASKS, processes=2, config={"supervisor": {"dead_after": "3s"}})
    house.client.counts()
    dates = store_kind == "postgres"
    kept = sum(
        written(house.query, column, ("pending", "running"), dates=dates, task="app:quick")
        for column in EXTREMES
    )
    assert kept > 100
    write_processes(house, dates=dates)
    family = house.start()
    good = [house.enqueue("quick", 1_000 + n) for n in range(20)]
    house.wait_finished(good, limit=60)
    assert {house.client.get(job).state for job in good} == {"succeeded"}
    # Nobody runs the rows that were written as running: they are given back, run or failed.
    theirs = "SELECT count(*) FROM jobs WHERE state = 'running'"
    eventually(lambda: house.query(theirs) == [(0,)], limit=60, what="no row is left running")
    late = house.enqueue("quick", 2_000)
    house.wait_finished([late], limit=60)
    assert not [line for line in house.said("died: ") if "worker" in line or "caretaker" in line]
    seen = house.client.list(limit=10_000)
    assert len(seen) == kept + 21
    assert all(json.dumps(job.as_json(), allow_nan=False) for job in seen)
    assert house.stop(family) == 0


def test_a_trigger_that_skips_a_claim_stops_no_other_job(build: Build, store_kind: str) -> None:
    house = build(TASKS, processes=1)
    house.client.counts()
    first = house.enqueue("quick", 1)
    if store_kind == "postgres":
        house.query(
            "CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$"
        )
        house.query(
            f"CREATE TRIGGER skip BEFORE UPDATE ON jobs FOR EACH ROW WHEN (new.id = {first})"
            " EXECUTE FUNCTION skip()"
        )
    else:
        house.query(
            f"CREATE TRIGGER skip BEFORE UPDATE ON jobs WHEN new.id = {first}"
            " BEGIN SELECT RAISE(IGNORE); END"
        )
    family = house.start()
    eventually(lambda: house.said("claims in a row changed nothing"), what="it says so")
    good = [house.enqueue("quick", n) for n in range(3)]
    house.wait_finished(good)
    assert len(house.heard("claims in a row changed nothing")) == 1
    assert house.client.get(first).state == "pending"
    assert house.stop(family) == 0
