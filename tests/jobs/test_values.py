"""What a value in config.toml may be."""

from __future__ import annotations

from typing import Any

import pytest

from jobvisor.jobs.errors import InvalidOption
from jobvisor.jobs.values import check_prefix, check_schema, flag, retention, size


@pytest.mark.parametrize("name", ["jobvisor", "_", "a1", "x" * 63, "public"])
def test_a_schema_is_a_plain_lower_case_name(name: str) -> None:
    assert check_schema(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "Jobs", "1a", "a-b", "a b", 'a"b', "a;", "x" * 64, "pg_x", "information_schema", "ä", 5],
)
def test_another_schema_is_refused(name: Any) -> None:
    with pytest.raises(InvalidOption, match=r"schema=.*lower-case"):
        check_schema(name)


@pytest.mark.parametrize(
    ("value", "kept"), [("forever", None), ("0s", 0), ("0d", 0), ("7d", 604_800_000), (60, 60_000)]
)
def test_a_retention_is_a_time_for_ever_or_not_at_all(value: Any, kept: int | None) -> None:
    assert retention().read(value, ".") == kept


@pytest.mark.parametrize("value", ["0", 0, 0.0, "0.0", "never", "", None, True, "400d"])
def test_a_retention_that_could_mean_two_things_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        retention().read(value, ".")
    assert '"forever"' in retention().expects
    assert '"0s"' in retention().expects


@pytest.mark.parametrize(("value", "number"), [("512MB", 512 << 20), ("0", 0), (0, 0)])
def test_a_size_has_its_unit_and_0_is_none(value: Any, number: int) -> None:
    assert size().read(value, ".") == number


@pytest.mark.parametrize("value", [512, "512", "512B", "4K", -1, "2EB", 10**30])
def test_a_size_without_a_unit_or_too_small_for_any_process_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        size().read(value, ".")


def test_a_flag_in_a_variable_is_a_word_or_a_digit() -> None:
    assert [flag().from_text(text) for text in ("true", "1", "False", "0")] == [
        True,
        True,
        False,
        False,
    ]
    for text in ("yes", ""):
        with pytest.raises(ValueError):
            flag().from_text(text)


@pytest.mark.parametrize("name", ["", "a", "jobvisor_", "shop2_", "x" * 20])
def test_a_prefix_is_a_short_plain_lower_case_word(name: str) -> None:
    assert check_prefix(name) == name


@pytest.mark.parametrize(
    "name",
    ["J_", "1a", "_a", "a-", "a b", 'a"', "a;", "a.", "x" * 21, "sqlite_", "ä", "a\n", 5, None],
)
def test_another_prefix_is_refused(name: Any) -> None:
    with pytest.raises(InvalidOption, match=r"prefix=.*at most 20 lower-case letters"):
        check_prefix(name)
