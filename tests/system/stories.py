"""What the tests of killed jobs ask: where a task stands in its source, and what its attempts tell."""

from __future__ import annotations

import os
import subprocess
import sys

from jobvisor.jobs.job import Attempt
from tests.system.harness import ROOT, House

#: Tasks that stand in native code, and what they need.
NATIVE_TASKS = """
import ctypes, re
from collections import deque
from itertools import repeat

def lock_twice(library):
    mutex = ctypes.create_string_buffer(64)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)

@task
def in_a_regex():
    re.match(r"(a|aa)+$", "a" * 60 + "b")  # the line

@task
def with_the_lock():
    lock_twice(ctypes.PyDLL(None))  # the line

@task
def without_the_lock():
    lock_twice(ctypes.CDLL(None))  # the line

@task
def in_c():
    mark("native")
    deque(repeat(None), maxlen=0)  # the line
"""

NATIVE = ["in_a_regex", "with_the_lock", "without_the_lock", "in_c"]


MARKED = ("# the line", "# task body: the line")


def line_of(house: House, task: str) -> str:
    """The marked line of a task, as a stack names it."""
    source = (house.folder / "app.py").read_text().splitlines()
    begin = next(at for at, line in enumerate(source) if f"def {task}(" in line)
    marked = next(at for at, line in enumerate(source) if at > begin and line.endswith(MARKED))
    return f'app.py", line {marked + 1}, in {task}'


def functions(stack: str) -> list[str]:
    """The names of the functions on a stack."""
    return [line.rsplit(" in ", 1)[1] for line in stack.splitlines() if " in " in line]


def attempts(house: House, *jobs: int) -> list[Attempt]:
    """All attempts of these jobs, of each the first one first."""
    return [attempt for job in jobs for attempt in house.client.attempts(job)]


def command(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    """What a command of ours says, typed in the folder of the application."""
    return subprocess.run(
        [sys.executable, "-m", "jobvisor", *words],
        cwd=house.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
