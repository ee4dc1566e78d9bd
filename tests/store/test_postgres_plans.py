"""The plans of PostgreSQL's statements: no statement of a loop reads the whole table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from jobvisor.jobs.store.postgres import PostgresStore
from jobvisor.jobs.store.statements import statements
from tests.store.database import PostgresDatabase


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PostgresDatabase]:
    made = PostgresDatabase(tmp_path)
    yield made
    made.close()


@pytest.fixture
def store(database: PostgresDatabase) -> PostgresStore:
    made = database.open()
    assert isinstance(made, PostgresStore)
    return made


PEOPLE = {"counts", "task_names"}  # whose reader is told that it reads the whole table
WALKS = {
    "above.all", "below.all", "count.all", "find.all", "ids.all", "oldest_pending", "enqueued_alone",
}  # page by page, or a queue  # fmt: skip
#: With statistics that say how many there are, and a LIMIT: a tenth of a table is read in its own order.
FOR_PAGES = ("count_all.", "count_few.", "find_few.", "ids_few.", "queues.")
UNPLANNED = {"copy", "hold_place", "let_go", "replaced"}
ORDERED = [
    "claim",
    "claim_unsuspected",
    "claim_suspects",
    "claim_further",
    "claim_further_unsuspected",
    "suspects",
    "latency",
    "promote",
    "next_due",
    "prune_kept",
    "prune_look",
]  # the index is the order

VALUES: dict[str, Any] = {
    "queue": "default", "state": "succeeded", "task": "app:f", "args": "[]", "kwargs": "{}",
    "policy": None, "unique_key": "k", "result": "1", "error": "e", "deferred": "retry",
    "progress": "{}", "key": "schema", "before": 2**62, "error_type": "E", "text": "t",
    "text_in_json": "t", "who": "w", "verb": "v", "what": "w", "rows": "[]", "groups": "[]",
    "after_name": "n", "after_key": "k", "kinds": "[]", "parked": "task:app:f", "within": False,
    "queues": "[]", "at": None, "schedule": "s",
    "name": "mail", "source": "config", "family_name": "main", "declared_by": "[]", "cron": "@daily",
    "timezone": "UTC", "keys": "{}", "catch_up": "latest", "overlap": "allow",
    "waits": True, "share": "s",
}  # fmt: skip
CONDITION = re.compile(r"(?:\(|WHEN )%\((\w+)\)s (?:AND|OR|THEN)")
PARAMETER = re.compile(r"%\((\w+)\)s(::\w+(?:\[\])?)?")

Node = dict[str, Any]


def nodes(node: Node) -> Iterator[Node]:
    yield node
    for below in node.get("Plans", ()):
        yield from nodes(below)


def reads_all(node: Node) -> bool:
    """Whether this node goes through every row, be it along the primary key."""
    if node.get("Relation Name") not in ("jobs", "attempts"):
        return False
    kind = node["Node Type"]
    whole = node.get("Index Name", "").endswith("_pkey") and "Index Cond" not in node
    return kind == "Seq Scan" or (kind.startswith("Index") and whole)


def compares_each_with_each(node: Node) -> bool:
    """Whether each row found is held against a whole list: quadratic, unlike a look into an index."""
    if node["Node Type"] == "Nested Loop" and "Join Filter" in node:
        return True
    return node.get("Relation Name") == "jobs" and "ANY (" in node.get("Filter", "")


class Planner:
    """Plans of the statements as a connection of ours would make them."""

    def __init__(
        self,
        database: PostgresDatabase,
        store: PostgresStore,
        texts: Mapping[str, str] | None = None,
    ) -> None:
        """`texts` are the statements, where they are not those of this release."""
        self.database = database
        self.texts = texts or statements("postgres")
        self._store = store
        # The session's settings are those of the product's own connection.
        self._execute = store._connected().execute
        store._connected().prepare_threshold = None

    def forget_settings(self) -> None:
        """As behind a pooler, where the session is somebody else's."""
        self._execute(b"RESET ALL")

    def fill(self) -> None:
        """A table that has been in use: the finished are in front, as everywhere."""
        self.database.sql("ALTER TABLE jobs DISABLE TRIGGER USER")
        for state, number in (
            ("succeeded", 20_000), ("scheduled", 3_000), ("running", 1_000), ("pending", 2_000),
        ):  # fmt: skip
            self.database.sql(
                "INSERT INTO jobs (task, state, finished_at, run_at, owner, claim, claimed_at)"
                " SELECT 'app:f', s, CASE WHEN s = 'succeeded' THEN now() END, now(), 1 + n % 3, 1,"
                " now() FROM generate_series(1, ?::int) AS n, (VALUES (?::text)) AS v (s)",
                number,
                state,
            )
        self.database.sql("INSERT INTO jobs (task, queue) VALUES ('app:f', 'rare')")
        self.database.sql(
            "INSERT INTO attempts (job, attempt, owner, claim, outcome, finished_at)"
            " SELECT id, 1, 1, 1, 'crash', now() FROM jobs LIMIT 3000"
        )
        self.database.sql("ANALYZE jobs")
        self.database.sql("ANALYZE attempts")

    def plan(self, name: str, *, generic: bool, **values: Any) -> list[Node]:
        """The nodes of one plan: `generic` is that of a prepared statement in the long run."""
        parameters: list[Any] = []
        types: list[str] = []
        text = self.texts[name]
        known = {**VALUES, **dict.fromkeys(CONDITION.findall(text), False), **values}

        def number(found: re.Match[str]) -> str:
            word, cast = found[1], found[2] or ""
            value = known.get(word, 1)
            if cast.endswith("[]"):
                value = [value] * 3
            elif cast == "::json" and not isinstance(value, str | None):
                value = json.dumps([value] * 3)  # an array in JSON's clothes
            types.append(_type(value, cast))
            parameters.append(value)
            return f"${len(parameters)}{cast}"

        text = PARAMETER.sub(number, self._store._worded(text))
        declared = f"({', '.join(types)})" if types else ""
        given = sql.SQL(", ").join(map(sql.Literal, parameters)).as_string(None)
        given = f"({given})" if parameters else ""
        mode = "force_generic_plan" if generic else "force_custom_plan"
        self._execute(b"DEALLOCATE ALL")
        self._execute(f"SET plan_cache_mode = {mode}".encode())
        self._execute(f"PREPARE planned{declared} AS {text}".encode())
        asked = f"EXPLAIN (FORMAT JSON) EXECUTE planned{given}"
        row = self._execute(asked.encode()).fetchone()
        assert row is not None
        return list(nodes(row[0][0]["Plan"]))


