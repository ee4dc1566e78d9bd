"""How many workers each pool has: as configured, as it was asked for, or within a range by what waits."""

from __future__ import annotations

from collections import Counter

from jobvisor.jobs.keys import LANES_MAX, PROCESSES_MAX
from jobvisor.jobs.log import say
from jobvisor.supervisor.board import (
    IDLE_SEEN,
    LATENCY_SEEN,
    LEAST,
    MOST,
    REACHED,
    SEEN_AT,
    SEEN_BY,
    WANTED,
    WHY,
    WHY_MS,
    Board,
)
from jobvisor.supervisor.config import Config, Workers
from jobvisor.supervisor.parent.crew import Crew, Post
from jobvisor.supervisor.parent.nursery import Nursery
from jobvisor.supervisor.roster import CARETAKER, WORKER
from jobvisor.supervisor.staffing import Look, Staffing, why_text


class Scale:
    """The posts of a family, made and given up."""

    def __init__(self, crew: Crew, nursery: Nursery, board: Board) -> None:
        self._crew = crew
        self._nursery = nursery
        self._board = board
        self._staffings: dict[str, Staffing] = {}

    def furnish(self, config: Config) -> None:
        """A post for each child of a configuration, before the first fork."""
        self._crew.add(CARETAKER)
        self.follow(config)

    def follow(self, config: Config) -> None:
        """The pools of another configuration; one that has a range keeps its workers within that."""
        known, self._staffings = self._staffings, {}
        for pool in config.workers:
            limits = (pool.processes, pool.scale_latency_ms, pool.scale_idle_ms)
            if pool.name in known:
                known[pool.name].follow(*limits)
            self._staffings[pool.name] = known.get(pool.name) or Staffing(*limits)
        self._publish(config)
        self._settle(config)

    def go_on(self, config: Config) -> None:
        """Decide by what the caretaker has seen; then make and give up posts, as far as there are places."""
        for number, pool in enumerate(config.workers):
            staffing = self._staffings[pool.name]
            look = self._look(number) if staffing.least < staffing.most else None
            if look is not None and staffing.note(look, ready=self._is_ready(pool.name)):
                self._say(config, pool)
        self._settle(config)

    def set(self, config: Config, pool: Workers, least: int) -> str:
        """At least so many workers for a pool, and ""; or why it cannot have them, and nothing is changed.

        Where the pool has no range it is exactly so many.
        """
        refused = self._why_not(config, pool, least)
        if refused:
            say("scale_refused", error=refused)
        elif least != self.least(pool.name):
            self._staffings[pool.name].ask(least)
            self._say(config, pool)
            self._settle(config)
        return refused

    def told(self, pool: str) -> dict[str, int]:
        """How many workers a pool is to have, at the least and at the most."""
        found = self._staffings[pool]
        return {"workers": found.wanted, "least": found.least, "most": found.most}

    def least(self, pool: str) -> int:
        """How many workers a pool has at the least."""
        return self._staffings[pool].least

    def wanted(self, pool: str) -> int:
        """How many workers there are to be in a pool; none in one that there is not."""
        staffing = self._staffings.get(pool)
        return staffing.wanted if staffing is not None else 0

    @property
    def total(self) -> int:
        """How many workers there are to be in all pools."""
        return sum(staffing.wanted for staffing in self._staffings.values())

    # -- deciding

    def _look(self, number: int) -> Look | None:
        """What the caretaker of this configuration saw last."""
        words = self._board.pools[number]
        at, by = words[SEEN_AT], words[SEEN_BY]
        found = Look(at, words[LATENCY_SEEN], words[IDLE_SEEN])
        same = words[SEEN_AT] == at and by == self._crew.generation
        return found if same else None

    def _is_ready(self, pool: str) -> bool:
        """Whether all workers have been at work, since they were added or last kept dying."""
        staying = self._crew.staying(pool)
        for post in staying:
            post.has_worked = post.has_worked or bool(post.pid and post.slot[REACHED])
        return len(staying) == self.wanted(pool) and all(post.has_worked for post in staying)

    def _say(self, config: Config, pool: Workers) -> None:
        found = self._staffings[pool.name]
        say(
            "scaled", pool=pool.name, count=found.wanted, least=found.least, most=found.most,
            reason=why_text(found.why, found.why_ms),
        )  # fmt: skip
        self._publish(config)
        self._nursery.wake_caretaker()

    def _publish(self, config: Config) -> None:
        for number, pool in enumerate(config.workers):
            words, found = self._board.pools[number], self._staffings[pool.name]
            words[LEAST], words[MOST], words[WANTED] = found.least, found.most, found.wanted
            words[WHY], words[WHY_MS] = found.why, found.why_ms

    def _why_not(self, config: Config, pool: Workers, least: int) -> str:
        asked = f"pool {pool.name} cannot have {least} workers"
        if least < 1:
            return f"{asked}: a pool has at least 1; `jobvisor stop` ends the family"
        others = [
            (other.places(self._staffings[other.name].most), other.concurrency)
            for other in config.workers
            if other.name != pool.name
        ]
        places = PROCESSES_MAX - sum(places for places, _ in others)
        lanes = LANES_MAX - sum(places * each for places, each in others)
        most = min(places, lanes // pool.concurrency) // pool.places(1)
        if least <= max(most, self._staffings[pool.name].most):
            return ""
        return (
            f"{asked}: at most {most} are possible, because a family has {PROCESSES_MAX} places and "
            f"{LANES_MAX} lanes for workers, and a pool with overlap needs them twice; have fewer here or "
            "in another pool"
        )

    # -- posts

    def _settle(self, config: Config) -> None:
        has = Counter(
            post.pool
            for post in self._crew
            if post.role.runs_jobs and not post.departs and not post.on_trial
        )
        for pool in config.workers:
            wanted = self.wanted(pool.name)
            if has[pool.name] < wanted:
                self._grow(pool)
            elif has[pool.name] > wanted:
                self._shrink(pool)

    def _grow(self, pool: Workers) -> None:
        """Workers that leave hold their places until they have left."""
        staffing = self._staffings[pool.name]
        staying, departing = self._crew.staying(pool.name), self._crew.departing(pool.name)
        room = min(
            pool.places(staffing.most) - len(staying) - len(departing),
            PROCESSES_MAX - len(self._crew.workers()),
            self._crew.room,
        )
        for _ in range(min(staffing.wanted - len(staying), room)):
            self._crew.add(WORKER, pool.name)

    def _shrink(self, pool: Workers) -> None:
        """Those leave who do nothing, and of them the newest; nobody is interrupted."""
        staying = self._crew.staying(pool.name)
        if pool.overlap and any(map(self._crew.is_old, staying)):
            return  # the old ones are to leave anyway, when the new ones are ready
        staying.sort(key=_does_something, reverse=True)
        for post in staying[self.wanted(pool.name) :]:
            if post.pid:
                self._nursery.ask_to_leave(post, "scale", departs=True)
            else:
                self._crew.remove(post)


def _does_something(post: Post) -> int:
    """0 for a post that nobody holds, 1 for a worker without a job, 2 for one with a job."""
    if not post.pid:
        return 0
    return 2 if post.slot.running() else 1
