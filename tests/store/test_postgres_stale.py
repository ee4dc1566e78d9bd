"""What a broken connection leaves behind on the server, and who sees to it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable

import psycopg
import pytest

from jobvisor import Client
from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.store import Rest, open_store
from jobvisor.jobs.store.postgres import PostgresStore
from tests.postgres import Server, Stranger, shared
from tests.store.making import life, record
from tests.waiting import eventually

WAITING = """
SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
"""


def in_a_thread(act: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_turn_that_releases_what_it_does_not_hold_comes_after_the_one_whose_answer_was_lost() -> (
    None
):
    url = shared().new_database()
    client = Client(url)
    client.migrate()
    client.enqueue_many([client.call("app:f") for _ in range(12)])
    store = open_store(url)
    assert isinstance(store, PostgresStore)
    who = life()
    got = store.turn(who, 1, queues=["default"], limit=2, register=True).jobs
    journal = [record(who, 1, job) for job in got]
    stranger = Stranger(url)
    with psycopg.connect(url) as locker:
        locker.execute("SELECT 1 FROM jobvisor.jobs WHERE id = %s FOR UPDATE", [got[0].id])

        def lost() -> None:
            with pytest.raises(StoreUnavailable):
                store.turn(who, 2, queues=["default"], limit=5, journal=journal)

        turn = in_a_thread(lost)
        eventually(lambda: stranger.sql(WAITING) == [(1,)], what="the turn waits in the server")
        (descriptor,) = store.descriptors()
        with socket.socket(fileno=os.dup(descriptor)) as link:
            link.shutdown(socket.SHUT_RDWR)  # the client's end alone: the server works on
        turn.join(20)
        claimed: list[int] = []

        def following() -> None:
            turn = store.turn(who, 3, queues=["default"], limit=3, journal=journal, rest=Rest())
            claimed.extend(job.id for job in turn.jobs)

        second = in_a_thread(following)
        eventually(lambda: stranger.sql(WAITING) == [(2,)], what="the next turn waits behind it")
        locker.rollback()
        second.join(20)
    running = stranger.sql("SELECT id FROM jobs WHERE state = 'running' ORDER BY id")
    assert [row[0] for row in running] == sorted(claimed)
    assert len(claimed) == 3
    states = "SELECT state, count(*) FROM jobs GROUP BY 1 ORDER BY 1"
    assert stranger.sql(states) == [("pending", 7), ("running", 3), ("succeeded", 2)]
    stranger.close()
    store.close()
    client.close()


def test_run_one_settles_what_an_absent_database_kept_it_from_settling() -> None:
    registry = Registry()
    with Server() as server:
        server.start()
        url = server.new_database()
        runs: list[int] = []

        def leave_without_a_database() -> int:
            runs.append(1)
            server.stop("fast")
            return 42

        registry.task(leave_without_a_database, name="app:f")
        client = Client(url, registry=registry)
        client.migrate()
        job = client.enqueue("app:f")
        with pytest.raises(StoreUnavailable):
            client.run_one()
        server.start()
        assert client.run_one() is None
        assert client.get(job.id).result == 42
        assert runs == [1]
        client.close()


@pytest.mark.parametrize("moment", ["infinity", "-infinity", "10000-01-02"])
@pytest.mark.parametrize("column", ["run_at", "expires_at"])
def test_a_moment_that_nobody_can_count_to_is_refused(column: str, moment: str) -> None:
    url = shared().new_database()
    client = Client(url)
    client.migrate()
    stranger = Stranger(url)
    with pytest.raises(psycopg.errors.CheckViolation):
        stranger.sql(f"INSERT INTO jobs (task, {column}) VALUES ('app:f', '{moment}')")
    stranger.close()
    client.close()
