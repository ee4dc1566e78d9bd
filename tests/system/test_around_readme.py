"""What README puts around a job, with the real libraries: Sentry, OpenTelemetry, SQLAlchemy, and timing."""

from __future__ import annotations

import gzip
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jobvisor import Client
from jobvisor.jobs.task import OptionValues
from tests.system.harness import ROOT

pytestmark = pytest.mark.system

FILES = ("errors_to_sentry.py", "spans.py", "sessions.py", "timing.py")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"

TASKS = """
from jobvisor import Context, Retry, task
from sessions import session
from sqlalchemy import text

INSERT = text("INSERT INTO customers (name) VALUES (:name)")

@task
def add(name):
    session.get().execute(INSERT, {"name": name})
    return audit.enqueue(name).id

@task(retries=0)
def fail(name):
    session.get().execute(INSERT, {"name": name})
    raise ValueError(f"no {name}")

@task(retries=1)
def choose(ctx: Context):
    if ctx.attempt == 1:
        raise Retry(after="1ms")

@task
async def audit(name):
    return session.get().execute(text("SELECT count(*) FROM customers")).scalar()
"""
CONFIG = f"""
[tasks]
modules = {json.dumps([*(name.removesuffix(".py") for name in FILES), "app"])}
[[workers]]
processes = 1
"""


class Sentry(ThreadingHTTPServer):
    """What takes the events of Sentry's library."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.events: list[dict[str, Any]] = []

    def dsn(self) -> str:
        return f"http://key@127.0.0.1:{self.server_address[1]}/1"


class Taking(BaseHTTPRequestHandler):
    server: Sentry

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for line in body.splitlines():
            found = json.loads(line)
            if "exception" in found:
                self.server.events.append(found)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_words: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    with Sentry() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An application made of README's own lines."""
    readme = (ROOT / "README.md").read_text()
    for name in FILES:
        [block] = re.findall(
            rf"^```python {re.escape(name)}\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL
        )
        (tmp_path / name).write_text(block)
    (tmp_path / "app.py").write_text(TASKS)
    (tmp_path / "config.toml").write_text(CONFIG)
    with closing(sqlite3.connect(tmp_path / "shop.db")) as shop:
        shop.execute("CREATE TABLE customers (name TEXT)")
    return tmp_path


def test_what_the_readme_puts_around_a_job_works_with_the_real_libraries(
    folder: Path, sentry: Sentry
) -> None:
    with Client(f"sqlite:///{folder}/jobs.db") as client:
        came: OptionValues = {"headers": {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}}
        added = client.enqueue(client.call("app:add", "Ada", options=came)).id
        failed = client.enqueue(client.call("app:fail", "Bob", options={"retries": 0})).id
        chosen = client.enqueue(client.call("app:choose")).id
        spans, log = run(folder, sentry)
        audited = client.get(client.get(added).result)
        assert (audited.result, audited.parent) == (1, added)
        states = [client.get(job).state.value for job in (added, failed, chosen)]
        assert states == ["succeeded", "failed", "succeeded"]
    # The session of the job that failed was rolled back.
    with closing(sqlite3.connect(folder / "shop.db")) as shop:
        assert shop.execute("SELECT name FROM customers").fetchall() == [("Ada",)]
    # One error, and no chosen end.
    [event] = sentry.events
    assert event["exception"]["values"][-1]["value"] == "no Bob"
    assert event["tags"]["task"] == "app:fail"
    assert event["contexts"]["job"] == {"id": failed, "attempt": 1}
    # A span for each run, those of the job and of the one that it enqueued in the trace that came.
    assert len(spans) == 5
    traced = {one["name"]: one for one in spans if one["context"]["trace_id"] == f"0x{TRACE}"}
    assert {one["attributes"]["job"] for one in traced.values()} == {added, audited.id}
    assert traced["app:audit"]["parent_id"] == traced["app:add"]["context"]["span_id"]
    assert len(re.findall(rf"ran for 0\.\d+ s \(job={failed} task=app:fail", log)) == 1
    assert log.count("ran for") == 5


def run(folder: Path, sentry: Sentry) -> tuple[list[dict[str, Any]], str]:
    """The spans that a family has told until nothing was left to do, and its log."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "SENTRY_DSN": sentry.dsn()}
    done = subprocess.run(
        [sys.executable, "-m", "jobvisor", "start", "--drain"],
        cwd=folder, env=environ, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    decoder, text, spans = json.JSONDecoder(), done.stdout, []
    while text.strip():
        found, end = decoder.raw_decode(text.lstrip())
        spans.append(found)
        text = text.lstrip()[end:]
    return spans, done.stderr
