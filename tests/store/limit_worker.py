"""A process that works on limited jobs until it is killed: `python -m tests.store.limit_worker ...`.

While a job runs, a file of its place is locked by its process, which the system unlocks when that dies: so a
place that is held twice, or is none, is seen by whoever runs the job. What was seen is a line in a file; in
another one stands how many jobs of a limit with a rate have started between which moments.
"""

from __future__ import annotations

import fcntl
import os
import random
import sys
from contextlib import ExitStack, suppress

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import StoreUnavailable
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.store import Life, Record, Rest, Store, open_store
from tests.store.making import record

QUEUES = ("left", "right")
RATED = '["rated"]'  # the arguments of jobs whose limit has no places


def work(store: Store, owner: int, folder: str) -> None:
    who = Life(owner, 1, f"worker {owner}", "here", "boot", 1, owner, owner)
    journal: list[Record] = []
    rest: Rest | None = None
    number, registered = 0, False
    while True:
        number += 1
        asked_ms = SYSTEM.now_ms()
        try:
            got = store.turn(
                who, number, queues=QUEUES, limit=random.randint(1, 8), lanes=2,
                batch=random.randint(1, 4), journal=journal, rest=rest, register=not registered,
            )  # fmt: skip
        except StoreUnavailable:
            rest = Rest()
            continue
        registered, rest, journal = True, None, []
        if started := sum(job.args == RATED for job in got.jobs):
            tell(folder, "started", f"{asked_ms} {SYSTEM.now_ms() + 1} {started}")
        begun = random.randint(0, len(got.jobs))  # the others are given back, as by a recall
        with ExitStack() as stack:
            for job in got.jobs[:begun]:
                if job.args != RATED:
                    hold(stack, folder, job)
            SYSTEM.sleep(random.choice((0, 0, 0.001)))
        for job in got.jobs[:begun]:
            verb = random.choice(("succeed", "succeed", "succeed", "retry", "release"))
            delay = {"delay_ms": 0} if verb == "retry" else {}
            journal.append(record(who, number, job, verb, **delay))
        if begun < len(got.jobs):
            rest = Rest(held=tuple(job.id for job in got.jobs[:begun]))
        if not got.jobs and not got.parked:
            SYSTEM.sleep(0.002)
            look(store, owner)


def look(store: Store, owner: int) -> None:
    """As an idle worker does: after it a turn knows that something is due."""
    with suppress(StoreUnavailable):
        store.look(QUEUES, owner)


def hold(stack: ExitStack, folder: str, job: Claimed) -> None:
    """What a task would do with its place."""
    path = os.path.join(folder, f"{job.args[2:-2]}-{job.place}")
    file = stack.enter_context(open(path, "w"))  # noqa: SIM115 -- the stack closes it
    wrong = "" if job.place is not None else "no place"
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        wrong = f"place {job.place}, which is another's"
    if wrong:
        tell(folder, "violations", f"job {job.id} of {job.args} has {wrong}")


def tell(folder: str, name: str, line: str) -> None:
    """In one write, which no kill cuts in two."""
    file = os.open(os.path.join(folder, name), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{line}\n".encode())
    os.close(file)


if __name__ == "__main__":
    url, schema, prefix, owner, folder = sys.argv[1:]
    random.seed(int(owner))
    work(open_store(url, schema=schema, prefix=prefix, durable=False), int(owner), folder)
