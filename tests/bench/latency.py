"""From the return of enqueue in this process to the first line of the task, the family idle."""

from __future__ import annotations

import random

from jobvisor.jobs.clock import SYSTEM
from tests.bench.place import Place, Places, quantile


def run(places: Places, jobs: int) -> None:
    """Print the quantiles for our client and for a stranger's plain INSERT."""
    with places.fresh() as where, where.family():
        _print("enqueue by a client", [_by_client(where) for _ in range(jobs)])
        few = max(1, jobs // 5)
        _print("plain SQL by a stranger", [_by_stranger(where) for _ in range(few)])


def _print(name: str, values: list[float]) -> None:
    p50, p90, p99 = (quantile(values, part) for part in (0.5, 0.9, 0.99))
    print(
        f"{name}: {len(values)} jobs, p50 {p50:.2f} ms, p90 {p90:.2f} ms, p99 {p99:.2f} ms, "
        f"max {max(values):.2f} ms"
    )


def _by_client(where: Place) -> float:
    SYSTEM.sleep(random.uniform(0.005, 0.03))  # at no fixed distance from anybody's poll
    job = where.client.enqueue("app:stamp")
    returned = SYSTEM.monotonic_ns()
    started = int(where.client.wait(job.id, timeout=10).result)
    return max(0.0, (started - returned) / 1e6)


def _by_stranger(where: Place) -> float:
    SYSTEM.sleep(random.uniform(0.005, 0.03))
    number, returned = where.database.insert("app:stamp")
    started = int(where.client.wait(number, timeout=10).result)
    return max(0.0, (started - returned) / 1e6)
