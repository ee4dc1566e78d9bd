"""`logs` without a job: the log of the family."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.supervisor.cli.conftest import CONFIG, ROOT, Run


@pytest.fixture
def log(folder: Path) -> Path:
    (folder / "config.toml").write_text(f'{CONFIG}[log]\nfile = "family.log"\n')
    path = folder / "family.log"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    return path


def test_the_last_lines_of_the_log_are_shown(run: Run, log: Path) -> None:
    assert run("logs").stdout.splitlines() == [f"line {number}" for number in range(50, 100)]
    assert run("logs", "-n", "1").stdout == "line 99\n"
    assert run("logs", "-n", "0").stdout == ""
    log.write_text("")
    assert run("logs").stdout == ""


def test_without_a_file_it_is_said_where_the_log_goes(run: Run, folder: Path) -> None:
    result = run("logs")
    assert result.exit_code == 1
    assert "the log goes to the standard error of `jobvisor start`" in result.stderr


def test_json_and_follow_are_refused_where_they_make_no_sense(run: Run, log: Path) -> None:
    assert run("logs", "--json").exit_code == 2
    assert run("logs", "7", "--json", "-f").exit_code == 2


def test_a_log_is_followed_through_a_rotation_and_a_cut(log: Path, folder: Path) -> None:
    follower = subprocess.Popen(
        [sys.executable, "-m", "jobvisor", "logs", "-n", "1", "-f"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert follower.stdout is not None
    assert follower.stdout.readline() == "line 99\n"
    with log.open("a") as file:
        file.write("added\n")
    assert follower.stdout.readline() == "added\n"
    log.rename(folder / "family.log.1")
    log.write_text("of another file\n")
    assert follower.stdout.readline() == "of another file\n"
    log.write_text("cut\n")
    assert follower.stdout.readline() == "cut\n"
    follower.terminate()
    follower.communicate(timeout=60)
