"""The commands on a PostgreSQL, and what `doctor` finds there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from jobvisor.jobs.store import open_store
from jobvisor.jobs.store.tables import SCHEMA
from jobvisor.supervisor.cli.finding import Finding
from jobvisor.supervisor.cli.postgres import Facts, _durability, _version, examine
from jobvisor.supervisor.config import Config
from tests.postgres import Server, Stranger, shared
from tests.supervisor.cli.conftest import CONFIG, ROOT, Run
from tests.waiting import eventually

Configure = Callable[..., None]


@pytest.fixture
def url() -> Iterator[str]:
    url = shared().new_database()
    yield url
    shared().drop_database(url)


@pytest.fixture
def configure(folder: Path, url: str) -> Configure:
    """Write the configuration of a family on this database, or on another URL."""

    def write(url: str = url, schema: str = "jobvisor", prefix: str = "") -> None:
        named = f'url = "{url}"\nschema = "{schema}"\nprefix = "{prefix}"'
        text = f"[database]\n{named}\n{CONFIG}"
        (folder / "config.toml").write_text(text)

    write()
    return write


@pytest.fixture
def sql(url: str) -> Iterator[Callable[..., list[tuple[Any, ...]]]]:
    stranger = Stranger(url)
    yield stranger.sql
    stranger.close()


Sql = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def role(url: str, sql: Sql) -> Iterator[str]:
    """A role of the server's that may do nothing but connect; its name."""
    name = urlsplit(url).path.replace("/", "role_")
    sql(f"CREATE ROLE {name} LOGIN PASSWORD 'hunter2'")
    yield name
    sql(f"DROP OWNED BY {name}")
    sql(f"DROP ROLE {name}")


def of_role(url: str, role: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{role}:hunter2@{parts.netloc.rpartition('@')[2]}").geturl()


def findings(run: Run) -> tuple[int, dict[str, tuple[str, str]]]:
    result = run("doctor", "--json")
    told = json.loads(result.stdout)
    return result.exit_code, {line["check"]: (line["status"], line["text"]) for line in told}


def without_driver(*words: str) -> subprocess.CompletedProcess[str]:
    """A command where psycopg cannot be imported."""
    blocked = "import sys; sys.modules['psycopg'] = None; from jobvisor.supervisor.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", blocked, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# -- the commands


@pytest.mark.parametrize(
    "command", [["check"], ["migrate"], ["list"], ["enqueue", "a:b", "--force"]]
)
def test_without_psycopg_a_command_names_the_extra(
    configure: Configure, command: list[str]
) -> None:
    ended = without_driver(*command)
    assert ended.returncode == 78
    assert ended.stderr.splitlines()[-1] == (
        "jobvisor: PostgreSQL needs psycopg; run: pip install 'jobvisor[postgres]'"
    )
    assert "Traceback" not in ended.stderr


def test_without_psycopg_doctor_names_the_extra(configure: Configure) -> None:
    ended = without_driver("doctor", "--json")
    found = {line["check"]: line for line in json.loads(ended.stdout)}
    assert ended.returncode == 1
    assert found["database"]["status"] == "fail"
    assert "pip install 'jobvisor[postgres]'" in found["database"]["text"]


def test_check_needs_no_server(run: Run, configure: Configure) -> None:
    configure("postgresql://nobody:hunter2@127.0.0.1:1/nowhere")
    result = run("check")
    assert result.exit_code == 0
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    "url", ["postgresql://u:hunter%zz2@h/db", "postgresql://u:hunter2@h/db?mode=fast"]
)
def test_check_refuses_what_libpq_cannot_read(run: Run, configure: Configure, url: str) -> None:
    configure(url)
    result = run("check")
    assert result.exit_code == 78
    assert "postgresql://u:***@h/db" in result.stderr
    assert "hunter" not in result.output


def test_migrate_says_from_and_to(run: Run, configure: Configure) -> None:
    assert run("migrate").stdout == f"schema 0 -> {SCHEMA}\n"
    assert run("migrate").stdout == f"schema {SCHEMA}: nothing to do\n"


def test_migrate_makes_the_tables_in_the_schema_that_is_configured(
    run: Run, configure: Configure, url: str, sql: Sql
) -> None:
    configure(schema="shop")
    run("migrate")
    assert sql("SELECT schemaname FROM pg_tables WHERE tablename = 'jobs'") == [("shop",)]
    job = run("enqueue", "tests.supervisor.cli.sample:add", "1", "2").stdout.strip()
    assert sql("SELECT id FROM shop.jobs") == [(int(job),)]


