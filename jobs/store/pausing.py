"""Pausing queues and tasks: stored for all families, and obeyed by whoever claims from then on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobvisor.jobs.annals import QUEUE, Paused
from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.events import Events
from jobvisor.jobs.store.fairness import Fairness
from jobvisor.jobs.store.limiting import Limiting
from jobvisor.jobs.store.pauses import Pauses
from jobvisor.jobs.store.rows import Row, moment_of, moment_or_none

FREED_AT_ONCE = 1_000  # jobs of tasks that are paused no more
PAUSED_MOST = 1_000  # queues and tasks at once: every worker keeps them in memory
FORGOTTEN_AT_ONCE = 1_000  # pauses that have ended
ENDED_MS = 86_400_000  # before that, for a clock may be set back


FORGETTING = ("forget_queues", "forget_pauses", "forget_tasks", "forget_task_pauses")


class Pausing(Limiting, Fairness):
    """The verbs of pauses, and what a claim has to know of them."""

    def __init__(self, clock: Clock, events: Events) -> None:
        super().__init__(clock, events)
        self._pauses = Pauses(clock)

    def pause(
        self, kind: str, name: str, *, until_ms: int | None = None, for_ms: int | None = None
    ) -> Paused:
        asked = {"name": name, "until": until_ms, "for_ms": for_ms}
        with self.transaction():
            rows = self._rows(f"pause_{kind}", asked)
            if not rows:
                raise InvalidOption(f"the {kind} {name} is not paused: that moment has passed")
            self._change("note_settings", {})
            if len(self._rows("paused", {"limit": PAUSED_MOST + 1})) > PAUSED_MOST:
                raise InvalidOption(
                    f"{PAUSED_MOST} queues and tasks are paused already; resume some of them first"
                )
        return _paused((kind, *rows[0]))

    def resume(self, kind: str, name: str) -> bool:
        with self.transaction():
            was_paused = bool(self._rows(f"resume_{kind}", {"name": name}))
            if was_paused:
                self._change("note_settings", {})
                self._pending_made = self._pending_made or kind == QUEUE  # idle workers look
        return was_paused

    def paused(self) -> list[Paused]:
        return [_paused(row) for row in self._rows("paused", {"limit": PAUSED_MOST})]

    def free_tasks(self) -> bool:
        parked = [row[0] for row in self._rows("parked_tasks", {"limit": PAUSED_MOST})]
        freed = 0
        for task in parked:
            if freed < FREED_AT_ONCE:
                freed += self._unpark(f"task:{task}", FREED_AT_ONCE - freed)
        return freed >= FREED_AT_ONCE

    def forget_pauses(self) -> bool:
        page = {"age": ENDED_MS, "limit": FORGOTTEN_AT_ONCE}
        with self.transaction():
            gone = [self._change(name, page) for name in FORGETTING]
        return max(gone) >= FORGOTTEN_AT_ONCE

    def _unpark(self, parked: str, limit: int) -> int:
        with self.transaction():
            rows = self._rows("unpark", {"parked": parked, "limit": limit})
            self._give_turns(row[0] for row in rows if row[1])
            self._pending_made = self._pending_made or bool(rows)
            self._audience.note_all(row[0] for row in rows)
            return len(rows)

    # -- what a claim has to know

    def _parked_tasks(self) -> frozenset[str]:
        return self._pauses.tasks()

    def _open(self, queues: Sequence[str]) -> Sequence[str]:
        """Those of these queues that are not paused, by what the database has now."""
        rows = self._rows("meta", {"key": "settings"})
        return self._open_by(rows[0][0] if rows else None, queues)

    def _open_by(self, version: str | None, queues: Sequence[str]) -> Sequence[str]:
        """The same, where the number of the settings has just been read."""
        if not self._note_version(version):
            self._recall_pauses()
        return self._pauses.open(queues)

    def _recall_pauses(self) -> None:
        """Read the pauses anew where one is over by this machine's clock: the database's decides."""
        if self._pauses.are_old():
            self._read_settings()

    def _note_version(self, version: str | None) -> bool:
        """The database has this number of settings: read them if it is another one; whether it is."""
        if version == self._pauses.version:
            return False
        self._read_settings()
        return True

    def _read_settings(self) -> None:
        self._pauses.learn(*self._rows("settings", {"limit": PAUSED_MOST})[0])

    def _sooner(self, due_ms: int | None, queues: Iterable[str]) -> int | None:
        """When the next row is due, or the first of the pauses of these queues ends."""
        ends = self._pauses.ends_in_ms(queues)
        return min((each for each in (due_ms, ends) if each is not None), default=None)


def _paused(row: Row) -> Paused:
    kind, name, since, until = row
    return Paused(kind, name, moment_of(since), moment_or_none(until))
