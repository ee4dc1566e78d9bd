"""The worker: turn (settle, promote, claim), then run each claimed job and record its outcome.

Per turn: one transaction, then the journal is emptied, then the new claim is noted. A kill between
any two of these leaves a state from which `settle` finds out what had happened.
"""

from __future__ import annotations

import io
import os
import random
import sys
from typing import Any, NoReturn

from jobvisor.jobs.client import Client, use_client
from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.errors import EX_DESCRIPTORS, EX_LOCKED, StoreError
from jobvisor.jobs.events import Event, Events, event_of
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.log import descriptors as log_descriptors
from jobvisor.jobs.log import is_logged, log_event, say
from jobvisor.jobs.outcome import Outcome
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.registry import registry
from jobvisor.jobs.store import Applied, Record, Rest, open_store
from jobvisor.jobs.units import duration_text
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.application import application_settings, load_application
from jobvisor.supervisor.board import (
    BATCH,
    BUSY,
    CARETAKER_WATCHES,
    CLAIM,
    DEADLINE,
    IDLE,
    LACKS_LEDGER,
    LEASE_UNTIL,
    MEMORY,
    PARENT_WATCHES,
    REACHED,
    RUN,
    STARTED,
    STATE,
    STOP,
    TURN,
    WAITING_STATE,
)
from jobvisor.supervisor.cleanliness import Cleanliness, locks_database
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.inspection import Finding, Inspection
from jobvisor.supervisor.lane import Lane
from jobvisor.supervisor.ledger import Entry, Header, Ledger
from jobvisor.supervisor.memory import resident
from jobvisor.supervisor.pace import OVERRUN_NS, Pace
from jobvisor.supervisor.remains import MARK
from jobvisor.supervisor.role import Role, Seat
from jobvisor.supervisor.settle import tell
from jobvisor.supervisor.signals import poke

POLL_UNWOKEN = 0.1  # seconds between two looks where nothing can wake this worker
RETRY_FIRST, RETRY_CAP = 0.1, 5.0  # seconds between tries while the database is away
# Between two looks for a lease: half a second of short ones, then as for a database that is away.
LEASE_SOON, LEASE_SOON_TRIES = 0.005, 100
LOCKED_NS = 2 * SECOND  # no other process of ours writes for so long
LOCKED_GAP_NS = (
    SECOND // 2
)  # a wait for the lock is told every 100 ms; after a longer gap it is new
TOLD_AGAIN_NS = 30 * SECOND  # between two lines about a database that stays away
# Turns that claim nothing of what a look has found: the first are lost races, then it waits, up to a second.
IN_VAIN, IN_VAIN_TOLD = 3, 6
IN_VAIN_FIRST, IN_VAIN_CAP = 0.01, 1.0
LEDGER_AGAIN_NS = 5 * SECOND  # how often a file is tried again on a full disk


