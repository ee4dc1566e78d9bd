"""Fairness between tenants: which queues are fair, and the turns of their jobs.

In a fair queue a claim goes by `turn`, in virtual time: a job of a share comes one step behind the job of
this share before it, and never before the present, which is the first pending turn. So each share is served
in turn however many jobs it has, and there is no row per share that somebody would have to lock or prune.
Each priority of a queue is a fair queue of its own. The turn is given where a job becomes pending: for the
first time, and again where its turn is over, or all retries of one share would come before everybody else.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.events import Events
from jobvisor.jobs.store.base import Whom
from jobvisor.jobs.store.dialect import Dialect
from jobvisor.jobs.store.rows import NO_TURNS, Row

FAIR_MOST = 1_000  # fair queues of one database
REMEMBERED_NS = SECOND  # for so long a worker goes by what it has read of them
RAISED_EACH_MS = 100  # the mark of a priority; see the statement `take_turns`
LEVELLED_AT_ONCE = 1_000  # rows
LOOKED_AT_ONCE = 1_000  # rows that may have a share and no turn
FORGOTTEN_MS = 35 * 86_400_000  # for so long turns are looked for in a queue that is fair no more
KINDS_MOST = 1_000  # priorities of such queues


class Walk(NamedTuple):
    """How far the rows of a queue and priority were looked at that have no turn."""

    behind: int
    """The id to go on behind."""
    is_first: bool
    """Whether the end was never reached."""


class Fairness(Dialect):
    """The verbs about fair queues, and what a turn does for them."""

    #: Whether the statements that insert a job give it its turn themselves.
    _inserts_turns = False
    #: Whether there is a statement that claims and tells of each row its turn.
    _claims_tell_turns = False

    def __init__(self, clock: Clock, events: Events) -> None:
        super().__init__(clock, events)
        self._fair: frozenset[str] = frozenset()
        self._fair_read_ns: int | None = None
        self._raised_ns: int | None = None
        self._walks: dict[Row, Walk] = {}

    # -- which queues are fair

    def fair_queues(self) -> list[str]:
        return [row[0] for row in self._rows("fair_queues", {"limit": FAIR_MOST})]

    def set_fair(self, queue: str, *, fair: bool) -> bool:
        with self.transaction():
            changed = bool(self._rows("set_fair", {"queue": queue, "fair": int(fair)}))
            if changed:
                self._change("begin_turns", {"queue": queue})
                if len(self._rows("fair_queues", {"limit": FAIR_MOST + 1})) > FAIR_MOST:
                    raise InvalidOption(f"{FAIR_MOST} queues are fair; another one is too many")
                self._fair_read_ns = None
        return changed

    def shares_in_vain(self, limit: int) -> list[str]:
        return [row[0] for row in self._rows("shares_in_vain", {"limit": limit})]

    def shareless(self, limit: int) -> list[str]:
        return [row[0] for row in self._rows("shareless", {"limit": limit})]

    def level_turns(self) -> bool:
        return self._level() | self._line_up()

    def _line_up(self) -> bool:
        """Give turns to what waits without, since before its queue was fair; whether to go on at once.

        A page of what is first in line is looked at, where jobs without a share are too: the next look goes
        on behind it, and is in no hurry where all were looked at once.
        """
        kinds = self._rows("unturned_kinds", {"limit": KINDS_MOST})
        self._walks = {kind: self._walks.get(kind, Walk(0, is_first=True)) for kind in kinds}
        limit = LOOKED_AT_ONCE // max(1, len(kinds))
        hurries = False
        for kind, walk in self._walks.items():
            page = {"queue": kind[0], "priority": kind[1], "after": walk.behind, "limit": limit}
            rows = self._rows("unturned", page)
            shared = [job for job, has_share in rows if has_share]
            if shared:
                with self.transaction():
                    held = self._rows("hold_unturned", {"jobs": json.dumps(shared)})
                    self._give_turns(row[0] for row in held)
            ends = len(rows) < limit
            self._walks[kind] = Walk(0 if ends else rows[-1][0], walk.is_first and not ends)
            hurries = hurries or (not ends and (walk.is_first or bool(shared)))
        return hurries

    def _level(self) -> bool:
        left = LEVELLED_AT_ONCE
        with self.transaction():
            kinds = self._rows("turned_kinds", {"limit": KINDS_MOST})
            for queue, priority in kinds:
                if left > 0:
                    page = {"queue": queue, "priority": priority, "limit": left}
                    left -= self._change("level_turns", page)
            if not kinds:
                self._change("trim_turns", {"age": FORGOTTEN_MS})
        return left <= 0

    # -- turns

    def _fair_among(self, queues: Sequence[str]) -> frozenset[str]:
        """Those of these queues that are fair, as far as this store has heard in the last second."""
        return self._all_fair().intersection(queues)

    def _all_fair(self) -> frozenset[str]:
        now = self.clock.monotonic_ns()
        if self._fair_read_ns is None or now - self._fair_read_ns > REMEMBERED_NS:
            self._fair = frozenset(self.fair_queues())
            self._fair_read_ns = now
        return self._fair

    def _give_turns(self, jobs: Iterable[int]) -> None:
        """Of these jobs those that are pending in a fair queue get turns, unless they have one to come."""
        told = list(jobs)
        if told:
            self._change("give_turns", {"jobs": json.dumps(told)})

    def _taken_turns(self, owner: int, claim: int, whom: Whom, *, told: bool) -> Mapping[int, int]:
        """The turns of what was just claimed of fair queues, by id; the marks are raised to them.

        `told`: the claim has told of them, and none are read here.
        """
        held = {"owner": owner, "claim": claim}
        turns = NO_TURNS if told else dict(self._rows("take_turns", held))
        if (told or turns) and self._may_raise(whom):
            self._change("raise_turns", {**held, "each": RAISED_EACH_MS})
        return turns

    def _may_raise(self, whom: Whom) -> bool:
        """Whether the marks are to be raised once more; the database sees to it that others do not too.

        Suspects are claimed out of the line: how far it has come, the turn of one does not tell.
        """
        if whom is Whom.SUSPECTS:
            return False
        now = self.clock.monotonic_ns()
        if self._raised_ns is not None and now - self._raised_ns < RAISED_EACH_MS * 1_000_000:
            return False
        self._raised_ns = now
        return True
