"""Where a client finds its database: argument, JOBVISOR_DATABASE_URL, else ./config.toml.

The only other reader of the environment and of config.toml; supervisor/config.py reads all of it
and judges every key, this reads what an application needs.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jobs.errors import ConfigError, InvalidOption, shown
from jobs.task import RETRIES_MAX, Defaults, check_number, check_queue
from jobs.units import duration_ms

URL_VARIABLE = "JOBVISOR_DATABASE_URL"
FILE_NAME = "config.toml"
DEFAULT_URL = "sqlite:///jobs.db"
_FAMILY_SECTIONS = {"database", "tasks", "supervisor", "workers", "defaults"}
DURABILITIES = ("full", "normal")
_URL_HELP = "write sqlite:///jobs.db, sqlite:////absolute/jobs.db or memory://"


class Target(NamedTuple):
    """What a URL points at."""

    kind: str
    """sqlite or memory."""
    path: str
    """The file, "" for memory."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client needs to know."""

    url: str
    """With an absolute path, so that a later chdir does not change the database."""
    durability: str = "full"
    """full: an acknowledged enqueue survives a power cut; normal: it survives a crash."""
    poll_ms: int = 1_000
    defaults: Defaults = field(default_factory=Defaults)


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
    >>> parse_url("memory://")
    Target(kind='memory', path='')
    """
    if not isinstance(url, str):
        raise ConfigError(f"the database URL {shown(url)} is no text; {_URL_HELP}")
    scheme, mark, rest = url.partition("://")
    if scheme in {"postgresql", "postgres"} and mark:
        raise ConfigError(f"{scheme}:// is not in this release; {_URL_HELP}")
    if scheme == "memory" and mark and not rest:
        return Target("memory", "")
    if scheme == "sqlite" and mark:
        return Target("sqlite", _sqlite_path(rest))
    # Not the URL itself: what is wrong with it may be just where the password stands.
    known = f"the scheme {shown(scheme, 20)}" if mark else "a text without a scheme"
    raise ConfigError(f"the database URL has {known}, which is none of ours; {_URL_HELP}")


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
    if target.kind == "memory":
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
