"""What there is to see beside single jobs: failures, tasks, queues, statistics, families."""

from __future__ import annotations

from pathlib import Path

import pytest
from openapi_spec_validator import validate

from jobvisor.jobs.annals import Action, Family, FamilyLife, KnownTask, Sums
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.found import Group
from jobvisor.jobs.schedule import Schedule
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.web.api import documents
from jobvisor.supervisor.web.app import create_app
from tests.supervisor.web.shop import API, Shop
from tests.supervisor.web.visitor import visitor


def test_the_document_of_the_api_is_valid(here: Shop) -> None:
    document = here.get("/openapi.json").json()
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_each_operation_has_a_name_and_tells_of_its_refusals(here: Shop) -> None:
    paths = here.get("/openapi.json").json()["paths"]
    operations = [operation for path in paths.values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    of_api = [
        operation
        for path, each in paths.items()
        if path.startswith(API) and path != f"{API}/version"
        for operation in each.values()
    ]
    assert len(of_api) > 20
    for operation in of_api:
        refusals = {
            status: told for status, told in operation["responses"].items() if status >= "400"
        }
        assert {"401", "403", "503"} <= set(refusals), operation["operationId"]
        for told in refusals.values():
            assert list(told["content"]) == ["application/problem+json"]


@pytest.mark.parametrize(
    ("model", "thing", "more"),
    [
        (documents.Sums, Sums, {"at"}),
        (documents.Action, Action, set()),
        (documents.Family, Family, set()),
        (documents.Life, FamilyLife, set()),
        (documents.Group, Group, {"jobs", "at_least"}),
        (documents.Schedule, Schedule, set()),
        (documents.Task, KnownTask, {"doc", "aliases", "options", "parameters", "arguments"}),
    ],
)
def test_the_document_of_the_api_has_the_members_that_are_sent(
    model: type[documents.Document], thing: type, more: set[str]
) -> None:
    fields = getattr(thing, "_fields", None) or thing.__slots__  # type: ignore[attr-defined]
    assert set(model.model_fields) == {*fields, *more} - {"at_ms", "count", "told"}


def test_failures_are_grouped_by_task_and_error(shop: Shop) -> None:
    shop.failed()
    last = shop.failed("KeyError")
    shop.failed()
    told = shop.get("/failures").json()
    assert [(each["error_type"], each["jobs"]) for each in told["groups"]] == [
        ("ValueError", 2),
        ("KeyError", 1),
    ]
    assert told["groups"][1]["example"] == last
    assert shop.get("/failures", since="2999-01-01T00:00Z").json()["groups"] == []
    assert shop.get("/failures", since="long").status_code == 422


def test_tasks_are_told_with_options_and_parameters(shop: Shop) -> None:
    told = {each["name"]: each for each in shop.get("/tasks").json()["tasks"]}
    assert set(told) == {"app:add", "app:fail", "app:once", "app:send"}
    sends = told["app:send"]
    assert sends["doc"] == "Send a mail."
    assert sends["options"]["retry"]["first"] == "2s"
    assert [each["name"] for each in sends["parameters"]] == ["to", "subject", "password"]
    assert sends["arguments"]["required"] == ["to"]


def test_queues_are_told_with_depth_and_latency(shop: Shop) -> None:
    shop.failed()
    shop.client.enqueue("app:send", "a@b.c")
    told = shop.get("/queues").json()
    assert told["queues"]["default"]["failed"] == 1
    assert told["queues"]["mail"]["pending"] == 1
    assert told["queues"]["mail"]["oldest_pending_ms"] >= 0
    assert told["queues"]["mail"]["served"] is None


def test_statistics_are_sums_by_the_minute(shop: Shop) -> None:
    now = SYSTEM.now_ms()
    shop.client.add_stats([Sums(now, "mail", succeeded=2), Sums(now, "default", succeeded=1)])
    [of_all] = shop.get("/statistics").json()["sums"]
    [of_one] = shop.get("/statistics", since="24h", queue="mail").json()["sums"]
    assert (of_all["succeeded"], of_one["succeeded"]) == (3, 2)
    assert shop.get("/statistics", since="2h").status_code == 422


def test_families_are_those_of_the_database(shop: Shop) -> None:
    assert shop.get("/families").json() == {"families": []}


@pytest.mark.parametrize("path", ["/health", "/status", "/workers", "/processes/worker 1/stack"])
def test_what_a_family_of_this_machine_tells_is_refused_where_none_is_known(
    here: Shop, path: str
) -> None:
    assert here.get(path).status_code == 409


def test_a_family_that_does_not_run_is_told_as_such(here: Shop, tmp_path: Path) -> None:
    StateDir(str(tmp_path)).create()
    web = visitor(create_app(here.client, state_dir=str(tmp_path)))
    assert web.get(f"{API}/health").json()["reason"] == "not running"
    assert web.get(f"{API}/status").json()["state"] == "stopped"
    assert web.get(f"{API}/workers").json() == {"workers": []}
    assert web.get(f"{API}/processes/worker 1/stack").status_code == 404
    for path, body in {"/reload": {}, "/pools/default/scale": {"workers": 2}}.items():
        answer = web.post(f"{API}{path}", json=body)
        assert (answer.status_code, answer.json()["error"]) == (409, "FamilyNotRunning")


@pytest.mark.parametrize("workers", ["two", "1.5", 1.5, True, -1, None])
def test_a_number_of_workers_that_is_none_is_refused(here: Shop, workers: object) -> None:
    assert here.post("/pools/default/scale", workers=workers).status_code == 422


@pytest.mark.parametrize("path", ["/status", "/workers", "/health"])
def test_a_status_that_is_damaged_may_be_whole_in_a_moment(
    here: Shop, tmp_path: Path, path: str
) -> None:
    state = StateDir(str(tmp_path))
    state.create()
    (tmp_path / "status.json").write_text('{"family": "ma')
    web = visitor(create_app(here.client, state_dir=str(tmp_path)))
    answer = web.get(f"{API}{path}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert web.get(f"{API}/queues").status_code == 200


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/failures", {"sinse": "1h"}),
        ("/failures", {"since": ["1h", "2h"]}),
        ("/actions", {"queue": "x"}),
        ("/statistics", {"since": "1h", "hours": 1}),
        ("/queues", {"queue": "x"}),
        ("/jobs/1", {"x": ""}),
    ],
)
def test_a_query_that_nobody_reads_is_refused(
    here: Shop, path: str, query: dict[str, object]
) -> None:
    here.client.enqueue("app:add")
    answer = here.get(path, **query)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("query.")
