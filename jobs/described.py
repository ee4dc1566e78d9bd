"""What a worker tells of a task, so that who has only its name may call it: options, parameters, types."""

from __future__ import annotations

import dataclasses
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

from jobvisor.jobs.errors import InvalidOption, shown
from jobvisor.jobs.headers import decode_headers
from jobvisor.jobs.keep import told_keep
from jobvisor.jobs.retry import (
    Asked,
    DecorrelatedJitter,
    Exponential,
    Fixed,
    Policy,
    as_policy,
)
from jobvisor.jobs.task import Options, Task, Unique, parameters_of
from jobvisor.jobs.uniqueness import unique_for_text
from jobvisor.jobs.units import duration_text

__all__ = ["BY_FUNCTION", "described", "options_of", "parameter_names", "policy_of", "signature_of"]

BY_FUNCTION = "by a function"
"""What a task tells of a key that it makes by a function of its arguments."""

WORDS_MAX = 500  # characters of a documentation's first line
DEPTH_MAX = 6  # of types in types
TOLD_MAX = (
    16 * 1024
)  # bytes; of a task that would take more the types are left out, then its parameters
PARAMETERS_MAX, ALIASES_MAX = 200, 20

Schema = dict[str, Any]


def described(task: Task[..., Any], aliases: Iterable[str] = ()) -> dict[str, Any]:
    """What `json.dumps` takes: `doc`, `aliases`, `options`, `parameters` and the schema of `arguments`.

    The options have the words and units of `using`; those that the task leaves open are not among them.
    """
    signature = parameters_of(task.function)
    parameters = list(signature.parameters.values())[:PARAMETERS_MAX] if signature else None
    told = {
        "doc": _first_line(task.function),
        "aliases": sorted(aliases)[:ALIASES_MAX],
        "options": _options_told(task.options),
        "parameters": None if parameters is None else [_parameter_told(p) for p in parameters],
        "arguments": None if parameters is None else _arguments(task.function, parameters),
    }
    for part in ("arguments", "parameters"):
        if len(json.dumps(told)) > TOLD_MAX:
            told[part] = None
    return told


def _first_line(function: Callable[..., Any]) -> str:
    text = getattr(function, "__doc__", None)
    lines = text.strip().splitlines() if isinstance(text, str) else []
    return lines[0].strip()[:WORDS_MAX] if lines else ""


# -- options


def _options_told(options: Options) -> dict[str, Any]:
    told = {
        "queue": options.queue,
        "priority": options.priority,
        "retries": options.retries,
        "retry": None if options.retry is None else _policy_told(options.retry),
        "timeout": _duration_told(options.timeout_ms),
        "memory": options.memory_bytes,
        "unique": _unique_told(options.unique),
        "unique_for": None if options.unique_for is None else unique_for_text(options.unique_for),
        "on_conflict": options.on_conflict,
        "delay": _duration_told(options.delay_ms),
        "max_wait": _duration_told(options.max_wait_ms),
        "share": BY_FUNCTION if callable(options.share) else options.share,
        "weight": BY_FUNCTION if callable(options.weight) else options.weight,
        "limit": BY_FUNCTION if callable(options.limit) else options.limit,
        "expires_in": _duration_told(options.expires_in_ms),
        "deadline": _duration_told(options.deadline_ms),
        "keep": None if options.keep is None else told_keep(options.keep),
        "headers": None if options.headers is None else dict(decode_headers(options.headers)),
    }
    return {name: value for name, value in told.items() if value is not None}


def _duration_told(ms: int | None) -> str | None:
    return None if ms is None else duration_text(ms)


def _unique_told(unique: Unique | None) -> Any:
    return BY_FUNCTION if callable(unique) else unique or None


def _policy_told(policy: Policy) -> dict[str, Any]:
    if isinstance(policy, Asked):
        return _policy_told(policy.fallback) | {"asked": True}
    if isinstance(policy, Fixed):
        return {"kind": "fixed", "delay": duration_text(policy.fixed_ms)}
    span = {"first": duration_text(policy.first_ms), "cap": duration_text(policy.cap_ms)}
    if isinstance(policy, DecorrelatedJitter):
        return {"kind": "decorrelated", **span}
    return {"kind": "exponential", **span, "factor": policy.factor, "jitter": policy.jitter}


def options_of(told: Mapping[str, Any]) -> Options:
    """The options of a task as it told them, for a call of it; InvalidOption where they are none.

    What is made by a function, a key of uniqueness or of a limit, a share, cannot be made here: who calls
    must say it.
    """
    functions = ("unique", "limit", "share", "weight")
    made = [name for name in functions if told.get(name) == BY_FUNCTION]
    values: Any = {name: value for name, value in told.items() if name not in made}
    if "retry" in values:
        values["retry"] = policy_of(values["retry"])
    return Options.of(values)


_KINDS: Mapping[str, type[Exponential | Fixed | DecorrelatedJitter]] = {
    "exponential": Exponential,
    "fixed": Fixed,
    "decorrelated": DecorrelatedJitter,
}


def policy_of(told: Any) -> Policy:
    """A retry policy as JSON has it: a duration, or an object with the policy's own parameters.

    >>> policy_of({"kind": "exponential", "first": "1s", "cap": "10m"})
    Exponential(first='1s', factor=2, cap='10m', jitter=True)
    """
    if not isinstance(told, Mapping):
        return as_policy(told)
    parts = dict(told)
    kind = _KINDS.get(parts.pop("kind", "exponential"))
    asked = parts.pop("asked", False)
    if kind is None:
        raise InvalidOption(f"retry={shown(told)}: kind must be one of {', '.join(_KINDS)}")
    try:
        policy = kind(**parts)
    except TypeError as error:
        raise InvalidOption(f"retry={shown(told)} is no policy: {error}") from None
    return Asked(None, policy) if asked is True else policy


