"""`Stream` and `Channel`: what every handler and every client gets, over any transport."""

import asyncio
import contextlib
import enum
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from portico._core import ChannelBase, Codec, Connection, Settings, StreamBase, TLSWire, Wire
from portico.address import AF_UNIX, SCHEMES, Address
from portico.errors import ClosedError, ConfigurationError, UnsupportedError, describe
from portico.transports.credentials import Credentials
from portico.transports.info import Info, socket_info
from portico.transports.sockaddr import from_kernel

if TYPE_CHECKING:
    from portico.options import Options
    from portico.protocols.proxy_header import ProxyHeader
    from portico.transports.ancillary import Ancillary
    from portico.transports.datagrams import Datagrams
    from portico.transports.tls import TLS, TLSInfo

T = TypeVar("T")

HANDSHAKE_TIMEOUT = 10.0
"""Seconds that a TLS handshake may take; HAProxy and Go's net/http advise 5 to 10."""


class State(enum.Enum):
    """How far a connection is on its way from open to closed."""

    OPEN = "open"
    HALF_CLOSED_LOCAL = "half-closed (local)"
    """This side was ended by `send_eof`; receiving goes on."""
    HALF_CLOSED_REMOTE = "half-closed (remote)"
    """The peer has ended its side; sending goes on."""
    CLOSING = "closing"
    CLOSED = "closed"


class Signal:
    """Something that happens once: its truth value says whether, awaiting it waits for it."""

    __slots__ = ("_calls", "_event", "_happened")

    def __init__(self) -> None:
        self._happened = False
        self._event: asyncio.Event | None = None
        self._calls: set[Callable[[], object]] = set()

    def __bool__(self) -> bool:
        return self._happened

    def set(self) -> None:
        """Let it happen."""
        self._happened = True
        if self._event is not None:
            self._event.set()
        while self._calls:
            self._calls.pop()()

    def call(self, function: Callable[[], object]) -> None:
        """Call `function`, which does little and never raises, when it happens; at once if it has."""
        if self._happened:
            function()
        else:
            self._calls.add(function)

    def call_off(self, function: Callable[[], object]) -> None:
        """Do not call `function` any more; it need not have been asked for."""
        self._calls.discard(function)

    async def wait(self) -> None:
        """Wait until it has happened."""
        if not self._happened:
            if self._event is None:
                self._event = asyncio.Event()
            await self._event.wait()

    def __await__(self) -> Any:
        return self.wait().__await__()


NEVER = Signal()
"""The `draining` of connections that no server drains."""