def _type(value: Any, cast: str) -> str:
    if cast.endswith("[]"):
        return cast[2:]
    if isinstance(value, bool):
        return "boolean"
    return "bigint" if isinstance(value, int) else "unknown"


@pytest.fixture
def planner(database: PostgresDatabase, store: PostgresStore) -> Planner:
    return Planner(database, store)


def whole_readers(planner: Planner, *, generic: bool, but: tuple[str, ...] = ()) -> dict[str, Any]:
    """The statements of loops that would read the whole table, with what they read."""
    found = {}
    for name in set(planner.texts) - PEOPLE - WALKS - UNPLANNED:
        if name.startswith(but):
            continue
        # One queue of many rows and one of few: statistics know both.
        for queue in ("default", "rare", "empty"):
            bad = [
                node for node in planner.plan(name, generic=generic, queue=queue) if reads_all(node)
            ]
            if bad:
                found[name] = bad
    return found


@pytest.mark.parametrize("generic", [True, False], ids=["prepared", "each time anew"])
@pytest.mark.parametrize("filled", [False, True], ids=["new", "filled and analysed"])
def test_no_statement_of_a_loop_reads_the_whole_table(
    planner: Planner, filled: bool, generic: bool
) -> None:
    if filled:
        planner.fill()
    assert whole_readers(planner, generic=generic) == {}


def test_behind_a_pooler_too_no_statement_of_a_loop_reads_the_whole_table(planner: Planner) -> None:
    # Nothing is prepared there, so only the plans for the table as it is matter.
    planner.fill()
    planner.forget_settings()
    assert whole_readers(planner, generic=False, but=FOR_PAGES) == {}


@pytest.mark.parametrize(
    "name",
    ["find.all", "find.listed", "find_few.failed", "find_few.succeeded", "oldest_pending"],
)
def test_what_people_ask_for_is_found_by_an_index(planner: Planner, name: str) -> None:
    planner.fill()
    assert not [node for node in planner.plan(name, generic=True) if reads_all(node)]


@pytest.mark.parametrize("generic", [True, False], ids=["prepared", "each time anew"])
@pytest.mark.parametrize("filled", [False, True], ids=["new", "filled and analysed"])
@pytest.mark.parametrize("name", ORDERED)
def test_a_statement_takes_its_order_from_its_index(
    planner: Planner, name: str, filled: bool, generic: bool
) -> None:
    if filled:
        planner.fill()
    kinds = [node["Node Type"] for node in planner.plan(name, generic=generic)]
    assert not any("Sort" in kind for kind in kinds), kinds


INDEX = {
    "expire": "jobs_timed",
    "expire_rows": "jobs_timed",
    "fail_overdue": "jobs_timed",
    "fail_overdue_rows": "jobs_timed",
    "next_end": "jobs_timed",
    "parked_tasks": "jobs_parked",
    "unpark": "jobs_parked",
    "unknown_tasks": "jobs_resting",
    "promote": "jobs_scheduled",
    "next_due": "jobs_scheduled",
    "newest_pending": "jobs_pending",
    "find.listed": "jobs_listed",
    "ids.listed": "jobs_listed",
    "below.listed": "jobs_listed",
    "above.listed": "jobs_listed",
    "count.listed": "jobs_listed",
    "failure_groups": "jobs_failures",
    "failures": "jobs_failures",
    "prunable_kept": "jobs_timed",
}


