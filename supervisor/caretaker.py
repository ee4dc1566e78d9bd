"""The caretaker: it keeps the family's lease, settles the dead, recalls behind long jobs, tidies up.

It runs no user code, so it is awake and connected whatever the workers do. Every duty may be cut by
a kill at any line: a new caretaker begins with the graves and ledgers it finds.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from jobs import __version__
from jobs.errors import JobsError, StoreError, StoreUnavailable
from jobs.events import Events
from jobs.identity import HOST, Identity, boot_id, pid_namespace
from jobs.job import UNFINISHED, State
from jobs.log import log_event, say
from jobs.store import Applied, Life, open_store
from jobs.store.base import Death, FamilyRow
from jobs.store.relational import log_lost
from supervisor.board import (
    BATCH,
    BUSY,
    CANCEL_CLAIM,
    CANCEL_JOB,
    CARETAKER_WATCHES,
    CLAIM,
    CURRENT,
    DEADLINE,
    DISMISSED,
    DRAINED,
    DRAINING,
    EXPELLED,
    FOREVER,
    IDLE,
    LEASE_UNTIL,
    OWNER,
    PID,
    PROGRESS,
    REACHED,
    RECALL,
    ROLE,
    RUN,
    SINCE,
    STATE,
    STOP,
    TICKS,
    TURN,
    WAITING_STATE,
    WORKER,
    Grave,
    Slot,
)
from supervisor.child import kill_group
from supervisor.family import StateDir
from supervisor.ledger import Header, Read, read, read_progress, retire
from supervisor.rejected import keep_rejected
from supervisor.role import SECOND, Role, Seat
from supervisor.settle import (
    death_of,
    died_unseen,
    overdue,
    recall,
    settle,
    settle_rebooted,
    settle_vanished,
    vanished,
)
from supervisor.signals import poke
from supervisor.status import Status

TICK = 0.02  # seconds between two looks while a worker is busy
IDLE_SECONDS = 1.0  # and while none is
LONG_JOB_NS = 50_000_000  # a job longer than this does not keep its neighbours waiting
RECALL_WAIT = 0.002  # seconds for a recall word to be seen: far longer than any store buffer
LEFT_TOLD = 20  # queues and states in the last line of a drain
PRUNED_AT_ONCE = 500  # rows; about 20 ms
LEASE_MARGIN_NS = 2 * SECOND
FINAL_SECONDS = 5.0  # what the last settling may take when the family stops


class Caretaker(Role):
    """One process that looks after the family and its rows."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat)
        config = seat.config
        self._config = config
        self._state = StateDir(config.family.state_dir)
        self._forget = config.retention.succeeded_ms == 0
        self._recalled: dict[int, tuple[int, int]] = {}
        self._progress_seen: dict[int, int] = {}
        self._oom_kills = _oom_kills()
        self._waiting = False
        self._strangers_left = False
        self._entered = False  # this life has written the family's row
        self._heartbeats: dict[int, tuple[int, int]] = {}  # family: its heartbeat, since when
        self._overdue: dict[int, int] = {}  # owners killed here at the timeout of a job
        self._retained = {
            State.SUCCEEDED: config.retention.succeeded_ms,
            State.CANCELLED: config.retention.cancelled_ms,
            State.FAILED: config.retention.failed_ms,
        }
        beat = min(config.family.dead_after_ms / 3000, 10.0)
        self._duties: dict[Callable[[], float | None], float] = {
            self._heartbeat: beat,
            self._rescue: config.family.dead_after_ms / 1000,
            self._carry_cancels: 0.25,
            self._carry_progress: 0.25,
            self._promote: 1.0,
            self._prune: 10.0,
            self._checkpoint: 1.0,
            self._look_drained: 0.05,
        }
        self._due: dict[Callable[[], float | None], int] = {}

    def boot(self) -> None:
        """Ready at once: the database may come later."""
        events = Events()
        events.subscribe(log_event)
        self._store = open_store(
            self._config.database.url, durable=False, clock=self.clock, events=events
        )
        self._store.on_wait = self.beat
        self._poll.register(self.seat.caretaker_read, select.POLLIN)
        self._identity = Identity.mine()
        self._parent = Identity.of(self.seat.parent) or self._identity
        self._status = Status(self.board, self._config, self._state, self.clock, self.seat.family)
        self.slot[STATE] = WAITING_STATE
        # A database that can never be used as it is ends the boot, with one sentence.
        with suppress(StoreUnavailable):
            self._store.open()

    def leaving(self) -> bool:
        """Only on the parent's word, since systemd sends TERM to everybody; or last, without a parent."""
        self.told_to_leave()
        if self.board[DISMISSED] == self.seat.owner:
            return True
        return self.alone and not self._family_lives()

    # -- the loop

    def step(self) -> float:
        """All that is due, in small slices."""
        with self._database():
            self._settle_graves()
            busy = self.board.busy()
            for slot in busy:
                self._recall_behind(slot)
            if self.alone:
                self._stand_in_for_parent()
            self._do_duties()
        if not self.alone:
            # Alone, the file is the next family's, which may be here already.
            self._status.write_if_due(waiting=self._waiting)
        return self._pause()

    def _pause(self) -> float:
        if self._waiting or self.alone:
            return 0.1
        # Say that nobody watches before the last look: a worker that turns busy after it pokes.
        busy = bool(self.board.busy())
        self.board[CARETAKER_WATCHES] = int(busy)
        if not busy:
            busy = bool(self.board.busy())
        if busy or self.board[DRAINING]:
            return TICK
        return IDLE_SECONDS

    @contextmanager
    def _database(self) -> Iterator[None]:
        """One border for an absent database: said once, tried again, judged by nobody."""
        try:
            yield
        except StoreError as error:
            if not self._waiting:
                say("database_lost", error=str(error))
            self._waiting = True
            self._heartbeats.clear()  # what was not watched did not stand still
            self.slot[STATE] = WAITING_STATE
            self._store.close()
            # The heartbeat, a write, is due with the next try: a step whose duties happen not to
            # touch the database would prove nothing.
            self._due.pop(self._heartbeat, None)
        else:
            if self._waiting and self.slot[REACHED]:
                say("database_back", delay="a while")
            self._waiting = False
            self.slot[REACHED] = 1
            self.slot[STATE] = IDLE

    def _do_duties(self) -> None:
        for duty, interval in self._duties.items():
            now = self.clock.monotonic_ns()
            if now >= self._due.get(duty, 0):
                self.beat()
                # Set before the duty: one that fails waits for its turn like one that succeeds.
                self._due[duty] = now + int(interval * SECOND)
                sooner = duty()
                if sooner is not None:
                    self._due[duty] = now + int(sooner * SECOND)

    # -- the dead

    def _settle_graves(self) -> None:
        """Deaths the parent saw, oldest first; counted off only after the commit."""
        for grave in self.board.unsettled():
            self.beat()
            try:
                self._settle_grave(grave)
            except (OSError, KeyError, ValueError) as error:
                # One death that cannot be read must not keep all later ones waiting; its ledger
                # stays, and the look at ledgers without a grave tries again.
                name = self.board_name(grave.slot)
                say("unsettled", name=name, pid=grave.pid, error=repr(error))
            self.board.settled_one()

    def _settle_grave(self, grave: Grave) -> None:
        path = os.path.join(self._state.ledgers, str(grave.owner))
        found = self._read(path, grave.owner)
        life = Life(
            grave.owner, self.seat.family, self.board_name(grave.slot), HOST, boot_id(),
            pid_namespace(), grave.pid, 0,
        )  # fmt: skip
        # The board knows as well, for a worker that had no file to write to.
        current = found.header.current if found else grave.current
        claim = found.header.claim if found else grave.claim
        held = self._store.held(current, grave.owner, claim) if current else None
        killed = _oom_kills()
        death = death_of(grave, held, current, claim, oom=killed > self._oom_kills)
        self._oom_kills = killed
        records = found.records if found else []
        applied = settle(self._store, life, records, (current, claim), death, forget=self._forget)
        self._tell(applied)
        if grave.status:
            name = self.board_name(grave.slot)
            say(
                "settled", name=name, pid=grave.pid, applied=applied.changed, cause=death.text
            )  # fmt: skip
        self._status.note_death(grave, death if held else None, current if held else 0)
        if found is not None:
            retire(self._state.ledgers, path)

    def board_name(self, slot: int) -> str:
        """What a slot is called in logs and history."""
        return "caretaker" if slot == self.slot.index else f"worker {slot}"

    def _read(self, path: str, owner: int) -> Read | None:
        """A ledger under its own name; another's bytes in it mean that its life wrote nothing yet."""
        try:
            found = read(path, boot_id=boot_id(), clock=self.clock)
        except FileNotFoundError:
            return None
        return found if found is not None and found.header.owner == owner else None

    def _tell(self, applied: Applied) -> None:
        log_lost(applied.lost)
        for record, reason in applied.rejected:
            keep_rejected(self._state.rejected, record, reason)

    def _rescue(self) -> float | None:
        """Lives whose end nobody of this family saw: of families before, and of others."""
        if self.alone:
            return None
        self._strangers_left = False
        self._scan_ledgers(self._state.ledgers)
        families = self._store.families()
        strays = self._store.strays()
        known = {family.id for family in families} | {life.family for life in strays}
        self._heartbeats = {
            number: seen for number, seen in self._heartbeats.items() if number in known
        }
        for family in families:
            if family.id != self.seat.family:
                self._judge_family(family)
        living = {slot[OWNER] for slot in self.board.filled()}
        for owner in self._store.ownerless(self._config.family.dead_after_ms):
            if owner is not None and owner not in living:
                life = Life(owner, 0, "unknown", HOST, "", 0, 0, 0)
                self._store.vanish(owner, vanished(life))
        self._rescue_strays(strays)
        # While somebody lives on without a family, it is looked at again soon.
        if self._strangers_left:
            return 0.2
        return 1.0 if self._heartbeats else None  # a heartbeat that may stand still is watched

    def _rescue_strays(self, strays: list[Life]) -> None:
        """Owners without a family row: `run_one` in somebody's process, or a family removed half-way."""
        for life in strays:
            if not life.family:
                self._judge_owner(life, None, None)
                continue
            # Its family died before its first heartbeat: a row that never moves stands for it.
            row = FamilyRow(
                life.family, "", life.host, life.boot_id, life.pid_namespace, life.pid,
                life.start_ticks, "", self._state.path, self._config.family.dead_after_ms, 0, -1,
            )  # fmt: skip
            if self._is_dead(_identity(life), row):
                self._scan_ledgers(self._state.ledgers, row)
                self._judge_owner(life, self._state.ledgers, row)

    def _scan_ledgers(self, folder: str, dead: FamilyRow | None = None) -> None:
        """Settle each ledger of a dead life in a folder; the living are left and looked at again.

        `dead` is a family that is proved dead, also where its processes cannot be seen from here.
        """
        expected = self._awaited_owners()
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            if not name.isdigit():
                continue
            self.beat()
            path = os.path.join(folder, name)
            found = self._read(path, int(name))
            if found is None:
                self._drop_stale(path)
            elif self._is_mine_to_judge(found.header, expected):
                self._judge_ledger(folder, path, found, dead)

    def _is_mine_to_judge(self, header: Header, awaited: set[int]) -> bool:
        """With a parent, the deaths of its own family come as graves, with their cause.

        Without one, others' are none of its business: a new family may live here, whose parent
        knows why.
        """
        own = header.family == self.seat.family
        if self.alone:
            return own
        return not own or header.owner not in awaited

    def _awaited_owners(self) -> set[int]:
        """Owners of the living and of the dead whose grave is not settled."""
        return {slot[OWNER] for slot in self.board.filled()} | {
            grave.owner for grave in self.board.unsettled()
        }

    def _drop_stale(self, path: str) -> None:
        """A file whose life ended before it wrote its header tells nothing."""
        with suppress(FileNotFoundError):
            # By ctime, which a rename moves: a spare on its way into use has an old mtime.
            age_ms = self.clock.now_ms() - os.stat(path).st_ctime_ns // 1_000_000
            if age_ms > self._config.family.dead_after_ms:
                retire(os.path.dirname(path), path)

    def _judge_ledger(
        self, folder: str, path: str, found: Read, dead: FamilyRow | None = None
    ) -> None:
        header = found.header
        if header.database_id != self._store.database_id():
            return  # the state directory served another database once; its rows are not here
        identity = Identity(header.boot_id, header.pid_namespace, header.pid, header.start_ticks)
        life = Life(header.owner, header.family, f"pid {header.pid}", header.host, *identity)
        rebooted = header.boot_id != boot_id()
        alive = False if rebooted else identity.alive()
        if alive is None and dead is not None and dead.id == header.family:
            alive = False  # of another container, whose family's heartbeat has long stood still
        if alive or alive is None:
            self._strangers_left = True
            self._enforce_deadline(identity, found)
            return
        # Read again: between the first look and its death it may have recorded and begun more.
        last = self._read(path, header.owner)
        if last is None:
            return  # it left properly, after all
        if rebooted:
            applied = settle_rebooted(self._store, life, last, forget=self._forget)
        else:
            current = (last.header.current, last.header.claim)
            death = self._death_unseen(last.header)
            applied = settle(self._store, life, last.records, current, death, forget=self._forget)
        self._tell(applied)
        retire(folder, path)

    def _death_unseen(self, header: Header) -> Death:
        """Nobody saw it, unless it was this caretaker's own doing."""
        job = self._overdue.pop(header.owner, None)
        if job is None:
            return died_unseen(header)
        return overdue(header, job, self._store.held(job, header.owner, header.claim))

    def _enforce_deadline(self, identity: Identity, found: Read) -> None:
        """A life without its family keeps its timeout: its caretaker is gone, so this one sees to it."""
        header = found.header
        overdue = header.current and header.deadline and self.clock.monotonic_ns() > header.deadline
        if overdue and identity.alive():
            self._kill_overdue(header.owner, header.pid, header.current)

    def _kill_overdue(self, owner: int, pid: int, job: int) -> None:
        """As the parent would: the verdict first, so that the settling knows the cause."""
        say("child_verdict", role="orphan", pid=pid, reason="timeout", job=job)
        self._overdue[owner] = job
        kill_group(pid)

    def _judge_family(self, family: FamilyRow) -> None:
        """Another family on this database: settled only when it is proved dead."""
        identity = Identity(family.boot_id, family.pid_namespace, family.pid, family.start_ticks)
        if not self._is_dead(identity, family):
            return
        folder = os.path.join(family.state_dir, "ledger")
        with self._custody(family) as held:
            if held:
                self._scan_ledgers(folder, family)
            elif self.clock.now_ms() - family.heartbeat_at < family.dead_after_ms:
                self._strangers_left = True  # whoever holds it settles it more exactly than we can
                return
            left = [
                life for life in self._store.owners(family.id)
                if not self._judge_owner(life, folder if held else None, family)
            ]  # fmt: skip
        if left:
            self._strangers_left = True
        else:
            self._store.remove_family(family.id)

    @contextmanager
    def _custody(self, family: FamilyRow) -> Iterator[bool]:
        """Hold a dead family's state directory, so that nobody starts there while it is settled."""
        if os.path.realpath(family.state_dir) == os.path.realpath(self._state.path):
            yield True  # our parent holds it
            return
        try:
            descriptor = StateDir(family.state_dir).custody()
        except (JobsError, OSError):
            yield False
            return
        try:
            yield True
        finally:
            os.close(descriptor)

    def _is_dead(self, identity: Identity, family: FamilyRow | None) -> bool:
        """Time proves nothing within one pid namespace: a clock step must not kill a family."""
        alive = identity.alive()
        if alive is not None:
            return not alive
        if identity.boot_id != boot_id():
            return True  # a SQLite file lives on one machine, and that has booted since
        if family is None:
            return False  # another container's `run_one`: nobody here can tell
        return self._stood_still(family)

    def _stood_still(self, family: FamilyRow) -> bool:
        """Whether a heartbeat has not moved for `dead_after` of our own unbroken watching.

        Not by the wall clock, whose steps would declare everybody dead at once.
        """
        now = self.clock.boottime_ns()
        seen, since = self._heartbeats.get(family.id, (0, 0))
        if seen != family.heartbeat_at:
            self._heartbeats[family.id] = (family.heartbeat_at, now)
            return False
        return now - since > family.dead_after_ms * 1_000_000

    def _judge_owner(self, life: Life, folder: str | None, family: FamilyRow | None) -> bool:
        """Whether a life is settled; what has no ledger any more left no evidence."""
        if not self._is_dead(_identity(life), family):
            return False
        if folder is not None and os.path.exists(os.path.join(folder, str(life.owner))):
            return False  # its ledger is settled first
        settle_vanished(self._store, life)
        return True

    # -- behind a long job

    def _recall_behind(self, slot: Slot) -> None:
        current, since, claim = slot[CURRENT], slot[SINCE], slot[CLAIM]
        if slot[STATE] != BUSY or not current or slot[BATCH] <= 1:
            return
        if self.clock.monotonic_ns() - since < LONG_JOB_NS:
            return
        owner = slot[OWNER]
        if self._recalled.get(slot.index) == (owner, claim):
            return
        self._recall(slot, owner, claim)
        self._recalled[slot.index] = (owner, claim)

    def _recall(self, slot: Slot, owner: int, claim: int) -> None:
        slot[RECALL] = claim
        # The worker publishes, then looks; we set the word, wait, then read what is published.
        self.clock.sleep(RECALL_WAIT)
        found = self._read(os.path.join(self._state.ledgers, str(owner)), owner)
        if found is None or found.header.claim != claim:
            return
        life = Life(
            owner, self.seat.family, self.board_name(slot.index), HOST, boot_id(),
            pid_namespace(), slot[PID], 0,
        )  # fmt: skip
        applied, released = recall(self._store, life, found, claim, forget=self._forget)
        self._tell(applied)
        say("recalled", count=released, job=found.header.current, settled=applied.changed)

    # -- duties

    def _heartbeat(self) -> float | None:
        sent = self.clock.boottime_ns()
        if self.board[EXPELLED] == self.seat.family:
            return None
        beaten = self._store.heartbeat(self.seat.family)
        if not beaten and self._entered:
            # Declared dead: what was claimed may run elsewhere by now. Start nothing more; the
            # parent lets everybody finish and leave, and comes back as a new family.
            self.board[LEASE_UNTIL] = 0
            self.board[EXPELLED] = self.seat.family
            poke(self.seat.parent_poke)
            return None
        self._entered = True
        if not beaten:
            now = self.clock.now_ms()
            family = self._config.family
            self._store.add_family(
                FamilyRow(
                    self.seat.family,
                    family.name,
                    HOST,
                    *self._parent,
                    __version__,
                    self._state.path,
                    family.dead_after_ms,
                    now,
                    now,
                )
            )
        # Only families in other containers judge by time; alone there is no lease to lose.
        foreign = any(
            family.pid_namespace != self._parent.pid_namespace for family in self._store.families()
        )
        limit = self._config.family.dead_after_ms * 1_000_000
        self.board[LEASE_UNTIL] = sent + limit - LEASE_MARGIN_NS if foreign else FOREVER
        return None

    def _carry_cancels(self) -> float | None:
        """From the row to the board: a current job is asked, an unstarted one recalled."""
        if not self.board.busy():
            return None
        slots = {slot[OWNER]: slot for slot in self.board.busy()}
        for job, owner, claim in self._store.cancelling():
            slot = slots.get(owner)
            if slot is None or slot[CLAIM] != claim:
                continue
            if slot[CURRENT] == job:
                if (slot[CANCEL_JOB], slot[CANCEL_CLAIM]) != (job, claim):
                    slot[CANCEL_JOB] = job
                    slot[CANCEL_CLAIM] = claim
            else:
                self._recall(slot, owner, claim)
        return None

    def _carry_progress(self) -> float | None:
        for slot in self.board.busy():
            seen, owner, current, claim = slot[PROGRESS], slot[OWNER], slot[CURRENT], slot[CLAIM]
            if current and seen and self._progress_seen.get(owner) != seen:
                told = self._read_progress(owner)
                if told is not None and told[0] == current and slot[CURRENT] == current:
                    self._progress_seen[owner] = seen
                    self._store.progress(current, owner, claim, told[1])
        if len(self._progress_seen) > 1000:
            self._progress_seen.clear()  # owners come and go; written once more at the worst
        return None

    def _read_progress(self, owner: int) -> tuple[int, str] | None:
        try:
            return read_progress(os.path.join(self._state.ledgers, str(owner)))
        except FileNotFoundError:
            return None  # its worker has just left

    def _promote(self) -> float | None:
        """A claim promotes; while all workers are busy nobody claims."""
        workers = [slot for slot in self.board.filled() if slot[ROLE] == WORKER]
        if all(slot[STATE] == BUSY for slot in workers):
            _found, due_ms = self._store.look(())
            if due_ms == 0:
                self._store.promote()
        return None

    def _prune(self) -> float | None:
        pruned = self._store.prune(self._retained, limit=PRUNED_AT_ONCE)
        if pruned:
            say("pruned", count=pruned)
        return TICK if pruned >= PRUNED_AT_ONCE else None

    def _checkpoint(self) -> float | None:
        self._store.checkpoint()
        return None

    def _look_drained(self) -> float | None:
        if not self.board[DRAINING] or self.board[DRAINED]:
            return None
        workers = [slot for slot in self.board.filled() if slot[ROLE] == WORKER]
        # A journal may hold a retry that no row shows yet: only resting workers tell the truth.
        if any(slot[STATE] in (BUSY, TURN) for slot in workers):
            return None
        if not self._store.has_work(self._config.queues, self.seat.family):
            self.board[DRAINED] = 1
            poke(self.seat.parent_poke)
            say(
                "drained", left=self._left()
            )  # after the word: to count a large table takes a while
        return None

    def _left(self) -> str:
        """What a drain does not wait for, in words: scheduled by somebody, unknown, not ours."""
        told = [
            f"{number} {state} in {queue}"
            for queue, states in sorted(self._store.counts().items())
            for state, number in sorted(states.items())
            if state in UNFINISHED
        ]
        return ", ".join([*told[:LEFT_TOLD], *(["..."] if told[LEFT_TOLD:] else [])]) or "nothing"

    # -- without a parent

    def _family_lives(self) -> bool:
        return any(self._worker_lives(slot) for slot in self.board.filled() if slot[ROLE] == WORKER)

    def _worker_lives(self, slot: Slot) -> bool:
        identity = self._identity_of(slot)
        return identity is not None and bool(identity.alive())

    def _identity_of(self, slot: Slot) -> Identity | None:
        """Who sits there, by the pid and the start that the board keeps."""
        if not slot[PID] or not slot[TICKS]:
            return None
        return Identity(boot_id(), pid_namespace(), slot[PID], slot[TICKS])

    def _stand_in_for_parent(self) -> None:
        """Kill what is past its deadline, settle what has died, until the last has left."""
        for slot in self.board.busy():
            deadline, current = slot[DEADLINE], slot[CURRENT]
            identity = self._identity_of(slot)
            if identity is None or not current or current != slot[CURRENT]:
                continue
            if deadline and self.clock.monotonic_ns() > deadline and identity.alive():
                self._kill_overdue(slot[OWNER], identity.pid, current)
        self._scan_ledgers(self._state.ledgers)

    # -- the end

    def shut_down(self) -> None:
        """The last settling: what it does not reach in five seconds stays in the files."""
        ends = self.clock.monotonic_ns() + int(FINAL_SECONDS * SECOND)
        while self.clock.monotonic_ns() < ends:
            self.beat()
            with self._database():
                self._settle_graves()
                if self.alone:
                    self._scan_ledgers(self._state.ledgers)
                if self.alone or self.board[STOP]:
                    self._leave_database()
            if not self._waiting:
                break
            self.clock.sleep(0.1)
        # One that a reload replaces leaves a family that goes on.
        if not self.alone:
            self._status.write(waiting=self._waiting, stopped=self.board[STOP] != RUN)
        self._store.close()

    def _leave_database(self) -> None:
        if not self._store.owners(self.seat.family):
            self._store.remove_family(self.seat.family)


def _identity(life: Life) -> Identity:
    return Identity(life.boot_id, life.pid_namespace, life.pid, life.start_ticks)


def _oom_kills() -> int:
    """How many processes the kernel's OOM killer has ended since boot; 0 where it does not tell."""
    try:
        with open("/proc/vmstat", "rb") as file:
            for line in file:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except FileNotFoundError:
        return 0
    return 0
