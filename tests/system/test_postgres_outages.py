"""A PostgreSQL that restarts, breaks, hangs, refuses and changes hands under running families."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jobvisor import Client
from jobvisor.jobs.clock import SYSTEM
from tests.postgres import Server, Stranger
from tests.proxy import Proxy
from tests.system.harness import MARK, ROOT, Build, House
from tests.system.history import calls
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = f"""{MARK}
_runs = os.open("runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

@task
def quick(ctx: Context):
    os.write(_runs, b"%d\\n" % ctx.job)

@task
def gated(ctx: Context, size=1):
    mark("began", ctx.job)
    gate("go")
    mark("ended", ctx.job)
    return "x" * size
"""

INFO = {"level": "info"}
LOST = "; trying on"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Its own, not the shared one: these tests stop and break it."""
    with Server() as made:
        yield made.start()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """The network between a family and its database."""
    with Proxy(server.host, server.port) as made:
        yield made


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """A database, as it is reached from beside the network."""
    made = server.new_database()
    yield made
    server.drop_database(made)


class Watch:
    """The rows of a house, seen from beside the network that its family uses."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._stranger = Stranger(url)
        self.sql = self._stranger.sql

    def states(self) -> dict[str, int]:
        """How many jobs are in each state."""
        try:
            return dict(self.sql("SELECT state, count(*) FROM jobs GROUP BY state"))
        except psycopg.OperationalError:
            return {}  # it is on its way up again

    def wait_all(self, state: str, limit: float = 60) -> None:
        """Until every job is in this state."""
        eventually(lambda: set(self.states()) == {state}, limit=limit, what=f"all {state}")

    def close(self) -> None:
        self._stranger.close()


@pytest.fixture
def watch(url: str) -> Iterator[Watch]:
    made = Watch(url)
    yield made
    made.close()


def family_of(house: House, family: subprocess.Popen[bytes]) -> set[int]:
    """All its processes, by pid."""
    return {family.pid, *house.children(family.pid)}


def wait_waiting(house: House, *, waiting: bool = True, limit: float = 30) -> None:
    """Until the family says of itself that it waits for its database, or no longer does."""
    eventually(
        lambda: house.status()["waiting_for_database"] is waiting,
        limit=limit,
        what="it says that it waits" if waiting else "it says that its database is back",
    )


def command(house: House, *arguments: str, seconds: float = 30) -> subprocess.CompletedProcess[str]:
    """A command as a person types it."""
    return subprocess.run(
        [sys.executable, "-m", "jobvisor", *arguments],
        cwd=house.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def check_quiet(house: House, lines: int) -> None:
    """What was said of all this is bounded, and nobody fell over."""
    text = house.log.read_text(errors="replace")
    assert "Traceback" not in text
    assert "error ignored" not in text
    assert "came too late" not in text
    told = text.splitlines()
    assert len(told) <= lines, "\n".join(told)


# -- it breaks under load


def check_each_ran_once(house: House, watch: Watch, ids: list[int]) -> None:
    told = watch.sql("SELECT state, attempt, losses, count(*) FROM jobs GROUP BY 1, 2, 3")
    assert told == [("succeeded", 1, 0, len(ids))]
    assert watch.sql("SELECT count(*) FROM attempts") == [(0,)]
    runs = Counter(map(int, house.lines("runs")))
    assert set(runs) == set(ids)
    assert {job: count for job, count in runs.items() if count > 1} == {}


class Nemesis:
    """Ends clients' backends at random moments, until it is told to stop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._stop = threading.Event()
        self.killed = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(random.uniform(0.05, 0.3)):
            try:
                pids = self._server.backends()
                if pids:
                    self._server.kill_backend(random.choice(pids))
                    self.killed += 1
            except (psycopg.Error, ProcessLookupError):  # it is down just now
                continue

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)


