"""How a worker with lanes to spare learns that there is something to claim: woken, or by a look."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.log import say
from jobvisor.jobs.store.base import Waker, Whom, WorkerStore

UNWOKEN_NS = SECOND // 10  # between two looks where nothing can wake this worker
# Turns that claim nothing of what a look has found: the first are lost races, then it waits, up to a second.
IN_VAIN, IN_VAIN_TOLD = 3, 6
IN_VAIN_FIRST_NS, IN_VAIN_CAP_NS = SECOND // 100, SECOND


class Found(enum.Enum):
    """What became of it."""

    NOTHING = "no job is due"
    JOBS = "a claim would find something"
    WOKEN = "a job was just made pending"
    OWNED = "this worker holds rows that it does not know of"


class Seeking:
    """Looks and wake-ups of one worker. The order is watch, drain, look, drain, sleep: see Resting."""

    def __init__(
        self,
        store: WorkerStore,
        waker: Waker,
        clock: Clock,
        *,
        queues: Sequence[str],
        poll_ms: int,
        owner: int,
    ) -> None:
        self._store = store
        self._waker = waker
        self._clock = clock
        self._queues = queues
        self._poll_ns = poll_ms * 1_000_000
        self._owner = owner
        self._asks = owner
        self._in_vain = 0  # turns without a job right after a look that had found one
        self.due_ns = 0
        """When the next look is due."""

    def fileno(self) -> int | None:
        """Readable when this worker is woken."""
        return self._waker.fileno()

    def seek(self, whom: Whom, *, holds_none: bool) -> Found:
        """Hear what has come, and look if that is due; `holds_none` where no row may be this worker's."""
        hint = self._waker.drain()
        if self._waker.heard:
            return Found.WOKEN
        now = self._clock.monotonic_ns()
        if hint is not None:
            self.due_ns = min(self.due_ns, now + int(hint * SECOND))
        elif now >= self.due_ns:
            self._asks = self._owner  # nobody woke it: there is time to ask for more
        if now < self.due_ns:
            return Found.NOTHING
        found, due_ms, owned = self._store.look(
            self._queues, self._asks if holds_none else 0, whom=whom
        )
        self._asks = 0
        if owned:
            return Found.OWNED
        if found:
            return Found.JOBS
        self._in_vain = 0
        wait = self._poll_ns if due_ms is None else min(due_ms * 1_000_000, self._poll_ns)
        # After the look: it may have been the one that found out who can wake it.
        if self._waker.fileno() is None:
            wait = min(wait, UNWOKEN_NS)
        self.due_ns = self._clock.monotonic_ns() + wait
        return Found.NOTHING

    def claimed(self, jobs: int) -> None:
        """A turn has claimed so many: what there is beyond them is seen by a look at once."""
        if jobs:
            self._in_vain = 0
        self.due_ns = self._clock.monotonic_ns()

    def wait_for_key(self, seconds: float) -> None:
        """A turn has put back what it claimed: another worker holds its key. No claim in vain."""
        self._in_vain = 0
        self.due_ns = self._clock.monotonic_ns() + int(seconds * SECOND)

    def claimed_none(self) -> None:
        """A turn has claimed nothing of what was found: others were quicker, or a trigger skips it."""
        self._in_vain += 1
        times = self._in_vain - IN_VAIN
        if times < 0:
            return
        if times == IN_VAIN_TOLD:
            say("claims_in_vain", count=self._in_vain)
        wait = min(IN_VAIN_FIRST_NS << min(times, 20), IN_VAIN_CAP_NS)
        self.due_ns = self._clock.monotonic_ns() + wait

    @property
    def is_hindered(self) -> bool:
        """Whether what cannot be claimed may stand in front of what can."""
        return self._in_vain >= IN_VAIN
