"""The command line: the group, its error border, and what every command shares.

A command's module is imported only when that command is asked for, so `jobvisor start` carries no
table library and no database into the parent. Data goes to stdout, talk to stderr.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import click

from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.nearest import did_you_mean
from jobvisor.jobs.units import duration_text
from jobvisor.supervisor.config import Config

__all__ = [
    "brief",
    "config_option",
    "examples",
    "json_option",
    "load_config",
    "main",
    "plain",
    "print_json",
    "print_table",
    "say",
]

COMMANDS = {
    "init": ("setup", "init"),
    "check": ("setup", "check"),
    "doctor": ("doctor", "doctor"),
    "migrate": ("setup", "migrate"),
    "grants": ("grants", "grants"),
    "start": ("family", "start"),
    "stop": ("family", "stop"),
    "reload": ("family", "reload"),
    "scale": ("family", "scale"),
    "status": ("standing", "status"),
    "top": ("top.top", "top"),
    "health": ("standing", "health"),
    "stack": ("stack", "stack"),
    "enqueue": ("enqueue", "enqueue"),
    "copy": ("copy", "copy"),
    "list": ("look", "list_jobs"),
    "show": ("look", "show"),
    "logs": ("logs", "logs"),
    "failures": ("beside", "failures"),
    "cancel": ("change", "cancel"),
    "requeue": ("change", "requeue"),
    "reschedule": ("reschedule", "reschedule"),
    "prune": ("change", "prune"),
    "queues": ("pausing", "queues"),
    "pause": ("pausing", "pause"),
    "resume": ("pausing", "resume"),
    "actions": ("beside", "actions"),
    "tasks": ("beside", "tasks"),
    "schedules": ("schedules", "schedules"),
    "limits": ("limits", "limits"),
    "export": ("move", "export_jobs"),
    "import": ("move", "import_jobs"),
    "demo": ("demo", "demo"),
    "metrics": ("metrics", "metrics"),
    "completion": ("setup", "completion"),
}
"""Each command, in the order help shows them: its module beside this file, and its name there."""

NARROW = 80
"""Columns of a terminal that cannot show everything."""

INTERRUPTED = 130
"""What a shell reports for a command that ended by Ctrl-C."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


USAGE = 2
"""The command line itself is wrong."""

FAILED = 1
"""What was asked for could not be done."""


class Commands(click.Group):
    """A group that imports a command when it is asked for, and turns our errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands whose module is there, in the order of the table."""
        del ctx
        return [name for name, (module, _) in COMMANDS.items() if _exists(module)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, imported now; None when there is none."""
        if cmd_name not in self.list_commands(ctx):
            return None
        module, name = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"jobvisor.supervisor.cli.{module}"), name)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command for a misspelled one; the exit code is 2."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = did_you_mean(args[0], self.list_commands(ctx))
            if not hint:
                raise
            raise click.UsageError(f"No such command {args[0]!r}{hint}", ctx) from error

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Read the options before the command; one line for a wrong one."""
        with _usage_in_one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command behind the error border."""
        if None in (sys.stdin, sys.stdout, sys.stderr):  # closed before the start, as `>&-` does
            from jobvisor.supervisor.embed import fill_streams  # noqa: PLC0415 - seldom needed

            fill_streams()
        try:
            with _usage_in_one_line():
                return super().invoke(ctx)
        except JobsError as error:
            raise _failed(str(error), error.exit_code) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever read has seen enough, which click knows
            _forget_output()
            where = f"{error.filename}: " if error.filename else ""
            raise _failed(f"{where}{error.strerror or error}", FAILED) from error
        except KeyboardInterrupt:
            click.echo("", err=True)
            raise click.exceptions.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def _usage_in_one_line() -> Iterator[None]:
    """The three lines click shows for a usage error as one, like every other error."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise  # no error: the bare command shows its help
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "jobvisor"
        message = error.format_message().rstrip(".")
        see = f"see `{command} --help`"
        told = f"{message} S{see[1:]}" if message.endswith("?") else f"{message}; {see}"
        raise _failed(told, USAGE) from error


def _failed(message: str, exit_code: int) -> click.exceptions.Exit:
    """Write an expected error as the user sees it, one line, and make the way out."""
    say(f"jobvisor: {' '.join(message.split())}")
    return click.exceptions.Exit(exit_code)


def _forget_output() -> None:
    """What stdout has not taken yet goes nowhere, or the interpreter would try once more at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def _exists(module: str) -> bool:
    return importlib.util.find_spec(f"jobvisor.supervisor.cli.{module}") is not None


def _print_version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from importlib import metadata  # noqa: PLC0415 - slow, and only this option needs it

    try:
        version = metadata.version("jobvisor")
    except metadata.PackageNotFoundError:
        version = "(not installed: running from its source tree)"
    click.echo(f"jobvisor {version}")
    ctx.exit()


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 ok, 1 the checked thing is not so, 2 usage, 69 database unreachable, "
    "75 something had to be killed, 78 bad configuration.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main() -> None:
    """A durable background-job queue on one SQL table, run in supervised processes."""


def examples(*lines: str) -> str:
    """The end of a command's help: what to type, each on a line of its own."""
    return "\b\n" + "\n".join(["Examples:", *(f"  {line}" for line in lines)])


def config_option(command: _Command) -> _Command:
    """Give a command `-c`; it gets `config`, the path or None."""
    return click.option(
        "-c",
        "--config",
        envvar="JOBVISOR_CONFIG",
        show_envvar=True,
        metavar="FILE",
        help="The configuration.  [default: ./config.toml]",
    )(command)


def json_option(command: _Command) -> _Command:
    """Give a command `--json`; it gets `as_json`."""
    return click.option(
        "--json", "as_json", is_flag=True, help="JSON on stdout, for other programs."
    )(command)


def load_config(path: str | None) -> Config:
    """The configuration a command was given by `-c`, else `./config.toml`."""
    return Config.load(path or "config.toml")


def say(text: str) -> None:
    """Tell the person something: on stderr, so that stdout holds only data."""
    click.echo(plain(text), err=True)


def plain(text: str) -> str:
    """The text without control characters, which could steer a terminal; lines and tabs stay.

    What jobs carry was written by strangers: an error message may hold escape sequences.
    """
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else repr(letter)[1:-1]
        for letter in text
    )


