"""Sixteen processes under the same keys in all ways, killed at random: what each was told is true.

Longer by hand: `pytest -m soak tests/store/test_uniqueness_many.py`.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.clock import SYSTEM, from_datetime
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import FINISHED, Job, State
from jobvisor.jobs.store import Store, open_store
from tests.postgres import shared
from tests.store.key_callers import DEBOUNCED, DELAY_MS, MIXED, MOST_MS, Log, lines
from tests.store.making import claim, life, record
from tests.waiting import eventually

SEED = int(os.environ.get("JOBVISOR_TEST_SEED", random.randrange(2**32)))
ROLES = ["call"] * 11 + ["run"] * 4 + ["sweep"]
KILLS_EVERY_NS = 200_000_000
SLACK_MS = 250
"""A process may stand still between its look at the clock and the database's: they are many on few cores."""

HOLDERS = """
SELECT key, count(*) FROM (
    SELECT unique_key AS key FROM {jobs} WHERE unique_key IS NOT NULL
        AND state IN ('scheduled', 'pending', 'blocked', 'running')
    UNION ALL
    SELECT uniques.key FROM {uniques} JOIN {jobs} ON jobs.id = uniques.job
    WHERE (until IS NULL OR until > {now})
        AND (special & 128 = 0 OR state IN ('scheduled', 'pending', 'blocked'))
) AS held GROUP BY key HAVING count(*) > 1
"""


class Crowd:
    """The processes, and who looks at what they do."""

    def __init__(self, url: str, folder: Path, chance: random.Random) -> None:
        self.url, self.chance = url, chance
        self.log = folder / "log"
        self.store: Store = open_store(url, schema="keys", durable=False)
        self.store.migrate()
        self.processes: list[tuple[str, subprocess.Popen[bytes]]] = []
        self.kills = 0

    def begin(self, role: str) -> None:
        seed = str(self.chance.getrandbits(32))
        command = [sys.executable, "-m", "tests.store.key_callers", role, self.url, "keys", seed]
        process = subprocess.Popen([*command, str(self.log)])
        self.processes.append((role, process))

    def kill_one(self) -> None:
        role, process = self.processes.pop(self.chance.randrange(len(self.processes)))
        assert process.poll() is None, "it ended by itself"
        self.end(process)
        self.kills += 1
        self.begin(role)

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        for line in lines(self.log.with_suffix(".owners")):
            if line["pid"] == process.pid:
                # As a caretaker would settle it: nothing of a dead connection is under way by then.
                self.store.remove_owner(line["owner"])
                self.store.release_rest(line["owner"])

    def look(self) -> None:
        """At most one holder of each key, at every moment."""
        assert self.sql(HOLDERS) == []

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        is_file = self.url.startswith("sqlite")
        words = (
            {"jobs": "jobs", "uniques": "uniques", "now": str(SYSTEM.now_ms())}
            if is_file
            else {"jobs": "keys.jobs", "uniques": "keys.uniques", "now": "keys.clock()"}
        )
        connection: Any = self.store._connected()  # type: ignore[attr-defined]
        found = connection.execute(text.format(**words)).fetchall()
        return [tuple(row) for row in found]

    def runs(self) -> bool:
        """Whether one of them has begun a job."""
        return any(line["kind"] == "run" for line in lines(self.log))

    def drain(self) -> None:
        for _role, process in self.processes:
            self.end(process)
        who, log = life(), Log(str(self.log))
        for number in range(1, 10_000):
            jobs = claim(self.store, who, number)
            for job in jobs:
                log.write(kind="run", job=job.id)
            self.store.apply([record(who, number, job) for job in jobs], who)
            if not jobs and not any(self.store.unfinished().values()):
                return
            SYSTEM.sleep(0.01)  # until what is scheduled is due
        raise AssertionError(f"never drained: {self.store.unfinished()}")


@pytest.fixture(params=["sqlite", "postgres"])
def crowd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Crowd]:
    is_file = request.param == "sqlite"
    url = f"sqlite:///{tmp_path / 'jobs.db'}" if is_file else shared().new_database()
    made = Crowd(url, tmp_path, random.Random(SEED))
    yield made
    for _role, process in made.processes:
        process.kill()
        process.wait(30)
    made.store.close()
    if not is_file:
        shared().drop_database(url)


