"""The public face as type checkers see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_mypy_knows_the_types_of_tasks_calls_and_jobs(tmp_path: Path) -> None:
    """As a user's project does: strict, against the package that py.typed says is typed."""
    arguments = ["--strict", "--follow-imports", "silent", str(ROOT / "tests/typed.py")]
    shared = ["--config-file", "", "--cache-dir", str(ROOT / ".mypy_cache")]
    ended = subprocess.run(
        [sys.executable, "-m", "mypy", *shared, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
