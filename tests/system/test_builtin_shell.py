"""The task `shell` in a family: whatever ends its worker ends the command, and all that came of it."""

from __future__ import annotations

import os
import signal
from functools import partial
from typing import Any

import pytest

from tests.system.harness import Build, House, is_gone
from tests.waiting import eventually

pytestmark = pytest.mark.system

CONFIG = {"tasks": {"modules": ["jobvisor.builtin.shell"]}}

#: Leaves a child, a daemon in a session of its own, and goes on.
FAMILY = """
sleep 601 & echo $! >> pids
(setsid sh -c 'echo $$ >> pids; trap "" TERM HUP; while :; do sleep 602; done' &)
while [ $(wc -l < pids) -lt $((2 * JOB_ATTEMPT)) ]; do sleep 0.01; done
echo $$ >> began
test -e go || sleep 603
"""


def enqueue(house: House, command: Any, *, using: Any = None, **kwargs: Any) -> int:
    call = house.client.call("shell", command, options=using, shell=True, **kwargs)
    return house.client.enqueue(call).id


def all_gone(house: House) -> None:
    """Each process that a command has noted ends."""
    for line in house.lines("pids") + house.lines("began"):
        eventually(partial(is_gone, int(line)), what=f"{line} is gone")


def test_a_killed_worker_takes_the_whole_command_along_before_the_next_run_begins(
    build: Build,
) -> None:
    house = build("", processes=2, config=CONFIG)
    # The next run tells which processes of the first one it still sees.
    seen = "for p in $(cat pids 2>/dev/null); do kill -0 $p && echo $p >> seen; done 2>/dev/null; "
    job = enqueue(house, seen + FAMILY, using={"retry": "0s"})
    family = house.start()
    house.wait_lines("began")
    worker = house.client.get(job)
    house.touch("go")
    [pid] = [
        each["pid"]
        for each in house.status()["workers"]
        if each["pid"] and _runs(house, each["pid"])
    ]
    os.kill(pid, signal.SIGKILL)
    house.wait_state(job, "succeeded")
    assert worker.attempt == 1
    assert house.history(job) == ["crash"]
    assert house.lines("seen") == []
    all_gone(house)
    assert house.stop(family) == 0


def test_a_worker_killed_with_the_keeper_of_its_command_leaves_nothing_of_it(build: Build) -> None:
    house = build("", processes=2, config=CONFIG)
    # What was killed may wait for somebody to take its end: that one runs no more.
    seen = (
        "for p in $(cat pids); do grep '^State:.[^ZX]' /proc/$p/status >> seen; done 2>/dev/null; "
    )
    job = enqueue(house, seen + FAMILY, using={"retry": "0s"})
    family = house.start()
    house.wait_lines("began")
    house.touch("go")
    [pid] = [
        each["pid"]
        for each in house.status()["workers"]
        if each["pid"] and _runs(house, each["pid"])
    ]
    keepers = house.children(pid)
    os.kill(pid, signal.SIGSTOP)  # so that it does not see its keeper die
    for each in (*keepers, pid):
        os.kill(each, signal.SIGKILL)
    house.wait_state(job, "succeeded")
    assert house.history(job) == ["crash"]
    assert house.lines("seen") == []
    all_gone(house)
    assert house.stop(family) == 0


def _runs(house: House, worker: int) -> bool:
    """Whether the command is one of this worker's."""
    return bool(house.children(worker))


def test_a_killed_family_takes_the_whole_command_along_though_nobody_starts_again(
    build: Build,
) -> None:
    house = build("", processes=1, config=CONFIG)
    enqueue(house, FAMILY)
    family = house.start()
    house.wait_lines("began")
    house.kill_family(family)
    all_gone(house)


def test_a_stop_gives_the_job_back_and_leaves_nothing_of_its_command(build: Build) -> None:
    house = build("", processes=1, config=CONFIG | {"supervisor": {"stop_timeout": "200ms"}})
    job = enqueue(house, FAMILY)
    family = house.start()
    house.wait_lines("began")
    assert house.stop(family) == 75
    all_gone(house)
    assert house.client.get(job).state == "pending"
    assert house.history(job) == ["stopped"]


def test_commands_side_by_side_end_by_themselves_and_their_worker_lives_on(build: Build) -> None:
    config = CONFIG | {"supervisor": {"cancel_grace": "60s"}}
    house = build("", processes=1, concurrency=4, config=config)
    late = enqueue(
        house, "echo told; echo $$ >> began; while :; do sleep 0.1; done", using={"retries": 0},
        timeout="3s", grace="100ms",
    )  # fmt: skip
    cancelled = enqueue(
        house, "trap '' TERM; echo $$ >> began; while :; do sleep 0.1; done", grace="100ms"
    )
    quick = [enqueue(house, "echo $$ >> began; echo quick") for _ in range(4)]
    family = house.start()
    worker = house.workers()
    house.wait_lines("began", 2)
    eventually(
        lambda: "told" in house.command("logs", str(late)).stdout.splitlines(),
        what="its output is in its log",
    )
    house.client.cancel(cancelled)
    house.wait_finished([late, cancelled, *quick])
    assert house.client.get(late).state == "failed"
    assert "ended because its timeout of 3s was over" in str(house.client.get(late).error)
    assert house.client.get(cancelled).state == "cancelled"
    assert {house.client.get(job).state for job in quick} == {"succeeded"}
    assert house.workers() == worker
    all_gone(house)
    assert house.stop(family) == 0
