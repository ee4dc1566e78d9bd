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
from typing import Any

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

#: asyncio, which takes 3 MB of each process that imports it, is imported by the tasks that need it.
TASKS = """
import os, time
from jobvisor import Fixed, task

@task
def noop():
    pass

@task
async def noop_async():
    pass

@task
async def nap_async(seconds):
    import asyncio
    await asyncio.sleep(seconds)

@task
def nap(seconds):
    time.sleep(seconds)  # task body

@task
def compute(seconds):
    ends = time.thread_time() + seconds
    while time.thread_time() < ends:
        sum(range(1000))

@task
async def wait_for(path):
    import asyncio
    with open("waiting", "a") as file:
        file.write(".")
    while not os.path.exists(path):
        await asyncio.sleep(0.25)

@task
def stuck(path):
    with open(path, "w") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(600)  # task body

@task
async def linger(path, gate):
    import asyncio
    with open(path, "a") as file:
        file.write(f"{time.clock_gettime_ns(time.CLOCK_MONOTONIC)}\\n")
    while not os.path.exists(gate):
        await asyncio.sleep(0.25)

@task
def stamp():
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)

@task(retries=1, retry=Fixed(0))
def hang_once(path):
    with open(path, "a") as file:
        file.write(f"{time.clock_gettime_ns(time.CLOCK_MONOTONIC)}\\n")
    if sum(1 for _ in open(path)) == 1:
        time.sleep(60)  # task body
"""


class Place:
    """A folder, a database, a client, and what runs there."""

    def __init__(self, folder: Path, database: Database, processes: int, **pool: int) -> None:
        self.folder = folder
        self.database = database
        self.url = database.url
        (folder / "app.py").write_text(TASKS)
        keys = "".join(f"{key} = {value}\n" for key, value in pool.items())
        (folder / "config.toml").write_text(
            f'[database]\nurl = "{self.url}"\n[tasks]\nmodules = ["app"]\n'
            f'[[workers]]\nprocesses = {processes}\n{keys}[log]\nlevel = "warning"\n'
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

    @contextmanager
    def working(
        self, jobs: int, task: str = "app:noop", *args: Any
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A family with its jobs. Where the bare loop's table was vacuumed, so is the family's."""
        if self.database.is_server:
            self.fill(jobs, task, *args)
            self.database.tidy()
            with self.family() as parent:
                yield parent
        else:
            with self.family() as parent:
                self.fill(jobs, task, *args)
                yield parent

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

    def fill(self, jobs: int, task: str = "app:noop", *args: Any) -> None:
        """Enqueue this many in one transaction."""
        self.client.enqueue_many(self.client.call(task, *args) for _ in range(jobs))

    def workers(self) -> list[int]:
        """The pids of the workers, as the family last said."""
        status = StateDir(str(self.folder / ".jobvisor")).status() or {"workers": []}
        return [worker["pid"] for worker in status["workers"] if worker["pid"]]

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
    def fresh(self, processes: int = 2, **pool: int) -> Iterator[Place]:
        """A place for a family of this many workers, with further keys of their pool."""
        folder = Path(tempfile.mkdtemp(prefix="jobvisor-bench-"))
        try:
            database = self._make(folder)
            made = Place(folder, database, processes, **pool)
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


def family_of(parent: int) -> list[int]:
    """A process and all that descend from it."""
    found = [parent]
    for pid in found:
        with suppress(FileNotFoundError, ProcessLookupError):
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found


def family_pss(parent: int) -> int:
    """Bytes of memory of a process and all that descend from it, shared pages counted once."""
    total = 0
    for pid in family_of(parent):
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def family_cpu(parent: int) -> float:
    """Seconds of a processor that a process and all that descend from it have used."""
    ticks = 0
    for pid in family_of(parent):
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def quantile(values: list[float], part: float) -> float:
    """The value below which this part of all lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
