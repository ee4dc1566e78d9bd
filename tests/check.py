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


#: What failed while six tests ran at a time is run again alone: what fails again is broken. What passes then
#: is unsteady, stands in the output above, and is to be mended too.
AGAIN = ("pytest", "-n", "0", "--last-failed", "--last-failed-no-failures", "none")
FAILED = 1  # pytest's exit code where tests failed, and nothing worse


def main() -> int:
    """Run each step with this interpreter's own tools; stop at the first that fails."""
    for step in STEPS:
        code = _run(step)
        if code == FAILED and step == ("pytest",):
            code = _run(AGAIN)
        if code:
            return code
    return 0


def _run(step: tuple[str, ...]) -> int:
    print(f"-- {' '.join(step)}", flush=True)
    return subprocess.run([sys.executable, "-m", *step], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
