"""A real PgBouncer in transaction mode between families and their server: nothing needs a session."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg
import pytest

from jobvisor import Client, Fixed
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.store import open_store
from jobvisor.jobs.store.postgres import PostgresStore
from jobvisor.jobs.store.tables import SCHEMA
from tests.postgres import NOBODY, Server, Stranger, _end_with_us
from tests.store.making import claim, life, new, record
from tests.system.harness import Build, House
from tests.system.history import (
    SHORT,
    calls,
    check_charges,
    check_each_succeeded,
    marking,
    marks,
    wait_begun,
    wait_busy,
)
from tests.waiting import eventually

pytestmark = pytest.mark.system

SESSIONS = 3  # fewer than the connections of any family
SLOW = {"database": {"poll": "30s"}}

_SETTINGS = """
[databases]
* = host={host} port={port} user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 500
server_login_retry = 1
logfile = log.txt
pidfile = pid.txt
"""


class Pooler:
    """A PgBouncer before one server, in a folder of its own, ended with this process."""

    def __init__(self, server: Server, folder: Path) -> None:
        program = shutil.which("pgbouncer", path=f"{os.defpath}:/usr/sbin:/usr/local/sbin")
        if program is None:
            pytest.skip("there is no pgbouncer here")
        self._program = program
        self._server = server
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        settings = _SETTINGS.format(
            host=server.host, port=server.port, listen=self.port, sessions=SESSIONS
        )
        (folder / "pgbouncer.ini").write_text(settings)

    def start(self) -> Self:
        """Until it answers."""
        nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": ()} if os.geteuid() == 0 else {}
        self._process = subprocess.Popen(
            [self._program, "-q", "pgbouncer.ini"],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_us(),  # noqa: PLW1509 -- one system call, nothing is taken
            **nobody,  # type: ignore[call-overload]  # it refuses to run as root
        )

        def answers() -> bool:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url(self._server.url()), connect_timeout=2).close()
                return True
            return False

        eventually(answers, what="PgBouncer answers")
        return self

    def stop(self) -> None:
        """End it at once, with all connections."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait(30)

    def url(self, url: str) -> str:
        """The same database, reached through here."""
        parts = urlsplit(url)
        user, at, _place = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{user}{at}127.0.0.1:{self.port}").geturl()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as made:
        yield made.start()


@pytest.fixture(scope="module")
def pooler(server: Server) -> Iterator[Pooler]:
    # Beside the server's own folder, which an unprivileged process may reach.
    folder = server.folder / "pooler"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    made = Pooler(server, folder)
    try:
        yield made.start()
    finally:
        made.stop()


@pytest.fixture
def direct(server: Server) -> Iterator[str]:
    """A database, as it is reached without the pooler."""
    made = server.new_database()
    yield made
    server.drop_database(made)


@pytest.fixture
def url(pooler: Pooler, direct: str) -> str:
    """The same, as everybody here has it in his configuration."""
    return pooler.url(direct)


def sessions(url: str) -> list[tuple[object, ...]]:
    """What the pooler's sessions with the server look like to whoever gets one next."""
    question = """
        SELECT pg_backend_pid(), current_setting('enable_seqscan'), current_setting('statement_timeout'),
            current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout'),
            current_setting('search_path'), coalesce(current_setting('jobvisor.notify', true), ''),
            (SELECT count(*) FROM pg_listening_channels()),
            (SELECT count(*) FROM pg_prepared_statements),
            (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())
    """
    found = []
    with ExitStack() as stack:
        # Each in a transaction of its own, so that each is another session.
        for _ in range(SESSIONS):
            connection = stack.enter_context(psycopg.connect(url, prepare_threshold=None))
            found.append(connection.execute(question.encode()).fetchone())
    assert len({row[0] for row in found if row}) == SESSIONS
    return [row[1:] for row in found if row]


UNTOUCHED = ("on", "0", "0", "0", '"$user", public', "", 0, 0, 0)


def check_untouched(url: str) -> None:
    assert sessions(url) == [UNTOUCHED] * SESSIONS


# -- the store


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    made = open_store(url)
    assert isinstance(made, PostgresStore)
    made.migrate()
    yield made
    made.close()


