"""Whether somebody follows the changes, as far as this process knows, and what it has to tell them."""

from __future__ import annotations

from collections.abc import Iterable

from jobvisor.jobs.clock import Clock

TRUSTED_NS = 1_000_000_000  # for so long nobody follows, once it was heard that nobody does
TOLD_MOST = 10_000  # ids in one change; of more it is told only that they are more


class Audience:
    """The jobs that the open transaction has changed, kept only while somebody may want to know.

    Asking costs a statement. So a process that heard that nobody follows asks again a second later,
    with the first change that it makes then; a worker without an audience asks once a second at most.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._alone_until = 0
        self._jobs: list[int] = []

    def is_expected(self) -> bool:
        """Whether somebody follows, or nobody has asked for a second."""
        return self._clock.boottime_ns() >= self._alone_until

    def learn(self, asked_ns: int, *, followed: bool) -> None:
        """What the database said, and when it was asked."""
        self._alone_until = 0 if followed else asked_ns + TRUSTED_NS

    def note(self, job: int) -> None:
        """A job that this transaction has changed, or may have."""
        if len(self._jobs) <= TOLD_MOST:
            self._jobs.append(job)

    def note_all(self, jobs: Iterable[int]) -> None:
        """The same of many, which are not even read while nobody follows."""
        if len(self._jobs) <= TOLD_MOST and self.is_expected():
            self._jobs.extend(jobs)

    def has_news(self) -> bool:
        """Whether something is to be told with the commit."""
        return bool(self._jobs) and self.is_expected()

    def news(self) -> str | None:
        """The ids as a change keeps them; None where they are too many."""
        return listed(self._jobs)

    def clear(self) -> None:
        """The transaction has ended."""
        if self._jobs:
            self._jobs = []


def listed(jobs: Iterable[int]) -> str | None:
    """Ids as a change keeps them, perhaps one of them twice; None where they are too many.

    >>> listed([3, 1])
    '3, 1'
    """
    ids = list(jobs)
    return str(ids)[1:-1] if len(ids) <= TOLD_MOST else None  # half the time of a join
