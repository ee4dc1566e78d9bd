"""Limits under kill -9 at any moment: never exceeded, no place held twice, and nobody left behind."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import Terms
from jobvisor.jobs.limit import limit_of
from jobvisor.jobs.store import Store, open_store
from tests.postgres import shared
from tests.store.making import GONE, new
from tests.waiting import eventually

KEYS = ("one:a", "one:b", "two")
MOST = 4
SECONDS = float(os.environ.get("JOBVISOR_TEST_SOAK_SECONDS", "600"))


class Crew:
    """Processes that work, and what there is to do."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.store: Store = open_store(url, schema="limits_killed", durable=False)
        self.store.migrate()
        self.owners = iter(range(1, 1 << 30))
        self.alive: dict[int, subprocess.Popen[bytes]] = {}
        for name in ("one", "two"):
            self.store.set_limit(limit_of(name, concurrency=MOST))

    def give(self, number: int) -> None:
        self.store.enqueue(
            [
                new(
                    queue=random.choice(("left", "right")), attempts_max=1_000, args=f'["{key}"]',
                    terms=Terms(limit_key=key),
                )
                for key in random.choices(KEYS, k=number)
            ]
        )  # fmt: skip

    def hire(self) -> None:
        owner = next(self.owners)
        words = [self.url, "limits_killed", "", str(owner), str(self.folder)]
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

    def check(self) -> None:
        """Whatever is running just now is within its limits: in one snapshot."""
        with self.store.snapshot():
            running = self.store.find(Filter(state="running"), limit=1_000)
        for key in KEYS:
            places = [job.place for job in running if job.limit == key]
            assert len(places) == len(set(places)) <= MOST
        violations = self.folder / "violations"
        assert not violations.exists(), violations.read_text()

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
    for _ in range(3):
        crew.hire()
    kills, ends = 0, SYSTEM.monotonic_ns() + int(seconds * 1e9)
    while SYSTEM.monotonic_ns() < ends:
        crew.give(20)
        SYSTEM.sleep(random.uniform(0.05, 0.4))
        crew.check()
        if random.random() < 0.5:
            crew.kill_one()
            crew.hire()
            kills += 1
        if random.random() < 0.2:
            crew.store.set_limit(limit_of("one", concurrency=random.randint(0, MOST)))
    crew.store.set_limit(limit_of("one", concurrency=MOST))
    # Each kill is settled; from here on the net is not asked: whoever frees a place sees to the next.
    crew.store.admit()
    eventually(lambda: crew.unfinished() == 0, limit=120, what="all have ended")
    crew.check()
    return kills


def test_a_limit_holds_under_kills_and_all_jobs_end(crew: Crew) -> None:
    assert play(crew, 4.0) > 0


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_limit_holds_under_kills_for_long(crew: Crew) -> None:
    print(f"{play(crew, SECONDS)} killed")
