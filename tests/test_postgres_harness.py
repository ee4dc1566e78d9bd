"""The servers, proxies and networks that tests of many machines stand on."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from jobvisor.jobs.clock import SYSTEM
from tests.network import Host, Network, network_or_skip
from tests.postgres import Server
from tests.proxy import Proxy
from tests.waiting import eventually

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Its own, not the shared one: these tests stop and kill it."""
    with Server() as made:
        yield made.start()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy(server.host, server.port) as made:
        yield made


@pytest.fixture
def network() -> Iterator[Network]:
    with network_or_skip() as made:
        yield made


# -- the server


def test_a_new_database_is_empty_and_nobody_elses(server: Server) -> None:
    first, second = server.new_database(), server.new_database()
    with psycopg.connect(first) as connection:
        connection.execute("CREATE TABLE things (id int)")
    with psycopg.connect(second) as connection:
        found = connection.execute("SELECT to_regclass('things')").fetchone()
    assert found == (None,)
    server.drop_database(first)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(first)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_keeps_the_data_and_the_place(server: Server, mode: str) -> None:
    url, pid = server.new_database(), server.pid
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE things AS SELECT 7 AS id")
    server.restart(mode)
    assert server.pid != pid
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT id FROM things").fetchall() == [(7,)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_backend_can_be_killed(server: Server, number: int) -> None:
    recoveries = server.recoveries()
    with psycopg.connect(server.url(), autocommit=True) as connection:
        assert connection.info.backend_pid in server.backends()
        server.kill_backend(connection.info.backend_pid, number)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    if number == signal.SIGKILL:
        eventually(lambda: server.recoveries() > recoveries, what="the server has seen it")
    eventually(lambda: _answers(server.url()), what="the server has recovered")


def test_a_server_does_not_outlive_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "from tests.postgres import Server\n"
        "server = Server().start()\n"
        "print(server.pid, server.folder, flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        pid, folder = process.stdout.readline().split()
        process.kill()
    eventually(lambda: not _runs(int(pid)), what="the server has ended")
    eventually(lambda: not Path(folder).exists(), what="its folder is gone")


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _runs(pid: int) -> bool:
    try:
        return b"postgres" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


# -- the proxy


def _connect(proxy: Proxy, server: Server) -> psycopg.Connection:
    return psycopg.connect(proxy.url(server.url()), autocommit=True, connect_timeout=2)


def test_a_proxy_forwards_both_ways(server: Server, proxy: Proxy) -> None:
    with _connect(proxy, server) as connection:
        (row,) = connection.execute("SELECT repeat('x', 1000000)")
        assert row == ("x" * 1_000_000,)
        assert proxy.connections == 1
    eventually(lambda: proxy.connections == 0, what="the connection has ended")


def test_a_cut_ends_what_is_connected_and_refuses_the_new(server: Server, proxy: Proxy) -> None:
    with _connect(proxy, server) as connection:
        proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((proxy.host, proxy.port))
    proxy.restore()
    with _connect(proxy, server) as connection:
        assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_nothing_arrives_while_a_connection_is_frozen(server: Server, proxy: Proxy) -> None:
    with _connect(proxy, server) as connection, _connect(proxy, server) as idle:
        pid = connection.info.backend_pid
        proxy.freeze()
        with socket.create_connection((proxy.host, proxy.port)) as fresh:
            for one in (connection.fileno(), fresh.fileno()):
                with socket.socket(fileno=os.dup(one)) as plain:
                    plain.setblocking(True)
                    plain.settimeout(0.2)
                    plain.sendall(b"Q\0\0\0\x0dSELECT 1\0")
                    with pytest.raises(TimeoutError):
                        plain.recv(1)
        assert pid in server.backends()
        proxy.restore()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
        assert idle.execute("SELECT 1").fetchall() == [(1,)]


def test_a_delay_is_paid_each_way(server: Server, proxy: Proxy) -> None:
    with _connect(proxy, server) as connection:
        proxy.delay(0.05)
        began = SYSTEM.monotonic_ns()
        connection.execute("SELECT 1")
        assert SYSTEM.monotonic_ns() - began >= 100_000_000


@pytest.mark.parametrize(("arrives", "rows"), [(True, [(1,)]), (False, [])])
def test_a_commit_is_lost_on_its_way_there_or_back(
    server: Server, proxy: Proxy, arrives: bool, rows: list[tuple[int]]
) -> None:
    url = server.new_database()
    with psycopg.connect(proxy.url(url)) as connection:
        connection.execute("CREATE TABLE things (id int)")
        connection.commit()
        connection.execute("INSERT INTO things VALUES (1)")
        (proxy.drop_after if arrives else proxy.drop_before)(b"COMMIT")
        with pytest.raises(psycopg.OperationalError):
            connection.commit()
    assert proxy.met == 1
    with psycopg.connect(proxy.url(url)) as connection:
        assert connection.execute("SELECT id FROM things").fetchall() == rows
    server.drop_database(url)


# -- the network


def _reaches(host: Host, address: str) -> bool:
    """Whether a machine gets an answer, if only a refusal, from an address."""
    program = (
        "import socket, sys\n"
        "try: socket.create_connection((sys.argv[1], 9), timeout=0.3)\n"
        "except ConnectionRefusedError: sys.exit(0)\n"
        "except OSError: sys.exit(1)\n"
    )
    return host.run([sys.executable, "-c", program, address]).returncode == 0


def test_machines_reach_each_other_until_one_is_cut_off(network: Network) -> None:
    one, other = network.host("one"), network.host("other")
    assert _reaches(one, other.address)
    assert _reaches(one, network.address)
    network.cut(other)
    assert not _reaches(one, other.address)
    assert not _reaches(other, network.address)
    assert _reaches(one, network.address)
    network.mend(other)
    eventually(lambda: _reaches(one, other.address), what="the machine is back")


def test_a_machine_reaches_a_server_at_the_switch(network: Network) -> None:
    program = (
        "import psycopg, sys; print(psycopg.connect(sys.argv[1]).execute('SELECT 1').fetchone())"
    )
    with Server(listen=network.address).start() as server:
        said = network.host("one").run([sys.executable, "-c", program, server.url()])
    assert said.stdout == "(1,)\n", said.stderr


def test_a_closed_network_leaves_nothing(network: Network) -> None:
    host = network.host("one")
    network.close()
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True)
    assert host.namespace not in listed.stdout
    links = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True)
    assert host.port not in links.stdout
