"""Which finished jobs a family removes: by `[retention]`, by `[queues.NAME]`, and what neither may say."""

from __future__ import annotations

from typing import Any

import pytest

from jobvisor.jobs.errors import ConfigError
from jobvisor.supervisor.config import Config

HOUR, DAY = 3_600_000, 86_400_000


def config(queues: dict[str, Any] | None = None, **retention: Any) -> Config:
    return Config.of({"retention": retention, "queues": queues or {}})


def rules(made: Config) -> list[tuple[Any, ...]]:
    return [(rule.state.value, *rule[1:]) for rule in made.rules]


def test_without_a_word_about_queues_each_state_has_one_rule() -> None:
    assert rules(config(failed="forever")) == [
        ("succeeded", DAY, (), False),
        ("cancelled", 7 * DAY, (), False),
    ]


def test_what_a_queue_says_of_one_end_leaves_the_others_as_they_are() -> None:
    made = config({"mail": {"keep": {"succeeded": "1h", "failed": "forever"}}})
    assert rules(made) == [
        ("succeeded", HOUR, ("mail",), True),
        ("succeeded", DAY, ("mail",), False),
        ("cancelled", 7 * DAY, (), False),
        ("failed", 30 * DAY, ("mail",), False),
    ]


def test_queues_of_one_time_share_a_rule() -> None:
    made = config({"a": {"keep": "1h"}, "b": {"keep": "1h"}, "c": {"keep": "2h"}, "d": {}})
    assert rules(made)[:3] == [
        ("succeeded", HOUR, ("a", "b"), True),
        ("succeeded", 2 * HOUR, ("c",), True),
        ("succeeded", DAY, ("a", "b", "c"), False),
    ]


@pytest.mark.parametrize(
    ("said", "forgets"),
    [
        (config(succeeded="0s"), True),
        (config({"a": {"keep": {"failed": "1h"}}}, succeeded="0s"), True),
        (config({"a": {"keep": "1h"}}, succeeded="0s"), False),
        (config({"a": {"keep": "0s"}}), False),
        (config(), False),
    ],
)
def test_succeeded_jobs_go_as_they_end_only_where_no_queue_keeps_them(
    said: Config, forgets: bool
) -> None:
    assert said.forgets is forgets


def test_a_variable_says_it_too() -> None:
    environ = {"JOBVISOR_QUEUES_MAIL_KEEP": "succeeded=1h, failed=forever"}
    made = Config.of({"queues": {"mail": {}}}, environ=environ)
    assert made.named_queues[0].keep == (("failed", None), ("succeeded", HOUR))
    made = Config.of({"queues": {"mail": {}}}, environ={"JOBVISOR_QUEUES_MAIL_KEEP": "2h"})
    assert {ms for _state, ms in made.named_queues[0].keep} == {2 * HOUR}


@pytest.mark.parametrize(
    ("queues", "words"),
    [
        ({"mail": {"keep": "soon"}}, '[queues.mail] keep = "soon" is not valid: write a duration'),
        ({"mail": {"keep": 0}}, '"0s" to delete it at once'),
        ({"mail": {"keep": {"done": "1h"}}}, "or one for each of cancelled, failed, succeeded"),
        ({"mail": {"keep": {}}}, "is not valid"),
        ({"mail": {"kep": "1h"}}, '[queues.mail] "kep" is not a key; did you mean "keep"?'),
        ({"no queue": {"keep": "1h"}}, "no queue name"),
        ({"mail": "1h"}, "queues holds names; write [queues.NAME]"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(queues: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        config(queues)
    assert words in str(refused.value)
