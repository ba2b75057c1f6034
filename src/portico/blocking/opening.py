"""What needs no peer, or has one already: packet sockets, adopted descriptors, pairs."""

import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from portico._core import Codec, Settings
from portico.address import Address
from portico.blocking.loop import background
from portico.transports.connection import ConnectionFace
from portico.transports.connection import memory_pair as pair_in_memory
from portico.transports.faces import BlockingChannel, BlockingStream, blocking_face

if TYPE_CHECKING:
    from portico.transports.datagram_face import BlockingDatagrams

__all__ = ["adopt", "datagrams", "memory_pair", "open_fifo", "socketpair"]

T = TypeVar("T")


def datagrams(address: Address | str, **settings: Any) -> "BlockingDatagrams":
    """Open a socket for packets at `address`, such as `udp://*:0`; `with datagrams(...) as it:` closes it, too.

    :param settings: as for `portico.datagrams`.
    :raises AddressError: the address does not parse
    :raises ConfigurationError: the address is of no packet socket, or a setting cannot work
    :raises BindError: the address cannot be had
    :raises PrivilegeError: raw and link-layer sockets are for privileged programs
    :raises ResolveError: the name is unknown"""
    from portico.transports.datagrams import datagrams as open_datagrams

    opening = open_datagrams(address, **settings)

    async def made() -> Any:
        return await opening

    face: BlockingDatagrams = background().face_of(made, doing=f"opening {address} by")
    return face


@overload
def adopt(
    descriptor: socket.socket | int, *, codec: None = None, settings: Settings | None = None
) -> "BlockingStream | BlockingChannel[bytes] | BlockingDatagrams": ...
@overload
def adopt(
    descriptor: socket.socket | int, *, codec: Codec[T], settings: Settings | None = None
) -> BlockingChannel[T]: ...
def adopt(descriptor: socket.socket | int, *, codec: Codec[Any] | None = None, settings: Settings | None = None) -> Any:
    """Take over a connected socket, a bound datagram socket, a pipe, FIFO or character device, as `portico.adopt` does.

    :raises UnsupportedError: a descriptor of another kind, such as a regular file
    :raises ConfigurationError: a listening socket, or an unconnected stream socket"""
    from portico.transports.adopting import adopt as take_over

    given: Any = codec

    async def made() -> Any:
        return await take_over(descriptor, codec=given, settings=settings)

    return background().face_of(made, doing="adopting by")


def open_fifo(path: str, mode: Literal["r", "w"] = "r", *, create: bool = False) -> BlockingStream:
    """Open a FIFO (fifo(7)) as `portico.open_fifo` does: "r" to receive, "w" to send, which waits for a reader.

    :raises ConfigurationError: another mode, or the path is no FIFO
    :raises OSError: as open(2) has it, such as FileNotFoundError"""
    from portico.transports.files import open_fifo as open_path

    async def made() -> Any:
        return await open_path(path, mode, create=create)

    face: BlockingStream = background().face_of(made, doing=f"opening {path} by")
    return face


def memory_pair() -> tuple[BlockingStream, BlockingStream]:
    """Return two streams, each the peer of the other, without a socket: for tests, and within one program."""

    async def made() -> Sequence[ConnectionFace]:
        return pair_in_memory()

    one, other = _faces_of(made)
    return one, other


@overload
def socketpair(
    *, codec: None = None, kind: Literal["stream"] = "stream", settings: Settings | None = None
) -> tuple[BlockingStream, BlockingStream]: ...
@overload
def socketpair(
    *, codec: None = None, kind: Literal["seqpacket", "datagram"], settings: Settings | None = None
) -> tuple[BlockingChannel[bytes], BlockingChannel[bytes]]: ...
@overload
def socketpair(
    *, codec: Codec[T], kind: Literal["stream", "seqpacket", "datagram"] = "stream", settings: Settings | None = None
) -> tuple[BlockingChannel[T], BlockingChannel[T]]: ...
def socketpair(
    *, codec: Codec[Any] | None = None, kind: str = "stream", settings: Settings | None = None
) -> tuple[Any, Any]:
    """Return two connected Unix sockets (socketpair(2)), as `portico.socketpair` does.

    :raises ConfigurationError: another kind than "stream", "seqpacket" and "datagram"
    :raises UnsupportedError: the platform has no Unix sockets"""
    from portico.transports.adopting import socketpair as pair_of_sockets

    async def made() -> Sequence[ConnectionFace]:
        return await pair_of_sockets(codec=codec, kind=kind, settings=settings)

    one, other = _faces_of(made)
    return one, other


def _faces_of(make: Callable[[], Awaitable[Sequence[ConnectionFace]]]) -> list[Any]:
    home = background()

    async def made() -> Sequence[ConnectionFace]:
        both = await make()
        for each in both:
            home.hold(each)
        return both

    def drop(late: Sequence[ConnectionFace]) -> None:
        for each in late:
            each.abort()

    return [blocking_face(each, home.loop) for each in home.call(made, doing="pairing by", keep=drop)]
