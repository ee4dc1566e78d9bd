"""A module of tasks that subscribes: each worker tells it what it did, once that is in the database."""

from __future__ import annotations

import pytest

from tests.system.harness import MARK, Build
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.lanes(1, 4),
]

TASKS = f"""{MARK}
@task
def fine(n):
    return n

@task
def bad():
    raise ValueError("why")

def told(event):
    mark("told", f"{{event.verb}} {{event.job}} {{event.error}}")
    for path in ("jobs.db", "jobs.db-shm"):  # to close the database drops the locks of the process
        if os.path.exists(path):
            os.close(os.open(path, os.O_RDWR))

subscribe(told)
"""


def test_a_module_of_tasks_hears_of_claims_and_ends_in_its_worker(build: Build) -> None:
    house = build(TASKS, processes=1)
    ids = house.client.enqueue_many([house.client.call("app:fine", n) for n in range(50)])
    wrong = house.enqueue("bad", retries=0)
    family = house.start()
    house.wait_finished([*ids, wrong])
    wanted = [f"{verb} {job} None" for job in ids for verb in ("claim", "succeed")]
    wanted += [f"claim {wrong} None", f"fail {wrong} ValueError: why"]
    eventually(lambda: len(house.lines("told")) >= len(wanted), what="all is told")
    assert sorted(house.lines("told")) == sorted(wanted)
    house.check_whole()
    assert house.stop(family) == 0
