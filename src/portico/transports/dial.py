"""Connecting one socket to one numeric address."""

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Mapping

from portico._core import Hub, Wire, hub_of
from portico.address import AF_UNIX, SCHEMES, Address
from portico.errors import UnsupportedError
from portico.transports.files import dial_file
from portico.transports.packets import let_tell, open_socket, record_wire
from portico.transports.wires import loop_wire, native_wire, set_options, unsupported_family

MAX_FDS = 16
"""Descriptors that a Unix peer may pass before they are taken; more are closed on arrival."""


async def dial(
    address: Address,
    *,
    source: Address | None = None,
    options: Mapping[str, object] | None = None,
    max_fds: int = MAX_FDS,
) -> Wire:
    """Connect to `address`, which is numeric or a path, and return the wire.

    `source` is the local address to connect from (its port may be 0 for any), `options` are set before connecting.

    :raises OSError: as connect(2) or open(2) has it
    :raises PrivilegeError: only privileged programs may have such a socket
    :raises UnsupportedError: this platform has no such sockets"""
    loop = asyncio.get_running_loop()
    hub = hub_of(loop)
    if SCHEMES[address.scheme].parts == "file":
        return await dial_file(hub, address)
    fds = max_fds if address.family == AF_UNIX else 0
    sock = _open(address, source, options)
    try:
        await _connect(loop, sock, address)
        return await connected_wire(hub, sock, address.scheme, fds)
    except BaseException:
        sock.close()
        raise


async def connected_wire(hub: Hub, sock: socket.socket, scheme: str, max_fds: int) -> Wire:
    """Return the wire of the connected, non-blocking `sock`, which it owns."""
    if SCHEMES[scheme].kind != "stream":
        return record_wire(hub, sock, scheme, max_fds)
    if hub.native_sockets:
        return native_wire(hub, sock.detach(), None, max_fds)
    return await loop_wire(hub, sock, None)


def _open(address: Address, source: Address | None, options: Mapping[str, object] | None) -> socket.socket:
    family = address.family
    if family is None:
        raise ValueError(f"{address} is not numeric: resolve it first")
    if SCHEMES[address.scheme].parts == "path" and not hasattr(socket, "AF_UNIX"):
        raise unsupported_family("Unix")
    is_stream = SCHEMES[address.scheme].kind == "stream"
    sock = socket.socket(family, socket.SOCK_STREAM) if is_stream else open_socket(address, None)
    is_tcp = is_stream and family in (socket.AF_INET, socket.AF_INET6)
    try:
        sock.setblocking(False)
        if is_tcp:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        elif SCHEMES[address.scheme].is_internet:
            let_tell(sock, timestamps=False, packet_info=False)
        set_options(sock, options)
        if source is not None:
            if is_tcp and hasattr(socket, "IP_BIND_ADDRESS_NO_PORT") and not source.port:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind(source.sockaddr)
        elif address.scheme == "unixgram" and sys.platform == "linux":
            sock.bind("")  # a name of the kernel's choice (unix(7), autobind): nobody could answer without one
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Address) -> None:
    if sock.family != AF_UNIX:
        await _connect_slowly(loop, sock, address)
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


async def _connect_slowly(loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Address) -> None:
    """As `loop.sock_connect`, of which uvloop's loses the scope of an IPv6 address."""
    if sys.platform == "win32":  # its default loop cannot wait for sockets to become writable
        await loop.sock_connect(sock, address.sockaddr)
        return
    code = sock.connect_ex(address.sockaddr)
    if code in (errno.EINPROGRESS, errno.EINTR):
        await _writable(loop, sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code == errno.ENODEV and address.scheme == "vsock":
        raise UnsupportedError(f"this machine has no transport to {address}")
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
