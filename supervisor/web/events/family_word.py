"""What the family of this folder says of itself, told when it is another word than before."""

from __future__ import annotations

from contextlib import suppress

from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.jobs.errors import JobsError
from jobvisor.supervisor.documents.standing import standing_of
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.web.events.message import as_text


class FamilyWord:
    """The status, as `jobvisor status --json` has it of the family alone; read once a second at most."""

    def __init__(self, state: StateDir | None, clock: Clock = SYSTEM) -> None:
        self._state = state
        self._clock = clock
        self._next = 0
        self._last: str | None = None

    def fresh(self) -> str | None:
        """It as JSON, where it has changed."""
        now = self._clock.monotonic_ns()
        if self._state is None or now < self._next:
            return None
        self._next = now + SECOND
        with suppress(OSError, JobsError):  # half a file, or none: there is another in a moment
            word = as_text(standing_of(self._state, self._name(self._state)))
            if word != self._last:
                self._last = word
                return word
        return None

    def _name(self, state: StateDir) -> str:
        return str((state.status() or {}).get("family", ""))
