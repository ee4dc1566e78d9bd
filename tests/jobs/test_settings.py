"""What a client needs to know, and where it finds it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.settings import URL_VARIABLE, Settings, environment, find, use_settings
from jobvisor.jobs.task import Defaults

FILE = """
[database]
url = "sqlite:///data/jobs.db"
durability = "normal"
schema = "shop"
prefix = "our_"
notify = false
codec = "app.crypto:codec"
[tasks]
path = "code"
[defaults]
queue = "mail"
retries = 5
timeout = "30s"
"""

MANY_HOSTS = "postgresql://u:p%20w@a:1,[::1]:2/db?target_session_attrs=read-write&sslmode=require"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told_by_file(here: Path, url: str) -> Settings:
    defaults = Defaults("mail", 5, 30_000)
    path = f"{here}/code"
    return Settings(url, "normal", defaults, "shop", False, "app.crypto:codec", path, prefix="our_")


def test_the_file_gives_all_that_a_client_needs(here: Path) -> None:
    Path("config.toml").write_text(FILE)
    assert find(None, {}) == told_by_file(here, f"sqlite:///{here}/data/jobs.db")


def test_a_database_named_otherwise_does_not_hide_the_rest_of_the_file(here: Path) -> None:
    Path("config.toml").write_text(FILE)
    environ = {"JOBVISOR_DATABASE_URL": "postgresql://env"}
    assert find(None, environ) == told_by_file(here, "postgresql://env")
    assert find("sqlite:///arg.db", environ) == told_by_file(here, f"sqlite:///{here}/arg.db")
    assert find("memory://", {}) == told_by_file(here, "memory://")


def test_a_twin_in_the_environment_wins_over_its_key() -> None:
    Path("config.toml").write_text(FILE)
    found = find(None, {"JOBVISOR_DEFAULTS_RETRIES": "0", "JOBVISOR_DATABASE_NOTIFY": "true"})
    assert (found.defaults.retries, found.defaults.queue, found.notify) == (0, "mail", True)


def test_the_variable_names_another_file(here: Path) -> None:
    (here / "etc").mkdir()
    (here / "etc/mine.toml").write_text(FILE)
    Path("config.toml").write_text('[database]\nurl = "sqlite:///other.db"')
    for named in ("etc/mine.toml", f"{here}/etc/mine.toml"):
        found = find(None, {"JOBVISOR_CONFIG": named})
        assert found == told_by_file(here / "etc", f"sqlite:///{here}/etc/data/jobs.db")
    (here / "etc/mine.toml").write_text("")
    assert find(None, {"JOBVISOR_CONFIG": "etc/mine.toml"}).url == f"sqlite:///{here}/etc/jobs.db"
    with pytest.raises(ConfigError, match=r"not_there\.toml does not exist"):
        find("memory://", {"JOBVISOR_CONFIG": "not_there.toml"})


def test_without_any_the_error_names_all_three() -> None:
    with pytest.raises(ConfigError, match=r"Client\(url\).*JOBVISOR_DATABASE_URL.*config\.toml"):
        find(None, {})


@pytest.mark.parametrize(
    "text", ['title = "my blog"', "[server]\nport = 1", "[database]\npool = 3\n[server]\nport = 1"]
)
def test_the_file_of_another_program_is_left_alone(here: Path, text: str) -> None:
    Path("config.toml").write_text(text)
    assert find("sqlite:///a.db", {}) == Settings(f"sqlite:///{here}/a.db", path=str(here))
    with pytest.raises(ConfigError, match="no database is named"):
        find(None, {})


def test_a_family_s_file_names_the_family_s_default_database(here: Path) -> None:
    Path("config.toml").write_text("[[workers]]\n[a_newer_release]")
    assert find(None, {}).url == f"sqlite:///{here}/jobs.db"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[database]\nurl = x", r"config\.toml is not TOML: .*line 2"),
        ("database = 5", r"config\.toml: database is not a table"),
        ("[database]\nurl = 5", r"\[database\] url is not valid"),
        ('[database]\nurll = "sqlite:///a.db"', 'did you mean "url"'),
        ('[databse]\nurl = "sqlite:///a.db"\n[tasks]', r'\[databse\].*did you mean "database"'),
        ('[database]\ndurability = "some"', r'\[database\] durability = "some" is not valid'),
        ('[defaults]\nretries = "x"', r'\[defaults\] retries = "x"'),
        ('[defaults]\nqueue = "*"', r"\[defaults\] queue"),
    ],
)
def test_a_bad_file_is_refused_with_file_key_and_value(text: str, told: str) -> None:
    Path("config.toml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        find(None, {})


@pytest.mark.parametrize("named", ["argument", "variable"])
@pytest.mark.parametrize(
    "text",
    [
        "[database\nhost = ",
        "\0",
        "database = 5",
        '[database]\npool = 5\nhost = "db"',
        '[defaults]\nretries = "x"',
        '[databse]\nurl = "sqlite:///b.db"\n[tasks]',
    ],
)
def test_a_broken_file_that_may_be_another_program_s_stops_nobody_who_names_a_database(
    here: Path, text: str, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    Path("config.toml").write_text(text)
    url = "sqlite:///a.db"
    argument, environ = (url, {}) if named == "argument" else (None, {URL_VARIABLE: url})
    assert find(argument, environ) == Settings(f"sqlite:///{here}/a.db", path=str(here))
    find(argument, environ)
    (line,) = caplog.messages
    assert "config.toml" in line
    assert f"in {here} is passed over" in line


def test_a_broken_file_that_was_named_is_refused_whoever_names_the_database() -> None:
    Path("config.toml").write_text("[database\nhost = ")
    with pytest.raises(ConfigError, match=r"config\.toml is not TOML"):
        find("memory://", {"JOBVISOR_CONFIG": "config.toml"})


@pytest.mark.parametrize(
    "text",
    [
        '[[workers]]\n[database]\ndurability = "some"',
        '[database]\ncodec = "app:codec"\ndurability = "some"',
    ],
)
def test_a_mistake_in_a_file_that_is_plainly_ours_is_refused_whoever_names_the_database(
    text: str,
) -> None:
    Path("config.toml").write_text(text)
    with pytest.raises(ConfigError, match=r'durability = "some" is not valid'):
        find("memory://", {})


def test_a_file_that_is_a_folder_is_refused() -> None:
    Path("config.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        find(None, {})


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"JOBVISOR_DEFAULTS_RETRIES": "many"}, 'JOBVISOR_DEFAULTS_RETRIES = "many"'),
        ({"JOBVISOR_DATABASE_SCHEMA": "pg_jobs"}, 'JOBVISOR_DATABASE_SCHEMA = "pg_jobs"'),
        ({"JOBVISOR_DATABSE_URL": "x"}, 'did you mean "JOBVISOR_DATABASE_URL"'),
        ({"JOBVISOR_DB_URL": "x"}, 'did you mean "JOBVISOR_DATABASE_URL"'),
        ({"JOBVISOR_CONFIG_FILE": "x"}, "sets no key that there is"),
        ({"JOBVISOR_DATABASE": "x"}, "sets no key that there is"),
    ],
)
def test_a_bad_variable_is_named(environ: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        find("memory://", environ)


def test_variables_of_others_and_of_pools_are_left_alone() -> None:
    environ = {
        "JOBVISOR_VERSION": "7",
        "JOBVISOR_WORKERS_MAIL_PROCESSES": "4",
        "JOBVISOR_DATABASE_SERVICE_HOST": "10.0.0.1",
        "JOBVISOR_PORT_8321_TCP_ADDR": "10.0.0.1",
        "JOBVISOR_LOG_LEVEL": "debug",
    }
    assert find("memory://", environ).url == "memory://"


def test_a_relative_path_is_made_absolute_so_that_a_chdir_does_not_matter(here: Path) -> None:
    assert find("sqlite:///a.db", {}).url == f"sqlite:///{here}/a.db"
    assert find("sqlite:////a.db", {}).url == "sqlite:////a.db"


def test_a_postgresql_url_is_kept_as_it_is_given() -> None:
    Path("config.toml").write_text(f'[database]\nurl = "{MANY_HOSTS}"')
    assert find(MANY_HOSTS, {}).url == MANY_HOSTS
    assert find(None, {}).url == MANY_HOSTS


# -- the settings of a process, and of what it starts


MINE = Settings(
    "postgresql://h/db",
    "normal",
    Defaults("mail", 1, 5_000),
    "shop",
    False,
    "a.b:c",
    "/code",
    prefix="our_",
)


@pytest.fixture
def used() -> Iterator[Settings]:
    undo = use_settings(MINE)
    yield MINE
    undo()


def test_a_process_may_say_once_what_its_clients_have(used: Settings) -> None:
    Path("config.toml").write_text("not read")
    assert find(None, {"JOBVISOR_DATABASE_SCHEMA": "other"}) == used
    assert find("memory://", {}) == replace(used, url="memory://")


def found_elsewhere(environ: dict[str, str], folder: Path) -> str:
    """What a program finds that is started with these variables in another folder."""
    folder.mkdir()
    code = "from jobvisor.jobs.settings import find; print(find())"
    clean = {name: v for name, v in os.environ.items() if not name.startswith("JOBVISOR_")}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=clean | {"PYTHONPATH": str(Path(__file__).parents[2])} | environ,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def test_a_program_that_a_task_starts_finds_the_same_by_variables(here: Path) -> None:
    assert found_elsewhere(environment(MINE, None), here / "x") == repr(MINE)


def test_a_program_that_a_task_starts_finds_the_file_and_no_password(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("config.toml").write_text(FILE.replace("sqlite:///data/jobs.db", MANY_HOSTS))
    environ = environment(find(None, {}), f"{here}/config.toml")
    assert environ == {"JOBVISOR_CONFIG": f"{here}/config.toml"}
    assert found_elsewhere(environ, here / "x") == repr(find(None, {}))
    monkeypatch.setenv("JOBVISOR_DATABASE_URL", "sqlite:///a.db")
    told = environment(find(), f"{here}/config.toml")
    assert told["JOBVISOR_DATABASE_URL"] == f"sqlite:///{here}/a.db"
