"""Values to the JSON text that is stored: what would not come back as it was is refused, with its place.

Plain JSON values are stored as themselves. The other types we know become an object with one key,
such as `{"$datetime": "2026-11-22T17:40:00+00:00"}`; a user's own key that begins with "$" gets one
"$" more. What cannot come back as it was (NaN, a subclass of int, a local class) is refused at
encode, naming its place.

Who writes rows in plain SQL, or reads them elsewhere, has these objects:

    {"$tuple": [1, "a"]}  {"$set": [1, 2]}  {"$frozenset": [1, 2]}
    {"$datetime": "2026-11-22T17:40:00+00:00"}
    {"$datetime": ["2026-11-22T17:40:00+01:00", "Europe/Berlin"]}  in a zone that has a name
    {"$date": "2026-11-22"}  {"$time": "17:40:00"}
    {"$timedelta": [1, 3600, 0]}  days, seconds, microseconds
    {"$decimal": "1.50"}  {"$uuid": "12345678-1234-5678-1234-567812345678"}
    {"$bytes": "aGVsbG8="}  base64
    {"$dataclass": ["app.mail:Letter", {"to": "a@b.c"}]}
    {"$enum": ["app.mail:Kind", "URGENT"]}  by its name; {"$flag": ["app.mail:Rights", 3]}
    {"$path": "/srv/in/a.pdf"}  a Path of whatever machine reads it
    {"$pureposixpath": "a/b"}  {"$purewindowspath": "a/b"}  pure paths
    {"$codec": "..."}  what a codec has made of the whole text
    {"$$price": 3}  a user's own key "$price"
"""

from __future__ import annotations

import base64
import dataclasses
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, Flag
from functools import lru_cache
from operator import attrgetter
from typing import Any
from uuid import UUID

from jobvisor.jobs.errors import PayloadError, error_text, shown

LIMIT = 1024 * 1024
"""Bytes of UTF-8 that one result, or all arguments of one call, may take."""

DEPTH_MAX = 100
# CPython reads and prints ints of at most 4,300 digits unless told otherwise; the reader may not
# have been told.
_INT_END = 10**4_300
# Shorter than any limit in use, so one comparison lets most results through without counting bytes.
_SHORT = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Unreadable:
    """A stored value that was left unread because reading it would need the user's code or codec.

    Only a lenient decode makes it, for `list` and `show`; encoded again it is the stored value.
    """

    tag: str
    body: Any


def encode(value: Any, *, path: str = "result", limit: int = LIMIT) -> str:
    """JSON text of a value.

    >>> encode({"to": "a@b.c", "at": date(2026, 11, 22)})
    '{"to":"a@b.c","at":{"$date":"2026-11-22"}}'
    >>> encode([1, {"rows": [float("nan")]}], path="args[0]")
    Traceback (most recent call last):
        ...
    jobvisor.jobs.errors.PayloadError: args[0][1].rows[0]: nan has no JSON form; send None or a string
    """
    if value is None:
        return "null"
    try:
        plain_value = _Walk(limit).plain(value, 0)
    except _RefusedError as refused:
        raise refused.as_error(path) from refused.__cause__
    except Exception as error:  # of a property, a timezone or a class of the user's
        raise PayloadError(f"{path}: cannot be read: {error_text(error)}") from error
    return _checked_size(_to_text(plain_value, path), path, limit)


def encode_call(
    args: Iterable[Any], kwargs: Mapping[str, Any], limit: int = LIMIT
) -> tuple[str, str]:
    """JSON texts of a call's arguments; the limit counts for both together.

    >>> encode_call(("a@b.c",), {"subject": "x"})
    ('["a@b.c"]', '{"subject":"x"}')
    """
    args = list(args)
    args_text = encode(args, path="args", limit=limit) if args else "[]"
    kwargs_text = encode(dict(kwargs), path="kwargs", limit=limit) if kwargs else "{}"
    if len(args_text) + len(kwargs_text) > limit // 4:  # at most 4 bytes a character
        size = _size(args_text) + _size(kwargs_text)
        if size > limit:
            raise _too_large("the arguments", size, limit)
    return args_text, kwargs_text


def plain(value: Any) -> Any:
    """A value in the form that is stored, but as dicts and lists: what `json.dumps` takes.

    >>> plain((1, 2))
    {'$tuple': [1, 2]}
    """
    try:
        return _Walk(LIMIT).plain(value, 0)
    except _RefusedError as refused:
        raise refused.as_error("value") from refused.__cause__


