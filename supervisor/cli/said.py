"""What was said at run time of limits, queues and tasks, as an export carries it: a line for each.

What is paused must not begin on the other database either, and a limit that nobody has said there blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from jobvisor.jobs.annals import QUEUE, TASK
from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SYSTEM, from_datetime, to_datetime
from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.limit import SET, limit_of

KINDS = {
    "limit": ("name", "concurrency", "rate", "burst"),
    "pause": ("kind", "name", "until"),
    "fair": ("name",),
}


class Said(NamedTuple):
    """One of these: its kind, and what it is."""

    kind: str
    told: dict[str, Any]

    def tell(self, client: Client) -> None:
        """Say it of this client's database, unless something else is said there already."""
        told = self.told
        if self.kind == "limit":
            known = {each.limit.name for each in client.limits.list() if each.limit.source == SET}
            if told["name"] not in known:
                client.limits.set(**told)
        elif self.kind == "fair":
            client.set_fair(told["name"])
        elif (told["kind"], told["name"]) not in {each[:2] for each in client.paused()}:
            self._pause(client)

    def _pause(self, client: Client) -> None:
        kind, name, until = self.told.values()
        if until is None or until > SYSTEM.now_ms():  # else it would have ended
            moment = None if until is None else to_datetime(until)
            client.pause(**{kind: name}, until=moment)


def said_in(client: Client) -> Iterator[Said]:
    """All of a database: what a config says is said by its family."""
    for each in client.limits.list():
        if each.limit.source == SET:
            told = each.limit.as_json()
            yield Said("limit", {key: told[key] for key in KINDS["limit"]})
    for paused in client.paused():
        until = None if paused.until is None else from_datetime(paused.until)
        yield Said("pause", {"kind": paused.kind, "name": paused.name, "until": until})
    for name in client.fair_queues():
        yield Said("fair", {"name": name})


def said_as(kind: str, told: Any, place: str) -> Said:
    """As a line has it; InvalidOption says what is wrong with that."""
    keys = KINDS[kind]
    if not isinstance(told, dict) or tuple(told) != keys:
        raise InvalidOption(f"{place}: {kind} is {shown(told)}, and no object of {', '.join(keys)}")
    if not isinstance(told["name"], str):
        raise InvalidOption(f"{place}: name={shown(told['name'])} must be a text")
    try:
        if kind == "limit":
            limit_of(**told)
        elif kind == "pause":
            _check_pause(told)
    except InvalidOption as error:
        raise InvalidOption(f"{place}: {error}") from error
    return Said(kind, told)


def _check_pause(told: dict[str, Any]) -> None:
    if told["kind"] not in (QUEUE, TASK):
        raise InvalidOption(f"kind={shown(told['kind'])} must be {QUEUE} or {TASK}")
    last = from_datetime(datetime.max.replace(tzinfo=to_datetime(0).tzinfo))
    until = told["until"]
    if until is not None and (type(until) is not int or not 0 <= until <= last):
        raise InvalidOption(f"until={shown(until)} must be a moment in milliseconds, or null")
