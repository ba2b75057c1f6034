"""Connecting one socket to one numeric address."""

import asyncio
import errno
import socket
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
        await loop.sock_connect(sock, address.sockaddr)
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
