"""A queue is made fair, and ordinary again, over HTTP and by the button of its page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobvisor.jobs.job import Terms
from tests.store.making import new
from tests.supervisor.web.shop import Shop
from tests.supervisor.web.test_pages import Place, _form_of


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.jobs.close()


def put(shop: Shop, queue: str, **body: Any) -> Any:
    return shop.web.put(f"/api/v1/queues/{queue}/fair", json=body)


def test_a_queue_is_made_fair_over_http_and_noted(here: Shop) -> None:
    assert put(here, "mail", fair=True).json() == {"queue": "mail", "fair": True, "changed": True}
    assert not put(here, "mail", fair=True).json()["changed"]
    assert here.get("/queues").json()["queues"]["mail"]["fair"]
    assert put(here, "mail", fair=False).json()["changed"]
    noted = [(each["verb"], each["what"]) for each in here.get("/actions").json()["actions"]]
    assert noted == [("fair", "queue mail off"), ("fair", "queue mail on")]


@pytest.mark.parametrize("body", [{}, {"fair": "perhaps"}, {"fair": True, "weight": 3}])
def test_what_does_not_say_whether_it_is_fair_is_refused(here: Shop, body: dict[str, Any]) -> None:
    assert put(here, "mail", **body).status_code == 422
    assert here.client.fair_queues() == []


def test_the_page_offers_to_make_a_queue_fair_whose_jobs_have_shares(place: Place) -> None:
    place.jobs.enqueue("app:send", "a@b.c")
    assert "Make fair" not in place.page("/queues")
    with place.jobs._store() as store:
        store.enqueue_one(new(queue="reports", terms=Terms(share="tenant-7")))
    queue = "reports"
    assert "Make fair" in place.page("/queues")
    asked = place.form("/queues/fair", 200, queue=queue, fair="on", back="/queues")
    assert f"Make queue {queue} fair?" in asked
    assert place.jobs.fair_queues() == []
    place.form("/queues/fair", queue=queue, fair="on", back="/queues", sure="yes")
    assert place.said() == f"Queue {queue} is fair."
    assert place.jobs.fair_queues() == [queue]
    assert "Make ordinary" in _form_of(place.page("/queues"), 'value="off"')
    place.form("/queues/fair", queue=queue, fair="off", sure="yes")
    assert place.jobs.fair_queues() == []
    assert [each[:2] for each in place.actions()[:2]] == [
        ("fair", f"queue {queue} off"),
        ("fair", f"queue {queue} on"),
    ]
