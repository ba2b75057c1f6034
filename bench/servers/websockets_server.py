"""websockets on uvloop, its asyncio server: `async for`, `send`, its own `broadcast`."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from common import (
    BACKLOG,
    DEFLATE_MODES,
    JOIN,
    JOINED,
    LARGEST_MESSAGE,
    SEND,
    WS_GROUP,
    WS_IDLE_DEFLATE,
    Numbered,
    arguments,
    ready,
)
from websockets.asyncio import server as websockets_server
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory


async def echo(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


class Members:
    """A set of connections; a burst is sent in one turn."""

    def __init__(self, api: Any) -> None:
        self.broadcast = api.broadcast
        self.members: set[Any] = set()
        self.lines = Numbered()

    async def handle(self, connection: Any) -> None:
        async for message in connection:
            if message == JOIN:
                self.members.add(connection)
                await connection.send(JOINED)
            elif message.startswith(SEND):
                for _ in range(int(message[len(SEND) :])):
                    self.broadcast(self.members, self.lines.next_message())


def deflate(mode: str) -> list[ServerPerMessageDeflateFactory]:
    """Its own windows at the fastest level cost the least time; not to keep them between messages the least memory."""
    keeps = mode != WS_IDLE_DEFLATE
    return [
        ServerPerMessageDeflateFactory(
            server_no_context_takeover=not keeps,
            client_no_context_takeover=not keeps,
            server_max_window_bits=12,
            client_max_window_bits=12,
            compress_settings={"level": 1, "memLevel": 5},
        )
    ]


async def serve(api: Any = websockets_server, options: dict[str, Any] | None = None) -> None:
    """`api` is the module to take `serve` and `broadcast` from; `options` are those of its deflate modes."""
    port, mode = arguments()
    handler = Members(api).handle if mode == WS_GROUP else echo
    if mode not in DEFLATE_MODES:
        options = {"compression": None}
    elif options is None:
        options = {"compression": None, "extensions": deflate(mode)}
    server = api.serve(
        handler,
        "127.0.0.1",
        port,
        ping_interval=None,
        open_timeout=60,
        max_size=LARGEST_MESSAGE,
        backlog=BACKLOG,
        **options,
    )
    async with server:
        ready(port)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(serve())
