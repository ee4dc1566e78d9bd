"""What a client needs to know, found by one rule: argument, environment twin, file, default.

The rule holds for each value by itself: a database named by an argument or a variable does not hide
the rest of the file. The file is the one JOBVISOR_CONFIG names, else ./config.toml. Where a database
is named, a ./config.toml that cannot be read stops nobody: it may be another program's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.keys import SCHEMA_NAME, TABLES
from jobvisor.jobs.log import say
from jobvisor.jobs.nearest import nearest
from jobvisor.jobs.source import (
    CONFIG_VARIABLE,
    FILE_NAME,
    Source,
    check_variables,
    client_variables,
    file_source,
)
from jobvisor.jobs.task import Defaults
from jobvisor.jobs.url import URL_HELP, absolute_url

URL_VARIABLE = "JOBVISOR_DATABASE_URL"
_ONLY_OURS = frozenset({"supervisor", "workers"})  # tables that other programs' files do not have


@dataclass(frozen=True, slots=True)
class Email:
    """`[email]`: the SMTP server of the built-in task `email`."""

    host: str
    port: int
    security: str
    username: str
    password: str = field(repr=False)
    sender: str
    """Its key is `from`."""
    timeout_ms: int

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Email:
        """Of the keys of the table."""
        renamed = {"from": "sender", "timeout": "timeout_ms"}
        return cls(**{renamed.get(key, key): value for key, value in values.items()})


@dataclass(frozen=True, slots=True)
class Settings:
    """What a client needs to know."""

    url: str
    """With an absolute path, so that a later chdir does not change the database; it may hold a
    password, so show it by `shown_url`."""
    durability: str = "full"
    """full: an acknowledged enqueue survives a power cut; normal: it survives a crash."""
    defaults: Defaults = field(default_factory=Defaults)
    schema: str = SCHEMA_NAME
    """The PostgreSQL schema of the tables; SQLite has none."""
    notify: bool = True
    """Wake workers by PostgreSQL's NOTIFY; SQLite has other means."""
    codec: str = ""
    """The place of a codec, "module:name"; "" for none."""
    path: str = "."
    """A folder where the codec's module may be found: `[tasks] path`."""
    hold: bool = True
    """Whether a connection stays open between two calls."""
    prefix: str = ""
    """What the names of all our tables begin with."""
    email: Email | None = None
    """Of a family; a program that runs jobs without one finds it when it is asked for."""


class _Process:
    settings: Settings | None = None


def use_settings(settings: Settings | None) -> Callable[[], None]:
    """Let every later `Client()` of this process have these; call the answer to undo it.

    A worker calls it before it imports the user's modules, so that a task's `Client()` means the
    family's database and all that is said of it, also where no file and no variable says it.
    """
    before, _Process.settings = _Process.settings, settings

    def undo() -> None:
        _Process.settings = before

    return undo


