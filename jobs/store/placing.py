"""Places of limits on SQLite, where one transaction writes at a time: no key is ever somebody else's."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from jobvisor.jobs.store.limiting import (
    ADMITTED_AT_ONCE,
    BACK,
    PARKED,
    PLACED,
    WAITS,
    Limiting,
    Placed,
    Seats,
)
from jobvisor.jobs.store.tokens import Tokens

ANY = 1_000_000  # as many as there are
LATEST = 1 << 62  # no moment of a rate is later


class Room(NamedTuple):
    """How many jobs of a key may begin now."""

    free: int
    places: int | None = None
    """How many may run at once; None for any number."""
    running: int = 0
    own: int = 0
    """How many of these the owner has."""
    tokens: Tokens | None = None
    """Of its rate, if it has one."""


class Placing(Limiting):
    """What PostgreSQL does in its functions `place` and `admit`."""

    def _place(self, owner: int, claim: int, seats: Seats) -> list[Placed]:
        whose = {"owner": owner, "claim": claim}
        placed = self._park_paused(whose)
        rows = self._rows("claimed_limited", whose)
        if rows:  # who changes the limit later finds its keys
            self._change("make_keys", {"keys": json.dumps(sorted({key for _job, key in rows}))})
        for key, each in groupby(rows, itemgetter(1)):
            placed += self._place_key(key, [job for job, _key in each], seats, whose)
        if placed:
            self._audience.note_all(each.job for each in placed if each.fate != PLACED)
        return placed

    def _park_paused(self, whose: dict[str, int]) -> list[Placed]:
        paused = self._parked_tasks()
        if not paused:
            return []
        rows = self._rows("claimed_of_tasks", {**whose, "paused": json.dumps(sorted(paused))})
        for task in {task for _job, task, _key in rows}:
            self._put_off(f"task:{task}", [job for job, its, _key in rows if its == task])
        self._freed.update(key for _job, _task, key in rows if key is not None)
        return [Placed(job, key, None, WAITS) for job, _task, key in rows]

    def _place_key(
        self, key: str, jobs: list[int], seats: Seats, whose: dict[str, int]
    ) -> list[Placed]:
        room = self._room_of(key, whose)
        most = seats.batch if room.places is None else max(0, seats.lanes - room.own)
        take = min(room.free, len(jobs), most)
        numbers: Iterable[int | None] = [None] * take
        if room.places is not None:
            numbers = self._give_places(key, jobs[:take], room.running)
        if room.tokens is not None:
            self._spend(key, room.tokens.after(take))
        self._put_off(f"{PARKED}{key}", jobs[room.free :])
        if back := jobs[take : room.free]:
            self._change("return_claimed", {"jobs": json.dumps(back)})
            self._pending_made = True  # for whoever has a lane
        return [
            *(
                Placed(job, key, place, PLACED)
                for job, place in zip(jobs[:take], numbers, strict=True)
            ),
            *(Placed(job, key, None, BACK) for job in back),
            *(Placed(job, key, None, WAITS) for job in jobs[room.free :]),
        ]

    def _room_of(self, key: str, whose: dict[str, int]) -> Room:
        rows = self._rows("key_room", {"key": key, **whose})
        if not rows:
            return Room(0)  # nobody has said what this limit is
        places, rate, per_ms, burst, spent, running, own = rows[0]
        free = ANY if places is None else max(0, places - running)
        tokens = None
        if rate is not None:
            tokens = Tokens.of(self.clock.now_ms(), rate, per_ms, burst, spent)
            free = min(free, tokens.free)
        return Room(free, places, running, own, tokens)

    def _give_places(self, key: str, jobs: list[int], running: int) -> list[int]:
        if not jobs:
            return []
        taken = {row[0] for row in self._rows("places_taken", {"key": key})}
        free = [n for n in range(running + len(jobs)) if n not in taken]
        for job, place in zip(jobs, free, strict=False):
            self._change("give_place", {"job": job, "place": place})
        return free[: len(jobs)]

    def _spend(self, key: str, tokens: Tokens) -> None:
        next_at = None if tokens.free else tokens.next_ms
        self._change("spend", {"key": key, "spent": tokens.spent, "next_at": next_at})

    def _put_off(self, parked: str, jobs: list[int]) -> None:
        if jobs:
            self._change("park_claimed", {"parked": parked, "jobs": json.dumps(jobs)})

    def _admit(self, keys: Sequence[str], *, waits: bool) -> int:  # noqa: ARG002 -- nobody else writes
        budget = ADMITTED_AT_ONCE
        for key in keys:
            budget -= self._admit_key(key, budget)
        return ADMITTED_AT_ONCE - budget

    def _admit_key(self, key: str, budget: int) -> int:
        room = self._room_of(key, {"owner": -1, "claim": -1})
        line = {"key": key, "parked": f"{PARKED}{key}", "first": min(room.free, ADMITTED_AT_ONCE)}
        queues = [row[0] for row in self._rows("parked_queues", line)]
        admitted, is_left = 0, False
        for queue in queues if room.free else ():
            is_left = admitted >= budget
            if is_left:
                break
            jobs = [row[0] for row in self._rows("admissible", {**line, "queue": queue})]
            is_left = len(jobs) >= ADMITTED_AT_ONCE or admitted + len(jobs) > budget
            admitted += self._admit_rows(jobs[: budget - admitted])
            if is_left:
                break
        self._pending_made = self._pending_made or bool(admitted)
        told = {"next_at": self._next(room, bool(queues), is_left), "spent": LATEST}
        if room.tokens is not None:
            told["spent"] = room.tokens.spent
        self._change("key_next", {"key": key, **told})
        return admitted

    def _admit_rows(self, jobs: list[int]) -> int:
        if jobs:
            self._change("admit_rows", {"jobs": json.dumps(jobs)})
            self._audience.note_all(jobs)
        return len(jobs)

    def _next(self, room: Room, waits: bool, is_left: bool) -> float | None:
        """What is left waits for a place, which whoever frees it sees to, or for this moment."""
        if room.tokens is not None and not room.tokens.free and waits:
            return room.tokens.next_ms
        return float(self.clock.now_ms()) if is_left else None
