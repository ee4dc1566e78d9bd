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
from jobvisor.jobs.store.base import Turn
from tests.bench.database import BATCH
from tests.bench.place import Place, Places

KEY = "busy"
PARKED_AT_ONCE = 500  # as a worker claims what it parks
PLACES = 5
TURNS = 5  # of one of the two, before the other goes on
_JOB = NewJob("app:noop", "[]", "{}", "default", 0, None, 0, 4, None, 0, 0, None, None)


def run(places: Places, waiting: int, jobs: int, rounds: int) -> None:
    """Print the rates of ordinary jobs without and with so many that wait behind one key, and their ratio.

    Both workers go on by turns, a moment each, so that what else the machine does meets both.
    """
    with places.fresh() as free, places.fresh() as behind:
        alone, beside = _Worker(free), _Worker(behind)
        for worker in (alone, beside):
            worker.store.set_limit(limit_of(KEY, concurrency=0))
        _enqueue(beside.store, _JOB._replace(terms=Terms(limit_key=KEY)), waiting)
        print(f"  {waiting:,} parked at the head of a queue in {beside.park():.2f} s", flush=True)
        for each in (free, behind):
            each.database.tidy()
        ratios = [_compared(alone, beside, jobs) for _ in range(rounds)]
        print(f"median ratio {statistics.median(ratios):.3f}", flush=True)
        beside.store.close()
        for limit in (PLACES, BATCH):
            alone.store.set_limit(limit_of(KEY, concurrency=limit))
            few = jobs // 10
            _enqueue(alone.store, _JOB._replace(terms=Terms(limit_key=KEY)), few)
            rate = few / alone.all(lanes=limit)
            print(f"  a worker alone with one key of {limit} places: {rate:9,.0f} jobs/s")
        alone.store.close()


def _compared(alone: _Worker, beside: _Worker, jobs: int) -> float:
    """The ratio of the rates, of as many jobs each: the median of moments that lie side by side."""
    for worker in (alone, beside):
        _enqueue(worker.store, _JOB, jobs)
    pairs = []
    for number in range(jobs // (BATCH * TURNS)):
        first, second = (alone, beside) if number % 2 else (beside, alone)
        took = {worker: worker.turns(TURNS) for worker in (first, second)}
        pairs.append((took[alone], took[beside]))
    ratio = statistics.median(without / behind for without, behind in pairs)
    rates = [len(pairs) * BATCH * TURNS / sum(each) for each in zip(*pairs, strict=True)]
    print(
        f"  without {rates[0]:9,.0f} jobs/s   behind one key {rates[1]:9,.0f} jobs/s   "
        f"ratio {ratio:.3f}", flush=True,
    )  # fmt: skip
    for worker in (alone, beside):
        worker.all()
    return ratio


def _enqueue(store: Store, job: NewJob, number: int) -> None:
    for _ in range(0, number, 10_000):
        store.enqueue([job] * min(number, 10_000))


class _Worker:
    """One that runs nothing: it claims, and settles with its next claim."""

    def __init__(self, where: Place) -> None:
        where.client.close()
        self.store: Store = open_store(where.url, durable=False)
        self._life = Life(secrets.randbits(62), 0, "bench", HOST, *Identity.mine())
        self._claim = 0
        self._journal: list[Record] = []

    def park(self) -> float:
        """Seconds until it has put off all that must wait."""
        began = SYSTEM.monotonic_ns()
        while self._turn(PARKED_AT_ONCE).parked:
            pass
        return (SYSTEM.monotonic_ns() - began) / 1e9

    def turns(self, number: int) -> float:
        """Seconds that so many turns take."""
        began = SYSTEM.monotonic_ns()
        for _ in range(number):
            self._turn(BATCH)
        return (SYSTEM.monotonic_ns() - began) / 1e9

    def all(self, lanes: int = 1) -> float:
        """Seconds until it has settled all that can begin."""
        began = SYSTEM.monotonic_ns()
        while True:
            turn = self._turn(BATCH, lanes=lanes)
            if not turn.jobs and not turn.parked:
                return (SYSTEM.monotonic_ns() - began) / 1e9

    def _turn(self, limit: int, lanes: int = 1) -> Turn:
        self._claim += 1
        turn = self.store.turn(
            self._life, self._claim, queues=["default"], limit=limit, journal=self._journal,
            lanes=lanes,
        )  # fmt: skip
        self._journal = [
            Record(
                self._life.owner,
                self._claim,
                job.id,
                job.attempt,
                VERB_CODES["succeed"],
                0,
                0,
                0,
                b"",
            )
            for job in turn.jobs
        ]
        return turn
