"""The words of every log line, in one place, and the handler that never blocks or breaks a process.

`say("started", pid=1)` logs the line of that name under the logger "jobvisor". A log is a courtesy:
a full disk or a reader that stopped reading costs lines, which are counted, and nothing else.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import select
import stat
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from jobvisor.jobs.clock import iso, to_datetime
from jobvisor.jobs.errors import ConfigError, shown
from jobvisor.jobs.events import Event
from jobvisor.jobs.log_context import LogContext, fields_of
from jobvisor.jobs.outcome import VERB_NAMES
from jobvisor.jobs.units import duration_text

LINE_MAX = 32 * 1024  # bytes; longer lines are cut
TRACE_MAX = 16 * 1024  # characters of a traceback

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS: Final = ("text", "json")

LINES: dict[str, tuple[int, str]] = {
    # jobs
    "enqueued": (logging.DEBUG, "job {job} {task} enqueued into {queue}"),
    "succeeded": (logging.DEBUG, "job {job} {task} succeeded, attempt {attempt}/{attempts_max}"),
    "retried": (
        logging.WARNING,
        (
            "job {job} {task} attempt {attempt}/{attempts_max} ended ({kind}): {error}; "
            "next attempt in {delay}"
        ),
    ),
    "snoozed": (logging.INFO, "job {job} {task} snoozed for {delay}"),
    "failed": (
        logging.WARNING,
        (
            "job {job} {task} attempt {attempt}/{attempts_max} failed ({kind}): {error}; "
            "no further attempt"
        ),
    ),
    "released": (logging.DEBUG, "job {job} {task} released"),
    "rescued": (logging.WARNING, "job {job} {task} rescued from a dead worker ({kind}): {error}"),
    "cancelled": (logging.INFO, "job {job} {task} cancelled"),
    "requeued": (logging.INFO, "job {job} {task} requeued"),
    "rescheduled": (logging.INFO, "job {job} {task} rescheduled, now {kind}"),
    "unknown_task": (
        logging.WARNING,
        (
            "job {job} names the task {task!r}, which no module of [tasks] modules defines; "
            "it is looked at again in {delay}"
        ),
    ),
    "lost_claim": (
        logging.WARNING,
        "job {job}: its outcome ({verb}, of claim {claim}) came too late, another worker has the job",
    ),
    "rejected": (
        logging.ERROR,
        "job {job}: the database refuses its outcome ({error}); it is kept in {path}",
    ),
    "thread_refused": (
        logging.WARNING,
        "no further thread can be made beside {count}: {error}; what waits for one runs later",
    ),
    "loop_blocked": (
        logging.WARNING,
        "job {job} ({task}) has kept the event loop waiting for {seconds} s; a def task may wait",
    ),
    "stop_hook_failed": (logging.ERROR, "the @on_stop hook {hook} failed: {error}"),
    "stop_hooks_late": (
        logging.ERROR,
        "the @on_stop hooks have not ended in {timeout}: the worker leaves without them",
    ),
    "callback_broken": (logging.ERROR, "a callback on the event loop has raised: {error}"),
    "claims_in_vain": (
        logging.WARNING,
        (
            "{count} claims in a row changed nothing though there are jobs to claim: a trigger or a "
            "rule of this database may skip the change; trying on, more slowly"
        ),
    ),
    "row_refused": (
        logging.ERROR,
        "job {job} stays as it is, the database refuses every change of it: {error}",
    ),
    "action_not_noted": (
        logging.WARNING,
        "{who} has done: {verb} {what}; it is not in the log of actions: {error}",
    ),
    "local_call_broken": (
        logging.ERROR,
        "a policy, a callback or a handler of a LocalQueue raised {error}; its thread goes on",
    ),
    "failure_handler_broken": (
        logging.ERROR,
        "the on_failure handler of a LocalQueue raised {error}; its call had failed for good",
    ),
    "subscriber_broken": (
        logging.ERROR,
        "the event subscriber {subscriber} raised {error}; further errors of it are not logged",
    ),
    "log_dropped": (logging.WARNING, "{count} log lines before this one could not be written"),
    # the family
    "started": (logging.INFO, "family {family} started: {workers} workers on {database}"),
    "ready": (logging.INFO, "ready"),
    "drained": (logging.INFO, "drained; left behind: {left}"),
    "draining": (logging.INFO, "stopping: running jobs have {timeout} to finish"),
    "killing": (logging.WARNING, "stopping now: {count} children are killed"),
    "stopped": (logging.INFO, "family {family} stopped, exit code {code}"),
    "reloading": (logging.INFO, "reloading {path}"),
    "reloaded": (
        logging.INFO,
        "reloaded: the new workers are there, and {count} old ones finish their jobs beside them",
    ),
    "reload_refused": (logging.ERROR, "reload refused, the old configuration stays: {error}"),
    "scaled": (
        logging.INFO,
        "pool {pool} is to have {count} workers ({least} to {most}): {reason}",
    ),
    "quarantined": (
        logging.WARNING,
        "{name} is added to pool {pool}: a job that may have ended its process waits for {delay}",
    ),
    "emptied": (logging.INFO, "leaving: no job waits that may have ended its process"),
    "scale_refused": (logging.WARNING, "scale refused, the workers stay as they are: {error}"),
    "orphaned": (logging.WARNING, "the parent is gone; finishing what runs, then leaving"),
    "outcome_lost": (
        logging.ERROR,
        (
            "job {job} has ended, but for {delay} its outcome could not be stored, and the parent is "
            "gone: the job is given back and will run again"
        ),
    ),
    # children
    "child_started": (logging.DEBUG, "{role} started as pid {pid}"),
    "child_ended": (logging.INFO, "{role} pid {pid} ended: {cause}"),
    "child_died": (logging.ERROR, "{role} pid {pid} died: {cause}; running: {job}"),
    "leaving_later": (
        logging.INFO,
        "{role} pid {pid} is to leave and finishes job {job} first, for {timeout} at most",
    ),
    "child_backoff": (logging.WARNING, "{role} keeps dying; next start in {delay}"),
    "child_verdict": (logging.WARNING, "{role} pid {pid} is killed: {reason}; running: {job}"),
    "notice": (
        logging.WARNING,
        "{role} starts nothing more: {reason} of job {job}; {count} others may end before it is killed",
    ),
    "lanes_short": (
        logging.WARNING,
        "{name} gets {count} lanes and not {wanted}: no more are free side by side",
    ),
    "scheduler_short": (
        logging.WARNING,
        "no slot is free for the scheduler: this family enqueues nothing by schedules until one is",
    ),
    "no_room_for_web": (
        logging.WARNING,
        (
            "there is no web role: other children have all {count} places of this family; configure "
            "fewer workers, then reload"
        ),
    ),
    "fork_failed": (logging.ERROR, "cannot fork a {role}: {error}; next try in {delay}"),
    "trial_failed": (logging.WARNING, "the new code cannot be taken up: {error}"),
    "preloaded": (logging.INFO, "the application is preloaded: {seconds} s, {size}"),
    "preload_shares": (logging.WARNING, "preload: {what}, which all workers share now"),
    "preload_unable": (
        logging.WARNING,
        "[tasks] preload is not done here, each worker imports the application by itself: {reason}",
    ),
    "template_failed": (
        logging.ERROR,
        (
            "template pid {pid} gave no worker ({reason}): it is killed and made anew; until then each "
            "worker imports the application by itself"
        ),
    ),
    "boot_failed": (logging.ERROR, "{role} cannot start: {error}"),
    "dirty": (
        logging.WARNING,
        "job {job} {task} left the process changed ({what}); this worker is replaced",
    ),
    "dirty_among": (
        logging.WARNING,
        (
            "one of the last {count} jobs ({tasks}) left the process changed ({what}); "
            "this worker is replaced"
        ),
    ),
    "unsound": (logging.WARNING, "this process ends at once and is replaced: {what}"),
    "clerk_gone": (
        logging.ERROR,
        (
            "the process that held a connection to the database for this worker ended ({cause}): the "
            "worker claims nothing more, and is replaced when its jobs have ended"
        ),
    ),
    "recycled": (logging.INFO, "leaving after its job, to be replaced: {reason}"),
    "degraded": (logging.WARNING, "degraded: {reason}"),
    "recovered": (logging.INFO, "no longer degraded"),
    "recalled": (
        logging.DEBUG,
        "job {job} runs long: {settled} of its batch are settled, {count} handed to others",
    ),
    "settle_left": (
        logging.WARNING,
        "the last outcomes could not be stored: {error}; they stay in {path} and are stored from there",
    ),
    "stack": (logging.INFO, "the stack of {name} pid {pid}, job {job}"),
    "stack_missing": (
        logging.INFO,
        "{name} pid {pid} does not tell its stack: it sits in native code, or is stopped",
    ),
    "broken": (logging.ERROR, "unexpected error, this process ends: {error}"),
    "dump": (logging.INFO, "{name} pid {pid} is in state {state}, job {job}"),
    "hopeless": (
        logging.ERROR,
        "nothing could start in {boots} tries, for the errors above: the configuration is wrong; giving up",
    ),
    "unreachable": (logging.ERROR, "no child could reach {database} in time; giving up"),
    "surprised": (logging.ERROR, "unexpected error, the family goes on: {error}"),
    "buried": (
        logging.WARNING,
        "family {family} on {host} is declared dead: no heartbeat for {silent} s",
    ),
    "expelled": (
        logging.WARNING,
        (
            "family {family} was declared dead by another one, its heartbeats did not arrive: its "
            "children finish what they run, and new ones take their places"
        ),
    ),
    "unsettled": (
        logging.ERROR,
        "the jobs of {name} pid {pid}, which died, cannot be settled now: {error}; tried again later",
    ),
    "remains_ended": (
        logging.WARNING,
        "ended {count} processes that the tasks of the dead worker pid {pid} had left running",
    ),
    "ledger_unsettled": (
        logging.ERROR,
        "the outcomes in {path} cannot be stored: {error}; they are kept and tried again, without a line",
    ),
    "overslept": (
        logging.WARNING,
        "the parent was stopped for {seconds} s; it enforces no timeout for the next second",
    ),
    "config_passed_over": (
        logging.WARNING,
        (
            "{error}; this file in {folder} is passed over, because a database is named without it: "
            "if it is meant, mend it or name it by JOBVISOR_CONFIG"
        ),
    ),
    # the web role
    "listening": (logging.INFO, "the web role listens on {url}"),
    "not_listening": (logging.WARNING, "{error}; tried again in {delay}"),
    "web_failed": (logging.ERROR, "the web role has met an error: {error}"),
    "web_lines_left_out": (
        logging.WARNING,
        "{count} further errors of the web role in the last {seconds} s are not logged",
    ),
    # schedules
    "ticked": (logging.DEBUG, "schedule {schedule}: its tick of {tick} is job {job}"),
    "tick_late": (
        logging.INFO,
        "schedule {schedule}: its tick of {tick}, {late} late, is job {job}",
    ),
    "tick_skipped": (
        logging.INFO,
        "schedule {schedule}: its tick of {tick} is left out, and so are others while job {job} goes on",
    ),
    "schedule_troubled": (
        logging.WARNING,
        "schedule {schedule} does not tick: {error}; it is tried again, without a line",
    ),
    "schedules_declared": (logging.INFO, "schedules of the {source}: {changed}"),
    "schedules_removed": (logging.INFO, "schedules that nobody declares any more: {names}"),
    "schedule_refused": (
        logging.WARNING,
        "schedule {schedule} of the {source} is not taken up: it is declared {holder}",
    ),
    "declaring_failed": (
        logging.WARNING,
        "what the code says of schedules cannot be declared: {error}; trying on",
    ),
    # the database
    "database_lost": (logging.WARNING, "the database cannot be used: {error}; trying on"),
    "database_back": (logging.INFO, "the database is back after {delay}"),
    "migrating": (
        logging.INFO,
        "the tables are being brought up to this release; workers start when that is done",
    ),
    "migrated": (logging.INFO, "database migrated to schema {version}"),
    "settled": (
        logging.INFO,
        "settled {name} pid {pid}: {applied} outcomes stored; {cause}",
    ),
    "limits_declared": (logging.INFO, "these limits are now as the config says: {names}"),
    "made_fair": (logging.INFO, "queue {queue} is fair: its shares are served in turn"),
    "made_unfair": (logging.INFO, "queue {queue} is fair no more: the config says so"),
    "pruned": (logging.INFO, "pruned {count} finished jobs"),
    "sums_refused": (logging.WARNING, "the sums of a minute are lost, charts lack it: {error}"),
    "ledger_unknown": (
        logging.WARNING,
        (
            "{path} is damaged or of another release: it is kept for that one; "
            "what it holds runs again here"
        ),
    ),
    "strange_records": (
        logging.WARNING,
        "a ledger holds {count} records of kinds {kinds}, which a later release wrote; see {path}",
    ),
    "ledger_refused": (
        logging.WARNING,
        "no ledger file in {path}: {error}; this worker runs one job at a time",
    ),
}

_LOGGER = logging.getLogger("jobvisor")
# What would break a line in two or a terminal: control characters are shown, not obeyed.
# The C1 controls too, which terminals obey, and what Unicode has for breaking lines and turning text.
_BEYOND_ASCII = (*range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
_IN_JSON = {code: f"\\u{code:04x}" for code in _BEYOND_ASCII}
_VISIBLE = {code: f"\\x{code:02x}" for code in (*range(32), *_BEYOND_ASCII)} | {
    10: "\\n", 13: "\\r", 9: "\\t", **{code: f"\\u{code:04x}" for code in _BEYOND_ASCII if code > 0xFF},
}  # fmt: skip
_LEVEL_NAMES = {number: name for name, number in LEVELS.items()}
# A pipe that polls as writable takes this much without blocking (POSIX: at least 512; 4096 on
# Linux).
_CHUNK = select.PIPE_BUF


class _Fields(dict[str, Any]):
    """The fields of a line; a forgotten one shows as "?", because a log line must not raise."""

    def __missing__(self, _key: str) -> str:
        return "?"


def say(name: str, /, *, trace: BaseException | str | None = None, **fields: Any) -> None:
    """Log the line of this name, and below it where an error came from; KeyError where LINES has none."""
    level, template = LINES[name]
    if _LOGGER.isEnabledFor(level):
        message = _worded(template, fields)
        extra = {"line": name, "fields": fields, "below": _traced(trace)}
        _LOGGER.log(level, "%s", message, extra=extra, stacklevel=2)


def _traced(trace: BaseException | str | None) -> str:
    """The text of a traceback; its end tells more than its beginning."""
    if trace is None:
        return ""
    try:
        text = trace if isinstance(trace, str) else "".join(traceback.format_exception(trace))
    except Exception as error:  # noqa: BLE001 -- user code runs in it; memory may end
        return f"<the traceback cannot be formatted: {type(error).__name__}>"
    return text.strip()[-TRACE_MAX:]


def _worded(template: str, fields: Mapping[str, Any]) -> str:
    try:
        return template.format_map(_Fields(fields))
    except Exception as error:  # noqa: BLE001 -- a field's own __str__ may raise anything
        return f"{template} ({type(error).__name__} in its fields)"


class Lost(Protocol):
    """What is told of an outcome that came too late."""

    @property
    def job(self) -> int:
        """The id of its job."""

    @property
    def verb(self) -> int:
        """Its verb, by the code of VERB_CODES."""

    @property
    def claim(self) -> int:
        """The claim that it was a run of."""


def log_lost(records: Iterable[Lost]) -> None:
    """One line for each outcome that came too late: somebody else had the job by then."""
    for record in records:
        say("lost_claim", job=record.job, verb=VERB_NAMES[record.verb], claim=record.claim)


_VERB_LINES = {
    "enqueue": "enqueued",
    "retry": "retried",
    "snooze": "snoozed",
    "fail": "failed",
    "release": "released",
    "rescue": "rescued",
    "cancel": "cancelled",
    "requeue": "requeued",
    "reschedule": "rescheduled",
}


def is_logged(verb: str) -> bool:
    """Whether an event of this verb has a line, at a level that is logged just now."""
    name = _VERB_LINES.get(verb)
    return name is not None and _LOGGER.isEnabledFor(LINES[name][0])


def log_event(event: Event) -> None:
    """The subscriber that logs: successes at debug, retries and failures at warning."""
    if not is_logged(event.verb):
        return
    say(
        _VERB_LINES[event.verb],
        job=event.job,
        task=event.task,
        queue=event.queue,
        attempt=event.attempt,
        attempts_max=event.attempts_max,
        error=event.error,
        delay=duration_text(event.delay_ms),
        kind=event.kind,
    )


@dataclass(slots=True)
class _Role:
    name: str = ""


# Which process speaks. Set once after a fork; a log line has no other way to learn it.
_ROLE = _Role()


def set_role(name: str) -> None:
    """How this process is called in its lines: "worker 2", "parent", "caretaker"."""
    _ROLE.name = name


class TextFormat(logging.Formatter):
    """`2026-11-22T17:40:01.123Z warning worker 2 [4711] message`, one line each."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line; a traceback follows it, indented."""
        role = f"{_ROLE.name} " if _ROLE.name else ""
        head = f"{_time(record)} {_level(record)} {role}[{record.process}]"
        text = f"{head} {_told(record).translate(_VISIBLE)}"
        trace = _trace_of(record)
        return "\n    ".join([text, *(line.translate(_VISIBLE) for line in trace.splitlines())])


