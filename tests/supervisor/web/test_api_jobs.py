"""Jobs over HTTP: enqueued, found, looked at, and moved."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobvisor.jobs.described import BY_FUNCTION
from jobvisor.jobs.job import Attempt, Job, NewJob
from jobvisor.supervisor.web.api import documents
from tests.supervisor.web.shop import API, Shop


def names_of(model: Any) -> set[str]:
    return set(model.model_fields)


def test_the_document_of_the_api_names_each_member_of_a_job_and_an_attempt() -> None:
    assert names_of(documents.Job) == set(Job.__slots__)
    assert names_of(documents.Attempt) == set(Attempt.__slots__)


# -- enqueue


def test_a_job_is_enqueued_with_the_options_of_its_task(shop: Shop) -> None:
    answer = shop.post("/jobs", task="app:send", args=["a@b.c"], kwargs={"subject": "Welcome"})
    assert answer.status_code == 201
    told = answer.json()
    assert (told["queue"], told["attempts_max"], told["created"]) == ("mail", 2, True)
    assert answer.headers["location"] == f"{API}/jobs/{told['id']}"
    job = shop.run()
    assert (job.id, job.result) == (told["id"], "Welcome")


def test_options_of_the_call_count_before_those_of_the_task(shop: Shop) -> None:
    told = shop.post(
        "/jobs",
        task="app:send",
        args=["a@b.c"],
        queue="default",
        priority=3,
        retries=0,
        retry={"kind": "fixed", "delay": "5s"},
        timeout="1m",
        memory="64MB",
        run_in=60,
        expires_in="1h",
        headers={"trace": "4bf92f35"},
    ).json()
    assert (told["queue"], told["priority"], told["attempts_max"]) == ("default", 3, 1)
    assert (told["timeout"], told["memory"], told["state"]) == (60, 64 << 20, "scheduled")
    assert told["headers"] == {"trace": "4bf92f35"}


def test_a_unique_key_that_is_taken_is_answered_with_its_holder(shop: Shop) -> None:
    first = shop.post("/jobs", task="app:send", args=["a@b.c"], unique="welcome:7")
    second = shop.post("/jobs", task="app:send", args=["d@e.f"], unique="welcome:7")
    assert (first.status_code, second.status_code) == (201, 200)
    assert second.json()["id"] == first.json()["id"]
    assert second.json()["created"] is False


def test_what_is_done_where_a_key_is_held_is_said_in_the_request(shop: Shop) -> None:
    body = {"task": "app:send", "args": ["a@b.c"], "unique": "k", "run_in": "1h"}
    first = shop.post("/jobs", **body, unique_for="10m").json()
    assert (first["unique_for"], first["unique_until"][:4].isdigit()) == ("10m", True)
    refused = shop.post("/jobs", **body, on_conflict="raise")
    assert (refused.status_code, refused.json()["error"]) == (409, "UniqueTaken")
    assert refused.json()["holder"] == first["id"]
    replaced = shop.post("/jobs", **body | {"args": ["d@e.f"]}, on_conflict="replace")
    assert replaced.status_code == 200
    told = replaced.json()
    assert (told["id"], told["args"], told["created"], told["replaced"]) == (
        first["id"], ["d@e.f"], False, True,
    )  # fmt: skip
    wrong = shop.post("/jobs", task="app:send", args=["a"], unique="k", on_conflict="debounce")
    assert (wrong.status_code, "needs delay=" in wrong.json()["detail"]) == (422, True)
    moved = shop.post(
        "/jobs",
        task="app:send",
        args=["a"],
        unique="d",
        on_conflict="debounce",
        delay=5,
        max_wait="1m",
    )
    assert (moved.status_code, moved.json()["unique_for"]) == (201, "waiting")


def test_tags_are_values_where_arguments_are_typed(here: Shop) -> None:
    plain = here.post("/jobs", task="app:send", args=[{"$date": "2027-01-31"}]).json()
    typed = here.post("/jobs", task="app:send", args=[{"$date": "2027-01-31"}], typed=True).json()
    assert plain["args"] == [{"$$date": "2027-01-31"}]
    assert typed["args"] == [{"$date": "2027-01-31"}]


def test_a_task_that_makes_its_key_by_a_function_wants_it_said(here: Shop) -> None:
    refused = here.post("/jobs", task="app:once", args=[1])
    assert refused.status_code == 422
    assert "unique" in refused.json()["detail"]
    assert here.post("/jobs", task="app:once", args=[1], unique="once:1").status_code == 201


@pytest.mark.parametrize(("option", "value"), [("limit", "shop:7"), ("share", "t"), ("weight", 3)])
def test_what_a_function_makes_is_to_be_said_and_a_schedule_of_it_is_refused(
    here: Shop, option: str, value: object
) -> None:
    here.client.note_tasks({"app:made": {"options": {option: BY_FUNCTION}}})
    for refused in (
        here.post("/jobs", task="app:made"),
        here.post("/jobs/bulk", jobs=[{"task": "app:made"}]),
        here.post("/schedules", name="s", task="app:made", cron="0 3 * * *"),
    ):
        assert refused.status_code == 422, refused.text
        assert f"{option} " in refused.json()["detail"]
        assert "is made by a function, which cannot be called here" in refused.json()["detail"]
    made = here.post("/jobs", task="app:made", **{"share": "t", option: value})
    assert (made.status_code, made.json()[option]) == (201, value)


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        ({"task": "other:task"}, 403, "allow_tasks"),
        ({"task": "app:sned"}, 422, "did you mean 'app:send'?"),
        ({"task": "app:send"}, 422, "missing a required argument: 'to'"),
        ({"task": "app:send", "args": ["a"], "kwargs": {"cc": 1}}, 422, "cc"),
        ({"task": ""}, 422, "body.task"),
        ({"args": []}, 422, "body.task: is missing"),
        ({"task": "app:add", "priority": True}, 422, "body.priority"),
        ({"task": "app:add", "priority": "3"}, 422, "body.priority"),
        ({"task": "app:add", "retries": -1}, 422, "body.retries"),
        ({"task": "app:add", "queue": "a b"}, 422, "body.queue"),
        ({"task": "app:add", "timeout": "soon"}, 422, "timeout: 'soon' is not a duration"),
        (
            {"task": "app:add", "timeout": True},
            422,
            "body.timeout: input should be a valid number, or",
        ),
        ({"task": "app:add", "run_at": "2027-01-31T08:00"}, 422, "has no timezone"),
        ({"task": "app:add", "run_at": "2027-01-31T08:00Z", "run_in": 1}, 422, "run_in and run_at"),
        ({"task": "app:add", "retry": {"kind": "fixed"}}, 422, "retry"),
        ({"task": "app:add", "retry": {"kind": "never"}}, 422, "retry"),
        ({"task": "app:add", "retryy": 1}, 422, "body.retryy: is not known here"),
        ({"task": "app:add", "args": {"a": 1}}, 422, "body.args"),
        ({"task": "app:add", "args": ["\0"]}, 422, "contains NUL"),
        ({"task": "app:add", "args": [{"a": "\ud800"}]}, 422, "lone surrogate"),
        ({"task": "app:add", "kwargs": {"x": 1}}, 422, "unexpected keyword argument 'x'"),
        ({"task": "app:add", "headers": {"x": "y" * 5000}}, 422, "headers takes"),
        (
            {"task": "app:add", "args": [{"$dataclass": ["os:x", {}]}], "typed": True},
            422,
            "not taken over HTTP",
        ),
        ({"task": "app:add", "args": [{"$codec": "x"}], "typed": True}, 422, "could not be read"),
        ({"task": "app:add", "args": [{"$ref": "x"}], "typed": True}, 422, "unknown tag"),
        ({"task": "app:add", "args": [{"$date": 5}], "typed": True}, 422, 'broken "$date"'),
    ],
)
def test_a_job_that_cannot_be_is_refused_in_a_sentence_and_not_stored(
    here: Shop, body: dict[str, Any], status: int, says: str
) -> None:
    answer = here.post("/jobs", **body)
    assert (answer.status_code, says in answer.json()["detail"]) == (status, True), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert here.client.list() == []


def test_a_task_nobody_has_told_of_is_enqueued_by_force(here: Shop) -> None:
    assert here.post("/jobs", task="app:new", force=True).status_code == 201


def test_nothing_may_be_enqueued_where_no_task_is_allowed() -> None:
    shop = Shop(allow_tasks=())
    assert shop.post("/jobs", task="app:add").status_code == 403
    shop.close()


def test_many_are_enqueued_in_one_transaction(shop: Shop) -> None:
    answer = shop.post("/jobs/bulk", jobs=[{"task": "app:add", "args": [n]} for n in range(3)])
    assert answer.status_code == 201
    assert [shop.client.get(number).args for number in answer.json()["ids"]] == [[0], [1], [2]]


def test_one_of_many_that_cannot_be_keeps_all_out(here: Shop) -> None:
    answer = here.post("/jobs/bulk", jobs=[{"task": "app:add"}, {"task": "app:send"}])
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("jobs[1]: app:send")
    assert here.client.list() == []


# -- enqueue once


def test_a_request_that_comes_twice_is_answered_with_its_first_job(shop: Shop) -> None:
    def post(number: int, key: str) -> Any:
        body = {"task": "app:add", "args": [number]}
        return shop.web.post(f"{API}/jobs", json=body, headers={"Idempotency-Key": key})

    first, other = post(1, "a"), post(1, "b")
    assert (first.status_code, other.status_code) == (201, 201)
    for _ in range(2):
        shop.run()
    again = post(1, "a")
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])
    assert (again.json()["state"], again.json()["created"]) == ("succeeded", False)
    assert shop.client.count().number == 2
    assert len(shop.client.actions()) == 2


def test_another_request_with_the_same_key_is_refused(shop: Shop) -> None:
    headers = {"Idempotency-Key": "a"}
    for number, status in ((1, 201), (2, 422), (1, 200)):
        body = {"task": "app:add", "args": [number]}
        answer = shop.web.post(f"{API}/jobs", json=body, headers=headers)
        assert answer.status_code == status
    assert shop.client.count().number == 1


def test_a_request_whose_job_is_gone_says_so_and_makes_no_other(shop: Shop) -> None:
    def post() -> Any:
        body = {"task": "app:add"}
        return shop.web.post(f"{API}/jobs", json=body, headers={"Idempotency-Key": "a"})

    shop.client.cancel(post().json()["id"])
    shop.post("/jobs/prune", filter={"state": ["cancelled"]})
    assert post().status_code == 404
    assert shop.client.count().number == 0


def test_a_request_that_failed_leaves_its_key_free(shop: Shop) -> None:
    headers = {"Idempotency-Key": "a"}
    for args, status in (["\0"], 422), (["x"], 201):
        answer = shop.web.post(
            f"{API}/jobs", json={"task": "app:add", "args": args}, headers=headers
        )
        assert answer.status_code == status


def test_many_that_are_sent_twice_are_made_once(shop: Shop) -> None:
    body = {"jobs": [{"task": "app:add", "args": [n]} for n in range(3)]}
    answers = [
        shop.web.post(f"{API}/jobs/bulk", json=body, headers={"Idempotency-Key": "a"}) for _ in "12"
    ]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    assert shop.client.count().number == 3


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_none_is_refused(here: Shop, key: str) -> None:
    answer = here.web.post(
        f"{API}/jobs", json={"task": "app:add"}, headers={"Idempotency-Key": key}
    )
    assert answer.status_code == 422


# -- look


def test_a_list_is_paged_by_its_cursor_the_newest_first(shop: Shop) -> None:
    ids = shop.client.enqueue_many(shop.client.call("app:add", n) for n in range(5))
    first = shop.get("/jobs", limit=3).json()
    second = shop.get("/jobs", limit=3, cursor=first["next"]).json()
    seen = [job["id"] for page in (first, second) for job in page["jobs"]]
    assert seen == ids[::-1]
    assert second["next"] is None


def test_a_list_is_narrowed_by_each_of_its_words(shop: Shop) -> None:
    failed = shop.failed()
    waits = shop.client.enqueue("app:add").id

    def found(**query: Any) -> list[int]:
        return [job["id"] for job in shop.get("/jobs", **query).json()["jobs"]]

    assert found(state="failed") == found(status="failed") == [failed]
    assert found(state=["failed", "pending"]) == [waits, failed]
    assert found(task="app:add") == found(text="APP:AD") == [waits]
    assert found(queue="default", until="0s") == [waits, failed]
    assert (
        found(error="broken") == found(error_type="ValueError") == found(since="1h", state="failed")
    )
    assert found(error="absent") == found(queue="mail") == []


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"limit": 201},
        {"limit": "x"},
        {"state": "done"},
        {"stat": "failed"},
        {"error": ["a", "b"]},
        {"limit": [1, 2]},
        {"cursor": "-1"},
        {"since": "yesterday"},
        {"since": "2027-01-31T08:00"},
        {"text": "x" * 2001},
    ],
)
def test_a_question_that_is_none_is_refused_in_a_sentence(
    here: Shop, query: dict[str, Any]
) -> None:
    answer = here.get("/jobs", **query)
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_a_large_value_is_left_out_of_a_list(here: Shop) -> None:
    number = here.client.enqueue("app:add", "x" * 20_000).id
    [listed] = here.get("/jobs").json()["jobs"]
    assert listed["args"] == {"$left_out": 20_004}
    assert len(here.get(f"/jobs/{number}").json()["args"][0]) == 20_000


def test_a_job_is_shown_with_its_unsuccessful_runs(shop: Shop) -> None:
    number = shop.failed()
    told = shop.get(f"/jobs/{number}").json()
    [attempt] = told["attempts"]
    assert told["state"] == "failed"
    assert (attempt["outcome"], attempt["error_type"]) == ("error", "ValueError")
    assert "raise" in attempt["traceback"]
    assert shop.get(f"/jobs/{number}/attempts").json()["attempts"] == [attempt]
    [run] = shop.get(f"/jobs/{number}/log").json()["runs"]
    assert run["outcome"] == "error"


@pytest.mark.parametrize(
    ("number", "status"),
    [
        ("4711", 404),
        ("9223372036854775807", 404),
        ("9223372036854775808", 422),
        ("0", 422),
        ("x", 422),
    ],
)
def test_a_job_there_is_not_is_told_as_such(here: Shop, number: str, status: int) -> None:
    assert here.get(f"/jobs/{number}").status_code == status
    for verb in ("cancel", "requeue"):
        assert here.post(f"/jobs/{number}/{verb}").status_code == status
    assert here.post(f"/jobs/{number}/copy", args=[]).status_code == status
    assert here.web.delete(f"{API}/jobs/{number}").status_code == status


def test_a_stack_is_refused_where_no_family_is_known(here: Shop) -> None:
    number = here.client.enqueue("app:add").id
    assert here.get(f"/jobs/{number}/stack").status_code == 409


# -- do


def test_a_job_is_cancelled_once(shop: Shop) -> None:
    number = shop.client.enqueue("app:add").id
    assert shop.post(f"/jobs/{number}/cancel").json() == {"id": number, "outcome": "cancelled"}
    again = shop.post(f"/jobs/{number}/cancel")
    assert (again.status_code, again.json()["error"]) == (409, "IllegalMove")


def test_a_failed_job_is_requeued_with_its_history(shop: Shop) -> None:
    number = shop.failed()
    told = shop.post(f"/jobs/{number}/requeue").json()
    assert (told["state"], told["attempt"]) == ("pending", 0)
    assert len(shop.client.attempts(number)) == 1
    assert shop.post(f"/jobs/{number}/requeue").status_code == 409


def test_a_requeue_whose_key_is_taken_names_the_holder(shop: Shop) -> None:
    number = shop.post("/jobs", task="app:fail", unique="k").json()["id"]
    shop.run()
    holder = shop.post("/jobs", task="app:fail", unique="k").json()["id"]
    answer = shop.post(f"/jobs/{number}/requeue")
    assert (answer.status_code, answer.json()["holder"]) == (409, holder)


def test_a_job_that_waits_is_rescheduled(shop: Shop) -> None:
    number = shop.client.enqueue("app:add").id
    told = shop.post(f"/jobs/{number}/reschedule", run_in="1h").json()
    assert told["state"] == "scheduled"
    told = shop.post(f"/jobs/{number}/reschedule", run_at="2100-01-01T01:00+01:00").json()
    assert told["run_at"] == "2100-01-01T00:00:00.000Z"
    assert shop.web.post(f"{API}/jobs/{number}/reschedule").json()["state"] == "pending"
    shop.post(f"/jobs/{number}/cancel")
    assert shop.post(f"/jobs/{number}/reschedule").status_code == 409
    told = shop.get("/actions").json()["actions"]
    assert told[1]["what"] == f"job {number} to be due now"


@pytest.mark.parametrize(
    "body",
    [
        {"run_in": "soon"},
        {"run_at": "2100-01-01"},
        {"run_at": "1h"},
        {"run_in": 1, "run_at": "2100-01-01T00:00Z"},
        {"in": "1h"},
    ],
)
def test_a_time_that_is_none_reschedules_nothing(here: Shop, body: dict[str, Any]) -> None:
    job = here.client.enqueue("app:add")
    assert here.post(f"/jobs/{job.id}/reschedule", **body).status_code == 422
    assert here.post("/jobs/reschedule", filter={"ids": [job.id]}, **body).status_code == 422
    assert here.client.get(job.id).run_at == job.run_at


def test_a_filter_is_rescheduled_after_it_was_counted(shop: Shop) -> None:
    ids = shop.client.enqueue_many(shop.client.call("app:add", n) for n in range(3))
    chosen = {"ids": ids[:2]}
    assert shop.post("/jobs/reschedule", filter=chosen, run_in=60, dry_run=True).json()["jobs"] == 2
    told = shop.post("/jobs/reschedule", filter=chosen, run_in=60).json()
    assert told["outcomes"] == {"scheduled": 2}
    told = shop.post("/jobs/reschedule", filter={"state": ["scheduled"]}).json()
    assert told["outcomes"] == {"pending": 2}


def test_a_finished_job_is_deleted_and_another_is_not(shop: Shop) -> None:
    number, waits = shop.failed(), shop.client.enqueue("app:add").id
    assert shop.web.delete(f"{API}/jobs/{number}").status_code == 204
    assert shop.get(f"/jobs/{number}").status_code == 404
    assert shop.web.delete(f"{API}/jobs/{waits}").status_code == 409


def test_a_copy_has_changed_arguments(shop: Shop) -> None:
    number = shop.failed()
    answer = shop.post(f"/jobs/{number}/copy", args=["KeyError"])
    assert answer.status_code == 201
    assert answer.json()["args"] == ["KeyError"]
    assert shop.run().error == "KeyError: 'broken'"


def test_a_copy_with_changed_arguments_needs_an_allowed_task_and_one_without_does_not() -> None:
    shop = Shop(allow_tasks=())
    number = shop.failed()
    assert shop.post(f"/jobs/{number}/copy", args=["KeyError"]).status_code == 403
    assert shop.post(f"/jobs/{number}/copy").status_code == 201
    assert shop.web.post(f"{API}/jobs/{number}/copy").status_code == 201
    shop.close()


def test_a_copy_of_what_cannot_be_read_is_made_of_what_is_stored(here: Shop) -> None:
    stored = '[{"$dataclass": ["nobody:Has", {"a": 1}]}]'
    with here.client._store() as store:
        store.enqueue(
            [NewJob("app:add", stored, "{}", "default", 0, None, 0, 1, None, 0, 0, None, None)]
        )
    [job] = here.get("/jobs").json()["jobs"]
    made = here.post(f"/jobs/{job['id']}/copy", args=job["args"], kwargs={}).json()
    assert made["args"] == job["args"] == json.loads(stored)


def test_a_copy_tells_true_from_one(here: Shop) -> None:
    number = here.client.enqueue("app:add", 1).id
    assert here.post(f"/jobs/{number}/copy", args=[True]).json()["args"][0] is True


def test_a_copy_is_held_against_the_signature(here: Shop) -> None:
    number = here.failed()
    assert here.post(f"/jobs/{number}/copy", args=[1, 2, 3]).status_code == 422


# -- do to many


def test_a_filter_is_requeued_after_it_was_counted(shop: Shop) -> None:
    failed = {shop.failed(), shop.failed("KeyError")}
    kind = {"state": ["failed"], "error_type": "KeyError"}
    dry = shop.post("/jobs/requeue", filter=kind, dry_run=True).json()
    assert (dry["jobs"], dry["dry_run"]) == (1, True)
    told = shop.post("/jobs/requeue", filter=kind).json()
    assert told["outcomes"] == {"pending": 1}
    assert {job.id for job in shop.client.list(state="failed")} < failed


def test_a_filter_is_cancelled_and_pruned(shop: Shop) -> None:
    ids = shop.client.enqueue_many(shop.client.call("app:add", n) for n in range(3))
    told = shop.post("/jobs/cancel", filter={"ids": [ids[0], str(ids[1])]}).json()
    assert told["outcomes"] == {"cancelled": 2}
    told = shop.post("/jobs/prune", filter={"state": ["cancelled"]}).json()
    assert told["outcomes"] == {"removed": 2}
    assert [job.id for job in shop.client.list()] == [ids[2]]


@pytest.mark.parametrize("verb", ["cancel", "requeue", "reschedule", "prune"])
@pytest.mark.parametrize(
    "body",
    [
        {"filter": {}},
        {},
        {"filter": {"state": []}},
        {"filter": {"ids": [True]}},
        {"filter": {"ids": [1.5]}},
        {"filter": {"ids": []}},
        {"filter": {"quueue": "x"}},
        {"filter": {"state": "failed"}},
        {"filter": {"state": ["failed"]}, "dryrun": True},
    ],
)
def test_a_filter_that_may_mean_everything_is_refused(
    here: Shop, verb: str, body: dict[str, Any]
) -> None:
    here.client.enqueue("app:add")
    assert here.post(f"/jobs/{verb}", **body).status_code == 422
    assert here.client.count().number == 1


# -- who


def test_who_changed_something_is_noted(shop: Shop) -> None:
    number = shop.failed()
    shop.post(f"/jobs/{number}/requeue")
    shop.post(f"/jobs/{number}/cancel")
    shop.post("/jobs", task="app:add")
    shop.post("/jobs/prune", filter={"state": ["cancelled"]})
    told = shop.get("/actions").json()["actions"]
    assert [(each["verb"], each["number"]) for each in told] == [
        ("prune", 1),
        ("enqueue", 1),
        ("cancel", 1),
        ("requeue", 1),
    ]
    assert {each["who"] for each in told} == {"local"}
    assert [each["verb"] for each in shop.get("/actions", limit=2).json()["actions"]] == [
        "prune",
        "enqueue",
    ]


def test_a_site_that_is_read_only_shows_all_and_changes_nothing() -> None:
    shop = Shop(read_only=True)
    number = shop.failed()
    assert shop.get(f"/jobs/{number}").status_code == 200
    changes: dict[str, dict[str, Any]] = {
        f"/jobs/{number}/requeue": {},
        f"/jobs/{number}/copy": {},
        f"/jobs/{number}/reschedule": {},
        "/jobs/reschedule": {"filter": {"state": ["pending"]}},
        "/jobs": {"task": "app:add"},
        "/jobs/bulk": {"jobs": [{"task": "app:add"}]},
        "/jobs/prune": {"filter": {"state": ["failed"]}},
        "/reload": {},
        "/pools/default/scale": {"workers": 2},
    }
    for path, body in changes.items():
        answer = shop.post(path, **body)
        assert (answer.status_code, answer.json()["error"]) == (403, "ReadOnly"), path
    assert shop.web.delete(f"{API}/jobs/{number}").status_code == 403
    assert shop.client.get(number).state == "failed"
    shop.close()
