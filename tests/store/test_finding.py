"""Jobs are found by whatever is said of them, a page at a time, and no page reads a whole table."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.clock import to_datetime
from jobvisor.jobs.filter import Filter
from jobvisor.jobs.job import State
from jobvisor.jobs.store import Store
from jobvisor.jobs.store.finding import FIRST_LOOK
from tests.clock import MovableClock
from tests.store.database import Database, MemoryDatabase
from tests.store.making import claim, enqueue, failed, job_in, life, new


def found(store: Store, **said: Any) -> list[int]:
    """The ids that a Filter finds, whether they are asked for as jobs, as ids, or counted."""
    which = Filter(**said)
    page = store.page(which, limit=1_000)
    ids = store.ids_page(which, limit=1_000)
    assert (page.before, ids.after) == (None, None)
    assert [job.id for job in page.jobs] == ids.found[::-1]
    assert store.count(which) == (len(ids.found), False)
    return ids.found


def test_jobs_are_found_by_the_type_of_their_error_and_by_parts_of_their_texts(
    store: Store,
) -> None:
    value = failed(store, message='user "Ada"')
    key = failed(store, "KeyError", "", task="app:g")
    args = enqueue(store, args='["100%_\\\\ \\"Ada\\" \U0001f600 \u00e9"]')
    unique = enqueue(store, unique_key="welcome:Ada")
    assert found(store, error_type="ValueError") == [value]
    assert found(store, error_type="KeyError", task=["app:g", "app:x"]) == [key]
    assert found(store, error_type="Value") == found(store, error_type="valueerror") == []
    assert found(store, text="ada") == [value, args, unique]
    assert found(store, text='"ADA"') == [value, args]
    for text in ("100%_\\", "\U0001f600 \u00e9", "_\\ "):
        assert found(store, text=text) == [args]
    assert found(store, text="app:G") == [key]
    for text in ("%", "_"):
        assert found(store, text=text) == [args]
    assert found(store, text="ada", in_arguments=False) == [value, unique]
    for nothing in ("\0", "\ud800", "no such", "' OR 1=1 --"):
        for word in ("text", "error", "error_type", "queue", "task"):
            assert found(store, **{word: nothing}) == []


def test_jobs_are_found_by_several_states_tasks_and_ids(store: Store) -> None:
    bad, done = job_in(store, State.FAILED), job_in(store, State.SUCCEEDED)
    last = enqueue(store, task="app:g")
    assert found(store, state=["failed", "pending"]) == [bad, last]
    assert found(store, ids=[last, bad, bad, 10**9, -1]) == [bad, last]
    assert found(store, ids=[bad, done], state="failed") == [bad]
    assert found(store, ids=[]) == []
    assert found(store, task=("app:f", "app:g")) == [bad, done, last]


def test_jobs_are_found_by_the_moment_that_they_are_about(
    store: Store, clock: MovableClock
) -> None:
    first = job_in(store, State.SUCCEEDED)
    clock.move(60_000)
    second = enqueue(store)
    now = to_datetime(clock.now_ms())
    minute = timedelta(minutes=1)
    assert found(store, since=now - minute / 2) == found(store, since=30) == [second]
    assert found(store, until=now - minute / 2) == found(store, until="30s") == [first]
    assert found(store, since=now - 2 * minute, until=now - minute / 2) == [first]
    assert found(store, since=now + minute) == []


@pytest.mark.parametrize("state", list(State))
def test_a_few_of_one_state_are_found_behind_many_others(store: Store, state: State) -> None:
    wanted = [job_in(store, state) for _ in range(3)]
    store.enqueue([new(queue="other", run_in_ms=9_000)] * (FIRST_LOOK + 50))
    said: dict[str, Any] = {"state": state, "queue": "default"}
    assert found(store, **said) == wanted
    assert [job.id for job in store.page(Filter(**said), limit=2).jobs] == wanted[:0:-1]


def test_pending_jobs_are_found_behind_many_others_whatever_their_queue_and_priority(
    store: Store,
) -> None:
    kinds = [("a", 0), ("b", 5), ("a", 7), ("b", 0), ("a", -3)]
    jobs = [enqueue(store, queue=queue, priority=priority) for queue, priority in kinds * 2]
    store.enqueue([new(run_in_ms=9_000)] * (FIRST_LOOK + 50))
    assert found(store, state="pending") == jobs
    assert found(store, state="pending", queue="b") == [jobs[n] for n in (1, 3, 6, 8)]
    page = store.page(Filter(state="pending"), limit=4)
    assert [job.id for job in page.jobs] == jobs[:5:-1]
    rest = store.page(Filter(state="pending"), limit=9, before=page.before)
    assert [job.id for job in rest.jobs] == jobs[5::-1]


def test_a_page_of_what_is_rare_says_how_far_it_looked_and_where_to_go_on(tmp_path: Path) -> None:
    with closing(
        MemoryDatabase(tmp_path).open()
    ) as store:  # the same everywhere, and quickly filled here
        first = enqueue(store, queue="rare")
        store.enqueue([new()] * 60_000)
        store.enqueue([new(queue="rare")])
        which = Filter(queue="rare", state=["pending", "running"])
        pages = [store.page(which)]
        while pages[-1].before is not None:
            pages.append(store.page(which, before=pages[-1].before))
        assert [job.id for page in pages for job in page.jobs] == [first + 60_001, first]
        assert len(pages) > 1
        assert sum(page.looked for page in pages) == 60_002
        assert store.count(which) == (1, True)


def test_failures_come_in_groups_the_last_one_first(store: Store, clock: MovableClock) -> None:
    assert store.failures().groups == []
    old = [failed(store, "OldError"), failed(store, "OldError", "again")]
    clock.move(60_000)
    cutoff = clock.now_ms() - 30_000
    key = failed(store, "KeyError", "", task="app:g")
    clock.move(1_000)
    value = [failed(store, "ValueError", str(number)) for number in range(3)]
    told = store.failures()
    assert [(g.task, g.error_type, g.jobs, g.example, g.message) for g in told.groups] == [
        ("app:f", "ValueError", (3, False), value[-1], "ValueError: 2"),
        ("app:g", "KeyError", (1, False), key, "KeyError"),
        ("app:f", "OldError", (2, False), old[-1], "OldError: again"),
    ]
    assert told.groups[2].first <= told.groups[2].last < told.groups[1].first
    assert not told.at_least
    recent = store.failures(since_ms=cutoff)
    assert [group.error_type for group in recent.groups] == ["ValueError", "KeyError"]
    assert store.failures(limit=1).at_least
    for group in told.groups:
        which = {"task": group.task, "error_type": group.error_type, "state": "failed"}
        assert len(found(store, **which)) == group.jobs.number


def test_groups_that_failed_last_in_one_millisecond_stand_in_one_order(store: Store) -> None:
    for task, error in (("b", "Z"), ("b", "A"), ("a", "Z"), ("c", "Q"), ("c", "Q")):
        failed(store, error, task=f"app:{task}")
    assert [(group.task, group.error_type) for group in store.failures().groups] == [
        ("app:c", "Q"), ("app:a", "Z"), ("app:b", "A"), ("app:b", "Z"),
    ]  # fmt: skip


def test_jobs_are_tallied_by_queue_and_state(store: Store, database: Database) -> None:
    for state in sorted(State, key=lambda state: state is State.PENDING):
        job_in(store, state, queue="mail")
    enqueue(store, queue="other")
    told = store.tally()
    assert told.queues == store.counts()
    assert not told.at_least
    store.enqueue([new(queue="later", run_in_ms=9_000)] * 4)
    assert store.tally(most=3).at_least == {"scheduled"}


def test_finished_jobs_are_deleted_and_others_are_not(store: Store) -> None:
    jobs = [
        job_in(store, state) for state in sorted(State, key=lambda state: state is State.PENDING)
    ]
    gone = store.delete([*jobs, 10**9])
    assert [store.attempts_of([job])[job] for job in gone] == [[]] * 3
    assert {job.state for job in store.find()} == {
        State.SCHEDULED, State.PENDING, State.BLOCKED, State.RUNNING,
    }  # fmt: skip


def test_a_job_is_repeated_with_its_options_and_other_arguments(store: Store) -> None:
    options = {
        "priority": 3, "attempts_max": 7, "policy": '{"kind":"fixed","delay_ms":5}', "timeout_ms": 900,
        "memory_bytes": 1 << 26, "headers": '{"trace":"x"}', "queue": "mail",
    }  # fmt: skip
    job = enqueue(store, args='["a"]', kwargs='{"n":1}', unique_key="k", expires_in_ms=9, **options)
    same, other = store.repeat(job), store.repeat(job, args='["b"]', parent=job)
    assert (same.args, same.kwargs, same.parent, same.unique, same.expires_at) == (
        ["a"], {"n": 1}, None, None, None,
    )  # fmt: skip
    assert (other.args, other.kwargs, other.parent) == (["b"], {"n": 1}, job)
    claimed = [
        each for each in claim(store, life(), queues=["mail"]) if each.id in (same.id, other.id)
    ]
    for each in claimed:
        assert {name: getattr(each, name, None) for name in options} == options
    assert len(claimed) == 2
