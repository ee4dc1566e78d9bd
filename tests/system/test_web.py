"""The web role in a real family: killed, hung, without descriptors, port or database; no job is touched."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.postgres import shared
from tests.proxy import Proxy
from tests.system.harness import MARK, ROOT, Build, House, is_gone
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = f"""{MARK}
@task
def gated():
    mark("began", os.getpid())
    gate("go")
    mark("ended")
"""


def configured(build: Build, *, web: dict[str, Any] | None = None, **rest: Any) -> House:
    """A house whose family has a site on a port that is free."""
    return build(
        TASKS,
        processes=1,
        config={"web": {"enabled": True, "port": 0, **(web or {})}, **rest.pop("config", {})},
        **rest,
    )


def asked(url: str, path: str, **headers: str) -> tuple[int, bytes]:
    """The status and the body of an answer."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def site_of(house: House) -> dict[str, Any]:
    """What the status tells of the web role that listens."""

    def listening() -> dict[str, Any]:
        told: dict[str, Any] = house.status().get("web") or {}
        return told if told.get("url") else {}

    return eventually(listening, what="the web role listens")


def successor_of(house: House, pid: int) -> dict[str, Any]:
    """The same of the next one."""
    eventually(lambda: (house.status().get("web") or {}).get("pid") != pid, what="it is gone")
    return site_of(house)


def test_a_web_role_that_is_killed_or_hangs_is_replaced_and_no_job_is_touched(build: Build) -> None:
    house = configured(build, config={"supervisor": {"dead_after": "3s"}})
    family = house.start()
    first = site_of(house)
    assert asked(first["url"], "/livez")[0] == 200
    job = house.enqueue("gated", retries=0)
    house.wait_lines("began")
    os.kill(first["pid"], signal.SIGKILL)
    second = successor_of(house, first["pid"])
    assert asked(second["url"], "/readyz")[0] == 200
    os.kill(second["pid"], signal.SIGSTOP)
    third = successor_of(house, second["pid"])
    assert asked(third["url"], "/readyz")[0] == 200
    assert house.heard("is killed: stuck")
    house.touch("go")
    house.wait_state(job, "succeeded")
    assert house.client.get(job).attempt == 1
    assert house.lines("began") == [str(house.workers()[0])]
    assert house.stop(family) == 0
    assert is_gone(third["pid"])


def test_a_web_role_that_cannot_start_keeps_no_family_from_starting(build: Build) -> None:
    house = build(
        f'{TASKS}\ngate("imported")\n', processes=1, config={"web": {"enabled": True, "port": 0}}
    )
    (house.folder / "uvicorn.py").write_text('raise ImportError("of another release")')
    family = house.start(ready=False, fresh=True)
    eventually(lambda: len(house.said("web keeps dying; next")) > 3, what="it dies and dies")
    house.touch("imported")
    house.wait_ready(family)
    house.touch("go")
    house.wait_state(house.enqueue("gated"), "succeeded")
    (house.folder / "uvicorn.py").unlink()
    site_of(house)
    assert house.stop(family) == 0


def test_a_port_that_is_taken_is_told_and_had_when_it_is_free(build: Build) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        house = configured(build, web={"port": port})
        family = house.start()
        eventually(lambda: "degraded" in house.status()["state"], what="it is told")
        told = house.command("health")
        assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in told.stdout
        assert house.status()["web"]["url"] is None
        assert house.status()["restarts"] == 0
        assert len(house.said("cannot listen")) == 2  # by the role, and as a reason of the family
    site = site_of(house)
    assert site["url"] == f"http://127.0.0.1:{port}"
    assert f"web: {site['url']}, pid {site['pid']}" in house.command("status").stdout
    eventually(lambda: house.status()["state"] == "running", what="all is well")
    assert house.stop(family) == 0


def test_a_web_role_without_a_free_descriptor_lives_and_answers_later(build: Build) -> None:
    house = configured(build)
    family = house.start()
    site = site_of(house)
    pid, limit = site["pid"], resource.RLIMIT_NOFILE
    before = resource.prlimit(pid, limit)
    asked(site["url"], "/readyz")  # it has its connection to the database
    numbers = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    lowest = next(number for number in range(1000) if number not in numbers)
    resource.prlimit(pid, limit, (lowest, before[1]))
    address = ("127.0.0.1", int(site["url"].rpartition(":")[2]))
    with socket.create_connection(address) as waiting:
        waiting.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        house.heard("out of system resource")
        eventually(
            lambda: "accepts no connection: Too many open files" in str(house.status()["degraded"]),
            what="it is told",
        )
        resource.prlimit(pid, limit, before)
        assert waiting.recv(12) == b"HTTP/1.1 200"
    assert site_of(house)["pid"] == pid
    assert house.stop(family) == 0


