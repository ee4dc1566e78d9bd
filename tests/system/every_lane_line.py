"""Die at the n-th line, with several lanes that record into both halves of a ledger while turns commit.

Run as `python -m tests.system.every_lane_line FIRST STRIDE LIMIT` in a folder of its own: a fork needs a
single thread, which pytest with a timeout does not have. For each n = FIRST, FIRST + STRIDE, ... a life is
forked whose lanes are threads and whose turns go to a real store; some of them fail, some lose their answer.
It dies at the n-th line that its threads execute together in the files under test, and is settled from its
ledger. Then the rows are held against what the lanes wrote, and another life does the rest. It ends when a
run was not disturbed any more, and prints how many disturbances that took.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sys
import threading
import traceback
from collections import Counter, deque
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.identity import HOST, Identity
from jobvisor.jobs.job import Claimed, State
from jobvisor.jobs.outcome import VERB_CODES
from jobvisor.jobs.retry import Fixed, policy_json
from jobvisor.jobs.store import Life, Rest, Store, open_store
from jobvisor.supervisor.board import Grave
from jobvisor.supervisor.deaths.guilt import seen
from jobvisor.supervisor.deaths.settle import settle
from jobvisor.supervisor.ledger.evidence import read_ledger_of
from jobvisor.supervisor.ledger.halves import HalvedLedger
from jobvisor.supervisor.ledger.ledger import Entry, Header
from jobvisor.supervisor.roster import WORKER
from tests.waiting import eventually

FILES = (
    "supervisor/ledger/sheet.py",
    "supervisor/ledger/ledger.py",
    "supervisor/ledger/halves.py",
    "every_lane_line.py",
)
LANES, JOBS, AT_ONCE = 4, 24, 7
URL = "sqlite:///jobs.db"
WAIT = 30.0


class Lines:
    """Counts the lines that all threads execute in the files, and dies at one."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._known: dict[str, bool] = {}

    def on_call(self, frame: FrameType, _event: str, _argument: Any) -> Any:
        name = frame.f_code.co_filename
        if name not in self._known:
            self._known[name] = name.endswith(FILES)
        return self._on_line if self._known[name] else None

    def _on_line(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            self._left -= 1
            if self._left == 0:
                sys.stderr.write(f"killed at {frame.f_code.co_filename}:{frame.f_lineno}\n")
                os.kill(os.getpid(), signal.SIGKILL)
        return self._on_line


class Worker:
    """A conductor and its lanes, as simple as they can be."""

    def __init__(self, store: Store, owner: int) -> None:
        self.store = store
        self.life = Life(owner, 1, "worker 1", HOST, *Identity.mine())
        header = Header(
            owner, os.getpid(), self.life.start_ticks, self.life.pid_namespace, 1, self.life.boot_id,
            store.database_id(), HOST, LANES,
        )  # fmt: skip
        self.ledger = HalvedLedger("ledger", header)
        self.backlog: deque[tuple[int, Claimed]] = deque()
        self.more = threading.Semaphore(0)
        self.idle = threading.Semaphore(0)
        self.runs = os.open("runs.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def mark(self, word: str, job: int) -> None:
        os.write(self.runs, f"{word} {job} {os.getpid()}\n".encode())

    def run_lane(self, number: int) -> None:
        sheet = self.ledger.sheets[number]
        while True:
            assert self.more.acquire(timeout=WAIT)
            if not self.backlog:
                return
            claim, job = self.backlog.popleft()
            sheet.claimed(claim)
            sheet.publish(job.id, 0)
            self.mark("start", job.id)
            body = b'"%s"' % (b"x" * (job.id % 5 * 9_000))
            entry = Entry(
                claim, job.id, job.attempt, VERB_CODES["succeed"], SYSTEM.boottime_ns(), 1, 0, body
            )
            eventually(partial(self.ledger.record, entry), what="there is room")
            self.mark("kept", job.id)
            sheet.withdraw()
            self.idle.release()

    def conduct(self) -> None:
        """Turns until there is nothing left; each third one fails, each fifth loses its answer."""
        lanes = [threading.Thread(target=self.run_lane, args=(n,)) for n in range(LANES)]
        for lane in lanes:
            lane.start()
        lost: list[int] = []
        claim = 0
        while True:
            claim += 1
            journal = self.ledger.journal()
            if claim % 3 == 0:
                continue
            turn = self.store.turn(
                self.life, claim, queues=["default"], limit=AT_ONCE, journal=journal.records,
                rest=Rest(tuple(lost)) if lost else None, register=claim == 1,
            )  # fmt: skip
            if claim % 5 == 0:
                lost.append(claim)
                continue
            lost.clear()
            self.ledger.settled(journal)
            self.ledger.claimed(claim)
            if not turn.jobs:
                break
            self.backlog += [(claim, job) for job in turn.jobs]
            self.more.release(len(turn.jobs))
            # Half of the lanes are not waited for: they record while the next turns go on.
            for _ in range(len(turn.jobs) // 2):
                assert self.idle.acquire(timeout=WAIT)
        self.more.release(LANES)
        for lane in lanes:
            lane.join()
        self.end()

    def end(self) -> None:
        """As a worker leaves."""
        with self.store.transaction():
            self.store.remove_owner(self.life.owner)
            self.store.apply(self.ledger.whole().records, self.life)
            self.store.release_rest(self.life.owner)
        self.ledger.retire()


def live(at: int) -> tuple[int, int, int]:
    """One life, disturbed at this line (0: never): its owner, its pid and how it ended."""
    owner = secrets.randbits(62) + 1
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            store = open_store(URL, durable=False)
            store.open()
            worker = Worker(store, owner)
            if at:
                lines = Lines(at)
                threading.settrace(lines.on_call)
                sys.settrace(lines.on_call)
            worker.conduct()
            code = 0
        except BaseException:  # noqa: BLE001 -- told, and then the parent sees the code
            traceback.print_exc()
        finally:
            os._exit(code)
    return owner, pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def bury(owner: int, pid: int, status: int) -> list[int]:
    """Settle a life as the caretaker does; the jobs that it had not recorded."""
    found = read_ledger_of("ledger", owner)
    if found is None:
        return []
    grave = Grave(owner, pid, 1, status, 0, 0, 0, SYSTEM.monotonic_ns(), 0, 0, WORKER.number)
    life = Life(owner, 1, "worker 1", HOST, *Identity.mine()._replace(pid=pid))
    store = open_store(URL, durable=False)
    settle(store, life, found.records, found.running, seen(grave, oom=False), forget=False)
    store.close()
    recorded = {record.job for record in found.records}
    return [run.job for run in found.running if run.job not in recorded]


def lines() -> list[tuple[str, int, int]]:
    """What the lanes wrote: word, job, pid."""
    rows = [line.split() for line in Path("runs.txt").read_text().splitlines()]
    return [(word, int(job), int(pid)) for word, job, pid in rows]


def play(at: int) -> bool:
    """One batch of jobs and one death; whether it never came to that line."""
    from tests.store.making import enqueue  # noqa: PLC0415 -- of the test, not of what is traced

    for name in ("runs.txt", "jobs.db", "jobs.db-wal", "jobs.db-shm"):
        Path(name).unlink(missing_ok=True)
    shutil.rmtree("ledger", ignore_errors=True)
    Path("runs.txt").touch()
    store = open_store(URL, durable=False)
    ids = [enqueue(store, policy=policy_json(Fixed(0))) for _ in range(JOBS)]
    store.close()
    owner, pid, status = live(at)
    undisturbed = status == 0
    assert status in (0, -signal.SIGKILL), status
    running = bury(owner, pid, status)
    rows = {job.id: job for job in _all()}
    first = Counter((word, job) for word, job, _ in lines())
    for job in ids:
        state = rows[job].state
        assert first["start", job] <= 1, f"job {job} ran twice in one life"
        if first["kept", job]:
            assert state is State.SUCCEEDED, f"the outcome of job {job} was kept, and is lost"
        elif not first["start", job]:
            assert state is State.PENDING, f"job {job} never ran"
        if state is not State.SUCCEEDED:
            paid = rows[job].attempt > 0
            assert paid == (running == [job]), f"of {running} job {job} has {rows[job].attempt}"
    _owner, _pid, status = live(0)
    assert status == 0
    for job in _all():
        assert job.state is State.SUCCEEDED, (job.id, job.state)
    starts = Counter(job for word, job, _ in lines() if word == "start")
    for job in ids:
        cut = first["start", job] and not first["kept", job]
        assert starts[job] == 1 or (cut and starts[job] == 2), f"job {job} ran {starts[job]} times"
    return undisturbed


def _all() -> list[Any]:
    store = open_store(URL, durable=False)
    with contextlib.closing(store):
        return store.find(limit=1000)


def main(first: int, stride: int, last: int) -> None:
    """Raise the line until a run is not disturbed, or to the last one."""
    for number, at in enumerate(range(first, last + 1, stride)):
        if play(at):
            print(f"{number} disturbances, none from line {at}")
            return
    print(f"{(last - first) // stride + 1} disturbances to line {last}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
