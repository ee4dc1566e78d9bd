"""Several machines made of one: each has its own name, boot, pids, disk and, where asked for, network.

What tells machines apart in the product is the boot id and the pid namespace; what keeps one from
settling another's ledgers is that its disk is not there. Both are so here, by namespaces of Linux.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, cast

import pytest

from jobvisor import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.task import OptionValues
from tests.network import Host
from tests.postgres import Stranger, shared
from tests.system.harness import House, wait_heartbeats
from tests.waiting import eventually

FILE = "runs.txt"

#: For task modules: `mark(word, ctx)` on the site's own paper, and `gate(name)` at one of its doors.
_HEADER = f"""
SITE = {{site!r}}
HOST = os.uname().nodename
_runs = os.open(os.path.join(SITE, {FILE!r}), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

def mark(word, ctx):
    line = f"{{{{word}}}} {{{{ctx.job}}}} {{{{HOST}}}} {{{{time.clock_gettime_ns(time.CLOCK_BOOTTIME)}}}}\\n"
    os.write(_runs, line.encode())

def is_open(name):
    return os.path.exists(os.path.join(SITE, name))

def gate(name):
    while not is_open(name):
        time.sleep(0.005)  # task body
"""

# A private mount namespace: nobody else sees these. The disk lies under the same path on every machine.
_POWER_ON = """
echo "$1" > /proc/sys/kernel/hostname && shift
mount --bind "$1" /proc/sys/kernel/random/boot_id && shift
mount --bind "$1" "$2" && shift 2
exec "$@"
"""
_UNSHARED = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"]
_AS_ROOT = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]


class Mark(NamedTuple):
    """One line of a task: `at` by CLOCK_BOOTTIME, which all machines here share, in nanoseconds."""

    word: str
    job: int
    host: str
    at: int


class Site:
    """Machines around one PostgreSQL, and what their tasks wrote."""

    def __init__(
        self, folder: Path, *, database: str | None = None, lanes: int = 1, preload: bool = False
    ) -> None:
        """`database` is the URL of an empty one, else it is of the shared server; `lanes` of each worker."""
        self.folder = folder
        self.lanes = lanes
        self._preload = preload
        self.database = database or shared().new_database()
        self._is_shared = database is None
        self.state_dir = folder / "state"
        self.state_dir.mkdir(mode=0o700)
        self.client = Client(self.database)
        self._stranger = Stranger(self.database)
        self.machines: list[Machine] = []

    def machine(self, name: str, tasks: str, **options: Any) -> Machine:
        """One more machine, not yet started; options as a House and a Machine take them."""
        options.setdefault("preload", self._preload)
        if self.lanes > 1:
            options.setdefault("concurrency", self.lanes)
        machine = Machine(self, name, tasks, **options)
        self.machines.append(machine)
        return machine

    def close(self) -> None:
        """Power off, and away with the database."""
        for machine in self.machines:
            machine.close()
        self.client.close()
        self._stranger.close()
        if self._is_shared:
            shared().drop_database(self.database)

    # -- asking

    def calls(self, name: str, count: int, *args: Any, **options: Any) -> list[int]:
        """So many jobs of one task of `app`, in one transaction."""
        wanted = cast("OptionValues | None", options or None)
        one = self.client.call(f"app:{name}", *args, options=wanted)
        return self.client.enqueue_many([one] * count)

    def enqueue(self, name: str, *args: Any, **options: Any) -> int:
        """One job; its id."""
        return self.calls(name, 1, *args, **options)[0]

    def touch(self, name: str) -> None:
        """Open a gate that tasks wait at."""
        (self.folder / name).touch()

    # -- looking

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Plain SQL beside everything else."""
        return self._stranger.sql(sql, *parameters)

    def marks(self, word: str = "") -> list[Mark]:
        """What the tasks have written, in the order of their writing: all, or one word."""
        path = self.folder / FILE
        lines = path.read_text().splitlines() if path.exists() else []
        found = []
        for line in lines:
            said, job, host, at = line.split()
            if word in ("", said):
                found.append(Mark(said, int(job), host, int(at)))
        return found

    def wait_marks(self, word: str, count: int = 1, host: str = "") -> list[Mark]:
        """Until a word was written so often, by one machine or by any."""

        def found() -> list[Mark]:
            marks = [mark for mark in self.marks(word) if host in ("", mark.host)]
            return marks if len(marks) >= count else []

        return eventually(found, what=f"{count} x {word} by {host or 'any'}")

    def wait_finished(self, ids: Iterable[int], limit: float = 60.0) -> None:
        """Until all of these jobs are finished."""
        wanted = set(ids)

        def is_done() -> bool:
            rows = self.query("SELECT id FROM jobs WHERE finished_at IS NOT NULL")
            return wanted <= {row[0] for row in rows}

        eventually(is_done, limit=limit, what="all jobs are finished")

    def families(self) -> dict[str, int]:
        """The families there are, by the name of their machine."""
        return dict(self.query("SELECT host, id FROM families"))

    def running(self, owners: Iterable[int]) -> int:
        """How many rows run under these owners."""
        return int(
            self.query(
                "SELECT count(*) FROM jobs WHERE state = 'running' AND owner = ANY (?)",
                list(owners),
            )[0][0]
        )

    def owners(self, family: int) -> list[int]:
        """The lives of a family."""
        return [row[0] for row in self.query("SELECT owner FROM owners WHERE family = ?", family)]

    def wait_heartbeats(self, count: int, *hosts: str) -> None:
        """Until the families of these machines, or all, have written their heartbeat so often."""
        wait_heartbeats(self.query, count, *hosts)

    def wait_silence(self, seconds: float) -> None:
        """Until no family has written a heartbeat for so long, by the database's clock."""
        youngest = "SELECT extract(epoch FROM clock_timestamp() - max(heartbeat_at)) FROM families"
        eventually(lambda: self.query(youngest)[0][0] > seconds, what=f"{seconds} s of silence")

    def declared_dead(self) -> list[str]:
        """The lines of all machines that say so of another."""
        return [line for machine in self.machines for line in machine.said("is declared dead")]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Machine(House):
    """A family on a machine of its own: another boot, another disk, pids that mean nothing here.

    The family's parent is the first process of its machine, as in a container.
    """

    def __init__(
        self,
        site: Site,
        name: str,
        tasks: str,
        *,
        host: Host | None = None,
        url: str = "",
        dead_after: str = "3s",
        config: dict[str, dict[str, Any]] | None = None,
        **pool: Any,
    ) -> None:
        """`host` is its place in a network; `url` another way to the database than the site's."""
        unshared = [*_UNSHARED, *_AS_ROOT]
        probe = subprocess.run([*unshared, "true"], capture_output=True, check=False)
        if probe.returncode:
            pytest.skip(f"no machine can be made here: {probe.stderr.decode().strip()}")
        self.site = site
        self.name = name
        sections = {name: dict(values) for name, values in (config or {}).items()}
        sections.setdefault("supervisor", {}).update(
            state_dir=str(site.state_dir), dead_after=dead_after, name=name
        )
        sections.setdefault("database", {}).update(url=url or site.database)
        super().__init__(
            site.folder / name,
            _HEADER.format(site=str(site.folder)) + tasks,
            database=site.database,
            config=sections,
            state_dir="disk",
            **pool,
        )
        self.state_dir.mkdir(mode=0o700)
        self._boot_file = self.folder / "boot_id"
        self._boot_file.write_text(f"{uuid.uuid4()}\n")
        self._prefix = [
            *(host.prefix if host else []), *unshared, "sh", "-c", _POWER_ON, "machine", name,
            str(self._boot_file), str(self.state_dir), str(site.state_dir),
        ]  # fmt: skip
        self._outside: subprocess.Popen[bytes] | None = None

    # -- life

    def power_on(self, *, ready: bool = True) -> None:
        """Start the machine and its family."""
        (self.state_dir / "status.json").unlink(missing_ok=True)
        self._outside = self.start(ready=False, prefix=self._prefix)
        if ready:
            self.wait_in()

    def wait_in(self) -> None:
        """Until the family is in the database with all its workers."""

        def is_in() -> bool:
            assert self._outside is not None
            assert self._outside.poll() is None, f"the family ended: {self.log.read_text()}"
            workers = self.status().get("workers", [])
            reached = bool(workers) and all(worker["reached_database"] for worker in workers)
            return reached and self.name in self.site.families()

        eventually(is_in, what=f"the family of {self.name} is in")

    def power_off(self) -> None:
        """Every process of it ends at once, and nobody gets at its disk."""
        os.kill(self.processes()[0], signal.SIGKILL)
        assert self._outside is not None
        self._outside.wait(10)

    def shut_down(self) -> int:
        """Stop the family as its user would; the exit code."""
        os.kill(self.processes()[0], signal.SIGTERM)
        assert self._outside is not None
        return self._outside.wait(60)

    def suspend(self) -> None:
        """Stop every process of it, the parent first."""
        for pid in self.processes():
            os.kill(pid, signal.SIGSTOP)
        eventually(
            lambda: all(_state(pid) == "T" for pid in self.processes()), what="all are stopped"
        )

    def resume(self) -> None:
        """Let all of them go on."""
        for pid in self.processes():
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        # The database is the site's.
        if self._stranger is not None:
            self._stranger.close()
            self._stranger = None
        if self._outside is not None and self._outside.poll() is None:
            with suppress(IndexError):
                self.power_off()
        super().close()

    # -- looking

    def status(self) -> dict[str, Any]:
        """What the family last said of itself; its pids are those of its machine."""
        try:
            found: dict[str, Any] = json.loads((self.state_dir / "status.json").read_text())
        except FileNotFoundError:
            return {}
        return found

    def processes(self) -> list[int]:
        """All of its processes by the pids they have here, the parent first."""
        assert self._outside is not None
        found = self.children(self._outside.pid)
        for pid in found:
            with suppress(FileNotFoundError):
                found += self.children(pid)
        return found

    def caretaker(self) -> int:
        """The pid it has here."""
        return self._outer(super().caretaker())

    def workers(self) -> list[int]:
        """The pids they have here."""
        return [self._outer(pid) for pid in super().workers()]

    def _outer(self, pid: int) -> int:
        """Which process here has this pid there."""
        for outer in self.processes():
            text = Path(f"/proc/{outer}/status").read_text()
            line = next(line for line in text.splitlines() if line.startswith("NSpid:"))
            if int(line.split()[-1]) == pid:
                return outer
        raise ProcessLookupError(f"no process {pid} on {self.name}")


def boottime_of(ms: int) -> int:
    """A moment of the database, which is on this machine, by CLOCK_BOOTTIME in nanoseconds."""
    return SYSTEM.boottime_ns() - (SYSTEM.now_ms() - ms) * 1_000_000


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
