"""Attacks over a real socket: each is refused, and whoever asks decently is answered meanwhile."""

from __future__ import annotations

import asyncio
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse

from jobvisor import Client
from jobvisor.supervisor.config import Web
from jobvisor.supervisor.web.app import Application, create_app
from jobvisor.supervisor.web.connection import Limits
from jobvisor.supervisor.web.problems import plain_page
from jobvisor.supervisor.web.server import Server, listening_sockets
from tests.waiting import eventually

TOKEN = "t0ken-of-twenty-letters"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Site:
    """An application that is served in a thread of this process."""

    def __init__(self, app: FastAPI, limits: Limits) -> None:
        self.tries = app.state.keeper.tries
        self._loop = asyncio.new_event_loop()
        self.server = Server(app, limits)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._do(self.server.begin())
        self._do(self._listen())
        self.port = int(self.server.url.rpartition(":")[2])

    async def _listen(self) -> None:
        await self.server.listen(await listening_sockets("127.0.0.1", 0))

    def _do(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def close(self) -> None:
        self._do(self.server.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def connect(self) -> socket.socket:
        """A plain connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def sent(self, text: bytes) -> bytes:
        """All that is answered to these bytes, until the server closes or says no more for long."""
        with closing(self.connect()) as connection:
            connection.sendall(text)
            return everything(connection)

    def status(self, path: str = "/livez", **headers: str) -> int:
        """What is answered to a decent request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        with closing(connection):
            connection.request("GET", path, headers=headers)
            return connection.getresponse().status


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    told = b""
    with suppress(ConnectionResetError):
        while piece := connection.recv(65536):
            told += piece
    return told


Serve = Callable[..., Site]


@pytest.fixture
def serve() -> Iterator[Serve]:
    sites: list[Site] = []
    go_on = threading.Event()
    clients: list[Client] = []

    def make(limits: Limits | None = None, body_s: float = 30.0, **settings: Any) -> Site:
        clients.append(Client("memory://"))
        app = create_app(clients[-1], settings=Web(**settings))
        assert isinstance(app, Application)
        app.guard(app.state.keeper, plain_page, body_s=body_s)

        @app.get("/endless")
        async def endless() -> StreamingResponse:
            async def pieces() -> Any:
                while True:
                    yield b"x" * 65536
                    await asyncio.sleep(0)

            return StreamingResponse(pieces())

        @app.get("/waiting")
        def waiting() -> None:
            go_on.wait(20)

        sites.append(Site(app, limits or Limits()))
        return sites[-1]

    yield make
    go_on.set()
    for site in sites:
        site.close()
    for client in clients:
        client.close()


HEAD = b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\n"
SMUGGLED = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n",
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        HEAD + b"Content-Length: 5, 6\r\n\r\nhello",
        HEAD + b"Content-Length: +5\r\n\r\nhello",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 0x5\r\n\r\nhello",
        HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        HEAD + b"Content-Length : 5\r\n\r\nhello",
        HEAD + b" Content-Length: 5\r\n\r\nhello",
        HEAD + b"X: a\r\n b\r\nHost: evil.example\r\n\r\n",
        HEAD + b"Host: evil.example\r\n\r\n",
        HEAD + b"X: a\rb\r\n\r\n",
        HEAD + b"X: a\0b\r\n\r\n",
        HEAD + b": empty\r\n\r\n",
        HEAD + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        HEAD + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",
        b"POST /sign-in HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET //evil.example HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /../livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /%2e%2e/livez HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /static/..%2f..%2fconfig.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /static/..%5c..%5cconfig.py HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /livez%00.css HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 100,
        b"\0" * 100_000,
    ],
)
def test_what_could_be_read_in_two_ways_is_refused_and_what_follows_is_not_read(
    serve: Serve, head: bytes
) -> None:
    site = serve(Limits(head_s=1.0))
    told = site.sent(head + SMUGGLED)
    assert re.match(rb"HTTP/1.1 (400|403|431|501) ", told), told[:200]
    assert b"alive" not in told
    assert site.status() == 200


def test_a_request_that_is_not_finished_is_given_up_and_the_connection_closed(serve: Serve) -> None:
    site = serve(Limits(head_s=0.3))
    for text in (b"", b"GET /livez HT", HEAD[:-1], HEAD + b"X: y\r\n"):
        assert site.sent(text) == b""
    with closing(site.connect()) as drip, suppress(ConnectionError):
        drip.settimeout(0.01)
        for byte in HEAD + b"X: " + b"a" * 10_000:  # a byte now and then is no request either
            drip.sendall(bytes([byte]))
            with suppress(TimeoutError):
                assert drip.recv(1) == b""
                break
        else:
            raise AssertionError("nobody gave it up")
    assert site.status() == 200


