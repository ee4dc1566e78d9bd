"""A real Prometheus scrapes a real family: each expression of the dashboard has data, each run is counted."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from prometheus_client.parser import text_string_to_metric_families as parsed

from tests.supervisor.web.monitoring import DASHBOARD, PROMETHEUS, needs_prometheus
from tests.system.harness import MARK, Build, House
from tests.waiting import eventually

pytestmark = pytest.mark.system

TASKS = f"""{MARK}
@task(retries=0)
def quick(number=0):
    if number % 10 == 9:
        raise ValueError(number)

@task(retries=1, retry=Fixed(0))
def crash():
    mark("crashed")
    os.kill(os.getpid(), signal.SIGKILL)

@task
def gated():
    mark("began", os.getpid())
    gate("go")
"""
TOKEN = "a-token-that-is-long-enough"


def counting(build: Build, **rest: Any) -> House:
    """A house whose family counts, and has a site on a port that is free."""
    web = {"enabled": True, "port": 0, "token": TOKEN}
    return build(TASKS, config={"web": web}, **rest)


def url_of(house: House) -> str:
    """Where its web role listens."""
    found = eventually(lambda: (house.status().get("web") or {}).get("url"), what="it listens")
    return str(found).removeprefix("http://")


def scraped(house: House) -> dict[tuple[str, ...], float]:
    """Each sample of /metrics by its name and the values of its labels, these by their names."""
    connection = http.client.HTTPConnection(url_of(house), timeout=30)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    assert answer.status == 200, text
    return {
        (each.name, *(each.labels[name] for name in sorted(each.labels))): each.value
        for family in parsed(text)
        for each in family.samples
    }


def runs(told: dict[tuple[str, ...], float], task: str) -> dict[str, int]:
    """How the runs of a task ended."""
    return {
        key[1]: int(value)
        for key, value in told.items()
        if key[0] == "jobvisor_runs_total" and f"app:{task}" in key and value
    }


def counted_at_least(house: House, number: int) -> dict[tuple[str, ...], float]:
    """The metrics, once so many runs of `quick` are counted."""

    def told() -> dict[tuple[str, ...], float]:
        found = scraped(house)
        return found if sum(runs(found, "quick").values()) >= number else {}

    return eventually(told, what=f"{number} runs are counted")


def enqueue(house: House, number: int) -> None:
    """So many jobs of `quick`, of which each tenth fails for good."""
    call = house.client.call
    house.client.enqueue_many(call("app:quick", n, options={"retries": 0}) for n in range(number))


def killed(house: House) -> bool:
    """Whether there was one, by the status, which may be of a moment ago."""
    for pid in house.workers():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            return True
    return False


def rest(house: House) -> None:
    """Until nothing is left to do."""
    unfinished = ("scheduled", "pending", "running")
    eventually(
        lambda: not {s for each in house.client.counts().values() for s in each} & set(unfinished),
        what="nothing is left",
        limit=60,
    )


@pytest.mark.parametrize("concurrency", [1, 8])
def test_every_run_is_counted_though_workers_are_killed(build: Build, concurrency: int) -> None:
    house = counting(build, concurrency=concurrency)
    family = house.start()
    enqueue(house, 500)
    house.enqueue("crash", retries=1, retry=0)
    for _ in range(3):
        eventually(lambda: killed(house), what="a worker is killed")
        house.wait_ready(family)
        enqueue(house, 500)
    rest(house)
    told = counted_at_least(house, 1_000)  # three kills cost three times a turn's count at the most
    counted = runs(told, "quick")
    rows = dict(
        house.query("SELECT state, count(*) FROM jobs WHERE task = 'app:quick' GROUP BY state")
    )
    assert sum(rows.values()) == 2_000
    assert counted["succeeded"] <= rows["succeeded"]
    assert counted["failed"] <= rows["failed"]
    crashes = runs(told, "crash")  # given back as often as others ran beside it
    assert crashes.pop("released", 0) == 0 or concurrency > 1
    assert crashes == {"retried": 1, "failed": 1}
    restarts = {key[1:]: value for key, value in told.items() if "worker_restarts" in key[0]}
    assert sum(value for key, value in restarts.items() if "signal" in key) >= 2
    assert house.stop(family) == 0
    house.check_whole()
    [sums] = house.query("SELECT sum(succeeded), sum(failed) FROM stats")
    charted = {"succeeded": sums[0], "failed": sums[1] - 1}  # that of `crash`
    assert charted == {state: counted[state] for state in charted}, (
        "the charts have what was counted"
    )


def test_what_a_killed_worker_had_recorded_is_counted_by_who_settles_it(build: Build) -> None:
    house = counting(build, processes=1)
    family = house.start()
    call = house.client.call
    many = [call("app:quick", n, options={"retries": 0}) for n in range(40)]
    house.client.enqueue_many([*many[:20], call("app:gated"), *many[20:]])
    house.wait_lines("began")  # behind it are runs of its claim that no turn has counted
    os.kill(house.workers()[0], signal.SIGKILL)
    house.touch("go")
    rest(house)
    assert runs(counted_at_least(house, 40), "quick") == {"succeeded": 36, "failed": 4}
    assert house.stop(family) == 0


def test_counters_survive_a_reload_and_the_death_of_caretaker_and_web_role(build: Build) -> None:
    house = counting(build)
    family = house.start()
    enqueue(house, 50)
    rest(house)
    before = counted_at_least(house, 50)
    os.kill(house.caretaker(), signal.SIGKILL)
    os.kill(house.status()["web"]["pid"], signal.SIGKILL)
    assert house.command("reload").returncode == 0
    enqueue(house, 50)
    rest(house)
    eventually(
        lambda: runs(scraped(house), "quick") == {"succeeded": 90, "failed": 10},
        what="all are counted",
    )
    assert runs(before, "quick") == {"succeeded": 45, "failed": 5}
    assert house.stop(family) == 0


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """A Prometheus that scrapes this address five times a second; where it answers."""
    assert PROMETHEUS is not None
    (folder / "token").write_text(TOKEN)
    (folder / "prometheus.yml").write_text(
        f"""
