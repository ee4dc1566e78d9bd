"""The scheduler: it enqueues what is due by schedules, and keeps the table of those that its family declares.

It runs no user code. Every family of a database has one while there is a schedule, and all do the same: one
that is killed, stopped or cut off is missed by nobody. It sleeps to the next tick, at most five seconds.
"""

from __future__ import annotations

import random

from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.errors import StoreError
from jobvisor.jobs.events import Events
from jobvisor.jobs.log import is_logged, log_event, say
from jobvisor.jobs.schedule import CODE, CONFIG
from jobvisor.jobs.store import open_store
from jobvisor.jobs.ticker import LOOK_MS, Ticker
from jobvisor.supervisor.board import (
    CODE_FAMILY,
    CODE_GENERATION,
    CODE_PLANS,
    IDLE,
    LEAVE,
    REACHED,
    STATE,
    WAITING_STATE,
)
from jobvisor.supervisor.role import Role, Seat
from jobvisor.supervisor.running.declaring import tell_declared

PATIENCE_LEAST, PATIENCE_MOST = 1.0, 10.0  # seconds for one answer, so that it still beats in time
RETRY_FIRST, RETRY_CAP = 0.1, 5.0  # seconds between two tries for an absent database
DOUBLINGS_MAX = 10
TOLD_AGAIN_NS = 30 * SECOND  # between two lines about a database that stays away
BEATS_IN_S = (
    1.5  # whatever `dead_after` is: a role that does not beat for three seconds may be killed
)
SWEPT_EVERY_NS = 60 * SECOND
TRIMMED_EVERY_NS = 600 * SECOND


class Scheduler(Role):
    """One process, with one connection that it keeps."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat)
        self._failures = 0
        self._told_at = 0
        self._declared = False
        self._swept_at = self._trimmed_at = 0
        self._code: tuple[int, ...] = ()

    def boot(self) -> None:
        """Ready at once: the database may come later."""
        config = self.seat.config
        events = Events()
        events.subscribe(log_event, hears=is_logged)
        self.begin_to_count()
        if self.tally is not None:
            events.subscribe(self.tally.hear, hears=self.tally.hears)
        database, family = config.database, config.family
        self._store = open_store(
            database.url,
            durable=database.durability == "full",
            schema=database.schema,
            prefix=database.prefix,
            notify=database.notify,
            patience=min(max(family.dead_after_ms / 3000, PATIENCE_LEAST), PATIENCE_MOST),
            idle=self.idle_seconds,
            application=f"jobvisor {family.name} {self.seat.name}",
            clock=self.clock,
            events=events,
        )
        self._store.on_wait = self._store.on_migrate = self.beat
        self._ticker = Ticker(self._store, config.defaults, self.clock)
        self._most = min(LOOK_MS / 1000, max(family.dead_after_ms / 6000, BEATS_IN_S))
        self.slot[STATE] = WAITING_STATE

    def leaving(self) -> bool:
        """The end of the family, with or without its word; or a TERM, which everybody is sent."""
        return self.told_to_leave() or self.lifeline_cut or bool(self.slot[LEAVE])

    def step(self) -> float:
        """Look at all schedules once; seconds until the next tick."""
        try:
            self._declare()
            wait = self._ticker.look() / 1000
            self._tidy_up()
        except StoreError as error:
            return self._put_off(error)
        if self._failures and self.slot[REACHED]:
            say("database_back", delay=f"{self._failures} tries")
        self._failures = 0
        self.slot[REACHED] = 1
        self.slot[STATE] = IDLE
        return min(wait, self._most)

    def shut_down(self) -> None:
        """Close the connection."""
        self._store.close()

    def _put_off(self, error: StoreError) -> float:
        """An absent database: said once, tried again, judged by nobody."""
        now = self.clock.monotonic_ns()
        if self.tally is not None:
            self.tally.failed()
        if not self._failures or now - self._told_at > TOLD_AGAIN_NS:
            self._told_at = now
            say("database_lost", error=str(error))
        self._failures += 1
        self.slot[STATE] = WAITING_STATE
        self._store.close()
        delay = min(RETRY_FIRST * 2 ** min(self._failures, DOUBLINGS_MAX), RETRY_CAP)
        return float(min(delay * random.uniform(0.5, 1.0), self._most))

    def _declare(self) -> None:
        """Once: what `[[schedules]]` says is in the table from here on, and nothing that it said before."""
        if self._declared:
            return
        config = self.seat.config
        found = self._store.declare_schedules(
            CONFIG, config.family.name, self.seat.family, config.schedules
        )
        tell_declared("configuration", found)
        self._declared = True

    def _tidy_up(self) -> None:
        now = self.clock.monotonic_ns()
        code = tuple(self.board[word] for word in (CODE_FAMILY, CODE_GENERATION, CODE_PLANS))
        if now >= self._swept_at or code != self._code:  # or after a reload
            self._swept_at, self._code = now + SWEPT_EVERY_NS, code
            self._sweep()
        if now >= self._trimmed_at and not self._store.trim_ticks():
            self._trimmed_at = now + TRIMMED_EVERY_NS

    def _sweep(self) -> None:
        """What other families of this name have declared goes when they are gone.

        What code says is known when a worker has read it, of which a word on the board tells.
        """
        name, family = self.seat.config.family.name, self.seat.family
        removed = self._store.sweep_schedules(CONFIG, name, family)
        if self.board[CODE_FAMILY] == family:
            if self.board[CODE_PLANS] == 1:
                removed += self._store.declare_schedules(CODE, name, family, ()).removed
            else:
                removed += self._store.sweep_schedules(CODE, name, family)
        if removed:
            say("schedules_removed", names=", ".join(removed))
