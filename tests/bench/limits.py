"""What jobs that wait for a limit cost the others, how soon they are put off, and how fast one key goes."""

from __future__ import annotations

import secrets
import statistics

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.identity import HOST, Identity
from jobvisor.jobs.job import NewJob, Terms
from jobvisor.jobs.limit import limit_of
from jobvisor.jobs.outcome import VERB_CODES
from jobvisor.jobs.store import Life, Record, Store, open_store
from tests.bench.database import BATCH
from tests.bench.place import Place, Places

KEY = "busy"
PARKED_AT_ONCE = 500  # as a worker claims what it parks
PLACES = 5
_JOB = NewJob("app:noop", "[]", "{}", "default", 0, None, 0, 4, None, 0, 0, None, None)


def run(places: Places, waiting: int, jobs: int, rounds: int) -> None:
    """Print the rates of ordinary jobs without and with so many that wait behind one key, and their ratio."""
    with places.fresh() as free, places.fresh() as behind:
        alone, beside = _store(free), _store(behind)
        for store in (alone, beside):
            store.set_limit(limit_of(KEY, concurrency=0))
        _enqueue(beside, _JOB._replace(terms=Terms(limit_key=KEY)), waiting)
        print(f"  {waiting:,} parked at the head of a queue in {_park(beside):.2f} s")
        for each in (free, behind):
            each.database.tidy()
        ratios = []
        for _ in range(rounds):
            rates = []
            for store in (alone, beside):
                _enqueue(store, _JOB, jobs)
                rates.append(jobs / _work(store, BATCH))
            ratios.append(rates[1] / rates[0])
            print(
                f"  without {rates[0]:9,.0f} jobs/s   behind one key {rates[1]:9,.0f} jobs/s   "
                f"ratio {ratios[-1]:.2f}"
            )
        print(f"median ratio {statistics.median(ratios):.2f}")
        beside.close()
        for limit in (PLACES, BATCH):
            alone.set_limit(limit_of(KEY, concurrency=limit))
            few = jobs // 10
            _enqueue(alone, _JOB._replace(terms=Terms(limit_key=KEY)), few)
            rate = few / _work(alone, BATCH, lanes=limit)
            print(f"  a worker alone with one key of {limit} places: {rate:9,.0f} jobs/s")
        alone.close()


def _store(where: Place) -> Store:
    where.client.close()
    return open_store(where.url, durable=False)


def _enqueue(store: Store, job: NewJob, number: int) -> None:
    for _ in range(0, number, 10_000):
        store.enqueue([job] * min(number, 10_000))


def _park(store: Store) -> float:
    """Seconds until a worker has put them all off."""
    life, claim, began = _life(), 0, SYSTEM.monotonic_ns()
    while True:
        claim += 1
        if not store.turn(life, claim, queues=["default"], limit=PARKED_AT_ONCE).parked:
            return (SYSTEM.monotonic_ns() - began) / 1e9


def _work(store: Store, batch: int, lanes: int = 1) -> float:
    """Seconds until a worker that runs nothing has settled all that can begin."""
    life, claim, began = _life(), 0, SYSTEM.monotonic_ns()
    journal: list[Record] = []
    while True:
        claim += 1
        turn = store.turn(
            life, claim, queues=["default"], limit=batch, journal=journal, lanes=lanes
        )
        journal = [
            Record(life.owner, claim, job.id, job.attempt, VERB_CODES["succeed"], 0, 0, 0, b"")
            for job in turn.jobs
        ]
        if not turn.jobs and not turn.parked:
            return (SYSTEM.monotonic_ns() - began) / 1e9


def _life() -> Life:
    return Life(secrets.randbits(62), 0, "bench", HOST, *Identity.mine())