class ConnectionFace(Connection):
    """What Stream and Channel share beyond the native engine: names for what the operating system knows."""

    __slots__ = ()

    scheme: str
    draining: Signal
    _local: Address | None
    _remote: Address | None
    proxy_header: "ProxyHeader | None" = None
    """What a trusted proxy said of this connection (`Service.listen(..., proxied_by=…)`); None without."""

    @property
    def state(self) -> State:
        """Tells open, half-closed (which side), closing or closed."""
        if self.successor is not None:
            return self.successor.state  # type: ignore[no-any-return]  # it has a face, too
        reading, writing, closing, lost = self.flags
        if lost:
            return State.CLOSED
        if closing:
            return State.CLOSING
        if reading:
            return State.OPEN if writing else State.HALF_CLOSED_LOCAL
        return State.HALF_CLOSED_REMOTE if writing else State.CLOSING

    @property
    def local_address(self) -> Address:
        """The address of this end; what it was, once the connection is closed and it had been asked for before."""
        if self._local is None:
            self._local = getattr(self.wire, "local_address", None) or self._ask("getsockname")
        return self._local

    @property
    def remote_address(self) -> Address:
        """The address of the peer; behind a trusted proxy (`proxied_by`) that of the real client. A Unix client has
        usually none of its own: then it is the server's path, too."""
        if self._remote is None:
            remote = peer_address(self.wire, self._carrier) or self._ask("getpeername")
            if remote.family == AF_UNIX and not remote.path:
                remote = self.local_address
            self._remote = remote
        return self._remote

    @property
    def _carrier(self) -> str:
        """The scheme of the connection that the messages are upon."""
        return SCHEMES[self.scheme].carrier or self.scheme

    def _ask(self, method: str) -> Address:
        if self.scheme == "mem":  # a pair that nobody named
            return Address("mem", path="pair")
        sock = self.socket
        try:
            return Address.from_sockaddr(self._carrier, sock.family, getattr(sock, method)())
        except OSError:
            raise self.closed_error() from None

    @property
    def socket(self) -> "socket.socket":
        """The socket below, for whatever is missing here. Reading, writing or closing it breaks the connection.

        :raises UnsupportedError: there is none (the memory pair, a FIFO, a device)
        :raises ClosedError: the connection is over"""
        bottom = _bottom(self.wire)
        sock = getattr(bottom, "socket", None) or getattr(bottom, "get_extra_info", lambda name: None)("socket")
        if sock is None:
            if self.scheme == "mem":
                raise UnsupportedError("a memory connection has no socket")
            if getattr(bottom, "is_file", False) and bottom.fileno() >= 0:
                raise UnsupportedError(f"a {self.scheme} is no socket")
            raise self.closed_error()
        return sock  # type: ignore[no-any-return]  # wires of the core and transports name it alike

    @property
    def options(self) -> "Options":
        """The live socket options, by name: `connection.options["keepalive"] = True`."""
        from portico.options import Options

        return Options(lambda: self.socket)

    def info(self) -> Info:
        """The kernel's view (round-trip time, retransmits, queues) and the sizes of the queues here.

        :raises ClosedError: the connection is over"""
        received, unsent = self.queued
        if SCHEMES[self.scheme].parts in ("name", "file"):
            return Info(queued_receive=received, queued_send=unsent)
        return socket_info(self.socket, received, unsent)

    @property
    def tls(self) -> "TLSInfo | None":
        """Version, cipher, protocol and peer certificate where the connection is secure, else None. TLS that ends at a
        proxy is the proxy's, not the connection's."""
        if not isinstance(self.wire, TLSWire) or self.scheme == "tcp":
            return None
        from portico.transports.tls import TLSInfo

        return TLSInfo.of(self.wire.ssl_object)

    @property
    def peer_credentials(self) -> "Credentials":
        """Process, user and group of the peer of a Unix socket when it connected (SO_PEERCRED of unix(7)).

        :raises UnsupportedError: not a Unix socket, or a platform without it"""
        if self._carrier not in ("unix", "unixpacket") or sys.platform != "linux":
            raise UnsupportedError("peer credentials need a connected Unix socket on Linux")
        data = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        return Credentials(*struct.unpack("3i", data))

    async def detach(self) -> tuple[Any, bytes]:
        """Give up the socket once all that was sent has left: return it (a `socket.socket`, not blocking; of a FIFO or
        device the descriptor), with the bytes that were received and not taken. This object is closed then.

        :raises BusyError: a task is receiving, or messages wait to be taken
        :raises UnsupportedError: a TLS or memory connection, or a peer of a UDP server: it has no socket of its own
        :raises ClosedError: the connection is closed or lost"""
        await self.flush()
        self.local_address  # noqa: B018  # known from here on
        with contextlib.suppress(UnsupportedError):  # packets from anybody
            self.remote_address  # noqa: B018  # likewise
        return self.take_socket()

    async def _in_turn(self, send: Callable[[], int]) -> int:
        """Call `send` behind all that was sent before, again while it finds no room (below 0), and return the rest."""
        while True:
            await self.flush()
            sent = send()
            if sent >= 0:
                return sent
            await asyncio.sleep(0.001)  # the kernel has no room, and nothing of ours waits that would tell when it has

    async def _send_with_control(self, data: bytes, control: bytes) -> None:
        """Send `data` with a control buffer, behind all that was sent before."""
        wire: Any = self.wire
        if not hasattr(wire, "send_control"):
            raise UnsupportedError("ancillary data needs a plain socket that Portico reads itself (Linux)")

        def send() -> int:
            try:
                return wire.send_control(data, control)  # type: ignore[no-any-return]  # the wire is of the core
            except OSError as error:
                if isinstance(error, UnsupportedError):
                    raise
                raise ClosedError(f"ancillary data could not be sent: {describe(error)}") from error

        sent = await self._in_turn(send)
        if sent < len(data):
            await self.send(data[sent:])  # type: ignore[attr-defined]  # a Stream, as a packet leaves whole

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        if kind is not None and issubclass(kind, asyncio.CancelledError):  # type: ignore[arg-type]
            self.abort()
        await self.close()

    def __repr__(self) -> str:
        try:
            remote = str(self.remote_address)
        except (ClosedError, UnsupportedError):
            remote = "?"
        return f"<{type(self).__name__} {self.state.value} {remote}>"


