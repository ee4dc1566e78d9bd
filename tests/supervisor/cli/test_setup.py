"""init, check, doctor, migrate and completion."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobvisor.jobs.keys import render
from jobvisor.jobs.store.schema import SCHEMA
from jobvisor.supervisor.cli.doctor import disk
from jobvisor.supervisor.cli.writable import file_obstacle, folder_obstacle
from tests.store.processes import without_watches
from tests.supervisor.cli.conftest import CONFIG, ROOT, Run
from tests.waiting import eventually


def findings(run: Run, *args: str) -> tuple[int, dict[str, tuple[str, str]]]:
    result = run("doctor", "--json", *args)
    told = json.loads(result.stdout)
    return result.exit_code, {line["check"]: (line["status"], line["text"]) for line in told}


def modules(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.py").write_text(text)
    (folder / "config.toml").write_text(f'[tasks]\nmodules = ["{name}"]\n')


def test_init_writes_every_key_and_names_the_next_commands(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("init")
    assert (result.exit_code, result.stdout) == (0, "config.toml\n")
    assert Path("config.toml").read_text() == render()
    assert "[tasks] modules, then `jobvisor check`, then `jobvisor start`" in result.stderr


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_init_writes_for_its_owner_alone_because_a_url_may_hold_a_password(
    run: Run, tmp_path: Path, force: list[str]
) -> None:
    if force:
        (tmp_path / "config.toml").write_text("old")
        (tmp_path / "config.toml").chmod(0o644)
    run("init", str(tmp_path), *force)
    assert (tmp_path / "config.toml").stat().st_mode & 0o777 == 0o600


def test_init_makes_the_folder_and_names_it_in_the_next_commands(run: Run, tmp_path: Path) -> None:
    result = run("init", str(tmp_path / "new"))
    assert (tmp_path / "new" / "config.toml").exists()
    assert f"jobvisor start -c {tmp_path}/new/config.toml" in result.stderr


def test_init_leaves_a_file_alone_unless_forced(run: Run, folder: Path) -> None:
    result = run("init")
    assert result.exit_code == 78
    assert "--force replaces it" in result.stderr
    assert (folder / "config.toml").read_text() == CONFIG
    assert run("init", "--force").exit_code == 0
    assert (folder / "config.toml").read_text() == render()


def test_init_in_a_file_is_refused(run: Run, folder: Path) -> None:
    result = run("init", str(folder / "config.toml"))
    assert result.exit_code == 78
    assert result.stderr.count("\n") == 1


def test_check_names_the_tasks_with_the_options_they_would_get(run: Run, folder: Path) -> None:
    told = json.loads(run("check", "--json").stdout)
    name = "tests.supervisor.cli.sample"
    assert told["tasks"] == [
        {
            "name": f"{name}:add",
            "queue": "default",
            "retries": 3,
            "timeout_ms": 0,
            "memory_bytes": 0,
            "share": None,
            "limit": None,
        },
        {
            "name": f"{name}:at",
            "queue": "default",
            "retries": 3,
            "timeout_ms": 0,
            "memory_bytes": 0,
            "share": None,
            "limit": None,
        },
        {
            "name": f"{name}:boom",
            "queue": "default",
            "retries": 0,
            "timeout_ms": 0,
            "memory_bytes": 0,
            "share": None,
            "limit": None,
        },
        {
            "name": f"{name}:send",
            "queue": "mail",
            "retries": 1,
            "timeout_ms": 30_000,
            "memory_bytes": 0,
            "share": None,
            "limit": None,
        },
    ]
    assert told["warnings"] == []
    assert not (folder / "jobs.db").exists()


THREAD = """
import threading
from jobvisor import task
kept = bytearray(40_000_000)
threading.Thread(target=threading.Event().wait, name="sender", daemon=True).start()

@task
def send(): pass
"""


def test_check_measures_the_import_and_tells_why_it_could_not_be_done_once(
    run: Run, folder: Path
) -> None:
    modules(folder, "threaded", THREAD)
    result = run("check", "--strict")
    assert result.exit_code == 0
    assert re.search(
        r"the import takes \d+\.\d s and (38|39|4\d) MB, in each worker", result.stdout
    )
    assert "would be refused: module threaded started the thread 'sender'" in result.stdout


FAILING = """
from jobvisor import before_fork, task

@before_fork
def load():
    raise RuntimeError("no model")

