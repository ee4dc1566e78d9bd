"""The turns of a worker with several lanes, while jobs run: several claims of it live at once."""

from __future__ import annotations

from typing import cast

from jobvisor.jobs.events import Events, event_of
from jobvisor.jobs.store import Record, Turn
from jobvisor.jobs.store.base import WorkerStore
from jobvisor.supervisor.board import CLAIM, REACHED
from jobvisor.supervisor.deaths.settle import tell
from jobvisor.supervisor.ledger.halves import HalvedLedger
from jobvisor.supervisor.ledger.ledger import Header, Ledger
from jobvisor.supervisor.role import Role
from jobvisor.supervisor.running.absence import Absence
from jobvisor.supervisor.running.cleanliness import Cleanliness
from jobvisor.supervisor.running.company import Company
from jobvisor.supervisor.running.fitness import Fitness
from jobvisor.supervisor.running.lane import Lane
from jobvisor.supervisor.running.successes import Successes
from jobvisor.supervisor.running.turns import Turns
from jobvisor.supervisor.several.backlog import Backlog, Claim
from jobvisor.supervisor.several.lanes import Lanes
from jobvisor.supervisor.several.shared import Shared
from jobvisor.supervisor.signals import poke


def held_by(lanes: Lanes, backlog: Backlog) -> int:
    """How many jobs run, or have been claimed and wait for a lane."""
    return lanes.busy + len(backlog.waiting)


class TurnsOfSeveral(Turns):
    """One worker, its ledger of two halves and the database."""

    def __init__(
        self,
        role: Role,
        store: WorkerStore,
        events: Events,
        shared: Shared,
        clean: Cleanliness,
        *,
        company: Company,
        fitness: Fitness,
        absence: Absence,
        successes: Successes,
    ) -> None:
        super().__init__(
            role, store, events, cast("Lane", shared.lanes), clean,
            fitness=fitness, absence=absence, successes=successes,
        )  # fmt: skip
        self._backlog = shared.backlog
        self._outcomes = shared.outcomes
        self._lanes = shared.lanes
        self._company = company
        self.ledger: HalvedLedger | None = None
        self._alone_since = 0
        self.settled = 0
        """How many outcomes all turns have brought to the database."""

    @property
    def oldest_ns(self) -> int:
        """When the first outcome was recorded that is not settled, by CLOCK_BOOTTIME; 0 for none."""
        return self.ledger.oldest_ns if self.ledger is not None else 0

    def turn(self, limit: int, *, batch: int | None = None, woken: bool = False) -> int:
        """Settle what is recorded, release what is not ours to run, and claim at most so many jobs.

        `batch`: so many it would be, if none had to wait.
        """
        if self._absence.failures or not self.registered:
            self._store.open()  # in no transaction, so nobody judges how long it takes
        with self._in_turn():
            turn, records = self._turn(limit, batch, woken=woken)
        self._tell_turn(turn, records)
        return len(turn.jobs)

    def _turn(self, limit: int, batch: int | None, *, woken: bool) -> tuple[Turn, list[Record]]:
        if self.ledger is None:
            self._open_ledger()
        if self.ledger is None:
            # Exactness needs no file where every outcome is its own transaction.
            limit = 0 if self._lanes.busy else min(limit, 1)
        self._count()
        self._claim = number = self._claim + 1  # used once, whether or not its COMMIT was answered
        asked_ns = self._clock.monotonic_ns()
        rest = self._backlog.rest()
        whom = self._company.ask(held_by(self._lanes, self._backlog))
        if limit:
            self._backlog.asked(number)
        journal = self.ledger.journal() if self.ledger is not None else None
        kept = self._kept()
        records = [*(journal.records if journal is not None else ()), *kept]
        turn = self._store.turn(
            self._role.life,
            number,
            queues=self._queues,
            limit=limit,
            journal=records,
            rest=rest,
            register=not self.registered,
            forget_succeeded=self._forget,
            woken=woken,
            whom=whom,
            lanes=self._lanes.count,
            batch=batch,
        )
        self._entered()
        self.reach.turned(turn)
        if self.ledger is not None and journal is not None:
            self.ledger.settled(journal)
            self.ledger.claimed(number)
        self._slot[CLAIM] = number
        self.settled += len(records)
        self._backlog.released(rest)
        self._backlog.settled(records)
        self._outcomes.settled(len(kept))
        self._fitness.inspection.begun([job.task for job in turn.jobs])
        claim = Claim(number, asked_ns, turn.jobs)
        misfits = {job.id for job in self._company.misfits(turn.jobs)}
        fitting = [job for job in turn.jobs if job.id not in misfits] if misfits else turn.jobs
        self._backlog.add(claim, self._lanes.waiting(fitting, claim))
        for job in turn.jobs if misfits else ():
            if job.id in misfits:
                self._backlog.withdrew(job, claim)
        return turn, records

    def _count(self) -> None:
        if self._tally is not None:
            self._tally.count_noted(self._claim)

    def _kept(self) -> list[Record]:
        """Outcomes that are in no ledger."""
        now = self._clock.boottime_ns()
        return [entry.record(self._seat.owner, now) for entry in self._outcomes.entries()]

    def _entered(self) -> None:
        """The database has answered."""
        self.registered = True
        if not self._slot[REACHED]:
            self._slot[REACHED] = 1
            poke(self._seat.parent_poke)
            poke(self._seat.caretaker_poke)
        self._absence.is_over()

    def _tell_turn(self, turn: Turn, records: list[Record]) -> None:
        if self._tally is not None:
            self._tally.turned(turn.jobs, len(turn.applied.lost))
        tell(turn.applied, self._state.rejected)
        if self._events.of_all:
            self._successes.tell(records, turn.applied)
            for job in turn.jobs:
                self._events.emit(event_of("claim", job))

    def give_up(self, *, at_once: bool) -> None:
        """Jobs whose outcomes wait for the database are given back, by who leaves.

        At once, or after as long as a family that stops would try, by an orphan.
        """
        entries = self._outcomes.entries() if at_once or self._role.alone else []
        now = self._clock.monotonic_ns()
        self._alone_since = self._alone_since or now if entries else 0
        since = -(2**62) if at_once else self._alone_since
        given_up = [entry for entry in entries if self._give_up(entry, since)]
        self._outcomes.settled(len(given_up))

    def _made_ledger(self, header: Header) -> Ledger:
        return HalvedLedger(
            self._state.ledgers, header._replace(lanes=self._lanes.count), self._clock
        )