# -- parameters


def parameter_names(told: Mapping[str, Any]) -> list[str]:
    """What the arguments by place are called, in order; the name of `*rest` stands for all further ones.

    >>> parameter_names({"parameters": [{"name": "to", "kind": "any"}, {"name": "cc", "kind": "named"}]})
    ['to']
    """
    found = told.get("parameters")
    return [
        str(each.get("name"))
        for each in (found if isinstance(found, list) else [])
        if isinstance(each, dict) and each.get("kind") in ("any", "placed", "more")
    ]


def signature_of(told: Mapping[str, Any]) -> inspect.Signature | None:
    """The signature as it was told, to hold a call against; None where nothing is known of it."""
    found = told.get("parameters")
    if not isinstance(found, list):
        return None
    try:
        return inspect.Signature([_parameter_of(each) for each in found])
    except (ValueError, TypeError, KeyError):
        return None


_WORD_OF = {
    inspect.Parameter.POSITIONAL_ONLY: "placed",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "any",
    inspect.Parameter.VAR_POSITIONAL: "more",
    inspect.Parameter.KEYWORD_ONLY: "named",
    inspect.Parameter.VAR_KEYWORD: "others",
}
_KIND_OF = {word: kind for kind, word in _WORD_OF.items()}


def _parameter_told(parameter: inspect.Parameter) -> dict[str, Any]:
    kind = _WORD_OF[parameter.kind]
    required = parameter.default is parameter.empty and kind not in ("more", "others")
    return {"name": parameter.name, "kind": kind, "required": required}


def _parameter_of(told: Mapping[str, Any]) -> inspect.Parameter:
    default = inspect.Parameter.empty if told["required"] else None
    if told["kind"] in ("more", "others"):
        default = inspect.Parameter.empty
    return inspect.Parameter(told["name"], _KIND_OF[told["kind"]], default=default)


# -- types


def _arguments(function: Callable[..., Any], parameters: Sequence[inspect.Parameter]) -> Schema:
    """The schema of an object with all arguments by name, in the JSON form of a payload."""
    hints = _hints(function)
    told = {p.name: _parameter_schema(p, hints.get(p.name, Any)) for p in parameters}
    named = [p for p in parameters if _WORD_OF[p.kind] not in ("more", "others")]
    return {
        "type": "object",
        "properties": {p.name: told[p.name] for p in named},
        "required": [p.name for p in named if p.default is p.empty],
        "additionalProperties": any(_WORD_OF[p.kind] == "others" for p in parameters),
    }


def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(inspect.unwrap(function))
    except Exception:  # noqa: BLE001 - an annotation is the user's code, and may raise anything
        return {}


def _parameter_schema(parameter: inspect.Parameter, kind: Any) -> Schema:
    try:
        schema = _schema(kind, 0)
        default = parameter.default
        if type(default) in (bool, int, str) and len(str(default)) <= WORDS_MAX:
            schema = {**schema, "default": default}
        json.dumps(schema)  # a number may have more digits than Python writes
    except Exception:  # noqa: BLE001 - so are a metaclass and a default
        return {}
    return schema


def _tagged(tag: str, body: Schema) -> Schema:
    return {"type": "object", "properties": {tag: body}, "required": [tag]}


_SCHEMAS: Mapping[Any, Schema] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    type(None): {"type": "null"},
    dict: {"type": "object"},
    list: {"type": "array"},
    datetime: _tagged("$datetime", {"type": "string", "format": "date-time"}),
    date: _tagged("$date", {"type": "string", "format": "date"}),
    time: _tagged("$time", {"type": "string", "format": "time"}),
    timedelta: _tagged("$timedelta", {"type": "array", "items": {"type": "integer"}}),
    Decimal: _tagged("$decimal", {"type": "string"}),
    UUID: _tagged("$uuid", {"type": "string", "format": "uuid"}),
    bytes: _tagged("$bytes", {"type": "string", "contentEncoding": "base64"}),
    Path: _tagged("$path", {"type": "string"}),
}
_TAGS = {tuple: "$tuple", set: "$set", frozenset: "$frozenset"}


def _schema(kind: Any, depth: int) -> Schema:
    """The JSON Schema of a type in the form that payloads have; `{}`, which is anything, where unknown."""
    if depth > DEPTH_MAX:
        return {}
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _schema(inner[0], depth)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(each, depth + 1) for each in inner]}
    if origin is typing.Literal:
        return {"enum": [each for each in inner if isinstance(each, (str, int, bool, type(None)))]}
    if origin is list and inner:
        return {"type": "array", "items": _schema(inner[0], depth + 1)}
    if origin is dict and len(inner) == 2:
        return {"type": "object", "additionalProperties": _schema(inner[1], depth + 1)}
    if (origin or kind) in _TAGS:
        items = _schema(inner[0], depth + 1) if inner and origin is not tuple else {}
        return _tagged(_TAGS[origin or kind], {"type": "array", "items": items})
    if isinstance(kind, type) and issubclass(kind, Enum):
        names: Schema = {"enum": [_place(kind), *kind.__members__]}
        return _tagged("$enum", {"type": "array", "items": names})
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _tagged("$dataclass", {"type": "array", "prefixItems": [{"const": _place(kind)}]})
    try:
        return _SCHEMAS.get(origin or kind, {})
    except TypeError:  # a type that cannot be hashed
        return {}


def _place(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
