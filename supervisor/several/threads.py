"""The threads in which a worker with several lanes runs its `def` tasks: made when needed, never ended."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

from jobvisor.jobs.log import say

Given = TypeVar("Given")


class Threads(Generic[Given]):
    """As many as were ever needed at once. Where no further one can be made what is given waits for one."""

    def __init__(self, serve: Callable[[Given], None]) -> None:
        """`serve` does what is given, in some thread; it must not raise."""
        self._serve = serve
        self._given: SimpleQueue[Given] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0  # threads that wait, less what is given and not taken yet
        self._refused = False
        self.number = 0
        """How many there are."""

    def give(self, given: Given) -> None:
        """Let a thread do it; from any thread."""
        with self._lock:
            self._idle -= 1
            if self._idle < 0:
                self._make()
        self._given.put(given)

    @property
    def are_short(self) -> bool:
        """Whether something waits because no further thread could be made."""
        return self._idle < 0

    @property
    def is_idle(self) -> bool:
        """Whether all that there are wait for something to do."""
        return self._idle == self.number

    def try_again(self) -> None:
        """What waits for a thread gets one, if it can be made by now."""
        with self._lock:
            while self._idle < 0 and self._make():
                pass

    def take_back(self) -> list[Given]:
        """What no thread has begun, and none will."""
        taken: list[Given] = []
        with self._lock:
            while self._idle < 0:
                try:
                    taken.append(self._given.get_nowait())
                except Empty:  # a thread was quicker
                    break
                self._idle += 1
        return taken

    def _make(self) -> bool:
        thread = threading.Thread(target=self._live, name=f"lanes {self.number}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system's limit
            if not self._refused:
                self._refused = True
                say("thread_refused", count=self.number, error=str(error))
            return False
        self.number += 1
        self._idle += 1
        return True

    def _live(self) -> None:
        while True:
            self._serve(self._given.get())
            with self._lock:
                self._idle += 1
