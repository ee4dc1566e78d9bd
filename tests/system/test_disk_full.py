"""A full disk: the family lives on, loses nothing it acknowledged, and works when there is space."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import StoreUnavailable
from tests.system.harness import MARK, Build, House, alive
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = f"""{MARK}
MARKS = os.environ["MARKS"]

@task
def quick(n, ballast=""):
    mark(f"{{MARKS}}/quick", n)

@task
def gated(n):
    mark(f"{{MARKS}}/began", n)
    gate(f"{{MARKS}}/go")
    return "x" * 1000

@task
def die():
    os._exit(1)

@task
def slow():
    time.sleep(600)  # task body
"""


@pytest.fixture
def mount() -> Iterator[Callable[[Path, str], Path]]:
    """Mounts a small disk of one's own; a skip where that is not allowed."""
    mounted: list[Path] = []

    def make(place: Path, size: str) -> Path:
        place.mkdir(parents=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"a small disk cannot be mounted here: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", "-l", str(place)], check=False)


def fill(disk: Path) -> Path:
    """Use up every byte of a disk."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return filler


def refuses(house: House) -> bool:
    """Whether the database takes no more; a few rows may fit into what it had before."""
    try:
        for n in range(2000):
            house.enqueue("quick", n, "x" * 2000, queue="unserved")
    except StoreUnavailable:
        return True
    return False


def wait(seconds: float) -> None:
    until = SYSTEM.monotonic_ns() + int(seconds * 1e9)
    eventually(lambda: SYSTEM.monotonic_ns() > until)


def marked(tmp_path: Path, name: str) -> list[str]:
    path = tmp_path / name
    return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def crowded(build: Build, mount: Callable[[Path, str], Path], tmp_path: Path) -> tuple[House, Path]:
    """A house wholly on a small disk; marks and the log go elsewhere."""
    disk = mount(tmp_path / "disk", "12m")
    house = build(TASKS, name="disk/house")
    house.log = tmp_path / "log.txt"
    return house, disk


def test_a_full_disk_stops_work_and_nothing_else_until_there_is_space(
    crowded: tuple[House, Path], tmp_path: Path
) -> None:
    house, disk = crowded
    ids = [house.enqueue("quick", n, "x" * 2000, retries=0) for n in range(20)]
    family = house.start(MARKS=str(tmp_path))
    house.wait_finished(ids)
    children = house.children(family.pid)
    filler = fill(disk)
    for n in range(20, 2000):
        # What was refused is not there; what was acknowledged will run.
        try:
            ids.append(house.enqueue("quick", n, "x" * 2000, retries=0))
        except StoreUnavailable as error:
            assert "disk is full" in str(error)  # noqa: PT017 -- how many fit before is not known
            break
    else:
        pytest.fail("the disk was never full")
    wait(1.5)
    size = len(house.log.read_text())
    assert sorted(house.children(family.pid)) == sorted(children)
    assert all(alive(pid) for pid in children)
    assert size < 200_000
    filler.unlink()
    ids.append(house.enqueue("quick", 9999, retries=0))
    house.wait_finished(ids)
    assert house.query("SELECT count(*) FROM jobs WHERE state <> 'succeeded'") == [(0,)]
    assert len(set(marked(tmp_path, "quick"))) == len(marked(tmp_path, "quick"))
    assert house.query("PRAGMA integrity_check") == [("ok",)]
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
def test_what_ended_while_the_disk_was_full_is_settled_when_there_is_space(
    crowded: tuple[House, Path], tmp_path: Path
) -> None:
    house, disk = crowded
    gated = [house.enqueue("gated", n, retries=0) for n in range(2)]
    family = house.start(ready=False, MARKS=str(tmp_path))
    eventually(lambda: len(marked(tmp_path, "began")) == 2)
    filler = fill(disk)
    assert refuses(house)
    (tmp_path / "go").touch()
    wait(1)
    assert family.poll() is None
    filler.unlink()
    house.wait_finished(gated)
    assert [house.client.get(job).result for job in gated] == ["x" * 1000] * 2
    assert sorted(marked(tmp_path, "began")) == ["0", "1"]
    assert house.query("SELECT count(*) FROM attempts") == [(0,)]
    assert house.stop(family) == 0


def test_a_stop_on_a_full_disk_ends_and_the_next_start_settles(
    crowded: tuple[House, Path], tmp_path: Path
) -> None:
    house, disk = crowded
    gated = [house.enqueue("gated", n, retries=0) for n in range(2)]
    family = house.start(ready=False, MARKS=str(tmp_path))
    eventually(lambda: len(marked(tmp_path, "began")) == 2)
    filler = fill(disk)
    assert refuses(house)
    (tmp_path / "go").touch()
    assert house.stop(family) in (0, 75)
    filler.unlink()
    assert house.drain(MARKS=str(tmp_path)) == 0
    assert {house.client.get(job).state.value for job in gated} == {"succeeded"}
    assert sorted(marked(tmp_path, "began")) == ["0", "1"]


@pytest.mark.lanes(1, 4)
def test_workers_without_a_ledger_work_and_the_status_says_so(
    build: Build, mount: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    mount(tmp_path / "house" / "small", "128k")
    house = build(TASKS, state_dir="small/state")
    ids = [house.enqueue("quick", n, retries=0) for n in range(50)]
    family = house.start(MARKS=str(tmp_path))
    house.wait_finished(ids)
    assert sorted(marked(tmp_path, "quick"), key=int) == [str(n) for n in range(50)]
    eventually(lambda: house.status()["state"] == "degraded")
    assert "no ledger file" in house.status()["degraded"][0]
    assert house.heard("no ledger file in")
    assert house.stop(family) == 0
    assert house.query("SELECT count(*) FROM owners") == [(0,)]


def test_a_death_without_a_ledger_is_charged_to_the_job_that_ran(
    build: Build, mount: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    mount(tmp_path / "house" / "small", "128k")
    house = build(TASKS, state_dir="small/state")
    dying = house.enqueue("die", retries=1, retry="0s")
    late = house.enqueue("slow", retries=0, timeout="200ms")
    family = house.start(ready=False, MARKS=str(tmp_path))
    house.wait_finished([dying, late])
    assert house.history(dying) == ["crash", "crash"]
    assert house.history(late) == ["timeout"]
    assert house.stop(family) == 0


@pytest.mark.lanes(1, 4)
def test_a_ledger_is_taken_up_when_the_state_directory_has_space_again(
    build: Build, mount: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    disk = mount(tmp_path / "house" / "small", "8m")
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, (8 << 20) - (256 << 10))
    house = build(TASKS, processes=1, state_dir="small/state")
    family = house.start(MARKS=str(tmp_path))
    house.wait_finished([house.enqueue("quick", 1)])
    eventually(lambda: house.status()["state"] == "degraded")
    filler.unlink()

    def is_well() -> bool:
        house.wait_finished([house.enqueue("quick", 2)])
        return bool(house.status()["state"] == "running")

    eventually(is_well, limit=15, what="the worker has a ledger")
    assert house.stop(family) == 0


def test_a_log_on_a_full_disk_costs_lines_which_are_counted(
    build: Build, mount: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    disk = mount(tmp_path / "disk", "256k")
    log = disk / "family.log"
    house = build(TASKS, config={"log": {"level": "debug", "file": str(log)}})
    family = house.start(MARKS=str(tmp_path))
    filler = fill(disk)
    log_size = log.stat().st_size
    for _ in range(60):
        house.wait_finished([house.enqueue("die", retries=0)])
    assert log.stat().st_size < log_size + 8192
    filler.unlink()
    house.wait_finished([house.enqueue("quick", n) for n in range(5)])
    assert house.stop(family) == 0
    assert "log lines before this one could not be written" in log.read_text()


def test_a_start_on_a_full_disk_is_one_sentence(
    build: Build, mount: Callable[[Path, str], Path], tmp_path: Path
) -> None:
    house = build(TASKS, state_dir="disk/state")
    disk = mount(house.folder / "disk", "64k")
    (disk / "state").mkdir(mode=0o700)
    fill(disk)
    family = house.start(ready=False, MARKS=str(tmp_path))
    # Not 78, after which a service is not started again.
    assert family.wait(20) == 1
    told = house.log.read_text()
    assert "No space left on device; make space there" in told.splitlines()[-1]
    assert "Traceback" not in told
