"""Many jobs at once in one worker, beside what asyncio and threads do alone in the same run."""

from __future__ import annotations

import asyncio
import os
import random
import select
import statistics
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.outcome import VERB_CODES
from jobvisor.jobs.store import Life, Record, Store, open_store
from jobvisor.jobs.task import OptionValues
from tests.bench.place import Place, Places, family_of, family_pss, quantile

NAP = 0.1  # seconds
ASYNC_LANES, ASYNC_MOST = 500, 1.3  # of the ideal
DEF_LANES, DEF_MOST = 64, 1.25
WAITING, WAITING_MB = 1000, 60
COMPUTING, COMPUTED, TURN_MS = (
    16,
    0.05,
    20,
)  # lanes; seconds of a processor; of another worker's turn
NEIGHBOURS, AGAIN_MS = 99, 100  # in the lanes beside a job that is killed; from its kill on
NOOP_LANES, NOOP_LEAST = 100, 0.5  # of the rate of one lane


def run(places: Places, rounds: int) -> None:
    """Print each measure, what it may be at most (or must be at least), and the ideal beside it."""
    naps(
        places, rounds, task="app:nap_async", jobs=10_000, lanes=ASYNC_LANES, most=ASYNC_MOST,
        alone=asyncio_alone,
    )  # fmt: skip
    naps(
        places, rounds, task="app:nap", jobs=5_000, lanes=DEF_LANES, most=DEF_MOST,
        alone=threads_alone,
    )  # fmt: skip
    waiting(places)
    turns(places)
    neighbours(places)
    noops(places, rounds)


# -- jobs that wait


def naps(
    places: Places,
    rounds: int,
    *,
    task: str,
    jobs: int,
    lanes: int,
    most: float,
    alone: Callable[[int, int], None],
) -> None:
    """How long one worker takes for jobs that sleep, and what does the same without jobs."""
    ideal = jobs / lanes * NAP
    ratios: list[float] = []
    for _ in range(rounds):
        began = SYSTEM.monotonic_ns()
        alone(jobs, lanes)
        bare = (SYSTEM.monotonic_ns() - began) / 1e9
        with places.fresh(1, concurrency=lanes) as place:
            ours = _span(place, jobs, task, NAP)
        ratios.append(ours / ideal)
        print(
            f"{jobs:,} x {task} of {NAP:g} s on {lanes} lanes: {ours:.2f} s, {ratios[-1]:.2f} of the "
            f"ideal {ideal:.2f} s; {alone.__name__} {bare:.2f} s, {bare / ideal:.2f}"
        )
    print(f"  median {statistics.median(ratios):.2f} of the ideal, at most {most}")


def asyncio_alone(jobs: int, lanes: int) -> None:
    """As many coroutines, pulling from one iterator."""
    left = iter(range(jobs))

    async def lane() -> None:
        for _ in left:
            await asyncio.sleep(NAP)

    async def all_lanes() -> None:
        await asyncio.gather(*(lane() for _ in range(lanes)))

    asyncio.run(all_lanes())


