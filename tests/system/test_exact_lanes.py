"""A worker with several lanes, killed at every line of its recording, one by one: no outcome is lost."""

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

LAST = 100_000  # far beyond any run: it ends when a run was not disturbed


def disturb(folder: Path, first: int, stride: int) -> int:
    """How many disturbances there were, each of them checked (see every_lane_line.py)."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.system.every_lane_line", *map(str, (first, stride, LAST))],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.match(r"(\d+) disturbances", ended.stdout)
    assert ended.returncode == 0, f"from {first} by {stride}: {ended.stderr[-6000:]}"
    assert told is not None, ended.stdout
    return int(told[1])


def test_lanes_killed_at_any_line_of_their_recording_lose_no_outcome(tmp_path: Path) -> None:
    stride = 61
    count = disturb(tmp_path, random.randint(1, stride), stride)
    assert count >= 1_200 // stride, "too few lines were counted: is the trace still on?"


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_every_single_line_of_several_lanes(tmp_path: Path) -> None:
    assert disturb(tmp_path, 1, 1) > 1_000
