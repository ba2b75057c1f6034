"""`portico connect` and `portico listen`: bytes between the terminal and sockets, both ways, as they are.
Where a socket keeps packets apart, what is read at once from the input leaves as one."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from portico.address import SCHEMES, Address
from portico.client.connect import Connecting, connect
from portico.errors import ClosedError, ConfigurationError, DeliveryError
from portico.interfaces import Resolver
from portico.tools.crowd import Crowd, is_group, speak
from portico.tools.hexdump import Dump
from portico.tools.report import note
from portico.tools.terminal import Terminal
from portico.transports.connection import Channel, Stream
from portico.transports.tls import TLS

if TYPE_CHECKING:
    from portico.tools.web_messages import Lines, Pieces
    from portico.websocket.settings import WebSocketSettings

EndOfInput = Literal["keep", "close"]
"""What the end of one direction means for the other: `keep` lets it go on, `close` ends it, too."""

Peer = Stream | Channel[Any] | Crowd

PACKET = 8192
"""Bytes of the input that one packet takes at most (as socat has it); what is typed leaves line by line."""

SILENCE = 1.0
"""Seconds without a packet after the end of the input that are taken for the end of a peer that can tell none."""


@dataclass
class Member:
    """A connection that the input goes to."""

    stream: Peer
    dump: Dump | None
    takes: bool = True
    """Whether anything can be sent there."""
    hears: bool = True
    """Whether anything comes from there."""
    error: ClosedError | DeliveryError | None = None
    """Set when it could not be sent what it should."""
    heard: float = 0.0
    """When something last came, in the loop's time."""

    @property
    def is_endless(self) -> bool:
        """Whether there is no end of one side (UDP, Unix datagram, a device, a WebSocket)."""
        return SCHEMES[self.stream.scheme].kind == "datagram" or self.stream.scheme == "device" or is_web(self.stream)

    def send_eof(self) -> None:
        """Tell the end of the input, where that can be told."""
        if self.takes and self.hears and not self.is_endless and not isinstance(self.stream, Crowd):
            self.stream.send_eof()

    def pieces(self, data: bytes | str) -> Sequence[bytes | str]:
        """Return what leaves at a time."""
        if isinstance(data, str) or is_web(self.stream) or not keeps_records(self.stream):
            return [data]
        return [data[start : start + PACKET] for start in range(0, len(data), PACKET)]

    def shown(self, data: bytes | str) -> bytes:
        """Return what to write out for what has come; a text is a line."""
        if self.dump is None:
            return f"{data}\n".encode() if isinstance(data, str) else data
        return self.dump.received(data, self.stream.sender if isinstance(self.stream, Crowd) else "").encode()


def keeps_records(peer: Peer) -> bool:
    """Whether what is sent at a time arrives at a time."""
    return isinstance(peer, Crowd) or peer.wire.keeps_records


