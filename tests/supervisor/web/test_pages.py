"""What each page shows and what its forms do, asked over HTTP of the whole application, without a browser."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.routing import Mount

from jobvisor import Client
from jobvisor.jobs.annals import Sums
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.job import Job
from jobvisor.jobs.registry import Registry
from jobvisor.jobs.task import OptionValues
from jobvisor.supervisor.config import Web
from jobvisor.supervisor.web.app import create_app
from tests.supervisor.web.visitor import SITE, visitor

HTML = {"Accept": "text/html"}
HOSTILE = "<script>alert(1)</script>\"'>&{{ 1234567 * 3 }}"
PAGES = (
    "/",
    "/queues",
    "/jobs",
    "/failures",
    "/workers",
    "/families",
    "/tasks",
    "/schedules",
    "/limits",
    "/actions",
)


class Place:
    """A database with some jobs in it, its pages, and somebody who looks at them."""

    def __init__(self, **settings: Any) -> None:
        self.registry = Registry()
        self.registry.task(name="app:send", queue="mail", retries=0)(send)
        self.jobs = Client("memory://", registry=self.registry)
        self.app: FastAPI = create_app(self.jobs, settings=Web(**settings))
        self.browser = visitor(self.app, headers=HTML, follow_redirects=False)

    def run(self, *args: Any, **kwargs: Any) -> int:
        """A job that has been run; its id."""
        job = self.jobs.enqueue("app:send", *args, **kwargs)
        self.jobs.run_one()
        return job.id

    def page(self, address: str, status: int = 200) -> str:
        answer = self.browser.get(address)
        assert answer.status_code == status, answer.text
        return answer.text

    def form(self, address: str, status: int = 303, **fields: Any) -> str:
        """Send a form with the token of a page; where it leads to, or the page that it is answered with."""
        token = csrf_of(self.page("/"))
        answer = self.browser.post(address, data={"csrf": token, **fields})
        assert answer.status_code == status, answer.text
        return answer.headers.get("location", answer.text)

    def said(self) -> str:
        """What the last form did, as the next page tells it."""
        found = re.search("data-said>([^<]*)", self.page("/actions"))
        return found[1] if found else ""

    def actions(self) -> list[tuple[str, str, int | None]]:
        return [(each.verb, each.what, each.number) for each in self.jobs.actions()]


def send(to: str, *, password: str = "") -> str:
    if to.endswith("@nowhere"):
        raise ConnectionError(f"no route to {to}")
    return f"sent to {to}"


def csrf_of(page: str) -> str:
    found = re.search('name="csrf" value="([^"]+)"', page)
    assert found
    return found[1]


Make = Callable[..., Place]


@pytest.fixture
def make() -> Iterator[Make]:
    """Places with these settings; their databases are closed with the test."""
    made: list[Place] = []

    def new(**settings: Any) -> Place:
        made.append(Place(**settings))
        return made[-1]

    yield new
    for each in made:
        each.jobs.close()


@pytest.fixture
def place(make: Make) -> Place:
    return make(allow_tasks=("app:*",))


def _form_of(page: str, word: str) -> str:
    """The form of a page that has this word in it."""
    return next(each for each in page.split("<form")[1:] if word in each)


# -- all of them


@pytest.mark.parametrize("address", PAGES)
def test_each_page_is_there_before_anything_is(place: Place, address: str) -> None:
    text = place.page(address)
    assert "<h1>" in text
    assert 'lang="en"' in text
    assert "Skip to content" in text


class Addresses(HTMLParser):
    """Every address that a page leads to or loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.found |= {
            value for name in ("href", "src", "action") if (value := given.get(name)) is not None
        }
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


