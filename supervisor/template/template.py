"""The template: a process that has imported the application once, and of which workers are copies.

It runs no job and no other code of the user's. The parent writes on the board which slot it wants a worker
for; the worker is made as the parent's child, and its pid told on the board. It may not be wanted by then
(a stop, a template that was too slow), so it begins only when its slot shows that it is.
"""

from __future__ import annotations

import errno
import gc
import os
import select
import signal
import sys
from contextlib import suppress
from dataclasses import replace

from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.errors import EX_OK, EX_UNFIT, JobsError
from jobvisor.jobs.log import configure, say
from jobvisor.supervisor.application import prepare_application
from jobvisor.supervisor.board import (
    ASKED,
    FAMILY,
    IDLE,
    LEAVE,
    LIFE,
    MADE,
    MADE_PID,
    PID,
    POOL,
    STATE,
    Slot,
)
from jobvisor.supervisor.memory import resident
from jobvisor.supervisor.role import SLEEP_MOST, Role, Seat, import_for_lanes, role_class
from jobvisor.supervisor.roster import WORKER, RoleRow
from jobvisor.supervisor.signals import poke
from jobvisor.supervisor.template.examination import HOOKS, Examination, Findings
from jobvisor.supervisor.template.huge_pages import LIMIT_NS, use_huge_pages
from jobvisor.supervisor.template.sibling import fork_sibling

ORPHAN_SECONDS = 10  # beyond `boot_timeout`: by then a parent that lives has ended it
ENTER_NS = 5 * SECOND  # for which a worker waits to be let in
ENTER_POLL_MS = 1


class Template(Role):
    """One import, and the copies of it."""

    workers: RoleRow = WORKER

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat)
        self._unfit = False

    def run(self) -> int:
        """The whole life; its exit code says whether the application is unfit to be copied."""
        code = super().run()
        return EX_UNFIT if self._unfit else code

    def boot(self) -> None:
        """Import the application, and see whether it can be copied."""
        began, before = self.clock.monotonic_ns(), resident(os.getpid()) or 0
        examination = Examination()
        # Without a parent nobody looks how long it takes.
        limit = self.seat.config.family.boot_timeout_ms / 1000 + ORPHAN_SECONDS
        signal.setitimer(signal.ITIMER_REAL, limit)
        with examination.watching_imports():
            around_hooks = examination.holding(HOOKS)
            self._application = prepare_application(self.seat.config, around_hooks)
        if any(pool.concurrency > 1 for pool in self.seat.config.workers):
            import_for_lanes(self.seat.config)
        self._settle_down()
        found = examination.findings(self.clock)
        self._log_as_configured()
        self._judge(found)
        signal.setitimer(signal.ITIMER_REAL, 0)
        took, held = self.clock.monotonic_ns() - began, resident(os.getpid()) or 0
        say("preloaded", seconds=f"{took / SECOND:.1f}", size=f"{max(0, held - before) >> 20} MB")
        self.slot[STATE] = IDLE

    def _log_as_configured(self) -> None:
        """At a reload the parent still logs as before; the workers are of the new configuration."""
        config = self.seat.config
        if config.path is not None:
            configure(config.log.level, config.log.format, file=config.log.file)

    def _settle_down(self) -> None:
        """What is here now is shared by all copies: no garbage, and touched by nobody's collector."""
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):  # or each copy would write what is left in it
                stream.flush()
        gc.collect()
        gc.freeze()
        limit = self.seat.config.family.boot_timeout_ms * 1_000_000 // 10
        use_huge_pages(self.clock, min(limit, LIMIT_NS))

    def _judge(self, found: Findings) -> None:
        for what in found.shared:
            say("preload_shares", what=what)
        if found.refused:
            self._unfit = True
            raise JobsError(
                f"the application cannot be preloaded, each worker imports it by itself: {found.reason}; "
                "do so in an @on_start hook or in a task"
            )

    def leaving(self) -> bool:
        """The end of the family, or the parent's word; a TERM is for others."""
        return self.lifeline_cut or bool(self.slot[LEAVE])

    def step(self) -> float:
        """Fork the worker that is asked for, if there is one."""
        self.told_to_leave()  # no, but the log may have been rotated
        owner = self.slot[ASKED]
        if owner and owner != self.slot[MADE]:
            for slot in self.board.slots:
                if slot[LIFE] == owner:  # else it is not wanted any more
                    self._make(slot, owner)
                    break
        return SLEEP_MOST

    def shut_down(self) -> None:
        """There is nothing that would be left."""

    def _make(self, slot: Slot, owner: int) -> None:
        """Fork a worker and tell of it: the owner last, by which the parent knows the answer."""
        seat = replace(
            self.seat,
            slot=slot,
            owner=owner,
            family=slot[FAMILY],
            name=self.workers.name(slot.index),
            pool=slot[POOL],
            wake_read=-1,
            application=self._application,
        )
        closing = [*self.signals.descriptors(), self.seat.wake_read]
        if self.stacks.descriptor >= 0:
            closing.append(self.stacks.descriptor)
        try:
            pid = fork_sibling(lambda: self._enter(seat), closing, self._has_parent)
        except OSError as error:
            pid = -(error.errno or errno.ECHILD)
        self.slot[MADE_PID] = pid
        self.slot[MADE] = owner
        poke(self.seat.parent_poke)

    def _has_parent(self) -> bool:
        return os.getppid() == self.seat.parent

    # -- in the worker

    def _enter(self, seat: Seat) -> int:
        if not is_let_in(seat):
            return EX_OK
        reseed()
        return role_class(self.workers)(seat).run()


def is_let_in(seat: Seat) -> bool:
    """Wait until the parent has this very process for the worker of its slot; False where it wants none.

    It does not where the slot is for another life, where the parent is dead or stops, or has other worries.
    """
    slot, pid = seat.slot, os.getpid()
    until = seat.clock.monotonic_ns() + ENTER_NS
    lifeline = select.poll()
    lifeline.register(seat.lifeline, select.POLLIN)
    while True:
        # The parent takes a pid off before it puts another owner in.
        if slot[PID] == pid and slot[LIFE] == seat.owner:
            return True
        if slot[LIFE] != seat.owner or seat.clock.monotonic_ns() > until:
            return False
        if lifeline.poll(ENTER_POLL_MS):
            return False


def reseed() -> None:
    """Copies of a random number generator give the same numbers; Python's own is seeded anew by a fork."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()
