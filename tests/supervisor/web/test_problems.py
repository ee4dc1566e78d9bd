from __future__ import annotations

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from pydantic import BaseModel

from jobvisor import Client, errors
from jobvisor.jobs.errors import JobsError
from jobvisor.supervisor.web.app import create_app
from jobvisor.supervisor.web.problems import Problem
from tests.supervisor.web.visitor import visitor

router = APIRouter()


class Body(BaseModel):
    number: int


@router.post("/api/v1/body")
def take(body: Body) -> int:
    return body.number


def asking(error: Exception) -> TestClient:
    """A client of an application that raises this at two addresses, one for programs and one for people."""

    def fail() -> None:
        raise error

    app = create_app(Client("memory://"))
    app.include_router(router)
    app.add_api_route("/api/v1/fails", fail)
    app.add_api_route("/fails", fail)
    return visitor(app, raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.JobNotFound("no job has the id 7"), 404),
        (errors.IllegalMove("job 7 is finished"), 409),
        (errors.UniqueTaken("job 3 has the key", holder=3), 409),
        (errors.InvalidOption("priority=true must be a whole number"), 422),
        (errors.PayloadError("args[0]: nan has no JSON form"), 422),
        (errors.StoreUnavailable("the database is locked"), 503),
        (errors.ConfigError("config.toml: wrong"), 500),
        (errors.FamilyNotRunning(), 409),
    ],
)
def test_an_error_of_ours_is_a_problem_document_with_its_sentence(
    error: JobsError, status: int
) -> None:
    answer = asking(error).get("/api/v1/fails")
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["status"] == status
    assert told["detail"] == str(error)
    assert told["error"] == type(error).__name__


def test_who_holds_a_unique_key_is_told() -> None:
    answer = asking(errors.UniqueTaken("job 3 has the key", holder=3)).get("/api/v1/fails")
    assert answer.json()["holder"] == 3


def test_a_database_that_is_away_says_when_to_ask_again() -> None:
    answer = asking(errors.StoreUnavailable()).get("/api/v1/fails")
    assert int(answer.headers["retry-after"]) > 0


def test_an_error_nobody_thought_of_tells_nothing_of_itself() -> None:
    answer = asking(RuntimeError("the password is x")).get("/api/v1/fails")
    assert answer.status_code == 500
    assert answer.json()["error"] == "Internal"
    assert "password" not in answer.text


def test_a_browser_gets_a_page_with_the_sentence_escaped() -> None:
    answer = asking(Problem(403, "<b> may not")).get("/fails", headers={"accept": "text/html"})
    assert answer.status_code == 403
    assert answer.headers["content-type"].startswith("text/html")
    assert "&lt;b&gt; may not" in answer.text
    assert "<b>" not in answer.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/v1/nothing", 404), ("PATCH", "/api/v1/version", 405), ("GET", "/nothing", 404)],
)
def test_what_the_framework_refuses_is_a_problem_document_too(
    method: str, path: str, status: int
) -> None:
    answer = asking(Problem(400, "")).request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status


def test_another_method_is_told_which_there_are() -> None:
    assert asking(Problem(400, "")).patch("/api/v1/version").headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ('{"number": ', 400, "body: is no JSON: Expecting value"),
        ('{"number": "x"}', 422, "body.number: input should be a valid integer"),
        ("{}", 422, "body.number: is missing"),
    ],
)
def test_a_body_that_does_not_fit_is_told_by_its_place_and_never_by_its_value(
    body: str, status: int, detail: str
) -> None:
    answer = asking(Problem(400, "")).post(
        "/api/v1/body", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(detail)


def test_the_value_that_does_not_fit_is_not_sent_back() -> None:
    answer = asking(Problem(400, "")).post("/api/v1/body", json={"number": "hunter2"})
    assert answer.status_code == 422
    assert "hunter2" not in answer.text