@pytest.mark.parametrize("address", [*PAGES, "/jobs/1", "/jobs/2", "/jobs/1/copy"])
def test_each_page_works_below_another_application(make: Make, address: str) -> None:
    place = make(allow_tasks=("app:*",))
    place.run("a@b.c")
    place.run("a@nowhere")
    around = Starlette(routes=[Mount("/tools/jobs", app=place.app)])
    browser = TestClient(around, base_url=SITE, client=("127.0.0.1", 50_000), headers=HTML)
    answer = browser.get(f"/tools/jobs{address}")
    assert answer.status_code == 200
    for found in Addresses(answer.text).found:
        assert found.startswith(("/tools/jobs/", "?", "#")), found
    for found in sorted(Addresses(answer.text).found):
        if found.startswith("/tools/jobs/static/"):
            assert browser.get(found).status_code == 200


@pytest.mark.parametrize("address", [*PAGES, "/jobs/1", "/jobs/1/copy", "/jobs?state=failed"])
def test_what_a_row_holds_is_text_on_each_page(place: Place, address: str) -> None:
    """Task, key, error, arguments, headers: all of them written by a stranger."""
    bad = HOSTILE
    job = place.jobs.enqueue(
        place.jobs.call(
            bad, bad, options={"unique": bad, "headers": {bad: bad}}, **{bad: {bad: bad}}
        )
    )
    place.jobs.note_action(bad, bad, bad, 1)
    place.jobs.note_tasks({bad: {"about": bad}})
    place.jobs.cancel(job)
    text = place.page(address)
    assert "<script>alert" not in text
    assert "3703701" not in text
    assert not Addresses(text).inline


def test_letters_that_hide_or_reorder_are_shown_by_their_numbers(place: Place) -> None:
    job = place.run("\u202egnp.exe\x07\x85\u200b")
    text = place.page(f"/jobs/{job}")
    assert not set("\u202e\x07\x85\u200b") & set(text)
    assert "\\u202egnp.exe\\u0007\\u0085\\u200b" in text


def test_no_page_needs_what_the_policy_forbids(place: Place) -> None:
    place.run("a@nowhere")
    for address in (*PAGES, "/jobs/1", "/jobs/1/copy", "/nowhere", "/jobs/1/stack"):
        assert Addresses(place.browser.get(address).text).inline == []


def test_a_page_that_is_not_there_is_a_page(place: Place) -> None:
    assert "there is nothing at this address" in place.page("/nowhere", 404)
    assert "99" in place.page("/jobs/99", 404)
    assert "is no id of a job" in place.page("/jobs/x", 404)


def test_nothing_of_a_page_is_kept_by_the_browser(place: Place) -> None:
    assert place.browser.get("/jobs").headers["Cache-Control"] == "no-store"


# -- the overview


def test_the_overview_says_what_needs_attention(place: Place) -> None:
    assert "Nothing does" in place.page("/")
    place.run("a@nowhere")
    assert "1 job of app:send failed" in place.page("/")


def test_the_charts_have_their_numbers_in_words_and_in_a_table(place: Place) -> None:
    minute = SYSTEM.now_ms() // 60_000 * 60_000
    place.jobs.add_stats(
        [
            Sums(
                minute,
                "mail",
                started=8,
                succeeded=7,
                failed=1,
                wait_ms=4_000,
                wait_max_ms=900,
                depth=5,
            )
        ]
    )
    for span in ("1h", "24h"):
        text = place.page(f"/?range={span}")
        assert "7 jobs succeeded in" in text
        assert "had waited 500 ms on average, 900 ms at the longest" in text
        assert "At most 5 jobs were pending" in text
        assert "12.5%" in text
        assert text.count("<svg viewBox") >= 4


def test_a_strange_range_is_an_hour(place: Place) -> None:
    assert "The last 1 hour" in place.page("/?range=<x>")


def test_queues_show_what_waits_and_what_was_done_lately(place: Place) -> None:
    hour = SYSTEM.now_ms() // 3_600_000 * 3_600_000
    place.jobs.add_stats(
        [Sums(hour, "mail", succeeded=70, failed=3), Sums(hour, "old", succeeded=1)]
    )
    place.jobs.enqueue("app:send", "a@b.c")
    rows = place.page("/queues").split("<tr>")
    mail = next(row for row in rows if "queue=mail" in row)
    assert re.findall('data-label="(Pending|Done in 1 h|Failed in 1 h)">(?:<a[^>]*>)?([^<]*)', mail) == [
        ("Pending", "1"), ("Done in 1 h", "70"), ("Failed in 1 h", "3"),
    ]  # fmt: skip
    assert any("queue=old" in row for row in rows)


