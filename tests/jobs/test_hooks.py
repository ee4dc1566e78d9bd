"""Which functions may be hooks, and in which order they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.hooks import BEFORE_FORK, ON_START, ON_STOP
from jobvisor.jobs.registry import Registry


def one() -> None: ...


async def two() -> None: ...


def takes(_argument: int) -> None: ...


def generates() -> Iterator[int]:
    yield 1


class Service:
    def begin(self) -> None: ...


def test_hooks_are_kept_by_kind_in_their_order_and_stay_what_they_are() -> None:
    hooks = Registry().hooks
    assert hooks.on_start(two) is two
    assert hooks.on_start(one) is one
    assert hooks.on_stop(one) is one
    assert hooks.before_fork(one) is one
    assert [hooks.of(kind) for kind in (BEFORE_FORK, ON_START, ON_STOP)] == [
        [one],
        [two, one],
        [one],
    ]


def test_a_hook_whose_module_is_loaded_again_is_called_once() -> None:
    hooks = Registry().hooks
    for _ in range(2):
        names: dict[str, Any] = {"__name__": "app"}
        exec("def begin(): ...", names)
        hooks.on_start(names["begin"])
    hooks.on_start(lambda: None)
    hooks.on_start(lambda: None)
    assert hooks.of(ON_START)[0] is names["begin"]
    assert len(hooks.of(ON_START)) == 3


@pytest.mark.parametrize("kind", [BEFORE_FORK, ON_START, ON_STOP])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (5, "takes a function, not 5"),
        (takes, "must take no argument"),
        (generates, "is a generator: its body would not run"),
        (Service.begin, "is a method: there is no object to call it on"),
    ],
)
def test_what_cannot_be_a_hook_is_refused_where_it_is_written(
    kind: str, given: Any, words: str
) -> None:
    with pytest.raises(InvalidOption, match=f"@{kind} .*{words}"):
        getattr(Registry().hooks, kind)(given)


def test_an_async_hook_before_the_fork_is_refused_with_the_reason() -> None:
    with pytest.raises(InvalidOption, match="no event loop goes across a fork"):
        Registry().hooks.before_fork(two)
