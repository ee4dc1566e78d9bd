"""A command that runs: started by a keeper, its output read here, asked to end or killed by an order.

Whatever ends this process ends the command: its keeper sees the pipe of orders closed.
"""

from __future__ import annotations

import contextlib
import marshal
import os
import selectors
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Self

from jobvisor.jobs.builtin import keeper
from jobvisor.jobs.builtin.marked import MARK, end_marked
from jobvisor.jobs.builtin.output import Output
from jobvisor.jobs.identity import unique_number

LEAVE_SECONDS = 5.0
"""What is killed and not gone by then (it sits in the kernel) is left to its keeper."""

CHUNKS_LEFT_MAX = 256  # read after its end, in case that somebody else has its pipes as well


@dataclass(frozen=True, slots=True)
class How:
    """How a command is started."""

    command: list[str]
    env: Mapping[str, str]
    cwd: str | None = None
    limits: tuple[tuple[int, int, int], ...] = ()
    """The number of a resource, its soft limit, its hard limit."""
    memory_bytes: int = 0
    """All its processes are killed when they hold more together; 0 for no limit."""
    stdin: IO[bytes] | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """How it ended."""

    status: int | None = None
    """Its exit code, or the negative number of a signal; None where it could not be started."""
    cpu_seconds: float = 0.0
    heavy: int = 0
    """The bytes that all its processes held when they were killed for that."""
    stage: str = ""
    """Where the start failed: start, cwd, limits, exec; "lost" where its keeper was killed."""
    errno: int = 0
    why: str = ""


class Command:
    """One run of a command, for a `with`: nothing of it is left behind."""

    def __init__(self, how: How, fence: int, keep: int) -> None:
        """OSError where the system has no process, pipe or memory to give."""
        self._mark = str(unique_number())
        self._told = b""
        self.report: Report | None = None
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as given:
            (self._reports, report), (out, writes_out), (err, writes_err) = (
                _pipe(ours, given) for _ in range(3)
            )
            orders, self._orders = _pipe(given, ours)
            self._keeper = subprocess.Popen(
                [
                    sys.executable, "-I", "-S", keeper.__file__, str(orders), str(report), str(fence),
                    str(os.getpid()),
                ],
                stdin=how.stdin or subprocess.DEVNULL, stdout=writes_out, stderr=writes_err,
                pass_fds=[orders, report, *([fence] if fence >= 0 else [])], start_new_session=True,
            )  # fmt: skip
            # Where anything below fails all is closed, and the keeper leaves: it is told nothing any more.
            self.outputs = Output(out, "stdout", keep), Output(err, "stderr", keep)
            self._selector = ours.enter_context(selectors.DefaultSelector())
            os.set_blocking(self._reports, False)
            for descriptor in (self._reports, out, err):
                self._selector.register(descriptor, selectors.EVENT_READ)
            given.close()
            self._tell(how)
            self._open = ours.pop_all()

    def _tell(self, how: How) -> None:
        told = {
            "command": how.command,
            "env": {**how.env, MARK: self._mark},
            "cwd": how.cwd,
            "limits": how.limits,
            "memory_bytes": how.memory_bytes,
        }
        data = marshal.dumps(told)
        self._order(len(data).to_bytes(8, "little") + data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def ask_to_end(self) -> None:
        """SIGTERM to its process group."""
        self._order(b"T")

    def kill(self) -> None:
        """SIGKILL to all that came of it."""
        self._order(b"K")

    def _order(self, words: bytes) -> None:
        view = memoryview(words)
        with contextlib.suppress(BrokenPipeError):  # it has ended meanwhile
            while view:
                view = view[os.write(self._orders, view) :]

    def wait(self, seconds: float) -> None:
        """Read what it writes, until there is nothing for so long; `report` tells whether it has ended."""
        for key, _ in self._selector.select(seconds):
            if key.fd == self._reports:
                self._hear()
                continue
            output = self.outputs[key.fd == self.outputs[1].descriptor]
            output.read()
            if output.at_end:
                self._selector.unregister(key.fd)

    def _hear(self) -> None:
        data = os.read(self._reports, 65_536)
        self._told += data
        if data:
            return
        if self._told:
            self.report = Report(**marshal.loads(self._told))  # noqa: S302 -- from our own keeper
        else:
            end_marked(self._mark)  # somebody has killed the keeper: the command is ended from here
            self.report = Report(stage="lost")
        for output in self.outputs:  # who wrote is gone: what there is stands in the pipe
            for _ in range(CHUNKS_LEFT_MAX):
                if not output.read():
                    break

    def close(self) -> None:
        """Kill what is left of it, and wait for its end."""
        self.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(LEAVE_SECONDS)
        self._open.close()


def _pipe(reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    """A new pipe, each end closed by whom it is given to."""
    reads, writes = os.pipe()
    reader.callback(os.close, reads)
    writer.callback(os.close, writes)
    return reads, writes
