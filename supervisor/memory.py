"""How much memory process groups hold, for the limits of jobs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress

import psutil


def resident_of(groups: set[int]) -> dict[int, int]:
    """Bytes of resident memory of each of these process groups, by one look at all processes.

    What cannot be read counts nothing: a system out of descriptors or memory must not end the
    parent in the very moment it is needed.
    """
    totals = dict.fromkeys(groups, 0)
    with suppress(OSError, psutil.Error):
        for group, resident in _processes():
            if group in totals:
                totals[group] += resident
    return totals


def _processes() -> Iterator[tuple[int, int]]:
    """(process group, resident bytes) of every process there is."""
    if not sys.platform.startswith("linux"):
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                yield os.getpgid(process.pid), process.memory_info().rss
        return
    page = os.sysconf("SC_PAGE_SIZE")
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                told = file.read()
                fields = told[told.rindex(b")") + 2 :].split()
                yield int(fields[2]), int(fields[21]) * page
