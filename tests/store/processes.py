"""Other processes that a test needs: a forked copy of this one, and strangers with plain Python."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LIMIT_SECONDS = 20.0

_HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
connection.rollback()
"""

# Limits of a user's own are set in a namespace of users, where one may be made.
_WITHOUT_WATCHES = """
import ctypes, sys
if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):
    raise SystemExit("no namespace")
try:
    with open("/proc/sys/user/max_inotify_watches", "w") as file:
        file.write("0")
except OSError:
    raise SystemExit("no limit")
"""


def without_watches(script: str, *arguments: str) -> str:
    """What a script prints where the user has no inotify watch left; skips where that cannot be made."""
    answer = subprocess.run(
        [sys.executable, "-c", _WITHOUT_WATCHES + script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    if answer.stderr.strip() in ("no namespace", "no limit"):
        pytest.skip(f"{answer.stderr.strip()} can be made here")
    return answer.stdout


def in_a_copy(act: Callable[[], object]) -> str:
    """What this does in a forked copy of this process: its value or its error, as text."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # pytest-timeout has a thread; the copy leaves by os._exit and takes no lock of its.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            text = str(act())
        except BaseException as error:  # noqa: BLE001 -- nothing may leave the copy but its answer
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode()[:60_000])
        os._exit(0)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], LIMIT_SECONDS)
        if not ready:
            os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"the copy did not answer within {LIMIT_SECONDS} s")
        return os.read(reading, 60_000).decode()
    finally:
        os.close(reading)
        os.waitpid(pid, 0)


class Holder:
    """A process that holds a database until it is told to let go."""

    def __init__(self, path: Path, statement: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _HOLD, str(path), statement],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"held\n"

    def let_go(self) -> None:
        """End its transaction and wait until it has left."""
        self._process.communicate(timeout=LIMIT_SECONDS)

    def kill(self) -> None:
        """End it whatever it does."""
        self._process.kill()
        self._process.communicate(timeout=LIMIT_SECONDS)


@contextmanager
def held_by_another(path: Path, statement: str = "BEGIN IMMEDIATE") -> Iterator[Holder]:
    """Another process is inside this statement's lock."""
    holder = Holder(path, statement)
    try:
        yield holder
    finally:
        holder.kill()
