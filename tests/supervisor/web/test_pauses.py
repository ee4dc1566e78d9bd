"""Pauses over HTTP and on the pages, and what metrics and the first page say of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobvisor.jobs.annals import Paused
from jobvisor.supervisor.web.api import documents
from jobvisor.supervisor.web.depths import DepthLook
from jobvisor.supervisor.web.measures import of_depths
from tests.supervisor.web.shop import Shop
from tests.supervisor.web.test_pages import Place, _form_of


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.jobs.close()


def test_a_queue_is_paused_and_resumed_over_http_and_noted(here: Shop) -> None:
    told = here.post("/queues/mail/pause", until="2h").json()
    assert (told["kind"], told["name"]) == ("queue", "mail")
    assert told["until"] > told["since"]
    assert here.get("/paused").json() == {"paused": [told]}
    queues = here.get("/queues").json()["queues"]
    assert queues["mail"]["paused"] == {"since": told["since"], "until": told["until"]}
    assert here.post("/queues/mail/resume").json()["was_paused"]
    assert not here.post("/queues/mail/resume").json()["was_paused"]
    noted = [(each["verb"], each["what"]) for each in here.get("/actions").json()["actions"]]
    assert noted[:2] == [("resume", "queue mail"), ("pause", "queue mail")]


def test_a_task_is_paused_over_http_by_its_whole_name(here: Shop) -> None:
    job = here.client.enqueue("app:add", 1)
    assert here.post("/tasks/app:add/pause").status_code == 200
    assert here.client.run_one() is None
    assert here.client.get(job.id).parked == "task:app:add"
    here.post("/tasks/app:add/resume")
    assert here.run().id == job.id


@pytest.mark.parametrize(
    ("path", "body", "word"),
    [
        ("/queues/mail/pause", {"until": "soon"}, "soon"),
        ("/queues/mail/pause", {"until": "2001-01-01T00:00Z"}, "has passed"),
        ("/queues/mail/pause", {"for": "2h"}, "for"),
        ("/queues/no queue/pause", {}, "queue"),
    ],
)
def test_a_pause_that_cannot_be_is_refused_over_http(
    here: Shop, path: str, body: dict[str, str], word: str
) -> None:
    answer = here.post(path, **body)
    assert answer.status_code == 422
    assert word in answer.text
    assert here.client.paused() == []


def test_the_document_of_a_pause_has_the_members_that_are_sent() -> None:
    assert set(documents.Paused.model_fields) == set(Paused._fields)


def test_an_expiry_and_a_deadline_are_options_over_http(here: Shop) -> None:
    job = here.post("/jobs", task="app:add", expires_at="2100-01-01T00:00Z", deadline="1h").json()
    assert job["expires_at"].startswith("2100-01-01T00:00:00")
    assert job["deadline_at"] is not None
    refused = here.post("/jobs", task="app:add", expires_at="2100-01-01T00:00Z", expires_in="1h")
    assert refused.status_code == 422
    assert "expires_in and expires_at" in refused.text


def test_the_pages_pause_after_a_question_and_resume_at_once(place: Place) -> None:
    place.jobs.enqueue("app:send", "a@b.c")
    assert "Pause" in _form_of(place.page("/queues"), 'value="mail"')
    asked = place.form("/pauses/pause", 200, queue="mail", back="/queues")
    assert "Pause queue mail?" in asked
    assert place.jobs.paused() == []
    assert place.form("/pauses/pause", queue="mail", back="/queues", sure="yes") == "/queues"
    assert place.said() == "Queue mail is paused."
    assert "Resume" in _form_of(place.page("/queues"), 'value="mail"')
    assert "Queue mail is paused" in place.page("/")
    assert place.form("/pauses/resume", queue="mail", back="/queues") == "/queues"
    assert place.jobs.paused() == []
    assert place.actions()[:2] == [("resume", "queue mail", None), ("pause", "queue mail", None)]


def test_the_page_of_tasks_shows_a_pause_also_of_one_that_nobody_has_told_of(place: Place) -> None:
    place.jobs.note_tasks({"app:send": {"options": {}}})
    place.jobs.pause(task="app:send")
    place.jobs.pause(task="app:gone")
    page = place.page("/tasks")
    assert "Resume" in _form_of(page, 'value="app:send"')
    assert "app:gone" in page
    place.form("/pauses/resume", task="app:gone")
    assert [each.name for each in place.jobs.paused()] == ["app:send"]


def test_metrics_tell_what_is_paused_and_fair(here: Shop) -> None:
    here.client.pause("mail")
    here.client.pause(task="app:send")
    here.client.set_fair("reports")
    seen = DepthLook(here.client).see()
    assert seen is not None
    told = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in of_depths(seen, {})
        for sample in metric.samples
    }
    assert told["jobvisor_queue_paused", "mail"] == 1
    assert [told["jobvisor_queue_fair", queue] for queue in ("mail", "reports")] == [0, 1]
    assert told["jobvisor_task_paused", "app:send"] == 1


def test_processes_are_not_wanted_for_what_a_paused_queue_holds(here: Shop) -> None:
    here.client.enqueue("app:add", 1)
    here.client.enqueue("app:send", "a@b.c")
    here.client.pause("mail")
    seen = DepthLook(here.client).see()
    assert seen is not None
    status = {"scaling": {"pool": {"queues": ["default", "mail"]}}}
    [wanted] = [each for each in of_depths(seen, status) if "wanted" in each.name]
    assert [sample.value for sample in wanted.samples] == [1]


def test_a_paused_task_is_shown_where_no_worker_has_told_of_any(place: Place) -> None:
    place.jobs.pause(task="app:gone")
    page = place.page("/tasks")
    assert "No task is known" in page
    assert "Resume" in _form_of(page, 'value="app:gone"')
