"""A bare Protocol on uvloop: a callback that writes what it got. No framing, no back-pressure, no handler task. For
packets the same datagram Protocol as `asyncio_protocol`."""

from __future__ import annotations

import asyncio

import asyncio_protocol
import uvloop
from common import BACKLOG, UDP_MODES, arguments, ready, tls_context


class Echo(asyncio.Protocol):
    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def serve() -> None:
    port, mode = arguments()
    if mode in UDP_MODES:
        await asyncio_protocol.serve()
        return
    loop = asyncio.get_running_loop()
    context = tls_context() if mode == "tls" else None
    server = await loop.create_server(Echo, "127.0.0.1", port, ssl=context, backlog=BACKLOG)
    ready(port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