class _RefusedError(Exception):
    """A value that cannot be stored.

    Its place is noted from the inside out while the walk unwinds, so that a path costs nothing
    where nothing is refused.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []

    def as_error(self, path: str) -> PayloadError:
        return PayloadError(f"{path}{''.join(reversed(self.steps))}: {self.reason}")


class _Walk:
    """One walk over a value, with what is left of its budget.

    Each element takes at least two bytes of text, so more elements than bytes cannot fit. Without
    this budget thirty nested lists that share their parts would fill the memory before the text is
    measured.
    """

    __slots__ = ("left",)

    def __init__(self, limit: int) -> None:
        self.left = limit

    def plain(self, value: Any, depth: int) -> Any:
        encoder = _ENCODERS.get(type(value))
        if encoder is None:
            return _uncommon(self, value, depth)
        return encoder(self, value, depth)

    def enter(self, value: Any, depth: int) -> int:
        """One level down into a container of so many elements."""
        if depth >= DEPTH_MAX:
            raise _RefusedError(f"deeper than {DEPTH_MAX} levels (does it contain itself?)")
        self.left -= len(value)
        if self.left < 0:
            raise _RefusedError(
                "too large: more elements than the limit has bytes; store it elsewhere"
            )
        return depth + 1


def _as_is(_walk: _Walk, value: Any, _depth: int) -> Any:
    return value


def _integer(_walk: _Walk, value: int, _depth: int) -> int:
    if -_INT_END < value < _INT_END:
        return value
    raise _RefusedError("an int of more than 4300 digits cannot be read back; send it as hex(...)")


def _float(_walk: _Walk, value: float, _depth: int) -> float:
    if math.isfinite(value):
        return value
    raise _RefusedError(f"{value!r} has no JSON form; send None or a string")


def _text(_walk: _Walk | None, value: str, _depth: int) -> str:
    if "\0" in value:
        raise _RefusedError(
            f"{shown(value)} contains NUL, which databases do not store; send bytes"
        )
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise _RefusedError(
                f"{shown(value)} contains the lone surrogate {value[error.start]!a}, "
                f"which is no text; send bytes (os.fsencode for a file name)"
            ) from None
    return value


def _list(walk: _Walk, value: Iterable[Any], depth: int) -> list[Any]:
    below = walk.enter(value, depth)
    found: list[Any] = []
    try:
        for item in value:
            found.append(walk.plain(item, below))  # noqa: PERF401 -- the length is the index of the refused one
    except _RefusedError as refused:
        refused.steps.append(f"[{len(found)}]")
        raise
    return found


def _dict(walk: _Walk, value: dict[Any, Any], depth: int) -> dict[str, Any]:
    below = walk.enter(value, depth)
    found: dict[str, Any] = {}
    key: Any = None
    try:
        for key, item in value.items():
            found[_key(key)] = walk.plain(item, below)
    except _RefusedError as refused:
        refused.steps.append(_step(key))
        raise
    return found


def _key(key: Any) -> str:
    if type(key) is not str:
        raise _RefusedError(
            f"the key {shown(key)} is {_article(type(key).__name__)}; JSON keys are str; "
            f"send a list of pairs"
        )
    if key.startswith("$"):
        return "$" + _text(None, key, 0)
    return _text(None, key, 0)


def _step(key: Any) -> str:
    return f".{key}" if type(key) is str and key.isidentifier() else f"[{shown(key)}]"


def _tuple(walk: _Walk, value: tuple[Any, ...], depth: int) -> Any:
    return {"$tuple": _list(walk, value, depth)}


def _set(walk: _Walk, value: set[Any] | frozenset[Any], depth: int) -> Any:
    # In a fixed order: the order of a set differs between processes, and equal arguments must be
    # equal text.
    found = sorted(_list(walk, value, depth), key=_written)
    return {"$set" if type(value) is set else "$frozenset": found}


def _datetime(_walk: _Walk, value: datetime, _depth: int) -> Any:
    zone = getattr(value.tzinfo, "key", None)
    moment = value.isoformat()
    return {"$datetime": [moment, zone] if type(zone) is str else moment}


def _time(_walk: _Walk, value: time, _depth: int) -> Any:
    if value.tzinfo is not None and value.utcoffset() is None:
        raise _RefusedError(f"{value!r} has a timezone without a fixed offset; send a datetime")
    return {"$time": value.isoformat()}


def _decimal(_walk: _Walk, value: Decimal, _depth: int) -> Any:
    if not value.is_finite():
        raise _RefusedError(f"{value!r} has no JSON form; send None or a string")
    return {"$decimal": str(value)}


def _unreadable(walk: _Walk, value: Unreadable, depth: int) -> Any:
    return {value.tag: walk.plain(value.body, depth)}


_ENCODERS: dict[type, Callable[[_Walk, Any, int], Any]] = {
    type(None): _as_is,
    bool: _as_is,
    int: _integer,
    float: _float,
    str: _text,
    list: _list,
    dict: _dict,
    tuple: _tuple,
    set: _set,
    frozenset: _set,
    datetime: _datetime,
    date: lambda _walk, value, _depth: {"$date": value.isoformat()},
    time: _time,
    timedelta: lambda _walk, value, _depth: {
        "$timedelta": [value.days, value.seconds, value.microseconds]
    },
    Decimal: _decimal,
    UUID: lambda _walk, value, _depth: {"$uuid": str(value)},
    bytes: lambda _walk, value, _depth: {"$bytes": base64.b64encode(value).decode("ascii")},
    Unreadable: _unreadable,
}

_BUILTINS = (str, int, float, bytes, list, dict, tuple, set, frozenset)


#: By their names, since few programs that send no path have loaded them. A path comes back as one of
#: the machine it is read on, a pure path as what it was.
_PATHS = {
    "PosixPath": "$path",
    "WindowsPath": "$path",
    "PurePosixPath": "$pureposixpath",
    "PureWindowsPath": "$purewindowspath",
}


def _uncommon(walk: _Walk, value: Any, depth: int) -> Any:
    kind = type(value)
    if kind.__module__.partition(".")[0] == "pathlib" and kind.__qualname__ in _PATHS:
        return {_PATHS[kind.__qualname__]: _text(walk, value.as_posix(), depth)}
    if isinstance(value, Enum):
        return _enum(value)
    if "__dataclass_fields__" in vars(kind) and not isinstance(value, _BUILTINS):
        return _dataclass(walk, value, depth)
    base = next((known for known in kind.__mro__ if known in _ENCODERS), None)
    if base is not None:
        raise _RefusedError(
            f"{shown(value)} is {_article(kind.__qualname__)}, a subclass of {base.__name__} "
            f"that JSON would not bring back; send {base.__name__}(...)"
        )
    raise _RefusedError(
        f"{shown(value)} is {_article(kind.__qualname__)}, which cannot be stored; "
        f"send plain values, a dataclass or an id"
    )


def _enum(value: Enum) -> Any:
    kind: Any = type(value)
    name = _class_name(kind)
    if isinstance(value, Flag):  # a combination has no name of its own
        return {"$flag": [name, value.value]}
    return {"$enum": [name, value.name]}


def _dataclass(walk: _Walk, value: Any, depth: int) -> Any:
    kind: Any = type(value)
    name = _class_name(kind)
    below = walk.enter(kind.__dataclass_fields__, depth)
    found: dict[str, Any] = {}
    for field in _stored_fields(kind):
        try:
            found[field] = walk.plain(getattr(value, field), below)
        except AttributeError:
            raise _RefusedError(f"{shown(value)} has no value for its field {field!r}") from None
        except _RefusedError as refused:
            refused.steps.append(f".{field}")
            raise
    return {"$dataclass": [name, found]}


@lru_cache(maxsize=256)
def _stored_fields(kind: Any) -> tuple[str, ...]:
    """The names of a dataclass's fields; a class that cannot be made from them is refused."""
    names = tuple(field.name for field in dataclasses.fields(kind))
    if not kind.__dataclass_params__.init:
        raise _RefusedError(f"{kind.__qualname__} has an __init__ of its own; send its fields")
    for name, field in kind.__dataclass_fields__.items():
        if name not in names and "InitVar" in str(field.type) and _has_no_default(field):
            raise _RefusedError(
                f"{kind.__qualname__} needs the InitVar {name!r}, which is not stored; "
                f"give it a default"
            )
    return names


