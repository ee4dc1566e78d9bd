"""Retention as it goes on: page after page, each as large as may hold the database for a few milliseconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.pruning import BEGINNING, Place, Pruned, Rule
from jobvisor.jobs.store import Store

__all__ = ["PageSize", "Pruner", "Stepped"]

HELD_NS = 4_000_000
"""For how long a page is to hold the database; one in a hundred takes thrice as long, and others wait."""
PAGE_FIRST, PAGE_LEAST, PAGE_MOST = 500, 400, 5_000
PAUSE_LEAST = 0.005  # seconds
PAGES_TOLD = 8
"""The page is as large as the quickest of the last few allow: what held up one of them says nothing."""
ANEW_NS = 3_600 * SECOND
"""A walk from the beginning meets what ended behind the others, or is kept no longer since they passed it."""
LATE_NS = 60 * SECOND
"""Once in this time a walk begins where one had come to that is as old: so late a job may be settled."""
AGAIN_NS = 5 * SECOND
"""All others begin where one had come to so long ago: PostgreSQL reads again what has gone since."""


class Stepped(NamedTuple):
    """What one step has come to."""

    gone: int
    more: bool
    """Whether there is a next one."""
    held_ns: int
    alone: bool = True
    """Whether nobody else could write meanwhile; a server's others wait for none of these rows."""

    @property
    def pause(self) -> float | None:
        """Seconds until the next is due: whoever had to wait has the database as long as this one had it."""
        if not self.more:
            return None
        return max(PAUSE_LEAST, self.held_ns / SECOND) if self.alone else PAUSE_LEAST


class PageSize:
    """How many rows fit the time for which a page may hold the database, by what the last ones took."""

    def __init__(self) -> None:
        self.rows = PAGE_FIRST
        self._costs: deque[float] = deque(maxlen=PAGES_TOLD)

    def learn(self, gone: int, held_ns: int) -> None:
        """What a page has taken; the next has at most twice as many rows."""
        if gone < self.rows // 2 and held_ns < HELD_NS:
            return  # too few to tell
        self._costs.append(held_ns / max(gone, 1))
        fitting = int(HELD_NS / max(min(self._costs), 1))
        self.rows = max(PAGE_LEAST, min(fitting, 2 * self.rows, PAGE_MOST))


class _Trail:
    """Where walks had come to, at least so long ago and at most twice as long."""

    def __init__(self, age_ns: int, places: dict[Rule, Place], now: int) -> None:
        self._age_ns = age_ns
        self._newer = self.places = places
        self._at = now

    def note(self, places: dict[Rule, Place], now: int) -> bool:
        """Where a walk has come to now; True if `places` are others since."""
        if now - self._at <= self._age_ns:
            return False
        self.places, self._newer, self._at = self._newer, places, now
        return True


class Pruner:
    """Walks along the finished jobs of each rule, and those that say themselves how long they are kept."""

    def __init__(self, rules: Iterable[Rule], clock: Clock, *, kept: bool = True) -> None:
        """`kept`: after those that say so themselves, too."""
        self._clock = clock
        self._kept = kept
        self._beginning: dict[Rule, Place] = dict.fromkeys(rules, BEGINNING)
        self._left: list[Rule | None] = []
        self._page = PageSize()
        self._start(clock.monotonic_ns())

    def step(self, store: Store) -> Stepped:
        """One page at the most; the next step goes on from there."""
        if not self._left:
            self._begin()
        while self._left:
            rule = self._left[0]
            page = self._pruned(store, rule)
            self._page.learn(page.gone, page.held_ns)
            if not page.more:
                self._left.pop(0)
            if page.gone or page.more:
                return Stepped(page.gone, bool(self._left), page.held_ns, alone=store.one_machine)
        return Stepped(0, more=False, held_ns=0)

    def _start(self, now: int) -> None:
        self._started_ns = now
        self._places = dict(self._beginning)
        self._again = _Trail(AGAIN_NS, self._beginning, now)
        self._late = _Trail(LATE_NS, self._beginning, now)

    def _begin(self) -> None:
        now = self._clock.monotonic_ns()
        if now - self._started_ns > ANEW_NS:
            self._start(now)
        else:
            self._again.note(self._places, now)
            is_late = self._late.note(self._places, now)
            self._places = dict((self._late if is_late else self._again).places)
        self._left = [*([None] if self._kept else []), *self._places]

    def _pruned(self, store: Store, rule: Rule | None) -> Pruned:
        if rule is None:
            return store.prune_kept(limit=self._page.rows)
        page = store.prune_page(rule, self._places[rule], limit=self._page.rows)
        self._places[rule] = page.after
        return page
