"""The tasks behind `jobvisor demo`, and an example of what a module of tasks looks like.

Try one by hand: `jobvisor enqueue jobvisor.jobs.demo:hello Ada --wait`. Below are real work (`analyze`),
work that only takes its time and fails at times (`send_email` and its like), and two tasks that
hurt their worker on purpose (`segfault`, `hang`).
"""

from __future__ import annotations

import ast
import ctypes
import hashlib
import os
import resource
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from jobvisor import Context, Exponential, task
from jobvisor.jobs.clock import SYSTEM


@task
def hello(name: str = "world") -> str:
    """Greet somebody: the smallest task there is."""
    return f"hello, {name}"


@task
def add(a: float, b: float) -> float:
    """Add two numbers; the result is kept with the job."""
    return a + b


# -- real work


# Without a delay: what a dying worker left unfinished may run again at once.
@task(timeout="30s", retry="0s")
def analyze(ctx: Context, path: str, *, journal: str = "") -> dict[str, Any]:
    """Count the lines, functions and classes of a Python file, and how deep its blocks nest.

    A file that does not parse is a result too: it says why under `error`.
    """
    with noted(ctx, journal):
        with open(path, "rb") as file:
            source = file.read()
        lines = len(source.splitlines())
        try:
            with warnings.catch_warnings(action="ignore"):  # of a bad escape in somebody's string
                tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            reason = f"{type(error).__name__}: {error}".encode("ascii", "backslashreplace")
            return {"lines": lines, "error": reason.decode()[:200]}
        return {"lines": lines, **_counted(tree)}


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BLOCKS = (
    *_FUNCTIONS, ast.ClassDef, ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith,
    ast.Try, ast.TryStar, ast.Match,
)  # fmt: skip


def _counted(tree: ast.AST) -> dict[str, int]:
    """A loop, not a recursion: an expression may nest deeper than Python's stack."""
    functions = classes = deepest = 0
    left = [(tree, 0)]
    while left:
        node, depth = left.pop()
        functions += isinstance(node, _FUNCTIONS)
        classes += isinstance(node, ast.ClassDef)
        deepest = max(deepest, depth)
        for child in ast.iter_child_nodes(node):
            deeper = isinstance(child, _BLOCKS) and not _is_elif(node, child)
            left.append((child, depth + deeper))
    return {"functions": functions, "classes": classes, "deepest": deepest}


def _is_elif(node: ast.AST, child: ast.AST) -> bool:
    """An `elif` is an `if` within the `else`, and stands where its `if` stands."""
    return (
        isinstance(node, ast.If)
        and isinstance(child, ast.If)
        and child.col_offset == node.col_offset
    )


# -- work that takes its time, and fails at times


class Step(NamedTuple):
    """A part of a simulated job."""

    name: str
    seconds: float
    chance: float
    """How likely it is to fail."""


# Options that several tasks share, written once. Nine retries are plenty: later attempts seldom fail.
unreliable = task(retries=9, retry=Exponential(first="200ms", cap="2s"))


@unreliable
def send_email(ctx: Context, to: str, *, journal: str = "") -> str:
    """Pretend to send an email."""
    with noted(ctx, journal):
        _take(ctx, PLANS["send_email"])
        return f"sent to {to}"


@unreliable
def resize_image(ctx: Context, image: str, *, journal: str = "") -> str:
    """Pretend to make an image smaller."""
    with noted(ctx, journal):
        _take(ctx, PLANS["resize_image"])
        return f"{image} is smaller"


@unreliable
def summarize_text(ctx: Context, text: str, *, journal: str = "") -> str:
    """Pretend to ask a language model for a summary."""
    with noted(ctx, journal):
        _take(ctx, PLANS["summarize_text"])
        return f"{text}, in short"


@unreliable
def webhook_delivery(ctx: Context, url: str, *, journal: str = "") -> str:
    """Pretend to tell another program that something has happened."""
    with noted(ctx, journal):
        _take(ctx, PLANS["webhook_delivery"])
        return f"{url} answered 200"


PLANS: dict[str, tuple[Step, ...]] = {
    "send_email": (Step("connect", 0.02, 0.1), Step("deliver", 0.06, 0.1)),
    "resize_image": (
        Step("download", 0.04, 0.1), Step("resize", 0.08, 0.02), Step("upload", 0.04, 0.1),
    ),
    "summarize_text": (Step("ask", 0.15, 0.15), Step("save", 0.02, 0.02)),
    "webhook_delivery": (Step("connect", 0.02, 0.1), Step("post", 0.05, 0.15)),
}  # fmt: skip


def failing_step(steps: Sequence[Step], job: int, attempt: int) -> Step | None:
    """The step at which this attempt of this job fails, None where all succeed.

    The first attempt always fails, at its unluckiest step; a later one as the chances say. It is
    the same whenever and wherever it is asked, so what has happened can be checked against it.
    """
    drawn = {step: _draw(job, attempt, step.name) / step.chance for step in steps}
    if attempt == 1:
        return min(steps, key=drawn.__getitem__)
    return next((step for step in steps if drawn[step] < 1), None)


def _draw(job: int, attempt: int, step: str) -> float:
    """A number from 0 to 1 that nothing but these three decide."""
    digest = hashlib.blake2b(f"{job} {attempt} {step}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _take(ctx: Context, steps: Sequence[Step]) -> None:
    failing = failing_step(steps, ctx.job, ctx.attempt)
    for number, step in enumerate(steps, 1):
        ctx.check()  # leave here if the job is cancelled or its worker is to stop
        SYSTEM.sleep(step.seconds)
        if step is failing:
            raise ConnectionError(f"{step.name}: no answer")
        ctx.progress(number, total=len(steps), note=step.name)


# -- work that hurts its worker


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


# -- what really ran


@contextmanager
def noted(ctx: Context, journal: str) -> Iterator[None]:
    """Write to a file that a run began and how it ended: `done`, `raised`, or nothing at all.

    So the demo knows how often a job really ran from another witness than the database. "" is no
    journal.
    """
    _note(ctx, journal, "start")
    try:
        yield
    except BaseException:
        _note(ctx, journal, "raised")
        raise
    _note(ctx, journal, "done")


def _note(ctx: Context, journal: str, word: str) -> None:
    if not journal:
        return
    now = SYSTEM.monotonic_ns()
    line = f"{word} {ctx.job} {ctx.attempt} {os.getpid()} {now} {ctx.task}\n"
    # One write to a file opened for appending: the lines of many processes do not mix.
    descriptor = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
