"""Die at the n-th line: forks real workers and caretakers on a board of its own, without a family.

Run as `python -m tests.system.every_line PLAY FIRST STRIDE LIMIT` in a folder that has config.toml and
the task module `app`. A process of its own because a fork needs a single thread, which pytest with
a timeout does not have. For each n = FIRST, FIRST + STRIDE, ... a fresh batch of jobs is enqueued and
one process is disturbed at the n-th line that it executes in the files under test; then others finish,
and the rows are held against what the tasks wrote. It ends when a run was not disturbed any more, and
prints how many disturbances that took.

worker     a worker dies at the line
caretaker  a worker dies in its batch, and the caretaker that settles it dies at the line
recall     a worker stops at the line, its claim is recalled and run by another, then it goes on
orphans    a caretaker without a parent stops at the line, its worker goes on and dies, it goes on
"""

from __future__ import annotations

import os
import secrets
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from jobvisor import Client, Fixed
from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.board import (
    CLAIM,
    CURRENT,
    CURRENT_CLAIM,
    DRAIN,
    ENTERED,
    FILLED,
    FOREVER,
    LEASE_UNTIL,
    LEAVE,
    OWNER,
    PID,
    ROLE,
    RUN,
    SLOT_STATE,
    STOP,
    VERDICT,
    VERDICT_CLAIM,
    VERDICT_JOB,
    Board,
    Grave,
)
from jobvisor.supervisor.caretaker.caretaker import Caretaker
from jobvisor.supervisor.child import Exit, reap, spawn
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.evidence import read_ledger_of
from jobvisor.supervisor.role import Seat
from jobvisor.supervisor.roster import CARETAKER, WORKER, RoleRow
from jobvisor.supervisor.worker import Worker
from tests.postgres import Stranger
from tests.waiting import eventually

STORE = (
    "jobs/store/relational.py", "jobs/store/settlement.py", "jobs/store/file.py",
    "jobs/store/patience.py", "jobs/store/schema.py", "jobs/store/sqlite.py",
    "jobs/store/server.py", "jobs/store/inserts.py", "jobs/store/postgres.py",
)  # fmt: skip
WORKER_FILES = (
    "supervisor/worker.py",
    "supervisor/running/turns.py",
    "supervisor/batch.py",
    "supervisor/resting.py",
    "supervisor/running/absence.py",
    "supervisor/running/fitness.py",
    "supervisor/running/successes.py",
    "supervisor/running/lane.py",
    "supervisor/ledger/sheet.py",
    "supervisor/ledger/ledger.py",
)
CARETAKER_FILES = (
    "supervisor/caretaker/caretaker.py",
    "supervisor/deaths/burial.py",
    "supervisor/deaths/settle.py",
    "supervisor/deaths/guilt.py",
    "supervisor/ledger/evidence.py",
)

#: How often each kind of job starts when nothing goes wrong (`dies`: its own death included).
RUNS = {
    "succeeds": 1, "snoozes": 2, "fails": 1, "retries": 2, "large": 1, "dies": 2, "gated": 1,
}  # fmt: skip

#: What a house of this test has in its module `app`.
TASKS = """
_runs = os.open("runs.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

def mark(word, ctx):
    os.write(_runs, f"{word} {ctx.job} {ctx.attempt} {os.getpid()}\\n".encode())

def once(ctx):
    return open("runs.txt").read().count(f"first {ctx.job} ") == 0

@task
def succeeds(ctx: Context):
    mark("start", ctx)
    mark("end", ctx)

@task
def large(ctx: Context):
    mark("start", ctx)
    mark("end", ctx)
    return "x" * 70_000  # above what a ledger takes

@task
def fails(ctx: Context):
    mark("start", ctx)
    mark("end", ctx)
    raise Fail("no use")

@task
def retries(ctx: Context):
    mark("start", ctx)
    again = once(ctx)
    mark("first" if again else "end", ctx)
    if again:
        raise Retry(after=0)

@task
def dies(ctx: Context):
    mark("start", ctx)
    if ctx.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    mark("end", ctx)

@task
def gated(ctx: Context):
    mark("start", ctx)
    while not os.path.exists("gate"):
        time.sleep(0.001)  # task body
    mark("end", ctx)

@task
def snoozes(ctx: Context):
    mark("start", ctx)
    again = once(ctx)
    mark("first" if again else "end", ctx)
    if again:
        raise Snooze(0)
"""


