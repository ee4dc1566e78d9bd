"""A family of the release before and one of this release, at work on one database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from jobvisor import Fixed, __version__
from tests import before
from tests.system.harness import Build, House
from tests.system.history import MARK, Mark, check_counts, check_nothing_left, marks
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

TASKS = f"""{MARK}
@task(retry=Fixed(0), retries=3)
def plain(ctx: Context, fails):
    mark("start", ctx)
    if ctx.attempt <= fails:
        raise ValueError("once more")
    mark("end", ctx)

@task(retry=Fixed(0), retries=3)
def waits(ctx: Context, gate):
    mark("start", ctx)
    while not os.path.exists(gate):
        ctx.check()
        time.sleep(0.005)  # task body
    mark("end", ctx)
"""
QUEUES, FAILS = ("default", "ours", "theirs"), (0, 1, 0, 2)

_ENQUEUE = f"""
import sys
from jobvisor import Client
with Client(sys.argv[1]) as client:
    for queue in {QUEUES}:
        for fails in {FAILS}:
            print(client.enqueue(client.call("app:plain", fails, options={{"queue": queue}})).id)
"""


def told(environ: dict[str, str], folder: Path, *words: str) -> str:
    """What a program of the release before says."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def started(house: House, job: int, attempt: int = 1) -> Mark:
    """The line of this run, which is to come."""
    return eventually(
        lambda: next(
            (m for m in marks(house) if (m.word, m.job, m.attempt) == ("start", job, attempt)), None
        ),
        what=f"attempt {attempt} of {job} has begun",
    )  # type: ignore[return-value]


def test_jobs_of_both_are_done_by_both_as_is_said_of_them(build: Build, tmp_path: Path) -> None:
    environ = before.unpack(tmp_path / "before")
    ours = build(TASKS, name="ours", queues=["default", "ours"])
    family = ours.start()
    url = ours.database or f"sqlite:///{ours.folder}/jobs.db"
    theirs = build(
        TASKS, name="theirs", database=None, config={"database": {"url": url}},
        queues=["default", "theirs"],
    )  # fmt: skip
    older = theirs.start(fresh=True, PYTHONPATH=environ["PYTHONPATH"])
    versions = [row[0] for row in ours.query("SELECT version FROM families")]
    assert sorted(versions) == sorted(["0.5.0", __version__])

    ids = [int(word) for word in told(environ, theirs.folder, "-c", _ENQUEUE, url).split()]
    ids += [ours.enqueue("plain", fails, queue=queue) for queue in QUEUES for fails in FAILS]
    ours.wait_finished(ids)
    found = marks(ours) + marks(theirs)
    starts, ends = (Counter(m.job for m in found if m.word == word) for word in ("start", "end"))
    assert ends == dict.fromkeys(ids, 1)
    wanted = {job: 1 + FAILS[n % len(FAILS)] for n, job in enumerate(ids)}
    assert starts == wanted
    assert dict(ours.query("SELECT id, attempt FROM jobs WHERE state = 'succeeded'")) == wanted

    for house, queue in ((theirs, "theirs"), (ours, "ours")):
        # Each is asked to end by the other release.
        job = ours.enqueue("waits", str(tmp_path / "never"), queue=queue)
        started(house, job)
        if house is theirs:
            ours.client.cancel(job)
        else:
            told(environ, theirs.folder, "-m", "jobvisor", "cancel", str(job))
        ours.wait_state(job, "cancelled")
        # And a killed worker costs its job one attempt.
        job = ours.enqueue("waits", str(tmp_path / f"go {queue}"), queue=queue, retry=Fixed(0))
        os.kill(started(house, job).pid, signal.SIGKILL)
        started(house, job, 2)
        (tmp_path / f"go {queue}").touch()
        ours.wait_state(job, "succeeded")
        assert ours.history(job) == ["crash"]
        assert Counter(m.word for m in marks(house) if m.job == job) == {"start": 2, "end": 1}

    assert (ours.stop(family), theirs.stop(older)) == (0, 0)
    check_counts(ours)
    check_nothing_left(ours)
