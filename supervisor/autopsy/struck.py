"""Whose thread a fatal signal has struck: faulthandler writes its stack into the stack file of the life.

Each lane's outermost function bears its number, so the stack tells whose job it was.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress

#: At which faulthandler writes.
FATAL = frozenset({"SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL"})

SUFFIX = ".stack"
READ_BYTES = 64 << 10
_LANE = re.compile(r" in lane_(\d+)$", re.MULTILINE)


def path_of(folder: str, owner: int) -> str:
    """The file of one life, beside its ledger."""
    return os.path.join(folder, f"{owner}{SUFFIX}")


def struck_lane(folder: str, owner: int) -> int | None:
    """The number of the lane that was struck; None where the thread was no lane's, or nothing is written."""
    try:
        with open(path_of(folder, owner), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - READ_BYTES))
            told = file.read(READ_BYTES).decode(errors="replace")
    except OSError:
        return None
    return lane_in(told)


def lane_in(told: str) -> int | None:
    r"""The lane in what was written last, where a fatal error was told.

    >>> lane_in('Fatal Python error: Segmentation fault\n  File "a.py", line 1 in lane_17')
    17
    """
    _, fatal, last = told.rpartition("Fatal Python error")
    found = _LANE.findall(last) if fatal else []
    return int(found[-1]) if found else None


def forget(folder: str, owner: int) -> None:
    """The life has left, or is settled."""
    with suppress(OSError):
        os.unlink(path_of(folder, owner))
