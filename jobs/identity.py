"""Who a process is, so that a number used again is never taken for it.

A pid alone is reused; with the ticks at which it started, the boot and the pid namespace it names one
process for ever.
"""

from __future__ import annotations

import os
import random
import sys
from functools import cache
from typing import NamedTuple

HOST = os.uname().nodename

_OF_THE_SYSTEM = random.SystemRandom()


class Identity(NamedTuple):
    """One process of one boot of one machine."""

    boot_id: str
    pid_namespace: int
    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this pid now, None if there is none or only its zombie."""
        ticks = start_ticks(pid)
        return None if ticks is None else cls(boot_id(), pid_namespace(), pid, ticks)

    @classmethod
    def mine(cls) -> Identity:
        """This process."""
        identity = cls.of(os.getpid())
        if identity is None:
            raise ProcessLookupError(f"process {os.getpid()} cannot see itself in /proc")
        return identity

    def alive(self) -> bool | None:
        """Whether it still runs; None where this process cannot know (another machine's or container's).

        Another boot id on what is known to be this host means dead; the caller knows the host.
        """
        if self.boot_id != boot_id():
            return None
        if self.pid_namespace != pid_namespace():
            return None
        return start_ticks(self.pid) == self.start_ticks


@cache
def boot_id() -> str:
    """The random name of this boot; where the system has none, the moment it booted."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        import psutil  # noqa: PLC0415 -- on Linux no process of ours needs its memory and time

        return f"booted-{psutil.boot_time():.0f}"


def pid_namespace() -> int:
    """Whose numbers our pids are; 0 where there are no namespaces. Not cached: a fork may change it."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except FileNotFoundError:
        return 0


def start_ticks(pid: int) -> int | None:
    """When a process started, in the kernel's ticks since boot; None if it is gone or a zombie."""
    if not sys.platform.startswith("linux"):
        return _ticks_by_psutil(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            told = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in brackets may hold anything, brackets too: fields are counted from the last one.
    fields = told[told.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _ticks_by_psutil(pid: int) -> int | None:
    import psutil  # noqa: PLC0415 -- see `boot_id`

    try:
        process = psutil.Process(pid)
        zombie = process.status() == psutil.STATUS_ZOMBIE
        return None if zombie else int(process.create_time() * 100)
    except psutil.NoSuchProcess:
        return None


def unique_number() -> int:
    """1 to 2**62, at random: nobody draws it again, in any process of any machine."""
    return _OF_THE_SYSTEM.getrandbits(62) + 1
