"""Events of a real family: each job's last state, a run as it speaks, and a web role that is killed."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from typing import Any

import pytest

from tests.supervisor.web.serving import Listener
from tests.system.harness import MARK, Build, House
from tests.system.test_web import site_of, successor_of
from tests.waiting import eventually

pytestmark = [pytest.mark.system, pytest.mark.stores("sqlite", "postgres")]

ALL = "/api/v1/events"
TASKS = f"""{MARK}
@task(retries=0)
def noop(fails=False):
    if fails:
        raise ValueError("as it was told")

@task(retries=0)
def speaks(ctx: Context):
    print("first words")
    ctx.progress(1, 2, "half")
    gate("go")
    print("last words")
"""


def house_with_a_site(build: Build) -> House:
    return build(TASKS, processes=2, config={"web": {"enabled": True, "port": 0}})


def port_of(site: dict[str, Any]) -> int:
    return int(site["url"].rpartition(":")[2])


def test_every_reader_hears_the_last_state_of_every_job(build: Build) -> None:
    house = house_with_a_site(build)
    family = house.start()
    port = port_of(site_of(house))
    with ExitStack() as stack:
        readers = [stack.enter_context(Listener(port, ALL)) for _ in range(3)]
        for reader in readers:
            reader.until("reset")
        ids = [house.enqueue("noop", number % 10 == 0, retries=0) for number in range(100)]
        last = {job: "failed" if not number % 10 else "succeeded" for number, job in enumerate(ids)}
        for reader in readers:
            while reader.jobs.items() & last.items() != last.items():
                assert reader.next() is not None
        assert house.stop(family) == 0
        for reader in readers:
            assert reader.until("end").data == {"reason": "the server stops"}
            assert reader.next() is None


def test_a_run_is_heard_as_it_speaks_until_its_job_is_finished(build: Build) -> None:
    house = house_with_a_site(build)
    family = house.start()
    job = house.enqueue("speaks")
    with Listener(port_of(site_of(house)), f"/api/v1/jobs/{job}/events") as reader:
        heard: list[Any] = []
        said = {"attempt": 1, "text": "first words\n", "missed": False}
        while said not in heard or not any(_is_half(each) for each in heard):
            heard.append(_data_of(reader))
        house.touch("go")
        while "reason" not in heard[-1]:
            heard.append(_data_of(reader))
        assert heard[-3]["text"] == "last words\n"
        assert heard[-2]["state"] == "succeeded"
    assert house.stop(family) == 0


def _data_of(reader: Listener) -> Any:
    event = reader.next()
    assert event is not None
    return event.data


def _is_half(told: Any) -> bool:
    return bool(
        told.get("state") == "running" and told["progress"] and told["progress"]["done"] == 1
    )


def test_who_comes_back_to_another_web_role_is_to_look_at_everything(build: Build) -> None:
    house = house_with_a_site(build)
    family = house.start()
    site = site_of(house)
    with Listener(port_of(site), ALL) as reader:
        reader.until("reset")
        job = house.enqueue("noop")
        reader.until_told(job, "succeeded")
        place = str(reader.place)
        os.kill(site["pid"], signal.SIGKILL)
        missed = house.enqueue("noop")
        port = port_of(successor_of(house, site["pid"]))
        with Listener(port, ALL, {"Last-Event-ID": place}) as back:
            event = back.until_is(lambda event: event.name != "family")
            assert event.name == "reset"
            after = house.enqueue("noop")
            back.until_told(after, "succeeded")
    assert house.client.get(missed).state == "succeeded"
    eventually(lambda: house.status()["state"] == "running")
    assert house.stop(family) == 0
