"""Workers added for suspects: where they wait, as many as are needed, and none that outlives its use."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jobvisor.supervisor.board import (
    BUSY,
    STATE,
    SUSPECTS_AT,
    SUSPECTS_BY,
    SUSPECTS_WAIT_MS,
    why_leaving,
)
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.parent.crew import Post
from jobvisor.supervisor.roster import QUARANTINE
from tests.supervisor.staff import Staff

Build = Callable[..., Staff]


def with_lanes(staff: Build, **values: object) -> Staff:
    family = staff({"processes": 2, **values})
    config = family.parent._config
    pools = tuple(dataclasses.replace(pool, concurrency=50) for pool in config.workers)
    family.parent._config = dataclasses.replace(config, workers=pools)
    return family


def wait(family: Staff, waited_ms: int, *, by: int = 0) -> list[Post]:
    """The caretaker has seen a suspect wait; the quarantine posts then."""
    family.clock.move(1_100)
    words = family.parent._board.pools[0]
    words[SUSPECTS_BY] = by or family.crew.generation
    words[SUSPECTS_WAIT_MS], words[SUSPECTS_AT] = waited_ms, family.clock.monotonic_ns()
    family.go_on()
    return family.crew.of(QUARANTINE)


def test_a_suspect_that_waits_for_a_second_brings_a_worker_beside_those_of_its_pool(
    staff: Build,
) -> None:
    family = with_lanes(staff)
    assert wait(family, 999) == []
    (added,) = wait(family, 1_000)
    assert (added.pool, added.name) == ("default", f"quarantine {added.slot.index}")
    assert len(family.crew.staying("default")) == 2
    assert family.crew.departing("default") == []
    assert wait(family, 5_000) == [added], "it has nothing to do yet"
    family.parent._bury(added, Exit(added.pid, 0))
    assert family.crew.of(QUARANTINE) == []


def test_further_ones_are_added_while_all_are_busy_up_to_the_size_of_the_pool(staff: Build) -> None:
    family = with_lanes(staff)
    for count in (1, 2, 2):
        posts = wait(family, 2_000)
        assert len(posts) == count
        for post in posts:
            post.slot[STATE] = BUSY


def test_what_was_seen_of_another_configuration_or_of_a_pool_with_one_lane_is_not_meant(
    staff: Build,
) -> None:
    assert wait(with_lanes(staff), 5_000, by=99) == []
    assert wait(staff({"processes": 2}), 5_000) == []


def test_one_that_was_forked_for_an_older_configuration_is_told_to_leave(staff: Build) -> None:
    family = with_lanes(staff)
    (added,) = wait(family, 1_000)
    family.crew.generation += 1
    family.parent._quarantine.go_on(family.parent._config)
    assert (why_leaving(added.slot), added.departs) == ("reload", True)


def test_one_that_nobody_holds_goes_with_its_pool(staff: Build) -> None:
    family = with_lanes(staff)
    (added,) = wait(family, 1_000)
    added.vacate()
    gone = dataclasses.replace(family.parent._config, workers=())
    family.parent._quarantine.go_on(gone)
    assert family.crew.of(QUARANTINE) == []
