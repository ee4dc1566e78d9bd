"""What an imported application has done to its process that copies of it cannot share, and which module did.

A look is taken around the execution of each module, so that what is new after it is that module's, or is of
one that it imported and that cannot be looked at.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.machinery import ExtensionFileLoader, SourceFileLoader, SourcelessFileLoader
from types import ModuleType
from typing import Any, NamedTuple

from jobvisor.jobs.clock import SECOND, Clock
from jobvisor.jobs.identity import start_ticks
from jobvisor.supervisor.signals import HANDLED

TRIAL_SECONDS = 5.0  # for a copy that leaves at once; handlers of a library may keep it
TRIAL_POLL = 0.001
NAMED_MAX = 5  # findings told in one sentence

HOOKS = "a @before_fork hook"
"""Who made what the hooks have made."""

_LOADERS: tuple[Any, ...] = (SourceFileLoader, SourcelessFileLoader, ExtensionFileLoader)
_EXECUTE = "exec_module"
_GPU = ("/dev/nvidia", "/dev/kfd", "/dev/dri/render")
_SQLITE = b"SQLite format 3\0"
#: Shared by all copies, each of which takes events from the others.
_LOOPS = ("anon_inode:[eventpoll]", "anon_inode:[io_uring]")


class Thing(NamedTuple):
    """Something that a process has: a thread, a child, a signal handler, an open file."""

    kind: str
    number: int
    """Of the thread, child, signal or descriptor."""
    mark: str = ""
    """What tells it from another one of the same number: where a descriptor leads, which handler."""


class Findings(NamedTuple):
    """What was found, each in a few words with the module that made it."""

    refused: tuple[str, ...]
    """For which no copy may be made."""
    shared: tuple[str, ...]
    """Which all copies would share."""

    @property
    def reason(self) -> str:
        """Why there may be no copy, in one line; "" where there may."""
        more = len(self.refused) - NAMED_MAX
        named = "; ".join(self.refused[:NAMED_MAX])
        return f"{named}; and {more} more" if more > 0 else named


class Examination:
    """A process from before its application was imported."""

    def __init__(self) -> None:
        self._before = _things()
        self._makers: dict[Thing, str] = dict.fromkeys(self._before, "")
        self._running: list[str] = ["the application"]  # whose code is being executed
        self._seen = _glance()

    @contextmanager
    def watching_imports(self) -> Iterator[None]:
        """Within this block each module that is executed is held to what it makes."""
        own = [vars(loader).get(_EXECUTE) for loader in _LOADERS]
        for loader in _LOADERS:
            setattr(loader, _EXECUTE, self._watched(loader.exec_module))
        try:
            yield
        finally:
            for loader, execute in zip(_LOADERS, own, strict=True):
                delattr(loader, _EXECUTE)  # what it inherits is seen again
                if execute is not None:
                    setattr(loader, _EXECUTE, execute)

    def _watched(self, execute: Callable[..., None]) -> Callable[..., None]:
        def exec_module(loader: Any, module: ModuleType) -> None:
            with self.holding(f"module {module.__name__}"):
                execute(loader, module)

        return exec_module

    @contextmanager
    def holding(self, maker: str) -> Iterator[None]:
        """Hold this one to all that is made within this block, if it is made by nobody within that."""
        self._look()  # what is new by now is of who comes to this block
        self._running.append(maker)
        try:
            yield
        finally:
            self._look()
            self._running.pop()

    def _look(self) -> None:
        """What is new since the last look is of whose code is being executed."""
        seen = _glance()
        if seen != self._seen:
            self._seen = seen
            for thing in _things():
                self._makers.setdefault(thing, self._running[-1])

    def findings(self, clock: Clock) -> Findings:
        """Make a copy that leaves at once, and look at what is there then.

        After it, because libraries end their threads for a fork and make new ones when they need them
        (OpenBLAS): before it numpy would fail every look.
        """
        self._look()
        if not _can_fork(clock):
            hangs = (
                f"a handler of os.register_at_fork keeps a fork for more than {TRIAL_SECONDS:g} s"
            )
            return Findings((hangs,), ())
        refused: list[str] = []
        shared: list[str] = []
        for thing in sorted(_things() - self._before):
            told, is_harmless = described(thing)
            if told:
                maker = self._makers.get(thing, "a fork")
                (shared if is_harmless else refused).append(f"{maker} {told}")
        return Findings(tuple(refused), tuple(shared))


def _glance() -> tuple[object, ...]:
    """Enough to see that something is new, for 50 us: there are thousands of modules."""
    handlers = [signal.getsignal(number) for number in HANDLED]
    return _threads(), list(_children()), os.listdir("/proc/self/fd"), handlers


def _things() -> set[Thing]:
    found = {Thing("thread", tid) for tid in _threads() if tid != os.getpid()}
    found |= {Thing("child", pid) for pid in _children()}
    found |= {
        Thing("signal", number, repr(handler))
        for number in signal.valid_signals()
        if (handler := signal.getsignal(number)) is not None
    }
    return found | _open_files()


def _threads() -> list[int]:
    return [int(name) for name in os.listdir("/proc/self/task")]


def _children() -> Iterator[int]:
    for tid in _threads():
        with suppress(OSError), open(f"/proc/self/task/{tid}/children", "rb") as file:
            yield from map(int, file.read().split())


def _open_files() -> set[Thing]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the one that the list was read from
            found.add(Thing("file", int(name), os.readlink(f"/proc/self/fd/{name}")))
    return found


def _can_fork(clock: Clock) -> bool:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    until = clock.monotonic_ns() + int(TRIAL_SECONDS * SECOND)
    while clock.monotonic_ns() < until:
        if os.waitpid(pid, os.WNOHANG)[0]:
            return True
        clock.sleep(TRIAL_POLL)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return False


# -- what a thing is in words; "" where it does not matter; and whether copies may share it


def described(thing: Thing) -> tuple[str, bool]:
    if thing.kind == "thread":
        return f"started the thread {_thread_name(thing.number)}", False
    if thing.kind == "child":
        # A zombie is nobody's competitor.
        runs = start_ticks(thing.number) is not None
        return f"started the process {thing.number}" if runs else "", False
    if thing.kind == "signal":
        return f"set a handler of {signal.Signals(thing.number).name}", False
    return _described_file(thing.number, thing.mark)


def _thread_name(tid: int) -> str:
    for thread in threading.enumerate():
        if thread.native_id == tid:
            return repr(thread.name)
    with suppress(OSError), open(f"/proc/self/task/{tid}/comm", encoding="utf-8") as file:
        return f"{file.read().strip()!r}, which is not Python's"
    return str(tid)


def _described_file(number: int, path: str) -> tuple[str, bool]:
    if path.startswith(_GPU):
        return f"opened the GPU ({path})", False
    if path in _LOOPS:
        return "made an event loop", False
    try:
        mode = os.fstat(number).st_mode
    except OSError:
        return "", True
    if stat.S_ISSOCK(mode):
        return _described_socket(number)
    if stat.S_ISFIFO(mode):
        return "opened a pipe", True
    if not stat.S_ISREG(mode):
        return "", True
    if _begins_as_sqlite(number):
        return f"has the SQLite file {path} open", False
    return (
        ("", True) if _appends(number) else (f"opened the file {path}, not to append to it", True)
    )


def _described_socket(number: int) -> tuple[str, bool]:
    with socket.socket(fileno=os.dup(number)) as copy:
        if copy.type == socket.SOCK_STREAM:
            with suppress(OSError):
                return f"is connected to {_address(copy.getpeername())}", False
        return f"opened a socket ({copy.family.name})", True


def _address(name: Any) -> str:
    if isinstance(name, tuple):
        return ":".join(str(part) for part in name[:2])
    return str(name) or "a socket of this machine"


def _begins_as_sqlite(number: int) -> bool:
    # By the descriptor that there is: to open the file and close it would drop all locks on it.
    with suppress(OSError):
        return os.pread(number, len(_SQLITE), 0) == _SQLITE
    return False


def _appends(number: int) -> bool:
    with (
        suppress(OSError, ValueError),
        open(f"/proc/self/fdinfo/{number}", encoding="ascii") as file,
    ):
        for line in file:
            if line.startswith("flags:"):
                return bool(int(line.split()[1], 8) & os.O_APPEND)
    return False
