"""What `[tasks] preload` saves: an application of some 200 MB, imported by each worker or by a template."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.family import StateDir
from tests.bench.place import Place, Places, family_pss, quantile

MODULES = 20
ENTRIES = 11_000  # of a module: about 10 MB of it

#: Objects of the kinds that an application is made of: classes, functions, texts, numbers, dictionaries.
MODULE = """
import dataclasses

@dataclasses.dataclass
class Entry:
    number: int
    name: str
    parts: list
    def total(self):
        return self.number + len(self.parts)

ENTRIES = {{
    f"{name}-{{number}}": Entry(
        number + {base}, f"entry number {{number}} of {name}", [str(number + part) for part in range(4)]
    )
    for number in range({entries})
}}
CHECKS = [lambda value, number=number: value > number for number in range({entries})]
"""

TASKS = """
from jobvisor import task
import {modules}
MODULES = [{modules}]

@task
def look(number: int) -> int:
    module = MODULES[number % len(MODULES)]
    entry = module.ENTRIES[f"{{module.__name__}}-{{number}}"]
    return entry.total() + module.CHECKS[number](number)
"""


def run(places: Places, jobs: int, kills: int, lives: int) -> None:
    """Print memory, the time to a killed worker's successor, and how fast a process for each job is."""
    memory(places, jobs)
    successor(places, kills)
    fresh(places, lives)


@contextmanager
def application(
    places: Places, processes: int, *, preload: bool, max_jobs: int = 0
) -> Iterator[Place]:
    """A place whose module imports some 200 MB."""
    with places.fresh(processes) as where:
        names = [f"part{number:02}" for number in range(MODULES)]
        for number, name in enumerate(names):
            text = MODULE.format(name=name, base=number * ENTRIES, entries=ENTRIES)
            (where.folder / f"{name}.py").write_text(text)
        (where.folder / "app.py").write_text(TASKS.format(modules=", ".join(names)))
        path = where.folder / "config.toml"
        path.write_text(
            path.read_text()
            .replace("[tasks]\n", f"[tasks]\npreload = {str(preload).lower()}\n")
            .replace("[log]\n", '[log]\nfile = "log.txt"\n')  # the deaths are meant
            .replace("[[workers]]\n", f"[[workers]]\nmax_jobs = {max_jobs}\nbatch_max = 20\n")
        )
        yield where


def memory(places: Places, jobs: int) -> None:
    """The PSS of a family of eight workers, after so many jobs each."""
    held: dict[bool, tuple[int, int]] = {}
    for preload in (False, True):
        with application(places, 8, preload=preload) as where, where.family() as parent:
            before = family_pss(parent.pid)
            where.client.enqueue_many(
                where.client.call("app:look", number % ENTRIES) for number in range(8 * jobs)
            )
            while where.left():
                SYSTEM.sleep(0.05)
            held[preload] = before, family_pss(parent.pid)
    for preload, (before, after) in held.items():
        print(
            f"{'with' if preload else 'without'} preload, 8 workers: {before >> 20} MB PSS, "
            f"after {jobs} jobs each {after >> 20} MB"
        )
    print(f"ratio {held[True][1] / held[False][1]:.2f} (at most 0.4)")


def successor(places: Places, kills: int) -> None:
    """From kill -9 of a worker that has run a job until another one is ready in its place."""
    for preload in (True, False):
        with application(places, 2, preload=preload) as where, where.family():
            count = kills if preload else max(1, kills // 10)
            times = [_successor(where) for _ in range(count)]
        print(
            f"{'with' if preload else 'without'} preload, {count} kills: the successor is ready after "
            f"p50 {quantile(times, 0.5):.1f} ms, p90 {quantile(times, 0.9):.1f} ms"
        )


def _successor(where: Place) -> float:
    state = StateDir(str(where.folder / ".jobvisor"))
    victim = 0
    while not victim:
        where.client.wait(where.client.enqueue("app:look", 1).id, timeout=60)
        idle = (worker for worker in _workers(state) if worker["state"] == "idle")
        victim = next((worker["pid"] for worker in idle if worker["started"]), 0)
    killed = SYSTEM.monotonic_ns()
    os.kill(victim, signal.SIGKILL)
    others = {worker["pid"] for worker in _workers(state)}
    _ready(state, others)
    return (SYSTEM.monotonic_ns() - killed) / 1e6


def _ready(state: StateDir, known: set[int]) -> int:
    while True:
        for worker in _workers(state):
            if worker["pid"] not in known and worker["reached_database"]:
                return int(worker["pid"])
        SYSTEM.sleep(0.001)


def _workers(state: StateDir) -> list[dict[str, Any]]:
    status = state.status()
    return [] if status is None else list(status["workers"])


def fresh(places: Places, lives: int) -> None:
    """Jobs per second with `max_jobs = 1`: each has a process of its own."""
    rates: dict[bool, float] = {}
    for preload in (True, False):
        count = lives if preload else max(4, lives // 40)
        with application(places, 2, preload=preload, max_jobs=1) as where, where.family() as parent:
            where.client.enqueue_many(
                where.client.call("app:look", number) for number in range(2 + count)
            )
            while where.left() > count:  # for these two processes were there before
                SYSTEM.sleep(0.001)
            before, used = _resident(parent.pid), _cpu(parent)
            began = SYSTEM.monotonic_ns()
            while where.left():
                SYSTEM.sleep(0.005)
            seconds = (SYSTEM.monotonic_ns() - began) / 1e9
            used, grown = _cpu(parent) - used, _resident(parent.pid) - before
        rates[preload] = count / seconds
        print(
            f"{'with' if preload else 'without'} preload, max_jobs = 1, 2 workers: {rates[preload]:.1f} "
            f"jobs/s, {used / count * 1000:.0f} ms of a processor each; the parent grew by {grown} KB"
        )
    print(
        f"ratio {rates[True] / rates[False]:.0f} (at least 20); {rates[True] / 2:.1f} jobs/s a core"
    )


def _resident(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def _cpu(parent: subprocess.Popen[bytes]) -> float:
    """Seconds of a processor that a family has used, its dead with it."""
    ticks = 0
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    for pid in (parent.pid, *map(int, children)):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
