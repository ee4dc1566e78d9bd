"""A worker whose turns a clerk makes: whichever of the two dies, whenever, its jobs are settled."""

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


def disturb(folder: Path, play: str, first: int, stride: int) -> int:
    """How many disturbances there were, each of them checked (see clerk_lines.py)."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.system.clerk_lines", play, str(first), str(stride)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.match(r"(\d+) disturbances", ended.stdout)
    assert ended.returncode == 0, f"{play} from {first} by {stride}: {ended.stderr[-6000:]}"
    assert told is not None, ended.stdout
    return int(told[1])


def some_lines(folder: Path, play: str, stride: int) -> None:
    """Every so-many-th line, another set each time; at least as many as the play should have."""
    count = disturb(folder, play, random.randint(1, stride), stride)
    assert count >= 1000 // stride, "too few lines were counted: is the trace still on?"


def test_a_worker_that_dies_at_any_line_of_its_clerk_leaves_no_job_running(tmp_path: Path) -> None:
    some_lines(tmp_path, "worker", stride=37)


def test_a_clerk_that_dies_at_any_line_loses_nothing_of_its_worker(tmp_path: Path) -> None:
    some_lines(tmp_path, "clerk", stride=41)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("play", ["worker", "clerk"])
def test_every_single_line_of_a_clerk(tmp_path: Path, play: str) -> None:
    assert disturb(tmp_path, play, 1, 1) > 1000
