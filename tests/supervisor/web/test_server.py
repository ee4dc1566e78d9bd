"""Where the web role listens, and how what it sends leaves at once."""

from __future__ import annotations

import asyncio
import socket

from jobvisor.supervisor.web.server import listening_sockets


def test_what_is_answered_leaves_without_waiting_for_the_client_to_acknowledge_its_head() -> None:
    async def delays() -> int:
        (door,) = await listening_sockets("127.0.0.1", 0)
        found: asyncio.Queue[int] = asyncio.Queue()

        async def met(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            its: socket.socket = writer.get_extra_info("socket")
            found.put_nowait(its.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(met, sock=door):
            with socket.create_connection(door.getsockname()):
                return await found.get()

    assert asyncio.run(delays()) == 1
