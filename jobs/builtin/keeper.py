"""The keeper of one command: starts it, and ends all that came of it when it ends or its worker does.

A script of its own, which imports nothing of ours, so that it is there in milliseconds. It stands outside
of its worker's process group and outlives a kill of it; a pipe from the worker tells when that is gone. On
Linux it takes in every orphan below it, so that a daemon of the command is found too.

It reads how to start the command (marshal, its length before it), then orders: `T` asks the command to
end, `K` kills. It writes one report when all has ended. Standard input, output and error are the command's.
"""

from __future__ import annotations

import contextlib
import errno
import marshal
import os
import resource
import select
import signal
import sys
from typing import Any

LOOK_MS = 1_000
"""At the latest it is seen by then that the worker has gone, should somebody else hold its pipe."""

WEIGH_MS = 200  # between two looks at the memory of all
GONE_MS, UNKILLABLE_MS = 50, 5_000  # between two tries to kill what does not go: longer each time

_SUBREAPER, _DEATH_SIGNAL = 36, 1  # PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG of linux/prctl.h
_DEFAULTS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGPIPE,
    signal.SIGXFSZ,
)  # fmt: skip


class Keeper:
    """One command, from its fork to the end of the last process that came of it."""

    def __init__(self, orders: int, worker: int, how: dict[str, Any]) -> None:
        self._orders = orders
        self._worker = worker
        self._how = how
        self._woken, wakes = os.pipe()
        for end in (self._woken, wakes):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)  # it leaves with its command, and not before
        self._pid = 0
        self._ended: tuple[int, Any] | None = None
        self._heavy = 0

    def run(self) -> dict[str, Any]:
        """Start the command and stay until all has ended; the report."""
        _prctl(_SUBREAPER, 1)
        self._pid, failing = self._start()
        reason = b"".join(iter(lambda: os.read(failing, 4096), b""))  # closed by the exec
        self._stay()
        self._end_all()
        if reason:
            return marshal.loads(reason)  # type: ignore[no-any-return]  # noqa: S302 -- from our own copy
        status, usage = self._ended or (0, None)
        return {
            "status": os.waitstatus_to_exitcode(status),
            "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3) if usage else 0.0,
            "heavy": self._heavy,
        }

    def _start(self) -> tuple[int, int]:
        """Fork it; its pid, and where it says why it cannot be."""
        failing, fails = os.pipe()
        keeper = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become(keeper, fails)
        os.close(fails)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        # Its pipes end when those of the command are closed, and not with this process.
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
        return pid, failing

    def _become(self, keeper: int, fails: int) -> None:
        """In the copy: be the command, or tell what is in its way."""
        stage = "start"
        try:
            os.setpgid(0, 0)
            # So that not even a kill of this keeper leaves it behind.
            _prctl(_DEATH_SIGNAL, signal.SIGKILL)
            if os.getppid() != keeper:
                os._exit(127)
            signal.set_wakeup_fd(-1)
            for number in _DEFAULTS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            stage = "cwd"
            if self._how["cwd"] is not None:
                os.chdir(self._how["cwd"])
            stage = "limits"
            for number, soft, hard in self._how["limits"]:
                resource.setrlimit(number, (soft, hard))
            stage = "exec"
            command = self._how["command"]
            os.execvpe(command[0], command, self._how["env"])  # noqa: S606 -- that is what it is for
        except BaseException as error:  # noqa: BLE001 -- the border of a copy: told, and it ends
            told = {
                "stage": stage,
                "errno": getattr(error, "errno", None) or 0,
                "why": str(error)[:500],
            }
            os.write(fails, marshal.dumps(told))
        finally:
            os._exit(127)

    def _stay(self) -> None:
        """Until the command has ended, with whatever is asked for meanwhile."""
        poll = select.poll()
        poll.register(self._orders, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        limit = self._how["memory_bytes"]
        while True:
            self._reap()
            if self._ended is not None:
                return
            ready = {descriptor for descriptor, _ in poll.poll(WEIGH_MS if limit else LOOK_MS)}
            if self._orders in ready and not self._obeys():
                return
            if os.getppid() != self._worker:
                return
            if limit and self._weighs_more_than(limit):
                return
            self._drain()

    def _obeys(self) -> bool:
        """Do as the worker says; False where all is to end now."""
        for order in os.read(self._orders, 64) or b"K":  # the worker has gone
            if order == ord("K"):
                return False
            with contextlib.suppress(OSError):
                os.killpg(self._pid, signal.SIGTERM)
                os.killpg(self._pid, signal.SIGCONT)  # one that is stopped hears it, too
        return True

    def _weighs_more_than(self, limit: int) -> bool:
        page = os.sysconf("SC_PAGE_SIZE")
        held = sum(found.pages for found in descendants(os.getpid())) * page
        self._heavy = held if held > limit else 0
        return held > limit

    def _reap(self) -> bool:
        """Take every end there is; False where nobody is left to end."""
        while True:
            try:
                if not _another_has_ended(self._pid):
                    return True
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == self._pid:
                self._ended = (status, usage)

    def _end_all(self) -> None:
        """Kill whatever has come of the command, until nothing of it is left."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if self._ended is None:
            with contextlib.suppress(OSError):
                os.killpg(self._pid, signal.SIGKILL)
        pause = GONE_MS
        while self._reap():
            for found in descendants(os.getpid()):
                found.kill()
            poll.poll(pause)
            pause = min(2 * pause, UNKILLABLE_MS)
            self._drain()

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)


def _another_has_ended(command: int) -> bool:
    """Whether one waits to be taken.

    Of the command's own group what is left is killed first, before its number may be a stranger's.
    """
    if not hasattr(os, "waitid"):
        return True
    told = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if told is not None and told.si_pid == command:
        with contextlib.suppress(OSError):
            os.killpg(command, signal.SIGKILL)
    return told is not None


class Process:
    """A process below this one, as it was when it was looked at."""

    __slots__ = ("began", "pages", "parent", "pid")

    def __init__(self, pid: int) -> None:
        with open(f"/proc/{pid}/stat", "rb") as file:
            told = file.read()
        fields = told[told.rindex(b")") + 2 :].split()
        self.pid = pid
        self.parent, self.began, self.pages = int(fields[1]), int(fields[19]), int(fields[21])

    def kill(self) -> None:
        """SIGKILL to this very process: another one that has its number by now gets none."""
        with contextlib.suppress(OSError):
            descriptor = _descriptor(self.pid)
            try:
                if Process(self.pid).began != self.began:
                    return
                if descriptor is None:
                    os.kill(self.pid, signal.SIGKILL)
                else:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                if descriptor is not None:
                    os.close(descriptor)


def _descriptor(pid: int) -> int | None:
    """One of a process, where the system has that: Linux before 5.3, and some sandboxes, do not."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EPERM):
            return None
        raise


def descendants(pid: int) -> list[Process]:
    """All that came of a process and lives; nobody where there is no /proc."""
    children: dict[int, list[Process]] = {}
    with contextlib.suppress(OSError):
        for name in os.listdir("/proc"):
            if name.isdigit():
                with contextlib.suppress(OSError, ValueError, IndexError):
                    found = Process(int(name))
                    children.setdefault(found.parent, []).append(found)
    below: list[Process] = []
    parents = [pid]
    while parents:
        born = children.pop(parents.pop(), [])
        below += born
        parents += [each.pid for each in born]
    return below


def _prctl(option: int, value: int) -> None:
    """Ask Linux for something; other systems do not have it."""
    if not sys.platform.startswith("linux"):
        return
    import ctypes  # noqa: PLC0415 -- 3 ms that only Linux needs

    with contextlib.suppress(OSError, AttributeError):
        zero = ctypes.c_ulong(0)
        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), zero, zero, zero)


def _read(descriptor: int, length: int) -> bytes:
    data = b""
    while len(data) < length and (more := os.read(descriptor, length - len(data))):
        data += more
    return data


def main(arguments: list[str]) -> int:
    """The whole life of a keeper: descriptors of orders, report and fence, and the pid of its worker."""
    orders, reports, fence, worker = (int(argument) for argument in arguments)
    for descriptor in (orders, reports, fence):
        if descriptor >= 0:  # the fence stays open as long as this process
            os.set_inheritable(descriptor, False)
    length = int.from_bytes(_read(orders, 8), "little")
    told = _read(orders, length)
    if not length or len(told) < length:
        return 0  # the worker has gone before it could say what to start
    report = Keeper(orders, worker, marshal.loads(told)).run()  # noqa: S302 -- from our own worker
    with contextlib.suppress(OSError):
        os.write(reports, marshal.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