# -- jobs


def test_jobs_are_found_by_what_the_address_says(place: Place) -> None:
    place.run("a@b.c")
    place.run("b@nowhere")
    place.jobs.enqueue("app:other")
    found = {
        "": [3, 2, 1],
        "?state=failed": [2],
        "?queue=mail": [2, 1],
        "?task=app:send": [2, 1],
        "?text=b@nowhere": [2],
        "?error=no+route": [2],
        "?state=failed&since=1h": [2],
        "?state=failed&since=2999-01-01T00:00Z": [],
        "?state=pending&queue=mail": [],
    }
    for query, ids in found.items():
        text = place.page(f"/jobs{query}")
        assert [int(number) for number in re.findall(r'data-job="(\d+)"', text)] == ids, query


def test_the_end_of_a_task_name_is_enough(place: Place) -> None:
    place.run("a@b.c")
    place.jobs.note_tasks({"app:send": {}})
    assert 'data-job="1"' in place.page("/jobs?task=send")


def test_an_id_in_the_search_leads_to_its_job(place: Place) -> None:
    place.run("a@b.c")
    assert place.browser.get("/jobs?text=1").headers["location"] == "/jobs/1"
    assert "No job matches" in place.page("/jobs?text=99")


def test_a_word_that_cannot_be_is_told_above_the_list(place: Place) -> None:
    for query in ("state=lost", "since=yesterday", "since=2027-01-01", "until=9999999999h"):
        text = place.page(f"/jobs?{query}", 400)
        assert 'role="alert"' in text, query


def test_older_jobs_are_a_page_further(place: Place) -> None:
    place.jobs.enqueue_many(place.jobs.call("app:send", n) for n in range(60))
    first = place.page("/jobs?queue=mail")
    older = re.search(r'href="(\?[^"]*before=\d+[^"]*)"', first)
    assert older
    second = place.page(f"/jobs{older[1].replace('&amp;', '&')}")
    assert re.findall(r'data-job="(\d+)"', second)[0] == "10"
    assert "queue=mail" in older[1]


# -- a job


def test_a_job_shows_its_arguments_its_end_and_why(place: Place) -> None:
    job = place.run("a@nowhere")
    text = place.page(f"/jobs/{job}")
    assert "no route to a@nowhere" in text
    assert "Attempt 1" in text
    assert "Requeue" in text
    assert "Result" not in text
    assert "sent to a@b.c" in place.page(f"/jobs/{place.run('a@b.c')}")


def test_a_job_shows_how_long_its_key_is_held_or_who_else_holds_it(place: Place) -> None:
    client = place.jobs

    def shown(job: Job) -> str:
        return " ".join(re.sub(r"<[^>]+>", " ", place.page(f"/jobs/{job.id}")).split())

    terms = {
        "unfinished": "while it is unfinished", "kept": "as long as it is kept", "10m": "until",
    }  # fmt: skip
    for number, (how_long, words) in enumerate(terms.items()):
        options: OptionValues = {"unique": f"key {number}", "unique_for": how_long}
        job = client.enqueue(client.call("app:send", "a", options=options))
        assert f"Held {words}" in shown(job)
    first = client.enqueue(client.call("app:send", "a", options={"unique": "mine"}))
    client.cancel(first)
    assert "Held not any more" in shown(first)
    second = client.enqueue(client.call("app:send", "a", options={"unique": "mine"}))
    assert f"Held now by job {second.id}" in shown(first)


def test_what_is_to_be_hidden_is_hidden(place: Place) -> None:
    job = place.run("a@b.c", password="hunter2")
    for address in ("/jobs", f"/jobs/{job}", f"/jobs/{job}/copy"):
        text = place.page(address)
        assert "hunter2" not in text
        assert "***" in text


