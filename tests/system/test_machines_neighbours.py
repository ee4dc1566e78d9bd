"""Two families of one machine on one server: what a dead one left on its disk is settled from there."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest

from jobvisor import Fixed
from jobvisor.jobs.clock import SYSTEM
from tests.postgres import shared
from tests.system.harness import Build, House
from tests.system.history import calls, check_nothing_left, marking, marks
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("postgres")]

TASKS = marking("""
    @task(retry=Fixed(0))
    def quick(ctx: Context):
        mark("start", ctx)
        if os.path.exists(f"door {ctx.job}"):
            while not os.path.exists(f"open {ctx.job}"):
                time.sleep(0.005)  # task body
        mark("end", ctx)
    """)


class Batch(NamedTuple):
    """What a family held when it was killed."""

    finished: set[int]
    current: int
    waiting: set[int]

    @property
    def held(self) -> set[int]:
        return {self.current} | self.finished | self.waiting


def neighbours(build: Build, dead_after: str) -> tuple[House, House]:
    """A family that dies and one that takes care of it: two folders, one database."""
    database = shared().new_database()
    config: dict[str, Any] = {"supervisor": {"dead_after": dead_after}}
    dying = build(TASKS, name="dying", database=database, processes=1, config=config)
    caring = build(
        TASKS, name="caring", database=database, processes=1, config=config, queues=["other"]
    )
    return dying, caring


def kill_in_a_batch(house: House, family: subprocess.Popen[bytes]) -> Batch:
    """kill -9 of everybody while the worker is in a job in the middle of its batch.

    The caretaker is stopped first, or it would settle the batch behind that job.
    """
    house.hang_caretaker()
    doors = range(400, 1200, 50)
    for door in doors:
        house.touch(f"door {door}")
    ids = calls(house, "quick", 1200, retries=1, retry=Fixed(0))
    assert ids == list(range(1, 1201))
    for door in doors:
        eventually(partial(has_begun, house, door), what="it waits at the door")
        held = {row[0] for row in house.query("SELECT id FROM jobs WHERE state = 'running'")}
        finished = ran(house, "end") & held
        if finished and len(held) > len(finished) + 1:
            house.kill_family(family)
            for other in doors:
                house.touch(f"open {other}")
            return Batch(finished, door, held - finished - {door})
        house.touch(f"open {door}")
    raise AssertionError("no door was in the middle of a batch")


def has_begun(house: House, job: int) -> bool:
    return job in ran(house, "start")


def ran(house: House, word: str) -> set[int]:
    return {mark.job for mark in marks(house) if mark.word == word}


def none_runs(house: House) -> Callable[[], bool]:
    return lambda: house.query("SELECT count(*) FROM jobs WHERE state = 'running'") == [(0,)]


def standing(house: House, jobs: set[int]) -> list[tuple[Any, ...]]:
    """How these rows stand, and how many stand so."""
    return house.query(
        "SELECT state, attempt, losses, count(*) FROM jobs WHERE id = ANY (?) GROUP BY 1, 2, 3",
        list(jobs),
    )


def test_a_family_killed_whole_is_settled_at_once_and_exactly_by_its_neighbour(
    build: Build,
) -> None:
    dying, caring = neighbours(build, "30s")
    family, neighbour = dying.start(), caring.start()
    eventually(lambda: caring.query("SELECT count(*) FROM families") == [(2,)], what="both are in")
    batch = kill_in_a_batch(dying, family)
    killed_at = SYSTEM.monotonic_ns()
    eventually(none_runs(caring), what="it is settled")
    assert (SYSTEM.monotonic_ns() - killed_at) / 1e9 < 10, "it waited for dead_after"

    assert standing(caring, batch.finished) == [("succeeded", 1, 0, len(batch.finished))]
    assert standing(caring, {batch.current}) == [("pending", 1, 0, 1)]
    assert standing(caring, batch.waiting) == [("pending", 0, 0, len(batch.waiting))]
    (told,) = caring.query("SELECT job, attempt, outcome, message FROM attempts")
    assert told[:3] == (batch.current, 1, "crash")
    assert "died together with its supervisor" in told[3]

    eventually(lambda: caring.query("SELECT count(*) FROM families") == [(1,)], what="it is gone")
    assert not caring.said("is declared dead"), "a death that is seen needs no heartbeat"
    assert dying.drain() == 0
    assert caring.stop(neighbour) == 0
    assert caring.query("SELECT state, attempt, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 2") == [
        ("succeeded", 1, 1199),
        ("succeeded", 2, 1),
    ]
    starts = [mark.job for mark in marks(dying) if mark.word == "start"]
    assert len(starts) == 1201, "what was finished ran again"
    assert not dying.said("came too late")
    check_nothing_left(caring)


def test_a_dead_family_whose_directory_is_held_by_somebody_is_rescued_after_dead_after(
    build: Build,
) -> None:
    dying, caring = neighbours(build, "4s")
    family, neighbour = dying.start(), caring.start()
    eventually(lambda: caring.query("SELECT count(*) FROM families") == [(2,)], what="both are in")
    caretaker = caring.hang_caretaker()  # until the directory is held
    batch = kill_in_a_batch(dying, family)
    killed_at = SYSTEM.monotonic_ns()
    with open(dying.state_dir / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.kill(caretaker, signal.SIGCONT)
        eventually(none_runs(caring), what="its rows are rescued")
        # Its last heartbeat was up to a third of `dead_after` before its death.
        assert 2.5 < (SYSTEM.monotonic_ns() - killed_at) / 1e9 < 25
        count = len(batch.held)
        assert standing(caring, batch.held) == [("pending", 0, 1, count)]
        assert caring.query("SELECT outcome, count(*) FROM attempts GROUP BY 1") == [
            ("vanished", count)
        ]
        eventually(
            lambda: caring.query("SELECT count(*) FROM families") == [(1,)], what="it is gone"
        )
    # What comes to light afterwards is too late, and changes nothing.
    assert dying.drain() == 0
    assert caring.stop(neighbour) == 0
    assert len(dying.said("came too late")) == len(batch.finished)
    assert caring.query("SELECT state, attempt, count(*) FROM jobs GROUP BY 1, 2") == [
        ("succeeded", 1, 1200)
    ]
    assert caring.query("SELECT outcome, count(*) FROM attempts GROUP BY 1") == [
        ("vanished", count)
    ]
    check_nothing_left(caring)