class JsonFormat(logging.Formatter):
    """One JSON object a line: time, level, role, pid, line, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as one line."""
        told = {
            "time": _time(record),
            "level": _level(record),
            "role": _ROLE.name,
            "pid": record.process,
            "line": getattr(record, "line", None),
            "message": _message(record),
            "fields": fields_of(record) | getattr(record, "fields", {}),
        }
        if not _is_ours(record):
            told["logger"] = record.name
        if trace := _trace_of(record):
            told["traceback"] = trace
        text = self._dumped(told)
        if len(text) <= LINE_MAX // 4:  # at most 4 bytes a character
            return text
        return text if len(text.encode(errors="replace")) <= LINE_MAX else self._shortened(told)

    def _shortened(self, told: dict[str, Any]) -> str:
        """Cut inside the object, because a cut line would be no JSON."""
        told |= {"message": told["message"][:1_000], "fields": {}, "cut": True}
        told["traceback"] = told.get("traceback", "")[-2_000:]
        return self._dumped(told)

    @staticmethod
    def _dumped(told: dict[str, Any]) -> str:
        text = json.dumps(told, ensure_ascii=False, default=shown, separators=(",", ":"))
        return text.translate(_IN_JSON)


def _told(record: logging.LogRecord) -> str:
    """The message; of a line that is not ours with who says it, and in which job."""
    message = _message(record)
    if hasattr(record, "line"):
        return message
    of = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
    who = "" if _is_ours(record) else f"{record.name}: "
    return f"{who}{message} ({of})" if of else f"{who}{message}"


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] == _LOGGER.name


