"""The tools of Prometheus, as far as they are installed here, and what is asked of them."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

PROMTOOL, PROMETHEUS = shutil.which("promtool"), shutil.which("prometheus")

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
needs_prometheus = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed")

RULES = Path(str(files("jobvisor.supervisor").joinpath("monitoring/rules.yml")))
DASHBOARD = Path(str(files("jobvisor.supervisor").joinpath("monitoring/dashboard.json")))


def promtool(*arguments: str, text: bytes = b"") -> str:
    """What it says; an AssertionError with all of it where it is not content."""
    assert PROMTOOL is not None
    done = subprocess.run(
        [PROMTOOL, *arguments], input=text, capture_output=True, check=False, timeout=60
    )
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said
