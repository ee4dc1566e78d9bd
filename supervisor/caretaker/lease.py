"""The family's heartbeat, and the lease that each one buys.

Others take a family for dead whose heartbeat stands still for `dead_after`; it has stopped starting jobs
by then, because every worker looks at the lease before it starts one.
"""

from __future__ import annotations

from collections.abc import Callable

from jobvisor.jobs import __version__
from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.identity import HOST, Identity
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.base import FamilyRow
from jobvisor.supervisor.board import ENTERED, EXPELLED, FOREVER, LEASE_UNTIL, Board
from jobvisor.supervisor.config import Supervision

MARGIN_NS = 2 * SECOND  # at most; a tenth of a short `dead_after`


class Lease:
    """The row of this family in the database, and the word of it on the board."""

    def __init__(
        self,
        store: Store,
        board: Board,
        clock: Clock,
        settings: Supervision,
        *,
        row: tuple[int, Identity, str],
        on_expelled: Callable[[], None],
    ) -> None:
        """`row` is the family's id, who its parent is, and its state directory."""
        self._store = store
        self._board = board
        self._clock = clock
        self._settings = settings
        self._family, self._parent, self._state_dir = row
        self._on_expelled = on_expelled
        # Whether the family has a row: this life wrote it, or the caretaker before it did.
        self._entered = board[ENTERED] == self._family

    def renew(self) -> float | None:
        """A duty: beat, and start nothing more where the family was declared dead."""
        sent = self._clock.boottime_ns()
        if self._board[EXPELLED] == self._family:
            return None
        self._store.check_schema()
        dead_after_ms = self._settings.dead_after_ms
        # With the time that others are to wait, which a reload may have changed: the lease is for that.
        beaten = self._store.heartbeat(self._family, dead_after_ms)
        if not beaten and not self._entered:
            beaten = self._enter()
        if not beaten:
            # Declared dead: what was claimed may run elsewhere by now. Start nothing more; the
            # parent lets everybody finish and leave, and comes back as a new family.
            self.end()
            self._board[EXPELLED] = self._family
            self._on_expelled()
            return None
        self._entered = True
        self._board[ENTERED] = self._family
        limit = dead_after_ms * 1_000_000
        until = sent + limit - min(MARGIN_NS, limit // 10)
        self._board[LEASE_UNTIL] = until if self._is_judged_by_time() else FOREVER
        return None

    def end(self) -> None:
        """From here on no worker starts a job."""
        self._board[LEASE_UNTIL] = 0

    def leave(self) -> None:
        """The family's row goes with the last of its lives."""
        if not self._store.owners(self._family):
            self._store.remove_family(self._family)

    def _enter(self) -> bool:
        settings = self._settings
        return self._store.add_family(
            FamilyRow(
                self._family, settings.name, HOST, *self._parent, __version__, self._state_dir,
                settings.dead_after_ms,
            )
        )  # fmt: skip

    def _is_judged_by_time(self) -> bool:
        """Others judge a family by time; on one machine only those in other containers do."""
        return not self._store.one_machine or any(
            family.pid_namespace != self._parent.pid_namespace for family in self._store.families()
        )
