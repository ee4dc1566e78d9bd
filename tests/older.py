"""A database as an older release left it, and one whose migration takes as long as a test needs."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import psycopg
import sqlite_utils

from jobvisor.jobs.store import Store, open_store, schema
from jobvisor.jobs.store.postgres import PostgresStore
from jobvisor.jobs.store.shipped import read_migrations

#: The numbers of the schema of 0.2.0, of 0.3.0, of 0.4.0, and of 0.5.0.
SCHEMA_0_2 = {"sqlite": 2, "postgres": 1}
SCHEMA_0_3 = {"sqlite": 3, "postgres": 2}
SCHEMA_0_4 = {"sqlite": 4, "postgres": 3}
SCHEMA_0_5 = {"sqlite": 5, "postgres": 4}

#: The migration to 0.3.0 removes this family, and counts to `steps` for it.
SLOW = """
CREATE TABLE counted (number INTEGER);
CREATE VIEW counting AS
    WITH RECURSIVE to_here (number) AS (
        SELECT 1 UNION ALL SELECT number + 1 FROM to_here WHERE number < {steps}
    )
    SELECT count(*) AS number FROM to_here;
CREATE TRIGGER counts BEFORE DELETE ON families WHEN old.id = 1 BEGIN
    INSERT INTO counted SELECT number FROM counting;
END;
INSERT INTO families VALUES (1, 'theirs', 'h', 'b', 1, -1, 1, 'v', 's', 1, 1, 1, NULL);
"""


def scripts(dialect: str, numbers: Mapping[str, int]) -> dict[str, str]:
    """The migrations of an older release, by name."""
    return dict(read_migrations(dialect)[: numbers[dialect]])


def make_old(path: Path, rows: str = "", *, numbers: Mapping[str, int] = SCHEMA_0_2) -> None:
    """Make a SQLite file of an older release, then run this SQL in it."""
    with closing(sqlite3.connect(path)) as connection:
        migrations = sqlite_utils.Migrations("jobvisor")
        for name, script in scripts("sqlite", numbers).items():
            migrations(name=name)(schema._migration(script))
        migrations.apply(sqlite_utils.Database(connection))
        connection.executescript(rows)


def old_postgres(url: str, rows: str = "", *, numbers: Mapping[str, int]) -> Store:
    """Make the tables of an older release in a server's database, and run this SQL there; a store of it."""
    store = open_store(url)
    assert isinstance(store, PostgresStore)
    with psycopg.connect(url, autocommit=True) as server:
        server.execute("CREATE SCHEMA jobvisor")
        for script in scripts("postgres", numbers).values():
            server.execute(store._worded(script).encode())
        server.execute(
            "UPDATE jobvisor.meta SET value = %s WHERE key = 'schema'", [str(numbers["postgres"])]
        )
        server.execute("SET search_path = jobvisor")
        server.execute(rows.encode())
    return store
