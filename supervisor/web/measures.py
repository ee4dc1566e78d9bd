"""What a family says and counts, and what waits in its database, as metrics by Prometheus' conventions.

Names and labels are for ever once they are out. Every label has a bounded number of values: of tasks and
queues the counters keep that, of the queues of the database QUEUES_MAX are told by their names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from jobvisor.jobs.annals import QUEUE, TASK
from jobvisor.jobs.job import State
from jobvisor.jobs.limit import LimitStanding
from jobvisor.jobs.schedule import Schedule
from jobvisor.supervisor.board import STATES
from jobvisor.supervisor.counting.layout import (
    CAUSES,
    CLAIMED,
    CPU_NS,
    DEATH_CAUSES,
    DEATHS_AT,
    ENDS_AT,
    ERRORS,
    LOST,
    OTHER,
    OUTCOMES,
    OUTCOMES_AT,
    RECALLED,
    RECALLS,
    RESCUE_BOUNDS_MS,
    RESCUE_MS,
    RESCUES_AT,
    RUN_BOUNDS_NS,
    RUN_NS,
    RUNS_AT,
    TURN_BOUNDS,
    TURNS,
    TURNS_AT,
    WAIT_BOUNDS_MS,
    WAIT_MS,
    WAITS_AT,
)
from jobvisor.supervisor.counting.totals import Totals, Words
from jobvisor.supervisor.roster import ROSTER, WORKER
from jobvisor.supervisor.web.depths import QUEUES_MAX, Depths

_PAIR = ("task", "queue")
_SHOWN = frozenset({"succeeded", "failed", "retried", "crash"})
"""Also while they are 0: an increase is seen from the second sample on."""


class Buckets(NamedTuple):
    """Where a histogram stands among the words."""

    at: int
    bounds: tuple[float, ...]
    """As they are told."""
    sum_at: int
    unit: float
    """How many of the sum are one of what is told."""


RUN_TIMES = Buckets(RUNS_AT, tuple(bound / 1e9 for bound in RUN_BOUNDS_NS), RUN_NS, 1e9)
_WAITS = Buckets(WAITS_AT, tuple(bound / 1e3 for bound in WAIT_BOUNDS_MS), WAIT_MS, 1e3)
_RESCUES = Buckets(RESCUES_AT, tuple(bound / 1e3 for bound in RESCUE_BOUNDS_MS), RESCUE_MS, 1e3)
_TURNS = Buckets(TURNS_AT, TURN_BOUNDS, CLAIMED, 1)


# -- what the children have counted


def of_counters(totals: Totals) -> Iterator[Metric]:
    """The counters of a family, since it was started."""
    yield from _of_pairs(totals)
    head = totals.head
    for name, text, word in (
        ("turns", "Transactions of workers in which outcomes are settled and jobs claimed.", TURNS),
        ("claimed_jobs", "Jobs that were claimed.", CLAIMED),
        ("lost_claims", "Outcomes that came too late: the job had been given to another worker.", LOST),
        ("recalls", "Claims that were taken back behind a long job.", RECALLS),
        ("recalled_jobs", "Jobs that went back so, before they had begun.", RECALLED),
        ("database_errors", "Times that a process could not use the database.", ERRORS),
    ):  # fmt: skip
        yield CounterMetricFamily(f"jobvisor_{name}", text, value=head[word])
    yield _one_histogram(
        "jobvisor_turn_jobs", "How many jobs a turn claimed, of those that claimed any.",
        head, _TURNS,
    )  # fmt: skip
    yield _one_histogram(
        "jobvisor_rescue_duration_seconds",
        "From the death of a worker until its jobs were settled.",
        head, _RESCUES,
    )  # fmt: skip
    yield _restarts(head)


def _of_pairs(totals: Totals) -> Iterator[Metric]:
    runs = CounterMetricFamily(
        "jobvisor_runs", "Runs that ended, by outcome.", labels=(*_PAIR, "outcome")
    )
    deaths = CounterMetricFamily(
        "jobvisor_run_deaths",
        "Runs that ended with their process, by cause.",
        labels=(*_PAIR, "cause"),
    )
    cpu = CounterMetricFamily(
        "jobvisor_job_cpu_seconds",
        "CPU time of runs; of one below a millisecond all of its time.",
        labels=_PAIR,
    )
    took = HistogramMetricFamily(
        "jobvisor_job_duration_seconds", "How long runs took.", labels=_PAIR
    )
    waited = HistogramMetricFamily(
        "jobvisor_queue_latency_seconds",
        "How long jobs had been due when they were claimed.",
        labels=_PAIR,
    )
    for pair, words in totals.pairs.items():
        for number, outcome in enumerate(OUTCOMES):
            if (value := words[OUTCOMES_AT + number]) or outcome in _SHOWN:
                runs.add_metric((*pair, outcome), value)
        for number, cause in enumerate(DEATH_CAUSES):
            if (value := words[DEATHS_AT + number]) or cause in _SHOWN:
                deaths.add_metric((*pair, cause), value)
        if any(words[RUNS_AT:WAITS_AT]):
            cpu.add_metric(pair, words[CPU_NS] / 1e9)
            observe(took, pair, words, RUN_TIMES)
        observe(waited, pair, words, _WAITS)
    yield from (runs, deaths, cpu, took, waited)


def observe(
    family: HistogramMetricFamily, labels: Sequence[str], words: Words, times: Buckets
) -> None:
    """Add what was seen; nothing where nothing was."""
    told, so_far = [], 0
    for number, bound in enumerate((*times.bounds, float("inf"))):
        so_far += words[times.at + number]
        told.append(("+Inf" if bound == float("inf") else f"{bound:g}", so_far))
    if so_far:
        family.add_metric(labels, told, words[times.sum_at] / times.unit)


def _one_histogram(name: str, text: str, words: Words, buckets: Buckets) -> Metric:
    family = HistogramMetricFamily(name, text, labels=())
    observe(family, (), words, buckets)
    return family


def _restarts(head: Words) -> Metric:
    family = CounterMetricFamily(
        "jobvisor_worker_restarts",
        "Processes in whose place another one came, by role and by why they ended.",
        labels=("role", "cause"),
    )
    for row in ROSTER.values():
        for number, cause in enumerate(CAUSES):
            value = head[ENDS_AT + row.number * len(CAUSES) + number]
            if value or row is WORKER:
                family.add_metric((row.word, cause), value)
    return family


# -- what the family says of itself


def of_status(status: Mapping[str, Any], *, healthy: bool) -> Iterator[Metric]:
    """Processes and pools, by the family's own word; of one that does not run that alone."""
    yield InfoMetricFamily(
        "jobvisor_family", "Which family this is.",
        value={name: str(status.get(name) or "") for name in ("family", "host", "version")},
    )  # fmt: skip
    state = status.get("state")
    yield _gauge("family_up", "Whether the family runs.", state not in (None, "stopped"))
    yield _gauge("family_healthy", "Whether `jobvisor health` says that it is well.", healthy)
    yield _gauge(
        "family_degraded", "Whether it says that something is wrong.", bool(status.get("degraded"))
    )
    if started := _seconds(status.get("started_at")):
        yield _gauge("family_start_time_seconds", "When it was started.", started)
    unknown = sum(each.get("jobs", 0) for each in status.get("unknown_tasks", ()))
    yield _gauge("unknown_task_jobs", "Jobs that wait for a task which no module has.", unknown)
    refused = (status.get("reload") or {}).get("state") == "refused"
    yield _gauge("reload_refused", "Whether the last reload was refused.", refused)
    yield from _of_workers(status.get("workers", ()))
    yield from _of_pools(status.get("scaling") or {})


