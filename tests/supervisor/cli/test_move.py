"""`export` and `import`: what they write, what they refuse, and the whole way from one store to the other."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs import __version__
from jobvisor.jobs.client import Client
from jobvisor.jobs.store import open_store
from tests.postgres import shared
from tests.store.making import claim, life
from tests.store.making import family as family_row
from tests.supervisor.cli.conftest import ROOT, Run
from tests.supervisor.cli.sample import add, boom, send
from tests.system.harness import MARK, House

Lines = list[dict[str, Any]]


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    """Of the database that the configuration names."""
    with Client(f"sqlite:///{folder}/jobs.db") as opened:
        opened.migrate()
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
def elsewhere(request: pytest.FixtureRequest, folder: Path) -> Iterator[Client]:
    """Of another database, of each kind; a file is not there before its first use."""
    url = f"sqlite:///{folder}/elsewhere.db"
    if request.param == "postgres":
        url = shared().new_database()
    with Client(url) as opened:
        if request.param == "postgres":
            opened.migrate()
        yield opened
    if request.param == "postgres":
        shared().drop_database(url)


def there(client: Client) -> dict[str, str]:
    """The environment in which the commands work on this database."""
    return {"JOBVISOR_DATABASE_URL": client.url}


def read(text: str) -> Lines:
    return [json.loads(line) for line in text.splitlines()]


def written(lines: Lines) -> str:
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def jobs_of(text: str) -> Lines:
    """The jobs of an export."""
    return read(text)[1:-1]


@pytest.fixture
def lines(run: Run, client: Client) -> Lines:
    """An export of two jobs, the second with a history, to be spoiled."""
    client.enqueue(add, 1)
    client.enqueue(boom)
    client.run_one()
    client.run_one()
    found = read(run("export", "--all").stdout)
    assert [len(job["attempts"]) for job in found[1:-1]] == [0, 1]
    return found


# -- export


def test_an_export_begins_with_what_it_is_and_ends_with_its_number(
    run: Run, client: Client
) -> None:
    client.enqueue_many([add.call(n) for n in range(3)])
    result = run("export")
    head, *jobs, foot = read(result.stdout)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", head.pop("exported_at"))
    assert head == {"jobvisor": __version__, "format": 3, "database": "sqlite", "all": False}
    assert [(job["id"], job["args"], job["state"]) for job in jobs] == [
        (1, "[0]", "pending"),
        (2, "[1]", "pending"),
        (3, "[2]", "pending"),
    ]
    assert foot == {"jobs": 3}
    assert (result.exit_code, result.stderr) == (0, "exported 3 jobs\n")


def test_an_empty_queue_is_an_export_too(run: Run, client: Client, elsewhere: Client) -> None:
    exported = run("export").stdout
    assert read(exported)[1:] == [{"jobs": 0}]
    assert run("import", "-", stdin=exported, env=there(elsewhere)).stderr == "imported 0 jobs\n"


def test_finished_jobs_go_with_all(run: Run, client: Client) -> None:
    client.enqueue_many([add.call(1), add.call(2)])
    client.run_one()
    assert [job["id"] for job in jobs_of(run("export").stdout)] == [2]
    assert [job["id"] for job in jobs_of(run("export", "--all").stdout)] == [1, 2]


def test_an_export_is_plain_ascii_whatever_the_jobs_hold(run: Run, client: Client) -> None:
    client.enqueue(add.name, "\x1b[31m \x9b \u2028 \U0001f600")
    text = run("export").stdout
    assert re.fullmatch(r"[ -~\n]*", text)
    (job,) = jobs_of(text)
    assert json.loads(job["args"]) == ["\x1b[31m \x9b \u2028 \U0001f600"]


def test_a_file_is_replaced_once_all_is_written(run: Run, client: Client, folder: Path) -> None:
    client.enqueue(add, 1)
    (folder / "out").mkdir()
    target = folder / "out" / "jobs.jsonl"
    target.write_text("old")
    result = run("export", "-o", str(target))
    assert (result.exit_code, result.stdout) == (0, "")
    assert read(target.read_text())[-1] == {"jobs": 1}
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert os.listdir(folder / "out") == ["jobs.jsonl"]


def test_an_export_that_fails_leaves_the_old_file(run: Run, client: Client, folder: Path) -> None:
    client.enqueue(add, 1)
    (folder / "out").mkdir()
    target = folder / "out" / "jobs.jsonl"
    target.write_text("old")
    with sqlite3.connect(folder / "jobs.db") as connection:
        connection.execute("DROP TABLE attempts")
    connection.close()
    assert run("export", "-o", str(target)).exit_code == 78
    assert (target.read_text(), os.listdir(folder / "out")) == ("old", ["jobs.jsonl"])


@pytest.mark.parametrize("target", ["missing/jobs.jsonl", "folder", "/dev/null"])
def test_a_place_that_cannot_be_written_is_named(
    run: Run, client: Client, folder: Path, target: str
) -> None:
    (folder / "folder").mkdir()
    result = run("export", "-o", target)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"jobvisor: {target} ")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_nothing_is_exported_while_jobs_run(run: Run, client: Client) -> None:
    client.enqueue_many([add.call(n) for n in range(3)])
    store = open_store(client.url)
    claim(store, life(), limit=2)
    result = run("export")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "jobvisor: 2 jobs running now cannot be carried; stop the family first (`jobvisor stop`), "
        "or carry them as not started: --running\n"
    )
    store.close()


def test_running_jobs_are_carried_as_not_started_where_that_is_asked_for(
    run: Run, client: Client
) -> None:
    client.enqueue(add, 1)
    store = open_store(client.url)
    who = life()
    claim(store, who)
    result = run("export", "--running")
    (job,) = jobs_of(result.stdout)
    assert (job["state"], job["attempt"], job["claims"]) == ("pending", 0, 1)
    assert result.stderr == (
        "warning: carried as not started: 1 job running now. What runs now runs twice if the family "
        "goes on\nexported 1 job\n"
    )
    assert client.get(1).state == "running"
    store.close()


def test_families_at_work_are_named(run: Run, client: Client) -> None:
    store = open_store(client.url)
    for number, name in enumerate(["one", "two", "three", "four", "five"], 1):
        store.add_family(family_row(number, name=name, dead_after_ms=60_000))
    store.add_family(family_row(6, name="silent", dead_after_ms=1))
    result = run("export")
    assert result.exit_code == 0
    assert "(one on here, two on here, three on here and 2 more)" in result.stderr
    assert "Stop them first: `jobvisor stop`" in result.stderr
    assert "silent" not in result.stderr
    store.close()


def test_a_database_that_is_not_there_is_not_made_by_an_export(run: Run, folder: Path) -> None:
    result = run("export")
    assert (result.exit_code, result.stdout) == (69, "")
    assert not (folder / "jobs.db").exists()


# -- import


def test_an_import_brings_what_was_exported(run: Run, lines: Lines, elsewhere: Client) -> None:
    result = run("import", "-", stdin=written(lines), env=there(elsewhere))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "imported 2 jobs\n")
    again = run("export", "--all", env=there(elsewhere))
    assert jobs_of(again.stdout) == lines[1:-1]
    assert read(again.stdout)[0]["database"] == elsewhere.url.split(":")[0]


def test_an_import_brings_no_place_and_nothing_that_was_waited_for(
    run: Run, lines: Lines, elsewhere: Client
) -> None:
    lines[1] |= {"special": 6 | 128 | 1 << 20, "limit_place": 3, "turn": 1 << 45, "keep": "{}"}
    lines[2] |= {"state": "blocked", "parked": "limit:x", "limit_key": "x", "finished_at": None}
    run("import", "-", stdin=written(lines), env=there(elsewhere))
    for line in jobs_of(run("export", "--all", env=there(elsewhere)).stdout):
        kept = bool(line["keep"])
        told = [line[name] for name in ("special", "limit_place", "parked", "turn")]
        assert told == [64 if kept else 1, None, None, 0]
        assert kept or line["state"] == "pending"


#: What a job of the formats before has not.
NEW_IN_2 = ("headers", "parent", "company", "cpu_ms", "rss_bytes")
NEW_IN_3 = (
    "special", "turn", "limit_key", "share", "weight", "parked", "limit_place", "debounce_ms", "deadline_at",
    "keep", "held_key", "held_until",
)  # fmt: skip


def test_an_export_of_the_release_before_is_read(
    run: Run, lines: Lines, folder: Path, elsewhere: Client
) -> None:
    lines[0]["format"] = 2
    for job in lines[1:-1]:
        for key in NEW_IN_3:
            del job[key]
    (folder / "old.jsonl").write_text(written(lines))
    assert run("import", "old.jsonl", env=there(elsewhere)).stderr == "imported 2 jobs\n"
    assert [(job.limit, job.share) for job in elsewhere.list()] == [(None, None)] * 2


def test_an_export_of_0_3_0_is_read(
    run: Run, lines: Lines, folder: Path, elsewhere: Client
) -> None:
    lines[0]["format"] = 1
    for job in lines[1:-1]:
        for key in (*NEW_IN_2, *NEW_IN_3):
            del job[key]
        for attempt in job["attempts"]:
            for key in ("stack", "said", "cpu_ms", "rss_bytes"):
                del attempt[key]
    (folder / "old.jsonl").write_text(written(lines))
    assert run("import", "old.jsonl", env=there(elsewhere)).stderr == "imported 2 jobs\n"
    assert [(job.headers, job.cpu_ms) for job in elsewhere.list()] == [({}, None)] * 2
    assert elsewhere.attempts(2)[0].said is None


def test_a_second_import_says_that_all_were_there(
    run: Run, lines: Lines, elsewhere: Client, folder: Path
) -> None:
    (folder / "jobs.jsonl").write_text(written(lines))
    run("import", "jobs.jsonl", env=there(elsewhere))
    before = elsewhere.list()
    result = run("import", "jobs.jsonl", env=there(elsewhere))
    assert (result.exit_code, result.stderr) == (
        0,
        "imported 0 jobs\n2 jobs had been there already, and stayed as they were\n",
    )
    assert elsewhere.list() == before


def test_a_taken_id_is_named(run: Run, lines: Lines, elsewhere: Client) -> None:
    elsewhere.enqueue("app:other")
    result = run("import", "-", stdin=written(lines), env=there(elsewhere))
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"jobvisor: job 1 ({add.name}) cannot be imported: here another job has this id, app:other of "
    )
    assert [job.id for job in elsewhere.list()] == [1]


def test_a_nul_that_postgresql_refuses_names_the_job_and_imports_nothing(
    run: Run, lines: Lines, folder: Path
) -> None:
    lines[2]["attempts"][0]["message"] = "a\0b"
    url = shared().new_database()
    try:
        with Client(url) as elsewhere:
            elsewhere.migrate()
            result = run("import", "-", stdin=written(lines), env=there(elsewhere))
            assert result.exit_code == 2
            assert result.stderr.startswith("jobvisor: job 2 cannot be imported: ")
            assert elsewhere.list() == []
    finally:
        shared().drop_database(url)


def test_a_postgresql_without_tables_says_what_to_do(run: Run, lines: Lines) -> None:
    url = shared().new_database()
    try:
        env = {"JOBVISOR_DATABASE_URL": url}
        result = run("import", "-", stdin=written(lines), env=env)
        assert (result.exit_code, result.stdout) == (78, "")
        assert "run `jobvisor migrate`" in result.stderr
    finally:
        shared().drop_database(url)


Spoil = Callable[[Lines], object]


def cut(name: str) -> Spoil:
    return lambda lines: lines[2].pop(name)


def put(name: str, value: Any, *, line: int = 1) -> Spoil:
    return lambda lines: lines[line].update({name: value})


def put_run(name: str, value: Any) -> Spoil:
    return lambda lines: lines[2]["attempts"][0].update({name: value})


SPOILED: dict[str, tuple[Spoil, str]] = {
    "an unknown key": (put("tsk", "x"), "line 2: unknown key 'tsk'; did you mean 'task'?"),
    "a missing key": (cut("losses"), "line 3: the key 'losses' is missing"),
    "a text for a number": (put("id", "1"), "line 2: id='1' must be a whole number, 1 or more"),
    "true for a number": (put("attempt", True), "line 2: attempt=True must be a whole number"),
    "a broken number": (put("priority", 1.5), "line 2: priority=1.5 must be a whole number"),
    "a huge number": (put("owner", 2**63), f"line 2: owner={2**63} must be a whole number"),
    "an id below 1": (put("id", 0), "line 2: id=0 must be a whole number, 1 or more"),
    "JSON for its text": (put("args", [1]), "line 2: args=[1] must be a text"),
    "null for a text": (put("queue", None), "line 2: queue=None must be a text"),
    "no task": (put("task", ""), "line 2: task='' must be a text that is not empty"),
    "a running job": (put("state", "running"), "line 2: state='running' must be one of "),
    "a list for a state": (put("state", []), "line 2: state=[] must be one of "),
    "a moment as a text": (put("run_at", "now"), "line 2: run_at='now' must be a moment"),
    "a moment out of time": (put("run_at", 2**60), "must be a moment, in whole milliseconds"),
    "a history that is none": (put("attempts", {}), "line 2: attempts={} must be a list"),
    "a run that is none": (put("attempts", [3]), "line 2: attempts[0] is 3, and no JSON object"),
    "a wrong run": (put_run("outcome", 7), "line 3: attempts[0]: outcome=7 must be a text"),
    "a run's unknown key": (put_run("jab", 7), "line 3: attempts[0]: unknown key 'jab'"),
    "the same job twice": (lambda lines: lines.insert(2, lines[1]), "line 3: id=1 must be greater"),
    "a job that is gone": (lambda lines: lines.pop(1), "the export held 2 jobs, and here are 1"),
    "a lost last line": (lambda lines: lines.pop(), "was cut off after line 3"),
    "a lost first line": (lambda lines: lines.pop(0), "its first line does not say so"),
    "another file behind it": (lambda lines: lines.extend(lines[:]), "line 5 comes after the end"),
    "a later format": (
        put("format", 4, line=0),
        f"format 4, and this is {__version__}, which reads",
    ),
    "a key of the first line": (put("flavour", 1, line=0), "line 1: unknown key 'flavour'"),
}


@pytest.mark.parametrize(("spoil", "words"), SPOILED.values(), ids=SPOILED.keys())
def test_what_is_wrong_with_a_file_is_said_and_nothing_imported(
    run: Run, lines: Lines, folder: Path, spoil: Spoil, words: str
) -> None:
    spoil(lines)
    (folder / "jobs.jsonl").write_text(written(lines))
    env = {"JOBVISOR_DATABASE_URL": f"sqlite:///{folder}/new.db"}
    result = run("import", "jobs.jsonl", env=env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("jobvisor: jobs.jsonl ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (folder / "new.db").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is no export of jobvisor: it is empty"),
        (b"\n", "line 1 is not JSON"),
        (b"[1]\n", "line 1 is [1], and no JSON object"),
        (b"SQLite format 3\0\xff\xfe\n", "line 1 is not JSON"),
        (b"[" * 100_000 + b"\n", "line 1 is not JSON"),
        (b'{"jobvisor": "9", "form', "line 1 was cut off in its middle"),
        (b'{"jobvisor": "9", "format": true}\n', "its first line does not say so"),
    ],
)
def test_a_file_of_something_else_is_refused(run: Run, content: bytes, words: str) -> None:
    result = run("import", "-", stdin=content)
    assert result.exit_code == 2
    assert result.stderr.startswith("jobvisor: stdin ")
    assert words in result.stderr


def test_a_file_cut_off_anywhere_is_refused(
    run: Run, lines: Lines, folder: Path, client: Client
) -> None:
    whole = written(lines).rstrip("\n").encode()
    env = {"JOBVISOR_DATABASE_URL": f"sqlite:///{folder}/new.db"}
    for end in range(0, len(whole), 41):
        result = run("import", "-", stdin=whole[:end], env=env)
        assert result.exit_code == 2, whole[:end]
    assert not (folder / "new.db").exists()
    assert run("import", "-", stdin=whole, env=env).exit_code == 0


def test_a_file_that_cannot_be_read_is_named(run: Run, folder: Path) -> None:
    for name in ("missing.jsonl", str(folder)):
        result = run("import", name)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"jobvisor: {name} cannot be read: ")


# -- as somebody types it


def jobvisor(*words: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    command = [sys.executable, "-m", "jobvisor", *words]
    return subprocess.run(command, check=False, timeout=60, env=environ, **options)


def test_a_reader_that_has_enough_ends_the_export_quietly(client: Client, folder: Path) -> None:
    client.enqueue_many([send.call("x" * 1000) for _ in range(500)])
    script = f"{sys.executable} -m jobvisor export | head -n 1"
    shell = subprocess.run(
        ["sh", "-c", script],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert json.loads(shell.stdout)["format"] == 3
    assert shell.stderr == ""


def test_an_export_can_be_piped_into_an_import(client: Client, elsewhere: Client) -> None:
    ids = client.enqueue_many([add.call(n) for n in range(250)])
    script = (
        f"{sys.executable} -m jobvisor export"
        f" | JOBVISOR_DATABASE_URL={elsewhere.url} {sys.executable} -m jobvisor import /dev/stdin"
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(["sh", "-c", script], check=True, timeout=60, env=environ)
    assert [job.id for job in elsewhere.list(limit=1000)] == ids[::-1]


# Not getrusage: its greatest size is that of the process it was forked from.
_MEASURED = """
import re, sys
from jobvisor.supervisor.cli import main
try:
    main(sys.argv[1:], prog_name="jobvisor")
