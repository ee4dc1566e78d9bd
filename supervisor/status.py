"""What the family says of itself: the board as a file, written by the caretaker.

The board is anonymous memory, so whoever asks from outside reads `state_dir/status.json`: replaced
by a rename each second while jobs run, each five while none does, and at once when a process, the
scale or the family's state changes.
"""

from __future__ import annotations

import json
import os
from collections import deque
from contextlib import suppress
from typing import Any

from jobvisor.jobs import __version__
from jobvisor.jobs.clock import Clock, iso, to_datetime
from jobvisor.jobs.identity import HOST, Identity
from jobvisor.jobs.log import say
from jobvisor.jobs.store.base import Death, Unknown
from jobvisor.jobs.url import shown_url
from jobvisor.supervisor.board import (
    BACKOFF,
    BOOTING,
    BORN,
    CLAIM,
    DEGRADED,
    EMPTY,
    FAILURES,
    FIRST_TEMPLATE,
    IDLE,
    LACKS_LEDGER,
    LANE_COUNT,
    LEAST,
    MOST,
    NEXT_TEMPLATE,
    PARENT_NOTE,
    PID,
    PRELOAD,
    PRELOAD_NOTE,
    REACHED,
    REFUSED,
    RELOAD_STATE,
    RELOAD_STATES,
    RELOADS,
    RESTARTS,
    ROLE,
    SINCE,
    SLOT_STATE,
    STARTED_AT,
    STATE,
    STOP,
    UNFIT,
    WAITING_STATE,
    WANTED,
    WHY,
    WHY_MS,
    Board,
    Grave,
    Slot,
    state_name,
    why_leaving,
)
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.memory import resident
from jobvisor.supervisor.roster import QUARANTINE, ROSTER, WEB, RoleRow
from jobvisor.supervisor.staffing import why_text

EVERY_NS = 1_000_000_000
QUIET_NS = 5 * EVERY_NS  # while nothing moves: to replace a file waits for the disk
DEATHS_KEPT = 20
JOBS_SHOWN = 100  # of one worker, the longest


