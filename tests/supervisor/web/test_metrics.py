"""`/metrics`: every number by Prometheus' rules, bounded labels, and the rest of it without the database."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.openmetrics.parser import text_string_to_metric_families as of_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed

from jobvisor.jobs.client import Client
from jobvisor.jobs.clock import SYSTEM, iso, to_datetime
from jobvisor.jobs.events import Event
from jobvisor.jobs.job import Claimed
from jobvisor.jobs.outcome import VERB_CODES
from jobvisor.supervisor.board import ROLE, SLOTS, Board
from jobvisor.supervisor.child import Exit
from jobvisor.supervisor.config import Web
from jobvisor.supervisor.counting.counters import Counters
from jobvisor.supervisor.counting.layout import PAIRS_MAX
from jobvisor.supervisor.counting.restarts import Restarts
from jobvisor.supervisor.counting.tally import Tally
from jobvisor.supervisor.family import StateDir
from jobvisor.supervisor.ledger.ledger import Entry
from jobvisor.supervisor.roster import WORKER
from jobvisor.supervisor.web.app import create_app
from jobvisor.supervisor.web.metrics import FRESH_NS, Metrics
from jobvisor.supervisor.web.site import Site
from tests.clock import StandingClock
from tests.supervisor.web.monitoring import DASHBOARD, RULES, needs_promtool, promtool
from tests.supervisor.web.visitor import visitor

README = Path(__file__).resolve().parents[3] / "README.md"
NOT_CELERYS = re.compile(r"\b(jobvisor_\w+)")
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def job(task: str = "app:send", queue: str = "mail", waited_ms: int = 20) -> Claimed:
    row = Claimed(1, task, "[]", "{}", 1, 4, 1, None, 0, 0, None, queue, 0)
    return row._replace(waited_ms=waited_ms)


def ended(verb: str = "succeed", took_ns: int = 30_000_000) -> Entry:
    return Entry(
        1, 1, 1, VERB_CODES[verb], 0, took_ns // 1_000_000, 0, b"", cpu_ms=4, took_ns=took_ns
    )


def counted() -> Counters:
    """Some of everything."""
    counters, slot = Counters(SLOTS), Board().slots[1]
    tally = Tally(counters.block(1), 17)
    tally.turned([job(), job()], 1)
    tally.count_runs([(job(), ended()), (job(), ended("fail"))])
    tally.hear(Event("rescue", 1, "app:send", "mail", 1, 4, kind="crash"))
    tally.rescued(12)
    tally.recalled(3)
    tally.failed()
    slot[ROLE] = WORKER.number
    Restarts(counters.parents()).note(slot, Exit(1, -9))
    return counters


def status(**told: Any) -> dict[str, Any]:
    """As a family writes it."""
    now = iso(to_datetime(SYSTEM.now_ms()))
    worker = {"slot": 1, "role": "worker", "pool": "default", "pid": 7, "rss": 1024}
    pool = {"least": 1, "most": 4, "wanted": 2, "now": 2, "queues": ["mail", "default"]}
    return {
        "family": "main", "host": "here", "version": "9", "pid": os.getpid(), "state": "running",
        "started_at": now, "written_at": now, "degraded": [], "restarts": 1,
        "unknown_tasks": [{"task": "app:snd", "jobs": 2, "error": None}],
        "reload": {"number": 1, "state": "refused", "reason": "it does not import"},
        "scaling": {"default": pool},
        "workers": [
            {**worker, "state": "busy", "job": 4},
            {**worker, "state": "idle", "job": None, "lanes": 1},
        ],
        **told,
    }  # fmt: skip


class Place:
    """An application with a database of its own, and the word of a family that is not there."""

    def __init__(self, folder: Path, counters: Counters | None, **settings: Any) -> None:
        self.path = folder / "jobs.db"
        self.client = Client(f"sqlite:///{self.path}")
        self.client.migrate()
        self.state = StateDir(str(folder / "state"))
        self.state.create()
        app = create_app(
            self.client, settings=Web(**settings), state_dir=self.state.path, counters=counters
        )
        self.visitor: TestClient = visitor(app)

    @contextmanager
    def family(self, **told: Any) -> Iterator[None]:
        """While one runs that says this of itself: it is this process that has its lock."""
        lock = self.state.lock()
        try:
            Path(self.state.path, "status.json").write_text(json.dumps(status(**told)))
            yield
        finally:
            os.close(lock)

    def text(self, **headers: str) -> str:
        answer = self.visitor.get("/metrics", headers=headers)
        assert answer.status_code == 200
        return answer.text


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path, counted())
    yield made
    made.client.close()


def openmetrics(text: str) -> list[Any]:
    """The families of that format."""
    return list(of_openmetrics(text))  # type: ignore[no-untyped-call]


def samples(text: str) -> dict[str, float]:
    """Every sample by its name and labels."""
    return {
        f"{each.name}{{{','.join(f'{k}={v}' for k, v in sorted(each.labels.items()))}}}": each.value
        for family in parsed(text)
        for each in family.samples
    }


def test_what_the_family_counted_is_told_by_task_and_queue(place: Place) -> None:
    told = samples(place.text())
    pair = "queue=mail,task=app:send"
    assert told[f"jobvisor_runs_total{{outcome=succeeded,{pair}}}"] == 1
    assert told[f"jobvisor_runs_total{{outcome=failed,{pair}}}"] == 1
    assert told[f"jobvisor_run_deaths_total{{cause=crash,{pair}}}"] == 1
    assert told[f"jobvisor_job_duration_seconds_count{{{pair}}}"] == 2
    assert told[f"jobvisor_job_duration_seconds_sum{{{pair}}}"] == pytest.approx(0.06)
    assert told[f"jobvisor_job_duration_seconds_bucket{{le=0.1,{pair}}}"] == 2
    assert told[f"jobvisor_queue_latency_seconds_bucket{{le=0.01,{pair}}}"] == 0
    assert told[f"jobvisor_queue_latency_seconds_bucket{{le=0.05,{pair}}}"] == 2
    assert told[f"jobvisor_job_cpu_seconds_total{{{pair}}}"] == pytest.approx(0.008)
    assert told["jobvisor_worker_restarts_total{cause=signal,role=worker}"] == 1
    assert told["jobvisor_worker_restarts_total{cause=stuck,role=worker}"] == 0
    for name, value in (("turns", 1), ("claimed_jobs", 2), ("lost_claims", 1), ("recalls", 1)):
        assert told[f"jobvisor_{name}_total{{}}"] == value
    assert told["jobvisor_rescue_duration_seconds_count{}"] == 1
    assert told["jobvisor_turn_jobs_sum{}"] == 2


def test_what_the_family_says_of_its_workers_and_pools_is_told(place: Place) -> None:
    with place.family():
        told = samples(place.text())
    assert told["jobvisor_family_info{family=main,host=here,version=9}"] == 1
    assert told["jobvisor_workers{pool=default,state=busy}"] == 1
    assert told["jobvisor_workers{pool=default,state=booting}"] == 0
    assert told["jobvisor_worker_lanes{pool=default}"] == 2
    assert told["jobvisor_worker_lanes_busy{pool=default}"] == 1
    assert told["jobvisor_worker_memory_bytes{pool=default}"] == 2048
    assert told["jobvisor_pool_processes{bound=most,pool=default}"] == 4
    assert (told["jobvisor_family_up{}"], told["jobvisor_family_healthy{}"]) == (1, 1)
    assert (told["jobvisor_unknown_task_jobs{}"], told["jobvisor_reload_refused{}"]) == (2, 1)
    assert told["jobvisor_family_start_time_seconds{}"] == pytest.approx(
        SYSTEM.now_ms() / 1000, abs=300
    )


def test_a_family_that_does_not_run_is_told_to_be_down(place: Place) -> None:
    with place.family():
        pass  # its word stays, its lock does not
    told = samples(place.text())
    assert (told["jobvisor_family_up{}"], told["jobvisor_family_healthy{}"]) == (0, 0)


def test_a_degraded_family_is_told_to_be_so(place: Place) -> None:
    with place.family(state="degraded", degraded=["worker 1 keeps dying"]):
        told = samples(place.text())
    assert (told["jobvisor_family_degraded{}"], told["jobvisor_family_healthy{}"]) == (1, 0)


def test_processes_are_wanted_for_all_that_waits_and_queues_of_nobody_are_told(
    place: Place,
) -> None:
    call = place.client.call
    place.client.enqueue_many(call("app:send", options={"queue": "mail"}) for _ in range(7))
    place.client.enqueue_many(call("app:send", options={"queue": "lost"}) for _ in range(2))
    lanes = {"slot": 1, "role": "worker", "pool": "default", "pid": 7, "state": "busy", "lanes": 4}
    with place.family(workers=[{**lanes, "running": 1, "job": 3}]):
        told = samples(place.text())
    assert told["jobvisor_wanted_processes{pool=default}"] == 2  # 7 jobs, 4 lanes each
    assert told["jobvisor_queue_served{queue=mail}"] == 1
    assert told["jobvisor_queue_served{queue=lost}"] == 0
    assert told["jobvisor_jobs{queue=default,state=pending}"] == 0  # served, and empty


def test_the_queues_of_the_database_are_told_with_their_depth_and_their_longest_wait(
    place: Place,
) -> None:
    place.client.enqueue_many(place.client.call("app:send", n) for n in range(3))
    told = samples(place.text())
    assert told["jobvisor_jobs{queue=default,state=pending}"] == 3
    assert told["jobvisor_jobs{queue=default,state=failed}"] == 0
    assert told["jobvisor_jobs_capped{state=pending}"] == 0
    assert "jobvisor_queue_oldest_due_seconds{queue=default}" in told
    assert told["jobvisor_database_up{}"] == 1


def test_without_a_family_the_database_alone_is_told(tmp_path: Path) -> None:
    client = Client(f"sqlite:///{tmp_path}/jobs.db")
    client.migrate()
    text = visitor(create_app(client)).get("/metrics").text
    names = {each.name for each in parsed(text)}
    assert "jobvisor_jobs" in names
    assert not {"jobvisor_family_up", "jobvisor_runs", "jobvisor_workers"} & names
    client.close()


def test_while_the_database_is_away_the_rest_is_told_and_says_so(place: Place) -> None:
    place.client.close()
    place.path.unlink()
    place.path.mkdir()  # which no SQLite opens
    told = samples(place.text())
    assert told["jobvisor_database_up{}"] == 0
    assert told["jobvisor_scrape_errors_total{}"] == 1
    assert told["jobvisor_turns_total{}"] == 1
    assert not any(name.startswith("jobvisor_jobs{") for name in told)


def test_two_who_ask_within_a_second_are_told_the_same(place: Place) -> None:
    clock = StandingClock()
    told = Metrics(Site(place.client, Web(), None), None, clock)
    first, _ = told.text("")
    place.client.enqueue("app:send")
    clock.move(FRESH_NS // 1_000_000 - 1)
    assert told.text("")[0] == first
    clock.move(1)
    assert told.text("")[0] != first


def test_openmetrics_is_told_to_who_asks_for_it(place: Place) -> None:
    answer = place.visitor.get("/metrics", headers={"Accept": OPENMETRICS})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    names = {family.name for family in openmetrics(answer.text)}
    assert {"jobvisor_runs", "jobvisor_job_duration_seconds", "jobvisor_jobs"} <= names
    plain = place.visitor.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("compat", ["", "celery"])
@needs_promtool
def test_promtool_has_nothing_to_say_against_the_metrics(tmp_path: Path, compat: str) -> None:
    place = Place(tmp_path, counted(), metrics_compat=compat)
    place.client.enqueue("app:send")
    with place.family():
        text = place.text()
    if compat:  # the names of others are theirs
        text = "".join(line for line in text.splitlines(keepends=True) if "celery_" not in line)
    assert promtool("check", "metrics", text=text.encode()) == ""
    place.client.close()


def test_celerys_dashboards_find_every_name_they_ask_for(tmp_path: Path) -> None:
    place = Place(tmp_path, counted(), metrics_compat="celery")
    place.client.enqueue("app:send")
    told = samples(place.text())
    names = {name.partition("{")[0] for name in told}
    asked = {
        *(f"celery_task_{each}_total" for each in (
            "sent", "received", "started", "succeeded", "failed", "rejected", "revoked", "retried",
        )),
        *(f"celery_task_runtime_{each}" for each in ("bucket", "sum", "count")),
        "celery_queue_length", "celery_active_consumer_count", "celery_active_worker_count",
        "celery_active_process_count",
    }  # fmt: skip
    assert asked <= names
    labels = "hostname=,name=app:send,queue_name=mail"
    assert told[f"celery_task_succeeded_total{{{labels}}}"] == 1
    assert told[f"celery_task_received_total{{{labels}}}"] == 3
    assert told["celery_queue_length{queue_name=default}"] == 1
    place.client.close()


def test_without_that_setting_no_name_of_theirs_is_told(place: Place) -> None:
    assert "celery_" not in place.text()


def test_ten_thousand_names_keep_the_labels_bounded(tmp_path: Path) -> None:
    counters = Counters(SLOTS)
    for owner in (1, 2):
        tally = Tally(counters.block(owner), owner)
        for number in range(10_000):
            row = job(f"app:{owner * 10_000 + number}", f"queue{number % 50}")
            tally.count_runs([(row, ended())])
            tally.turned([row], 0)
    place = Place(tmp_path, counters)
    place.client.enqueue_many(
        place.client.call("app:send", n, options={"queue": f"q{n}"}) for n in range(1_000)
    )
    families = list(parsed(place.text()))
    for family in families:
        kinds = {
            tuple(
                (k, v)
                for k, v in each.labels.items()
                if k not in ("le", "outcome", "cause", "state")
            )
            for each in family.samples
        }
        assert len(kinds) <= PAIRS_MAX + 1, family.name
    text = place.text()
    assert 'task="other"' in text
    assert 'queue="other"' in text
    runs = next(each for each in families if each.name == "jobvisor_runs")
    assert sum(each.value for each in runs.samples) == 20_000
    place.client.close()


HOSTILE = ['a"b', "a\\b", "a\nb", "</script>", "\x1b[31m", "ä" * 100, "{}", ","]


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_whatever_a_row_holds_is_one_label(tmp_path: Path, accept: str) -> None:
    counters = Counters(SLOTS)
    tally = Tally(counters.block(1), 1)
    tally.count_runs([(job(name), ended()) for name in HOSTILE])
    place = Place(tmp_path, counters)
    text = place.text(Accept=accept)
    families = openmetrics(text) if accept else list(parsed(text))
    runs = next(each for each in families if each.name == "jobvisor_runs")
    assert {each.labels["task"] for each in runs.samples} == set(HOSTILE)
    place.client.close()


def test_a_token_lets_prometheus_in_and_nobody_else(tmp_path: Path) -> None:
    place = Place(tmp_path, counted(), token="a-token-that-is-long")
    assert place.visitor.get("/metrics").status_code == 401
    place.text(Authorization="Bearer a-token-that-is-long")
    place.client.close()


@needs_promtool
def test_the_rules_are_valid_and_each_trouble_has_its_alert(tmp_path: Path) -> None:
    shutil.copy(RULES, tmp_path / "rules.yml")
    shutil.copy(Path(__file__).with_name("rules_test.yml"), tmp_path)
    assert "SUCCESS" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("test", "rules", str(tmp_path / "rules_test.yml"))


def test_dashboard_and_rules_ask_for_nothing_that_is_not_told(place: Place) -> None:
    place.client.enqueue("app:send")
    place.client.schedules.add("s", "app:send", every="1h")
    with place.family():
        told = {name.partition("{")[0] for name in samples(place.text())}
    for path in (RULES, DASHBOARD):
        asked = set(NOT_CELERYS.findall(_expressions(path)))
        assert asked
        assert asked <= told, f"{path.name} asks for {asked - told}"


def test_the_readme_names_every_metric_and_no_other(place: Place) -> None:
    place.client.enqueue("app:send")
    place.client.limits.set("stripe", concurrency=5)
    place.client.schedules.add("s", "app:send", every="1h")
    with place.family():
        told = {
            {"counter": f"{each.name}_total", "info": f"{each.name}_info"}.get(each.type, each.name)
            for each in openmetrics(place.text(Accept=OPENMETRICS))
        }
    table = README.read_text().split("<!-- metrics -->")[1].split("<!-- /metrics -->")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert named == told


def _expressions(path: Path) -> str:
    if path.suffix == ".json":
        panels = json.loads(path.read_text())["panels"]
        return "\n".join(target["expr"] for panel in panels for target in panel["targets"])
    return "\n".join(re.findall(r"expr: ((?:.|\n)*?)\n {8}\w", path.read_text()))
