"""A message of Server-Sent Events, as the HTML standard has it, and a job as one of many in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jobvisor.jobs.job import json_id

RETRY_MS = 2_000  # what a browser waits before it comes back

OPENING = f"retry: {RETRY_MS}\n: open\n\n".encode()
"""The first bytes: whoever asked knows now that he was heard."""


Shown = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Hides of a job's document what is not for everybody's eyes."""


class Told(NamedTuple):
    """The last state of a job that changed, as a text; and what readers may choose it by."""

    job: int
    text: str
    """As JSON."""
    state: str | None = None
    """None: it is gone, and nothing else is known of it."""
    queue: str = ""
    task: str = ""


def as_text(value: Any) -> str:
    r"""JSON in one line of ASCII, whatever rows hold.

    >>> as_text({"error": "a\nb\ud800"})
    '{"error":"a\\nb\\ud800"}'
    """
    return json.dumps(value, separators=(",", ":"))


def told(summary: Mapping[str, Any] | None, job: int) -> str:
    """A job as a message has it.

    >>> told(None, 7)
    '{"id":7,"state":"gone"}'
    """
    return as_text({"id": json_id(job), "state": "gone"} if summary is None else summary)


def message(event: str, data: str, position: str | None = None) -> bytes:
    r"""One message; `position` is what a reader sends as Last-Event-ID when it comes back.

    >>> message("end", "{}", "ab-7")
    b'id: ab-7\nevent: end\ndata: {}\n\n'
    """
    head = "" if position is None else f"id: {position}\n"
    return f"{head}event: {event}\ndata: {data}\n\n".encode()


def heartbeat(position: str) -> bytes:
    """No message: a sign of life for whatever is in between, and where a reader stands now."""
    return f": beat\nid: {position}\n\n".encode()
