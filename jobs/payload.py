"""Arguments and results to JSON text and back: equal and of the same type, or refused.

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
    {"$path": "/srv/in/a.pdf"}  a Path of whatever machine reads it
    {"$dataclass": ["app.mail:Letter", {"to": "a@b.c"}]}
    {"$enum": ["app.mail:Kind", "URGENT"]}  by its name; {"$flag": ["app.mail:Rights", 3]}
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
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum, Flag
from functools import lru_cache
from importlib import import_module
from operator import attrgetter
from pathlib import Path, PosixPath
from typing import Any, Protocol
from uuid import UUID

from jobvisor.jobs.errors import PayloadError, shown

LIMIT = 1024 * 1024
"""Bytes of UTF-8 that one result, or all arguments of one call, may take."""

DEPTH_MAX = 100
# CPython reads and prints ints of at most 4,300 digits unless told otherwise; the reader may not
# have been told.
_INT_END = 10**4_300
# Shorter than any limit in use, so one comparison lets most results through without counting bytes.
_SHORT = 64


class Codec(Protocol):
    """What a user may put between us and the database: encryption, compression. Text to text."""

    def encode(self, text: str) -> str:
        """The text to store for this JSON text."""

    def decode(self, text: str) -> str:
        """The JSON text that was given to `encode`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Unreadable:
    """A stored value that was left unread because reading it would need the user's code or codec.

    Only a lenient decode makes it, for `list` and `show`; encoded again it is the stored value.
    """

    tag: str
    body: Any


class Payload:
    """Encode and decode with one codec and one limit."""

    __slots__ = ("codec", "limit")

    def __init__(self, codec: Codec | None = None, limit: int = LIMIT) -> None:
        self.codec = codec
        self.limit = limit

    def encode(self, value: Any, *, path: str = "result") -> str:
        """JSON text of a value; `path` begins the place that a PayloadError names."""
        text = encode(value, path=path, limit=self.limit)
        return text if self.codec is None else self._coded(self.codec, text, path)

    def encode_call(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> tuple[str, str]:
        """JSON texts of a call's arguments: a list and an object."""
        texts = encode_call(args, kwargs, self.limit)
        if self.codec is None:
            return texts
        return self._coded(self.codec, texts[0], "args"), self._coded(
            self.codec, texts[1], "kwargs"
        )

    def decode(self, text: str, *, lenient: bool = False) -> Any:
        """The value of stored text. Text that was stored without the codec is read as well."""
        if text.startswith('{"$codec"') and self.codec is not None:
            text = self._decoded(self.codec, text)
        return decode(text, lenient=lenient)

    def _coded(self, codec: Codec, text: str, path: str) -> str:
        try:
            coded = codec.encode(text)
        except Exception as error:
            raise PayloadError(f"{path}: the codec failed: {_error_text(error)}") from error
        if type(coded) is not str:
            raise PayloadError(
                f"{path}: the codec returned {type(coded).__name__}; it must return str"
            )
        # Through the plain way, so that the codec's text is checked and counted like any other.
        return '{"$codec":' + encode(coded, path=f"{path}, coded", limit=self.limit) + "}"

    def _decoded(self, codec: Codec, text: str) -> str:
        stored = _load(_PLAIN_DECODER, text)
        try:
            return codec.decode(stored["$codec"])
        except Exception as error:
            raise PayloadError(
                f"the codec cannot read {shown(text)}: {_error_text(error)}"
            ) from error


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


def decode(text: str, *, lenient: bool = False) -> Any:
    """The value of stored text; a lenient decode imports nothing and gives an Unreadable instead.

    >>> decode('{"to":"a@b.c","at":{"$date":"2026-11-22"}}')
    {'to': 'a@b.c', 'at': datetime.date(2026, 11, 22)}
    """
    if '"$' not in text:
        try:
            value, end = _scan(text, 0)
        except (StopIteration, ValueError, RecursionError):
            end = -1  # white space in front, or no JSON: the slow way says which
        if end == len(text):
            return value
        return _load(_PLAIN_DECODER, text)
    return _load(_LENIENT_DECODER if lenient else _DECODER, text)


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


def _path(walk: _Walk, value: PosixPath, depth: int) -> Any:
    return {"$path": _text(walk, str(value), depth)}


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
    PosixPath: _path,
    Unreadable: _unreadable,
}

_BUILTINS = (str, int, float, bytes, list, dict, tuple, set, frozenset)


def _uncommon(walk: _Walk, value: Any, depth: int) -> Any:
    kind = type(value)
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
    if _find(kind.__module__, kind.__qualname__) is not kind:
        raise _RefusedError(f"{name} is another class than this one; was the module reloaded?")
    return name


def _find(module: str, qualname: str) -> Any:
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
        raise PayloadError(f"{path}: cannot be written as JSON: {_error_text(error)}") from error


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


def _error_text(error: BaseException) -> str:
    return f"{type(error).__name__}: {shown(str(error))}"


def _article(noun: str) -> str:
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def _revive(found: dict[str, Any]) -> Any:
    return _revived(found, lenient=False)


def _revive_leniently(found: dict[str, Any]) -> Any:
    return _revived(found, lenient=True)


