"""A folder with a config.toml to run commands in, and a process that plays the family."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobvisor.supervisor.cli import main

ROOT = Path(__file__).parents[3]
NOBODY = 65534

CONFIG = """
[tasks]
modules = ["tests.supervisor.cli.sample"]
[supervisor]
stop_timeout = "200ms"
[[workers]]
queues = ["default", "mail"]
"""

Run = Callable[..., Result]

# It holds the lock, writes a status, and does with each signal what a family would.
PLAYER = """
import json, os, signal, sys
from datetime import UTC, datetime
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.parent.wishes import Wishes

state = StateDir(sys.argv[1])
status = json.loads(sys.argv[2])
says = status.pop("says", "stopping")  # when it is asked to stop
stubborn = set(sys.argv[3:])
names = ["SIGTERM", "SIGQUIT", "SIGHUP", "SIGWINCH"]
signals = {getattr(signal, name) for name in names}
signal.pthread_sigmask(signal.SIG_BLOCK, signals)
state.create()
lock = state.lock()

def write():
    told = {"pid": os.getpid(), "written_at": datetime.now(UTC).isoformat()} | status
    with open(state.path + "/status.new", "w") as file:
        json.dump(told, file)
    os.replace(state.path + "/status.new", state.path + "/status.json")

write()
print("ready", flush=True)
while True:
    name = signal.Signals(signal.sigwait(signals)).name
    print(name, flush=True)
    if name == "SIGTERM":
        state.note(lock, says)
    if name in stubborn:
        continue
    if name in ("SIGTERM", "SIGQUIT"):
        break
    if name == "SIGWINCH":
        for wish in Wishes(state).take():
            workers = wish.workers(status["pools"][wish.pool])
            refused, stopping = status.get("refuses"), status.get("stops")
            wish.answer(**({"refused": refused} if refused else {"stopping": True} if stopping
                           else {"workers": workers}))
    if name == "SIGHUP":
        status["reload"]["number"] += 1
    write()
"""

WELL = {
    "family": "main",
    "state": "running",
    "scale": 2,
    "pools": {"default": 2},
    "reload": {"number": 4, "state": "done", "reason": None},
    "degraded": [],
    "waiting_for_database": False,
    "workers": [
        {"slot": 1, "pool": "default", "pid": 11, "state": "idle", "rss": 20 << 20},
        {"slot": 2, "pool": "default", "pid": 12, "state": "busy", "job": 7, "job_seconds": 75.5},
    ],
    "deaths": [{"at": "2026-01-01T00:00:00Z", "slot": 2, "cause": "SIGKILL"}],
}


class Player:
    """A running family, as far as the command can tell."""

    def __init__(self, folder: Path, status: dict[str, Any], stubborn: tuple[str, ...]) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                PLAYER,
                str(folder / ".jobvisor"),
                json.dumps(status),
                *stubborn,
            ],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    @property
    def pid(self) -> int:
        return self.process.pid

    def heard(self) -> list[str]:
        """End it; every signal it got, in order."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            return stdout.read().split()


@pytest.fixture
def play(folder: Path) -> Iterator[Callable[..., Player]]:
    players: list[Player] = []

    def start(*stubborn: str, **status: Any) -> Player:
        players.append(Player(folder, WELL | status, stubborn))
        return players[-1]

    yield start
    for player in players:
        if player.process.returncode is None:
            player.heard()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def nobody(folder: Path) -> Iterator[None]:
    """As a user who may not write everywhere, whoever runs the tests; the folder is his."""
    if os.geteuid() != 0:
        yield
        return
    for above in (folder, *folder.parents):
        if above.stat().st_mode & 0o005 != 0o005:
            above.chmod(0o755)
    os.chown(folder, NOBODY, -1)
    os.chown(folder / "config.toml", NOBODY, -1)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def run() -> Run:
    def invoke(*args: str, stdin: str | bytes | None = None, env: Any = None) -> Result:
        result = CliRunner().invoke(main, args, input=stdin, env=env, prog_name="jobvisor")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke
