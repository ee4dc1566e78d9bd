"""How quickly finished jobs are removed, and how long that holds the database: alone, and beside a family."""

from __future__ import annotations

import statistics
from typing import NamedTuple

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.job import State
from jobvisor.jobs.pruner import Pruner
from jobvisor.jobs.pruning import Rule
from jobvisor.jobs.store import Store, open_store
from tests.bench.place import Place, Places, quantile

RULE = Rule(State.SUCCEEDED, 0)
WALKS_EVERY = 0.1  # seconds


def run(places: Places, rows: int, jobs: int, rounds: int, processes: int) -> None:
    """Print the rate and the times of both."""
    with places.fresh() as place:
        place.client.close()
        place.database.fill(0, 0, rows)
        store = open_store(place.url, durable=False)
        began = SYSTEM.monotonic_ns()
        held = _pruned(store)
        seconds = (SYSTEM.monotonic_ns() - began) / 1e9
        store.close()
        print(f"alone: {rows / seconds:,.0f} jobs/s   {_told(held)}")
    ratios: list[float] = []
    times: list[float] = []
    for _ in range(rounds):
        with places.fresh(processes) as place:
            alone = _worked(place, jobs, prunes=False)
        with places.fresh(processes) as place:
            beside = _worked(place, jobs, prunes=True)
        ratios.append(beside.rate / alone.rate)
        times += beside.held
        print(
            f"  beside {processes} workers at {beside.rate:9,.0f} jobs/s   "
            f"without {alone.rate:9,.0f} jobs/s   ratio {ratios[-1]:.2f}"
            f"   removed {beside.removed:,.0f}/s, left behind {beside.left:,}   {_told(beside.held)}"
        )
    print(f"median ratio {statistics.median(ratios):.2f}; all rounds: {_told(times)}")


class _Worked(NamedTuple):
    rate: float
    removed: float
    """Jobs per second, like `rate`."""
    held: list[float]
    left: int
    """Finished rows that were there when the last job had been claimed."""


def _worked(place: Place, jobs: int, *, prunes: bool) -> _Worked:
    with place.working(jobs):
        place.client.close()
        store = open_store(place.url, durable=False)
        pruner = Pruner([RULE], SYSTEM)
        held: list[float] = []
        gone = 0
        began = SYSTEM.monotonic_ns()
        while place.database.is_pending():
            pause = None
            if prunes:
                step = pruner.step(store)
                pause = step.pause
                gone += step.gone
                held += [step.held_ns / 1e6] if step.gone else []
            SYSTEM.sleep(pause or WALKS_EVERY)
        seconds = (SYSTEM.monotonic_ns() - began) / 1e9
        left = store.prunable([RULE])[State.SUCCEEDED]
        store.close()
    return _Worked(jobs / seconds, gone / seconds, held, left)


def _pruned(store: Store) -> list[float]:
    """Until none is left, without a pause: milliseconds for which each page held the database."""
    pruner, held, more = Pruner([RULE], SYSTEM), list[float](), True
    while more:
        step = pruner.step(store)
        more = step.more
        held += [step.held_ns / 1e6] if step.gone else []
    return held


def _told(held: list[float]) -> str:
    if not held:
        return "nothing was held"
    shares = ", ".join(f"p{int(part * 100)} {quantile(held, part):.1f}" for part in (0.5, 0.99))
    return f"a page holds the database {shares}, at most {max(held):.1f} ms ({len(held)} pages)"
