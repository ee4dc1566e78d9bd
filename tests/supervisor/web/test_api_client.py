"""A client that another program generates from the document of the API, at work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.supervisor.web.serving import served
from tests.supervisor.web.shop import Shop

pytestmark = pytest.mark.timeout(300)  # it generates, formats nothing, and compiles 150 files


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    # A file: the server has threads, and the test is another one.
    made = Shop(f"sqlite:///{tmp_path}/jobs.db")
    yield made
    made.close()


def generated(document: dict[str, Any], folder: Path) -> None:
    """The package `jobvisor_client`, made of the document."""
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "settings.yml").write_text("post_hooks: []\n")
    words = ["generate", "--path", "openapi.json", "--config", "settings.yml"]
    words += ["--meta", "none", "--output-path", "jobvisor_client"]
    done = subprocess.run(
        [sys.executable, "-c", "from openapi_python_client.cli import app; app()", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr, done.stdout


def test_a_generated_client_posts_lists_cancels_and_requeues(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated(shop.get("/openapi.json").json(), tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def part(name: str) -> ModuleType:
        return import_module(f"jobvisor_client.{name}")

    models = part("models")
    with (
        served(shop.app) as port,
        part("client").Client(base_url=f"http://127.0.0.1:{port}") as client,
    ):

        def ask(operation: str, *arguments: Any, **named: Any) -> Any:
            return part(f"api.jobs.{operation}").sync(*arguments, client=client, **named)

        job = ask("enqueue_job", body=models.NewJob(task="app:add", args=[1, 2], priority=3))
        assert (job.id, job.priority, job.state.value, job.created) == (1, 3, "pending", True)
        assert [each.id for each in ask("list_jobs", limit=10).jobs] == [1]
        assert ask("cancel_job", 1).outcome == "cancelled"
        assert ask("requeue_job", 1).state.value == "pending"
        assert ask("get_job", 1).attempts == []
        refused = ask("get_job", 4711)
        assert (refused.status, refused.error) == (404, "JobNotFound")
