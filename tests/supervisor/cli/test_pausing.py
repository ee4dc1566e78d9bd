"""`queues`, `pause` and `resume`, and what the other commands say of what is paused."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from jobvisor.jobs.client import Client
from tests.store.making import family
from tests.supervisor.cli.conftest import Run
from tests.test_readme import README, _blocks, _expectations, _pattern

SECTION = README.split("### Pauses, and what is too late")[1].split("\n### ")[0]
ADD = "tests.supervisor.cli.sample:add"


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with Client(f"sqlite:///{folder}/jobs.db") as opened:
        yield opened


def test_the_lines_of_readme_about_pauses_run_as_they_stand(run: Run, client: Client) -> None:
    [block] = [block for info, block in _blocks(SECTION) if info == "console"]
    for command, expected in _expectations(block):
        words = shlex.split(
            command.replace("app:send a@b.c Hi", "tests.supervisor.cli.sample:send a@b.c")
        )
        done = run(*words[1:])
        assert done.exit_code == 0, done.output
        pattern = r"\n".join(_pattern(line) for line in expected)
        assert re.fullmatch(pattern, done.stdout.rstrip("\n"), re.DOTALL), done.stdout
    job = client.get(1)
    assert job.expires_at is not None
    assert job.deadline_at is not None
    assert job.deadline_at - job.expires_at == timedelta(hours=23)


def test_pause_and_resume_tell_json_and_are_noted(run: Run, client: Client) -> None:
    told = json.loads(run("pause", "mail", "--json").stdout)
    assert (told["kind"], told["name"], told["until"]) == ("queue", "mail", None)
    assert [(each.kind, each.name) for each in client.paused()] == [("queue", "mail")]
    assert json.loads(run("queues", "list", "--json").stdout)["queues"]["mail"]["paused"] == {
        "since": told["since"],
        "until": None,
    }
    assert json.loads(run("resume", "mail", "--json").stdout)["was_paused"]
    again = run("resume", "mail", "--json")
    assert (again.exit_code, json.loads(again.stdout)["was_paused"]) == (1, False)
    noted = [(each.verb, each.what) for each in client.actions()]
    assert noted == [("resume", "queue mail"), ("pause", "queue mail")]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name either a queue or --task"),
        (("mail", "--task", "send"), "name either a queue or --task"),
        (("mail boxes",), "is no queue name"),
        (("mail", "--until", "soon"), "--until: 'soon' is neither for how long"),
        (("mail", "--until", "2000-01-01T00:00Z"), "that moment has passed"),
        (("mail", "--until", "2030-01-01T00:00"), "has no timezone"),
    ],
)
def test_a_pause_that_cannot_be_says_why(
    run: Run, client: Client, words: tuple[str, ...], message: str
) -> None:
    client.migrate()
    done = run("pause", *words)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert client.paused() == []


def test_status_and_doctor_name_what_is_paused(run: Run, client: Client) -> None:
    client.enqueue(ADD, 1, 2)
    client.pause("default")
    assert "queue default is paused since " in run("status").stdout
    told = json.loads(run("status", "--json").stdout)
    assert [each["name"] for each in told["paused"]] == ["default"]
    assert told["queues"]["default"]["paused"]["until"] is None
    found = json.loads(run("doctor", "--json").stdout)
    [finding] = [each["text"] for each in found if each["check"] == "paused"]
    assert "queue default is paused since" in finding
    assert [each["text"] for each in found if each["check"] == "pending"] == ["no job waits"]


def test_a_task_is_named_by_the_end_of_its_name(run: Run, client: Client) -> None:
    client.note_tasks({ADD: {"options": {}}})
    assert run("pause", "--task", "add").stdout == f"task {ADD} is paused until it is resumed\n"
    client.enqueue(ADD, 1, 2)
    assert client.run_one() is None
    assert f"task {ADD} is paused since" in run("queues").stderr
    assert run("resume", "--task", "add").exit_code == 0
    assert client.run_one() is not None


def test_a_task_that_nobody_knows_is_paused_by_the_name_that_was_written(
    run: Run, client: Client
) -> None:
    client.migrate()
    assert run("pause", "--task", "shop:later").exit_code == 0
    assert [each.name for each in client.paused()] == ["shop:later"]


def test_a_family_of_an_older_release_that_claims_on_is_named(run: Run, client: Client) -> None:
    client.migrate()
    with client._store() as store:
        store.add_family(family(version="0.5.0", name="old"))
    assert "family old is of an older release" in run("pause", "mail").stderr


def test_a_pause_of_what_nobody_has_heard_of_is_made_and_warned_of(
    run: Run, client: Client
) -> None:
    client.note_tasks({ADD: {}})
    assert run("pause", "mail").stderr == ""
    assert run("pause", "--task", "add").stderr == ""
    queue, task = run("pause", "mial"), run("pause", "--task", ADD[:-1])
    assert (queue.exit_code, task.exit_code) == (0, 0)
    assert "no [[workers]] of this configuration serves it" in queue.stderr
    assert "did you mean 'mail'?" in queue.stderr
    assert f"did you mean '{ADD}'?" in task.stderr
    client.enqueue(client.call(ADD, 1, options={"queue": "elsewhere"}))
    assert run("pause", "elsewhere").stderr == ""


def test_queues_fair_makes_a_queue_fair_and_ordinary_again(
    run: Run, client: Client, folder: Path
) -> None:
    assert run("queues", "fair", "reports", "on").stdout == "queue reports is fair\n"
    assert run("queues", "fair", "reports", "on").stdout == "queue reports is fair already\n"
    assert client.fair_queues() == ["reports"]
    assert json.loads(run("queues", "--json").stdout)["queues"]["reports"]["fair"]
    told = json.loads(run("queues", "fair", "reports", "off", "--json").stdout)
    assert told == {"queue": "reports", "fair": False, "changed": True}
    assert run("queues", "fair", "reports", "off").stdout == "queue reports is not fair anyway\n"
    noted = [(each.verb, each.what) for each in client.actions()]
    assert noted == [("fair", "queue reports off"), ("fair", "queue reports on")]
    with (folder / "config.toml").open("a") as config:
        config.write("[queues.reports]\nfair = true\n")
    assert "[queues.reports] says fair = true" in run("queues", "fair", "reports", "off").stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fair",), "name a queue, and on or off"),
        (("fair", "mail"), "name a queue, and on or off"),
        (("fair", "mail", "yes"), "'yes' is not one of"),
        (("fair", "mail boxes", "on"), "is no queue name"),
        (("list", "mail"), "list takes no name"),
    ],
)
def test_a_queue_that_cannot_be_made_fair_says_why(
    run: Run, client: Client, words: tuple[str, ...], message: str
) -> None:
    client.migrate()
    done = run("queues", *words)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert client.fair_queues() == []


def test_doctor_names_jobs_without_a_share_in_a_fair_queue(run: Run, client: Client) -> None:
    client.set_fair("default")
    client.enqueue(ADD, 1, 2)
    found = json.loads(run("doctor", "--json").stdout)
    [told] = [each["text"] for each in found if each["check"] == "fairness"]
    assert told.startswith("jobs without a share wait in the fair queue default")
