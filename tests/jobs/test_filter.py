"""A Filter holds each word to what it may be, and says itself in one line and as JSON."""

from __future__ import annotations

import json
import pickle
from datetime import UTC, datetime
from typing import Any

import pytest

from jobvisor import Filter
from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.filter import IDS_MAX, TEXT_MAX
from jobvisor.jobs.job import State

NOON = datetime(2027, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"state": "done"}, "'done' is no state; it must be one of scheduled, pending"),
        ({"state": ["failed", "x" * 999]}, "is no state; it must be one of"),
        ({"state": []}, "state is an empty list; leave it out"),
        ({"state": 7}, "state=7 must be one, or a list of them"),
        ({"state": ["failed"] * 99}, "state names 99; name at most 7"),
        ({"queue": 7}, "queue=7 must be a text"),
        ({"queue": True}, "queue=True must be a text"),
        ({"task": []}, "task is an empty list"),
        ({"task": ["app:f", None]}, "task=None must be a text"),
        ({"error": b"no"}, "error=b'no' must be a text"),
        ({"error_type": ValueError}, "error_type=<class 'ValueError'> must be a text"),
        ({"text": "x" * (TEXT_MAX + 1)}, "text has 2001 characters; look for at most 2000"),
        ({"since": "yesterday"}, "since: 'yesterday' is not a duration"),
        ({"since": datetime(2027, 1, 31)}, "since: 2027-01-31T00:00:00 has no timezone"),  # noqa: DTZ001
        ({"until": True}, "until: True is not a duration"),
        ({"until": -5}, "until: -5"),
        ({"until": float("nan")}, "until: nan is not a duration"),
        ({"in_arguments": 1}, "in_arguments=1 must be True or False"),
        ({"ids": 7}, "ids=7 must be one, or a list of them"),
        ({"ids": [1, "2"]}, "ids: '2' is no id of a job"),
        ({"ids": [True]}, "ids: True is no id of a job"),
        ({"ids": range(IDS_MAX + 1)}, "ids names 10001; name at most 10000"),
    ],
)
def test_a_word_that_cannot_be_is_refused_in_one_sentence(said: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidOption) as refused:
        Filter(**said)
    assert str(refused.value).startswith(words) or words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_what_was_said_is_told_as_json_and_in_one_line() -> None:
    which = Filter(
        state=["failed", State.CANCELLED, "failed"],
        task="app:f",
        since=NOON,
        until=90,
        ids=[2**60, 7, 7],
    )
    assert json.loads(json.dumps(which.as_json())) == {
        "state": ["failed", "cancelled"], "task": "app:f", "since": "2027-01-31T12:00:00.000Z",
        "until": "1m30s", "ids": [7, str(2**60)],
    }  # fmt: skip
    assert str(which) == (
        "state=failed,cancelled task=app:f since=2027-01-31T12:00:00.000Z until=1m30s "
        f"ids=7,{2**60}"
    )
    assert str(Filter(ids=range(1, 100))) == "ids=1,2,3,4,5,6,7,8,9,10,... (99)"
    less = Filter(text="x", in_arguments=False)
    assert (str(less), less.as_json()["in_arguments"]) == ("text=x in_arguments=False", False)
    assert Filter(in_arguments=False).is_empty
    assert (str(Filter()), Filter().is_empty, Filter(queue="").is_empty) == ("", True, False)


def test_a_filter_is_a_value() -> None:
    which = Filter(state="failed", ids=[3, 1], since="1h")
    assert (
        which
        == Filter(state=State.FAILED, ids=(1, 3), since="1h")
        == pickle.loads(pickle.dumps(which))
    )
    assert len({which, Filter(state="failed", ids=[1, 3], since="1h")}) == 1
    assert (which.states, which.tasks, which.numbers) == ((State.FAILED,), (), (1, 3))
