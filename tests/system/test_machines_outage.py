"""A database that is out of reach for longer than `dead_after`, or slow: who is dead, and who waits."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.ledger.evidence import ledger_files, read_ledger_of
from tests.proxy import Proxy
from tests.system.machines import Machine, Site, boottime_of
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.preload(False, pytest.param(True, marks=pytest.mark.soak)),
]

TASKS = """
@task
def gated(ctx: Context):
    mark("start", ctx)
    gate("go")
    mark("end", ctx)

@task
def quick(ctx: Context):
    mark("start", ctx)
    if is_open("slow"):
        time.sleep(0.04)  # task body; shorter than what is recalled behind
    mark("end", ctx)
"""


@pytest.fixture
def site(tmp_path: Path, lanes: int, preload: bool) -> Iterator[Site]:
    with Site(tmp_path, lanes=lanes, preload=preload) as made:
        yield made


@pytest.fixture
def proxy(site: Site) -> Iterator[Proxy]:
    place = urlsplit(site.database)
    with Proxy(place.hostname or "localhost", place.port or 5432) as made:
        yield made


def behind(site: Site, proxy: Proxy, name: str, dead_after: str) -> Machine:
    """A machine with one worker that reaches the database through the proxy."""
    return site.machine(
        name, TASKS, url=proxy.url(site.database), dead_after=dead_after, processes=1
    )


@pytest.mark.lanes(1, 4)
@pytest.mark.parametrize("how", ["refused", "silent"])
def test_after_an_outage_for_all_longer_than_dead_after_nobody_is_declared_dead(
    site: Site, proxy: Proxy, how: str
) -> None:
    machines = [behind(site, proxy, name, "3s") for name in ("one", "two")]
    gated = site.calls("gated", 2, retries=0)
    for machine in machines:
        machine.power_on(ready=False)
    for machine in machines:
        machine.wait_in()
    site.wait_marks("start", 2)
    families = site.families()
    workers = [machine.workers() for machine in machines]
    (proxy.cut if how == "refused" else proxy.freeze)()
    for machine in machines:
        eventually(partial(machine.said, "the database cannot be used"), what="it is noticed")
    quick = site.calls("quick", 50, retries=0)
    site.touch("go")
    site.wait_marks("end", 2)
    site.wait_silence(5)
    ended = site.marks("end")
    proxy.restore()

    site.wait_finished([*gated, *quick])
    assert {mark.job for mark in ended} == set(gated), "they began what they could not settle"
    site.wait_heartbeats(5)  # whoever would be declared dead is so by now
    assert site.declared_dead() == []
    assert site.families() == families
    assert [machine.workers() for machine in machines] == workers
    assert site.query("SELECT state, attempt, count(*) FROM jobs GROUP BY 1, 2") == [
        ("succeeded", 1, 52)
    ]
    assert site.query("SELECT count(*) FROM attempts") == [(0,)]
    assert len(site.marks("start")) == 52
    assert [machine.shut_down() for machine in machines] == [0, 0]


def test_heartbeats_that_come_late_but_in_time_declare_nobody_dead(
    site: Site, proxy: Proxy
) -> None:
    far = behind(site, proxy, "far", "6s")
    near = site.machine("near", TASKS, dead_after="6s", processes=1)
    far.power_on(ready=False)
    near.power_on()
    far.wait_in()
    families = site.families()
    beats = [beat(site, "far")]
    proxy.delay(0.15)
    until = SYSTEM.monotonic_ns() + 12_000_000_000

    def is_over() -> bool:
        latest = beat(site, "far")
        if latest != beats[-1]:
            beats.append(latest)
        return SYSTEM.monotonic_ns() > until

    eventually(is_over)
    gaps = [later - earlier for earlier, later in pairwise(beats)]
    assert 2_200 < max(gaps) < 6_000, f"they were not late, but in time: {gaps}"
    site.wait_finished(site.calls("quick", 20))
    assert site.declared_dead() == []
    assert site.families() == families
    proxy.restore()
    assert (far.shut_down(), near.shut_down()) == (0, 0)


def beat(site: Site, host: str) -> int:
    """The last heartbeat of a machine's family, by the database's clock."""
    return int(site.query("SELECT heartbeat_at FROM families WHERE host = ?", host)[0][0])


def test_a_family_that_cannot_write_its_heartbeat_starts_nothing_and_goes_on_as_itself(
    site: Site, proxy: Proxy
) -> None:
    dead_after, lease = 3.0, 2.7
    alone = behind(site, proxy, "alone", f"{dead_after}s")
    ids = site.calls("quick", 30_000, retries=0)
    alone.power_on()
    family, workers = site.families(), alone.workers()
    eventually(partial(begins_a_large_batch, alone), limit=60, what="a large batch begins")
    site.touch("slow")
    proxy.freeze()
    held = {row[0] for row in site.query("SELECT id FROM jobs WHERE state = 'running'")}
    lease_until = boottime_of(beat(site, "alone")) + int(lease * 1e9)
    site.wait_silence(7)

    starts = [mark for mark in site.marks("start") if mark.job in held]
    assert len(held) - len(starts) > 20, "its batch was through before its lease had ended"
    last = max(mark.at for mark in starts)
    assert last < lease_until + 50_000_000
    (site.folder / "slow").unlink()
    proxy.restore()
    site.wait_finished(ids)
    assert site.families() == family
    assert alone.workers() == workers
    assert site.query("SELECT state, attempt, count(*) FROM jobs GROUP BY 1, 2") == [
        ("succeeded", 1, len(ids))
    ]
    assert len(site.marks("start")) == len(ids), "a job ran twice"
    assert not alone.said("came too late")
    assert alone.shut_down() == 0


def begins_a_large_batch(machine: Machine) -> bool:
    """Whether the ledger of the only worker shows few of the many it has claimed as finished."""
    folder = str(machine.state_dir / "ledger")
    for owner, _layout, _path in ledger_files(folder):
        found = read_ledger_of(folder, owner)
        if found is None or found.header.claim < 5:
            continue
        (running,) = machine.query("SELECT count(*) FROM jobs WHERE state = 'running'")
        found = read_ledger_of(folder, owner)
        return (
            found is not None and int(running[0]) - len(found.records) > 90
        )  # 67 fit into a lease
    return False
