"""What the tasks themselves wrote of their runs, held against what the database says of them.

Each line is one os.write to a file opened with O_APPEND, so lines of many processes are whole, in the
order of their writing, and survive the death of their writer. Nothing of the product is asked.
"""

from __future__ import annotations

import textwrap
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple, cast

from jobvisor.jobs.task import OptionValues
from tests.system.harness import House
from tests.waiting import eventually

FILE = "runs.txt"

#: For the task module of a house: `mark("start", ctx)`.
MARK = f"""
_runs = os.open({FILE!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

def mark(word, ctx):
    line = f"{{word}} {{ctx.job}} {{ctx.attempt}} {{os.getpid()}} {{time.monotonic_ns()}}\\n"
    os.write(_runs, line.encode())

"""

#: A job of a few milliseconds, so that a batch holds several and a kill falls into one nearly always.
SHORT = f"""{MARK}
@task(retry=Fixed(0), retries=20)
def short(ctx: Context, seconds=0.003):
    mark("start", ctx)
    time.sleep(seconds)  # task body
    mark("end", ctx)
"""

#: Jobs of both kinds for a worker with several lanes, long enough that many are in the middle at a kill.
SHORT_OF_BOTH = f"""{MARK}
import asyncio

@task(retry=Fixed(0), retries=50)
def short(ctx: Context):
    mark("start", ctx)
    time.sleep(0.03)  # task body
    mark("end", ctx)

@task(retry=Fixed(0), retries=50)
async def ashort(ctx: Context):
    mark("start", ctx)
    await asyncio.sleep(0.03)
    mark("end", ctx)
"""


#: For a task that must know where it stands: which of its very claim are before and behind it. Its
#: worker tells a batch before it runs the first of it, and every task asks, so nothing is looked up.
MATES = """
_batch, _has_run = [], [False]

def _claimed(event):
    if event.verb == "claim":
        if _has_run[0]:
            _batch.clear()
        _has_run[0] = False
        _batch.append(event.job)

subscribe(_claimed)

def mates(ctx):
    _has_run[0] = True
    at = _batch.index(ctx.job)
    return _batch[:at], _batch[at + 1:]

def only_once(name, text):
    try:
        with open(name, "x") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True

"""


def marking(tasks: str) -> str:
    """The source of a task module that may say `mark("start", ctx)`."""
    return MARK + textwrap.dedent(tasks)


class Mark(NamedTuple):
    """One line of a task: `at` by CLOCK_MONOTONIC, in nanoseconds."""

    word: str
    job: int
    attempt: int
    pid: int
    at: int


def marks(house: House, name: str = FILE) -> list[Mark]:
    """All lines so far, in the order of their writing.

    One that is being written may be seen in parts, and is none yet.
    """
    path = house.folder / name
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    found = []
    for line in lines:
        word, *numbers = line.split()
        found.append(Mark(word, *map(int, numbers)))
    return found


def left_in(found: Iterable[Mark], pid: int) -> Mark | None:
    """The last line a process wrote: `start` means that it died in that job, `end` between two."""
    return next((mark for mark in reversed(list(found)) if mark.pid == pid), None)


def crashes(house: House) -> dict[int, list[int]]:
    """Jobs charged for a crash, by the pid of the worker they are charged to."""
    found: dict[int, list[int]] = defaultdict(list)
    for pid, job in house.query(
        "SELECT pid, job FROM attempts WHERE outcome = 'crash' ORDER BY id"
    ):
        found[pid].append(job)
    return found


def check_each_succeeded(house: House, ids: Collection[int]) -> None:
    """No job lost, none invented, and each has an end that its task wrote."""
    rows = dict(house.query("SELECT id, state FROM jobs"))
    assert Counter(rows[job] for job in ids) == {"succeeded": len(ids)}
    ended = {mark.job for mark in marks(house) if mark.word == "end"}
    assert ended >= set(ids)


def check_charges(house: House, killed: Iterable[int]) -> int:
    """Each kill cost the job it hit one attempt, and no other job anything.

    Returns how many kills fell between the last line of a task and its record, so that the job ran
    once more: the one repetition that is promised to be possible, and only for that job.
    """
    found = marks(house)
    charged = crashes(house)
    repeatable: Counter[int] = Counter()
    for pid in killed:
        last = left_in(found, pid)
        jobs = charged.pop(pid, [])
        if last is not None and last.word == "start":
            assert jobs == [last.job], f"{pid} died in job {last.job}, charged were {jobs}"
            continue
        assert len(jobs) <= 1, f"{pid} died between two jobs, charged were {jobs}"
        if last is not None and jobs == [last.job]:
            repeatable[last.job] += 1
    assert not charged, f"charged to workers that nobody killed: {dict(charged)}"
    ends = Counter(mark.job for mark in found if mark.word == "end")
    repeated = {job: count - 1 for job, count in ends.items() if count > 1}
    assert repeated == dict(repeatable), "a job ran again although its outcome was recorded"
    starts = Counter(mark.job for mark in found if mark.word == "start")
    used = dict(house.query("SELECT id, attempt FROM jobs"))
    assert not {job for job, count in starts.items() if count > used[job]}, "ran and did not pay"
    check_counts(house)
    return repeatable.total()


def check_counts(house: House) -> None:
    """Each attempt a finished job has used up is one in its history, but for the successful one."""
    wrong = house.query(
        "SELECT jobs.id, state, jobs.attempt, count(attempts.id) FROM jobs"
        " LEFT JOIN attempts ON job = jobs.id AND outcome NOT IN ('stopped', 'vanished')"
        " GROUP BY jobs.id, state, jobs.attempt"
        " HAVING jobs.attempt <> count(attempts.id) + CASE state WHEN 'succeeded' THEN 1 ELSE 0 END"
    )
    assert wrong == []
    causes = house.query(
        "SELECT DISTINCT signal, verdict FROM attempts WHERE outcome = 'crash'"
        " AND signal IS NOT NULL"
    )
    assert causes in ([], [("SIGKILL", None)])


def check_nothing_left(house: House) -> None:
    """No row runs, no life is remembered, and the file is whole."""
    assert house.query("SELECT count(*) FROM jobs WHERE state = 'running'") == [(0,)]
    assert house.query("SELECT count(*) FROM owners") == [(0,)]
    house.check_whole()


def never_overlapped(found: Iterable[Mark], is_dead_at: Callable[[Mark], bool]) -> None:
    """No job was started while an earlier run of it still went on in a living process."""
    running: dict[int, Mark] = {}
    for mark in found:
        before = running.pop(mark.job, None)
        if mark.word == "start":
            assert before is None or is_dead_at(before), f"{before} was still running at {mark}"
            running[mark.job] = mark


def wait_begun(house: House, count: int = 1) -> None:
    """Until so many runs have begun in all."""
    eventually(
        lambda: sum(mark.word == "start" for mark in marks(house)) >= count,
        what=f"{count} runs have begun",
    )


def wait_busy(house: House, runs: int) -> None:
    """Until so many more runs have begun than now."""
    wait_begun(house, runs + sum(mark.word == "start" for mark in marks(house)))


def calls(house: House, name: str, count: int, **options: Any) -> list[int]:
    """So many jobs of one task of the house, in one transaction."""
    values = cast("OptionValues", options)
    one = house.client.call(f"app:{name}", options=values or None)
    return house.client.enqueue_many([one] * count)
