"""jobvisor as a peer among others: its own command and client, nothing switched off."""

from __future__ import annotations

import sqlite3
import sys

import psycopg

from jobvisor import Client
from tests.bench.peers.peer import Peer

TASKS = """
from jobvisor import task
from tests.bench.peers import job

noop = task(job.noop, name="noop")
stamp = task(job.stamp, name="stamp")
"""
LEFT = "SELECT EXISTS (SELECT 1 FROM {}jobs WHERE state IN ('pending', 'running'))"


class Ours(Peer):
    """Rows of succeeded jobs are kept for a day, as they are by default."""

    name = "jobvisor"
    jobs = 100_000
    kept = "1d"

    def prepare(self) -> None:
        (self.folder / "app.py").write_text(TASKS)
        (self.folder / "config.toml").write_text(
            f'[database]\nurl = "{self.url}"\n[tasks]\nmodules = ["app"]\n'
            f'[retention]\nsucceeded = "{self.kept}"\n'
            '[[workers]]\nprocesses = 2\n[log]\nlevel = "warning"\n'
        )
        self._client = Client(self.url)
        self._client.migrate()
        self._watcher: psycopg.Connection[tuple[bool]] | None = None

    def enqueue(self, job: str) -> None:
        self._client.enqueue(job)

    def enqueue_many(self, number: int) -> bool:
        self._client.enqueue_many([self._client.call("noop") for _ in range(number)])
        return True

    def is_left(self) -> bool:
        if self.url.startswith("sqlite"):
            connection = sqlite3.connect(self.url.removeprefix("sqlite:///"), timeout=10)
            found = connection.execute(LEFT.format("")).fetchone()
            connection.close()
            return bool(found[0])
        if self._watcher is None:
            # By the index: what the statistics of a full table suggest reads all dead rows.
            self._watcher = psycopg.connect(
                self.url, autocommit=True, options="-c enable_seqscan=off"
            )
        return bool(self._watcher.execute(LEFT.format("jobvisor.").encode()).fetchall()[0][0])

    def commands(self, processes: int) -> list[list[str]]:
        assert processes == 2, "as the configuration says"
        return [[sys.executable, "-m", "jobvisor", "start"]]

    def close(self) -> None:
        self._client.close()
        if self._watcher is not None:
            self._watcher.close()


class OursForgetting(Ours):
    """Rows of succeeded jobs are deleted when they are settled, as most others do it."""

    name = 'jobvisor, succeeded = "0s"'
    kept = "0s"
