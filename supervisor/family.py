"""The state directory of one family: who holds it, what it says of itself, and how to signal it.

The lock is what makes a family one family. It is an `flock` on an open descriptor, so it ends with
the process that holds it, however that dies: no stale pid file can keep a family from starting.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal as signals
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.errors import ConfigError, FamilyNotRunning, FamilyRunning, JobsError
from jobvisor.jobs.identity import Identity

__all__ = ["StateDir"]

STATUS_BYTES_MAX = 8 << 20
"""240 workers and 20 deaths are far below; a larger file is not ours."""

LOCK_PATIENCE_S = 0.5
"""Whoever asks for the holder holds the lock for some microseconds; starting waits that out."""

SETTLING_PATIENCE_S = 30.0
"""Another family settles the dead one of this folder: a moment, of a slow database a long one."""

POLL_S = 0.02
"""An flock cannot be waited for with a limit, so it is asked again this often."""

# The lock file: a line that names the holder, and behind it what the holder says of itself. An earlier
# release reads the first line alone.
NAME_BYTES, SAYING_BYTES = 64, 64
SETTLING, STOPPING, ENDED = "settling", "stopping", "ended"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""No mistake of a configuration: a service that is started again may find space."""


@dataclass(frozen=True, slots=True)
class StateDir:
    """One family's folder: `lock`, `status.json`, `ledger/` and `rejected/`.

    Everything in it decides what is killed and what is settled, so a folder that others can write
    to is refused.
    """

    path: str
    clock: Clock = SYSTEM

    @property
    def ledgers(self) -> str:
        """The folder with one ledger for each life."""
        return os.path.join(self.path, "ledger")

    @property
    def rejected(self) -> str:
        """The folder for outcomes the database refused."""
        return os.path.join(self.path, "rejected")

    def create(self) -> None:
        """Make the folder and its parts for this user alone; an existing one is checked.

        Raises:
            ConfigError: it cannot be made, is somebody else's, or others can write to it.
            JobsError: there is no space for it.
        """
        for folder in (self.path, self.ledgers, self.rejected):
            try:
                os.makedirs(folder, mode=0o700, exist_ok=True)
            except OSError as error:
                told = f"the state directory {folder} cannot be made: {error.strerror}"
                if error.errno in _FULL:
                    raise JobsError(f"{told}; make space there") from error
                raise ConfigError(
                    f"{told}; set [supervisor] state_dir to a folder this user can write"
                ) from error
            self._check(folder, {os.geteuid()})

    def check(self) -> None:
        """Refuse a folder that is not this user's alone to write; makes nothing.

        Raises:
            ConfigError: with the reason and the remedy.
        """
        self._check(self.path, {os.geteuid()})

    def custody(self) -> int:
        """Hold the lock of a dead family while it is settled, without becoming its family.

        Raises FamilyRunning where somebody else holds it.
        """
        descriptor = self._taken(LOCK_PATIENCE_S)
        self.note(descriptor, SETTLING)
        return descriptor

    def _taken(self, settling_patience: float) -> int:
        self.check()
        descriptor = self._open_lock(os.O_RDWR | os.O_CREAT)
        try:
            self._take(descriptor, settling_patience)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def lock(self) -> int:
        """Become the family of this folder; the descriptor that is returned holds the lock.

        It is not inherited by exec, but it is by fork: a child closes it first, or the lock
        outlives the parent.

        Raises:
            FamilyRunning: another process holds it; `pid` names it where it can be read.
            JobsError: it cannot be written.
        """
        descriptor = self._taken(SETTLING_PATIENCE_S)
        try:
            mine = Identity.mine()
            os.ftruncate(descriptor, 0)
            name = f"{mine.pid} {mine.start_ticks}".ljust(NAME_BYTES - 1)
            os.pwrite(descriptor, f"{name}\n".encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise self._lock_refused("written", error) from error
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def note(self, descriptor: int, word: str) -> None:
        """What the holder of this lock says of itself, for whoever waits for it; a full disk says nothing."""
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, NAME_BYTES)
            os.pwrite(descriptor, f"{word}\n".encode(), NAME_BYTES)

    def is_stopping(self) -> bool:
        """Whether the family said that it was asked to stop; one of a release before 0.3 says nothing."""
        return self._said() == STOPPING

    def exit_code(self) -> int | None:
        """What the last family of this folder ended with, by its own word; None where it said nothing."""
        word, _, code = self._said().partition(" ")
        return int(code) if word == ENDED and code.isdecimal() else None

    def holder(self) -> int | None:
        """The pid of the family's parent, or None when nobody holds the lock.

        It is 0 when the lock is held but the holder cannot be named: it has not yet written its
        pid, or it lives in another container. A user who may look into the folder and not at the lock
        is told by the status, which a family that was killed leaves behind: by process then.
        """
        if self._shows_status_only():
            return self._shown_holder()
        if not self._held():
            return None
        identity = self._holder()
        return identity.pid if identity else 0

    def signal(self, number: signals.Signals) -> int:
        """Send a signal to the parent and return its pid; never to a stranger with the same pid.

        Raises:
            FamilyNotRunning: nobody holds the lock.
            JobsError: the holder cannot be reached from here.
        """
        with self._pinned() as (pid, pidfd):
            try:
                if pidfd is None:
                    os.kill(pid, number)
                else:
                    signals.pidfd_send_signal(pidfd, number)
            except ProcessLookupError:
                raise FamilyNotRunning(self._not_running()) from None
            except PermissionError:
                raise JobsError(
                    f"the family in {self.path} runs as another user (pid {pid}); "
                    "run this as that user or as root"
                ) from None
        return pid

    def wait_released(self, timeout: float) -> bool:
        """Wait until nobody holds the lock, at most `timeout` seconds; say whether it came so."""
        deadline = self.clock.monotonic_ns() + int(timeout * 1e9)
        while self._held():
            if self.clock.monotonic_ns() >= deadline:
                return False
            self.clock.sleep(POLL_S)
        return True

    def status(self) -> dict[str, Any] | None:
        """What the caretaker last wrote about the family, or None when there is nothing.

        The file stays behind after a stop: `pid` and `written_at` say whose it is and how old.

        Raises:
            JobsError: the file is there and cannot be read.
        """
        path = os.path.join(self.path, "status.json")
        try:
            with open(path, "rb") as file:
                text = file.read(STATUS_BYTES_MAX + 1)
            found = json.loads(text[:STATUS_BYTES_MAX])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError, RecursionError) as error:
            reason = getattr(error, "strerror", None) or error
            raise JobsError(
                f"{path} cannot be read: {reason}; a running family writes it anew every few seconds"
            ) from error
        if not isinstance(found, dict):
            raise JobsError(f"{path} is not a status: it holds no object; delete it")
        return found

    def _take(self, descriptor: int, settling_patience: float) -> None:
        began = self.clock.monotonic_ns()
        while not _flock(descriptor, fcntl.LOCK_EX, self.path):
            settling = self._said() == SETTLING
            patience = settling_patience if settling else LOCK_PATIENCE_S
            if self.clock.monotonic_ns() - began >= int(patience * 1e9):
                if settling:
                    raise FamilyRunning(
                        f"the jobs of the family that died in {self.path} are being settled by another "
                        f"family, and not done after {patience:g} s; start this one again in a moment",
                        pid=0,
                    )
                holder = self._holder()
                pid = holder.pid if holder else 0
                raise FamilyRunning(
                    f"a family already runs in {self.path}{f' (pid {pid})' if pid else ''}; "
                    "stop it with `jobvisor stop`, or give this one its own [supervisor] state_dir",
                    pid=pid,
                )
            self.clock.sleep(POLL_S)

    def _held(self) -> bool:
        try:
            descriptor = self._open_lock(os.O_RDONLY)
        except FamilyNotRunning:
            return False
        try:
            # Who settles a dead family holds the lock, and is none.
            return not _flock(descriptor, fcntl.LOCK_SH, self.path) and self._said() != SETTLING
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _pinned(self) -> Iterator[tuple[int, int | None]]:
        """The holder's pid, and a descriptor of that very process where the system has them."""
        if not self._held():
            raise FamilyNotRunning(self._not_running())
        holder = self._holder()
        if holder is None:
            raise JobsError(
                f"the family in {self.path} cannot be signalled from here: its process is not "
                "visible (another container, or just starting); run this where it runs"
            )
        self._check(self.path, None if os.geteuid() == 0 else {os.geteuid()})
        pidfd = None
        try:
            # Only a descriptor names one process: between a look at a pid and kill() it can die
            # and the number go to a stranger. So take the descriptor first, then look.
            pidfd = os.pidfd_open(holder.pid) if hasattr(os, "pidfd_open") else None
            self._check_holder(holder)
            yield holder.pid, pidfd
        except ProcessLookupError:
            raise FamilyNotRunning(self._not_running()) from None
        finally:
            if pidfd is not None:
                os.close(pidfd)

    def _check_holder(self, holder: Identity) -> None:
        """It is still that process; and as root signals anybody, it is the folder's owner's."""
        if Identity.of(holder.pid) != holder:
            raise ProcessLookupError
        owner = os.stat(self.path).st_uid
        if os.geteuid() == 0 and owner != 0:
            import psutil  # noqa: PLC0415 - only this rare case needs it

            if psutil.Process(holder.pid).uids().effective != owner:
                raise JobsError(
                    f"{self.path} names process {holder.pid}, which is not of the folder's "
                    f"owner (user {owner}); nothing was signalled"
                )

    def _holder(self) -> Identity | None:
        """The process the lock file names, if it is that one and not a later one of that number."""
        deadline = self.clock.monotonic_ns() + int(LOCK_PATIENCE_S * 1e9)
        while True:
            pid, start_ticks = self._written()
            identity = Identity.of(pid) if pid > 0 else None
            if identity is not None and identity.start_ticks == start_ticks:
                return identity
            # A parent that has just taken the lock writes its pid a moment later.
            if self.clock.monotonic_ns() >= deadline or not self._held():
                return None
            self.clock.sleep(POLL_S)

    def _said(self) -> str:
        return self._read(SAYING_BYTES, NAME_BYTES).decode(errors="replace").strip()

    def _read(self, length: int, at: int) -> bytes:
        try:
            descriptor = self._open_lock(os.O_RDONLY)
        except FamilyNotRunning:
            return b""
        try:
            return os.pread(descriptor, length, at)
        finally:
            os.close(descriptor)

    def _written(self) -> tuple[int, int]:
        words = self._read(NAME_BYTES, 0).split()
        if len(words) != 2 or not all(word.isdigit() for word in words):
            return 0, 0
        return int(words[0]), int(words[1])

    def _open_lock(self, flags: int) -> int:
        path = os.path.join(self.path, "lock")
        try:
            return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except (FileNotFoundError, NotADirectoryError):
            raise FamilyNotRunning(self._not_running()) from None
        except OSError as error:
            raise self._lock_refused("opened", error) from error

    def _lock_refused(self, what: str, error: OSError) -> JobsError:
        told = f"the lock {os.path.join(self.path, 'lock')} cannot be {what}: {error.strerror}"
        if error.errno in _FULL:
            return JobsError(f"{told}; make space there")
        return ConfigError(f"{told}; run this as the user the family runs as")

    def _shows_status_only(self) -> bool:
        path = os.path.join(self.path, "lock")
        return os.path.exists(path) and not os.access(path, os.R_OK, effective_ids=True)

    def _shown_holder(self) -> int | None:
        found = self.status() or {}
        pid, ticks = found.get("pid"), found.get("start_ticks")
        if type(pid) is not int or found.get("state") == "stopped":
            return None
        identity = Identity.of(pid)
        return pid if identity is not None and identity.start_ticks == ticks else None

    def _check(self, folder: str, owners: set[int] | None) -> None:
        try:
            found = os.stat(folder)
        except OSError as error:
            raise ConfigError(
                f"the state directory {folder} cannot be used: {error.strerror}"
            ) from error
        if not stat.S_ISDIR(found.st_mode):
            raise ConfigError(
                f"the state directory {folder} is not a folder; set [supervisor] state_dir"
            )
        if owners is not None and found.st_uid not in owners:
            raise ConfigError(
                f"the state directory {folder} belongs to user {found.st_uid}, not to "
                f"{os.geteuid()}; run as that user or set [supervisor] state_dir"
            )
        if found.st_mode & 0o022:
            raise ConfigError(
                f"the state directory {folder} can be written by others "
                f"(mode {found.st_mode & 0o777:o}); chmod 700 {folder}"
            )

    def _not_running(self) -> str:
        return f"no family runs in {self.path}; start one with `jobvisor start`"


def _flock(descriptor: int, kind: int, path: str) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ConfigError(
            f"the state directory {path} cannot be locked: {error.strerror}; "
            "set [supervisor] state_dir to a folder on a local disk"
        ) from error
    return True
