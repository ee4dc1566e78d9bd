"""The area that keeps the end of what a job says."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from jobvisor.supervisor.ledger.layout import LANE
from jobvisor.supervisor.ledger.said import Said, unrolled

SIZE = 16


def area() -> Said:
    words = memoryview(bytearray(LANE.size)).cast("q")
    return Said(words, memoryview(bytearray(SIZE)))


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_the_last_bytes_are_kept_however_they_were_written(pieces: list[bytes]) -> None:
    said = area()
    for piece in pieces:
        said.write(5, 1, piece)
    whole = b"".join(pieces)
    expected = whole if len(whole) <= SIZE else whole[-SIZE:].lstrip(bytes(range(0x80, 0xC0)))
    assert said.of(5, 1) == expected


def test_what_is_kept_begins_with_a_whole_character() -> None:
    said = area()
    said.write(5, 1, ("x" + "ü" * 20).encode())
    assert said.of(5, 1).decode() == "ü" * (SIZE // 2)
    said.write(5, 1, b"y")
    assert said.of(5, 1).decode() == "ü" * (SIZE // 2 - 1) + "y"


def test_an_area_belongs_to_the_run_that_wrote_to_it_last() -> None:
    said = area()
    said.write(5, 1, b"first")
    assert said.of(6, 1) == b""
    said.write(5, 2, b"again")
    assert (said.of(5, 1), said.of(5, 2)) == (b"", b"again")
    said.write(6, 2, b"other")
    assert (said.of(5, 2), said.of(6, 2)) == (b"", b"other")


def test_nothing_was_said_into_an_empty_area() -> None:
    assert area().of(5, 1) == b""
    assert unrolled(b"garbage", -3) == b""


def test_threads_that_speak_at_once_lose_nothing_of_each_other() -> None:
    said = Said.of_nobody()

    def speak(word: bytes) -> None:
        for _ in range(200):
            said.write(5, 1, word)

    threads = [threading.Thread(target=speak, args=(word,)) for word in (b"<a>", b"<b>", b"<c>")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = said.of(5, 1)
    assert [found.count(word) for word in (b"<a>", b"<b>", b"<c>")] == [200, 200, 200]
