"""The row as a value, and its moves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from jobvisor.jobs.job import FINISHED, MOVES, UNFINISHED, Attempt, Claimed, Job, State

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
JOB: Job = Job(
    id=1,
    task="app:f",
    args=[date(2026, 11, 22)],
    kwargs={"n": (1, 2)},
    queue="default",
    priority=0,
    state=State.PENDING,
    run_at=NOON,
    attempt=0,
    attempts_max=4,
    timeout=None,
    memory=None,
    unique=None,
    result=None,
    error=None,
    progress=None,
    cancel_requested=False,
    losses=0,
    owner=None,
    claim=None,
    created_at=NOON,
    claimed_at=None,
    started_at=None,
    finished_at=None,
    expires_at=None,
    deferred=None,
)


def test_every_state_is_either_finished_or_unfinished() -> None:
    assert set(State) == FINISHED | UNFINISHED
    assert not FINISHED & UNFINISHED


def test_every_unfinished_state_can_be_cancelled_and_every_finished_one_requeued_and_pruned() -> (
    None
):
    assert MOVES["cancel"] == {(state, State.CANCELLED) for state in UNFINISHED}
    assert MOVES["requeue"] == {(state, State.PENDING) for state in FINISHED}
    assert MOVES["prune"] == {(state, None) for state in FINISHED}


def test_no_move_leaves_a_finished_state_but_those_of_a_person_and_of_retention() -> None:
    leaving = {verb for verb, moves in MOVES.items() for start, _ in moves if start in FINISHED}
    assert leaving == {"requeue", "prune"}


def test_every_state_can_be_reached_and_left() -> None:
    moves = [move for some in MOVES.values() for move in some]
    assert {end for _, end in moves} == {*State, None}
    assert {start for start, _ in moves} == {*State, None}


@pytest.mark.parametrize("state", State)
def test_a_job_knows_whether_it_is_finished(state: State) -> None:
    assert replace(JOB, state=state).finished is (state in FINISHED)


def test_a_job_as_json_is_plain_and_its_payload_keeps_its_tags() -> None:
    told = json.loads(json.dumps(JOB.as_json()))
    assert told["state"] == "pending"
    assert told["run_at"] == "2026-11-22T12:00:00.000Z"
    assert told["args"] == [{"$date": "2026-11-22"}]
    assert told["kwargs"] == {"n": {"$tuple": [1, 2]}}


def test_a_user_datetime_in_a_result_is_not_taken_for_one_of_ours() -> None:
    told = replace(JOB, result=NOON).as_json()
    assert told["result"] == {"$datetime": "2026-11-22T12:00:00+00:00"}


def test_an_attempt_as_json_is_plain() -> None:
    attempt = Attempt(1, 1, 5, 1, "error", "E", "m", "t", "h", 9, None, "SIGKILL", None, NOON, None)
    told = json.loads(json.dumps(attempt.as_json()))
    assert (told["signal"], told["started_at"]) == ("SIGKILL", "2026-11-22T12:00:00.000Z")


def test_a_claimed_row_is_made_from_the_columns_in_order() -> None:
    row = (
        1,
        "app:f",
        "[]",
        "{}",
        1,
        4,
        1,
        None,
        0,
        0,
        None,
        "mail",
        5,
        '{"trace":"a"}',
        2,
        16,
        30,
        3,
    )
    claimed = Claimed._make(row)
    assert (claimed.id, claimed.queue, claimed.priority) == (1, "mail", 5)
    assert (claimed.headers, claimed.company) == ('{"trace":"a"}', 2)
    assert (claimed.special, claimed.waited_ms, claimed.place) == (16, 30, 3)