def _bottom(wire: Wire) -> Wire:
    """Return the wire that touches the operating system."""
    while isinstance(wire, TLSWire):
        wire = wire.lower
    return wire


def peer_address(wire: Wire, scheme: str) -> Address | None:
    """Return the peer that accept(2) told of; None: it has to be asked for."""
    peer = getattr(_bottom(wire), "peer", None)
    return from_kernel(scheme, peer) if peer else None


class Channel(ChannelBase[T], ConnectionFace):
    """A connection that carries whole messages of type T in order."""

    __slots__ = ("__dict__", "__weakref__")

    def __init__(
        self,
        wire: Wire,
        codec: Codec[T],
        settings: Settings,
        owner: Callable[[Any], object] | None = None,
        *,
        scheme: str,
        draining: Signal = NEVER,
        predecessor: "Stream | None" = None,
    ) -> None:
        self.scheme, self.draining = scheme, draining
        self._local: Address | None = None
        self._remote: Address | None = None
        super().__init__(wire, codec, settings, owner, predecessor)

    async def recv_with_ancillary(self) -> "tuple[T, list[Ancillary]]":
        """Return the next message, and the ancillary data that came with it (over a stream: with its bytes).

        The records are `Descriptors` (which close what nobody takes), `Credentials`, `Timestamp` and the like.

        :raises EndOfStream: the peer ended its side
        :raises ClosedError: the connection was closed or lost"""
        from portico.transports.ancillary import unpacked

        _expect_control(self.wire)
        message, control = await self.recv_with_control()
        return message, unpacked(control)

    async def send_with_ancillary(self, message: T, ancillary: "Sequence[Ancillary]") -> None:
        """Send a message with ancillary data, behind all that was sent before.

        :raises UnsupportedError: no plain socket, or a platform without it
        :raises ConfigurationError: a record that cannot be sent
        :raises ClosedError: the connection is closed or lost"""
        from portico.transports.ancillary import packed

        await self._send_with_control(self.codec.encode(message), packed(ancillary))

    def disconnect(self) -> "Datagrams":
        """Take away the default peer of a UDP channel that `connect` made: return Datagrams upon the same socket. This
        object is done with then; messages that wait in it are lost.

        :raises UnsupportedError: no UDP socket of its own, or a platform that cannot
        :raises BusyError: a task is receiving"""
        from portico.transports.unconnected import disconnected

        return disconnected(self)


