"""Debounce against a model of it: random calls and runs, second by second, on every kind of database.

How often it runs and how late is held against what was called alone, without the model.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from jobvisor.jobs.clock import from_datetime
from jobvisor.jobs.job import Claimed, State
from jobvisor.jobs.store import Store
from tests.clock import START_MS, MovableClock
from tests.store.making import claim, life, new, record
from tests.store.test_uniqueness import DELAY_MS, MOST_MS, debounced

SECOND_MS = 1_000
STEPS = 240
DELAY, MOST = DELAY_MS // SECOND_MS, MOST_MS // SECOND_MS


@dataclass
class Waiting:
    """The job that waits, by the model."""

    first: int
    """The second of its first call."""
    due: int
    said: int
    """What the last call said."""
    is_retry: bool = False


@dataclass
class World:
    """One key, who calls, and a worker that may be away."""

    store: Store
    clock: MovableClock
    chance: random.Random
    second: int = 0
    calls: list[int] = field(default_factory=list)
    """The second of each call; what it says is its place here."""
    begun: list[tuple[int, int, bool]] = field(default_factory=list)
    """Of each run: when, what it was called with, and whether it is a retry."""
    waiting: Waiting | None = None
    running: list[tuple[int, Claimed]] = field(default_factory=list)
    claims: int = 0
    newest: int = 0
    """The id of the job that was made last."""

    def __post_init__(self) -> None:
        self.who = life()

    def call(self) -> None:
        said = len(self.calls)
        self.calls.append(self.second)
        job = debounced(args=f"[{said}]")
        if self.chance.random() < 0.3:  # in a transaction with others
            ((number, created), _) = self.store.enqueue([job, new(queue="other")])
            made = self.store.get(number)
        else:
            made = self.store.enqueue_one(job)
            created = made.created
        was, self.waiting = self.waiting, self._after_a_call(said)
        assert created is (was is None)
        assert made.args == [said]
        assert from_datetime(made.run_at) - START_MS == self.waiting.due * SECOND_MS
        assert self.store.holder("k") == made.id
        self.newest = made.id

    def _after_a_call(self, said: int) -> Waiting:
        found = self.waiting
        first = self.second if found is None or found.is_retry else found.first
        return Waiting(first, min(self.second + DELAY, first + MOST), said)

    def work(self) -> None:
        self.claims += 1
        jobs = claim(self.store, self.who, self.claims)
        found = self.waiting
        is_due = found is not None and found.due <= self.second
        assert [job.args for job in jobs] == ([f"[{found.said}]"] if is_due and found else [])
        if found is not None and is_due:
            self.begun.append((self.second, found.said, found.is_retry))
            self.running.append((self.claims, jobs[0]))
            self.waiting = None
            assert self.store.holder("k") is None

    def end_one(self) -> None:
        number, job = self.running.pop(self.chance.randrange(len(self.running)))
        if self.chance.random() < 0.6:
            self.store.apply([record(self.who, number, job)], self.who)
            return
        wait = self.chance.choice((0, 3, 40))
        ended = record(self.who, number, job, "retry", delay_ms=wait * SECOND_MS)
        self.store.apply([ended], self.who)
        if job.id == self.newest:
            said = int(job.args.strip("[]"))
            self.waiting = Waiting(self.second, self.second + wait, said, is_retry=True)
        else:
            assert self.store.get(job.id).state is State.CANCELLED  # a later call has made another


@pytest.mark.parametrize("seed", range(3))
def test_debounce_is_what_its_model_says(store: Store, clock: MovableClock, seed: int) -> None:
    chance = random.Random(seed)
    world = World(store, clock, chance)
    busy, away_until = 0.5, 0
    for _ in range(STEPS):
        if chance.random() < 0.05:
            busy = chance.choice((0.02, 0.3, 0.9))
        if seed and chance.random() < 0.03:
            away_until = world.second + chance.randrange(20)
        while chance.random() < busy / 2:
            world.call()
        if world.second >= away_until:
            world.work()
        while world.running and chance.random() < 0.3:
            world.end_one()
        clock.move(SECOND_MS)
        world.second += 1
    _check_how_often(world)
    if not seed:
        _check_how_late(world)


def _check_how_often(world: World) -> None:
    """At most two in any time as long as the delay, be the worker there or away."""
    begun = [second for second, _said, is_retry in world.begun if not is_retry]
    assert len(begun) > 5
    for start in begun:
        assert sum(start <= second <= start + DELAY for second in begun) <= 2
    # And of calls that follow each other, for as long as the longest wait at most.
    for first, start in enumerate(world.calls):
        last = first
        while last + 1 < len(world.calls) and _follows(world.calls, start, last):
            last += 1
        said = [each for _second, each, is_retry in world.begun if not is_retry]
        assert sum(first <= each <= last for each in said) <= 2


def _follows(calls: list[int], start: int, last: int) -> bool:
    return calls[last + 1] - calls[last] < DELAY and calls[last + 1] - start < MOST


def _check_how_late(world: World) -> None:
    """Of a worker that is there each call is answered by a run, its own or one of a later call."""
    end = world.second
    for said, second in enumerate(world.calls):
        if second + MOST < end:
            answered = [at for at, each, _ in world.begun if each >= said and at >= second]
            assert answered
            assert answered[0] <= second + MOST
