"""What a worker with several lanes has claimed and not begun: lanes pull from it, oldest claim first."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from jobvisor.jobs.job import Claimed
from jobvisor.jobs.store import Record, Rest
from jobvisor.jobs.store.base import ALL


class Claim:
    """One committed claim, as long as a job of it is not settled."""

    __slots__ = ("at_ns", "held", "number")

    def __init__(self, number: int, at_ns: int, jobs: Iterable[Claimed]) -> None:
        self.number = number
        self.at_ns = at_ns
        """When it was asked for, by the monotonic clock."""
        self.held = {job.id for job in jobs}
        """Its jobs that are neither settled nor given back."""


Waiting = tuple[Claimed, Claim, bool]
"""A job that has not begun, and whether it is a coroutine's."""


class Backlog:
    """Claims and their jobs. Lanes take, and say what they withdrew; the conductor does the rest."""

    def __init__(self) -> None:
        self.waiting: deque[Waiting] = deque()
        """In the order in which they begin. Taken from by every lane, each at one stroke."""
        self._claims: dict[int, Claim] = {}
        self._withdrawn: deque[tuple[Claim, int]] = deque()
        self._lost: set[int] = set()
        self._loose: set[int] = set()  # claims with rows that are to be released
        self._all = False
        self.taken = 0
        """How many jobs were claimed and not given back."""

    def add(self, claim: Claim, waiting: Iterable[Waiting]) -> None:
        """A claim was committed."""
        self.lost_found(claim.number)
        if claim.held:
            self._claims[claim.number] = claim
            self.taken += len(claim.held)
        self.waiting.extend(waiting)

    def asked(self, number: int) -> None:
        """A claim is about to be asked for: until it is answered its rows may be ours and unknown."""
        self._lost.add(number)

    def lost_found(self, number: int) -> None:
        """It was answered."""
        self._lost.discard(number)

    def withdrew(self, job: Claimed, claim: Claim) -> None:
        """A lane did not begin this one."""
        self._withdrawn.append((claim, job.id))

    def give_back(self) -> None:
        """Nothing of it begins any more."""
        waiting = self.waiting
        while waiting:
            try:
                job, claim, _ = waiting.popleft()
            except IndexError:  # a lane took the last one, and looks whether it may begin
                return
            self._withdrawn.append((claim, job.id))

    def release_all(self) -> None:
        """Whatever runs in this worker's name goes back: it holds nothing."""
        self._all = True

    def owes(self) -> bool:
        """Whether rows are to be released."""
        return bool(self._withdrawn or self._lost or self._loose or self._all)

    def holds(self) -> bool:
        """Whether a job of it is not settled."""
        return bool(self._claims)

    def rest(self) -> Rest | None:
        """What the next turn releases; None for nothing. What runs, waits or is recorded stays."""
        while self._withdrawn:
            claim, job = self._withdrawn.popleft()
            claim.held.discard(job)
            self._loose.add(claim.number)
            self.taken -= 1
        if self._all:
            return ALL
        numbers = self._loose | self._lost
        if not numbers:
            return None
        living = (self._claims[number] for number in numbers if number in self._claims)
        return Rest(tuple(sorted(numbers)), tuple(job for claim in living for job in claim.held))

    def released(self, rest: Rest | None) -> None:
        """It is committed."""
        if rest is ALL:
            self._all = False
        for number in (rest.claims or ()) if rest is not None else ():
            self._loose.discard(number)
            self._lost.discard(number)
            self._forget_if_empty(number)

    def settled(self, records: Sequence[Record]) -> None:
        """These are committed."""
        for record in records:
            claim = self._claims.get(record.claim)
            if claim is not None:
                claim.held.discard(record.job)
                if not claim.held:
                    self._forget_if_empty(record.claim)

    def _forget_if_empty(self, number: int) -> None:
        claim = self._claims.get(number)
        if claim is not None and not claim.held:
            del self._claims[number]
