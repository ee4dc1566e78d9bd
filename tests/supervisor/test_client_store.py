"""Clients of a worker that has clerks: asked of a clerk, but what is a user's stays in the worker."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import cast

import pytest

from jobvisor import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import ForkedStore, InvalidOption, JobNotFound, StoreUnavailable
from jobvisor.jobs.store import open_store
from jobvisor.jobs.store.sqlite import SqliteStore
from jobvisor.supervisor.clerk.client_store import ClientClerk, ClientStore
from tests.store.clerked import forked, making
from tests.store.processes import in_a_copy
from tests.system.harness import open_files


@pytest.fixture
def path(tmp_path: Path) -> str:
    return os.path.realpath(tmp_path / "jobs.db")


@pytest.fixture
def clerk(path: str) -> Iterator[ClientClerk]:
    plain = making(path, SYSTEM)

    def make(durable: bool) -> SqliteStore:
        with open(f"{path}-made", "a") as file:
            file.write(f"{durable} ")
        return plain(durable)

    made = ClientClerk(forked(path, make), "")
    undo = made.serve()
    yield made
    undo()
    made.handle.end()


class Shift:
    """A codec that knows in which process it was used."""

    pids: list[int]

    def __init__(self) -> None:
        self.pids = []

    def encode(self, text: str) -> str:
        self.pids.append(os.getpid())
        return text[::-1]

    def decode(self, text: str) -> str:
        self.pids.append(os.getpid())
        return text[::-1]


def test_a_clients_database_is_open_in_the_clerk_alone(path: str, clerk: ClientClerk) -> None:
    with Client(f"sqlite:///{path}") as client:
        client.enqueue("app:f", 1)
        assert path not in open_files(os.getpid())
        assert path in open_files(clerk.handle.pid)


def test_values_are_encoded_and_decoded_in_the_worker(path: str, clerk: ClientClerk) -> None:
    codec = Shift()
    with Client(f"sqlite:///{path}", codec=codec) as client:
        job = client.enqueue("app:f", "text", key={"n": 1})
        assert (job.args, job.kwargs) == (["text"], {"key": {"n": 1}})
        assert client.get(job.id).args == ["text"]
        assert [found.args for found in client.list()] == [["text"]]
        assert client.get_many([job.id])[job.id] == client.get(job.id)
    assert set(codec.pids) == {os.getpid()}


class Queue(StrEnum):
    MAIL = "mail"


def test_of_members_of_an_enumeration_the_clerk_is_asked_by_their_values(
    path: str, clerk: ClientClerk
) -> None:
    class Two(IntEnum):
        TWO = 2

    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "something else"

    with Client(f"sqlite:///{path}") as client:
        jobs = [
            client.enqueue(client.call(Name("app:f"), options={"queue": Queue.MAIL}))
            for _ in range(3)
        ]
        assert [job.id for job in client.list(queue=Queue.MAIL, limit=Two.TWO)] == [3, 2]
        assert client.get(Two.TWO).task == jobs[0].task == "app:f"


def test_what_no_database_takes_is_refused_and_the_clerk_goes_on(
    path: str, clerk: ClientClerk
) -> None:
    with Client(f"sqlite:///{path}") as client:
        with pytest.raises(InvalidOption, match="is no plain value"):
            client.list(before=cast("int", lambda: 1))
        assert client.enqueue("app:f").id == 1
    assert not clerk.handle.is_gone


def test_each_client_has_the_durability_it_asks_for(path: str, clerk: ClientClerk) -> None:
    for durability in ("full", "normal", "full"):
        Client(f"sqlite:///{path}", durability=durability).enqueue("app:f")
    assert Path(f"{path}-made").read_text() == "True False "


def test_an_error_of_the_store_is_the_clients(path: str, clerk: ClientClerk) -> None:
    with Client(f"sqlite:///{path}") as client, pytest.raises(JobNotFound, match="no job 7"):
        client.get(7)


def test_another_file_another_prefix_and_a_copy_of_the_process_have_connections_of_their_own(
    path: str, clerk: ClientClerk, tmp_path: Path
) -> None:
    assert isinstance(open_store(f"sqlite:///{path}"), ClientStore)
    assert isinstance(open_store(f"sqlite:///{path}", prefix="our_"), SqliteStore)
    assert isinstance(open_store(f"sqlite:///{tmp_path}/other.db"), SqliteStore)
    with Client(f"sqlite:///{path}") as client:
        number = client.enqueue("app:f").id
        assert in_a_copy(lambda: client.enqueue("app:f").id) == str(number + 1)
        assert client.get(number + 1).task == "app:f"


def test_a_copy_made_in_the_middle_of_another_threads_transaction_waits_for_nobody(
    path: str, clerk: ClientClerk
) -> None:
    inside, over = threading.Event(), threading.Event()
    store = open_store(f"sqlite:///{path}")

    def hold() -> None:
        with store.transaction():
            inside.set()
            over.wait(30)

    with Client(f"sqlite:///{path}") as client:
        number = client.enqueue("app:f").id
        thread = threading.Thread(target=hold)
        thread.start()
        inside.wait(30)
        assert in_a_copy(lambda: client.get(number).id) == str(number)
        assert in_a_copy(lambda: store.get(number)).startswith(ForkedStore.__name__)
        over.set()
        thread.join()


def test_a_snapshot_keeps_nobody_waiting(path: str, clerk: ClientClerk) -> None:
    with Client(f"sqlite:///{path}") as client, Client(f"sqlite:///{path}") as other:
        client.enqueue("app:f")
        with client.export() as export:
            other.enqueue("app:f")
            assert len(list(export.jobs)) == 1
        assert len(client.list()) == 2


def test_a_client_whose_clerk_is_gone_says_so(path: str, clerk: ClientClerk) -> None:
    causes: list[str] = []
    clerk.handle.on_gone = causes.append
    with Client(f"sqlite:///{path}") as client:
        client.enqueue("app:f")
        os.kill(clerk.handle.pid, signal.SIGKILL)
        with pytest.raises(StoreUnavailable, match="is gone"):
            client.enqueue("app:f")
    assert causes == ["SIGKILL"]
