"""The memory of a template in pages of 2 MB, so that a copy of it costs little.

A fork copies an entry for each page, and the end of the copy takes each away again: for 160 MB in pages of
4 KB 10 ms, in such of 2 MB 2 ms (measured). What a copy then writes to is split again, and copied by 4 KB.
"""

from __future__ import annotations

import ctypes
import os
import sys
from array import array
from collections.abc import Iterator

from jobvisor.jobs.clock import SECOND, Clock

PAGE = (
    2 << 20
)  # of x86-64, and of ARM with pages of 4 KB; where there is another size little happens
FILLED = 7 / 8
"""Of the small pages that one takes the place of: what nobody has used would be memory, too."""

LIMIT_NS = 2 * SECOND
"""For all of it: a gigabyte takes 2.5 s (measured)."""

_COLLAPSE = 25  # MADV_COLLAPSE of Linux 6.1 and later, which asks no setting of the system
_OURS = 1 << 63 | 1 << 56  # in /proc/self/pagemap: in memory, and shared with no other process


def use_huge_pages(clock: Clock, limit_ns: int = LIMIT_NS) -> int:
    """Put what this process alone has in memory into huge pages, as far as it can; how many bytes.

    Nothing depends on it: an older kernel, fragmented memory or another system leave all as it is.
    """
    if sys.platform != "linux":
        return 0
    advise = ctypes.CDLL(None).madvise
    advise.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    ends = clock.monotonic_ns() + limit_ns
    done = 0
    try:
        for at, filled in _places():
            if clock.monotonic_ns() > ends:
                break
            if filled and advise(at, PAGE, _COLLAPSE) == 0:
                done += PAGE
    except OSError:  # nothing tells where its memory is
        return done
    return done


def _places() -> Iterator[tuple[int, bool]]:
    """Where a huge page can stand, and whether nearly all of the small ones there are ours and in use."""
    small = os.sysconf("SC_PAGE_SIZE")
    count = PAGE // small
    with open("/proc/self/pagemap", "rb", buffering=0) as pages:
        for begin, end in _anonymous():
            for at in range(-(-begin // PAGE) * PAGE, end - PAGE + 1, PAGE):
                entries = array("Q", os.pread(pages.fileno(), count * 8, at // small * 8))
                ours = sum(entry & _OURS == _OURS for entry in entries)
                yield at, ours >= FILLED * count


def _anonymous() -> list[tuple[int, int]]:
    """From where to where there is memory that is no file's."""
    with open("/proc/self/maps", encoding="ascii", errors="replace") as file:
        lines = [line.split(maxsplit=5) for line in file]
    return [
        (int(begin, 16), int(end, 16))
        for place, rights, _offset, _device, inode, *name in lines
        if rights == "rw-p" and inode == "0" and (not name or name[0].strip() == "[heap]")
        for begin, _, end in [place.partition("-")]
    ]