def test_no_search_of_a_page_finds_what_is_hidden(place: Place) -> None:
    job = place.run("a@nowhere", password="hunter2")
    link = f'href="/jobs/{job}"'
    assert link not in place.page("/jobs?text=hunter")
    assert link in place.page("/jobs?text=nowhere")
    text = place.form("/jobs/bulk", 200, verb="requeue-all", state="failed", text="hunter")
    assert "There is no job to requeue" in text
    assert "in arguments" not in text


def test_a_running_job_shows_how_far_it_is(place: Place) -> None:
    job = place.jobs.enqueue("app:send", 1)
    text = place.page(f"/jobs/{job.id}")
    assert "It is the next of queue" in text
    assert "Cancel" in text
    assert "Delete" not in text


def test_arguments_have_the_names_that_a_worker_has_told(place: Place) -> None:
    told = [{"name": "to", "kind": "any", "required": True}]
    place.jobs.note_tasks({"app:other": {"parameters": told}})
    job = place.jobs.enqueue("app:other", "a@b.c", "more")
    text = place.page(f"/jobs/{job.id}")
    assert "<dt><bdi>to</bdi></dt>" in text
    assert "<dt><bdi>1</bdi></dt>" in text


def test_arguments_too_large_for_a_page_are_not_cut_but_refused(place: Place) -> None:
    job = place.jobs.enqueue("app:other", text="x" * 100_000)
    assert "too large" in place.page(f"/jobs/{job.id}/copy", 413)


# -- what the buttons do


def test_requeue_starts_a_job_over_and_is_written_down(place: Place) -> None:
    job = place.run("a@nowhere")
    assert place.form(f"/jobs/{job}/requeue", back=f"/jobs/{job}") == f"/jobs/{job}"
    assert place.jobs.get(job).state == "pending"
    assert place.said() == f"Job {job} starts over."
    assert place.said() == ""
    assert place.actions() == [("requeue", f"job {job}", 1)]
    assert f"job {job}" in place.page("/actions")


def test_requeue_of_what_is_not_finished_says_so(place: Place) -> None:
    job = place.jobs.enqueue("app:send", 1)
    assert "pending" in place.form(f"/jobs/{job.id}/requeue", 409)
    assert place.actions() == []


def test_cancel_and_delete_ask_first(place: Place) -> None:
    job = place.jobs.enqueue("app:send", 1).id
    assert f"Cancel job {job}?" in place.form(f"/jobs/{job}/cancel", 200)
    assert place.jobs.get(job).state == "pending"
    place.form(f"/jobs/{job}/cancel", sure="yes")
    assert place.jobs.get(job).state == "cancelled"
    assert f"Delete job {job}?" in place.form(f"/jobs/{job}/delete", 200)
    assert place.form(f"/jobs/{job}/delete", sure="yes", back="/jobs") == "/jobs"
    assert place.jobs.get_many([job]) == {}
    assert [verb for verb, _, _ in place.actions()] == ["prune", "cancel"]


def test_a_job_that_waits_is_run_now_or_at_a_time_that_is_asked_for(place: Place) -> None:
    job = place.jobs.enqueue("app:send", 1).id
    address = f"/jobs/{job}/reschedule"
    assert 'name="when" value="now"' in place.form(address, 200)
    assert "is no time: write now, in how long" in place.form(address, 200, when="soon", sure="yes")
    assert place.jobs.get(job).state == "pending"
    place.form(address, when="1h", sure="yes")
    assert place.said() == f"Job {job} is scheduled, to be due in 1h."
    assert 'value="now"' in _form_of(place.page(f"/jobs/{job}"), "Run now")
    place.form(address, when="now")
    assert place.jobs.get(job).state == "pending"
    assert [what for _, what, _ in place.actions()] == [
        f"job {job} to be due now",
        f"job {job} to be due in 1h",
    ]


