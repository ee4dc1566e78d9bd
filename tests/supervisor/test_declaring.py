"""When a worker tells of the schedules that its code says: once they count, and until they are told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.schedule import Declared, Plan
from jobvisor.supervisor.board import CODE_GENERATION, CODE_PLANS, EXPELLED, LEAVE, SCHEDULED
from jobvisor.supervisor.parent.crew import Post
from jobvisor.supervisor.role import Seat
from jobvisor.supervisor.roster import SCHEDULER, WORKER
from jobvisor.supervisor.running.declaring import LATER_NS, Declaring
from tests.clock import StandingClock
from tests.supervisor.staff import Staff
from tests.waiting import eventually

Build = Callable[..., Staff]
POOL = {"processes": 2}


class Told:
    """What was declared; `away` says that the database is."""

    def __init__(self) -> None:
        self.names: list[list[str]] = []
        self.away = False

    def note_tasks(self, tasks: Mapping[str, Mapping[str, Any]], /) -> None:
        if self.away:
            raise StoreUnavailable("it cannot be reached")
        assert tasks

    def declare(self, _source: str, _family: str, _by: int, plans: list[Plan], /) -> Declared:
        self.names.append([plan.name for plan in plans])
        return Declared([], [], {})

    def close(self) -> None:
        """It is asked again."""


@pytest.fixture
def told() -> Told:
    return Told()


def worker(staff: Staff, post: Post, told: Told, *names: str) -> Declaring:
    """One in this post, whose code says schedules of these names."""
    registry = Registry()
    for name in names:
        registry.task(lambda: None, name=name, every="1m")
    parent = staff.parent
    seat = Seat(
        parent._config, parent._board, post.slot, owner=7, family=parent._family, name="worker",
        parent=1, lifeline=-1, parent_poke=-1, caretaker_poke=-1, generation=post.generation,
    )  # fmt: skip
    return Declaring(registry, parent._board, seat, lambda: told, staff.clock)


def on_trial(staff: Staff) -> Post:
    """The first worker of a reload that is not taken up yet."""
    staff.offer(POOL)
    [post] = staff.parent._succession.try_out(staff.config(POOL))
    staff.ready(*staff.fork(post))
    return post


def test_code_that_is_on_trial_tells_of_its_schedules_when_it_is_taken_up(
    staff: Build, told: Told
) -> None:
    family = staff(POOL)
    assert worker(family, family.crew.workers()[0], told, "app:old").declare_if_new()
    new = worker(family, on_trial(family), told, "app:new")
    assert new.is_of_use
    assert not new.declare_if_new()
    assert told.names == [["app:old"]]
    family.parent._take_up(family.config(POOL))
    assert new.declare_if_new()
    assert told.names == [["app:old"], ["app:new"]]


def test_a_refused_reload_leaves_the_schedules_and_the_next_code_tells_of_its_own(
    staff: Build, told: Told
) -> None:
    family = staff(POOL)
    assert worker(family, family.crew.workers()[0], told, "app:old").declare_if_new()
    refused = on_trial(family)
    tried = worker(family, refused, told, "app:refused")
    family.parent._reload._keep_old("the second pool cannot start")
    assert refused.slot[LEAVE]
    new = worker(family, on_trial(family), told, "app:new")
    family.parent._take_up(family.config(POOL))
    assert not tried.declare_if_new()  # it may finish a job of several lanes for long
    assert new.declare_if_new()
    assert told.names == [["app:old"], ["app:new"]]


def test_code_without_a_schedule_says_so_when_it_is_taken_up(staff: Build, told: Told) -> None:
    family = staff(POOL)
    board = family.parent._board
    assert worker(family, family.crew.workers()[0], told, "app:old").declare_if_new()
    new = worker(family, on_trial(family), told)
    assert not new.declare_if_new()
    assert (board[CODE_PLANS], board[CODE_GENERATION]) == (2, 1)
    family.parent._take_up(family.config(POOL))
    assert new.declare_if_new()
    assert (board[CODE_PLANS], board[CODE_GENERATION]) == (1, 2)
    assert told.names == [["app:old"]]


@pytest.mark.parametrize("verb", [Declaring.declare_if_new, Declaring.declare_beside])
def test_what_could_not_be_told_is_told_later(
    staff: Build, told: Told, verb: Callable[[Declaring], bool], caplog: pytest.LogCaptureFixture
) -> None:
    family = staff(POOL)
    declaring = worker(family, family.crew.workers()[0], told, "app:f")
    told.away = True

    def tried() -> bool:
        verb(declaring)
        return "cannot be declared" in caplog.text

    eventually(tried, what="it has been tried")
    eventually(lambda: declaring._due_ns > 0, what="and is put off")
    told.away = False
    assert not verb(declaring)
    clock: StandingClock = family.clock
    clock.move(LATER_NS // 1_000_000)
    eventually(lambda: verb(declaring), what="it is told")
    assert told.names == [["app:f"]]


def test_what_fails_for_another_reason_is_not_tried_again_at_once(
    staff: Build, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a thread of its own it would be, at each step, with a traceback in the log for each."""
    family = staff(POOL)
    declaring = worker(family, family.crew.workers()[0], told, "app:f")
    monkeypatch.setattr(told, "note_tasks", None)
    with pytest.raises(TypeError):
        declaring.declare_if_new()
    assert not declaring.declare_if_new()


def test_the_scheduler_of_a_family_that_was_declared_dead_is_replaced_too(staff: Build) -> None:
    family = staff(POOL)
    parent = family.parent
    post = family.crew.add(SCHEDULER)
    family.ready(*family.fork(post))
    parent._board[EXPELLED] = parent._family
    parent._come_back_as_another()
    assert post.leaving
    assert not post.departs


def test_a_family_without_a_slot_for_its_scheduler_says_so_once(
    staff: Build, caplog: pytest.LogCaptureFixture
) -> None:
    family = staff(POOL)
    free = [family.crew.add(WORKER, "default") for _ in range(family.crew.room)]
    family.parent._board[SCHEDULED] = 1
    for _ in range(2):
        family.parent._timetable.go_on(family.parent._config)
    assert caplog.text.count("no slot is free for the scheduler") == 1
    family.crew.remove(free[0])
    family.parent._timetable.go_on(family.parent._config)
    assert family.crew.of(SCHEDULER)