@pytest.mark.parametrize(
    "seconds", [3, pytest.param(60, marks=pytest.mark.soak)], ids=["3 s", "a minute"]
)
def test_of_many_under_one_key_one_holds_it_and_each_is_told_the_truth(
    crowd: Crowd, seconds: int
) -> None:
    for role in ROLES:
        crowd.begin(role)
    eventually(crowd.runs, limit=120.0, what="a run, when sixteen interpreters have started")
    ends = SYSTEM.monotonic_ns() + seconds * 10**9
    while SYSTEM.monotonic_ns() < ends:
        next_kill = SYSTEM.monotonic_ns() + KILLS_EVERY_NS
        while SYSTEM.monotonic_ns() < next_kill:
            crowd.look()
        crowd.kill_one()
    crowd.drain()
    crowd.look()
    _check(crowd)


def _check(crowd: Crowd) -> None:
    told = lines(crowd.log)
    jobs = {job.id: job for job in crowd.store.find(Filter(), limit=1_000_000)}
    calls = [line for line in told if line["kind"] == "call"]
    runs = Counter(line["job"] for line in told if line["kind"] == "run")
    swept = {job for line in told if line["kind"] == "swept" for job in line["jobs"]}
    unknown = [line["why"] for line in told if line["kind"] == "unknown"]
    print(
        f"seed {SEED}: {len(calls)} calls, {len(jobs)} jobs, {len(swept)} swept, "
        f"{crowd.kills} kills, {len(unknown)} answers unknown"
    )
    assert not [why for why in unknown if "deadlock" in why]
    assert all(job.state in FINISHED for job in jobs.values())
    _check_created(calls, jobs)
    for line in calls:
        for (key, _way, _number), (number, word) in zip(
            line["calls"], line["answers"], strict=False
        ):
            if number:  # 0: two of one call had the key
                _check_answer(line, word, key, jobs[number])
    _check_arguments(calls, jobs)
    _check_windows([job for job in jobs.values() if job.id not in swept], runs)
    assert {job.unique for job in jobs.values()} == set(MIXED + DEBOUNCED)


def _check_created(calls: list[dict[str, Any]], jobs: dict[int, Job]) -> None:
    made = [number for line in calls for number, word in line["answers"] if word == "created"]
    assert len(made) == len(set(made))
    assert set(made) <= set(jobs)


def _check_answer(line: dict[str, Any], word: str, key: str, job: Job) -> None:
    """The job that it was told of had the key at some time while it was asked."""
    assert job.unique == key
    assert from_datetime(job.created_at) <= line["ended"] + SLACK_MS
    if word == "created":
        assert from_datetime(job.created_at) >= line["begun"] - SLACK_MS
    elif job.unique_for in ("unfinished", "waiting"):
        assert job.finished_at is not None
        assert from_datetime(job.finished_at) >= line["begun"] - SLACK_MS
    elif job.unique_until is not None:
        assert from_datetime(job.unique_until) >= line["begun"] - SLACK_MS


def _check_arguments(calls: list[dict[str, Any]], jobs: dict[int, Job]) -> None:
    """A job has in the end what the last of those who were told that it has theirs has called with."""
    given: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    unsure = set()
    for line in calls:
        for (_key, way, argument), (number, word) in zip(
            line["calls"], line["answers"], strict=False
        ):
            if word in ("created", "replaced"):
                given[number].append((line["begun"], line["ended"], argument))
            elif word == "met" and way in ("replace", "debounce", "for a time, replace"):
                given[number].append((line["begun"], line["ended"], argument))
                unsure.add(number)  # perhaps it was left alone
    for number, told in given.items():
        has = next((each for each in told if [each[2]] == jobs[number].args), None)
        if has is not None and number not in unsure:
            assert all(begun <= has[1] + SLACK_MS for begun, _ended, _argument in told), jobs[
                number
            ]


def _check_windows(jobs: list[Job], runs: Counter[int]) -> None:
    """By the longest wait from the first call on, and each so long after the run before as its delay."""
    for key in DEBOUNCED:
        # One that failed, or was begun again, has a time of its own.
        mine = [
            job
            for job in jobs
            if job.unique == key
            and (runs[job.id], job.state, job.attempt) == (1, State.SUCCEEDED, 1)
        ]
        assert mine
        for job in mine:
            wait_ms = from_datetime(job.run_at) - from_datetime(job.created_at)
            assert DELAY_MS <= wait_ms <= MOST_MS, job
        begun = sorted(from_datetime(job.claimed_at) for job in mine if job.claimed_at)
        gaps = [later - earlier for earlier, later in itertools.pairwise(begun)]
        assert all(gap >= DELAY_MS for gap in gaps), sorted(gaps)[:5]
