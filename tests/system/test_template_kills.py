"""A family's template, without a database: whoever dies at whatever step of a fork, nobody is left behind."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.harness import ROOT

pytestmark = pytest.mark.system

CONFIG = """
[tasks]
modules = ["app"]
preload = true
[[workers]]
processes = 3
[log]
level = "error"
"""


def play(folder: Path, *arguments: object) -> str:
    """What a play of every_fork.py says, each life of it checked."""
    (folder / "app.py").write_text("")
    (folder / "config.toml").write_text(CONFIG)
    ended = subprocess.run(
        [sys.executable, "-m", "tests.system.every_fork", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, f"{arguments}: {ended.stderr[-6000:]}"
    return ended.stdout


def number(told: str, words: str) -> int:
    """The number before these words."""
    found = re.search(rf"(\d+) {words}", told)
    assert found is not None, told
    return int(found[1])


def test_workers_of_a_template_killed_at_random_enter_once_and_are_judged_once(
    tmp_path: Path,
) -> None:
    told = play(tmp_path, "random", 150, random.randrange(1 << 30))
    assert number(told, "copied") > 20, told


@pytest.mark.parametrize(
    ("who", "stride", "deaths"), [("template", 3, 11), ("middle", 2, 5), ("worker", 2, 12)]
)
def test_whoever_dies_at_a_line_of_a_fork_leaves_nobody_behind(
    tmp_path: Path, who: str, stride: int, deaths: int
) -> None:
    told = play(tmp_path, "line", who, random.randint(1, stride), stride)
    assert number(told, "killed$") >= deaths, told


def test_all_leave_whose_parent_dies_at_a_line_of_its_part_in_a_fork(tmp_path: Path) -> None:
    assert number(play(tmp_path, "parent", random.randint(1, 151), 151), "killed") >= 8


def test_workers_come_and_go_and_the_parent_does_not_grow(tmp_path: Path) -> None:
    told = play(tmp_path, "churn", 300)
    assert number(told, "copied") >= 300, told
    assert number(told, "KB") < 500, told


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_replacements_leave_nothing_behind(tmp_path: Path) -> None:
    told = play(tmp_path, "churn", 10_000)
    assert number(told, "copied") >= 10_000, told
    assert number(told, "KB") < 1000, told


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_three_thousand_lives_under_random_kills(tmp_path: Path) -> None:
    told = play(tmp_path, "random", 3_000, random.randrange(1 << 30))
    assert number(told, "copied") > 500, told


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("who", ["template", "middle", "worker"])
def test_at_each_line_of_a_fork_somebody_dies(tmp_path: Path, who: str) -> None:
    play(tmp_path, "line", who, 1, 1)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_at_each_line_of_its_part_in_a_fork_a_parent_dies(tmp_path: Path) -> None:
    play(tmp_path, "parent", 1, 1)
