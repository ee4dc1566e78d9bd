"""Identity: a process number used again is never taken for the process that had it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from jobvisor.jobs.identity import Identity, boot_id, pid_namespace, start_ticks
from tests.waiting import eventually


def test_this_process_is_alive_and_itself() -> None:
    mine = Identity.mine()
    assert mine == Identity.of(os.getpid())
    assert mine.alive() is True
    assert mine[:3] == (boot_id(), pid_namespace(), os.getpid())


def test_a_process_that_ended_is_dead_also_before_it_is_reaped() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = Identity.of(process.pid)
    assert identity is not None
    assert identity.alive() is True
    process.send_signal(signal.SIGKILL)
    eventually(lambda: start_ticks(process.pid) is None, what="a zombie counts as gone")
    assert identity.alive() is False
    assert Identity.of(process.pid) is None
    process.communicate()
    assert identity.alive() is False


def test_another_process_of_the_same_number_is_not_the_same() -> None:
    mine = Identity.mine()
    assert mine._replace(start_ticks=mine.start_ticks - 1).alive() is False


def test_another_boot_or_namespace_cannot_be_judged_from_here() -> None:
    mine = Identity.mine()
    assert mine._replace(boot_id="another").alive() is None
    assert mine._replace(pid_namespace=mine.pid_namespace + 1).alive() is None


def test_a_name_full_of_brackets_does_not_confuse_the_reading(tmp_path: object) -> None:
    program = os.path.join(str(tmp_path), "a) R 1 (b")
    os.symlink(sys.executable, program)
    process = subprocess.Popen([program, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        ticks = eventually(lambda: start_ticks(process.pid))
        assert ticks is not None
        assert ticks >= (start_ticks(os.getpid()) or 0)
    finally:
        process.kill()
        process.communicate()


def test_there_is_no_process_0_or_beyond_the_largest() -> None:
    assert Identity.of(2**22 + 1) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others need it")
def test_no_process_of_ours_pays_for_psutil_on_linux() -> None:
    code = (
        "import sys, jobvisor.supervisor.parent.parent, jobvisor.supervisor.worker, "
        "jobvisor.supervisor.caretaker.caretaker; print('psutil' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
