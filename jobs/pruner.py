"""Retention as it goes on: page after page, each as large as may hold the database for a few milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.pruning import BEGINNING, Place, Pruned, Rule
from jobvisor.jobs.store import Store

__all__ = ["Pruner", "Stepped"]

HELD_NS = 4_000_000
"""For how long a page is to hold the database; one in a hundred takes thrice as long, and others wait."""
PAGE_FIRST, PAGE_LEAST, PAGE_MOST = 500, 20, 5_000
LATE_NS = 60 * SECOND
"""A job may be settled so long after its end: a walk begins where one before that time had come to."""
ANEW_NS = 3_600 * SECOND
"""What ended behind that, or was passed over and is not kept any more, a walk from the beginning meets."""


class Stepped(NamedTuple):
    """What one step has come to."""

    gone: int
    more: bool
    """Whether the next one is due at once."""
    held_ns: int


class Pruner:
    """Walks along the finished jobs of each rule, and those that say themselves how long they are kept."""

    def __init__(self, rules: Iterable[Rule], clock: Clock, *, kept: bool = True) -> None:
        """`kept`: after those that say so themselves, too."""
        self._clock = clock
        self._kept = kept
        self._places: dict[Rule, Place] = dict.fromkeys(rules, BEGINNING)
        self._begins: dict[Rule, Place] = dict(self._places)
        self._marks: dict[Rule, Place] = dict(self._places)
        self._marked_ns = clock.monotonic_ns()
        self._left: list[Rule | None] = []
        self._page = PAGE_FIRST
        self._begun_ns = clock.monotonic_ns()

    def step(self, store: Store) -> Stepped:
        """One page at the most; the next step goes on from there."""
        if not self._left:
            self._begin()
        while self._left:
            rule = self._left[0]
            page = self._pruned(store, rule)
            self._adapt(page)
            if not page.more:
                self._left.pop(0)
            if page.gone or page.more:
                return Stepped(page.gone, bool(self._left), page.held_ns)
        return Stepped(0, more=False, held_ns=0)

    def _begin(self) -> None:
        now = self._clock.monotonic_ns()
        if now - self._begun_ns > ANEW_NS:
            self._begun_ns = now
            self._begins = self._marks = dict.fromkeys(self._places, BEGINNING)
        elif now - self._marked_ns > LATE_NS:
            self._begins, self._marks, self._marked_ns = self._marks, self._places, now
        self._places = dict(self._begins)
        self._left = [*([None] if self._kept else []), *self._places]

    def _pruned(self, store: Store, rule: Rule | None) -> Pruned:
        if rule is None:
            return store.prune_kept(limit=self._page)
        page = store.prune_page(rule, self._places[rule], limit=self._page)
        self._places[rule] = page.after
        return page

    def _adapt(self, page: Pruned) -> None:
        """As many as fit the time, by what these took; at most twice as many as before."""
        if page.gone < self._page // 2 and page.held_ns < HELD_NS:
            return  # too few to tell
        fitting = page.gone * HELD_NS // max(page.held_ns, 1)
        self._page = max(PAGE_LEAST, min(fitting, 2 * self._page, PAGE_MOST))