def test_a_body_that_comes_drop_by_drop_is_given_up(serve: Serve) -> None:
    site = serve(body_s=0.3)
    told = site.sent(HEAD + b"Content-Length: 9\r\n\r\nuser=")
    assert told.startswith(b"HTTP/1.1 408 ")


def test_a_large_body_is_refused_before_it_is_sent(serve: Serve) -> None:
    told = serve().sent(HEAD + b"Content-Length: 1048577\r\nExpect: 100-continue\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in told


def test_who_keeps_all_places_makes_room_for_who_asks(serve: Serve) -> None:
    site = serve(Limits(connections=20))
    idle = [site.connect() for _ in range(40)]
    half = [site.connect() for _ in range(40)]
    for each in half:
        with suppress(ConnectionError):
            each.sendall(b"GET / HTTP/1.1\r\n")
    for _ in range(30):
        assert site.status() == 200
    for each in (*idle, *half):
        each.close()


def test_who_does_not_read_his_answer_is_dropped(serve: Serve) -> None:
    site = serve(Limits(read_s=0.3))
    with closing(site.connect()) as lazy:
        lazy.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
        eventually(lambda: site.server.requests == 1, what="it is being answered")
        eventually(lambda: site.server.requests == 0, what="it was dropped")
    assert site.status() == 200


#: In a process of its own, which takes the interpreter of nobody; a hundred tries on each connection.
ATTACKER = r"""
import collections, re, socket, sys
found = collections.Counter()
for first in range(0, 10_000, 100):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        for each in range(first, first + 100):
            last = "close" if each % 100 == 99 else "keep-alive"
            connection.sendall(
                f"GET /api/v1/version HTTP/1.1\r\nHost: localhost\r\nConnection: {last}\r\n"
                f"Authorization: Bearer wrong{each}\r\n\r\n".encode()
            )
        told = b""
        while piece := connection.recv(65536):
            told += piece
    found.update(re.findall("HTTP/1.1 (...) ", told.decode()))
print(*found, sum(found.values()))
"""


def test_ten_thousand_wrong_tokens_cost_nobody_else_anything(serve: Serve) -> None:
    site = serve(token=TOKEN)
    site.tries.most_s = 0  # of two seconds each this would take hours
    attacker = subprocess.Popen(
        [sys.executable, "-c", ATTACKER, str(site.port)], stdout=subprocess.PIPE, text=True
    )
    served = 0
    while attacker.returncode is None:
        assert site.status("/api/v1/version", **BEARER) == 200
        served += 1
        with suppress(subprocess.TimeoutExpired):
            attacker.wait(0.1)
    told, _ = attacker.communicate()
    assert told.split() == ["401", "10000"]
    assert served > 3
    assert len(site.tries) == 1
    assert site.tries.waiting == 0


def test_a_wrong_token_is_answered_later_each_time_and_the_right_one_at_once(serve: Serve) -> None:
    site = serve(token=TOKEN)
    waits = [site.tries.note("192.0.2.1") for _ in range(30)]
    assert waits[0] == 0
    assert waits == sorted(waits)
    assert waits[-1] == 2.0
    assert site.status("/api/v1/version", **BEARER) == 200


def test_no_answer_says_which_software_this_is_or_what_was_sent(serve: Serve) -> None:
    site = serve(token=TOKEN)
    told = site.sent(
        b"GET /<script>alert(1)</script> HTTP/1.1\r\nHost: localhost\r\nAccept: text/html\r\n"
        b"Authorization: Bearer " + TOKEN.encode() + b"\r\nConnection: close\r\n\r\n"
    )
    assert told.startswith(b"HTTP/1.1 404 ")
    assert b"<script>alert" not in told
    assert TOKEN.encode() not in told
    assert b"uvicorn" not in told.lower()


def test_it_says_that_it_lives_though_every_thread_of_it_waits(serve: Serve) -> None:
    site = serve()
    asked = [site.connect() for _ in range(60)]
    for each in asked:
        each.sendall(b"GET /waiting HTTP/1.1\r\nHost: localhost\r\n\r\n")
    eventually(lambda: site.server.requests == 60, what="all are being answered")
    assert site.status() == 200
    for each in asked:
        each.close()


def test_the_probes_tell_nothing_but_whether_it_lives(serve: Serve) -> None:
    site = serve(token=TOKEN)
    for path in ("/livez", "/readyz"):
        answer = site.sent(
            f"GET {path} HTTP/1.1\r\nHost: whatever.example\r\nConnection: close\r\n\r\n".encode()
        )
        told = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert set(told) <= {"alive", "ready", "database", "family"}
        assert all(type(each) is bool for each in told.values())
