"""A worker's turns and its tasks' enqueues in a process that copies the database all the time.

Run as `python -m tests.system.copying clerk|direct` in the folder. Each copy opens and closes the files of
the database, which drops every lock that this process holds on them. With `direct` there are connections in
this process: that is what destroys a database, and why there are clerks. It prints how many jobs were done,
and how many enqueued.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path

from jobvisor import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.store import Record, open_store
from jobvisor.jobs.store.base import WorkerStore
from jobvisor.supervisor.clerk.client_store import ClientClerk
from tests.store.clerked import forked, hired, making
from tests.store.making import life, record

URL = "sqlite:///jobs.db"
THREADS = 8
CLAIMED = 20


def copy(number: int, ends: threading.Event) -> None:
    """As a task does that keeps a backup: file, log, index of the log."""
    target = Path("copies") / f"{os.getpid()}-{number}"
    target.mkdir(parents=True)
    while not ends.is_set():
        for name in ("jobs.db", "jobs.db-wal", "jobs.db-shm"):
            with suppress(FileNotFoundError):
                shutil.copy(name, target)


def enqueue(ends: threading.Event, ids: list[int]) -> None:
    """As a task does whose jobs are of another queue."""
    client = Client(URL, hold=False)
    call = client.call("app:later", options={"queue": "later"})
    while not ends.is_set():
        ids.append(client.enqueue(call).id)


def work(store: WorkerStore) -> int:
    """Claim and settle until nothing is pending; how many jobs that were."""
    who = life()._replace(owner=secrets.randbits(62))
    done, claim = 0, 0
    ended: list[Record] = []
    while True:
        claim += 1
        jobs = store.turn(
            who, claim, queues=["default"], limit=CLAIMED, journal=ended, register=claim == 1
        ).jobs
        ended = [record(who, claim, job) for job in jobs]
        done += len(jobs)
        if not jobs:
            store.leave(who, [])
            return done


def main(way: str) -> None:
    store: WorkerStore = open_store(URL, durable=False)
    if way == "clerk":
        path = os.path.realpath("jobs.db")
        store = hired(path)
        ClientClerk(forked(path, making(path, SYSTEM)), "").serve()
    ends = threading.Event()
    ids: list[int] = []
    threads = [threading.Thread(target=copy, args=(number, ends)) for number in range(THREADS)]
    threads += [threading.Thread(target=enqueue, args=(ends, ids)) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        done = work(store)
    finally:
        ends.set()
        for thread in threads:
            thread.join()
    print(done, len(set(ids)))


if __name__ == "__main__":
    main(sys.argv[1])
