"""anyio on its asyncio backend with uvloop, the fastest it offers."""

from __future__ import annotations

import anyio
from anyio.abc import ByteStream, UDPSocket
from anyio.streams.buffered import BufferedByteReceiveStream
from anyio.streams.tls import TLSListener
from common import (
    BACKLOG,
    JOIN,
    JOINED,
    QUESTION_SIZE,
    SEND,
    UDP_MODES,
    UDP_RECEIVE,
    Numbered,
    arguments,
    ready,
    tls_context,
    udp_socket,
)

MAX_LINE = 1 << 20
LOST = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError)


async def echo_lines(stream: ByteStream) -> None:
    async with stream:
        buffered = BufferedByteReceiveStream(stream)
        try:
            while True:
                line = await buffered.receive_until(b"\n", MAX_LINE)
                await stream.send(line + b"\n")
        except LOST:
            pass


async def echo_bytes(stream: ByteStream) -> None:
    async with stream:
        try:
            async for data in stream:
                await stream.send(data)
        except LOST:
            pass


class Group:
    """A list of members; `send` of one after the other is the one way that anyio offers."""

    def __init__(self) -> None:
        self.members: list[ByteStream] = []
        self.lines = Numbered()

    async def handle(self, stream: ByteStream) -> None:
        buffered = BufferedByteReceiveStream(stream)
        try:
            while True:
                line = await buffered.receive_until(b"\n", MAX_LINE)
                if line == JOIN:
                    self.members.append(stream)
                    await stream.send(JOINED + b"\n")
                elif line.startswith(SEND):
                    await self.broadcast(int(line[len(SEND) :]))
        except LOST:
            pass

    async def broadcast(self, burst: int) -> None:
        data = b"".join(self.lines.next() + b"\n" for _ in range(burst))
        for member in self.members:
            await member.send(data)


async def echo_packets(socket: UDPSocket) -> None:
    async for data, peer in socket:
        await socket.send((data, peer))


async def count_packets(socket: UDPSocket) -> None:
    """It keeps 100 packets; a newer one pushes out the oldest, and nothing tells."""
    packets = total = 0
    async for data, peer in socket:
        size = len(data)
        packets += 1
        total += size
        if size == QUESTION_SIZE:
            await socket.send((b"%d %d ?" % (packets, total), peer))


async def serve_packets(port: int, mode: str) -> None:
    async with await UDPSocket.from_socket(udp_socket(port)) as socket:
        ready(port)
        await (count_packets if mode == UDP_RECEIVE else echo_packets)(socket)


async def serve() -> None:
    port, mode = arguments()
    if mode in UDP_MODES:
        await serve_packets(port, mode)
        return
    handler = Group().handle if mode == "group" else echo_bytes if mode in ("raw", "tls") else echo_lines
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port, backlog=BACKLOG)
    ready(port)
    if mode == "tls":
        await TLSListener(listener, tls_context(), standard_compatible=False).serve(handler)
    else:
        await listener.serve(handler)


if __name__ == "__main__":
    anyio.run(serve, backend_options={"use_uvloop": True})
