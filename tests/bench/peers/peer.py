"""What a measurement asks of a queue, ours and others alike."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from tests.bench.peers.job import PIPE_VARIABLE

ROOT = Path(__file__).resolve().parents[3]

NOOP, STAMP = "noop", "stamp"


class Peer(ABC):
    """A queue on one fresh database, at its best settings as far as we know them."""

    name: ClassVar[str]

    #: How many no-op jobs are measured: what takes it some seconds.
    jobs: ClassVar[int]

    def __init__(self, folder: Path, url: str) -> None:
        """`url` is the database that the queue may fill; of SQLite a file in the folder."""
        self.folder = folder
        self.url = url

    @abstractmethod
    def prepare(self) -> None:
        """Make the tables and connect."""

    @abstractmethod
    def enqueue(self, job: str) -> None:
        """Store one job, durable when this returns."""

    @abstractmethod
    def enqueue_many(self, number: int) -> bool:
        """Store so many no-op jobs at once; False where this queue has no way to do that."""

    @abstractmethod
    def is_left(self) -> bool:
        """Whether a job waits or runs, asked so that it costs the workers next to nothing."""

    @abstractmethod
    def commands(self, processes: int) -> list[list[str]]:
        """The command lines of workers that come to so many processes."""

    def close(self) -> None:  # noqa: B027 -- most hold nothing
        """Disconnect."""

    def environ(self) -> Mapping[str, str]:
        """What the workers are told in their environment."""
        return {}

    @contextmanager
    def workers(self, processes: int, pipe: str) -> Iterator[None]:
        """Its workers, started as its users start them, and ended afterwards."""
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            PIPE_VARIABLE: pipe,
            **self.environ(),
        }
        running = [
            subprocess.Popen(command, cwd=self.folder, env=environ, start_new_session=True)
            for command in self.commands(processes)
        ]
        try:
            yield
        finally:
            for process in running:
                process.terminate()
            for process in running:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()


def module(name: str, *arguments: str) -> list[str]:
    """A command line that runs one of our modules as a script."""
    return [sys.executable, "-m", f"tests.bench.peers.{name}", *arguments]