def _has_no_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@lru_cache(maxsize=256)
def _class_name(kind: Any) -> str:
    """The "module:Qualname" under which another process finds this class, else refused."""
    name = f"{kind.__module__}:{kind.__qualname__}"
    if kind.__module__ in {"__main__", "__mp_main__"} or "<locals>" in kind.__qualname__:
        raise _RefusedError(
            f"the class {name} cannot be found by another process; define it at the top of a module"
        )
    if loaded(kind.__module__, kind.__qualname__) is not kind:
        raise _RefusedError(f"{name} is another class than this one; was the module reloaded?")
    return name


def loaded(module: str, qualname: str) -> Any:
    """The class of this name in a module that is loaded already, else None."""
    try:
        return attrgetter(qualname)(sys.modules[module])
    except (AttributeError, KeyError):
        return None


_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
# The encoder itself, where it is the one in C: `encode` makes one for each text it writes.
_chunks: Callable[[Any, int], Iterable[str]] | None = (
    json.encoder.c_make_encoder(  # type: ignore[attr-defined]
        None, _ENCODER.default, json.encoder.encode_basestring, None, ":", ",", False, False, True
    )
    if json.encoder.c_make_encoder  # type: ignore[attr-defined]
    else None
)


def _written(value: Any) -> str:
    if _chunks is None or type(value) is str:
        return _ENCODER.encode(value)
    return "".join(_chunks(value, 0))


def _to_text(plain_value: Any, path: str) -> str:
    try:
        return _written(plain_value)
    except (ValueError, RecursionError, MemoryError) as error:
        raise PayloadError(f"{path}: cannot be written as JSON: {error_text(error)}") from error


def _checked_size(text: str, path: str, limit: int) -> str:
    if len(text) <= _SHORT <= limit // 4:
        return text
    size = _size(text)
    if size > limit:
        raise _too_large(path, size, limit)
    return text


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _too_large(path: str, size: int, limit: int) -> PayloadError:
    return PayloadError(
        f"{path}: {size} bytes of JSON, the limit is {limit}; store it elsewhere and send its name"
    )


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"
