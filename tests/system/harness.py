"""A real family in a folder of its own: started, looked at, killed, and never left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from jobvisor import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.store import open_store
from jobvisor.jobs.task import OptionValues
from tests.postgres import Stranger, shared
from tests.system.forking import can_be_forked, template
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]

#: For task sources: keep a line in a file of the house, whole even from many processes at once.
MARK = """
def mark(name, text=""):
    descriptor = os.open(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, f"{text}\\n".encode())
    os.close(descriptor)

def gate(name):
    while not os.path.exists(name):
        time.sleep(0.005)  # task body
"""


class House:
    """A folder with a config.toml, a task module `app`, a database, and families that ran in it."""

    def __init__(
        self,
        folder: Path,
        tasks: str,
        *,
        database: str | None = None,
        config: Mapping[str, Mapping[str, Any]] | None = None,
        state_dir: str = ".jobvisor",
        preload: bool = False,
        **pool: Any,
    ) -> None:
        """`database` is the URL of an empty PostgreSQL database; else a file of SQLite is made."""
        self.folder = folder
        self._preload = preload
        folder.mkdir(parents=True, exist_ok=True)
        self.state_dir = folder / state_dir
        self.log = folder / "log.txt"
        self._running: list[subprocess.Popen[bytes]] = []
        self._pids: set[int] = set()
        header = "import os, sys, time, signal\nfrom jobvisor import *\n"
        (folder / "app.py").write_text(header + textwrap.dedent(tasks))
        self.database = database
        self._stranger = Stranger(database) if database else None
        self.configure(config or {}, **pool)
        self.client = Client(database or f"sqlite:///{folder}/jobs.db")
        if database:
            store = open_store(database)
            store.migrate()
            store.close()

    def configure(self, config: Mapping[str, Mapping[str, Any]], **pool: Any) -> None:
        """Write config.toml: two workers and the module `app` unless said otherwise."""
        sections: dict[str, dict[str, Any]] = {
            "tasks": {"modules": ["app"], **({"preload": True} if self._preload else {})},
            "supervisor": {"state_dir": str(self.state_dir)},
            "log": {"level": "debug"},
            **({"database": {"url": self.database}} if self.database else {}),
        }
        for name, values in config.items():
            sections.setdefault(name, {}).update(values)
        workers = {"name": "default", "queues": ["default"], "processes": 2, **pool}
        lines: list[str] = []
        for name, values in sections.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(v)}" for key, v in values.items())]
        lines += ["[[workers]]", *(f"{key} = {json.dumps(v)}" for key, v in workers.items())]
        (self.folder / "config.toml").write_text("\n".join(lines) + "\n")

    # -- life

    def start(
        self,
        *arguments: str,
        ready: bool = True,
        fresh: bool = False,
        prefix: Sequence[str] = (),
        output: int | None = None,
        **environ: str,
    ) -> subprocess.Popen[bytes]:
        """`jobvisor start` as a user types it, its log appended to `log.txt`.

        It is forked from a template that has imported everything, unless a `fresh` interpreter is
        asked for or needed: `prefix` is a command in front of it that keeps the pid (strace -D,
        prlimit). `output` is a descriptor that takes the place of `log.txt`.
        """
        env = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
        with self.log.open("ab") as log:
            where = log if output is None else output
            if not fresh and not prefix and can_be_forked(env):
                process: subprocess.Popen[bytes] = template(bool(self.database)).fork(
                    ["start", *arguments], cwd=self.folder, env=env, output=where
                )
            else:
                process = subprocess.Popen(
                    [*prefix, sys.executable, "-m", "jobvisor", "start", *arguments],
                    cwd=self.folder,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=where,
                    stderr=where,
                    start_new_session=True,
                )
        self._running.append(process)
        if ready:
            self.wait_ready(process)
        return process

    def wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        """Until every worker of this parent has reached the database."""

        def is_ready() -> bool:
            assert process.poll() is None, f"the family ended: {self.log.read_text()}"
            status = self.status()
            if status.get("pid") != process.pid:
                return False
            workers = status["workers"]  # none at first, when only the caretaker was forked
            return len(workers) >= status["scale"] and all(
                worker["reached_database"] for worker in workers
            )

        eventually(is_ready, what="the family is ready")

    def status(self) -> dict[str, Any]:
        """What the family last said of itself, {} before its first word."""
        try:
            found: dict[str, Any] = json.loads((self.state_dir / "status.json").read_text())
        except FileNotFoundError:
            return {}
        self._pids.update(worker["pid"] for worker in found["workers"] if worker["pid"])
        for role in ("web", "scheduler"):
            if found.get(role) and found[role]["pid"]:
                self._pids.add(found[role]["pid"])
        if found["caretaker"]:
            self._pids.add(found["caretaker"]["pid"])
        return found

    def workers(self) -> list[int]:
        """The pids of the workers that are there now."""
        return [worker["pid"] for worker in self.status()["workers"] if worker["pid"]]

    def caretaker(self) -> int:
        """The pid of the caretaker."""
        return int(self.status()["caretaker"]["pid"])

    def hang_caretaker(self) -> int:
        """SIGSTOP to the caretaker, and not in the middle of a write, for which all others would wait."""
        caretaker = self.caretaker()

        def hangs() -> bool:
            os.kill(caretaker, signal.SIGSTOP)
            if self.database:
                return True  # its locks are those of the rows it changes
            path = self.folder / "jobs.db"
            with closing(sqlite3.connect(path, isolation_level=None, timeout=1)) as other:
                try:
                    other.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    os.kill(caretaker, signal.SIGCONT)
                    return False
            return True

        eventually(hangs, what="the caretaker hangs")
        return caretaker

    def stop(self, process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
        """Send a signal to the parent and wait for its exit code."""
        process.send_signal(number)
        return process.wait(60)

    def drain(self, **environ: str) -> int:
        """`jobvisor start --drain` to its end; the exit code."""
        return self.start(
            "--drain", ready=False, fresh=False, prefix=(), output=None, **environ
        ).wait(100)

    def kill_family(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to the parent and all its children, the parent first.

        All stand still before: a worker that saw its parent die would finish, settle and leave before
        its own kill, where this process waits for a core in between.
        """
        os.kill(process.pid, signal.SIGSTOP)
        children = self.children(process.pid)
        for number, pids in (
            (signal.SIGSTOP, children),
            (signal.SIGKILL, [process.pid, *children]),
        ):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        process.wait(10)
        for pid in children:
            eventually(partial(is_gone, pid), what=f"{pid} is gone")

    def children(self, pid: int) -> list[int]:
        """The direct children of a process, from /proc."""
        return [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]

    def close(self) -> None:
        """Kill what is left; a test that relies on it has a family that did not leave."""
        self.client.close()
        for process in self._running:
            if process.poll() is None:
                self._pids.update(self.children(process.pid))
                process.kill()
                process.wait(10)
        for pid in self._pids:
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"jobvisor" in command or b"tests/system/template.py" in command:
                    os.killpg(pid, signal.SIGKILL)
        if self.database and self._stranger:
            self._stranger.close()
            shared().drop_database(self.database)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """`jobvisor WORDS` as a user types it beside the family."""
        return subprocess.run(
            [sys.executable, "-m", "jobvisor", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    # -- asking

    def enqueue(self, name: str, *args: Any, **options: Any) -> int:
        """Enqueue a task of `app` by name; the id. Options as `using` takes them."""
        wanted = cast("OptionValues | None", options or None)
        call = self.client.call(f"app:{name}", *args, options=wanted)
        return self.client.enqueue(call).id

    def touch(self, name: str) -> None:
        """Open a gate that a task waits at."""
        (self.folder / name).touch()

    # -- looking

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Plain SQL beside everything else, in words that both stores take."""
        if self._stranger:
            return self._stranger.sql(sql, *parameters)
        path = self.folder / "jobs.db"
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
            return connection.execute(sql, parameters).fetchall()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Somebody else is in a transaction that keeps everybody from changing a job."""
        if self.database:
            holder = Stranger(self.database)
            holder.sql("BEGIN; LOCK TABLE jobs IN EXCLUSIVE MODE")
            try:
                yield
            finally:
                holder.close()
            return
        connection = sqlite3.connect(self.folder / "jobs.db", isolation_level=None, timeout=30)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.close()

    def check_whole(self) -> None:
        """The file is not damaged; a server's files are its own affair."""
        if not self.database:
            assert self.query("PRAGMA integrity_check") == [("ok",)]

    def lines(self, name: str) -> list[str]:
        """What tasks appended to a file (`mark` in task code): one line each."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def wait_lines(self, name: str, count: int = 1) -> list[str]:
        """Until tasks have marked a file so often."""
        eventually(lambda: len(self.lines(name)) >= count, what=f"{count} lines in {name}")
        return self.lines(name)

    def wait_state(self, job: int, state: str) -> None:
        """Until a job is in a state."""
        eventually(lambda: self.client.get(job).state == state, what=f"job {job} is {state}")

    def history(self, job: int) -> list[str]:
        """How the unsuccessful runs of a job ended, in one word each."""
        return [attempt.outcome for attempt in self.client.attempts(job)]

    def said(self, words: str) -> list[str]:
        """The log lines that have these words."""
        return [line for line in self.log.read_text(errors="replace").splitlines() if words in line]

    def heard(self, words: str) -> list[str]:
        """The same, of a line that is to come: what is logged may be logged after it can be seen."""
        return eventually(lambda: self.said(words), what=f"the log says {words!r}")

    def wait_rounds(self, count: int) -> None:
        """Until the caretaker has written its status so often without a reason: after a second each
        while jobs run, after five while none does.

        What must not happen has then had its chances, however busy the machine is.
        """
        for _ in range(count):
            written = self.status()["written_at"]
            eventually(
                lambda before=written: self.status()["written_at"] != before,  # type: ignore[misc]
                what="the status is written again",
            )

    def wait_heartbeats(self, count: int) -> None:
        """Until every living family has written its heartbeat so often: thrice in `dead_after`."""
        wait_heartbeats(self.query, count)

    def wait_finished(self, ids: Iterable[int], limit: float = 60.0) -> None:
        """Until all of these jobs are finished."""
        wanted = set(ids)

        def is_done() -> bool:
            rows = self.query("SELECT id FROM jobs WHERE finished_at IS NOT NULL")
            return wanted <= {row[0] for row in rows}

        eventually(is_done, limit=limit, what="all jobs are finished")


def wait_heartbeats(query: Callable[..., list[tuple[Any, ...]]], count: int, *hosts: str) -> None:
    """Until the living families, of these hosts or all, have written their heartbeat so often."""
    last: dict[int, int] = {}
    beats: Counter[int] = Counter()

    def have_beaten() -> bool:
        told = query("SELECT id, host, heartbeat_at FROM families WHERE died_at IS NULL")
        rows = {number: at for number, host, at in told if not hosts or host in hosts}
        for number, at in rows.items():
            beats[number] += last.get(number, at) != at
            last[number] = at
        return bool(rows) and all(beats[number] >= count for number in rows)

    eventually(have_beaten, limit=60, what=f"{count} heartbeats of {hosts or 'each family'}")


def switches(pid: int) -> int:
    """How often a process has gone to sleep of its own."""
    told = Path(f"/proc/{pid}/status").read_text()
    return int(told.split("\nvoluntary_ctxt_switches:")[1].split()[0])


def seconds_for_sleeps(pid: int, count: int) -> float:
    """How long it took a process to go to sleep so often."""
    before, began = switches(pid), SYSTEM.monotonic_ns()
    eventually(lambda: switches(pid) >= before + count, what=f"{pid} slept {count} times")
    return (SYSTEM.monotonic_ns() - began) / 1e9


Build = Callable[..., House]
NewDatabase = Callable[[], str | None]


def traced(*options: str) -> list[str]:
    """A `prefix` that runs the family under strace, which keeps the pid (-D); else a skip."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("there is no strace here")
    probe = subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip(f"strace may not trace here: {probe.stderr.decode(errors='replace')}")
    return [strace, "-D", "-o", os.devnull, *options]


def open_files(pid: int) -> list[str]:
    """What a process has open now; what it closes meanwhile may be missing."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{number}"))
    return found


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    return not alive(pid)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (
        FileNotFoundError,
        ProcessLookupError,
    ):  # the second where it ends between open and read
        return False
