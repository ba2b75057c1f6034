"""Making a Stream, Channel or Datagrams of a socket or descriptor that exists already."""

import asyncio
import contextlib
import os
import socket
import stat
from typing import Any, TypeVar, overload

from portico._core import Codec, Settings, hub_of
from portico.address import AF_UNIX, AF_VSOCK, SCHEMES, Address
from portico.codecs import Records
from portico.errors import ConfigurationError, UnsupportedError, describe
from portico.transports.connection import Channel, Stream
from portico.transports.datagrams import HIGH_WATER, READ_BUFFER, Datagrams, opened
from portico.transports.dial import MAX_FDS, connected_wire
from portico.transports.files import stream_of
from portico.transports.packets import let_tell

T = TypeVar("T")

SEQPACKET = getattr(socket, "SOCK_SEQPACKET", -1)


@overload
async def adopt(
    descriptor: socket.socket | int, *, codec: None = None, settings: Settings | None = None
) -> "Stream | Channel[bytes] | Datagrams": ...
@overload
async def adopt(
    descriptor: socket.socket | int, *, codec: Codec[T], settings: Settings | None = None
) -> Channel[T]: ...
async def adopt(
    descriptor: socket.socket | int, *, codec: Codec[Any] | None = None, settings: Settings | None = None
) -> Any:
    """Take over a connected socket, a bound datagram socket, a pipe, FIFO or character device, by object or descriptor.

    A stream becomes a Stream, or with `codec` a Channel; a socket that keeps packets apart a Channel (without a codec
    of bytes, one a packet) where it is connected, else Datagrams. It belongs to the result from here on, and does not
    block; after an error it is the caller's still.

    :param settings: limits of the connection; default: those of `portico.connect`, or of `portico.datagrams`.
    :raises UnsupportedError: a descriptor of another kind, such as a regular file
    :raises ConfigurationError: a listening socket, which `Service.listen` takes, an unconnected stream socket, a codec
        that such a connection cannot have, or no open descriptor"""
    if not isinstance(descriptor, int):
        return await _upon(descriptor, codec, settings)
    try:
        kind = os.fstat(descriptor).st_mode
    except OSError:
        raise ConfigurationError(f"{descriptor} is no open descriptor") from None
    if not stat.S_ISSOCK(kind):
        _check_codec(codec, "file")
        stream = stream_of(descriptor, _file_address(descriptor, kind), settings)
        return stream if codec is None else stream.channel(codec)
    sock = socket.socket(fileno=descriptor)
    try:
        return await _upon(sock, codec, settings)
    except BaseException:
        sock.detach()
        raise


async def _upon(sock: socket.socket, codec: Codec[Any] | None, settings: Settings | None) -> Any:
    scheme = _scheme_of(sock)
    if _listens(sock):
        raise ConfigurationError(f"the socket {sock.fileno()} listens: give it to Service.listen")
    if not _is_connected(sock):
        if sock.type not in (socket.SOCK_DGRAM, socket.SOCK_RAW):
            raise ConfigurationError(
                f"the {scheme} socket {sock.fileno()} is not connected: portico.connect makes connections"
            )
        if codec is not None:
            raise ConfigurationError("a socket that is not connected carries packets of anybody: it takes no codec")
        sock.setblocking(False)
        if SCHEMES[scheme].is_internet:
            let_tell(sock)
        return opened(sock, scheme, settings or Settings(read_limit=READ_BUFFER, high_water=HIGH_WATER))
    _check_codec(codec, SCHEMES[scheme].kind)
    sock.setblocking(False)
    if SCHEMES[scheme].is_internet and SCHEMES[scheme].kind != "stream":
        let_tell(sock, timestamps=False, packet_info=False)
    fds = MAX_FDS if sock.family == AF_UNIX else 0
    wire = await connected_wire(hub_of(asyncio.get_running_loop()), sock, scheme, fds)
    if codec is None and not wire.keeps_records:
        return Stream(wire, settings or Settings(), scheme=scheme)
    return Channel(wire, codec or Records(), settings or Settings(), scheme=scheme)


