"""The same facts under the names that celery-exporter's dashboards and alerts ask for.

What there is no counterpart of stays away: nobody counts what was sent and has not ended, so a job is
`sent` when it has ended; failures are not counted by the class of their exception.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from jobvisor.supervisor.counting.layout import (
    OUTCOMES,
    OUTCOMES_AT,
)
from jobvisor.supervisor.counting.totals import Totals
from jobvisor.supervisor.web.depths import QUEUES_MAX, Depths
from jobvisor.supervisor.web.measures import RUN_TIMES, observe, served_queues

_TASK = ("name", "hostname", "queue_name")
_OF_OUTCOME = {"succeeded": "succeeded", "retried": "retried", "cancelled": "revoked"}
_ENDED = ("succeeded", "failed", "cancelled")
_EXCEPTION = "unknown"
_RUNS = tuple(each for each in OUTCOMES if each != "released")


def in_celerys_words(
    totals: Totals | None, status: Mapping[str, Any], depths: Depths | None
) -> Iterator[Metric]:
    """Metrics whose names begin with celery_."""
    host = str(status.get("host") or "")
    if totals is not None:
        yield from _of_tasks(totals, host)
    yield from _of_workers(status.get("workers", ()), host)
    if depths is not None:
        yield from _of_queues(depths, status)


def _of_tasks(totals: Totals, host: str) -> Iterator[Metric]:
    told = {
        name: CounterMetricFamily(f"celery_task_{name}", text, labels=_TASK)
        for name, text in (
            ("sent", "Jobs that have ended."),
            ("received", "Runs that have ended."),
            ("started", "Runs that have ended."),
            ("succeeded", "Runs that succeeded."),
            ("rejected", "Runs that gave their job back."),
            ("revoked", "Jobs that were cancelled in a run."),
            ("retried", "Runs that failed and are tried again."),
        )
    }
    failed = CounterMetricFamily(
        "celery_task_failed", "Jobs that failed for good.", labels=(*_TASK, "exception")
    )
    took = HistogramMetricFamily(
        "celery_task_runtime", "How long runs took, in seconds.", labels=_TASK
    )
    for (task, queue), words in totals.pairs.items():
        labels = (task, host, queue)
        by_outcome = dict(zip(OUTCOMES, words[OUTCOMES_AT:], strict=False))
        runs = sum(by_outcome[each] for each in _RUNS)
        told["sent"].add_metric(labels, sum(by_outcome[each] for each in _ENDED))
        told["received"].add_metric(labels, runs)
        told["started"].add_metric(labels, runs)
        told["rejected"].add_metric(labels, by_outcome["released"])
        for outcome, name in _OF_OUTCOME.items():
            told[name].add_metric(labels, by_outcome[outcome])
        failed.add_metric((*labels, _EXCEPTION), by_outcome["failed"])
        observe(took, labels, words, RUN_TIMES)
    yield from (*told.values(), failed, took)


def _of_workers(workers: Sequence[Mapping[str, Any]], host: str) -> Iterator[Metric]:
    up = GaugeMetricFamily("celery_worker_up", "Whether a worker runs.", labels=("hostname",))
    active = GaugeMetricFamily(
        "celery_worker_tasks_active", "How many jobs a worker runs.", labels=("hostname",)
    )
    for worker in workers:
        name = f"{worker.get('role')}{worker.get('slot')}@{host}"
        up.add_metric((name,), float(bool(worker.get("pid")) and worker.get("state") != "booting"))
        active.add_metric((name,), worker.get("running", int(worker.get("job") is not None)))
    yield from (up, active)


def _of_queues(depths: Depths, status: Mapping[str, Any]) -> Iterator[Metric]:
    served = served_queues(status)
    lanes: dict[str, list[int]] = {}
    for worker in status.get("workers", ()):
        for queue in served.get(worker.get("pool"), ()):
            lanes.setdefault(queue, []).append(worker.get("lanes", 1))
    length, consumers, workers, processes = (
        GaugeMetricFamily(f"celery_{name}", text, labels=("queue_name",))
        for name, text in (
            ("queue_length", "Pending jobs, counted to a limit."),
            ("active_consumer_count", "Workers that serve the queue."),
            ("active_worker_count", "Workers that serve the queue."),
            ("active_process_count", "Jobs of the queue that can run at once."),
        )
    )
    ours = {queue for each in served.values() for queue in each}
    others = sorted({*depths.oldest, *depths.queues} - ours)
    for queue in [*sorted(ours), *others][:QUEUES_MAX]:
        length.add_metric((queue,), depths.queues.get(queue, {}).get("pending", 0))
        for family in (consumers, workers):
            family.add_metric((queue,), len(lanes.get(queue, ())))
        processes.add_metric((queue,), sum(lanes.get(queue, ())))
    yield from (length, consumers, workers, processes)