class Worker(Role):
    """One process that runs jobs."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat)
        self._pool = seat.config.workers[seat.pool]
        self._config = seat.config
        self._forget = seat.config.retention.succeeded_ms == 0
        self._state = StateDir(seat.config.family.state_dir)
        self._ledger: Ledger | None = None
        database = parse_url(seat.config.database.url)
        self._database = os.path.realpath(database.path)
        self._locked_since = self._locked_seen = 0
        self._claim = 0
        self._pace = Pace(self._pool.batch_max)
        self._in_vain = 0  # turns without a job right after a look that had found one
        self._unsure = False  # rows of ours may run that we do not hold
        self._registered = False
        self._lease_awaited = 0  # looks in a row that found no lease
        self._reason: str | None = None  # why this worker leaves by itself
        self._failures = 0
        self._successes: dict[tuple[int, int], Event] = {}  # recorded, not settled yet
        self._ledger_tried = 0
        self._told_at = 0  # when the last line about an absent database was written

    # -- boot

    def boot(self) -> None:
        """Import the user's tasks and take a place; the database may come later."""
        tasks = self._config.tasks
        if isinstance(sys.stdout, io.TextIOWrapper):
            # What a task prints is seen when it prints it, and not lost with a killed worker.
            sys.stdout.reconfigure(line_buffering=True)
        # By which what a task starts is known as this life's.
        os.environ[MARK] = str(self.seat.owner)
        codec = load_application(self._config)
        self._events = Events(waits=True)
        self._events.subscribe(log_event, hears=is_logged)
        database = self._config.database
        self._store = open_store(
            database.url,
            durable=False,
            schema=database.schema,
            prefix=database.prefix,
            notify=database.notify,
            idle=self.idle_seconds,
            application=f"jobvisor {self._config.family.name} {self.seat.name}",
            clock=self.clock,
            events=self._events,
        )
        self._store.on_wait = self._wait_for_lock
        self._store.on_migrate = self.beat
        self._client = Client(settings=application_settings(self._config))
        use_client(self._client)
        self._lane = Lane(
            self.board,
            self.slot,
            self.clock,
            leaving=self._leaves_here,
            stopping=self._is_stopping,
            recorded=self._recorded,
            commit=self._commit,
        )
        self._lane.execution = Execution(
            registry,
            clock=self.clock,
            port=self._lane,
            worker=self.seat.name,
            defer_unknown=tasks.unknown == "defer",
            payload=Payload(codec),
        )
        self._waker = self._store.waker()
        self._poll_seconds = self._config.database.poll_ms / 1000
        # Successes are the many: their line costs nothing where nobody reads it.
        self._verbose = self._config.log.level == "debug"
        ours = [
            self.seat.lifeline,
            self.seat.parent_poke,
            self.seat.caretaker_poke,
            self.seat.stacks,
        ]
        ours += [*self.signals.descriptors(), *log_descriptors()]
        waker = self._waker.fileno()
        self._clean = Cleanliness([*ours, waker] if waker is not None else ours)
        path = self._database if self._store.one_machine else ""
        self._inspection = Inspection(self._clean, self.board, path)
        self.slot[STATE] = WAITING_STATE

    def _open_ledger(self) -> None:
        """With the database's name known: a ledger belongs to one database."""
        now = self.clock.monotonic_ns()
        if now < self._ledger_tried:
            return
        self._ledger_tried = now + LEDGER_AGAIN_NS
        header = Header(
            self.seat.owner, 0, 0, 0, self.life.pid, self.life.start_ticks,
            self.life.pid_namespace, self.life.family, self.life.boot_id,
            self._store.database_id(), self.life.host,
        )  # fmt: skip
        try:
            self._ledger = self._lane.ledger = Ledger(self._state.ledgers, header, self.clock)
        except OSError as error:
            # Exactness needs no file where every job is its own transaction; speed does.
            if not self.slot[LACKS_LEDGER]:
                say("ledger_refused", path=self._state.ledgers, error=str(error))
            self.slot[LACKS_LEDGER] = 1
        else:
            self.slot[LACKS_LEDGER] = 0

    # -- the loop

    def leaving(self) -> bool:
        """Stop, a signal, a dead parent, or a reason of its own."""
        return self._reason is not None or self._asked_to_leave()

    def _leaves_here(self) -> bool:
        return self.lifeline_cut or self.told_to_leave()

    def _is_stopping(self) -> bool:
        self.glance()
        return self._asked_to_leave()

    def _asked_to_leave(self) -> bool:
        return self.board[STOP] != RUN or self.lifeline_cut or self.told_to_leave()

    def step(self) -> float:
        """A turn and the jobs it claimed; or, with nothing to claim, the time until the next look."""
        if self._leased_out():
            return self._await_lease()
        self._lease_awaited = 0
        self._trust_descriptors()
        try:
            # In vain: what cannot be claimed may stand in front of what can.
            limit = self._pace.batch if self._in_vain < IN_VAIN else self._pool.batch_max
            jobs = self._turn(limit)
        except StoreError as error:
            return self._wait_for_database(error)
        if not jobs:
            return self._rest()
        self._in_vain = 0
        self._run(jobs)
        return 0

    def _trust_descriptors(self) -> None:
        """Leave, and be settled, where a task has closed our files or put its own in their place.

        Nothing is logged here: the log's descriptor may be a user's file by now, or the database.
        The parent logs the exit code.
        """
        self._accept_rotated_log()
        if self._clean.lost_descriptor() is not None:
            self._leave_at_once(EX_DESCRIPTORS)
        self._clean.hold([])  # a connection may be made anew from here on, until a task runs again

    def _leave_at_once(self, code: int) -> NoReturn:
        """End without another word to the database; what is in the ledger is settled from there.

        A job stays current while its outcome is in no ledger: it is charged, or it would run, and do
        the same, for ever. Unless others ran since the process was last looked over: then it may be
        innocent, and the next worker looks after each run of all these tasks.
        """
        job = self._lane.current
        others_ran = self._inspection.suspect(*([] if job is None else [job.task]))
        if job is None or others_ran:
            self._lane.withdraw()
        os._exit(code)

    def _accept_rotated_log(self) -> None:
        if self.log_rotated:
            self.log_rotated = False
            self._clean.accept(log_descriptors())

    def _leased_out(self) -> bool:
        return self.board[LEASE_UNTIL] < self.clock.boottime_ns()

    def _await_lease(self) -> float:
        """Until the caretaker's heartbeat: the first one is a moment away, so connect meanwhile."""
        if not self._registered:
            try:
                self._store.open()
            except StoreError as error:
                return self._wait_for_database(error)
        self._lease_awaited += 1
        self.pause(LEASE_SOON if self._lease_awaited <= LEASE_SOON_TRIES else RETRY_FIRST)
        return 0

    def _turn(self, limit: int, *, woken: bool = False) -> list[Claimed]:
        if self._failures or not self._registered:
            self._store.open()  # in no transaction, so nobody judges how long it takes
        self.beat()  # before the state: a turn with an old beat is taken for a stuck one
        self.slot[STATE] = TURN
        if self._ledger is None:
            self._open_ledger()
        ledger = self._ledger
        if ledger is None:
            limit = min(limit, 1)
        claim = self._claim + 1
        self._claim = claim  # a number is used once, whether or not its COMMIT was answered
        self._lane.claim, self._lane.claimed_ns = claim, self.clock.monotonic_ns()
        unsure, self._unsure = self._unsure, True
        journal = ledger.journal() if ledger is not None else None
        turn = self._store.turn(
            self.life,
            claim,
            queues=self._pool.queues,
            limit=limit,
            journal=journal.records if journal is not None else (),
            rest=Rest() if unsure else None,
            register=not self._registered,
            forget_succeeded=self._forget,
            woken=woken,
        )
        self._unsure = False
        self._registered = True
        if not self.slot[REACHED]:
            self.slot[REACHED] = 1
            poke(self.seat.parent_poke)
            poke(self.seat.caretaker_poke)
        if self._failures:
            say("database_back", delay=f"{self._failures} tries")
        self._failures = 0
        if ledger is not None and journal is not None:
            ledger.settled(journal)
            ledger.claimed(claim)
        self.slot[CLAIM] = claim
        tell(turn.applied, self._state.rejected)
        if self._events.of_all:
            self._tell_successes(journal.records if journal is not None else [], turn.applied)
            for job in turn.jobs:
                self._events.emit(event_of("claim", job))
        return turn.jobs

    def _rest(self) -> float:
        """Nothing to claim: look without a lock until there is, keeping the connection.

        The order is watch, drain, look, drain, sleep: what comes before the look is seen by it, what
        comes during it is drained after it, what comes later ends the sleep.
        """
        if self._inspection.is_behind():
            self._look_over()
            if self._reason is not None:
                return 0
        if self._events.has_waiting():
            self._store.step_aside()
            self._events.tell()
        self.slot[STATE] = IDLE
        self.slot[BATCH] = 0
        self._pace.rested()
        if not self._store.one_machine:
            self._client.close()  # the connection that tasks enqueue with; a server has not many
        self._wait_in_vain()
        now = look_at = self.clock.monotonic_ns()
        # What runs in our name and is not held is asked about with the first look and each that nobody
        # woke us for; one that was woken has a job to bring to its start.
        asks = self.seat.owner
        while not self.leaving():
            self.beat()
            try:
                hint = self._waker.drain()
                if self._waker.heard:
                    if self._turn_when_woken():
                        return 0
                    hint = self._waker.drain()  # when to look once more
                if hint is not None:
                    look_at = min(look_at, now + int(hint * SECOND))
                if now >= look_at:
                    found, due_ms, owned = self._store.look(self._pool.queues, asks)
                    asks = 0
                    self._unsure = self._unsure or owned
                    if found or self._unsure:
                        self._in_vain += 1  # unless the turn that follows claims
                        break
                    self._in_vain = 0
                    wait = self._poll_seconds if due_ms is None else due_ms / 1000
                    # After the look: it may have been the one that found out who can wake it.
                    if self._waker.fileno() is None:
                        wait = min(wait, POLL_UNWOKEN)
                    now = self.clock.monotonic_ns()
                    look_at = now + int(min(self._poll_seconds, wait) * SECOND)
                    continue  # what was told during the look is drained before the sleep
            except StoreError as error:
                return self._wait_for_database(error)
            self.watch(self._waker.fileno())
            self.sleep((look_at - now) / SECOND)
            now = self.clock.monotonic_ns()
            if now >= look_at:
                asks = self.seat.owner
        return 0

    def _turn_when_woken(self) -> bool:
        """Claim without a look, and run; whether something was claimed."""
        if self._leased_out():
            return False
        self._trust_descriptors()
        jobs = self._turn(self._pace.batch, woken=True)
        if not jobs:
            self.slot[STATE] = IDLE
            return False
        self._in_vain = 0
        self._run(jobs)
        return True

    def _wait_in_vain(self) -> None:
        """Rows that can be seen and not be claimed: others were quicker, or a trigger skips the change."""
        times = self._in_vain - IN_VAIN
        if times < 0:
            return
        if times == IN_VAIN_TOLD:
            say("claims_in_vain", count=self._in_vain)
        self.pause(min(IN_VAIN_FIRST * 2 ** min(times, 20), IN_VAIN_CAP))

    def _wait_for_lock(self) -> None:
        """Somebody writes; where it is this very process, no patience helps.

        A connection that a task left in a transaction keeps everybody out until its process ends.
        What it did is in the ledger, so it ends at once and is settled.
        """
        self.beat()
        last, now = self._locked_seen, self.clock.monotonic_ns()
        self._locked_seen = now
        if now - last > LOCKED_GAP_NS:
            self._locked_since = now  # the first time in this wait
        elif (
            self._store.one_machine
            and now - self._locked_since > LOCKED_NS
            and locks_database(self._database)
        ):
            say("unsound", what="a task left the database open and locked")
            self._leave_at_once(EX_LOCKED)

    def _wait_for_database(self, error: StoreError) -> float:
        """Away, full, locked: keep the journal, say so, come back later; nobody judges this state."""
        self._unsure = True
        self.slot[STATE] = WAITING_STATE
        self._failures += 1
        now = self.clock.monotonic_ns()
        if self._failures == 1 or now - self._told_at > TOLD_AGAIN_NS:
            self._told_at = now
            say("database_lost", error=str(error))
        self.watch(None)  # what it watched is closed now, and its number may be another file's
        self._store.close()
        delay = min(RETRY_FIRST * 2 ** min(self._failures, 10), RETRY_CAP)
        self.pause(delay * random.uniform(0.5, 1.0))
        return 0

    # -- the jobs of one claim

    def _run(self, jobs: list[Claimed]) -> None:
        self._store.step_aside()
        self._events.tell()
        self._clean.hold(self._store.descriptors())
        slot = self.slot
        slot[BATCH] = len(jobs)
        slot[STATE] = BUSY
        self._wake_watchers()
        began = self.clock.monotonic_ns()
        self._pace.began(began)
        done = 0
        for job in jobs:
            if not self._start(job):
                break
            done += 1
            # No job of it need be long for a batch to keep others waiting: it was claimed for the pace
            # of those before it.
            if self._reason is not None or self._lane.ended_ns - began > OVERRUN_NS:
                break
        if done:
            now = self.clock.monotonic_ns()
            self._pace.ended(now, now - began, done)
        if done < len(jobs):
            self._unsure = True  # the rest of the claim is released by the next turn

    def _wake_watchers(self) -> None:
        # Only when they sleep: while anything is busy they look every 20 ms by themselves.
        if not self.board[PARENT_WATCHES]:
            poke(self.seat.parent_poke)
        if not self.board[CARETAKER_WATCHES]:
            poke(self.seat.caretaker_poke)

    def _start(self, job: Claimed) -> bool:
        """Run one job, or withdraw from the rest of the claim (False)."""
        ledger = self._ledger
        if ledger is not None and not ledger.has_room() and not self._settle_now():
            return False
        took = self._lane.run(job)
        if took is None:
            return False
        started = self.slot[STARTED]
        if self._pool.max_jobs and started >= self._pool.max_jobs:
            self._leave("recycled", reason=f"it has run {started} jobs")
        if self._inspection.is_due(job.task, took):
            self._look_over(job)
        return True

    def _recorded(self, job: Claimed, entry: Entry, outcome: Outcome) -> None:
        """The outcome is about to be kept: who listens hears of a success when it is settled."""
        if outcome.verb != "succeed":
            return
        if self._verbose and self._clean.still_has(log_descriptors()):
            say(
                "succeeded", job=job.id, task=job.task, attempt=job.attempt,
                attempts_max=job.attempts_max,
            )  # fmt: skip
        if self._events.of_all:
            self._successes[entry.claim, job.id] = event_of("succeed", job)

    def _commit(self, entry: Entry) -> None:
        """Settle one outcome that is in no ledger, for as long as it takes.

        A parent would kill in the end, at the stop_timeout; an orphan ends its wait by itself then.
        """
        # The function has returned: while the database is away no deadline may end what is done.
        self.slot[DEADLINE] = self.slot[MEMORY] = 0
        if self._ledger is not None:
            self._ledger.publish(entry.job, 0)
        record = entry.record(self.seat.owner, entry.moment_ns)
        alone_since = 0
        while True:
            try:
                self._settle([record])
            except StoreError as error:
                self._wait_for_database(error)
            else:
                return
            if self.alone:
                alone_since = alone_since or self.clock.monotonic_ns()
                if self._give_up(entry, alone_since):
                    return
            if self.leaving():
                self.clock.sleep(RETRY_FIRST)  # until stop_timeout it is tried on, not spun on

    def _give_up(self, entry: Entry, since: int) -> bool:
        """Whether an orphan has tried for as long as a family that stops; its job is given back then."""
        patience_ms = self._config.family.stop_timeout_ms
        if self.clock.monotonic_ns() - since < patience_ms * 1_000_000:
            return False
        say("outcome_lost", job=entry.job, delay=duration_text(patience_ms))
        self._successes.pop((entry.claim, entry.job), None)
        return True

    def _settle_now(self) -> bool:
        """The journal is full: settle it in a turn that claims nothing, keeping the claim."""
        ledger = self._ledger
        if ledger is None:
            return True
        journal = ledger.journal()
        try:
            self._settle(journal.records)
        except StoreError as error:
            self._wait_for_database(error)
            return False
        ledger.settled(journal)
        return True

    def _settle(self, records: list[Record]) -> None:
        """Outside of a turn, in the middle of a claim."""
        self._trust_descriptors()
        self.beat()
        self.slot[STATE] = TURN
        applied = self._store.apply(records, self.life, forget_succeeded=self._forget)
        self._store.step_aside()
        self._clean.hold(self._store.descriptors())
        tell(applied, self._state.rejected)
        self._tell_successes(records, applied)
        self._events.tell()
        self.slot[STATE] = BUSY
        self._wake_watchers()  # while the database was away nobody watched this worker

    def _tell_successes(self, records: list[Record], applied: Applied) -> None:
        """A success changes its row without a word of whose it was: this worker knows."""
        if self._successes:
            refused = {id(record) for record in applied.lost}
            refused |= {id(record) for record, _ in applied.rejected}
            for record in records:
                event = self._successes.pop((record.claim, record.job), None)
                if event is not None and id(record) not in refused:
                    self._events.emit(event)

    # -- after a job

    def _look_over(self, job: Claimed | None = None) -> None:
        """Leave where a task left the process changed or grown; `job` is the one that ran last."""
        self._accept_rotated_log()
        # First of all: without its descriptors whatever this process says or asks may go to a stranger.
        found = self._inspection.look()
        if found is not None and self._clean.still_has(log_descriptors()):
            self._say_found(found, job)
        if found is not None and found.code:
            self._leave_at_once(found.code)
        self.glance()
        self.signals.rearm()
        limit = self._pool.max_memory
        if limit and (held := resident(os.getpid()) or 0) > limit:
            self._leave("recycled", reason=f"it holds {held >> 20} MiB")

    def _say_found(self, found: Finding, job: Claimed | None) -> None:
        if found.jobs == 1 and job is not None:
            self._leave("dirty", job=job.id, task=job.task, what=found.what)
        else:
            tasks = ", ".join(found.tasks)
            self._leave("dirty_among", count=found.jobs, tasks=tasks, what=found.what)

    def _leave(self, line: str, **fields: Any) -> None:
        if self._reason is None:
            self._reason = line
            say(line, **fields)

    # -- the end

    def shut_down(self) -> None:
        """Settle, release the rest, retire the ledger; what cannot be settled stays in its file."""
        self._trust_descriptors()
        self._unsure = True
        last = ""
        for _ in range(3):
            try:
                if self._registered or self._ledger is not None:
                    self._settle_all()
                self._store.close()
                self._events.tell()
            except StoreError as error:
                last = str(error)
                self.clock.sleep(RETRY_FIRST)
            else:
                return
        say("settle_left", error=last, path=self._state.ledgers)

    def _settle_all(self) -> None:
        ledger = self._ledger
        records = ledger.journal().records if ledger is not None else []
        self.beat()
        self.slot[STATE] = TURN
        with self._store.transaction():
            # First: a turn of ours whose answer was lost ends now, or claims nothing.
            self._store.remove_owner(self.seat.owner)
            applied = self._store.apply(
                records,
                self.life,
                forget_succeeded=self._forget,
            )
            self._store.release_rest(self.seat.owner)
        tell(applied, self._state.rejected)
        self._tell_successes(records, applied)
        if ledger is not None:
            ledger.retire()
