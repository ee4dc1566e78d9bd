"""A database with jobs in every state, and the application over it: what the tests of the API ask."""

from __future__ import annotations

import json
from typing import Any

from fastapi.testclient import TestClient

from jobvisor import Client
from jobvisor.jobs.described import described
from jobvisor.jobs.job import Job
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.retry import Exponential
from jobvisor.supervisor.config import Web
from jobvisor.supervisor.web.app import create_app
from tests.supervisor.web.visitor import visitor

API = "/api/v1"
QUEUES = ("default", "mail")

tasks = Registry()


@tasks.task(name="app:send", queue="mail", retries=1, retry=Exponential(first="2s", cap="1h"))
def send(to: str, subject: str = "Hi", *, password: str = "") -> str:
    """Send a mail."""
    if to.endswith("@nowhere"):
        raise ConnectionError(f"no route to {to}")
    return subject


@tasks.task(name="app:add")
def add(*numbers: int) -> int:
    return sum(numbers)


@tasks.task(name="app:once", unique=lambda number: f"once:{number}")
def once(number: int) -> None:
    del number


@tasks.task(name="app:fail", retries=0)
def fail(kind: str = "ValueError") -> None:
    raise {"ValueError": ValueError, "KeyError": KeyError}[kind]("broken")


class Shop:
    """One site, whose jobs are run when a test says so."""

    def __init__(self, url: str = "memory://", **settings: Any) -> None:
        self.client = Client(url, registry=tasks)
        # What the site knows of tasks a worker has told: the application itself has not imported them.
        self.client.note_tasks(
            {name: described(task) for name in tasks.names() if (task := tasks.get(name))}
        )
        web = Web(**{"allow_tasks": ("app:*",), **settings})
        self.app = create_app(self.client, settings=web)
        self.web: TestClient = visitor(self.app)

    def run(self) -> Job:
        """Run the next job."""
        job = self.client.run_one(QUEUES)
        assert job is not None
        return job

    def failed(self, kind: str = "ValueError") -> int:
        """The id of a job that has failed."""
        number = self.client.enqueue("app:fail", kind).id
        assert self.run().id == number
        return number

    def post(self, path: str, **body: Any) -> Any:
        """The answer to a body."""
        content = json.dumps(body)  # in ASCII: halves of surrogates, too
        headers = {"Content-Type": "application/json"}
        return self.web.post(f"{API}{path}", content=content, headers=headers)

    def get(self, path: str, **query: Any) -> Any:
        """The answer to a question."""
        return self.web.get(f"{API}{path}", params=query)

    def close(self) -> None:
        self.client.close()
