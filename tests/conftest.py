"""What holds for every test process: where files go, and how many examples Hypothesis tries."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hypothesis import settings

from tests.places import in_memory

if folder := in_memory():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(folder))  # the folders of `tmp_path`

# The suite starts hundreds of interpreters. Where they may leave no bytecode beside the sources each of
# them would compile all of them, so it goes where pytest keeps what it remembers.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).resolve().parents[1] / ".pytest_cache" / "bytecode")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

EXAMPLES_VARIABLE = "JOBVISOR_TEST_EXAMPLES"

# No deadline: how long an example takes says more about the machine than about the code.
settings.register_profile("commit", max_examples=50, derandomize=True, database=None, deadline=None)
settings.register_profile(
    "search",
    max_examples=int(os.environ.get(EXAMPLES_VARIABLE, "50")),
    deadline=None,
    print_blob=True,
)
settings.load_profile("search" if EXAMPLES_VARIABLE in os.environ else "commit")
