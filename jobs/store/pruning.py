"""Finished jobs whose time is over, removed a page at a time: found without a lock, then removed quickly."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from jobvisor.jobs.job import State
from jobvisor.jobs.pruning import BEGINNING, Place, Pruned, Rule
from jobvisor.jobs.store.base import MANY
from jobvisor.jobs.store.dialect import Dialect


class Pruning(Dialect):
    """The verbs of retention."""

    def prune_page(self, rule: Rule, after: Place = BEGINNING, *, limit: int) -> Pruned:
        asked = {**rule.parameters(), "queues": json.dumps(rule.queues)}
        rows = self._rows(
            "prune_look", {**asked, "at": after.at, "after": after.id, "limit": limit}
        )
        if not rows:
            return Pruned(0, after, more=False)
        # One that is kept longer is passed over, and not met again by whoever goes on from here.
        last = Place(rows[-1][1], rows[-1][0])
        going = [row[0] for row in rows if row[2]]
        gone, held_ns = 0, 0
        if going:
            gone, held_ns = self._removed("prune", {**asked, "jobs": json.dumps(going)})
        return Pruned(gone, last, more=len(rows) == limit, held_ns=held_ns)

    def prune_kept(self, *, limit: int) -> Pruned:
        gone, held_ns = 0, 0
        if self.prunable_kept(most=1):  # seldom, and else nobody is held up
            gone, held_ns = self._removed("prune_kept", {"limit": limit})
        return Pruned(gone, BEGINNING, more=gone == limit, held_ns=held_ns)

    def _removed(self, name: str, asked: Mapping[str, object]) -> tuple[int, int]:
        """How many have gone, and for how long that held the database: not how long it was waited for."""
        with self.transaction():
            began = self.clock.monotonic_ns()
            rows = self._rows(name, asked)
            self._audience.note_all(row[0] for row in rows)
        return len(rows), self.clock.monotonic_ns() - began

    def prune(self, older_than_ms: Mapping[State, int], *, limit: int) -> int:
        gone = 0
        for state, age in older_than_ms.items():
            place, more = BEGINNING, True
            while more and gone < limit:
                page = self.prune_page(Rule(state, age), place, limit=limit - gone)
                gone, place, more = gone + page.gone, page.after, page.more
        return gone

    def prunable(self, rules: Iterable[Rule]) -> dict[State, int]:
        found: dict[State, int] = {}
        for rule in rules:
            asked = {**rule.parameters(), "queues": json.dumps(rule.queues)}
            found[rule.state] = found.get(rule.state, 0) + self._rows("prunable", asked)[0][0]
        return found

    def prunable_kept(self, *, most: int = MANY) -> int:
        return int(self._rows("prunable_kept", {"limit": most})[0][0])
