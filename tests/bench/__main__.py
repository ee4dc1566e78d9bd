"""`python -m tests.bench WHAT`: throughput, latency, depth, enqueue, rest, ready, rescue."""

from __future__ import annotations

import click

from tests.bench import depth, enqueue, family, latency, throughput


@click.group()
def main() -> None:
    """Measure jobvisor on this machine. Nothing else should run meanwhile."""


@main.command("throughput")
@click.option("--jobs", default=100_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--processes", default=2, show_default=True)
def _throughput(jobs: int, rounds: int, processes: int) -> None:
    """No-op jobs per second beside the bare sqlite3 loop."""
    throughput.run(jobs, rounds, processes)


@main.command("latency")
@click.option("--jobs", default=500, show_default=True)
def _latency(jobs: int) -> None:
    """From enqueue to the task's first line, the family idle."""
    latency.run(jobs)


@main.command("depth")
@click.option("--million", default=1_000_000, show_default=True)
@click.option("--turns", default=200, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def _depth(million: int, turns: int, rounds: int) -> None:
    """The claim rate in a table of four million rows."""
    depth.run(million, turns, rounds)


@main.command("enqueue")
@click.option("--single", default=500, show_default=True)
@click.option("--bulk", default=100_000, show_default=True)
def _enqueue(single: int, bulk: int) -> None:
    """Enqueue one by one and in bulk."""
    enqueue.run(single, bulk)


@main.command("rest")
@click.option("--seconds", default=10, show_default=True)
def _rest(seconds: int) -> None:
    """Memory and wake-ups of an idle family."""
    family.rest(seconds)


@main.command("ready")
@click.option("--rounds", default=5, show_default=True)
def _ready(rounds: int) -> None:
    """From `start` to four ready workers."""
    family.ready(rounds)


@main.command("rescue")
@click.option("--rounds", default=20, show_default=True)
def _rescue(rounds: int) -> None:
    """From kill -9 to the job's next start."""
    family.rescue(rounds)


main()
