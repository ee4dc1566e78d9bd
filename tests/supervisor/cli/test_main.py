"""The group: help, misspellings, the error border, and what a command must not import."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobvisor.jobs.client import Client
from jobvisor.supervisor.cli import COMMANDS, _fitting, brief, main, plain
from tests.supervisor.cli.conftest import ROOT, Run

ENVIRON = os.environ | {"PYTHONPATH": str(ROOT)}


def test_help_shows_every_command(run: Run) -> None:
    shown = run("--help")
    assert shown.exit_code == 0
    for name in main.list_commands(None):  # type: ignore[arg-type] # it does not look
        assert f"\n  {name} " in shown.stdout
    assert "..." not in shown.stdout.split("Commands:")[1].split("Exit codes")[0]


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_explains_itself_and_its_options(run: Run, name: str) -> None:
    shown = run(name, "--help")
    assert shown.exit_code == 0
    command = main.get_command(None, name)  # type: ignore[arg-type] # it does not look
    assert command is not None
    assert command.help
    below = shown.stdout.partition("Commands:")[2].partition("Examples:")[0]
    assert "..." not in below


def test_the_bare_command_shows_its_help(run: Run) -> None:
    assert "Commands:" in run().output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["strat"], "No such command 'strat'; did you mean 'start'? See `jobvisor --help`"),
        (["xyzzy"], "No such command 'xyzzy'; see `jobvisor --help`"),
        (["--what"], "No such option '--what'; see `jobvisor --help`"),
        (["list", "--limit", "0"], "see `jobvisor list --help`"),
        (["show"], "Missing argument 'ID'; see `jobvisor show --help`"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    run: Run, args: list[str], message: str
) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("jobvisor: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_an_error_is_one_line_and_its_exit_code(run: Run, tmp_path: Path) -> None:
    result = run("check", "-c", str(tmp_path / "none.toml"))
    assert result.exit_code == 78
    assert result.stderr == (
        f"jobvisor: {tmp_path}/none.toml does not exist; `jobvisor init` writes one\n"
    )


def test_the_configuration_is_named_by_a_variable_too(run: Run, tmp_path: Path) -> None:
    result = run("check", env={"JOBVISOR_CONFIG": str(tmp_path / "other.toml")})
    assert "other.toml does not exist" in result.stderr


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert plain("a\x1b[31m\x07\u202eb\tc\n") == "a\\x1b[31m\\x07\\u202eb\tc\n"


@pytest.mark.parametrize(
    ("ms", "text"), [(0, "0s"), (999, "0s"), (90_500, "1m30s"), (98_106_893_000, "1135d11h")]
)
def test_a_brief_duration_has_two_units(ms: int, text: str) -> None:
    assert brief(ms) == text


def test_a_table_that_is_too_wide_keeps_what_is_short_and_cuts_what_is_long() -> None:
    columns = ["id", "state", "task", "error"]
    (cells,) = _fitting(columns, [["7", "failed", "app.mail:send", "x" * 500]], 60)
    assert cells[:3] == ["7", "failed", "app.mail:send"]
    assert cells[3].endswith("x...")
    assert len(cells[3]) < 60


def test_python_m_supervisor_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobvisor", "--version"],
        capture_output=True,
        text=True,
        env=ENVIRON,
        check=True,
    )
    assert done.stdout.startswith("jobvisor ")


def test_the_commands_of_a_family_import_no_library_they_do_not_use() -> None:
    script = (
        "import sys; from jobvisor.supervisor.cli import main; main.get_command(None, 'start');"
        "print([n for n in ('rich', 'sqlite_utils', 'jobvisor.supervisor.cli.enqueue') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=ENVIRON, check=True
    )
    assert ast.literal_eval(done.stdout) == []


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("list > /dev/full", 1, "jobvisor: No space left on device\n"),
        ("list --json > /dev/full", 1, "jobvisor: No space left on device\n"),
        ("export > /dev/full", 1, "jobvisor: No space left on device\n"),
        ("list <&- >&-", 0, ""),
        ("enqueue a:b --force - <&-", 0, "enqueued 0 jobs\n"),
        ("cancel --all <&-", 2, "there is nobody to ask here"),
        ("list --task $'\\xff' --error $'\\xff'", 0, ""),
        ("export | true", 0, ""),
    ],
)
def test_a_stream_that_is_full_or_closed_is_no_traceback(
    folder: Path, command: str, code: int, message: str
) -> None:
    with Client(f"sqlite:///{folder}/jobs.db") as client:
        client.enqueue("a:b", "x" * 100_000)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m jobvisor {command}"],
        capture_output=True,
        text=True,
        env=ENVIRON,
        check=False,
    )
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_a_closed_pipe_is_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        f"{sys.executable} -m jobvisor --help | true",
        shell=True,
        capture_output=True,
        text=True,
        env=ENVIRON,
        cwd=tmp_path,
        check=False,
    )
    assert "Traceback" not in done.stderr
