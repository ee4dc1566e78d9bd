"""Where a client finds its database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from jobvisor.jobs.errors import ConfigError, InvalidOption
from jobvisor.jobs.settings import (
    Settings,
    Target,
    check_flag,
    check_schema,
    find,
    parse_url,
    shown_url,
)
from jobvisor.jobs.task import Defaults

FILE = """
[database]
url = "sqlite:///data/jobs.db"
durability = "normal"
poll = "250ms"
[defaults]
queue = "mail"
retries = 5
timeout = "30s"
"""


MANY_HOSTS = "postgresql://u:p%20w@a:1,[::1]:2/db?target_session_attrs=read-write&sslmode=require"


def test_the_argument_wins_over_the_environment_and_the_file(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(FILE)
    environ = {"JOBVISOR_DATABASE_URL": "sqlite:///env.db"}
    assert find("sqlite:///arg.db", environ, str(tmp_path)) == Settings(
        f"sqlite:///{tmp_path}/arg.db"
    )


def test_the_environment_wins_over_the_file_which_is_then_not_read(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("this is of another program")
    environ = {"JOBVISOR_DATABASE_URL": "sqlite:///env.db"}
    assert find(None, environ, str(tmp_path)).url == f"sqlite:///{tmp_path}/env.db"


def test_the_file_gives_database_and_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(FILE)
    url = f"sqlite:///{tmp_path}/data/jobs.db"
    assert find(None, {}, str(tmp_path)) == Settings(
        url, "normal", 250, Defaults("mail", 5, 30_000)
    )


def test_a_twin_in_the_environment_wins_over_its_key(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(FILE)
    environ = {"JOBVISOR_DEFAULTS_RETRIES": "0", "JOBVISOR_DATABASE_POLL": "2s"}
    found = find(None, environ, str(tmp_path))
    assert (found.defaults.retries, found.defaults.queue, found.poll_ms) == (0, "mail", 2_000)


def test_without_any_the_error_names_all_three(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Client\(url\).*JOBVISOR_DATABASE_URL.*config\.toml"):
        find(None, {}, str(tmp_path))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[database]\nurl = x", r"config\.toml is not valid TOML: .*line 2"),
        ("database = 5", r"config\.toml: database must be a section"),
        ("[database]\nurl = 5", "is no text"),
        ('[database]\nurl = "memory://"\ndurability = "some"', r"\[database\] durability='some'"),
        ('[database]\nurl = "memory://"\npoll = 0', r"\[database\] poll=0"),
        ('[database]\nurl = "memory://"\n[defaults]\nretries = "x"', r"\[defaults\] retries='x'"),
        ('[database]\nurl = "memory://"\n[defaults]\nqueue = "*"', r"\[defaults\] queue"),
        ('[database]\nurl = "memory://"\n[defaults]\ntimeout = "x"', r"\[defaults\] timeout: 'x'"),
    ],
)
def test_a_bad_file_is_refused_with_file_key_and_value(
    tmp_path: Path, text: str, told: str
) -> None:
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        find(None, {}, str(tmp_path))


def test_a_file_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.toml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        find(None, {}, str(tmp_path))


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="JOBVISOR_DEFAULTS_RETRIES='many'"):
        find("memory://", {"JOBVISOR_DEFAULTS_RETRIES": "many"})


def test_a_relative_path_is_made_absolute_so_that_a_chdir_does_not_matter() -> None:
    assert find("sqlite:///a.db", {}).url == f"sqlite:///{os.getcwd()}/a.db"
    assert find("sqlite:////a.db", {}).url == "sqlite:////a.db"


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("sqlite:///a.db", Target("sqlite", "a.db")),
        ("sqlite:////var/a b.db", Target("sqlite", "/var/a b.db")),
        ("memory://", Target("memory", "")),
        ("postgresql://", Target("postgresql", "postgresql://")),
        ("postgres://h/db", Target("postgresql", "postgres://h/db")),
        (MANY_HOSTS, Target("postgresql", MANY_HOSTS)),
    ],
)
def test_a_url_names_a_target(url: str, target: Target) -> None:
    assert parse_url(url) == target


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "without a scheme"),
        ("jobs.db", "without a scheme"),
        ("sqlite:jobs.db", "without a scheme"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///folder/", "names no file"),
        ("sqlite://jobs.db", "three slashes"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///a.db?mode=ro", "options after"),
        ("memory://x", "scheme 'memory'"),
        ("mysql://root@h/db", "scheme 'mysql'"),
        ("u:pw@mysql://h/db", "a scheme that is none of ours"),
        ("postgresql:/h/db", "without a scheme"),
        ("postgresql://h/my db", "%20"),
        ("postgresql://h/db\n", "%20"),
        ("postgresql://h/\0", "control character"),
        ("postgresql://h/\ud800", "control character"),
        ("postgresql://h/" + "x" * 2_000, "longer than 2000 letters"),
        (None, "is no text"),
    ],
)
def test_a_url_that_names_nothing_of_ours_is_refused(url: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:hunter2@host/db",
        f"{'x' * 50}://user:hunter2@host/db",
        "user:hunter2@host",
        "user:hunter2@host://db",
        "postgresql://user:hunter2 @host/db",
        "postgres://user:hunter2\n@host/db",
        "postgresql://user:hunter2@host/" + "x" * 2_000,
    ],
)
def test_an_error_never_shows_a_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sqlite:////a:b@c.db", "sqlite:////a:b@c.db"),
        ("memory://", "memory://"),
        ("postgresql://", "postgresql://"),
        ("postgresql:///db?host=/run/pg", "postgresql:///db?host=/run/pg"),
        ("postgres://u@h/db", "postgres://u@h/db"),
        ("postgresql://u:hunter2@h:5432/db", "postgresql://u:***@h:5432/db"),
        ("postgresql://:hunter2@h", "postgresql://:***@h"),
        ("postgresql://u:@h", "postgresql://u:***@h"),
        ("postgresql://u:hun?ter2=1@h/db", "postgresql://u:***@h/db"),
        ("postgresql://u:hunter2@a:1,[::1]:2/db?x=1", "postgresql://u:***@a:1,[::1]:2/db?x=1"),
        ("postgresql://h/db?user=u@v&password=hunter2", "postgresql://h/db?user=u@v&password=***"),
        ("postgresql://h:1/?passwor%64=hunter2", "postgresql://h:1/?passwor%64=***"),
        ("postgresql://h?sslpassword=hunter2&x=1", "postgresql://h?sslpassword=***&x=1"),
        ("postgresql://h?oauth_client_secret=hunter2", "postgresql://h?oauth_client_secret=***"),
        ("postgresql://h?scram_client_key=hunter2", "postgresql://h?scram_client_key=***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, told: str) -> None:
    assert shown_url(url) == told


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hun@ter2@h/db",
        "postgresql://u:hun/ter2@h/db",
        "postgresql://u:hun/t?er2@h/db",
        "postgresql://u:hun:ter2/@h/db",
        "postgresql://u:1?hun=ter2@h@x/db",
        "postgresql://h?password=hunter2@h/db",
        "postgresql://h/db@hunter2",
        "postgresql://h:hunter2/db",
        "postgresql://h?password=hun&ter2",
        "postgresql://h?password=hun=ter2",
    ],
)
def test_a_url_that_is_not_well_formed_shows_nothing_that_may_be_its_password(url: str) -> None:
    assert shown_url(url) == "postgresql://***"
    with pytest.raises(ConfigError, match="has not the form") as caught:
        parse_url(url)
    assert "ter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["mysql://u:hunter2@h", "u:hunter2@h", ""])
def test_a_text_that_is_no_url_of_ours_is_not_shown(url: str) -> None:
    assert shown_url(url) == "***"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://%2Fvar%2Frun/db",
        "postgresql:///?host=/var/run&user=a@b",
        "postgresql://u%40x:p%2Fw:?@h:1,[fe80::1]:2,c/d%20b?options=-c%20x%3Dy&",
        "postgresql://h/?",
    ],
)
def test_what_libpq_can_read_is_well_formed(url: str) -> None:
    assert conninfo_to_dict(url) is not None  # it raises where libpq cannot
    assert parse_url(url).path == url


def test_a_postgresql_url_is_kept_as_it_is_given(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(f'[database]\nurl = "{MANY_HOSTS}"')
    assert find(MANY_HOSTS, {}, str(tmp_path)).url == MANY_HOSTS
    assert find(None, {}, str(tmp_path)).url == MANY_HOSTS


def test_schema_and_notify_are_read_from_the_file_and_their_twins_win(tmp_path: Path) -> None:
    text = '[database]\nurl = "postgresql://h/db"\nschema = "shop"\nnotify = false'
    (tmp_path / "config.toml").write_text(text)
    found = find(None, {}, str(tmp_path))
    assert (found.schema, found.notify) == ("shop", False)
    environ = {"JOBVISOR_DATABASE_SCHEMA": "mine", "JOBVISOR_DATABASE_NOTIFY": "true"}
    found = find(None, environ, str(tmp_path))
    assert (found.schema, found.notify) == ("mine", True)


def test_sqlite_takes_schema_and_notify_and_does_not_need_them(tmp_path: Path) -> None:
    text = '[database]\nurl = "sqlite:///a.db"\nschema = "shop"\nnotify = false'
    (tmp_path / "config.toml").write_text(text)
    assert find(None, {}, str(tmp_path)).url == f"sqlite:///{tmp_path}/a.db"


@pytest.mark.parametrize("name", ["jobvisor", "_", "a1", "x" * 63, "public"])
def test_a_schema_is_a_plain_lower_case_name(name: str) -> None:
    assert check_schema("schema", name) == name


@pytest.mark.parametrize(
    "name",
    ["", "Jobs", "1a", "a-b", "a b", 'a"b', "a;", "x" * 64, "pg_x", "information_schema", "ä", 5],
)
def test_another_schema_is_refused_with_its_place(name: Any) -> None:
    with pytest.raises(InvalidOption, match=r"the place=.*lower-case"):
        check_schema("the place", name)


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"JOBVISOR_DATABASE_SCHEMA": "pg_jobs"}, "JOBVISOR_DATABASE_SCHEMA='pg_jobs'"),
        ({"JOBVISOR_DATABASE_NOTIFY": "maybe"}, "JOBVISOR_DATABASE_NOTIFY='maybe' must be true"),
    ],
)
def test_a_bad_schema_or_notify_is_named(environ: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        find("postgresql://h", environ)


@pytest.mark.parametrize(
    ("value", "flag"),
    [(True, True), ("true", True), ("1", True), (False, False), ("False", False), ("0", False)],
)
def test_a_flag_is_true_or_false_also_as_text(value: Any, flag: bool) -> None:
    assert check_flag("x", value) is flag


@pytest.mark.parametrize("value", ["", "yes", 1, None])
def test_what_is_neither_true_nor_false_is_refused(value: Any) -> None:
    with pytest.raises(InvalidOption, match=r"the place=.* must be true or false"):
        check_flag("the place", value)
