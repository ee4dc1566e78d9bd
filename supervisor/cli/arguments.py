"""What is typed after a task's name, as the arguments its function takes.

Each is JSON, or text where it is not JSON. Where the function is known and a parameter is annotated
with a type that JSON lacks (a date, a Decimal, an Enum), the value becomes one, or is refused.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from jobvisor.jobs.decode import decode
from jobvisor.jobs.errors import InvalidOption, PayloadError, shown
from jobvisor.jobs.task import parameters_of
from jobvisor.jobs.units import duration_ms

__all__ = ["Arguments"]

NAMES_SHOWN = 10


class Arguments:
    """How the arguments of one task are read; without a function nothing is known of them.

    With `typed` JSON may hold our tags: {"$date": "2027-01-31"}.
    """

    def __init__(
        self, task: str, function: Callable[..., Any] | None = None, *, typed: bool = False
    ) -> None:
        self._task = task
        self._typed = typed
        self._parameters = _parameters(function) if function is not None else {}
        self._kinds = _kinds(function) if function is not None else {}

    def of_words(self, words: Sequence[str]) -> list[Any]:
        """The arguments of a command line: each word is JSON, or text where it is not JSON."""
        return [self._fitted(name, *self._word(word)) for name, word in self._positional(words)]

    def of_line(self, line: str) -> list[Any]:
        """The arguments of one line of stdin, which is a JSON list; ValueError where it is none."""
        found = self._json(line)
        if not isinstance(found, list):
            raise InvalidOption('it is not a list; write the arguments as [1, "two"]')
        return [self._fitted(name, value, None) for name, value in self._positional(found)]

    def of_keywords(self, text: str | None) -> dict[str, Any]:
        """The keyword arguments: one JSON object."""
        if text is None:
            return {}
        try:
            found = self._json(text)
        except PayloadError as error:
            raise InvalidOption(f"--kwargs cannot be read: {error}") from None
        except ValueError as error:
            raise InvalidOption(f"--kwargs is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise InvalidOption("--kwargs is not a JSON object; write '{\"name\": 1}'")
        return {name: self._fitted(name, value, None) for name, value in found.items()}

    def _word(self, word: str) -> tuple[Any, str]:
        try:
            return self._json(word), word
        except PayloadError as error:
            raise InvalidOption(f"{shown(word)} cannot be read: {error}") from None
        except ValueError:
            return word, word

    def _json(self, text: str) -> Any:
        found = _read_json(text)  # which says what is wrong with it in JSON's own words
        return decode(text) if self._typed else found

    def _positional(self, values: Sequence[Any]) -> list[tuple[str, Any]]:
        """Each value with the parameter it goes to; more than there are is for the call to refuse."""
        names = [
            name
            for name, parameter in self._parameters.items()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        rest = [n for n, p in self._parameters.items() if p.kind is p.VAR_POSITIONAL] or [""]
        return [
            (names[place] if place < len(names) else rest[0], value)
            for place, value in enumerate(values)
        ]

    def _fitted(self, name: str, value: Any, word: str | None) -> Any:
        kind = self._kinds.get(name) or self._kinds.get(self._keywords_name())
        if kind is None:
            return value
        try:
            return _fit(kind, value, word)
        except _MisfitError as misfit:
            given = value if word is None else word
            raise InvalidOption(
                f"{self._task}: {name}={shown(given)} is not {misfit.expects}"
            ) from None

    def _keywords_name(self) -> str:
        return next((n for n, p in self._parameters.items() if p.kind is p.VAR_KEYWORD), "")


class _MisfitError(Exception):
    """A value that is not what the annotation wants, in words for who typed it."""

    def __init__(self, expects: str) -> None:
        super().__init__(expects)
        self.expects = expects


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    signature = parameters_of(function)
    return {} if signature is None else signature.parameters


def _kinds(function: Callable[..., Any]) -> dict[str, Any]:
    """The annotations as types; none where they name what is not there while it runs."""
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except Exception:  # noqa: BLE001 - an annotation is the user's code, and may raise anything
        return {}


class _Reader(NamedTuple):
    """How a type that JSON lacks is made of text, and what to write."""

    expects: str
    read: Callable[[str], Any]


def _decimal(text: str) -> Decimal:
    found = Decimal(text)
    if not found.is_finite():
        raise ValueError(text)
    return found


_READERS: dict[Any, _Reader] = {
    datetime: _Reader("a date and time, such as 2027-01-31T08:00+01:00", datetime.fromisoformat),
    date: _Reader("a date, such as 2027-01-31", date.fromisoformat),
    time: _Reader("a time, such as 08:30", time.fromisoformat),
    timedelta: _Reader(
        "a duration, such as 1m30s", lambda text: timedelta(milliseconds=duration_ms(text))
    ),
    Decimal: _Reader("a decimal number, such as 12.50", _decimal),
    UUID: _Reader("a UUID, such as 12345678-1234-5678-1234-567812345678", UUID),
    Path: _Reader("a path", Path),
    bytes: _Reader("text, whose bytes in UTF-8 are sent", str.encode),
}


def _fit(kind: Any, value: Any, word: str | None) -> Any:
    """The value as this type; `word` is how it was typed, where it was a word of its own."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _fit(typing.get_args(kind)[0], value, word)
    if origin in (typing.Union, types.UnionType):
        return _fit_one_of(typing.get_args(kind), value, word)
    if origin in (list, set, frozenset, tuple, dict) or kind in (tuple, set, frozenset):
        return _fit_container(origin or kind, typing.get_args(kind), value)
    if kind is str:
        return value if isinstance(value, str) or word is None else word
    if kind in _READERS:
        reader = _READERS[kind]
        return value if isinstance(value, kind) else _read(reader, value, word)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return value if isinstance(value, kind) else _member(kind, value, word)
    return value


