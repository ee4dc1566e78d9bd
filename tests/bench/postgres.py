"""PostgreSQL under measurement, as durable as it is by default; its bare loop is psycopg alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property, partial
from typing import Any, LiteralString

import psycopg

from jobvisor.jobs.clock import SYSTEM
from tests.bench.database import BATCH, Database, Enqueuer
from tests.bench.processes import meanwhile, together
from tests.postgres import Databases

LISTENERS = 2  # as many as a family of two workers at rest

# The limit is a literal: for a parameter the planner assumes a tenth of the table, and may prefer
# to hash all of it.
CLAIM: LiteralString = f"""
WITH next AS MATERIALIZED (SELECT id FROM jobvisor.jobs WHERE state = 'pending' AND queue = 'default'
    ORDER BY priority DESC, turn, id LIMIT {BATCH} FOR UPDATE SKIP LOCKED)
UPDATE jobvisor.jobs AS job SET state = 'running', attempt = attempt + 1, owner = %s, claim = %s,
    claimed_at = now()
FROM next WHERE job.id = next.id
RETURNING job.id, job.task, job.args, job.kwargs
"""
SETTLE = """
UPDATE jobvisor.jobs SET state = 'succeeded', finished_at = now()
WHERE id = ANY(%s) AND state = 'running' AND owner = %s AND claim = %s
"""
ROWS = """
INSERT INTO jobvisor.jobs (task, state, priority, run_at, finished_at, owner, claim)
SELECT 'app:noop', %(state)s, %(priority)s, now() + %(ahead)s * interval '1 day',
    CASE WHEN %(finished)s THEN now() END, CASE WHEN %(finished)s THEN 1 END, 1
FROM generate_series(1, %(rows)s)
"""
INSERT = "INSERT INTO jobvisor.jobs (task) VALUES ('app:noop')"
INSERT_AND_NOTIFY = """
WITH job AS (INSERT INTO jobvisor.jobs (task) VALUES ('app:noop') RETURNING id)
SELECT pg_notify('jobvisor', '') FROM job
"""
SETTINGS = (
    "server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers",
    "max_wal_size",
)  # fmt: skip
SIZE = """
SELECT pg_size_pretty(pg_table_size('jobvisor.jobs')),
    (SELECT pg_size_pretty(pg_relation_size(indexrelid)) FROM pg_stat_user_indexes
        WHERE schemaname = 'jobvisor' AND indexrelname = 'jobs_pending'),
    n_dead_tup
FROM pg_stat_user_tables WHERE schemaname = 'jobvisor' AND relname = 'jobs'
"""


def described(server: Databases) -> str:
    """The server's settings that decide what a commit costs."""
    values = (f"{name} {server.sql(f'SHOW {name}')[0][0]}" for name in SETTINGS)
    return f"PostgreSQL: {', '.join(values)}"


class Postgres(Database):
    """One database of a server, dropped afterwards."""

    is_server = True

    def __init__(self, server: Databases) -> None:
        self._server = server
        self.url = server.new_database()

    def bare_loop(self, processes: int) -> float:
        """Settle the last batch and claim the next in one transaction, both sent at once.

        On the migrated table, with prepared statements and each commit durable.
        """
        return together(processes, self._bare)

    def _bare(self, owner: int) -> Callable[[], None]:
        connection = psycopg.connect(self.url, prepare_threshold=0)

        def loop() -> None:
            claim = 0
            rows: list[tuple[Any, ...]] = []
            while True:
                claim += 1
                with connection.pipeline():
                    if rows:
                        settled = ([row[0] for row in rows], owner, claim - 1)
                        connection.execute(SETTLE, settled)
                    claimed = connection.execute(CLAIM, (owner, claim))
                    connection.commit()
                    rows = claimed.fetchall()
                if not rows:
                    return

        return loop

    def insert(self, task: str) -> tuple[int, int]:
        query = "INSERT INTO jobvisor.jobs (task) VALUES (%s) RETURNING id"
        with psycopg.connect(self.url) as connection:
            [(number,)] = connection.execute(query, (task,)).fetchall()
            connection.commit()
            returned = SYSTEM.monotonic_ns()
        return number, returned

    def fill(self, pending: int, scheduled: int, finished: int) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            for rows, state, priority, ahead in (
                (finished, "succeeded", 0, 0),
                (scheduled, "scheduled", 10, 1),
                (pending, "pending", 0, 0),
            ):
                if rows:
                    values = {
                        "rows": rows, "state": state, "priority": priority, "ahead": ahead,
                        "finished": state == "succeeded",
                    }  # fmt: skip
                    connection.execute(ROWS, values)
        self.tidy()

    def tidy(self) -> None:
        """As autovacuum and the checkpointer would have left it."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE) jobvisor.jobs")
            with suppress(psycopg.errors.InsufficientPrivilege):  # somebody else's server
                connection.execute("CHECKPOINT")

    def is_pending(self) -> bool:
        query = (
            "SELECT EXISTS (SELECT FROM jobvisor.jobs WHERE state = 'pending' AND queue = 'default'"
            " ORDER BY priority DESC, turn, id LIMIT 1)"
        )
        return bool(self._watcher.execute(query).fetchall()[0][0])

    @cached_property
    def _watcher(self) -> psycopg.Connection[tuple[Any, ...]]:
        # Statistics of a table that was all pending would have it read from the start, dead rows
        # and all, while the family works.
        return psycopg.connect(self.url, autocommit=True, options="-c enable_seqscan=off")

    def span(self) -> float:
        query = "SELECT extract(epoch FROM max(finished_at) - min(claimed_at)) FROM jobvisor.jobs"
        with psycopg.connect(self.url) as connection:
            return float(connection.execute(query).fetchall()[0][0])

    def connections(self, pids: Sequence[int]) -> int:
        del pids  # the server knows its clients by their names
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'jobvisor % worker %'"
        return int(self._server.sql(query)[0][0])

    def ways(self) -> Mapping[str, Enqueuer]:
        plain, naive = "plain INSERT, no notify", "plain INSERT, pg_notify in every transaction"
        return {
            "notify on": self.client_of(notify=True),
            "notify off": self.client_of(notify=False),
            "plain INSERT, notify by the table's trigger": partial(self._plain, INSERT, "on"),
            plain: partial(self._plain, INSERT, "off"),
            naive: partial(self._plain, INSERT_AND_NOTIFY, "off"),
        }

    def _plain(self, query: LiteralString, trigger: str) -> Callable[[], object]:
        connection = psycopg.connect(
            self.url,
            autocommit=True,
            prepare_threshold=0,
            options=f"-c jobvisor.notify={trigger}",
        )
        return lambda: connection.execute(query)

    def audience(self) -> AbstractContextManager[None]:
        return meanwhile(LISTENERS, self._listen)

    def _listen(self, _number: int) -> Callable[[], None]:
        connection = psycopg.connect(self.url, autocommit=True)
        connection.execute("LISTEN jobvisor")

        def hear() -> None:
            for _ in connection.notifies():
                pass

        return hear

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Another session that has read one row and forgets to end its transaction."""
        with psycopg.connect(self.url) as connection:
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.execute("SELECT id FROM jobvisor.jobs LIMIT 1")
            yield

    def size(self) -> str:
        """How large the table and what a claim reads of it have become."""
        with psycopg.connect(self.url) as connection:
            [(table, index, dead)] = connection.execute(SIZE).fetchall()
        return f"table {table}, jobs_pending {index}, {dead:,} dead rows"

    def drop(self) -> None:
        if "_watcher" in self.__dict__:
            self._watcher.close()
        self._server.drop_database(self.url)
