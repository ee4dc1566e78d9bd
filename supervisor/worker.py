"""The worker: what one process that runs jobs is made of, and whether it turns, runs jobs or rests.

The store's transactions are in turns.py, the jobs of a claim in batch.py and lane.py, the rest in resting.py.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING

from jobvisor.jobs.client import Client, use_client
from jobvisor.jobs.context import Nobody
from jobvisor.jobs.errors import StoreError
from jobvisor.jobs.events import Events
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.hooks import ON_STOP
from jobvisor.jobs.log import descriptors as log_descriptors
from jobvisor.jobs.log import is_logged, log_event
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.registry import registry
from jobvisor.jobs.store.base import Store, Waker
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.application import application_settings, prepare_application
from jobvisor.supervisor.autopsy.autopsy import Work
from jobvisor.supervisor.autopsy.saying import KEPT, Saying
from jobvisor.supervisor.batch import Batch
from jobvisor.supervisor.board import (
    BEAT,
    CURRENT,
    CURRENT_CLAIM,
    GOING,
    IDLE,
    LANE_COUNT,
    LEAVING_CODES,
    RUN,
    STATE,
    STOP,
    TURN,
    WAITING_STATE,
)
from jobvisor.supervisor.deaths.remains import MARK
from jobvisor.supervisor.hook_calls import Attend, Patience, start, stop
from jobvisor.supervisor.ledger.ledger import Entry
from jobvisor.supervisor.resting import Resting
from jobvisor.supervisor.role import Role, Seat
from jobvisor.supervisor.running.absence import RETRY_FIRST, Absence
from jobvisor.supervisor.running.cleanliness import Cleanliness
from jobvisor.supervisor.running.declaring import ByClient, ByStore, Declaring, Register
from jobvisor.supervisor.running.fitness import Fitness
from jobvisor.supervisor.running.inspection import Inspection
from jobvisor.supervisor.running.lane import Lane
from jobvisor.supervisor.running.opened import Opened, opened_for
from jobvisor.supervisor.running.pace import Pace
from jobvisor.supervisor.running.parts import Parts
from jobvisor.supervisor.running.successes import Successes
from jobvisor.supervisor.running.telling import OwnShelf, Shelf, Telling
from jobvisor.supervisor.running.turns import Turns

if TYPE_CHECKING:
    from jobvisor.supervisor.several.conductor import Conductor

# Between two looks for a lease: half a second of short ones, then as for a database that is away.
LEASE_SOON, LEASE_SOON_TRIES = 0.005, 100


class Worker(Role):
    """One process that runs jobs."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat)
        self._pool = seat.config.workers[seat.pool]
        self._config = seat.config
        self._database = os.path.realpath(parse_url(seat.config.database.url).path)
        self._pace = Pace(self._pool.batch_max)
        self._lease_awaited = 0  # looks in a row that found no lease
        self._conductor: Conductor | None = None

    # -- boot

    def boot(self) -> None:
        """Have the user's tasks and take a place; the database may come later."""
        tasks = self._config.tasks
        if isinstance(sys.stdout, io.TextIOWrapper):
            # What a task prints is seen when it prints it, and not lost with a killed worker.
            sys.stdout.reconfigure(line_buffering=True)
        # By which what a task starts is known as this life's.
        os.environ[MARK] = str(self.seat.owner)
        self.begin_to_count(registry.get)
        events = Events(waits=True)
        events.subscribe(log_event, hears=is_logged)
        self._opened = opened = opened_for(self, events)
        store = opened.store
        self.signals.forget_in_copies()
        application = self.seat.application or prepare_application(self._config)
        client = Client(settings=application_settings(self._config))
        use_client(client)
        waker = store.waker()
        clean = Cleanliness(self._own_descriptors(waker, opened), shared=self.slot[LANE_COUNT] > 1)
        # Successes are the many: their line costs nothing where nobody reads it.
        successes = Successes(events, clean, verbose=self._config.log.level == "debug")
        parts = Parts(store, waker, events, client, clean, successes, self._database)
        store.on_migrate = self.beat
        execution = partial(
            Execution,
            registry,
            clock=self.clock,
            worker=self.seat.name,
            defer_unknown=tasks.unknown == "defer",
            payload=Payload(application.codec),
            home=client.home,
        )
        self._store = store
        self._declaring = self._to_declare(parts)
        self._attend: Callable[[], Attend]
        if self.slot[LANE_COUNT] > 1:
            self._execution = execution(port=Nobody())
            self._boot_several(parts, application.saying)
        else:
            self._boot_one(parts, execution, application.saying)
        start(registry.hooks, self._execution.context, self._attend)
        clean.begin()  # what the application has made of its process is no stain
        opened.when_gone(self._leave_without_clerk)
        self.slot[STATE] = WAITING_STATE

    def _boot_one(self, parts: Parts, execution: Callable[..., Execution], saying: Saying) -> None:
        store, events, clean = parts.store, parts.events, parts.clean
        lane = Lane(
            self.board,
            self.slot,
            self.clock,
            leaving=self._leaves_here,
            stopping=self._is_stopping,
            recorded=parts.successes.note,
            commit=self._commit,
            keeps=KEPT[self._config.log.keep],
        )
        saying.hear(lane.speaker)
        lane.execution = self._execution = execution(port=lane)
        self._attend = lambda: lane.execution.loop.attend
        self.stacks.running = self._running
        path = self._database if store.one_machine else ""
        inspection = Inspection(clean, self.board, path)
        self._fitness = Fitness(self, lane, clean, inspection, self._pool.max_memory)
        absence = Absence(self, store, self._database, self._fitness)
        store.on_wait = absence.note_lock
        self._turns = Turns(
            self,
            store,
            events,
            lane,
            clean,
            fitness=self._fitness,
            absence=absence,
            successes=parts.successes,
        )
        self._batch = Batch(
            self,
            store,
            events,
            lane,
            clean,
            pace=self._pace,
            fitness=self._fitness,
            turns=self._turns,
        )
        self._resting = Resting(
            self,
            store,
            parts.waker,
            events,
            parts.client,
            pace=self._pace,
            fitness=self._fitness,
            turns=self._turns,
            batch=self._batch,
            telling=self._telling(OwnShelf(store) if isinstance(store, Store) else parts.client),
            declare=self._declare,
        )

    def _to_declare(self, parts: Parts) -> Declaring | None:
        """What the code says of schedules, where nobody has told it of this generation; seldom anything."""

        def register() -> Register:
            if isinstance(parts.store, Store) and self.slot[LANE_COUNT] <= 1:
                return ByStore(parts.store)
            return ByClient(parts.client.another())

        found = Declaring(registry, self.board, self.seat, register, self.clock)
        return found if found.is_of_use else None

    def _telling(self, shelf: Shelf) -> Telling:
        return Telling(registry, shelf, self.clock, self._is_first_at_rest)

    def _is_first_at_rest(self) -> bool:
        """Whether no worker in a slot before this one rests."""
        resting = (each.index for each in self.board.workers() if each[STATE] == IDLE)
        return min(resting, default=0) == self.slot.index

    def _boot_several(self, parts: Parts, saying: Saying) -> None:
        from jobvisor.supervisor.several.worker import Several  # noqa: PLC0415 -- see import_for_lanes

        # It tells in a thread, and closes what it has told with: jobs have the other one.
        telling = self._telling(parts.client.another())
        several = Several(self, parts, self._execution, telling)
        self._attend = lambda: several.attend
        self._conductor, self._fitness = several.conductor, several.fitness
        self._opened.while_waiting(several.conductor.meanwhile)
        self.stacks.running = several.works
        saying.hear(several.speaker)

    def _leave_without_clerk(self, cause: str) -> None:
        if self._conductor is not None:
            self._conductor.cut = True
        self._fitness.leave("clerk_gone", cause=cause)
        self.slot[GOING] = LEAVING_CODES["clerk"]  # also where it was leaving for another reason

    def _own_descriptors(self, waker: Waker, opened: Opened) -> list[int]:
        ours = [
            self.seat.lifeline,
            self.seat.parent_poke,
            self.seat.caretaker_poke,
            self.stacks.descriptor,
        ]
        ours += [*self.signals.descriptors(), *log_descriptors()]
        ours += [clerk.fileno() for clerk in opened.clerks]
        wakes = waker.fileno()
        return ours if wakes is None else [*ours, wakes]

    def _commit(self, entry: Entry) -> None:
        self._turns.commit(entry)

    def _running(self, frame: FrameType | None) -> list[Work]:
        """Called in a signal handler."""
        words = self.slot.lane(0)
        job = words[CURRENT]
        claim = words[CURRENT_CLAIM] if job else 0
        return [Work(0, job, claim, frame, self._execution.tasks)]

    # -- the loop

    def run(self) -> int:
        """The whole life; its exit code."""
        try:
            return super().run()
        except Exception:
            if self._conductor is not None:
                # A task may close files of ours at any moment, also those that are polled.
                self._fitness.check_descriptors()
            raise

    def _heard(self, events: list[tuple[int, int]]) -> None:
        if events and self._conductor is not None:
            self._fitness.check_descriptors()  # or it may be a user's file that was heard
        super()._heard(events)

    def leaving(self) -> bool:
        """Stop, a signal, a dead parent, or a reason of its own."""
        return self._fitness.reason is not None or self._asked_to_leave()

    def _leaves_here(self) -> bool:
        return self.lifeline_cut or self.told_to_leave()

    def _is_stopping(self) -> bool:
        self.glance()
        return self._asked_to_leave() and self.ends_soon()

    def _asked_to_leave(self) -> bool:
        return self.board[STOP] != RUN or self.lifeline_cut or self.told_to_leave()

    def beat(self) -> None:
        """Show that this process moves, and the turn that it is in."""
        super().beat()
        if self.slot[TURN]:
            self.slot[TURN] = self.slot[BEAT]

    def step(self) -> float:
        """A turn and the jobs it claimed; or, with nothing to claim, a rest until there is."""
        if self._conductor is not None:
            if self._declaring is not None and self._declaring.declare_beside():
                self._declaring = None
            self._opened.look()
            self._conductor.step()
            return 0
        if self._turns.lacks_lease():
            self._await_lease()
            return 0
        self._lease_awaited = 0
        self._declare()
        self._fitness.trust_descriptors()
        try:
            most = self._pool.batch_max
            wanted = most if self._resting.is_hindered else self._pace.batch
            jobs = self._turns.take(self._turns.reach.wish(wanted, most), batch=self._pace.batch)
        except StoreError as error:
            self._turns.wait_for_database(error)
            return 0
        if not jobs:
            if self._turns.reach.is_held_up:
                self._resting.wait_for_key()
            elif not self._turns.reach.goes_on:  # else others may stand behind what was parked
                self._resting.rest()
            return 0
        self._resting.in_vain = 0
        self._batch.run(jobs)
        return 0

    def _declare(self) -> None:
        if self._declaring is not None and self._declaring.declare_if_new():
            self._declaring = None

    def _await_lease(self) -> None:
        """Until the caretaker's heartbeat: the first one is a moment away, so connect meanwhile."""
        if not self._turns.registered:
            try:
                self._store.open()
            except StoreError as error:
                self._turns.wait_for_database(error)
                return
        self._lease_awaited += 1
        self.pause(LEASE_SOON if self._lease_awaited <= LEASE_SOON_TRIES else RETRY_FIRST)

    def shut_down(self) -> None:
        """Settle, release the rest, retire the ledger; what cannot be settled stays in its file."""
        if self._conductor is not None:
            self._conductor.end()
        else:
            self._turns.end()
        if registry.hooks.of(ON_STOP) or self._execution.has_loop:
            with Patience(self._config.family.stop_timeout_ms):
                stop(registry.hooks, self._execution.context, self._attend)
                self._execution.close()
