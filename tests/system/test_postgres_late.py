"""What a dead worker had sent and its server had not yet read is done after the worker was settled."""

from __future__ import annotations

import os
import signal

import pytest

from jobvisor import Fixed
from tests.system.harness import Build
from tests.system.history import (
    SHORT,
    calls,
    check_each_succeeded,
    check_nothing_left,
    wait_begun,
)
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("postgres")]

TASKS = f"""{SHORT}
@task
def gated(ctx: Context):
    mark("start", ctx)
    while not os.path.exists("gate"):
        time.sleep(0.005)  # task body
    mark("end", ctx)
"""


def test_a_claim_that_commits_after_its_worker_was_settled_keeps_no_job(build: Build) -> None:
    house = build(TASKS, processes=1)
    house.enqueue("gated")
    family = house.start()
    wait_begun(house)
    (worker,) = house.workers()
    ((backend,),) = house.query(
        "SELECT pid FROM pg_stat_activity"
        " WHERE application_name LIKE '%worker%' AND datname = current_database()"
    )
    os.kill(backend, signal.SIGSTOP)
    try:
        ids = calls(house, "short", 50, retry=Fixed(0))
        house.touch("gate")
        eventually(lambda: house.status()["workers"][0]["state"] == "turn", what="its turn is sent")
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: house.said("settled worker"), what="the worker is settled")
    finally:
        os.kill(backend, signal.SIGCONT)
    house.wait_finished(ids, limit=10)
    assert house.stop(family) == 0
    check_each_succeeded(house, ids)
    assert house.query("SELECT max(losses) FROM jobs") == [(0,)]
    check_nothing_left(house)
