"""A worker with several lanes, put together; imported by such alone, since asyncio takes its memory."""

from __future__ import annotations

import sys
from types import FrameType

from jobvisor.jobs.execution import Execution
from jobvisor.jobs.registry import registry
from jobvisor.jobs.running import running
from jobvisor.supervisor.autopsy.autopsy import Work
from jobvisor.supervisor.autopsy.frames import lane_of
from jobvisor.supervisor.autopsy.saying import KEPT, Speaker
from jobvisor.supervisor.board import (
    BLOCKS_LOOP,
    IN_THREAD,
    LANE_COUNT,
    LOOP_BEAT,
    ON_LOOP,
    ROLE,
    RUN,
    STOP,
)
from jobvisor.supervisor.role import Role
from jobvisor.supervisor.roster import QUARANTINE
from jobvisor.supervisor.running.absence import Absence
from jobvisor.supervisor.running.company import Company
from jobvisor.supervisor.running.fitness import Fitness
from jobvisor.supervisor.running.inspection import Inspection
from jobvisor.supervisor.running.lane import Lane
from jobvisor.supervisor.running.parts import Parts
from jobvisor.supervisor.running.telling import Telling
from jobvisor.supervisor.several.backlog import Backlog
from jobvisor.supervisor.several.bell import Bell
from jobvisor.supervisor.several.calls import Calls
from jobvisor.supervisor.several.conductor import Conductor
from jobvisor.supervisor.several.coroutines import Coroutines
from jobvisor.supervisor.several.lane import LaneOfSeveral
from jobvisor.supervisor.several.lanes import Lanes
from jobvisor.supervisor.several.outcomes import Outcomes
from jobvisor.supervisor.several.rounds import Rounds
from jobvisor.supervisor.several.seeking import Seeking
from jobvisor.supervisor.several.shared import Shared
from jobvisor.supervisor.several.turns import TurnsOfSeveral

SWITCH_SECONDS = (
    0.0005  # a conductor that waits for the interpreter behind 16 computing threads waits for 16
)


class Several:
    """The lanes of one worker and their conductor."""

    def __init__(self, role: Role, parts: Parts, execution: Execution, telling: Telling) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        self._role = role
        note = parts.successes.note
        self._recorded = note if role.tally is None else role.tally.noting(note)
        store, clean = parts.store, parts.clean
        config = role.seat.config
        self._keeps = KEPT[config.log.keep]
        pool = config.workers[role.seat.pool]
        bell, backlog = Bell(), Backlog()
        clean.accept_new(bell.descriptors())
        role.hear(bell.fileno())
        shared = Shared(
            Lanes(role.slot[LANE_COUNT], self._lane, registry=registry, backlog=backlog, bell=bell),
            backlog,
            Outcomes(bell),
            bell,
            execution,
            self._fail,
        )
        coroutines = Coroutines(
            shared,
            clock=role.clock,
            grace_ms=config.family.cancel_grace_ms,
            beat=self._note_beat,
        )
        self._coroutines = coroutines
        calls = Calls(shared, coroutines)
        shared.lanes.to_loop, shared.lanes.to_thread = coroutines.give, calls.threads.give
        inspection = Inspection(clean, role.board, parts.database if store.one_machine else "")
        self.fitness = Fitness(role, shared.lanes, clean, inspection, pool.max_memory)
        absence = Absence(role, store, parts.database, self.fitness)
        company = Company(role.slot[LANE_COUNT], quarantine=role.slot[ROLE] == QUARANTINE.number)
        turns = TurnsOfSeveral(
            role, store, parts.events, shared, clean, company=company,
            fitness=self.fitness, absence=absence, successes=parts.successes,
        )  # fmt: skip
        rounds = Rounds(
            role, shared, calls=calls, coroutines=coroutines, events=parts.events,
            client=None if store.one_machine else parts.client, fitness=self.fitness,
            telling=telling,
        )  # fmt: skip
        seeking = Seeking(
            store, parts.waker, role.clock, queues=pool.queues,
            poll_ms=config.database.poll_ms, owner=role.seat.owner,
        )  # fmt: skip
        store.on_wait = self._note_wait
        self._absence, self._rounds, self._shared = absence, rounds, shared
        self.attend = coroutines.attend
        """Runs a coroutine of no job on the loop, for who waits for it."""
        self.conductor = Conductor(
            role, store, shared, turns=turns, seeking=seeking, rounds=rounds, company=company,
            fitness=self.fitness, absence=absence,
        )  # fmt: skip

    def works(self, frame: FrameType | None) -> list[Work]:
        """What runs and where; called in a handler of a signal, in the conductor's thread."""
        frames = {
            lane_of(each): each
            for each in sys._current_frames().values()  # noqa: SLF001 -- documented so
        }
        blocker = self._coroutines.blocker()  # after that look
        found: list[Work] = []
        for run in self._role.slot.running():
            thread, tasks = frames.get(run.lane), self._coroutines.tasks(run.lane)
            place = ON_LOOP if tasks else IN_THREAD
            if thread is not None and run.lane == blocker:
                place = BLOCKS_LOOP
            found.append(Work(run.lane, run.job, run.claim, thread, tasks, place))
        return found or [Work(0, 0, 0, frame)]

    @staticmethod
    def speaker() -> Speaker | None:
        """Whose the words are that are said here; None outside of a job, and when it has ended."""
        found = running.get()
        lane = None if found is None else found[3]
        if found is None or not isinstance(lane, Lane) or lane.current is not found[0]:
            return None
        return lane.speaker()

    def _lane(self, number: int) -> LaneOfSeveral:
        role = self._role
        return LaneOfSeveral(
            number,
            role.board,
            role.slot,
            role.clock,
            leaving=self._is_closed,
            stopping=self._is_stopping,
            recorded=self._recorded,
            keeps=self._keeps,
        )

    def _note_wait(self) -> None:
        """Somebody else writes, or a server takes its time."""
        self._rounds.go_if_due(self._role.clock.monotonic_ns())
        if self._shared.lanes.busy > len(self._shared.outcomes):
            self._role.beat()  # a task that runs may hold the database, and end that
        else:
            self._absence.note_lock()

    def _is_closed(self) -> bool:
        return self.conductor.closed

    def _is_stopping(self) -> bool:
        return self._role.board[STOP] != RUN or (self.conductor.closed and self._role.ends_soon())

    def _note_beat(self, now: int) -> None:
        self._role.slot[LOOP_BEAT] = now

    def _fail(self, error: BaseException) -> None:
        self.conductor.fail(error)
