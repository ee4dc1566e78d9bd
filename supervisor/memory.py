"""How much memory processes and their groups hold, for limits and for the status.

On Linux by /proc alone: no process of ours pays for psutil, which others need.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress


def resident_of(groups: set[int]) -> dict[int, int]:
    """Bytes of resident memory of each of these process groups, by one look at all processes.

    What cannot be read counts nothing: a system out of descriptors or memory must not end the
    parent in the very moment it is needed.
    """
    totals = dict.fromkeys(groups, 0)
    linux = sys.platform.startswith("linux")
    with suppress(OSError):
        for group, resident in _processes() if linux else _processes_by_psutil():
            if group in totals:
                totals[group] += resident
    return totals


def resident(pid: int) -> int | None:
    """Bytes of resident memory of one process; None where it has gone or nothing tells."""
    if not sys.platform.startswith("linux"):
        return _resident_by_psutil(pid)
    with suppress(OSError, IndexError, ValueError), open(f"/proc/{pid}/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return None


def peak(pid: int) -> int | None:
    """The most resident memory that a process has held, since its `forget_peak`; None where nothing tells."""
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/status", "rb") as file:
        return int(file.read().split(b"\nVmHWM:")[1].split()[0]) << 10
    return None


def forget_peak() -> bool:
    """Let the peak of this process begin anew, at what it holds now; whether the system lets it."""
    with suppress(OSError):
        descriptor = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
        try:
            return os.write(descriptor, b"5") > 0
        finally:
            os.close(descriptor)
    return False


def _processes() -> Iterator[tuple[int, int]]:
    """(process group, resident bytes) of every process there is."""
    page = os.sysconf("SC_PAGE_SIZE")
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                told = file.read()
                fields = told[told.rindex(b")") + 2 :].split()
                yield int(fields[2]), int(fields[21]) * page


def _processes_by_psutil() -> Iterator[tuple[int, int]]:
    import psutil  # noqa: PLC0415 -- only where there is no /proc

    with suppress(psutil.Error):
        for process in psutil.process_iter():
            with suppress(OSError, psutil.Error):
                yield os.getpgid(process.pid), process.memory_info().rss


def _resident_by_psutil(pid: int) -> int | None:
    import psutil  # noqa: PLC0415 -- only where there is no /proc

    with suppress(OSError, psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return None