def test_without_a_file_the_environment_names_database_and_schema(
    run: Run, configure: Configure, folder: Path, url: str
) -> None:
    configure(schema="shop")
    run("migrate")
    (folder / "config.toml").unlink()
    environ = {"JOBVISOR_DATABASE_URL": url, "JOBVISOR_DATABASE_SCHEMA": "shop"}
    job = run("enqueue", "a:b", env=environ).stdout.strip()
    assert json.loads(run("show", job, "--json", env=environ).stdout)["task"] == "a:b"
    elsewhere = run("list", env={"JOBVISOR_DATABASE_URL": url})
    assert (elsewhere.exit_code, "`jobvisor migrate`" in elsewhere.stderr) == (78, True)


@pytest.mark.parametrize(
    "command", [["list"], ["show", "1"], ["enqueue", "a:b", "--force"], ["cancel", "1"], ["prune"]]
)
def test_before_migrate_a_command_names_it(
    run: Run, configure: Configure, command: list[str]
) -> None:
    result = run(*command)
    assert result.exit_code == 78
    assert "run `jobvisor migrate`" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr


def test_a_server_that_is_away_is_named_without_the_password(
    run: Run, configure: Configure
) -> None:
    configure("postgresql://u:hunter2@127.0.0.1:1/db")
    result = run("list")
    assert result.exit_code == 69
    assert "postgresql://u:***@127.0.0.1:1/db" in result.stderr
    assert "hunter2" not in result.output


def test_jobs_are_enqueued_listed_shown_cancelled_requeued_and_pruned(
    run: Run, configure: Configure
) -> None:
    run("migrate")
    task = "tests.supervisor.cli.sample:add"
    lines = run("enqueue", task, "-", stdin="[1, 2]\n[3, 4]\n").stdout.split()
    later = run("enqueue", task, "5", "6", "--in", "5m", "--unique", "k").stdout.strip()
    assert run("enqueue", task, "7", "8", "--unique", "k").stdout.strip() == later
    told = json.loads(run("list", "--json").stdout)
    assert [str(job["id"]) for job in told] == [later, *reversed(lines)]
    assert [job["state"] for job in told] == ["scheduled", "pending", "pending"]
    assert run("cancel", later).stdout == f"{later} cancelled\n"
    assert run("prune", "--cancelled", "0s", "--dry-run").stdout.startswith("would remove 1 ")
    assert run("requeue", later).stdout == f"{later} pending\n"
    run("cancel", later)
    assert run("prune", "--cancelled", "0s").stdout.startswith("removed 1 ")
    gone = run("show", later)
    assert (gone.exit_code, gone.stderr) == (1, f"jobvisor: there is no job {later}\n")


def test_status_shows_the_queues_of_the_database(run: Run, configure: Configure) -> None:
    run("migrate")
    run("enqueue", "a:b", "--force", "--queue", "lonely")
    told = json.loads(run("status", "--json", "--counts").stdout)
    assert told["unserved"] == ["lonely"]
    assert told["queues"]["lonely"]["pending"] == 1
    assert 0 <= told["queues"]["lonely"]["oldest_pending_ms"] < 60_000


def test_status_answers_while_the_database_is_away(run: Run, configure: Configure) -> None:
    configure("postgresql://u:hunter2@127.0.0.1:1/db")
    result = run("status")
    assert result.exit_code == 1
    assert "the queues cannot be shown" in result.stderr
    assert "is not running" in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.system