def run_through_restarts(
    house: House, server: Server, watch: Watch, jobs: int, restarts: int
) -> None:
    ids = calls(house, "quick", jobs)
    house.client.close()
    family = house.start()
    pids, said = family_of(house, family), len(house.said(f"[{family.pid}]"))
    nemesis = Nemesis(server)
    try:
        for number in range(restarts):
            done = len(house.lines("runs"))
            part = min(done + jobs // (2 * restarts), jobs)
            eventually(lambda part=part: len(house.lines("runs")) >= part, limit=60)  # type: ignore[misc]
            server.restart("fast" if number % 2 else "immediate")
        eventually(lambda: len(house.lines("runs")) >= jobs * 0.9, limit=60, what="most have run")
    finally:
        nemesis.stop()
    watch.wait_all("succeeded")
    assert family_of(house, family) == pids
    assert len(house.said(f"[{family.pid}]")) == said, "the parent has noticed"
    check_each_ran_once(house, watch, ids)
    assert house.stop(family) == 0
    assert watch.sql("SELECT count(*) FROM owners") == [(0,)]
    # Each child says of each time that it went and that it came back.
    print(f"{restarts} restarts, {nemesis.killed} backends ended")
    check_quiet(house, 20 + 2 * (restarts * (len(pids) - 1) + nemesis.killed))


@pytest.mark.lanes(1, 4)
def test_five_restarts_and_many_broken_connections_lose_and_repeat_nothing(
    build: Build, server: Server, url: str, watch: Watch
) -> None:
    house = build(TASKS, database=url, processes=3, config={"log": INFO})
    run_through_restarts(house, server, watch, jobs=20_000, restarts=5)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_fifty_restarts_lose_and_repeat_nothing(
    build: Build, server: Server, url: str, watch: Watch
) -> None:
    house = build(TASKS, database=url, processes=4, config={"log": INFO})
    run_through_restarts(house, server, watch, jobs=200_000, restarts=50)


def test_a_crash_of_the_whole_server_under_load_loses_and_repeats_nothing(
    build: Build, server: Server, url: str, watch: Watch
) -> None:
    house = build(TASKS, database=url, config={"log": INFO})
    ids = calls(house, "quick", 3_000)
    house.client.close()
    family = house.start()
    pids = family_of(house, family)
    for count in (500, 1_500):
        eventually(lambda count=count: len(house.lines("runs")) >= count)  # type: ignore[misc]
        backends = eventually(server.backends, what="somebody is connected")
        server.kill_backend(random.choice(backends), signal.SIGKILL)
    watch.wait_all("succeeded")
    assert family_of(house, family) == pids
    check_each_ran_once(house, watch, ids)
    assert house.stop(family) == 0


# -- it is away


class Away:
    """One of the ways in which a database can be out of reach.

    `refusing`: connections are reset, and new ones refused. `silent`: half-open, what is sent never
    arrives, and nobody says so. `broken_then_silent`: connections are reset, new ones get no answer.
    """

    def __init__(self, proxy: Proxy, way: str) -> None:
        self._proxy = proxy
        self._way = way

    def go(self) -> None:
        """Begin."""
        if self._way != "silent":
            self._proxy.cut()
        if self._way == "broken_then_silent":
            self._proxy.restore()
        if self._way != "refusing":
            self._proxy.freeze()

    def come_back(self) -> None:
        """Be there again."""
        self._proxy.restore()


WAYS = ["refusing", "silent", "broken_then_silent"]
QUICK = {"supervisor": {"dead_after": "4s"}, "log": INFO}  # a heartbeat every 1.3 s


LARGE = 200_000  # more than a ledger holds of one outcome


def outlive(house: House, away: Away, watch: Watch, *, size: int, seconds: int) -> None:
    """Two jobs end while the database is away for so long."""
    family = house.start()
    for _ in range(2):
        house.enqueue("gated", size, retries=0)
    house.client.close()
    house.wait_lines("began", 2)
    pids, said = family_of(house, family), len(house.said(f"[{family.pid}]"))
    away.go()
    house.touch("go")
    house.wait_lines("ended", 2)
    wait_waiting(house, limit=60)
    house.wait_rounds(seconds)
    assert watch.states() == {"running": 2}
    assert family_of(house, family) == pids
    away.come_back()
    watch.wait_all("succeeded")
    wait_waiting(house, waiting=False)
    assert len(house.lines("began")) == 2
    assert watch.sql("SELECT attempt, losses FROM jobs") == [(1, 0)] * 2
    assert watch.sql("SELECT count(*) FROM attempts") == [(0,)]
    with Client(watch.url) as client:
        client.enqueue(client.call("app:quick"))
    watch.wait_all("succeeded")
    assert family_of(house, family) == pids
    assert len(house.said(f"[{family.pid}]")) == said, "the parent has noticed"
    assert house.stop(family) == 0
    check_quiet(house, 40)


@pytest.mark.lanes(1, 4)
@pytest.mark.parametrize(
    ("way", "size"),
    [
        ("refusing", 1),
        ("refusing", LARGE),
        ("silent", 1),
        ("silent", LARGE),
        ("broken_then_silent", 1),
    ],
)
def test_what_ends_while_the_database_is_away_is_kept_and_settled_when_it_is_back(
    build: Build, proxy: Proxy, watch: Watch, way: str, size: int
) -> None:
    house = build(TASKS, database=proxy.url(watch.url), config=QUICK)
    outlive(house, Away(proxy, way), watch, size=size, seconds=1)


@pytest.mark.soak
@pytest.mark.timeout(300)
@pytest.mark.parametrize("size", [1, LARGE], ids=["in the ledger", "too large for the ledger"])
@pytest.mark.parametrize("way", WAYS)
def test_a_long_absence_is_outlived_by_all_processes(
    build: Build, proxy: Proxy, watch: Watch, way: str, size: int
) -> None:
    """Longer than any patience: 32 s for an answer, 10 s for a connection, 10 s for a beat."""
    house = build(TASKS, database=proxy.url(watch.url), config={"log": INFO})
    outlive(house, Away(proxy, way), watch, size=size, seconds=60)


def test_commands_answer_while_the_database_hangs(
    build: Build, proxy: Proxy, url: str, watch: Watch
) -> None:
    house = build(TASKS, database=proxy.url(url), config=QUICK)
    family = house.start()
    house.enqueue("gated")
    house.client.close()
    house.wait_lines("began")
    proxy.freeze()
    wait_waiting(house)
    told = command(house, "status", "--json")
    found: dict[str, Any] = json.loads(told.stdout)
    assert found["waiting_for_database"] is True
    assert found["state"] == "degraded"
    assert [worker["state"] for worker in found["workers"]].count("busy") == 1
    assert "the database cannot be used" in command(house, "status").stdout.lower()
    assert command(house, "health").returncode == 1
    proxy.restore()
    wait_waiting(house, waiting=False)
    assert command(house, "health").returncode == 0
    house.touch("go")
    watch.wait_all("succeeded")
    assert house.stop(family) == 0


def test_an_idle_family_waits_without_spinning_or_shouting(
    build: Build, proxy: Proxy, url: str, watch: Watch
) -> None:
    house = build(TASKS, database=proxy.url(url), config=QUICK)
    family = house.start()
    pids = family_of(house, family)
    proxy.cut()
    wait_waiting(house)
    eventually(lambda: len(house.said(LOST)) >= 3, what="all three have noticed")
    before, began = _used(pids), SYSTEM.monotonic_ns()
    house.wait_rounds(1)
    seconds = (SYSTEM.monotonic_ns() - began) / 1e9
    shares = {pid: (used - before[pid]) / seconds for pid, used in _used(pids).items()}
    assert max(shares.values()) < 0.10, shares
    assert len(house.heard(LOST)) == 3
    proxy.restore()
    with Client(url) as client:
        client.enqueue(client.call("app:quick"))
    watch.wait_all("succeeded", limit=10)
    assert family_of(house, family) == pids
    assert house.stop(family) == 0


def _used(pids: set[int]) -> dict[int, float]:
    """Processor seconds of each of these processes so far."""
    told = {pid: Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pids}
    tick = os.sysconf("SC_CLK_TCK")
    return {pid: (int(fields[11]) + int(fields[12])) / tick for pid, fields in told.items()}


@pytest.mark.lanes(1, 4)
def test_a_worker_killed_while_the_database_is_away_is_replaced_and_settled_when_it_is_back(
    build: Build, proxy: Proxy, url: str, watch: Watch
) -> None:
    house = build(TASKS, database=proxy.url(url), processes=1, config=QUICK)
    family = house.start()
    job = house.enqueue("gated", retries=3, retry=0.1)
    house.client.close()
    house.wait_lines("began")
    (victim,) = house.workers()
    proxy.cut()
    wait_waiting(house)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: house.workers() not in ([], [victim]), what="it is replaced")
    assert family.poll() is None
    house.touch("go")
    proxy.restore()
    watch.wait_all("succeeded")
    assert house.lines("began") == [str(job)] * 2
    assert watch.sql("SELECT pid, outcome, signal FROM attempts") == [(victim, "crash", "SIGKILL")]
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
@pytest.mark.parametrize("way", ["refusing", "silent"])
def test_a_family_that_is_stopped_while_the_database_is_away_leaves_in_time_and_loses_nothing(
    build: Build, proxy: Proxy, watch: Watch, way: str
) -> None:
    config = {**QUICK, "supervisor": {"dead_after": "4s", "stop_timeout": "4s"}}
    house = build(TASKS, database=proxy.url(watch.url), config=config)
    family = house.start()
    house.enqueue("gated")
    house.client.close()
    house.wait_lines("began")
    Away(proxy, way).go()
    house.touch("go")
    house.wait_lines("ended")
    wait_waiting(house)
    began = SYSTEM.monotonic_ns()
    house.stop(family)
    assert (
        SYSTEM.monotonic_ns() - began
    ) / 1e9 < 4 + 5 + 3  # stop_timeout, the last settling, a rest
    assert watch.states() == {"running": 1}
    proxy.restore()
    again = house.start()
    watch.wait_all("succeeded")
    assert len(house.lines("began")) == 1
    assert watch.sql("SELECT attempt FROM jobs") == [(1,)]
    assert house.stop(again) == 0


