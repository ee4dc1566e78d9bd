"""A channel carries messages whole and in order, however they come in pieces."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from jobvisor.supervisor.clerk.channel import Channel, ClosedError


def never(_descriptor: int, _events: int) -> None:
    raise AssertionError("nobody has to wait")


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = Channel.pair()
    yield one, other
    one.close()
    other.close()


def test_messages_come_in_the_order_they_were_sent(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    for message in ("a", ("b", {"c": [1, None]}), b"\0" * 1000):
        one.send(message, never)
    assert [other.receive() for _ in range(4)] == ["a", ("b", {"c": [1, None]}), b"\0" * 1000, None]


def test_a_message_larger_than_the_socket_keeps_goes_while_the_other_end_reads(
    ends: tuple[Channel, Channel],
) -> None:
    one, other = ends
    large = bytes(5_000_000)
    got: list[Any] = []
    # Each wait of the sender is a turn of the reader.
    one.send(large, lambda *_: got.append(other.receive()))
    while got[-1] is None:
        got.append(other.receive())
    assert got[:-1] == [None] * (len(got) - 1)
    assert got[-1] == large


def test_an_end_that_is_gone_is_told_to_who_reads_and_to_who_writes(
    ends: tuple[Channel, Channel],
) -> None:
    one, other = ends
    one.send("last words", never)
    one.close()
    assert other.receive() == "last words"
    with pytest.raises(ClosedError):
        other.receive()
    with pytest.raises(ClosedError):
        other.send("into the void", never)


def test_half_a_message_is_none() -> None:
    raw, end = socket.socketpair()
    channel = Channel(end)
    raw.send(bytes([9, 0, 0, 0]))
    assert channel.receive() is None
    raw.send(bytes(4) + b"12345")
    assert channel.receive() is None
    raw.close()
    with pytest.raises(ClosedError):
        channel.receive()
    channel.close()


def test_what_cannot_be_a_length_is_refused_before_memory_is_taken_for_it() -> None:
    raw, end = socket.socketpair()
    channel = Channel(end)
    raw.send(b"\xff" * 8)
    with pytest.raises(ClosedError, match="cannot be"):
        channel.receive()
    raw.close()
    channel.close()
