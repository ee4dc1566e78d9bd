"""The task `http`, each row of its table, with a real server."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpcore
import pytest
import standardwebhooks

from jobvisor import Cancelled, Client, Context, Job
from jobvisor.builtin.http import http
from jobvisor.jobs.builtin.public import is_public
from jobvisor.jobs.builtin.wire import Wire
from jobvisor.jobs.clock import SECOND, SYSTEM
from tests.builtin.certificates import certificate
from tests.builtin.server import Does, Server, answer
from tests.waiting import LIMIT, eventually

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., Job]


@pytest.fixture
def run() -> Iterator[Run]:
    """One attempt of a call; to this machine, which is private."""
    with Client("memory://") as client:

        def once(*args: Any, using: dict[str, Any] | None = None, **kwargs: Any) -> Job:
            kwargs.setdefault("allow_private", True)
            kwargs.setdefault("timeout", "20s")
            using = {"retries": 1, "retry": "1h"} | (using or {})
            client.enqueue(client.call("http", *args, options=using, **kwargs))  # type: ignore[arg-type]
            ended = client.run_one()
            assert ended is not None
            return ended

        yield once


def test_a_call_that_succeeds_is_told_with_its_answer(run: Run) -> None:
    body = b'{"total": 3}'
    with Server(
        [answer(body=body, Content_Type="application/json", Set_Cookie="secret=1")]
    ) as server:
        job = run(server.url("/a?b=c"), params={"d": "e f"})
    assert job.state == "succeeded"
    assert job.result is not None
    assert (job.result["status"], job.result["json"]) == (200, {"total": 3})
    assert job.result["headers"] == {"content-type": "application/json", "content-length": "12"}
    assert server.calls[0].method == "GET"
    assert server.calls[0].target == "/a?b=c&d=e+f"


def test_a_body_is_json_a_form_or_as_it_is(run: Run) -> None:
    with Server([answer("204 No Content")]) as server:
        for body in (
            {"json": {"ä": 1}},
            {"data": {"a": "b c"}},
            {"data": "text"},
            {"data": b"\xff"},
        ):
            run(server.url(), "post", **body, headers={"X-Mine": "yes"})
    told = [(call.body, call.headers.get("content-type")) for call in server.calls]
    assert told == [
        ('{"ä":1}'.encode(), "application/json"),
        (b"a=b+c", "application/x-www-form-urlencoded"),
        (b"text", None),
        (b"\xff", None),
    ]
    assert {call.headers["x-mine"] for call in server.calls} == {"yes"}


@pytest.mark.parametrize("status", ["429 Too Many Requests", "500 No", "503 Service Unavailable"])
def test_a_server_that_cannot_now_is_asked_again(run: Run, status: str) -> None:
    with Server([answer(status, b"not now")]) as server:
        job = run(server.url())
    assert (job.state, job.deferred) == ("scheduled", "retry")
    assert f"GET {server.url()}: {status}\nnot now" in str(job.error)


def _wait(job: Job) -> float:
    return (job.run_at - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"Retry_After": "120"}, 100, 120),
        ({"Retry_After": "999999"}, 590, 600),  # no longer than is granted
        ({"Retry_After": "0"}, 3_500, 3_600),  # the policy's
        ({"Retry_After": "soon"}, 3_500, 3_600),
        ({"Retry_After": "-5"}, 3_500, 3_600),
        ({"Retry_After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 3_500, 3_600),
        ({"Retry_After": "Fri, 31 Dec 1999 23:59:59 GMT", "Date": "Fri, 31 Dec 1999 23:57:59 GMT"}, 100, 120),
    ],
)  # fmt: skip
def test_a_wait_that_is_asked_for_is_kept_within_bounds(
    run: Run, headers: dict[str, str], low: float, high: float
) -> None:
    with Server([answer("503 Service Unavailable", b"", **headers)]) as server:
        job = run(server.url(), retry_after_max="10m")
    assert low < _wait(job) <= high


def test_a_moment_to_come_again_is_taken_by_our_clock_where_the_server_tells_none(run: Run) -> None:
    moment = format_datetime(datetime.now(UTC) + timedelta(seconds=300), usegmt=True)
    with Server([answer("429 Too Many Requests", Retry_After=moment)]) as server:
        job = run(server.url())
    assert 250 < _wait(job) <= 301


@pytest.mark.parametrize("status", ["400 Bad Request", "404 Not Found", "304 Not Modified"])
def test_another_status_fails_for_good(run: Run, status: str) -> None:
    with Server([answer(status)]) as server:
        job = run(server.url(), using={"retries": 5})
    assert job.state == "failed"
    assert status in str(job.error)


def test_statuses_can_be_expected(run: Run) -> None:
    with Server([answer("404 Not Found")]) as server:
        assert run(server.url(), expect=[200, 404]).result["status"] == 404
        assert run(server.url(), expect=[200]).state == "failed"


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _trickle(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-More: and more\r\n")
        threading.Event().wait(0.05)


def _part(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


BROKEN: dict[str, tuple[Does | None, str]] = {
    "reset": (_reset, "ReadError"),
    "closed": (lambda _connection: None, "disconnected without sending a response"),
    "garbage": (lambda connection: connection.sendall(b"hello\r\n\r\n"), "ProtocolError"),
    "half": (_part, "closed connection without sending complete"),
    "stalled": (None, "no answer within"),
    "trickled": (_trickle, "no answer within"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_an_answer_that_does_not_come_is_waited_for_no_longer_than_the_timeout(
    run: Run, how: str
) -> None:
    does, words = BROKEN[how]
    with Server([]) as server:
        server.does.append(does or server.stall)
        job = run(server.url(), timeout="300ms" if "within" in words else "20s")
    assert (job.state, job.deferred) == ("scheduled", "retry")
    assert words in str(job.error)


def test_nobody_listening_and_a_name_that_is_not_known_are_tried_again(run: Run) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        job = run(f"http://127.0.0.1:{unused.getsockname()[1]}/")
    assert (job.deferred, "refused" in str(job.error)) == ("retry", True)
    job = run("http://no-such-name.invalid/")
    assert (job.deferred, "no-such-name.invalid is not known" in str(job.error)) == ("retry", True)


def test_a_body_without_an_end_is_read_as_far_as_it_is_kept(run: Run) -> None:
    sent = threading.Event()

    def endless(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        try:
            while True:
                connection.sendall(b"[" * 65_536)
        finally:
            sent.set()

    with Server([endless]) as server:
        job = run(server.url(), keep=1_000)
        assert sent.wait(20), "the connection is closed"
    assert job.state == "succeeded"
    assert (job.result["bytes"], job.result["truncated"]) == (1_000, True)
    assert job.result["text"] == "[" * 1_000


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (b"[" * 5_000, "application/json", "[" * 5_000),
        (b'{"n": 1e999}', "application/json", '{"n": 1e999}'),
        (b'"a\\u0000b"', "application/json", '"a\\u0000b"'),
        (b"{not json", "application/problem+json", "{not json"),
        (b"caf\xe9", "text/plain; charset=iso-8859-1", "café"),
        (b"caf\xe9\0", "text/plain", "caf��"),
        (b"hello", "text/plain; charset=rot13", "hello"),
    ],
)
def test_a_body_that_is_no_json_that_can_be_kept_is_text(
    run: Run, body: bytes, kind: str, told: str
) -> None:
    with Server([answer(body=body, Content_Type=kind)]) as server:
        job = run(server.url())
    assert job.state == "succeeded"
    assert job.result["text"] == told


def test_a_body_that_was_packed_unasked_is_unpacked_as_far_as_it_is_kept(run: Run) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    with Server([answer(body=bomb, Content_Encoding="gzip")]) as server:
        job = run(server.url(), keep=100)
    assert (job.result["bytes"], job.result["truncated"]) == (100, True)
    assert server.calls[0].headers["accept-encoding"] == "identity"


def test_the_largest_body_that_is_kept_fits_a_result(run: Run) -> None:
    with Server([answer(body=b"\xff" * 262_144)]) as server:
        assert run(server.url(), keep=262_144).state == "succeeded"


# -- signatures


def test_a_signed_call_is_taken_by_another_implementation_and_is_the_same_in_each_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    secret = f"whsec_{base64.b64encode(b'a key of 24 bytes at least').decode()}"
    monkeypatch.setenv("HOOK_SECRET", secret)
    with Server([answer("503 No", b""), answer()]) as server, Client("memory://") as client:
        kwargs = {"json": {"paid": "ä"}, "secret": "env:HOOK_SECRET", "allow_private": True}
        call = client.call("http", server.url(), "POST", options={"retry": "0s"}, **kwargs)
        job = client.enqueue(call)
        eventually(lambda: client.run_one() and client.get(job.id).finished, what="both attempts")
        assert client.get(job.id).state == "succeeded"
    first, second = server.calls
    for each in (first, second):
        assert standardwebhooks.Webhook(secret).verify(each.body, each.headers) == {"paid": "ä"}
        assert each.headers["webhook-id"] == each.headers["idempotency-key"] == str(job.id)
    assert secret not in repr(job)
    tampered = first.body.replace(b"paid", b"owed")
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(secret).verify(tampered, first.headers)


@pytest.mark.parametrize(
    ("secret", "value", "words"),
    [
        ("whsec_c2VjcmV0", "", "must name a variable of the worker"),
        ("env:HOOK_SECRET", "", "the worker has no variable HOOK_SECRET"),
        ("env:HOOK_SECRET", "whsec_!", "HOOK_SECRET is no base64"),
        (7, "", "must name a variable"),
    ],
)
def test_a_secret_that_cannot_be_had_fails_the_job_and_is_shown_nowhere(
    run: Run, monkeypatch: pytest.MonkeyPatch, secret: Any, value: str, words: str
) -> None:
    monkeypatch.setenv("HOOK_SECRET", value)
    with Server([answer()]) as server:
        job = run(server.url(), "POST", secret=secret, using={"retries": 5})
    assert (job.state, server.calls) == ("failed", [])
    assert words in str(job.error)
    assert "c2VjcmV0" not in str(job.error)


# -- redirects


def test_a_redirect_is_followed_only_where_that_is_allowed(run: Run) -> None:
    with Server([answer("302 Found", Location="/there"), answer(body=b"found")]) as server:
        job = run(server.url(), using={"retries": 5})
        assert (job.state, len(server.calls)) == ("failed", 1)
        server.calls.clear()
        job = run(server.url(), follow_redirects=True)
    assert (job.result["text"], job.result["redirects"]) == ("found", 1)
    assert [call.target for call in server.calls] == ["/", "/there"]


def test_to_another_origin_goes_no_header_that_may_be_a_secret(run: Run) -> None:
    with Server([answer()]) as other:
        location = other.url("/elsewhere")
        with Server([answer("307 Temporary Redirect", Location=location)]) as server:
            given = {
                "Authorization": "Bearer x",
                "X-Api-Key": "y",
                "Cookie": "z=1",
                "Accept": "text/x",
            }
            job = run(server.url(), "POST", data="body", headers=given, follow_redirects=True)
    assert job.state == "succeeded"
    assert server.calls[0].headers["x-api-key"] == "y"
    told = other.calls[0]
    assert (told.method, told.body, told.headers["accept"]) == ("POST", b"body", "text/x")
    assert told.headers["host"] == f"127.0.0.1:{other.port}"
    assert not {"authorization", "x-api-key", "cookie"} & set(told.headers)


@pytest.mark.parametrize("location", ["/again", "ftp://127.0.0.1/", "file:///etc/passwd"])
def test_a_redirect_without_end_or_to_what_is_no_http_fails(run: Run, location: str) -> None:
    with Server([answer("302 Found", Location=location)]) as server:
        job = run(server.url(), follow_redirects=True, using={"retries": 5})
    assert job.state == "failed"
    assert "redirect" in str(job.error)
    assert len(server.calls) == (6 if location == "/again" else 1)


# -- addresses


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0177.0.0.1", "0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[::127.0.0.1]", "[2002:7f00:1::]",
        "169.254.169.254", "10.1.2.3", "192.168.0.1", "172.16.5.4", "100.100.100.200", "[fd00:ec2::254]",
        "[fe80::1]", "168.63.129.16", "224.0.0.1", "255.255.255.255", "①②⑦.⓪.⓪.①", "127。0。0。1",
    ],
)  # fmt: skip
def test_no_address_that_is_none_of_the_internet_is_connected_to(run: Run, host: str) -> None:
    with Server([answer()]) as server:
        job = run(f"http://{host}:{server.port}/", allow_private=False, using={"retries": 5})
    assert (job.state, server.connections) == ("failed", 0)
    assert "no address of the internet" in str(job.error) or "is no URL" in str(job.error)


INTERNET = """
import jobvisor.builtin.http
from jobvisor import Client
from tests.builtin.server import Server, answer

