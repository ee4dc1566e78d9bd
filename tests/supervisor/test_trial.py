"""A trial: a child that imports the modules of a configuration, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.trial import Trial
from tests.system.harness import alive
from tests.waiting import eventually

Try = Callable[..., Trial]


@pytest.fixture
def try_out(tmp_path: Path) -> Iterator[Try]:
    made: list[Trial] = []

    def start(source: str, boot_timeout: str = "60s") -> Trial:
        (tmp_path / "tried.py").write_text(source)
        config = Config.of(
            {"tasks": {"modules": ["tried"]}, "supervisor": {"boot_timeout": boot_timeout}},
            folder=str(tmp_path),
        )
        made.append(Trial(config, [], SYSTEM))
        return made[-1]

    yield start
    for trial in made:
        trial.close()


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        ("import os\n", ""),
        ("import nothing_of_that_name\n", "'tried' cannot be imported: ModuleNotFoundError"),
        ("import os\nos.kill(os.getpid(), 11)\n", "the import of tried ended its process: SIGSEGV"),
        # What it leaves behind holds its descriptors open, and is ended with it.
        ("import os, time\nif os.fork() == 0:\n    time.sleep(600)\n", ""),
    ],
    ids=["good", "missing", "crash", "a process of its own"],
)
def test_a_trial_tells_whether_the_modules_can_be_imported(
    try_out: Try, source: str, refused: str
) -> None:
    trial = try_out(source)
    told = eventually(lambda: [trial.outcome()] if trial.outcome() is not None else None)
    assert refused in told[0]  # type: ignore[index, operator]
    assert bool(refused) == bool(told[0])  # type: ignore[index]


def test_an_import_that_hangs_is_ended_at_boot_timeout(try_out: Try) -> None:
    trial = try_out("import time\ntime.sleep(600)\n", boot_timeout="100ms")
    told = eventually(lambda: [trial.outcome()] if trial.outcome() is not None else None)
    assert told == ["the import of tried took longer than 100ms"]


def test_a_trial_that_is_given_up_leaves_no_process(try_out: Try, tmp_path: Path) -> None:
    told = tmp_path / "pid"
    trial = try_out(
        f"import os, time\nopen({str(told)!r}, 'w').write(f'{{os.getpid()}} ')\ntime.sleep(600)\n"
    )
    eventually(lambda: told.exists() and told.read_text().endswith(" "), what="it imports")
    pid = int(told.read_text())
    trial.close()
    assert not alive(pid)
