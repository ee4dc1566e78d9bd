"""The tree of exceptions."""

from __future__ import annotations

import pickle

import pytest

from jobvisor import errors as public
from jobvisor.jobs import errors
from jobvisor.jobs.errors import JobsError, UniqueTaken, shown

EVERY = [
    one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, JobsError)
]


@pytest.mark.parametrize("error", EVERY)
def test_the_first_sentence_of_the_docstring_is_the_default_message(error: type[JobsError]) -> None:
    message = str(error())
    assert message
    assert (error.__doc__ or "").startswith(f"{message}.")


@pytest.mark.parametrize("error", EVERY)
def test_a_given_message_replaces_the_default_one(error: type[JobsError]) -> None:
    assert str(error("the disk is full")) == "the disk is full"


@pytest.mark.parametrize("error", EVERY)
def test_the_drawing_shows_every_error_with_its_exit_code(error: type[JobsError]) -> None:
    [line] = [
        line
        for line in (errors.__doc__ or "").splitlines()
        if error.__name__ in line.replace("|", " ").replace("'", " ").split()
        or f"{error.__name__} (" in line
    ]
    assert str(error.exit_code) in line.split()


def test_the_public_module_draws_the_same_tree_and_has_every_error() -> None:
    def drawing(text: str | None) -> list[str]:
        return [line for line in (text or "").splitlines() if line.startswith("    ")]

    assert drawing(public.__doc__) == drawing(errors.__doc__)
    assert {one.__name__ for one in EVERY} == set(public.__all__)


def test_an_error_keeps_its_holder_when_it_is_pickled() -> None:
    copy = pickle.loads(pickle.dumps(UniqueTaken("taken", holder=7)))
    assert (str(copy), copy.holder) == ("taken", 7)


def test_a_value_whose_repr_raises_is_shown_by_its_type() -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shown(Broken()) == "<Broken>"
