"""What the keys of `jobvisor top` do."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from jobvisor.jobs.client import Client
from jobvisor.jobs.url import parse_url
from tests.screen import Played
from tests.supervisor.cli.conftest import Player
from tests.supervisor.cli.top.conftest import Show

Play = Callable[..., Player]


@pytest.fixture
def top(play: Play, show: Show, client: Client) -> Played:
    for number in range(1, 4):
        client.enqueue("app:send", f"arg{number}")
    play(workers=[])
    shown = show()
    shown.see("family main: running")
    return shown


@pytest.fixture
def jobs(top: Played) -> Played:
    top.press("2")
    top.see("jobs: 1 of 3")
    return top


def fail(client: Client, task: str, number: int) -> None:
    """So many jobs of a task that is not there have failed."""
    for _ in range(number):
        client.enqueue(task)
    with closing(sqlite3.connect(parse_url(client.url).path)) as stranger, stranger:
        stranger.execute(
            "UPDATE jobs SET state = 'failed', error = 'OSError: no route', finished_at = 1 "
            "WHERE task = ?",
            (task,),
        )


def test_arrows_and_letters_move_the_cursor(top: Played) -> None:
    top.press("2")
    top.see("jobs: 1 of 3")
    top.press("j\x1b[B")
    top.see("jobs: 3 of 3")
    top.see_chosen("1")
    top.press("k")
    top.see("jobs: 2 of 3")
    top.press("\x1b[H")
    top.see("jobs: 1 of 3")
    top.press("G")
    top.see("jobs: 3 of 3")


def test_the_cursor_stays_on_its_job_while_others_come(jobs: Played, client: Client) -> None:
    jobs.press("j")
    jobs.see("jobs: 2 of 3")
    jobs.see_chosen("2")
    client.enqueue("app:send", "new")
    jobs.see("jobs: 3 of 4")
    jobs.see_chosen("2")


def test_enter_shows_a_job_and_what_becomes_of_it(jobs: Played, client: Client) -> None:
    jobs.press("\r")
    jobs.see("job 3 (all)", "task:             app:send", '["arg3"]', "pending")
    client.cancel(3)
    jobs.see("state:            cancelled")
    jobs.press("\x1b")
    jobs.see("jobs: 1 of 3")


def test_cancel_asks_and_only_y_is_yes(jobs: Played, client: Client) -> None:
    jobs.press("c")
    jobs.see("cancel job 3? y/n")
    jobs.press("n")
    jobs.see("q quit")
    jobs.press("c\r")
    jobs.see("q quit", but=["cancel job 3"])
    assert client.get(3).state == "pending"
    jobs.press("cy")
    jobs.see("job 3 is cancelled", "cancelled  app:send")
    assert client.get(3).state == "cancelled"
    jobs.press("cy")
    jobs.see("job 3 is cancelled already and cannot be cancelled")
    [action] = client.actions()
    assert (action.verb, action.what) == ("cancel", "job 3")


def test_requeue_of_one_job_asks_too(jobs: Played, client: Client) -> None:
    client.cancel(3)
    jobs.see("cancelled")
    jobs.press("ry")
    jobs.see("job 3 starts over", "3  pending", but=["cancelled"])
    jobs.press("ry")
    jobs.see("job 3 is pending")


def test_failures_are_grouped_and_a_group_is_requeued_after_a_count(
    top: Played, client: Client
) -> None:
    fail(client, "app:mail", 3)
    fail(client, "app:other", 1)
    top.press("f")
    top.see("failures: 1 of 2", "app:mail", "OSError")
    while "app:mail" not in top.chosen:
        top.press("j")
        top.see("failures: 2 of 2")
    top.press("c")
    top.see("no single job is chosen")
    top.press("r")
    top.see("requeue 3 failed jobs of app:mail with OSError? y/n")
    top.press("y")
    top.see("3 jobs start over", "failures: 1 of 1")
    assert client.counts()["default"] == {"pending": 6, "failed": 1}
    top.press("\r")
    top.see("task:             app:other")
    top.press("qf")
    top.see("workers: none")


def test_a_filter_narrows_the_rows_and_an_empty_one_shows_all(jobs: Played, client: Client) -> None:
    client.cancel(2)
    jobs.press("/")
    jobs.see("filter: _")
    jobs.press("state=cancelled\r")
    jobs.see("jobs with state=cancelled: 1 of 1", "arg2")
    jobs.press("/\x15arg3\x7f\x7f3\r")
    jobs.see("jobs with ar3: none")
    jobs.press("/\x15ARG3\r")
    jobs.see("jobs with ARG3: 1 of 1", '"arg3"')
    jobs.press("/\x15since=x\r")
    jobs.see("--since: 'x' is neither how long ago", "jobs with ARG3: 1 of 1")
    jobs.press("/\x15task=nobody\r")
    jobs.see("jobs with task=nobody: none", "family main: running", "q quit", but=["no job is of"])
    jobs.press("/\x15\r")
    jobs.see("jobs: 1 of 3")
    jobs.press("/gone\x1b")
    jobs.see("jobs: 1 of 3", but=["gone"])


def test_pause_stops_the_refresh_and_keys_go_on(jobs: Played, client: Client) -> None:
    jobs.press("p")
    jobs.see("paused; p goes on")
    client.cancel(3)
    client.enqueue("app:send")
    jobs.press("j")
    jobs.see("jobs: 2 of 3")
    jobs.press("\r")
    jobs.see("job 2")
    jobs.press("\x1bp")
    jobs.see("jobs: 3 of 4", "cancelled")


def test_help_names_every_key(top: Played) -> None:
    top.press("?")
    text = top.see("help", "cancel the job")
    for key in ("Tab 1 2 3", "Enter", "c  ", "r  ", "s  ", "f  ", "l  ", "/  ", "p  ", "q Ctrl-C"):
        assert key in text
    top.press("q")
    top.see("family main")


def test_a_key_that_needs_a_job_says_that_none_is_chosen(top: Played) -> None:
    for key in ("\r", "c", "r", "s", "l"):
        top.press(key)
        top.see("no job is chosen")
        top.press("\x0c")
        top.see("q quit")


def test_a_long_text_is_scrolled(jobs: Played, client: Client) -> None:
    job = client.enqueue("app:send", *(f"word {number}" for number in range(900)))
    jobs.see("jobs: 2 of 4")
    jobs.press("g\r")
    jobs.see(f"job {job.id} (0%)", "word 0")
    jobs.press("G")
    jobs.see(f"job {job.id} (100%)", "created_at")
    jobs.press("\x1b[5~")
    jobs.see("%)", but=["created_at"])
    jobs.press("g")
    jobs.see(f"job {job.id} (0%)", "word 0")


def test_bytes_that_are_no_key_are_passed_over(top: Played) -> None:
    top.press(b"\xff\xfe\x00\x01\x1b[15~\x1b[200~\x1b]0;x\x07\xe2\x82")
    top.press("2")
    top.see("jobs: 1 of 3")


def test_a_long_deed_ends_between_two_pages_where_the_person_leaves_and_is_noted(
    top: Played, client: Client
) -> None:
    with closing(sqlite3.connect(parse_url(client.url).path)) as stranger, stranger:
        stranger.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
            "INSERT INTO jobs (task, state, error, finished_at) "
            "SELECT 'app:mail', 'failed', 'OSError: x', 1 FROM n"
        )
    top.press("f")
    top.see("failures: 1 of 1", "app:mail")
    top.press("r")
    top.see("requeue 20000 failed jobs of app:mail with OSError? y/n")
    top.press("y")
    under_way = ("requeue: ", "20000 jobs start over")  # a quick machine may be at the end
    top.until(lambda: any(told in top.text for told in under_way), "the deed")
    top.press("q")
    assert (top.ended(), top.restored) == (0, True)
    counts = client.counts()["default"]
    [action] = client.actions()
    assert action.number == counts["pending"] - 3
    assert counts["pending"] + counts.get("failed", 0) == 20_003
