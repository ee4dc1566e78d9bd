"""The template: what it refuses to copy, what it warns of, and what its copies begin with."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.jobs.errors import EX_CONFIG, EX_OK, EX_UNFIT
from jobvisor.jobs.log import configure
from jobvisor.supervisor.board import (
    ASKED,
    BOOTING,
    LIFE,
    MADE,
    MADE_PID,
    OWNER,
    PID,
    STATE,
    Board,
)
from jobvisor.supervisor.child import Exit, kill_group, reap, spawn
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.role import Role, Seat
from jobvisor.supervisor.roster import WORKER
from jobvisor.supervisor.signals import poke
from jobvisor.supervisor.template.examination import Thing, described
from jobvisor.supervisor.template.template import Template, is_let_in
from tests.waiting import eventually


class Hurried(Clock):
    """A thousand seconds to each of others."""

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() * 1000


class Leaver(Role):
    """A worker that leaves as soon as it is there."""

    def boot(self) -> None:
        pass

    def leaving(self) -> bool:
        return True

    def step(self) -> float:
        return 0

    def shut_down(self) -> None:
        pass


class Tried(Template):
    workers = replace(WORKER, made_by="tests.supervisor.test_template:Leaver")


class Nest:
    """A board, the pipes of a family, and a template in slot 0."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self.clock = clock
        self.board = Board()
        self.lifeline, self.held = os.pipe2(os.O_CLOEXEC)
        self.poked, self.poke = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.wake_read, self.wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.pid = 0

    def seat(self, number: int = 0) -> Seat:
        config = Config.of({"tasks": {"modules": ["tried"]}}, folder=str(self.folder))
        return Seat(
            config, self.board, self.board.slots[number], 1, 1, "template", os.getpid(),
            self.lifeline, self.poke, self.poke, self.wake_read, clock=self.clock,
        )  # fmt: skip

    def write(self, source: str, name: str = "tried") -> None:
        (self.folder / f"{name}.py").write_text(source)

    def start(self, source: str) -> None:
        """Fork a template of this module."""
        self.write(source)

        def run() -> int:
            configure("info", "text", 2)
            return Tried(self.seat()).run()

        self.pid = spawn(run, [self.held])

    def ended(self) -> Exit:
        """The end of the template."""
        found = eventually(lambda: reap(self.pid), what="the template ends")
        self.pid = 0
        assert found is not None
        return found

    def is_ready(self) -> bool:
        return self.board.slots[0][STATE] != BOOTING

    def stop(self) -> Exit:
        """Ready, then the end of its family."""
        eventually(self.is_ready, what="the template is ready")
        os.close(self.held)
        self.held = -1
        return self.ended()

    def refused(self, source: str) -> str:
        """What it says of an application that it does not copy."""
        self.start(source)
        assert self.ended().status == EX_UNFIT
        return self.board.read_note(0)

    def ask(self, number: int, owner: int) -> int:
        """A worker for this slot; its pid."""
        slot, own = self.board.slots[number], self.board.slots[0]
        slot[LIFE] = owner
        own[ASKED] = owner
        poke(self.wake)
        eventually(lambda: own[MADE] == owner, what="the worker is made")
        assert own[MADE_PID] > 0
        return own[MADE_PID]

    def close(self) -> None:
        if self.pid:
            kill_group(self.pid)
            self.ended()
        pipes = (self.lifeline, self.held, self.poked, self.poke, self.wake_read, self.wake)
        for descriptor in pipes:
            if descriptor >= 0:
                os.close(descriptor)


Make = Callable[..., Nest]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Nest] = []

    def nest(clock: Clock = SYSTEM) -> Nest:
        made.append(Nest(tmp_path, clock))
        return made[-1]

    yield nest
    for each in made:
        each.close()


