"""One frozen event per verb: subscribe to what happened to jobs in this process.

Events are told by whoever changed the row, after the commit. Logging is merely a subscriber, and a
test waits for an event instead of sleeping.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Event:
    """One verb that was done to one job."""

    verb: str
    """A verb of MOVES: enqueue, claim, succeed, retry, ..."""
    job: int
    task: str
    queue: str
    attempt: int = 0
    attempts_max: int = 0
    error: str | None = None
    """The failure in one line."""
    delay_ms: int = 0
    """For retry and snooze: how much later."""
    owner: int | None = None
    kind: str | None = None
    """The outcome in one word, as in `attempts.outcome`."""


Subscriber = Callable[[Event], None]


class Events:
    """Who wants to know. Subscribers are called in their order, in the thread that changed the row.

    >>> events, seen = Events(), []
    >>> unsubscribe = events.subscribe(seen.append)
    >>> events.emit(Event("succeed", 1, "app:f", "default"))
    >>> unsubscribe()
    >>> [event.verb for event in seen], events.active
    (['succeed'], False)
    """

    __slots__ = ("_broken", "_subscribers", "active")

    def __init__(self) -> None:
        # Replaced, never changed, so that emit needs no lock while another thread subscribes.
        self._subscribers: tuple[Subscriber, ...] = ()
        self._broken: set[int] = set()
        self.active = False
        """Whether anybody listens: hot paths look before they build an event."""

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call it with each event from now on; returns what ends that."""
        self._set((*self._subscribers, subscriber))

        def unsubscribe() -> None:
            self._set(tuple(one for one in self._subscribers if one is not subscriber))

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell everybody. A subscriber that raises is logged once and never breaks a job."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception as error:  # noqa: BLE001 -- the row is changed already
                self._note_broken(subscriber, error)

    def _set(self, subscribers: tuple[Subscriber, ...]) -> None:
        self._subscribers = subscribers
        self.active = bool(subscribers)

    def _note_broken(self, subscriber: Subscriber, error: Exception) -> None:
        if id(subscriber) in self._broken:
            return
        self._broken.add(id(subscriber))
        # The words are in log.py, which stands below this file on the map and finds them by the
        # name.
        fields = {"subscriber": repr(subscriber), "error": repr(error)}
        logging.getLogger("jobvisor").error(
            "subscriber_broken", extra={"line": "subscriber_broken", "fields": fields}
        )
