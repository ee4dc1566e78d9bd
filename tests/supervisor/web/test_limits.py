"""Limits over HTTP: what the API answers and refuses, what the page and its form do, the metrics."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobvisor.jobs.limit import LimitStanding, limit_of
from jobvisor.supervisor.web.pages.limits import _limit
from tests.supervisor.web.shop import Shop
from tests.supervisor.web.test_pages import HOSTILE, Place

SAID = {"concurrency": 2, "rate": "100/1m", "burst": 20}


def put(shop: Shop, name: str, **body: Any) -> Any:
    return shop.web.put(f"/api/v1/limits/{name}", json=body)


def test_a_limit_is_set_shown_and_removed(shop: Shop) -> None:
    assert shop.get("/limits").json() == {"limits": [], "unknown": []}
    made = put(shop, "stripe", **SAID)
    told = {"name": "stripe", **SAID, "source": "set"}
    assert (made.status_code, made.json()) == (200, told)
    (listed,) = shop.get("/limits").json()["limits"]
    assert listed == {**told, "running": 0, "waiting": 0, "keys": 0}
    assert put(shop, "stripe", concurrency=1).json()["rate"] is None
    removed = shop.web.delete("/api/v1/limits/stripe")
    assert removed.json() == {"name": "stripe", "removed": True}
    assert shop.web.delete("/api/v1/limits/stripe").status_code == 404
    assert [(each.verb, each.what) for each in reversed(shop.client.actions())] == [
        ("limit", "stripe: 2 at once, 100/1m, 20 after a rest"),
        ("limit", "stripe: 1 at once"),
        ("limit", "stripe: removed"),
    ]


def test_jobs_that_wait_are_counted_and_a_limit_that_nobody_set_is_named(shop: Shop) -> None:
    put(shop, "busy", concurrency=0)
    for limit in ("busy", "busy:a", "unset:x"):
        made = shop.post("/jobs", task="app:add", args=[1], limit=limit)
        assert (made.status_code, made.json()["limit"]) == (201, limit)
    assert shop.client.run_one(["default"]) is None
    told = shop.get("/limits").json()
    assert [(each["name"], each["waiting"]) for each in told["limits"]] == [("busy", 2)]
    assert told["unknown"] == ["unset"]
    text = shop.web.get("/metrics").text
    assert 'jobvisor_limit_waiting{limit="busy"} 2.0' in text
    assert 'jobvisor_limit_concurrency{limit="busy"} 0.0' in text


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a", {}, "limits nothing"),
        ("a", {"concurrency": -1}, "concurrency"),
        ("a", {"concurrency": "5"}, "concurrency"),
        ("a", {"rate": "fast"}, "is no rate"),
        ("a", {"rate": "1/1s", "burst": 0}, "burst"),
        ("a", {"burst": 5, "concurrency": 1}, "goes with a rate"),
        ("a", {"concurrencies": 1}, "concurrencies"),
        ("a b", {"concurrency": 1}, "name"),
        ("a:b", {"concurrency": 1}, "name"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(
    here: Shop, name: str, body: dict[str, Any], message: str
) -> None:
    answer = put(here, name, **body)
    assert answer.status_code == 422, answer.text
    assert message in json.dumps(answer.json())
    assert here.get("/limits").json()["limits"] == []
    assert here.post("/jobs", task="app:add", args=[1], limit=":x").status_code == 422


def test_a_site_that_is_read_only_changes_no_limit() -> None:
    shop = Shop(read_only=True)
    assert put(shop, "stripe", concurrency=1).status_code == 403
    assert shop.web.delete("/api/v1/limits/stripe").status_code == 403
    shop.close()


def test_the_page_shows_them_and_its_form_does_what_it_says() -> None:
    place = Place()
    assert "No limit" in place.page("/limits")
    place.form("/limits/set", name="stripe", concurrency="5", rate=" 100/1m ", burst="")
    assert place.said() == "Limit stripe: 5 at once, 100/1m, 2 after a rest."
    place.form("/limits/set", 422, name=HOSTILE, concurrency="5", rate="", burst="")
    place.form("/limits/set", 422, name="gpu", concurrency="many", rate="", burst="")
    shown = place.page("/limits")
    assert "100/1m" in shown
    assert "set at run time" in shown
    assert "Remove limit" in place.form("/limits/remove", 200, name="stripe")
    place.form("/limits/remove", name="stripe", sure="yes")
    assert "No limit" in place.page("/limits")


def test_blocked_jobs_have_a_place_on_the_pages_where_there_are_some() -> None:
    place = Place()
    place.jobs.enqueue("app:send", "a@b.c")
    assert "Blocked" not in place.page("/queues") + place.page("/")
    job = place.jobs.enqueue(place.jobs.call("app:send", "x", options={"limit": "unset:7"})).id
    while place.jobs.run_one():
        pass
    assert 'data-label="Blocked"' in place.page("/queues")
    first = place.page("/")
    assert "state=blocked" in first
    assert "wait for the limit unset, which nobody has set" in first
    shown = place.page(f"/jobs/{job}")
    assert "unset:7" in shown
    assert "Waited" not in shown


def test_what_is_counted_no_further_says_so() -> None:
    limit = LimitStanding(limit_of("smtp", concurrency=1), running=1, waiting=10_000, keys=3)
    assert _limit(limit)["waiting"] == "10,000+"
