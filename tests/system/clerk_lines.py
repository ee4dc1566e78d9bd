"""A worker or its clerk dies while the clerk is at the n-th line that it executes.

Run as `python -m tests.system.clerk_lines PLAY FIRST STRIDE` in an empty folder. A process of its own
because a fork needs a single thread, which pytest with a timeout does not have. For each n = FIRST, FIRST +
STRIDE, ... a worker claims and records jobs through its clerk, which at its n-th line is either killed
(`clerk`), or held there while its worker is killed (`worker`): then the worker is settled at once, as a
caretaker does that has seen its death, and only after that the clerk goes on, unless it holds the lock
that the settler needs. `calls` kills the clerk at its n-th call of the system that changes a file or a
lock, by strace. It ends when a run was not disturbed any more, and prints how many were.
"""

from __future__ import annotations

import mmap
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Any

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.events import Events
from jobvisor.jobs.store import Life, Record, Store, open_store
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.supervisor.child import spawn
from jobvisor.supervisor.clerk.client_store import wait
from jobvisor.supervisor.clerk.handle import ClerkHandle
from jobvisor.supervisor.clerk.store import ClerkStore
from jobvisor.supervisor.deaths.guilt import Cause
from jobvisor.supervisor.deaths.settle import settle
from tests.store.making import life, new, record
from tests.system.every_line import STORE
from tests.system.harness import is_gone
from tests.waiting import eventually

FILES = (*STORE, "supervisor/clerk/clerk.py", "supervisor/clerk/channel.py")
URL = "sqlite:///jobs.db"
JOBS, CLAIMED = 12, 5
KILLED = Cause("was killed by SIGKILL", "here", 1, signal="SIGKILL")


class Tracer:
    """Counts the lines of the clerk, from its `run` on."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self._at = at
        self._act = act
        self._count = 0
        self._known: dict[str, bool] = {}

    def __call__(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in self._known:
            self._known[name] = name.endswith(FILES)
        return self._line if self._known[name] else None

    def _line(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            self._count += 1
            if self._count == self._at:
                sys.stderr.write(f"{self._at}: {frame.f_code.co_filename}:{frame.f_lineno}\n")
                self._act()
        return self._line


class Play:
    """One worker with a clerk that is disturbed at one line."""

    def __init__(self, who: Life, act: Callable[[], None], at: int) -> None:
        self._shared = mmap.mmap(-1, 1)
        self._who = who
        self._tracer = Tracer(at, act)

    @property
    def recorded(self) -> int:
        """How many claims' jobs the worker has recorded."""
        return self._shared[0]

    def _store(self, durable: bool) -> SqliteStore:
        """In the clerk, with its first request."""
        sys.settrace(self._tracer)
        return SqliteStore("jobs.db", durable=durable, prefix="", clock=SYSTEM, events=Events())

    def work(self, told: int, begin: int) -> bool:
        """Open, three turns of which the later ones settle, and the end; whether the clerk lived.

        The pid of the clerk goes to one descriptor, the word to begin is read from another.
        """
        clerk = ClerkStore(ClerkHandle("jobs.db", self._store, wait=wait), Events())
        os.write(told, clerk.clerk.pid.to_bytes(8, "little"))
        os.read(begin, 1)
        try:
            clerk.open()
            ended: list[Record] = []
            for claim in (1, 2, 3):
                jobs = clerk.turn(
                    self._who, claim, queues=["default"], limit=CLAIMED, journal=ended,
                    register=claim == 1,
                ).jobs  # fmt: skip
                ended = [record(self._who, claim, job) for job in jobs]
                self._shared[0] = claim
            clerk.leave(self._who, ended)
        except StoreUnavailable:
            return False
        return True


@contextmanager
def traced(pid: int, at: int) -> Iterator[None]:
    """A process is killed at its n-th call that changes something."""
    calls = "pwrite64,ftruncate,fcntl,fdatasync,fsync,unlink"
    inject = f"inject={calls}:signal=SIGKILL:when={at}"
    command = ["strace", "-o", os.devnull, "-p", str(pid), "-e", f"trace={calls}", "-e", inject]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        assert "attached" in strace.stderr.readline()
        yield
        strace.terminate()


def recorded(store: Store, who: Life, claims: int) -> list[Record]:
    """What is in the ledger of a worker that has recorded the jobs of so many claims."""
    rows = sql("SELECT id, claim FROM jobs WHERE owner = ? AND claim <= ?", who.owner, claims)
    jobs = store.get_many(number for number, _claim in rows)
    return [record(who, claim, jobs[number]) for number, claim in rows]


def sql(statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect("jobs.db", timeout=30, isolation_level=None)) as connection:
        return connection.execute(statement, parameters).fetchall()


def is_locked() -> bool:
    with closing(sqlite3.connect("jobs.db", timeout=0, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return True
        return False


def check(who: Life, claims: int) -> None:
    """Nothing of a settled life is left: what it recorded is done, all else as if it had never been."""
    assert sql("SELECT count(*) FROM jobs WHERE state = 'running'") == [(0,)]
    assert sql("SELECT count(*) FROM owners") == [(0,)]
    done = sql("SELECT count(*) FROM jobs WHERE state = 'succeeded' AND attempt = 1")[0][0]
    assert done == min(claims * CLAIMED, JOBS), (done, claims)
    assert sql("SELECT count(*) FROM jobs WHERE state = 'pending' AND attempt = 0") == [
        (JOBS - done,)
    ]
    assert sql("PRAGMA integrity_check") == [("ok",)]


def disturbed(play: str, at: int) -> bool:
    """Whether that line was reached; all that must hold is checked."""
    store = open_store(URL, durable=False)
    store.open()
    sql("DELETE FROM jobs")
    store.enqueue([new() for _ in range(JOBS)])
    store.close()  # no connection crosses a fork
    here_read, here = os.pipe()
    gate, gate_write = os.pipe()

    def hold() -> None:
        os.write(here, b"x")
        os.read(gate, 1)

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    who = life()
    staged = Play(who, die if play == "clerk" else hold, 0 if play == "calls" else at)
    pid_read, told = os.pipe()
    begin, begin_write = os.pipe()
    worker = spawn(
        lambda: 0 if staged.work(told, begin) else 1, [here_read, gate_write, begin_write]
    )
    for descriptor in (told, here, begin):
        os.close(descriptor)
    clerk = int.from_bytes(os.read(pid_read, 8), "little")
    if play == "calls":
        with traced(clerk, at):
            os.close(begin_write)
            os.waitid(os.P_PID, worker, os.WEXITED | os.WNOWAIT)
    else:
        os.close(begin_write)
    reached = bool(play == "worker" and os.read(here_read, 1))  # or the end of both
    goes_first = reached and is_locked()  # else the settler waits for it
    if reached:
        os.kill(worker, signal.SIGKILL)
    _, status = os.waitpid(worker, 0)
    if goes_first:
        os.close(gate_write)
    claims = staged.recorded
    settle(store, who, recorded(store, who, claims), (), KILLED, forget=False)
    store.close()
    if not goes_first:
        os.close(gate_write)
    eventually(lambda: is_gone(clerk), what="the clerk has left")
    for descriptor in (here_read, gate, pid_read):
        os.close(descriptor)
    check(who, claims)
    return reached or status != 0


def main(play: str, first: int, stride: int) -> None:
    """Raise the line until a run was not disturbed."""
    count = 0
    while disturbed(play, first + count * stride):
        count += 1
    print(f"{count} disturbances, none from line {first + count * stride}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
