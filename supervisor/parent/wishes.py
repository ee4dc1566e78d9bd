"""Wishes for workers: each a file of its own, written by a command and answered by the family.

The answer is written over the wish, in a file that both hold open and that has no name any more: two
wishes cannot hide one another, nothing stays behind, and a full disk cannot keep an answer back.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from typing import Any

from jobvisor.jobs.errors import ConfigError, FamilyNotRunning, JobsError
from jobvisor.jobs.identity import unique_number
from jobvisor.supervisor.family import POLL_S, StateDir

__all__ = ["Wish", "Wishes"]

FILE_BYTES = 4096
"""A wish and its answer are padded to this, so that the answer needs no further space."""

WISHES_AT_ONCE = 1000
STALE_MS = 60_000
"""Whoever wrote an older one was killed before it was taken; it is not wanted any more."""

_PREFIX = "wish-"
_BEGUN = ".new"


class Wish:
    """What a command wants of a pool: `4`, `+1` or `-1` workers."""

    def __init__(self, descriptor: int, pool: str, wanted: str) -> None:
        self._descriptor = descriptor
        self.pool = pool
        self.wanted = wanted

    def workers(self, now: int) -> int:
        """How many workers that is for a pool that is to have `now`."""
        return now + int(self.wanted) if self.wanted[0] in "+-" else int(self.wanted)

    def answer(self, **told: Any) -> None:
        """Tell what became of it: `workers`, or why it is `refused`."""
        _write(self._descriptor, {"answer": told})


class Wishes:
    """Those that lie in the state directory of one family."""

    def __init__(self, state: StateDir) -> None:
        self._state = state

    def ask(self, pool: str, wanted: str, patience_s: float) -> dict[str, Any]:
        """Wish for workers, and wait for the answer.

        Raises:
            FamilyNotRunning: nobody holds the lock, or nobody does before there is an answer.
            JobsError: the wish cannot be written, or the family does not answer in time.
        """
        path, descriptor = self._put(pool, wanted)
        try:
            pid = self._state.signal(signal.SIGWINCH)
            return self._wait(descriptor, pid, patience_s)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)  # not taken: it is not for a family that comes later
            os.close(descriptor)

    def take(self) -> Iterator[Wish]:
        """Each wish that waits, in the order they were made; answer it before the next."""
        paths = [path for path in self._files() if not path.endswith(_BEGUN)]
        for path in paths[:WISHES_AT_ONCE]:
            with contextlib.suppress(OSError):
                flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                descriptor = os.open(path, flags)
                try:
                    os.unlink(path)
                    wish = self._read(descriptor)
                    if wish is not None:
                        yield wish
                finally:
                    os.close(descriptor)

    def clear(self) -> None:
        """Remove what an earlier family did not live to see."""
        for path in self._files():
            with contextlib.suppress(OSError):
                os.unlink(path)

    def _put(self, pool: str, wanted: str) -> tuple[str, int]:
        now = self._state.clock.now_ms()
        path = os.path.join(self._state.path, f"{_PREFIX}{now:015}-{unique_number():016x}")
        beside = f"{path}{_BEGUN}"
        descriptor = -1
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            descriptor = os.open(beside, flags, 0o600)
            if os.geteuid() == 0:
                owner = os.stat(self._state.path)
                os.fchown(descriptor, owner.st_uid, owner.st_gid)  # the family may be his
            _write(descriptor, {"pool": pool, "wanted": wanted})
            os.rename(beside, path)
        except FileNotFoundError:
            raise FamilyNotRunning(f"no family runs in {self._state.path}") from None
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(beside)
            if descriptor >= 0:
                os.close(descriptor)
            raise JobsError(f"{path} cannot be written: {error.strerror}") from error
        return path, descriptor

    def _wait(self, descriptor: int, pid: int, patience_s: float) -> dict[str, Any]:
        clock = self._state.clock
        deadline = clock.monotonic_ns() + int(patience_s * 1e9)
        while True:
            left = self._state.holder() != pid  # looked at first: its last word may be an answer
            told = _content(descriptor).get("answer")
            if isinstance(told, dict):
                return told
            if left:
                raise FamilyNotRunning("the family stopped before it answered")
            if clock.monotonic_ns() >= deadline:
                raise JobsError(
                    f"the family (pid {pid}) did not answer in {patience_s:g} s; see "
                    "`jobvisor status`, and ask again"
                )
            clock.sleep(POLL_S)

    def _files(self) -> list[str]:
        try:
            names = os.listdir(self._state.path)
        except OSError as error:
            raise ConfigError(f"{self._state.path} cannot be read: {error.strerror}") from error
        return [
            os.path.join(self._state.path, name)
            for name in sorted(names)
            if name.startswith(_PREFIX)
        ]

    def _read(self, descriptor: int) -> Wish | None:
        """None for what is none, or is too old."""
        age_ms = self._state.clock.now_ms() - os.fstat(descriptor).st_mtime_ns // 1_000_000
        found = _content(descriptor)
        pool, wanted = found.get("pool"), found.get("wanted")
        readable = re.fullmatch(r"[+-]?[0-9]{1,9}", str(wanted))
        if age_ms > STALE_MS or not isinstance(pool, str) or not readable:
            return None
        return Wish(descriptor, pool, str(wanted))


def _write(descriptor: int, content: dict[str, Any]) -> None:
    text = json.dumps(content, ensure_ascii=False).encode(errors="replace")
    os.pwrite(descriptor, text.ljust(FILE_BYTES), 0)


def _content(descriptor: int) -> dict[str, Any]:
    """What stands in it; nothing while it is half written."""
    try:
        found = json.loads(os.pread(descriptor, FILE_BYTES, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
