"""Standard streams of every bad kind: closed, full, or a terminal that belongs to somebody."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import pytest

from tests.system.harness import MARK, ROOT, Build
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = f"""{MARK}
@task
def quick(n):
    mark("quick", n)

@task
def die():
    os._exit(1)

@task
def ask():
    with open("/dev/tty") as terminal:
        terminal.readline()

@task
def ask_quietly():
    import termios
    with open("/dev/tty", "r+b", buffering=0) as terminal:
        old = termios.tcgetattr(terminal)
        termios.tcsetattr(terminal, termios.TCSANOW, old)
        terminal.read(1)
"""


BUFFERED = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}


def test_a_script_with_unflushed_output_into_a_closed_pipe_can_be_a_parent(build: Build) -> None:
    house = build(TASKS)
    ids = [house.enqueue("quick", n) for n in range(20)]
    (house.folder / "script.py").write_text(
        """
import os
from jobvisor import Config, Supervisor
print("kept in the buffer", end="")
code = Supervisor(Config.load("config.toml")).run(drain=True)
os._exit(code)
"""
    )
    read, write = os.pipe()
    os.close(read)
    with house.log.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=house.folder,
            env=BUFFERED,
            stdout=write,
            stderr=log,
        )
    os.close(write)
    assert process.wait(30) == 0
    assert {house.client.get(job).state for job in ids} == {"succeeded"}


def test_what_a_script_printed_before_it_became_a_parent_is_written_once(build: Build) -> None:
    house = build(TASKS)
    house.enqueue("quick", 1)
    (house.folder / "script.py").write_text(
        """
import sys
from jobvisor import Config, Supervisor
print("before")
sys.exit(Supervisor(Config.load("config.toml")).run(drain=True))
"""
    )
    with house.log.open("ab") as log:
        told = subprocess.run(
            [sys.executable, "script.py"],
            cwd=house.folder,
            env=BUFFERED,
            stdout=subprocess.PIPE,
            stderr=log,
            timeout=30,
            check=True,
        )
    assert told.stdout == b"before\n"


def test_a_parent_whose_terminal_is_read_no_further_reaps_and_stops(build: Build) -> None:
    house = build(TASKS, processes=2)
    master, terminal = os.openpty()
    try:
        # Full, then with room for a little: here a line can begin that cannot end.
        os.set_blocking(terminal, False)
        with suppress(BlockingIOError):
            while os.write(terminal, b"x" * 64):
                pass
        os.set_blocking(terminal, True)
        os.read(master, 4096)
        family = house.start(output=terminal)
        for _ in range(5):
            house.wait_finished([house.enqueue("quick", n) for n in range(20)], limit=15)
            house.wait_finished([house.enqueue("die", retries=0)], limit=15)
        eventually(lambda: len(house.workers()) == 2, what="the dead are replaced")
        assert house.stop(family) == 0
    finally:
        os.close(master)
        os.close(terminal)


WITH_TERMINAL = """
import os, sys
os.open(os.environ["TERMINAL"], os.O_RDWR)  # the first terminal a session leader opens is its own
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.mark.parametrize("name", ["ask", "ask_quietly"])
def test_a_task_that_asks_the_terminal_gets_an_error_and_is_not_stopped(
    build: Build, name: str
) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue(name, retries=0)
    master, terminal = os.openpty()
    try:
        path = os.ttyname(terminal)
        family = house.start(prefix=[sys.executable, "-c", WITH_TERMINAL], TERMINAL=path)
        eventually(lambda: house.client.get(job).finished, limit=10, what="the job has ended")
        found = house.client.get(job)
        assert (found.state, house.history(job)) == ("failed", ["error"])
        assert found.error is not None
        assert "OSError" in found.error
        assert "Input/output error" in found.error
        house.wait_finished([house.enqueue("quick", 1)])
        assert house.stop(family) == 0
    finally:
        os.close(master)
        os.close(terminal)
