"""What may be said of unique keys, and where it is judged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from jobvisor import Client, task
from jobvisor.errors import InvalidOption
from jobvisor.jobs.described import described, options_of
from jobvisor.jobs.job import Terms
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.task import Defaults

DEBOUNCE: dict[str, Any] = {"on_conflict": "debounce", "delay": "5s", "max_wait": "1m"}


def send(to: str) -> None:
    """A function to be called."""


def terms_of(**options: Any) -> Terms | None:
    made = task(send, name="t:letter").using(**options).call("a")
    return made.new_job(Defaults(), Payload()).terms


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"unique_for": "soon"}, 'unique_for=\'soon\' must be "unfinished", "kept", or a duration'),
        ({"unique_for": 0}, "unique_for=0 must be above 0 and at most ten years"),
        ({"unique_for": "11000d"}, "unique_for='11000d' must be above 0 and at most ten years"),
        (
            {"on_conflict": "replac"},
            "on_conflict='replac' is no answer to a conflict; did you mean",
        ),
        ({"on_conflict": None, "delay": "1s"}, 'delay is only about on_conflict="debounce"'),
        (
            {"on_conflict": "replace", "max_wait": 1},
            'max_wait is only about on_conflict="debounce"',
        ),
        ({"on_conflict": "debounce"}, 'on_conflict="debounce" needs delay='),
        ({"on_conflict": "debounce", "delay": 1}, 'on_conflict="debounce" needs max_wait='),
        ({**DEBOUNCE, "delay": 0}, "delay=0 must be above 0"),
        ({**DEBOUNCE, "max_wait": "2s"}, "max_wait='2s' is below delay='5s'"),
        ({**DEBOUNCE, "unique_for": "kept"}, "gives the key back when the job begins"),
    ],
)
def test_what_contradicts_itself_is_refused_where_it_is_written(
    options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidOption, match=re.escape(said)):
        task(name="t:letter", unique=True, **options)(send)
    with pytest.raises(InvalidOption, match=re.escape(said)):
        task(send, name="t:letter").using(unique="k", **options)


def test_a_time_of_its_own_contradicts_a_delay() -> None:
    made = task(name="t:letter", unique=True, **DEBOUNCE)(send)
    with pytest.raises(InvalidOption, match="says when by delay; leave run_in and run_at out"):
        made.using(run_in="1h")


@pytest.mark.parametrize("options", [{"unique_for": "kept"}, {"on_conflict": "raise"}, DEBOUNCE])
def test_what_is_said_of_a_key_needs_a_key_when_it_is_called(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match="is about a unique key; give unique= too"):
        terms_of(**options)
    assert terms_of(unique=False, **options) is None
    assert terms_of(unique=lambda to: to, **options) is not None


def test_a_key_as_every_other_costs_a_job_nothing() -> None:
    assert terms_of(unique="k") is None
    assert terms_of(unique="k", unique_for="unfinished", on_conflict="return") is None


def test_another_answer_to_a_conflict_ends_what_is_only_of_a_debounce() -> None:
    made = task(name="t:letter", unique=True, **DEBOUNCE)(send)
    assert made.using(on_conflict="replace").options.delay_ms is None
    assert made.using(delay="1s").options.delay_ms == 1_000
    assert made.using(delay="1s").options.max_wait_ms == 60_000


def test_who_knows_only_the_name_of_a_task_keeps_its_way_with_keys() -> None:
    for options in (
        DEBOUNCE,
        {"unique_for": "10m"},
        {"unique_for": "kept", "on_conflict": "raise"},
    ):
        made = task(name="t:letter", unique=True, **options)(send)
        told = json.loads(json.dumps(described(made)))["options"]
        assert options_of(told) == made.options


def test_the_example_of_the_readme_runs_as_it_stands() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    (block,) = re.findall(r"```python keys\.py\n(.*?)```", text, re.DOTALL)
    exec(compile(block, "keys.py", "exec"), {"__name__": "__main__"})


def test_a_client_tells_who_holds_a_key() -> None:
    with Client("memory://") as client:
        made = client.enqueue(task(send, name="t:letter").using(unique="k").call("a"))
        assert client.holder("k") == made.id
        assert client.holder("other") is None
        with pytest.raises(InvalidOption, match="key='' must be a str of 1 to 500 characters"):
            client.holder("")
