"""The addresses behind the names of servers, looked up while the caller's beat goes on.

The system's resolver cannot be interrupted and may take half a minute where a name server is away: who
stands still for so long is taken for stuck.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import psycopg

LOOK_UP_SECONDS = 10.0  # for all names of a URL
BEAT_SECONDS = 0.1
PORT = "5432"

LookUp = Callable[[str, str], list[str]]
"""The addresses of a name for a port, as text; raises OSError."""


def system(name: str, port: str) -> list[str]:
    """What the system's resolver says."""
    found = socket.getaddrinfo(name, port, proto=socket.IPPROTO_TCP, type=socket.SOCK_STREAM)
    return [str(place[4][0]) for place in found]


def resolved(
    parameters: Mapping[str, Any], beat: Callable[[], None], look_up: LookUp = system
) -> dict[str, Any]:
    """The same connection parameters with an address for each name; `host` stays, for TLS.

    Raises psycopg.OperationalError where no name has one, or none in time. Sockets in the file system
    and addresses that are given are left as they are.
    """
    names = str(parameters.get("host") or "").split(",")
    if parameters.get("hostaddr") or all(map(_is_address, names)) or not all(map(_is_name, names)):
        return dict(parameters)
    ports = str(parameters.get("port") or "").split(",")
    if len(ports) == 1:
        ports *= len(names)
    if len(ports) != len(names):
        return dict(parameters)  # libpq says what is wrong with it
    found: list[tuple[str, str, str]] = []
    failed: list[OSError] = []

    def ask() -> None:
        for name, port in zip(names, ports, strict=True):
            try:
                found.extend((name, at, port) for at in look_up(name, port or PORT))
            except OSError as error:
                failed.append(error)

    _meanwhile(ask, beat, what=",".join(names))
    if not found:
        raise psycopg.OperationalError(f"failed to resolve host {','.join(names)!r}: {failed[0]}")
    hosts, addresses, places = (",".join(column) for column in zip(*found, strict=True))
    return {**parameters, "host": hosts, "hostaddr": addresses, "port": places.strip(",") or None}


def _meanwhile(ask: Callable[[], None], beat: Callable[[], None], *, what: str) -> None:
    thread = threading.Thread(target=ask, name="addresses", daemon=True)
    thread.start()
    for _ in range(int(LOOK_UP_SECONDS / BEAT_SECONDS)):
        thread.join(BEAT_SECONDS)
        if not thread.is_alive():
            return
        beat()
    raise psycopg.OperationalError(
        f"failed to resolve host {what!r}: no answer for {LOOK_UP_SECONDS:.0f} s"
    )


def _is_name(name: str) -> bool:
    return bool(name) and not name.startswith(("/", "@"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
