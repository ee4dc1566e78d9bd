"""Limits under kill -9 at any moment: never exceeded, no place held twice, and nobody left behind."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from jobvisor.jobs.clock import SECOND, SYSTEM
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import Terms
from jobvisor.jobs.limit import limit_of
from jobvisor.jobs.store import Store, open_store
from tests.postgres import shared
from tests.store.making import GONE, new
from tests.waiting import eventually

SCHEMA = "limits_killed"
KEYS = ("one:a", "one:b", "two")
MOST = 4
RATED, RATE, BURST = "rated", 40, 5
NET_NS = SECOND  # as a caretaker looks
LEFT_NS = 20 * SECOND  # what waits in vain is seen by then, on a machine that does other things too
SECONDS = float(os.environ.get("JOBVISOR_TEST_SOAK_SECONDS", "600"))

#: The jobs of a key that wait although, in their queue, they are among the first as many as have a place.
IN_VAIN = """
SELECT id FROM (SELECT id, state,
        row_number() OVER (PARTITION BY queue ORDER BY priority DESC, turn, id) AS nth
    FROM {jobs} WHERE limit_key = '{key}' AND state IN ('pending', 'blocked')) AS line
WHERE state = 'blocked'
    AND nth <= {places} - (SELECT count(*) FROM {jobs} WHERE limit_key = '{key}' AND state = 'running')
"""


def ahead(started: Path) -> float:
    """By how many starts at most the rate was passed in any window: of those that lie in it as a whole."""
    told = [tuple(map(int, line.split())) for line in started.read_text().splitlines()]
    # After all that ended at a moment come those that begin there.
    moments = sorted(
        [(ended, 0, number) for _asked, ended, number in told]
        + [(asked, 1, number) for asked, _ended, number in told]
    )
    begun = done = 0
    most, least = 0.0, float("inf")
    for moment, begins, number in moments:
        exact = RATE * moment / 1_000
        if begins:
            least = min(least, begun - exact)
            begun += number
        else:
            done += number
            most = max(most, done - exact - least)
    return most


class Crew:
    """Processes that work, and what there is to do."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.store: Store = open_store(url, schema=SCHEMA, durable=False)
        self.store.migrate()
        self.owners = iter(range(1, 1 << 30))
        self.alive: dict[int, subprocess.Popen[bytes]] = {}
        self.places: dict[str, int] = {}
        self.rated = ""
        self.in_vain: dict[int, int] = {}  # since when, by the job
        self.longest_ns = self._net_at = 0
        for name in ("one", "two"):
            self.say(name, MOST)
        self.store.set_limit(limit_of(RATED, rate=f"{RATE}/1s", burst=BURST))

    def say(self, name: str, places: int) -> None:
        self.store.set_limit(limit_of(name, concurrency=places))
        self.places[name] = places

    def give(self, number: int) -> None:
        self.store.enqueue(
            [
                new(
                    queue=random.choice(("left", "right")), attempts_max=1_000, args=f'["{key}"]',
                    terms=Terms(limit_key=key),
                )
                for key in random.choices((*KEYS, RATED), k=number)
            ]
        )  # fmt: skip

    def hire(self) -> None:
        owner = next(self.owners)
        words = [self.url, SCHEMA, "", str(owner), str(self.folder)]
        self.alive[owner] = subprocess.Popen(
            [sys.executable, "-m", "tests.store.limit_worker", *words]
        )

    def kill_one(self) -> None:
        owner, process = random.choice(list(self.alive.items()))
        del self.alive[owner]
        process.kill()
        process.wait()
        self.store.remove_owner(owner)
        while self.store.vanish(owner, GONE):
            pass

    def ask(self, statement: str, **names: object) -> list[int]:
        """The first column of what another connection than ours sees."""
        postgres = self.url.startswith("postgres")
        told = statement.format(jobs=f"{SCHEMA}.jobs" if postgres else "jobs", **names)
        if postgres:
            with psycopg.connect(self.url) as server:
                return [row[0] for row in server.execute(told.encode())]
        with closing(sqlite3.connect(self.folder / "jobs.db", timeout=60)) as file:
            return [row[0] for row in file.execute(told)]

    def check(self) -> None:
        """Whatever is running just now is within its limits: in one snapshot."""
        with self.store.snapshot():
            running = self.store.find(Filter(state="running"), limit=1_000)
        for key in KEYS:
            places = [job.place for job in running if job.limit == key]
            assert None not in places
            assert len(places) == len(set(places)) <= MOST
        violations = self.folder / "violations"
        assert not violations.exists(), violations.read_text()

    def check_rate(self, seconds: float) -> None:
        """In no window more than the rate and a burst have started."""
        asked = "SELECT coalesce(sum(claims), 0) FROM {jobs} WHERE limit_key = '{key}'"
        (number,) = self.ask(asked, key=RATED)
        most = ahead(self.folder / "started")
        assert most <= BURST + 1
        self.rated = f"{number} started where {RATE * seconds:.0f} may, {most:.1f} ahead at most"

    def check_waiting(self) -> None:
        """Nobody waits in vain for longer than the net is away."""
        now = SYSTEM.monotonic_ns()
        found = {
            job
            for key in KEYS
            for job in self.ask(IN_VAIN, key=key, places=self.places[key.partition(":")[0]])
        }
        self.in_vain = {job: self.in_vain.get(job, now) for job in found}
        self.longest_ns = max(self.longest_ns, *(now - since for since in self.in_vain.values()), 0)
        assert self.longest_ns < LEFT_NS
        if now >= self._net_at:
            self._net_at = now + NET_NS
            while self.store.admit() == 0:
                pass

    def unfinished(self) -> int:
        return sum(sum(states.values()) for states in self.store.unfinished().values())

    def close(self) -> None:
        for process in self.alive.values():
            process.kill()
            process.wait()
        self.store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def crew(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Crew]:
    url = f"sqlite:///{tmp_path}/jobs.db" if request.param == "sqlite" else shared().new_database()
    made = Crew(url, tmp_path)
    yield made
    made.close()


def play(crew: Crew, seconds: float) -> int:
    """Work under kills and changes of the limits; how many were killed."""
    crew.give(200)
    for _ in range(3):
        crew.hire()
    kills, ends = 0, SYSTEM.monotonic_ns() + int(seconds * 1e9)
    while SYSTEM.monotonic_ns() < ends:
        crew.give(20)
        SYSTEM.sleep(random.uniform(0.05, 0.4))
        crew.check()
        crew.check_waiting()
        if random.random() < 0.5:
            crew.kill_one()
            crew.hire()
            kills += 1
        if random.random() < 0.2:
            crew.say("one", random.randint(0, MOST))
    crew.say("one", MOST)
    crew.check_rate(seconds)
    crew.store.set_limit(limit_of(RATED, concurrency=1_000))
    # Each kill is settled; from here on the net is not asked: whoever frees a place sees to the next.
    crew.store.admit()
    left = crew.unfinished()
    while left:
        eventually(lambda left=left: crew.unfinished() < left, limit=120, what=f"{left} end")  # type: ignore[misc]
        left = crew.unfinished()
    crew.check()
    return kills


def test_a_limit_holds_under_kills_and_all_jobs_end(crew: Crew) -> None:
    assert play(crew, 4.0) > 0


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_limit_holds_under_kills_for_long(crew: Crew) -> None:
    kills = play(crew, SECONDS)
    print(
        f"{kills} killed; of the rate {RATE}/s with a burst of {BURST} {crew.rated}; "
        f"a job waited in vain for {crew.longest_ns / SECOND:.2f} s at most"
    )
