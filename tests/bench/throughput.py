"""Jobs per second of two workers beside the bare loop, several pairs in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.store import open_store
from tests.bench.database import BATCH
from tests.bench.place import Place, Places, family_cpu, family_pss
from tests.bench.processes import meanwhile

LOOKS = 10  # a second, of a follower
FOLLOWED = 60  # seconds it asks for, each time half of them are over


def run(places: Places, jobs: int, rounds: int, processes: int) -> None:
    """Print a row per pair, then the medians."""
    print(
        f"{jobs:,} no-op jobs, {processes} workers; "
        f"bare loop: {processes} processes, batches of {BATCH}"
    )
    ratios: list[float] = []
    rates: list[float] = []
    for _ in range(rounds):
        with places.fresh(processes) as bare:
            bare.fill(jobs)
            bare.database.tidy()
            bare.client.close()
            bare_rate = jobs / bare.database.bare_loop(processes)
        with places.fresh(processes) as ours:
            rate, peak, _cpu = _family(ours, jobs)
        ratios.append(rate / bare_rate)
        rates.append(rate)
        print(
            f"  family {rate:9,.0f} jobs/s   bare {bare_rate:9,.0f} jobs/s   "
            f"ratio {rate / bare_rate:.2f}   peak memory {peak / 1e6:.0f} MB PSS"
        )
    print(f"median {statistics.median(rates):,.0f} jobs/s, ratio {statistics.median(ratios):.2f}")


def followed(places: Places, jobs: int, rounds: int, processes: int) -> None:
    """Print the rate of a family alone and of one whose changes are followed, in alternation.

    And what both have cost the family's own processes, which tells more where others are at work.
    """
    print(f"{jobs:,} no-op jobs, {processes} workers; a follower looks {LOOKS} times a second")
    ratios: list[float] = []
    costs: list[float] = []
    for _ in range(rounds):
        with places.fresh(processes) as place:
            alone = _family(place, jobs)
        with places.fresh(processes) as place:
            place.client.close()  # before the fork
            with meanwhile(1, partial(_follower, place.url)):
                watched = _family(place, jobs)
        ratios.append(watched.rate / alone.rate)
        costs.append(alone.cpu / watched.cpu)
        print(
            f"  followed {watched.rate:9,.0f} jobs/s, CPU {watched.cpu:.2f} s   "
            f"not followed {alone.rate:9,.0f} jobs/s, CPU {alone.cpu:.2f} s   "
            f"ratios {ratios[-1]:.2f}, {costs[-1]:.2f}"
        )
    print(
        f"median ratio of the rates {statistics.median(ratios):.2f}, "
        f"of jobs for each second of CPU {statistics.median(costs):.2f}"
    )


def _follower(url: str, _number: int) -> Callable[[], None]:
    store = open_store(url)

    def follow() -> None:
        place = store.follow(FOLLOWED)
        for look in range(1, 1_000_000):
            place = store.changes(place).cursor
            if look % (LOOKS * FOLLOWED // 2) == 0:
                store.follow(FOLLOWED)
            SYSTEM.sleep(1 / LOOKS)

    return follow


class _Worked(NamedTuple):
    rate: float
    peak: int
    cpu: float


def _family(ours: Place, jobs: int) -> _Worked:
    peak = 0
    with ours.working(jobs) as parent:
        while ours.database.is_pending() or ours.left():
            peak = max(peak, family_pss(parent.pid))
            SYSTEM.sleep(0.05)
        cpu = family_cpu(parent.pid)
        span = ours.database.span()
    return _Worked(jobs / max(span, 0.001), peak, cpu)
