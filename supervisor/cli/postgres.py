"""What `doctor` asks a PostgreSQL server: it only reads, and no question takes long.

Imported only where the database is a PostgreSQL and psycopg is installed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator
from typing import Any, LiteralString, NamedTuple

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.base import FamilyRow
from jobvisor.jobs.store.grants import PURPOSES, SEQUENCE
from jobvisor.jobs.store.server import OLDEST_SERVER
from jobvisor.jobs.store.tables import NAME_ANOTHER, SCHEMA
from jobvisor.jobs.url import shown_url
from jobvisor.supervisor.cli import brief
from jobvisor.supervisor.cli.finding import Finding
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.family import StateDir

__all__ = ["examine"]

CONNECT_S = 5
"""How long a server may take to answer at all, unless the URL says so itself."""

TRANSACTION_LONG_MS = 300_000
"""Autovacuum comes every minute under load: one that is kept from its work so long is behind."""

DEAD_LEAST = 100_000
"""Fewer dead rows cost nothing that can be felt."""

FAMILIES_SHOWN = 20


Findings = Generator[Finding, None, bool]


def examine(
    config: Config, store: Store, *, transaction_long_ms: int = TRANSACTION_LONG_MS
) -> Findings:
    """Every finding about the server, the tables in it and who uses them.

    Returns whether the store can work with it. Only this reports a server that is too old or cannot
    be reached, so it comes before anything that uses the store.
    """
    url = config.database.url
    yield Finding("psycopg", "ok", f"{psycopg.__version__} ({psycopg.pq.__impl__})")
    began = SYSTEM.monotonic_ns()
    try:
        server = Server(url)
    except psycopg.Error as error:
        text = f"{shown_url(url)} cannot be reached: {_error_text(error)}; is [database] url right?"
        yield Finding("database", "fail", text)
        return False
    with contextlib.closing(server):
        try:
            facts = server.facts()
            took_ms = (SYSTEM.monotonic_ns() - began) / 1e6
            yield Finding("database", "ok", f"{shown_url(url)} answers in {took_ms:.1f} ms")
            yield _version(facts)
            if facts.version < OLDEST_SERVER:
                return False
            usable = yield from _examine_server(server, facts, config, transaction_long_ms)
        except psycopg.Error as error:
            yield Finding("database", "fail", f"{shown_url(url)} went away: {_error_text(error)}")
            return False
    if usable:
        yield from _families(store)
    return usable


class Facts(NamedTuple):
    """What a server says of itself and of this session, in the order of the statement."""

    name: str
    version: int
    backend: int
    standby: bool
    read_only: bool
    unsafe: list[str]
    user: str
    database: str
    now_ms: int


class Server:
    """One connection that can only read, and not for long.

    Nothing is set for the session: a pooler would hand that on to somebody else.
    """

    def __init__(self, url: str) -> None:
        self._connection = _connected(url)
        self._connection.read_only = True

    def close(self) -> None:
        """Let go."""
        self._connection.close()

    def rows(
        self, statement: LiteralString | sql.Composed, **parameters: Any
    ) -> list[tuple[Any, ...]]:
        """What one statement returns, in a transaction of its own."""
        with self._connection.transaction(force_rollback=True):
            self._connection.execute("SET LOCAL statement_timeout = '5s'")
            self._connection.execute("SET LOCAL lock_timeout = '2s'")
            return self._connection.execute(statement, parameters).fetchall()

    def facts(self) -> Facts:
        """What the server says of itself."""
        (row,) = self.rows(
            """
            SELECT current_setting('server_version'), current_setting('server_version_num')::int,
                pg_backend_pid(), pg_is_in_recovery(),
                current_setting('default_transaction_read_only') = 'on',
                ARRAY(SELECT name FROM pg_settings WHERE setting = 'off'
                    AND name IN ('fsync', 'full_page_writes', 'synchronous_commit') ORDER BY name),
                current_user::text, current_database()::text,
                (extract(epoch FROM clock_timestamp()) * 1000)::bigint
            """
        )
        return Facts._make(row)

    @property
    def pooled(self) -> bool:
        """Whether somebody stands in front: the process that answers is not the one we were given."""
        ((backend,),) = self.rows("SELECT pg_backend_pid()")
        return bool(backend != self._connection.info.backend_pid)


def _connected(url: str) -> psycopg.Connection[Any]:
    given = conninfo_to_dict(url)  # which the store has read already
    ours = {"connect_timeout": CONNECT_S, "application_name": "jobvisor doctor"}
    words: dict[str, Any] = {name: value for name, value in ours.items() if name not in given}
    words |= {"autocommit": True, "prepare_threshold": None}
    if "," in str(given.get("host", "")) and "target_session_attrs" not in given:
        # The primary among them, as the store does; without one, what can be said of a standby.
        with contextlib.suppress(psycopg.OperationalError):
            return psycopg.connect(url, target_session_attrs="read-write", **words)
    return psycopg.connect(url, **words)


def _error_text(error: psycopg.Error) -> str:
    return " ".join(str(error).split())


def _version(facts: Facts) -> Finding:
    if facts.version < OLDEST_SERVER:
        return Finding("server", "fail", f"PostgreSQL {facts.name} is too old; 13 is the oldest")
    return Finding("server", "ok", f"PostgreSQL {facts.name}")


def _examine_server(
    server: Server, facts: Facts, config: Config, transaction_long_ms: int
) -> Findings:
    yield _writable(facts)
    yield _clock(server)
    yield _durability(facts)
    looks: tuple[tuple[str, Callable[[], Iterator[Finding]]], ...] = (
        ("pooler", lambda: _pooler(server)),
        ("connections", lambda: _connections(server, config)),
        ("transactions", lambda: _transactions(server, transaction_long_ms)),
        ("prepared", lambda: _prepared(server, transaction_long_ms)),
    )
    for name, look in looks:
        try:
            yield from look()
        except psycopg.Error as error:
            yield Finding(name, "warn", f"cannot be looked at: {_error_text(error)}")
    database = config.database
    return (yield from _schema(server, facts, database.schema, database.prefix))


def _writable(facts: Facts) -> Finding:
    if facts.standby:
        text = (
            "this server is a standby and cannot be written to; name the primary, or all hosts "
            "with ?target_session_attrs=read-write"
        )
        return Finding("writable", "fail", text)
    if facts.read_only:
        text = "default_transaction_read_only is on; switch it off for this role and database"
        return Finding("writable", "fail", text)
    return Finding("writable", "ok", "a primary")


def _durability(facts: Facts) -> Finding:
    if not facts.unsafe:
        text = "the server syncs each commit: an acknowledged job survives a power cut"
        return Finding("durability", "ok", text)
    if facts.unsafe == ["synchronous_commit"]:
        text = "synchronous_commit is off: a crash of the server may lose the last jobs; set it on"
        return Finding("durability", "warn", text)
    text = f"off are {', '.join(facts.unsafe)}: a power cut may damage every table; set them on"
    return Finding("durability", "warn", text)


def _clock(server: Server) -> Finding:
    before_ms = SYSTEM.now_ms()
    server_ms = server.facts().now_ms
    # The server read its clock somewhere between the two readings of ours.
    ahead_ms = (before_ms + SYSTEM.now_ms()) // 2 - server_ms
    if abs(ahead_ms) < 1000:
        where = "in step with"
    else:
        where = f"{brief(abs(ahead_ms))} {'ahead of' if ahead_ms > 0 else 'behind'}"
    return Finding("clock", "ok", f"this host is {where} the server, whose clock counts")


def _pooler(server: Server) -> Iterator[Finding]:
    if server.pooled:
        text = "there is one in front: workers look every 100 ms, without prepared statements"
    else:
        text = "none: the server wakes the workers"
    yield Finding("pooler", "ok", text)


def _connections(server: Server, config: Config) -> Iterator[Finding]:
    limits = server.rows(
        """
        WITH used AS (SELECT datname, usename FROM pg_stat_activity
            WHERE backend_type = 'client backend')
        SELECT 'max_connections', current_setting('max_connections')::int
                - current_setting('superuser_reserved_connections')::int
                - coalesce(current_setting('reserved_connections', true)::int, 0),
            (SELECT count(*) FROM used)
        UNION ALL SELECT 'the limit of this database', datconnlimit,
            (SELECT count(*) FROM used WHERE datname = current_database())
        FROM pg_database WHERE datname = current_database() AND datconnlimit >= 0
        UNION ALL SELECT 'the limit of this role', rolconnlimit,
            (SELECT count(*) FROM used WHERE usename = current_user)
        FROM pg_roles WHERE rolname = current_user AND rolconnlimit >= 0
        """
    )
    name, most, used = min(limits, key=lambda limit: limit[1] - limit[2])
    needed = sum(pool.processes.most for pool in config.workers) + 1
    runs = StateDir(config.family.state_dir).holder() is not None
    text = f"{used} of {most} in use ({name}); this family takes {needed}"
    if runs:
        text += ", which are among them"
    if most - used < (1 if runs else needed):
        text += f"; raise {name}, or put PgBouncer in front"
        yield Finding("connections", "warn", text)
    else:
        yield Finding("connections", "ok", text)


def _transactions(server: Server, long_ms: int) -> Iterator[Finding]:
    # Only a transaction with a snapshot or an id of its own holds vacuum back; vacuum itself does not.
    rows = server.rows(
        """
        SELECT pid, coalesce(usename, '?'), coalesce(nullif(application_name, ''), '?'),
            coalesce(state, '?'), (extract(epoch FROM clock_timestamp() - xact_start) * 1000)::bigint
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL) AND xact_start IS NOT NULL
            AND backend_type <> 'autovacuum worker'
        ORDER BY xact_start LIMIT 1
        """
    )
    old = [row for row in rows if row[4] > long_ms]
    if not old:
        yield Finding("transactions", "ok", f"none is older than {brief(long_ms)}")
        return
    pid, user, application, state, age_ms = old[0]
    text = (
        f"that of pid {pid} ({user}, {application}, {state}) is {brief(age_ms)} old: until it ends "
        "no dead row can be vacuumed, and claims grow slow; end it, if need be by "
        f"`SELECT pg_terminate_backend({pid})`"
    )
    yield Finding("transactions", "warn", text)


def _prepared(server: Server, long_ms: int) -> Iterator[Finding]:
    rows = server.rows(
        """
        SELECT gid, (extract(epoch FROM clock_timestamp() - prepared) * 1000)::bigint
        FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared
        """
    )
    for gid, age_ms in rows[:1]:
        if age_ms > long_ms:
            text = (
                f"{len(rows)}, the oldest, {gid!r}, for {brief(age_ms)}: until it ends no dead row "
                "can be vacuumed; COMMIT PREPARED or ROLLBACK PREPARED it"
            )
            yield Finding("prepared", "warn", text)


def _schema(server: Server, facts: Facts, name: str, prefix: str) -> Findings:
    """The tables: there, allowed, of this release, kept in order."""
    rows = server.rows(
        """
        SELECT has_schema_privilege(oid, 'USAGE'), has_schema_privilege(oid, 'CREATE'),
            EXISTS (SELECT 1 FROM pg_class WHERE relnamespace = pg_namespace.oid
                AND relname = %(meta)s)
        FROM pg_namespace WHERE nspname = %(schema)s
        """,
        schema=name,
        meta=f"{prefix}meta",
    )
    if not rows or not rows[0][2]:
        yield _unmigrated(server, facts, name, prefix, may_create=bool(rows and rows[0][1]))
        return False
    denied = _denied(server, name, prefix) if rows[0][0] else [f"USAGE on schema {name}"]
    if denied:
        text = (
            f"{facts.user} lacks {', '.join(denied)}; the owner of the tables runs what "
            f"`jobvisor grants {facts.user} --work` prints"
        )
        yield Finding("rights", "fail", text)
        return False
    yield Finding("rights", "ok", f"{facts.user} may read and write {name}")
    fits = _number(server, name, prefix)
    yield fits
    yield from _vacuum(server, name, prefix)
    return fits.status != "fail"


def _unmigrated(
    server: Server, facts: Facts, name: str, prefix: str, *, may_create: bool
) -> Finding:
    which = f" with the prefix {prefix}" if prefix else ""
    text = f"{name} has no tables{which} yet; `jobvisor migrate` makes them"
    ((may_add,),) = server.rows("SELECT has_database_privilege(current_database(), 'CREATE')")
    if not may_create and not may_add:
        text += f", but {facts.user} may not: GRANT CREATE ON DATABASE {facts.database} first"
    return Finding("schema", "fail", text)


def _denied(server: Server, name: str, prefix: str) -> list[str]:
    """What `jobvisor grants --work` would give this role and it has not."""
    asked = [
        (right, f"{prefix}{relation}", objects.startswith(SEQUENCE))
        for rights, objects in PURPOSES["work"]
        for right in rights.split(", ")
        for relation in objects.removeprefix(SEQUENCE).split(", ")
    ]
    rights, relations, sequences = zip(*asked, strict=True)
    rows = server.rows(
        """
        SELECT right_, string_agg(name, ', ' ORDER BY name)
        FROM unnest(%(rights)s::text[], %(relations)s::text[], %(sequences)s::bool[])
                AS asked (right_, name, is_sequence)
            CROSS JOIN to_regclass(format('%%I.%%I', %(schema)s::text, name)) AS found
        WHERE NOT CASE WHEN is_sequence THEN has_sequence_privilege(found, right_)
            ELSE has_table_privilege(found, right_) END
        GROUP BY right_ ORDER BY right_
        """,
        schema=name,
        rights=list(rights),
        relations=list(relations),
        sequences=list(sequences),
    )
    return [f"{right} on {tables} in {name}" for right, tables in rows]


def _number(server: Server, name: str, prefix: str) -> Finding:
    table = f"{prefix}meta"
    statement = sql.SQL("SELECT key, value FROM {} WHERE key IN ('schema', 'oldest_schema')")
    try:
        meta = dict(server.rows(statement.format(sql.Identifier(name, table))))
    except psycopg.errors.UndefinedColumn:
        text = f"the table {table} of {name} is another program's; {NAME_ANOTHER}"
        return Finding("schema", "fail", text)
    odd = [text for text in meta.values() if not (text.isascii() and text.isdigit())]
    if odd or "schema" not in meta:
        text = (
            f"the table {table} of {name} has no number of a migration, but {odd}; restore its rows"
        )
        return Finding("schema", "fail", text)
    number, oldest = int(meta["schema"]), int(meta.get("oldest_schema", 1))
    if oldest > SCHEMA:
        text = f"{number}, which {SCHEMA} of this release cannot work on; install a newer jobvisor"
        return Finding("schema", "fail", text)
    if number > SCHEMA:
        text = f"{number} is newer than {SCHEMA} of this release; install a newer jobvisor"
        return Finding("schema", "warn", text)
    if number < SCHEMA:
        text = f"{number}; `jobvisor migrate` brings it to {SCHEMA}"
        return Finding("schema", "fail", text)
    return Finding("schema", "ok", f"{number}, in {name}")


def _vacuum(server: Server, name: str, prefix: str) -> Iterator[Finding]:
    table = f"{prefix}jobs"
    ((on, own, live, dead, since_ms),) = server.rows(
        """
        SELECT current_setting('autovacuum') = 'on' AND current_setting('track_counts') = 'on',
            'autovacuum_enabled=false' <> ALL (coalesce(reloptions, '{}')),
            coalesce(n_live_tup, 0), coalesce(n_dead_tup, 0), (extract(epoch FROM
                clock_timestamp() - greatest(last_vacuum, last_autovacuum)) * 1000)::bigint
        FROM pg_class LEFT JOIN pg_stat_all_tables ON relid = pg_class.oid
        WHERE relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = %(schema)s)
            AND pg_class.relname = %(jobs)s
        """,
        schema=name,
        jobs=table,
    )
    if not on:
        text = "off for the server; set autovacuum and track_counts on, or claims grow slow"
        yield Finding("autovacuum", "warn", text)
    elif not own:
        text = f"off for {name}.{table}; ALTER TABLE {name}.{table} RESET (autovacuum_enabled)"
        yield Finding("autovacuum", "warn", text)
    else:
        last = "not vacuumed yet" if since_ms is None else f"vacuumed {brief(since_ms)} ago"
        yield Finding("autovacuum", "ok", f"on; {name}.{table} was {last}")
    text = f"{dead} beside {live} living ones in {name}.{table}"
    if dead > DEAD_LEAST and dead > live:
        text += f"; see what keeps vacuum from them, then VACUUM {name}.{table}"
        yield Finding("dead rows", "warn", text)
    else:
        yield Finding("dead rows", "ok", text)


def _families(store: Store) -> Iterator[Finding]:
    families = store.families()
    if not families:
        yield Finding("families", "ok", "none is running")
    for family in sorted(families, key=lambda row: -row.silent_ms)[:FAMILIES_SHOWN]:
        yield _family(family)
    if len(families) > FAMILIES_SHOWN:
        text = f"{len(families) - FAMILIES_SHOWN} more, all heard of more lately"
        yield Finding("families", "ok", text)


def _family(family: FamilyRow) -> Finding:
    who = f"{family.name} on {family.host} (pid {family.pid})"
    if family.died:
        text = f"{who} was declared dead and is being settled by another"
        return Finding("families", "warn", text)
    if family.silent_ms > family.dead_after_ms:
        text = (
            f"{who} has been silent for {brief(family.silent_ms)}: dead or cut off; any family that "
            "runs takes over its jobs"
        )
        return Finding("families", "warn", text)
    return Finding("families", "ok", f"{who} was heard of {brief(family.silent_ms)} ago")
