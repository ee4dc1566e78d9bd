"""`export` and `import`: jobs carried to another database, as one JSON object per line.

The first line says what follows and the last one how many jobs there were, so that a file that was
cut off is noticed. Arguments and results are carried as their stored text, the same to the byte;
moments are whole milliseconds of UTC.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple, cast

import click

from jobvisor.jobs import __version__
from jobvisor.jobs.clock import SYSTEM, from_datetime, iso, to_datetime
from jobvisor.jobs.errors import IllegalMove, InvalidOption, JobsError, shown
from jobvisor.jobs.job import Special, State
from jobvisor.jobs.nearest import did_you_mean
from jobvisor.jobs.schedule import ScheduleRow
from jobvisor.jobs.store.base import AttemptRow, FamilyRow, JobRow
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.cli import config_option, examples, say
from jobvisor.supervisor.cli.said import KINDS, Said, said_as, said_in
from jobvisor.supervisor.cli.site import find_site

__all__ = ["export_jobs", "import_jobs"]

FORMAT = 3
"""Of the lines. Another set of keys, or another meaning of one, is another format."""

FORMATS = (1, 2, FORMAT)
"""Those that are read: 1 is that of 0.3.0, 2 of 0.4.0 and 0.5.0, which had fewer keys."""

LINE_BYTES_MAX = 256 << 20
"""The largest arguments and result with 10,000 tracebacks; what is longer is no line of ours."""

FAMILIES_NAMED = 3


@click.command(
    "export", epilog=examples("jobvisor export -o jobs.jsonl", "jobvisor export --all | gzip")
)
@click.option("-o", "--output", metavar="FILE", help="Into this file, whole or not at all.")
@click.option("--all", "finished", is_flag=True, help="Finished jobs too.")
@click.option("--running", is_flag=True, help="Running jobs too, as if they had not been started.")
@config_option
def export_jobs(config: str | None, output: str | None, finished: bool, running: bool) -> None:
    """Write unfinished jobs, and all that was set, as JSON lines.

    For another database. With the jobs go ids, attempts and history, and with them schedules, limits,
    pauses and fair queues; all stay where they are: start no family on both databases. Stop the family
    first. A running job cannot be carried: exit code 1 if there is one, unless --running is given.
    """
    site = find_site(config)
    with site.client() as client, client.export(finished=finished) as found:
        _tell_living(found.families)
        if found.running:
            _tell_running(found.running, wanted=running)
        header = {
            "jobvisor": __version__,
            "format": FORMAT,
            "database": parse_url(site.url).kind,
            "exported_at": iso(to_datetime(SYSTEM.now_ms())),
            "all": finished,
        }
        with _output(output) as file:
            schedules = client.schedules.rows()
            said = list(said_in(client))
            number = _write(file, header, found.jobs, schedules, said)
    say(f"exported {_told(number, len(schedules), said)}")


@click.command(
    "import",
    epilog=examples(
        "jobvisor import jobs.jsonl",
        "jobvisor export | JOBVISOR_DATABASE_URL=postgresql://db/app jobvisor import -",
    ),
)
@click.argument("path", metavar="FILE")
@config_option
def import_jobs(config: str | None, path: str) -> None:
    """Store the jobs of an export, all of them or none.

    They keep their ids, attempts and history. FILE is what `jobvisor export` wrote; a single - reads
    it from stdin. A job that is there already stays as it is, so a second import of the same file
    adds nothing. Exit code 1 when another job has an id or a unique key of one of these, 2 when
    something is wrong with the file.
    """
    site = find_site(config)
    with _input(path) as file:
        name = "stdin" if path == "-" else path
        # The whole file is known to be good before the database is held.
        schedules: list[ScheduleRow] = []
        said: list[Said] = []
        for _ in _read(file, name, schedules, said):
            pass
        file.seek(0)
        with site.client(create=True) as client, client.transaction():
            for each in said:  # before the jobs, of which none may begin
                each.tell(client)
            imported = client.import_(_read(file, name, [], []))
            planned = client.schedules.import_(schedules)
    say(f"imported {_told(imported.added, planned.added, said)}")
    if imported.known or planned.known:
        say(
            f"{_told(imported.known, planned.known)} had been there already, and stayed as they were"
        )


def _told(jobs: int, schedules: int, said: Iterable[Said] = ()) -> str:
    """How much it was.

    >>> _told(1, 0), _told(0, 2, [Said("pause", {}), Said("fair", {}), Said("fair", {})])
    ('1 job', '0 jobs, 2 schedules, 1 pause and 2 fair queues')
    """
    kinds = Counter(each.kind for each in said)
    others = {"schedule": schedules, "limit": kinds["limit"], "pause": kinds["pause"]}
    others["fair queue"] = kinds["fair"]
    parts = [_many(number, word) for word, number in others.items() if number]
    first = [_many(jobs, "job"), *parts[:-1]]
    return " and ".join([", ".join(first), *parts[-1:]])


def _many(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


# -- what an export should know


def _tell_living(families: Sequence[FamilyRow]) -> None:
    living = [f for f in families if not f.died and f.silent_ms < f.dead_after_ms]
    if not living:
        return
    named = ", ".join(f"{f.name} on {f.host}" for f in living[:FAMILIES_NAMED])
    if len(living) > FAMILIES_NAMED:
        named += f" and {len(living) - FAMILIES_NAMED} more"
    say(
        f"warning: families are at work on this database ({named}); what they do from now on is not "
        "in this export. Stop them first: `jobvisor stop`"
    )


def _tell_running(number: int, *, wanted: bool) -> None:
    if not wanted:
        raise IllegalMove(
            f"{_many(number, 'job')} running now cannot be carried; stop the family first "
            "(`jobvisor stop`), or carry them as not started: --running"
        )
    say(
        f"warning: carried as not started: {_many(number, 'job')} running now. What runs now runs twice if "
        "the family goes on"
    )


# -- writing


@contextlib.contextmanager
def _output(path: str | None) -> Iterator[BinaryIO]:
    """Stdout, or a file that takes the place of `path` once all is written."""
    if path is None or path == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    place = os.path.realpath(path)
    if os.path.exists(place) and not os.path.isfile(place):
        raise InvalidOption(f"{path} is no ordinary file; without -o it goes to stdout")
    folder, name = os.path.split(place)
    temporary = None
    try:
        # Made as it will stay: for its owner alone, because arguments may hold anything.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}.", delete=False) as file:
            temporary = file.name
            yield cast("BinaryIO", file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
        temporary = None
    except JobsError:
        raise
    except OSError as error:
        raise InvalidOption(f"{path} cannot be written: {error.strerror}") from error
    finally:
        if temporary is not None:
            os.unlink(temporary)


def _write(
    file: BinaryIO,
    header: Mapping[str, Any],
    rows: Iterable[JobRow],
    schedules: Iterable[ScheduleRow],
    said: Iterable[Said],
) -> int:
    number = 0
    file.write(_line(header))
    for row in rows:
        runs = [run._asdict() for run in row.attempts]
        file.write(_line({**row._asdict(), "attempts": runs}))
        number += 1
    for schedule in schedules:
        told = schedule._asdict()
        del told["declared_by"]  # of families of this database
        file.write(_line({"schedule": told}))
    file.writelines(_line({each.kind: each.told}) for each in said)
    file.write(_line({"jobs": number}))
    return number


def _line(value: Mapping[str, Any]) -> bytes:
    # Plain ASCII: no locale can spoil it, and it cannot steer a terminal.
    return f"{json.dumps(value)}\n".encode("ascii")


# -- reading


@contextlib.contextmanager
def _input(path: str) -> Iterator[BinaryIO]:
    """What can be read twice: a copy where it is a pipe."""
    with contextlib.ExitStack() as stack:
        try:
            file = sys.stdin.buffer if path == "-" else stack.enter_context(open(path, "rb"))
            if path == "-" or not file.seekable():
                copy = stack.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(file, copy)
                copy.seek(0)
                file = cast("BinaryIO", copy)
        except OSError as error:
            raise InvalidOption(f"{path} cannot be read: {error.strerror}") from error
        yield file


def _read(
    file: BinaryIO, name: str, schedules: list[ScheduleRow], said: list[Said]
) -> Iterator[JobRow]:
    """The jobs of an export, each as it is found to be one; InvalidOption names the line.

    Its schedules, and what was said of limits, queues and tasks, which come after them, are added to lists.
    """
    number = count = last = 0
    ended = False
    kinds = _KINDS[FORMAT]
    for number, line in enumerate(iter(lambda: file.readline(LINE_BYTES_MAX + 1), b""), 1):
        place = f"{name} line {number}"
        if ended:
            raise InvalidOption(f"{place} comes after the end of the export; remove what follows")
        found = _parsed(line, place)
        if number == 1:
            kinds = _KINDS[_check_header(found, name)]
        elif found.keys() == {"jobs"}:
            if found["jobs"] != count:
                raise InvalidOption(
                    f"{place}: the export held {shown(found['jobs'])} jobs, and here are {count}; "
                    "export again"
                )
            ended = True
        elif found.keys() == {"schedule"}:
            schedules.append(_schedule(found["schedule"], place))
        elif len(found) == 1 and (kind := next(iter(found))) in KINDS:
            said.append(said_as(kind, found[kind], place))
        else:
            row = _row(found, kinds, place)
            if row.id <= last:
                raise InvalidOption(f"{place}: id={row.id} must be greater than {last} before it")
            last = row.id
            count += 1
            yield row
    if not number:
        raise InvalidOption(f"{name} is no export of jobvisor: it is empty")
    if not ended:
        raise InvalidOption(
            f"{name} was cut off after line {number}: its last line, the number of jobs, is missing; "
            "export again"
        )


def _parsed(line: bytes, place: str) -> dict[str, Any]:
    if len(line) > LINE_BYTES_MAX:
        raise InvalidOption(f"{place} is longer than {LINE_BYTES_MAX >> 20} MiB")
    try:
        found = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        if not line.endswith(b"\n"):
            raise InvalidOption(f"{place} was cut off in its middle; export again") from None
        raise InvalidOption(f"{place} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InvalidOption(f"{place} is {shown(found)}, and no JSON object")
    return found


def _check_header(found: Mapping[str, Any], name: str) -> int:
    """The format of the lines that follow."""
    written_by, number = found.get("jobvisor"), found.get("format")
    if not isinstance(written_by, str) or type(number) is not int:
        raise InvalidOption(f"{name} is no export of jobvisor: its first line does not say so")
    if number not in FORMATS:
        raise InvalidOption(
            f"{name} was written by jobvisor {written_by[:40]} in format {number}, and this is "
            f"{__version__}, which reads format {FORMAT} and older; install a newer jobvisor"
        )
    _check(found, _HEADER, f"{name} line 1")
    return number


def _schedule(found: Any, place: str) -> ScheduleRow:
    if not isinstance(found, dict):
        raise InvalidOption(f"{place}: schedule is {shown(found)}, and no JSON object")
    _check(found, _SCHEDULE, place)
    return ScheduleRow(**found, declared_by="[]")


def _row(found: dict[str, Any], kinds: _Kinds, place: str) -> JobRow:
    _check(found, kinds.job, place)
    runs = []
    for index, run in enumerate(found["attempts"]):
        below = f"{place}: attempts[{index}]"
        if not isinstance(run, dict):
            raise InvalidOption(f"{below} is {shown(run)}, and no JSON object")
        _check(run, kinds.attempt, below)
        runs.append(AttemptRow(**run))
    return _carried(JobRow(**{**found, "attempts": tuple(runs)}))


def _carried(row: JobRow) -> JobRow:
    """Without what was true where it comes from: a place, what it waited for; `special` says what it has.

    A claim finds out whether it has to wait here too.
    """
    had = {
        Special.LIMIT: row.limit_key is not None,
        Special.DEADLINE: row.deadline_at is not None,
        Special.KEPT: row.keep is not None,
        Special.DEBOUNCED: row.special & Special.DEBOUNCED and row.debounce_ms is not None,
    }
    row = row._replace(limit_place=None, special=sum(bit for bit, has in had.items() if has))
    if row.state == State.BLOCKED and row.parked is not None:
        row = row._replace(state=State.PENDING.value)
    return row._replace(parked=None)


class _Kind(NamedTuple):
    """What a value must be, in words for who reads the error."""

    words: str
    holds: Callable[[Any], bool]

    def or_null(self) -> _Kind:
        return _Kind(f"{self.words} or null", lambda value: value is None or self.holds(value))


def _check(found: Mapping[str, Any], kinds: Mapping[str, _Kind], place: str) -> None:
    for key, value in found.items():
        if key not in kinds:
            hint = did_you_mean(key, kinds)
            raise InvalidOption(f"{place}: unknown key {shown(key)}{hint}")
        if not kinds[key].holds(value):
            raise InvalidOption(f"{place}: {key}={shown(value)} must be {kinds[key].words}")
    for key in kinds:
        if key not in found:
            raise InvalidOption(f"{place}: the key {key!r} is missing")


def _number(least: int, most: int, words: str) -> _Kind:
    # By the exact type: True is an int, and 1.0 equals one.
    return _Kind(words, lambda value: type(value) is int and least <= value <= most)


_END = 1 << 63
_FIRST_MS = from_datetime(datetime.min.replace(tzinfo=UTC))
_LAST_MS = from_datetime(datetime.max.replace(tzinfo=UTC))
_STATES = [state.value for state in State if state is not State.RUNNING]

_TEXT = _Kind("a text", lambda value: isinstance(value, str))
_NAME = _Kind("a text that is not empty", lambda value: isinstance(value, str) and value != "")
_FLAG = _Kind("true or false", lambda value: isinstance(value, bool))
_LIST = _Kind("a list", lambda value: isinstance(value, list))
_ANY = _number(-_END, _END - 1, "a whole number of 64 bits")
_COUNT = _number(0, _END - 1, "a whole number, 0 or more")
_POSITIVE = _number(1, _END - 1, "a whole number, 1 or more")
_MOMENT = _number(_FIRST_MS, _LAST_MS, "a moment, in whole milliseconds of UTC")
_STATE = _Kind(f"one of {', '.join(_STATES)}", lambda value: value in _STATES)

_HEADER = {
    "jobvisor": _NAME,
    "format": _POSITIVE,
    "database": _NAME,
    "exported_at": _NAME,
    "all": _FLAG,
}
_JOB_1 = {
    "id": _POSITIVE,
    "task": _NAME,
    "args": _TEXT,
    "kwargs": _TEXT,
    "queue": _NAME,
    "priority": _ANY,
    "state": _STATE,
    "run_at": _MOMENT,
    "attempt": _COUNT,
    "attempts_max": _POSITIVE,
    "claims": _COUNT,
    "losses": _COUNT,
    "policy": _TEXT.or_null(),
    "timeout_ms": _COUNT,
    "memory_bytes": _COUNT,
    "unique_key": _TEXT.or_null(),
    "expires_at": _MOMENT.or_null(),
    "deferred": _TEXT.or_null(),
    "cancel_requested": _number(0, 1, "0 or 1"),
    "owner": _ANY.or_null(),
    "claim": _ANY.or_null(),
    "created_at": _MOMENT,
    "claimed_at": _MOMENT.or_null(),
    "started_at": _MOMENT.or_null(),
    "finished_at": _MOMENT.or_null(),
    "result": _TEXT.or_null(),
    "error": _TEXT.or_null(),
    "progress": _TEXT.or_null(),
    "attempts": _LIST,
}
_ATTEMPT_1 = {
    "attempt": _ANY,
    "owner": _ANY,
    "claim": _ANY,
    "outcome": _TEXT,
    "error_type": _TEXT.or_null(),
    "message": _TEXT.or_null(),
    "traceback": _TEXT.or_null(),
    "host": _TEXT.or_null(),
    "pid": _ANY.or_null(),
    "exit_code": _ANY.or_null(),
    "signal": _TEXT.or_null(),
    "verdict": _TEXT.or_null(),
    "started_at": _MOMENT.or_null(),
    "finished_at": _MOMENT,
}
_COST = {"cpu_ms": _COUNT.or_null(), "rss_bytes": _COUNT.or_null()}
_JOB_2 = _JOB_1 | {
    "headers": _TEXT.or_null(),
    "parent": _POSITIVE.or_null(),
    "company": _POSITIVE.or_null(),
    **_COST,
}
_JOB = _JOB_2 | {
    "special": _COUNT,
    "turn": _COUNT,
    "limit_key": _NAME.or_null(),
    "share": _NAME.or_null(),
    "weight": _POSITIVE.or_null(),
    "parked": _NAME.or_null(),
    "limit_place": _COUNT.or_null(),
    "debounce_ms": _COUNT.or_null(),
    "deadline_at": _MOMENT.or_null(),
    "keep": _TEXT.or_null(),
    "held_key": _NAME.or_null(),
    "held_until": _MOMENT.or_null(),
}
_ATTEMPT = _ATTEMPT_1 | {"stack": _TEXT.or_null(), "said": _TEXT.or_null(), **_COST}


_SCHEDULE = {
    "name": _NAME,
    "source": _NAME,
    "family": _TEXT.or_null(),
    "task": _NAME,
    "cron": _TEXT.or_null(),
    "every_ms": _POSITIVE.or_null(),
    "anchor": _MOMENT,
    "timezone": _TEXT,
    "args": _TEXT,
    "kwargs": _TEXT,
    "keys": _TEXT,
    "queue": _TEXT.or_null(),
    "catch_up": _TEXT,
    "overlap": _TEXT,
    "paused_config": _number(0, 1, "0 or 1"),
    "paused_at": _MOMENT.or_null(),
    "last_tick": _MOMENT,
    "last_job": _POSITIVE.or_null(),
    "created_at": _MOMENT,
}


class _Kinds(NamedTuple):
    """What the keys of a job and of its attempts are in one format."""

    job: Mapping[str, _Kind]
    attempt: Mapping[str, _Kind]


_KINDS = {
    1: _Kinds(_JOB_1, _ATTEMPT_1),
    2: _Kinds(_JOB_2, _ATTEMPT),
    FORMAT: _Kinds(_JOB, _ATTEMPT),
}
