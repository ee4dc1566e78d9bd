"""The tables of one schema on PostgreSQL: of which release they are, and how they come to be of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psycopg
from psycopg import sql

from jobvisor.jobs.errors import SchemaError
from jobvisor.jobs.log import say
from jobvisor.jobs.store.connection import PatientConnection
from jobvisor.jobs.store.prefix import prefixed
from jobvisor.jobs.store.session import set_all
from jobvisor.jobs.store.shipped import Script, read_migrations

SCHEMA = 5  # the number of the newest migration this release knows
CHANNEL_BYTES = 63  # PostgreSQL knows no longer name
NAME_ANOTHER = (
    "name another [database] schema, or give ours names of their own by another [database] prefix"
)
MIGRATION_SECONDS = 3600  # a large table may be written anew, behind another migration


class Tables:
    """One schema, as its own table `meta` describes it."""

    def __init__(self, place: str, schema: str, prefix: str, worded: Callable[[str], str]) -> None:
        """`worded` puts the names of the schema and of ours in it into a statement."""
        self._place = place
        self._schema = schema
        self._prefix = prefix
        self._meta = f"{prefix}meta"
        self._key = lock_key(schema, prefix)
        self._worded = worded

    def check(self, connection: PatientConnection) -> None:
        """SchemaError if this release cannot work on them."""
        try:
            meta = self._facts(connection)
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            which = f" with the prefix {self._prefix}" if self._prefix else ""
            raise SchemaError(
                f"{self._place} has no tables of jobvisor in the schema {self._schema}{which}; "
                f"run `jobvisor migrate`"
            ) from error
        if meta.keys() != {"schema", "oldest_schema"}:
            raise self._anothers()
        number, oldest = (self._number(meta, key) for key in ("schema", "oldest_schema"))
        if number < SCHEMA:
            raise SchemaError(
                f"{self._place} has schema {number}, and this release needs {SCHEMA}; "
                f"run `jobvisor migrate`"
            )
        if oldest > SCHEMA:
            raise SchemaError(
                f"{self._place} has schema {number}, and this release knows {SCHEMA}; "
                f"install a newer jobvisor"
            )

    def _facts(self, connection: PatientConnection) -> dict[str, str]:
        try:
            return dict(connection.execute(self._worded(_META).encode()).fetchall())
        except _FOREIGN as error:
            raise self._anothers(error) from error

    def _anothers(self, error: psycopg.Error | None = None) -> SchemaError:
        why = error or f"the table {self._meta} has no number of a migration"
        return SchemaError(
            f"{self._place}: tables in the schema {self._schema} are another program's "
            f"({' '.join(str(why).split())[:200]}); {NAME_ANOTHER}"
        )

    def migrate(self, connection: PatientConnection) -> tuple[int, int]:
        """Run the migrations that are due; the number before and after."""
        before = number = self.number(connection)
        if self._prefix:
            self._make_schema(connection)
        for script in read_migrations("postgres"):
            if int(script.name[:4]) > number:
                number = self._migrate(connection, script)
        return before, max(before, number)

    def _migrate(self, connection: PatientConnection, script: Script) -> int:
        """One numbered script and the record that it ran, in one transaction of one process at a time."""
        number = int(script.name[:4])
        with self._alone(connection, self._key):
            if self.number(connection) >= number:
                return number  # somebody else was first
            if not self._prefix:
                connection.execute(self._worded("CREATE SCHEMA IF NOT EXISTS {schema}").encode())
            try:
                connection.execute(self._worded(script.text).encode())
            except _TAKEN as error:
                raise self._anothers(error) from error
            told = {"number": str(number)}
            connection.execute(self._worded(_MIGRATED).encode(), told)
        say("migrated", version=number)
        return number

    def _make_schema(self, connection: PatientConnection) -> None:
        """Where there is none: a migration with another prefix may be about to make it too."""
        if not connection.execute(_HAS_SCHEMA, [self._schema]).fetchone():
            with self._alone(connection, self._schema):
                connection.execute(self._worded("CREATE SCHEMA IF NOT EXISTS {schema}").encode())

    @contextmanager
    def _alone(self, connection: PatientConnection, key: str) -> Iterator[None]:
        """A transaction that one process at a time is in, with time for all it takes."""
        with connection.transaction():
            connection.patience = MIGRATION_SECONDS
            connection.execute(set_all({"statement_timeout": "0", "lock_timeout": "0"}, local=True))
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [key])
            yield

    def number(self, connection: PatientConnection) -> int:
        """Of the last migration, 0 where there are no tables."""
        # Not by to_regclass: a session that has looked once in vain remembers that, and would not see
        # what another migration has committed while this one waited for the lock.
        known = connection.execute(prefixed(_KNOWN, self._prefix).encode(), [self._schema])
        if known.fetchone() is None:
            return 0
        meta = self._facts(connection)
        # Somebody else's table is refused after this.
        return self._number(meta, "schema") if "schema" in meta else SCHEMA

    def _number(self, meta: Mapping[str, str], key: str) -> int:
        text = str(meta[key])
        if not (text.isascii() and text.isdigit()):
            raise SchemaError(
                f"{self._place}: the table {self._meta} of the schema {self._schema} says "
                f"{key} = {text[:50]!r}, which is no number of a migration; restore that row from a backup"
            )
        return int(text)


def names(schema: str, prefix: str) -> dict[str, sql.Composable]:
    """What our statements call by name, for each that they leave open."""
    objects = {
        "jobs_id": "jobs_id_seq",
        "changes_number": "changes_number_seq",
        "jobs_table": "jobs",
        "attempts_table": "attempts",
    }
    objects |= {"woken": "woken", "followed": "followed"}
    channel = lock_key(schema, prefix).encode()[:CHANNEL_BYTES].decode(errors="ignore")
    return {
        "schema": sql.Identifier(schema),
        "channel": sql.Literal(channel),
        "listened": sql.Identifier(channel),
        **{key: sql.Literal(f'"{schema}".{prefix}{name}') for key, name in objects.items()},
    }


def lock_key(schema: str, prefix: str) -> str:
    """One text for each pair of both, and the schema's name alone for who has no prefix."""
    return f"{prefix}:{schema}" if prefix else schema


#: Another program's table `meta` has other columns, or of other types.
_FOREIGN = (
    psycopg.errors.UndefinedColumn,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidTextRepresentation,
)
#: And what it calls by a name of ours is in the way of a migration.
_TAKEN = (
    psycopg.errors.DuplicateTable,
    psycopg.errors.DuplicateFunction,
    psycopg.errors.DuplicateObject,
    psycopg.errors.WrongObjectType,
)
_HAS_SCHEMA = b"SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %s"
_KNOWN = """
SELECT 1 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = 'meta'
"""
_META = "SELECT key, value FROM {schema}.meta WHERE key IN ('schema', 'oldest_schema')"
_MIGRATED = "UPDATE {schema}.meta SET value = %(number)s WHERE key = 'schema'"
