"""The task `shell`: a command as a job.

    [tasks]
    modules = ["jobvisor.builtin.shell"]

    jobvisor enqueue shell '["rsync", "-a", "in/", "backup:in/"]'

How a run of it ends:

| what happened | the job |
|---|---|
| it ended with an exit code of `expect` (0) | `succeeded`, with the code and the ends of its output |
| another exit code, or a signal | retry policy; the error has the code and the end of the output |
| an exit code of `permanent` | `failed` |
| no such program or folder (127), one that cannot be executed (126) | as these exit codes, in words |
| its `timeout` is over, or the job's is in a moment | SIGTERM, `grace` later SIGKILL; retry policy |
| its processes hold more than the job's `memory=` | killed; retry policy |
| somebody cancels the job | SIGTERM, `grace` later SIGKILL; `cancelled` |
| its worker or family stops, dies or is killed | killed; as any job whose worker did that |
| arguments that no command can have | `failed`, and nothing was started |

Nothing that the command has started outlives its run, daemons included. What it has others start (systemd,
docker, at) is theirs, and what our user may not kill (sudo) stays; while it stays no other run begins here.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO, Any

from jobvisor.jobs.builtin.command import Command, How, Report
from jobvisor.jobs.builtin.fence import take_fence
from jobvisor.jobs.builtin.given import (
    a_duration,
    a_flag,
    a_mapping,
    a_text,
    a_whole,
    refuse,
    texts,
)
from jobvisor.jobs.builtin.output import KEEP_MAX
from jobvisor.jobs.builtin.patience import Patience
from jobvisor.jobs.context import Context
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.keys import TABLES, Shape
from jobvisor.jobs.outcome import Cancelled, Fail
from jobvisor.jobs.registry import task
from jobvisor.jobs.running import running
from jobvisor.jobs.units import Duration, size_bytes, size_text

TOLD_MAX = 1_200  # characters of the output in an error, which has 2,000

NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as every shell says it


class CommandFailed(Exception):  # noqa: N818 -- `raise CommandFailed` is a sentence
    """The command did not end as expected."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message, exit_code)
        self.message = message
        self.exit_code = exit_code
        """The negative number of a signal; None where no command ended by itself."""

    def __str__(self) -> str:
        return self.message


@task(name="shell")
def shell(
    ctx: Context,
    command: list[str] | str,
    *,
    shell: bool = False,
    cwd: str | None = None,
    env: dict[str, str | None] | None = None,
    stdin: str | None = None,
    timeout: Duration | None = None,
    grace: Duration = "5s",
    limits: dict[str, str | int] | None = None,
    expect: Sequence[int] = (0,),
    permanent: Sequence[int] = (),
    keep: int = 16_384,
) -> dict[str, Any]:
    """Run a command; the result has its exit code, the ends of its output and what it took.

    What it writes goes where a task's own prints go, so that `jobvisor logs JOB -f` shows it live.

    Args:
        ctx: Given by whoever runs it.
        command: The program and its arguments. A text is given to `/bin/sh -c`, with `shell=True` alone.
        shell: Whether `command` is a text for the shell.
        cwd: The folder it starts in; else the worker's.
        env: Added to the worker's environment; None takes a variable away. It has JOB_ID and JOB_ATTEMPT, and
            not the passwords of our own configuration.
        stdin: What it reads; else nothing.
        timeout: How long it may run.
        grace: Between SIGTERM and SIGKILL.
        limits: Of each of its processes: `memory` (address space), `cpu` (seconds of CPU time), `files`.
        expect: The exit codes of a success. A signal is its negative number.
        permanent: Those after which no further attempt is made.
        keep: So many bytes at the end of each stream, at most 65,536.
    """
    try:
        codes = _codes("expect", expect), _codes("permanent", permanent)
        keep = a_whole("keep", keep, 0, KEEP_MAX)
        how = _how(ctx, command, in_shell=shell, cwd=cwd, env=env, limits=limits)
        patience = Patience(ctx, a_duration("timeout", timeout), a_duration("grace", grace) or 0)
        text = None if stdin is None else a_text("stdin", stdin)
    except InvalidOption as error:
        raise Fail(f"shell: {error}") from None
    fence = take_fence(lambda: ctx.cancelled)
    if fence is None:
        ctx.check()
        raise CommandFailed("an earlier run of this job still has processes on this machine")
    with fence, _file_of(text) as file:
        started = Command(replace(how, stdin=file), fence.fileno(), keep)
    with started:
        return _ended(started, patience, how.command[0], *codes)


def _how(ctx: Context, command: Any, *, in_shell: Any, cwd: Any, env: Any, limits: Any) -> How:
    """How it is started, or an InvalidOption."""
    if a_flag("shell", in_shell):
        command = ["/bin/sh", "-c", a_text("command", command)]
    elif isinstance(command, str):
        raise InvalidOption(
            f"command={shown(command)} is a text: write a list of the program and its arguments, "
            "or shell=True for /bin/sh"
        )
    command = texts("command", command)
    if not command or not command[0]:
        raise refuse("command", command, "the name of a program and its arguments")
    found = running.get()
    return How(
        command,
        _environment(ctx, env),
        None if cwd is None else a_text("cwd", cwd),
        tuple(_limit(name, value) for name, value in a_mapping("limits", limits).items()),
        0 if found is None else found[0].memory_bytes,
    )


def _environment(ctx: Context, env: Any) -> dict[str, str]:
    told = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    told |= {"JOB_ID": str(ctx.job), "JOB_ATTEMPT": str(ctx.attempt)}
    for name, value in a_mapping("env", env).items():
        if not a_text("env", name) or "=" in name:
            raise refuse("env", name, "names of variables, without =")
        told.pop(name, None)
        if value is not None:
            told[name] = a_text(f"env.{name}", value)
    return told


