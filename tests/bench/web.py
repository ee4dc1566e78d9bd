"""What the site costs: its pages over a large table, its readers beside jobs, itself while nobody looks."""

from __future__ import annotations

import http.client
import resource
import socket
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jobvisor import Client
from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.family import StateDir
from tests.bench.place import Place, Places, family_cpu, family_pss, quantile
from tests.bench.processes import meanwhile
from tests.bench.web_calls import calls
from tests.bench.web_readers import HOST, Readers, asked
from tests.bench.web_rows import fill

SLOW_MS = 100  # what the 95th of a hundred answers may take
STEP_S = 0.05  # between two batches of the paced enqueuer
STOPPED = 20  # readers that read nothing
PATIENCE_S = 120
SETTLED_S = 3.0  # after the last job: what is under way has been told


class Sizes(NamedTuple):
    """How large each part is; a size of 0 leaves it out."""

    rows: int
    requests: int
    readers: int
    rate: int
    seconds: float
    rounds: int
    jobs: int


def run(places: Places, sizes: Sizes) -> None:
    """Print each part."""
    if sizes.rows:
        _pages(places, sizes.rows, sizes.requests)
    if sizes.readers:
        _followed(places, sizes)
        _stopped(places, sizes.rate)
    if sizes.jobs:
        _unused(places, sizes.jobs, sizes.rounds)


# -- pages


def _pages(places: Places, rows: int, requests: int) -> None:
    with places.fresh() as where:
        fill(where, rows)
        job = rows // 2 // 100 * 100 + 7  # one that failed
        print(f"{rows:,} rows, {requests} requests of each, one after the other")
        with _family(where) as (_parent, site, port):
            slow = [_timed(port, path, requests) for path in calls(job)]
            memory = family_pss(site)
    over = sum(each > SLOW_MS for each in slow)
    print(
        f"{len(slow)} pages and calls, slowest p95 {max(slow):.1f} ms, {over} over {SLOW_MS} ms; "
        f"the site then {memory / 1e6:.1f} MB PSS"
    )


def _timed(port: int, path: str, requests: int) -> float:
    """Print the median and the 95th of a hundred in milliseconds; the latter."""
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    times: list[float] = []
    statuses: set[int] = set()
    for number in range(-1, requests):
        began = SYSTEM.monotonic_ns()
        connection.request("GET", path, headers={"Accept": "text/html, application/json"})
        answer = connection.getresponse()
        size = len(answer.read())
        if number >= 0:  # the first one imports
            times.append((SYSTEM.monotonic_ns() - began) / 1e6)
        statuses.add(answer.status)
    connection.close()
    slow = quantile(times, 0.95)
    mark = "  SLOW" if slow > SLOW_MS else ""
    print(
        f"  {','.join(map(str, sorted(statuses)))} p50 {quantile(times, 0.5):7.1f} ms  "
        f"p95 {slow:7.1f} ms  {size / 1024:7.1f} KiB  {path}{mark}"
    )
    return slow


# -- readers


class _Beside(NamedTuple):
    """Jobs at a rate, and what was beside them."""

    rate: float
    waited_ms: float
    cpu: float
    """Of the family, without its site."""


def _followed(places: Places, sizes: Sizes) -> None:
    rate, seconds, readers = sizes.rate, sizes.seconds, sizes.readers
    print(f"{rate:,} jobs/s are enqueued for {seconds:g} s; with {readers} readers and without")
    _may_open(readers + 100)
    ratios: list[float] = []
    for _ in range(sizes.rounds):
        alone = _paced(places, rate, seconds, 0)
        beside = _paced(places, rate, seconds, readers)
        ratios.append(beside.rate / alone.rate)
        print(
            f"  readers {beside.rate:8,.1f} jobs/s, waited {beside.waited_ms:6.1f} ms, "
            f"CPU {beside.cpu:5.2f} s   none {alone.rate:8,.1f} jobs/s, "
            f"waited {alone.waited_ms:6.1f} ms, CPU {alone.cpu:5.2f} s   ratio {ratios[-1]:.3f}"
        )
    print(f"median ratio of the rates {statistics.median(ratios):.3f}; it may be 0.95")


def _paced(places: Places, rate: int, seconds: float, number: int) -> _Beside:
    with places.fresh() as where, _family(where) as (parent, site, port):
        where.client.close()
        followers = Readers(port, number) if number else None
        if followers is not None:
            followers.read(SETTLED_S)  # from here on nothing is missed
        before = _busy(parent, site)
        with meanwhile(1, partial(_enqueuer, where.url, rate, seconds)):
            _read_until_done(where, followers, int(rate * seconds))
        cpu = [now - then for now, then in zip(_busy(parent, site), before, strict=True)]
        done, span, waited = _done(where)
        if followers is not None:
            followers.read(SETTLED_S)
            _compare(where, followers, cpu[1])
            followers.close()
        return _Beside(done / span, waited, cpu[0])


def _enqueuer(url: str, rate: int, seconds: float, _number: int) -> Callable[[], None]:
    client = Client(url)

    def enqueue() -> None:
        began = SYSTEM.monotonic_ns()
        sent = 0
        while sent < int(rate * seconds):
            due = min(int((SYSTEM.monotonic_ns() - began) / 1e9 * rate), int(rate * seconds))
            client.enqueue_many(client.call("app:noop") for _ in range(due - sent))
            sent = due
            SYSTEM.sleep(STEP_S)
        SYSTEM.sleep(PATIENCE_S)  # until it is killed: who leaves is missed

    return enqueue


