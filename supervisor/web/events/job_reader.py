"""The stream of one job: its state and progress, and what it says where it runs on this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress

from anyio import to_thread

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SECOND, SYSTEM, Clock
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.job import FINISHED, State, Summary
from jobvisor.supervisor.documents.said import Piece, Speech, run_of
from jobvisor.supervisor.web.events.bulletin import Bulletin
from jobvisor.supervisor.web.events.message import Shown, as_text, message, told
from jobvisor.supervisor.web.events.reader import Reader
from jobvisor.supervisor.web.events.wanted import Wanted

LISTENED_S = 0.25
LISTENED_NS = int(LISTENED_S * SECOND)
"""Between two looks at what a run says,"""
SOUGHT_S = 1.0
"""and at whether it runs here, while that is not known."""

FINISHED_END = "the job is finished"
GONE_END = "there is no such job any more"
ENDED = "ended"
"""The position of a stream that is over: who brings it back is told not to come again."""


class JobReader(Reader):
    """Follows one job until it is finished."""

    def __init__(
        self,
        bulletin: Bulletin,
        job: Summary,
        *,
        client: Client,
        ledgers: str | None,
        shown: Shown,
        clock: Clock = SYSTEM,
    ) -> None:
        """`ledgers` is the folder of this machine's ledgers, where there is one."""
        super().__init__(bulletin, Wanted(frozenset([job.id]), family=False), None, clock=clock)
        self._number = job.id
        self._job: Summary | None = job
        self._client = client
        self._ledgers = ledgers
        self._shown = shown
        self._told = ""
        self._speech: Speech | None = None
        self._listened = 0
        self._is_behind = True
        """It may have changed since it was read."""

    @property
    def _runs(self) -> bool:
        return self._job is not None and self._job.state is State.RUNNING

    @property
    def _is_over(self) -> bool:
        return self._job is None or self._job.state in FINISHED

    async def _chunks(self) -> AsyncIterator[bytes]:
        await self._look()
        if self._is_over:
            chunk = await self._of_speech() + self._of_state()
            self._end_place = ENDED
            self.end(GONE_END if self._job is None else FINISHED_END)
        else:
            chunk = self._of_state() + await self._of_speech()
        beat = self._of_beat()
        if chunk := self._of_trouble() + chunk or beat:
            yield chunk

    def _patience(self) -> float | None:
        if self._speech is not None:
            return LISTENED_S
        return SOUGHT_S if self._runs and self._ledgers is not None else None

    async def _look(self) -> None:
        """Read it again, where it may have changed."""
        ring = self._bulletin.ring
        self._is_behind |= ring.has_changed(self._number, self.position)
        self.position = ring.newest
        if self._is_behind:
            with suppress(JobsError):  # told as trouble by whoever looks for all, and tried again
                found = await to_thread.run_sync(self._client.summaries, [self._number])
                self._job = found[0] if found else None
                self._is_behind = False

    def _of_state(self) -> bytes:
        text = told(self._job and self._shown(self._job.as_json()), self._number)
        if text == self._told:
            return b""
        self._told = text
        return message("job", text)

    async def _of_speech(self) -> bytes:
        now = self._clock.monotonic_ns()
        seeks = self._runs and self._ledgers is not None
        if not (seeks or self._speech) or (
            now < self._listened + LISTENED_NS and not self._is_over
        ):
            return b""
        self._listened = now
        piece = await to_thread.run_sync(self._listen)
        if piece is None or self._job is None:
            return b""
        text = {"attempt": self._job.attempt, "text": piece.text, "missed": piece.missed}
        return message("log", as_text(text))

    def _listen(self) -> Piece | None:
        """In a thread: it reads files."""
        if self._speech is None and self._job is not None and self._ledgers is not None:
            run = run_of(self._ledgers, self._job)
            self._speech = None if run is None else Speech(run)
        if self._speech is None:
            return None
        # Asked before its words are read: what it said last is not missed.
        goes_on = self._speech.run.goes_on
        piece = self._speech.more()
        if not goes_on:
            self._speech = None  # the next run is another one
        return piece
