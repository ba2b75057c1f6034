"""Portico's WebSocket and its HTTP front: the handler of the lines, unchanged, and a folder of files."""

from __future__ import annotations

from typing import Literal

from common import (
    DEFLATE_MODES,
    HTTP,
    JOIN,
    JOINED,
    LARGEST_MESSAGE,
    SEND,
    WS_GROUP,
    Numbered,
    ready,
    small_file,
)

import portico

ROOM = portico.Limits(max_connections=15_000)
"""The defaults, with room for the connections of the workloads."""


async def echo(channel: portico.Channel[str | bytes]) -> None:
    async for message in channel:
        await channel.send(message)


class Members:
    """One group; a burst is sent in one turn."""

    def __init__(self) -> None:
        self.group: portico.Group[str | bytes] = portico.Group()
        self.lines = Numbered()

    async def handle(self, channel: portico.Channel[str | bytes]) -> None:
        async for message in channel:
            assert isinstance(message, bytes)
            if message == JOIN:
                await self.stay(channel)
            elif message.startswith(SEND):
                for _ in range(int(message[len(SEND) :])):
                    self.group.send(self.lines.next_message())

    async def stay(self, channel: portico.Channel[str | bytes]) -> None:
        async with self.group.join(channel):
            await channel.send(JOINED)
            async for _ in channel:
                pass


def main(port: int, mode: str, loop: Literal["uvloop", "asyncio"]) -> None:
    """Serve until a signal comes. Pings, the check of origins and compression are as they come, where it is on."""
    service = portico.Service()
    if mode == HTTP:
        door = portico.Door()
        door.files("/", small_file().parent)
        service.listen(f"http://127.0.0.1:{port}", door, limits=ROOM)
    else:
        deflate = portico.Deflate() if mode in DEFLATE_MODES else None
        settings = portico.WebSocketSettings(deflate=deflate, max_size=LARGEST_MESSAGE)
        handler = Members().handle if mode == WS_GROUP else echo
        service.listen(f"ws://127.0.0.1:{port}/", handler, websocket=settings, limits=ROOM)
    portico.run(service, loop=loop, banner=lambda server: ready(port))
