"""The same on PostgreSQL: verbs by a filter, what is noted of them, and `top` while a server is away."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from jobvisor.jobs.client import Client
from tests.postgres import shared
from tests.proxy import Proxy
from tests.screen import Played
from tests.supervisor.cli.conftest import CONFIG, Run

SEND = "tests.supervisor.cli.sample:send"
BOOM = "tests.supervisor.cli.sample:boom"


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    url = shared().new_database()
    (folder / "config.toml").write_text(f'[database]\nurl = "{url}"\n{CONFIG}')
    with Client(url) as opened:
        opened.migrate()
        yield opened
    shared().drop_database(url)


def test_failures_are_grouped_requeued_copied_and_removed(run: Run, client: Client) -> None:
    for _ in range(3):
        run("enqueue", BOOM)
        client.run_one()
    client.enqueue(SEND, "you@example.com")
    [group] = json.loads(run("failures", "--json").stdout)["groups"]
    assert (group["task"], group["error_type"], group["jobs"]) == (BOOM, "RuntimeError", 3)
    found = json.loads(run("list", "--text", "YOU@example", "--json").stdout)
    assert [job["id"] for job in found] == [4]
    chosen = ("--state", "failed", "--task", "boom", "--error-type", "RuntimeError")
    assert run("requeue", *chosen, "--dry-run").stdout == "would requeue 3 failed jobs\n"
    assert run("requeue", *chosen, "-y").stdout == "1 pending\n2 pending\n3 pending\n"
    assert run("copy", "4", "--args", '["x"]').stdout == "5\n"
    assert run("cancel", "--task", "boom", "-y").exit_code == 0
    assert run("prune", "--state", "cancelled", "-y").stdout == "1 removed\n2 removed\n3 removed\n"
    actions = json.loads(run("actions", "--json").stdout)["actions"]
    assert [each["verb"] for each in actions] == ["prune", "cancel", "copy", "requeue"]
    assert client.counts() == {"mail": {"pending": 2}}


def test_top_tells_of_a_server_that_is_away_and_goes_on_when_it_is_back(
    client: Client, folder: Path
) -> None:
    server = urlsplit(client.url)
    client.enqueue(SEND, "you@example.com")
    with Proxy(str(server.hostname), server.port or 0) as proxy:
        text = f'[database]\nurl = "{proxy.url(client.url)}"\n{CONFIG}'
        (folder / "config.toml").write_text(text)
        with Played("top", folder=folder) as top:
            top.press("2")
            top.see("jobs: 1 of 1", "you@example.com")
            proxy.cut()
            top.see("the database cannot be asked", "you@example.com")
            top.press("\r")
            top.see("job 1", "Connection refused")
            top.press("\x1b")
            proxy.restore()
            client.cancel(1)
            top.see("cancelled", but=["cannot be asked"])
            proxy.freeze()
            top.see("the database has not answered for")
            top.press("?")
            top.see("cancel the job")
            top.press("qq")
            assert (top.ended(), top.restored) == (0, True)
            proxy.restore()
