"""What a database URL means."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.url import Target, parse_url, shown_url

MANY_HOSTS = "postgresql://u:p%20w@a:1,[::1]:2/db?target_session_attrs=read-write&sslmode=require"


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
