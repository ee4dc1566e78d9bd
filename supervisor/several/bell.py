"""How the lanes of a worker wake its conductor: by a byte in a pipe, only while it sleeps and wants that."""

from __future__ import annotations

import os
from contextlib import suppress

from jobvisor.supervisor.signals import drain, poke


class Bell:
    """Rung by lanes, heard by the conductor.

    The conductor sets what it wants to hear of, then looks once more whether that has come, then sleeps: a
    lane changes the state first and looks at these words after it, so that no change is missed.
    """

    __slots__ = ("_inode", "_read", "_write", "for_outcome", "for_room")

    def __init__(self) -> None:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._inode = os.fstat(self._write)[1:3]
        self.for_outcome = False
        """Whether it is to be rung when a job has ended."""
        self.for_room = False
        """Whether it is to be rung when a lane is free and finds nothing to do."""

    def fileno(self) -> int:
        """Readable when it was rung."""
        return self._read

    def descriptors(self) -> tuple[int, int]:
        """What must not become a user's file."""
        return self._read, self._write

    def ring(self) -> None:
        """Wake the conductor; once, until it says again what it wants to hear of."""
        self.for_outcome = self.for_room = False
        # A task may have closed it, or put a file of its own in its place: the conductor sees that.
        with suppress(OSError):
            if os.fstat(self._write)[1:3] == self._inode:
                poke(self._write)

    def silence(self) -> None:
        """The conductor is awake."""
        self.for_outcome = self.for_room = False
        drain(self._read)

    def close(self) -> None:
        """Nobody is woken by it any more."""
        os.close(self._read)
        os.close(self._write)