def test_a_database_that_is_away_is_told_by_a_role_that_goes_on(
    build: Build,
) -> None:
    url = shared().new_database()
    host, port = urlsplit(url).hostname, urlsplit(url).port
    assert host
    assert port
    with Proxy(host, port) as proxy:
        house = configured(build, database=proxy.url(url))
        family = house.start()
        site = site_of(house)
        assert json.loads(asked(site["url"], "/readyz")[1])["ready"]
        proxy.cut()
        status, body = asked(site["url"], "/readyz")
        assert (status, json.loads(body)["database"]) == (503, False)
        assert asked(site["url"], "/livez")[0] == 200
        page = asked(site["url"], "/", Accept="text/html")
        assert page[0] == 503
        assert b"<!doctype html>" in page[1].lower()
        assert asked(site["url"], "/api/v1/jobs")[0] == 503
        proxy.restore()
        eventually(lambda: asked(site["url"], "/readyz")[0] == 200, what="it is back")
        assert house.status()["web"]["pid"] == site["pid"]
        assert house.stop(family) == 0


def test_a_reload_renews_the_web_role_only_where_something_is_another(build: Build) -> None:
    house = configured(build)
    family = house.start()
    site = site_of(house)

    def reload(**web: Any) -> None:
        house.configure({"web": web}, processes=1)
        assert house.command("reload").returncode == 0

    reload(enabled=True, port=0)
    assert site_of(house)["pid"] == site["pid"]
    reload(enabled=True, port=0, token="a-token-of-letters")
    second = successor_of(house, site["pid"])
    assert asked(second["url"], "/api/v1/version")[0] == 401
    answer = asked(second["url"], "/api/v1/version", Authorization="Bearer a-token-of-letters")
    assert answer[0] == 200
    check_hidden(house, family, second, "a-token-of-letters")
    house.configure({"web": {"enabled": True, "host": "0.0.0.0"}}, processes=1)
    refused = house.command("reload")
    assert refused.returncode == 78
    assert "set a token" in refused.stderr
    assert site_of(house)["pid"] == second["pid"]
    reload(enabled=False)
    eventually(lambda: house.status()["web"] is None, what="it has left")
    assert is_gone(second["pid"])
    reload(enabled=True, port=0)
    site_of(house)
    assert house.stop(family) == 0


def check_hidden(
    house: House, family: subprocess.Popen[bytes], site: dict[str, Any], secret: str
) -> None:
    """Nothing that the family says, to whom ever, has the secret in it."""
    bearer = {"Authorization": f"Bearer {secret}"}
    asked(site["url"], "/api/v1/version", Authorization="Bearer wrong-token-of-somebody")
    family.send_signal(signal.SIGUSR2)
    house.heard(f"the stack of web pid {site['pid']}")
    for path in ("/", "/metrics", "/api/v1/openapi.json", "/api/v1/status", "/nowhere"):
        status, body = asked(site["url"], path, **bearer)
        assert status != 401
        assert secret.encode() not in body, path
    for pid in (family.pid, *house.children(family.pid)):
        assert secret not in Path(f"/proc/{pid}/cmdline").read_text()
    for told in (house.log.read_text(), json.dumps(house.status()), house.command("status").stdout):
        assert secret not in told
        assert "wrong-token-of-somebody" not in told


def test_a_web_role_leaves_when_its_parent_is_dead(build: Build) -> None:
    house = configured(build)
    family = house.start()
    site = site_of(house)
    house.enqueue("gated")
    house.wait_lines("began")
    family.kill()
    family.wait(10)
    eventually(lambda: is_gone(site["pid"]), what="it has left")
    assert not is_gone(house.workers()[0])  # whose job goes on
    house.touch("go")


def test_a_stop_cuts_slow_clients_and_streams_off_and_drains_the_jobs(build: Build) -> None:
    house = configured(build)
    family = house.start()
    site = site_of(house)
    house.enqueue("gated")
    house.wait_lines("began")
    address = ("127.0.0.1", int(site["url"].rpartition(":")[2]))
    with socket.create_connection(address) as slow, socket.create_connection(address) as stream:
        stream.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert stream.recv(12) == b"HTTP/1.1 200"
        slow.sendall(b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n")
        family.send_signal(signal.SIGTERM)
        eventually(lambda: is_gone(site["pid"]), what="it has left")
        with suppress(ConnectionResetError):
            assert slow.recv(1000) == b""
    house.touch("go")
    assert family.wait(30) == 0
    assert not house.said("has met an error")
    assert house.lines("ended")


def test_a_stop_does_not_wait_for_a_web_role_that_hangs(build: Build) -> None:
    house = configured(build, config={"supervisor": {"dead_after": "10m", "stop_timeout": "10m"}})
    family = house.start()
    site = site_of(house)
    os.kill(site["pid"], signal.SIGSTOP)
    assert house.stop(family) == 0
    assert house.heard("is killed: stop")
    assert is_gone(site["pid"])


def test_neither_parent_nor_worker_loads_what_only_the_web_role_needs(build: Build) -> None:
    """And so its memory is its own."""
    code = """
import sys
from jobvisor import Config
from jobvisor.supervisor.embed import run_family
from jobvisor.supervisor.parent.parent import Parent
from jobvisor.supervisor.role import role_class
from jobvisor.supervisor.roster import CARETAKER, WORKER
config = Config.of({"tasks": {"modules": ["app"]}, "web": {"enabled": True}})
config.check_extras()
for row in (WORKER, CARETAKER):
    role_class(row)
names = "fastapi starlette uvicorn h11 jinja2 pydantic prometheus_client asyncio ssl"
print(*[name for name in names.split() if name in sys.modules])
"""
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == []
