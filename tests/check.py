"""The one command that checks all: `python -m tests.check` (format, lint, types, tests)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

STEPS = (
    ("ruff", "format", "--check", "--quiet"),
    ("ruff", "check", "--quiet"),
    ("mypy",),
    ("pytest",),
)


def main() -> int:
    """Run each step with this interpreter's own tools; stop at the first that fails."""
    for step in STEPS:
        code = _run(step)
        if code:
            return code
    return 0


def _run(step: tuple[str, ...]) -> int:
    print(f"-- {' '.join(step)}", flush=True)
    return subprocess.run([sys.executable, "-m", *step], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
