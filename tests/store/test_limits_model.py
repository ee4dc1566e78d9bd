"""Limits against a model, under any sequence of verbs that Hypothesis finds.

The model counts by itself, from what the store hands out, what runs under each key.
"""

from __future__ import annotations

import os
import random
import tempfile
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from jobvisor.jobs.job import UNFINISHED, Claimed, Terms
from jobvisor.jobs.limit import limit_name, limit_of
from jobvisor.jobs.store import Life
from jobvisor.jobs.store.base import Rest
from tests.store.database import KINDS, Database
from tests.store.making import GONE, enqueue, life, record

SEED_VARIABLE = "JOBVISOR_TEST_SEED"
KEYS = ("red", "red:1", "blue")
NONE = ""  # of a job without a limit
QUEUES = ("left", "right")
VERBS = ("succeed", "retry", "fail", "release", "snooze")


class Limits(RuleBasedStateMachine):
    kind = "memory"

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.database: Database = KINDS[self.kind](Path(self.folder.name))
        self.store = self.database.open()
        self.limits: dict[str, int] = {}
        self.lives: list[Life] = [life() for _ in range(3)]
        self.claims = [0, 0, 0]
        self.held: list[dict[int, tuple[int, Claimed]]] = [
            {},
            {},
            {},
        ]  # what each runs, by its claim
        self.keys: dict[int, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()

    def running(self, key: str) -> list[int | None]:
        """The places that are taken, as the external counter has it."""
        return [
            job.place
            for held in self.held
            for _claim, job in held.values()
            if self.keys[job.id] == key
        ]

    @rule(
        key=st.sampled_from(KEYS),
        queue=st.sampled_from(QUEUES),
        number=st.integers(1, 4),
        priority=st.integers(0, 1),
    )
    def enqueue(self, key: str, queue: str, number: int, priority: int) -> None:
        values = {"queue": queue, "priority": priority, "attempts_max": 50}
        for _ in range(number):
            job = enqueue(self.store, terms=Terms(limit_key=key), **values)
            self.keys[job] = key

    @rule(queue=st.sampled_from(QUEUES), number=st.integers(1, 9))
    def enqueue_others(self, queue: str, number: int) -> None:
        for _ in range(number):
            self.keys[enqueue(self.store, queue=queue)] = NONE

    @rule(name=st.sampled_from(("red", "blue")), places=st.integers(0, 3))
    def say(self, name: str, places: int) -> None:
        self.store.set_limit(limit_of(name, concurrency=places))
        self.limits[name] = places

    @rule(name=st.sampled_from(("red", "blue")))
    def take_back(self, name: str) -> None:
        self.store.remove_limit(name)
        self.limits.pop(name, None)

    @rule(
        who=st.integers(0, 2),
        limit=st.integers(1, 6),
        lanes=st.integers(1, 3),
        queues=st.permutations(QUEUES),
        settles=st.lists(st.sampled_from(VERBS), max_size=3),
    )
    def turn(self, who: int, limit: int, lanes: int, queues: list[str], settles: list[str]) -> None:
        one, held = self.lives[who], self.held[who]
        ended = list(held.values())[: len(settles)]
        journal = [
            record(one, number, job, verb, **({"delay_ms": 0} if verb in ("retry", "snooze") else {}))
            for verb, (number, job) in zip(settles, ended, strict=False)
        ]  # fmt: skip
        self.claims[who] += 1
        got = self.store.turn(
            one, self.claims[who], queues=queues, limit=limit, lanes=lanes, journal=journal
        )
        for _number, job in ended[: len(journal)]:
            del held[job.id]
        for job in got.jobs:
            key = self.keys[job.id]
            if not key:
                held[job.id] = (self.claims[who], job)
                continue
            assert job.place is not None
            assert job.place < self.limits[limit_name(key)]
            assert job.place not in self.running(key)
            held[job.id] = (self.claims[who], job)
            assert len(self.running(key)) <= self.limits[limit_name(key)]
        for key in KEYS:
            mine = [job for _claim, job in held.values() if self.keys[job.id] == key]
            began = [job for job in got.jobs if self.keys[job.id] == key]
            assert not began or len(mine) <= lanes

    @rule(who=st.integers(0, 2))
    def kill(self, who: int) -> None:
        """Its machine is gone; another life comes in its place."""
        while self.store.vanish(self.lives[who].owner, GONE):
            pass
        self.lives[who], self.claims[who], self.held[who] = life(), 0, {}

    @rule(who=st.integers(0, 2), keeps=st.integers(0, 2))
    def recall(self, who: int, keeps: int) -> None:
        kept = dict(list(self.held[who].items())[:keeps])
        self.store.release_rest(self.lives[who].owner, Rest(held=tuple(kept)))
        self.held[who] = kept

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        waiting = [
            job.id
            for job in self.store.find(limit=1_000)
            if job.state in ("pending", "blocked", "scheduled")
        ]
        if waiting:
            self.store.cancel(data.draw(st.sampled_from(waiting)))

    @rule()
    def look_after(self) -> None:
        self.store.promote()
        assert self.store.admit() is None  # no rate has to be waited for

    @invariant()
    def whoever_may_begin_can_be_claimed(self) -> None:
        if not hasattr(self, "database"):
            return
        jobs = [job for job in self.store.find(limit=1_000) if job.state in UNFINISHED]
        for key in KEYS:
            runs = sum(job.state == "running" and job.limit == key for job in jobs)
            assert runs == len(self.running(key))
            free = self.limits.get(limit_name(key), 0) - runs
            for queue in QUEUES:
                line = sorted(
                    (-job.priority, job.id, job.state.value)
                    for job in jobs
                    if (job.limit, job.queue) == (key, queue)
                    and job.state in ("pending", "blocked")
                )
                first = {state for _priority, _id, state in line[: max(0, free)]}
                assert first <= {"pending"}, (key, queue, line, free)


STEPS = settings(
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize(("kind", "examples"), [("memory", 40), ("postgres", 6)])
def test_no_sequence_of_verbs_exceeds_a_limit_or_leaves_a_job_behind(
    kind: str, examples: int
) -> None:
    machine = type("Limits", (Limits,), {"kind": kind})
    few = settings(STEPS, max_examples=examples, derandomize=True)
    run_state_machine_as_test(machine, settings=few)


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("kind", KINDS)
def test_no_sequence_that_nobody_has_tried_exceeds_a_limit(kind: str) -> None:
    machine = type("Limits", (Limits,), {"kind": kind})
    seed = int(os.environ.get(SEED_VARIABLE, random.randrange(2**32)))
    print(f"{SEED_VARIABLE}={seed}")  # shown where it fails
    many = settings(STEPS, max_examples=1_000, print_blob=True)
    run_state_machine_as_test(hypothesis.seed(seed)(machine), settings=many)
