"""Schedules over HTTP: what the API answers and refuses, what the page and its buttons do, the metrics."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest

from jobvisor import Client
from tests.supervisor.web.shop import Shop
from tests.supervisor.web.test_pages import HOSTILE, Place

NIGHTLY = {
    "name": "nightly", "task": "app:send", "args": ["a@b.c"], "kwargs": {"password": "secret"},
    "cron": "0 3 * * *", "timezone": "Europe/Berlin",
}  # fmt: skip


def noted(client: Client) -> list[tuple[str, str]]:
    return [(each.verb, each.what) for each in reversed(client.actions())]


def test_a_schedule_is_added_shown_paused_resumed_triggered_and_removed(shop: Shop) -> None:
    made = shop.post("/schedules", **NIGHTLY)
    assert made.status_code == 201, made.text
    told = made.json()
    assert (told["source"], told["words"]) == ("added", "At 03:00 every day, in Europe/Berlin")
    assert told["kwargs"] == {"password": "***"}
    assert len(told["next"]) == 3
    assert shop.get("/schedules").json() == {"schedules": [told]}
    assert shop.get("/schedules/nightly").json() == told
    paused = shop.post("/schedules/nightly/pause").json()
    assert (paused["paused"], paused["next"]) == ("run time", [])
    assert shop.post("/schedules/nightly/resume").json()["paused"] is None
    job = shop.post("/schedules/nightly/trigger")
    assert (job.status_code, job.json()["queue"]) == (201, "mail")
    assert job.json()["headers"] == {"schedule": "nightly"}
    assert shop.web.delete("/api/v1/schedules/nightly").status_code == 204
    assert shop.get("/schedules/nightly").status_code == 404
    assert noted(shop.client) == [
        ("schedule", "schedule nightly: app:send 0 3 * * * Europe/Berlin"),
        ("pause", "schedule nightly"),
        ("resume", "schedule nightly"),
        ("trigger", f"schedule nightly, job {job.json()['id']}"),
        ("unschedule", "schedule nightly"),
    ]


@pytest.mark.parametrize(
    ("changed", "status", "message"),
    [
        ({"cron": "61 * * * *"}, 422, "is no cron expression (bad minute)"),
        ({"timezone": "Mars"}, 422, "is no time zone known here"),
        ({"every": "5m"}, 422, "both say when"),
        ({"cron": None}, 422, "neither cron nor every"),
        ({"anchor": "soon"}, 422, "anchor"),
        ({"args": []}, 422, "missing a required argument: 'to'"),
        ({"task": "app:sent"}, 422, "did you mean 'app:send'"),
        ({"task": "other:send"}, 403, "allow_tasks"),
        ({"catch_up": "some"}, 422, "catch_up"),
        ({"crom": "x"}, 422, "crom"),
        ({"name": ""}, 422, "name"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    here: Shop, changed: dict[str, Any], status: int, message: str
) -> None:
    answer = here.post("/schedules", **(NIGHTLY | changed))
    assert answer.status_code == status, answer.text
    assert message in json.dumps(answer.json())
    assert here.get("/schedules").json() == {"schedules": []}


def test_a_name_is_taken_once_and_may_be_any_text(here: Shop) -> None:
    assert here.post("/schedules", **NIGHTLY).status_code == 201
    again = here.post("/schedules", **NIGHTLY)
    assert (again.status_code, again.json()["error"]) == (409, "ScheduleTaken")
    assert here.post("/schedules", **NIGHTLY, replace=True).status_code == 201
    name = "app/x:f ?#%"
    assert here.post("/schedules", **(NIGHTLY | {"name": name})).status_code == 201
    at = f"/schedules/{quote(name, safe='')}"
    assert here.post(f"{at}/pause").json()["paused"] == "run time"
    assert here.get(at).json()["name"] == name
    assert here.web.delete(f"/api/v1{at}").status_code == 204
    assert here.post("/schedules/unknown/trigger").status_code == 404


def test_a_site_that_is_read_only_changes_no_schedule() -> None:
    shop = Shop(read_only=True)
    assert shop.post("/schedules", **NIGHTLY).status_code == 403
    shop.client.schedules.add("s", "app:add", every="1h")
    for verb in ("pause", "resume", "trigger"):
        assert shop.post(f"/schedules/s/{verb}").status_code == 403
    assert shop.web.delete("/api/v1/schedules/s").status_code == 403
    shop.close()


def test_a_task_whose_key_a_function_makes_can_be_scheduled_without_that_key(here: Shop) -> None:
    made = here.post("/schedules", name="s", task="app:once", args=[1], every="1h")
    assert made.status_code == 201, made.text


def test_the_page_shows_them_and_its_buttons_do_what_they_say() -> None:
    place = Place()
    assert "No schedule" in place.page("/schedules")
    place.jobs.schedules.add("s", "app:send", every="15m", args=["a"], kwargs={"password": "x"})
    place.jobs.schedules.add(HOSTILE, "app:send", every="1h", args=[HOSTILE], overlap="skip")
    shown = place.page("/schedules")
    assert "every 15m" in shown
    assert "overlap skip" in shown
    assert "<script>alert(1)" not in shown
    assert '"x"' not in shown
    place.form("/schedules/pause", name="s")
    assert place.jobs.schedules.get("s").paused == "run time"
    assert "paused" in place.page("/schedules")
    place.form("/schedules/resume", name="s")
    assert place.said() == "Schedule s goes on."
    where = place.form("/schedules/trigger", name="s")
    assert where.startswith("/jobs/")
    assert "Remove schedule" in place.form("/schedules/remove", 200, name=HOSTILE)
    place.form("/schedules/remove", name=HOSTILE, sure="yes")
    assert [each.name for each in place.jobs.schedules.list()] == ["s"]
    assert [verb for verb, _, _ in place.actions()] == ["unschedule", "trigger", "resume", "pause"]


def test_a_late_schedule_and_one_that_never_ticks_need_attention() -> None:
    place = Place()
    place.jobs.schedules.add("s", "app:send", every="1s", args=["a"])
    place.jobs.schedules.add("t", "app:send", cron="0 3 * * *", args=["a"])
    with place.jobs._store() as store:
        store.move_schedule("s", 0)
        row = store.schedule("t").row
        store.remove_schedule("t")
        store.import_schedules([row._replace(timezone="Mars")])
    shown = place.page("/")
    assert "Schedule s has been due for" in shown
    assert "Schedule t never ticks" in shown


def test_metrics_tell_when_each_ticks_and_whether_it_is_late(here: Shop) -> None:
    text = here.web.get("/metrics").text
    assert "jobvisor_schedule" not in text
    here.client.schedules.add("s", "app:add", every="1h")
    here.client.schedules.add("t", "app:add", every="1h", paused=True)
    here.app.state.metrics._told.clear()
    here.app.state.metrics._look._due_ns = 0
    text = here.web.get("/metrics").text
    assert 'jobvisor_schedule_paused{schedule="t"} 1.0' in text
    assert 'jobvisor_schedule_late_seconds{schedule="s"} 0.0' in text
    assert 'jobvisor_schedule_next_tick_timestamp_seconds{schedule="s"}' in text
    assert 'jobvisor_schedule_next_tick_timestamp_seconds{schedule="t"}' not in text
