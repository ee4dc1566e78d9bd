"""What is collected, and how many examples Hypothesis tries: few and the same for a commit, many and
new ones where asked.
"""

from __future__ import annotations

import os

from hypothesis import settings

collect_ignore = ["bench/peers"]  # each needs another queue, which is not installed

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