with Server([answer()]) as inside, Client("memory://") as client:
    redirect = answer("302 Found", Location=inside.url())
    with Server([answer(body=b"hello"), redirect], address="93.184.216.34") as outside:
        for _ in range(2):
            client.enqueue("http", outside.url(host=outside.address), follow_redirects=True)
            job = client.run_one()
            print(job.state, job.error or job.result["text"])
    print(outside.connections, inside.connections)
"""


def test_a_redirect_from_the_internet_to_the_inside_is_refused() -> None:
    """In a network of its own, in which an address of the internet is this machine's."""
    if shutil.which("unshare") is None or shutil.which("ip") is None or os.geteuid():
        pytest.skip("only root makes a network here, by unshare and ip")
    script = (
        'ip link set lo up && ip address add 93.184.216.34/32 dev lo || exit 99; exec "$0" -c "$1"'
    )
    command = ["unshare", "-n", "sh", "-c", script, sys.executable, INTERNET]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"no network can be made here: {done.stderr}")
    told = done.stdout.splitlines()
    assert told[0] == "succeeded hello", done.stderr
    assert told[1].startswith("failed GET http://93.184.216.34")
    assert "127.0.0.1 is 127.0.0.1, which is no address of the internet" in told[1]
    assert told[2] == "2 0"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("172.15.0.1", True), ("172.32.0.1", True), ("2a00:1450:4001:80b::200e", True),
        ("::ffff:8.8.8.8", True), ("64:ff9b::808:808", True),
        ("0.0.0.0", False), ("100.127.255.255", False), ("192.0.0.192", False), ("198.19.1.1", False),
        ("240.0.0.1", False), ("::", False), ("::1", False), ("::8.8.8.8", False), ("fec0::1", False),
        ("fc00::1", False), ("ff02::1", False), ("2001::1", False), ("2001:db8::1", False),
        ("2002:808:808::", False), ("64:ff9b:1::808:808", False), ("64:ff9b::a00:1", False),
        ("fe80::1%eth0", False), ("localhost", False), ("", False),
    ],
)  # fmt: skip
def test_an_address_is_public_or_not(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_the_certificate_must_be_that_of_the_name(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = certificate(tmp_path)
    with Server([answer(body=b"safe")], tls=found.server) as server:
        job = run(server.url(host="localhost"))
        assert job.deferred == "retry"
        assert "CERTIFICATE_VERIFY_FAILED" in str(job.error)
        monkeypatch.setenv("SSL_CERT_FILE", str(found.path))
        assert run(server.url(host="localhost")).result["text"] == "safe"
        assert "CERTIFICATE_VERIFY_FAILED" in str(run(server.url(host="127.0.0.1")).error)


def test_a_redirect_away_from_tls_is_not_followed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(found.path))
    with Server([answer()]) as plain:
        away = answer("302 Found", Location=plain.url())
        with Server([away], tls=found.server) as server:
            job = run(server.url(host="localhost"), follow_redirects=True)
    assert (job.state, plain.connections) == ("failed", 0)
    assert "a redirect from https" in str(job.error)


# -- arguments, and the end of a run


@pytest.mark.parametrize(
    ("url", "kwargs", "words"),
    [
        ("ftp://example.com/", {}, "must be an address that begins with http:// or https://"),
        ("http://", {}, "must be an address that begins"),
        ("http://[bad", {}, "is no URL"),
        (7, {}, "url=7 must be a text"),
        ("http://x/", {"method": "CONNECT"}, "method='CONNECT' must be"),
        ("http://x/", {"method": "GET / HTTP/1.1\r\nX: y"}, "method="),
        ("http://x/", {"headers": {"X": "a\r\nY: b"}}, "headers.X must be a text of one line"),
        ("http://x/", {"headers": {"X\r\nY": "a"}}, "headers="),
        (
            "http://x/",
            {"headers": {"Content-Length": "3"}},
            "headers.Content-Length is made by the task",
        ),
        ("http://x/", {"headers": {"transfer-encoding": "chunked"}}, "is made by the task"),
        ("http://x/", {"headers": ["a"]}, "headers=['a'] must be an object"),
        ("http://x/", {"json": 1, "data": "x"}, "json and data are both the body"),
        ("http://x/", {"json": {1, 2}}, "the body cannot be written"),
        ("http://x/", {"data": 7}, "data=7 must be a text, bytes"),
        ("http://x/", {"expect": 200}, "expect=200 must be a list"),
        ("http://x/", {"expect": [20]}, "expect=20 must be a whole number"),
        ("http://x/", {"timeout": 0}, "timeout=0 leaves no time"),
        ("http://x/", {"timeout": "soon"}, "timeout: 'soon' is not a duration"),
        ("http://x/", {"follow_redirects": "yes"}, "follow_redirects='yes' must be true or false"),
        ("http://x/", {"keep": -1}, "keep=-1 must be a whole number"),
    ],
)
def test_arguments_that_no_call_can_have_fail_the_job_at_once(
    run: Run, url: Any, kwargs: dict[str, Any], words: str
) -> None:
    job = run(url, using={"retries": 5}, **kwargs)
    assert (job.state, job.attempt) == ("failed", 1)
    assert words in str(job.error)


def test_neither_password_nor_query_of_the_url_is_in_an_error(run: Run) -> None:
    with Server([answer("404 Not Found")]) as server:
        job = run(f"http://user:hunter2@127.0.0.1:{server.port}/path?token=hunter3")
    assert server.calls[0].headers["authorization"].startswith("Basic ")
    assert f"GET http://127.0.0.1:{server.port}/path: 404 Not Found" in str(job.error)
    assert "hunter" not in str(job.error)


@pytest.mark.parametrize("ends", ["timeout", "cancel"])
def test_nobody_waits_for_a_name_that_is_looked_up_for_long(ends: str) -> None:
    goes_on, looks = threading.Event(), threading.Event()

    def look_up(*_what: Any, **_how: Any) -> list[tuple[Any, ...]]:
        looks.set()
        goes_on.wait(LIMIT)
        return []

    def check() -> None:
        if ends == "cancel" and looks.is_set():
            raise Cancelled("asked to end")

    seconds = 0.05 if ends == "timeout" else LIMIT
    ends_ns = SYSTEM.monotonic_ns() + int(seconds * SECOND)
    wire = Wire(ends_ns, check, allow_private=True, look_up=look_up)
    with pytest.raises(httpcore.ConnectTimeout if ends == "timeout" else Cancelled):
        wire.connect_tcp("name.invalid", 80)
    assert not goes_on.is_set()
    goes_on.set()


def test_a_connection_that_nobody_waits_for_any_more_is_closed() -> None:
    goes_on, closed = threading.Event(), threading.Event()
    wire = Wire(SYSTEM.monotonic_ns() + SECOND // 20, lambda: None, allow_private=True)
    with pytest.raises(httpcore.ConnectTimeout):
        wire.beside(lambda: goes_on.wait(LIMIT), undo=lambda _made: closed.set())
    assert not closed.is_set()
    goes_on.set()
    assert closed.wait(LIMIT)


def test_a_cancelled_call_ends_while_nobody_answers_its_tls() -> None:
    ctx = Context.for_test()
    raised: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}/"

        def call() -> None:
            try:
                http(ctx, url, allow_private=True, timeout="1h")
            except Cancelled as error:
                raised.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        with silent.accept()[0] as connection:
            assert connection.recv(1)  # it has begun
            ctx.ask_to_cancel()
            thread.join(LIMIT)
    assert "asked to end" in str(raised[0])


def test_a_cancelled_call_ends_soon() -> None:
    ctx = Context.for_test()
    with Server([]) as server:
        server.does.append(server.stall)
        raised: list[BaseException] = []

        def call() -> None:
            try:
                http(ctx, server.url(), allow_private=True, timeout="1h")
            except Cancelled as error:
                raised.append(error)

        thread = threading.Thread(target=call)
        thread.start()
        eventually(lambda: server.calls, what="the call has arrived")
        ctx.ask_to_cancel()
        thread.join()
    assert "asked to end" in str(raised[0])


def test_a_call_ends_before_the_timeout_of_its_job_would_end_the_worker() -> None:
    ctx = Context.for_test(timeout="2s")
    with Server([]) as server:
        server.does.append(server.stall)
        with pytest.raises(Exception, match="no answer within"):
            http(ctx, server.url(), allow_private=True, timeout="1h")


def test_json_may_be_anything_that_json_has(run: Run) -> None:
    values: list[Any] = [0, False, "", [], {"deep": [[[[1]]]]}]
    with Server([answer()]) as server:
        for value in values:
            run(server.url(), "PUT", json=value)
    assert [json.loads(call.body) for call in server.calls] == values
