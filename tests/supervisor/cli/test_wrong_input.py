"""A wrong cron, zone, rate, weight, key or filter is one sentence where it is written; nothing is stored."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from jobvisor import Client, Filter
from jobvisor.jobs.errors import ConfigError, InvalidOption
from jobvisor.jobs.registry import Registry
from jobvisor.supervisor.config import Config
from tests.supervisor.cli.conftest import CONFIG, Run
from tests.supervisor.web.shop import API, Shop

ADD = "tests.supervisor.cli.sample:add"
LONG = "k" * 501

SCHEDULE = f'[[schedules]]\nname = "s"\ntask = "{ADD}"\nargs = [1]\n'
NEW = {"name": "s", "task": "app:add", "args": [1]}
TICK = ("schedules", "add", "s", ADD, "1")


class Wrong(NamedTuple):
    """One mistake in every place where somebody may make it; None where it cannot be written."""

    words: str
    option: Mapping[str, Any] | None = None
    """Of a task, and so of a call of it."""
    schedule: bool = False
    """It is an option of a task alone, no call has it."""
    client: Callable[[Client], Any] | None = None
    config: str | None = None
    command: Sequence[str] | None = None
    method: str = "POST"
    path: str = "/jobs"
    body: Mapping[str, Any] | None = None
    """What is sent over HTTP."""
    refused: str | None = None
    """The words of the API, where its document says what may be sent."""


WRONG = {
    "cron": Wrong(
        "cron='0 25 * * *' is no cron expression (bad hour)",
        {"cron": "0 25 * * *"},
        schedule=True,
        client=lambda client: client.schedules.add("s", ADD, args=[1], cron="0 25 * * *"),
        config=f'{SCHEDULE}cron = "0 25 * * *"',
        command=(*TICK, "--cron", "0 25 * * *"),
        path="/schedules",
        body=NEW | {"cron": "0 25 * * *"},
    ),
    "time that no year has": Wrong(
        "is no cron expression (bad day-of-month)",
        {"cron": "0 0 31 2 *"},
        schedule=True,
        client=lambda client: client.schedules.add("s", ADD, args=[1], cron="0 0 31 2 *"),
        config=f'{SCHEDULE}cron = "0 0 31 2 *"',
        command=(*TICK, "--cron", "0 0 31 2 *"),
        path="/schedules",
        body=NEW | {"cron": "0 0 31 2 *"},
    ),
    "every": Wrong(
        "every: 'soon' is not a duration",
        {"every": "soon"},
        schedule=True,
        client=lambda client: client.schedules.add("s", ADD, args=[1], every="soon"),
        config=f'{SCHEDULE}every = "soon"',
        command=(*TICK, "--every", "soon"),
        path="/schedules",
        body=NEW | {"every": "soon"},
    ),
    "zone": Wrong(
        "timezone='Europe/Berln' is no time zone known here; did you mean 'Europe/Berlin'?",
        {"cron": "@daily", "timezone": "Europe/Berln"},
        schedule=True,
        client=lambda client: client.schedules.add(
            "s", ADD, args=[1], cron="@daily", timezone="Europe/Berln"
        ),
        config=f'{SCHEDULE}cron = "@daily"\ntimezone = "Europe/Berln"',
        command=(*TICK, "--cron", "@daily", "--timezone", "Europe/Berln"),
        path="/schedules",
        body=NEW | {"cron": "@daily", "timezone": "Europe/Berln"},
    ),
    "rate": Wrong(
        "rate='fast' is no rate",
        client=lambda client: client.limits.set("smtp", rate="fast"),
        config='[limits.smtp]\nrate = "fast"',
        command=("limits", "set", "smtp", "--rate", "fast"),
        method="PUT",
        path="/limits/smtp",
        body={"rate": "fast"},
    ),
    "limit that limits nothing": Wrong(
        "the limit smtp limits nothing",
        client=lambda client: client.limits.set("smtp"),
        config="[limits.smtp]",
        command=("limits", "set", "smtp"),
        method="PUT",
        path="/limits/smtp",
        body={},
    ),
    "name of a limit": Wrong(
        "'a:b' is no name of a limit",
        client=lambda client: client.limits.set("a:b", concurrency=1),
        config='[limits."a:b"]\nconcurrency = 1',
        command=("limits", "set", "a:b", "--concurrency", "1"),
    ),
    "weight": Wrong(
        "weight=0 must be a whole number from 1 to 1000",
        {"share": "a", "weight": 0},
        command=("enqueue", ADD, "1", "--share", "a", "--weight", "0"),
        body={"task": "app:add", "share": "a", "weight": 0},
        refused="body.weight: input should be greater than or equal to 1",
    ),
    "unique key": Wrong(
        "must be",
        {"unique": LONG},
        command=("enqueue", ADD, "1", "--unique", LONG),
        body={"task": "app:add", "args": [1], "unique": LONG},
        refused="body.unique: string should have at most 500 characters",
    ),
    "how long a key is held": Wrong(
        "unique_for='soon' must be \"unfinished\", \"kept\", or a duration",
        {"unique": "k", "unique_for": "soon"},
        command=("enqueue", ADD, "1", "--unique", "k", "--unique-for", "soon"),
        body={"task": "app:add", "args": [1], "unique": "k", "unique_for": "soon"},
    ),
    "debounce without a delay": Wrong(
        'on_conflict="debounce" needs delay=',
        {"unique": "k", "on_conflict": "debounce"},
        command=("enqueue", ADD, "1", "--unique", "k", "--on-conflict", "debounce"),
        body={"task": "app:add", "args": [1], "unique": "k", "on_conflict": "debounce"},
    ),
    "key of a limit": Wrong(
        "limit=':x' begins with no name of a limit",
        {"limit": ":x"},
        command=("enqueue", ADD, "1", "--limit", ":x"),
        body={"task": "app:add", "args": [1], "limit": ":x"},
    ),
    "keep": Wrong(
        "soon",
        {"keep": "soon"},
        config='[queues.mail]\nkeep = "soon"',
        command=("enqueue", ADD, "1", "--keep", "soon"),
        body={"task": "app:add", "args": [1], "keep": "soon"},
    ),
    "deadline": Wrong(
        "deadline: 'soon' is not a duration",
        {"deadline": "soon"},
        command=("enqueue", ADD, "1", "--deadline", "soon"),
        body={"task": "app:add", "args": [1], "deadline": "soon"},
    ),
    "state in a filter": Wrong(
        "waiting",
        client=lambda client: client.page(Filter(state="waiting")),
        command=("reschedule", "--state", "waiting", "--now"),
        path="/jobs/reschedule",
        body={"filter": {"state": ["waiting"]}, "run_in": 0},
        refused="body.filter.state[0]: input should be 'scheduled', 'pending', ",
    ),
    "time in a filter": Wrong(
        "'soon'",
        client=lambda client: client.page(Filter(since="soon")),
        command=("reschedule", "--since", "soon", "--now"),
        path="/jobs/reschedule",
        body={"filter": {"since": "soon"}, "run_in": 0},
    ),
    "another time": Wrong(
        "'soon'",
        client=lambda client: client.reschedule_where(Filter(state="pending"), run_in="soon"),
        command=("reschedule", "--state", "pending", "--in", "soon"),
        path="/jobs/reschedule",
        body={"filter": {"state": ["pending"]}, "run_in": "soon"},
    ),
    "end of a pause": Wrong(
        "'soon'",
        client=lambda client: client.pause("mail", until="soon"),
        command=("pause", "mail", "--until", "soon"),
        path="/queues/mail/pause",
        body={"until": "soon"},
    ),
    "queue that is fair": Wrong("fair", config='[queues.mail]\nfair = "yes"'),
}  # fmt: skip


def those(place: str) -> list[str]:
    return [name for name, wrong in WRONG.items() if getattr(wrong, place) is not None]


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with Client(f"sqlite:///{folder}/jobs.db", registry=Registry()) as opened:
        opened.migrate()
        yield opened


@pytest.fixture
def shop() -> Iterator[Shop]:
    made = Shop()
    yield made
    made.close()


def stored(client: Client) -> list[Any]:
    """All that one of these could have left behind."""
    return [client.list(), client.schedules.list(), client.limits.list(), client.paused()]


@pytest.mark.parametrize("name", those("option"))
def test_in_code_it_is_one_at_the_import(name: str) -> None:
    wrong = WRONG[name]
    with pytest.raises(InvalidOption) as refused:
        Registry().task(name="f", **wrong.option or {})(print)
    assert wrong.words in one(str(refused.value))


@pytest.mark.parametrize("name", [each for each in those("option") if not WRONG[each].schedule])
def test_of_a_call_it_is_one_before_anything_is_stored(name: str, client: Client) -> None:
    wrong = WRONG[name]
    options: Any = wrong.option
    with pytest.raises(InvalidOption) as refused:
        client.enqueue(client.call(ADD, 1, options=options))
    assert wrong.words in one(str(refused.value))
    assert stored(client) == [[]] * 4


@pytest.mark.parametrize("name", those("client"))
def test_of_a_client_it_is_one(name: str, client: Client) -> None:
    wrong = WRONG[name]
    assert wrong.client is not None
    with pytest.raises(InvalidOption) as refused:
        wrong.client(client)
    assert wrong.words in one(str(refused.value))
    assert stored(client) == [[]] * 4


@pytest.mark.parametrize("name", those("config"))
def test_in_the_configuration_it_is_one_at_the_start_and_of_check(
    name: str, tmp_path: Path
) -> None:
    wrong = WRONG[name]
    text = CONFIG + (wrong.config or "")
    assert tomllib.loads(text)
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        Config.load(str(tmp_path / "config.toml"), environ={})
    assert wrong.words in one(str(refused.value).removeprefix(str(tmp_path)))


@pytest.mark.parametrize("name", those("command"))
def test_on_the_command_line_it_is_one_with_exit_code_2(
    name: str, run: Run, client: Client
) -> None:
    wrong = WRONG[name]
    done = run(*wrong.command or ())
    assert (done.exit_code, done.stdout) == (2, "")
    assert wrong.words in one(done.stderr.removesuffix("\n"))
    assert stored(client) == [[]] * 4


@pytest.mark.parametrize("name", those("body"))
def test_over_http_it_is_one_with_status_422(name: str, shop: Shop) -> None:
    wrong = WRONG[name]
    answer = shop.web.request(wrong.method, f"{API}{wrong.path}", json=wrong.body)
    assert answer.status_code == 422, answer.text
    assert (wrong.refused or wrong.words) in one(answer.json()["detail"])
    assert stored(shop.client) == [[]] * 4


@pytest.mark.parametrize("name", ["cron", "zone", "weight", "key of a limit"])
def test_check_tells_it_of_code(name: str, run: Run, folder: Path) -> None:
    wrong = WRONG[name]
    said = ", ".join(f"{key}={value!r}" for key, value in (wrong.option or {}).items())
    (folder / "wrong.py").write_text(
        f"from jobvisor import task\n\n\n@task({said})\ndef f() -> None: ...\n"
    )
    (folder / "config.toml").write_text('[tasks]\nmodules = ["wrong"]\n')
    done = run("check")
    assert done.exit_code == 78
    assert wrong.words in done.stderr


def one(text: str) -> str:
    """It is a line, and not so long that nobody reads it."""
    assert "\n" not in text
    assert len(text) < 400
    return text
