"""How fast claims are in a table of four million rows, beside an almost empty one."""

from __future__ import annotations

import secrets
import statistics

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.identity import HOST, Identity
from jobvisor.jobs.outcome import VERB_CODES
from jobvisor.jobs.store import Life, Record, open_store
from tests.bench.database import BATCH
from tests.bench.place import Place, Places
from tests.bench.postgres import Postgres

FIFTHS = 5


def run(places: Places, million: int, turns: int, rounds: int) -> None:
    """Print the rates and their ratio; `million` scales the rows down for a quick look."""
    taken = turns * rounds * BATCH
    pending = max(million, 2 * taken)
    with places.fresh() as deep:
        with places.fresh() as flat:
            _fill(flat, taken, 0)
            _fill(deep, pending, million)
            ratios = []
            for _ in range(rounds):
                shallow_rate, deep_rate = rate(flat, turns), rate(deep, turns)
                ratios.append(deep_rate / shallow_rate)
                print(
                    f"  almost empty {shallow_rate:9,.0f} jobs/s   {pending:,} pending + "
                    f"{million:,} scheduled + {2 * million:,} finished {deep_rate:9,.0f} jobs/s   "
                    f"ratio {ratios[-1]:.2f}"
                )
            print(f"median ratio {statistics.median(ratios):.2f}")
        if deep.database.is_server:
            with places.fresh() as flat:
                _fill(flat, taken, 0)
                _under_snapshot("almost empty", flat, turns * rounds)
            deep.database.tidy()
            _under_snapshot("deep", deep, turns * rounds)


def _under_snapshot(name: str, where: Place, turns: int) -> None:
    """Print the rate over time while no dead row can be removed."""
    database = where.database
    assert isinstance(database, Postgres)
    print(f"  {name}, a snapshot held open for the whole run: {database.size()}")
    with database.snapshot():
        rates = _rates(where, turns // FIFTHS, FIFTHS)
        over_time = "   ".join(f"{rate:,.0f}" for rate in rates)
        print(f"    each fifth of {turns * BATCH:,} jobs: {over_time} jobs/s")
        print(f"    last over first {rates[-1] / rates[0]:.2f}; now {database.size()}")


def _fill(where: Place, pending: int, million: int) -> None:
    where.client.close()
    where.database.fill(pending, million, 2 * million)


def rate(where: Place, turns: int) -> float:
    """Jobs per second that one store claims and settles, in full batches."""
    return _rates(where, turns, 1)[0]


def _rates(where: Place, turns: int, parts: int) -> list[float]:
    """Claims and settles through one store, as a worker does it: the rate of each part in turn."""
    store = open_store(where.url, durable=False)
    life = Life(secrets.randbits(62), 0, "bench", HOST, *Identity.mine())
    journal: list[Record] = []
    rates: list[float] = []
    for part in range(parts):
        began = SYSTEM.monotonic_ns()
        for claim in range(part * turns + 1, part * turns + turns + 1):
            turn = store.turn(life, claim, queues=["default"], limit=BATCH, journal=journal)
            journal = [
                Record(life.owner, claim, job.id, job.attempt, VERB_CODES["succeed"], 0, 0, 0, b"")
                for job in turn.jobs
            ]
        store.apply(journal, life)
        journal = []
        rates.append(turns * BATCH / ((SYSTEM.monotonic_ns() - began) / 1e9))
    store.close()
    return rates