def threads_alone(jobs: int, lanes: int) -> None:
    """As many threads, pulling from one iterator."""
    left = iter(range(jobs))

    def lane() -> None:
        for _ in left:
            SYSTEM.sleep(NAP)

    threads = [threading.Thread(target=lane) for _ in range(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _span(place: Place, jobs: int, task: str, *args: float) -> float:
    """Seconds from the first claim to the last finish."""
    with place.working(jobs, task, *args):
        while place.database.is_pending() or place.left():
            SYSTEM.sleep(0.05)
        return max(place.database.span(), 0.001)


def waiting(places: Places) -> None:
    """What one worker holds while a thousand of its jobs wait."""
    with places.fresh(1, concurrency=WAITING) as place, place.family():
        gate, seen = place.folder / "gate", place.folder / "waiting"
        before = _held(place)
        place.fill(WAITING, "app:wait_for", str(gate))
        while not seen.exists() or seen.stat().st_size < WAITING:
            SYSTEM.sleep(0.05)
        memory, connections = _held(place)
        gate.touch()
        while place.left():
            SYSTEM.sleep(0.05)
    print(
        f"{WAITING:,} waiting async jobs in one worker: {memory:.1f} MB PSS with what belongs to it, "
        f"under {WAITING_MB} (idle before: {before[0]:.1f}); {connections} connection, 1"
    )


def _held(place: Place) -> tuple[float, int]:
    """MB of memory and connections of the worker and its children."""
    (worker,) = place.workers()
    return family_pss(worker) / 1e6, place.database.connections(family_of(worker))


# -- jobs that compute


def turns(places: Places) -> None:
    """How long a turn of another process takes beside a worker whose lanes compute."""
    with places.fresh(1, concurrency=COMPUTING) as place, place.family():
        idle = list(_turns(place))
        place.fill(2_000, "app:compute", COMPUTED)
        while place.database.is_pending() and not _finished(place):
            SYSTEM.sleep(0.05)
        busy = list(_turns(place))
        began, done = SYSTEM.monotonic_ns(), _finished(place)
        SYSTEM.sleep(1)
        rate = (_finished(place) - done) / ((SYSTEM.monotonic_ns() - began) / 1e9)
    print(
        f"a turn beside {COMPUTING} lanes that compute ({rate:.0f} jobs/s): {_quantiles(busy)}, "
        f"at most {TURN_MS} ms at p99; beside an idle worker {_quantiles(idle)}"
    )


def _turns(place: Place, number: int = 300) -> Iterator[float]:
    """Milliseconds of each of many turns, of another queue."""
    store = open_store(place.url, durable=False)
    life = Life(random.getrandbits(60), 1, "bench", "here", "boot", 1, 1, 1)
    store.open()
    place.client.enqueue_many(
        place.client.call("app:noop", options={"queue": "other"}) for _ in range(number)
    )
    journal: list[Record] = []
    for claim in range(1, number + 1):
        SYSTEM.sleep(random.uniform(0.002, 0.02))  # at no fixed distance from the worker's own
        took, journal = _turn(store, life, claim, journal)
        yield took
    store.leave(life, journal)
    store.close()


def _turn(
    store: Store, life: Life, claim: int, journal: list[Record]
) -> tuple[float, list[Record]]:
    began = SYSTEM.monotonic_ns()
    jobs = store.turn(
        life, claim, queues=["other"], limit=1, journal=journal, register=claim == 1
    ).jobs
    took = (SYSTEM.monotonic_ns() - began) / 1e6
    verb = VERB_CODES["succeed"]
    return took, [
        Record(life.owner, claim, job.id, job.attempt, verb, 0, 0, 0, b"null") for job in jobs
    ]


def _finished(place: Place) -> int:
    return place.client.counts().get("default", {}).get("succeeded", 0)


def _quantiles(values: list[float]) -> str:
    told = (f"p{100 * part:g} {quantile(values, part):.1f}" for part in (0.5, 0.9, 0.99))
    return f"{', '.join(told)}, max {max(values):.1f} ms"


# -- a job that is killed at its timeout


def neighbours(places: Places, rounds: int = 10) -> None:
    """How soon those that ran beside it run again, in a second worker that has lanes to spare."""
    with places.fresh(2, concurrency=NEIGHBOURS + 1) as place:
        with (place.folder / "config.toml").open("a") as config:
            config.write('[supervisor]\ncancel_grace = "200ms"\n')
        with place.family():
            took = [_again(place, place.folder / str(number)) for number in range(rounds)]
    print(
        f"a timeout among {NEIGHBOURS + 1} lanes, {rounds} times: its neighbours run again within "
        f"p50 {quantile(took, 0.5):.0f} ms of the kill, max {max(took):.0f} ms, at most {AGAIN_MS}; "
        "none was charged"
    )


def _again(place: Place, folder: Path) -> float:
    """Milliseconds from the end of a process to the last new start of what ran in it."""
    folder.mkdir()
    paths = [folder / str(number) for number in range(NEIGHBOURS)]
    gate, told = folder / "gate", folder / "pid"
    options: OptionValues = {"timeout": "1s", "retries": 0}
    place.client.enqueue_many(
        [
            place.client.call("app:stuck", str(told), options=options),
            *(place.client.call("app:linger", str(path), str(gate)) for path in paths),
        ]
    )
    while not (told.exists() and told.read_text().endswith("\n")):
        SYSTEM.sleep(0.001)
    process = os.pidfd_open(int(told.read_text()))
    select.select([process], [], [])
    ended = SYSTEM.monotonic_ns()
    os.close(process)
    while place.client.counts()["default"].get("running", 0) != NEIGHBOURS:
        SYSTEM.sleep(0.05)
    SYSTEM.sleep(0.5)  # who is claimed begins
    starts = [[int(line) for line in path.read_text().splitlines()] for path in paths]
    gate.touch()
    while place.left():
        SYSTEM.sleep(0.05)
    again = [each[1] for each in starts if len(each) == 2]
    assert again, "the job that was killed had no neighbours"
    assert {job.attempt for job in place.client.list(task="app:linger", limit=NEIGHBOURS)} == {1}
    return (max(again) - ended) / 1e6


# -- jobs that do nothing


def noops(places: Places, rounds: int, jobs: int = 50_000) -> None:
    """The rate of coroutines that return at once, and of functions on one lane, in alternation."""
    ratios: list[float] = []
    for _ in range(rounds):
        with places.fresh(1) as place:
            one = jobs / _span(place, jobs, "app:noop")
        with places.fresh(1, concurrency=NOOP_LANES) as place:
            many = jobs / _span(place, jobs, "app:noop_async")
        ratios.append(many / one)
        print(
            f"{jobs:,} no-op jobs: async on {NOOP_LANES} lanes {many:,.0f} jobs/s, def on one lane "
            f"{one:,.0f}, ratio {ratios[-1]:.2f}"
        )
    print(f"  median ratio {statistics.median(ratios):.2f}, at least {NOOP_LEAST}")
