"""Hours of trouble at random, with a history that is checked: `pytest -m soak tests/system/test_soak.py`.

JOBVISOR_TEST_SOAK_SECONDS says how long (ten minutes unless it does), JOBVISOR_TEST_SEED which troubles.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.clock import SYSTEM
from tests.postgres import shared
from tests.system.harness import Build, House
from tests.system.history import (
    FILE,
    check_nothing_left,
    left_in,
    marking,
    marks,
    never_overlapped,
)
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.soak, pytest.mark.stores("sqlite", "postgres")]

SECONDS = int(os.environ.get("JOBVISOR_TEST_SOAK_SECONDS", "600"))
SEED = int(os.environ.get("JOBVISOR_TEST_SEED", random.randrange(2**32)))
GROWTH_MAX = 8_000  # kB that a parent may be larger in the end
ROUND = 300  # jobs

TASKS = marking("""
    @task(retry=Fixed(0), retries=50)
    def short(ctx: Context):
        mark("start", ctx)
        time.sleep(0.003)  # task body
        mark("end", ctx)

    @task(retry=Fixed(0), retries=50)
    def stumbles(ctx: Context):
        mark("start", ctx)
        if ctx.attempt == 1:
            mark("over", ctx)
            raise Retry(after=0)
        mark("end", ctx)

    @task(retry=Fixed(0), retries=50)
    def snoozes(ctx: Context):
        mark("start", ctx)
        if ctx.job % 2 and not os.path.exists(f"snoozed-{ctx.job}"):
            open(f"snoozed-{ctx.job}", "w").close()
            mark("over", ctx)
            raise Snooze("100ms")
        mark("end", ctx)
    """)
POOL = {"processes": "2-5", "scale_latency": "100ms", "scale_idle": "500ms"}
NAMES = ("short", "short", "short", "stumbles", "snoozes")


class Soak:
    """A family in trouble, and who was killed so far."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.chance = random.Random(SEED)
        self.family = house.start()
        self.killed: set[int] = set()
        self.jobs: set[int] = set()
        self.troubles: Counter[str] = Counter()

    def round(self) -> None:
        """Jobs, trouble while they run, and their end."""
        calls = [self.house.client.call(f"app:{self.chance.choice(NAMES)}") for _ in range(ROUND)]
        ids = self.house.client.enqueue_many(calls)
        self.jobs.update(ids)
        for _ in range(self.chance.randrange(1, 4)):
            self._wait_busy(ids)
            trouble = self.chance.choice(TROUBLES)
            self.troubles[trouble.__name__] += 1
            trouble(self)
        self.house.wait_finished(ids, limit=120)

    def worker(self) -> None:
        """One worker dies."""
        self._kill(self.chance.choice(self.house.workers() or [0]))

    def caretaker(self) -> None:
        """The caretaker dies."""
        self._kill(self.house.caretaker())

    def both(self) -> None:
        """A worker dies, and the caretaker that would settle it."""
        self.worker()
        self.caretaker()

    def everybody(self) -> None:
        """The whole family dies, and the next one starts."""
        self.killed.update(self.house.children(self.family.pid))
        self.house.kill_family(self.family)
        self.family = self.house.start()

    def again(self) -> None:
        """Stopped and started."""
        assert self.house.stop(self.family) == 0
        self.family = self.house.start()

    def reload(self) -> None:
        """Every child is replaced."""
        self.family.send_signal(signal.SIGHUP)

    def scale(self) -> None:
        """There are to be more workers at the least, or fewer."""
        self.family.send_signal(self.chance.choice([signal.SIGTTIN, signal.SIGTTOU]))

    def asleep(self) -> None:
        """The machine is suspended for a moment."""
        pids = [self.family.pid, *self.house.children(self.family.pid)]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def backends(self) -> None:
        """On PostgreSQL every connection breaks."""
        if self.house.database:
            name = self.house.database.rsplit("/", 1)[1]
            for pid in shared().backends(name):
                with suppress(ProcessLookupError):
                    shared().kill_backend(pid)

    def _wait_busy(self, ids: list[int]) -> None:
        """Until some more runs have begun, or the round is over."""
        runs = len(self.house.lines(FILE)) + 10
        is_over = f"SELECT count(*) FROM jobs WHERE finished_at IS NULL AND id >= {ids[0]}"
        eventually(
            lambda: len(self.house.lines(FILE)) >= runs or self.house.query(is_over) == [(0,)],
            what="jobs run",
        )

    def _kill(self, pid: int) -> None:
        if pid:
            self.killed.add(pid)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # -- what must be true in the end

    def check(self) -> None:
        """Nothing lost, nothing beside, and nothing twice but for those who were killed in it."""
        rows = dict(self.house.query("SELECT state, count(*) FROM jobs GROUP BY state"))
        assert rows == {"succeeded": len(self.jobs)}
        found = marks(self.house)
        never_overlapped(found, lambda mark: mark.pid in self.killed)
        ends = Counter(mark.job for mark in found if mark.word == "end")
        assert set(ends) == self.jobs
        # Killed between the last line of a task and its record: that job, and no other, runs again.
        last = [left_in(found, pid) for pid in self.killed]
        excused = Counter(mark.job for mark in last if mark is not None and mark.word == "end")
        repeated = {job: count - 1 for job, count in ends.items() if count > 1}
        assert not [job for job, count in repeated.items() if count > excused[job]], repeated
        assert not self.house.said("unexpected error")
        check_nothing_left(self.house)


TROUBLES: list[Callable[[Soak], Any]] = [
    Soak.worker, Soak.worker, Soak.caretaker, Soak.both, Soak.everybody, Soak.again, Soak.reload,
    Soak.scale, Soak.asleep, Soak.backends,
]  # fmt: skip


@pytest.mark.timeout(SECONDS + 600)
def test_hours_of_trouble_lose_nothing_repeat_nothing_and_leave_nothing(build: Build) -> None:
    print(f"JOBVISOR_TEST_SEED={SEED}")
    soak = Soak(build(TASKS, **POOL, config={"log": {"level": "info"}}))
    ends = SYSTEM.monotonic_ns() + SECONDS * 10**9
    sizes: list[tuple[subprocess.Popen[bytes], int, int]] = []
    while SYSTEM.monotonic_ns() < ends:
        soak.round()
        sizes.append((soak.family, *size_of(soak.family.pid)))
    for first, last in itertools.pairwise(sizes):
        if first[0] is last[0]:  # the same parent as a round ago
            assert last[1] == first[1], "it has more descriptors open"
            assert last[2] - first[2] < GROWTH_MAX, "it has grown"
    assert soak.house.stop(soak.family) == 0
    print(f"{len(soak.jobs)} jobs, {dict(soak.troubles)}")
    soak.check()
    names = os.listdir(soak.house.state_dir / "ledger")
    assert [name for name in names if not name.startswith("spare-")] == []
    assert len(names) < 100


def size_of(pid: int) -> tuple[int, int]:
    """Open descriptors and kB of memory of its own."""
    status = Path(f"/proc/{pid}/status").read_text()
    resident = int(status.split("RssAnon:")[1].split()[0])
    return len(os.listdir(f"/proc/{pid}/fd")), resident
