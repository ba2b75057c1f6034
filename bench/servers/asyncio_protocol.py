"""asyncio's datagram endpoint on the loop of the standard library: a Protocol with a callback for each packet."""

from __future__ import annotations

import asyncio
from typing import cast

from common import QUESTION_SIZE, UDP_RECEIVE, arguments, ready, udp_socket


class Echo(asyncio.DatagramProtocol):
    __slots__ = ("transport",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        self.transport.sendto(data, address)


class Count(Echo):
    __slots__ = ("packets", "size")

    def __init__(self) -> None:
        self.packets = self.size = 0

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        size = len(data)
        self.packets += 1
        self.size += size
        if size == QUESTION_SIZE:
            self.transport.sendto(b"%d %d" % (self.packets, self.size), address)


async def serve() -> None:
    port, mode = arguments()
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Count if mode == UDP_RECEIVE else Echo, sock=udp_socket(port))
    ready(port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