class Stream(StreamBase, ConnectionFace):
    """A connection that carries bytes in order."""

    __slots__ = ("__dict__", "__weakref__")

    def __init__(
        self,
        wire: Wire,
        settings: Settings,
        owner: Callable[[Any], object] | None = None,
        *,
        scheme: str,
        draining: Signal = NEVER,
    ) -> None:
        self.scheme, self.draining = scheme, draining
        self._local: Address | None = None
        self._remote: Address | None = None
        super().__init__(wire, settings, owner)

    def channel(self, codec: Codec[T]) -> Channel[T]:
        """Return a Channel that carries on with this connection, bytes already read included. This object is done
        with then: its `close` and `abort` go to the channel.

        :raises BusyError: a task is receiving
        :raises ClosedError: the connection is closed"""
        channel: Channel[T] = Channel(
            self.wire, codec, self.settings, scheme=self.scheme, draining=self.draining, predecessor=self
        )
        channel._local, channel._remote = self._local, self._remote
        if self.proxy_header is not None:
            channel.proxy_header = self.proxy_header
        return channel

    async def start_tls(
        self,
        tls: "TLS",
        *,
        server_side: bool = False,
        server_name: str | None = None,
        timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        """Go on in TLS, as client or server (STARTTLS). What came already behind the request to upgrade is kept and
        belongs to the handshake; what was sent before leaves before.

        `server_name`: whom the server's certificate must name; default: that of `tls`, else the address connected to.

        :raises TLSError: the handshake failed; the connection is closed then
        :raises ClosedError: the connection was closed or lost before
        :raises BusyError: a task is receiving"""
        from portico.transports.tls import explain

        name = None
        if not server_side:
            name = server_name or tls.server_name or self.remote_address.host or "localhost"
        context = tls.server_context() if server_side else tls.client_context()
        error = await handshake(
            lambda done: self.upgrade(
                context, server_side=server_side, server_name=name, timeout=timeout, on_handshake=done
            ),
            self.abort,
        )
        if error is not None:
            self.close()
            raise explain(error, address=self._remote, server_name=name, server_side=server_side) from error
        if self.scheme == "tcp":
            self.scheme = "tls"
            self._local = self._local and self._local.replace(scheme="tls")
            self._remote = self._remote and self._remote.replace(scheme="tls")

    async def recv_with_ancillary(self, max_bytes: int | None = None) -> "tuple[bytes, list[Ancillary]]":
        """Await bytes, and return them with the ancillary data that has come by now.

        The records are `Descriptors` (which close what nobody takes), `Credentials`, `Timestamp` and the like.

        :raises ClosedError: the connection was closed or lost"""
        from portico.transports.ancillary import unpacked

        _expect_control(self.wire)
        data, control = await self.recv_with_control(max_bytes)
        return data, unpacked(control)

    async def send_with_ancillary(self, data: bytes, ancillary: "Sequence[Ancillary]") -> None:
        """Send bytes with ancillary data, behind all that was sent before; at least one byte carries it.

        :raises UnsupportedError: no plain socket, or a platform without it
        :raises ConfigurationError: no data, or a record that cannot be sent
        :raises ClosedError: the connection is closed or lost"""
        from portico.transports.ancillary import packed

        if not data:
            raise ConfigurationError("ancillary data travels with data: at least one byte")
        await self._send_with_control(bytes(data), packed(ancillary))

    async def send_fds(self, fds: Sequence[int], data: bytes = b"\0") -> None:
        """Pass descriptors to the peer of a Unix socket, along with `data` (at least one byte carries them).

        They stay open here, too. Everything sent before leaves before.

        :raises UnsupportedError: not a plain Unix socket, or a platform without it
        :raises ClosedError: the connection is closed or lost
        :raises ConfigurationError: no descriptor or no data, or more than 253 descriptors (SCM_MAX_FD of unix(7))"""
        from portico.transports.ancillary import packed_fds

        self._check_passing()
        if not data:
            raise ConfigurationError("descriptors travel with data: at least one byte")
        await self._send_with_control(data, packed_fds(fds))

    async def recv_fds(self, most: int = 16, max_bytes: int | None = None) -> tuple[bytes, list[int]]:
        """Await bytes, and return them with the descriptors that have come by now; the caller closes these.

        Descriptors beyond `Limits.max_fds` that nobody takes are closed on arrival.

        :raises UnsupportedError: not a plain Unix socket, or a platform without it"""
        from portico.transports.ancillary import Descriptors

        self._check_passing()
        data = await self.recv(max_bytes)
        taken: list[int] = []
        for record in self.ancillary:
            if isinstance(record, Descriptors) and len(taken) < most:
                taken += record.take(most - len(taken))
        return data, taken

    def _check_passing(self) -> None:
        if self.scheme != "unix" or not hasattr(self.wire, "send_control"):
            raise UnsupportedError("descriptors can be passed only over a plain Unix socket, on Linux")


def _expect_control(wire: Wire) -> None:
    expect = getattr(wire, "expect_control", None)
    if expect is not None:
        expect()


async def handshake(
    start: Callable[[Callable[[BaseException | None], None]], object], give_up: Callable[[], object]
) -> BaseException | None:
    """Start a TLS handshake, wait for its end and return its error; a cancelled one is given up."""
    over: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def done(error: BaseException | None) -> None:
        if not over.done():
            over.set_result(error)

    start(done)
    try:
        return await over
    except asyncio.CancelledError:
        give_up()
        raise


def memory_pair(settings: Settings | None = None) -> tuple[Stream, Stream]:
    """Return two Streams, each the peer of the other, without a socket: for tests, and within one loop."""
    from portico._core import hub_of, memory_wires

    settings = settings or Settings()
    one, other = memory_wires(hub_of(asyncio.get_running_loop()))
    return Stream(one, settings, scheme="mem"), Stream(other, settings, scheme="mem")


__all__ = ["Channel", "Credentials", "Signal", "State", "Stream", "handshake", "memory_pair"]