THREAD = """
import threading
threading.Thread(target=threading.Event().wait, name="sender", daemon=True).start()
"""


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (THREAD, "module tried started the thread 'sender'"),
        (
            "import subprocess\nsubprocess.Popen(['sleep', '600'])\n",
            "module tried started the process ",
        ),
        (
            f"from jobvisor import before_fork\n@before_fork\ndef begin():\n    exec({THREAD!r})\n",
            "a @before_fork hook started the thread 'sender'",
        ),
        (
            "import signal\nsignal.signal(signal.SIGCHLD, lambda *_: None)\n",
            "module tried set a handler of SIGCHLD",
        ),
        ("import asyncio\nloop = asyncio.new_event_loop()\n", "module tried made an event loop"),
        (
            "import sqlite3\nc = sqlite3.connect('t.db')\nc.execute('create table if not exists t (a)')\n",
            "t.db open",
        ),
        (
            "import socket\nkept = socket.socketpair()\n",
            "module tried is connected to a socket of this machine",
        ),
        (
            "import os\nos.register_at_fork(after_in_child=lambda: os.read(os.pipe()[0], 1))\n",
            "at_fork",
        ),
    ],
    ids=["thread", "process", "hook", "handler", "loop", "sqlite", "stream", "fork handler"],
)
def test_an_application_that_cannot_be_copied_is_refused_and_told_why(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    nest = make(Hurried() if told == "at_fork" else SYSTEM)
    reason = nest.refused(source)
    assert told in reason
    assert "@on_start" in reason


def test_the_innermost_module_is_named_and_not_who_imports_it(make: Make) -> None:
    nest = make()
    nest.write(THREAD, "tried_inner")
    assert "module tried_inner started" in nest.refused("import tried_inner\n")


def test_what_is_over_when_the_import_is_over_is_no_reason(make: Make) -> None:
    nest = make()
    nest.start(
        """
import asyncio, os, signal, socket, sqlite3, subprocess, threading
asyncio.run(asyncio.sleep(0))
thread = threading.Thread(target=int); thread.start(); thread.join()
subprocess.run(["true"], check=True)
signal.signal(signal.SIGUSR2, signal.signal(signal.SIGUSR2, signal.SIG_IGN))
from jobvisor import before_fork
one, two = socket.socketpair()
ends = threading.Event()
pool = threading.Thread(target=ends.wait, daemon=True); pool.start()
os.register_at_fork(before=lambda: (ends.set(), pool.join()))  # as OpenBLAS does

@before_fork
def close():
    one.close()
    two.close()

open("kept.txt", "a")
left = subprocess.Popen(["true"])
"""
    )
    assert nest.stop().status == EX_OK


def test_what_all_copies_would_share_is_warned_of(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    nest = make()
    nest.start(
        """
import socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
log = open("out.txt", "w")
fine = open("fine.txt", "a")
"""
    )
    assert nest.stop().status == EX_OK
    said = capfd.readouterr().err
    assert "module tried opened a socket (AF_INET), which all workers share" in said
    assert "out.txt, not to append to it" in said
    assert "fine.txt" not in said


def test_a_gpu_is_none_that_copies_may_share() -> None:
    assert described(Thing("file", 9, "/dev/nvidiactl")) == (
        "opened the GPU (/dev/nvidiactl)",
        False,
    )


def test_a_module_that_cannot_be_imported_is_an_error_of_the_configuration(make: Make) -> None:
    nest = make()
    nest.start("import nothing_of_that_name\n")
    assert nest.ended().status == EX_CONFIG
    assert "'tried' cannot be imported: ModuleNotFoundError" in nest.board.read_note(0)


def test_a_template_leaves_with_its_family_and_hears_no_term(make: Make) -> None:
    nest = make()
    nest.start("")
    eventually(nest.is_ready, what="the template is ready")
    os.kill(nest.pid, signal.SIGTERM)
    assert reap(nest.pid) is None
    assert nest.stop().status == EX_OK


# -- whom the parent wants


def test_a_worker_enters_when_its_slot_shows_its_pid_and_owner(make: Make) -> None:
    nest = make()
    slot = nest.board.slots[3]
    slot[LIFE], slot[PID] = 1, os.getpid()
    assert is_let_in(nest.seat(3))


def test_a_worker_leaves_when_its_slot_is_for_another(make: Make) -> None:
    nest = make()
    slot = nest.board.slots[3]
    slot[LIFE], slot[PID] = 2, os.getpid()
    assert not is_let_in(nest.seat(3))


def test_a_worker_leaves_when_the_lifeline_is_cut(make: Make) -> None:
    nest = make()
    nest.board.slots[3][LIFE] = 1
    os.close(nest.held)
    nest.held = -1
    assert not is_let_in(nest.seat(3))


def test_a_worker_that_is_not_let_in_does_not_wait_for_ever(make: Make) -> None:
    nest = make(Hurried())
    nest.board.slots[3][LIFE] = 1
    assert not is_let_in(nest.seat(3))


def test_a_worker_that_is_told_to_leave_before_it_is_let_in_dies_of_no_signal(make: Make) -> None:
    nest = make()
    nest.start("")
    eventually(nest.is_ready, what="the template is ready")
    worker = nest.ask(3, owner=77)
    os.kill(worker, signal.SIGTERM)
    eventually(lambda: "ShdPnd:\t0000000000004000" in status_of(worker) or not status_of(worker))
    assert status_of(worker)
    nest.board.slots[3][PID] = worker
    eventually(lambda: nest.board.slots[3][OWNER] == 77, what="it is in")


def status_of(pid: int) -> str:
    """As the kernel tells it, "" for one that has ended."""
    try:
        found = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return ""
    return "" if "State:\tZ" in found else found


NUMPY = """
import sys, types
numpy = types.ModuleType("numpy.random")
numpy.seed = lambda: print("seeded anew", flush=True)
sys.modules["numpy.random"] = numpy
"""


def test_each_copy_of_numpys_generator_is_seeded_anew(
    make: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    nest = make()
    nest.start(NUMPY)
    eventually(nest.is_ready, what="the template is ready")
    for number in (3, 4):
        nest.board.slots[number][PID] = nest.ask(number, owner=70 + number)
        told = eventually(lambda: capfd.readouterr().out, what="it is seeded")
        assert told == "seeded anew\n"
