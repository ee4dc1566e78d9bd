"""A process that has imported the product once, and forks each family's parent from what it has.

Run as a script by `tests.system.forking`. It knows no test: a request is a folder, an environment, the
arguments of `python -m jobvisor` and three streams, and what comes of it is a process that a fresh
interpreter could not be told from: a child of the tests, with one thread, the leader of its own
session, no descriptor but its streams, its own environment, `sys.path`, `sys.argv` and `__main__`.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import runpy
import signal
import socket
import sys
from typing import Any

CLONE_PARENT = 0x8000  # linux/sched.h: the new process is a child of our parent
SYS_CLONE = {"x86_64": 56, "aarch64": 220}
STREAMS = 3
REQUEST = 1 << 20  # bytes, far above an environment

COMMAND = (
    "jobvisor.supervisor.cli",  # not __main__: who runs a module that was imported is warned
    "jobvisor.supervisor.cli.family",
    "jobvisor.supervisor.embed",
    "jobvisor.supervisor.parent.parent",
)


def main() -> None:
    """Import; then fork for each request. Only a forked process comes back from `_serve`."""
    for module in (*COMMAND, *sys.argv[1:]):
        importlib.import_module(module)
    request = _serve(socket.socket(fileno=0))
    _become(request)
    # It warns of a module that is there already, into a standard error that may be a full pipe.
    sys.modules.pop("jobvisor.__main__", None)
    runpy.run_module("jobvisor", run_name="__main__", alter_sys=True)


def _serve(tests: socket.socket) -> dict[str, Any]:
    while True:
        text, streams, _, _ = socket.recv_fds(tests, REQUEST, STREAMS)
        if not text:
            os._exit(0)  # the tests have ended
        pid = _fork()
        if pid == 0:
            tests.detach()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            os.closerange(STREAMS, 1024)
            request: dict[str, Any] = json.loads(text)
            return request
        for stream in streams:
            os.close(stream)
        tests.send(str(pid).encode())


def _fork() -> int:
    """As os.fork, but the child is the tests' own, which wait for it and are its parent."""
    python = ctypes.pythonapi
    system_call = ctypes.PyDLL(None, use_errno=True).syscall
    flags = ctypes.c_long(CLONE_PARENT | signal.SIGCHLD)
    zero = ctypes.c_long(0)
    number = ctypes.c_long(SYS_CLONE[platform.machine()])
    python.PyOS_BeforeFork()
    pid = int(system_call(number, flags, zero, zero, zero, zero))
    if pid == 0:
        python.PyOS_AfterFork_Child()
    else:
        python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(ctypes.get_errno(), "clone")
    return pid


def _become(request: dict[str, Any]) -> None:
    os.setsid()
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    sys.path[0] = request["cwd"]
    sys.argv[:] = ["-m", *request["arguments"]]
    sys.orig_argv[:] = [sys.executable, "-m", "jobvisor", *request["arguments"]]


if __name__ == "__main__":
    main()
