"""Bursts of jobs in a pool with a range: how soon nothing waits for longer than `scale_latency`."""

from __future__ import annotations

import statistics
from typing import Any

from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.family import StateDir
from tests.bench.place import Place, Places, quantile

JOBS, NAP = 5_000, 0.05  # of a burst; seconds of each
MOST = 6
LATENCY_MS = 1_000  # as by default
IDLE = "2s"  # and not 30 s, so that bursts follow each other sooner


def run(places: Places, bursts: int) -> None:
    """Print of each burst the time to latency and back to one worker; and whether a job was interrupted.

    All jobs of a burst are due at once, so that the last one waits until all before it have run: the
    ideal is that of all workers from the first moment on.
    """
    ideal = JOBS * NAP / MOST
    with places.fresh(1) as place:
        path = place.folder / "config.toml"
        keys = f'processes = "1-{MOST}"\nscale_latency = "{LATENCY_MS}ms"\nscale_idle = "{IDLE}"'
        path.write_text(path.read_text().replace("processes = 1", keys))
        with place.family():
            took = [_burst(place, number, ideal) for number in range(1, bursts + 1)]
        told = place.client.counts()
        interrupted = [
            job.id
            for job in place.client.list(limit=JOBS * bursts)
            if job.attempt != 1 or job.state != "succeeded" or place.client.attempts(job)
        ]
    print(
        f"{bursts} bursts: median {statistics.median(took):.1f} s, most {quantile(took, 1):.1f} s, "
        f"{statistics.median(took) / ideal:.2f} of the ideal {ideal:.1f} s; interrupted: "
        f"{len(interrupted)} of {told['default']['succeeded']:,} jobs"
    )


def _burst(place: Place, number: int, ideal: float) -> float:
    began = SYSTEM.monotonic_ns()
    place.fill(JOBS, "app:nap", NAP)
    most, full = 0, 0.0
    waited = False
    while (waits := _waits(place)) or not waited:
        waited = waited or waits
        now = _scaling(place)["now"]
        if now > most:
            most, full = now, (SYSTEM.monotonic_ns() - began) / 1e9
        SYSTEM.sleep(0.05)
    seconds = (SYSTEM.monotonic_ns() - began) / 1e9
    while _scaling(place)["now"] > 1 or place.left():
        SYSTEM.sleep(0.1)
    back = (SYSTEM.monotonic_ns() - began) / 1e9
    print(
        f"burst {number}: {JOBS:,} x {NAP:g} s: {most} workers after {full:.1f} s, latency back under "
        f"{LATENCY_MS / 1000:g} s after {seconds:.1f} s (ideal {ideal:.1f} s), one worker after {back:.1f} s",
        flush=True,
    )
    return seconds


def _waits(place: Place) -> bool:
    """Whether a job has been due for longer than the pool may let it."""
    return place.client.oldest_pending().get("default", 0) * 1000 > LATENCY_MS


def _scaling(place: Place) -> dict[str, Any]:
    status = StateDir(str(place.folder / ".jobvisor")).status() or {}
    return dict(status.get("scaling", {}).get("default", {"now": 0}))
