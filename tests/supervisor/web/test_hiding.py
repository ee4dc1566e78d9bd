"""`[web] hide`: what is masked, where, and what a copy of a masked job keeps."""

from __future__ import annotations

from typing import Any

import pytest

from jobvisor.supervisor.web.hiding import MASK, Hiding
from tests.supervisor.web.shop import Shop

HIDING = Hiding(
    ("password", "token"), lambda task: {"app:login": ["user", "password", "rest"]}.get(task, [])
)


def shown(**document: Any) -> dict[str, Any]:
    return HIDING.shown({"task": "app:other", "args": [], "kwargs": {}, **document})


@pytest.mark.parametrize("part", ["kwargs", "result", "headers", "progress"])
def test_a_key_is_masked_at_any_depth_in_any_case(part: str) -> None:
    told = shown(
        **{part: {"user": "x", "PassWord": "p", "in": [{"token": {"a": 1}}, {"tokens": 2}]}}
    )
    assert told[part] == {"user": "x", "PassWord": MASK, "in": [{"token": MASK}, {"tokens": 2}]}


def test_an_argument_by_place_is_masked_by_the_name_of_its_parameter() -> None:
    assert shown(task="app:login", args=["x", "p", {"token": 1}])["args"] == [
        "x",
        MASK,
        {"token": MASK},
    ]
    assert shown(task="app:unknown", args=["x", "p"])["args"] == ["x", "p"]


def test_the_fields_of_a_dataclass_and_keys_that_begin_with_a_dollar_are_keys_too() -> None:
    stored = {"$dataclass": ["app:Login", {"password": "p"}], "more": 1, "$$password": "q"}
    assert shown(kwargs=stored)["kwargs"]["$dataclass"] == ["app:Login", {"password": MASK}]
    assert shown(kwargs=stored)["kwargs"]["$$password"] == MASK


def test_the_document_that_is_shown_is_another_one() -> None:
    stored = {"task": "app:x", "args": [], "kwargs": {"password": "p"}}
    assert HIDING.shown(stored)["kwargs"] == {"password": MASK}
    assert stored["kwargs"] == {"password": "p"}


def test_nothing_is_masked_where_nothing_is_to_be_hidden() -> None:
    told = Hiding((), lambda _: ["password"]).shown(
        {"task": "x", "args": ["p"], "kwargs": {"password": "p"}}
    )
    assert (told["args"], told["kwargs"]) == (["p"], {"password": "p"})


def test_a_copy_of_a_masked_job_keeps_what_the_mask_hides(shop: Shop) -> None:
    number = shop.client.enqueue("app:send", "a@b.c", password="hunter2").id
    told = shop.get(f"/jobs/{number}").json()
    assert told["kwargs"] == {"password": MASK}
    assert "hunter2" not in shop.get("/jobs").text
    told["kwargs"]["subject"] = "again"
    made = shop.post(f"/jobs/{number}/copy", args=told["args"], kwargs=told["kwargs"]).json()
    assert shop.client.get(made["id"]).kwargs == {"password": "hunter2", "subject": "again"}
    assert "hunter2" not in str(made)


def test_a_mask_with_nothing_behind_it_is_a_text_like_any_other(here: Shop) -> None:
    number = here.client.enqueue("app:send", "a@b.c").id
    made = here.post(f"/jobs/{number}/copy", kwargs={"subject": MASK, "password": MASK}).json()
    assert here.client.get(made["id"]).kwargs == {"subject": MASK, "password": MASK}


def test_a_value_is_put_back_at_its_place_only() -> None:
    args, kwargs = HIDING.kept(
        "app:login",
        ["x", MASK, [{"token": MASK}, MASK]],
        {"token": MASK, "user": MASK},
        stored_args=["y", "p", [{"token": "t"}, "u"]],
        stored_kwargs={"token": "k", "user": "v"},
    )
    assert args == ["x", "p", [{"token": "t"}, MASK]]
    assert kwargs == {"token": "k", "user": MASK}
