"""Where a client finds its database: argument, JOBVISOR_DATABASE_URL, else ./config.toml.

The only other reader of the environment and of config.toml; supervisor/config.py reads all of it
and judges every key, this reads what an application needs.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import unquote

from jobvisor.jobs.errors import ConfigError, InvalidOption, shown
from jobvisor.jobs.task import RETRIES_MAX, Defaults, check_number, check_queue
from jobvisor.jobs.units import duration_ms

URL_VARIABLE = "JOBVISOR_DATABASE_URL"
FILE_NAME = "config.toml"
DEFAULT_URL = "sqlite:///jobs.db"
_FAMILY_SECTIONS = {"database", "tasks", "supervisor", "workers", "defaults"}
DURABILITIES = ("full", "normal")
SCHEMA_NAME = "jobvisor"
_POSTGRESQL = {"postgresql", "postgres"}
_URL_HELP = (
    "write sqlite:///jobs.db, sqlite:////absolute/jobs.db, postgresql://user@host/database "
    "or memory://"
)

URL_LENGTH_MAX = 2_000
"""Far above several hosts with certificates; a longer text is something else."""


class Target(NamedTuple):
    """What a URL points at."""

    kind: str
    """sqlite, postgresql or memory."""
    path: str
    """The file, "" for memory; for postgresql the URL itself, which libpq reads."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client needs to know."""

    url: str
    """With an absolute path, so that a later chdir does not change the database; it may hold a
    password, so show it by `shown_url`."""
    durability: str = "full"
    """full: an acknowledged enqueue survives a power cut; normal: it survives a crash."""
    poll_ms: int = 1_000
    defaults: Defaults = field(default_factory=Defaults)
    schema: str = SCHEMA_NAME
    """The PostgreSQL schema of the tables; SQLite has none."""
    notify: bool = True
    """Wake workers by PostgreSQL's NOTIFY; SQLite has other means."""


def find(
    url: str | None = None, environ: Mapping[str, str] = os.environ, cwd: str = "."
) -> Settings:
    """The settings for this URL, else for the one of the environment, else for ./config.toml.

    The file is read only when it is what names the database: a folder may have a config.toml of
    something else. A variable such as JOBVISOR_DEFAULTS_RETRIES always counts.
    """
    folder = os.path.abspath(cwd)
    if url is not None:
        return _settings(_absolute(url, folder), {}, environ)
    if environ.get(URL_VARIABLE):
        return _settings(_absolute(environ[URL_VARIABLE], folder), {}, environ)
    path = os.path.join(folder, FILE_NAME)
    sections = _read(path)
    named = _section(sections, "database", path).get("url")
    if named is None and sections.keys() & _FAMILY_SECTIONS:
        named = DEFAULT_URL  # the same as the family's, which this file describes
    if named is None:
        raise ConfigError(
            f"no database is named: give Client(url), set {URL_VARIABLE}, "
            f"or write [database] url into {path}; {_URL_HELP}"
        )
    return _settings(_absolute(named, folder), sections, environ, path)


def parse_url(url: str) -> Target:
    """What a database URL points at; a ConfigError never repeats a password.

    >>> parse_url("sqlite:///jobs.db"), parse_url("sqlite:////var/lib/jobs.db")
    (Target(kind='sqlite', path='jobs.db'), Target(kind='sqlite', path='/var/lib/jobs.db'))
    >>> parse_url("postgresql://app@db1,db2/shop?sslmode=verify-full").kind
    'postgresql'
    >>> parse_url("memory://")
    Target(kind='memory', path='')
    """
    if not isinstance(url, str):
        raise ConfigError(f"the database URL {shown(url)} is no text; {_URL_HELP}")
    scheme, mark, rest = url.partition("://")
    if scheme in _POSTGRESQL and mark:
        return Target("postgresql", _postgresql_url(url))
    if scheme == "memory" and mark and not rest:
        return Target("memory", "")
    if scheme == "sqlite" and mark:
        return Target("sqlite", _sqlite_path(rest))
    # Not the URL itself: what is wrong with it may be just where the password stands.
    if not mark:
        known = "is a text without a scheme"
    elif re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        known = f"has the scheme {shown(scheme, 20)}, which is none of ours"
    else:
        known = "has a scheme that is none of ours"
    raise ConfigError(f"the database URL {known}; {_URL_HELP}")


def shown_url(url: str) -> str:
    """The URL as logs, errors and `status` show it: with `***` for a password.

    A PostgreSQL URL that is not well formed is hidden whole: an @, / or & that should have been
    escaped may stand in the middle of its password.

    >>> shown_url("postgresql://app:hunter2@db/shop?sslmode=require&sslpassword=x")
    'postgresql://app:***@db/shop?sslmode=require&sslpassword=***'
    """
    scheme, mark, rest = url.partition("://")
    if mark and scheme in {"sqlite", "memory"}:
        return url
    parts = _POSTGRESQL_URL.fullmatch(rest) if mark and scheme in _POSTGRESQL else None
    if parts is None:
        return f"{scheme}://***" if scheme in _POSTGRESQL else "***"
    user, password, hosts, query = parts.groups()
    userinfo = "" if user is None else f"{user}@" if password is None else f"{user}:***@"
    return f"{scheme}://{userinfo}{hosts}{_shown_query(query)}"