def test_a_store_knows_that_a_pooler_stands_between(store: PostgresStore, direct: str) -> None:
    beside = open_store(direct)
    assert isinstance(beside, PostgresStore)
    beside.open()
    assert (store.pooled, beside.pooled) == (True, False)
    beside.close()


def test_a_migration_through_a_pooler_is_whole_and_leaves_nothing_on_its_session(
    store: PostgresStore, url: str
) -> None:
    assert store.migrate() == (SCHEMA, SCHEMA)
    check_untouched(url)


def test_no_verb_leaves_anything_on_a_session(store: PostgresStore, url: str) -> None:
    who = life()
    for number in range(12):  # often enough for a statement to be worth preparing
        store.enqueue([new()])
        store.enqueue([new()] * 6)
        jobs = claim(store, who, number)
        store.apply([record(who, number, job) for job in jobs], who)
        store.look(["default"])
        store.heartbeat(1)
        assert store.waker().drain() is None
    check_untouched(url)


def test_a_transaction_keeps_its_limits_though_the_session_has_none(store: PostgresStore) -> None:
    with store.transaction():
        store.enqueue([new()])
        limits = store._connected().execute(
            b"SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
        )
        assert limits.fetchall() == [("15s", "30s")]


def test_nobody_listens_through_a_pooler(store: PostgresStore) -> None:
    waker = store.waker()
    assert (waker.drain(), waker.fileno(), waker.drain()) == (None, None, None)


def test_an_enqueue_through_a_pooler_wakes_who_listens_beside_it(
    store: PostgresStore, direct: str
) -> None:
    with psycopg.connect(direct, autocommit=True) as listener:
        listener.execute("LISTEN jobvisor")
        store.enqueue([new()])
        assert len(list(listener.notifies(timeout=10, stop_after=1))) == 1


def test_who_has_switched_notify_off_tells_nobody_through_a_pooler_either(
    store: PostgresStore, url: str, direct: str
) -> None:
    silent = open_store(url, notify=False)
    with psycopg.connect(direct, autocommit=True) as listener:
        listener.execute("LISTEN jobvisor")
        silent.enqueue([new()])
        silent.enqueue([new()] * 10)
        assert list(listener.notifies(timeout=0.2)) == []
    silent.close()
    check_untouched(url)


# -- families


@pytest.fixture
def behind(build: Build, url: str, direct: str) -> Build:
    """Makes houses behind the pooler, whose tables a test looks at from beside it."""

    def make(tasks: str, **options: Any) -> House:
        house = build(tasks, database=url, **options)
        house._stranger = Stranger(direct)
        return house

    return make


def test_jobs_run_and_fail_and_are_tried_again_through_a_pooler(behind: Build, url: str) -> None:
    house = behind(
        marking("""
        @task
        def stubborn(ctx: Context):
            mark("start", ctx)
            if ctx.attempt < 3:
                raise ValueError("not yet")

        @task
        def quick(ctx: Context):
            mark("start", ctx)
        """),
        processes=4,
        config=SLOW,
    )
    ids = [house.enqueue("stubborn", retry=Fixed(0.05)) for _ in range(3)] + calls(
        house, "quick", 2_000
    )
    family = house.start()
    house.wait_finished(ids)
    rows = house.query("SELECT state, attempt, count(*) FROM jobs GROUP BY 1, 2 ORDER BY 2")
    assert rows == [("succeeded", 1, 2_000), ("succeeded", 3, 3)]
    assert len(marks(house)) == 2_000 + 9
    assert house.stop(family) == 0
    assert house.query("SELECT count(*) FROM owners") == [(0,)]
    check_untouched(url)


def test_an_idle_worker_behind_a_pooler_finds_what_is_enqueued_by_polling(behind: Build) -> None:
    house = behind(SHORT, config=SLOW)
    family = house.start()
    took = []
    for _ in range(8):
        before = SYSTEM.monotonic_ns()
        job = house.enqueue("short")
        house.wait_finished([job], limit=5)
        (start,) = [mark.at for mark in marks(house) if (mark.job, mark.word) == (job, "start")]
        took.append((start - before) / 1e9)
    assert sorted(took)[4] < 0.3, took  # ten looks a second
    assert house.stop(family) == 0


