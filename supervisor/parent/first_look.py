"""One look at the database before the first fork: whether it can ever be used as it is.

A child of its own does it, since the parent holds no connection, while the parent gets ready. A schema
that is missing or too new is told once so, not by each child in each of its boots; a database that is
away may come later. The tables of a SQLite file are brought up to this release by this child, before
anybody is there whom a long migration could keep waiting, and who would be judged for it.
"""

from __future__ import annotations

import os
import select
from collections.abc import Sequence

from jobvisor.jobs.clock import Clock
from jobvisor.jobs.errors import EX_CONFIG, EX_OK, ConfigError, StoreError
from jobvisor.jobs.log import say
from jobvisor.jobs.store import open_store
from jobvisor.supervisor.child import end, spawn
from jobvisor.supervisor.config import Config

PATIENCE_SECONDS = 2.0  # for the database
ANSWER_SECONDS = 6.0  # for the child, which may be starved: then the family starts without
# For the next sign of a migration, once there was one: a sort, or the COMMIT of gigabytes, gives none.
MIGRATION_SECONDS = 60.0
MIGRATES = b"\0"  # a sign of a migration, before the answer
ANSWER_BYTES_MAX = 4096


class FirstLook:
    """The child that looks, from its fork to its answer."""

    def __init__(self, config: Config, closing: Sequence[int], clock: Clock) -> None:
        """`closing` are the descriptors that are the parent's alone."""
        self._clock = clock
        self._read, write = os.pipe2(os.O_CLOEXEC)
        try:
            self._pid = spawn(lambda: _look(config, write), [*closing, self._read])
        except OSError:
            self._pid = 0  # the system has no process to give; the children are tried again anyhow
        os.close(write)

    def answer(self, ending: Sequence[int]) -> None:
        """Wait for it: not for long, or for as long as a migration moves.

        Something to read from one of `ending` ends the wait; what had been migrated is undone then.

        Raises:
            ConfigError: the database cannot be used as it is, for the reason the store gives.
        """
        poll = select.poll()
        for descriptor in (self._read, *ending):
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN)
        found, patience, migrates = b"", ANSWER_SECONDS, False
        while self._pid:
            heard = {descriptor for descriptor, _ in poll.poll(int(patience * 1000))}
            if self._read not in heard:
                break
            # Read whatever else is heard: the end of the child that has answered is a signal, too.
            read = os.read(self._read, ANSWER_BYTES_MAX)
            found = read.lstrip(MIGRATES)
            if found or not read or len(heard) > 1:
                break
            patience = MIGRATION_SECONDS
            if not migrates:
                migrates = True
                say("migrating")
        self.close()
        if found:
            raise ConfigError(found.decode(errors="replace"))

    def close(self) -> None:
        """End the child, whether or not it has answered; once."""
        if self._read < 0:
            return
        os.close(self._read)
        self._read = -1
        if not self._pid:
            return
        end(self._pid, self._clock)


def _look(config: Config, write: int) -> int:
    """In the child: an empty answer is a good one."""
    database = config.database
    store = open_store(
        database.url,
        schema=database.schema,
        prefix=database.prefix,
        notify=False,
        patience=PATIENCE_SECONDS,
    )

    def tell() -> None:
        os.write(write, MIGRATES)  # where nobody reads it this fails, and ends the migration

    store.on_migrate = tell
    try:
        store.open()
        store.close()
    except StoreError as error:
        if error.exit_code == EX_CONFIG:
            os.write(write, str(error).encode()[:ANSWER_BYTES_MAX])
    return EX_OK
