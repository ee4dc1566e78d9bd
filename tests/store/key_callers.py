"""One of many processes that enqueue under the same keys in all ways, run that, or change many at once.

`python -m tests.store.key_callers call|run|sweep URL SCHEMA SEED LOG`, until it is killed. What it was told
goes into the log, a line in one write: a kill leaves it whole, or out.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

from jobvisor.jobs.change import Moves, moved_each, requeued_each
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.due import Due
from jobvisor.jobs.errors import StoreUnavailable, UniqueTaken
from jobvisor.jobs.identity import unique_number
from jobvisor.jobs.job import NewJob, Terms
from jobvisor.jobs.store import Life, Record, Store, open_store
from tests.store.making import new, record

MIXED = [f"mixed {n}" for n in range(4)]
DEBOUNCED = [f"debounced {n}" for n in range(2)]
DELAY_MS, MOST_MS, HELD_MS = 40, 150, 200

_DEBOUNCE = Terms(conflict="debounce", is_held=True, debounce_ms=MOST_MS)
WAYS: dict[str, Terms | None] = {
    "return": None,
    "raise": Terms(conflict="raise"),
    "replace": Terms(conflict="replace"),
    "for a time": Terms(is_held=True, held_ms=HELD_MS),
    "for a time, replace": Terms(conflict="replace", is_held=True, held_ms=HELD_MS),
    "debounce": _DEBOUNCE,
}


class Log:
    """Lines of many processes."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, **told: Any) -> None:
        os.write(self._file, json.dumps(told).encode() + b"\n")


def job_of(key: str, way: str, number: int) -> NewJob:
    """A job whose argument is this call's number."""
    delay = DELAY_MS if way == "debounce" else 0
    return new(args=f"[{number}]", unique_key=key, terms=WAYS[way], run_in_ms=delay, attempts_max=3)


def call(store: Store, chance: random.Random, log: Log) -> None:
    """Enqueue, alone or several at once, and note the answer."""
    calls = []
    for _ in range(chance.choice((1, 1, 1, 3))):
        key = chance.choice(MIXED + DEBOUNCED)
        way = "debounce" if key in DEBOUNCED else chance.choice(list(WAYS))
        calls.append((key, way, chance.getrandbits(50)))
    begun = SYSTEM.now_ms()
    answers: list[tuple[int, str]]
    try:
        if len(calls) == 1:
            made = store.enqueue_one(job_of(*calls[0]))
            word = "created" if made.created else "replaced" if made.replaced else "left"
            answers = [(made.id, word)]
        else:
            found = store.enqueue([job_of(*each) for each in calls])
            answers = [(number, "created" if new else "met") for number, new in found]
    except UniqueTaken as error:
        answers = [(error.holder, "taken")]
        calls = [each for each in calls if repr(each[0]) in str(error)]
    except StoreUnavailable as error:
        log.write(kind="unknown", calls=calls, why=str(error))
        return
    log.write(kind="call", calls=calls, answers=answers, begun=begun, ended=SYSTEM.now_ms())


def run(store: Store, chance: random.Random, log: Log, path: str) -> None:
    """Be a worker: claim, and end what was claimed in one way or another."""
    owner = unique_number()
    life = Life(owner, 1, "worker", "here", "boot", 1, os.getpid(), 1)
    Log(f"{path}.owners").write(pid=os.getpid(), owner=owner)
    journal: list[Record] = []
    for claim in range(1, 10**9):
        turn = store.turn(
            life, claim, queues=["default"], limit=3, journal=journal, register=claim == 1
        )
        for job in turn.jobs:
            log.write(
                kind="run", job=job.id, args=job.args, attempt=job.attempt, at=SYSTEM.now_ms()
            )
        SYSTEM.sleep(0.002)
        journal = [
            record(life, claim, job, _end(job.attempt, chance), delay_ms=chance.choice((0, 30)))
            if chance.random() < 0.3
            else record(life, claim, job)
            for job in turn.jobs
        ]


def sweep(store: Store, chance: random.Random, log: Log) -> None:
    """Cancel, requeue or reschedule many of the newest jobs in one transaction."""
    found = [job.id for job in store.find(limit=30)]
    jobs = chance.sample(found, min(len(found), 6))
    log.write(kind="swept", jobs=jobs)
    act = chance.choice((_cancelled, requeued_each, _rescheduled))
    try:
        with store.transaction():
            act(store, jobs)
    except StoreUnavailable as error:
        log.write(kind="unknown", why=str(error))
    SYSTEM.sleep(0.25)  # most jobs are left to those who run them


def _cancelled(store: Store, jobs: list[int]) -> Moves:
    return moved_each(store, jobs, lambda store, job: store.cancel(job))


def _rescheduled(store: Store, jobs: list[int]) -> Moves:
    return moved_each(store, jobs, lambda store, job: store.reschedule(job, Due(in_ms=30)))


def _end(attempt: int, chance: random.Random) -> str:
    return chance.choice(("retry", "snooze")) if attempt < 3 else "fail"


def main(role: str, url: str, schema: str, seed: str, path: str) -> None:
    chance, log = random.Random(seed), Log(path)
    store = open_store(url, schema=schema, durable=False)
    store.open()
    if role == "run":
        run(store, chance, log, path)
    while True:
        (sweep if role == "sweep" else call)(store, chance, log)


def lines(path: Path) -> list[dict[str, Any]]:
    """What all of them have noted."""
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""  # one may just be written
    return [json.loads(line) for line in whole.splitlines()]


if __name__ == "__main__":
    main(*sys.argv[1:])
