"""The area of a lane that keeps the end of what its job says: written around and around, found by a word.

No word is written for a job that says nothing: the area belongs to the job that wrote to it last.
"""

from __future__ import annotations

import threading

from jobvisor.supervisor.ledger.layout import (
    LANE,
    LANE_SAID_CLAIM,
    LANE_SAID_END,
    LANE_SAID_JOB,
    SAID_ONE,
)


class Said:
    """The writer's side, in the worker: any thread of it may speak."""

    def __init__(self, words: memoryview[int], area: memoryview) -> None:
        """`words` is the line of the lane."""
        self._words = words
        self._area = area
        # A handler of a signal may speak while its thread does.
        self._lock = threading.RLock()

    @classmethod
    def of_nobody(cls) -> Said:
        """Where there is no ledger: what is said lives as long as its process."""
        words = memoryview(bytearray(LANE.size)).cast("q")
        return cls(words, memoryview(bytearray(SAID_ONE)))

    def write(self, job: int, claim: int, data: bytes | memoryview) -> None:
        """Keep what this job says. The word that tells how much comes last."""
        words, area = self._words, self._area
        with self._lock:
            if words[LANE_SAID_JOB] != job or words[LANE_SAID_CLAIM] != claim:
                words[LANE_SAID_END] = 0
                words[LANE_SAID_CLAIM] = claim
                words[LANE_SAID_JOB] = job
            end = words[LANE_SAID_END] + len(data)
            data = data[-len(area) :]
            at = (end - len(data)) % len(area)
            first = len(area) - at
            area[at : at + min(first, len(data))] = data[:first]
            if len(data) > first:
                area[: len(data) - first] = data[first:]
            words[LANE_SAID_END] = end

    def of(self, job: int, claim: int) -> bytes:
        """The end of what this job has said."""
        words = self._words
        with self._lock:
            if words[LANE_SAID_JOB] != job or words[LANE_SAID_CLAIM] != claim:
                return b""
            return unrolled(self._area, words[LANE_SAID_END])


def unrolled(area: bytes | memoryview, end: int) -> bytes:
    r"""What stands in an area into which so much was written, from its first whole character on.

    >>> unrolled(b"efgd", 7), unrolled(b"ab\0\0", 2)
    (b'defg', b'ab')
    """
    if end <= len(area):
        return bytes(area[: max(end, 0)])
    at = end % len(area)
    found = bytes(area[at:]) + bytes(area[:at])
    return found.lstrip(_CONTINUED)


_CONTINUED = bytes(range(0x80, 0xC0))  # in UTF-8 no character begins with one of these
