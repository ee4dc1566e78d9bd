"""The body of a request, taken whole before anything looks at it: bounded in size, time and depth."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from jobvisor.jobs.encode import DEPTH_MAX
from jobvisor.supervisor.web.problems import Problem

__all__ = ["BODY_MAX", "BODY_SECONDS", "whole_body"]

BODY_MAX: Final = 1 << 20
BODY_SECONDS: Final = 30.0
"""For the whole of it: who sends a byte now and then must not hold a place for hours."""
BODY_OF_STRANGERS: Final = 16 << 10
SECONDS_OF_STRANGERS: Final = 5.0
"""Who has not signed in sends a name and a password at the most, and must not hold all places."""
NESTED_MAX: Final = DEPTH_MAX + 10
"""What a job's arguments may be, and what is around them."""

_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_SMALL = 16 * 1024  # bytes that are looked through in no time; more is a thread's
_CLOSE = {"Connection": "close"}
"""What is left of a body that was refused is not read."""


async def whole_body(
    scope: Scope, receive: Receive, seconds: float, *, known: bool = True
) -> Receive:
    """What hands the body on when all of it has come; of somebody unknown a short one, soon.

    Raises Problem: 413 for a large one, 408 for a slow one, 400 for one that is not the text it says it
    is, or is nested too deeply.
    """
    headers = Headers(scope=scope)
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return receive
    most = BODY_MAX if known else BODY_OF_STRANGERS
    seconds = seconds if known else min(seconds, SECONDS_OF_STRANGERS)
    # Before one byte is asked for: `Expect: 100-continue` is answered by asking.
    if _announced(headers.get("content-length", "0")) > most:
        raise _too_large(most)
    try:
        async with asyncio.timeout(seconds):
            messages = await _read(receive, most)
    except TimeoutError:
        raise Problem(
            408, f"the body did not come in {seconds:g} s", error="Body", headers=_CLOSE
        ) from None
    body = b"".join(message.get("body", b"") for message in messages)
    await _check(body, headers.get("content-type", "").partition(";")[0].strip().lower())
    return _replayed(messages, receive)


def _announced(length: str) -> int:
    if not re.fullmatch("[0-9]{1,20}", length):
        raise Problem(400, "the length of the body is no number", error="Body", headers=_CLOSE)
    return int(length)


async def _read(receive: Receive, most: int) -> list[Message]:
    messages: list[Message] = []
    size = 0
    while True:
        message = await receive()
        messages.append(message)
        size += len(message.get("body", b""))
        if size > most:
            raise _too_large(most)
        if message["type"] != "http.request" or not message.get("more_body", False):
            return messages


def _replayed(messages: list[Message], receive: Receive) -> Receive:
    left = iter(messages)

    async def again() -> Message:
        for message in left:
            return message
        return await receive()

    return again


async def _check(body: bytes, kind: str) -> None:
    is_json = kind == "application/json" or kind.endswith("+json")
    if not is_json and kind != "application/x-www-form-urlencoded":
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise Problem(
            400, f"the body is not UTF-8: byte {error.start} cannot be read", error="Body"
        ) from None
    if not is_json or body.count(b"[") + body.count(b"{") <= NESTED_MAX:
        return
    if len(body) <= _SMALL:
        _check_depth(body)
    else:
        await run_in_threadpool(_check_depth, body)


def _check_depth(body: bytes) -> None:
    depth = 0
    for found in _TOKENS.finditer(body):
        token = found[0]
        if token in (b"[", b"{"):
            depth += 1
            if depth > NESTED_MAX:
                raise Problem(
                    400, f"the body is nested deeper than {NESTED_MAX} levels", error="Body"
                )
        elif token in (b"]", b"}"):
            depth -= 1


def _too_large(most: int) -> Problem:
    return Problem(413, f"the body is larger than {most >> 10:,} KiB", error="Body", headers=_CLOSE)
