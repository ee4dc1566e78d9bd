"""The deaths that the parent saw: each settled from its ledger, oldest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.identity import HOST, boot_id, pid_namespace
from jobvisor.jobs.job import Job
from jobvisor.jobs.log import say
from jobvisor.jobs.store import Life, Record, Store
from jobvisor.supervisor.autopsy.autopsy import AGE_NS, with_stacks
from jobvisor.supervisor.autopsy.struck import FATAL, forget, struck_lane
from jobvisor.supervisor.board import FOREVER, Board, Grave, Running
from jobvisor.supervisor.deaths.guilt import examined, seen
from jobvisor.supervisor.deaths.oom import OomWatch
from jobvisor.supervisor.deaths.remains import end_commands
from jobvisor.supervisor.deaths.settle import Settled, is_of_one_life, settle, tell, tell_strange
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.evidence import read_ledger_of
from jobvisor.supervisor.ledger.layout import find_file
from jobvisor.supervisor.ledger.spares import retire
from jobvisor.supervisor.roster import role_name
from jobvisor.supervisor.status import Status

if TYPE_CHECKING:
    from jobvisor.supervisor.counting.tally import Tally

SHELL = "shell"
"""The name of the task that starts commands."""


class Burial:
    """What a caretaker does with the graves on the board."""

    def __init__(
        self,
        store: Store,
        state: StateDir,
        board: Board,
        status: Status,
        clock: Clock,
        *,
        family: int,
        forget: bool,
        go_on: Callable[[], None],
        tally: Tally | None = None,
    ) -> None:
        """`forget` keeps no succeeded rows; `go_on` is called before each of many deaths."""
        self._store = store
        self._state = state
        self._board = board
        self._status = status
        self._clock = clock
        self._family = family
        self._forget = forget
        self._go_on = go_on
        self._tally = tally
        self._oom = OomWatch(clock)

    def settle_all(self) -> None:
        """Each grave is counted off only after the commit."""
        for grave in self._board.unsettled():
            self._go_on()
            try:
                self._settle(grave)
            except Exception as error:
                if not is_of_one_life(error):
                    raise
                # One death that cannot be read must not keep all later ones waiting; its ledger
                # stays, and the look at ledgers without a grave tries again.
                name = role_name(grave.role, grave.slot)
                say("unsettled", name=name, pid=grave.pid, error=repr(error))
            self._board.settled_one()

    def note_memory(self) -> float | None:
        """A duty: the ground for telling which death was the OOM killer's."""
        self._oom.read()
        return None

    def _settle(self, grave: Grave) -> None:
        path = find_file(self._state.ledgers, grave.owner)
        found = read_ledger_of(self._state.ledgers, grave.owner, self._clock, said=True)
        name = role_name(grave.role, grave.slot)
        life = Life(grave.owner, self._family, name, HOST, boot_id(), pid_namespace(), grave.pid, 0)
        # The board knows as well, for a worker that had no file to write to: it ran one lane.
        running = _with_cost(found.running if found else _shown(grave), grave)
        cause = seen(grave, oom=bool(grave.status) and self._oom.killed_at(grave.at))
        if cause.signal in FATAL:
            cause = cause._replace(lane=struck_lane(self._state.ledgers, grave.owner))
        nobody: str | None = None
        if cause.verdict or cause.signal in FATAL:
            since = grave.at - AGE_NS
            running, nobody = self._examined(grave.owner, running, since)
            cause = examined(cause, running, grave.at)
        if grave.status and self._ran_commands(running):  # before anybody else may run its jobs
            end_commands(grave.pid, grave.owner, self._clock)
        records = found.records if found else []
        left = self._uncounted(grave, records) if self._tally is not None else []
        settled = settle(self._store, life, records, running, cause, forget=self._forget)
        tell(settled.applied, self._state.rejected)
        tell_strange(found, self._state.rejected)
        job, death = settled.foremost or (0, None)
        if grave.status:
            told = death.text if death else cause.text
            applied = settled.applied.changed
            say("settled", name=name, pid=grave.pid, applied=applied, cause=told)
        if nobody:
            say("stack", name=name, pid=grave.pid, job="none", trace=nobody)
        if grave.status or settled.ended:  # who left by itself has not died
            self._status.note_death(grave, death, job)
        if self._tally is not None:
            self._count(self._tally, grave, settled, left)
        if found is not None and path is not None:
            retire(self._state.ledgers, path)
        forget(self._state.ledgers, grave.owner)

    def _ran_commands(self, running: tuple[Running, ...]) -> bool:
        """Whether a job of the task `shell` was among them: what it left is looked for in all processes."""
        jobs = [each.job for each in running]
        return any(each.task == SHELL for each in self._store.summaries(jobs)) if jobs else False

    def _uncounted(self, grave: Grave, records: list[Record]) -> list[tuple[Job, Record]]:
        """The runs that it had recorded and not counted any more, each with its job."""
        counters = self._board.counters
        counted = FOREVER if counters is None else counters.counted(grave.slot, grave.owner)
        left = [record for record in records if record.claim > counted]
        jobs = self._store.get_many(record.job for record in left) if left else {}
        return [(jobs[record.job], record) for record in left if record.job in jobs]

    def _count(
        self, tally: Tally, grave: Grave, settled: Settled, left: list[tuple[Job, Record]]
    ) -> None:
        """How soon it was settled, and what it could not count any more."""
        if grave.status or settled.ended:
            tally.rescued((self._clock.monotonic_ns() - grave.at) // 1_000_000)
        tally.lost(len(settled.applied.lost))
        if settled.applied.changed:  # else it had been settled and counted before
            tally.count_records(left)

    def _examined(
        self, owner: int, running: tuple[Running, ...], since_ns: int
    ) -> tuple[tuple[Running, ...], str | None]:
        """What its jobs were doing; or what it did itself, where it ran none."""
        found = with_stacks(
            self._state.ledgers, owner, running or (Running(0, 0),), since_ns=since_ns
        )
        return (found, None) if running else ((), found[0].stack)


def _with_cost(running: tuple[Running, ...], grave: Grave) -> tuple[Running, ...]:
    """Of one that ran alone what it cost, as its parent saw it."""
    if len(running) != 1:
        return running
    cpu_ms = grave.cpu_ms if grave.cpu_ms >= 0 else None
    return (running[0]._replace(cpu_ms=cpu_ms, rss_bytes=grave.rss_bytes or None),)


def _shown(grave: Grave) -> tuple[Running, ...]:
    return (Running(grave.current, grave.claim),) if grave.current else ()
