"""Every queue in turn, in rounds, so that a machine that slows down slows all of them."""

from __future__ import annotations

import importlib
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from jobvisor.jobs.clock import SYSTEM
from tests.bench.peers.job import Pipe
from tests.bench.peers.ours import Ours, OursForgetting
from tests.bench.peers.peer import NOOP, STAMP, Peer
from tests.bench.place import NewDatabase, quantile

PROCESSES = 2
WARM = 20  # calls before the clock runs
OTHERS = {
    "sqlite": [("huey_peer", "Huey", "huey")],
    "postgres": [
        ("pgqueuer_peer", "Pgqueuer", "pgqueuer"),
        ("procrastinate_peer", "Procrastinate", "procrastinate"),
    ],
}

Figures = dict[str, float]

ROWS = {
    "one by one": "enqueue one by one, durable, jobs/s",
    "bulk": "enqueue in bulk, jobs/s",
    "no-op": f"no-op jobs/s, {PROCESSES} workers",
    "latency": "before enqueue to the start of the job, p50 ms",
}


def kinds(store: str) -> list[type[Peer]]:
    """Our queue and the others that are installed; those that are not are named."""
    found: list[type[Peer]] = [Ours, OursForgetting]
    for module, name, distribution in OTHERS[store]:
        try:
            version = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            print(f"{distribution} is not installed: pip install -e '.[peers]'")
            continue
        print(f"{distribution} {version}")
        found.append(getattr(importlib.import_module(f"tests.bench.peers.{module}"), name))
    return found


def run(store: str, new_database: NewDatabase, rounds: int, single: int, bulk: int) -> None:
    """Print a row per figure: the median of each queue, and ours as a ratio to the best of others."""
    figures: dict[str, list[Figures]] = {}
    chosen = kinds(store)
    for number in range(rounds):
        for kind in chosen:
            with _fresh(kind, new_database) as (peer, pipe):
                measured = _measure(peer, pipe, single, bulk)
            figures.setdefault(kind.name, []).append(measured)
            told = ", ".join(f"{name} {value:,.1f}" for name, value in measured.items())
            print(f"round {number + 1}, {kind.name}: {told}", flush=True)
    _print(figures)


@contextmanager
def _fresh(kind: type[Peer], new_database: NewDatabase) -> Iterator[tuple[Peer, Pipe]]:
    folder = Path(tempfile.mkdtemp(prefix="jobvisor-peers-"))
    try:
        url, drop = new_database(folder)
        peer = kind(folder, url)
        peer.prepare()
        pipe = Pipe(str(folder / "pipe"))
        try:
            yield peer, pipe
        finally:
            pipe.close()
            peer.close()
            drop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _measure(peer: Peer, pipe: Pipe, single: int, bulk: int) -> Figures:
    found: Figures = {}
    for _ in range(WARM):
        peer.enqueue(NOOP)
    began = SYSTEM.monotonic_ns()
    for _ in range(single):
        peer.enqueue(NOOP)
    found["one by one"] = single / _since(began)
    began = SYSTEM.monotonic_ns()
    if peer.enqueue_many(min(bulk, peer.jobs)):
        found["bulk"] = min(bulk, peer.jobs) / _since(began)
    with peer.workers(PROCESSES, pipe.path):
        _wait_empty(peer)
        peer.enqueue(STAMP)
        pipe.read()
        _wait_empty(peer)  # one that is ended before it has told of its last job would run it again
    # All is there before the workers are: the clock runs from the first job to the last.
    peer.enqueue(STAMP)
    peer.enqueue_many(peer.jobs)
    with peer.workers(PROCESSES, pipe.path):
        began = pipe.read()
        _wait_empty(peer)
        found["no-op"] = peer.jobs / _since(began)
        found["latency"] = quantile([_latency(peer, pipe) for _ in range(200)], 0.5)
    return found


def _latency(peer: Peer, pipe: Pipe) -> float:
    SYSTEM.sleep(0.01)
    began = SYSTEM.monotonic_ns()
    peer.enqueue(STAMP)
    return (pipe.read() - began) / 1e6


def _since(began: int) -> float:
    return (SYSTEM.monotonic_ns() - began) / 1e9


def _wait_empty(peer: Peer) -> None:
    while peer.is_left():
        SYSTEM.sleep(0.01)


def _print(figures: dict[str, list[Figures]]) -> None:
    print()
    for row, words in ROWS.items():
        medians = {
            name: statistics.median(each[row] for each in rounds)
            for name, rounds in figures.items()
            if row in rounds[0]
        }
        told = ", ".join(f"{name} {value:,.1f}" for name, value in medians.items())
        ours = {name: value for name, value in medians.items() if name.startswith(Ours.name)}
        others = {name: value for name, value in medians.items() if name not in ours}
        if others:
            best = min if row == "latency" else max
            rival = best(others, key=lambda name: others[name])
            ratios = ", ".join(f"{value / others[rival]:.2f}" for value in ours.values())
            told += f"; ours / {rival}: {ratios}"
        print(f"{words}: {told}")