def test_many_are_rescheduled_to_a_time_that_is_asked_for(place: Place) -> None:
    jobs = [place.jobs.enqueue("app:send", 1).id for _ in range(2)]
    every: dict[str, Any] = {"verb": "reschedule-all", "state": "pending"}
    asked = place.form("/jobs/bulk", 200, **every)
    assert "Reschedule 2 jobs?" in asked
    assert 'name="when" value="now"' in asked
    assert "is no time" in place.form("/jobs/bulk", 200, **every, when="x", sure="yes")
    place.form("/jobs/bulk", **every, when="2100-01-01T00:00Z", sure="yes")
    assert {place.jobs.get(job).state.value for job in jobs} == {"scheduled"}
    assert place.said() == "2 jobs rescheduled."


def test_the_chosen_ones_are_counted_before_they_are_moved(place: Place) -> None:
    jobs = [place.run(f"{n}@nowhere") for n in range(3)]
    chosen: dict[str, Any] = {"verb": "requeue", "id": [str(job) for job in jobs[:2]]}
    assert "Requeue 2 jobs?" in place.form("/jobs/bulk", 200, **chosen)
    place.form("/jobs/bulk", **chosen, sure="yes")
    states = [place.jobs.get(job).state.value for job in jobs]
    assert states == ["pending", "pending", "failed"]
    assert place.said() == "2 jobs requeued."


def test_a_group_of_failures_is_requeued_as_a_whole(place: Place) -> None:
    jobs = [place.run(f"{n}@nowhere") for n in range(3)]
    place.run("a@b.c")
    text = place.page("/failures")
    fields = dict(
        re.findall(
            r'name="(state|task|error_type|verb)" value="([^"]*)"', _form_of(text, "requeue-all")
        )
    )
    assert fields["verb"] == "requeue-all"
    assert "Requeue 3 jobs?" in place.form("/jobs/bulk", 200, **fields)
    place.form("/jobs/bulk", **fields, sure="yes", back="/failures")
    assert {place.jobs.get(job).state.value for job in jobs} == {"pending"}
    ((verb, what, number),) = place.actions()
    assert (verb, number) == ("requeue", 3)
    assert "task=app:send" in what
    assert "Nothing has failed" in place.page("/failures")


def test_all_without_a_state_never_means_what_succeeded(place: Place) -> None:
    done, failed = place.run("a@b.c"), place.run("a@nowhere")
    place.form("/jobs/bulk", verb="requeue-all", task="app:send", sure="yes")
    assert place.jobs.get(done).state == "succeeded"
    assert place.jobs.get(failed).state == "pending"


def test_bulk_without_a_choice_or_with_a_strange_one_does_nothing(place: Place) -> None:
    job = place.run("a@nowhere")
    assert "no job was chosen" in place.form("/jobs/bulk", 422, verb="requeue", sure="yes")
    place.form("/jobs/bulk", 422, verb="destroy", id="1", sure="yes")
    place.form("/jobs/bulk", 422, verb="requeue", id="one", sure="yes")
    place.form("/jobs/bulk", 422, verb="cancel-all", state="failed", sure="yes")
    assert "There is no job to cancel" in place.form("/jobs/bulk", 200, verb="cancel", id=str(job))
    assert place.jobs.get(job).state == "failed"


def test_a_copy_runs_with_other_arguments_and_keeps_what_was_hidden(place: Place) -> None:
    job = place.run("a@nowhere", password="hunter2")
    address = place.form(f"/jobs/{job}/copy", args='["b@b.c"]', kwargs='{"password": "***"}')
    made = place.jobs.get(int(address.rsplit("/", 1)[1]))
    assert (made.args, made.kwargs, made.queue) == (["b@b.c"], {"password": "hunter2"}, "mail")
    assert place.actions() == [("copy", f"job {job} as {made.id}", 1)]


@pytest.mark.parametrize(
    ("args", "wrong"),
    [
        ("[1,", "no JSON"),
        ("{}", "JSON list"),
        ("[" * 5_000, "no JSON"),
        ('[{"$nothing": 1}]', "nothing"),
    ],
)
def test_arguments_that_cannot_be_are_told_above_the_form(
    place: Place, args: str, wrong: str
) -> None:
    job = place.run("a@nowhere")
    text = place.form(f"/jobs/{job}/copy", 422, args=args, kwargs="{}")
    assert wrong in text
    assert 'role="alert"' in text


