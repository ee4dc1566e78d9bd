"""What stands where in the shared memory of counters: the words of a block, of a pair, and the buckets.

A block belongs to one place of the board, so to one process at a time, or to the parent. It has words of its
own, and a row for each pair of a task and a queue that it has met.
"""

from __future__ import annotations

from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.outcome import VERB_CODES

PAIRS_MAX = 500
"""Pairs of a task and a queue that are counted by their names; what comes later is counted as OTHER."""
OTHER = "other"

FOREVER = 2**63 - 1

_MS = SECOND // 1000

RUN_BOUNDS_NS = tuple(
    each * _MS
    for each in (1, 5, 25, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000, 1_800_000)
)  # fmt: skip
"""Upper bounds of the buckets of how long a run took; the last bucket has none."""
WAIT_BOUNDS_MS = (
    10, 50, 100, 250, 500, 1_000, 5_000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000,
)  # fmt: skip
"""The same of how long a job had been due when it was claimed."""
TURN_BOUNDS = (1, 2, 5, 10, 50, 100, 250, 500)
"""The same of how many jobs one turn claimed; a turn that claimed none is in no bucket."""
RESCUE_BOUNDS_MS = (10, 25, 50, 100, 250, 500, 1_000, 5_000, 30_000)
"""The same of how long after its death a worker was settled."""

# A row of a pair.
OUTCOMES = ("succeeded", "retried", "snoozed", "failed", "released", "cancelled")
"""How a run ended, in the order of its verb's code."""
DEATH_CAUSES = ("crash", "oom", "timeout", "memory", "stopped", "vanished")
"""Why a run ended with its process."""
OUTCOMES_AT = 0
DEATHS_AT = OUTCOMES_AT + len(OUTCOMES)
RUNS_AT = DEATHS_AT + len(DEATH_CAUSES)
WAITS_AT = RUNS_AT + len(RUN_BOUNDS_NS) + 1
RUN_NS, WAIT_MS, CPU_NS = (WAITS_AT + len(WAIT_BOUNDS_MS) + 1 + each for each in range(3))
PAIR_WORDS = 48

# The words of a block itself. USED: how many pairs have names, moved last. COUNTED_OF and COUNTED: the life
# that has it, and its last claim whose outcomes are counted; BEFORE_OF and BEFORE: the same of the life
# before it. ENDS_AT: ends of children, by role and cause (the parent alone).
(
    USED, COUNTED_OF, COUNTED, BEFORE_OF, BEFORE, TURNS, CLAIMED, LOST, ERRORS, RECALLS,
    RECALLED, RESCUE_MS,
) = range(12)  # fmt: skip
TURNS_AT = 16
RESCUES_AT = TURNS_AT + len(TURN_BOUNDS) + 1
ENDS_AT = 40
ROLES_MAX = 12
CAUSES = (
    "finished", "error", "signal", "boot", "stop", "reload", "scale", "recycled", "dirty", "clerk",
    "timeout", "memory", "cancel", "stuck", "force",
)  # fmt: skip
"""Why a child ended: it had nothing more to do, it failed, somebody's signal, or as the board says."""
HEAD_WORDS = ENDS_AT + ROLES_MAX * len(CAUSES)

HEAP_BYTES = 48 << 10
"""For the names of the pairs of a block."""
NAME_MAX = 1_000
"""Bytes of the two names of a pair; a longer one is counted as OTHER."""

PAIRS_AT = HEAD_WORDS
"""The first row is that of OTHER."""
BLOCK_WORDS = HEAD_WORDS + (PAIRS_MAX + 1) * PAIR_WORDS
NAMES_AT = BLOCK_WORDS * 8
BLOCK_BYTES = (NAMES_AT + HEAP_BYTES + 4095) & ~4095

SUCCEED = VERB_CODES["succeed"]
