"""The client of the web role: no request waits long for a database that is away, or is busy."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from jobvisor import Client
from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.store import open_store
from jobvisor.supervisor.web.client import PatientStore, SiteClient
from tests.clock import StandingClock
from tests.postgres import shared
from tests.proxy import Proxy


class HastyClient(SiteClient):
    """One that waits for half a second."""

    patience_s: ClassVar[float] = 0.5


@pytest.fixture
def url() -> Iterator[str]:
    made = shared().new_database()
    store = open_store(made)
    store.migrate()
    store.close()
    yield made
    shared().drop_database(made)


def test_it_does_what_a_client_does(tmp_path: Path) -> None:
    with SiteClient(f"sqlite:///{tmp_path}/jobs.db") as client:
        job = client.enqueue("app:task", 1, x=[2])
        client.enqueue_many([client.call("app:task", 3)])
        assert [each.args for each in client.list()] == [[3], [1]]
        assert client.get(job.id).kwargs == {"x": [2]}
        assert client.cancel(job.id)
        with client.export() as export:
            assert len(list(export.jobs)) == 1


def test_a_database_that_does_not_answer_is_given_up_after_a_while_and_by_all(url: str) -> None:
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    with Proxy(parts.hostname, parts.port) as proxy, HastyClient(proxy.url(url)) as client:
        job = client.enqueue("app:task").id
        proxy.freeze()
        failed = []

        def ask() -> None:
            try:
                client.get(job)
            except StoreUnavailable as error:
                failed.append(error)

        threads = [threading.Thread(target=ask) for _ in range(30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)  # one after the other they would take fifteen seconds
        assert len(failed) == 30
        proxy.restore()


def test_after_a_failure_nobody_tries_again_for_a_second(tmp_path: Path) -> None:
    clock = StandingClock()
    path = tmp_path / "jobs.db"
    path.mkdir()
    store = PatientStore(open_store(f"sqlite:///{path}"), 0.5, clock)  # type: ignore[abstract]
    with pytest.raises(StoreUnavailable) as first:
        store.get(1)
    path.rmdir()
    with pytest.raises(StoreUnavailable) as second:
        store.get(1)
    assert str(second.value) == str(first.value)
    clock.move(1001)
    assert store.oldest_pending() == {}
    store.close()


def test_who_waits_behind_a_long_request_is_told_that_the_database_is_busy(tmp_path: Path) -> None:
    with HastyClient(f"sqlite:///{tmp_path}/jobs.db") as client, client.export():
        told: list[str] = []

        def ask() -> None:
            with pytest.raises(StoreUnavailable) as refused:
                client.list()
            told.append(str(refused.value))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(10)
        assert "busy with other requests" in told[0]


def test_a_plain_client_is_as_patient_as_before() -> None:
    assert Client.patience_s == 30.0
