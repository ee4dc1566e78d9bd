"""The parent's handle on one process: fork it with empty hands, signal it, reap it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn

from jobvisor.jobs.clock import SECOND, Clock, process_ns_of
from jobvisor.jobs.errors import EX_DESCRIPTORS, EX_LOCKED, EX_SOFTWARE, EX_UNFIT
from jobvisor.jobs.log import say
from jobvisor.supervisor.signals import PASSED_ON, forget_all, ignore_all

REAP_SECONDS = 0.5
REAP_POLL = 0.001
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024

#: Exit codes of a child that ends itself, in words.
_REASONS = {
    EX_DESCRIPTORS: "a task had closed files of its process",
    EX_LOCKED: "a task had left the database locked",
    EX_UNFIT: "the application cannot be preloaded",
}


class Exit(NamedTuple):
    """How a process ended: `status` is its exit code, or the negative number of the signal."""

    pid: int
    status: int
    cpu_ns: int | None = None
    """CPU time that it had used, without that of its children; None where it is not known."""
    rss_bytes: int = 0
    """The most memory that it, or what it had started, ever held; 0 where it is not known."""

    @property
    def signal(self) -> str | None:
        """The name of the signal that ended it."""
        return None if self.status >= 0 else signal_name(-self.status)

    @property
    def code(self) -> int | None:
        """Its exit code, if it had one."""
        return self.status if self.status >= 0 else None

    @property
    def cause(self) -> str:
        """How it ended, in words for a log line.

        >>> Exit(1, -9).cause, Exit(1, 3).cause
        ('SIGKILL', 'exit code 3')
        """
        reason = _REASONS.get(self.status)
        return self.signal or f"exit code {self.code}{f', {reason}' if reason else ''}"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; real-time signals by number."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def spawn(run: Callable[[], int], closing: Iterable[int], *, own_group: bool = True) -> int:
    """Fork a child that calls `run` and leaves with its result; returns its pid.

    Without `own_group` it is one of the caller's process group: it dies with it, and ignores what a
    terminal or a service manager sends to all.

    Raises OSError where the system has no process or memory to give. All signals are blocked
    around the fork, so none is handled by the child with the parent's handlers; `run` unblocks
    those of PASSED_ON when it has handlers for them.
    """
    gc.collect(1)  # what is frozen as garbage would stay for ever, more with every fork
    gc.freeze()  # what exists now is shared with the child and never touched by its collector
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        pid = os.fork()
        if pid == 0:
            live(run, closing, mask, own_group=own_group)
        # In both processes, because either may be the first to need it.
        if not own_group:
            return pid
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(pid, pid)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def live(
    run: Callable[[], int],
    closing: Iterable[int],
    mask: set[int],
    *,
    own_group: bool = True,
    new_streams: bool = True,
) -> NoReturn:
    """The whole life of a child, after a fork with all signals blocked; `mask` is what was blocked before.

    It never returns, so that no line of the process that forked it runs twice. Without `new_streams`
    it keeps the objects that it inherited: of a process that flushed them, and whose modules may hold them.
    """
    code = EX_SOFTWARE
    try:
        forget_all()
        if own_group:
            os.setpgid(0, 0)
        else:
            ignore_all()
        for descriptor in closing:
            os.close(descriptor)
        if new_streams:
            _take_streams()
        signal.pthread_sigmask(signal.SIG_SETMASK, {*mask, *PASSED_ON})
        code = run()
    except BaseException as error:  # noqa: BLE001 -- the border of a child: whatever it was, it is told and ends here
        say("broken", error=f"{type(error).__name__}: {error}", trace=error)
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _take_streams() -> None:
    """Standard input is empty; output goes where the parent's goes, through objects of its own.

    What the parent had printed and not yet flushed is the parent's to write: the old objects are
    kept, since to drop one would flush it. (To flush before the fork could block or fail there.)
    """
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    _inherited.extend((sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        with contextlib.suppress(OSError):
            stream = open(  # noqa: SIM115 -- for the whole life
                descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False,
                buffering=1,
            )  # fmt: skip
            setattr(sys, name, stream)


_inherited: list[object] = []


def kill_group(pid: int) -> None:
    """SIGKILL to a child and all that its tasks left in its process group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    # Between fork and setpgid there is no group yet.
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def send(pid: int, number: signal.Signals) -> None:
    """A signal to one child; one that has gone needs none."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def reap(pid: int) -> Exit | None:
    """The end of a child if it has ended, None while it runs.

    What its task left in the process group is killed before the pid is given back to the system:
    until then the group id cannot be a stranger's.
    """
    cpu_ns = None
    try:
        if hasattr(os, "waitid"):
            told = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if told is None:
                return None
            cpu_ns = process_ns_of(pid)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        found, status, usage = os.wait4(pid, os.WNOHANG)
    except ChildProcessError:
        # Somebody else in this process reaped it (a script that embeds us and waits for any child).
        return Exit(pid, EX_SOFTWARE)
    if not found:
        return None
    return Exit(pid, os.waitstatus_to_exitcode(status), cpu_ns, usage.ru_maxrss * _RSS_UNIT)


def is_child(pid: int) -> bool:
    """Whether this is a child of ours that nobody has reaped."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def end(pid: int, clock: Clock) -> None:
    """Kill a child and reap it; one that the kernel does not let go is not waited for."""
    kill_group(pid)
    deadline = clock.monotonic_ns() + int(REAP_SECONDS * SECOND)
    while reap(pid) is None and clock.monotonic_ns() < deadline:
        clock.sleep(REAP_POLL)


def reap_strangers(ours: Iterable[int]) -> int:
    """As pid 1 or a subreaper: take the processes that nobody else will, and say how many; ours are left."""
    mine = set(ours)
    taken = 0
    while True:
        try:
            told = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return taken
        if told is None or told.si_pid in mine:
            return taken
        os.waitpid(told.si_pid, os.WNOHANG)
        taken += 1
