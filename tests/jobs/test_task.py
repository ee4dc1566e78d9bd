"""A function, its options and its calls."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

import pytest

from jobvisor.jobs.errors import InvalidOption, PayloadError
from jobvisor.jobs.job import Job, NewJob
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.retry import Asked, Exponential, policy_from_json
from jobvisor.jobs.task import (
    KEY_MAX,
    NO_OPTIONS,
    Call,
    ContextTask,
    Defaults,
    Injected,
    Options,
    Task,
    fits,
    parameters_of,
    wants_context,
)

if TYPE_CHECKING:
    from jobvisor.jobs import context as jobs_context

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def send(to: str, *, subject: str = "none") -> int:
    """Send a mail."""
    return len(to) + len(subject)


def row(call: Call, defaults: Defaults | None = None) -> NewJob:
    return call.new_job(defaults or Defaults(), Payload())


TASK: Task[..., int] = Task("app:send", send)


def test_a_plain_call_stays_a_plain_call() -> None:
    assert TASK("a@b.c", subject="x") == 6
    assert TASK.__doc__ == "Send a mail."


def test_a_call_without_options_takes_the_defaults() -> None:
    new = row(TASK.call("a"), Defaults(queue="mail", retries=7, timeout_ms=500))
    assert new == NewJob("app:send", '["a"]', "{}", "mail", 0, None, 0, 8, None, 500, 0, None, None)


def test_every_option_reaches_the_row() -> None:
    new = row(
        TASK.using(
            queue="bulk",
            priority=-5,
            retries=0,
            retry="5s",
            timeout="1m",
            memory="1MB",
            unique="welcome:42",
            run_in="10m",
            expires_in="1h",
        ).call("a")
    )
    assert new[3:9] == ("bulk", -5, None, 600_000, 1, '{"kind":"fixed","delay":5000}')
    assert new[9:13] == (60_000, 1 << 20, "welcome:42", 3_600_000)


def test_a_moment_reaches_the_row() -> None:
    assert row(TASK.using(run_at=NOON).call("a")).run_at_ms == 1_795_348_800_000


def test_using_lays_options_over_those_of_the_task_and_leaves_the_task_alone() -> None:
    base = TASK.using(queue="mail", timeout="5s")
    over = base.using(timeout=0, retries=1)
    assert over.options == Options(queue="mail", timeout_ms=0, retries=1)
    assert base.options == Options(queue="mail", timeout_ms=5_000)
    assert TASK.options is NO_OPTIONS


def test_of_two_ways_to_say_when_the_later_counts() -> None:
    assert TASK.using(run_in=5).using(run_at=NOON).options.run_in_ms is None
    assert TASK.using(run_at=NOON).using(run_in=5).options.run_at_ms is None


def test_a_policy_equal_to_the_default_is_not_stored() -> None:
    assert row(TASK.using(retry=Exponential()).call("a")).policy is None


def test_a_callable_policy_is_stored_as_its_fallback() -> None:
    stored = row(TASK.using(retry=lambda _attempt, _error: 1).call("a")).policy
    assert policy_from_json(stored) == Asked(None, Exponential())


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"queue": "*"}, r'queue="\*" names no queue'),
        ({"queue": ""}, "queue=''"),
        ({"queue": "a b"}, "queue='a b'"),
        ({"queue": "q" * 101}, "queue="),
        ({"queue": "caf\u00e9"}, "queue="),
        ({"queue": 5}, "queue=5"),
        ({"priority": 32_768}, "priority=32768 must be a whole number from -32768 to 32767"),
        ({"priority": 1.5}, "priority=1.5"),
        ({"priority": True}, "priority=True"),
        ({"retries": -1}, "retries=-1"),
        ({"retries": 10**7}, "retries="),
        ({"retry": "soon"}, "retry='soon'"),
        ({"timeout": "-5s"}, "timeout: '-5s'"),
        ({"memory": "lots"}, "memory: 'lots'"),
        ({"memory": 512}, "memory=512 is less than any process needs; write its unit, such as"),
        ({"unique": ""}, "unique=''"),
        ({"unique": "k" * (KEY_MAX + 1)}, "unique="),
        ({"unique": "a\0"}, "unique="),
        ({"unique": "\ud800"}, "unique="),
        ({"unique": 5}, "unique=5"),
        ({"run_in": "x"}, "run_in: 'x'"),
        ({"run_in": 5, "run_at": NOON}, "give one of them"),
        ({"run_at": datetime(2026, 1, 1)}, "run_at: .* has no timezone"),  # noqa: DTZ001 -- refused
        ({"run_at": "tomorrow"}, "run_at='tomorrow'"),
        ({"expires_in": 0}, "expires_in=0"),
        ({"priorty": 1}, 'did you mean "priority"'),
        ({"cron": "* * * * *"}, "cron=.* is not an option"),
    ],
)
def test_a_bad_option_is_refused_with_its_name_and_value(values: Any, told: str) -> None:
    with pytest.raises(InvalidOption, match=told):
        TASK.using(**values)


@pytest.mark.parametrize(
    "call", [TASK.call(), TASK.call("a", "b"), TASK.call("a", subjct="x"), TASK.call("a", to="b")]
)
def test_a_call_that_the_function_would_not_accept_is_refused_at_enqueue(call: Call) -> None:
    with pytest.raises(InvalidOption, match=r"app:send\(to: 'str', \*, subject"):
        row(call)


def test_a_call_of_an_unknown_function_is_not_checked() -> None:
    assert row(Call("other:f", (1, 2), {"x": 3})).args == "[1,2]"


def test_an_argument_that_cannot_be_stored_is_refused_at_enqueue() -> None:
    with pytest.raises(PayloadError, match=r"args\[0\]"):
        row(TASK.call(object()))


def key(*args: Any, **kwargs: Any) -> str | None:
    return row(TASK.using(unique=True).call(*args, **kwargs)).unique_key


def test_the_key_of_equal_arguments_is_equal_however_they_are_written() -> None:
    assert key("a", subject="x") == key(subject="x", to="a")
    assert key("a") != key("b")
    assert str(key("a")).startswith("app:send:")


def test_the_key_of_the_arguments_does_not_depend_on_the_codec() -> None:
    class Salted:
        def encode(self, text: str) -> str:
            return f"{id(object())}{text}"

        def decode(self, text: str) -> str:
            return text

    new = TASK.using(unique=True).call("a").new_job(Defaults(), Payload(Salted()))
    assert new.unique_key == key("a")


def test_the_key_of_the_arguments_is_for_ever() -> None:
    assert key("a") == "app:send:ec4ade30cbbd23131f33ef4466f65301"


def test_a_function_makes_the_key_from_the_arguments() -> None:
    def made(to: str, **_rest: Any) -> str:
        return f"mail:{to}"

    assert row(TASK.using(unique=made).call("a", subject="x")).unique_key == "mail:a"


def test_a_function_that_makes_no_key_is_refused() -> None:
    with pytest.raises(InvalidOption, match="unique=None"):
        row(TASK.using(unique=lambda _to: None).call("a"))  # type: ignore[arg-type, return-value]


def test_unique_can_be_switched_off_for_one_call() -> None:
    assert row(TASK.using(unique="k").using(unique=False).call("a")).unique_key is None


class Context(Injected):
    """Stands for the real one."""


class Foreign:
    class Context:
        """A class of the user that is also called Context."""


def with_class(ctx: Context, n: int) -> None: ...


def with_string(ctx: jobs_context.Context, n: int) -> None: ...


def with_foreign(ctx: Foreign.Context, n: int) -> None: ...


def with_nothing() -> None: ...


def with_keyword(*, ctx: Context) -> None: ...


def unresolved(ctx: Any, n: int) -> None: ...


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (with_class, True),
        (with_foreign, False),
        (with_nothing, False),
        (with_keyword, False),
        (send, False),
        (print, False),
        (dict.get, False),
        (partial(send, "a"), False),
    ],
)
def test_a_context_is_wanted_by_the_annotation_of_the_first_parameter(
    function: Callable[..., Any], wanted: bool
) -> None:
    assert wants_context(function) is wanted


@pytest.mark.parametrize(
    ("annotation", "wanted"),
    [
        ("jobvisor.Context", True),
        ("jobvisor.jobs.context.Context", True),
        ("'jobvisor.Context'", True),
        ("click.Context", False),
        ("Foreign.Context", False),
        ("Contextual", False),
        ("Context", True),
        (Context, True),
        (int, False),
    ],
)
def test_an_annotation_may_be_a_string(annotation: Any, wanted: bool) -> None:
    def function(ctx: Any) -> None: ...

    function.__annotations__["ctx"] = annotation
    assert wants_context(function) is wanted


def test_the_context_is_no_argument_of_the_call() -> None:
    assert str(parameters_of(with_class)) == "(n: 'int')"
    task: ContextTask[Context, [int], None] = ContextTask("app:with_class", with_class)
    assert row(task.call(3)).args == "[3]"
    assert task(Context(), 3) is None


class Client:
    def __init__(self) -> None:
        self.calls: list[Call] = []

    def enqueue(self, call: Call, /) -> Job:
        self.calls.append(call)
        return None  # type: ignore[return-value]


def test_enqueue_asks_the_default_client(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    monkeypatch.setattr(Task, "default_client", staticmethod(lambda: client))
    TASK.enqueue("a", subject="x")
    asyncio.run(TASK.aenqueue("b"))
    assert [call.args for call in client.calls] == [("a",), ("b",)]
    assert json.dumps(client.calls[0].kwargs) == '{"subject": "x"}'


def _two(a: int, b: int = 0) -> None: ...


def _named(a: int, *, b: int, c: int = 0) -> None: ...


def _any(*a: int, b: int = 0) -> None: ...


def _by_place(a: int, /, b: int = 0) -> None: ...


def _open(a: int, **b: int) -> None: ...


@pytest.mark.parametrize("function", [_two, _named, _any, _by_place, _open, print])
def test_a_call_that_fits_is_one_that_can_be_bound_and_most_that_can_be_bound_fit(
    function: Callable[..., Any],
) -> None:
    bound = fitting = 0
    for count in range(4):
        for names in chain.from_iterable(combinations("abcd", n) for n in range(4)):
            args, kwargs = (1,) * count, dict.fromkeys(names, 1)
            try:
                inspect.signature(function).bind(*args, **kwargs)
            except TypeError:
                assert not fits(function, args, kwargs)
            else:
                bound += 1
                fitting += fits(function, args, kwargs)
    assert fitting == (0 if function in (_by_place, _open) else bound)
