"""The shortest way through everything."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests.system.harness import Build
from tests.waiting import eventually

pytestmark = [
    pytest.mark.system,
    pytest.mark.stores("sqlite", "postgres"),
    pytest.mark.lanes(1, 4),
]


def test_a_family_runs_what_was_enqueued_and_stops_when_asked(build: Build) -> None:
    house = build("@task\ndef add(a, b):\n    return a + b\n")
    ids = house.client.enqueue_many([house.client.call("app:add", n, 1) for n in range(100)])
    family = house.start()
    house.wait_finished(ids)
    assert house.client.get(ids[41]).result == 42
    assert house.stop(family) == 0
    assert house.query("SELECT count(*) FROM owners") == [(0,)]
    assert house.said(" warning ") == []


def test_a_parent_forked_by_the_tests_is_as_one_that_a_user_starts(build: Build) -> None:
    tasks = """
        import gc, resource, threading

        OWN = ("PYTEST_CURRENT_TEST", "_JOBVISOR_LIFE")

        @task
        def show(ctx: Context):
            blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            return {
                "argv": sys.argv[1:], "path": sys.path, "main": sys.modules["__main__"].__spec__.name,
                "environ": {n: v for n, v in os.environ.items() if n not in OWN},
                "threads": threading.active_count(), "gc": [gc.isenabled(), gc.get_threshold()],
                "limits": resource.getrlimit(resource.RLIMIT_NOFILE), "blocked": sorted(blocked),
                "session": os.getsid(0) == os.getppid(), "cwd": os.getcwd(), "open": _open(),
                "dispositions": [str(signal.getsignal(n))[:20] for n in signal.valid_signals()],
                "frozen": gc.get_freeze_count() > 0, "flags": list(sys.flags), "umask": os.umask(63),
            }

        def _open():
            return sorted(os.listdir("/proc/self/fd"))
        """
    house = build(tasks, processes=1)
    shown = []
    for is_fresh in (True, False):
        family = house.start(fresh=is_fresh)
        job = house.enqueue("show")
        house.wait_state(job, "succeeded")
        about = eventually(partial(_at_rest, family.pid), what="the parent blocks no signal")
        shown.append((about, house.client.get(job).result))
        assert house.stop(family) == 0
    (*seen, fresh), (*also_seen, forked) = shown
    assert seen == also_seen
    assert set(fresh.pop("environ").items()) ^ set(forked.pop("environ").items()) == set()
    assert {
        name: (fresh[name], forked[name]) for name in fresh if fresh[name] != forked[name]
    } == {}
    assert all(" [" in line for line in house.log.read_text().splitlines()), "only the log speaks"


def _at_rest(pid: int) -> list[str]:
    """What the system tells of a parent; nothing while it forks, which blocks all signals."""
    told = Path(f"/proc/{pid}/status").read_text().splitlines()
    about = [line for line in told if line.startswith(("PPid", "SigB", "SigI", "SigC", "Threads"))]
    return about if "SigBlk:\t" + "0" * 16 in about else []
