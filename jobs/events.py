"""One frozen event per verb: subscribe to what happened to jobs in this process.

Events are told by whoever changed the row, after the commit. Logging is merely a subscriber, and a
test waits for an event instead of sleeping.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from jobvisor.jobs.job import Claimed

WAITING_MAX = 10_000  # events that are kept until they can be told; older ones are dropped


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
    kind: str | None = None
    """The outcome in one word, as in `attempts.outcome`."""


Subscriber = Callable[[Event], None]


def _any_verb(_verb: str) -> bool:
    return True


class Events:
    """Who wants to know. Subscribers are called in their order, in the thread that changed the row.

    >>> events, seen = Events(), []
    >>> unsubscribe = events.subscribe(seen.append)
    >>> events.emit(Event("retry", 1, "app:f", "default"))
    >>> unsubscribe()
    >>> [event.verb for event in seen], events.active
    (['retry'], False)
    """

    __slots__ = ("_broken", "_hearing", "_subscribers", "_waiting")

    def __init__(self, *, waits: bool = False) -> None:
        """`waits`: those who subscribed for the whole process are told at the next `tell`.

        A worker tells them while no connection of its own is open: they are a user's code.
        """
        # Replaced, never changed, so that emit needs no lock while another thread subscribes.
        self._subscribers: tuple[Subscriber, ...] = ()
        self._hearing: tuple[tuple[Subscriber, Callable[[str], bool]], ...] = ()
        self._broken: set[int] = set()
        self._waiting: deque[Event] | None = deque(maxlen=WAITING_MAX) if waits else None

    @property
    def active(self) -> bool:
        """Whether anybody listens: hot paths look before they build an event."""
        return bool(self._subscribers or _process.subscribers)

    @property
    def of_all(self) -> bool:
        """Whether somebody listens who is told of each claim and each success, too."""
        return bool(_process.subscribers)

    def is_heard(self, verb: str) -> bool:
        """Whether somebody does something with an event of this verb: a log may be too high for it."""
        return bool(_process.subscribers) or any(hears(verb) for _one, hears in self._hearing)

    def subscribe(
        self, subscriber: Subscriber, *, hears: Callable[[str], bool] = _any_verb
    ) -> Callable[[], None]:
        """Call it with each event from now on; returns what ends that.

        `hears` says of a verb whether the subscriber does anything with it just now: of the many events
        of a bulk none is made that nobody wants.
        """
        self._subscribers = (*self._subscribers, subscriber)
        self._hearing = (*self._hearing, (subscriber, hears))

        def unsubscribe() -> None:
            self._subscribers = tuple(one for one in self._subscribers if one is not subscriber)
            self._hearing = tuple(each for each in self._hearing if each[0] is not subscriber)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell everybody. A subscriber that raises is logged once and never breaks a job."""
        self._tell(self._subscribers, event)
        if _process.subscribers and self._waiting is not None:
            self._waiting.append(event)
        else:
            self._tell(_process.subscribers, event)

    def has_waiting(self) -> bool:
        """Whether something is to be told."""
        return bool(self._waiting)

    def tell(self) -> None:
        """Tell those of the whole process what has waited for it."""
        while self._waiting:
            self._tell(_process.subscribers, self._waiting.popleft())

    def _tell(self, subscribers: tuple[Subscriber, ...], event: Event) -> None:
        for subscriber in subscribers:
            try:
                subscriber(event)
            except Exception as error:  # noqa: BLE001 -- the row is changed already
                self._note_broken(subscriber, error)

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


def event_of(verb: str, job: Claimed) -> Event:
    """What is told of a claimed job."""
    return Event(verb, job.id, job.task, job.queue, job.attempt, job.attempts_max)


class _Process:
    subscribers: tuple[Subscriber, ...] = ()


_process = _Process()


def subscribe(subscriber: Subscriber) -> Callable[[], None]:
    """Call it with each event of this process from now on; returns what ends that.

    It is told what this process did: an application's enqueues, cancels and requeues; of a worker, in
    a module of `[tasks] modules`, its claims and the ends of its jobs, once these are in the database.
    What the supervisor settles for a worker that has died is told by nobody. It is called between two
    jobs: what it takes its time for keeps the worker from the next.
    """
    _process.subscribers = (*_process.subscribers, subscriber)

    def unsubscribe() -> None:
        _process.subscribers = tuple(one for one in _process.subscribers if one is not subscriber)

    return unsubscribe
