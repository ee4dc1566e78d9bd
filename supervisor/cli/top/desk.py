"""A thread that answers one question after the other, so that keys are heard while a database is away."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import JobsError

__all__ = ["Answer", "Desk"]

ASKED_MAX = 8
"""Questions that wait; who asks one more is told that it is not taken."""


class Answer(NamedTuple):
    """What came of one question."""

    about: str
    value: Any = None
    error: JobsError | OSError | None = None


class Desk:
    """Questions in, answers out; `news` is readable while there is an answer to take."""

    def __init__(self, name: str, close: Callable[[], object] = lambda: None) -> None:
        """`close` is called by the thread, as its last deed."""
        self._close = close
        self._asked: queue.Queue[tuple[str, Callable[[], Any]] | None] = queue.Queue(ASKED_MAX)
        self._answers: deque[tuple[str, Any, Exception | None]] = deque()
        self._since: int | None = None
        self.news, self._told = os.pipe()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def ask(self, about: str, question: Callable[[], Any]) -> bool:
        """Whether it could be taken in; the answer comes with this word."""
        try:
            self._asked.put_nowait((about, question))
        except queue.Full:
            return False
        return True

    @property
    def silent_s(self) -> float:
        """For how long it has been at the answer that is under way; 0 where there is none."""
        since = self._since
        return 0.0 if since is None else (SYSTEM.monotonic_ns() - since) / 1e9

    def take(self) -> list[Answer]:
        """The answers that have come. An error that is neither ours nor the system's is raised here."""
        taken: list[Answer] = []
        while self._answers:
            os.read(self.news, 1)
            about, value, error = self._answers.popleft()
            if error is not None and not isinstance(error, (JobsError, OSError)):
                raise error
            taken.append(Answer(about, value, error))
        return taken

    def close(self, patience_s: float) -> None:
        """Nothing more is asked; what is under way is not waited for any longer than this."""
        with suppress(queue.Full):
            self._asked.put_nowait(None)
        self._thread.join(patience_s)

    def _serve(self) -> None:
        while (asked := self._asked.get()) is not None:
            about, question = asked
            self._since = SYSTEM.monotonic_ns()
            answer: tuple[str, Any, Exception | None]
            try:
                answer = about, question(), None
            except Exception as error:  # noqa: BLE001 -- handed over: who takes the answer decides
                answer = about, None, error
            self._since = None
            self._answers.append(answer)
            os.write(self._told, b"\0")
        self._close()
