"""How long a job is kept: what may be said, where it is judged, and what README shows of it."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import pytest

from jobvisor import Client, Registry
from jobvisor.errors import InvalidOption
from jobvisor.jobs.described import described, options_of
from jobvisor.jobs.keep import check_keep, encode_keep, read_keep, told_keep

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
HOUR = 3_600_000


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("1h", dict.fromkeys(("cancelled", "failed", "succeeded"), HOUR)),
        (3600, dict.fromkeys(("cancelled", "failed", "succeeded"), HOUR)),
        ("forever", dict.fromkeys(("cancelled", "failed", "succeeded"))),
        ("0s", dict.fromkeys(("cancelled", "failed", "succeeded"), 0)),
        ({"succeeded": "1h"}, {"succeeded": HOUR}),
        ({"succeeded": "0s", "failed": "forever"}, {"failed": None, "succeeded": 0}),
    ],
)
def test_a_time_is_meant_for_every_end_or_for_those_that_are_named(
    said: Any, meant: dict[str, int | None]
) -> None:
    assert check_keep("keep", said) == meant


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("soon", "keep: 'soon' is not a duration"),
        ("soon", "or 'forever'"),
        (0, "keep=0 could mean either; write '0s' for not at all, or 'forever'"),
        ("0", "keep='0' could mean either"),
        (-1, "it is negative"),
        ({}, "keep={} says nothing; leave it out"),
        ({"done": "1h"}, "keep: 'done' is no end of a job; write cancelled, failed or succeeded"),
        ({"failed": None}, "keep['failed']: None is not a duration"),
        ({"failed": 0}, "keep['failed']=0 could mean either"),
        (True, "keep: True is not a duration"),
        (["1h"], "is not a duration"),
    ],
)
def test_what_cannot_be_meant_is_refused_where_it_is_written(said: Any, words: str) -> None:
    registry = Registry()
    with pytest.raises(InvalidOption) as refused:
        registry.task(keep=said)(print)
    assert words in str(refused.value)


@pytest.mark.parametrize("stored", [None, "", "[", "[]", "{}", '{"failed": "x"}', '{"a": 1}'])
def test_what_a_stranger_has_stored_is_read_as_nothing(stored: str | None) -> None:
    assert not read_keep(stored)


@pytest.mark.parametrize("said", ["1h30m", "forever", {"failed": "90d", "succeeded": "0s"}])
def test_a_task_tells_it_as_it_was_written_and_is_called_with_it_by_its_name(said: Any) -> None:
    task = Registry().task(keep=said)(print)
    told = described(task)["options"]["keep"]
    assert told == said == told_keep(encode_keep("keep", said))
    assert options_of({"keep": told}).keep == encode_keep("keep", said)


def test_the_call_counts_before_the_task() -> None:
    task = Registry().task(name="app:f", keep="1h")(print)
    with Client("memory://") as client:
        kept = client.enqueue(task).keep
        assert kept == dict.fromkeys(("cancelled", "failed", "succeeded"), 3600.0)
        assert client.enqueue(task.using(keep={"failed": "2h"}).call()).keep == {"failed": 7200.0}
        assert client.enqueue("app:g").keep is None


def test_readme_shows_what_is_so() -> None:
    section = README.split("### How long a finished job is kept")[1].split("\n### ")[0]
    block = section.split("```pycon\n")[1].split("```")[0]
    found = doctest.DocTestParser().get_doctest(block, {}, "README", "README.md", 0)
    runner = doctest.DocTestRunner(verbose=False)
    said: list[str] = []
    runner.run(found, out=said.append)
    assert runner.failures == 0, "".join(said)