@dataclass(frozen=True)
class Disturbance:
    """At which line of which files a process sends itself which signal."""

    at: int
    files: tuple[str, ...]
    signal: signal.Signals

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Count the lines executed in the files."""
        count = 0
        known: dict[str, bool] = {}

        def on_line(frame: FrameType, event: str, _argument: Any) -> Any:
            nonlocal count
            if event == "line":
                count += 1
                if count == self.at:
                    place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                    sys.stderr.write(f"{self.signal.name} at {place}\n")
                    os.kill(os.getpid(), self.signal)
            return on_line

        def on_call(frame: FrameType, _event: str, _argument: Any) -> Any:
            name = frame.f_code.co_filename
            if name not in known:
                known[name] = name.endswith(self.files)
            return on_line if known[name] else None

        sys.settrace(on_call)
        try:
            yield
        finally:
            sys.settrace(None)


NEVER = Disturbance(0, (), signal.SIGKILL)


@dataclass
class Life:
    """A forked role, and the end of its lifeline that the parent holds."""

    pid: int
    owner: int
    slot: int
    lifeline: int

    def cut(self) -> None:
        """As the parent's death does."""
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1


class Stage:
    """A board, its pipes, and the lives forked upon it."""

    def __init__(self, config: Config) -> None:
        self.config = config
        url = config.database.url
        self._stranger = None if url.startswith("sqlite:") else Stranger(url)
        self.state = StateDir(config.family.state_dir)
        self.state.create()
        self.board = Board()
        self.family = secrets.randbits(62) + 1
        _, self.parent_poke = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.care_read, self.care_poke = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def worker(self, disturbance: Disturbance = NEVER, *, slot: int = 1) -> Life:
        """A worker that takes all there is in one claim."""

        def make(seat: Seat) -> Callable[[], int]:
            worker = Worker(seat)
            worker._pace.batch = 10
            return worker.run

        return self._fork(WORKER, slot, make, disturbance)

    def settler(self, disturbance: Disturbance = NEVER) -> Life:
        """A caretaker dismissed before it is born: it boots, settles the graves, and leaves."""

        def make(seat: Seat) -> Callable[[], int]:
            seat.slot[LEAVE] = 1
            return Caretaker(seat).run

        return self._fork(CARETAKER, 0, make, disturbance)

    def orphan(self, disturbance: Disturbance) -> Life:
        """A caretaker whose parent is dead: it stays as long as a worker of the board lives."""

        def make(seat: Seat) -> Callable[[], int]:
            caretaker = Caretaker(seat)
            caretaker.lifeline_cut = True  # as it is from its first sleep on
            return caretaker.run

        life = self._fork(CARETAKER, 0, make, disturbance)
        life.cut()
        return life

    def recaller(self) -> Life:
        """A caretaker that does nothing but recall the claim of the worker in slot 1."""

        def make(seat: Seat) -> Callable[[], int]:
            caretaker = Caretaker(seat)

            def recall() -> int:
                slot = self.board.slots[1]
                caretaker.boot()
                caretaker._recall.recall(slot, slot[OWNER], slot[CLAIM])
                return 0

            return recall

        return self._fork(CARETAKER, 0, make, NEVER)

    def _fork(
        self,
        role: RoleRow,
        index: int,
        make: Callable[[Seat], Callable[[], int]],
        disturbance: Disturbance,
    ) -> Life:
        if self._stranger:
            self._stranger.close()  # nobody inherits a conversation
        slot = self.board.slots[index]
        slot.clear()
        slot.give_lanes(index, 1)
        owner = secrets.randbits(62) + 1
        slot[ROLE], slot[SLOT_STATE] = role.number, FILLED
        parent, (lifeline, held) = os.getpid(), os.pipe2(os.O_CLOEXEC)

        def run() -> int:
            seat = Seat(
                config=self.config,
                board=self.board,
                slot=slot,
                owner=owner,
                family=self.family,
                name=role.name(index),
                parent=parent,
                lifeline=lifeline,
                parent_poke=self.parent_poke,
                caretaker_poke=self.care_poke,
                wake_read=self.care_read if role is CARETAKER else -1,
            )
            live = make(seat)
            if not disturbance.at:
                return live()
            with disturbance.armed():
                return live()

        pid = spawn(run, [held])
        os.close(lifeline)
        slot[PID] = pid
        return Life(pid, owner, index, held)

    def begin_anew(self) -> None:
        """As the next family finds it, once the orphans of this one have left."""
        self.family = secrets.randbits(62) + 1
        self.board[LEASE_UNTIL] = FOREVER
        self.board[ENTERED] = 0

    def wait(self, life: Life, is_enough: Callable[[], bool] = lambda: False) -> int:
        """Until a life has ended, asked to leave once that is enough; how it ended."""
        asked = False

        def ended() -> Exit | None:
            nonlocal asked
            end = reap(life.pid)
            if end is None and not asked and is_enough():
                asked = True
                self.board[STOP] = DRAIN
                life.cut()
            if end is None and asked and is_stopped(life):
                os.kill(life.pid, signal.SIGCONT)  # its line came after its work
            return end

        end = eventually(ended, what=f"{life.pid} ends")
        assert end is not None
        life.cut()
        self.board[STOP] = RUN
        return end.status

    def bury(self, life: Life, status: int) -> None:
        """What the parent notes of a worker's end."""
        slot = self.board.slots[life.slot]
        self.board.bury(
            Grave(
                owner=life.owner,
                pid=life.pid,
                slot=slot.index,
                status=status,
                verdict_job=slot[VERDICT_JOB],
                verdict_claim=slot[VERDICT_CLAIM],
                verdict=slot[VERDICT],
                at=SYSTEM.monotonic_ns(),
                current=slot.lane(0)[CURRENT],
                claim=slot.lane(0)[CURRENT_CLAIM],
                role=slot[ROLE],
            )
        )

    def query(self, sql: str, *parameters: int) -> list[tuple[Any, ...]]:
        """Plain SQL beside everything else."""
        if self._stranger:
            return self._stranger.sql(sql, *parameters)
        with closing(sqlite3.connect("jobs.db", timeout=30)) as connection:
            return connection.execute(sql, parameters).fetchall()

    def is_locked(self) -> bool:
        """Whether somebody is in a transaction that keeps others from writing."""
        if self._stranger:
            told = self.query(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"
            )
            return told != [(0,)]
        with closing(sqlite3.connect("jobs.db", timeout=0, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            return False


def is_stopped(life: Life) -> bool:
    """Whether a life stands still."""
    told = os.waitid(os.P_PID, life.pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return told is not None and told.si_code == os.CLD_STOPPED


class Round:
    """One batch of jobs, one disturbance, and what must be true of it."""

    def __init__(self, stage: Stage, client: Client, kinds: tuple[str, ...]) -> None:
        self.stage = stage
        self.runs = Path("runs.txt")
        self.runs.write_text("")
        self.gate = Path("gate")
        self.gate.unlink(missing_ok=True)
        self.ids = client.enqueue_many(
            [
                client.call(f"app:{kind}", options={"retry": Fixed(0), "retries": 3})
                for kind in kinds
            ]
        )
        client.close()
        self.first = self.ids[0]
        self.query = stage.query
        self.kinds = dict(zip(self.ids, kinds, strict=True))

    def all_finished(self) -> bool:
        unfinished = "SELECT count(*) FROM jobs WHERE id >= ? AND finished_at IS NULL"
        return self.query(unfinished, self.first) == [(0,)]

    def lines(self) -> list[tuple[str, int, int, int]]:
        """What the tasks wrote: word, job, attempt, pid."""
        found = []
        for line in self.runs.read_text().splitlines():
            word, job, attempt, pid = line.split()
            found.append((word, int(job), int(attempt), int(pid)))
        return found

    def settle(self, life: Life, status: int, disturbance: Disturbance = NEVER) -> bool:
        """Bury a worker and let a caretaker settle it; whether the caretaker was undisturbed."""
        self.stage.bury(life, status)
        undisturbed = self.stage.wait(self.stage.settler(disturbance)) == 0
        if not undisturbed:
            assert self.stage.wait(self.stage.settler()) == 0
        self.check_settled(life)
        return undisturbed

    def finish(self) -> None:
        """A worker that nothing happens to does the rest."""
        if not self.all_finished():
            life = self.stage.worker()
            assert self.stage.wait(life, self.all_finished) == 0
            self.settle(life, 0)

    # -- what must hold

    def check_settled(self, life: Life) -> None:
        """A settled life holds no row, is no owner, and has no ledger."""
        assert self.query("SELECT count(*) FROM jobs WHERE state = 'running'") == [(0,)]
        assert self.query("SELECT count(*) FROM owners") == [(0,)]
        # A file that never got its header is no ledger yet, and is taken away later.
        assert read_ledger_of(self.stage.state.ledgers, life.owner) is None

    def check_charge(self, pid: int) -> None:
        """Right after the settling: the job that ran paid, nobody else."""
        charged = self.query(
            "SELECT job, attempt FROM attempts WHERE outcome = 'crash' AND job >= ?", self.first
        )
        mine = [line for line in self.lines() if line[3] == pid]
        word, *last = mine[-1][:3] if mine else ("", 0, 0)
        if word == "start":
            assert charged == [tuple(last)], (charged, mine)
            return
        # Between two jobs: at most the one whose record was not yet written, or the next one, that
        # was current already and had not begun. (A snooze gives its attempt back, so its next run
        # has the same number.)
        assert len(charged) <= 1, charged
        done = {
            (job, attempt)
            for word, job, attempt, _ in mine
            if word == "end" or (word == "first" and self.kinds[job] != "snoozes")
        }
        assert not set(charged) & (done - {tuple(last)}), (charged, mine)

    def check_end(self, victim: int | None) -> None:
        """After others have finished: every job once, and each attempt accounted for."""
        lines = self.lines()
        of_victim = [line for line in lines if line[3] == victim]
        word, last = of_victim[-1][:2] if of_victim else ("", 0)
        starts = Counter(line[1] for line in lines if line[0] == "start")
        states = dict(self.query("SELECT id, state FROM jobs WHERE id >= ?", self.first))
        for job, kind in self.kinds.items():
            assert states[job] == ("failed" if kind == "fails" else "succeeded"), (job, kind)
            extra = starts[job] - RUNS[kind]
            # Only the victim's last job may have run once more: it must where it was cut off.
            allowed = {0}
            if job == last and kind != "dies":
                allowed = {1} if word == "start" else {0, 1}
            assert extra in allowed, f"{kind} {job} ran {extra} times too often: {lines}"
            used = self.query("SELECT attempt FROM jobs WHERE id = ?", job)[0][0]
            assert starts[job] <= used + (kind == "snoozes"), f"{kind} {job} ran and did not pay"
        wrong = self.query(
            "SELECT jobs.id, state, jobs.attempt, count(attempts.id) FROM jobs"
            " LEFT JOIN attempts ON job = jobs.id WHERE jobs.id >= ?"
            " GROUP BY jobs.id, state, jobs.attempt HAVING jobs.attempt <> count(attempts.id)"
            " + CASE state WHEN 'succeeded' THEN 1 ELSE 0 END",
            self.first,
        )
        assert wrong == [], wrong
        assert self.query("SELECT sum(losses) FROM jobs") == [(0,)]


# -- the plays: each disturbs one round, and says whether it never came to that line


def worker(round_: Round, at: int) -> bool:
    """A worker dies at the line."""
    stage = round_.stage
    life = stage.worker(Disturbance(at, WORKER_FILES + STORE, signal.SIGKILL))
    status = stage.wait(life, round_.all_finished)
    assert status in (0, -signal.SIGKILL), status
    round_.settle(life, status)
    round_.check_charge(life.pid)
    round_.finish()
    round_.check_end(life.pid if status else None)
    return status == 0


def caretaker(round_: Round, at: int) -> bool:
    """A worker dies in the middle of its batch, and the caretaker that settles it at the line."""
    life = round_.stage.worker()
    status = round_.stage.wait(life)
    assert status == -signal.SIGKILL, status
    disturbance = Disturbance(at, CARETAKER_FILES + STORE, signal.SIGKILL)
    undisturbed = round_.settle(life, status, disturbance)
    round_.check_charge(life.pid)
    round_.finish()
    round_.check_end(life.pid)
    return undisturbed


def recall(round_: Round, at: int) -> bool:
    """A worker stops at the line; its claim is recalled and run by another; then it goes on."""
    stage = round_.stage
    # Not within the store: there it would hold the database.
    life = stage.worker(Disturbance(at, WORKER_FILES, signal.SIGSTOP))
    eventually(lambda: is_stopped(life) or round_.all_finished(), what="the line or the end")
    disturbed = is_stopped(life)
    if disturbed:
        assert stage.wait(stage.recaller()) == 0
        if round_.query("SELECT id FROM jobs WHERE state = 'pending'"):
            other = stage.worker(slot=2)
            eventually(lambda: _rests(round_, other), what="the other worker has done its part")
            os.kill(other.pid, signal.SIGTERM)
            assert stage.wait(other) == 0
        os.kill(life.pid, signal.SIGCONT)
    assert stage.wait(life, round_.all_finished) == 0
    round_.check_settled(life)
    round_.check_end(None)
    assert not round_.query(
        "SELECT job FROM attempts WHERE outcome = 'crash' AND job >= ?", round_.first
    )
    return not disturbed


def _rests(round_: Round, life: Life) -> bool:
    told = round_.query(
        "SELECT count(*) FROM jobs WHERE state = 'pending' OR state = 'running' AND owner = ?",
        life.owner,
    )
    return told == [(0,)]


def orphans(round_: Round, at: int) -> bool:
    """A caretaker without a parent stops at the line; its worker goes on and dies; it goes on."""
    stage = round_.stage
    life = stage.worker()
    eventually(lambda: len(round_.lines()) == 3, what="the job at the gate has begun")
    caretaker = stage.orphan(Disturbance(at, CARETAKER_FILES, signal.SIGSTOP))
    eventually(lambda: is_stopped(caretaker), what="the line")
    if stage.is_locked():
        # Stopped within its transaction it keeps its worker from a turn: nothing to see here.
        os.kill(caretaker.pid, signal.SIGCONT)
    round_.gate.touch()
    assert stage.wait(life) == -signal.SIGKILL
    os.kill(caretaker.pid, signal.SIGCONT)
    assert stage.wait(caretaker) == 0
    stage.begin_anew()
    round_.check_settled(life)
    round_.check_charge(life.pid)
    round_.finish()
    round_.check_end(life.pid)
    return False


MIXED = ("succeeds", "snoozes", "fails", "retries", "large", "succeeds")
PLAYS: dict[str, tuple[Callable[[Round, int], bool], tuple[str, ...]]] = {
    "worker": (worker, MIXED),
    "caretaker": (caretaker, ("succeeds", "snoozes", "fails", "retries", "dies", "succeeds")),
    "recall": (recall, MIXED),
    "orphans": (orphans, ("succeeds", "gated", "dies", "succeeds")),
}


def main(play: str, first: int, stride: int, last: int) -> None:
    """Raise the line until a run is not disturbed, or to the last one."""
    stage = Stage(Config.load("config.toml"))
    client = Client(stage.config.database.url)
    disturb, kinds = PLAYS[play]
    lines = range(first, last + 1, stride)
    for number, at in enumerate(lines):
        if disturb(Round(stage, client, kinds), at):
            print(f"{number} disturbances, none from line {at}")
            return
    print(f"{len(lines)} disturbances to line {last}")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
