"""The tasks behind `jobvisor demo`, and an example of what a module of tasks looks like.

Try one by hand: `jobvisor enqueue jobvisor.jobs.demo:hello Ada --wait`.
"""

from __future__ import annotations

import ast
import ctypes
import os
import resource
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from jobvisor import Context, task
from jobvisor.jobs.clock import SYSTEM


@task
def hello(name: str = "world") -> str:
    """Greet somebody: the smallest task there is."""
    return f"hello, {name}"


# Without a delay: what a dying worker left unfinished may run again at once.
@task(timeout="30s", retry="0s")
def analyze(ctx: Context, path: str, *, journal: str = "") -> dict[str, int]:
    """Count the lines, functions and classes of a Python file; of one that does not parse the lines."""
    with noted(ctx, journal):
        with open(path, "rb") as file:
            source = file.read()
        found = {"lines": len(source.splitlines()), "functions": 0, "classes": 0}
        try:
            with warnings.catch_warnings(action="ignore"):  # of a bad escape in somebody's string
                tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return found
        for node in ast.walk(tree):
            found["functions"] += isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            found["classes"] += isinstance(node, ast.ClassDef)
        return found


@task(retries=1, retry="0s")
def segfault(ctx: Context, *, journal: str = "") -> None:
    """Crash the interpreter at each attempt, as a broken C extension would."""
    with noted(ctx, journal):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # leave no core file behind
        ctypes.string_at(0)


@task(timeout="1s", retries=1, retry="0s")
def hang(ctx: Context, *, journal: str = "") -> None:
    """Hang in native code at the first attempt: no exception raised from outside could end it."""
    with noted(ctx, journal):
        if ctx.attempt == 1:
            ctypes.CDLL(None).sleep(60)


@contextmanager
def noted(ctx: Context, journal: str) -> Iterator[None]:
    """Write to a file when a run begins and when it has come to its end; "" is no file.

    So the demo knows how often a job really ran from another witness than the database.
    """
    _note(ctx, journal, "start")
    yield
    _note(ctx, journal, "done")


def _note(ctx: Context, journal: str, word: str) -> None:
    if not journal:
        return
    line = f"{word} {ctx.job} {ctx.attempt} {os.getpid()} {SYSTEM.monotonic_ns()}\n"
    # One write to a file opened for appending: the lines of many processes do not mix.
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
