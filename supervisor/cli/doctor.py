"""`doctor`: the machine, the database and the family as they are now; it changes nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import sqlite3
import sys
import urllib.parse
from collections.abc import Callable, Generator, Iterator

import click

from jobvisor.jobs.annals import QUEUE
from jobvisor.jobs.clock import SYSTEM, iso, to_datetime
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.limit import Limit
from jobvisor.jobs.payload import Payload
from jobvisor.jobs.schedule import Schedule
from jobvisor.jobs.schedule_job import told_options
from jobvisor.jobs.schedules import schedule_of
from jobvisor.jobs.store import Store, open_store
from jobvisor.jobs.store.fault import NAME_ANOTHER
from jobvisor.jobs.store.file import OLDEST_SQLITE
from jobvisor.jobs.store.filesystem import file_system, is_network
from jobvisor.jobs.store.prefix import TABLES, prefixed
from jobvisor.jobs.store.schema import SCHEMA, header_number, told_number
from jobvisor.jobs.store.wake import FileWaker
from jobvisor.jobs.units import size_text
from jobvisor.jobs.url import parse_url
from jobvisor.supervisor.cli import (
    brief,
    config_option,
    json_option,
    load_config,
    print_json,
    print_table,
)
from jobvisor.supervisor.cli.finding import Finding
from jobvisor.supervisor.cli.writable import existing, file_obstacle, folder_obstacle
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.documents.limits import (
    told_unknown_limits,
    told_unused_limits,
    used_limits,
)
from jobvisor.supervisor.documents.shares import told_shareless, told_vain_shares
from jobvisor.supervisor.documents.unknown import UNKNOWN_MAX, told_unknown
from jobvisor.supervisor.family import StateDir

__all__ = ["disk", "doctor"]

QUICK_CHECK_S = 10.0
"""How long doctor reads a large database before it says that it has not read all of it."""

FREE_BYTES_LEAST = 256 << 20
"""Below this a burst of jobs, or the log of the database, may fill the disk."""

FREE_BYTES_NEEDED = 8 << 20
"""A worker starts with a file of 1 MiB and some, and a commit needs pages of its own."""

PENDING_LONG_MS = 3_600_000
"""A job that waits an hour in a queue that is served means too few workers, or none."""

SCHEDULE_LATE_S = 60.0
"""A scheduler looks every five seconds."""

SCHEDULES_MAX = 1_000
PAUSED_SHOWN = 20

PATIENCE_S = 5.0
"""How long the store may try: a doctor does not wait for a database to come back."""

CLOCK_BACK_MS = 5_000
"""Machines in step differ by far less."""


@click.command()
@json_option
@config_option
def doctor(config: str | None, as_json: bool) -> None:
    """Examine machine, database and family.

    One line for each check: ok, warn or fail; exit code 1 when one fails. Changes nothing.
    """
    findings = list(_examine(config))
    if as_json:
        print_json([finding._asdict() for finding in findings])
    else:
        print_table(["check", "", "finding"], findings)
    if any(finding.status == "fail" for finding in findings):
        click.get_current_context().exit(1)


def _examine(path: str | None) -> Iterator[Finding]:
    """Every check, in order; one that cannot be made is a finding too."""
    yield from (_python(), _core_size())
    try:
        config = load_config(path)
    except JobsError as error:
        yield Finding("configuration", "fail", str(error))
        return
    yield Finding("configuration", "ok", str(config.path))
    checks: tuple[tuple[str, Callable[[Config], Iterator[Finding]]], ...] = (
        ("SQLite", _sqlite),
        ("state directory", _state_dir),
        ("file systems", _file_systems),
        ("inotify", _inotify),
        ("durability", _durability),
        ("family", _family),
        ("database", _database),
    )
    for name, look in checks:
        try:
            yield from look(config)
        except (JobsError, OSError, sqlite3.Error) as error:
            yield Finding(name, "fail", str(error))


def _python() -> Finding:
    version = platform.python_version()
    status = "ok" if sys.implementation.name == "cpython" else "warn"
    return Finding("Python", status, f"{platform.python_implementation()} {version}")


def _is_sqlite(config: Config) -> bool:
    return parse_url(config.database.url).kind == "sqlite"


def _sqlite(config: Config) -> Iterator[Finding]:
    if _is_sqlite(config):
        yield _sqlite_version()


def _sqlite_version() -> Finding:
    version = sqlite3.sqlite_version_info
    if version < OLDEST_SQLITE:
        needed = ".".join(map(str, OLDEST_SQLITE))
        return Finding(
            "SQLite", "fail", f"{sqlite3.sqlite_version} is too old; {needed} or newer is needed"
        )
    if version < (3, 51, 3):
        # https://sqlite.org/wal.html#walresetbug. A distribution may have carried the fix back.
        text = (
            f"{sqlite3.sqlite_version} has the WAL-reset bug of 3.7.0-3.51.2, which may damage a "
            "database when two processes checkpoint at once; very rare, 3.51.3 has the fix"
        )
        return Finding("SQLite", "warn", text)
    return Finding("SQLite", "ok", sqlite3.sqlite_version)


def _core_size() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    if soft == 0:
        return Finding("core size", "ok", "no core files")
    size = "unlimited" if soft == resource.RLIM_INFINITY else size_text(soft)
    text = f"{size}: a crashed worker leaves a file with all its memory; `ulimit -c 0` stops that"
    return Finding("core size", "warn", text)


def _state_dir(config: Config) -> Iterator[Finding]:
    state = StateDir(config.family.state_dir)
    obstacle = folder_obstacle(state.path)
    if obstacle is not None:
        text = f"{obstacle}; set [supervisor] state_dir to a folder this user can write"
        yield Finding("state directory", "fail", text)
        return
    if not os.path.lexists(state.path):
        yield Finding("state directory", "ok", f"{state.path} is made at the first start")
        return
    state.check()
    yield Finding("state directory", "ok", state.path)
    rejected = os.listdir(state.rejected) if os.path.isdir(state.rejected) else []
    if rejected:
        text = f"{len(rejected)} outcomes the database refused lie in {state.rejected}"
        yield Finding("rejected", "warn", text)


def _file_systems(config: Config) -> Iterator[Finding]:
    places = {"state directory": config.family.state_dir}
    target = parse_url(config.database.url)
    if target.kind == "sqlite":
        places["database"] = os.path.dirname(_database_file(config))
    for name, place in places.items():
        folder = existing(place)
        free = os.statvfs(folder)
        yield disk(name, file_system(folder), free.f_bavail * free.f_frsize)


def disk(name: str, kind: str, free_bytes: int) -> Finding:
    """The disk under the database or the state directory: of what kind, and how much is free."""
    check = f"disk of {name}"
    room = f"{size_text(free_bytes)} free"
    if is_network(kind):
        text = f"{kind}, a network file system: locks and logs break there; use a local disk"
        return Finding(check, "fail", text)
    if free_bytes < FREE_BYTES_NEEDED:
        text = f"{kind or 'local'}, {room}: no job can be stored and no worker started; make room"
        return Finding(check, "fail", text)
    low = free_bytes < FREE_BYTES_LEAST
    if low:
        room = f"only {room}: a burst of jobs may fill it; make room"
    if name == "database" and kind in {"tmpfs", "ramfs", "overlay"}:
        lost = "container" if kind == "overlay" else "machine"
        text = f"{kind}: the jobs go with the {lost}; use a lasting disk; {room}"
        return Finding(check, "warn", text)
    return Finding(check, "warn" if low else "ok", f"{kind or 'local'}, {room}")


def _database_file(config: Config) -> str:
    """The file itself, where the URL names a link to it."""
    return os.path.realpath(parse_url(config.database.url).path)


def _inotify(config: Config) -> Iterator[Finding]:
    if not _is_sqlite(config):
        return  # the server wakes its workers
    try:
        with open("/proc/sys/fs/inotify/max_user_instances", encoding="ascii") as file:
            most = int(file.read())
    except FileNotFoundError:
        yield Finding("inotify", "warn", "not on this system: workers look every 100 ms instead")
        return
    with contextlib.closing(FileWaker(_database_file(config))) as waker:
        if waker.fileno() is None:
            text = (
                "none is left for this user: workers look every 100 ms instead; raise "
                "fs.inotify.max_user_watches or fs.inotify.max_user_instances"
            )
            yield Finding("inotify", "warn", text)
            return
    needed = sum(pool.processes.most for pool in config.workers)
    if most < 2 * needed + 16:
        yield Finding(
            "inotify",
            "warn",
            f"{most} instances per user for {needed} workers; raise "
            "fs.inotify.max_user_instances, or some workers look every 100 ms instead",
        )
    else:
        yield Finding("inotify", "ok", f"{most} instances per user for {needed} workers")


def _durability(config: Config) -> Iterator[Finding]:
    if not _is_sqlite(config):
        return  # the server's settings say it
    if config.database.durability == "full":
        yield Finding("durability", "ok", "full: an acknowledged job survives a power cut")
    else:
        yield Finding("durability", "warn", "normal: a power cut may lose the last jobs")


def _family(config: Config) -> Iterator[Finding]:
    state = StateDir(config.family.state_dir)
    pid = state.holder()
    if pid is None:
        text = f"{config.family.name} is not running; `jobvisor start` starts it"
        yield Finding("family", "warn", text)
        return
    from jobvisor.supervisor.documents.standing import trouble  # noqa: PLC0415 - only this check needs it

    reason = trouble(state.status(), pid)
    text = f"{config.family.name} runs as pid {pid or 'of another container'}"
    yield Finding("family", "warn" if reason else "ok", f"{text}; {reason}" if reason else text)


def _database(config: Config) -> Iterator[Finding]:
    database = config.database
    store = open_store(
        database.url,
        schema=database.schema,
        prefix=database.prefix,
        notify=False,
        patience=PATIENCE_S,
    )
    with contextlib.closing(store):
        if _is_sqlite(config):
            usable = yield from _file(parse_url(database.url).path, database.prefix)
            if usable:
                yield from _jobs(config, store)
                yield from _schedules(store)
                yield _clock(store)
            return
        # Not above: psycopg may not be installed, which open_store has said by now.
        from jobvisor.supervisor.cli.postgres import examine  # noqa: PLC0415

        usable = yield from examine(config, store)
        if usable:
            yield from _jobs(config, store)
            yield from _schedules(store)


def _file(path: str, prefix: str) -> Generator[Finding, None, bool]:
    """The file itself; returns whether the store may open it."""
    obstacle = _file_obstacle(path)
    if obstacle is not None:
        yield Finding(
            "database", "fail", f"{obstacle}; SQLite writes three files beside each other"
        )
        return False
    if not os.path.exists(path):
        text = f"{path} is made by the first start or by `jobvisor migrate`"
        yield Finding("database", "ok", text)
        return False
    # Read-only and beside the store: a doctor must not migrate, and must look at a file that the
    # store would refuse.
    quoted = urllib.parse.quote(path)
    with contextlib.closing(sqlite3.connect(f"file:{quoted}?mode=ro", uri=True)) as connection:
        yield _integrity(connection)
        finding = _schema(path, prefix, connection)
        yield finding
    return finding.status == "ok"


def _file_obstacle(path: str) -> str | None:
    return file_obstacle(path) or folder_obstacle(os.path.dirname(path))


def _oldest_schema(connection: sqlite3.Connection, prefix: str) -> str | None:
    """The oldest schema whose releases may still work on this one, as a newer one says of itself."""
    asked = prefixed("SELECT value FROM meta WHERE key = 'oldest_schema'", prefix)
    row = connection.execute(asked).fetchone()
    return row and str(row[0])


def _in_our_place(connection: sqlite3.Connection, prefix: str) -> str:
    """A table that has a name of ours."""
    names = {f"{prefix}{name}" for name in TABLES}
    rows = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
    return next((name for (name,) in rows if name in names), "")


def _integrity(connection: sqlite3.Connection) -> Finding:
    deadline = SYSTEM.monotonic_ns() + int(QUICK_CHECK_S * 1e9)
    connection.set_progress_handler(lambda: SYSTEM.monotonic_ns() > deadline, 100_000)
    try:
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        text = f"not finished in {QUICK_CHECK_S:.0f} s; sqlite3's `PRAGMA quick_check` takes longer"
        return Finding("integrity", "warn", text)
    finally:
        connection.set_progress_handler(None, 0)
    if found != "ok":
        return Finding("integrity", "fail", f"{found}; restore a backup or run sqlite3's .recover")
    return Finding("integrity", "ok", "quick_check found nothing")


def _schema(path: str, prefix: str, connection: sqlite3.Connection) -> Finding:
    number = told_number(path, prefix, connection) if prefix else header_number(connection)
    theirs = "" if number else _in_our_place(connection, prefix)
    oldest = None
    try:
        oldest = _oldest_schema(connection, prefix) if number else None
    except sqlite3.OperationalError:  # no such table, or no such column
        theirs = f"{prefix}meta"
    if theirs:
        text = f"the table {theirs} in {path} is another program's; {NAME_ANOTHER}"
        return Finding("schema", "fail", text)
    if number == SCHEMA:
        return Finding("schema", "ok", f"{number}")
    if number > SCHEMA and (oldest or "").isdecimal() and int(oldest or 0) <= SCHEMA:
        text = f"{number} is of a newer release, beside which this one ({SCHEMA}) may still work"
        return Finding("schema", "ok", text)
    if number > SCHEMA:
        text = f"{number} is newer than {SCHEMA} of this release; install a newer jobvisor"
        return Finding("schema", "fail", text)
    return Finding("schema", "warn", f"{number}; `jobvisor migrate` brings it to {SCHEMA}")


def _jobs(config: Config, store: Store) -> Iterator[Finding]:
    paused = store.paused()
    stopped = {each.name for each in paused if each.kind == QUEUE}
    waits = {queue: ms for queue, ms in store.oldest_pending().items() if queue not in stopped}
    unserved = [queue for queue in sorted(waits) if queue not in config.queues]
    if unserved:
        text = f"jobs wait in {', '.join(unserved)}, which no [[workers]] serves"
        yield Finding("queues", "warn", text)
    else:
        yield Finding("queues", "ok", "every waiting job has a pool that serves its queue")
    for each in paused[:PAUSED_SHOWN]:
        yield Finding(
            "paused", "warn", f"{each.kind} {each.name} is {each}; `jobvisor resume` ends that"
        )
    for text in told_unknown(store.unknown_tasks(UNKNOWN_MAX)):
        yield Finding("unknown task", "warn", text)
    for text in (
        *told_vain_shares(store.shares_in_vain(UNKNOWN_MAX)),
        *told_shareless(store.shareless(UNKNOWN_MAX)),
    ):
        yield Finding("fairness", "warn", text)
    for text in told_unknown_limits(store.unknown_limits(UNKNOWN_MAX)):
        yield Finding("unknown limit", "warn", text)
    known = [each.told.get("options", {}) for each in store.tasks()]
    if known:  # else no worker has told of its tasks yet
        for text in told_unused_limits(_idle_limits(store), used_limits(known)):
            yield Finding("unused limit", "warn", text)
    served = {queue: wait_ms for queue, wait_ms in waits.items() if queue in config.queues}
    if served:
        queue = max(served, key=lambda name: served[name])
        wait_ms = max(0, served[queue])
        text = f"the oldest has been waiting for {brief(wait_ms)} in {queue}"
        yield Finding("pending", "warn" if wait_ms > PENDING_LONG_MS else "ok", text)
    else:
        yield Finding("pending", "ok", "no job waits")


def _idle_limits(store: Store) -> list[Limit]:
    """Those that no job has lately run under or waits for: a call may name one, too."""
    return [
        each.limit
        for each in store.limit_standings()
        if not (each.running or each.waiting or each.keys)
    ]


def _schedules(store: Store) -> Iterator[Finding]:
    """Those that can make no job that anybody runs, or that nobody looks after."""
    payload, wrong = Payload(), 0
    for seen in store.schedules(limit=SCHEDULES_MAX):
        schedule = schedule_of(seen, payload)
        for text in _wrong_with(store, schedule):
            wrong += 1
            yield Finding("schedules", "warn", f"schedule {schedule.name} {text}")
    if store.has_schedules() and not wrong:
        yield Finding("schedules", "ok", "every schedule has a task that a worker knows")


def _wrong_with(store: Store, schedule: Schedule) -> Iterator[str]:
    if not schedule.next and not schedule.paused:
        yield f"does not tick: {schedule.words}"
    if told_options(store, schedule.task) is None:
        yield f"is of the task {schedule.task}, of which no worker has told; a family must import it"
    if schedule.late > SCHEDULE_LATE_S:
        late = brief(int(schedule.late * 1_000))
        yield f"is {late} late: no family of this database has a scheduler; see `jobvisor status`"


def _clock(store: Store) -> Finding:
    """Of a file, whose clock is this machine's; a server is asked for its own."""
    newest = store.find(limit=1)
    now_ms = SYSTEM.now_ms()
    ahead_ms = int(newest[0].created_at.timestamp() * 1000) - now_ms if newest else 0
    if ahead_ms > CLOCK_BACK_MS:
        text = f"job {newest[0].id} is from {brief(ahead_ms)} ahead: the clock went back"
        return Finding("clock", "warn", text)
    return Finding("clock", "ok", iso(to_datetime(now_ms)))