class Status:
    """The last word of the family about itself."""

    def __init__(
        self, board: Board, config: Config, state: StateDir, clock: Clock, family: int
    ) -> None:
        self._board = board
        self._config = config
        self._path = os.path.join(state.path, "status.json")
        self._clock = clock
        self._family = family
        self._parent = Identity.of(os.getppid()) or Identity.mine()
        self._deaths: deque[dict[str, Any]] = deque(maxlen=DEATHS_KEPT)
        self._written_ns = 0
        self._shape: object = None
        self._shows_busy = False
        self._degraded_before: list[str] = []
        self.unknown: list[Unknown] = []
        """Tasks that jobs wait for and no module has, as the caretaker last saw them."""
        self.unknown_limits: list[str] = []
        """Limits that jobs wait for and nobody has set."""

    def note_death(self, grave: Grave, death: Death | None, job: int) -> None:
        """A life has been settled: what it died of, and the job that paid for it."""
        ended = Exit(grave.pid, grave.status)
        cause = death.text if death else ended.signal or f"exit code {ended.code}"
        self._deaths.append(
            {
                "at": iso(to_datetime(self._clock.now_ms())),
                "slot": grave.slot,
                "pid": grave.pid,
                "cause": cause,
                "outcome": death.outcome if death else None,
                "signal": ended.signal,
                "exit_code": ended.code,
                "job": job or None,
                "settled_after_ms": (self._clock.monotonic_ns() - grave.at) // 1_000_000,
            }
        )
        self._shape = None

    def write_if_due(self, *, waiting: bool) -> None:
        """Write where the shape of the family is another, or it is time."""
        shape = (waiting, self._shape_now())
        # Once more after the last job, or a worker would be shown at it while it rests.
        every = EVERY_NS if self._shows_busy or self._board.busy() else QUIET_NS
        if shape != self._shape or self._clock.monotonic_ns() - self._written_ns >= every:
            self.write(waiting=waiting)
            self._shape = shape

    def _shape_now(self) -> object:
        board = self._board
        return (
            self._pools(), [self._scaling(each) for each in range(len(self._config.workers))],
            board[RELOADS], board[RELOAD_STATE],
            board[STOP], board[DEGRADED], board[RESTARTS],
            [
                (
                    slot[PID], slot[SLOT_STATE], min(slot[STATE], IDLE), slot[REACHED],
                    why_leaving(slot),
                )
                for slot, _row in self._seats()
            ],
        )  # fmt: skip

    def _seats(self) -> list[tuple[Slot, RoleRow]]:
        """The slots in use with their roles, read once: the parent may clear a slot at any moment."""
        seats = (
            (slot, ROSTER.get(slot[ROLE]))
            for slot in self._board.slots
            if slot[SLOT_STATE] != EMPTY
        )
        return [(slot, row) for slot, row in seats if row is not None]

    def write(self, *, waiting: bool, stopped: bool = False) -> None:
        """Write now; a full disk costs this writing, not the family."""
        self._written_ns = self._clock.monotonic_ns()
        self._shows_busy = bool(self._board.busy())
        text = json.dumps(self._content(waiting, stopped), indent=1)
        beside = f"{self._path}.{os.getpid()}"
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
            with open(os.open(beside, flags, 0o644), "w", encoding="utf-8") as file:
                # For whoever may look into the folder, whatever the umask: 0700 lets nobody in, and
                # `chmod 711` lets a monitoring user in, here and not at the ledgers.
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
            os.replace(beside, self._path)
        except OSError:
            with suppress(OSError):
                os.unlink(beside)

    def _content(self, waiting: bool, stopped: bool) -> dict[str, Any]:
        board = self._board
        degraded = self._degraded(waiting)
        self._say_change(degraded)
        workers = [self._slot(slot, row) for slot, row in self._seats() if row.runs_jobs]
        if stopped:
            state = "stopped"
        elif board[STOP]:
            state = "stopping"
        elif degraded:
            state = "degraded"
        elif board[PRELOAD] == FIRST_TEMPLATE or any(
            worker["state"] == "booting" for worker in workers
        ):
            state = "starting"
        else:
            state = "running"
        return {
            "family": self._config.family.name,
            "family_id": str(self._family),  # 63 bits: as a number jq and JavaScript would round it
            "pid": self._parent.pid,
            "start_ticks": self._parent.start_ticks,
            "host": HOST,
            "version": __version__,
            "state": state,
            "started_at": iso(to_datetime(board[STARTED_AT])),
            "written_at": iso(to_datetime(self._clock.now_ms())),
            "database": shown_url(self._config.database.url),
            "waiting_for_database": waiting,
            "degraded": degraded,
            "unknown_tasks": [each._asdict() for each in self.unknown],
            "unknown_limits": self.unknown_limits,
            "scale": sum(self._pools().values()),
            "pools": self._pools(),
            "serves": {pool.name: list(pool.queues) for pool in self._config.workers},
            "scaling": {
                pool.name: {
                    **self._scaling(number),
                    "now": self._present(pool.name),
                    "queues": list(pool.queues),
                }
                for number, pool in enumerate(self._config.workers)
            },
            "reload": self._reload(),
            "restarts": board[RESTARTS],
            "workers": workers,
            **{row.word: self._only(row) for row in ROSTER.values() if not row.runs_jobs},
            "web": self._site(),
            "deaths": list(self._deaths),
        }

    def _pools(self) -> dict[str, int]:
        """How many workers each pool is to have."""
        pools = enumerate(self._config.workers)
        return {pool.name: self._board.pools[number][WANTED] for number, pool in pools}

    def _scaling(self, number: int) -> dict[str, Any]:
        words = self._board.pools[number]
        return {
            "least": words[LEAST],
            "most": words[MOST],
            "wanted": words[WANTED],
            "why": why_text(words[WHY], words[WHY_MS]),
        }

    def _present(self, pool: str) -> int:
        """The workers of a pool that are there, without those that leave."""
        return sum(
            self._board.pool_name(slot.index) == pool
            and slot[ROLE] != QUARANTINE.number
            and not why_leaving(slot)
            for slot in self._board.workers()
        )

    def _reload(self) -> dict[str, Any]:
        """How the last one stands; the number tells it from the one before."""
        board = self._board
        state = board[RELOAD_STATE]
        reason = board.read_note(PARENT_NOTE) if state == REFUSED else None
        return {"number": board[RELOADS], "state": RELOAD_STATES[state], "reason": reason}

    def _only(self, row: RoleRow) -> dict[str, Any] | None:
        """The child of a role that a family has one of."""
        return next((self._slot(slot, row) for slot, its in self._seats() if its is row), None)

    def _site(self) -> dict[str, Any] | None:
        """The web role, with the address where it listens; None for that where it does not."""
        told = self._only(WEB)
        if told is None:
            return None
        note = self._board.read_note(told["slot"])
        return {**told, "url": note if told["state"] == "idle" else None}

    def _say_change(self, degraded: list[str]) -> None:
        if degraded and degraded != self._degraded_before:
            say("degraded", reason="; ".join(degraded))
        elif self._degraded_before and not degraded:
            say("recovered")
        self._degraded_before = degraded

    def _degraded(self, waiting: bool) -> list[str]:
        told = ["the database cannot be used"] if waiting else []
        told += self._lacks_template()
        for slot, row in self._seats():
            name = row.name(slot.index)
            # Also while it is tried again, or the family would be well for a moment each time.
            again = slot[FAILURES] and slot[STATE] == BOOTING
            if slot[SLOT_STATE] == BACKOFF or again:
                told.append(f"{name} keeps dying and is started again with growing delay")
            elif slot[LACKS_LEDGER]:
                told.append(f"{name} has no ledger file and runs one job at a time")
            elif row is WEB and slot[STATE] == WAITING_STATE:
                told += filter(None, [self._board.read_note(slot.index)])
        return told

    def _lacks_template(self) -> list[str]:
        if self._board[PRELOAD] == UNFIT:
            return [self._board.read_note(PRELOAD_NOTE)]
        if self._board[PRELOAD] == NEXT_TEMPLATE:
            return ["the template has died: until there is another each worker imports by itself"]
        return []

    def _slot(self, slot: Slot, row: RoleRow) -> dict[str, Any]:
        backoff = slot[SLOT_STATE] == BACKOFF
        now = self._clock.monotonic_ns()
        return {
            "slot": slot.index,
            "role": row.word,
            "pool": self._board.pool_name(slot.index) or None,
            "pid": None if backoff else slot[PID],
            "state": "backoff" if backoff else state_name(slot),
            "leaving": None if backoff else why_leaving(slot) or None,
            **_running(slot, now),
            "claim": slot[CLAIM],
            "started": slot.started,
            "reached_database": bool(slot[REACHED]),
            "rss": resident(slot[PID]),
            "up_seconds": round((now - slot[BORN]) / 1e9, 1),
        }


def _running(slot: Slot, now: int) -> dict[str, Any]:
    """The job that has run longest; of a worker with several lanes how many run, and each."""
    since = slot.column(SINCE)
    seconds = {
        run.job: round((now - since[run.lane]) / 1e9, 3)
        for run in slot.running()
        if run.lane < len(since)
    }
    told = sorted(seconds.items(), key=lambda each: -each[1])
    job, longest = told[0] if told else (None, None)
    one: dict[str, Any] = {"job": job, "job_seconds": longest}
    if slot[LANE_COUNT] <= 1:
        return one
    jobs = [{"job": job, "job_seconds": seconds} for job, seconds in told[:JOBS_SHOWN]]
    return {**one, "running": len(told), "lanes": slot[LANE_COUNT], "jobs": jobs}
