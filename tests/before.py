"""The release before this one, as the history of this repository has it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: The last commit of 0.5.0.
COMMIT = "a6ebd7c12d2086bfb2f570d976912bfcee0f3a39"

_TELL = """
import json
from jobvisor.jobs import __version__
from jobvisor.jobs.store.statements import statements
print(json.dumps([__version__, {name: statements(name) for name in ("sqlite", "postgres")}]))
"""


def unpack(folder: Path) -> dict[str, str]:
    """Put its packages into a folder; the environment in which an interpreter finds them, else a skip."""
    git = ["git", "-c", "safe.directory=*", "archive", COMMIT, "jobs", "supervisor", "jobvisor"]
    try:
        done = subprocess.run(git, cwd=ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no git here")
    if done.returncode:
        pytest.skip(f"the release before is not in the history here: {done.stderr.decode()}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return {**os.environ, "PYTHONPATH": str(folder)}


@cache
def statements(folder: Path) -> dict[str, dict[str, str]]:
    """Its statements by dialect and name; its packages are put into this folder."""
    told = subprocess.run(
        [sys.executable, "-c", _TELL],
        cwd=folder,
        env=unpack(folder),
        capture_output=True,
        check=True,
    )
    version, found = json.loads(told.stdout)
    assert version == "0.5.0"
    return dict(found)
