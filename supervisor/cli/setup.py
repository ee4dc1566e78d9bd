"""Commands before the first start and after an upgrade: write, check and examine the set-up.

`check` looks at what the files say and needs no database; `doctor` looks at the machine, the
database and the family as they are now.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click

from jobs.clock import SYSTEM, to_datetime
from jobs.errors import ConfigError, JobsError
from jobs.settings import parse_url
from jobs.store import open_store
from jobs.store.sqlite import OLDEST_SQLITE, SCHEMA, file_system
from jobs.units import duration_text, size_text
from supervisor.cli import (
    brief,
    config_option,
    json_option,
    load_config,
    print_json,
    print_table,
    say,
)
from supervisor.config import Config, render
from supervisor.family import StateDir

__all__ = ["check", "completion", "doctor", "init", "migrate"]

QUICK_CHECK_S = 10.0
"""How long doctor reads a large database before it says that it has not read all of it."""

FREE_BYTES_LEAST = 256 << 20
"""Below this a burst of jobs, or the log of the database, may fill the disk."""

PENDING_LONG_MS = 3_600_000
"""A job that waits an hour in a queue that is served means too few workers, or none."""

CLOCK_BACK_MS = 5_000
"""Machines in step differ by far less."""

_NETWORK = ("nfs", "cifs", "smb", "9p", "virtiofs", "sshfs", "ceph", "gluster", "afs", "lustre")


@click.command()
@click.argument("folder", metavar="[DIR]", default=".")
@click.option("--force", is_flag=True, help="Replace a config.toml that is there.")
def init(folder: str, force: bool) -> None:
    """Write a config.toml that shows every key."""
    path = os.path.normpath(os.path.join(folder, "config.toml"))
    try:
        os.makedirs(folder, exist_ok=True)
        # O_EXCL: two inits, or an init and an editor, cannot overwrite each other's file.
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
        with open(os.open(path, flags, 0o644), "w", encoding="utf-8") as file:
            file.write(render())
    except FileExistsError as error:
        if error.filename != path:
            raise ConfigError(f"{folder} is not a folder; name one that is, or a new one") from None
        raise ConfigError(
            f"{path} is there already and was left alone; --force replaces it"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    which = "" if os.path.normpath(folder) == "." else f" -c {path}"
    click.echo(path)
    say(f"next: `jobvisor check{which}`, then `jobvisor start{which}`")


@click.command()
@json_option
@config_option
def check(config: str | None, as_json: bool) -> None:
    """Try the configuration and the modules.

    Needs no database. The modules are imported in a process of their own. Exit code 78 when
    something is wrong; a queue nobody serves is only a warning.
    """
    loaded = load_config(config)
    tasks = _import_tasks(loaded)
    warnings = _check_warnings(loaded, tasks)
    if as_json:
        queues = list(loaded.queues)
        print_json({"config": loaded.path, "queues": queues, "tasks": tasks, "warnings": warnings})
    else:
        total = sum(pool.processes for pool in loaded.workers)
        click.echo(
            f"{loaded.path} is valid: family {loaded.family.name}, {total} workers, "
            f"queues {', '.join(loaded.queues)}"
        )
        if tasks:
            print_table(
                ["task", "queue", "retries", "timeout"],
                [[t["name"], t["queue"], t["retries"], _timeout(t["timeout_ms"])] for t in tasks],
            )
    for warning in warnings:
        say(f"warning: {warning}")


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


@click.command()
@config_option
def migrate(config: str | None) -> None:
    """Create the tables, or bring them up to this release."""
    loaded = load_config(config)
    store = open_store(loaded.database.url)
    try:
        before, after = store.migrate()
    finally:
        store.close()
    if before == after:
        click.echo(f"schema {after}: nothing to do")
    else:
        click.echo(f"schema {before} -> {after}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    For bash: eval "$(jobvisor completion bash)" in ~/.bashrc; for zsh the same in ~/.zshrc; for
    fish: jobvisor completion fish > ~/.config/fish/completions/jobvisor.fish
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 - seldom asked for

    from supervisor.cli import main  # noqa: PLC0415 - the group knows this file, not the reverse

    found = get_completion_class(shell)
    if found is None:
        raise ConfigError(f"click has no completion for {shell}; use another shell")
    click.echo(found(main, {}, "jobvisor", "_JOBVISOR_COMPLETE").source())


# What a fresh interpreter runs for `check`. The answer has a descriptor of its own, because a
# module may print; sys.path is ours, so the same files are found that start would find.
_IMPORTER = """
import json, os, sys
asked = json.loads(sys.argv[1])
sys.path[:] = asked["sys_path"]
from jobs.errors import JobsError
from jobs.registry import registry
try:
    registry.load(asked["modules"], asked["path"])
    found = [registry.get(name) for name in registry.names()]
    answer = {"tasks": [
        {"name": task.name, "queue": task.options.queue, "retries": task.options.retries,
         "timeout_ms": task.options.timeout_ms}
        for task in found
    ]}