finally:
    with open("/proc/self/status") as file:
        print(int(re.search(r"VmHWM:\\s*(\\d+) kB", file.read())[1]) >> 10, file=sys.stderr)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc tells the greatest size")
def test_memory_does_not_grow_with_the_number_of_jobs(
    client: Client, elsewhere: Client, folder: Path
) -> None:
    rows = 5_000
    text = "x" * 16_000  # 80 MB in all
    client.enqueue_many([send.call(text) for _ in range(rows)])
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for words, url in (
        (["export", "-o", "jobs.jsonl"], client.url),
        (["import", "jobs.jsonl"], elsewhere.url),
        (["export", "-o", "again.jsonl"], elsewhere.url),
    ):
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *words],
            check=True,
            capture_output=True,
            text=True,
            timeout=100,
            env={**environ, "JOBVISOR_DATABASE_URL": url},
        )
        said, megabytes = done.stderr.splitlines()
        assert said.endswith(f"ported {rows} jobs")
        assert int(megabytes) < 100
    first, again = (
        (folder / name).read_text().splitlines() for name in ("jobs.jsonl", "again.jsonl")
    )
    assert again[1:] == first[1:]


@pytest.mark.system
def test_a_family_on_the_other_database_runs_what_was_imported(
    tmp_path: Path, client: Client
) -> None:
    tasks = f'{MARK}\n@task\ndef add(a, b):\n    mark("runs", a)\n    return a + b\n'
    here = House(tmp_path / "here", tasks)
    there = House(tmp_path / "there", tasks, database=shared().new_database())
    try:
        call = here.client.call
        ids = here.client.enqueue_many([call("app:add", n, 1) for n in range(100)])
        here.client.cancel(ids[0])
        exported = jobvisor("export", cwd=here.folder, capture_output=True)
        assert (exported.returncode, exported.stderr) == (0, b"exported 99 jobs\n")
        family = there.start()
        assert jobvisor("import", "-", cwd=there.folder, input=exported.stdout).returncode == 0
        there.wait_finished(ids[1:])
        assert there.client.get(42).result == 42
        assert sorted(map(int, there.lines("runs"))) == list(range(1, 100))
        assert there.enqueue("add", 1, 2) > 100
        assert there.stop(family) == 0
    finally:
        here.close()
        there.close()


