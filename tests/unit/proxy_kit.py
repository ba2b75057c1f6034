"""Proxies that a test plays itself: what a client must say, and what they answer."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable

import pytest
from client_kit import accept, listening

from portico.address import Address
from portico.errors import ConnectError, ProxyError

TARGET = "tcp://192.0.2.7:4711"
SOCKS4_YES = b"\0\x5a\x12\x34\x0a\0\0\1"
SOCKS5_YES = b"\5\0\0\1\x0a\0\0\1\x12\x34"
HTTP_YES = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n"
ADDRESS = b"\xc0\0\2\7"
PORT = (4711).to_bytes(2, "big")
SOCKS4_ASK = b"\4\1" + PORT + ADDRESS + b"\0"
SOCKS5_ASK = b"\5\1\0\1" + ADDRESS + PORT

Steps = list[tuple[bytes, bytes]]
"""What the proxy waits for, and what it answers."""

TALKS: dict[str, Steps] = {
    "socks4": [(SOCKS4_ASK, SOCKS4_YES)],
    "socks5": [(b"\5\1\0", b"\5\0"), (SOCKS5_ASK, SOCKS5_YES)],
    "socks5 with a password": [
        (b"\5\2\0\2", b"\5\2"),
        (b"\1\3joe\6secret", b"\1\0"),
        (SOCKS5_ASK, SOCKS5_YES),
    ],
    "http": [(b"\r\n\r\n", HTTP_YES)],
}
URLS = {name: name.partition(" ")[0] + "://" + ("joe:secret@" if " " in name else "") for name in TALKS}


def cut(steps: Steps) -> list[Steps]:
    """The talk broken off after each byte that the proxy says, none included."""
    found = []
    for index, (wanted, answer) in enumerate(steps):
        found += [[*steps[:index], (wanted, answer[:size])] for size in range(len(answer))]
    return found


class Played:
    """A proxy that plays its part and notes what it was told."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.heard: list[bytes] = []

    def url(self, start: str) -> str:
        return f"{start}{self.address.host}:{self.address.port}"


async def hear(peer: socket.socket, wanted: bytes) -> bytes:
    """Read until what came ends with `wanted`."""
    heard = b""
    while not heard.endswith(wanted):
        more = await asyncio.get_running_loop().sock_recv(peer, 1 if wanted else 100)
        if not more:
            break
        heard += more
    return heard


@contextlib.asynccontextmanager
async def playing(*talks: Steps, then: str = "stay", dribble: bool = False) -> AsyncIterator[Played]:
    """Play each of `talks` to a client of its own; `then` stay until the client goes, or close, or reset."""
    with listening() as (sock, address):
        played = Played(address)

        async def play(steps: Steps, peer: socket.socket) -> None:
            with peer, contextlib.suppress(ConnectionError):
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for wanted, answer in steps:
                    played.heard.append(await hear(peer, wanted))
                    for piece in (answer[i : i + 1] for i in range(len(answer))) if dribble else [answer]:
                        await asyncio.get_running_loop().sock_sendall(peer, piece)
                        await asyncio.sleep(0)
                if then == "reset":
                    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                while then == "stay" and await asyncio.get_running_loop().sock_recv(peer, 1000):
                    pass

        async def play_all() -> None:
            async with asyncio.TaskGroup() as group:
                for steps in talks:
                    group.create_task(play(steps, await accept(sock)))

        task = asyncio.ensure_future(play_all())
        try:
            yield played
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def failure(connecting: Awaitable[object]) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await connecting
    return caught.value


def reason_of(error: ConnectError, proxy: Address) -> str:
    """Check that `error` names the hop that failed, and return what was wrong with it."""
    last = error.attempts[-1]
    assert last.stage == "proxy" and last.address == proxy
    assert isinstance(last.error, ProxyError) and last.error.proxy == proxy
    assert f"{proxy}: proxy: the proxy {proxy} {last.error.reason}" in str(error)
    assert "secret" not in str(error) and "\n" not in str(error)
    return last.error.reason
