"""The fence of a job: while processes of one run of it live on this machine, no other run starts any.

It is a name of Linux's that one process at a time can have, and that goes with whoever holds it. A worker
takes it and hands it to the keeper of the command, which outlives the worker by the moment that it needs to
kill the command: without the fence the next run might begin in that moment.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress

from jobvisor.jobs.clock import SECOND, SYSTEM
from jobvisor.jobs.running import running

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.01


def take_fence(give_up: Callable[[], bool]) -> socket.socket | None:
    """The fence of the job that runs here; None where another run still has it, or `give_up` is true.

    An empty socket where there are no such names (macOS), or no other process could run this job.
    """
    held = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    name = _name()
    if name is None:
        return held
    ends = SYSTEM.monotonic_ns() + int(PATIENCE_SECONDS * SECOND)
    while not _bound(held, name):
        if give_up() or SYSTEM.monotonic_ns() > ends:
            held.close()
            return None
        SYSTEM.sleep(PAUSE_SECONDS)
    return held


def _name() -> bytes | None:
    """Of this job in its tables, as this mount namespace sees them; the names are one network namespace's."""
    found = running.get()
    if found is None or not sys.platform.startswith("linux"):
        return None
    import hashlib  # noqa: PLC0415 -- it loads OpenSSL (3 ms), and only a command needs it

    job, _headers, _ends, _port, place = found
    if not place.home.startswith(("sqlite ", "postgresql ")):  # in memory: of this process alone
        return None
    seen_from = ""
    with suppress(OSError):
        seen_from = os.readlink("/proc/self/ns/mnt")
    told = f"{seen_from} {os.getuid()} {place.home} {job.id}"
    return (
        b"\0jobvisor-command-" + hashlib.blake2b(told.encode(), digest_size=16).hexdigest().encode()
    )


def _bound(held: socket.socket, name: bytes) -> bool:
    try:
        held.bind(name)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True
