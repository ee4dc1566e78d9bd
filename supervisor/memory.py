"""How much memory a process group holds, for the limit of a job."""

from __future__ import annotations

import os

import psutil


def group_resident(group: int) -> int:
    """Bytes of resident memory of all processes in a group; those that are gone count nothing."""
    total = 0
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == group:
                total += psutil.Process(pid).memory_info().rss
        except (ProcessLookupError, PermissionError, psutil.Error):
            continue
    return total
