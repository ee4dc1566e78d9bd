"""Whether this process takes the place of init for all that descends from it: Linux's child subreaper.

An orphan below a subreaper becomes its child. So a worker whose middle process has left is the parent's
own child, which it can wait for and signal without mistaking it for another.
"""

from __future__ import annotations

import sys

_SET, _GET = 36, 37  # PR_SET_CHILD_SUBREAPER, PR_GET_CHILD_SUBREAPER of linux/prctl.h


def become_subreaper() -> bool:
    """Take in every orphan from now on; False where the system has no such thing."""
    if not sys.platform.startswith("linux"):
        return False
    import ctypes  # noqa: PLC0415 -- only a family that preloads its application pays for it

    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return False
    told = ctypes.c_int(0)
    zero = ctypes.c_ulong(0)
    if prctl(_SET, ctypes.c_ulong(1), zero, zero, zero):
        return False  # a kernel before 3.4, or a filter of system calls
    return not prctl(_GET, ctypes.byref(told), zero, zero, zero) and bool(told.value)
