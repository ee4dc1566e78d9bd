"""However `jobvisor top` is left or interrupted, the terminal is as it was."""

from __future__ import annotations

import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing

import pytest

from jobvisor.jobs.client import Client
from jobvisor.jobs.url import parse_url
from tests.screen import Played
from tests.supervisor.cli.conftest import Player
from tests.supervisor.cli.top.conftest import Show

Play = Callable[..., Player]


@pytest.fixture
def top(play: Play, show: Show, client: Client) -> Played:
    play()
    shown = show()
    shown.see("running")
    assert not shown.restored
    return shown


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGQUIT, 131)],
)
def test_a_signal_ends_it_and_gives_the_terminal_back(
    top: Played, number: signal.Signals, code: int
) -> None:
    top.process.send_signal(number)
    assert (top.ended(), top.restored) == (code, True)


def test_ctrl_c_ends_it(top: Played) -> None:
    top.press("\x03")
    assert (top.ended(), top.restored) == (130, True)


def test_a_terminal_that_is_closed_ends_it(top: Played) -> None:
    top.hang_up()
    assert top.process.wait(30) == 129


SHELL = f"set -m; {sys.executable} -m jobvisor top; echo put off: $?; read; fg > /dev/null; echo ended: $?"


def test_it_can_be_suspended_and_goes_on(play: Play, show: Show, client: Client) -> None:
    play()
    shell = show("-c", SHELL, program=("bash",))
    shell.see("family main: running")
    shell.press("\x1a")
    shell.see(f"put off: {128 + signal.SIGTSTP}", but=["family main"])
    assert shell.restored
    shell.press("\r")
    shell.see("family main: running")
    assert shell.screen.alternate
    shell.press("q")
    shell.see("ended: 0")
    assert (shell.ended(), shell.restored) == (0, True)


def test_it_takes_the_terminal_again_after_a_stop_that_nobody_hears_of(top: Played) -> None:
    top.process.send_signal(signal.SIGSTOP)
    top.stopped()
    top.shell_takes_over()
    top.process.send_signal(signal.SIGCONT)
    top.until(lambda: not top.restored, "the terminal taken again")
    top.see("family main: running")
    top.press("q")
    assert (top.ended(), top.restored) == (0, True)


CRASH = """
from jobvisor.supervisor.cli.top.terminal import Terminal
terminal = Terminal()
with terminal.taken():
    terminal.draw("drawn")
    raise RuntimeError("it broke")
"""


def test_a_mistake_of_ours_is_a_traceback_on_a_terminal_given_back(show: Show) -> None:
    played = show("-c", CRASH, program=(sys.executable,))
    assert played.ended() == 1
    assert "RuntimeError: it broke" in played.text
    assert "drawn" not in played.text
    assert played.restored


def test_it_ends_while_the_database_is_held_by_somebody(top: Played, client: Client) -> None:
    job = client.enqueue("app:send")
    top.press("2")
    top.see("jobs: 1 of 1")
    with closing(sqlite3.connect(parse_url(client.url).path)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        top.press("cy")
        top.see("the database has not answered for")
        top.press("j?")
        top.see("cancel the job")
        top.press("\x1bq")
        assert (top.ended(), top.restored) == (0, True)
        assert holder.in_transaction
    assert client.get(job).state == "pending"