def brief(duration_ms: int) -> str:
    """A duration by its two largest units, as tables have it; below a second it is 0s."""
    text = duration_text(max(0, duration_ms) // 1000 * 1000)
    return "".join(re.findall(r"[0-9]+[a-z]+", text)[:2])


def print_json(value: Any, *, in_a_line: bool = False) -> None:
    """Write a value as JSON: indented for a person at a terminal, one line for a pipe or where it must be."""
    indent = 2 if sys.stdout.isatty() and not in_a_line else None
    click.echo(json.dumps(value, indent=indent))


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[Any]], *, seldom: Sequence[str] = ()
) -> None:
    """Write a table: drawn by rich at a terminal, plain aligned columns into a pipe.

    Nothing is cut in a pipe, so `grep` and `awk` find whole values; NO_COLOR is rich's to obey. The
    columns that are `seldom` filled are left out at a terminal where they are all empty, the first of
    them at a narrow one too.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        import shutil  # noqa: PLC0415 -- with three ways to compress, which every other command would load

        width = shutil.get_terminal_size().columns
        shown = [
            place
            for place, column in enumerate(columns)
            if column not in seldom
            or (
                any(row[place] != "-" for row in cells)
                and not (width < NARROW and column == seldom[0])
            )
        ]
        drawn = [[row[place] for place in shown] for row in cells]
        heads = [columns[place] for place in shown]
        _print_drawn(heads, _fitting(heads, drawn, width))
        return
    heads = [column.upper() for column in columns]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for row in [heads, *cells]:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def _print_drawn(columns: Sequence[str], cells: list[list[str]]) -> None:
    from rich import box  # noqa: PLC0415 - rich costs more than most commands
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        long = column in _LONG
        table.add_column(
            column, overflow="fold", no_wrap=not long, min_width=LEAST if long else None
        )
    for row in cells:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console(file=sys.stdout).print(table)


def _fitting(columns: Sequence[str], cells: list[list[str]], width: int) -> list[list[str]]:
    """The cells with what would fill a narrow terminal cut: two lines of their share of the width."""
    widest = [
        max([len(column), *map(len, each)]) for column, *each in zip(columns, *cells, strict=True)
    ]
    taken = sum(wide for column, wide in zip(columns, widest, strict=True) if column not in _LONG)
    long = sum(column in _LONG for column in columns)
    share = max(LEAST, (width - taken - GAP * len(columns)) // max(long, 1))
    return [
        [
            f"{cell[: 2 * share - 3]}..." if column in _CUT and len(cell) > 2 * share else cell
            for column, cell in zip(columns, row, strict=True)
        ]
        for row in cells
    ]


def _cell(value: Any) -> str:
    text = "" if value is None else plain(str(value))
    return " ".join(text.split()) or "-"


_LONG = frozenset({"task", "args", "error", "finding", "cause", "takes", "about", "what", "who"})
"""Columns that share what a terminal has left; the others are not broken."""

_CUT = frozenset({"args", "error", "about", "takes"})
"""Those of them that `show` and --json have whole."""

LEAST = 10
"""Letters that such a column has at the least."""

GAP = 3
"""What rich puts between two columns."""

_STYLES = {
    "ok": "green",
    "warn": "yellow",
    "fail": "bold red",
    "succeeded": "green",
    "failed": "bold red",
    "cancelled": "dim",
    "running": "cyan",
    "busy": "cyan",
    "backoff": "bold red",
}
