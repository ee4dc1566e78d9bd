"""What waits in the database, for the metrics: looked at seldom, beside the request, and not waited for long.

A database that hangs must not keep the rest of the metrics from whoever asks. So one thread at a time looks,
and what it has seen is told for as long as it is new.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.limit import LimitStanding
from jobvisor.jobs.schedule import Schedule

EVERY_NS = SECOND
COST = 20  # a look that takes long is taken seldom: 5 % of the time goes into looks
PATIENCE = 2.0  # seconds that a request waits for a look
JOBS_MAX = 5_000  # of each state that are counted
QUEUES_MAX = 200
SCHEDULES_MAX = 256
LIMITS_MAX = 256


class Depths(NamedTuple):
    """One look."""

    queues: dict[str, dict[str, int]]
    """Queue to state to number of jobs."""
    at_least: frozenset[str]
    """The states of which there may be more."""
    oldest: dict[str, float]
    """Queue to the seconds for which the longest waiting of its next jobs has been due."""
    schedules: list[Schedule] = []  # noqa: RUF012 - of a NamedTuple, and never changed
    """The first SCHEDULES_MAX by name."""
    paused: frozenset[tuple[str, str]] = frozenset()
    """What is paused: `queue` or `task`, and its name."""
    limits: list[LimitStanding] = []  # noqa: RUF012 - of a NamedTuple, and never changed
    """The first LIMITS_MAX by name."""
    fair: frozenset[str] = frozenset()
    """The queues whose shares come in turn."""


class DepthLook:
    """Looks at one database."""

    def __init__(self, client: Client, clock: Clock = SYSTEM) -> None:
        self._client = client
        self._clock = clock
        self._lock = threading.Lock()
        self._looking: threading.Event | None = None
        self._due_ns = 0
        self._seen: Depths | None = None
        self._broken: Exception | None = None
        self.errors = 0
        """How many looks have failed, or were not waited for."""

    def see(self) -> Depths | None:
        """The last look, or a new one where that is due; None where the database cannot be asked now."""
        with self._lock:
            now = self._clock.monotonic_ns()
            if self._looking is None and now >= self._due_ns:
                begun = threading.Event()
                thread = threading.Thread(
                    target=self._look, args=(begun,), name="depths", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError:  # there are too many on this machine
                    self.errors += 1
                    return None
                self._looking = begun
            looking = self._looking
        if looking is not None and not looking.wait(PATIENCE):
            self.errors += 1
            return None
        if self._broken is not None:
            raise self._broken
        return self._seen

    def _look(self, done: threading.Event) -> None:
        began = self._clock.monotonic_ns()
        seen: Depths | None = None
        broken: Exception | None = None
        try:
            seen = self._asked()
        except JobsError:
            self.errors += 1
        except Exception as error:  # noqa: BLE001 -- the border of a thread: raised to whoever asks
            broken = error
        ended = self._clock.monotonic_ns()
        with self._lock:
            self._seen, self._broken, self._looking = seen, broken, None
            self._due_ns = ended + max(EVERY_NS, COST * (ended - began))
        done.set()

    def _asked(self) -> Depths:
        tally = self._client.tally(most=JOBS_MAX)
        oldest = self._client.latencies(most=QUEUES_MAX)
        schedules = self._client.schedules.list(limit=SCHEDULES_MAX)
        paused = frozenset((each.kind, each.name) for each in self._client.paused())
        limits = self._client.limits.list(limit=LIMITS_MAX)
        fair = frozenset(self._client.fair_queues())
        return Depths(tally.queues, tally.at_least, oldest, schedules, paused, limits, fair)
