"""Disturbed at every line, one by one: nothing is lost, nothing runs again, one job pays."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys

import pytest

from tests.system.every_line import TASKS
from tests.system.harness import ROOT, Build, House

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

LAST = 100_000  # far beyond any run: it ends when a run was not disturbed


def disturb(house: House, play: str, first: int, stride: int, last: int = LAST) -> int:
    """How many disturbances there were, each of them checked (see every_line.py)."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.system.every_line", play, *map(str, (first, stride, last))],
        cwd=house.folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{house.folder}"},
        capture_output=True,
        text=True,
        check=False,
    )
    told = re.match(r"(\d+) disturbances", ended.stdout)
    assert ended.returncode == 0, f"{play} from {first} by {stride}: {ended.stderr[-6000:]}"
    assert told is not None, ended.stdout
    return int(told[1])


def some_lines(house: House, play: str, stride: int, expected: int, last: int = LAST) -> None:
    """Every so-many-th line, another set each time; at least as many as the play should have."""
    count = disturb(house, play, random.randint(1, stride), stride, last)
    assert count >= expected // stride, "too few lines were counted: is the trace still on?"


def test_a_worker_that_dies_at_any_line_costs_its_current_job_one_attempt(build: Build) -> None:
    some_lines(build(TASKS), "worker", stride=67, expected=1500)


def test_a_settling_that_dies_at_any_line_is_done_again_without_a_trace(build: Build) -> None:
    some_lines(build(TASKS), "caretaker", stride=53, expected=700)


def test_a_claim_recalled_at_any_line_of_its_worker_runs_each_job_once(build: Build) -> None:
    some_lines(build(TASKS), "recall", stride=29, expected=400)


def test_an_orphan_that_dies_while_it_is_judged_keeps_what_it_recorded(build: Build) -> None:
    some_lines(build(TASKS), "orphans", stride=13, expected=250, last=250)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("play", "last"), [("worker", LAST), ("caretaker", LAST), ("recall", LAST), ("orphans", 600)]
)
def test_every_single_line(build: Build, play: str, last: int) -> None:
    assert disturb(build(TASKS), play, 1, 1, last) > 400
