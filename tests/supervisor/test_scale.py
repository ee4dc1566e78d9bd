"""Posts made and given up by what the caretaker saw, on a board that the test fills."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobvisor.supervisor.board import BOOTING, REACHED, STATE, why_leaving
from jobvisor.supervisor.child import Exit
from tests.supervisor.staff import Staff

Build = Callable[..., Staff]
RANGE = {"processes": "1-6"}


def wanted(family: Staff) -> int:
    return family.parent._scale.wanted("default")


def grown(staff: Build, *pools: dict[str, object]) -> Staff:
    """A family whose first pool has all the workers it may have, busy ones."""
    family = staff(*(pools or (RANGE,)))
    for _ in range(3):
        family.work(*family.crew.workers())
        family.see(5_000)
        family.go_on()
    family.work(*family.crew.workers())
    return family


def test_a_pool_grows_while_its_jobs_wait_and_shrinks_when_its_workers_do(staff: Build) -> None:
    family = grown(staff)
    assert len(family.crew.workers()) == wanted(family) == 6
    first, *others = family.crew.workers()
    family.rest(*others)
    for _ in range(31):
        family.see(0, idle=5)
        family.go_on()
    assert family.told() == others
    assert {(why_leaving(post.slot), post.leave_by) for post in others} == {("scale", 0)}
    family.end(*others)
    assert family.crew.workers() == [first]


def test_the_workers_of_a_pool_that_cannot_start_are_not_doubled(staff: Build) -> None:
    family = staff(RANGE)
    (worker,) = family.crew.workers()
    family.work(worker)
    family.see(5_000)
    family.round()
    assert wanted(family) == 2
    (new,) = [post for post in family.crew.workers() if post is not worker]
    for _ in range(5):  # it dies in its boot, again and again
        new.pid, new.slot[STATE] = worker.pid, BOOTING
        family.parent._bury(new, Exit(new.pid, 1))
        family.see(9_000)
        family.round()
    assert wanted(family) == 2
    family.go_on()
    family.see(9_000)
    family.round()
    assert wanted(family) == 4, "now it is there"


def test_a_worker_that_does_not_reach_the_database_brings_no_others(staff: Build) -> None:
    family = staff(RANGE)
    (worker,) = family.crew.workers()
    worker.slot[REACHED] = 0
    family.see(5_000)
    family.round()
    assert wanted(family) == 1


def test_workers_that_run_one_job_each_count_as_those_that_stay(staff: Build) -> None:
    family = staff({**RANGE, "max_jobs": 1})
    (worker,) = family.crew.workers()
    family.end(worker)
    family.see(5_000)
    family.round()
    assert wanted(family) == 2


def test_what_was_seen_with_another_configuration_is_not_meant(staff: Build) -> None:
    family = staff(RANGE)
    family.work(*family.crew.workers())
    family.see(5_000, by=family.crew.generation - 1 or -1)
    family.round()
    assert wanted(family) == 1


def test_a_reload_keeps_the_workers_of_a_pool_within_its_range(staff: Build) -> None:
    family = grown(staff)
    family.take_up({"processes": "2-4"})
    for _ in range(3):
        family.go_on()
    assert wanted(family) == 4
    assert len(family.crew.staying("default")) == 4
    assert len(family.crew.departing("default")) == 4, "two of six wait"
    family.end(*family.told())
    family.go_on()
    assert [post for post in family.old() if not post.leaving] == []


def test_ttin_and_ttou_move_the_least_of_a_range(staff: Build) -> None:
    family = grown(staff)
    scale = family.parent._scale
    family.parent._on_more()
    assert scale.told("default") == {"workers": 6, "least": 2, "most": 6}
    for _ in range(8):
        family.parent._on_fewer()
    assert scale.told("default") == {"workers": 6, "least": 1, "most": 6}
    assert family.told() == []


@pytest.mark.parametrize(("overlap", "most"), [(True, 12), (False, 6)])
def test_workers_that_still_finish_their_jobs_keep_their_places(
    staff: Build, overlap: bool, most: int
) -> None:
    pool = {"processes": 6, "overlap": overlap}
    family = staff(pool)
    for _ in range(4):
        for least in (1, 6):
            family.work(*family.crew.workers())
            family.parent._scale.set(family.parent._config, family.parent._config.workers[0], least)
            family.go_on()
    assert len(family.crew.workers()) == most
    assert wanted(family) == 6
    family.end(*family.told())
    family.go_on()
    assert len(family.crew.staying("default")) == 6
