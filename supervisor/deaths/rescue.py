"""Lives whose end nobody of this family saw: found, proved dead, and settled.

Orphans of a family before, other families on this database, `run_one` in somebody's process. On one
machine a process proves by itself whether it is alive. On others only a heartbeat tells: one that has
stood still for `dead_after` of our own unbroken watching. Its family is declared dead before the first
of its rows is touched, and has stopped starting jobs by then, since its lease is shorter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from operator import attrgetter

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.identity import HOST, Identity, boot_id
from jobvisor.jobs.log import say
from jobvisor.jobs.store import Life, Store
from jobvisor.jobs.store.base import FamilyRow
from jobvisor.supervisor.autopsy.autopsy import (
    await_stack,
    head_of,
    stack_files,
    with_stacks,
)
from jobvisor.supervisor.autopsy.struck import FATAL, forget, struck_lane
from jobvisor.supervisor.board import FOREVER, OWNER, Board, Running
from jobvisor.supervisor.child import kill_group
from jobvisor.supervisor.deaths.guilt import Cause, overdue, seen, unseen
from jobvisor.supervisor.deaths.remains import end_remains
from jobvisor.supervisor.deaths.settle import (
    is_of_one_life,
    settle,
    settle_rebooted,
    settle_vanished,
    tell,
    tell_strange,
)
from jobvisor.supervisor.deaths.silence import Silence
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.evidence import (
    Read,
    Unread,
    ledger_files,
    read_ledger,
    read_ledger_of,
)
from jobvisor.supervisor.ledger.layout import LAYOUTS, find_file
from jobvisor.supervisor.ledger.ledger import Header
from jobvisor.supervisor.ledger.spares import retire

UNSETTLED_MAX = 10_000  # ledgers that are remembered as told
WATCH_SECONDS = 1.0  # between two looks at a heartbeat
STRANGERS_SECONDS = 0.2  # between two looks at somebody who lives on without a family
STRAY_AFTER_MS = 86_400_000  # `run_one` on another machine has no heartbeat: after a day it is gone


class Rescue:
    """What a caretaker knows of the dead and the silent, and does for their jobs."""

    def __init__(
        self,
        store: Store,
        state: StateDir,
        board: Board,
        clock: Clock,
        *,
        family: int,
        dead_after_ms: int,
        forget: bool,
        alone: Callable[[], bool],
        go_on: Callable[[], bool],
    ) -> None:
        """`family` is our own, `alone` whether its parent is dead, `forget` keeps no succeeded rows.

        `go_on` is called between two pages and two lives: it does what cannot wait, such as the deaths of
        our own family, and says whether there is time for more.
        """
        self._store = store
        self._state = state
        self._board = board
        self._clock = clock
        self._family = family
        self._dead_after_ms = dead_after_ms
        self._forget = forget
        self._alone = alone
        self._go_on = go_on
        self._strangers_left = False
        self._silence = Silence(clock)
        self._unsettled: set[str] = set()  # ledgers told to be impossible to settle
        #: Owners killed here at the timeout of a job: which, and when they were asked for its stack.
        self._overdue: dict[int, tuple[Running, int]] = {}

    def database_was_away(self) -> None:
        """What was not watched did not stand still."""
        self._silence.forget()

    def judge_families(self) -> float | None:
        """Other families on this database: the dead are settled, the silent are watched."""
        if self._alone():
            return None
        self._strangers_left = False
        families = [row for row in self._store.families() if row.id != self._family]
        for family in families:
            if not self._go_on():
                break
            try:
                self._judge_family(family)
            except Exception as error:
                # What a stranger wrote there, such as a folder's name with a NUL, harms no other.
                if not is_of_one_life(error):
                    raise
                if self._is_news(f"family {family.id}"):
                    name = f"family {family.name}"
                    say("unsettled", name=name, pid=family.pid, error=repr(error))
        if self._strangers_left:
            return STRANGERS_SECONDS
        return WATCH_SECONDS if families else None

    def rescue(self) -> float | None:
        """Lives whose end nobody of this family saw and whose family is gone."""
        if self._alone():
            return None
        self._strangers_left = False
        self.scan_ledgers(self._state.ledgers)
        self._sweep_own()
        strays = self._store.strays()
        living = {slot[OWNER] for slot in self._board.filled()}
        for owner in self._store.ownerless(self._dead_after_ms):
            if owner not in living and self._go_on():
                unknown = Life(owner, 0, "unknown", HOST, "", 0, 0, 0)
                self._settle_vanished(unknown)
        watched = self._rescue_strays(strays)
        # While somebody lives on without a family, it is looked at again soon.
        if self._strangers_left:
            return STRANGERS_SECONDS
        return WATCH_SECONDS if watched else None  # a heartbeat that may stand still is watched

    def _sweep_own(self) -> None:
        """Lives of this family that entered after their own death: their first word came late."""
        awaited = self._awaited_owners()
        for life in self._store.owners(self._family):
            dead = life.owner not in awaited and _identity(life).alive() is False
            if dead and read_ledger_of(self._state.ledgers, life.owner) is None:
                with self._store.transaction():
                    self._store.remove_owner(life.owner)
                    self._store.release_rest(life.owner)

    def _rescue_strays(self, strays: list[Life]) -> bool:
        """Owners without a family row: `run_one` in somebody's process, or a family removed half-way.

        Whether one of them must be watched until its time is over.
        """
        watched = False
        for life in strays:
            if not self._go_on():
                break
            if not life.family:
                gone = not self._store.one_machine and _identity(life).alive() is None
                self._judge_owner(life, None, buried=gone and life.age_ms > STRAY_AFTER_MS)
                continue
            # Its family died before its first heartbeat: a row that never moves stands for it.
            row = FamilyRow(
                life.family, "", life.host, life.boot_id, life.pid_namespace, life.pid,
                life.start_ticks, "", self._state.path, self._dead_after_ms, 0, -1,
            )  # fmt: skip
            if self._is_dead(_identity(life), row):
                folder = self._state.ledgers if self._is_here(row) else None
                if folder is not None:
                    self.scan_ledgers(folder, row)
                self._judge_owner(life, folder, buried=self._dead_by_time(_identity(life)))
            else:
                watched = True
        return watched

    def scan_ledgers(self, folder: str, dead: FamilyRow | None = None) -> None:
        """Settle each ledger of a dead life in a folder; the living are left and looked at again.

        `dead` is a family that is proved dead, also where its processes cannot be seen from here.
        """
        for owner, layout, path in ledger_files(folder):
            if not self._go_on():
                return
            try:
                self._look_at_ledger(path, owner, layout, dead)
            except Exception as error:
                if not is_of_one_life(error):
                    raise
                self._say_unsettled(path, error)
        self._drop_stacks(folder)

    def _drop_stacks(self, folder: str) -> None:
        """Stacks of lives that have no ledger: nobody else will take them away."""
        awaited = self._awaited_owners()
        for owner, path in stack_files(folder):
            if owner in awaited or find_file(folder, owner) is not None:
                continue
            life = head_of(owner, path)
            alive = None if life is None else life.identity.alive()
            if alive is False:
                forget(folder, owner)
            elif alive is None:
                self._drop_stale(path)

    def _say_unsettled(self, path: str, error: Exception) -> None:
        """One ledger that cannot be settled never stops the others; it is tried again, and told once."""
        if self._is_news(path):
            say("ledger_unsettled", path=path, error=f"{type(error).__name__}: {error}")

    def _is_news(self, path: str) -> bool:
        """Whether a ledger is met for the first time that cannot be settled."""
        if path in self._unsettled:
            return False
        if len(self._unsettled) >= UNSETTLED_MAX:
            self._unsettled.clear()
        self._unsettled.add(path)
        return True

    def _look_at_ledger(self, path: str, owner: int, layout: int, dead: FamilyRow | None) -> None:
        known = layout in LAYOUTS
        found = read_ledger(path, owner, clock=self._clock) if known else Unread.UNKNOWN
        if found is Unread.UNKNOWN:
            self._say_unknown(path)
        elif isinstance(found, Read):
            if self._is_mine_to_judge(found.header):
                self._judge_ledger(os.path.dirname(path), path, found, dead)
        elif owner not in self._awaited_owners():
            self._drop_stale(path)

    def _is_mine_to_judge(self, header: Header) -> bool:
        """With a parent, the deaths of its own family come as graves, with their cause.

        Without one, others' are none of its business: a new family may live here, whose parent
        knows why.
        """
        own = header.family == self._family
        if self._alone():
            return own
        return not own or header.owner not in self._awaited_owners()

    def _awaited_owners(self) -> set[int]:
        """Owners of the living and of the dead whose grave is not settled."""
        return {slot[OWNER] for slot in self._board.filled()} | {
            grave.owner for grave in self._board.unsettled()
        }

    def _drop_stale(self, path: str) -> None:
        """A file whose life ended before it wrote its header tells nothing.

        It never becomes a spare: nobody knows for sure that its life does not map it.
        """
        with suppress(FileNotFoundError):
            # By ctime, which a rename moves: a spare on its way into use has an old mtime.
            age_ms = self._clock.now_ms() - os.stat(path).st_ctime_ns // 1_000_000
            if age_ms > self._dead_after_ms:
                os.unlink(path)

    def _say_unknown(self, path: str) -> None:
        """A ledger of another release, or a damaged one: kept, and said once."""
        if self._is_news(path):
            say("ledger_unknown", path=path)

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
            self._enforce_deadline(folder, identity, found)
            return
        # Read again: between the first look and its death it may have recorded and begun more.
        last = read_ledger(path, header.owner, clock=self._clock, said=True)
        if not isinstance(last, Read):
            return  # it left properly, after all
        if not rebooted:
            # Before its job may run again elsewhere.
            end_remains(identity, header.owner, path, self._clock)
        if rebooted:
            applied = settle_rebooted(self._store, life, last, forget=self._forget)
        else:
            cause, running = self._cause_of(folder, last)
            # Of one that nobody saw end it is the only trace of a signal.
            cause = cause._replace(lane=struck_lane(folder, header.owner))
            applied = settle(
                self._store, life, last.records, running, cause, forget=self._forget
            ).applied
        tell(applied, self._state.rejected)
        tell_strange(last, self._state.rejected)
        retire(folder, path)
        forget(folder, header.owner)

    def _cause_of(self, folder: str, found: Read) -> tuple[Cause, tuple[Running, ...]]:
        """As its parent left it; else nobody saw it, unless it was this caretaker's own doing.

        With it what ran, and what that was doing.
        """
        owner, running = found.header.owner, found.running
        if found.grave is not None:
            cause = seen(found.grave, oom=False)
            told = cause.verdict or cause.signal in FATAL
            return cause, with_stacks(folder, owner, running) if told else running
        killed = self._overdue.pop(owner, None)
        if killed is None:
            # What it wrote when it broke; whatever it had answered before was asked of a living one.
            return unseen(found.header), with_stacks(folder, owner, running, since_ns=FOREVER)
        late, asked = killed
        cause = overdue(found.header, late.job, late.claim)
        return cause, with_stacks(folder, owner, running, since_ns=asked)

    def _enforce_deadline(self, folder: str, identity: Identity, found: Read) -> None:
        """A life without its family keeps its timeout: its caretaker is gone, so this one sees to it."""
        late = self.first_overdue(found.running)
        if late is not None and identity.alive():
            self.kill_overdue(folder, found.header.owner, found.header.pid, late)

    def first_overdue(self, running: Iterable[Running]) -> Running | None:
        """Of these jobs the one whose deadline passed first."""
        now = self._clock.monotonic_ns()
        late = [run for run in running if run.deadline and now > run.deadline]
        return min(late, key=attrgetter("deadline"), default=None)

    def kill_overdue(self, folder: str, owner: int, pid: int, late: Running) -> None:
        """As the parent would: the verdict first, so that the settling knows the cause; then the stack."""
        if owner not in self._overdue:
            say("child_verdict", role="orphan", pid=pid, reason="timeout", job=late.job)
            self._overdue[owner] = late, self._clock.monotonic_ns()
            await_stack(folder, owner, pid, self._clock)
        kill_group(pid)  # again, where it takes its time to go

    def _judge_family(self, family: FamilyRow) -> None:
        """Another family on this database: settled only when it is proved dead."""
        identity = Identity(family.boot_id, family.pid_namespace, family.pid, family.start_ticks)
        buried = family.died
        if not buried:
            if not self._is_dead(identity, family):
                return
            buried = self._dead_by_time(identity)
            # It may be alive and cut off: from here on it cannot come back as what it was.
            if buried and not self._bury(family):
                return
        folder = os.path.join(family.state_dir, "ledger")
        with self._custody(family) as held:
            if held:
                self.scan_ledgers(folder, family)
            elif family.silent_ms < family.dead_after_ms and not buried:
                self._strangers_left = True  # whoever holds it settles it more exactly than we can
                return
            left = [
                life for life in self._store.owners(family.id)
                if not self._go_on()
                or not self._judge_owner(life, folder if held else None, buried=buried)
            ]  # fmt: skip
        if left:
            self._strangers_left = True
        else:
            self._store.remove_family(family.id)

    def _bury(self, family: FamilyRow) -> bool:
        """Declare it dead before the first of its rows is touched; False if it has just beaten."""
        if not self._store.bury_family(family):
            return False
        say("buried", family=family.name, host=family.host, silent=f"{family.silent_ms / 1000:.0f}")
        return True

    @contextmanager
    def _custody(self, family: FamilyRow) -> Iterator[bool]:
        """Hold a dead family's state directory, so that nobody starts there while it is settled."""
        if not self._is_here(family):
            yield False
            return
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

    def _is_here(self, family: FamilyRow) -> bool:
        """Whether a family's state directory may be a folder of this machine.

        A host's name may be another's too; the ledgers there tell by themselves whose they are.
        """
        here = family.boot_id == boot_id() or family.host == HOST
        return here or self._store.one_machine

    def _is_dead(self, identity: Identity, family: FamilyRow) -> bool:
        """Proved by the process, or by a heartbeat that stands still where that is a proof."""
        alive = identity.alive()
        if alive is False:
            return True
        if self._store.one_machine:
            if alive:
                return False  # a clock step must not kill a family
            if identity.boot_id != boot_id():
                return True  # a SQLite file lives on one machine, and that has booted since
        return self._silence.stood_still(family)

    def _dead_by_time(self, identity: Identity) -> bool:
        """Whether nothing but a silent heartbeat says that a family is dead."""
        rebooted = self._store.one_machine and identity.boot_id != boot_id()
        return identity.alive() is not False and not rebooted

    def _judge_owner(self, life: Life, folder: str | None, *, buried: bool) -> bool:
        """Whether a life is settled; what has no ledger any more left no evidence.

        `buried`: its family was declared dead, so it may be alive, but starts nothing more.
        """
        identity = _identity(life)
        alive = identity.alive()
        if alive is None and self._store.one_machine and identity.boot_id != boot_id():
            alive = False
        if alive is not False and not buried:
            return False
        if alive is not True and folder is not None and read_ledger_of(folder, life.owner):
            return False  # its ledger is settled first
        end_remains(identity, life.owner, None, self._clock)
        return self._settle_vanished(life)

    def _settle_vanished(self, life: Life) -> bool:
        """Whether all rows of a life without a ledger went back; one that cannot never stops the others."""
        try:
            return settle_vanished(self._store, life, self._go_on)
        except Exception as error:
            if not is_of_one_life(error):
                raise
            self._say_unsettled(f"the worker {life.owner} of {life.host}", error)
            return False


def _identity(life: Life) -> Identity:
    return Identity(life.boot_id, life.pid_namespace, life.pid, life.start_ticks)