except JobsError as error:
    answer = {"error": str(error)}
with open(asked["descriptor"], "w", encoding="utf-8", closefd=False) as file:
    json.dump(answer, file)
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)  # threads a module has started must not keep this alive
"""


def _import_tasks(config: Config) -> list[dict[str, Any]]:
    """The tasks of the user's modules with the defaults filled in, sorted by name."""
    answer = _ask_importer(config)
    if "error" in answer:
        raise ConfigError(answer["error"])
    defaults = config.defaults
    inherited = {
        "queue": defaults.queue,
        "retries": defaults.retries,
        "timeout_ms": defaults.timeout_ms,
    }
    return [
        {key: inherited[key] if key in inherited and value is None else value for key, value in t}
        for t in (task.items() for task in sorted(answer["tasks"], key=lambda task: task["name"]))
    ]


def _ask_importer(config: Config) -> dict[str, Any]:
    modules = ", ".join(config.tasks.modules)
    # A file and not a pipe: the answer may be long, and nobody reads while we wait.
    with tempfile.TemporaryFile() as answer:
        asked = {
            "sys_path": sys.path,
            "modules": config.tasks.modules,
            "path": config.tasks.path,
            "descriptor": answer.fileno(),
        }
        code = _run_importer(asked, config.family.boot_timeout_ms, modules)
        answer.seek(0)
        text = answer.read()
    try:
        return dict(json.loads(text))
    except ValueError:
        ended = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        raise ConfigError(
            f"importing {modules} ended the process {ended}; import it by hand to see why"
        ) from None


def _run_importer(asked: dict[str, Any], timeout_ms: int, modules: str) -> int:
    # A session of its own, so that whatever the modules start is killed with it. What they print
    # goes to stderr: stdout is our data.
    importer = subprocess.Popen(
        [sys.executable, "-P", "-c", _IMPORTER, json.dumps(asked)],
        stdin=subprocess.DEVNULL,
        stdout=2,
        pass_fds=[asked["descriptor"]],
        start_new_session=True,
    )
    try:
        return importer.wait(timeout_ms / 1000)
    except subprocess.TimeoutExpired:
        raise ConfigError(
            f"importing {modules} took longer than {duration_text(timeout_ms)}; "
            "make the import faster or raise [supervisor] boot_timeout"
        ) from None
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(importer.pid, signal.SIGKILL)
        importer.wait()


def _check_warnings(config: Config, tasks: list[dict[str, Any]]) -> list[str]:
    warnings = []
    if not tasks:
        warnings.append(f"no task in {', '.join(config.tasks.modules)}; put @task on a function")
    unserved: dict[str, list[str]] = {}
    for task in tasks:
        if task["queue"] not in config.queues:
            unserved.setdefault(task["queue"], []).append(task["name"])
    for queue, names in unserved.items():
        warnings.append(
            f"no pool serves queue {queue!r} of {', '.join(names)}; "
            "add it to the queues of a [[workers]]"
        )
    return warnings


def _timeout(timeout_ms: int) -> str:
    return duration_text(timeout_ms) if timeout_ms else "none"


class Finding(NamedTuple):
    """What one check of `doctor` found; `status` is ok, warn or fail."""

    check: str
    status: str
    text: str


