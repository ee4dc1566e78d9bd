"""How one attempt ended, and what a task may raise to choose it.

An Outcome is what execution hands to the ledger and the ledger to the store. It lives as a few
bytes in between, so it holds only text and numbers, all bounded.
"""
# ruff: noqa: N818 -- raised to choose an outcome: `raise Retry(after="5m")` is no error's name

from __future__ import annotations

import json
import traceback
from dataclasses import dataclass
from typing import NamedTuple

from jobvisor.jobs.excerpt import both_ends, clean
from jobvisor.jobs.units import Duration, duration_ms

ERROR_TYPE_MAX = 200  # characters
MESSAGE_MAX = 2_000  # characters
TRACEBACK_MAX = 16 * 1024  # bytes of UTF-8
# Together, and with each quote and newline escaped, a body stays below 64 KiB, the ledger's inline
# size.

# A recursion of a thousand frames is described by its last ones.
_FRAMES_MAX = 100
# Exceptions chained in a loop for hours would take seconds to format.
_CHAIN_MAX = 50

VERB_CODES = {"succeed": 1, "retry": 2, "snooze": 3, "fail": 4, "release": 5, "cancel": 6}
VERB_NAMES = {code: verb for verb, code in VERB_CODES.items()}


class Retry(Exception):
    """Raise it to end this attempt and try again.

    `after` is a duration; without it the retry policy says when. The attempt counts: when it was
    the last one, the job fails.
    """

    def __init__(self, after: Duration | None = None, reason: str = "") -> None:
        # Both are args, so that the exception survives pickling between a user's own processes.
        super().__init__(after, reason)
        self.delay_ms = None if after is None else duration_ms(after)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class Snooze(Exception):
    """Raise it to be run again after `delay` without counting this attempt."""

    def __init__(self, delay: Duration) -> None:
        super().__init__(delay)
        self.delay_ms = duration_ms(delay)


class Fail(Exception):
    """Raise it to fail the job now, whatever attempts are left."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class Release(Exception):
    """Raise it to give the job back untouched: pending at once, this attempt not counted."""


class Cancelled(Exception):
    """Raise it to cancel the job, usually because that was asked and the task has cleaned up."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Failure:
    """What is remembered of an exception: its type, message and traceback, clean and bounded."""

    error_type: str
    message: str
    traceback: str

    @classmethod
    def of(cls, error: BaseException) -> Failure:
        """Describe an exception. Never raises, whatever the exception's own methods do.

        >>> Failure.of(ValueError("no such user")).message
        'no such user'
        """
        told = reason_of(error)
        return cls(
            _clean(_type_name(told), ERROR_TYPE_MAX),
            _clean(_worded(error, told), MESSAGE_MAX),
            both_ends(_traceback(error), TRACEBACK_MAX),
        )

    @property
    def summary(self) -> str:
        """It in one line: what a task raised to choose its outcome is told by its reason alone.

        >>> Failure.of(ValueError("no such user")).summary, Failure.of(Fail("no such user")).summary
        ('ValueError: no such user', 'no such user')
        """
        if not self.message:
            return self.error_type
        ours = self.error_type in _CHOSEN.values()
        return self.message if ours else f"{self.error_type}: {self.message}"


def reason_of(error: BaseException) -> BaseException:
    """The error that a `raise Retry(...)` or `Fail()` without a reason was raised for; else itself."""
    if type(error) not in _CHOSEN:  # asked first: the `reason` of a user's own may raise
        return error
    reason: str = getattr(error, "reason", "")
    if reason:
        return error
    hidden = None if error.__suppress_context__ else error.__context__
    return error.__cause__ or hidden or error


def _worded(error: BaseException, told: BaseException) -> str:
    message = _message(told)
    if told is error and error.__cause__ is not None and type(error) in _CHOSEN:
        cause = error.__cause__
        return f"{message} ({_type_name(cause)}: {_message(cause)})"
    return message


#: What a task raises to choose its outcome, by the names it imports them under.
_CHOSEN: dict[type[BaseException], str] = {
    Retry: "jobvisor.Retry",
    Fail: "jobvisor.Fail",
    Cancelled: "jobvisor.Cancelled",
}


def _type_name(error: BaseException) -> str:
    kind = type(error)
    if kind in _CHOSEN:
        return _CHOSEN[kind]
    module = str(kind.__module__)
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as broken:  # noqa: BLE001 -- a user's __str__ may raise anything at all
        return f"<its message cannot be read: {type(broken).__name__}>"


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(error, limit=-_FRAMES_MAX, chain=_is_short_chain(error))
        text = "".join(lines)
    except BaseException as broken:  # noqa: BLE001 -- user code runs in it; stack or memory may end
        return f"<the traceback cannot be formatted: {type(broken).__name__}>"
    if len(text) > 4 * TRACEBACK_MAX:  # a huge message is not cleaned in full, only to be cut
        text = f"{text[:TRACEBACK_MAX]}\n...\n{text[-2 * TRACEBACK_MAX :]}"
    return clean(text)


def _is_short_chain(error: BaseException) -> bool:
    for _ in range(_CHAIN_MAX):
        before = error.__cause__ or error.__context__
        if before is None:
            return True
        error = before
    return False


def _clean(text: str, limit: int) -> str:
    if len(text) > limit:
        text = f"{text[: limit - 3]}..."
    return clean(text)


class Outcome(NamedTuple):
    """How one attempt ended: a verb and what belongs to it.

    A named tuple: one is made per job, and a frozen dataclass takes four times as long to make.
    """

    verb: str
    """One of VERB_CODES."""
    delay_ms: int = 0
    """For retry and snooze: how much later, counted from the record."""
    result: str | None = None
    """For succeed: the result as payload text; None is null."""
    failure: Failure | None = None
    kind: str = "error"
    """The word for `attempts.outcome`: error, expired, stopped, ..."""
    deferred: str | None = None
    """Why the job will be scheduled: retry, snooze or unknown."""

    def body(self) -> bytes:
        """What the ledger's record carries beside verb and delay."""
        if self.verb == "succeed":
            return b"" if self.result is None else self.result.encode()
        failure = self.failure
        told = failure and (failure.error_type, failure.message, failure.traceback)
        parts = {"failure": told, "kind": self.kind, "deferred": self.deferred}
        return json.dumps(parts, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_body(cls, verb: str, delay_ms: int, body: bytes) -> Outcome:
        """The outcome that a record was written for.

        >>> ended = Outcome("retry", 1_500, deferred="retry")
        >>> Outcome.from_body(ended.verb, ended.delay_ms, ended.body()) == ended
        True
        """
        if verb == "succeed":
            return cls(verb, delay_ms, body.decode() if body else None)
        parts = json.loads(body) if body else {}
        told = parts.get("failure")
        failure = Failure(*told) if told else None
        return cls(verb, delay_ms, None, failure, parts.get("kind", "error"), parts.get("deferred"))


SUCCEEDED = Outcome("succeed")
"""The most common end of all: it succeeded and returned None."""
