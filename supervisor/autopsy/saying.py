"""What a job says: the end of what it logs and prints in its own process, kept in its lane's area.

So it survives the kill of its process. Heard is what goes through `sys.stdout`, `sys.stderr` and `logging`;
not what a program says that it started, nor what native code writes to descriptor 1.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from jobvisor.supervisor.ledger.said import Said

_FAILED = frozenset({"retry", "fail", "cancel"})
KEPT: dict[str, frozenset[str]] = {
    "failed": _FAILED, "all": _FAILED | {"succeed"}, "none": frozenset(),
}  # fmt: skip
"""By `[log] keep` the outcomes with which it is kept what a job said."""

Speaker = tuple[Said, int, int]
"""The area of the job that speaks, its id and its claim."""


class Saying:
    """The ear of one process. Before `hear` is called, and in a copy of the process, it is deaf."""

    def __init__(self) -> None:
        self._pid = 0
        self._speaker: Callable[[], Speaker | None] = lambda: None
        self._streams: list[io.TextIOWrapper] = []
        self._before: list[Any] = []  # to drop them would flush them at some moment

    def install(self) -> None:
        """Put streams in the place of standard output and error, and be told of log records.

        Before the user's modules are imported, which may keep what they find there.
        """
        for name, descriptor in (("stdout", 1), ("stderr", 2)):
            before = getattr(sys, name)
            with suppress(OSError, ValueError, AttributeError):
                before.flush()
                self._before.append(before)
                setattr(sys, name, self._stream(descriptor))
        factory = logging.getLogRecordFactory()

        def made(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = factory(*args, **kwargs)
            self._log(record)
            return record

        # Neither a handler nor a filter: with a handler on the root logger `basicConfig` does nothing,
        # and warnings of who has configured none are not printed any more.
        logging.setLogRecordFactory(made)

    def _stream(self, descriptor: int) -> io.TextIOWrapper:
        raw = io.FileIO(descriptor, "w", closefd=False)
        stream = io.TextIOWrapper(
            _Heard(raw, self), encoding="utf-8", errors="backslashreplace", line_buffering=True,
            write_through=True,
        )  # fmt: skip
        self._streams.append(stream)
        return stream

    def hear(self, speaker: Callable[[], Speaker | None]) -> None:
        """From now on: `speaker` tells whose the words are that this thread says, None where no job's."""
        self._pid = os.getpid()
        self._speaker = speaker

    def write(self, data: bytes | memoryview) -> None:
        """Keep it, if a job says it."""
        speaker = self._speaker()
        if speaker is None or os.getpid() != self._pid:
            return
        said, job, claim = speaker
        with suppress(ValueError):  # the ledger was closed: this life ends
            said.write(job, claim, data)

    def _log(self, record: logging.LogRecord) -> None:
        if self._speaker() is None or record.name == "jobvisor" or self._is_printed(record):
            return
        with suppress(Exception):  # arguments that do not fit the message, and a user's __str__
            self.write(_line(record).encode(errors="backslashreplace"))

    def _is_printed(self, record: logging.LogRecord) -> bool:
        """Whether a handler will print it into a stream of ours, where it is heard anyway."""
        logger: logging.Logger | None = logging.getLogger(record.name)
        handlers: list[logging.Handler] = []
        while logger is not None:
            handlers += logger.handlers
            logger = logger.parent if logger.propagate else None
        if not handlers and logging.lastResort is not None:
            handlers = [logging.lastResort]
        return any(
            getattr(handler, "stream", None) is stream and record.levelno >= handler.level
            for handler in handlers
            for stream in self._streams
        )


class _Heard(io.BufferedWriter):
    """The buffer of a stream: what is written goes to the ear first, since the writing may wait or fail."""

    def __init__(self, raw: io.RawIOBase, ear: Saying) -> None:
        super().__init__(raw)
        self._ear = ear

    def write(self, data: Any, /) -> int:
        self._ear.write(data if type(data) is bytes else memoryview(data).cast("B"))
        return super().write(data)


def _line(record: logging.LogRecord) -> str:
    text = f"{record.levelname} {record.name}: {record.getMessage()}\n"
    if record.exc_info and record.exc_info[0] is not None:
        text += f"{_FORMATTER.formatException(record.exc_info)}\n"
    return text


_FORMATTER = logging.Formatter()
