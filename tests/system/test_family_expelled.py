"""A family whose row was taken from it: it finishes what runs, and comes back as another one."""

from __future__ import annotations

import pytest

from tests.system.harness import MARK, Build, alive
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

TASKS = f"""{MARK}
@task
def gated():
    mark("began", os.getpid())
    gate("go")
    mark("ended")

@task
def who():
    mark("who", os.getpid())

@task
def later():
    mark("later", os.getpid())
"""


@pytest.mark.preload(False, True)
@pytest.mark.parametrize("dead_after", ["1s", "3s"])
def test_a_family_declared_dead_ends_its_job_and_comes_back_as_a_new_one(
    build: Build, dead_after: str
) -> None:
    house = build(TASKS, processes=2, config={"supervisor": {"dead_after": dead_after}})
    family = house.start()
    job = house.enqueue("gated", retries=0)
    busy = int(house.wait_lines("began")[0])
    before = house.query("SELECT id FROM families")
    old = {*house.workers(), house.caretaker()}  # a template stays
    house.query("DELETE FROM families")
    house.query("DELETE FROM owners")
    eventually(lambda: house.said("was declared dead"), limit=10, what="the family notices")

    # Whoever is idle leaves, and one of the new family takes its place; the busy one goes on.
    eventually(lambda: {*house.children(family.pid)} & old == {busy}, what="the idle have left")
    eventually(lambda: house.query("SELECT id FROM families"), what="there is a new family")
    after = house.query("SELECT id FROM families")
    assert len(after) == 1
    assert after != before
    house.wait_finished([house.enqueue("who")])
    assert int(house.lines("who")[0]) not in old
    assert alive(busy)

    house.enqueue("later")
    house.touch("go")
    house.wait_state(job, "succeeded")
    eventually(lambda: not alive(busy), what="the busy one has left after its job")
    house.wait_lines("later")
    assert int(house.lines("later")[0]) not in old
    assert (len(house.lines("began")), len(house.lines("ended"))) == (1, 1)
    assert house.client.get(job).attempt == 1
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    assert len(house.heard("was declared dead")) == 1
    assert house.stop(family) == 0
    assert house.query("SELECT count(*) FROM families") == [(0,)]
    assert house.query("SELECT count(*) FROM owners") == [(0,)]


def test_a_worker_of_an_expelled_family_starts_nothing_more_of_its_batch(build: Build) -> None:
    # The long job stands in the middle of a batch; what is behind it runs, but not in that process.
    source = """
@task
def short(n):
    if n == 150:
        mark("began", os.getpid())
        gate("go")
    mark("ran", f"{os.getpid()} {n}")
"""
    house = build(TASKS + source, processes=1, config={"supervisor": {"dead_after": "1s"}})
    ids = house.client.enqueue_many(house.client.call("app:short", n) for n in range(300))
    family = house.start()
    busy = house.wait_lines("began")[0]
    house.query("DELETE FROM families")
    house.query("DELETE FROM owners")
    eventually(lambda: house.said("was declared dead"), limit=10, what="the family notices")
    house.touch("go")
    house.wait_finished(ids)
    ran = [line.split() for line in house.lines("ran")]
    assert sorted(int(n) for _pid, n in ran) == list(range(300))
    assert {pid for pid, n in ran if int(n) <= 150} == {busy}
    assert busy not in {pid for pid, n in ran if int(n) > 150}
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    assert house.stop(family) == 0
