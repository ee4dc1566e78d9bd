"""What a family costs at rest, how soon it is ready, and how soon a killed worker's job runs again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.family import StateDir
from tests.bench.place import ROOT, Places, family_pss, quantile


def rest(places: Places, seconds: int) -> None:
    """Print the memory and the wake-ups per second of an idle family of two workers.

    Of the family alone: what a server of the database needs is not counted.
    """
    with places.fresh() as where, where.family() as parent:
        SYSTEM.sleep(2)
        pids = _children(parent.pid)
        before = {pid: _switches(pid) for pid in (parent.pid, *pids)}
        SYSTEM.sleep(seconds)
        for pid, count in before.items():
            name = "parent" if pid == parent.pid else "child"
            print(f"{name} {pid}: {(_switches(pid) - count) / seconds:.2f} wake-ups/s")
        print(f"family of 2 workers: {family_pss(parent.pid) / 1e6:.1f} MB PSS")


def ready(places: Places, rounds: int) -> None:
    """Print the time from `start` to four ready workers."""
    for _ in range(rounds):
        with places.fresh(4) as where:
            began = SYSTEM.monotonic_ns()
            process = subprocess.Popen(
                [sys.executable, "-m", "jobvisor", "start"],
                cwd=where.folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )
            where.wait_ready(process.pid)
            print(f"4 workers ready after {(SYSTEM.monotonic_ns() - began) / 1e9:.3f} s")
            process.terminate()
            process.wait(60)


def rescue(places: Places, rounds: int) -> None:
    """Print the time from kill -9 of a busy worker to the next start of its job."""
    times: list[float] = []
    with places.fresh() as where, where.family():
        state = StateDir(str(where.folder / ".jobvisor"))
        for number in range(rounds):
            path = where.folder / f"starts-{number}"
            job = where.client.enqueue(
                where.client.call("app:hang_once", str(path), options={"retries": 1, "retry": 0})
            )
            while not (path.exists() and path.read_text()):
                SYSTEM.sleep(0.002)
            pid = 0
            while not pid:
                status = state.status() or {"workers": []}
                pid = next((w["pid"] for w in status["workers"] if w["job"] == job.id), 0)
                SYSTEM.sleep(0.002)
            killed = SYSTEM.monotonic_ns()
            os.kill(pid, signal.SIGKILL)
            where.client.wait(job.id, timeout=30)
            again = int(path.read_text().splitlines()[1])
            times.append((again - killed) / 1e6)
    print(
        f"{rounds} kills: the job runs again after p50 {quantile(times, 0.5):.1f} ms, "
        f"p90 {quantile(times, 0.9):.1f} ms, max {max(times):.1f} ms"
    )


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _switches(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    return 0