def test_only_a_task_that_is_allowed_is_enqueued_from_a_page(make: Make) -> None:
    place = make(allow_tasks=("app:*",))
    address = place.form("/tasks/enqueue", task="app:send", args='["a@b.c"]', kwargs="{}")
    assert place.jobs.get(int(address.rsplit("/", 1)[1])).args == ["a@b.c"]
    closed = make()
    job = closed.run("a@nowhere")
    assert "allow_tasks" in closed.page("/tasks/enqueue?task=app:send", 403)
    closed.form("/tasks/enqueue", 403, task="app:send", args="[]", kwargs="{}")
    assert "allow_tasks" in closed.form(f"/jobs/{job}/copy", 403, args='["x"]', kwargs="{}")
    assert [each.id for each in closed.jobs.list()] == [job]


# -- who may


def test_a_site_that_is_read_only_shows_no_button_and_takes_no_form(make: Make) -> None:
    place = make(read_only=True)
    job = place.run("a@nowhere")
    for address in ("/jobs", f"/jobs/{job}", "/failures", "/workers"):
        assert '<form method="post"' not in re.sub(
            "(?s)<form[^>]*data-theme-form.*?</form>", "", place.page(address)
        )
    place.form(f"/jobs/{job}/requeue", 403)
    assert place.jobs.get(job).state == "failed"


def test_a_form_without_the_token_of_a_page_changes_nothing(place: Place) -> None:
    job = place.run("a@nowhere")
    for address in (f"/jobs/{job}/requeue", f"/jobs/{job}/copy", "/jobs/bulk", "/workers/scale"):
        answer = place.browser.post(address, data={"sure": "yes"}, headers={"Origin": SITE})
        assert answer.status_code == 403, address
    assert place.jobs.get(job).state == "failed"


@pytest.mark.parametrize(
    "back", ["//evil.example/", "https://evil.example", "/\\evil", "javascript:1"]
)
def test_a_form_leads_back_to_no_other_site(place: Place, back: str) -> None:
    job = place.run("a@nowhere")
    assert place.form(f"/jobs/{job}/requeue", back=back) == f"/jobs/{job}"


def test_the_sign_in_is_a_page_like_all_others(make: Make) -> None:
    place = make(user="ann", password="a_pass_word")
    assert place.browser.get("/jobs").headers["location"] == "/sign-in?next=/jobs"
    text = place.page("/sign-in?next=/jobs")
    assert 'autocomplete="current-password"' in text
    fields = {"csrf": csrf_of(text), "user": "ann", "password": "wrong", "next": "/jobs"}
    answer = place.browser.post("/sign-in", data=fields)
    assert 'role="alert"' in answer.text
    answer = place.browser.post("/sign-in", data={**fields, "password": "a_pass_word"})
    assert answer.headers["location"] == "/jobs"
    assert "Sign out" in place.page("/jobs")


# -- colours


def test_the_colours_that_were_chosen_are_remembered(place: Place) -> None:
    assert 'data-theme="auto"' in place.page("/")
    assert place.form("/theme", theme="dark", back="/jobs") == "/jobs"
    assert 'data-theme="dark"' in place.page("/")
    place.form("/theme", theme='"><script>')
    assert 'data-theme="auto"' in place.page("/")


# -- the family


def test_without_a_family_here_the_pages_say_so(place: Place) -> None:
    assert "no folder of a family" in place.page("/workers")
    assert "no folder of a family" in place.form("/workers/scale", 409, pool="x", wanted="+1")


def test_a_family_that_does_not_run_needs_attention(tmp_path: Path) -> None:
    with Client("memory://") as client:
        app = create_app(client, state_dir=str(tmp_path))
        text = visitor(app, headers=HTML).get("/").text
    assert "not running" in text
