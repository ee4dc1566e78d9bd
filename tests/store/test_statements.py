"""The statements' files: columns stand once, in the order of the values they become."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from jobvisor.jobs.job import Claimed
from jobvisor.jobs.store.base import AttemptRow, JobRow
from jobvisor.jobs.store.rows import Changed
from jobvisor.jobs.store.shipped import read_statements
from jobvisor.jobs.store.statements import statements

JOB = JobRow._fields[:-1]  # the history is another table's
ORDINARY = JOB[: JOB.index("special")]  # of one without terms nothing else is to be told
ATTEMPT = ("job", *AttemptRow._fields)
#: Counted from the claim, or known only after it.
RECKONED = {"expires_in_ms": "expires_at", "waited_ms": "run_at", "place": "NULL"}


def columns(text: str) -> list[str]:
    """The columns of a list, without what is done to them on the way out."""
    now = r"(:now|\{schema\}\.ms\(\{schema\}\.clock\(\)\))"
    found = re.sub(rf"\s*-\s*{now}|{now}\s*-\s*", "", text)
    found = re.sub(r"CASE WHEN .*? THEN (.*?)(?: (?:WHEN|ELSE) .*?)? END", r"\1", found)
    found = found.replace(" | (limit_key IS NOT NULL)", "")
    found = re.sub(r"\{schema\}\.ms\((\w+)\)", r"\1", found)
    return [column.strip().removesuffix("::text") for column in found.split(",")]


def returned(text: str) -> str:
    return text.partition("RETURNING ")[2]


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("enqueue_on_terms", JOB),
        ("claim", [RECKONED.get(name, name) for name in Claimed._fields]),
        ("fail", Changed._fields),
        ("release_rest", ["id", *Changed._fields]),
        ("vanish", ["id", "coalesce(claim", "0)", *Changed._fields]),
    ],
)
def test_what_a_change_returns_are_the_fields_of_its_value(
    dialect: str, statement: str, names: Sequence[str]
) -> None:
    told = statements(dialect, waits=True)[statement]
    assert columns(returned(told)) == list(names)


@pytest.mark.parametrize(("dialect", "names"), [("sqlite", JOB), ("postgres", ORDINARY)])
def test_what_an_ordinary_enqueue_returns_are_the_first_fields(
    dialect: str, names: Sequence[str]
) -> None:
    assert columns(returned(statements(dialect)["enqueue"])) == list(names)


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
@pytest.mark.parametrize(("statement", "names"), [("get", JOB), ("attempts", ATTEMPT)])
def test_what_is_read_are_the_fields_of_its_value(
    dialect: str, statement: str, names: Sequence[str]
) -> None:
    text = statements(dialect)[statement].removeprefix("SELECT ").partition("FROM ")[0]
    assert columns(text) == list(names)


@pytest.mark.parametrize("dialect", ["sqlite", "postgres"])
def test_no_other_statement_lists_the_columns_of_a_job(dialect: str) -> None:
    parts = read_statements(dialect).split("-- name: ")[1:]
    listing = [
        part.partition("\n")[0] for part in parts if re.search(r"(?<!:)\bcreated_at, *\w*", part)
    ]
    assert set(listing) <= {"import", "known"}


def test_both_dialects_name_the_same_statements_in_the_same_order() -> None:
    ours, theirs = list(statements("postgres")), list(statements("sqlite"))
    assert [name for name in ours if name in theirs] == [name for name in theirs if name in ours]


def test_statements_that_a_parent_has_read_are_those_that_its_children_use() -> None:
    for dialect in ("sqlite", "postgres"):
        assert statements(dialect) is statements(dialect, "")
