"""How far running jobs say that they have come: carried from their ledgers to their rows."""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.store import Store
from jobvisor.supervisor.board import LANE_COUNT, OWNER, PROGRESS, Board, Running
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.evidence import read_running
from jobvisor.supervisor.ledger.layout import find_file

SLICE_NS = (
    SECOND // 50
)  # for one worker; then others have their turn, and it goes on at the next look
OWNERS_MAX = 1000  # who come and go; one that is forgotten is told of once more at the worst


class Progress:
    """What a caretaker has carried, and from whom."""

    def __init__(self, store: Store, state: StateDir, board: Board, clock: Clock) -> None:
        self._store = store
        self._state = state
        self._board = board
        self._clock = clock
        self._seen: dict[
            int, list[int]
        ] = {}  # of an owner, for each lane: the number of what was carried
        self._last = -1  # the lane that was carried from last

    def carry(self) -> float | None:
        """A duty: all that was said since the last look."""
        for slot in self._board.busy():
            owner, said = slot[OWNER], slot.column(PROGRESS)
            if any(said) and len(said) == slot[LANE_COUNT] and self._seen.get(owner) != said:
                self._carry_from(owner, said)
        if len(self._seen) > OWNERS_MAX:
            self._seen.clear()
        return None

    def _carry_from(self, owner: int, said: list[int]) -> None:
        seen = self._seen.setdefault(owner, [0] * len(said))
        until = self._clock.monotonic_ns() + SLICE_NS
        for run in self._told(owner, said, seen):
            # The numbers were read before the texts: what is said in between is carried once more.
            seen[run.lane] = said[run.lane]
            self._last = run.lane
            self._store.progress(run.job, owner, run.claim, run.progress or "")
            if self._clock.monotonic_ns() > until:
                return

    def _told(self, owner: int, said: list[int], seen: list[int]) -> list[Running]:
        """What runs and has said something new, the lanes behind the last one first."""
        path = find_file(self._state.ledgers, owner)
        running = read_running(path, owner) if path is not None else []
        new = [
            run for run in running
            if run.progress is not None and run.lane < len(said) and said[run.lane] != seen[run.lane]
        ]  # fmt: skip
        return sorted(new, key=lambda run: (run.lane <= self._last, run.lane))
