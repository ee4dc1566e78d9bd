"""A fresh folder and a migrated database, and a family in it, for one measurement."""

from __future__ import annotations

import compileall
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jobvisor import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.family import StateDir
from tests.bench.database import Database
from tests.bench.postgres import Postgres, described
from tests.bench.sqlite import Sqlite
from tests.postgres import Databases, Given, Server

STORES = ("sqlite", "postgres")

#: A fresh database in this folder: its URL, and how to be rid of it.
NewDatabase = Callable[[Path], tuple[str, Callable[[], None]]]

ROOT = Path(__file__).resolve().parents[2]

TASKS = """
import time
from jobvisor import Fixed, task

@task
def noop():
    pass

@task
def stamp():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

@task(retries=1, retry=Fixed(0))
def hang_once(path):
    with open(path, "a") as file:
        file.write(f"{time.clock_gettime_ns(time.CLOCK_MONOTONIC)}\\n")
    if sum(1 for _ in open(path)) == 1:
        time.sleep(60)
"""


class Place:
    """A folder, a database, a client, and what runs there."""

    def __init__(self, folder: Path, database: Database, processes: int) -> None:
        self.folder = folder
        self.database = database
        self.url = database.url
        (folder / "app.py").write_text(TASKS)
        (folder / "config.toml").write_text(
            f'[database]\nurl = "{self.url}"\n[tasks]\nmodules = ["app"]\n'
            f'[[workers]]\nprocesses = {processes}\n[log]\nlevel = "warning"\n'
        )
        self.client = Client(self.url)
        self.client.migrate()
        self.processes = processes

    @contextmanager
    def family(self) -> Iterator[subprocess.Popen[bytes]]:
        """`jobvisor start`, ready, and drained afterwards."""
        process = subprocess.Popen(
            [sys.executable, "-m", "jobvisor", "start"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        try:
            self.wait_ready(process.pid)
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def wait_ready(self, pid: int) -> None:
        """Until all workers have reached the database."""
        state = StateDir(str(self.folder / ".jobvisor"))
        while True:
            status = state.status()
            if status and status["pid"] == pid:
                ready = [w for w in status["workers"] if w["reached_database"]]
                if len(ready) == self.processes:
                    return
            SYSTEM.sleep(0.002)

    def fill(self, jobs: int, task: str = "app:noop") -> None:
        """Enqueue this many in one transaction."""
        self.client.enqueue_many(self.client.call(task) for _ in range(jobs))

    def left(self) -> int:
        """How many rows are not finished."""
        counts = self.client.counts()
        return sum(
            number
            for states in counts.values()
            for state, number in states.items()
            if state not in ("succeeded", "failed", "cancelled")
        )


class Places:
    """Fresh places of one store, each gone after its measurement."""

    def __init__(self, make: Callable[[Path], Database]) -> None:
        self._make = make

    @contextmanager
    def fresh(self, processes: int = 2) -> Iterator[Place]:
        """A place for a family of this many workers."""
        folder = Path(tempfile.mkdtemp(prefix="jobvisor-bench-"))
        try:
            database = self._make(folder)
            made = Place(folder, database, processes)
            try:
                yield made
            finally:
                made.client.close()
                database.drop()
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _server(url: str | None) -> Iterator[Databases]:
    """The PostgreSQL of this URL, else one of our own, as durable as it is by default."""
    with Given(url) if url else Server(fsync=True) as server:
        if isinstance(server, Server):
            server.start()
        print(described(server))
        yield server


@contextmanager
def places(store: str, url: str | None) -> Iterator[Places]:
    """Places of a store: of PostgreSQL on the server of this URL, else on one of our own.

    Compiled first, as an installed package is: a family that has to compile is ready later, and keeps
    what that left in its memory.
    """
    for package in ("jobvisor", "jobs", "supervisor"):
        compileall.compile_dir(ROOT / package, quiet=1)
    if store == "sqlite":
        yield Places(Sqlite)
        return
    with _server(url) as server:
        yield Places(lambda _folder: Postgres(server))


@contextmanager
def new_databases(store: str, url: str | None) -> Iterator[NewDatabase]:
    """Empty databases of a store, for whatever queue fills them."""
    if store == "sqlite":
        yield lambda folder: (f"sqlite:///{folder}/queue.db", lambda: None)
        return
    with _server(url) as server:

        def new(_folder: Path) -> tuple[str, Callable[[], None]]:
            made = server.new_database()
            return made, lambda: server.drop_database(made)

        yield new


def family_pss(parent: int) -> int:
    """Bytes of memory of a whole family, shared pages counted once."""
    total = 0
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for pid in (parent, *map(int, children)):
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def family_cpu(parent: int) -> float:
    """Seconds of a processor that a whole family has used."""
    ticks = 0
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    for pid in (parent, *map(int, children)):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def quantile(values: list[float], part: float) -> float:
    """The value below which this part of all lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
