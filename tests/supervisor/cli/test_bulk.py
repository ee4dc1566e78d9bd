"""Verbs for all jobs that a filter means, what is noted of them, and what there is beside single jobs."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.client import Client, Moves, Swept
from jobvisor.jobs.filter import Filter
from jobvisor.supervisor.cli.bulk import Act, sweep
from tests.supervisor.cli.conftest import Player, Run

SEND = "tests.supervisor.cli.sample:send"
ADD = "tests.supervisor.cli.sample:add"
BOOM = "tests.supervisor.cli.sample:boom"


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with Client(f"sqlite:///{folder}/jobs.db") as opened:
        opened.migrate()
        yield opened


def fail(run: Run, client: Client, number: int, task: str = BOOM) -> list[int]:
    """So many jobs that have failed."""
    found = []
    for _ in range(number):
        found.append(int(run("enqueue", task, "--force").stdout))
        client.run_one()
    return found


def ids(run: Run, *options: str) -> list[int]:
    return [job["id"] for job in json.loads(run("list", "--json", *options).stdout)]


def test_list_takes_every_word_of_a_filter(run: Run, client: Client) -> None:
    fail(run, client, 2)
    client.enqueue(client.call(SEND, "you@example.com", options={"queue": "mail"}))
    client.enqueue(ADD, 7)
    assert ids(run, "--state", "failed", "--state", "pending", "--queue", "mail") == [3]
    assert ids(run, "--error-type", "RuntimeError") == [2, 1]
    assert ids(run, "--text", "YOU@example") == [3]
    assert ids(run, "--until", "1h") == []
    assert ids(run, "--since", "2020-01-01T00:00Z", "--until", "2100-01-01T00:00Z") == [4, 3, 2, 1]
    assert ids(run, "--before", "3", "--limit", "1") == [2]
    assert "--before 2 those before them" in run("list", "--limit", "3").stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["list", "--until", "x"], "--until: 'x' is neither how long ago, such as 1h"),
        (["list", "--since", "2020-01-01"], "--since: '2020-01-01' has no timezone; add one"),
        (["list", "--state", "gone"], "'gone' is not one of 'scheduled', 'pending'"),
        (["list", "--before", "x"], "'x' is no job id; it is a number"),
        (["list", "--text", "x" * 3000], "text has 3000 characters; look for at most 2000"),
        (["cancel", "--state", "failed"], "'failed' is not one of"),
        (
            ["requeue", "--task", "send"],
            "name either ids or --state, such as: requeue --state failed",
        ),
        (["requeue", "7", "--state", "failed"], "name either ids or what they have in common"),
        (["reschedule", "7"], "say when: --now, --in 1h, or --at 2027-01-31T08:00Z"),
        (["reschedule", "7", "--now", "--in", "1h"], "say when: --now, --in 1h, or --at"),
        (["reschedule", "--now"], "what they have in common, such as: reschedule --queue mail"),
        (["reschedule", "7", "--at", "2027-01-31"], "--at: '2027-01-31' has no timezone; add one"),
        (["reschedule", "7", "--in", "soon"], "--in: 'soon' is not a duration"),
        (["prune", "--task", "send"], "name either ids or --state, such as: prune --state failed"),
        (["prune", "--state", "failed", "--failed", "7d"], "or ages such as --failed 7d, or what"),
        (["prune", "7", "--failed", "7d"], "name either ids"),
        (["failures", "--since", "x"], "--since: 'x' is neither how long ago"),
        (["copy", "1", "--args", "{}"], "--args: it is not a list"),
        (["copy", "1", "--args", "["], "--args is no JSON list"),
        (["copy", "1", "--kwargs", "[]"], "--kwargs is not a JSON object"),
        (["copy", "1", "--args", "[1, 2, 3]"], "cannot be called like this: too many positional"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_done(
    run: Run, client: Client, args: list[str], words: str
) -> None:
    client.enqueue(ADD, 1)
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert client.counts() == {"default": {"pending": 1}}
    assert client.actions() == []


def test_a_group_of_failures_is_shown_counted_asked_for_and_requeued(
    run: Run, client: Client
) -> None:
    fail(run, client, 3)
    assert run("failures").stdout.splitlines()[0].split() == [
        "JOBS", "TASK", "TYPE", "FIRST", "LAST", "JOB", "ERROR",
    ]  # fmt: skip
    [group] = json.loads(run("failures", "--json").stdout)["groups"]
    assert (group["task"], group["error_type"], group["jobs"]) == (BOOM, "RuntimeError", 3)
    assert group["example"] == 3
    chosen = ("--task", "boom", "--error-type", "RuntimeError")
    assert run("prune", *chosen, "--dry-run").stdout == "would prune 3 failed jobs\n"
    assert run("requeue", *chosen, "--dry-run").stdout == "would requeue 3 failed jobs\n"
    told = run("requeue", *chosen)
    assert told.exit_code == 2
    assert "requeue 3 failed jobs: there is nobody to ask here, so add -y" in told.stderr
    assert client.counts() == {"default": {"failed": 3}}
    assert run("requeue", *chosen, "-y").stdout == "1 pending\n2 pending\n3 pending\n"
    assert "no job has failed" in run("failures").stderr


def test_json_of_a_filter_is_the_document_of_the_api(run: Run, client: Client) -> None:
    fail(run, client, 2)
    dry = json.loads(run("requeue", "--state", "failed", "--dry-run", "--json").stdout)
    assert dry == {
        "jobs": 2, "outcomes": {}, "refusals": [], "dry_run": True, "at_least": False
    }  # fmt: skip
    done = json.loads(run("requeue", "--state", "failed", "-y", "--json").stdout)
    assert done == dry | {"outcomes": {"pending": 2}, "dry_run": False}
    none = run("requeue", "--state", "failed", "-y", "--json")
    assert json.loads(none.stdout)["jobs"] == 0
    unknown = run("cancel", "--task", "nobody", "-y", "--json")
    assert json.loads(unknown.stdout)["jobs"] == 0


def test_prune_removes_what_a_filter_or_an_id_means_and_nothing_else(
    run: Run, client: Client
) -> None:
    fail(run, client, 2)
    client.enqueue(ADD, 1)
    assert "nobody to ask" in run("prune", "--state", "failed").stderr
    assert run("prune", "--state", "failed", "--until", "1h", "-y").stdout == ""
    assert run("prune", "--state", "failed", "--dry-run").stdout == "would prune 2 failed jobs\n"
    assert run("prune", "1", "3").stdout == "1 removed\n"
    assert run("prune", "3").exit_code == 1
    assert run("prune", "--state", "failed", "-y").stdout == "2 removed\n"
    assert [job.id for job in client.list()] == [3]
    assert [action.what for action in client.actions()] == ["state=failed", "job 1"]


def test_jobs_that_wait_are_rescheduled_by_ids_and_by_what_they_have_in_common(
    run: Run, client: Client
) -> None:
    for _ in range(3):
        client.enqueue(ADD, 1)
    client.cancel(3)
    assert run("reschedule", "1", "--in", "1h").stdout == "1 scheduled\n"
    refused = run("reschedule", "3", "--now")
    assert (refused.exit_code, "job 3 is cancelled; only one that waits" in refused.stderr) == (
        1,
        True,
    )
    some = ("reschedule", "--task", "add", "--at", "2100-01-01T00:00Z")
    assert run(*some, "--dry-run").stdout == "would reschedule 2 waiting jobs\n"
    assert "reschedule 2 waiting jobs: there is nobody to ask" in run(*some).stderr
    assert run(*some, "-y").stdout == "1 scheduled\n2 scheduled\n"
    assert run("reschedule", "2", "--now").stdout == "2 pending\n"
    done = json.loads(run("reschedule", "--state", "scheduled", "--now", "-y", "--json").stdout)
    assert done["outcomes"] == {"pending": 1}
    assert [action.what for action in client.actions()] == [
        "state=scheduled to be due now",
        "job 2 to be due now",
        f"state=blocked,pending,scheduled task={ADD} to be due at 2100-01-01T00:00:00.000Z",
        "job 1 to be due in 1h",
    ]


def test_what_a_command_does_is_noted_with_who_did_it(run: Run, client: Client) -> None:
    client.enqueue(ADD, 1)
    client.enqueue(ADD, 2)
    run("cancel", "1")
    run("cancel", "--all", "-y")
    run("requeue", "1", "2")
    run("copy", "1")
    run("prune", "--failed", "1h")  # none
    run("cancel", "7")  # none
    told = json.loads(run("actions", "--json").stdout)["actions"]
    assert [(each["verb"], each["what"], each["number"]) for each in told] == [
        ("copy", "job 1 as 3", 1),
        ("requeue", "ids=1,2", 2),
        ("cancel", "state=blocked,pending,running,scheduled", 1),
        ("cancel", "job 1", 1),
    ]
    me = pwd.getpwuid(os.getuid()).pw_name
    assert all(f"{me}@" in each["who"] for each in told)
    assert [line.split()[-1] for line in run("actions", "--limit", "1").stdout.splitlines()] == [
        "WHAT", "3",
    ]  # fmt: skip
    assert "--before 4 shows those before" in run("actions", "--limit", "1").stderr


def test_a_copy_runs_with_other_arguments(run: Run, client: Client) -> None:
    run("enqueue", SEND, "a@b.c", "--kwargs", '{"subject": "x"}', "--priority", "5")
    assert run("copy", "1").stdout == "2\n"
    assert run("copy", "1", "--args", '["d@e.f"]').stdout == "3\n"
    told = json.loads(run("copy", "1", "--kwargs", "{}", "--json").stdout)
    assert (told["args"], told["kwargs"], told["priority"]) == (["a@b.c"], {}, 5)
    made = client.get(3)
    assert (made.args, made.kwargs, made.queue) == (["d@e.f"], {"subject": "x"}, "mail")
    assert run("copy", "99").exit_code == 1


def test_the_tasks_that_workers_told_of_are_shown(run: Run, client: Client) -> None:
    assert "no worker has told of a task yet" in run("tasks").stderr
    told = {
        "doc": "Send a mail.",
        "options": {"queue": "mail"},
        "parameters": [{"name": "to", "required": True}, {"name": "subject", "required": False}],
    }
    client.note_tasks({SEND: told})
    assert "to [subject]" in run("tasks").stdout
    [task] = json.loads(run("tasks", "--json").stdout)["tasks"]
    assert (task["name"], task["doc"]) == (SEND, "Send a mail.")


def test_what_is_done_to_a_family_is_noted_and_needs_no_database(
    run: Run, play: Callable[..., Player], client: Client, folder: Path
) -> None:
    play()
    assert run("scale", "default", "3").exit_code == 0
    assert run("reload").exit_code == 0
    assert [(each.verb, each.what, each.number) for each in client.actions()] == [
        ("reload", "family main", None),
        ("scale", "pool default to 3", 3),
    ]
    client.close()
    (folder / "jobs.db").write_bytes(b"this is no database" * 100)
    result = run("scale", "default", "2")
    assert result.exit_code == 0
    assert "warning: it is done, but not in the log of actions" in result.stderr
    (folder / "jobs.db").unlink()
    assert "warning" not in run("scale", "default", "4").stderr
    assert not (folder / "jobs.db").exists()


def test_an_interrupted_sweep_tells_and_notes_how_far_it_came(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    client.enqueue_many([client.call(ADD, number) for number in range(2500)])

    def interrupted(which: Filter, **how: Any) -> Swept:
        told = how.pop("told", None)

        def one_page(page: Moves) -> None:
            told(page)
            raise KeyboardInterrupt

        return client.cancel_where(which, **how, told=told and one_page)

    act = Act("cancel", interrupted, "pending")
    with pytest.raises(KeyboardInterrupt):
        sweep(act, Filter(state="pending"), dry_run=False, yes=True, as_json=True)
    told = capsys.readouterr()
    assert "interrupted: 1000 are done, the others stand as they stood" in told.err
    assert json.loads(told.out)["outcomes"] == {"cancelled": 1000}
    assert client.counts() == {"default": {"cancelled": 1000, "pending": 1500}}
    [action] = client.actions()
    assert (action.what, action.number) == ("state=pending", 1000)
