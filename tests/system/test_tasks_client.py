"""A task's own client, and a program that a task starts, have all that the family has."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.system.harness import Build

pytestmark = pytest.mark.system

TASKS = """
import subprocess

class Backwards:
    def encode(self, text):
        return text[::-1]
    def decode(self, text):
        return text[::-1]

codec = Backwards()
client = Client()

@task
def inner(text):
    return text

@task
def outer():
    os.chdir("/")
    code = "from jobvisor import Client; print(Client().enqueue('app:inner', 'from a program').id)"
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    own = Client()
    client.enqueue("app:inner", "early")
    own.enqueue("app:inner", "late")
    assert not own._hold  # no connection to SQLite is open while the task goes on
"""


def test_what_the_configuration_says_holds_in_a_task_and_in_a_program_of_a_task(
    build: Build,
) -> None:
    house = build(
        TASKS,
        processes=1,
        config={"database": {"codec": "app:codec"}, "defaults": {"retries": 7}},
        queues=["default"],
    )
    process = house.start()
    outer = house.client.enqueue("app:outer")
    assert house.client.wait(outer.id, timeout=60).state == "succeeded"
    house.stop(process)
    assert stored(house.folder / "jobs.db") == [
        ("app:outer", 4, False),  # of this process, which has another configuration
        ("app:inner", 8, True),
        ("app:inner", 8, True),
        ("app:inner", 8, True),
    ]


def stored(path: Path) -> list[tuple[str, int, bool]]:
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT task, attempts_max, args FROM jobs ORDER BY id").fetchall()
    connection.close()
    return [(task, attempts, args.startswith('{"$codec"')) for task, attempts, args in rows]
