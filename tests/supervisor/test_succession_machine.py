"""Reloads, scaling, deaths and readiness in any order: the family always comes to what is wanted of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from jobvisor.jobs.keys import PROCESSES_MAX
from jobvisor.supervisor.board import GOING, LEAVING_CODES, RUN, STOP
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.parent.crew import Post
from jobvisor.supervisor.roster import CARETAKER
from tests.supervisor.staff import Staff

POOLS: list[list[dict[str, Any]]] = [
    [{"name": "a", "processes": 3}],
    [{"name": "a", "processes": 1}, {"name": "b", "processes": "1-4"}],
    [{"name": "b", "processes": 2, "overlap": False}],
    [{"name": "c", "processes": "2-3"}, {"name": "a", "processes": 2, "overlap": False}],
]


class Family(RuleBasedStateMachine):
    """A parent whose children are born, work and die as the machine wants."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.staff = Staff(Path(self.folder.name), *POOLS[0])
        self.crew = self.staff.crew

    def teardown(self) -> None:
        self.staff.parent._nursery.close()
        self.folder.cleanup()

    def _one(self, number: int) -> Post | None:
        living = [post for post in self.crew.living() if post.role is not CARETAKER]
        return living[number % len(living)] if living else None

    @rule()
    def round(self) -> None:
        self.staff.clock.move(20)
        self.staff.round()
        self.staff.fork()

    @rule(number=st.integers(0, 20))
    def become_ready(self, number: int) -> None:
        post = self._one(number)
        if post is not None:
            self.staff.ready(post)

    @rule(number=st.integers(0, 20))
    def work(self, number: int) -> None:
        post = self._one(number)
        if post is not None and not post.leaving:
            self.staff.ready(post)
            self.staff.work(post)

    @rule(number=st.integers(0, 20), status=st.sampled_from([0, 1, -9]))
    def die(self, number: int, status: int) -> None:
        post = self._one(number)
        if post is not None:
            self.staff.parent._bury(post, Exit(post.pid, status))

    @rule(number=st.integers(0, 20))
    def leave_by_itself(self, number: int) -> None:
        post = self._one(number)
        if post is not None:
            post.slot[GOING] = LEAVING_CODES["dirty"]

    @rule(status=st.sampled_from([0, -9]))
    def lose_the_caretaker(self, status: int) -> None:
        (post,) = self.crew.of(CARETAKER)
        if post.pid:
            self.staff.parent._bury(post, Exit(post.pid, status))

    @rule(which=st.integers(0, 3))
    def reload(self, which: int) -> None:
        self.staff.offer(*POOLS[which])

    @rule(more=st.sampled_from([-1, 1]))
    def scale(self, more: int) -> None:
        self.staff.parent._scale_first_pool(more)

    @rule(latency_ms=st.sampled_from([0, 5_000]), idle=st.integers(0, 3))
    def see(self, latency_ms: int, idle: int) -> None:
        self.staff.see(latency_ms, idle=idle)

    @rule()
    def expel(self) -> None:
        self.staff.parent._succession.replace_all(30_000)

    @invariant()
    def has_no_more_than_its_places(self) -> None:
        assert self.staff.parent._board[STOP] == RUN
        assert len(self.crew.workers()) <= PROCESSES_MAX + 2

    @rule()
    def comes_to_what_is_wanted(self) -> None:
        for _ in range(40):
            self.staff.clock.move(60_000)
            self.staff.round()
            self.staff.fork()
            self.staff.ready(*self.crew.living())
            self.staff.rest(*self.crew.living())
            self.staff.end(
                *[post for post in self.crew.living() if post.leaving or post.slot[GOING]]
            )
        config = self.staff.parent._config
        scale = self.staff.parent._scale
        assert self.staff.parent._reload._next is None
        assert self.staff.parent._succession.is_done()
        assert not any(map(self.crew.is_old, self.crew))
        for pool in config.workers:
            assert len(self.crew.staying(pool.name)) == scale.wanted(pool.name)
        assert len(self.crew.workers()) == scale.total


TestFamily = Family.TestCase