@pytest.mark.parametrize("generic", [True, False], ids=["prepared", "each time anew"])
@pytest.mark.parametrize("filled", [False, True], ids=["new", "filled and analysed"])
def test_a_statement_uses_the_index_that_is_made_for_it(
    planner: Planner, filled: bool, generic: bool
) -> None:
    if filled:
        planner.fill()
    used = {
        name: {node["Index Name"]
               for node in planner.plan(name, generic=generic, state="failed", job=None)
               if node.get("Relation Name") == "jobs" and "Index Name" in node}
        for name in INDEX
    }  # fmt: skip
    if not filled:
        del used["failures"]  # of an empty table no statistics tell its two indexes apart
    assert used == {name: {INDEX[name]} for name in used}


OF_KEYS = (
    "holder", "held_keys", "free_keys", "take_key", "hold_apart", "hold_again", "replace", "supersede",
    "held_by", "import_key", "uniques_page", "trim_uniques", "retry", "snooze", "holders", "requeue_order",
)  # fmt: skip


@pytest.mark.parametrize("generic", [True, False], ids=["prepared", "each time anew"])
@pytest.mark.parametrize("filled", [False, True], ids=["new", "filled and analysed"])
def test_a_unique_key_is_found_by_an_index_in_both_tables(
    planner: Planner, filled: bool, generic: bool
) -> None:
    if filled:
        planner.fill()
        planner.database.sql("INSERT INTO uniques (key, job) SELECT 'key ' || id, id FROM jobs")
        planner.database.sql("ANALYZE uniques")
    asked = {
        "keys": '["key 1", "key 2"]',
        "jobs": "[1, 2]",
        "rows": '[["key 1", 1]]',
        "limit": 2_000,
    }
    for name in OF_KEYS:
        nodes = planner.plan(name, generic=generic, **asked)
        whole = [
            node for node in nodes if node["Node Type"] == "Seq Scan" and "Relation Name" in node
        ]
        assert (name, [node for node in nodes if reads_all(node)], whole) == (name, [], [])


@pytest.mark.parametrize(
    "name", ["schedules", "hold_schedule", "has_tick", "looked_after", "trim_ticks"]
)
def test_no_look_at_a_schedule_reads_the_ticks_of_all(planner: Planner, name: str) -> None:
    planner.database.sql(
        "INSERT INTO ticks (schedule, tick, job) SELECT 's' || n % 20, to_timestamp(n), n"
        " FROM generate_series(1, 40000) AS n"
    )
    planner.database.sql(
        "INSERT INTO schedules (name, task) SELECT 's' || n, 'f' FROM generate_series(0, 19) AS n"
    )
    planner.database.sql("ANALYZE ticks")
    of_ticks = [n for n in planner.plan(name, generic=True) if n.get("Relation Name") == "ticks"]
    assert of_ticks
    # To remove them it takes the rows of one page, by the whole key.
    reads = [
        n["Node Type"]
        for n in of_ticks
        if "Index Cond" not in n and n["Node Type"] != "ModifyTable"
    ]
    assert "Seq Scan" not in reads


MANY = [
    "succeed_many",
    "succeed_and_forget_many",
    "release_rest",
    "vanish",
    "prune",
    "claim",
    "promote",
]


@pytest.mark.parametrize("generic", [True, False], ids=["prepared", "each time anew"])
@pytest.mark.parametrize("name", MANY)
def test_a_statement_over_many_rows_compares_none_with_all_others(
    planner: Planner, name: str, generic: bool
) -> None:
    planner.fill()
    found = planner.plan(name, generic=generic)
    assert not [node for node in found if compares_each_with_each(node)]


@pytest.mark.parametrize("generic", [True, False], ids=["prepared", "each time anew"])
@pytest.mark.parametrize("name", ["prune", "delete"])
def test_where_statistics_know_nothing_finished_each_page_is_still_found_by_its_ids(
    planner: Planner, name: str, generic: bool
) -> None:
    planner.database.sql("INSERT INTO jobs (task) SELECT 'app:f' FROM generate_series(1, 5000)")
    planner.database.sql("ANALYZE jobs")
    found = planner.plan(name, generic=generic)
    read = [node for node in found if node.get("Relation Name") == "jobs"]
    assert {node.get("Index Name") for node in read} == {"jobs_pkey"}


def test_a_statement_that_writes_has_few_indexes_and_checks_to_prepare(
    database: PostgresDatabase, store: PostgresStore
) -> None:
    store.open()
    # A backend locks 16 relations cheaply: the table and these.
    ((indexes,),) = database.sql("SELECT count(*) FROM pg_index WHERE indrelid = 'jobs'::regclass")
    assert indexes <= 15
    # The text of all CHECKs is read by each such statement: 1,000 characters took 3 us of it.
    ((length,),) = database.sql(
        "SELECT sum(length(conbin::text)) FROM pg_constraint"
        " WHERE conrelid = 'jobs'::regclass AND contype = 'c'"
    )
    assert length < 13_000
