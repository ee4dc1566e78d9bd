"""A clock that tests move by hand."""

from __future__ import annotations

from collections.abc import Callable

from jobvisor.jobs.clock import Clock

START_MS = 2_000_000_000_000  # in 2033: a row with the machine's own time is never ahead of it


class MovableClock(Clock):
    """The time of day stands still until `move`; intervals and sleeps also take their real time."""

    __slots__ = ("_moved_ms", "_set_ms", "on_move")

    def __init__(self) -> None:
        self._moved_ms = 0
        self._set_ms = 0
        #: Called after each move: by whoever keeps this time elsewhere, as a database does.
        self.on_move: list[Callable[[], None]] = []

    def now_ms(self) -> int:
        return START_MS + self._moved_ms + self._set_ms

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self._moved_ms * 1_000_000

    def boottime_ns(self) -> int:
        return super().boottime_ns() + self._moved_ms * 1_000_000

    def move(self, ms: int) -> None:
        """Let this many milliseconds pass; a negative number sets the clock back."""
        self._moved_ms += ms
        for told in self.on_move:
            told()

    def step(self, ms: int) -> None:
        """Somebody sets the time of day: intervals do not notice."""
        self._set_ms += ms
        for told in self.on_move:
            told()


class StandingClock(MovableClock):
    """One whose intervals stand still too: only what was moved has passed."""

    __slots__ = ()

    def monotonic_ns(self) -> int:
        return self._moved_ms * 1_000_000

    def boottime_ns(self) -> int:
        return self._moved_ms * 1_000_000
