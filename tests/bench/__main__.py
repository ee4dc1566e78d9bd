"""`python -m tests.bench WHAT [--store sqlite|postgres]`.

WHAT is one of throughput, latency, depth, limits, enqueue, fair, find, rest, ready, rescue, lanes,
scaling, preload, prune, web, peers.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from tests.bench import (
    depth,
    enqueue,
    fair,
    family,
    find,
    lanes,
    latency,
    limits,
    preload,
    prune,
    scaling,
    throughput,
    web,
)
from tests.bench.peers import run as peers_run
from tests.bench.place import STORES, Places, new_databases, places
from tests.postgres import URL_VARIABLE


@click.group()
def main() -> None:
    """Measure jobvisor on this machine. Nothing else should run meanwhile."""
    # As at a Ctrl-C: the family and the server that it had started end with it.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))


def _measures(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """A command that is given fresh places of the store that was asked for."""

    def decorate(measure: Callable[..., None]) -> click.Command:
        @main.command(name)
        @click.option("--store", type=click.Choice(STORES), default="sqlite", show_default=True)
        @click.option(
            "--url",
            envvar=URL_VARIABLE,
            show_envvar=True,
            help="A PostgreSQL whose user may create databases; otherwise one is started.",
        )
        @wraps(measure)
        def command(store: str, url: str | None, **options: Any) -> None:
            with places(store, url) as fresh:
                measure(fresh, **options)

        return command

    return decorate


@_measures("throughput")
@click.option("--jobs", default=100_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--processes", default=2, show_default=True)
@click.option("--followed", is_flag=True, help="Beside a family whose changes are followed.")
def _throughput(places: Places, jobs: int, rounds: int, processes: int, followed: bool) -> None:
    """No-op jobs per second beside the bare loop of the database's own driver."""
    measure = throughput.followed if followed else throughput.run
    measure(places, jobs, rounds, processes)


@_measures("fair")
@click.option("--turns", default=20, show_default=True, help="Of a hundred jobs each, in a round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--shares", default=100, show_default=True)
def _fair(places: Places, turns: int, rounds: int, shares: int) -> None:
    """Claims of a fair queue beside those of an ordinary one, and who comes next in it."""
    fair.run(places, turns, rounds, shares)


@_measures("latency")
@click.option("--jobs", default=500, show_default=True)
def _latency(places: Places, jobs: int) -> None:
    """From enqueue to the task's first line, the family idle."""
    latency.run(places, jobs)


@_measures("depth")
@click.option("--million", default=1_000_000, show_default=True)
@click.option("--turns", default=200, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def _depth(places: Places, million: int, turns: int, rounds: int) -> None:
    """The claim rate in a table of four million rows, on PostgreSQL also under an old snapshot."""
    depth.run(places, million, turns, rounds)


@_measures("prune")
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--jobs", default=300_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--processes", default=2, show_default=True)
def _prune(places: Places, rows: int, jobs: int, rounds: int, processes: int) -> None:
    """Retention alone, and beside a family that works as quickly as it can."""
    prune.run(places, rows, jobs, rounds, processes)


@_measures("limits")
@click.option("--waiting", default=100_000, show_default=True, help="Jobs behind one key.")
@click.option("--jobs", default=20_000, show_default=True, help="Others, in each round.")
@click.option("--rounds", default=5, show_default=True)
def _limits(places: Places, waiting: int, jobs: int, rounds: int) -> None:
    """The rate of ordinary jobs beside many that wait for one limit, and that of limited ones."""
    limits.run(places, waiting, jobs, rounds)


@_measures("find")
@click.option("--rows", default=1_000_000, show_default=True)
@click.option("--requests", default=20, show_default=True)
def _find(places: Places, rows: int, requests: int) -> None:
    """How long jobs among a million take to be found, counted and grouped."""
    find.run(places, rows, requests)


@_measures("enqueue")
@click.option("--single", default=500, show_default=True, help="Jobs of each client.")
@click.option("--bulk", default=100_000, show_default=True)
@click.option("--clients", default=8, show_default=True, help="At once, on PostgreSQL.")
def _enqueue(places: Places, single: int, bulk: int, clients: int) -> None:
    """Enqueue one by one and in bulk."""
    enqueue.run(places, single, bulk, clients)


@_measures("rest")
@click.option("--seconds", default=10, show_default=True)
def _rest(places: Places, seconds: int) -> None:
    """Memory and wake-ups of an idle family."""
    family.rest(places, seconds)


@_measures("ready")
@click.option("--rounds", default=5, show_default=True)
def _ready(places: Places, rounds: int) -> None:
    """From `start` to four ready workers."""
    family.ready(places, rounds)


@_measures("rescue")
@click.option("--rounds", default=20, show_default=True)
def _rescue(places: Places, rounds: int) -> None:
    """From kill -9 to the job's next start."""
    family.rescue(places, rounds)


@_measures("lanes")
@click.option("--rounds", default=3, show_default=True)
def _lanes(places: Places, rounds: int) -> None:
    """Many jobs at once in one worker, beside asyncio and threads alone."""
    lanes.run(places, rounds)


@_measures("scaling")
@click.option("--bursts", default=20, show_default=True)
def _scaling(places: Places, bursts: int) -> None:
    """Bursts in a pool of one to six workers: until nothing waits too long, and back to one."""
    scaling.run(places, bursts)


@_measures("preload")
@click.option("--jobs", default=1000, show_default=True, help="Of each of eight workers.")
@click.option("--kills", default=50, show_default=True)
@click.option("--lives", default=400, show_default=True)
def _preload(places: Places, jobs: int, kills: int, lives: int) -> None:
    """An application of 200 MB, imported by each worker or by a template."""
    preload.run(places, jobs, kills, lives)


@_measures("web")
@click.option("--rows", default=1_000_000, show_default=True, help="Of the table under the pages.")
@click.option("--requests", default=40, show_default=True, help="Of each page and call.")
@click.option("--readers", default=200, show_default=True)
@click.option("--rate", default=1000, show_default=True, help="Jobs that are enqueued each second.")
@click.option("--seconds", default=20.0, show_default=True, help="For so long.")
@click.option("--jobs", default=100_000, show_default=True, help="Beside a site nobody looks at.")
@click.option("--rounds", default=3, show_default=True)
def _web(places: Places, **sizes: Any) -> None:
    """Pages over a million rows, readers beside jobs, and a site nobody looks at; a size of 0 skips."""
    web.run(places, web.Sizes(**sizes))


@main.command("peers")
@click.option("--store", type=click.Choice(STORES), default="sqlite", show_default=True)
@click.option("--url", envvar=URL_VARIABLE, show_envvar=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--single", default=1000, show_default=True)
@click.option("--bulk", default=50_000, show_default=True)
def _peers(store: str, url: str | None, rounds: int, single: int, bulk: int) -> None:
    """Other queues with the same job beside ours: pip install -e '.[peers]' first."""
    with new_databases(store, url) as new_database:
        peers_run.run(store, new_database, rounds, single, bulk)


main()
