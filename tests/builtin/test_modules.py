"""The modules of the tasks that come along: imported where they are configured, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )


LOADED = """
import sys
import {module}
from jobvisor import registry
heavy = {{"httpx", "httpcore", "smtplib", "fastapi"}} & set(sys.modules)
print(registry.names(), sorted(heavy), any("builtin" in name for name in sys.modules if "jobvisor" in name))
"""


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("jobvisor", "[] [] False"),
        ("jobvisor.supervisor.worker", "[] [] False"),
        ("jobvisor.builtin.shell", "['shell'] [] True"),
        ("jobvisor.builtin.http", "['http'] ['httpcore', 'httpx'] True"),
        ("jobvisor.builtin.email", "['email'] ['smtplib'] True"),
    ],
)
def test_a_module_brings_its_own_task_and_no_other(module: str, told: str) -> None:
    done = _run(LOADED.format(module=module))
    assert done.stdout.strip() == told, done.stderr


def test_http_without_its_library_names_what_to_install() -> None:
    done = _run("import sys; sys.modules['httpx'] = None\nimport jobvisor.builtin.http")
    assert "MissingExtra: the task http needs httpx: pip install 'jobvisor[http]'" in done.stderr