scrape_configs:
  - job_name: jobvisor
    scrape_interval: 200ms
    scrape_timeout: 200ms
    authorization: {{credentials_file: {folder}/token}}
    static_configs: [{{targets: ["{target}"]}}]
"""
    )
    port = 20_000 + os.getpid() % 10_000
    log = (folder / "prometheus.log").open("wb")
    process = subprocess.Popen(
        [
            PROMETHEUS, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log, stderr=log,
    )  # fmt: skip
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def asked(place: str, expression: str) -> list[Any]:
    """What an expression has there now."""
    connection = http.client.HTTPConnection(place, timeout=30)
    try:
        connection.request("GET", f"/api/v1/query?{urlencode({'query': expression})}")
        response = connection.getresponse()
        text = response.read()
    except OSError:
        return []  # it is about to begin
    finally:
        connection.close()
    if response.status == 503:
        return []  # it begins
    answer = json.loads(text)
    assert answer["status"] == "success", answer
    found: list[Any] = answer["data"]["result"]
    return found


def expressions() -> list[str]:
    """All that the dashboard asks, with nothing chosen."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    chosen = {"$__rate_interval": "10s", "$instance": ".*", "$queue": ".*"}
    found = [target["expr"] for panel in panels for target in panel["targets"]]
    for name, value in chosen.items():
        found = [each.replace(name, value) for each in found]
    return found


@needs_prometheus
def test_a_real_prometheus_has_data_for_every_expression_of_the_dashboard(
    build: Build, tmp_path: Path
) -> None:
    house = counting(build)
    family = house.start()
    house.enqueue("crash", retries=1, retry=0)
    assert all("$" not in each for each in expressions())
    with prometheus(tmp_path, url_of(house)) as place:

        def answered() -> bool:
            enqueue(house, 20)
            left[:] = [each for each in left if not asked(place, each)]
            return not left

        left = expressions()
        eventually(answered, what=f"data for {left}", limit=60)
        assert asked(place, 'up{job="jobvisor"}')[0]["value"][1] == "1"
    assert house.stop(family) == 0
