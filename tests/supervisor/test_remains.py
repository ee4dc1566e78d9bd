"""What a dead worker left running is ended; a stranger with its number never is."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.builtin.marked import MARK as COMMAND
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.identity import Identity, unique_number
from jobvisor.supervisor.deaths.remains import MARK, end_remains
from tests.waiting import eventually

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="it needs pidfd")

OWNER = unique_number()  # of this process: others run these tests at the same time
SLEEP = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]

Start = Callable[..., tuple[Identity, int]]


@pytest.fixture
def start() -> Iterator[Start]:
    """A worker that starts one program in its group and dies; who it was, and the program's pid."""
    left: list[int] = []

    def begin(
        *, mark: str | None, own_group: bool = False, command: bool = False
    ) -> tuple[Identity, int]:
        leave, stay = os.pipe()
        read, write = os.pipe()
        worker = os.fork()
        if worker == 0:
            os.setpgid(0, 0)
            environ = {**os.environ, **({MARK: mark} if mark else {})}
            environ |= {COMMAND: "1"} if command else {}
            program = subprocess.Popen(
                SLEEP, env=environ, stdout=subprocess.PIPE, start_new_session=own_group
            )
            assert program.stdout is not None
            program.stdout.readline()  # its environment is its own from here on
            os.write(write, str(program.pid).encode())
            os.close(stay)
            os.read(leave, 1)
            os._exit(0)
        pid = int(os.read(read, 20))
        identity = Identity.of(worker)
        assert identity is not None
        os.kill(worker, signal.SIGKILL)
        os.waitpid(worker, 0)
        for descriptor in (leave, stay, read, write):
            os.close(descriptor)
        left.append(pid)
        return identity, pid

    yield begin
    for pid in left:
        if Identity.of(pid) is not None:
            os.kill(pid, signal.SIGKILL)


def is_gone(pid: int) -> bool:
    return Identity.of(pid) is None


def test_a_program_that_bears_the_number_of_the_life_is_ended(start: Start) -> None:
    identity, pid = start(mark=str(OWNER))
    assert end_remains(identity, OWNER, None, SYSTEM) == 1
    eventually(lambda: is_gone(pid), what="it is gone")


@pytest.mark.parametrize("mark", [None, str(OWNER + 1), "1"], ids=["none", "next", "other"])
def test_a_group_without_the_number_may_be_a_strangers_and_is_left(
    start: Start, mark: str | None
) -> None:
    identity, pid = start(mark=mark)
    assert end_remains(identity, OWNER, None, SYSTEM) == 0
    assert not is_gone(pid)


def test_a_program_that_left_the_group_lives_on(start: Start) -> None:
    identity, pid = start(mark=str(OWNER), own_group=True)
    assert end_remains(identity, OWNER, None, SYSTEM) == 0
    assert not is_gone(pid)


def test_what_a_command_has_left_is_ended_in_whatever_group(start: Start) -> None:
    identity, pid = start(mark=str(OWNER), own_group=True, command=True)
    assert end_remains(identity, OWNER + 1, None, SYSTEM) == 0
    assert end_remains(identity, OWNER, None, SYSTEM) == 1
    eventually(lambda: is_gone(pid), what="it is gone")


def test_nothing_is_ended_while_the_worker_lives_or_another_has_its_number(start: Start) -> None:
    identity, pid = start(mark=str(OWNER))
    mine = Identity.mine()
    assert end_remains(mine, OWNER, None, SYSTEM) == 0
    assert end_remains(identity._replace(boot_id="another"), OWNER, None, SYSTEM) == 0
    assert end_remains(identity._replace(pid_namespace=1), OWNER, None, SYSTEM) == 0
    later = identity._replace(start_ticks=identity.start_ticks + 10**9)
    assert end_remains(later, OWNER, None, SYSTEM) == 0, "it began before that worker did"
    assert not is_gone(pid)


def test_a_fork_that_started_no_program_is_known_by_the_ledger_it_has_mapped(
    tmp_path: Path,
) -> None:
    ledger = tmp_path / str(OWNER)
    ledger.write_bytes(bytes(4096))
    read, write = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.setpgid(0, 0)
        with ledger.open("r+b") as file:
            mapping = mmap.mmap(file.fileno(), 4096)
        copy = os.fork()
        if copy:
            os.write(write, str(copy).encode())
        signal.pause()
        os._exit(len(mapping))
    pid = int(os.read(read, 20))
    identity = Identity.of(worker)
    assert identity is not None
    os.kill(worker, signal.SIGKILL)
    os.waitpid(worker, 0)
    os.close(read)
    os.close(write)
    assert end_remains(identity, OWNER, str(tmp_path / "another"), SYSTEM) == 0
    assert end_remains(identity, OWNER, str(ledger), SYSTEM) == 1
    eventually(lambda: is_gone(pid), what="it is gone")
