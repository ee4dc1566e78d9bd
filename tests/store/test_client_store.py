"""What a client is promised holds where a clerk does it, as it does in a worker with several lanes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.clerked import ClientDatabase
from tests.store.database import Database
from tests.store.test_annals import (  # noqa: F401 -- the same tests, with another database
    test_a_step_is_a_minute_at_least,
    test_old_sums_go_and_so_do_those_of_a_wrong_clock,
    test_sums_of_several_families_add_up,
    test_tasks_are_known_for_30_days_after_they_were_seen,
    test_who_did_what_is_told_the_newest_first,
)
from tests.store.test_cancel import *  # noqa: F403 -- the same tests, with another database
from tests.store.test_enqueue import *  # noqa: F403
from tests.store.test_finding import *  # noqa: F403
from tests.store.test_looks import *  # noqa: F403
from tests.store.test_move import (  # noqa: F401
    test_pages_of_one_snapshot_know_nothing_of_what_others_do_meanwhile,
)
from tests.store.test_prune import *  # noqa: F403
from tests.store.test_requeue import *  # noqa: F403
from tests.store.test_transaction import *  # noqa: F403

# It slows the clock of a store of this process; the store that prunes here is the clerk's.
del test_a_page_is_as_large_as_may_hold_the_database  # noqa: F821
# It gives a statement to the store's own connection, here the clerk's: a stranger's knows no foreign key.
del test_whoever_deletes_a_row_its_history_goes_too  # noqa: F821


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = ClientDatabase(tmp_path)
    yield made
    made.close()