_SECRETS = frozenset(
    table.variable(key)
    for table in TABLES
    if table.shape is Shape.ONE
    for key in table.keys
    if key.name in ("password", "token")
)
"""Not the URL of the database: programs that a task starts find it by that."""

_RESOURCES = {
    "memory": resource.RLIMIT_AS,
    "cpu": resource.RLIMIT_CPU,
    "files": resource.RLIMIT_NOFILE,
}


def _limit(name: str, value: Any) -> tuple[int, int, int]:
    number = _RESOURCES.get(name)
    where = f"limits.{name}"
    if number is None:
        raise InvalidOption(f"{where} is no limit; there are {', '.join(_RESOURCES)}")
    if name == "memory":
        soft = _size(where, value)
    elif name == "cpu":
        soft = max(1, round((a_duration(where, value) or 0) / 1000))
    else:
        soft = a_whole(where, value, 3, 1 << 30)
    _, most = resource.getrlimit(number)
    if most != resource.RLIM_INFINITY and soft > most:
        raise InvalidOption(f"{where}={shown(value)} is more than this worker may have: {most}")
    # SIGXCPU first, which a program may handle; what goes on all the same is killed a second later.
    hard = soft + 1 if name == "cpu" and soft != most else soft
    return number, soft, hard


def _size(where: str, value: Any) -> int:
    try:
        return size_bytes(value)
    except InvalidOption as error:
        raise InvalidOption(f"{where}: {error}") from error


def _codes(name: str, value: Any) -> frozenset[int]:
    if not isinstance(value, (list, tuple, set, frozenset)):
        raise refuse(name, value, "a list of exit codes")
    return frozenset(a_whole(name, code, -64, 255) for code in value)


@contextlib.contextmanager
def _file_of(text: str | None) -> Iterator[IO[bytes] | None]:
    """A file without a name that holds the text; the command has it as its own by then."""
    if text is None:
        yield None
        return
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise refuse("stdin", text, "a text that UTF-8 can hold") from error
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield file


def _ended(
    command: Command,
    patience: Patience,
    program: str,
    expect: frozenset[int],
    permanent: frozenset[int],
) -> dict[str, Any]:
    """Wait for the end of a command; its result, or raise what became of it."""
    while command.report is None:
        command.wait(patience.pause_seconds)
        if command.report is None:  # what has ended by itself was not ended by us
            patience.see_to(command)
    report = command.report
    words = _words(report, program)
    if patience.why == "cancelled":
        raise Cancelled(f"asked to end; {words}")
    if patience.why:
        raise CommandFailed(_told(f"ended because {patience.why}", command), report.status)
    if report.heavy:
        told = f"killed: its processes held {size_text(report.heavy)}, more than memory= allows"
        raise CommandFailed(_told(told, command))
    code = _code(report)
    if code in permanent:
        raise Fail(_told(words, command))
    if report.stage or code not in expect:
        raise CommandFailed(_told(words, command), code)
    out, err = command.outputs
    return {
        "exit_code": code,
        "stdout": out.text,
        "stderr": err.text,
        "stdout_bytes": out.count,
        "stderr_bytes": err.count,
        "seconds": patience.seconds,
        "cpu_seconds": report.cpu_seconds,
    }


def _code(report: Report) -> int | None:
    if report.stage in ("exec", "cwd"):
        absent = report.errno in (errno.ENOENT, errno.ENOTDIR)
        return NOT_FOUND if absent else NOT_EXECUTABLE
    return report.status


_START_WORDS = {
    errno.ENOENT: "there is no program {!r}, or none that the first line of the script names",
    errno.ENOTDIR: "there is no program {!r}",
    errno.EACCES: "{!r} may not be executed: its mode or its folder's forbids it",
    errno.ENOEXEC: "{!r} is no program; a script begins with #! and what runs it",
    errno.E2BIG: "{!r} is given more arguments and environment than this system takes",
}
_CODE_WORDS = {
    NOT_EXECUTABLE: " (shells say so of what cannot be executed)",
    NOT_FOUND: " (shells say so of a program that is not there)",
}


def _words(report: Report, program: str) -> str:
    """How it ended, in a few words."""
    if report.stage == "lost":
        return "the process that kept the command was killed, and the command with it"
    if report.stage:
        return _start_words(report, program)
    code = report.status or 0
    if code < 0:
        return f"ended by {_signal_name(-code)}"
    if code > 128 and (name := _signal_name(code - 128)).startswith("SIG"):
        return f"exit code {code} (as of {name})"
    return f"exit code {code}{_CODE_WORDS.get(code, '')}"


def _start_words(report: Report, program: str) -> str:
    if report.stage == "cwd":
        return f"exit code {_code(report)}: its folder cannot be entered: {report.why}"
    if report.stage != "exec":
        return f"it cannot be started ({report.stage}): {report.why}"
    known = _START_WORDS.get(report.errno)
    return f"exit code {_code(report)}: {known.format(program) if known else report.why}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _told(words: str, command: Command) -> str:
    """The words, and the end of what it wrote."""
    out, err = command.outputs
    told = [
        (name, text)
        for name, output in (("stderr", err), ("stdout", out))
        if (text := output.text.strip())
    ]
    return "\n".join(
        [words, *(f"{name}: {_last(text, TOLD_MAX // len(told))}" for name, text in told)]
    )


def _last(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"...{text[-limit:]}"
