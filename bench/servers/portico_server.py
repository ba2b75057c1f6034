"""Portico on uvloop: the handlers that its README shows."""

from __future__ import annotations

from typing import Literal

import portico_datagrams
import portico_web
from common import JOIN, JOINED, SEND, UDP_MODES, WEB_MODES, Numbered, arguments, certificate, ready

import portico

LINES = portico.Lines(text=False)

ROOM = portico.Limits(max_connections=15_000)
"""The defaults, with room for the connections of the workloads."""

EVERYTHING = portico.Limits(
    max_connections=5_000,
    max_per_address=1_000,
    accept_rate=100_000,
    accept_burst=100_000,
    trust_loopback=False,
    handshake_timeout=10,
    max_handshakes=1_000,
    idle_timeout=60,
    message_timeout=30,
    send_timeout=30,
)
"""Every limit on and none excused; none of them trips."""


async def echo_lines(channel: portico.Channel[bytes]) -> None:
    async for message in channel:
        await channel.send(message)


async def echo_bytes(stream: portico.Stream) -> None:
    async for data in stream:
        await stream.send(data)


class Members:
    """One group; a burst is sent in one turn."""

    def __init__(self) -> None:
        self.group: portico.Group[bytes] = portico.Group()
        self.lines = Numbered()

    async def handle(self, channel: portico.Channel[bytes]) -> None:
        async for message in channel:
            if message == JOIN:
                await self.stay(channel)
            elif message.startswith(SEND):
                for _ in range(int(message[len(SEND) :])):
                    self.group.send(self.lines.next())

    async def stay(self, channel: portico.Channel[bytes]) -> None:
        async with self.group.join(channel):
            await channel.send(JOINED)
            async for _ in channel:
                pass


def main(loop: Literal["uvloop", "asyncio"]) -> None:
    """Serve until a signal comes."""
    port, mode = arguments()
    if mode in UDP_MODES:
        portico_datagrams.main(port, mode, loop)
        return
    if mode in WEB_MODES:
        portico_web.main(port, mode, loop)
        return
    service = portico.Service()
    address = f"tcp://127.0.0.1:{port}"
    if mode == "tls":
        cert, key = certificate()
        service.listen(f"tls://127.0.0.1:{port}", echo_bytes, tls=portico.TLS(certificate=cert, key=key), limits=ROOM)
    elif mode == "raw":
        service.listen(address, echo_bytes, limits=ROOM)
    elif mode == "group":
        service.listen(address, Members().handle, codec=LINES, limits=ROOM)
    else:
        service.listen(address, echo_lines, codec=LINES, limits=EVERYTHING if mode == "churn" else ROOM)
    portico.run(service, loop=loop, banner=lambda server: ready(port))


if __name__ == "__main__":
    main("uvloop")
