"""What is typed after a task's name becomes what its function takes, or is refused."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import pytest

from jobvisor.jobs.client import Client
from jobvisor.jobs.context import Context
from jobvisor.jobs.errors import InvalidOption
from jobvisor.supervisor.cli.arguments import Arguments
from tests.supervisor.cli.conftest import Run

if TYPE_CHECKING:
    from tests.supervisor.cli.conftest import Player as Nothing

WHEN = "tests.supervisor.cli.sample:at"
NUMBER = "12345678-1234-5678-1234-567812345678"


class Colour(Enum):
    RED = "r"
    BLUE = 2


def read(kind: Any, *words: str) -> list[Any]:
    def function(*x: Any) -> None: ...

    function.__annotations__["x"] = kind
    return Arguments("app:f", function).of_words(words)


@pytest.mark.parametrize(
    ("kind", "word", "value"),
    [
        (datetime, "2027-01-31T08:00Z", datetime(2027, 1, 31, 8, tzinfo=UTC)),
        (date, "2027-01-31", date(2027, 1, 31)),
        (date, '"2027-01-31"', date(2027, 1, 31)),
        (time, "08:30", time(8, 30)),
        (timedelta, "1m30s", timedelta(seconds=90)),
        (timedelta, "5", timedelta(seconds=5)),
        (Decimal, "12.50", Decimal("12.50")),
        (Decimal, '"0.1"', Decimal("0.1")),
        (UUID, NUMBER, UUID(NUMBER)),
        (Path, "a/b", Path("a/b")),
        (bytes, "grün", "grün".encode()),
        (Colour, "RED", Colour.RED),
        (Colour, "r", Colour.RED),
        (Colour, "2", Colour.BLUE),
        (str, "3", "3"),
        (str, "null", "null"),
        (str, '"3"', "3"),
        (str | None, "null", None),
        (str | None, "2027", "2027"),
        (date | None, "null", None),
        (date | str, "soon", "soon"),
        (date | str, "2027-01-31", date(2027, 1, 31)),
        (int | Decimal, "3", 3),
        (int | Decimal, "3.10", Decimal("3.10")),
        (Annotated[date, "doc"], "2027-01-31", date(2027, 1, 31)),
        (list[date], '["2027-01-31"]', [date(2027, 1, 31)]),
        (tuple[date, int], '["2027-01-31", 1]', (date(2027, 1, 31), 1)),
        (tuple[date, ...], '["2027-01-31"]', (date(2027, 1, 31),)),
        (set[Decimal], "[1, 0.5]", {Decimal(1), Decimal("0.5")}),
        (dict[str, date], '{"a": "2027-01-31"}', {"a": date(2027, 1, 31)}),
        (int, "3", 3),
        (int, "three", "three"),
        (float, "3", 3),
        (Literal["a"], "a", "a"),
        (Any, "[1]", [1]),
    ],
)
def test_a_word_becomes_what_the_annotation_says(kind: Any, word: str, value: Any) -> None:
    (found,) = read(kind, word)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "word", "expects"),
    [
        (datetime, "noon", "a date and time, such as 2027-01-31T08:00+01:00"),
        (date, "2027-02-30", "a date, such as 2027-01-31"),
        (date, "true", "a date"),
        (time, "25:00", "a time, such as 08:30"),
        (timedelta, "soon", "a duration, such as 1m30s"),
        (Decimal, "NaN", "a decimal number, such as 12.50"),
        (Decimal, "1,5", "a decimal number"),
        (UUID, "7", "a UUID"),
        (Colour, "GREEN", "one of RED, BLUE"),
        (date | None, "soon", "a date"),
        (date | Decimal, "soon", "a date, such as 2027-01-31, nor a decimal number"),
        (list[date], '["x"]', "a date"),
    ],
)
def test_what_cannot_become_it_is_refused_in_one_sentence(
    kind: Any, word: str, expects: str
) -> None:
    with pytest.raises(InvalidOption, match=r"^app:f: x=.* is not ") as refused:
        read(kind, word)
    assert expects in str(refused.value)


def test_words_go_to_the_parameters_they_are_bound_to() -> None:
    def f(ctx: Context, a: date, /, b: Decimal, *rest: time, c: UUID, **more: date) -> None: ...

    arguments = Arguments("app:f", f)
    assert arguments.of_words(["2027-01-31", "1.0", "08:00", "09:00"]) == [
        date(2027, 1, 31), Decimal("1.0"), time(8), time(9),
    ]  # fmt: skip
    assert arguments.of_keywords(json.dumps({"c": NUMBER, "d": "2027-01-31"})) == {
        "c": UUID(NUMBER),
        "d": date(2027, 1, 31),
    }
    assert arguments.of_line('["2027-01-31", 1.5]') == [date(2027, 1, 31), Decimal("1.5")]


def test_an_annotation_that_cannot_be_resolved_leaves_json() -> None:
    def f(a: date, b: Nothing) -> None: ...

    assert Arguments("app:f", f).of_words(["2027-01-31", "3"]) == ["2027-01-31", 3]


def test_typed_reads_our_tags_and_nothing_else_does() -> None:
    word = '{"$date": "2027-01-31"}'
    assert Arguments("app:f", typed=True).of_words([word, "plain"]) == [date(2027, 1, 31), "plain"]
    assert Arguments("app:f").of_words([word]) == [{"$date": "2027-01-31"}]
    assert Arguments("app:f", typed=True).of_keywords(f'{{"a": {word}}}') == {
        "a": date(2027, 1, 31)
    }
    assert Arguments("app:f", typed=True).of_line(f"[{word}]") == [date(2027, 1, 31)]
    with pytest.raises(InvalidOption, match="unknown tag"):
        Arguments("app:f", typed=True).of_words(['{"$when": 1}'])


def test_the_command_stores_what_the_function_takes(run: Run, folder: Path) -> None:
    assert run("enqueue", WHEN, "2027-01-31T08:00Z", "12.50").stdout == "1\n"
    lines = '["2027-01-31T08:00Z", "0.10"]\n'
    assert run("enqueue", WHEN, "-", stdin=lines).stdout == "2\n"
    with Client(f"sqlite:///{folder}/jobs.db") as client:
        moment = datetime(2027, 1, 31, 8, tzinfo=UTC)
        assert client.get(1).args == [moment, Decimal("12.50")]
        assert client.get(2).args == [moment, Decimal("0.10")]
    result = run("enqueue", WHEN, "noon", "1")
    assert result.exit_code == 2
    assert f"{WHEN}: when='noon' is not a date and time" in result.stderr
    assert run("enqueue", WHEN, "2027-01-31T08:00Z", "1", "--typed").exit_code == 0
    assert "stdin line 1: " in run("enqueue", WHEN, "-", stdin='["noon", 1]').stderr