def _examine(path: str | None) -> Iterator[Finding]:
    """Every check, in order; one that cannot be made is a finding too."""
    yield from (_python(), _sqlite(), _core_size())
    try:
        config = load_config(path)
    except JobsError as error:
        yield Finding("configuration", "fail", str(error))
        return
    yield Finding("configuration", "ok", str(config.path))
    checks: tuple[tuple[str, Callable[[Config], Iterator[Finding]]], ...] = (
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


def _sqlite() -> Finding:
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
        places["database"] = os.path.dirname(target.path)
    for name, place in places.items():
        folder = _existing(place)
        kind = file_system(folder)
        free = os.statvfs(folder)
        free_bytes = free.f_bavail * free.f_frsize
        check = f"disk of {name}"
        if kind.removeprefix("fuse.").startswith(_NETWORK):
            text = f"{kind}, a network file system: locks and logs break there; use a local disk"
            yield Finding(check, "fail", text)
        elif name == "database" and kind in {"tmpfs", "ramfs", "overlay"}:
            text = f"{kind}: the jobs go with the {'container' if kind == 'overlay' else 'machine'}"
            yield Finding(check, "warn", f"{text}; use a lasting disk")
        elif free_bytes < FREE_BYTES_LEAST:
            yield Finding(check, "warn", f"{kind}, only {size_text(free_bytes)} free")
        else:
            yield Finding(check, "ok", f"{kind or 'local'}, {size_text(free_bytes)} free")


def _existing(place: str) -> str:
    """The folder itself, or the nearest one above it that is there."""
    while not os.path.isdir(place):
        place = os.path.dirname(place)
    return place


def _inotify(config: Config) -> Iterator[Finding]:
    try:
        with open("/proc/sys/fs/inotify/max_user_instances", encoding="ascii") as file:
            most = int(file.read())
    except FileNotFoundError:
        yield Finding("inotify", "warn", "not on this system: workers look every 100 ms instead")
        return
    needed = sum(pool.processes for pool in config.workers)
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
    from supervisor.cli.family import trouble  # noqa: PLC0415 - only this check needs it

    reason = trouble(state.status(), pid)
    text = f"{config.family.name} runs as pid {pid or 'of another container'}"
    yield Finding("family", "warn" if reason else "ok", f"{text}; {reason}" if reason else text)


def _database(config: Config) -> Iterator[Finding]:
    target = parse_url(config.database.url)
    if not os.path.exists(target.path):
        text = f"{target.path} is made by the first start or by `jobvisor migrate`"
        yield Finding("database", "ok", text)
        return
    # Read-only and beside the store: a doctor must not migrate, and must look at a file that the
    # store would refuse.
    quoted = urllib.parse.quote(target.path)
    with contextlib.closing(sqlite3.connect(f"file:{quoted}?mode=ro", uri=True)) as connection:
        yield _integrity(connection)
        schema = int(connection.execute("PRAGMA user_version").fetchone()[0])
        yield _schema(schema)
    if schema == SCHEMA:
        yield from _jobs(config)


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


def _schema(number: int) -> Finding:
    if number == SCHEMA:
        return Finding("schema", "ok", f"{number}")
    if number > SCHEMA:
        text = f"{number} is newer than {SCHEMA} of this release; install a newer jobvisor"
        return Finding("schema", "warn", text)
    return Finding("schema", "warn", f"{number}; `jobvisor migrate` brings it to {SCHEMA}")


def _jobs(config: Config) -> Iterator[Finding]:
    with contextlib.closing(open_store(config.database.url)) as store:
        oldest = store.oldest_pending()
        newest = store.find(limit=1)
    now_ms = SYSTEM.now_ms()
    unserved = [queue for queue in sorted(oldest) if queue not in config.queues]
    if unserved:
        text = f"jobs wait in {', '.join(unserved)}, which no [[workers]] serves"
        yield Finding("queues", "warn", text)
    else:
        yield Finding("queues", "ok", "every waiting job has a pool that serves its queue")
    waits = {queue: now_ms - due for queue, due in oldest.items() if queue in config.queues}
    if waits:
        queue = max(waits, key=lambda name: waits[name])
        wait = max(0, waits[queue])
        text = f"the oldest has been waiting for {brief(wait)} in {queue}"
        yield Finding("pending", "warn" if wait > PENDING_LONG_MS else "ok", text)
    else:
        yield Finding("pending", "ok", "no job waits")
    ahead_ms = int(newest[0].created_at.timestamp() * 1000) - now_ms if newest else 0
    if ahead_ms > CLOCK_BACK_MS:
        text = f"job {newest[0].id} is from {brief(ahead_ms)} ahead: the clock went back"
        yield Finding("clock", "warn", text)
    else:
        yield Finding("clock", "ok", to_datetime(now_ms).isoformat(timespec="seconds"))
