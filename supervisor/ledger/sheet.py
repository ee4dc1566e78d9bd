"""The sheet of one lane in its worker's ledger: the job that runs there, how far it is, what it said."""

from __future__ import annotations

import mmap
import os
import threading

from jobvisor.supervisor.ledger.layout import (
    LANE,
    LANE_CLAIM,
    LANE_CURRENT,
    LANE_DEADLINE,
    PROGRESS,
    PROGRESS_MAX,
    Plan,
)


class Sheet:
    """Written by its lane alone, but for the progress, which any thread of the job may tell."""

    def __init__(self, memory: mmap.mmap, plan: Plan, lane: int) -> None:
        """Empty it: a spare holds another life's bytes."""
        at = plan.lane_at(lane)
        self._pid = os.getpid()
        self._memory = memory
        self._progress_at = at + LANE.size
        memory[at : at + LANE.size + PROGRESS.size] = bytes(LANE.size + PROGRESS.size)
        self.words: memoryview[int] = memoryview(memory)[at : at + LANE.size].cast("q")
        said = plan.said_at(lane)
        self.said = memoryview(memory)[said : said + plan.said_bytes]
        """The place for what its job says; whose and how much that is stands in the words."""
        self._lock = threading.Lock()
        self._number = 0

    def claimed(self, claim: int) -> None:
        """The claim of what is published from now on."""
        self.words[LANE_CLAIM] = claim

    def publish(self, job: int, deadline: int) -> None:
        """This job is about to run; the deadline first, so that no job is seen without its own."""
        words = self.words
        words[LANE_DEADLINE] = deadline
        words[LANE_CURRENT] = job

    def withdraw(self) -> None:
        """Nothing runs here."""
        self.words[LANE_CURRENT] = 0

    def prolong(self, deadline: int) -> None:
        """The job that runs has another deadline."""
        self.words[LANE_DEADLINE] = deadline

    def outlast(self) -> None:
        """The function has returned and waits to be recorded: no deadline ends it any more."""
        self.words[LANE_DEADLINE] = 0

    def progress(self, job: int, text: bytes) -> int:
        """Show how far a job has come, from any thread; the number of this word, 0 if it was not taken.

        Not taken: one from a copy of the process, which is not this life, and too long a text. The
        sequence is odd while the text is being written.
        """
        if len(text) > PROGRESS_MAX or os.getpid() != self._pid:
            return 0
        at = self._progress_at
        with self._lock:
            self._number += 2
            number = self._number
            PROGRESS.pack_into(self._memory, at, number - 1, len(text), job)
            self._memory[at + PROGRESS.size : at + PROGRESS.size + len(text)] = text
            PROGRESS.pack_into(self._memory, at, number, len(text), job)
        return number

    def close(self) -> None:
        """Before the file is unmapped."""
        self.words.release()
        self.said.release()