def _fit_one_of(kinds: Sequence[Any], value: Any, word: str | None) -> Any:
    """The value as the first of these types that takes it: those that JSON lacks first, text last."""
    if value is None and type(None) in kinds:
        return None
    if type(value) in kinds and type(value) is not str:
        return value
    misfits: list[_MisfitError] = []
    for kind in sorted(kinds, key=lambda kind: 2 if kind is str else kind not in _READERS):
        if kind is type(None):
            continue
        try:
            return _fit(kind, value, word)
        except _MisfitError as misfit:
            misfits.append(misfit)
    raise _MisfitError(", nor ".join(misfit.expects for misfit in misfits))


def _fit_container(origin: Any, kinds: Sequence[Any], value: Any) -> Any:
    """Each element as its type; a JSON list as the tuple or set that is wanted."""
    if origin is dict:
        if not isinstance(value, dict) or len(kinds) < 2:
            return value
        return {name: _fit(kinds[1], item, None) for name, item in value.items()}
    if not isinstance(value, list):
        return value
    if origin is tuple and kinds and kinds[-1] is not Ellipsis:
        each = list(kinds) + [Any] * (len(value) - len(kinds))
    else:
        each = [kinds[0] if kinds else Any] * len(value)
    items = [_fit(kind, item, None) for kind, item in zip(each, value, strict=False)]
    return items if origin is list else origin(items)


def _read(reader: _Reader, value: Any, word: str | None) -> Any:
    try:
        return reader.read(_text(value, word))
    except (ValueError, OverflowError, InvalidOperation):
        raise _MisfitError(reader.expects) from None


def _text(value: Any, word: str | None) -> str:
    """The text of a value: of a number as it was typed, so that 12.50 stays 12.50."""
    if isinstance(value, str):
        return value
    if word is not None:
        return word
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(value)  # noqa: TRY004 - one error for every wrong value
    return str(value)


def _member(kind: type[Enum], value: Any, word: str | None) -> Enum:
    """The member of this name, else of this value."""
    if isinstance(value, str) and value in kind.__members__:
        return kind[value]
    for member in kind:
        if value == member.value or (word is not None and word == str(member.value)):
            return member
    names = list(kind.__members__)
    more = " or another" if len(names) > NAMES_SHOWN else ""
    raise _MisfitError(f"one of {', '.join(names[:NAMES_SHOWN])}{more}")


def _read_json(text: str) -> Any:
    """JSON as its standard has it: NaN and Infinity are none, and deep nesting is no crash."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
