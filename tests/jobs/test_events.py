"""Subscribe and emit."""

from __future__ import annotations

import logging

import pytest

from jobvisor import Client, Fail, subscribe
from jobvisor.jobs.events import WAITING_MAX, Event, Events
from jobvisor.jobs.log import is_logged, log_event
from jobvisor.jobs.registry import Registry

EVENT = Event("succeed", 1, "app:f", "default")


def test_subscribers_are_told_in_their_order_until_they_leave() -> None:
    events, seen = Events(), list[str]()
    leave = events.subscribe(lambda event: seen.append(f"first {event.job}"))
    events.subscribe(lambda event: seen.append(f"second {event.job}"))
    events.emit(EVENT)
    leave()
    events.emit(EVENT)
    assert seen == ["first 1", "second 1", "second 1"]


def test_leaving_twice_is_harmless_and_nobody_left_means_inactive() -> None:
    events = Events()
    leave = events.subscribe(lambda _event: None)
    assert events.active
    leave()
    leave()
    assert not events.active


def test_a_verb_is_heard_by_a_log_only_at_its_level(caplog: pytest.LogCaptureFixture) -> None:
    events = Events()
    leave = events.subscribe(log_event, hears=is_logged)
    with caplog.at_level(logging.WARNING, "jobvisor"):
        assert (events.is_heard("enqueue"), events.is_heard("fail")) == (False, True)
    with caplog.at_level(logging.DEBUG, "jobvisor"):
        assert events.is_heard("enqueue")
    leave()
    assert not events.is_heard("fail")


def test_a_subscriber_that_raises_is_logged_once_and_the_others_are_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("jobvisor"), "propagate", True)
    events, seen = Events(), list[Event]()

    def broken(event: Event) -> None:
        raise ValueError(event)

    events.subscribe(broken)
    events.subscribe(seen.append)
    events.emit(EVENT)
    events.emit(EVENT)
    assert len(seen) == 2
    assert [record.message for record in caplog.records] == ["subscriber_broken"]


def test_a_subscriber_may_leave_while_it_is_told() -> None:
    events, seen = Events(), list[int]()

    def once(event: Event) -> None:
        seen.append(event.job)
        leave()

    leave = events.subscribe(once)
    events.emit(EVENT)
    events.emit(EVENT)
    assert seen == [1]


def test_who_subscribed_for_the_process_hears_of_every_store() -> None:
    seen: list[Event] = []
    leave = subscribe(seen.append)
    one, other = Events(), Events()
    assert one.active
    assert one.of_all
    one.emit(EVENT)
    other.emit(EVENT)
    leave()
    leave()
    one.emit(EVENT)
    assert seen == [EVENT, EVENT]
    assert not one.active


def test_what_waits_is_told_later_and_is_bounded() -> None:
    seen: list[int] = []
    leave = subscribe(lambda event: seen.append(event.job))
    events = Events(waits=True)
    for number in range(WAITING_MAX + 5):
        events.emit(Event("succeed", number, "app:f", "default"))
    assert (seen, events.has_waiting()) == ([], True)
    events.tell()
    assert seen == list(range(5, WAITING_MAX + 5))
    assert not events.has_waiting()
    leave()


def test_an_application_is_told_of_its_own_verbs_and_of_what_it_runs() -> None:
    registry = Registry()
    fine = registry.task(lambda: None, name="app:fine")

    @registry.task(name="app:bad")
    def bad() -> None:
        raise Fail("why")

    seen: list[Event] = []
    leave = subscribe(seen.append)
    with Client("memory://", registry=registry) as client:
        for each in (fine, bad):
            client.enqueue(each)
            client.run_one()
    leave()
    assert [(event.verb, event.task, event.attempt) for event in seen] == [
        ("enqueue", "app:fine", 0), ("claim", "app:fine", 1), ("succeed", "app:fine", 1),
        ("enqueue", "app:bad", 0), ("claim", "app:bad", 1), ("fail", "app:bad", 1),
    ]  # fmt: skip
    assert seen[-1].error == "why"
