"""Names of servers are looked up with a beat, a limit, and what psycopg needs of them."""

from __future__ import annotations

import threading
from typing import Any

import psycopg
import pytest

from jobvisor.jobs.store.addresses import resolved, system
from jobvisor.jobs.store.connection import PatientConnection
from tests.postgres import shared

KNOWN = {"a": ["10.0.0.1", "fe80::1"], "b": ["10.0.0.2"], "10.0.0.9": ["10.0.0.9"]}


def known(name: str, _port: str) -> list[str]:
    if name not in KNOWN:
        raise OSError(f"{name} is unknown")
    return KNOWN[name]


def at_ease() -> None:
    """Nobody waits."""


RESOLVED: dict[str, tuple[dict[str, Any], tuple[str, str, str | None]]] = {
    "one name": ({"host": "b"}, ("b", "10.0.0.2", None)),
    "a name with two addresses": (
        {"host": "a", "port": 7},
        ("a,a", "10.0.0.1,fe80::1", "7,7"),
    ),
    "two names with a port each": (
        {"host": "a,b", "port": "1,2"},
        ("a,a,b", "10.0.0.1,fe80::1,10.0.0.2", "1,1,2"),
    ),
    "a name and an address": (
        {"host": "b,10.0.0.9", "port": "5"},
        ("b,10.0.0.9", "10.0.0.2,10.0.0.9", "5,5"),
    ),
    "one of two unknown": ({"host": "x,b", "port": "1,2"}, ("b", "10.0.0.2", "2")),
}


@pytest.mark.parametrize(("given", "told"), RESOLVED.values(), ids=RESOLVED.keys())
def test_each_name_has_the_addresses_it_stands_for(
    given: dict[str, Any], told: tuple[str, str, str | None]
) -> None:
    found = resolved({**given, "dbname": "d"}, at_ease, known)
    assert (found["host"], found["hostaddr"], found["port"]) == told
    assert found["dbname"] == "d"


@pytest.mark.parametrize(
    "given",
    [{}, {"host": "/run/socket"}, {"host": "10.0.0.1"}, {"host": "::1"}, {"host": "a,/run"},
     {"host": "a", "hostaddr": "1.2.3.4"}],
)  # fmt: skip
def test_what_needs_no_looking_up_is_left_as_it_is(given: dict[str, Any]) -> None:
    assert resolved(given, at_ease, lambda *_: pytest.fail("it was looked up")) == given


def test_a_name_that_nobody_knows_cannot_be_reached() -> None:
    with pytest.raises(psycopg.OperationalError, match="failed to resolve host 'x': x is unknown"):
        resolved({"host": "x"}, at_ease, known)


def test_the_beat_goes_on_while_the_resolver_is_silent() -> None:
    answer = threading.Event()
    beats: list[None] = []

    def beat() -> None:
        beats.append(None)
        if len(beats) == 3:
            answer.set()

    def slow(name: str, port: str) -> list[str]:
        answer.wait(30)
        return known(name, port)

    assert resolved({"host": "b"}, beat, slow)["hostaddr"] == "10.0.0.2"
    assert len(beats) >= 3


def test_a_server_is_reached_by_its_name() -> None:
    assert {"127.0.0.1", "::1"} >= set(system("localhost", "1"))
    given = psycopg.conninfo.conninfo_to_dict(shared().url())
    if given.get("host") != "127.0.0.1":
        pytest.skip("a server elsewhere has another name")
    found = resolved({**given, "host": "localhost"}, at_ease)
    with PatientConnection.connect(**found) as connection:
        assert connection.info.host == "localhost"