def test_start_before_migrate_exits_78_and_names_it(
    configure: Configure, folder: Path, url: str
) -> None:
    configure(of_password(url))
    ended = subprocess.run(
        [sys.executable, "-m", "jobvisor", "start"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 78
    assert re.search(
        "no tables of jobvisor in the schema jobvisor; run `jobvisor migrate`", ended.stderr
    )
    assert "hunter2" not in ended.stderr + ended.stdout


@pytest.mark.system
def test_neither_log_nor_status_of_a_family_shows_the_password(
    run: Run, configure: Configure, folder: Path, url: str
) -> None:
    configure(of_password(url))
    run("migrate")
    with (folder / "log").open("w") as log:
        family = subprocess.Popen(
            [sys.executable, "-m", "jobvisor", "start"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
        )
    try:
        status = eventually(lambda: running(run), what="the family runs") or {}
        assert "***@" in status["database"]
        assert "hunter2" not in json.dumps(status)
        assert "hunter2" not in run("doctor").output
    finally:
        family.terminate()
        assert family.wait(60) == 0
    assert "***@" in (folder / "log").read_text()
    assert "hunter2" not in (folder / "log").read_text()


def of_password(url: str) -> str:
    """The same user with a password nobody asks for."""
    user, at, rest = url.partition("@")
    return f"{user}:hunter2{at}{rest}"


def running(run: Run) -> dict[str, Any] | None:
    told = json.loads(run("status", "--json").stdout)
    return told if told["state"] == "running" else None


# -- doctor


def test_doctor_finds_a_server_in_order(run: Run, configure: Configure) -> None:
    run("migrate")
    code, found = findings(run)
    assert code == 0
    assert re.search(r"answers in \d+\.\d ms", found["database"][1])
    assert re.fullmatch(r"PostgreSQL \d+.*", found["server"][1])
    for check in ("psycopg", "server", "writable", "clock", "pooler", "connections"):
        assert found[check][0] == "ok"
    for check in ("transactions", "rights", "schema", "autovacuum", "dead rows", "families"):
        assert found[check][0] == "ok"
    for check in ("queues", "pending"):
        assert found[check][0] == "ok"
    assert "SQLite" not in found
    assert "inotify" not in found


def test_doctor_changes_nothing_in_a_database_without_tables(
    run: Run, configure: Configure, sql: Sql
) -> None:
    code, found = findings(run)
    assert (code, found["schema"][0]) == (1, "fail")
    assert "`jobvisor migrate` makes them" in found["schema"][1]
    assert sql("SELECT nspname FROM pg_namespace WHERE nspname = 'jobvisor'") == []


def test_doctor_names_a_server_that_is_away_without_the_password(
    run: Run, configure: Configure
) -> None:
    configure("postgresql://u:hunter2@127.0.0.1:1/db")
    code, found = findings(run)
    assert (code, found["database"][0]) == (1, "fail")
    assert "postgresql://u:***@127.0.0.1:1/db cannot be reached" in found["database"][1]
    assert "hunter2" not in str(found)


def test_doctor_finds_the_primary_among_several_hosts(
    run: Run, configure: Configure, url: str
) -> None:
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    configure(parts._replace(netloc=f"{user}@127.0.0.1:1,{host}").geturl())
    assert findings(run)[1]["writable"] == ("ok", "a primary")


def test_the_commands_work_in_the_schema_of_an_application(
    run: Run, configure: Configure, url: str, sql: Sql, role: str
) -> None:
    sql("CREATE SCHEMA jobvisor CREATE TABLE jobs (title text) CREATE TABLE meta (page text)")
    refused = run("migrate")
    assert refused.exit_code == 78
    assert "by another [database] prefix" in refused.stderr
    assert "the table meta of jobvisor is another program's" in findings(run)[1]["schema"][1]
    configure(prefix="our_")
    assert "jobvisor has no tables with the prefix our_ yet" in findings(run)[1]["schema"][1]
    assert run("migrate").stdout == f"schema 0 -> {SCHEMA}\n"
    for statement in run("grants", role, "--work").stdout.splitlines():
        sql(statement)
    configure(of_role(url, role), prefix="our_")
    assert run("enqueue", "tests.supervisor.cli.sample:add", "1", "2").exit_code == 0
    found = findings(run)[1]
    assert found["rights"][0] == found["schema"][0] == "ok"
    assert "jobvisor.our_jobs" in found["dead rows"][1]


def test_doctor_names_the_rights_that_a_role_lacks(
    run: Run, configure: Configure, url: str, sql: Sql, role: str
) -> None:
    configure(of_role(url, role))
    assert "GRANT CREATE ON DATABASE" in findings(run)[1]["schema"][1]
    configure()
    run("migrate")
    configure(of_role(url, role))
    told = f"the owner of the tables runs what `jobvisor grants {role} --work` prints"
    assert findings(run)[1]["rights"] == ("fail", f"{role} lacks USAGE on schema jobvisor; {told}")
    sql(f"GRANT USAGE ON SCHEMA jobvisor TO {role}")
    sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA jobvisor TO {role}")
    told = findings(run)[1]["rights"][1]
    tables = (
        "actions, attempts, families, jobs, limit_keys, limits, owners, queues, requests, "
        "schedules, stats, tasks, ticks, turns, uniques"
    )
    assert f"DELETE on {tables} in jobvisor" in told
    assert "SELECT on changes_number_seq, jobs_id_seq, woken in jobvisor" in told


def test_a_role_with_the_grants_that_doctor_asks_for_can_work(
    run: Run, configure: Configure, url: str, sql: Sql, role: str
) -> None:
    run("migrate")
    sql(run("grants", role, "--work").stdout)
    configure(of_role(url, role))
    code, found = findings(run)
    assert (code, found["rights"][0]) == (0, "ok")
    job = run("enqueue", "a:b", "--force").stdout.strip()
    assert run("cancel", job).exit_code == 0
    assert run("prune", "--cancelled", "0s").stdout.startswith("removed 1 ")


def test_doctor_fails_on_a_role_that_may_only_read(
    run: Run, configure: Configure, url: str, sql: Sql, role: str
) -> None:
    sql(f"ALTER ROLE {role} SET default_transaction_read_only = on")
    configure(of_role(url, role))
    code, found = findings(run)
    assert (code, found["writable"][0]) == (1, "fail")
    assert "default_transaction_read_only" in found["writable"][1]


def test_doctor_fails_on_a_standby(run: Run, configure: Configure) -> None:
    with Server().start() as server:
        configure(server.url())
        run("migrate")
        server.stop()
        (server.folder / "data" / "standby.signal").touch()
        server.start()
        code, found = findings(run)
    assert (code, found["writable"][0]) == (1, "fail")
    assert "standby" in found["writable"][1]


@pytest.mark.parametrize(
    ("name", "number", "status"),
    [("12.22", 120_022, "fail"), ("13.0", 130_000, "ok"), ("18.1", 180_001, "ok")],
)
def test_doctor_knows_the_oldest_server(name: str, number: int, status: str) -> None:
    facts = Facts(name, number, 1, False, False, [], "u", "d", 0)
    assert _version(facts) == Finding(
        "server",
        status,
        f"PostgreSQL {name} is too old; 13 is the oldest"
        if status == "fail"
        else f"PostgreSQL {name}",
    )


@pytest.mark.parametrize(
    ("meta", "told"),
    [
        ({"schema": SCHEMA - 1}, ("fail", "`jobvisor migrate` brings it")),
        ({"schema": SCHEMA + 1}, ("warn", "is newer than")),
        ({"schema": SCHEMA + 1, "oldest_schema": SCHEMA + 1}, ("fail", "install a newer jobvisor")),
    ],
)
def test_doctor_compares_the_schema_with_its_own(
    run: Run, configure: Configure, sql: Sql, meta: dict[str, int], told: tuple[str, str]
) -> None:
    run("migrate")
    for key, value in meta.items():
        sql("UPDATE jobvisor.meta SET value = ? WHERE key = ?", str(value), key)
    status, text = findings(run)[1]["schema"]
    assert status == told[0]
    assert told[1] in text


def test_doctor_warns_of_a_role_without_enough_connections(
    run: Run, configure: Configure, url: str, sql: Sql, role: str
) -> None:
    sql(f"ALTER ROLE {role} CONNECTION LIMIT 2")
    configure(of_role(url, role))
    status, text = findings(run)[1]["connections"]
    assert status == "warn"
    assert "1 of 2 in use (the limit of this role); this family takes 3" in text


def test_doctor_warns_where_autovacuum_is_off_for_the_jobs(
    run: Run, configure: Configure, sql: Sql
) -> None:
    run("migrate")
    sql("ALTER TABLE jobvisor.jobs SET (autovacuum_enabled = false)")
    status, text = findings(run)[1]["autovacuum"]
    assert (status, "RESET (autovacuum_enabled)" in text) == ("warn", True)


@pytest.mark.parametrize(
    ("unsafe", "status", "told"),
    [
        ([], "ok", "survives a power cut"),
        (["synchronous_commit"], "warn", "may lose the last jobs"),
        (["fsync", "full_page_writes"], "warn", "off are fsync, full_page_writes: a power cut"),
    ],
)
def test_doctor_says_what_a_power_cut_may_cost(unsafe: list[str], status: str, told: str) -> None:
    found = _durability(Facts("16.1", 160_001, 1, False, False, unsafe, "u", "d", 0))
    assert found.status == status
    assert told in found.text


def test_doctor_asks_the_server_what_it_syncs(
    run: Run, configure: Configure, url: str, sql: Sql, role: str
) -> None:
    sql(f"ALTER ROLE {role} SET synchronous_commit = off")
    configure(of_role(url, role))
    status, text = findings(run)[1]["durability"]
    assert (status, "synchronous_commit" in text) == ("warn", True)


def examined(url: str, **words: Any) -> dict[str, Finding]:
    config = Config.of({"database": {"url": url}})
    with contextlib.closing(open_store(url)) as store:
        return {finding.check: finding for finding in examine(config, store, **words)}


def test_doctor_names_a_transaction_that_keeps_dead_rows(run: Run, url: str) -> None:
    with psycopg.connect(url, application_name="a report") as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1")
        pid = connection.info.backend_pid
        found = examined(url, transaction_long_ms=0)["transactions"]
        assert found.status == "warn"
        assert f"pid {pid} (postgres, a report, idle in transaction)" in found.text
        assert f"pg_terminate_backend({pid})" in found.text
        assert examined(url)["transactions"].status == "ok"  # not old enough


def test_doctor_does_not_blame_a_transaction_that_keeps_nothing(run: Run, url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT 1")  # read committed: between two statements it has no snapshot
        assert examined(url, transaction_long_ms=0)["transactions"].status == "ok"


def test_doctor_names_a_prepared_transaction() -> None:
    with Server(settings={"max_prepared_transactions": "2"}).start() as server:
        server.sql("BEGIN; CREATE TABLE t (x int); PREPARE TRANSACTION 'forgotten'")
        found = examined(server.url(), transaction_long_ms=-1)["prepared"]
    assert found.status == "warn"
    assert "'forgotten'" in found.text


FAMILY = """
INSERT INTO jobvisor.families (id, name, host, boot_id, pid_namespace, pid, start_ticks, version,
    state_dir, dead_after_ms, started_at, heartbeat_at, died_at)
VALUES (7, 'main', 'far', '', 0, 99, 0, '1', '/x', 30000, now(), now() - ? * interval '1 s', {died})
"""


@pytest.mark.parametrize(
    ("times", "told"),
    [
        ((0, "NULL"), ("ok", "main on far (pid 99) was heard of ")),
        ((200, "NULL"), ("warn", "main on far (pid 99) has been silent for 3m2")),
        ((200, "now()"), ("warn", "main on far (pid 99) was declared dead")),
    ],
)
def test_doctor_names_each_family_and_how_long_it_is_silent(
    run: Run, configure: Configure, sql: Sql, times: tuple[int, str], told: tuple[str, str]
) -> None:
    run("migrate")
    silent, died = times
    sql(FAMILY.format(died=died), silent)
    status, text = findings(run)[1]["families"]
    assert status == told[0]
    assert text.startswith(told[1])


def test_doctor_names_a_queue_nobody_serves_and_a_long_wait(
    run: Run, configure: Configure, sql: Sql
) -> None:
    run("migrate")
    sql("INSERT INTO jobvisor.jobs (task, queue) VALUES ('a:b', 'lonely')")
    sql("INSERT INTO jobvisor.jobs (task, run_at) VALUES ('a:b', now() - interval '2 h')")
    found = findings(run)[1]
    assert found["queues"] == ("warn", "jobs wait in lonely, which no [[workers]] serves")
    assert found["pending"][0] == "warn"
    assert "2h" in found["pending"][1]


def test_doctor_sees_a_pooler(run: Run, configure: Configure, url: str, tmp_path: Path) -> None:
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(program).exists():
        pytest.skip("pgbouncer is not installed")
    run("migrate")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server, name = urlsplit(url), urlsplit(url).path[1:]
    user = f'"{server.username}" "{server.password or ""}"'
    (tmp_path / "users").write_text(user)
    (tmp_path / "pgbouncer.ini").write_text(
        f"[databases]\n{name} = host={server.hostname} port={server.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"pool_mode = transaction\nauth_file = {tmp_path}/users\n"
    )
    identity = ["-u", "nobody"] if os.geteuid() == 0 else []
    with (tmp_path / "log").open("w") as log:
        pooler = subprocess.Popen(
            [program, *identity, str(tmp_path / "pgbouncer.ini")], stdout=log, stderr=log
        )
    try:
        eventually(lambda: answers(port), what="pgbouncer answers")
        configure(server._replace(netloc=f"{server.username}@127.0.0.1:{port}").geturl())
        code, found = findings(run)
        assert code == 0, found
        assert "without prepared statements" in found["pooler"][1]
    finally:
        pooler.terminate()
        pooler.wait(30)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 2).close()
        return True
    return False
