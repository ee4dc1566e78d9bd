"""`jobvisor limits`: shown, set, removed; and what `status`, `check` and `doctor` say of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.client import Client
from jobvisor.jobs.described import BY_FUNCTION
from tests.supervisor.cli.conftest import Run

ADD = "tests.supervisor.cli.sample:add"
SEND = "tests.supervisor.cli.sample:send"


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with Client(f"sqlite:///{folder}/jobs.db") as opened:
        opened.migrate()
        yield opened


def test_a_limit_is_set_listed_and_removed(run: Run, client: Client) -> None:
    assert "there is no limit" in run("limits", "list").stderr
    made = run("limits", "set", "stripe", "--concurrency", "5", "--rate", "100/1m")
    assert made.stdout == "stripe: 5 at once, 100/1m, 2 after a rest\n"
    told = {"name": "stripe", "concurrency": 5, "rate": "100/1m", "burst": 2, "source": "set"}
    listed = json.loads(run("limits", "list", "--json").stdout)
    assert listed == {
        "limits": [{**told, "running": 0, "waiting": 0, "keys": 0}], "unknown": [],
    }  # fmt: skip
    assert "stripe  5" in run("limits", "list").stdout
    offered = {"_JOBVISOR_COMPLETE": "bash_complete", "COMP_CWORD": "3"}
    words = {"COMP_WORDS": "jobvisor limits remove str"}
    assert run(env=offered | words).stdout == "plain,stripe\n"
    set_again = run("limits", "set", "stripe", "--concurrency", "0", "--json")
    assert json.loads(set_again.stdout)["rate"] is None
    assert run("limits", "remove", "stripe").stdout == "stripe: removed\n"
    gone = run("limits", "remove", "stripe")
    assert gone.exit_code == 1
    assert "there is no limit stripe" in gone.stderr
    assert [each.verb for each in client.actions()] == ["limit"] * 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a b", "--concurrency", "1"], "is no name of a limit"),
        (["stripe"], "limits nothing"),
        (["stripe", "--rate", "fast"], "is no rate"),
        (["stripe", "--concurrency", "-1"], "--concurrency"),
        (["stripe", "--concurrency", "1", "--burst", "3"], "goes with a rate"),
    ],
)
def test_a_wrong_limit_is_one_sentence(
    run: Run, client: Client, words: list[str], said: str
) -> None:
    refused = run("limits", "set", *words)
    assert refused.exit_code == 2
    assert said in refused.stderr
    assert client.limits.list() == []


def test_a_limit_that_jobs_wait_for_and_nobody_set_is_named(run: Run, client: Client) -> None:
    client.enqueue(client.call(ADD, 1, options={"limit": "unset:x"}))
    assert client.run_one() is None
    said = "jobs wait for the limit unset, which nobody has set"
    assert said in run("limits", "list").stderr
    assert said in run("status").stderr
    assert json.loads(run("status", "--json").stdout)["unknown_limits"] == ["unset"]
    assert said in run("doctor").stdout


def test_doctor_names_a_limit_that_neither_a_task_nor_a_call_uses(run: Run, client: Client) -> None:
    for name in ("told", "called", "idle"):
        client.limits.set(name, concurrency=1)
    said = 'no task has limit="'
    assert said not in run("doctor").stdout  # no worker has told of its tasks yet
    client.note_tasks({ADD: {"options": {"limit": "told:7"}}})
    client.enqueue(client.call(ADD, 1, options={"limit": "called:7"}))
    assert client.run_one()
    shown = run("doctor").stdout
    assert shown.count(said) == 1
    assert f'{said}idle"; run `jobvisor limits remove idle`, or name it where it is meant' in shown
    client.note_tasks({SEND: {"options": {"limit": BY_FUNCTION}}})
    assert said not in run("doctor").stdout


def test_check_names_a_limit_that_no_task_has(run: Run, folder: Path) -> None:
    with (folder / "config.toml").open("a") as file:
        file.write("[limits.idle]\nconcurrency = 1\n")
    said = 'no task has limit="idle"; remove [limits.idle], or name it where it is meant'
    assert said in run("check").stderr
    assert run("check", "--strict").exit_code == 1
