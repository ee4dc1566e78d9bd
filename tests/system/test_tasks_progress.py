"""What a task says of its progress: readable whatever it says, and on the row of no other job."""

from __future__ import annotations

import pytest

from tests.system.harness import MARK, Build
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.lanes(1, 4),
]

TASKS = f"""{MARK}
@task
def noting(ctx: Context, text, times):
    ctx.progress(1, note=text * times)
    mark("began")
    gate("go")

@task
def telling(ctx: Context, n):
    ctx.progress(n, note="of another")

@task
def silent(ctx: Context):
    mark("silent")
    gate("go")

@task
def counting(ctx: Context):
    ctx.progress(1)
    gate("on")
    ctx.progress(2)
    gate("go")
"""


@pytest.mark.parametrize("text", ["ü", "€", "\N{PERFORMING ARTS}", "\n", '"', "\\", "\x01"])
def test_a_note_of_large_characters_is_shortened_and_stays_readable(
    build: Build, text: str
) -> None:
    house = build(TASKS, processes=1)
    job = house.enqueue("noting", text, 200)
    family = house.start()
    house.wait_lines("began")
    eventually(lambda: house.client.get(job).progress, what="the progress is on the row")
    told = house.client.get(job).progress
    assert told is not None
    assert told["done"] == 1
    assert told["note"] == text * len(told["note"])
    assert 30 <= len(told["note"]) <= 200
    assert [found.progress for found in house.client.list()] == [told]
    house.touch("go")
    house.wait_state(job, "succeeded")
    assert house.stop(family) == 0


def test_progress_of_one_job_does_not_show_on_the_next_of_its_worker(build: Build) -> None:
    house = build(TASKS, processes=2, batch_max=50)
    told = [house.enqueue("telling", n) for n in range(60)]
    job = house.enqueue("silent")
    family = house.start()
    house.wait_lines("silent")
    # Two words of a later job have reached the table: the caretaker has been round all workers.
    other = house.enqueue("counting")
    eventually(lambda: house.client.get(other).progress == {"done": 1}, what="its first word")
    house.touch("on")
    eventually(lambda: house.client.get(other).progress == {"done": 2}, what="its second word")
    assert house.client.get(job).progress is None
    house.touch("go")
    house.wait_finished([*told, job, other])
    assert house.client.get(job).progress is None
    # The last word of each goes with its outcome, however short it ran.
    assert [house.client.get(each).progress for each in told] == [
        {"done": n, "note": "of another"} for n in range(60)
    ]
    assert house.stop(family) == 0
