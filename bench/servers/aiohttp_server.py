"""aiohttp on uvloop: `async for`, `send_bytes`. It compresses at the fastest level and keeps its window unless the
client asks that it does not. With `isal` its zlib is that of ISA-L, which it lets one choose."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import uvloop
from aiohttp import web
from common import BACKLOG, DEFLATE_MODES, JOIN, JOINED, LARGEST_MESSAGE, SEND, WS_GROUP, Numbered, arguments, ready


class Handlers:
    def __init__(self, compress: bool) -> None:
        self.compress = compress
        self.members: list[web.WebSocketResponse] = []
        self.lines = Numbered()

    async def upgrade(self, request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(compress=self.compress, max_msg_size=LARGEST_MESSAGE)
        await websocket.prepare(request)
        return websocket

    async def echo(self, request: web.Request) -> web.WebSocketResponse:
        websocket = await self.upgrade(request)
        async for message in websocket:
            await websocket.send_bytes(message.data)
        return websocket

    async def group(self, request: web.Request) -> web.WebSocketResponse:
        """Members are a list; a burst is a plain loop over them."""
        websocket = await self.upgrade(request)
        async for message in websocket:
            if message.data == JOIN:
                self.members.append(websocket)
                await websocket.send_bytes(JOINED)
            elif message.data.startswith(SEND):
                for _ in range(int(message.data[len(SEND) :])):
                    data = self.lines.next_message()
                    for member in self.members:
                        await member.send_bytes(data)
        return websocket


async def serve() -> None:
    port, mode = arguments()
    handlers = Handlers(mode in DEFLATE_MODES)
    if "isal" in sys.argv:
        from isal import isal_zlib

        aiohttp.set_zlib_backend(isal_zlib)
    app = web.Application()
    app.router.add_get("/", handlers.group if mode == WS_GROUP else handlers.echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=BACKLOG).start()
    ready(port)
    await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    uvloop.run(serve())
