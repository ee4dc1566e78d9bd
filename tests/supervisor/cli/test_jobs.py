"""enqueue, list, show, cancel, requeue and prune on a database of their own."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import date, timedelta
from pathlib import Path

import pytest

from jobvisor.jobs.client import Client, Moves
from jobvisor.supervisor.cli.change import move
from tests.supervisor.cli.conftest import Run

ADD = "tests.supervisor.cli.sample:add"
SEND = "tests.supervisor.cli.sample:send"
BOOM = "tests.supervisor.cli.sample:boom"


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with Client(f"sqlite:///{folder}/jobs.db") as opened:
        yield opened


@contextmanager
def working(client: Client) -> Iterator[None]:
    """A worker beside the command, until the block is left."""
    ended = threading.Event()

    def work() -> None:
        with Client(client.url) as mine:
            while not ended.is_set():
                if mine.run_one(["default", "mail"]) is None:
                    ended.wait(0.01)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        ended.set()
        worker.join()


def test_enqueue_prints_the_id_and_nothing_else(run: Run, client: Client) -> None:
    result = run("enqueue", ADD, "1", "2")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "1\n", "")
    assert client.get(1).args == [1, 2]


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ('"3"', "3"),
        ("three", "three"),
        ("[1, {}]", [1, {}]),
        ("null", None),
        ("true", True),
        ("True", "True"),
        ("NaN", "NaN"),
        ("", ""),
        ("{", "{"),
        ("1 2", "1 2"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_an_argument_is_json_or_else_text(
    run: Run, client: Client, argument: str, value: object
) -> None:
    assert run("enqueue", ADD, "--", argument).exit_code == 0
    assert client.get(1).args == [value]


def test_enqueue_takes_every_option(run: Run, client: Client) -> None:
    result = run(
        "enqueue", SEND, "a@b", "--kwargs", '{"subject": "x"}', "--in", "5m", "--queue", "default",
        "--priority", "-7", "--unique", "key", "--retries", "9", "--timeout", "1m",
    )  # fmt: skip
    assert result.exit_code == 0
    job = client.get(int(result.stdout))
    assert (job.kwargs, job.queue, job.priority) == ({"subject": "x"}, "default", -7)
    assert (job.unique, job.attempts_max, job.timeout) == ("key", 10, 60.0)
    assert job.state == "scheduled"
    assert (job.run_at - job.created_at).total_seconds() == 300


def test_enqueue_takes_a_moment(run: Run, client: Client) -> None:
    run("enqueue", ADD, "1", "--at", "2100-01-31T08:00+01:00")
    assert client.get(1).run_at.isoformat() == "2100-01-31T07:00:00+00:00"


def test_the_options_of_the_task_win_over_the_configured_ones(
    run: Run, folder: Path, client: Client
) -> None:
    with (folder / "config.toml").open("a") as file:
        file.write('[defaults]\nretries = 7\ntimeout = "9s"\n')
    run("enqueue", SEND, "a")
    run("enqueue", ADD, "1")
    assert [(j.queue, j.attempts_max, j.timeout) for j in client.list()] == [
        ("default", 8, 9.0),
        ("mail", 2, 30.0),
    ]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([ADD], "missing a required argument"),
        ([ADD, "1", "--in", "5 parsecs"], "--in: '5 parsecs'"),
        ([ADD, "1", "--at", "noon"], "--at: 'noon' is not a time"),
        ([ADD, "1", "--at", "2100-01-01T00:00"], "has no timezone; add one"),
        ([ADD, "1", "--at", "2100-01-01T00:00Z", "--in", "1m"], "--in and --at"),
        ([ADD, "1", "--kwargs", "{"], "--kwargs is not JSON"),
        ([ADD, "1", "--kwargs", "[]"], "--kwargs is not a JSON object"),
        ([ADD, "1", "--kwargs", '{"c": 1}'], "unexpected keyword argument"),
        ([ADD, "1", "--priority", "99999"], "priority"),
        ([ADD, "1", "--retries", "-1"], "retries"),
        ([ADD, "1", "--timeout", "x"], "--timeout"),
        ([ADD, "1", "--queue", "*"], "queue"),
        ([ADD, "1", "--unique", ""], "unique"),
        ([ADD, "1", "--unique-for", "1h"], "unique_for is about a unique key"),
        ([ADD, "1", "--unique", "k", "--unique-for", "x"], 'must be "unfinished", "kept", or a'),
        ([ADD, "1", "--unique", "k", "--on-conflict", "debounce"], "needs delay="),
        ([ADD, "1", "--unique", "k", "--delay", "soon"], "--delay: 'soon'"),
        ([""], "is no task"),
        (["a\nb"], "is no task"),
        ([ADD, "-", "--wait"], "one job"),
        ([ADD, "-", "--unique", "k"], "one job"),
    ],
)
def test_a_bad_request_stores_nothing(
    run: Run, client: Client, args: list[str], message: str
) -> None:
    result = run("enqueue", *args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert client.list() == []


def test_a_key_that_is_taken_gives_the_job_that_has_it(run: Run, client: Client) -> None:
    run("enqueue", ADD, "1", "--unique", "k")
    result = run("enqueue", ADD, "1", "--unique", "k")
    assert (result.exit_code, result.stdout) == (0, "1\n")
    assert "job 1 (pending) holds the key 'k' already" in result.stderr
    assert (
        json.loads(run("enqueue", ADD, "1", "--unique", "k", "--json").stdout)["created"] is False
    )


def test_what_is_done_where_a_key_is_held_is_said_on_the_command_line(
    run: Run, client: Client
) -> None:
    run("enqueue", ADD, "1", "--unique", "k", "--unique-for", "10m", "--in", "1h")
    job = client.get(1)
    assert (job.unique_for, job.unique_until) == ("10m", job.created_at + timedelta(minutes=10))
    refused = run("enqueue", ADD, "2", "--unique", "k", "--on-conflict", "raise")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr == "jobvisor: job 1 holds the unique key 'k'; nothing was enqueued\n"
    replaced = run("enqueue", ADD, "3", "--unique", "k", "--on-conflict", "replace")
    assert (replaced.exit_code, replaced.stdout) == (0, "1\n")
    assert "job 1 was waiting under the key 'k'; it has this call's arguments" in replaced.stderr
    assert client.get(1).args == [3]
    moved = run(
        "enqueue", ADD, "4", "--unique", "d", "--on-conflict", "debounce", "--delay", "5s",
        "--max-wait", "1m", "--json",
    )  # fmt: skip
    assert json.loads(moved.stdout)["unique_for"] == "waiting"


def test_an_unknown_task_is_enqueued_by_force_with_a_warning(run: Run, client: Client) -> None:
    result = run("enqueue", "app.newer:task", "1", "--force")
    assert (result.exit_code, result.stdout) == (0, "1\n")
    assert "warning: no task 'app.newer:task'" in result.stderr


@pytest.mark.parametrize(
    ("name", "near"),
    [("send", SEND), ("tests.supervisor.cli.sample:sned", SEND), ("shop:buy", None)],
)
def test_a_task_that_no_module_has_is_refused_and_the_nearest_named(
    run: Run, client: Client, name: str, near: str | None
) -> None:
    result = run("enqueue", name, "1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"no task {name!r} in tests.supervisor.cli.sample" in result.stderr
    assert ("did you mean" in result.stderr) is (near is not None)
    assert (near or "--force enqueues it all the same") in result.stderr
    assert client.list() == []


def test_a_queue_nobody_serves_is_a_warning(run: Run, client: Client) -> None:
    result = run("enqueue", ADD, "1", "--queue", "lonely")
    assert (result.exit_code, result.stdout) == (0, "1\n")
    assert "serves queue 'lonely'" in result.stderr


def test_modules_that_cannot_be_imported_stop_an_enqueue(
    run: Run, folder: Path, client: Client
) -> None:
    (folder / "config.toml").write_text('[tasks]\nmodules = ["not_there_at_all"]\n')
    result = run("enqueue", ADD, "1")
    assert result.exit_code == 78
    assert client.list() == []


def test_lines_from_stdin_are_one_job_each(run: Run, client: Client) -> None:
    result = run("enqueue", ADD, "-", "--queue", "mail", stdin="[1]\n\n  [2, 3]\r\n[4]")
    assert (result.exit_code, result.stdout) == (0, "1\n2\n3\n")
    assert [client.get(n).args for n in (1, 2, 3)] == [[1], [2, 3], [4]]
    assert json.loads(run("enqueue", ADD, "-", "--json", stdin="[1]\n[2]").stdout) == [4, 5]
    assert run("enqueue", ADD, "-", stdin="").stdout == ""


def test_many_lines_are_stored_in_pages(run: Run, client: Client) -> None:
    result = run("enqueue", ADD, "-", stdin="".join(f"[{n}]\n" for n in range(2500)))
    assert len(result.stdout.split()) == 2500
    assert client.counts() == {"default": {"pending": 2500}}
    assert client.get(2500).args == [2499]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{}", "it is not a list"),
        (b"[1", "stdin line 4"),
        (b"[NaN]", "NaN is not JSON"),
        (b"[]", "missing a required argument"),
        (b"[1, 2, 3]", "too many positional arguments"),
        (b'["\xff"]', "stdin line 4"),
        (b'["\\u0000"]', "stdin line 4"),
        (b"[" * 100_000, "nested too deeply"),
    ],
)
def test_one_bad_line_stores_nothing_and_names_its_number(
    run: Run, client: Client, line: bytes, message: str
) -> None:
    result = run("enqueue", ADD, "-", stdin=b"[1]\n\n[2]\n" + line + b"\n[3]\n")
    assert result.exit_code == 2
    assert "stdin line 4: " in result.stderr
    assert message in result.stderr
    assert "Nothing was enqueued" in result.stderr
    assert client.list() == []


@pytest.mark.parametrize(
    ("text", "line"),
    [((b"[1]".ljust(1 << 20) + b"\n") * 65, 64), (b"\n" * 1_000_001, 1_000_001)],
    ids=["bytes", "lines"],
)
def test_too_much_input_is_refused_before_anything_is_stored(
    run: Run, client: Client, text: bytes, line: int
) -> None:
    result = run("enqueue", ADD, "-", stdin=text)
    assert result.exit_code == 2
    assert f"longer than 64 MiB or 1000000 lines at line {line}" in result.stderr
    assert client.list() == []


def test_wait_prints_the_result(run: Run, client: Client) -> None:
    with working(client):
        result = run("enqueue", ADD, "1", "2", "--wait")
    assert (result.exit_code, result.stdout) == (0, "3\n")
    assert "job 1 succeeded" in result.stderr


def test_wait_for_a_job_that_fails_is_exit_code_1(run: Run, client: Client) -> None:
    with working(client):
        result = run("enqueue", BOOM, "--wait")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "job 1 failed" in result.stderr
    assert "\x1b" not in result.stderr


def test_headers_go_along_with_an_enqueued_job(run: Run, client: Client) -> None:
    assert run("enqueue", ADD, "1", "--headers", '{"trace": "4bf9"}').stdout == "1\n"
    assert client.get(1).headers == {"trace": "4bf9"}
    for given, words in (("{", "--headers is no JSON"), ("[1]", "headers=[1] must be a dict")):
        result = run("enqueue", ADD, "1", "--headers", given)
        assert result.exit_code == 2
        assert words in result.stderr


def test_enqueue_says_how_long_a_job_is_kept(run: Run, client: Client) -> None:
    assert run("enqueue", ADD, "1", "--keep", "succeeded=1h,failed=forever").stdout == "1\n"
    assert client.get(1).keep == {"failed": None, "succeeded": 3600}
    assert run("enqueue", ADD, "1", "--keep", "forever").stdout == "2\n"
    assert client.get(2).keep == {"cancelled": None, "failed": None, "succeeded": None}
    for given, words in (
        ("soon", "'soon'"),
        ("done=1h", "'done' is no end of a job"),
        ("0", "'0s'"),
    ):
        result = run("enqueue", ADD, "1", "--keep", given)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
        assert words in result.stderr


def test_wait_with_json_shows_the_finished_job(run: Run, client: Client) -> None:
    with working(client):
        told = json.loads(run("enqueue", ADD, "1", "--wait", "--json").stdout)
    assert (told["state"], told["result"]) == ("succeeded", 1)


def test_waiting_has_an_end_of_its_own(run: Run, client: Client) -> None:
    result = run("enqueue", ADD, "1", "--wait-timeout", "50ms")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "job 1 pending" in result.stderr
    assert "it goes on; see `jobvisor show 1`" in result.stderr
    told = json.loads(run("enqueue", ADD, "1", "--wait-timeout", "0", "--json").stdout)
    assert (told["id"], told["state"]) == (2, "pending")
    assert "--wait-timeout: 'x'" in run("enqueue", ADD, "1", "--wait-timeout", "x").stderr


def test_list_shows_the_newest_first_and_filters(run: Run, client: Client) -> None:
    for number in range(3):
        client.enqueue(ADD, number)
    client.enqueue(client.call(SEND, "x", options={"queue": "mail"}))
    client.cancel(1)
    assert [job["id"] for job in json.loads(run("list", "--json").stdout)] == [4, 3, 2, 1]
    assert [job["id"] for job in json.loads(run("list", "--json", "--limit", "2").stdout)] == [4, 3]
    for option, ids in [
        (["--state", "cancelled"], [1]),
        (["--queue", "mail"], [4]),
        (["--task", ADD], [3, 2, 1]),
        (["--task", "none"], []),
    ]:
        assert [job["id"] for job in json.loads(run("list", "--json", *option).stdout)] == ids
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["ID", "STATE", "TASK", "QUEUE", "ATTEMPT", "WHEN", "ARGS", "ERROR"]
    assert lines[4].split()[:2] == ["1", "cancelled"]


def test_list_shows_the_arguments_as_a_call_has_them(run: Run, client: Client) -> None:
    client.enqueue("app:send", "a@b.c", 3, subject="x", at=date(2027, 1, 31))
    client.enqueue("app:send", "a" * 1000)
    lines = run("list").stdout.splitlines()
    assert '"a@b.c", 3, subject="x", at=2027-01-31' in lines[2]
    assert "aaa..." in lines[1]
    assert len(lines[1]) < 200


def test_the_end_of_a_name_is_enough_to_list_a_task(run: Run, client: Client) -> None:
    for name in ("app.mail:send", "shop.send", "app:resend", "app:send_all"):
        client.enqueue(name)
    assert [j["id"] for j in json.loads(run("list", "--task", "send", "--json").stdout)] == [2, 1]
    assert [j["id"] for j in json.loads(run("list", "--task", "app:resend", "--json").stdout)] == [
        3
    ]
    nothing = run("list", "--task", "resnd", "--json")
    assert (nothing.exit_code, nothing.stdout) == (0, "[]\n")
    assert "no job is of a task 'resnd'; did you mean 'app:resend'?" in nothing.stderr
    assert "there are app.mail:send, app:resend" in run("list", "--task", "xyzzy").stderr


def test_list_is_narrowed_by_error_and_by_age(run: Run, folder: Path, client: Client) -> None:
    for _ in range(2):
        run("enqueue", BOOM)
        client.run_one()
    client.enqueue(ADD, 1)
    with sqlite3.connect(folder / "jobs.db") as connection:
        connection.execute("UPDATE jobs SET finished_at = finished_at - 7200000 WHERE id = 1")
    connection.close()

    def ids(*options: str) -> list[int]:
        return [job["id"] for job in json.loads(run("list", "--json", *options).stdout)]

    assert ids("--since", "1h") == [3, 2]
    assert ids("--since", "2020-01-01T00:00Z") == [3, 2, 1]
    assert ids("--error", "runtimeerror") == [2, 1]
    assert ids("--state", "failed", "--since", "1h", "--error", "RED") == [2]
    assert "--since: 'x'" in run("list", "--since", "x").stderr
    assert "has no timezone" in run("list", "--since", "2020-01-01").stderr


def test_a_running_job_is_listed_by_when_it_began(run: Run, folder: Path, client: Client) -> None:
    client.enqueue(ADD, 1)
    with sqlite3.connect(folder / "jobs.db") as connection:
        connection.execute(
            "UPDATE jobs SET state = 'running', owner = 1, claim = 1, run_at = run_at - 7200000, "
            "claimed_at = created_at - 65000"
        )
    connection.close()
    assert "1m5s ago" in run("list", "--state", "running").stdout


def test_numbers_that_readers_of_json_would_round_are_texts(run: Run, client: Client) -> None:
    run("enqueue", BOOM)
    client.run_one()
    told = json.loads(run("show", "1", "--json").stdout)
    assert told["id"] == 1
    assert isinstance(told["owner"], str)
    assert told["attempts"][0]["owner"] == told["owner"]


def test_show_has_the_attempts_and_no_escape_sequence(run: Run, client: Client) -> None:
    run("enqueue", BOOM)
    client.run_one()
    told = json.loads(run("show", "1", "--json").stdout)
    assert told["state"] == "failed"
    assert "RuntimeError" in told["attempts"][0]["error_type"]
    shown = run("show", "1").stdout
    assert "Traceback" in shown
    assert "raise RuntimeError" in shown
    assert "\x1b" not in shown


def test_show_says_who_holds_the_unique_key_of_a_job_now(run: Run, client: Client) -> None:
    first = client.enqueue(client.call(BOOM, options={"unique": "k"}))
    told = [run("show", str(first.id), "--json").stdout, run("show", str(first.id)).stdout]
    client.cancel(first)
    told.append(run("show", str(first.id)).stdout)
    second = client.enqueue(client.call(BOOM, options={"unique": "k", "unique_for": "kept"}))
    told.append(run("show", str(first.id)).stdout)
    assert json.loads(told[0])["unique_holder"] == first.id
    for text, holder in zip(told[1:], ("this job", "nobody", f"job {second.id}"), strict=True):
        assert f"unique_holder:    {holder}" in text


def test_show_has_what_a_run_said_and_where_it_stood(
    run: Run, client: Client, folder: Path
) -> None:
    run("enqueue", BOOM)
    client.run_one()
    with closing(sqlite3.connect(folder / "jobs.db")) as stranger, stranger:
        stranger.execute('UPDATE jobs SET headers = \'{"trace": "4bf9"}\', parent = 5')
        stranger.execute("UPDATE attempts SET stack = 'in f', said = 'bye\x1b', cpu_ms = 17")
        stranger.execute("UPDATE jobs SET cpu_ms = 61500, rss_bytes = 157286400")
    shown = run("show", "1").stdout
    for part in (
        '{"trace": "4bf9"}',
        "parent: ",
        "where it stood:\n    in f\n",
        "said last:\n    bye",
    ):
        assert part in shown
    assert "cpu_ms:         17\n" in shown
    assert "cpu_ms:           61500 (1m1.5s)\n" in shown
    assert "rss_bytes:        157286400 (150MB)\n" in shown
    assert "\x1b" not in shown
    told = json.loads(run("show", "1", "--json").stdout)
    assert (told["headers"], told["parent"]) == ({"trace": "4bf9"}, 5)


@pytest.mark.parametrize("command", ["show", "cancel", "requeue"])
def test_an_id_that_does_not_exist_is_exit_code_1(run: Run, client: Client, command: str) -> None:
    client.enqueue(ADD, 1)
    result = run(command, "99")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "99" in result.stderr


@pytest.mark.parametrize("text", ["x", "0", "-1", "1.5", "9" * 30, str(2**63)])
def test_what_is_no_id_is_a_usage_error(run: Run, folder: Path, text: str) -> None:
    assert run("show", "--", text).exit_code == 2


def test_cancel_does_nothing_when_one_id_is_wrong(run: Run, client: Client) -> None:
    client.enqueue(ADD, 1)
    assert run("cancel", "1", "99").exit_code == 1
    assert client.get(1).state == "pending"


def test_cancel_names_the_finished_and_does_the_others(run: Run, client: Client) -> None:
    for number in range(3):
        client.enqueue(ADD, number)
    client.cancel(2)
    result = run("cancel", "1", "2", "3")
    assert (result.exit_code, result.stdout) == (1, "1 cancelled\n3 cancelled\n")
    assert "job 2" in result.stderr
    told = json.loads(run("cancel", "1", "--json").stdout)
    assert told[0]["id"] == 1
    assert "error" in told[0]


def test_requeue_starts_over(run: Run, client: Client) -> None:
    client.enqueue(ADD, 1)
    client.cancel(1)
    assert run("requeue", "1").stdout == "1 pending\n"
    assert run("requeue", "1").exit_code == 1


def test_requeue_of_a_state_asks_first(run: Run, client: Client) -> None:
    for queue in ("default", "mail", "mail"):
        client.enqueue(client.call(ADD, 1, options={"queue": queue}))
    for number in (1, 2, 3):
        client.cancel(number)
    refused = run("requeue", "--state", "cancelled")
    assert refused.exit_code == 2
    assert "requeue 3 cancelled jobs: there is nobody to ask here, so add -y" in refused.stderr
    assert client.counts()["default"] == {"cancelled": 1}
    mail = run("requeue", "--state", "cancelled", "--queue", "mail", "-y")
    assert mail.stdout == "2 pending\n3 pending\n"
    assert "no failed job" in run("requeue", "--state", "failed", "-y").stderr


def test_cancel_by_what_jobs_have_in_common_asks_first(run: Run, client: Client) -> None:
    for queue in ("default", "mail", "mail"):
        client.enqueue(client.call(ADD, 1, options={"queue": queue}))
    client.cancel(2)
    refused = run("cancel", "--task", "add")
    assert refused.exit_code == 2
    assert "cancel 2 unfinished jobs: there is nobody to ask here, so add -y" in refused.stderr
    assert run("cancel", "--task", "add", "--dry-run").stdout == "would cancel 2 unfinished jobs\n"
    dry = json.loads(run("cancel", "--all", "--dry-run", "--json").stdout)
    assert (dry["dry_run"], dry["jobs"], dry["at_least"]) == (True, 2, False)
    assert client.counts()["mail"] == {"cancelled": 1, "pending": 1}
    assert run("cancel", "--queue", "mail", "-y").stdout == "3 cancelled\n"
    assert "no running job to cancel" in run("cancel", "--state", "running", "-y").stderr


@pytest.mark.parametrize("args", [[], ["1", "--queue", "mail"], ["1", "--all"]])
def test_cancel_wants_ids_or_what_they_have_in_common(
    run: Run, client: Client, args: list[str]
) -> None:
    client.enqueue(ADD, 1)
    assert run("cancel", *args).exit_code == 2
    assert client.get(1).state == "pending"


def test_a_refused_job_stops_no_other_and_is_exit_code_1(run: Run, client: Client) -> None:
    keyed = client.call(ADD, 1, options={"unique": "k"})
    for call in (keyed, client.call(ADD, 2)):
        client.cancel(client.enqueue(call).id)
    client.enqueue(keyed)
    result = run("requeue", "--state", "cancelled", "-y")
    assert (result.exit_code, result.stdout) == (1, "2 pending\n")
    assert "job 3 holds its unique key 'k'" in result.stderr


def test_many_jobs_are_moved_in_pages(run: Run, client: Client) -> None:
    client.enqueue_many([client.call(ADD, n) for n in range(2500)])
    result = run("cancel", "--all", "-y")
    assert len(result.stdout.splitlines()) == 2500
    assert result.stderr == "cancel: 2500 done, 0 refused\n"
    assert client.counts() == {"default": {"cancelled": 2500}}


@pytest.mark.parametrize(
    "args", [[], ["1", "--state", "failed"], ["1", "--queue", "mail"], ["--queue", "mail"]]
)
def test_requeue_wants_ids_or_a_state(run: Run, client: Client, args: list[str]) -> None:
    assert run("requeue", *args).exit_code == 2


def test_an_interrupted_page_is_told_and_the_pages_before_it_stay(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = client.enqueue_many([client.call(ADD, n) for n in range(1500)])

    def second_page_is_interrupted(page: Sequence[int]) -> Moves:
        if page[0] != ids[0]:
            raise KeyboardInterrupt
        return client.cancel_many(page)

    with pytest.raises(KeyboardInterrupt):
        move(client, "cancel", second_page_is_interrupted, ids, dry_run=False, as_json=False)
    assert "interrupted: 1000 of 1500 are done" in capsys.readouterr().err
    assert client.counts() == {"default": {"cancelled": 1000, "pending": 500}}
    [action] = client.actions()
    assert (action.verb, action.number) == ("cancel", 1000)


def test_prune_counts_and_then_removes(run: Run, client: Client) -> None:
    for number in range(3):
        client.enqueue(ADD, number)
    client.cancel(1)
    client.cancel(2)
    dry = json.loads(run("prune", "--cancelled", "0s", "--dry-run", "--json").stdout)
    assert dry == {"dry_run": True, "removed": {"cancelled": 2}}
    assert run("prune").stdout.splitlines() == [
        "removed 0 succeeded jobs older than 1d",
        "removed 0 cancelled jobs older than 7d",
        "removed 0 failed jobs older than 30d",
    ]
    assert run("prune", "--cancelled", "0s").stdout == "removed 2 cancelled jobs older than 0s\n"
    assert [job.id for job in client.list()] == [3]


def test_prune_names_a_bad_age_and_removes_nothing(run: Run, client: Client) -> None:
    result = run("prune", "--cancelled", "0s", "--failed", "old")
    assert result.exit_code == 2
    assert "--failed: 'old'" in result.stderr


@pytest.mark.parametrize(
    "args", [["list"], ["show", "1"], ["cancel", "1"], ["requeue", "1"], ["prune"]]
)
def test_what_only_looks_does_not_make_a_database(run: Run, folder: Path, args: list[str]) -> None:
    result = run(*args)
    assert result.exit_code == 69
    assert "there is no database" in result.stderr
    assert not (folder / "jobs.db").exists()


def test_without_a_file_the_variable_names_the_database(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"JOBVISOR_DATABASE_URL": "sqlite:///here.db"}
    result = run("enqueue", "a:b", "1", env=environ)
    assert (result.exit_code, result.stdout) == (0, "1\n")
    assert "warning: without a config.toml" in result.stderr
    assert (tmp_path / "here.db").exists()
    assert json.loads(run("show", "1", "--json", env=environ).stdout)["args"] == [1]


def test_without_both_the_message_says_what_to_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("list", env={"JOBVISOR_DATABASE_URL": ""})
    assert result.exit_code == 78
    assert "JOBVISOR_DATABASE_URL" in result.stderr


def test_a_database_in_memory_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("enqueue", "a:b", env={"JOBVISOR_DATABASE_URL": "memory://"})
    assert result.exit_code == 78
    assert "ends with this command" in result.stderr


def test_the_configuration_of_another_program_in_this_folder_does_not_hide_the_database(
    run: Run, folder: Path
) -> None:
    (folder / "config.toml").write_text('title = "a blog"\n[server]\nport = 1\n')
    environ = {"JOBVISOR_DATABASE_URL": "sqlite:///here.db"}
    assert run("enqueue", "app:f", env=environ).stdout == "1\n"
    result = run("list")
    assert result.exit_code == 78
    assert "no database is named" in result.stderr


def test_prune_says_that_everything_is_kept_for_ever(run: Run, folder: Path) -> None:
    run("migrate")
    with (folder / "config.toml").open("a") as file:
        file.write(
            '[retention]\nsucceeded = "forever"\ncancelled = "forever"\nfailed = "forever"\n'
        )
    result = run("prune")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "[retention] keeps every job for ever" in result.stderr


def test_without_modules_a_job_is_enqueued_with_default_options_and_a_warning(
    run: Run, folder: Path
) -> None:
    (folder / "config.toml").write_text('[database]\nurl = "sqlite:///jobs.db"\n')
    result = run("enqueue", "app:f")
    assert (result.exit_code, result.stdout) == (0, "1\n")
    assert "no [tasks] modules: the options of app:f are not known" in result.stderr


def completed(run: Run, *words: str) -> list[str]:
    """What Tab offers after these words, in bash."""
    env = {
        "_JOBVISOR_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("jobvisor", *words)),
        "COMP_CWORD": str(len(words)),
    }
    result = run(env=env)
    assert result.stderr == ""
    return [line.partition(",")[2] for line in result.stdout.splitlines() if line]


def test_the_tasks_of_jobs_are_completed_by_their_names_or_the_ends_of_these(
    run: Run, client: Client
) -> None:
    assert completed(run, "list", "--task", "a") == [], "there is no database, and none is made"
    assert not Path("jobs.db").exists()
    for task in (ADD, SEND, ADD):
        client.enqueue(task, 1)
    assert completed(run, "list", "--task", "tests") == [ADD, SEND]
    assert completed(run, "cancel", "--task", "se") == ["send"]
    assert completed(run, "list", "-c", "elsewhere.toml", "--task", "se") == []
