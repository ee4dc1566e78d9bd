"""Who is let in: by a Bearer token, by a session, from this machine, or by the application around ours."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from jobvisor.jobs.clock import SYSTEM, Clock
from jobvisor.supervisor.config import Web
from jobvisor.supervisor.web.access import By, Caller, Visit
from jobvisor.supervisor.web.problems import Problem
from jobvisor.supervisor.web.sessions import Sessions
from jobvisor.supervisor.web.tries import Tries

__all__ = ["AuthenticatedBy", "Doorkeeper", "path_of"]

AuthenticatedBy = Callable[[HTTPConnection], str | None]
"""The name of whoever the application around ours has let in, None for nobody."""

NAME_MAX = 100  # characters of a name, for the log of actions

_OF_PROXIES = ("forwarded", "x-forwarded-for", "x-real-ip", "via")

_OPEN = frozenset({"/livez", "/readyz", "/sign-in"})
_OPEN_BELOW = "/static/"
_OPEN_TO_ANY_HOST = frozenset({"/livez", "/readyz"})
"""They tell nothing, and a probe calls them by whatever name it has."""


class Doorkeeper:
    """Judges each request by where it comes from and what it shows."""

    def __init__(
        self,
        settings: Web,
        *,
        home: str,
        authenticated_by: AuthenticatedBy | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        """`home` tells one database from another: browsers keep one jar for all ports of a machine."""
        self.settings = settings
        self.authenticated_by = authenticated_by
        self.tries = Tries(clock)
        secret = f"{settings.token}\0{settings.user}\0{settings.password}"
        self.sessions = Sessions(secret if self.has_secret else "", clock)
        suffix = hashlib.sha256(home.encode()).hexdigest()[:8]
        self.session_cookie = f"jobvisor_session_{suffix}"
        self.form_cookie = f"jobvisor_form_{suffix}"
        self._hosts = _hosts(settings)

    @property
    def has_secret(self) -> bool:
        """Whether there is something to sign in with."""
        return bool(self.settings.token or self.settings.password)

    def visit(self, connection: HTTPConnection) -> Visit:
        """Who asks; Problem 400, 401 or 403 for whoever is not to be let in."""
        caller = self._caller(connection)
        if caller is None or caller.by is not By.TOKEN:
            # A browser shows no token by itself, so these are not asked of who shows one.
            self._check_host(connection)
            self._check_origin(connection)
        if caller is None and not _is_open(path_of(connection)):
            raise self._refusal()
        return Visit(caller, self._csrf(connection))

    def is_password(self, user: str, password: str) -> str | None:
        """The name of whoever signs in with these; None where they are wrong. The token does, too."""
        settings = self.settings
        right = _same(user, settings.user) & _same(password, settings.password)
        if right and settings.password:
            return settings.user
        if _same(password, settings.token) and settings.token:
            return "token"
        return None

    # -- who

    def _caller(self, connection: HTTPConnection) -> Caller | None:
        if self.authenticated_by is not None:
            name = self.authenticated_by(connection)
            return None if name is None else Caller(name[:NAME_MAX], By.HOST)
        scheme, _, token = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.settings.token:
            right = _same(token.strip(), self.settings.token)
            return Caller("token", By.TOKEN) if right else None
        if not self.has_secret:
            return Caller("local", By.MACHINE) if _is_of_this_machine(connection) else None
        name = self.sessions.who(connection.cookies.get(self.session_cookie, ""))
        return None if name is None else Caller(name, By.SESSION)

    def _refusal(self) -> Problem:
        if self.authenticated_by is not None:
            return Problem(
                403, "the application around this one has not let you in", error="Access"
            )
        if not self.has_secret:
            return Problem(
                403,
                "this site has neither token nor password and is for its own machine alone; set "
                "[web] token",
                error="Access",
            )
        return Problem(
            401,
            "sign in, or send the header Authorization: Bearer with the token of [web]",
            error="Access",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _csrf(self, connection: HTTPConnection) -> str:
        given = connection.cookies.get(self.form_cookie, "")
        return given if 20 <= len(given) <= 64 and given.isascii() else secrets.token_urlsafe(24)

    # -- from where

    def _check_host(self, connection: HTTPConnection) -> None:
        """A name that somebody else's DNS gives to this address is none of ours (DNS rebinding)."""
        if self.authenticated_by is not None or path_of(connection) in _OPEN_TO_ANY_HOST:
            return
        host = _host_of(connection.headers.get("host", ""))
        if not host or not (_address(host) or host in self._hosts or host.endswith(".localhost")):
            raise Problem(
                403 if host else 400,
                "the site is not called by this name; add the address you use to [web] origins",
                error="Host",
                headers={"Connection": "close"},
            )

    def _check_origin(self, connection: HTTPConnection) -> None:
        """A page of another site may not ask, unless `origins` has it."""
        origin = connection.headers.get("origin")
        if origin is None or self.is_foreign_friend(origin):
            return
        host = connection.headers.get("host", "").lower()
        if not host or origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise Problem(
                403,
                "a page of another site asks; add its origin to [web] origins if it may",
                error="Origin",
            )

    def is_foreign_friend(self, origin: str) -> bool:
        """Whether `origins` names this one."""
        return origin in self.settings.origins


def path_of(connection: HTTPConnection) -> str:
    """The path below the place where the application is mounted."""
    path: str = connection.scope["path"]
    root: str = connection.scope.get("root_path", "")
    return path.removeprefix(root) if root else path


def _is_open(path: str) -> bool:
    return path in _OPEN or path.startswith(_OPEN_BELOW)


def _same(given: str, wanted: str) -> bool:
    """In a time that tells nothing of either, its length included."""
    one, other = (
        hashlib.sha256(text.encode(errors="replace")).digest() for text in (given, wanted)
    )
    return hmac.compare_digest(one, other)


def _is_of_this_machine(connection: HTTPConnection) -> bool:
    """By a loopback address, unless a proxy of this machine passes on what others ask."""
    if any(name in connection.headers for name in _OF_PROXIES):
        return False
    address = _address(connection.client.host) if connection.client else None
    return address is not None and _is_loopback(address)


def _is_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _host_of(header: str) -> str:
    """The name in a Host header, "" where it holds none.

    >>> _host_of("[::1]:8321"), _host_of("Example.com:80"), _host_of("a@b")
    ('::1', 'example.com', '')
    """
    try:
        found = urlsplit(f"//{header}")
        ordinary = found.netloc == header and not found.username and "@" not in header
        _ = found.port
    except ValueError:
        return ""
    return (found.hostname or "") if ordinary else ""


def _hosts(settings: Web) -> frozenset[str]:
    """The names by which the site may be called, besides plain addresses, which no DNS can give away."""
    named = {_host_of(urlsplit(origin).netloc) for origin in settings.origins}
    own = {"localhost", settings.host.lower(), socket.gethostname().lower()}
    return frozenset({*named, *own} - {""})