def _trace_of(record: logging.LogRecord) -> str:
    """The traceback that goes below a line, "" for none."""
    error = record.exc_info[1] if record.exc_info else None
    told: str = getattr(record, "below", "") or _traced(error)
    return told


def _time(record: logging.LogRecord) -> str:
    return iso(to_datetime(int(record.created * 1_000)))


def _level(record: logging.LogRecord) -> str:
    return _LEVEL_NAMES.get(record.levelno, record.levelname.lower())


def _message(record: logging.LogRecord) -> str:
    message = record.getMessage()
    # Who stands above this file on the map logs only the name of the line (see events.py).
    if message in LINES and getattr(record, "line", None) == message:
        return _worded(LINES[message][1], getattr(record, "fields", {}))
    return message


class LineHandler(logging.Handler):
    """Writes lines to a descriptor. It never raises and, on a pipe or terminal, does not wait.

    A pipe is asked before each write whether it takes one; other processes that write to the same
    pipe in that instant can still fill it, so a wait of one reader's turn remains possible.
    """

    def __init__(self, stream_fd: int) -> None:
        super().__init__()
        self.stream_fd = _unblocking(stream_fd)
        self._opened_here = self.stream_fd != stream_fd  # the other one is its giver's
        self.dropped = 0
        """Lines that could not be written, since the last one that said so."""
        self._torn = False  # a line was begun and not ended

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, or count it as dropped."""
        try:
            if self._written(self._line(record)):
                self.dropped = 0
                return
        except Exception:  # noqa: BLE001 -- ENOSPC, EPIPE, a record that cannot be formatted
            self._count()
        else:
            self._count()

    def _count(self) -> None:
        self.dropped += 1

    def _line(self, record: logging.LogRecord) -> bytes:
        text = self.format(record)
        data = text.encode(errors="backslashreplace")
        if len(data) > LINE_MAX:
            data = data[:LINE_MAX].decode(errors="ignore").encode() + b" ... (cut)"
        if self.dropped:
            data = self._note(record) + b"\n" + data
        return (b"\n" if self._torn else b"") + data + b"\n"

    def _note(self, record: logging.LogRecord) -> bytes:
        fields = {"name": record.name, "levelno": logging.WARNING, "levelname": "WARNING"}
        note = logging.makeLogRecord(record.__dict__ | fields | {"exc_info": None, "args": None})
        note.msg = "log_dropped"
        note.__dict__ |= {"line": "log_dropped", "fields": {"count": self.dropped}}
        return self.format(note).encode()

    def _written(self, line: bytes) -> bool:
        """Whether the whole line went out. What is begun and not ended is noted as torn."""
        mode = os.fstat(self.stream_fd).st_mode
        waits = not stat.S_ISREG(mode)
        rest = memoryview(line)
        while rest:
            if waits and not self._takes_more():
                return False
            count = os.write(self.stream_fd, rest[:_CHUNK] if waits else rest)
            rest = rest[count:]
            self._torn = bool(rest)
        return True

    def _takes_more(self) -> bool:
        poll = select.poll()
        poll.register(self.stream_fd, select.POLLOUT)
        return any(events & select.POLLOUT for _, events in poll.poll(0))

    def close(self) -> None:
        """Give back a descriptor that was opened here; a reload has opened another."""
        super().close()
        if self._opened_here:
            self._opened_here = False
            descriptor, self.stream_fd = self.stream_fd, -1
            os.close(descriptor)


def _unblocking(descriptor: int) -> int:
    """A pipe or terminal opened once more, so that a write to it never waits for its reader.

    Only a new open file description has flags of its own: to set them on the one we were given
    would change it for everybody who shares it. What cannot be opened so is used as it is.
    """
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            return descriptor
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        return descriptor


class FileHandler(LineHandler):
    """Writes lines to a file that may be renamed under it: `reopen` begins a new one."""

    def __init__(self, path: str) -> None:
        given = _opened(path)
        super().__init__(given)
        if self._opened_here:
            os.close(given)  # a named pipe, opened once more
        self._opened_here = True
        self._path = path

    def reopen(self) -> None:
        """The file of this name as of now; where it cannot be opened the old one goes on."""
        try:
            fresh = _opened(self._path)
        except OSError:
            self._count()
            return
        os.dup2(fresh, self.stream_fd)
        os.close(fresh)


def _opened(path: str) -> int:
    # O_NONBLOCK: a named pipe that nobody reads would keep whoever opens it for ever, the parent too.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    return os.open(path, flags, 0o640)


def descriptors() -> list[int]:
    """Where the lines go, for who watches over his descriptors."""
    return [one.stream_fd for one in _LOGGER.handlers if isinstance(one, LineHandler)]


def reopen() -> None:
    """After a log rotation: write to the file that has the configured name now."""
    for handler in _LOGGER.handlers:
        if isinstance(handler, FileHandler):
            handler.reopen()


def configure(
    level: str,
    format: str = "text",  # noqa: A002 -- the key's name
    stream_fd: int = 2,
    *,
    file: str = "",
) -> LineHandler:
    """Send the lines of "jobvisor" to this file or descriptor, instead of where they went before."""
    if level not in LEVELS:
        raise ConfigError(f"[log] level {shown(level)} must be one of {', '.join(LEVELS)}")
    if format not in FORMATS:
        raise ConfigError(f"[log] format {shown(format)} must be one of {', '.join(FORMATS)}")
    try:
        handler = FileHandler(file) if file else LineHandler(stream_fd)
    except OSError as error:
        unread = error.errno == errno.ENXIO
        reason = "nobody reads that pipe; start its reader first" if unread else error.strerror
        raise ConfigError(f"[log] file {file} cannot be opened: {reason}") from error
    handler.setFormatter(JsonFormat() if format == "json" else TextFormat())
    handler.addFilter(LogContext())
    root = logging.getLogger()
    for old in [one for one in _LOGGER.handlers if isinstance(one, LineHandler)]:
        _LOGGER.removeHandler(old)
        if old in root.handlers:  # others were taken in
            root.removeHandler(old)
            root.addHandler(handler)
        old.close()
    _LOGGER.addHandler(handler)
    _LOGGER.setLevel(LEVELS[level])
    # Our lines have their own way out; a root handler of the user's would write them twice.
    _LOGGER.propagate = False
    return handler


def take_in_others() -> None:
    """Send what other loggers say where ours goes, unless the root logger has a handler of its own.

    Its level stays as it is, as every other logger does.
    """
    root = logging.getLogger()
    if not root.handlers:
        for handler in [one for one in _LOGGER.handlers if isinstance(one, LineHandler)]:
            root.addHandler(handler)
