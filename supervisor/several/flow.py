"""How many jobs a worker with several lanes claims beyond those that can begin: about 20 ms of its work."""

from __future__ import annotations

from jobvisor.supervisor.running.pace import AHEAD_NS, GROWTH

SAMPLE_NS = 5_000_000  # of work, at least, that a rate is taken from


class Flow:
    """The rate at which its jobs end; times are nanoseconds."""

    def __init__(self) -> None:
        self._rate = 0.0  # jobs a nanosecond
        self._since = 0
        self._ended = 0
        self.ahead = 0
        """How many jobs are to wait for a lane after the next turn."""

    @property
    def per_second(self) -> float:
        """Jobs that end, on an average."""
        return self._rate * 1e9

    def turned(self, now: int, ended: int) -> None:
        """A turn has settled so many jobs; while it went on others have begun."""
        self._ended += ended
        took = now - self._since
        if not self._since:
            self._since, self._ended = now, 0
            return
        if took < SAMPLE_NS:
            return
        rate = self._ended / took
        self._rate = 0.7 * self._rate + 0.3 * rate if self._rate else rate
        self._since, self._ended = now, 0
        wanted = int(self._rate * AHEAD_NS + 0.5)
        self.ahead = min(wanted, max(self.ahead, 1) * GROWTH)

    def rested(self) -> None:
        """No lane is busy: what comes next is not known."""
        self._rate, self._since, self._ended, self.ahead = 0.0, 0, 0, 0