def test_pauses_limits_and_fair_queues_go_along_and_what_is_said_there_stays(
    client: Client, elsewhere: Client, run: Run
) -> None:
    client.pause("mail")
    client.pause(task="sample:add", until="1h")
    client.limits.set("stripe", concurrency=5, rate="10/1s")
    client.limits.set("known", concurrency=1)
    client.set_fair("reports")
    elsewhere.limits.set("known", concurrency=9)
    exported = run("export")
    text = exported.stdout
    result = run("import", "-", stdin=text, env=there(elsewhere))
    assert result.exit_code == 0, result.stderr
    assert exported.stderr.endswith("exported 0 jobs, 2 limits, 2 pauses and 1 fair queue\n")
    assert result.stderr == "imported 0 jobs, 2 limits, 2 pauses and 1 fair queue\n"
    assert [(each.kind, each.name) for each in elsewhere.paused()] == [
        ("queue", "mail"), ("task", "sample:add"),
    ]  # fmt: skip
    assert elsewhere.paused()[1].until == client.paused()[1].until
    found = {each.limit.name: each.limit for each in elsewhere.limits.list()}
    assert found["stripe"] == client.limits.list()[1].limit
    assert found["known"].concurrency == 9
    assert elsewhere.fair_queues() == ["reports"]
    assert run("import", "-", stdin=text, env=there(elsewhere)).exit_code == 0
