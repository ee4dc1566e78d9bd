"""What a database URL means, and how it is shown without its password."""

from __future__ import annotations

import os
import re
from typing import Any, NamedTuple
from urllib.parse import unquote

from jobvisor.jobs.errors import ConfigError, shown

_POSTGRESQL = {"postgresql", "postgres"}
URL_HELP = (
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
        raise ConfigError(f"the database URL {shown(url)} is no text; {URL_HELP}")
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
    raise ConfigError(f"the database URL {known}; {URL_HELP}")


def home_of(url: str, schema: str, prefix: str) -> str:
    """One text for the tables that a database URL and the names in it mean, whoever wrote the URL.

    >>> home_of("sqlite:////srv/../srv/jobs.db", "jobvisor", "")
    'sqlite /srv/jobs.db '
    """
    kind, path = parse_url(url)
    if kind == "sqlite":
        return f"sqlite {os.path.realpath(path)} {prefix}"
    return f"{kind} {path} {schema} {prefix}"


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


def _sqlite_path(rest: str) -> str:
    if not rest.startswith("/"):
        raise ConfigError(
            f"sqlite://{rest} names no file: a relative path comes after three slashes, "
            f"an absolute one after four; {URL_HELP}"
        )
    path = rest[1:]
    if path == ":memory:":
        raise ConfigError(
            "sqlite:///:memory: would be another database for each connection; write memory://"
        )
    if not path or path.endswith("/") or "\0" in path:
        raise ConfigError(f"sqlite://{shown(rest)[1:-1]} names no file; {URL_HELP}")
    if "?" in path:
        raise ConfigError(f"sqlite://{rest}: options after ? are not read; leave them out")
    return path


def absolute_url(url: Any, folder: str) -> str:
    """The URL with an absolute path, so that a later chdir does not change the database.

    >>> absolute_url("sqlite:///jobs.db", "/srv"), absolute_url("memory://", "/srv")
    ('sqlite:////srv/jobs.db', 'memory://')
    """
    target = parse_url(url)
    if target.kind != "sqlite":
        return str(url)
    return f"sqlite:///{os.path.join(folder, target.path)}"
