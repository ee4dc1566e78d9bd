"""`jobvisor schedules`, `check`, `doctor` and the move of schedules; and README's example, executed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobvisor import Client
from jobvisor.jobs.schedule import CONFIG
from tests.supervisor.cli.conftest import CONFIG as TEXT
from tests.supervisor.cli.conftest import ROOT, Run
from tests.test_readme import README, TOUR, _blocks, _expectations, _pattern, _run, _shown

SAMPLE = "tests.supervisor.cli.sample"
ADD = ("schedules", "add", "s", f"{SAMPLE}:add")


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with Client(f"sqlite:///{folder}/jobs.db") as made:
        made.migrate()
        yield made


def test_a_schedule_is_added_listed_paused_resumed_triggered_and_removed(
    run: Run, client: Client
) -> None:
    assert "there is no schedule" in run("schedules", "list").stderr
    made = run(*ADD, "1", "--kwargs", '{"b": 2}', "--cron", "0 3 * * *", "--timezone", "Asia/Tokyo")
    assert made.exit_code == 0, made.output
    assert made.stdout.startswith("At 03:00 every day, in Asia/Tokyo; next: ")
    assert made.stdout.count("03:00:00 JST") == 3
    [told] = json.loads(run("schedules", "list", "--json").stdout)["schedules"]
    assert told == client.schedules.get("s").as_json()
    assert (told["args"], told["kwargs"], told["source"]) == ([1], {"b": 2}, "added")
    assert "0 3 * * * Asia/Tokyo" in run("schedules", "list").stdout
    assert run("schedules", "pause", "s").stdout == "paused\n"
    assert "is paused already" in run("schedules", "pause", "s").stderr
    assert "paused (run time)" in run("schedules", "list").stdout
    assert run("schedules", "resume", "s").stdout.startswith("resumed; next: ")
    again = run("schedules", "resume", "s")
    assert (again.exit_code, again.stderr) == (1, "schedule s is not paused\n")
    assert run("schedules", "trigger", "s").stdout == "1\n"
    assert json.loads(run("schedules", "trigger", "s", "--json").stdout)["id"] == 2
    assert run("schedules", "remove", "s").stdout == "removed\n"
    gone = run("schedules", "remove", "s")
    assert (gone.exit_code, gone.stderr) == (1, "jobvisor: there is no schedule 's'\n")
    assert [each.verb for each in reversed(client.actions())] == [
        "schedule", "pause", "resume", "trigger", "trigger", "unschedule",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("1",), 2, "neither cron nor every says when"),
        (("1", "--every", "1ms"), 2, 'must be from "1s"'),
        (("1", "--cron", "0 3 31 2 *"), 2, "bad day-of-month"),
        (("--every", "1h"), 2, "missing a required argument: 'a'"),
        (("1", "--every", "1h", "--overlap", "no"), 2, "'no' is not one of"),
        (("1", "--every", "1h", "--anchor", "noon"), 2, "--anchor: 'noon' is not a time"),
    ],
)
def test_what_cannot_be_is_one_line(
    run: Run, client: Client, words: tuple[str, ...], code: int, message: str
) -> None:
    said = run(*ADD, *words)
    assert (said.exit_code, said.stderr.count("\n")) == (code, 1)
    assert message in said.stderr
    assert client.schedules.list() == []


def test_a_name_that_is_taken_and_a_task_that_is_unknown_are_refused(
    run: Run, client: Client
) -> None:
    assert run(*ADD, "1", "--every", "1h").exit_code == 0
    assert run(*ADD, "1", "--every", "1h").exit_code == 1
    assert run(*ADD, "2", "--every", "1h", "--replace", "--paused").exit_code == 0
    assert client.schedules.get("s").args == [2]
    unknown = run("schedules", "add", "t", "nowhere", "--every", "1h")
    assert unknown.exit_code == 1
    assert "--force" in unknown.stderr
    assert run("schedules", "add", "t", "nowhere", "--every", "1h", "--force").exit_code == 0


def test_one_of_the_configuration_is_resumed_there(run: Run, client: Client) -> None:
    client.schedules.add("s", "app:f", every="1h")
    with client._store() as store:
        plan = store.schedule("s").row
        store.remove_schedule("s")
        store.import_schedules([plan._replace(source=CONFIG, family="main", paused_config=1)])
    assert "change it there" in run("schedules", "resume", "s").stderr


def scheduled(folder: Path, lines: str) -> None:
    (folder / "config.toml").write_text(f'{TEXT}[[schedules]]\nname = "s"\n{lines}')


def test_check_shows_the_next_times_and_refuses_what_the_task_does_not_take(
    run: Run, folder: Path
) -> None:
    scheduled(folder, f'task = "{SAMPLE}:add"\nargs = [1]\ncron = "@weekly"\n')
    found = run("check")
    assert "At 00:00 on Sunday, in UTC" in found.stdout
    told = json.loads(run("check", "--json").stdout)["schedules"]
    assert [(each["name"], each["source"], len(each["next"])) for each in told] == [
        ("s", "config", 3)
    ]
    scheduled(folder, f'task = "{SAMPLE}:add"\ncron = "@weekly"\n')
    refused = run("check")
    assert refused.exit_code == 78
    assert "[schedules] \"s\": tests.supervisor.cli.sample:add(a: 'int'" in refused.stderr
    scheduled(folder, f'task = "{SAMPLE}:ad"\ncron = "@weekly"\n')
    refused = run("check")
    assert refused.exit_code == 78
    assert f"no module has a task '{SAMPLE}:ad'; did you mean" in refused.stderr


def test_doctor_names_a_schedule_whose_task_is_unknown_late_or_without_times(
    run: Run, client: Client
) -> None:
    client.note_tasks({"app:f": {}})
    client.schedules.add("a", "app:f", every="1h")
    assert "every schedule has a task that a worker knows" in run("doctor").stdout
    client.schedules.add("b", "app:g", every="1h")
    client.schedules.add("c", "app:f", every="1h")
    client.schedules.add("d", "app:f", cron="@daily")
    with client._store() as store:
        store.move_schedule("c", 0)
        row = store.schedule("d").row
        store.remove_schedule("d")
        store.import_schedules([row._replace(timezone="Mars")])
    found = run("doctor").stdout
    assert "schedule b is of the task app:g, of which no worker has told" in found
    assert re.search("schedule c is .* late: no family of this database has a scheduler", found)
    assert "schedule d does not tick: timezone='Mars' is no time zone known here" in found


def test_schedules_move_to_another_database(run: Run, client: Client, folder: Path) -> None:
    client.schedules.add("s", "app:f", cron="0 3 * * *", timezone="Europe/Berlin", args=[1])
    client.schedules.pause("s")
    exported = run("export")
    assert exported.stderr == "exported 0 jobs and 1 schedule\n"
    (folder / "jobs.jsonl").write_text(exported.stdout)
    there = {"JOBVISOR_DATABASE_URL": f"sqlite:///{folder}/other.db"}
    assert run("import", "jobs.jsonl", env=there).stderr == "imported 0 jobs and 1 schedule\n"
    again = run("import", "jobs.jsonl", env=there).stderr
    assert "0 jobs and 1 schedule had been there already" in again
    with Client(there["JOBVISOR_DATABASE_URL"]) as other:
        assert other.schedules.rows() == client.schedules.rows()
    spoiled = exported.stdout.replace('"timezone": "Europe/Berlin"', '"timezone": 7')
    refused = run("import", "-", stdin=spoiled, env=there)
    assert (refused.exit_code, refused.stderr) == (
        2, "jobvisor: stdin line 2: timezone=7 must be a text\n",
    )  # fmt: skip


@pytest.mark.system
def test_the_example_of_readme_runs_as_it_stands(tmp_path: Path) -> None:
    section = README.split("### Schedules\n")[1].split("\n### ")[0]
    (tmp_path / "bin").mkdir()
    for name, start in {"jobvisor": "-m jobvisor", "python": ""}.items():
        wrapper = tmp_path / "bin" / name
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" {start} "$@"\n')
        wrapper.chmod(0o755)
    steps: list[tuple[str, list[str]]] = []
    for info, block in [*_blocks(TOUR), *_blocks(section)]:
        language, _, name = info.partition(" ")
        if name:
            (tmp_path / name).write_text(block)
        elif language == "python" and "@task" in block:
            app = tmp_path / "app.py"
            app.write_text(f"{app.read_text()}\n\n{block}")
        elif language == "console" and block in section:
            steps += _expectations(block)
    script = "set -e\njobvisor migrate > migrated\n"
    script += "".join(f"echo '@@{n}'\n{c}\n" for n, (c, _) in enumerate(steps))
    code, output, talk = _run(script, tmp_path)
    assert code == 0, output + talk
    for number, shown in _shown(output):
        command, expected = steps[number]
        pattern = r"\n".join(_pattern(line) for line in expected)
        assert re.fullmatch(pattern, shown.rstrip("\n"), re.DOTALL), f"$ {command}\n{shown}"


def test_a_schedule_is_triggered_with_the_options_of_its_task_before_any_worker_ran(
    folder: Path, client: Client
) -> None:
    client.schedules.add("s", f"{SAMPLE}:send", args=["a@b.c"], every="1h")
    command = [sys.executable, "-m", "jobvisor", "schedules", "trigger", "s"]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True
    )
    assert done.returncode == 0
    job = client.get(1)
    assert (job.queue, job.attempts_max, job.timeout) == ("mail", 2, 30)