@dataclass
class Piping:
    """The terminal on one side, any number of connections on the other. Memory stays bounded: input is read when every
    connection has room, and a connection is read when the output has been written."""

    terminal: Terminal
    eof: EndOfInput = "keep"
    hex: bool = False
    names: bool = False
    """Whether the hex dump says whose bytes they are."""
    patient: bool = False
    """Whether silence is no end, also of those who can tell none."""
    cutter: "Lines | Pieces | None" = None
    """What makes messages of the input, for WebSockets."""
    members: dict[Peer, Member] = field(default_factory=dict)
    on_first: Callable[[], object] = lambda: None
    """Called with the first that comes of a connection."""

    def __post_init__(self) -> None:
        self._someone = asyncio.Event()
        self.feeding: asyncio.Task[None] = asyncio.ensure_future(self._feed())

    async def _feed(self) -> None:
        """Send the input to all who are connected, wait for the first one before reading any; end with it."""
        while True:
            await self._someone.wait()
            data = await self.terminal.read()
            if not data:
                break
            while not self.members:
                self._someone.clear()
                await self._someone.wait()
            for part in [data] if self.cutter is None else self.cutter.cut(data):
                await self._to_all(part)
        for part in [] if self.cutter is None else self.cutter.rest():
            await self._to_all(part)
        if self.eof == "keep":
            for member in self.members.values():
                member.send_eof()

    async def _to_all(self, data: bytes | str) -> None:
        members = list(self.members.values())
        if len(members) == 1:
            await self._send(members[0], data)
        else:
            await asyncio.gather(*(self._send(member, data) for member in members))

    async def _send(self, member: Member, data: bytes | str) -> None:
        try:
            stream: Any = member.stream  # a WebSocket alone gets text
            for piece in member.pieces(data):
                await stream.send(piece)
        except (ClosedError, DeliveryError) as error:
            member.error = error
            self._leave(member)
            if isinstance(member.stream, Crowd):
                member.stream.abort()  # it would go on hearing
            return
        if member.dump is not None:
            await self.terminal.write(member.dump.sent(data).encode())

    async def _receive(self, member: Member) -> None:
        """Write out what a connection brings, until its end."""
        clock = asyncio.get_running_loop().time
        async for data in member.stream:
            if not member.heard:
                self.on_first()
            member.heard = clock()
            await self.terminal.write(member.shown(data))

    def _leave(self, member: Member) -> None:
        self.members.pop(member.stream, None)
        if not self.members:
            self._someone.clear()

    async def serve(self, stream: Peer, *, takes: bool = True, hears: bool = True) -> None:
        """Be the terminal of one connection until that is over.

        :param takes: whether anything can be sent there; else the input is left alone.
        :param hears: whether anything comes from there.
        :raises ClosedError: the peer was lost, or went without taking all that was sent
        :raises DeliveryError: a packet did not arrive
        :raises OSError: input or output failed"""
        member = Member(stream, self._dump(stream) if self.hex else None, takes, hears)
        if takes:
            self.members[stream] = member
            self._someone.set()
        if self.feeding.done() and self.eof == "keep":
            member.send_eof()
        lost = asyncio.ensure_future(_lost(stream))
        receiving = asyncio.ensure_future(self._receive(member) if hears else _lost(stream))
        try:
            await self._until_over(member, receiving, lost)
            if member.error is not None and isinstance(stream, Crowd):
                raise member.error
            if receiving.done():
                receiving.result()
            if self.feeding.done():
                self.feeding.result()
            if member.error is not None:
                raise member.error
            if not (receiving.done() and is_web(stream)):  # that end is of both directions
                await stream.flush()
        finally:
            self._leave(member)
            receiving.cancel()
            lost.cancel()
            await asyncio.wait((receiving, lost))
            if not receiving.cancelled():
                receiving.exception()  # was told, or something else was
        await stream.close()

    def _dump(self, stream: Peer) -> Dump:
        return Dump(
            str(stream.remote_address) if self.names else "",
            packets=keeps_records(stream) or is_web(stream),
        )

    async def _until_over(self, member: Member, receiving: "asyncio.Task[None]", lost: "asyncio.Task[None]") -> None:
        clock = asyncio.get_running_loop().time
        while not self._is_over(member, receiving, lost):
            busy = [each for each in (receiving, lost, self.feeding) if not each.done()]
            if self.feeding.done() and member.is_endless and not self.patient:
                await asyncio.wait(busy, timeout=SILENCE, return_when=asyncio.FIRST_COMPLETED)
                if clock() - member.heard >= SILENCE:
                    return
            else:
                await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)

    def _is_over(self, member: Member, receiving: "asyncio.Task[None]", lost: "asyncio.Task[None]") -> bool:
        for each in (receiving, self.feeding):
            if each.done() and (each.cancelled() or each.exception() is not None):
                return True
        if not member.hears:
            return self.feeding.done() or lost.done()
        if not member.takes:
            return receiving.done()
        if self.eof == "close":
            return receiving.done() or self.feeding.done()
        return receiving.done() and (self.feeding.done() or lost.done() or self.terminal.is_interactive)

    async def end(self) -> None:
        """Stop reading input."""
        self.feeding.cancel()
        await asyncio.wait((self.feeding,))
        if not self.feeding.cancelled():
            self.feeding.exception()


