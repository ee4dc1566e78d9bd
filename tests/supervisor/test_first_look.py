from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from jobvisor.jobs.clock import SYSTEM
from jobvisor.jobs.errors import ConfigError
from jobvisor.supervisor.config import Config
from jobvisor.supervisor.parent.first_look import FirstLook


def test_an_answer_is_read_although_the_end_of_the_child_that_gave_it_was_a_signal(
    tmp_path: Path,
) -> None:
    database = tmp_path / "jobs.db"
    database.write_bytes(b"this is no database" * 1000)
    look = FirstLook(Config.of({"database": {"url": f"sqlite:///{database}"}}), [], SYSTEM)
    select.select([look._read], [], [], 60)
    signals, noted = os.pipe()
    try:
        os.write(noted, b"\x11")
        with pytest.raises(ConfigError, match="it is not an SQLite database"):
            look.answer([signals])
    finally:
        os.close(signals)
        os.close(noted)