def find(url: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings for this URL, or for the one that environment or file names.

    A file of our format is judged where a client reads it: `[database]`, `[defaults]`,
    `[tasks] path`. A ./config.toml that is plainly another program's is left alone. One with a
    mistake in it that may be another program's is passed over with a warning where argument or
    variable name the database; one that is plainly ours, or names a codec, is refused also then,
    because its codec and durability are meant for this client.
    """
    folder = os.getcwd()
    if _Process.settings is not None:
        known = _Process.settings
        return known if url is None else replace(known, url=absolute_url(url, folder))
    named = absolute_url(url, folder) if url is not None else None
    try:
        return _found(_source(environ, folder), named)
    except ConfigError as error:
        told = named or environ.get(URL_VARIABLE)
        if not told or environ.get(CONFIG_VARIABLE) or _is_surely_ours(folder, environ):
            raise
        # Where a variable was the mistake, this raises as well.
        settings = _found(_nothing(environ, folder), named)
        _say_passed_over(folder, str(error))
        return settings


def find_email(environ: Mapping[str, str] = os.environ) -> Email:
    """The `[email]` of the family in a worker, else of the file and the variables that count here.

    It is judged when a mail is to be sent: a mistake in it stops no client.
    """
    if _Process.settings is not None and _Process.settings.email is not None:
        return _Process.settings.email
    return Email.of(_source(environ, os.getcwd()).one("email"))


@lru_cache(maxsize=16)
def _say_passed_over(folder: str, error: str) -> None:
    """Once for each mistake, because a program may make a client for each request."""
    say("config_passed_over", folder=folder, error=error)


def _found(source: Source, named: str | None) -> Settings:
    told = named or source.environ.get(URL_VARIABLE) or source.environ.get(CONFIG_VARIABLE)
    if not told and not source.mapping:
        raise ConfigError(
            f"no database is named: give Client(url), set {URL_VARIABLE}, "
            f"or write [database] url into {source.name}; {URL_HELP}"
        )
    return _settings(source, named)


def _settings(source: Source, url: str | None) -> Settings:
    check_variables(source.environ, client_variables(source.environ))
    if url is not None:  # the file's and the environment's are not asked, so they are not judged
        source = replace(source, environ={**source.environ, URL_VARIABLE: url})
    database, defaults = source.one("database"), source.one("defaults")
    return Settings(
        database["url"],
        database["durability"],
        Defaults(defaults["queue"], defaults["retries"], defaults["timeout"]),
        database["schema"],
        database["notify"],
        database["codec"],
        source.one("tasks")["path"],
        prefix=database["prefix"],
    )


def file_here(environ: Mapping[str, str] = os.environ) -> str | None:
    """The file that counts for who names none: of the variable, else ./config.toml if it is ours."""
    if environ.get(CONFIG_VARIABLE):
        return environ[CONFIG_VARIABLE]
    here = os.path.lexists(FILE_NAME) and _is_ours(file_source(FILE_NAME, environ))
    return FILE_NAME if here else None


def _source(environ: Mapping[str, str], folder: str) -> Source:
    """The file that counts here; an empty one where there is none."""
    path = file_here(environ)
    if path is None:
        return _nothing(environ, folder)
    return file_source(os.path.join(folder, path), environ)


def _nothing(environ: Mapping[str, str], folder: str) -> Source:
    return Source(os.path.join(folder, FILE_NAME), {}, folder, environ)


def _is_surely_ours(folder: str, environ: Mapping[str, str]) -> bool:
    """Whether ./config.toml has a table or a key that only jobvisor has."""
    try:
        found = file_source(os.path.join(folder, FILE_NAME), environ).mapping
    except ConfigError:
        return False  # nobody can tell
    database = found.get("database")
    names_codec = isinstance(database, Mapping) and "codec" in database
    return names_codec or not _ONLY_OURS.isdisjoint(found)


def _is_ours(source: Source) -> bool:
    """Whether a ./config.toml that nobody named is one of jobvisor: other programs have one too.

    It is one where all its tables are ours, or one that only we have. Of a misspelt table a
    ConfigError says what was meant.
    """
    names = {table.name for table in TABLES}
    found = set(source.mapping)
    for name in sorted(found - names):
        if found & names and (close := nearest(name, names, 0.8)):
            raise ConfigError(f'{source.name}: [{name}] is no section; did you mean "{close}"?')
    return found <= names or not _ONLY_OURS.isdisjoint(found)


def environment(settings: Settings, path: str | None) -> dict[str, str]:
    """The variables by which a program that a task starts finds the same database.

    With a file its name is enough, and no password is written into anybody's environment. Where the
    family was made by code, there are only variables.
    """
    if path is not None:
        # A relative path in a variable starts where the program runs; this one may run elsewhere.
        absolute = {URL_VARIABLE: settings.url, "JOBVISOR_TASKS_PATH": settings.path}
        set_ones = {name: value for name, value in absolute.items() if os.environ.get(name)}
        return {CONFIG_VARIABLE: path, **set_ones}
    defaults = settings.defaults
    values: dict[str, Any] = {
        "DATABASE_URL": settings.url,
        "DATABASE_SCHEMA": settings.schema,
        "DATABASE_PREFIX": settings.prefix,
        "DATABASE_DURABILITY": settings.durability,
        "DATABASE_NOTIFY": str(settings.notify).lower(),
        "DATABASE_CODEC": settings.codec,
        "DEFAULTS_QUEUE": defaults.queue,
        "DEFAULTS_RETRIES": defaults.retries,
        "DEFAULTS_TIMEOUT": f"{defaults.timeout_ms}ms",
        "TASKS_PATH": os.path.abspath(settings.path),
    }
    return {f"JOBVISOR_{name}": str(value) for name, value in values.items()}
