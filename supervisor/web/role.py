"""The web role: a child that serves the application, and says where, or why it cannot.

It holds nothing that a job needs. Where its port is taken it tries on; where the database is away its
pages say so; when the family stops, or its parent is dead, it leaves at once.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import random
from typing import Any

from jobvisor.jobs.clock import SECOND
from jobvisor.jobs.errors import JobsError
from jobvisor.jobs.log import say
from jobvisor.supervisor.board import IDLE, LEAVE, STATE, WAITING_STATE
from jobvisor.supervisor.role import Role, Seat
from jobvisor.supervisor.signals import drain, poke
from jobvisor.supervisor.web.app import create_app
from jobvisor.supervisor.web.client import SiteClient
from jobvisor.supervisor.web.server import Server, ServerError, listening_sockets
from jobvisor.supervisor.web.troubles import Troubles

TICK_S = 1.0
RETRY_FIRST_S, RETRY_CAP_S = 0.1, 2.0
DOUBLINGS_MAX = 10
SHORT_NS = 3 * SECOND
_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class WebRole(Role):
    """One process with one loop; endpoints that wait do so in its threads."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat)
        self._failures = 0
        self._try: asyncio.Task[None] | None = None  # to listen: a name may be looked up for long
        self._listen_at = 0  # when it is tried again
        self._said = ""  # why it does not listen, or accepts nobody
        self._short_until = 0  # a descriptor, or memory, was missing a moment ago

    def boot(self) -> None:
        """Make the application and a loop. It listens with the first step, or says why not."""
        config = self.seat.config
        self._troubles = Troubles(self.clock)
        for name in ("uvicorn", "asyncio"):
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [self._troubles], False
        self._app = create_app(
            SiteClient(settings=config.settings),
            settings=config.web,
            state_dir=config.family.state_dir,
            counters=self.board.counters,
        )
        self._make_loop()
        self._server = Server(self._app)
        try:
            self._loop.run_until_complete(self._server.begin())
        except ServerError as error:
            raise JobsError(str(error)) from error
        self.slot[STATE] = WAITING_STATE

    def _make_loop(self) -> None:
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._loop.set_exception_handler(lambda _loop, told: self._met(told))
        self._woken = asyncio.Event()
        self._loop.add_reader(self.signals.fileno(), self._hear_signal)
        self._loop.add_reader(self.seat.lifeline, self._hear_lifeline)

    def leaving(self) -> bool:
        """The end of the family, with or without its word; or a TERM, which everybody is sent."""
        return self.told_to_leave() or self.lifeline_cut or bool(self.slot[LEAVE])

    def step(self) -> float:
        """Serve for a second, or until there is something to hear."""
        self._loop.run_until_complete(self._turn())
        self.glance()
        return 0.0

    def shut_down(self) -> None:
        """Close the door; a database that answers late is not waited for."""
        self._troubles.is_over = True
        self._app.state.live.close()
        if self._try is not None:
            self._try.cancel()
        self._loop.run_until_complete(self._server.close())

    async def _turn(self) -> None:
        self._server.tick()
        if self._try is not None and self._try.done():
            self._try.result()
            self._try = None
        if self._try is None and self._is_to_listen():
            self._try = self._loop.create_task(self._listen())
        if self._short_until and self.clock.monotonic_ns() > self._short_until:
            self._short_until = 0
            self._show_listening()
        try:
            async with asyncio.timeout(TICK_S):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()

    def _is_to_listen(self) -> bool:
        return not self._server.url and self.clock.monotonic_ns() >= self._listen_at

    async def _listen(self) -> None:
        web = self.seat.config.web
        try:
            await self._server.listen(await listening_sockets(web.host, web.port))
        except (ServerError, OSError) as error:
            self._put_off(str(error))
            return
        self._failures = 0
        say("listening", url=self._server.url)
        self._show_listening()

    def _put_off(self, error: str) -> None:
        """It is tried again, and said where it is another trouble than before."""
        self._failures += 1
        delay = min(RETRY_FIRST_S * 2 ** min(self._failures, DOUBLINGS_MAX), RETRY_CAP_S)
        delay *= random.uniform(0.5, 1.0)
        self._listen_at = self.clock.monotonic_ns() + int(delay * SECOND)
        if error != self._said:
            say("not_listening", error=error, delay="a moment")
            self._show_trouble(error)

    def _show_listening(self) -> None:
        self._said = ""
        self._show(IDLE, self._server.url)

    def _show_trouble(self, error: str) -> None:
        if error != self._said:
            self._said = error
            self._show(WAITING_STATE, error)

    def _show(self, state: int, note: str) -> None:
        """On the board: the note first, since it is read by who sees the state."""
        self.board.write_note(self.slot.index, note)
        self.slot[STATE] = state
        poke(self.seat.caretaker_poke)

    # -- called by the loop

    def _hear_signal(self) -> None:
        drain(self.signals.fileno())
        self._woken.set()

    def _hear_lifeline(self) -> None:
        self._loop.remove_reader(self.seat.lifeline)  # it stays readable for ever
        self._woken.set()

    def _met(self, told: dict[str, Any]) -> None:
        """An error that nobody took: of an accept without a descriptor, of a forgotten task."""
        error = told.get("exception")
        self._troubles.note(str(told.get("message")), error)
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            self._short_until = (
                self.clock.monotonic_ns() + SHORT_NS
            )  # the loop tries again in a second
            self._show_trouble(
                f"the web role accepts no connection: {error.strerror}; raise the limits of its process "
                "(ulimit -n)"
            )
