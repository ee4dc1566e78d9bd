"""What a worker tells of a task, and that it comes back as the options and the signature it was."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal

import pytest

from jobvisor import Context
from jobvisor.jobs.described import (
    BY_FUNCTION,
    described,
    options_of,
    parameter_names,
    policy_of,
    signature_of,
)
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.retry import Asked, DecorrelatedJitter, Exponential, Fixed

tasks = Registry()


class Kind(enum.Enum):
    URGENT = 1


@dataclass
class Letter:
    to: str


def told_of(function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """As it comes back from the table."""
    told = described(Registry().task(function, name="x", **options))
    back: dict[str, Any] = json.loads(json.dumps(told))
    return back


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"queue": "mail", "priority": -3, "retries": 0, "timeout": "1m30s", "memory": "64MB"},
        {"retry": Exponential(first="2s", factor=3, cap="1h", jitter=False)},
        {"retry": Fixed("250ms")},
        {"retry": DecorrelatedJitter(first="1s", cap="5m")},
        {"unique": True, "expires_in": "1h", "headers": {"a": [1]}},
        {"unique": "key", "timeout": 0},
    ],
)
def test_options_come_back_as_they_were(options: dict[str, Any]) -> None:
    def function() -> None: ...

    task = Registry().task(function, name="x", **options)
    assert options_of(json.loads(json.dumps(described(task)))["options"]) == task.options


def test_a_policy_that_is_a_function_comes_back_as_one_that_the_worker_asks() -> None:
    def function() -> None: ...

    policy = options_of(told_of(function, retry=lambda _attempt, _error: 1)["options"]).retry
    assert isinstance(policy, Asked)


def test_a_unique_key_that_is_made_by_a_function_is_told_as_such() -> None:
    told = told_of(lambda a: a, unique=lambda a: f"{a}")
    assert told["options"]["unique"] == BY_FUNCTION
    assert options_of(told["options"]).unique is None


@pytest.mark.parametrize(
    "told", [{"kind": "no"}, {"first": "soon"}, {"delay": 1}, {"factor": "x"}, []]
)
def test_a_policy_that_is_none_is_refused(told: Any) -> None:
    with pytest.raises(InvalidOption, match=r"retry|duration"):
        policy_of(told)


def test_a_signature_comes_back_without_the_context() -> None:
    def function(
        ctx: Context, a: int, /, b: str = "x", *more: int, c: bool, **others: int
    ) -> None: ...

    told = told_of(function)
    signature = signature_of(told)
    assert signature is not None
    assert str(signature) == "(a, /, b=None, *more, c, **others)"
    assert parameter_names(told) == ["a", "b", "more"]
    signature.bind(1, "y", 2, 3, c=True, d=4)
    with pytest.raises(TypeError):
        signature.bind(1)


def test_types_that_cannot_be_resolved_are_any_type() -> None:
    def function(a: int) -> None: ...

    function.__annotations__ = {"a": int, "b": "Missing"}
    assert told_of(function)["arguments"]["properties"] == {"a": {}}


def test_types_are_told_in_the_form_that_payloads_have() -> None:
    def function(
        a: int, b: list[str] | None, c: date, g: dict[str, float], j: str = "z"
    ) -> None: ...

    function.__annotations__ |= {"d": Literal["x", 3], "e": Kind, "f": Letter}
    told = told_of(function)["arguments"]
    assert told["required"] == ["a", "b", "c", "g"]
    assert told["properties"] == {
        "a": {"type": "integer"},
        "b": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
        "c": {
            "type": "object",
            "properties": {"$date": {"type": "string", "format": "date"}},
            "required": ["$date"],
        },
        "g": {"type": "object", "additionalProperties": {"type": "number"}},
        "j": {"type": "string", "default": "z"},
    }


class Hostile(type):
    """Whose classes cannot be asked anything."""

    def __hash__(cls) -> int:
        raise RuntimeError("no hash")


def test_an_annotation_that_raises_is_any_type() -> None:
    class Strange(metaclass=Hostile): ...

    def function(a: int, b: Any) -> None: ...

    function.__annotations__ = {"a": int, "b": Strange}
    assert told_of(function)["arguments"]["properties"] == {"a": {"type": "integer"}, "b": {}}


def test_a_default_that_cannot_be_told_is_left_out() -> None:
    class Word(str):
        __slots__ = ()

        def __str__(self) -> str:
            raise RuntimeError("no")

    huge = 10**5000  # more digits than Python writes

    def function(a: int = huge, b: str = Word("x"), c: int = 3) -> None: ...

    function.__annotations__["a"] = Literal[huge]
    assert told_of(function)["arguments"]["properties"] == {
        "a": {},
        "b": {"type": "string"},
        "c": {"type": "integer", "default": 3},
    }


def test_what_would_take_too_much_room_is_left_out() -> None:
    parameters = ", ".join(f"parameter_{n}: 'int | str | None' = None" for n in range(199))
    found: dict[str, Any] = {}
    exec(f"def function({parameters}): ...", found)
    told = told_of(found["function"])
    assert told["arguments"] is None
    assert len(told["parameters"]) == 199
    exec(f"def function({parameters.replace('parameter', 'p' * 90)}): ...", found)
    assert told_of(found["function"])["parameters"] is None
