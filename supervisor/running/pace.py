"""How many jobs a worker claims in one turn: enough that turns cost little, few enough to share."""

from __future__ import annotations

AHEAD_NS = 20_000_000  # of work in a batch: what a neighbour may have to wait
AHEAD_MOST_NS = 40_000_000  # below what a claim is recalled for
OVERRUN_NS = 100_000_000  # of work in one batch: what it has not begun by then is others' as well
TURNS_COST = 24  # where a turn is slow, a batch is this many times as long: 4 % between batches
GROWTH = 4  # at most, so that one quick job does not fetch five hundred slow ones


class Pace:
    """One average of the jobs and one of the turns between them; times are nanoseconds."""

    def __init__(self, batch_max: int) -> None:
        self._batch_max = batch_max
        self._job_ns = 0.0
        self._turn_ns = 0.0
        self._ended = 0
        self.batch = 1
        """How many jobs the next turn should claim."""

    def began(self, now: int) -> None:
        """The first job of a batch begins; after a batch before it, this tells what a turn takes."""
        if self._ended:
            self._turn_ns = _average(self._turn_ns, now - self._ended)
            self._ended = 0

    def ended(self, now: int, took: int, jobs: int) -> None:
        """So many jobs of a batch have run: the next one is as many as make about 20 ms of work.

        Of short jobs more where turns are slow (a busy disk, a far server): 2.5 ms between batches of
        16 ms cost 1.35 x the ideal of jobs of 2 ms (measured).
        """
        self._ended = now
        # One job of an hour tells no more about the next ones than one that was too long for its batch.
        self._job_ns = _average(self._job_ns, min(took, OVERRUN_NS) / jobs)
        ahead = min(max(AHEAD_NS, TURNS_COST * self._turn_ns), AHEAD_MOST_NS)
        # Rounded up: of jobs a little longer than a fifth of it five are claimed, and not four.
        wanted = int(ahead / max(self._job_ns, 1.0) + 0.5)
        self.batch = max(1, min(wanted, self.batch * GROWTH, self._batch_max))

    def rested(self) -> None:
        """There was nothing to claim: what comes next is not known."""
        self.batch = 1
        self._ended = 0


def _average(known: float, one: float) -> float:
    return 0.7 * known + 0.3 * one if known else float(one)
