"""Where the tests keep their files: in memory where the system has a folder of enough room there.

Nothing that is tested asks for a disk: a third of the system time of the suite went into the files of
databases that are made, filled and removed. Who is told a folder (`--basetemp`,
PYTEST_DEBUG_TEMPROOT) uses that one.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes free; six test processes, each with a PostgreSQL, were seen to use one third


@cache
def in_memory() -> Path | None:
    """The folder of everybody's in memory, where there is one that will do."""
    usable = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and _has_room()
    return MEMORY if usable else None


def _has_room() -> bool:
    told = os.statvfs(MEMORY)
    # A test installs a wheel and runs what is in it: not where nothing may be run.
    return told.f_bavail * told.f_frsize >= ROOM and not told.f_flag & os.ST_NOEXEC
