"""The tables of one schema on PostgreSQL: of which release they are, and how they come to be of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import psycopg

from jobvisor.jobs.errors import SchemaError
from jobvisor.jobs.log import say
from jobvisor.jobs.store.connection import PatientConnection
from jobvisor.jobs.store.session import set_all

SCHEMA = 2  # the number of the newest migration this release knows
MIGRATION_SECONDS = 3600  # a large table may be written anew, behind another migration


class Tables:
    """One schema, as its own table `meta` describes it."""

    def __init__(self, place: str, schema: str, worded: Callable[[str], str]) -> None:
        """`worded` puts the schema's name into a statement."""
        self._place = place
        self._schema = schema
        self._worded = worded

    def check(self, connection: PatientConnection) -> None:
        """SchemaError if this release cannot work on them."""
        try:
            rows = connection.execute(self._worded(_META).encode()).fetchall()
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
            raise SchemaError(
                f"{self._place} has no tables of jobvisor in the schema {self._schema}; "
                f"run `jobvisor migrate`"
            ) from error
        meta: dict[str, str] = dict(rows)
        if meta.keys() != {"schema", "oldest_schema"}:
            raise SchemaError(
                f"{self._place}: the schema {self._schema} has a table meta that is another program's; "
                f"name another with [database] schema"
            )
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

    def migrate(self, connection: PatientConnection) -> tuple[int, int]:
        """Run the migrations that are due; the number before and after."""
        before = number = self.number(connection)
        for file in _migrations():
            if int(file.name[:4]) > number:
                number = self._migrate(connection, file)
        return before, max(before, number)

    def _migrate(self, connection: PatientConnection, file: Any) -> int:
        """One numbered file and the record that it ran, in one transaction of one process at a time."""
        number = int(file.name[:4])
        with connection.transaction():
            connection.patience = MIGRATION_SECONDS
            connection.execute(set_all({"statement_timeout": "0", "lock_timeout": "0"}, local=True))
            connection.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [self._schema]
            )
            if self.number(connection) >= number:
                return number  # somebody else was first
            connection.execute(self._worded("CREATE SCHEMA IF NOT EXISTS {schema}").encode())
            connection.execute(self._worded(file.read_text("utf-8")).encode())
            told = {"number": str(number)}
            connection.execute(self._worded(_MIGRATED).encode(), told)
        say("migrated", version=number)
        return number

    def number(self, connection: PatientConnection) -> int:
        """Of the last migration, 0 where there are no tables."""
        # Not by to_regclass: a session that has looked once in vain remembers that, and would not see
        # what another migration has committed while this one waited for the lock.
        known = connection.execute(_KNOWN, [self._schema]).fetchone()
        if known is None:
            return 0
        meta: dict[str, str] = dict(connection.execute(self._worded(_META).encode()).fetchall())
        # Somebody else's table is refused after this.
        return self._number(meta, "schema") if "schema" in meta else SCHEMA

    def _number(self, meta: Mapping[str, str], key: str) -> int:
        text = meta[key]
        if not (text.isascii() and text.isdigit()):
            raise SchemaError(
                f"{self._place}: the table meta of the schema {self._schema} says {key} = {text[:50]!r}, "
                f"which is no number of a migration; restore that row from a backup"
            )
        return int(text)


_KNOWN = b"""
SELECT 1 FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = 'meta'
"""
_META = "SELECT key, value FROM {schema}.meta WHERE key IN ('schema', 'oldest_schema')"
_MIGRATED = "UPDATE {schema}.meta SET value = %(number)s WHERE key = 'schema'"


def _migrations() -> list[Any]:
    folder = resources.files("jobvisor.jobs.store").joinpath("migrations", "postgres")
    files = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted(files, key=lambda file: file.name)
