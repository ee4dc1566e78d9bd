"""Headers: what comes with a job beside its arguments, such as the trace that it belongs to.

They are plain JSON, are not encrypted by a codec, and are for whoever watches over jobs; what a task
needs to know to do its work is an argument.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

from jobvisor.jobs.errors import InvalidOption, PayloadError, shown

HEADERS_MAX = 4 * 1024
"""Bytes of their JSON."""

TRACE = "trace"
"""The header that a job enqueued by a job inherits."""

SCHEDULE = "schedule"
"""The header that names the schedule which has made a job."""

SCHEDULED_FOR = "scheduled_for"
"""The header that has the tick it was made for."""

headers: ContextVar[Mapping[str, Any]] = ContextVar(
    "jobvisor.headers",
    default=MappingProxyType({}),  # nobody can change it
)
"""What each job gets that is enqueued from here on, in this thread or asynchronous task.

    token = jobvisor.headers.set({"trace": request.id})

`using(headers=...)` adds to it.
"""

NONE: Mapping[str, Any] = MappingProxyType({})
"""Those of a job that has none."""


def ambient() -> Mapping[str, Any]:
    """What is sent along from here; InvalidOption where somebody has set what headers cannot be."""
    found: Any = headers.get()
    if not isinstance(found, Mapping):
        raise InvalidOption(
            f"jobvisor.headers={shown(found)} must be a dict with texts as its keys"
        )
    return found


def as_one(around: Mapping[str, Any], own: str | None) -> str | None:
    """The JSON of what is sent along anyway and of a job's own headers, which count where both say it."""
    if not around:
        return own
    return encode_headers("headers", {**around, **decode_headers(own)})


def encode_headers(option: str, value: Any) -> str | None:
    """Their JSON, None for none; an InvalidOption that begins with the option's name.

    >>> encode_headers("headers", {"trace": "4bf92f35"})
    '{"trace":"4bf92f35"}'
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise InvalidOption(f"{option}={shown(value)} must be a dict with texts as its keys")
    if not value:
        return None
    try:
        text = json.dumps(dict(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOption(
            f"{option}={shown(value)} must hold what JSON has, with finite numbers: {error}"
        ) from None
    if size > HEADERS_MAX:
        raise InvalidOption(
            f"{option} takes {size} bytes of JSON, more than {HEADERS_MAX}; "
            "give what is larger as an argument"
        )
    return text


def decode_headers(text: str | None) -> Mapping[str, Any]:
    """The headers of a row; PayloadError where a stranger's SQL wrote what they cannot be."""
    if text is None:
        return NONE
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"headers: {error}") from None
    if not isinstance(found, dict):
        raise PayloadError(f"headers={shown(found)} must be a JSON object")
    return found
