"""Plain sockets that keep packets apart, for the tests of servers over them."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import portico

UDP = "udp://127.0.0.1:0"


class Peer:
    """A plain UDP or Unix socket of the test: nothing of Portico's."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def recv(self) -> bytes:
        """The next packet."""
        return (await self.heard())[0]

    async def heard(self) -> tuple[bytes, Any]:
        """The next packet, and who sent it."""
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(self.sock, lambda: ready.done() or ready.set_result(None))
        try:
            await ready
        finally:
            loop.remove_reader(self.sock)
        return self.sock.recvfrom(70_000)

    def send(self, data: bytes, to: portico.Address | None = None) -> None:
        """Send a packet, to whom it is connected unless `to` says another."""
        if to is None:
            self.sock.send(data)
        else:
            self.sock.sendto(data, to.sockaddr)

    async def ask(self, data: bytes, to: portico.Address | None = None) -> bytes:
        """Send a packet, and return the next one that comes."""
        self.send(data, to)
        return await self.recv()

    @property
    def address(self) -> portico.Address:
        scheme = "unixgram" if self.sock.family == socket.AF_UNIX else "udp"
        return portico.Address.from_sockaddr(scheme, self.sock.family, self.sock.getsockname())

    def close(self) -> None:
        self.sock.close()


def peer_of(address: portico.Address | None, source: tuple[str, int] | str = ("127.0.0.1", 0)) -> Peer:
    """A socket bound to `source`, and connected to `address` where there is one."""
    family = socket.AF_INET if address is None else address.family
    assert family is not None
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_UNIX:
            sock.bind("" if isinstance(source, tuple) else source)
        elif source != ("127.0.0.1", 0) or family == socket.AF_INET:
            sock.bind(source)
        if address is not None:
            sock.connect(address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return Peer(sock)


@contextlib.asynccontextmanager
async def peers_of(address: portico.Address, count: int = 1) -> AsyncIterator[list[Peer]]:
    """`count` sockets that are connected to `address`; they are closed in the end."""
    made: list[Peer] = []
    try:
        for _ in range(count):
            made.append(peer_of(address))
        yield made
    finally:
        for each in made:
            each.close()


async def idle_cpu(seconds: float = 0.2) -> float:
    """The processor seconds that this thread spends while nothing is to do."""
    await asyncio.sleep(0.01)
    begun = time.thread_time()
    await asyncio.sleep(seconds)
    return time.thread_time() - begun


def counting(counts: list[Any], handler: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """As `handler`, but each connection is kept in `counts` first."""

    async def counted(connection: Any) -> None:
        counts.append(connection)
        await handler(connection)

    return counted