@task
def send(): pass
"""


def test_check_warns_of_a_hook_that_would_keep_all_workers_from_starting(
    run: Run, folder: Path
) -> None:
    modules(folder, "failing", FAILING)
    result = run("check", "--strict")
    assert result.exit_code == 1
    warned = (
        r"warning: the @before_fork hook load \(.*\) failed: .*no model.*; no worker would start"
    )
    assert re.search(warned, result.stderr)


VAIN = """
from jobvisor import task

@task(unique=lambda page: page)
def index(page: str, words: int): pass
"""


def test_check_warns_of_a_key_that_no_call_of_its_task_would_fit(run: Run, folder: Path) -> None:
    modules(folder, "vain", VAIN)
    result = run("check", "--strict")
    assert result.exit_code == 1
    warned = (
        "warning: vain:index: unique=<lambda> takes (page), but the task (page: str, words: int)"
    )
    assert warned in result.stderr


def test_check_warns_of_a_memory_limit_that_keeps_lanes_empty(run: Run, folder: Path) -> None:
    modules(folder, "large", "from jobvisor import task\n@task(memory='1GB')\ndef sort(): pass\n")
    assert run("check", "--strict").exit_code == 0
    with (folder / "config.toml").open("a") as file:
        file.write("[[workers]]\nconcurrency = 4\n")
    result = run("check", "--strict")
    assert result.exit_code == 1
    assert "large:sort has memory=, so it runs alone in a worker of pool default" in result.stderr


def test_check_warns_where_preload_is_wanted_and_would_be_refused(run: Run, folder: Path) -> None:
    modules(folder, "threaded", THREAD)
    with (folder / "config.toml").open("a") as file:
        file.write("preload = true\n")
    told = json.loads(run("check", "--json").stdout)
    assert told["import"]["refused"] == ["module threaded started the thread 'sender'"]
    assert told["import"]["bytes"] > 38 << 20
    assert run("check", "--strict").exit_code == 1
    assert "warning: [tasks] preload would be refused" in run("check").stderr


def test_check_knows_the_tasks_that_come_along_and_what_they_would_miss(
    run: Run, folder: Path
) -> None:
    names = ["jobvisor.builtin.shell", "jobvisor.builtin.http", "jobvisor.builtin.email"]
    path = folder / "config.toml"
    path.write_text(f"[tasks]\nmodules = {names}\npreload = true\n")
    told = json.loads(run("check", "--json").stdout)
    assert [task["name"] for task in told["tasks"]] == ["email", "http", "shell"]
    assert told["import"]["refused"] == []
    assert told["warnings"] == [
        f"[email] {key} is not set: jobs of the task email would fail" for key in ("host", "from")
    ]
    path.write_text(
        f"[tasks]\nmodules = {names}\n"
        "[email]\nhost = 'mail.example.com'\nfrom = 'a@b.c'\nsecurity = 'none'\npassword = 'hunter2'\n"
    )
    told = json.loads(run("check", "--json").stdout)
    [warning] = told["warnings"]
    assert warning.startswith("[email] password goes to mail.example.com unencrypted")


def test_check_warns_of_a_queue_nobody_serves(run: Run, folder: Path) -> None:
    (folder / "config.toml").write_text(CONFIG.replace('["default", "mail"]', '["default"]'))
    result = run("check")
    assert result.exit_code == 0
    assert "no pool serves queue 'mail'" in result.stderr
    assert "sample:send" in result.stdout


@pytest.mark.parametrize("command", ["check", "start"])
def test_without_a_module_of_tasks_nothing_is_started_and_none_is_assumed(
    folder: Path, command: str
) -> None:
    (folder / "config.toml").write_text("[[workers]]\n")
    # In a process of its own: this one knows the tasks of other tests.
    done = subprocess.run(
        [sys.executable, "-m", "jobvisor", command],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 78
    assert "names no module, so no job could run; write the modules" in done.stderr
    assert not (folder / ".jobvisor").exists()


@pytest.mark.parametrize("wrong", ["8-1", "0-3", "a-b"])
@pytest.mark.parametrize("command", ["check", "start"])
def test_workers_that_are_no_range_are_refused_in_one_sentence(
    run: Run, folder: Path, command: str, wrong: str
) -> None:
    with (folder / "config.toml").open("a") as file:
        file.write(f'processes = "{wrong}"\n')
    result = run(command)
    assert result.exit_code == 78
    (line,) = result.stderr.splitlines()
    assert f'[workers] processes = "{wrong}" is not valid: write a whole number from 1' in line
    assert line.endswith('or the least and the most as "1-8"')


def test_a_range_of_workers_is_told(run: Run, folder: Path) -> None:
    with (folder / "config.toml").open("a") as file:
        file.write('processes = "1-8"\n')
    assert "family main, 1-8 workers" in run("check").stdout


def test_check_names_a_codec_that_cannot_be_imported(run: Run, folder: Path) -> None:
    with (folder / "config.toml").open("a") as file:
        file.write('[database]\ncodec = "tests.supervisor.cli.sample:nothing"\n')
    result = run("check")
    assert result.exit_code == 78
    assert "[database] codec: 'tests.supervisor.cli.sample:nothing' names nothing" in result.stderr


def test_check_warns_of_a_variable_that_nothing_reads(run: Run, folder: Path) -> None:
    result = run("check", env={"JOBVISOR_VERSION": "7"})
    assert result.exit_code == 0
    assert "the variable JOBVISOR_VERSION is none of jobvisor's" in result.stderr


def test_check_warns_where_there_is_no_task(run: Run, folder: Path) -> None:
    modules(folder, "empty_module", "")
    result = run("check")
    assert result.exit_code == 0
    assert "no task in empty_module" in result.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit('no licence')", "no licence"),
        ("import os; os._exit(3)", "ended the process with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "ended the process by signal SIGKILL"),
        ("import nowhere_at_all", "nowhere_at_all"),
        ("import sys; sys.exit()", "cannot be imported"),
    ],
)
def test_check_survives_a_module_that_does_not(
    run: Run, folder: Path, text: str, message: str
) -> None:
    modules(folder, "bad_module", text)
    result = run("check")
    assert result.exit_code == 78
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("x = 1\n1 / 0", 2),
        ("def f(:\n", 1),
        ("\n\nimport nowhere_at_all", 3),
        ("import json\n\njson.loads('{')", 3),
    ],
)
def test_an_import_error_names_file_and_line_and_not_where_it_was_searched(
    run: Run, folder: Path, text: str, line: int
) -> None:
    modules(folder, f"bad_at_{line}_{len(text)}", text)
    result = run("check")
    assert result.exit_code == 78
    assert f"{folder}/bad_at_{line}_{len(text)}.py:{line})" in result.stderr
    assert "searched" not in result.stderr


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("not_there", "it is searched in "),
        ("not_there.tasks", "it is searched in "),
        ("tests.not_there", "(tests is "),  # another package of that name may be the one found
    ],
)
def test_a_module_that_is_not_found_names_where_it_was_searched(
    run: Run, folder: Path, name: str, where: str
) -> None:
    (folder / "config.toml").write_text(f'[tasks]\nmodules = ["{name}"]\n')
    result = run("check")
    assert result.exit_code == 78
    assert where in result.stderr


def test_strict_makes_a_warning_an_exit_code(run: Run, folder: Path) -> None:
    assert run("check", "--strict").exit_code == 0
    (folder / "config.toml").write_text(CONFIG.replace('["default", "mail"]', '["default"]'))
    assert run("check").exit_code == 0
    result = run("check", "--strict")
    assert result.exit_code == 1
    assert "no pool serves queue 'mail'" in result.stderr


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('[log]\nfile = "nowhere/a.log"', "[log] file: {folder}/nowhere/a.log cannot be made"),
        ('[log]\nfile = "."', "[log] file: {folder} is a folder"),
        (
            '[database]\nurl = "sqlite:///nowhere/a.db"',
            "[database] url: {folder}/nowhere/a.db cannot",
        ),
        ('[supervisor]\nstate_dir = "config.toml"', "config.toml is not a folder"),
        ('[supervisor]\nstate_dir = "config.toml/x"', "config.toml is not a folder"),
    ],
)
def test_check_tries_where_the_family_will_write(
    run: Run, folder: Path, lines: str, message: str
) -> None:
    (folder / "config.toml").write_text(
        f'[tasks]\nmodules = ["tests.supervisor.cli.sample"]\n{lines}'
    )
    result = run("check", "--json")
    assert result.exit_code == 0
    (warning,) = [w for w in json.loads(result.stdout)["warnings"] if "no pool" not in w]
    assert message.format(folder=folder) in warning


def test_a_folder_that_cannot_be_written_is_known_without_writing(
    folder: Path, nobody: None
) -> None:
    (folder / "shut").mkdir(mode=0o555)
    assert folder_obstacle(str(folder)) is None
    assert folder_obstacle(str(folder / "new" / "below")) is None
    shut = f"{folder}/shut"
    assert folder_obstacle(shut) == f"{shut} cannot be written by this user"
    assert folder_obstacle(f"{shut}/new") == f"{shut}/new cannot be made: {shut} cannot be written"
    assert file_obstacle(f"{shut}/a.log") == f"{shut} cannot be written by this user"
    assert sorted(os.listdir(folder)) == ["config.toml", "shut"]


def test_check_does_not_wait_for_ever_and_leaves_nothing_behind(run: Run, folder: Path) -> None:
    modules(
        folder,
        "slow_module",
        "import subprocess, time, pathlib\n"
        "child = subprocess.Popen(['sleep', '300'])\n"
        "pathlib.Path('pid').write_text(str(child.pid))\n"
        "time.sleep(300)\n",
    )
    with (folder / "config.toml").open("a") as file:
        file.write('[supervisor]\nboot_timeout = "2s"\n')
    result = run("check")
    assert result.exit_code == 78
    assert "took longer than 2s" in result.stderr
    left = int((folder / "pid").read_text())
    eventually(lambda: not psutil.pid_exists(left) or _is_zombie(left), what="nothing is left")


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_what_a_module_prints_is_not_data(run: Run, folder: Path) -> None:
    modules(folder, "loud_module", "print('hello')")
    assert json.loads(run("check", "--json").stdout)["tasks"] == []


def test_check_takes_a_long_answer(run: Run, folder: Path) -> None:
    modules(
        folder,
        "long_module",
        "from jobvisor.jobs.registry import task\n"
        "for n in range(3000):\n    task(lambda: None, name=f'long-task-{n}')\n",
    )
    assert len(json.loads(run("check", "--json").stdout)["tasks"]) == 3000


def test_migrate_says_from_and_to(run: Run, folder: Path) -> None:
    assert run("migrate").stdout == f"schema 0 -> {SCHEMA}\n"
    assert run("migrate").stdout == f"schema {SCHEMA}: nothing to do\n"


def test_migrate_of_a_file_that_is_no_database_is_refused(run: Run, folder: Path) -> None:
    (folder / "jobs.db").write_text("dear diary, " * 100)
    result = run("migrate")
    assert result.exit_code == 78
    assert "not an SQLite database" in result.stderr


def test_grants_are_refused_where_there_are_no_roles_and_without_a_purpose(run: Run) -> None:
    result = run("grants", "app", "--read")
    assert result.exit_code == 78
    assert "has no roles" in result.stderr
    result = run("grants", "app")
    assert result.exit_code == 2
    assert "--enqueue, --work or --read" in result.stderr


def test_doctor_before_the_first_start_makes_nothing(run: Run, folder: Path) -> None:
    code, found = findings(run)
    assert code == 0
    assert found["database"][1].endswith("by `jobvisor migrate`")
    assert found["family"][0] == "warn"
    assert sorted(os.listdir(folder)) == ["config.toml"]


def test_doctor_reads_a_database_without_changing_it(run: Run, folder: Path) -> None:
    sqlite3.connect(folder / "jobs.db").execute("CREATE TABLE mine (x)").connection.close()
    code, found = findings(run)
    assert code == 0
    assert found["schema"] == ("warn", f"0; `jobvisor migrate` brings it to {SCHEMA}")
    with sqlite3.connect(folder / "jobs.db") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("mine",)]
    connection.close()


def test_doctor_warns_where_no_watch_is_left(run: Run, folder: Path) -> None:
    run("migrate")
    script = "from jobvisor.supervisor.cli import main\nmain(['doctor', '-c', sys.argv[1]])"
    told = without_watches(script, str(folder / "config.toml"))
    assert re.search(r"inotify +warn +none is left for this user: workers look every 100 ms", told)


def test_doctor_names_a_queue_nobody_serves_and_a_long_wait(run: Run, folder: Path) -> None:
    run("migrate")
    connection = sqlite3.connect(folder / "jobs.db")
    connection.execute("INSERT INTO jobs (task, queue) VALUES ('a:b', 'lonely')")
    connection.execute("INSERT INTO jobs (task, run_at) VALUES ('a:b', 1000)")
    connection.execute("INSERT INTO jobs (task, created_at) VALUES ('a:b', 9000000000000)")
    connection.commit()
    connection.close()
    code, found = findings(run)
    assert code == 0
    assert found["queues"][0] == "warn"
    assert "lonely" in found["queues"][1]
    assert found["pending"][0] == "warn"
    assert found["clock"][0] == "warn"
    assert "the clock went back" in found["clock"][1]


def test_doctor_fails_on_a_damaged_database(run: Run, folder: Path) -> None:
    run("migrate")
    path = folder / "jobs.db"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    data = bytearray(path.read_bytes())
    data[8192:40960] = b"\xa5" * (40960 - 8192)
    path.write_bytes(data)
    code, found = findings(run)
    assert code == 1
    assert "fail" in {status for status, _ in found.values()}


def test_doctor_fails_on_a_file_that_is_no_database(run: Run, folder: Path) -> None:
    (folder / "jobs.db").write_text("dear diary, " * 100)
    code, found = findings(run)
    assert (code, found["database"][0]) == (1, "fail")


def test_doctor_fails_on_a_state_directory_others_can_write(run: Run, folder: Path) -> None:
    (folder / ".jobvisor").mkdir()
    (folder / ".jobvisor").chmod(0o777)
    code, found = findings(run)
    assert (code, found["state directory"][0]) == (1, "fail")


def test_doctor_fails_on_folders_it_cannot_write(run: Run, folder: Path, nobody: None) -> None:
    (folder / "shut").mkdir(mode=0o555)
    (folder / "config.toml").write_text(
        CONFIG.replace("[supervisor]", '[supervisor]\nstate_dir = "shut/state"')
        + '[database]\nurl = "sqlite:///shut/jobs.db"\n'
    )
    code, found = findings(run)
    assert code == 1
    assert found["state directory"][0] == found["database"][0] == "fail"
    assert f"{folder}/shut cannot be written" in found["state directory"][1]


def test_doctor_fails_on_the_schema_of_a_newer_release(run: Run, folder: Path) -> None:
    run("migrate")
    with sqlite3.connect(folder / "jobs.db") as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    assert findings(run)[1]["schema"][0] == "ok"  # it does not say that this release may not
    with connection:
        connection.execute(f"UPDATE meta SET value = {SCHEMA + 1} WHERE key = 'oldest_schema'")
    connection.close()
    code, found = findings(run)
    assert (code, found["schema"][0]) == (1, "fail")
    assert "install a newer jobvisor" in found["schema"][1]


@pytest.fixture
def app(folder: Path) -> Path:
    """The database of an application, with tables and a number of its own."""
    text = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(f'{text}[database]\nurl = "sqlite:///app.db"\n')
    with sqlite3.connect(folder / "app.db") as connection:
        connection.execute("CREATE TABLE jobs (title TEXT)")
        connection.execute("CREATE TABLE meta (page TEXT)")
        connection.execute("PRAGMA user_version = 7")
    connection.close()
    return folder / "app.db"


def test_the_commands_work_in_the_database_of_an_application(
    run: Run, app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run("migrate")
    assert refused.exit_code == 78
    assert "another program's" in refused.stderr
    assert "by another [database] prefix" in refused.stderr
    assert "by another [database] prefix" in findings(run)[1]["schema"][1]
    monkeypatch.setenv("JOBVISOR_DATABASE_PREFIX", "our_")
    assert findings(run)[1]["schema"][0] == "warn"
    assert run("migrate").stdout == f"schema 0 -> {SCHEMA}\n"
    assert run("migrate").stdout == f"schema {SCHEMA}: nothing to do\n"
    assert run("enqueue", "tests.supervisor.cli.sample:add", "1", "2").exit_code == 0
    assert findings(run)[1]["schema"] == ("ok", f"{SCHEMA}")
    jobs = run("export").stdout
    monkeypatch.setenv("JOBVISOR_DATABASE_PREFIX", "other_")
    assert run("import", "-", stdin=jobs).exit_code == 0
    assert run("cancel", "1").exit_code == 0
    with sqlite3.connect(app) as connection:
        asked = "SELECT our.state, other.state FROM our_jobs AS our, other_jobs AS other"
        assert connection.execute(asked).fetchall() == [("pending", "cancelled")]
        assert connection.execute("PRAGMA user_version").fetchone() == (7,)
    connection.close()


def test_doctor_knows_a_table_of_theirs_in_the_place_of_ours(run: Run, folder: Path) -> None:
    sqlite3.connect(folder / "jobs.db").execute("CREATE TABLE jobs (x)").connection.close()
    code, found = findings(run)
    assert (code, found["schema"][0]) == (1, "fail")
    assert "the table jobs in" in found["schema"][1]
    assert "[database] prefix" in found["schema"][1]


@pytest.mark.parametrize(
    ("kind", "free_mib", "status", "words"),
    [
        ("ext4", 9_000, "ok", "ext4, "),
        ("ext4", 200, "warn", "only 200MB free"),
        ("tmpfs", 200, "warn", "only 200MB free"),
        ("tmpfs", 9_000, "warn", "go with the machine"),
        ("tmpfs", 4, "fail", "make room"),
        ("nfs", 9_000, "fail", "network"),
    ],
)
def test_doctor_tells_a_disk_that_is_almost_full(
    kind: str, free_mib: int, status: str, words: str
) -> None:
    found = disk("database", kind, free_mib << 20)
    assert (found.status, words in found.text) == (status, True), found.text


def test_doctor_names_what_the_database_refused(run: Run, folder: Path) -> None:
    (folder / ".jobvisor" / "rejected").mkdir(parents=True, mode=0o700)
    (folder / ".jobvisor").chmod(0o700)
    (folder / ".jobvisor" / "rejected" / "1").write_text("")
    assert "1 outcomes" in findings(run)[1]["rejected"][1]


def test_doctor_says_a_bad_configuration_and_goes_no_further(run: Run, folder: Path) -> None:
    (folder / "config.toml").write_text("[log]\nlevel = 3\n")
    code, found = findings(run)
    assert (code, found["configuration"][0]) == (1, "fail")
    assert "Python" in found
    assert "database" not in found


def test_doctor_knows_whether_the_family_is_well(
    run: Run, folder: Path, play: Callable[..., Any]
) -> None:
    player = play()
    assert findings(run)[1]["family"] == ("ok", f"main runs as pid {player.pid}")


def test_doctor_is_readable_in_a_pipe(run: Run, folder: Path) -> None:
    shown = run("doctor").stdout
    assert "\x1b" not in shown
    assert "\nPython " in shown


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completion_prints_a_script(run: Run, shell: str) -> None:
    assert "_JOBVISOR_COMPLETE" in run("completion", shell).stdout


@pytest.mark.parametrize("command", ["check", "start"])
def test_a_site_that_everybody_could_enter_is_refused_before_anything_begins(
    run: Run, folder: Path, command: str
) -> None:
    modules(folder, "app", "")
    with (folder / "config.toml").open("a") as file:
        file.write('[web]\nenabled = true\nhost = "0.0.0.0"\n')
    refused = run(command)
    assert refused.exit_code == 78
    assert "can be reached from other machines; set a token" in refused.stderr
    assert not (folder / ".jobvisor").exists()


@pytest.mark.parametrize("command", ["check", "start"])
def test_a_site_without_its_libraries_is_refused_before_anything_begins(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    modules(folder, "app", "")
    with (folder / "config.toml").open("a") as file:
        file.write("[web]\nenabled = true\n")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refused = run(command)
    assert refused.exit_code == 78
    assert "pip install 'jobvisor[web]'" in refused.stderr
    assert not (folder / ".jobvisor").exists()


@pytest.mark.parametrize(("what", "begins"), [("dashboard", "{"), ("rules", "# Alert rules")])
def test_metrics_prints_what_a_monitor_needs_beside_the_numbers(
    run: Run, what: str, begins: str
) -> None:
    result = run("metrics", what)
    assert result.exit_code == 0
    assert result.stdout.startswith(begins)
    assert result.stdout.endswith("\n")


def test_metrics_names_what_there_is_where_it_is_asked_for_something_else(run: Run) -> None:
    result = run("metrics", "grafana")
    assert result.exit_code == 2
    assert "dashboard" in result.stderr


def test_a_share_of_a_queue_that_is_not_fair_is_told_of(run: Run, folder: Path) -> None:
    modules(folder, "sharing", "from jobvisor import task\n@task(share='a')\ndef f(): ...\n")
    said = "the queue default of sharing:f is not fair: share= is in vain"
    assert said in run("check").stderr
    run("migrate")
    run("enqueue", "sharing:f", "--weight", "3")
    status, text = findings(run)[1]["fairness"]
    assert status == "warn"
    assert text.startswith("jobs with a share wait in the queue default, which is not fair")
    with (folder / "config.toml").open("a") as config:
        config.write("[queues.default]\nfair = true\n")
    assert said not in run("check").stderr