def test_a_killed_worker_behind_a_pooler_costs_only_its_current_job_one_attempt(
    behind: Build, url: str
) -> None:
    house = behind(SHORT)
    ids = calls(house, "short", 800, retry=Fixed(0), retries=20)
    family = house.start()
    killed: list[int] = []
    while len(killed) < 5:
        wait_busy(house, 3)
        pids = [pid for pid in house.workers() if pid not in killed]
        if pids:
            with suppress(ProcessLookupError):
                os.kill(pids[0], signal.SIGKILL)
                killed.append(pids[0])
    house.wait_finished(ids)
    assert house.stop(family) == 0
    check_each_succeeded(house, ids)
    assert check_charges(house, killed) <= 1
    assert house.query("SELECT count(*) FROM owners") == [(0,)]
    check_untouched(url)


def test_what_waits_behind_a_long_job_is_recalled_through_a_pooler(behind: Build) -> None:
    house = behind(
        marking("""
        @task
        def short(ctx: Context):
            mark("start", ctx)

        @task
        def gated(ctx: Context):
            mark("start", ctx)
            while not os.path.exists("go"):
                time.sleep(0.005)  # task body
        """),
    )
    before = calls(house, "short", 500)
    (long,) = calls(house, "gated", 1)
    after = calls(house, "short", 500)
    family = house.start()
    house.wait_finished([*before, *after])
    assert house.client.get(long).state == "running"
    house.touch("go")
    house.wait_finished([long])
    assert len(marks(house)) == 1_001
    assert house.query("SELECT max(attempt) FROM jobs") == [(1,)]
    assert house.stop(family) == 0


def test_a_cancel_reaches_a_running_job_through_a_pooler(behind: Build) -> None:
    house = behind(
        marking("""
        @task
        def endless(ctx: Context):
            mark("start", ctx)
            while True:
                ctx.check()
                time.sleep(0.005)  # task body
        """),
    )
    family = house.start()
    job = house.enqueue("endless")
    wait_begun(house)
    assert house.client.cancel(job) == "requested"
    house.wait_state(job, "cancelled")
    assert house.stop(family) == 0


def test_a_job_that_falls_due_behind_a_pooler_runs_in_time(behind: Build) -> None:
    house = behind(SHORT, config=SLOW)
    family = house.start()
    job = house.enqueue("short", run_in=1)
    house.wait_finished([job])
    late = house.query("SELECT claimed_at - run_at FROM jobs WHERE id = ?", job)
    assert 0 <= late[0][0] < 10_000  # its poll is thirty seconds
    assert house.stop(family) == 0


def test_a_pooler_that_is_restarted_under_load_costs_nothing(
    build: Build, server: Server, direct: str
) -> None:
    folder = server.folder / f"pooler{random.randrange(10**9)}"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    pooler = Pooler(server, folder).start()
    house = build(SHORT, database=pooler.url(direct), config={"supervisor": {"dead_after": "4s"}})
    ids = calls(house, "short", 1_500, retry=Fixed(0), retries=20)
    house.client.close()
    family = house.start()
    pids = {family.pid, *house.children(family.pid)}
    for _ in range(3):
        wait_busy(house, 100)
        pooler.stop()
        pooler.start()
    stranger = Stranger(direct)
    eventually(
        partial(_all_succeeded, stranger, len(ids)), limit=60, what="all jobs have succeeded"
    )
    assert {family.pid, *house.children(family.pid)} == pids
    assert stranger.sql("SELECT DISTINCT attempt, losses FROM jobs") == [(1, 0)]
    assert len([mark for mark in marks(house) if mark.word == "start"]) == len(ids)
    assert house.stop(family) == 0
    assert "Traceback" not in house.log.read_text()
    stranger.close()
    pooler.stop()


def _all_succeeded(stranger: Stranger, count: int) -> bool:
    return stranger.sql("SELECT count(*) FROM jobs WHERE state = 'succeeded'") == [(count,)]


def test_enqueues_of_many_clients_at_once_share_few_sessions(behind: Build, url: str) -> None:
    house = behind(SHORT)
    family = house.start()
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(url)) for _ in range(20)]
        call = house.client.call("app:short", 0)
        ids = [client.enqueue(call).id for _ in range(5) for client in clients]
    house.wait_finished(ids)
    assert house.stop(family) == 0
    check_each_succeeded(house, ids)
