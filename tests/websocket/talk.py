"""A WebSocket's server of the library, and a plain socket that has shaken hands with it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from server.support import Client, client_of

import portico
from portico import WebSocketSettings

from .frames_kit import Frame, frames_in
from .support import head_from, request


class Talker(Client):
    """A plain client behind the handshake."""

    server: portico.Server

    async def frame(self) -> Frame:
        """The next frame of the server."""
        head = await self.recv_exactly(2)
        more = {126: 2, 127: 8}.get(head[1] & 127, 0)
        head += await self.recv_exactly(more)
        size = int.from_bytes(head[2:], "big") if more else head[1] & 127
        (whole,) = frames_in(head + await self.recv_exactly(size))
        return whole


@contextlib.asynccontextmanager
async def plain_client(
    handler: Callable[[Any], Awaitable[object]], settings: WebSocketSettings | None = None, **listen: Any
) -> AsyncIterator[Talker]:
    """Serve `handler`, and give a plain client that is behind its handshake; its offer is no compression."""
    async with portico.serve(handler, "ws://127.0.0.1:0", websocket=settings, **listen) as server:
        client = await client_of(server.address)
        try:
            talker = Talker(client.sock)
            talker.server = server
            await talker.send(request())
            assert (await head_from(talker)).startswith("HTTP/1.1 101 ")
            yield talker
        finally:
            client.close()
