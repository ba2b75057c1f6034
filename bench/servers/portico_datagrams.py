"""Portico's `datagrams`: lists of packets, or packet by packet; and a Channel for each peer. With GRO or without."""

from __future__ import annotations

import asyncio
import sys

from common import LINE_SIZE, QUESTION_SIZE, UDP_BUFFER, UDP_RECEIVE, ready

import portico

OPTIONS = {"receive_buffer": UDP_BUFFER}

ROOM = portico.Limits(read_buffer=UDP_BUFFER)
"""A peer's queue as long as that of `datagrams`."""


async def echo_batches(socket: portico.Datagrams) -> None:
    async for batch in socket.batches():
        await socket.send_many((packet.data, packet) for packet in batch)


async def echo_packets(socket: portico.Datagrams) -> None:
    async for packet in socket:
        await socket.send(packet.data, packet)


async def echo_channel(channel: portico.Channel[bytes]) -> None:
    async for message in channel:
        await channel.send(message)


async def count_batches(socket: portico.Datagrams) -> None:
    packets = size = questions = 0
    async for batch in socket.batches():
        packets += len(batch)
        for packet in batch:
            size += len(packet.data)
        if size % LINE_SIZE != questions:  # nobody sends anything behind a question
            questions += 1
            await socket.send(b"%d %d" % (packets, size), batch[-1])


async def count_packets(socket: portico.Datagrams) -> None:
    packets = total = 0
    async for packet in socket:
        size = len(packet.data)
        packets += 1
        total += size
        if size == QUESTION_SIZE:
            await socket.send(b"%d %d" % (packets, total), packet)


async def serve_datagrams(port: int, mode: str, variant: str) -> None:
    """One socket and one task."""
    batches, packets = (count_batches, count_packets) if mode == UDP_RECEIVE else (echo_batches, echo_packets)
    address = f"udp://127.0.0.1:{port}"
    async with portico.datagrams(address, options=OPTIONS, gro=variant != "no-gro") as socket:
        ready(port)
        await (packets if variant == "packets" else batches)(socket)


def serve_peers(port: int, mode: str) -> None:
    """A Channel for each peer. What one does not take in time is dropped, not left to the kernel, so it is told too."""

    servers: list[portico.Server] = []

    async def count_channel(channel: portico.Channel[bytes]) -> None:
        packets = total = 0
        async for message in channel:
            size = len(message)
            packets += 1
            total += size
            if size == QUESTION_SIZE:
                await channel.send(b"%d %d %d" % (packets, total, servers[0].stats.packets_dropped))

    def started(server: portico.Server) -> None:
        servers.append(server)
        ready(port)

    service = portico.Service()
    handler = count_channel if mode == UDP_RECEIVE else echo_channel
    service.listen(f"udp://127.0.0.1:{port}", handler, options=OPTIONS, limits=ROOM)
    portico.run(service, banner=started)


def main(port: int, mode: str, loop: str) -> None:
    """Serve until a signal comes."""
    variant = sys.argv[3] if len(sys.argv) > 3 else ""
    if variant == "peers":
        serve_peers(port, mode)
    elif loop == "asyncio":
        asyncio.run(serve_datagrams(port, mode, variant))
    else:
        import uvloop

        uvloop.run(serve_datagrams(port, mode, variant))
