"""What the caretaker of a family tidies up, a page at a time, while the family runs."""

from __future__ import annotations

import os
import signal

import pytest

from jobvisor.jobs.store.following import TRIMMED_AT_ONCE
from tests.system.harness import MARK, Build
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = f"""{MARK}
@task
def gated():
    mark("began")
    gate("go")
"""

PAGES = 5  # by one page every ten seconds the limit of a wait would be passed

_OLD = """
WITH RECURSIVE series (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM series WHERE number < {last})
INSERT INTO changes (number, jobs, at) SELECT number, '1', 0 FROM series
"""


def test_old_changes_are_trimmed_by_the_family_page_after_page(build: Build) -> None:
    house = build(TASKS, processes=1)
    house.client.counts()  # the tables are there
    last = PAGES * TRIMMED_AT_ONCE
    house.query(_OLD.format(last=last))
    job = house.enqueue("gated")  # while one runs the caretaker has no long pauses
    family = house.start(ready=False)
    house.wait_lines("began")
    eventually(
        lambda: house.query("SELECT number FROM changes LIMIT 2") == [(last,)],
        what="the newest alone is left",
    )
    house.touch("go")
    house.wait_finished([job])
    assert house.stop(family) == 0


_ENDED = """
WITH RECURSIVE series (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM series WHERE number < {last})
INSERT INTO jobs (task, queue, state, finished_at) SELECT 'tasks:old', CASE WHEN number % 1000 = 0 THEN 'kept'
    ELSE 'default' END, 'succeeded', {at} FROM series
"""
_RAN = """
INSERT INTO attempts (job, attempt, owner, claim, outcome, finished_at)
SELECT id, 1, 1, 1, 'failure', {at} FROM jobs
"""
ENDED = 30_000  # by a page each second the limit of a wait would be passed
KEPT = ENDED // 1_000


@pytest.mark.stores("sqlite", "postgres")
def test_old_jobs_are_removed_by_a_family_at_rest_but_those_of_a_queue_that_keeps_them(
    build: Build,
) -> None:
    house = build(TASKS, processes=1, config={"queues.kept": {"keep": "forever"}})
    house.client.counts()
    at = "'1970-01-01Z'" if house.database else 1
    house.query(_ENDED.format(last=ENDED, at=at))
    house.query(_RAN.format(at=at))
    family = house.start()
    eventually(
        lambda: house.query("SELECT count(*) FROM jobs") < [(ENDED,)], what="the first are gone"
    )
    os.kill(house.caretaker(), signal.SIGKILL)
    eventually(
        lambda: house.client.counts() == {"kept": {"succeeded": KEPT}},
        what="what is kept is left",
    )
    assert house.query("SELECT count(DISTINCT job), count(*) FROM attempts") == [(KEPT, KEPT)]
    assert house.stop(family) == 0
    house.check_whole()


ENDING = f"""{MARK}
@task
def ends(number):
    mark("ran", number)
    if number % 2:
        raise Fail("no use")
"""


@pytest.mark.stores("sqlite", "postgres")
def test_between_their_end_and_their_removal_all_may_be_killed_and_no_job_comes_back(
    build: Build,
) -> None:
    house = build(ENDING, processes=1, config={"retention": {"succeeded": "1s", "failed": "1s"}})
    family = house.start()
    house.hang_caretaker()
    house.wait_finished([house.enqueue("ends", number) for number in range(10)])
    house.kill_family(family)
    family = house.start()
    eventually(lambda: house.client.counts() == {}, what="all are removed")
    assert house.stop(family) == 0
    assert sorted(map(int, house.lines("ran"))) == list(range(10))
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
