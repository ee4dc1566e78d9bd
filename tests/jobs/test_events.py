"""Subscribe and emit."""

from __future__ import annotations

import logging

import pytest

from jobvisor.jobs.events import Event, Events

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