def _check_codec(codec: Codec[Any] | None, kind: str) -> None:
    if codec is not None and codec.for_records and kind in ("stream", "file"):
        raise ConfigurationError(
            f"{codec!r} is for sockets that keep packets apart: a stream needs one such as Lines()"
        )


def _file_address(fd: int, kind: int) -> Address:
    path = ""
    with contextlib.suppress(OSError):
        path = os.readlink(f"/proc/self/fd/{fd}")
    if not path.startswith("/"):  # a pipe has no path
        path = f"/dev/fd/{fd}"
    return Address("fifo" if stat.S_ISFIFO(kind) else "device", path=path)


def listening_address(descriptor: socket.socket | int) -> tuple[Address, socket.socket]:
    """Return the address and the socket object of a listening socket, or of a bound one for packets.

    :raises ConfigurationError: it is neither
    :raises UnsupportedError: of no kind that Portico knows"""
    if not isinstance(descriptor, int):
        return _listening_address(descriptor), descriptor
    try:
        sock = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigurationError(f"{descriptor} is no descriptor of a socket: {describe(error)}") from None
    try:
        return _listening_address(sock), sock
    except BaseException:
        sock.detach()  # it is the caller's still
        raise


def _listening_address(sock: socket.socket) -> Address:
    scheme = _scheme_of(sock)
    if sock.type not in (socket.SOCK_DGRAM, socket.SOCK_RAW) and not _listens(sock):
        raise ConfigurationError(f"the socket {sock.fileno()} does not listen: call its listen(), or portico.adopt it")
    sock.setblocking(False)
    return Address.from_sockaddr(scheme, sock.family, sock.getsockname())


def _listens(sock: socket.socket) -> bool:
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def _scheme_of(sock: socket.socket) -> str:
    """Return the scheme of a socket's addresses.

    :raises UnsupportedError: there is none"""
    internet = sock.family in (socket.AF_INET, socket.AF_INET6)
    unix: dict[Any, str] = {socket.SOCK_STREAM: "unix", socket.SOCK_DGRAM: "unixgram", SEQPACKET: "unixpacket"}
    inet: dict[Any, str] = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp", socket.SOCK_RAW: "raw"}
    schemes: dict[Any, str] = inet if internet else unix if sock.family == AF_UNIX else {}
    if sock.family == AF_VSOCK and AF_VSOCK != socket.AF_UNSPEC:
        schemes = {socket.SOCK_STREAM: "vsock"}
    if sock.family == getattr(socket, "AF_PACKET", -1):
        schemes = {socket.SOCK_RAW: "packet"}
    scheme = schemes.get(sock.type)
    if scheme is None:
        raise UnsupportedError(
            f"a socket of family {sock.family} and type {sock.type} is of no kind that Portico knows"
        )
    return scheme


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


async def socketpair(
    *, codec: Codec[Any] | None = None, kind: str = "stream", settings: Settings | None = None
) -> tuple[Any, Any]:
    """Return two connected Unix sockets (socketpair(2)): Streams, or Channels with a `codec`; `kind` may be "stream",
    "seqpacket" or "datagram", of which the last two are Channels in any case.

    :raises ConfigurationError: another kind
    :raises UnsupportedError: the platform has no Unix sockets"""
    kinds = {"stream": socket.SOCK_STREAM, "seqpacket": SEQPACKET, "datagram": socket.SOCK_DGRAM}
    if kind not in kinds:
        raise ConfigurationError(f"socketpair makes {', '.join(kinds)}, not {kind!r}")
    if AF_UNIX == socket.AF_UNSPEC:
        raise UnsupportedError("this platform has no Unix sockets")
    one, other = socket.socketpair(AF_UNIX, kinds[kind])
    try:
        given: Any = codec
        return await adopt(one, codec=given, settings=settings), await adopt(other, codec=given, settings=settings)
    except BaseException:
        one.close()
        other.close()
        raise
