"""Limits, as every database keeps them: who may begin, who waits, and who lets the next one begin.

A place is a number on a running row. Pending rows with a key are candidates and hold nothing; what a claim
takes and finds no place for is parked. Whoever ends a run or takes a candidate away admits the next ones,
under the lock of the key: a count is true only in a later statement than that lock.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Collection, Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import NamedTuple

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.events import Events
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.limit import COUNTED_MOST, Limit, LimitStanding, Waiting
from jobvisor.jobs.store.base import Record, Rest
from jobvisor.jobs.store.refusals import Refusals
from jobvisor.jobs.store.rows import Row, moment_of

KEYS_AT_ONCE = 500  # that one transaction admits for; what is beyond is found by `admit`
KEYS_LOOKED = 200  # that `admit` looks at in one call
LOOK_ON_MS = (
    200  # between two such calls, where nothing was missed: one takes 5 to 10 ms of the database
)
ADMITTED_AT_ONCE = 1_000  # rows; what is left falls due at once, for whoever asks next
CHECKED_EVERY_NS = 10 * SECOND  # between two looks whether the jobs run whose keys a store knows
REMEMBERED_MOST = 10_000  # jobs whose key a store knows
LIMITS_MOST = 10_000
PARKED = "limit:"
_owner = itemgetter(Record._fields.index("owner"))

PLACED, WAITS, BACK = 0, 1, 2
"""What has become of a claimed row that has a limit."""


class Seats(NamedTuple):
    """How many jobs of one key a claim takes at most."""

    lanes: int
    """Where the key has places: so many run at once."""
    batch: int
    """Where it has only a rate."""


class Placed(NamedTuple):
    """What has become of one."""

    job: int
    key: str | None
    """None of a job without a limit, whose task is paused."""
    place: int | None
    """Its number, where its limit has numbers."""
    fate: int


def fates(placed: Iterable[Placed], fate: int) -> int:
    """How many of these have this one."""
    return sum(each.fate == fate for each in placed)


class Limiting(Refusals):
    """The verbs of limits."""

    def __init__(self, clock: Clock, events: Events) -> None:
        super().__init__(clock, events)
        self._turning = 0  # the owner whose turns this store makes
        self._keys: dict[int, str] = {}  # of jobs that it has claimed for it
        self._check_keys_at = 0  # by the monotonic clock
        self._looked_behind = ""  # the last key that `admit` has looked at
        self._trimmed_behind = ""

    # -- what a dialect brings

    @abstractmethod
    def _place(self, owner: int, claim: int, seats: Seats) -> list[Placed]:
        """Give places to what was just claimed, or let it wait."""

    @abstractmethod
    def _admit(self, keys: Sequence[str], *, waits: bool) -> int:
        """Let begin what is parked for these keys, as far as there is room; how many.

        `waits`: for the locks of all of them, which no transaction may do that holds some already.
        """

    # -- the application

    def limits(self) -> list[Limit]:
        return [Limit._make(row) for row in self._rows("limits", {"limit": LIMITS_MOST})]

    def set_limit(self, limit: Limit) -> None:
        with self.transaction():
            self._change("set_limit", limit._asdict())
        self._admit_all(limit.name)

    def declare_limits(self, limits: Iterable[Limit], *, missing: bool = False) -> list[str]:
        name = "declare_missing_limit" if missing else "declare_limit"
        with self.transaction():
            changed = [
                limit.name
                for limit in sorted(
                    limits, key=attrgetter("name")
                )  # in one order, as whoever else declares them
                if self._change(name, limit._asdict())
            ]
        for each in changed:
            self._admit_all(each)
        return changed

    def remove_limit(self, name: str) -> bool:
        with self.transaction():
            return self._change("remove_limit", {"name": name}) > 0

    def _admit_all(self, name: str) -> None:
        """After a limit has changed, for each of its keys; a page of them and of rows in one transaction.

        All of them, because there may be no family whose caretaker would go on with it. In somebody's
        transaction a page, at its end: whoever holds keys may not wait for rows.
        """
        after = ""
        while True:
            asked = {"name": name, "after_key": after, "limit": KEYS_AT_ONCE}
            keys = [row[0] for row in self._rows("keys_of_limit", asked)]
            if self._depth:
                self._freed.update(keys)
                return
            while keys and self._admit_page(keys) >= ADMITTED_AT_ONCE:
                pass
            if len(keys) < KEYS_AT_ONCE:
                return
            after = keys[-1]

    def _admit_page(self, keys: Sequence[str]) -> int:
        with self.transaction():
            return self._admit(keys, waits=True)

    def limit_standings(self, limit: int = 1_000) -> list[LimitStanding]:
        most = COUNTED_MOST
        return [
            LimitStanding(each, *self._rows("limit_counts", {"name": each.name, "most": most})[0])
            for each in self.limits()[:limit]
        ]

    def unknown_limits(self, limit: int) -> list[str]:
        return sorted(row[0] for row in self._rows("unknown_limits", {"limit": limit}))

    def waiting_for_limit(self, job: int) -> Waiting | None:
        with self.snapshot():
            rows = self._rows("wait_of", {"job": job})
            if not rows or not rows[0][0].startswith(PARKED):
                return None
            parked, queue, priority, turn, _key = rows[0]
            key = parked.removeprefix(PARKED)
            line = {
                "parked": parked, "queue": queue, "priority": priority, "turn": turn, "job": job,
                "most": COUNTED_MOST,
            }  # fmt: skip
            ahead = self._rows("ahead", line)[0][0]
            known = self._rows("key_standing", {"key": key})
        if not known:
            return Waiting(key, None, 0, ahead, None)
        *said, _spent, next_at, running = known[0]
        moment = None if next_at is None else moment_of(next_at)
        return Waiting(key, Limit._make(said), running, ahead, moment)

    # -- workers

    @abstractmethod
    def _parked_tasks(self) -> Collection[str]:
        """Tasks whose jobs are not run now: what a claim takes of them is parked."""

    def _kept(
        self, owner: int, claim: int, seats: Seats, found: list[list[Row]], *, careful: bool
    ) -> tuple[list[list[Row]], dict[int, int | None], int, int]:
        """Of what was claimed the rows that may run, their places, how many wait, how many are put back."""
        if careful:
            placed, refused = self._attempted(self._place, owner, claim, seats)
            if refused is not None:
                placed = self._given_up(owner, claim)
        else:
            placed = self._place(owner, claim, seats)
        if not placed:
            return found, {}, 0, 0
        places = self._noted(placed)
        out = {each.job for each in placed if each.fate != PLACED}
        kept = [[row for row in rows if row[0] not in out] for rows in found]
        return kept, places, fates(placed, WAITS), fates(placed, BACK)

    def _given_up(self, owner: int, claim: int) -> list[Placed]:
        """The database refuses to let one of them wait: each goes back by itself, and that one fails."""
        whose = {"owner": owner, "claim": claim}
        jobs = [job for job, _key in self._rows("claimed_limited", whose)]
        self._each("release", {**whose, "company": None}, [{"job": job} for job in jobs])
        return [Placed(job, None, None, BACK) for job in jobs]

    def _noted(self, placed: Iterable[Placed]) -> dict[int, int | None]:
        """Remember the keys of what begins; the places of these jobs."""
        places: dict[int, int | None] = {}
        for each in placed:
            if each.fate == PLACED and each.key is not None:
                self._keys[each.job] = each.key
                places[each.job] = each.place
        while len(self._keys) > REMEMBERED_MOST:  # what was recalled since is settled by others
            del self._keys[next(iter(self._keys))]
        return places

    def _check_keys(self) -> None:
        """Before a turn, where it knows keys: forget those of jobs whose runs others have ended."""
        now = self.clock.monotonic_ns()
        if now >= self._check_keys_at:
            self._check_keys_at = now + CHECKED_EVERY_NS
            running = self._rows("still_running", {"jobs": json.dumps(list(self._keys))})
            self._keys = {job: self._keys[job] for (job,) in running}

    def _note_ending(self, records: Sequence[Record]) -> None:
        """Before these runs end: places of their keys become free, of whichever have one."""
        for owner in set(map(_owner, records)):
            if owner != self._turning:
                asked = {"owner": owner, "limit": KEYS_AT_ONCE}
                self._freed.update(row[0] for row in self._rows("limited_keys", asked))
        if self._keys:
            self._freed.update(self._keys_of(records))

    def _keys_of(self, records: Iterable[Record]) -> set[str]:
        """As far as this store has claimed them."""
        known = self._keys
        return {known[record.job] for record in records if record.job in known}

    def _forget_keys(
        self, records: Iterable[Record], rest: Rest | None = None, begun: Iterable[Claimed] = ()
    ) -> None:
        """These are settled, what was not held has been given back, and these have begun since."""
        if not self._keys:
            return
        for record in records:
            self._keys.pop(record.job, None)
        if rest is not None and rest.claims is None and rest.up_to is None:
            held = {*rest.held, *(job.id for job in begun)}
            self._keys = {job: key for job, key in self._keys.items() if job in held}

    # -- whoever has freed a place

    def _admit_freed(self) -> None:
        """Once in a transaction the locks of keys are waited for, after that never again."""
        if not self._freed:
            return
        keys, waits = sorted(self._freed)[:KEYS_AT_ONCE], not self._holds_keys
        self._freed = set()
        self._holds_keys = True
        # What the database refuses here must not undo the end of a run.
        self._attempted(lambda: self._admit(keys, waits=waits))

    # -- caretakers

    def _admit_due(self) -> int:
        """Where a rate lets the next one begin."""
        keys = [row[0] for row in self._rows("due_keys", {"limit": KEYS_LOOKED})]
        return self._admit(sorted(keys), waits=False) if keys else 0

    def admit(self) -> int | None:
        asked = {"after_key": self._looked_behind, "limit": KEYS_LOOKED}
        found = self._rows("parked_keys", asked)
        self._looked_behind = found[-1][0] if len(found) == KEYS_LOOKED else ""
        keys, admitted = [key for key, has_room in found if has_room], 0
        if keys:
            with self.transaction():
                self._change("make_keys", {"keys": json.dumps(keys)})
                admitted = self._admit(sorted(keys), waits=False)
        due_ms = self._next_key_due()
        if due_ms == 0:
            with self.transaction():
                self._admit_due()
            due_ms = self._next_key_due()
        if not self._looked_behind:
            return due_ms
        if admitted:
            return 0
        return LOOK_ON_MS if due_ms is None else min(due_ms, LOOK_ON_MS)

    def _next_key_due(self) -> int | None:
        rows = self._rows("next_key_due", {})
        return max(0, rows[0][0]) if rows else None

    def trim_limit_keys(self) -> bool:
        page = {"after_key": self._trimmed_behind, "limit": KEYS_AT_ONCE}
        keys = [row[0] for row in self._rows("keys_page", page)]
        self._trimmed_behind = keys[-1] if len(keys) == KEYS_AT_ONCE else ""
        if not keys:
            return False
        with self.transaction():
            gone = self._rows("trim_keys", {"keys": json.dumps(keys)})
        return len(gone) > KEYS_AT_ONCE // 2
