"""Stored JSON text to the values it was made of: equal, and of the same type."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from enum import Enum
from importlib import import_module
from operator import attrgetter
from typing import Any
from uuid import UUID

from jobvisor.jobs.encode import Unreadable, loaded
from jobvisor.jobs.errors import PayloadError, error_text, shown


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


def decode_plain(text: str) -> Any:
    """The JSON of stored text, its tags left as they are."""
    return _load(_PLAIN_DECODER, text)


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
            f'stored text has a broken "{tag}" {shown(body)}: {error_text(error)}'
        ) from error


def _leniently(tag: str, body: Any) -> Any:
    """A value of a class that is loaded already, else an Unreadable: a listing runs no imports."""
    try:
        module, _, qualname = body[0].partition(":")
        if tag != "$codec" and loaded(module, qualname) is not None:
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
    except (ImportError, AttributeError, SystemExit) as error:
        raise PayloadError(f"stored text needs the class {name}: {error_text(error)}") from error


def _path_reader(kind: str) -> Callable[[str], Any]:
    def read(body: str) -> Any:
        return getattr(import_module("pathlib"), kind)(body)  # few programs have loaded it

    return read


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
    "$bytes": lambda body: base64.b64decode(body, validate=True),
    "$path": _path_reader("Path"),
    "$pureposixpath": _path_reader("PurePosixPath"),
    "$purewindowspath": _path_reader("PureWindowsPath"),
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
        raise PayloadError(f"stored text is no JSON: {shown(text)}: {error_text(error)}") from error
