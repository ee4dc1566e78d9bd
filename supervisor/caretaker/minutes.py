"""The sums of each minute: what was counted in it and how deep the queues were, kept in the table `stats`.

They are taken from the counters, so that a chart costs no scan, and so only where `[web] enabled`. What was
counted since the last full minute is in memory alone: a family that is killed loses that, a caretaker that
is killed as well; one that leaves in order writes it. While the database is away minutes wait, two hours of
them at the most.
"""

from __future__ import annotations

from collections import deque
from operator import add, sub

from jobvisor.jobs.annals import MINUTE_MS, Sums
from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import RowRefused, StoreRefused
from jobvisor.jobs.log import say
from jobvisor.jobs.store import Store
from jobvisor.supervisor.counting.layout import (
    CPU_NS,
    OTHER,
    OUTCOMES,
    OUTCOMES_AT,
    RUN_NS,
    WAIT_BOUNDS_MS,
    WAIT_MS,
    WAITS_AT,
)
from jobvisor.supervisor.counting.totals import Reader, Totals, Words

EVERY_SECONDS = 1.0
DEPTHS_EVERY_NS, DEPTHS_SELDOM_NS = 10_000_000_000, 60_000_000_000
COST = 50  # a look that takes long is taken seldom: 2 % of the time goes into looks
DEPTH_MOST = 10_000
QUEUES_MAX = 200  # that a minute has by their names, of those with jobs and of those that wait
MINUTES_MOST = 120


class Minutes:
    """What one caretaker writes."""

    def __init__(self, store: Store, reader: Reader, clock: Clock) -> None:
        self._store = store
        self._reader = reader
        self._clock = clock
        self._minute = clock.now_ms() // MINUTE_MS
        self._before = reader.read()
        self._depths: dict[str, tuple[int, int]] = {}
        self._look_at = clock.monotonic_ns()
        self._waiting: deque[list[Sums]] = deque(maxlen=MINUTES_MOST)

    def end_if_over(self) -> float | None:
        """A duty, with or without a database: sum up the minute that has ended."""
        if self._clock.now_ms() // MINUTE_MS != self._minute:
            self._end_minute()
        return None

    def keep(self) -> float | None:
        """A duty: write what was summed up, and look how deep the queues are."""
        self._write()
        if self._clock.monotonic_ns() >= self._look_at:
            self._look()
        return None

    def write_all(self) -> None:
        """What was counted up to now, by who leaves."""
        self._end_minute()
        self._write()

    def _look(self) -> None:
        began = self._clock.monotonic_ns()
        self._look_at = began + DEPTHS_EVERY_NS  # also where the database is away
        queues = self._store.tally(most=DEPTH_MOST).queues
        waiting = self._store.waiting(QUEUES_MAX)
        for queue in sorted(queues)[:QUEUES_MAX]:
            if pending := queues[queue].get("pending", 0):
                seen = (pending, waiting.get(queue, 0))
                known = self._depths.get(queue, seen)
                self._depths[queue] = (max(seen[0], known[0]), max(seen[1], known[1]))
        took = self._clock.monotonic_ns() - began
        self._look_at += min(max(0, COST * took - DEPTHS_EVERY_NS), DEPTHS_SELDOM_NS)

    def _end_minute(self) -> None:
        """Sum up what was counted since the one before; nothing where nothing was."""
        now = self._reader.read()
        by_queue = _bounded(_since(self._before, now))
        queues = sorted({*by_queue, *self._depths})
        at = self._minute * MINUTE_MS
        rows = [_sums(at, queue, by_queue.get(queue), self._depths.get(queue)) for queue in queues]
        if rows:
            self._waiting.append(rows)
        self._before, self._depths = now, {}
        self._minute = self._clock.now_ms() // MINUTE_MS

    def _write(self) -> None:
        while self._waiting:
            try:
                self._store.add_stats(self._waiting[0])
            except (RowRefused, StoreRefused) as error:
                # It would be refused again, and nothing else of the caretaker's may wait for that.
                say("sums_refused", error=str(error))
            self._waiting.popleft()


def _since(before: Totals, now: Totals) -> dict[str, Words]:
    """What has been added of each queue, of all its tasks together; without those where nothing was."""
    found: dict[str, Words] = {}
    for (task, queue), words in now.pairs.items():
        known = before.pairs.get((task, queue))
        added = words if known is None else list(map(sub, words, known))
        if any(added):
            _put(found, queue, added)
    return found


def _bounded(by_queue: dict[str, Words]) -> dict[str, Words]:
    """With a limit to the names, the rest as one."""
    found: dict[str, Words] = {}
    for number, queue in enumerate(sorted(by_queue)):
        _put(found, queue if number < QUEUES_MAX else OTHER, by_queue[queue])
    return found


def _put(found: dict[str, Words], queue: str, added: Words) -> None:
    known = found.get(queue)
    found[queue] = added if known is None else list(map(add, known, added))


def _sums(at_ms: int, queue: str, words: Words | None, depth: tuple[int, int] | None) -> Sums:
    deep, oldest = depth or (None, None)
    if words is None:
        return Sums(at_ms, queue, depth=deep, oldest_ms=oldest)
    outcomes = dict(zip(OUTCOMES, words[OUTCOMES_AT:], strict=False))
    waits = words[WAITS_AT : WAITS_AT + len(WAIT_BOUNDS_MS) + 1]
    return Sums(
        at_ms,
        queue,
        started=sum(waits),
        succeeded=outcomes["succeeded"],
        failed=outcomes["failed"],
        retried=outcomes["retried"],
        cancelled=outcomes["cancelled"],
        run_ms=words[RUN_NS] // 1_000_000,
        cpu_ms=words[CPU_NS] // 1_000_000,
        wait_ms=words[WAIT_MS],
        wait_max_ms=_longest(waits, words[WAIT_MS]),
        depth=deep,
        oldest_ms=oldest,
    )


def _longest(waits: Words, total_ms: int) -> int:
    """No wait was longer: the end of the last bucket that has one, or all together."""
    last = max((number for number, each in enumerate(waits) if each), default=-1)
    return min(total_ms, WAIT_BOUNDS_MS[last]) if 0 <= last < len(WAIT_BOUNDS_MS) else total_ms
