"""Connecting one socket to one numeric address."""

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Mapping

from portico._core import Wire, hub_of
from portico.address import Address
from portico.options import set_option
from portico.transports.wires import loop_wire, native_wire, unsupported_family

MAX_FDS = 16
"""Descriptors that a Unix peer may pass before they are taken; more are closed on arrival."""


async def dial(
    address: Address,
    *,
    source: Address | None = None,
    options: Mapping[str, object] | None = None,
    max_fds: int = MAX_FDS,
) -> Wire:
    """Connect to `address`, which is numeric or a Unix path, and return the wire.

    `source` is the local address to connect from (its port may be 0 for any), `options` are set before connecting.

    :raises OSError: as connect(2) has it
    :raises UnsupportedError: this platform has no such sockets"""
    loop = asyncio.get_running_loop()
    hub = hub_of(loop)
    sock = _open(address, source, options)
    try:
        await _connect(loop, sock, address)
        if hub.native_sockets:
            return native_wire(hub, sock.detach(), None, max_fds if address.scheme == "unix" else 0)
        return await loop_wire(hub, sock, None)
    except BaseException:
        sock.close()
        raise


def _open(address: Address, source: Address | None, options: Mapping[str, object] | None) -> socket.socket:
    family = address.family
    if family is None:
        raise ValueError(f"{address} is not numeric: resolve it first")
    if address.scheme == "unix" and not hasattr(socket, "AF_UNIX"):
        raise unsupported_family("Unix")
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if address.scheme != "unix":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name, value in (options or {}).items():
            set_option(sock, name, value)
        if source is not None:
            if hasattr(socket, "IP_BIND_ADDRESS_NO_PORT") and not source.port and source.scheme != "unix":
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind(source.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Address) -> None:
    if address.scheme != "unix":
        await _connect_inet(loop, sock, address)
        return
    while True:  # a Unix socket connects at once or not at all; EAGAIN says that the server's backlog is full (unix(7))
        try:
            sock.connect(address.sockaddr)
        except BlockingIOError as error:
            if error.errno != errno.EAGAIN:
                raise
            await asyncio.sleep(0.01)
        else:
            return


async def _connect_inet(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Address) -> None:
    """As `loop.sock_connect`, of which uvloop's loses the scope of an IPv6 address."""
    if sys.platform == "win32":  # its default loop cannot wait for sockets to become writable
        await loop.sock_connect(sock, address.sockaddr)
        return
    code = sock.connect_ex(address.sockaddr)
    if code in (errno.EINPROGRESS, errno.EINTR):
        await _writable(loop, sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise OSError(code, os.strerror(code))


async def _writable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    future: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    loop.add_writer(sock.fileno(), wake)
    try:
        await future
    finally:
        loop.remove_writer(sock.fileno())