# -- at the start


def test_a_family_whose_database_does_not_come_gives_up_in_time(
    build: Build, proxy: Proxy, url: str
) -> None:
    config = {"database": {"connect_timeout": "2s"}, "log": INFO}
    house = build(TASKS, database=proxy.url(url), config=config)
    proxy.cut()
    began = SYSTEM.monotonic_ns()
    assert house.start(ready=False).wait(30) == 69
    assert 1.9 < (SYSTEM.monotonic_ns() - began) / 1e9 < 25
    assert "Traceback" not in house.log.read_text()


@pytest.mark.parametrize("way", ["refusing", "silent"])
def test_a_family_whose_database_comes_in_time_runs(
    build: Build, proxy: Proxy, url: str, watch: Watch, way: str
) -> None:
    house = build(TASKS, database=proxy.url(url), config=QUICK)
    house.enqueue("quick")
    house.client.close()
    away = Away(proxy, way)
    away.go()
    family = house.start(ready=False)
    eventually(lambda: house.status().get("workers"), what="it has a word")
    wait_waiting(house)
    assert {worker["state"] for worker in house.status()["workers"]} <= {"booting", "waiting"}
    away.come_back()
    watch.wait_all("succeeded")
    assert house.stop(family) == 0


def test_an_unmigrated_database_is_named_with_the_command_that_makes_its_tables(
    build: Build, server: Server, url: str, watch: Watch
) -> None:
    house = build(TASKS, database=url, config={"log": INFO})
    house.client.close()
    server.sql("DROP SCHEMA jobvisor CASCADE", database=url.rpartition("/")[2])
    assert house.start(ready=False).wait(30) == 78
    (line,) = house.heard("jobvisor migrate")
    assert line.startswith("jobvisor: ")
    assert not house.said(" error ")  # said once, not by each child of each boot
    assert command(house, "migrate").returncode == 0
    with Client(url) as client:
        client.enqueue(client.call("app:quick"))
    family = house.start()
    watch.wait_all("succeeded")
    assert house.stop(family) == 0


