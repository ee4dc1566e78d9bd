"""`jobvisor top` beside a real family: its stacks, what its jobs say, and its death."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.client import Client
from jobvisor.supervisor.family import StateDir
from tests.supervisor.cli.test_main import ENVIRON
from tests.supervisor.cli.top.conftest import Show

CONFIG = """
[tasks]
modules = ["work"]
[[workers]]
processes = 2
"""

WORK = """
from pathlib import Path
from threading import Event
from jobvisor import task

@task
def dig(into: str) -> None:
    print("the spade is sharp")
    while not Path(into).exists():
        Event().wait(0.01)
    print("done")
"""


@pytest.fixture
def family(folder: Path, client: Client) -> Iterator[subprocess.Popen[bytes]]:
    (folder / "config.toml").write_text(CONFIG)
    (folder / "work.py").write_text(WORK)
    with (folder / "family.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobvisor", "start"],
            cwd=folder,
            env=ENVIRON,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGQUIT)
        process.wait()
        StateDir(str(folder / ".jobvisor")).wait_released(30)


@pytest.mark.system
def test_a_running_job_is_seen_asked_listened_to_and_outlived(
    family: subprocess.Popen[bytes], show: Show, client: Client, folder: Path
) -> None:
    client.enqueue("work:dig", str(folder / "end"))
    top = show(size=(120, 40))
    top.see("family main: running", "running 1 of 2", "busy", "idle", "%")
    if "busy" not in top.chosen:
        top.press("j")
        top.see("2 of 2")
    top.press("s")
    top.see("stack of job 1", "in dig", "work.py")
    top.press("l")
    top.see("log of job 1", "attempt 1", "the spade is sharp")
    top.press("\r")
    top.see("job 1 (", "state:            running")
    (folder / "end").touch()
    top.see("state:            succeeded")
    top.press("\x1b")
    top.see("running 0 of 2")
    top.press("s")
    top.see("stack of worker", "no job")
    top.press("\x1b")
    os.kill(family.pid, signal.SIGKILL)
    top.see("family main: stopped", "it is not running")
    top.press("q")
    assert (top.ended(), top.restored) == (0, True)
