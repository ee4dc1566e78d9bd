"""A worker whose turns a clerk makes: whichever of the two dies, whenever, its jobs are settled."""

from __future__ import annotations

import os
import random
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from jobvisor.jobs.store import open_store
from tests.store.making import new
from tests.system.harness import ROOT, traced

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


def test_a_clerk_that_dies_at_any_call_of_the_system_loses_nothing_either(tmp_path: Path) -> None:
    traced()  # or a skip
    assert disturb(tmp_path, "calls", random.randint(1, 7), 7) >= 40 // 7


@pytest.mark.parametrize("jobs", [1_000, pytest.param(50_000, marks=pytest.mark.soak)])
def test_a_database_whose_files_are_copied_in_the_worker_all_the_time_stays_whole(
    tmp_path: Path, jobs: int
) -> None:
    """With the connection in the worker it is damaged within two seconds."""
    store = open_store(f"sqlite:///{tmp_path}/jobs.db", durable=False)
    store.enqueue([new() for _ in range(jobs)])
    store.close()
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.system.copying", "clerk"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    told = [map(int, worker.communicate()[0].split()) for worker in workers]
    done, enqueued = map(sum, zip(*told, strict=True))
    assert done == jobs
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as connection:
        rows = connection.execute("SELECT state, attempt, count(*) FROM jobs GROUP BY 1, 2")
        assert rows.fetchall() == [("pending", 0, enqueued), ("succeeded", 1, jobs)]
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("play", "least"), [("worker", 1000), ("clerk", 1000), ("calls", 40)])
def test_every_single_line_and_call_of_a_clerk(tmp_path: Path, play: str, least: int) -> None:
    assert disturb(tmp_path, play, 1, 1) > least