# As libpq reads it (src/interfaces/libpq/fe-connect.c, conninfo_uri_parse_options): userinfo ends
# at the first @ if no / comes before it, so a ? may stand in a password.
_HOST = r"(?:\[[^\]@/]*\]|[^\[:@/?,]*)(?::[0-9]*)?"
_POSTGRESQL_URL = re.compile(
    r"(?:([^:@/?]*)(?::([^@/]*))?@|(?![^/]*@))"
    rf"({_HOST}(?:,{_HOST})*(?:/[^@/?]*)?)"
    r"(?:\?((?:[^=&]+=[^=&]*(?:&|$))*))?"
)
_SECRET = re.compile("password|secret|scram_")


def _shown_query(query: str | None) -> str:
    if query is None:
        return ""
    options = (option.partition("=") for option in query.split("&"))
    return "?" + "&".join(
        f"{name}{sign}{'***' if _SECRET.search(unquote(name).lower()) else value}"
        for name, sign, value in options
    )


def _postgresql_url(url: str) -> str:
    """The URL, if it has the form of one; what its words mean is seen by who connects.

    With another form libpq takes a piece of a password for a host or a port, and then says so.
    """
    if len(url) > URL_LENGTH_MAX:
        raise ConfigError(
            f"the database URL is longer than {URL_LENGTH_MAX} letters; "
            "put what libpq need not have in it into a service file or PG* variables"
        )
    if any(letter.isspace() or not letter.isprintable() for letter in url):
        raise ConfigError(
            "the database URL holds a space, a line end or a control character; "
            "write it percent-encoded, a space as %20"
        )
    if not _POSTGRESQL_URL.fullmatch(url.partition("://")[2]):
        raise ConfigError(
            "the database URL has not the form "
            "postgresql://user:password@host:5432/database?option=value; what stands for itself "
            "in a name or a password is percent-encoded: @ is %40, / is %2F, & is %26"
        )
    return url


def check_schema(place: str, value: Any) -> str:
    """The name of a PostgreSQL schema of our own; InvalidOption where it could not be one.

    Lower case only, so that it means the same with and without quotes.
    """
    if (
        not isinstance(value, str)
        or not re.fullmatch("[a-z_][a-z0-9_]{0,62}", value)
        or value.startswith("pg_")
        or value == "information_schema"
    ):
        raise InvalidOption(
            f"{place}={shown(value)} is no schema of ours: write 1 to 63 lower-case letters, "
            "digits and _, not beginning with a digit or pg_"
        )
    return value


def check_flag(place: str, value: Any) -> bool:
    """True or False; from the environment they are the words true and false, or 1 and 0."""
    if isinstance(value, bool):
        return value
    words = {"true": True, "1": True, "false": False, "0": False}
    found = words.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise InvalidOption(f"{place}={shown(value)} must be true or false")
    return found


def _sqlite_path(rest: str) -> str:
    if not rest.startswith("/"):
        raise ConfigError(
            f"sqlite://{rest} names no file: a relative path comes after three slashes, "
            f"an absolute one after four; {_URL_HELP}"
        )
    path = rest[1:]
    if path == ":memory:":
        raise ConfigError(
            "sqlite:///:memory: would be another database for each connection; write memory://"
        )
    if not path or path.endswith("/") or "\0" in path:
        raise ConfigError(f"sqlite://{shown(rest)[1:-1]} names no file; {_URL_HELP}")
    if "?" in path:
        raise ConfigError(f"sqlite://{rest}: options after ? are not read; leave them out")
    return path


def _absolute(url: Any, folder: str) -> str:
    target = parse_url(url)
    if target.kind != "sqlite":
        return str(url)
    return f"sqlite:///{os.path.join(folder, target.path)}"


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _section(sections: Mapping[str, Any], name: str, path: str) -> Mapping[str, Any]:
    section = sections.get(name, {})
    if not isinstance(section, dict):
        raise ConfigError(f"{path}: {name} must be a section: write [{name}]")
    return section


def _settings(
    url: str, sections: Mapping[str, Any], environ: Mapping[str, str], path: str = FILE_NAME
) -> Settings:
    def value(section: str, key: str, default: Any, judge: Callable[[str, Any], Any]) -> Any:
        """The environment's twin, else the file's key, else the default."""
        variable = f"JOBVISOR_{section}_{key}".upper()
        if environ.get(variable):  # an empty one is not set, as for the family
            return _judged(judge, variable, environ[variable])
        found = _section(sections, section, path).get(key)
        return default if found is None else _judged(judge, f"{path}: [{section}] {key}", found)

    plain = Defaults()
    return Settings(
        url,
        value("database", "durability", "full", _durability),
        value("database", "poll", 1_000, _poll),
        Defaults(
            value("defaults", "queue", plain.queue, check_queue),
            value("defaults", "retries", plain.retries, _retries),
            value("defaults", "timeout", plain.timeout_ms, _duration),
        ),
        value("database", "schema", SCHEMA_NAME, check_schema),
        value("database", "notify", True, check_flag),
    )


def _judged(judge: Callable[[str, Any], Any], place: str, value: Any) -> Any:
    try:
        return judge(place, value)
    except InvalidOption as error:  # the same words, but it is the configuration that is wrong
        raise ConfigError(str(error)) from error


def _durability(place: str, value: Any) -> str:
    if value not in DURABILITIES:
        raise InvalidOption(f"{place}={shown(value)} must be one of {', '.join(DURABILITIES)}")
    return str(value)


def _duration(place: str, value: Any) -> int:
    try:
        return duration_ms(value)
    except InvalidOption as error:
        raise InvalidOption(f"{place}: {error}") from error


def _poll(place: str, value: Any) -> int:
    ms = _duration(place, value)
    if ms == 0:
        raise InvalidOption(f'{place}={shown(value)} must be longer than 0; write "1s"')
    return ms


def _retries(place: str, value: Any) -> int:
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    return check_number(place, number, 0, RETRIES_MAX)
