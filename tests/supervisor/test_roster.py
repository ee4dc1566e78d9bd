"""The table of roles: what each row must say for the rest to work."""

from __future__ import annotations

import pytest

from jobvisor.supervisor.role import Role, role_class
from jobvisor.supervisor.roster import CARETAKER, ROSTER, WORKER, RoleRow, role_name


@pytest.mark.parametrize("row", ROSTER.values(), ids=lambda row: row.word)
def test_each_row_names_a_role_that_can_be_made_from_a_seat(row: RoleRow) -> None:
    assert issubclass(role_class(row), Role)
    assert role_class(row).__init__.__annotations__["seat"] == "Seat"


def test_numbers_and_words_are_each_used_once() -> None:
    assert list(ROSTER) == [row.number for row in ROSTER.values()]
    assert len({row.word for row in ROSTER.values()}) == len(ROSTER)
    assert 0 not in ROSTER, "an empty slot has the role 0"


def test_who_settles_the_others_leaves_after_all_of_them() -> None:
    last = max(ROSTER.values(), key=lambda row: row.leaves)
    assert last is CARETAKER
    assert [row for row in ROSTER.values() if row.leaves == last.leaves] == [last]


def test_a_name_has_the_slot_where_there_may_be_several() -> None:
    assert role_name(WORKER.number, 3) == "worker 3"
    assert role_name(CARETAKER.number, 0) == "caretaker"
    assert role_name(77, 5) == "child 5"
