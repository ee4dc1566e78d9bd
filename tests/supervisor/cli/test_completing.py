"""What Tab offers, by what click is asked, and in a real bash."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from jobvisor.jobs.client import Client
from tests.supervisor.cli.conftest import ROOT, Run

SEND = "tests.supervisor.cli.sample:send"
ADD = "tests.supervisor.cli.sample:add"
BOOM = "tests.supervisor.cli.sample:boom"


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with Client(f"sqlite:///{folder}/jobs.db") as opened:
        opened.migrate()
        yield opened


def completed(run: Run, *words: str) -> list[str]:
    """What is offered after these words."""
    env = {
        "_JOBVISOR_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("jobvisor", *words)),
        "COMP_CWORD": str(len(words)),
    }
    result = run(env=env)
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_names_and_ids_are_offered_where_they_belong(run: Run, client: Client) -> None:
    client.enqueue(client.call(SEND, "a", options={"queue": "exports"}))
    client.enqueue(ADD, 1)
    client.enqueue(ADD, 2)
    client.cancel(2)
    client.note_tasks({BOOM: {}, "shell": {}})
    run("enqueue", BOOM)
    for _ in range(2):
        client.run_one(["default"])
    assert completed(run, "enqueue", "") == ["shell", ADD, BOOM, SEND]
    assert completed(run, "enqueue", "se") == []
    assert completed(run, "requeue", "--task", "bo") == ["boom"]
    assert completed(run, "list", "--queue", "") == ["default", "exports", "mail"]
    assert completed(run, "list", "--error-type", "R") == ["RuntimeError"]
    assert completed(run, "list", "--state", "fa") == ["failed"]
    assert completed(run, "cancel", "") == ["1"]
    assert completed(run, "requeue", "") == ["4", "3", "2"]
    assert completed(run, "show", "") == ["4", "3", "2", "1"]
    assert completed(run, "copy", "4") == ["4"]
    assert completed(run, "scale", "d") == ["default"]


def test_what_is_wrong_offers_nothing_and_says_nothing(
    run: Run, client: Client, folder: Path
) -> None:
    client.enqueue("a:b")
    with closing(sqlite3.connect(folder / "jobs.db")) as stranger, stranger:
        stranger.execute("UPDATE jobs SET task = 'a:b' || char(10) || char(27) || '[31m'")
    assert completed(run, "enqueue", "a") == []
    (folder / "config.toml").write_text("[database]\nurl = 'postgresql://127.0.0.1:1/x'\n")
    assert completed(run, "list", "--task", "") == []
    (folder / "config.toml").write_text("x")
    assert completed(run, "list", "--task", "") == []
    assert completed(run, "scale", "") == []


BASH = """
eval "$(jobvisor completion bash)"
COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_jobvisor_completion jobvisor
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("jobvisor canc", ["cancel"]),
        ("jobvisor enqueue app : se", ["send", "send_all"]),
        ("jobvisor enqueue app :", ["greet", "send", "send_all"]),
        ("jobvisor enqueue app", ["app:greet", "app:send", "app:send_all"]),
        ("jobvisor list --task app : send_ ''", []),
    ],
)
def test_bash_completes_the_name_of_a_task_though_it_holds_a_colon(
    client: Client, folder: Path, words: str, offered: list[str]
) -> None:
    for name in ("app:send", "app:send_all", "app:greet"):
        client.enqueue(name)
    wrapper = folder / "bin" / "jobvisor"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m jobvisor "$@"\n')
    wrapper.chmod(0o755)
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH.format(words=words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PATH": f"{folder}/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        check=True,
    )
    found = done.stdout.split()
    assert (found if offered else found[:0]) == offered
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_have_a_script_too(run: Run, shell: str) -> None:
    assert "_JOBVISOR_COMPLETE" in run("completion", shell).stdout