def _revived(found: dict[str, Any], *, lenient: bool) -> Any:
    """An object of stored text: one of ours, or a user's with its "$$" taken back."""
    if len(found) == 1:
        [(key, body)] = found.items()
        if key.startswith("$") and not key.startswith("$$"):
            return _untagged(key, body, lenient=lenient)
    if any(key.startswith("$$") for key in found):
        return {key[1:] if key.startswith("$$") else key: item for key, item in found.items()}
    return found


def _untagged(tag: str, body: Any, *, lenient: bool) -> Any:
    if lenient and tag in _FOREIGN:
        return _leniently(tag, body)
    reader = _READERS.get(tag)
    if reader is None:
        known = ", ".join(sorted(_READERS))
        raise PayloadError(f'stored text has the unknown tag "{tag}"; this release reads {known}')
    try:
        return reader(body)
    except PayloadError:
        raise
    except Exception as error:
        raise PayloadError(
            f'stored text has a broken "{tag}" {shown(body)}: {_error_text(error)}'
        ) from error


def _leniently(tag: str, body: Any) -> Any:
    """A value of a class that is loaded already, else an Unreadable: a listing runs no imports."""
    try:
        module, _, qualname = body[0].partition(":")
        if tag != "$codec" and _find(module, qualname) is not None:
            return _READERS[tag](body)
    except Exception:  # noqa: BLE001 -- whatever is wrong with it, a listing goes on
        return Unreadable(tag, body)
    return Unreadable(tag, body)


def _read_datetime(body: Any) -> datetime:
    if isinstance(body, str):
        return datetime.fromisoformat(body)
    moment = datetime.fromisoformat(body[0])
    zone = _zone(body[1])
    if zone is None:
        return moment
    # The same wall clock where the zone still has that offset then, else the same moment.
    for fold in (0, 1):
        local = moment.replace(tzinfo=zone, fold=fold)
        if local.utcoffset() == moment.utcoffset():
            return local
    return moment.astimezone(zone)


def _zone(key: str) -> tzinfo | None:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 -- 5 ms that few programs need

    try:
        return ZoneInfo(key)
    except ZoneInfoNotFoundError:  # this machine lacks it; the moment itself is still exact
        return None


def _read_dataclass(body: Any) -> Any:
    name, stored = body
    kind = _class(name)
    if not (isinstance(kind, type) and dataclasses.is_dataclass(kind)):
        raise PayloadError(f"stored text names {name}, which is no dataclass")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    unknown = stored.keys() - fields.keys()
    if unknown:
        raise PayloadError(f"{name} has no field {min(unknown)!r} any more, but a stored value has")
    value = kind(**{key: item for key, item in stored.items() if fields[key].init})
    for key, item in stored.items():  # exactly what was stored, whatever __post_init__ made of it
        object.__setattr__(value, key, item)
    return value


def _read_enum(body: Any) -> Any:
    return _enum_class(body[0])[body[1]]


def _read_flag(body: Any) -> Any:
    return _enum_class(body[0])(body[1])


def _enum_class(name: str) -> Any:
    kind = _class(name)
    if not (isinstance(kind, type) and issubclass(kind, Enum)):
        raise PayloadError(f"stored text names {name}, which is no Enum")
    return kind


def _class(name: str) -> Any:
    """The class of this name, imported if need be: who may write rows may run tasks anyway."""
    module, _, qualname = name.partition(":")
    try:
        return attrgetter(qualname)(import_module(module))
    except (ImportError, AttributeError) as error:
        raise PayloadError(f"stored text needs the class {name}: {_error_text(error)}") from error


def _no_codec(_body: Any) -> Any:
    raise PayloadError(
        "this value was stored through a codec; give the same codec to Client(codec=)"
    )


_READERS: dict[str, Callable[[Any], Any]] = {
    "$tuple": tuple,
    "$set": set,
    "$frozenset": frozenset,
    "$datetime": _read_datetime,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda body: timedelta(*body),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$path": Path,
    "$bytes": lambda body: base64.b64decode(body, validate=True),
    "$dataclass": _read_dataclass,
    "$enum": _read_enum,
    "$flag": _read_flag,
    "$codec": _no_codec,
}
_FOREIGN = frozenset({"$dataclass", "$enum", "$flag", "$codec"})


def _no_constant(name: str) -> Any:
    raise PayloadError(f"stored text contains {name}, which is no JSON")


_DECODER = json.JSONDecoder(object_hook=_revive, parse_constant=_no_constant)
_LENIENT_DECODER = json.JSONDecoder(object_hook=_revive_leniently, parse_constant=_no_constant)
_PLAIN_DECODER = json.JSONDecoder(parse_constant=_no_constant)
# The scanner itself: `loads` looks for white space around the text with two regexes, for each job.
_scan: Callable[[str, int], tuple[Any, int]] = _PLAIN_DECODER.scan_once  # type: ignore[attr-defined]


def _load(decoder: json.JSONDecoder, text: str) -> Any:
    try:
        return decoder.decode(text)
    except PayloadError:
        raise
    except (ValueError, RecursionError) as error:
        raise PayloadError(
            f"stored text is no JSON: {shown(text)}: {_error_text(error)}"
        ) from error
