"""The task `email`, each row of its table, with a real SMTP server."""

from __future__ import annotations

import os
import smtplib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from jobvisor import Client, Context, Job, errors
from jobvisor.builtin.email import email
from jobvisor.jobs.builtin.letter import address
from jobvisor.jobs.outcome import Cancelled, Fail, Release
from jobvisor.jobs.settings import Email, find_email
from tests.builtin.certificates import certificate
from tests.builtin.post import DROP, STALL, TAKE_AND_DROP, Post

ADA, BOB, CYD = "ada@example.com", "bob@example.com", "cyd@example.com"
GREY = "450 4.7.1 greylisted, come again"
NOBODY = "550 5.1.1 no such user"

Send = Callable[..., Job]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Write `[email]`, as variables."""
    monkeypatch.chdir(tmp_path)

    def write(**values: Any) -> None:
        settings = {
            "host": "127.0.0.1",
            "from": "Jobs <jobs@example.org>",
            "security": "none",
        } | values
        for name, value in settings.items():
            monkeypatch.setenv(f"JOBVISOR_EMAIL_{name.upper()}", str(value))

    return write


@pytest.fixture
def post(told: Callable[..., None]) -> Iterator[Post]:
    with Post() as server:
        told(port=server.port)
        yield server


@pytest.fixture
def send() -> Iterator[Send]:
    """One mail, run after run until it has ended."""
    with Client("memory://") as client:

        def to_the_end(*args: Any, runs: int = 10, **kwargs: Any) -> Job:
            words = args if len(args) > 1 else (*args, "Subject", "Text")
            call = client.call("email", *words, options={"retry": "0s", "retries": 3}, **kwargs)
            job = client.enqueue(call)
            for _ in range(runs):
                client.run_one()
                if client.get(job.id).finished:
                    break
            return client.get(job.id)

        yield to_the_end


def test_a_mail_that_everybody_accepts_is_told_with_the_answers(send: Send, post: Post) -> None:
    job = send(
        [f"Ada <{ADA}>", BOB], "Grüße", "Hallo ä\n.\nEnde", cc=CYD, bcc=["dan@example.com", ADA]
    )
    assert job.state == "succeeded"
    assert job.result is not None
    assert (job.result["accepted"], job.result["refused"]) == (4, 0)
    assert job.result["recipients"][ADA] == {"status": "accepted", "reply": "250 OK"}
    assert post.to == [ADA, BOB, CYD, "dan@example.com"], (
        "one for each, in a transaction of its own"
    )
    mail = post.mails[0]
    assert mail.sender == "jobs@example.org"
    assert mail.data.isascii()
    message = mail.message
    assert (message["Subject"], message["From"]) == ("Grüße", "Jobs <jobs@example.org>")
    assert (message["To"], message["Cc"], message["Bcc"]) == (f"Ada <{ADA}>, {BOB}", CYD, None)
    assert message.get_content() == "Hallo ä\r\n.\r\nEnde\r\n"
    assert message["Message-ID"] == job.result["message_id"]
    assert message["Message-ID"].endswith("@example.org>")
    assert message["Date"] is not None


def test_html_attachments_and_further_headers_go_along(
    send: Send, post: Post, tmp_path: Path
) -> None:
    (tmp_path / "räport.pdf").write_bytes(b"%PDF\xff")
    (tmp_path / "mail.eml").write_bytes(b"Subject: x\n\nbody")
    files = [str(tmp_path / "räport.pdf"), tmp_path / "mail.eml"]
    send(
        ADA, "S", "text", html="<p>hyper</p>", attachments=files, reply_to=["a@b.c"], sender="other@b.c",
        headers={"List-Unsubscribe": "<https://example.com/u>"},
    )  # fmt: skip
    message = post.mails[0].message
    plain, hyper = message.get_body(("plain",)), message.get_body(("html",))
    assert plain is not None
    assert hyper is not None
    assert (plain.get_content(), hyper.get_content()) == ("text\r\n", "<p>hyper</p>\r\n")
    assert message["Reply-To"] == "a@b.c"
    assert message["List-Unsubscribe"] == "<https://example.com/u>"
    assert post.mails[0].sender == "other@b.c"
    attached = [
        (each.get_filename(), each.get_content_type(), each.get_payload(decode=True))
        for each in message.iter_attachments()
    ]
    assert attached == [
        ("räport.pdf", "application/pdf", b"%PDF\xff"),
        ("mail.eml", "application/octet-stream", b"Subject: x\n\nbody"),
    ]


# -- what the server says


def test_who_was_put_off_is_tried_again_and_nobody_else(send: Send, post: Post) -> None:
    post.says[f"RCPT {BOB}"] = [GREY, GREY]
    job = send([ADA, BOB, CYD])
    assert (job.state, job.attempt) == ("succeeded", 3)
    assert post.to == [ADA, CYD, BOB]
    assert {each["status"] for each in job.result["recipients"].values()} == {"accepted"}
    assert job.result["recipients"][ADA]["reply"] == "answered in an earlier run"
    assert len({mail.message["Message-ID"] for mail in post.mails}) == 1


def test_who_was_refused_is_not_tried_again(send: Send, post: Post) -> None:
    post.says |= {f"RCPT {BOB}": [NOBODY], f"RCPT {CYD}": [GREY]}
    job = send([ADA, BOB, CYD])
    assert (job.state, job.result["accepted"], job.result["refused"]) == ("succeeded", 2, 1)
    assert job.result["recipients"][BOB]["status"] == "refused"
    assert post.asked.count(f"RCPT {BOB}") == 1
    assert post.to == [ADA, CYD]


@pytest.mark.parametrize("command", ["MAIL", f"RCPT {ADA}", f"DATA {ADA}"])
def test_a_mail_that_everybody_refuses_fails_at_once_with_the_reason(
    send: Send, post: Post, command: str
) -> None:
    post.says[command] = [NOBODY]
    job = send(ADA)
    assert (job.state, job.attempt, post.mails) == ("failed", 1, [])
    assert "refused: 1 of 1 recipients, 0 accepted" in str(job.error)
    assert "550 5.1.1 no such user" in str(job.error)


@pytest.mark.parametrize("command", ["MAIL", f"RCPT {ADA}", f"DATA {ADA}"])
def test_a_temporary_answer_at_any_moment_is_for_later(
    send: Send, post: Post, command: str
) -> None:
    post.says[command] = [GREY]
    job = send([ADA, BOB])
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert sorted(post.to) == [ADA, BOB]


def test_a_mail_that_is_put_off_each_time_fails_with_its_attempts_and_says_who_has_it(
    send: Send, post: Post
) -> None:
    post.says[f"RCPT {BOB}"] = [GREY, "*"]
    job = send([ADA, BOB])
    assert (job.state, job.attempt, post.to) == ("failed", 4, [ADA])
    assert "no answer yet: 1 of 2 recipients, 1 accepted" in str(job.error)
    assert f"{BOB}: {GREY}" in str(job.error)
    assert job.progress == {"done": 1, "total": 2, "note": "+."}


@pytest.mark.parametrize("command", ["MAIL", f"RCPT {BOB}", f"DATA {BOB}"])
@pytest.mark.parametrize("how", [DROP, "421 4.3.2 closing"])
def test_a_connection_that_ends_in_the_middle_is_made_anew_for_the_others(
    send: Send, post: Post, command: str, how: str
) -> None:
    post.says[command] = [how]
    job = send([ADA, BOB, CYD])
    assert (job.state, job.attempt) == ("succeeded", 2)
    assert sorted(post.to) == [ADA, BOB, CYD]


def test_a_server_that_drops_each_connection_is_let_alone_for_a_while(
    send: Send, post: Post
) -> None:
    post.says["MAIL"] = [DROP, "*"]
    people = [f"n{number}@example.com" for number in range(20)]
    job = send(people, runs=1)
    assert (job.state, job.attempt) == ("pending", 1)
    assert post.asked == ["MAIL"] * 3


def test_an_answer_that_is_lost_is_the_one_case_of_a_second_mail_and_it_is_known_by_its_id(
    send: Send, post: Post
) -> None:
    post.says[f"DATA {ADA}"] = [TAKE_AND_DROP]
    assert send([ADA, BOB]).state == "succeeded"
    assert sorted(post.to) == [ADA, ADA, BOB]
    assert len({mail.message["Message-ID"] for mail in post.mails}) == 1


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_is_set(
    send: Send, post: Post, told: Callable[..., None]
) -> None:
    told(port=post.port, timeout="1s")
    post.says[f"RCPT {ADA}"] = [STALL]
    assert send([ADA, BOB]).state == "succeeded"
    assert sorted(post.to) == [ADA, BOB]


def test_nobody_listening_is_a_retry(send: Send, post: Post, told: Callable[..., None]) -> None:
    with Post() as gone:
        told(port=gone.port)
    job = send([ADA, BOB], runs=1)
    assert job.state == "pending"
    assert f"{ADA}: 127.0.0.1:{gone.port} cannot be had: ConnectionRefusedError" in str(job.error)


def test_a_requeued_mail_that_had_failed_goes_to_those_who_have_not_got_it(post: Post) -> None:
    post.says[f"RCPT {BOB}"] = [GREY]
    with Client("memory://") as client:
        call = client.call("email", [ADA, BOB], "S", "T", options={"retries": 0})
        job = client.enqueue(call)
        client.run_one()
        assert client.get(job.id).state == "failed"
        client.requeue(job)
        client.run_one()
        assert client.get(job.id).state == "succeeded"
        assert post.to == [ADA, BOB]
        client.requeue(job)  # one that had succeeded starts over
        client.run_one()
    assert post.to == [ADA, BOB, ADA, BOB]


# -- encryption and login


@pytest.mark.parametrize("how", ["starttls", "tls"])
def test_a_connection_is_encrypted_and_its_certificate_checked(
    send: Send, told: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    found = certificate(tmp_path)
    with Post(**{how: found.server}, login=("jobs", "pass")) as server:  # type: ignore[arg-type]
        told(port=server.port, security=how, host="localhost", username="jobs", password="pass")
        job = send(ADA, runs=1)
        assert "CERTIFICATE_VERIFY_FAILED" in str(job.error)
        assert (server.logins, server.mails) == ([], [])
        monkeypatch.setenv("SSL_CERT_FILE", str(found.path))
        assert send(ADA).state == "succeeded"
        told(port=server.port, security=how, host="127.0.0.1")
        assert "CERTIFICATE_VERIFY_FAILED" in str(send(ADA, runs=1).error)
    assert server.logins == ["jobs"] * len(server.mails)


def test_a_server_without_starttls_gets_neither_password_nor_mail(
    send: Send, post: Post, told: Callable[..., None]
) -> None:
    told(port=post.port, security="starttls", username="jobs", password="pass")
    job = send(ADA)
    assert (job.state, job.attempt, post.asked) == ("failed", 1, [])
    assert "offers no STARTTLS: write [email] security" in str(job.error)


def test_a_refused_login_fails_at_once_and_shows_no_password(
    send: Send, told: Callable[..., None]
) -> None:
    with Post(login=("jobs", "right")) as server:
        told(port=server.port, username="jobs", password="wrong-hunter2")
        job = send(ADA)
    assert (job.state, job.attempt) == ("failed", 1)
    assert "does not let in [email] username with this password: 535" in str(job.error)
    assert "hunter2" not in repr(job)


def test_a_login_where_none_is_known_fails_at_once(
    send: Send, post: Post, told: Callable[..., None]
) -> None:
    told(port=post.port, username="jobs", password="pass")
    job = send(ADA)
    assert (job.state, job.attempt) == ("failed", 1)
    assert "leave [email] username empty" in str(job.error)


# -- settings and arguments


@pytest.mark.parametrize(
    ("missing", "words"),
    [("host", "[email] host is not set"), ("from", "[email] from is not set")],
)
def test_missing_settings_fail_the_job_at_once_with_the_name_of_the_key(
    send: Send, told: Callable[..., None], missing: str, words: str
) -> None:
    told(**{missing: ""})
    job = send(ADA)
    assert (job.state, job.attempt) == ("failed", 1)
    assert words in str(job.error)
    assert f"JOBVISOR_EMAIL_{missing.upper()}" in str(job.error)


def test_a_mail_that_names_its_sender_needs_no_other(
    send: Send, post: Post, told: Callable[..., None]
) -> None:
    told(**{"port": post.port, "from": ""})
    assert send(ADA, sender="me@example.org").state == "succeeded"


def test_a_mistake_in_the_settings_stops_mails_and_no_client(
    send: Send, told: Callable[..., None]
) -> None:
    told(port="no number")
    job = send(ADA)
    assert (job.state, job.attempt) == ("failed", 1)
    assert "JOBVISOR_EMAIL_PORT" in str(job.error)
    with pytest.raises(errors.ConfigError):
        find_email()


def test_the_password_is_in_no_text_of_the_settings() -> None:
    assert "hunter2" not in repr(Email("h", 25, "tls", "u", "hunter2", "a@b.c", 1))


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"to": []}, "0 recipients: a letter has 1 to 100"),
        ({"to": [f"n{number}@b.c" for number in range(101)]}, "101 recipients"),
        ({"to": "ada"}, "to='ada' must be one address"),
        ({"to": [ADA, 7]}, "to[1]=7 must be a text of one line"),
        ({"to": f"{ADA}, {BOB}"}, "must be one address"),
        ({"to": f"{ADA}\r\nBcc: {BOB}"}, "must be a text of one line"),
        ({"to": "a@b.c>\nRCPT TO:<d@e.f"}, "must be a text of one line"),
        ({"to": "<a@b.c> SIZE=1"}, "must be one address"),
        ({"to": "a b@example.com"}, "must be one address"),
        ({"to": "ä@example.com"}, "must be one address"),
        ({"to": "a@-b.c"}, "must be one address"),
        ({"cc": {"a": 1}}, "cc={'a': 1} must be an address, or a list"),
        ({"subject": "a\nBcc: evil@example.com"}, "subject='a\\nBcc: evil@example.com' must be a"),
        ({"subject": 7}, "subject=7 must be a text of one line"),
        ({"text": 7}, "text=7 must be a text"),
        ({"html": 7}, "html=7 must be a text"),
        ({"sender": "me"}, "sender='me' must be one address"),
        ({"reply_to": "x\r\ny"}, "reply_to="),
        ({"headers": {"X-A": "a\r\nBcc: evil@example.com"}}, "headers.X-A="),
        ({"headers": {"X A": "a"}}, "headers='X A' must be names"),
        ({"headers": {"bCC": "a@b.c"}}, "headers.bCC is made by the task"),
        ({"headers": {"Content-Type": "text/html"}}, "headers.Content-Type is made by the task"),
        ({"attachments": "a.pdf"}, "attachments='a.pdf' must be a list of paths"),
        ({"attachments": ["gone.pdf"]}, "'gone.pdf' cannot be read: No such file"),
        ({"attachments": ["."]}, "'.' cannot be read: Is a directory"),
        ({"attachments": ["pipe"]}, "'pipe' must be the path of a file"),
        ({"attachments": ["huge"]}, "the attachments are larger than 20 MB"),
        ({"attachments": [7]}, "attachments[0]=7 must be the path"),
    ],
)  # fmt: skip
def test_what_no_letter_can_have_fails_the_job_before_anything_is_sent(
    send: Send, post: Post, tmp_path: Path, kwargs: dict[str, Any], words: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate((20 << 20) + 1)
    given = {"to": ADA, "subject": "S", "text": "T"} | kwargs
    job = send(given.pop("to"), given.pop("subject"), given.pop("text"), **given)
    assert (job.state, job.attempt, post.asked) == ("failed", 1, [])
    assert words in str(job.error)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a.b+c@example.com", "a.b+c@example.com"),
        ("<a@b.c>", "a@b.c"),
        ('"Lovelace, Ada" <ada@b.c>', '"Lovelace, Ada" <ada@b.c>'),
        ("Ädä <a@münchen.de>", "Ädä <a@xn--mnchen-3ya.de>"),
    ],
)
def test_an_address_is_read_with_its_name(given: str, shown: str) -> None:
    assert str(address("to", given)) == shown


def test_a_body_that_looks_like_a_dialogue_is_only_a_body(send: Send, post: Post) -> None:
    text = f".\r\nRCPT TO:<{BOB}>\r\n..\r\n.\r\nQUIT"
    send(ADA, "S", text)
    assert post.to == [ADA]
    assert post.mails[0].message.get_content().splitlines() == text.splitlines()


# -- the end of a run


@pytest.mark.parametrize(("ask", "raised"), [("cancel", Cancelled), ("stop", Release)])
def test_a_run_that_is_to_end_does_so_between_two_recipients(
    post: Post, ask: str, raised: type[Exception]
) -> None:
    ctx = Context.for_test()
    (ctx.ask_to_cancel if ask == "cancel" else ctx.ask_to_stop)()
    with pytest.raises(raised):
        email(ctx, [ADA, BOB], "S", "T")
    assert post.to == []


def test_how_each_recipient_stands_is_told_before_the_next_is_asked(post: Post) -> None:
    post.says |= {f"RCPT {BOB}": [NOBODY], f"RCPT {CYD}": [GREY]}
    ctx = Context.for_test()
    with pytest.raises(Exception, match="no answer yet"):
        email(ctx, [ADA, BOB, CYD, "dan@example.com"], "S", "T")
    assert [told["note"] for told in ctx.told] == ["+...", "+-..", "+-.+"]
    assert ctx.told[-1] == {"done": 3, "total": 4, "note": "+-.+"}


def test_a_hundred_recipients_fit_the_progress(post: Post) -> None:
    ctx = Context.for_test()
    result = email(ctx, [f"{'n' * 50}{number}@example.com" for number in range(100)], "S", "T")
    assert result["accepted"] == 100
    assert ctx.told[-1]["note"] == "+" * 100


def test_the_server_itself_answers(post: Post) -> None:
    """That what these tests ask is a real server."""
    with smtplib.SMTP("127.0.0.1", post.port) as smtp, suppress(Fail):
        assert smtp.noop()[0] == 250
