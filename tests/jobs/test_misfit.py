"""Functions that make a key, a limit or a share, beside the task that they are of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobvisor import Context
from jobvisor.jobs.misfit import misfits
from jobvisor.jobs.task import Options, Task


def index(ctx: Context, page: str, words: int = 0, *, language: str = "en") -> None: ...


def placed(page: str, /, *, words: int) -> None: ...


def anything(*args: str, **kwargs: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "key"),
    [
        (index, lambda site: site),  # by place it is one as well as another
        (index, lambda page, words: f"{page} {words}"),
        (index, lambda *, page, language: f"{page} {language}"),
        (index, lambda page, *_, **__: page),
        (index, lambda page, **_: page),
        (index, dict),
        (anything, lambda page: page),
        (anything, lambda *, page: page),
        (placed, lambda page, words: f"{page} {words}"),
        (placed, lambda page, /, **_: page),
    ],
)
def test_a_key_that_fits_some_call_of_its_task_is_none_of_the_misfits(
    function: Callable[..., Any], key: Callable[..., Any]
) -> None:
    assert misfits(Task("t", function, Options.of({"unique": key}))) == []


@pytest.mark.parametrize("option", ["unique", "limit", "share"])
@pytest.mark.parametrize(
    ("function", "key"),
    [
        (index, lambda: "k"),
        (index, lambda page, site: f"{page} {site}"),
        (placed, lambda page: page),
        (placed, lambda *, page, words: f"{page} {words}"),
    ],
)
def test_one_that_fits_none_is_named_with_what_both_take(
    option: str, function: Callable[..., Any], key: Callable[..., Any]
) -> None:
    values: Any = {option: key}
    (told,) = misfits(Task("app:t", function, Options.of(values)))
    assert told.startswith(f"app:t: {option}=<lambda> takes (")
    assert "but the task (page: " in told
