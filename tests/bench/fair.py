"""How fast jobs of a fair queue are claimed, beside those of an ordinary one, and whose comes next."""

from __future__ import annotations

import secrets
import statistics

from jobvisor.jobs.identity import HOST, Identity
from jobvisor.jobs.job import NewJob, Terms
from jobvisor.jobs.store import Life, Store, open_store
from tests.bench.database import BATCH
from tests.bench.depth import rate
from tests.bench.place import Place, Places

JOB = NewJob("bench:noop", "[]", "{}", "default", 0, None, 0, 4, None, 0, 0, None, None)
AT_ONCE = 10_000  # jobs of one enqueue
SMALL = 100  # tenants with one job each


def run(places: Places, turns: int, rounds: int, shares: int) -> None:
    """Print the rates of claim and settle and their ratio, then how soon a hundred small tenants run."""
    jobs = 2 * turns * rounds * BATCH
    with places.fresh() as ordinary, places.fresh() as fair:
        _fill(ordinary, jobs, 0)
        _fill(fair, jobs, shares)
        ratios = []
        for _ in range(rounds):
            plain_rate, fair_rate = rate(ordinary, turns), rate(fair, turns)
            ratios.append(fair_rate / plain_rate)
            print(
                f"  ordinary {plain_rate:9,.0f} jobs/s   fair, {shares:,} shares {fair_rate:9,.0f} jobs/s"
                f"   ratio {ratios[-1]:.2f}"
            )
        print(f"median ratio {statistics.median(ratios):.2f}")
    with places.fresh() as fair:
        _fill(fair, 100_000, 1)
        _small_ones(fair)


def _fill(where: Place, jobs: int, shares: int) -> None:
    """Pending jobs; of this many shares in a fair queue, or (0) of none in an ordinary one."""
    where.client.close()
    store = open_store(where.url, durable=False)
    store.migrate()
    if shares:
        store.set_fair("default", fair=True)
    made = [JOB if not shares else _of(f"tenant {n % shares}") for n in range(AT_ONCE)]
    for start in range(0, jobs, AT_ONCE):
        store.enqueue(made[: min(AT_ONCE, jobs - start)])
    store.close()


def _of(share: str) -> NewJob:
    return JOB._replace(terms=Terms(share=share))


def _small_ones(where: Place) -> None:
    """Print how many jobs are claimed until each of a hundred tenants that enqueue one has run."""
    store = open_store(where.url, durable=False)
    life = Life(secrets.randbits(62), 0, "bench", HOST, *Identity.mine())
    store.turn(life, 1, queues=["default"], limit=BATCH)
    for number in range(SMALL):
        store.enqueue_one(_of(f"small {number}"))
    seen, claimed = 0, 0
    while seen < SMALL:
        seen, claimed = _one_more(store, life, seen, claimed)
    print(
        f"behind 100,000 of one tenant {SMALL} with one job each begin among the next {claimed} jobs"
    )
    store.close()


def _one_more(store: Store, life: Life, seen: int, claimed: int) -> tuple[int, int]:
    (job,) = store.turn(life, claimed + 2, queues=["default"], limit=1).jobs
    share = store.get(job.id).share or ""
    return seen + share.startswith("small"), claimed + 1
