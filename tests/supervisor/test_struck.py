"""Whose thread a fatal signal has struck, as faulthandler tells it in a file of the life."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobvisor.supervisor.autopsy.struck import forget, lane_in, struck_lane

DIES = """
import ctypes, sys, threading
from jobvisor.supervisor.autopsy.autopsy import StackWriter
StackWriter(sys.argv[1], 7, "worker 1", answered=lambda: None).listen(all_threads=True)

def within():
    ctypes.string_at(0)

def lane_17():
    within()

def lane_18():
    threading.Event().wait()

threading.Thread(target=lane_18, daemon=True).start()
target = lane_17 if sys.argv[2] == "lane" else within
thread = threading.Thread(target=target)
thread.start()
thread.join()
"""


@pytest.mark.parametrize(("whose", "lane"), [("lane", 17), ("own", None)])
def test_the_lane_that_was_struck_is_found_and_no_other(
    tmp_path: Path, whose: str, lane: int | None
) -> None:
    command = [sys.executable, "-c", DIES, str(tmp_path), whose]
    assert subprocess.run(command, check=False).returncode == -11
    assert struck_lane(str(tmp_path), 7) == lane
    forget(str(tmp_path), 7)
    assert struck_lane(str(tmp_path), 7) is None


def test_what_was_written_without_a_fatal_error_tells_of_none() -> None:
    assert (
        lane_in('Current thread 0x1 (most recent call first):\n  File "a", line 1 in lane_3')
        is None
    )