def _read_until_done(where: Place, followers: Readers | None, jobs: int) -> None:
    ends = SYSTEM.monotonic_ns() + int(PATIENCE_S * 1e9)
    while SYSTEM.monotonic_ns() < ends:
        if followers is None:
            SYSTEM.sleep(0.5)
        else:
            followers.read(0.5)
        if where.client.counts().get("default", {}).get("succeeded", 0) >= jobs:
            return
    print(f"  only {where.client.counts()} after {PATIENCE_S} s")


def _done(where: Place) -> tuple[int, float, float]:
    """How many jobs, in how many seconds, and what they waited in the median, in milliseconds."""
    jobs = where.client.list(state="succeeded", limit=100_000)
    ends = sorted(job.finished_at for job in jobs if job.finished_at)
    waited = [
        (job.started_at - job.created_at).total_seconds() * 1000 for job in jobs if job.started_at
    ]
    span = (ends[-1] - min(job.created_at for job in jobs)).total_seconds()
    return len(jobs), span, statistics.median(waited)


def _compare(where: Place, followers: Readers, site_cpu: float) -> None:
    jobs = where.client.list(limit=100_000)
    last = {job.id: str(job.state) for job in jobs}
    wrong = [
        sum(reader.states.get(job) != state for job, state in last.items())
        for reader in followers.all
    ]
    resets = [reader.resets for reader in followers.all]
    size = sum(reader.bytes for reader in followers.all)
    print(
        f"  {len(wrong)} readers: {sum(map(bool, wrong))} lack the last state of a job "
        f"(at most {max(wrong)} of {len(last):,}); resets {min(resets)}-{max(resets)}; "
        f"{size / 1e6:.0f} MB in all; the site's CPU {site_cpu:.2f} s"
    )


def _busy(parent: int, site: int) -> tuple[float, float]:
    """Seconds of a processor: of the family but its site, and of the site."""
    own = family_cpu(site)
    return family_cpu(parent) - own, own


# -- readers that stop


def _stopped(places: Places, rate: int) -> None:
    with places.fresh() as where, _family(where) as (_parent, site, port):
        where.client.close()
        readers = Readers(port, 1)
        readers.read(SETTLED_S)
        before = family_pss(site)
        stopped = [asked(port, buffer=4096) for _ in range(STOPPED)]
        most = before
        with meanwhile(1, partial(_enqueuer, where.url, rate, PATIENCE_S)):
            began = SYSTEM.monotonic_ns()
            dropped = 0.0
            while not dropped and SYSTEM.monotonic_ns() - began < PATIENCE_S * 1e9:
                readers.read(0.5)
                most = max(most, family_pss(site))
                if _connections(port) <= len(readers.all):
                    dropped = (SYSTEM.monotonic_ns() - began) / 1e9
        for each in stopped:
            each.close()
        readers.close()
    told = f"dropped after {dropped:.0f} s" if dropped else "NOT dropped"
    print(
        f"{STOPPED} readers that read nothing at {rate:,} jobs/s: {told}; "
        f"the site {before / 1e6:.1f} MB PSS before, at most {most / 1e6:.1f} MB"
    )


def _connections(port: int) -> int:
    """How many there are to a port of this machine."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


# -- nobody looks


def _unused(places: Places, jobs: int, rounds: int) -> None:
    print(f"{jobs:,} no-op jobs; with a site that nobody looks at and without one")
    ratios: list[float] = []
    costs: list[float] = []
    for number in range(rounds):
        order = (False, True) if number % 2 else (True, False)
        worked = {site: _worked(places, jobs, site=site) for site in order}
        beside, alone = worked[True], worked[False]
        ratios.append(beside.rate / alone.rate)
        costs.append(alone.cpu / beside.cpu)
        print(
            f"  site {beside.rate:9,.0f} jobs/s, CPU {beside.cpu:.2f} s   none "
            f"{alone.rate:9,.0f} jobs/s, CPU {alone.cpu:.2f} s   "
            f"ratios {ratios[-1]:.3f}, {costs[-1]:.3f}"
        )
    print(
        f"median ratio of the rates {statistics.median(ratios):.3f}, of jobs for each second of CPU "
        f"{statistics.median(costs):.3f}; it may be 0.98"
    )


class _Worked(NamedTuple):
    rate: float
    cpu: float


def _worked(places: Places, jobs: int, *, site: bool) -> _Worked:
    """What a family does that has been up for a moment, its site too."""
    with places.fresh() as where:
        port = _add_site(where) if site else 0
        where.client.close()
        with where.family() as parent:
            if site:
                _await_answer(port)
            SYSTEM.sleep(SETTLED_S)
            before = family_cpu(parent.pid)
            where.fill(jobs)
            while where.database.is_pending() or where.left():
                SYSTEM.sleep(0.05)
            cpu = family_cpu(parent.pid) - before
            return _Worked(jobs / max(where.database.span(), 0.001), cpu)


# -- a family with a site


@contextmanager
def _family(where: Place) -> Iterator[tuple[int, int, int]]:
    """The pids of the parent and of its site, and the port."""
    port = _add_site(where)
    with where.family() as parent:
        _await_answer(port)
        status = StateDir(str(where.folder / ".jobvisor")).status() or {}
        yield parent.pid, int(status["web"]["pid"]), port


def _add_site(where: Place) -> int:
    port = _free_port()
    with (where.folder / "config.toml").open("a") as file:
        file.write(f"[web]\nenabled = true\nport = {port}\n")
    return port


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as door:
        return int(door.getsockname()[1])


def _await_answer(port: int) -> None:
    for _ in range(2_000):
        with suppress(OSError), socket.create_connection((HOST, port)):
            return
        SYSTEM.sleep(0.01)
    raise RuntimeError("the site does not answer")


def _may_open(files: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < files:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, hard), hard))
