"""Three machines in a network share a queue; one is cut off, another one is lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM
from tests.network import Network, network_or_skip
from tests.postgres import Server
from tests.system.machines import Mark, Site, boottime_of
from tests.waiting import eventually

pytestmark = pytest.mark.system

DEAD_AFTER = 3.0
LEASE = DEAD_AFTER * 0.9
WITHIN = DEAD_AFTER + 5
SECOND = 1_000_000_000

TASKS = """
@task
def short(ctx: Context, seconds=0.003):
    mark("start", ctx)
    time.sleep(seconds)  # task body
    mark("end", ctx)
    return HOST
"""


@pytest.fixture
def network() -> Iterator[Network]:
    with network_or_skip() as made:
        yield made


@pytest.fixture
def site(network: Network, tmp_path: Path, lanes: int) -> Iterator[Site]:
    """The database is at the switch."""
    with Server(listen="*") as server:
        server.start()
        url = server.new_database().replace(f"@{server.host}:", f"@{network.address}:")
        with Site(tmp_path, database=url, lanes=lanes) as made:
            yield made


@pytest.mark.lanes(1, 4)
@pytest.mark.parametrize(
    "count",
    [6_000, pytest.param(30_000, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
def test_three_machines_share_jobs_though_one_is_cut_off_and_one_is_lost(
    network: Network, site: Site, count: int
) -> None:
    hosts = {name: network.host(name) for name in ("cut", "lost", "left")}
    cut, lost, left = (
        site.machine(name, TASKS, host=host, dead_after=f"{DEAD_AFTER}s")
        for name, host in hosts.items()
    )
    ids = site.calls("short", count, retries=0)
    for machine in (cut, lost, left):
        machine.power_on(ready=False)
    for machine in (cut, lost, left):
        machine.wait_in()
    families = site.families()
    owners = {name: site.owners(family) for name, family in families.items()}
    site.wait_marks("end", count // 4)

    network.cut(hosts["cut"])
    cut_at = SYSTEM.boottime_ns()
    site.wait_marks("end", count // 3)
    lost.power_off()
    lost_at = SYSTEM.boottime_ns()
    assert site.running(owners["cut"]), "it held nothing"
    assert site.running(owners["lost"]), "it held nothing"
    (beaten,) = site.query("SELECT heartbeat_at FROM families WHERE host = 'cut'")
    lease_until = boottime_of(beaten[0]) + int(LEASE * SECOND)

    assert seconds_until(lambda: not site.running(owners["cut"]), cut_at) < WITHIN
    assert seconds_until(lambda: not site.running(owners["lost"]), lost_at) < WITHIN
    site.wait_finished(ids, limit=300)
    eventually(lambda: set(site.families()) == {"left"}, what="the dead families are removed")
    assert len(left.said("on cut is declared dead")) == 1
    assert len(left.said("on lost is declared dead")) == 1
    assert len(site.declared_dead()) == 2

    # Cut off, it stopped by itself, within its lease and a moment for the start that was under way.
    starts = [mark.at for mark in site.marks("start") if mark.host == "cut"]
    assert max(starts) < lease_until + int((DEAD_AFTER - LEASE) * SECOND)

    network.mend(hosts["cut"])
    mended_at = SYSTEM.boottime_ns()
    eventually(lambda: cut.said("new ones take their places"), what="it learns of its death")
    eventually(lambda: "cut" in site.families(), what="it is in again")
    assert site.families()["cut"] != families["cut"]
    assert site.families()["left"] == families["left"]
    more: list[int] = []

    def works_again() -> bool:
        if site.query("SELECT count(*) FROM jobs WHERE state = 'pending'") == [(0,)]:
            more.extend(site.calls("short", 400, retries=0))  # the other one may take all of some
        return any(m.host == "cut" and m.at > mended_at and m.job >= more[0] for m in site.marks())

    eventually(works_again, what="it works again")
    site.wait_finished(more)
    cut.wait_in()
    assert (cut.shut_down(), left.shut_down()) == (0, 0)

    assert site.query("SELECT state, count(*), max(attempt) FROM jobs GROUP BY state") == [
        ("succeeded", count + len(more), 1)
    ]
    assert site.query("SELECT DISTINCT outcome FROM attempts") == [("vanished",)]
    assert site.query("SELECT max(losses) FROM jobs") == [(1,)]
    assert {mark.job for mark in site.marks("end")} == {*ids, *more}
    check_no_overlap(site.marks(), {"cut": lease_until, "lost": lost_at}, began=4 * site.lanes)
    assert site.query("SELECT count(*) FROM families") == [(0,)]
    assert site.query("SELECT count(*) FROM owners") == [(0,)]


def seconds_until(condition: Callable[[], bool], since: int) -> float:
    eventually(condition, what="its rows are rescued")
    return (SYSTEM.boottime_ns() - since) / SECOND


def check_no_overlap(marks: list[Mark], gone_at: dict[str, int], *, began: int) -> None:
    """No run of a job began while an earlier one went on in a family that still had its lease.

    `began` is how many the workers of both can have begun.
    """
    runs: dict[int, list[Mark]] = defaultdict(list)
    repeated = 0
    for mark in sorted(marks, key=lambda mark: mark.at):
        before = runs[mark.job]
        if mark.word == "end":
            before.remove(next(run for run in before if run.host == mark.host))
            continue
        for run in before:
            repeated += 1
            assert mark.at >= gone_at.get(run.host, mark.at + 1), f"{mark} while {run} went on"
        before.append(mark)
    assert repeated <= began, "only what the four workers had begun can have gone on"
