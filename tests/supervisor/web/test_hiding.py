"""`[web] hide`: what is masked, where, and what a copy of a masked job keeps."""

from __future__ import annotations

from typing import Any

import pytest

from jobvisor.supervisor.web.hiding import MASK, Hiding
from tests.store.making import new
from tests.supervisor.web.shop import Shop

HIDING = Hiding(
    ("password", "token"),
    lambda task: {"app:login": ["user", "password", "rest"], "app:other": ["rest"]}.get(task, []),
)


def shown(**document: Any) -> dict[str, Any]:
    return HIDING.shown({"task": "app:other", "args": [], "kwargs": {}, **document})


def stored(shop: Shop, kwargs: str, **values: Any) -> int:
    """The id of a job of `app:send` with arguments that nobody has held against anything."""
    with shop.client._store() as store:
        return store.enqueue([new(task="app:send", kwargs=kwargs, **values)])[0][0]


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


def test_arguments_by_place_are_all_masked_where_nobody_knows_what_they_are_called() -> None:
    assert shown(task="app:unknown", args=["x", {"a": 1}])["args"] == [MASK, MASK]
    assert HIDING.kept("app:unknown", [MASK, 2], {}, stored_args=["x", 1], stored_kwargs={}) == (
        ["x", 2],
        {},
    )


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


@pytest.mark.parametrize("hide", [("password",), ()])
def test_no_search_over_http_looks_into_arguments_where_some_are_hidden(
    hide: tuple[str, ...],
) -> None:
    shop = Shop(hide=hide)
    number = stored(shop, '{"password": "hunter2"}', unique_key="key:7")
    ids = [] if hide else [number]
    assert [job["id"] for job in shop.get("/jobs", text="hunter").json()["jobs"]] == ids
    assert [job["id"] for job in shop.get("/jobs", text="key:7").json()["jobs"]] == [number]
    body = {"filter": {"state": ["pending"], "text": "hunter"}}
    assert shop.post("/jobs/cancel", **body, dry_run=True).json()["jobs"] == len(ids)
    assert shop.post("/jobs/cancel", **body).json()["jobs"] == len(ids)
    assert shop.client.get(number).state == ("pending" if hide else "cancelled")
    shop.close()


@pytest.mark.parametrize("allowed", [("app:*",), ()])
def test_a_copy_does_not_tell_whether_a_guess_at_a_masked_value_is_right(
    allowed: tuple[str, ...],
) -> None:
    shop = Shop(allow_tasks=allowed)
    # It cannot be called like this, which is only told where something was changed.
    number = stored(shop, '{"password": "hunter2", "no": 1}')
    told = shop.get(f"/jobs/{number}").json()
    answers = [
        shop.post(f"/jobs/{number}/copy", kwargs={**told["kwargs"], "password": guess})
        for guess in ("hunter2", "hunter3")
    ]
    assert answers[0].status_code == answers[1].status_code == (422 if allowed else 403)
    assert answers[0].json()["detail"] == answers[1].json()["detail"]
    assert shop.post(f"/jobs/{number}/copy", kwargs=told["kwargs"]).status_code == 201
    shop.close()


def test_a_copy_does_not_tell_of_which_class_a_masked_value_is(here: Shop) -> None:
    number = stored(here, '{"password": {"$enum": ["app:Secret", "A"]}}')
    for guess in ("app:Secret", "app:Other"):
        kwargs = {"to": "a", "password": {"$enum": [guess, "A"]}}
        answer = here.post(f"/jobs/{number}/copy", kwargs=kwargs)
        assert answer.status_code == 422
        assert "which is not taken over HTTP" in answer.json()["detail"]
    kwargs = {"to": "a", "password": MASK}
    assert here.post(f"/jobs/{number}/copy", kwargs=kwargs).status_code == 201


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
