"""The API beside a real family: what its workers tell of their tasks, where they are, what they are told."""

from __future__ import annotations

import pytest

from jobvisor.supervisor.config import Web
from jobvisor.supervisor.web.app import create_app
from tests.supervisor.web.visitor import visitor
from tests.system.harness import MARK, Build
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

TASKS = f"""{MARK}
@task(queue="default", retries=1, timeout="1m", aliases=["app:old"])
def gated(n: int, *, password: str = ""):
    print("it began")
    mark("began", n)
    gate("go")  # the line
"""


@pytest.mark.lanes(1, 4)
def test_a_family_is_seen_and_steered_over_http(build: Build, lanes: int) -> None:
    house = build(TASKS, processes=1, concurrency=lanes)
    app = create_app(
        house.client, settings=Web(allow_tasks=("app:*",)), state_dir=str(house.state_dir)
    )
    web = visitor(app)
    process = house.start()
    house.wait_ready(process)

    def tasks() -> list[str]:
        return [each["name"] for each in web.get("/api/v1/tasks").json()["tasks"]]

    eventually(tasks, what="a worker has told of its tasks")
    [told] = web.get("/api/v1/tasks").json()["tasks"]
    assert (told["name"], told["aliases"]) == ("app:gated", ["app:old"])
    assert told["options"] == {"queue": "default", "retries": 1, "timeout": "1m"}

    # By its old name, with the options that it told of itself, and a password that nobody is shown.
    body = {"task": "app:old", "args": [7], "kwargs": {"password": "hunter2"}}
    made = web.post("/api/v1/jobs", json=body).json()
    assert (made["task"], made["attempts_max"], made["timeout"]) == ("app:gated", 2, 60)
    job = f"/api/v1/jobs/{made['id']}"
    house.wait_lines("began")
    assert "in gated" in web.get(f"{job}/stack").json()["stacks"][0]["stack"]
    eventually(lambda: web.get(job).json()["said"], what="its words are read where it runs")
    assert web.get(f"{job}/log").json()["runs"][-1]["outcome"] == "running"
    assert "hunter2" not in web.get(job).text

    def busy() -> bool:
        return any(w["job"] == made["id"] for w in web.get("/api/v1/workers").json()["workers"])

    eventually(busy, what="the status shows the job")
    [stack] = web.get("/api/v1/processes/caretaker/stack").json()["stacks"]
    assert stack["name"] == "caretaker"
    assert web.get("/api/v1/queues").json()["queues"]["default"]["served"] is True
    assert web.get("/api/v1/health").json()["healthy"] is True
    assert len(web.get("/api/v1/families").json()["families"]) == 1

    scaled = web.post("/api/v1/pools/default/scale", json={"workers": "+1"})
    assert (scaled.status_code, scaled.json()["workers"]) == (200, 2)
    assert web.post("/api/v1/pools/mail/scale", json={"workers": 1}).status_code == 422
    house.touch("go")
    house.wait_state(made["id"], "succeeded")
    asked = web.post("/api/v1/reload")
    assert (asked.status_code, asked.json()["number"]) == (202, 1)
    eventually(
        lambda: web.get("/api/v1/status").json()["reload"]["state"] == "done",
        what="the reload is done",
    )
    verbs = [each["verb"] for each in web.get("/api/v1/actions").json()["actions"]]
    assert verbs == ["reload", "scale", "enqueue"]
    assert house.stop(process) == 0
