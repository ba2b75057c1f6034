"""trio: its streams have no line reader, so lines are split by hand, as its documentation advises."""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
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

PACKET_ROOM = 2048


async def lines_of(stream: trio.abc.Stream) -> AsyncIterator[bytes]:
    """Lines without their newline."""
    rest = b""
    async for data in stream:
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line


async def echo_lines(stream: trio.abc.Stream) -> None:
    try:
        async for line in lines_of(stream):
            await stream.send_all(line + b"\n")
    except trio.BrokenResourceError:
        pass


async def echo_bytes(stream: trio.abc.Stream) -> None:
    try:
        async for data in stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass


class Group:
    """A list of members; `send_all` of one after the other is the one way that trio offers."""

    def __init__(self) -> None:
        self.members: list[trio.abc.Stream] = []
        self.lines = Numbered()

    async def handle(self, stream: trio.abc.Stream) -> None:
        try:
            async for line in lines_of(stream):
                if line == JOIN:
                    self.members.append(stream)
                    await stream.send_all(JOINED + b"\n")
                elif line.startswith(SEND):
                    await self.broadcast(int(line[len(SEND) :]))
        except trio.BrokenResourceError:
            pass

    async def broadcast(self, burst: int) -> None:
        data = b"".join(self.lines.next() + b"\n" for _ in range(burst))
        for member in self.members:
            await member.send_all(data)


async def echo_packets(socket: trio.socket.SocketType) -> None:
    while True:
        data, peer = await socket.recvfrom(PACKET_ROOM)
        await socket.sendto(data, peer)


async def count_packets(socket: trio.socket.SocketType) -> None:
    packets = total = 0
    while True:
        data, peer = await socket.recvfrom(PACKET_ROOM)
        size = len(data)
        packets += 1
        total += size
        if size == QUESTION_SIZE:
            await socket.sendto(b"%d %d" % (packets, total), peer)


async def serve() -> None:
    port, mode = arguments()
    if mode in UDP_MODES:
        socket = trio.socket.from_stdlib_socket(udp_socket(port))
        ready(port)
        await (count_packets if mode == UDP_RECEIVE else echo_packets)(socket)
    handler = Group().handle if mode == "group" else echo_bytes if mode in ("raw", "tls") else echo_lines
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1", backlog=BACKLOG)
    if mode == "tls":
        context = tls_context()
        listeners = [trio.SSLListener(listener, context, https_compatible=True) for listener in listeners]
    ready(port)
    await trio.serve_listeners(handler, listeners)


if __name__ == "__main__":
    trio.run(serve)
