"""What is heard of a job: in a process of its own, whose streams are replaced."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

from tests.system.harness import ROOT

HEAD = """
import logging, os, sys, threading
from jobvisor.supervisor.ledger.said import Said
from jobvisor.supervisor.autopsy.saying import Saying

said = Said.of_nobody()
ear = Saying()
ear.install()
running = True
ear.hear(lambda: (said, 5, 1) if running else None)
"""
TAIL = """
sys.__stdout__.write("=====" + said.of(5, 1).decode())
sys.__stdout__.flush()
"""


def heard(code: str) -> tuple[str, str, str]:
    """What a job is heard to say, and what came out on standard output and error."""
    found = subprocess.run(
        [sys.executable, "-c", HEAD + textwrap.dedent(code) + TAIL],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    printed, _, kept = found.stdout.partition("=====")
    return kept, printed, found.stderr


def test_what_is_printed_is_heard_and_printed() -> None:
    kept, out, err = heard("""
        print("one", 2)
        print("no end", end="")
        sys.stderr.write("three\\n")
        sys.stdout.buffer.write(b"four\\n")
        sys.stdout.flush()
    """)
    assert kept == "one 2\nno endthree\nfour\n"
    assert out == "one 2\nno endfour\n"
    assert err == "three\n"


def test_what_is_said_before_and_between_jobs_is_nobodys() -> None:
    kept, out, _ = heard("""
        running = False
        print("before")
        logging.error("between")
        running = True
        print("in it")
    """)
    assert kept == "in it\n"
    assert out == "before\nin it\n"


def test_a_record_is_heard_once_whether_or_not_it_is_printed() -> None:
    kept, _, err = heard("""
        logging.getLogger("app").warning("unconfigured %d", 1)  # by the handler of last resort
        logging.getLogger("app").info("not enabled")
        logging.basicConfig(level="INFO", format="%(levelname)s:%(message)s")
        logging.getLogger("app").info("printed")
        logging.getLogger("quiet").propagate = False
        logging.getLogger("quiet").addHandler(logging.NullHandler())
        logging.getLogger("quiet").info("nowhere printed")
        logging.getLogger("jobvisor").propagate = False
        logging.getLogger("jobvisor").addHandler(logging.NullHandler())
        logging.getLogger("jobvisor").error("of the house")
    """)
    assert kept.splitlines() == ["unconfigured 1", "INFO:printed", "INFO quiet: nowhere printed"]
    assert "unconfigured 1\nINFO:printed\n" in err


def test_the_traceback_of_a_record_is_heard_too() -> None:
    kept, _, _ = heard("""
        logger = logging.getLogger("app")
        logger.propagate = False
        logger.addHandler(logging.NullHandler())
        try:
            1 / 0
        except ZeroDivisionError:
            logger.exception("it broke")
        logger.error("bad %d", "arguments")
        logger.error("good")
    """)
    assert kept.startswith("ERROR app: it broke\nTraceback (most recent call last):\n")
    assert kept.endswith("ZeroDivisionError: division by zero\nERROR app: good\n")


def test_a_copy_of_the_process_and_a_closed_ledger_keep_nothing() -> None:
    kept, _, _ = heard("""
        copy = os.fork()
        if copy == 0:
            print("of the copy")
            os._exit(0)
        os.waitpid(copy, 0)
        print("of the original")
        area = said._area
        area.release()
        print("too late")
        said._area = memoryview(bytearray(64))
    """)
    assert "of the copy" not in kept


def test_a_handler_of_a_signal_may_speak_while_its_thread_does() -> None:
    kept, _, _ = heard("""
        import signal
        signal.signal(signal.SIGALRM, lambda *_: ear.write(b"!"))
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0005)
        for _ in range(3000):
            ear.write(b".")
        signal.setitimer(signal.ITIMER_REAL, 0)
    """)
    assert set(kept) <= {".", "!"}
    assert len(kept) > 2900


def test_a_stream_whose_reader_has_left_is_heard_all_the_same() -> None:
    kept, _, _ = heard("""
        read, write = os.pipe()
        os.close(read)
        kept_out = os.dup(1)
        os.dup2(write, 1)
        try:
            print("to nobody")
        except BrokenPipeError:
            print("broken", file=sys.stderr)
        os.dup2(kept_out, 1)
    """)
    assert kept.startswith("to nobody\nbroken\n")  # the stream itself keeps what it could not write


def test_a_program_that_has_no_standard_output_is_heard_on_the_other() -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-c",
            f"{HEAD}\nprint('error', file=sys.stderr)\nos.write(2, said.of(5, 1))",
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        check=True,
        timeout=60,
        preexec_fn=lambda: os.close(1),
    )
    assert found.stderr == b"error\nerror\n"
