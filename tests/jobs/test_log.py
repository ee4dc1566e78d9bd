"""The words of the lines, and the handler that never blocks or breaks."""

from __future__ import annotations

import json
import logging
import os
import re
import string
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs import log
from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.context import Nobody
from jobvisor.jobs.errors import ConfigError
from jobvisor.jobs.events import Event, Events
from jobvisor.jobs.execution import Execution
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.log import (
    LINE_MAX,
    LINES,
    TRACE_MAX,
    configure,
    log_event,
    reopen,
    say,
    set_role,
    take_in_others,
)
from jobvisor.jobs.log_context import LogContext
from jobvisor.jobs.registry import Registry


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Puts the logger back as it was."""
    logger = logging.getLogger("jobvisor")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers[:], level, logger.propagate = before
    logger.setLevel(level)
    set_role("")


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        try:
            os.close(fd)
        except OSError:
            continue  # the test closed it


def text_of(reading: int) -> str:
    """All that is in the pipe."""
    os.set_blocking(reading, False)
    parts = []
    try:
        while part := os.read(reading, 1 << 20):
            parts.append(part)
    except BlockingIOError:
        return b"".join(parts).decode()
    return b"".join(parts).decode()


def fill(writing: int) -> None:
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(writing, True)


def test_a_text_line_has_time_level_role_pid_and_message(pipe: tuple[int, int]) -> None:
    configure("info", "text", pipe[1])
    set_role("worker 2")
    say("migrated", version=1)
    wanted = (
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info worker 2 "
        rf"\[{os.getpid()}\] database migrated to schema 1\n"
    )
    assert re.fullmatch(wanted, text_of(pipe[0]))


def test_a_json_line_is_one_object(pipe: tuple[int, int]) -> None:
    configure("info", "json", pipe[1])
    say("migrated", version=1)
    told = json.loads(text_of(pipe[0]))
    assert (told["level"], told["line"], told["fields"]) == ("info", "migrated", {"version": 1})


# -- what an application says


@contextmanager
def bare_root() -> Iterator[logging.Logger]:
    """The root logger as a program has it that configures none."""
    root = logging.getLogger()
    before, root.handlers[:] = root.handlers[:], []  # those of pytest
    try:
        yield root
    finally:
        root.handlers[:] = before


def in_a_job(function: Callable[[], None], **values: Any) -> None:
    registry = Registry()
    registry.task(function, name="app:f")
    job = Claimed(7, "app:f", "[]", "{}", 2, 4, 1, None, 0, 0, None, "mail", 0, **values)
    execution = Execution(registry, clock=SYSTEM, port=Nobody(), worker="worker 3")
    assert execution.run(job).verb == "succeed"


@pytest.mark.parametrize("form", ["text", "json"])
def test_what_a_job_says_to_any_logger_is_told_with_the_job(
    pipe: tuple[int, int], form: str
) -> None:
    configure("info", form, pipe[1])
    with bare_root():
        take_in_others()
        in_a_job(
            lambda: logging.getLogger("app.mail").warning("sent %s", "x"),
            headers='{"trace":"4bf9"}',
        )
    told = text_of(pipe[0])
    fields = {
        "job": 7, "task": "app:f", "queue": "mail", "attempt": 2, "worker": "worker 3",
        "trace": "4bf9",
    }  # fmt: skip
    if form == "json":
        line = json.loads(told)
        assert (line["message"], line["logger"], line["fields"]) == ("sent x", "app.mail", fields)
    else:
        words = " ".join(f"{name}={value}" for name, value in fields.items())
        assert told.endswith(f"app.mail: sent x ({words})\n")


def test_outside_of_a_job_a_line_has_no_fields(pipe: tuple[int, int]) -> None:
    configure("info", "text", pipe[1])
    with bare_root():
        take_in_others()
        logging.getLogger("app").error("no")
        say("degraded", reason="x")
    first, second = text_of(pipe[0]).splitlines()
    assert first.endswith("] app: no")
    assert second.endswith("] degraded: x")


def test_others_go_where_ours_go_also_after_another_configuration(pipe: tuple[int, int]) -> None:
    configure("info", "text", 2)
    with bare_root():
        take_in_others()
        configure("info", "text", pipe[1])
        logging.getLogger("app").error("there")
    assert text_of(pipe[0]).endswith("] app: there\n")


def test_an_application_that_configures_its_logging_keeps_it(pipe: tuple[int, int]) -> None:
    configure("info", "text", pipe[1])
    theirs = logging.NullHandler()
    with bare_root() as root:
        root.addHandler(theirs)
        take_in_others()
        assert root.handlers == [theirs]


def test_a_handler_of_the_application_is_told_the_job_by_the_filter() -> None:
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, logger = Kept(), logging.getLogger("theirs")
    handler.addFilter(LogContext())
    handler.setFormatter(logging.Formatter("%(message)s %(job)s %(worker)s %(trace)s"))
    logger.addHandler(handler)
    try:
        in_a_job(lambda: logger.error("one"), headers='{"trace":"4bf9"}')
        logger.error("two")
        logger.error("three", extra={"job": "mine"})
    finally:
        logger.removeHandler(handler)
    assert lines == ["one 7 worker 3 4bf9", "two None None None", "three mine None None"]


def test_an_unknown_line_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        say("no such line")


def test_a_forgotten_field_shows_as_a_question_mark(pipe: tuple[int, int]) -> None:
    configure("info", "text", pipe[1])
    say("migrated")
    assert text_of(pipe[0]).endswith("schema ?\n")


def test_a_line_below_the_level_is_not_written(pipe: tuple[int, int]) -> None:
    configure("warning", "text", pipe[1])
    say("migrated", version=1)
    say("degraded", reason="x")
    assert text_of(pipe[0]).count("\n") == 1


def test_control_characters_are_shown_and_not_obeyed(pipe: tuple[int, int]) -> None:
    configure("info", "text", pipe[1])
    say("degraded", reason="a\nb\x1b[31m\ud800")
    line = text_of(pipe[0])
    assert r"a\nb\x1b[31m\ud800" in line
    assert line.count("\n") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_controls_beyond_ascii_are_shown_too(pipe: tuple[int, int], form: str) -> None:
    configure("info", form, pipe[1])
    say("degraded", reason="a\x9b31m\x7f\x85\u2028\u2029\u202eb\N{EURO SIGN}")
    line = text_of(pipe[0])
    assert len(line.splitlines()) == 1
    assert not {*line} & {*"\x9b\x7f\x85\u2028\u2029\u202e"}
    assert "\\u2028" in line
    assert "\N{EURO SIGN}" in line
    if form == "json":
        assert json.loads(line)["fields"]["reason"].startswith("a\x9b31m\x7f\x85\u2028")


@pytest.mark.parametrize("form", ["text", "json"])
def test_where_an_error_came_from_stands_with_its_line(pipe: tuple[int, int], form: str) -> None:
    configure("info", form, pipe[1])
    error = ValueError("x" * 2 * TRACE_MAX + "\nthe end")
    say("boot_failed", role="worker 1", error="no", trace=error)
    told = text_of(pipe[0])
    if form == "json":
        assert told.count("\n") == 1
        assert json.loads(told)["traceback"].endswith("the end")
        return
    first, *rest = told.splitlines()
    assert first.endswith("worker 1 cannot start: no")
    assert rest[-1] == "    the end"
    assert len(told) <= TRACE_MAX + 500


def test_a_full_pipe_costs_lines_that_the_next_one_counts(pipe: tuple[int, int]) -> None:
    handler = configure("info", "text", pipe[1])
    fill(pipe[1])
    say("migrated", version=1)
    say("migrated", version=2)
    assert handler.dropped == 2
    text_of(pipe[0])
    say("migrated", version=3)
    lines = text_of(pipe[0]).splitlines()
    assert "2 log lines before this one could not be written" in lines[0]
    assert lines[1].endswith("schema 3")
    assert handler.dropped == 0


def test_a_line_never_blocks_in_a_pipe_whose_own_flags_stay_as_they_were(
    pipe: tuple[int, int],
) -> None:
    # Others may fill it between the question whether it takes a line and the line.
    handler = configure("info", "text", pipe[1])
    assert not os.get_blocking(handler.stream_fd)
    assert os.get_blocking(pipe[1])
    say("migrated", version=1)
    assert text_of(pipe[0]).endswith("schema 1\n")
    handler.close()
    os.fstat(pipe[1])  # it is not ours to close


def test_configuring_again_leaves_no_descriptor_behind(pipe: tuple[int, int]) -> None:
    configure("info", "text", pipe[1])
    before = sorted(os.listdir("/dev/fd"))
    for _ in range(5):
        configure("info", "text", pipe[1])
    assert sorted(os.listdir("/dev/fd")) == before


def test_a_named_pipe_that_nobody_reads_keeps_nobody_waiting(tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="nobody reads that pipe"):
        configure("info", file=str(path))
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    handler = configure("info", file=str(path))
    say("migrated", version=1)
    assert "schema 1" in text_of(reading)
    os.close(reading)
    reopen()
    assert handler.dropped == 1


def test_a_line_that_was_torn_is_ended_before_the_next(pipe: tuple[int, int]) -> None:
    configure("info", "text", pipe[1])
    fill(pipe[1])
    os.read(pipe[0], 8192)  # room for a part of it
    say("degraded", reason="y" * 20_000)
    assert text_of(pipe[0]).endswith("y")
    say("migrated", version=3)
    text = text_of(pipe[0])
    assert text.startswith("\n")
    assert text.endswith("schema 3\n")


def test_a_closed_pipe_and_a_closed_descriptor_are_counted(pipe: tuple[int, int]) -> None:
    handler = configure("info", "text", pipe[1])
    os.close(pipe[0])
    say("migrated", version=1)
    os.close(pipe[1])
    say("migrated", version=2)
    assert handler.dropped == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_is_counted() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    handler = configure("info", "text", fd)
    say("migrated", version=1)
    os.close(fd)
    assert handler.dropped == 1


@pytest.mark.parametrize("format_", ["text", "json"])
def test_a_long_line_is_cut(tmp_path: Path, format_: str) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    configure("info", format_, fd)
    say("degraded", reason="\u00e9" * 100_000)
    os.close(fd)
    line = (tmp_path / "log").read_bytes()
    assert len(line) < LINE_MAX + 100
    assert line.endswith(b"\n")
    if format_ == "json":
        assert json.loads(line)["cut"] is True


def test_configuring_again_replaces_the_handler(pipe: tuple[int, int]) -> None:
    configure("info", "text", pipe[1])
    configure("info", "text", pipe[1])
    say("migrated", version=1)
    assert text_of(pipe[0]).count("\n") == 1


@pytest.mark.parametrize(("level", "format_"), [("loud", "text"), ("info", "xml")])
def test_an_unknown_level_or_format_is_refused(level: str, format_: str) -> None:
    with pytest.raises(ConfigError, match="must be one of"):
        configure(level, format_)


def test_a_retry_is_logged_with_attempt_error_and_delay(pipe: tuple[int, int]) -> None:
    configure("info", "text", pipe[1])
    event = Event("retry", 7, "app:f", "mail", 2, 4, "ValueError: no", 90_000, "error")
    log_event(event)
    line = text_of(pipe[0])
    assert "warning" in line
    assert "job 7 app:f attempt 2/4" in line
    assert "ValueError: no; next attempt in 1m30s" in line


def test_a_success_is_logged_at_debug_only(pipe: tuple[int, int]) -> None:
    for level in ("info", "debug"):
        configure(level, "text", pipe[1])
        say("succeeded", job=7, task="app:f", attempt=1, attempts_max=4)
    assert text_of(pipe[0]).count("succeeded") == 1


def test_a_broken_subscriber_is_worded_by_the_table(pipe: tuple[int, int]) -> None:
    configure("info", "text", pipe[1])
    events = Events()

    def broken(event: Event) -> None:
        raise KeyError(event.job)

    events.subscribe(broken)
    events.emit(Event("succeed", 1, "app:f", "default"))
    assert "raised KeyError" in text_of(pipe[0])


def test_every_template_is_well_formed_and_every_verb_has_a_line() -> None:
    for level, template in LINES.values():
        assert level in log.LEVELS.values()
        assert all(name != "" for _, name, _, _ in string.Formatter().parse(template))
    assert set(log._VERB_LINES.values()) <= set(LINES)
