"""Jobs per second of two workers beside the bare loop, several pairs in one run."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from jobvisor.jobs.clock import SYSTEM
from tests.bench.database import BATCH
from tests.bench.place import Place, Places, family_pss


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
            rate, peak = _family(ours, jobs)
        ratios.append(rate / bare_rate)
        rates.append(rate)
        print(
            f"  family {rate:9,.0f} jobs/s   bare {bare_rate:9,.0f} jobs/s   "
            f"ratio {rate / bare_rate:.2f}   peak memory {peak / 1e6:.0f} MB PSS"
        )
    print(f"median {statistics.median(rates):,.0f} jobs/s, ratio {statistics.median(ratios):.2f}")


def _family(ours: Place, jobs: int) -> tuple[float, int]:
    peak = 0
    with _working(ours, jobs) as parent:
        while ours.database.is_pending() or ours.left():
            peak = max(peak, family_pss(parent.pid))
            SYSTEM.sleep(0.05)
        span = ours.database.span()
    return jobs / max(span, 0.001), peak


@contextmanager
def _working(ours: Place, jobs: int) -> Iterator[subprocess.Popen[bytes]]:
    """A family with its jobs. Where the bare loop's table was vacuumed, so is the family's."""
    if ours.database.is_server:
        ours.fill(jobs)
        ours.database.tidy()
        with ours.family() as parent:
            yield parent
    else:
        with ours.family() as parent:
            ours.fill(jobs)
            yield parent
