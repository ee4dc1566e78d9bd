"""The lanes of a worker without its conductor and without a database."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.context import Nobody
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.outcome import Outcome
from jobvisor.jobs.registry import Registry
from jobvisor.supervisor.board import FOREVER, LEASE_UNTIL, Board
from jobvisor.supervisor.ledger.halves import HalvedLedger
from jobvisor.supervisor.ledger.ledger import Entry, Header
from jobvisor.supervisor.several.backlog import Backlog, Claim
from jobvisor.supervisor.several.bell import Bell
from jobvisor.supervisor.several.calls import Calls
from jobvisor.supervisor.several.coroutines import Coroutines
from jobvisor.supervisor.several.lane import LaneOfSeveral
from jobvisor.supervisor.several.lanes import Lanes
from jobvisor.supervisor.several.outcomes import Outcomes
from jobvisor.supervisor.several.shared import Shared
from tests.waiting import eventually

OWNER = 17


def job(number: int, task: str, args: str = "[]", **values: Any) -> Claimed:
    """A claimed job."""
    row = Claimed(number, f"app:{task}", args, "{}", 1, 4, 1, None, 0, 0, None, "default", 0)
    return row._replace(**values)


class Yard:
    """So many lanes, and what became of their jobs. Made in a copy of the test process: its threads stay."""

    def __init__(
        self,
        count: int,
        *tasks: Callable[..., Any],
        folder: Path | None = None,
        grace_ms: int = 10_000,
        backlog: Backlog | None = None,
    ) -> None:
        """Outcomes go into a ledger in this folder; without one they wait for `settle`."""
        self.board, self.registry = Board(), Registry()
        for task in tasks:
            self.registry.task(task, name=f"app:{task.__name__}")
        self.board[LEASE_UNTIL] = FOREVER
        self.slot = self.board.slots[1]
        self.slot.give_lanes(0, count)
        self.bell, self.backlog = Bell(), backlog or Backlog()
        self.outcomes = Outcomes(self.bell)
        self.ended: dict[int, Outcome] = {}
        self.errors: list[BaseException] = []
        self.beats: list[int] = []
        self.closed = False
        self.lanes = Lanes(
            count, self._lane, registry=self.registry, backlog=self.backlog, bell=self.bell
        )
        self.ledger: HalvedLedger | None = None
        if folder is not None:
            header = Header(OWNER, 1, 1, 1, 1, "boot", "database", "host", lanes=count)
            self.ledger = HalvedLedger(str(folder), header)
            self.lanes.use(self.ledger)
        self.execution = Execution(self.registry, clock=SYSTEM, port=Nobody(), worker="worker 1")
        self.shared = shared = Shared(
            self.lanes, self.backlog, self.outcomes, self.bell, self.execution,
            self.errors.append,
        )  # fmt: skip
        self.coroutines = Coroutines(
            shared, clock=SYSTEM, grace_ms=grace_ms, beat=self.beats.append
        )
        self.calls = Calls(shared, self.coroutines)
        self.lanes.to_loop = self.coroutines.give
        self.lanes.to_thread = self.calls.threads.give
        self._claims = 0

    def _lane(self, number: int) -> LaneOfSeveral:
        return LaneOfSeveral(
            number, self.board, self.slot, SYSTEM,
            leaving=lambda: self.closed, stopping=lambda: self.closed, recorded=self._note,
        )  # fmt: skip

    def _note(self, job: Claimed, _entry: Entry, outcome: Outcome) -> None:
        self.ended[job.id] = outcome

    def begin(self, jobs: Iterable[Claimed]) -> Claim:
        """Let these begin as lanes are free."""
        self._claims += 1
        listed = list(jobs)
        claim = Claim(self._claims, SYSTEM.monotonic_ns(), listed)
        self.backlog.add(claim, self.lanes.waiting(listed, claim))
        self.lanes.deal()
        return claim

    def settle(self) -> list[int]:
        """What a turn would do with the outcomes: the ids of the jobs."""
        journal = self.ledger.journal() if self.ledger is not None else None
        entries = self.outcomes.entries()
        records = [entry.record(OWNER, SYSTEM.boottime_ns()) for entry in entries]
        if self.ledger is not None and journal is not None:
            records += journal.records
            self.ledger.settled(journal)
        self.backlog.settled(records)
        self.outcomes.settled(len(entries))
        return [record.job for record in records]

    def run(self, jobs: Iterable[Claimed]) -> dict[int, Outcome]:
        """Run these to their ends, and settle them."""
        self.begin(jobs)

        def rests() -> bool:
            self.settle()
            if self.errors:
                raise self.errors[0]
            return not self.lanes.busy and not self.backlog.waiting

        eventually(rests, what="no lane is busy")
        self.settle()
        return self.ended


def threads_named(name: str) -> int:
    """How many threads of this process are called so."""
    return sum(1 for thread in threading.enumerate() if thread.name.startswith(name))
