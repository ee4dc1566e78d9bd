"""Jobs per second of two workers beside the bare loop, several pairs in one run."""

from __future__ import annotations

import statistics
from pathlib import Path

from jobs.clock import SYSTEM
from tests.bench.bare import bare_loop
from tests.bench.place import Place, family_pss, place


def run(jobs: int, rounds: int, processes: int) -> None:
    """Print a row per pair, then the medians."""
    print(
        f"{jobs:,} no-op jobs, {processes} workers; bare loop: {processes} processes, batches of 100"
    )
    ratios: list[float] = []
    rates: list[float] = []
    for _ in range(rounds):
        with place(processes) as bare:
            bare.fill(jobs)
            bare.client.close()
            bare_rate = jobs / bare_loop(bare.folder / "jobs.db", processes)
        with place(processes) as ours:
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
    with ours.family() as parent:
        ours.fill(jobs)
        began = SYSTEM.monotonic_ns()
        while not _all_done(ours, jobs):
            peak = max(peak, family_pss(parent.pid))
            SYSTEM.sleep(0.05)
        del began
        rows = _times(ours.folder / "jobs.db")
    return jobs / max(rows, 0.001), peak


def _all_done(ours: Place, jobs: int) -> bool:
    return not ours.client.list(state="pending", limit=1) and ours.left() == 0 and jobs > 0


def _times(database: Path) -> float:
    import sqlite3  # noqa: PLC0415

    connection = sqlite3.connect(database)
    first, last = connection.execute(
        "SELECT min(claimed_at), max(finished_at) FROM jobs"
    ).fetchone()
    connection.close()
    return float(last - first) / 1000
