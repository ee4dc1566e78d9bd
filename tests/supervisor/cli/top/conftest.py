"""`jobvisor top` on a pseudo-terminal, beside a process that plays the family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from jobvisor.jobs.client import Client
from tests.screen import Played

Show = Callable[..., Played]


@pytest.fixture
def show(folder: Path) -> Iterator[Show]:
    with ExitStack() as stack:

        def start(*args: str, **how: Any) -> Played:
            return stack.enter_context(Played(*(args or ("top",)), folder=folder, **how))

        yield start


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with Client(f"sqlite:///{folder}/jobs.db") as opened:
        opened.migrate()
        yield opened
