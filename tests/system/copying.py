"""A worker's turns in a process whose threads copy the folder of the database all the time.

Run as `python -m tests.system.copying clerk|direct` in the folder. Each copy opens and closes the files of
the database, which drops every lock that this process holds on them. With `direct` the turns are made on a
connection of this process: that is what destroys a database, and why there are clerks.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import threading
from contextlib import suppress
from pathlib import Path

from jobvisor.jobs.store import Record, open_store
from jobvisor.jobs.store.base import WorkerStore
from jobvisor.jobs.store.sqlite import SqliteStore
from tests.store.clerked import hired
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
    store = open_store(URL, durable=False)
    assert isinstance(store, SqliteStore)
    asked: WorkerStore = hired(store) if way == "clerk" else store
    ends = threading.Event()
    threads = [threading.Thread(target=copy, args=(number, ends)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        print(work(asked))
    finally:
        ends.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main(sys.argv[1])
