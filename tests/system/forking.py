"""Families' parents without the price of a fresh interpreter: asked for from a template process."""

from __future__ import annotations

import atexit
import json
import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO

from tests.system.template import REQUEST, SYS_CLONE

PROGRAM = Path(__file__).with_name("template.py")
DRIVER = "jobvisor.jobs.store.postgres"  # a parent imports it where its database is a PostgreSQL

#: What an interpreter, its libraries and its system look at when they start, and never again.
STARTING = ("PYTHON", "LD_", "LC_", "LANG", "TZ", "MALLOC_", "GLIBC_")


ENVIRON = {**os.environ, "PYTHONPATH": str(PROGRAM.parents[2])}


class Forked(subprocess.Popen[bytes]):
    """A process that a template has forked: ours to signal and to wait for, as any we start."""

    def __init__(self, pid: int, arguments: Sequence[str]) -> None:
        # What Popen itself has after a start; all that it does with a process is by these.
        self.args = [sys.executable, "-m", "jobvisor", *arguments]
        self.pid = pid
        self.returncode: int | None = None
        self.stdin = self.stdout = self.stderr = None
        self._child_created = True
        self._communication_started = False
        self._sigint_wait_secs = 0.25
        self._waitpid_lock = threading.Lock()


class Template:
    """The process that forks, and the socket to ask it by; it ends with this process."""

    def __init__(self, *modules: str) -> None:
        """`modules` are what it imports beside the command."""
        self._ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, REQUEST)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, str(PROGRAM), *modules],
                env=ENVIRON,
                stdin=its.fileno(),
                stdout=subprocess.DEVNULL,  # no terminal: streams are as those of a file
                start_new_session=True,
            )
        atexit.register(self.close)

    def fork(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        output: IO[bytes] | int,
    ) -> Forked:
        """`python -m jobvisor` with these arguments, its output going there and its input empty."""
        request = {"cwd": str(cwd), "env": dict(env), "arguments": list(arguments)}
        number = output if isinstance(output, int) else output.fileno()
        with open(os.devnull, "rb") as null:
            streams = [null.fileno(), number, number]
            socket.send_fds(self._ours, [json.dumps(request).encode()], streams)
            answer = self._ours.recv(64)
        assert answer, f"the template has ended: {self._process.wait(10)}"
        return Forked(int(answer), arguments)

    def close(self) -> None:
        """End it; what it has forked stays."""
        self._ours.close()
        self._process.wait(10)


@cache
def template(postgres: bool = False) -> Template:
    """The one of this test process for this kind of database; started at its first use."""
    return Template(*((DRIVER,) if postgres else ()))


def can_be_forked(environ: Mapping[str, str]) -> bool:
    """Whether a fresh interpreter in this environment would start as the template did."""
    return platform.machine() in SYS_CLONE and _starting(environ) == _starting(ENVIRON)


def _starting(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith(STARTING)}
