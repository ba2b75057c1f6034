"""What the tests of packets share: sockets that are not Portico's, and what they hear."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

from portico.transports.datagrams import Datagrams, Packet
from tests.namespaces import Machine

UDP_SEGMENT, UDP_GRO = 103, 104


def fallback() -> bool:
    """Whether packets go by the loop, which tells less of them."""
    from portico._core import hub_of

    return not hub_of(asyncio.get_running_loop()).native_sockets


@contextlib.contextmanager
def udp(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    """A plain socket of the test, bound and not blocking."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, port))
        sock.setblocking(False)
        yield sock


@contextlib.contextmanager
def socket_on(machine: Machine, host: str = "0.0.0.0", port: int = 0) -> Iterator[socket.socket]:
    """A plain socket on another machine, bound and not blocking; its multicast leaves by the machine's cable."""
    with machine.entered():
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        index = socket.if_nametoindex("eth7")
    with sock:
        if ":" in host:
            sock.bind((host, port, 0, index))
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        else:
            sock.bind((host, port))
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host))
        sock.setblocking(False)
        yield sock


async def heard(sock: socket.socket, size: int = 70_000) -> tuple[bytes, Any]:
    """The next packet of a plain socket, and who sent it."""
    loop = asyncio.get_running_loop()
    ready = loop.create_future()
    loop.add_reader(sock, lambda: ready.done() or ready.set_result(None))
    try:
        await ready
    finally:
        loop.remove_reader(sock)
    return sock.recvfrom(size)


async def taken(packets: Datagrams, count: int) -> list[Packet]:
    """The next `count` packets."""
    return [await packets.recv() for _ in range(count)]


@contextlib.asynccontextmanager
async def aborted(*connections: Any) -> AsyncIterator[None]:
    """Abort the connections in the end: the close of one would wait for the other's."""
    try:
        yield
    finally:
        for each in connections:
            each.abort()
        for each in connections:
            await each.wait_closed()