async def _lost(stream: Peer) -> None:
    await stream.wait_closed()


async def run_connect(
    address: Address | str,
    *,
    tls: TLS | None = None,
    timeout: float | None = 10.0,
    source: str | None = None,
    proxy: Sequence[str] | str | None = None,
    interface: str | None = None,
    broadcast: bool = False,
    websocket: "WebSocketSettings | None" = None,
    binary: bool = False,
    eof: EndOfInput = "keep",
    hex: bool = False,
    verbose: bool = False,
    resolver: Resolver | None = None,
) -> None:
    """Connect, and be a terminal until both directions are over.

    :param interface: through which packets for a multicast group leave.
    :param broadcast: let packets go to a broadcast address.
    :param websocket: how to speak WebSocket, where `address` is one; there the input leaves as texts, a line each,
        unless it is `binary`."""
    address = Address.parse(address)
    if address.scheme == "packet":
        raise ConfigurationError(f"nobody in particular is at {address}; hear it with: portico listen {address}")
    connecting: Connecting[Any] = connect(
        address,
        codec=None,
        websocket=websocket,
        tls=tls,
        timeout=timeout,
        source=source,
        proxy=proxy,
        resolver=resolver,
    )
    if broadcast and address.scheme != "udp":
        raise ConfigurationError(f"--broadcast is for UDP, not for {address}")
    if interface is not None and not is_group(address):
        raise ConfigurationError(f"--interface is for multicast groups, and {address} is none")
    stream: Peer
    if broadcast or is_group(address):
        if proxy is not None:
            raise ConfigurationError(f"no proxy carries packets for many: {address}")
        stream = await speak(address, source, interface, broadcast=broadcast)
    else:
        stream = await connecting
    piping = Piping(
        Terminal(), eof, hex, names=isinstance(stream, Crowd), cutter=cutter_for(address, websocket, binary)
    )
    try:
        if verbose:
            note(_told(stream))
        with telling(stream, "", verbose=verbose):
            await piping.serve(stream, hears=stream.scheme != "fifo")
    except BaseException:
        give_up(stream)
        await stream.wait_closed()
        raise
    finally:
        await piping.end()


def is_web(peer: Peer) -> bool:
    """Whether it is a WebSocket."""
    return bool(SCHEMES[peer.scheme].opened_by)


def cutter_for(address: Address, settings: "WebSocketSettings | None", binary: bool) -> "Lines | Pieces | None":
    """Return what makes messages of the input for a WebSocket at `address`; None: it is none."""
    if not SCHEMES[address.scheme].opened_by:
        return None
    from portico.tools.web_messages import MAX_SIZE, Lines, Pieces

    return (Pieces if binary else Lines)(MAX_SIZE if settings is None else settings.max_size)


def telling(peer: Peer, name: str, *, verbose: bool) -> AbstractContextManager[None]:
    """Tell on stderr, while that is entered, what there is to tell of a connection: of a WebSocket round-trip times
    and the end."""
    if not is_web(peer):
        return nullcontext()
    from portico.tools import web_messages

    return web_messages.telling(peer, name, verbose=verbose)


def give_up(peer: Peer) -> None:
    """End a connection at once; a WebSocket says so, and gives its peer 2 s to answer."""
    if isinstance(peer, Channel) and is_web(peer):
        peer.dismiss()
    else:
        peer.abort()


def _told(stream: Peer) -> str:
    if isinstance(stream, Crowd):
        return f"sending to {stream.to} from {stream.local_address}"
    return f"connected to {stream.remote_address} from {stream.local_address}{secured(stream)}"


def secured(stream: Stream | Channel[Any]) -> str:
    """Return what TLS it speaks, and what else was agreed on, to be put behind its addresses."""
    info = stream.tls
    said = "" if info is None else f", {info.version} {info.cipher}"
    if not is_web(stream):
        return said
    from portico.tools.web_messages import agreed

    return said + agreed(stream)