def test_a_schema_that_moves_on_stops_claims_and_is_told(
    build: Build, url: str, watch: Watch
) -> None:
    house = build(TASKS, database=url, config={"supervisor": {"dead_after": "3s"}, "log": INFO})
    family = house.start()
    pids = family_of(house, family)
    watch.sql("UPDATE meta SET value = '99'")
    eventually(lambda: house.said("install a newer jobvisor"), what="it is told")
    watch.sql("INSERT INTO jobs (task) VALUES ('app:quick')")
    house.wait_rounds(1)
    assert watch.states() == {"pending": 1}
    watch.sql("UPDATE meta SET value = '1' WHERE key = 'oldest_schema'")
    watch.wait_all("succeeded")
    assert family_of(house, family) == pids
    assert house.stop(family) == 0


# -- it refuses


def test_a_family_that_gets_no_connection_waits_until_there_is_one(
    build: Build, server: Server, url: str, watch: Watch
) -> None:
    role = f"few_{random.randrange(10**9)}"
    watch.sql(f"CREATE ROLE {role} LOGIN")
    house = build(TASKS, database=url, config=QUICK)
    house.client.close()
    watch.sql(f"GRANT ALL ON SCHEMA jobvisor TO {role}")
    watch.sql(f"GRANT ALL ON ALL TABLES IN SCHEMA jobvisor TO {role}")
    watch.sql(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA jobvisor TO {role}")
    text = (house.folder / "config.toml").read_text()
    (house.folder / "config.toml").write_text(text.replace("postgres@", f"{role}@"))
    family = house.start()
    pids = family_of(house, family)
    watch.sql(f"ALTER ROLE {role} CONNECTION LIMIT 0")
    watch.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ?", role)
    wait_waiting(house)
    assert house.heard("too many connections")
    watch.sql("INSERT INTO jobs (task) VALUES ('app:quick')")
    watch.sql(f"ALTER ROLE {role} CONNECTION LIMIT -1")
    watch.wait_all("succeeded", limit=15)
    assert family_of(house, family) == pids
    assert house.stop(family) == 0
    check_quiet(house, 30)


@pytest.mark.lanes(1, 4)
def test_a_server_that_turns_read_only_keeps_nobody_from_finishing(
    build: Build, server: Server, url: str, watch: Watch
) -> None:
    house = build(TASKS, database=url, config=QUICK)
    family = house.start()
    house.enqueue("gated")
    house.client.close()
    house.wait_lines("began")
    pids = family_of(house, family)
    watch.sql("SET default_transaction_read_only = off")
    watch.sql("ALTER SYSTEM SET default_transaction_read_only = on")
    watch.sql("SELECT pg_reload_conf()")
    try:
        house.touch("go")
        house.wait_lines("ended")
        wait_waiting(house)
        assert house.heard("it is read-only")
    finally:
        watch.sql("ALTER SYSTEM RESET default_transaction_read_only")
        watch.sql("SELECT pg_reload_conf()")
    watch.wait_all("succeeded", limit=15)
    assert watch.sql("SELECT attempt FROM jobs") == [(1,)]
    assert len(house.lines("began")) == 1
    assert family_of(house, family) == pids
    assert house.stop(family) == 0


# -- it hangs


def test_backends_that_hang_are_left_for_others(
    build: Build, server: Server, url: str, watch: Watch
) -> None:
    house = build(TASKS, database=url, processes=1, config=QUICK)
    family = house.start()
    pids = family_of(house, family)
    hanging = [
        row[0]
        for row in watch.sql(
            "SELECT pid FROM pg_stat_activity WHERE application_name LIKE '%caretaker'"
        )
    ]
    assert hanging
    for pid in hanging:
        os.kill(pid, signal.SIGSTOP)
    try:
        house.wait_heartbeats(2)  # by another backend: this one writes none
        house.enqueue("quick")
        watch.wait_all("succeeded", limit=10)
        assert family_of(house, family) == pids
        assert watch.sql("SELECT heartbeat_at > now() - interval '5 s' FROM families") == [(True,)]
    finally:
        for pid in hanging:
            os.kill(pid, signal.SIGCONT)
    assert house.stop(family) == 0


# -- it changes hands


class Standby(Server):
    """A copy of another server that follows it, until it is promoted."""

    def __init__(self, primary: Server) -> None:
        super().__init__(primary._binaries)
        self._primary = primary

    def _create(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.folder, 65534, 65534)
            self._binaries = self._primary._binaries
        primary = self._primary
        made = self._launch(
            "pg_basebackup", "-h", primary.host, "-p", str(primary.port), "-U", "postgres",
            "-D", "data", "-R", "-X", "stream", "-c", "fast", "--no-sync",
        )  # fmt: skip
        assert made.wait(60) == 0, self._story()

    def promote(self) -> None:
        """From here on it is the primary."""
        self.sql("SELECT pg_promote()")


@pytest.fixture
def pair() -> Iterator[tuple[Server, Standby]]:
    settings = {"wal_level": "replica", "synchronous_standby_names": "'*'"}
    with Server(settings=settings) as primary:
        primary._settings["synchronous_standby_names"] = "''"
        primary.start()
        if not (primary._binaries / "pg_basebackup").exists():
            pytest.skip("this PostgreSQL has no pg_basebackup to make a standby with")
        with Standby(primary) as standby:
            standby.start()
            yield primary, standby


def test_a_standby_that_takes_over_goes_on_with_what_was_acknowledged(
    build: Build, pair: tuple[Server, Standby]
) -> None:
    primary, standby = pair
    name = primary.new_database().rpartition("/")[2]
    hosts = f"{primary.host}:{primary.port},{standby.host}:{standby.port}"
    url = f"postgresql://postgres@{hosts}/{name}"
    house = build(TASKS, database=url, config=QUICK)
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.sql("SELECT pg_reload_conf()")
    eventually(
        lambda: primary.sql("SELECT sync_state FROM pg_stat_replication") == [("sync",)],
        what="each commit waits for the standby",
    )
    ids = calls(house, "quick", 10_000)
    family = house.start()
    pids = family_of(house, family)
    eventually(lambda: len(house.lines("runs")) >= 500, what="many have run")
    house.client.close()
    primary.stop("immediate")
    standby.promote()
    watch = Watch(standby.url(name))
    watch.wait_all("succeeded")
    assert family_of(house, family) == pids
    check_each_ran_once(house, watch, ids)
    assert house.stop(family) == 0
    watch.close()
