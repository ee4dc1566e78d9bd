"""What changes, told to readers over HTTP: by a real server, on real sockets."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from jobvisor import Client
from jobvisor.jobs.job import State
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.web.app import create_app
from jobvisor.supervisor.web.events.hub import BEAT_NS, STALLED_NS
from jobvisor.supervisor.web.events.live import Live
from tests.clock import MovableClock
from tests.postgres import shared
from tests.proxy import Proxy
from tests.supervisor.web.conftest import migrated
from tests.supervisor.web.serving import HOST, Event, Listener, served
from tests.supervisor.web.visitor import visitor
from tests.waiting import LIMIT, eventually

ALL = "/api/v1/events"
ROOT = Path(__file__).resolve().parents[3]
TASK = "app:send"


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for the whole of this file."""
    return migrated(request.param, tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def app(url: str) -> Iterator[FastAPI]:
    with Client(url) as mine:
        yield create_app(mine)


@pytest.fixture(scope="module")
def port(app: FastAPI) -> Iterator[int]:
    """Where the application of the whole file is served."""
    with served(app) as port:
        yield port


class Alone(NamedTuple):
    """An application of one test."""

    port: int
    live: Live
    clock: MovableClock


@contextmanager
def alone(folder: Path, *, most: int = 500, state_dir: str | None = None) -> Iterator[Alone]:
    clock = MovableClock()
    with Client(migrated("sqlite", folder)) as mine:
        app = create_app(mine, state_dir=state_dir)
        live = app.state.live = Live(app.state.site, dict, most=most, clock=clock)
        with served(app) as port:
            yield Alone(port, live, clock)


def test_each_change_of_a_job_is_told_by_its_last_state(client: Client, port: int) -> None:
    with Listener(port, ALL) as reader:
        assert reader.headers["content-type"].startswith("text/event-stream")
        reader.until("reset")
        job = client.enqueue(TASK)
        reader.until_told(job.id, "pending")
        client.cancel(job)
        reader.until_told(job.id, "cancelled")
        client.prune({"cancelled": 0})
        reader.until_told(job.id, "gone")


def test_a_reader_hears_what_its_query_names_and_nothing_else(client: Client, port: int) -> None:
    mail, other = (client.call(TASK, options={"queue": queue}) for queue in ("mail", "other"))
    with ExitStack() as stack:
        first = client.enqueue(mail)
        queries = [
            f"job={first.id}",
            "queue=mail",
            "task=app:none&task=app:send",
            "state=cancelled",
        ]
        readers = [stack.enter_context(Listener(port, f"{ALL}?{query}")) for query in queries]
        for reader in readers:
            reader.until("reset")
        second, third = client.enqueue(mail), client.enqueue(other)
        client.cancel_many([second])
        client.cancel_many([third])
        client.cancel_many([first])
        for reader in readers:
            reader.until_told(first.id, "cancelled")
        told = [reader.jobs.keys() - {first.id} for reader in readers]
        assert told == [set(), {second.id}, {second.id, third.id}, {second.id, third.id}]


def test_who_comes_back_in_time_is_told_what_it_missed_and_nothing_twice(
    client: Client, port: int
) -> None:
    with Listener(port, ALL) as reader, Listener(port, ALL) as stays:
        reader.until("reset")
        stays.until("reset")
        before = client.enqueue(TASK)
        reader.until_told(before.id, "pending")
        place = reader.place
        reader.close()
        missed = client.enqueue(TASK)
        stays.until_told(missed.id, "pending")
        client.cancel(missed)
        stays.until_told(missed.id, "cancelled")
        with Listener(port, ALL, {"Last-Event-ID": str(place)}) as back:
            event = back.next()
            assert event is not None
            assert (event.name, back.jobs) == ("jobs", {missed.id: "cancelled"})


@pytest.mark.parametrize("place", ["nonsense", "deadbeef-3", "-", "%00"])
def test_who_brings_back_what_is_not_known_is_to_look_at_everything(port: int, place: str) -> None:
    with Listener(port, ALL) as stays:
        stays.until("reset")
        with Listener(port, ALL, {"Last-Event-ID": place}) as back:
            event = back.next()
            assert event is not None
            assert event.name == "reset"


def test_a_bad_query_is_refused_by_a_problem_that_names_it(port: int) -> None:
    for query, what in [("job=x", "job"), ("state=lost", "state"), ("job=0", "job"),
                        ("&".join(["queue=a"] * 101), "queue")]:  # fmt: skip
        with Listener(port, f"{ALL}?{query}") as refused:
            assert refused.status == 422
            assert what in refused.document()["detail"]


def test_nobody_asks_the_database_while_nobody_listens(tmp_path: Path) -> None:
    with alone(tmp_path) as site:
        assert site.live.looks == 0
        with Listener(site.port, ALL) as reader:
            reader.until("reset")
            assert site.live.looks > 0
        eventually(lambda: not _goes_on(site.live), what="nothing goes on")
        looks = site.live.looks
        with Client(f"sqlite:///{tmp_path}/jobs.db") as client:
            client.enqueue(TASK)
        assert site.live.looks == looks
        with Listener(site.port, ALL) as reader:
            reader.until("jobs")
        assert site.live.looks > looks


def _goes_on(live: Live) -> bool:
    return bool(live.readers or [task for hub in live._hubs.values() for task in hub._tasks])


def test_a_message_is_the_same_for_all_readers(client: Client, port: int) -> None:
    with ExitStack() as stack:
        readers = [stack.enter_context(Listener(port, ALL)) for _ in range(20)]
        for reader in readers:
            reader.until("reset")
        job = client.enqueue(TASK)
        told = [reader.until_is(lambda event: _tells(event, job.id)) for reader in readers]
        assert {event.place for event in told} == {told[0].place}


def _tells(event: Event, job: int) -> bool:
    return event.name == "jobs" and job in {each["id"] for each in event.data["jobs"]}


def test_one_more_reader_than_there_may_be_is_told_so_and_has_the_place_of_who_leaves(
    tmp_path: Path,
) -> None:
    with alone(tmp_path, most=2) as site, Listener(site.port, ALL):
        with Listener(site.port, ALL):
            eventually(lambda: site.live.readers == 2)
            with Listener(site.port, ALL) as third:
                assert third.status == 503
                assert third.headers["retry-after"]
                assert third.document()["error"] == "TooManyReaders"
        eventually(lambda: site.live.readers == 1, what="the second has left")
        with Listener(site.port, ALL) as fourth:
            assert fourth.status == 200


def test_the_family_is_told_when_its_status_is_another(tmp_path: Path) -> None:
    state = StateDir(str(tmp_path / "state"))
    state.create()
    holder = state.lock()
    with ExitStack() as stack:
        site = stack.enter_context(alone(tmp_path, state_dir=state.path))
        silent = stack.enter_context(Listener(site.port, f"{ALL}?family=false"))
        reader = stack.enter_context(Listener(site.port, ALL))
        assert reader.until("family").data["state"] == "starting"
        status = {"family": "main", "pid": state.holder(), "state": "running"}
        (tmp_path / "state" / "status.json").write_text(json.dumps(status))
        site.clock.move(1_000)
        assert reader.until("family").data["state"] == "running"
        with Client(f"sqlite:///{tmp_path}/jobs.db") as client:
            client.enqueue(TASK)
        assert silent.until_is(lambda event: event.name != "reset").name == "jobs"
    os.close(holder)


def test_the_end_of_the_application_ends_all_streams_at_once_and_as_they_should(
    tmp_path: Path,
) -> None:
    with alone(tmp_path) as site, ExitStack() as stack:
        readers = [stack.enter_context(Listener(site.port, ALL)) for _ in range(2)]
        eventually(lambda: site.live.readers == 2)
        site.live.close()
        for reader in readers:
            assert reader.until("end").data == {"reason": "the server stops"}
            assert reader.next() is None
        with Listener(site.port, ALL) as late:
            assert late.status == 503


def test_somebody_elses_uvicorn_ends_though_there_are_streams(tmp_path: Path) -> None:
    url = migrated("sqlite", tmp_path)
    text = "from jobvisor import Client\nfrom jobvisor.web import create_app\n"
    (tmp_path / "theirs.py").write_text(f"{text}app = create_app(Client({url!r}))\n")
    server = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "theirs:app", "--port", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        lines = iter(server.stderr.readline, "")
        port = next(
            int(found[1]) for line in lines if (found := re.search(r"http://.*:(\d+)", line))
        )
        with Listener(port, ALL) as reader:
            reader.until("reset")
            server.terminate()
            assert reader.until("end").data == {"reason": "the server stops"}
            assert reader.next() is None
        assert server.wait(LIMIT) in {0, -signal.SIGTERM}
    finally:
        server.kill()
        server.communicate()


def test_a_silent_stream_has_signs_of_life(tmp_path: Path) -> None:
    with alone(tmp_path) as site, Listener(site.port, ALL) as reader:
        eventually(partial(_has_looked, site.live, 1), what="it has begun")
        for _ in range(4):  # less than what it is followed for, or it would begin anew and say so
            site.clock.move(BEAT_NS // 4_000_000 + 1)
            eventually(partial(_has_looked, site.live, site.live.looks + 1))
        reader.until_beat()
        with Client(f"sqlite:///{tmp_path}/jobs.db") as client:
            client.enqueue(TASK)
        reader.until("jobs")
        assert reader.heartbeats == 1


def _has_looked(live: Live, often: int) -> bool:
    return live.looks > often


def test_a_reader_that_stops_reading_is_dropped_and_keeps_no_memory(tmp_path: Path) -> None:
    with ExitStack() as stack:
        site = stack.enter_context(alone(tmp_path))
        client = stack.enter_context(Client(f"sqlite:///{tmp_path}/jobs.db"))
        reads = stack.enter_context(Listener(site.port, ALL))
        stopped = stack.enter_context(_who_reads_nothing(site.port))
        eventually(lambda: site.live.readers == 2)
        (hub,) = site.live._hubs.values()
        behind = 0
        while behind < 3:  # until what the system keeps for it is full
            ids = client.enqueue_many(client.call(TASK) for _ in range(1_500))
            reads.until_told(ids[-1], "pending")
            behind = hub.bulletin.ring.newest - min(each.position for each in hub.readers)
        site.clock.move(STALLED_NS // 1_000_000 + 1)
        eventually(lambda: site.live.readers == 1, what="it is dropped")
        job = client.enqueue(TASK)
        reads.until_told(job.id, "pending")
        assert stopped.fileno() > 0


def _who_reads_nothing(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.settimeout(LIMIT)
    made.connect((HOST, port))
    made.sendall(f"GET {ALL} HTTP/1.1\r\nHost: {HOST}:{port}\r\n\r\n".encode())
    return made


def test_a_database_that_is_away_is_told_and_so_is_its_return() -> None:
    url = shared().new_database()
    place = urlsplit(url)
    with ExitStack() as stack:
        direct = stack.enter_context(Client(url))
        direct.migrate()
        proxy = stack.enter_context(Proxy(str(place.hostname), place.port or 0))
        mine = stack.enter_context(Client(proxy.url(url)))
        port = stack.enter_context(served(create_app(mine)))
        reader = stack.enter_context(Listener(port, ALL))
        reader.until("reset")
        proxy.cut()
        assert reader.until("trouble").data["error"]
        proxy.restore()
        assert reader.until("reset").data == {"reason": "the database answers again"}
        job = direct.enqueue(TASK)
        reader.until_told(job.id, "pending")


def test_who_may_not_see_the_site_may_not_listen(app: FastAPI) -> None:
    assert visitor(app, "192.0.2.7").get(ALL).status_code == 403


def test_one_job_is_followed_until_it_is_finished_and_nobody_is_sent_back_to_it(
    client: Client, port: int
) -> None:
    job = client.enqueue(TASK)
    path = f"/api/v1/jobs/{job.id}/events"
    with Listener(port, path) as reader:
        assert reader.until("job").data["state"] == "pending"
        client.cancel(job)
        assert reader.until("job").data["state"] == "cancelled"
        assert reader.until("end").data == {"reason": "the job is finished"}
        assert reader.next() is None
        place = str(reader.place)
    with Listener(port, path, {"Last-Event-ID": place}) as again:
        assert again.status == 204  # which tells a browser not to come again


def test_a_job_that_is_pruned_while_it_is_followed_is_gone(client: Client, port: int) -> None:
    job = client.enqueue(TASK)
    with Listener(port, f"/api/v1/jobs/{job.id}/events") as reader:
        reader.until("job")
        with client._store() as store, store.transaction():
            store.cancel(job.id)
            store.prune({State.CANCELLED: 0}, limit=1_000)
        assert reader.until("job").data == {"id": job.id, "state": "gone"}
        assert reader.until("end").data["reason"].startswith("there is no such job")


def test_a_job_that_is_not_there_is_a_problem(port: int) -> None:
    for number, status in ((999, 404), ("x", 422), (0, 422), (2**70, 422)):
        with Listener(port, f"/api/v1/jobs/{number}/events") as refused:
            assert refused.status == status
            assert refused.document()["status"] == status


def test_the_document_of_the_api_has_both_streams(app: FastAPI) -> None:
    paths = visitor(app).get("/api/v1/openapi.json").json()["paths"]
    for path in (ALL, "/api/v1/jobs/{job_id}/events"):
        assert "text/event-stream" in paths[path]["get"]["responses"]["200"]["content"]
