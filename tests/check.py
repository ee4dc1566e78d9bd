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
    for module, *arguments in STEPS:
        print(f"-- {module} {' '.join(arguments)}", flush=True)
        code = subprocess.run(
            [sys.executable, "-m", module, *arguments], cwd=ROOT, check=False
        ).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
