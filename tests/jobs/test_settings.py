"""Where a client finds its database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ConfigError
from jobs.settings import Settings, Target, find, parse_url
from jobs.task import Defaults

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
        ("postgresql://u:pw@h/db", "not in this release"),
        ("postgres://u:pw@h/db", "not in this release"),
        (None, "is no text"),
    ],
)
def test_a_url_that_names_nothing_of_ours_is_refused(url: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_url(url)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "mysql", "redis", "x" * 50])
def test_a_password_is_never_shown(scheme: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_url(f"{scheme}://user:hunter2@host/db")
    assert "hunter2" not in str(caught.value)
