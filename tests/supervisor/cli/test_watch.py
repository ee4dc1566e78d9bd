"""What commands do that a person watches: `status --watch`, a question, the progress of something long."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.client import Client
from tests.screen import Played
from tests.supervisor.cli.conftest import Player, Run
from tests.supervisor.cli.test_main import ENVIRON

Play = Callable[..., Player]
Show = Callable[..., Played]


@pytest.fixture
def show(folder: Path) -> Iterator[Show]:
    with ExitStack() as stack:

        def start(*args: str, **how: Any) -> Played:
            return stack.enter_context(Played(*args, folder=folder, **how))

        yield start


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with Client(f"sqlite:///{folder}/jobs.db") as opened:
        opened.migrate()
        yield opened


def test_status_is_drawn_again_and_again_until_ctrl_c(
    play: Play, show: Show, client: Client
) -> None:
    family = play()
    watch = show("status", "--watch", "0.1")
    watch.see("family main: running", "default")
    client.enqueue("app:send")
    watch.until(lambda: re.search(r"default +yes +\d+s", watch.text) is not None, "what waits")
    family.heard()
    watch.see("family main: stopped", "family main is not running", but=["running, pid"])
    watch.press("\x03")
    assert (watch.ended(), watch.restored) == (130, True)


def test_status_as_json_is_a_line_each_time(play: Play, client: Client, folder: Path) -> None:
    play()
    watch = subprocess.Popen(
        [sys.executable, "-m", "jobvisor", "status", "--watch", "0.1", "--json"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=ENVIRON,
    )
    with watch, watch.stdout as lines:  # type: ignore[union-attr] # it is a pipe
        told = [json.loads(lines.readline()) for _ in range(3)]
        (folder / "config.toml").write_text("what is this")
        assert json.loads(lines.readline())["family"] == "main"
        watch.send_signal(signal.SIGINT)
    assert [each["state"] for each in told] == ["running"] * 3
    assert "queues" in told[0]


@pytest.mark.parametrize("seconds", ["0", "2d", "x", "1e9"])
def test_a_wrong_pause_is_refused(run: Run, folder: Path, seconds: str) -> None:
    result = run("status", f"--watch={seconds}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--watch" in result.stderr


def test_watching_what_is_not_there_is_refused_at_once(run: Run) -> None:
    assert run("status", "--watch", "-c", "nothing.toml").exit_code == 78


def test_a_person_is_asked_and_may_say_no(show: Show, client: Client) -> None:
    client.enqueue_many(client.call("app:send", number) for number in range(2))
    refused = show("cancel", "--task", "send")
    refused.see("cancel 2 unfinished jobs? [y/N]")
    refused.press("n\r")
    assert refused.ended() == 1
    assert client.counts() == {"default": {"pending": 2}}
    agreed = show("cancel", "--task", "send")
    agreed.see("cancel 2 unfinished jobs? [y/N]")
    agreed.press("y\r")
    agreed.see("1 cancelled", "2 cancelled")
    assert agreed.ended() == 0


def test_something_long_tells_how_far_it_has_come(show: Show, client: Client) -> None:
    client.enqueue_many(client.call("app:send", number) for number in range(2500))
    long = show("cancel", "--all", "--json")
    long.see("cancel 2500 unfinished jobs? [y/N]")
    long.press("y\r")
    long.see("cancel: 2500 of 2500", "cancel: 2500 done, 0 refused")
    assert long.ended() == 0
    assert client.counts() == {"default": {"cancelled": 2500}}