def _of_workers(workers: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    count: dict[tuple[str, str], int] = {}
    lanes: dict[str, list[int]] = {}
    for worker in workers:
        pool, state = worker.get("pool") or "", worker.get("state") or ""
        for known in (*STATES, "backoff"):
            count.setdefault((pool, known), 0)
        state = "busy" if state == "turn" else state
        count[pool, state] = count.get((pool, state), 0) + 1
        words = lanes.setdefault(pool, [0, 0, 0])
        words[0] += worker.get("lanes", 1)
        words[1] += worker.get("running", int(worker.get("job") is not None))
        words[2] += worker.get("rss") or 0
    yield _labelled("workers", "Processes that run jobs, by state.", ("pool", "state"), count)
    for place, (name, text) in enumerate(
        (
            ("worker_lanes", "How many jobs they can run at once."),
            ("worker_lanes_busy", "How many jobs they run."),
            ("worker_memory_bytes", "Memory that they hold, what they share included."),
        )
    ):
        each = {(pool,): words[place] for pool, words in lanes.items()}
        yield _labelled(name, text, ("pool",), each)


def _of_pools(scaling: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    told = {
        (pool, bound): words[bound]
        for pool, words in scaling.items()
        for bound in ("least", "most", "wanted", "now")
        if bound in words
    }
    yield _labelled(
        "pool_processes", "Workers of a pool: its bounds, how many it wants, and how many there are.",
        ("pool", "bound"), told,
    )  # fmt: skip


def served_queues(status: Mapping[str, Any]) -> dict[str, list[str]]:
    """The queues of each pool, by the family's own word."""
    scaling = status.get("scaling") or {}
    return {pool: list(words.get("queues", ())) for pool, words in scaling.items()}


# -- what waits in the database


def of_depths(depths: Depths, status: Mapping[str, Any]) -> Iterator[Metric]:
    """Depths, which may end at a limit, waiting times, and how many processes that would keep busy."""
    queues, oldest, served = depths.queues, depths.oldest, served_queues(status)
    paused = {name for kind, name in depths.paused if kind == QUEUE}
    ours = {queue for each in served.values() for queue in each}
    named = sorted(
        {*queues, *oldest, *ours, *paused, *depths.fair},
        key=lambda queue: (queue not in ours, queue),
    )[:QUEUES_MAX]
    by_name = ours | set(named)
    counted: dict[tuple[str, str], int] = {(queue, state): 0 for queue in named for state in State}
    for queue, states in queues.items():
        for state, number in states.items():
            key = (queue if queue in by_name else OTHER, state)
            counted[key] = counted.get(key, 0) + number
    yield _labelled(
        "jobs", "Jobs by queue and state; counted to a limit, see jobvisor_jobs_capped.",
        ("queue", "state"), counted,
    )  # fmt: skip
    yield _labelled(
        "jobs_capped", "Whether there may be more jobs in a state than were counted.", ("state",),
        {(state,): int(state in depths.at_least) for state in State},
    )  # fmt: skip
    yield _labelled(
        "queue_oldest_due_seconds", "How long the longest waiting of the next jobs has been due.",
        ("queue",), {(queue,): oldest.get(queue, 0.0) for queue in named},
    )  # fmt: skip
    yield _labelled(
        "queue_paused", "Whether the queue is paused, so that none of its jobs begins.", ("queue",),
        {(queue,): int(queue in paused) for queue in named},
    )  # fmt: skip
    yield _labelled(
        "queue_fair", "Whether the jobs of each share come in turn in the queue.", ("queue",),
        {(queue,): int(queue in depths.fair) for queue in named},
    )  # fmt: skip
    tasks = sorted(name for kind, name in depths.paused if kind == TASK)[:QUEUES_MAX]
    yield _labelled(
        "task_paused", "A task of which no job begins, since it is paused.", ("task",),
        {(task,): 1 for task in tasks},
    )  # fmt: skip
    if served:
        yield _labelled(
            "queue_served", "Whether a pool of this family serves the queue.", ("queue",),
            {(queue,): int(queue in ours) for queue in named},
        )  # fmt: skip
        lanes = {worker.get("pool"): worker.get("lanes", 1) for worker in status.get("workers", ())}
        wanted = {
            (pool,): _wanted(queues, set(each) - paused, each, lanes.get(pool, 1))
            for pool, each in served.items()
        }
        yield _labelled(
            "wanted_processes",
            "How many processes of a pool would run at once all that runs and waits in its queues.",
            ("pool",), wanted,
        )  # fmt: skip


def of_schedules(schedules: Sequence[Schedule]) -> Iterator[Metric]:
    """When each ticked last and ticks next, and whether it is late; nothing where there is none."""
    if not schedules:
        return
    yield _labelled(
        "schedule_last_tick_timestamp_seconds", "When a schedule last enqueued a job by itself.",
        ("schedule",),
        {(each.name,): each.last_tick.timestamp() for each in schedules if each.last_tick},
    )  # fmt: skip
    yield _labelled(
        "schedule_next_tick_timestamp_seconds", "When a schedule that is not paused ticks next.",
        ("schedule",), {(each.name,): each.next[0].timestamp() for each in schedules if each.next},
    )  # fmt: skip
    yield _labelled(
        "schedule_late_seconds", "How long a tick has been due that has enqueued nothing yet.",
        ("schedule",), {(each.name,): each.late for each in schedules},
    )  # fmt: skip
    yield _labelled(
        "schedule_paused", "Whether a schedule is paused.",
        ("schedule",), {(each.name,): int(each.paused is not None) for each in schedules},
    )  # fmt: skip


def of_limits(limits: Sequence[LimitStanding]) -> Iterator[Metric]:
    """How many jobs of each run and wait, and may run at once; nothing where there is none."""
    if not limits:
        return
    yield _labelled(
        "limit_running", "Jobs of a limit that run, of all its keys.", ("limit",),
        {(each.limit.name,): each.running for each in limits},
    )  # fmt: skip
    yield _labelled(
        "limit_waiting", "Jobs that are blocked for a limit, of all its keys; up to 10,000.",
        ("limit",), {(each.limit.name,): each.waiting for each in limits},
    )  # fmt: skip
    yield _labelled(
        "limit_concurrency", "How many jobs of one key of a limit may run at once.", ("limit",),
        {
            (each.limit.name,): each.limit.concurrency
            for each in limits
            if each.limit.concurrency is not None
        },
    )  # fmt: skip


def _wanted(
    queues: Mapping[str, Mapping[str, int]],
    going: Collection[str],
    served: Sequence[str],
    lanes: int,
) -> int:
    """For all that runs, and that waits in a queue that is not paused."""
    running = sum(queues.get(queue, {}).get("running", 0) for queue in served)
    pending = sum(queues.get(queue, {}).get("pending", 0) for queue in going)
    return -(-(running + pending) // max(1, lanes))


# -- how they are written


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"jobvisor_{name}", text, value=float(value))


def _labelled(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(f"jobvisor_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _seconds(moment: Any) -> float:
    """An ISO time in seconds; 0 for what is none."""
    try:
        return datetime.fromisoformat(str(moment)).timestamp()
    except (ValueError, OverflowError):
        return 0.0
