"""A role with the grants of its purpose can do just that, on a real server."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from typing import NamedTuple

import psycopg
import pytest

from jobvisor.jobs.errors import InvalidOption, StoreRefused
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import State
from jobvisor.jobs.store import Store, open_store
from jobvisor.jobs.store.base import JobRow
from jobvisor.jobs.store.grants import PURPOSES, grants
from jobvisor.jobs.store.postgres import PostgresStore
from tests.postgres import Given, shared
from tests.store.making import claim, enqueue, family, life, new, record


class Guarded(NamedTuple):
    """A migrated schema with a job of its owner's in it, and a role that has nothing yet."""

    url: str
    role: str
    schema: str
    owner: Store
    prefix: str

    def store(self, purpose: str) -> Store:
        """One of the role, after its grants."""
        told = grants(self.role, purpose, self.schema, self.prefix)
        shared().sql(told, database=self.url.rpartition("/")[2])
        return open_store(self.role_url, schema=self.schema, prefix=self.prefix)

    @property
    def role_url(self) -> str:
        """The database as the role reaches it."""
        return re.sub(r"//[^@]*@", f"//{self.role}@", self.url)


@pytest.fixture
def guarded(request: pytest.FixtureRequest) -> Iterator[Guarded]:
    prefix = getattr(request, "param", "")
    if isinstance(shared(), Given):
        pytest.skip("a role would outlive the test on somebody's server")
    url, role = shared().new_database(), f"role_{uuid.uuid4().hex[:8]}"
    shared().sql(f"CREATE ROLE {role} LOGIN")
    owner = open_store(url, schema="the queue", prefix=prefix)
    owner.migrate()
    enqueue(owner)
    yield Guarded(url, role, "the queue", owner, prefix)
    owner.close()
    shared().drop_database(url)
    shared().sql(f"DROP ROLE {role}")


Deed = Callable[[Store], object]


def _work(store: Store) -> None:
    who = life()
    assert store.add_family(family())
    store.enqueue([new()] * 3)
    jobs = store.turn(who, 1, queues=["default"], limit=3, register=True).jobs
    verbs = zip(("succeed", "fail", "retry"), jobs, strict=True)
    turn = store.turn(
        who,
        2,
        queues=["default"],
        limit=1,
        journal=[record(who, 1, job, verb) for verb, job in verbs],
    )
    assert turn.applied.changed == 3
    store.remove_owner(who.owner)
    assert store.release_rest(who.owner) == 1
    store.requeue(jobs[0].id)
    assert store.cancel(jobs[0].id) == "cancelled"
    assert store.prune(dict.fromkeys((State.FAILED, State.CANCELLED), 0), limit=9) == 2
    (row,) = store.export(0, 1, finished=False)
    store.import_([row._replace(id=1_000)])
    assert enqueue(store) > 1_000
    assert store.heartbeat(1)
    store.remove_family(1)


def _enqueue(store: Store) -> None:
    store.enqueue_one(new())
    job = store.enqueue_one(new(unique_key="k", run_in_ms=9))
    assert not store.enqueue_one(new(unique_key="k")).created
    assert len(store.enqueue([*[new()] * 2, new(unique_key="l")])) == 3
    assert store.get(job.id) in store.find()


def _read(store: Store) -> None:
    store.open()
    store.get(1)
    store.counts()
    store.find(Filter(state=State.PENDING))
    store.attempts(1)
    store.families()
    store.export(0, 9, finished=True)
    store.look(["default"])
    store.changes(store.follow(1))


def _import(store: Store) -> None:
    (row,) = store.export(0, 1, finished=False)
    assert isinstance(row, JobRow)
    store.import_([row._replace(id=1_000)])


def _note(store: Store) -> None:
    assert isinstance(store, PostgresStore)
    store._rows("note_settings", {})


REFUSED: dict[str, list[Deed]] = {
    "read": [
        enqueue,
        lambda store: store.enqueue([new()] * 2),
        lambda store: store.cancel(1),
        lambda store: claim(store, life()),
        lambda store: store.heartbeat(1),
        _note,
    ],
    "enqueue": [
        _note,
        lambda store: store.cancel(1),
        lambda store: store.requeue(1),
        lambda store: claim(store, life()),
        lambda store: store.prune({State.CANCELLED: 0}, limit=1),
        lambda store: store.families(),
        _import,
    ],
    "work": [],
}
CHANGES: list[str] = [
    'UPDATE "the queue".meta SET value = 9',
    'ALTER TABLE "the queue".jobs ADD COLUMN n int',
    'DROP TABLE "the queue".attempts',
    'CREATE TABLE "the queue".mine (n int)',
]
ALLOWED: dict[str, Deed] = {"read": _read, "enqueue": _enqueue, "work": _work}


@pytest.mark.parametrize(
    ("purpose", "guarded"),
    [*((purpose, "") for purpose in PURPOSES), ("work", "our_")],
    indirect=["guarded"],
)
def test_a_role_can_do_what_its_grants_are_for_and_nothing_else(
    guarded: Guarded, purpose: str
) -> None:
    store = guarded.store(purpose)
    ALLOWED[purpose](store)
    guarded.owner.cancel(enqueue(guarded.owner))  # or there would be nothing to prune
    for deed in REFUSED[purpose]:
        with pytest.raises(StoreRefused, match="this user lacks a privilege"):
            deed(store)
    store.close()
    with psycopg.connect(guarded.role_url, autocommit=True) as plain:
        for change in CHANGES:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                plain.execute(change.replace('".', f'".{guarded.prefix}').encode())


def test_a_role_under_row_security_enqueues_many_where_copy_is_refused(guarded: Guarded) -> None:
    client = guarded.store("enqueue")
    database = guarded.url.rpartition("/")[2]
    shared().sql('ALTER TABLE "the queue".jobs ENABLE ROW LEVEL SECURITY', database=database)
    shared().sql(
        """CREATE POLICY own ON "the queue".jobs USING (queue = 'mine')""", database=database
    )
    jobs = [new(queue="mine"), new(queue="mine", unique_key="k"), new(queue="mine", run_in_ms=9)]
    stored = client.enqueue([*jobs, new(queue="mine")])
    assert [created for _, created in stored] == [True] * 4
    assert [job.id for job in client.find()] == sorted(
        (number for number, _ in stored), reverse=True
    )
    with pytest.raises(StoreRefused, match="row-level security policy"):
        client.enqueue([new(queue="of others")] * 2)
    assert len(guarded.owner.enqueue([new(queue="of others")] * 2)) == 2, "it is the owner's table"
    client.close()


def test_a_role_that_was_granted_its_work_before_there_was_a_feed_tells_what_it_changes(
    guarded: Guarded,
) -> None:
    worker = guarded.store("work")
    revoke = (
        f'REVOKE ALL ON "the queue".changes, "the queue".changes_number_seq FROM {guarded.role}'
    )
    shared().sql(revoke, database=guarded.url.rpartition("/")[2])
    worker.open()
    place = guarded.owner.follow(60)
    (job,) = claim(worker, life())
    assert worker.cancel(job.id) == "requested"
    worker.trim_changes()
    assert guarded.owner.changes(place).jobs == [job.id]
    worker.close()


def test_a_role_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidOption, match="role=''"):
        grants("", "read", "jobvisor")


def test_names_are_quoted() -> None:
    told = grants('o"dd', "enqueue", "the queue")
    assert told.splitlines()[0] == 'GRANT USAGE ON SCHEMA "the queue" TO "o""dd";'
