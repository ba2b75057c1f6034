"""The blocking faces of Stream and Channel, for threads and the interactive prompt."""

import asyncio
import contextlib
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from portico._core import Codec
from portico.address import Address
from portico.errors import BusyError, EndOfStream, MessageTooLarge, PorticoError
from portico.transports.calls import Caller
from portico.transports.connection import (
    HANDSHAKE_TIMEOUT,
    Channel,
    ConnectionFace,
    Credentials,
    Signal,
    State,
    Stream,
)

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from portico.options import Options
    from portico.protocols.proxy_header import ProxyHeader
    from portico.transports.ancillary import Ancillary
    from portico.transports.datagram_face import BlockingDatagrams
    from portico.transports.datagrams import Datagrams
    from portico.transports.info import Info
    from portico.transports.tls import TLS, TLSInfo

__all__ = ["BlockingChannel", "BlockingFace", "BlockingStream", "blocking_face"]

T = TypeVar("T")
C = TypeVar("C", bound=ConnectionFace)


class BlockingFace(Caller, Generic[C]):
    """What all faces share. Any thread but the loop's own may call them.

    `timeout` is in seconds, None waits for ever; TimeoutError says that nothing was received, or sent: what comes later
    stays readable. `timeout=0` looks once. `wait=False` looks once, too, and raises WouldBlock. Ctrl-C ends the wait in
    the main thread like a timeout."""

    def __init__(self, connection: C, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.connection = connection

    def _whom(self) -> str:
        with contextlib.suppress(PorticoError):
            return str(self.connection.remote_address)
        return "a connection that is over"

    def _is_full(self) -> bool:
        return self.connection.queued[1] > self.connection.settings.high_water

    def flush(self, *, timeout: float | None = None, wait: bool = True) -> None:
        """Wait until the operating system has taken all that was sent.

        :raises WouldBlock: without `wait`, if it has not
        :raises ClosedError: the connection was lost before"""

        self._call(self._flushed, timeout, doing="flushing to", wait=wait)

    def send_eof(self) -> None:
        """End this side after what was sent (half-close); receiving goes on."""

        async def send_eof() -> None:
            self.connection.send_eof()

        self._call(send_eof, doing="ending")

    def close(self, *, timeout: float | None = None, wait: bool = True) -> None:
        """Send what is queued and close; returns when the connection is over, or without `wait` at once. `timeout` and
        Ctrl-C end the wait, not the closing, which `close_timeout` of the connection bounds. May be called again."""

        async def close() -> None:
            over = self.connection.close()
            if wait:
                await over

        self._call(close, timeout, doing="closing")

    def wait_closed(self, *, timeout: float | None = None) -> None:
        """Wait for the end of the connection, whoever ends it."""

        async def wait_closed() -> None:
            await self.connection.wait_closed()

        self._call(wait_closed, timeout, doing="waiting for the end of")

    def detach(self, *, timeout: float | None = None, wait: bool = True) -> tuple[socket.socket | int, bytes]:
        """Give up the socket once all that was sent has left: return it, not blocking, with the bytes that were
        received and not taken. This object is closed then, and the socket the caller's. Of a FIFO or device it is the
        descriptor.

        :raises BusyError: a thread is receiving, or messages wait to be taken
        :raises UnsupportedError: it has no socket of its own that could be used without it
        :raises TimeoutError: not all has left; the connection is as it was
        :raises WouldBlock: without `wait`, likewise"""

        async def detach() -> tuple[socket.socket | int, bytes]:
            self._check_handed_out()
            return await self.connection.detach()

        return self._call(detach, timeout, doing="detaching from", wait=wait, until=self._flushed)

    async def _flushed(self) -> None:
        await self.connection.flush()

    def _check_handed_out(self) -> None:
        """:raises BusyError: something was received for a call that was given up at that moment"""

    def abort(self) -> None:
        """Close at once and drop what is queued; over TCP the peer sees a reset. Never waits."""
        self._check_process()
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all connections with it
            self._loop.call_soon_threadsafe(self.connection.abort)

    @property
    def state(self) -> State:
        """Tells open, half-closed (which side), closing or closed."""
        return self.connection.state

    @property
    def draining(self) -> Signal:
        """True once the server wants its handlers to come to an end."""
        return self.connection.draining

    @property
    def local_address(self) -> Address:
        """The address of this end."""
        return self.connection.local_address

    @property
    def remote_address(self) -> Address:
        """The address of the peer."""
        return self.connection.remote_address

    @property
    def options(self) -> "Options":
        """The live socket options, by name."""
        return self.connection.options

    @property
    def tls(self) -> "TLSInfo | None":
        """What TLS agreed on, where the connection is secure."""
        return self.connection.tls

    @property
    def proxy_header(self) -> "ProxyHeader | None":
        """What a trusted proxy said of this connection; None without."""
        return self.connection.proxy_header

    @property
    def peer_credentials(self) -> Credentials:
        """Process, user and group of the peer of a Unix socket."""
        return self.connection.peer_credentials

    def info(self) -> "Info":
        """The kernel's view, and the sizes of the queues here."""
        return self.connection.info()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.abort()
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.state.value} {self._whom()}>"


class BlockingStream(BlockingFace[Stream]):
    """A Stream for threads: the same calls, which return when they are done. Errors are those of Stream, and
    TimeoutError or WouldBlock (what came stays readable)."""

    def __init__(self, connection: Stream, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(connection, loop)
        self._kept = b""  # what came for a call that was given up at that moment; only the loop touches both
        self._beside: list[Ancillary] = []

    def _keep(self, data: bytes) -> None:
        self._kept = data + self._kept

    def _take(self, size: int | None) -> bytes:
        taken = self._kept[:size]
        self._kept = self._kept[len(taken) :]
        return taken

    async def _more(self, max_bytes: int | None = None) -> None:
        """Receive more behind what was kept."""
        data = await self.connection.recv(max_bytes)
        if not data:
            raise EndOfStream(self._kept)
        self._kept += data

    def recv(self, max_bytes: int | None = None, *, timeout: float | None = None, wait: bool = True) -> bytes:
        """Return what has come, at most `max_bytes`; `b""` at the end.

        :raises ClosedError: the connection was closed or lost
        :raises BusyError: another thread is receiving
        :raises WouldBlock: without `wait`, if nothing is there"""

        async def recv() -> bytes:
            return self._take(max_bytes) if self._kept else await self.connection.recv(max_bytes)

        return self._call(recv, timeout, doing="receiving from", wait=wait, keep=self._keep)

    def recv_exactly(self, size: int, *, timeout: float | None = None, wait: bool = True) -> bytes:
        """Return exactly `size` bytes.

        :raises EndOfStream: the peer ended its side before; `.partial` has what came, which stays readable
        :raises WouldBlock: without `wait`, if fewer are there; they stay"""

        async def recv_exactly() -> bytes:
            if not self._kept:
                return await self.connection.recv_exactly(size)
            while len(self._kept) < size:
                await self._more(size - len(self._kept))
            return self._take(size)

        return self._call(recv_exactly, timeout, doing="receiving from", wait=wait, keep=self._keep)

    def recv_until(
        self, separator: bytes, max_bytes: int = 1 << 20, *, timeout: float | None = None, wait: bool = True
    ) -> bytes:
        """Return the bytes before the next `separator`, which is taken, too.

        :raises MessageTooLarge: more than `max_bytes` came without it; they stay readable
        :raises EndOfStream: the peer ended its side before; `.partial` has what came, which stays readable
        :raises WouldBlock: without `wait`, if it has not come; what is there stays"""

        async def recv_until() -> bytes:
            if not self._kept:
                return await self.connection.recv_until(separator, max_bytes)
            while (size := self._kept.find(separator)) < 0 and len(self._kept) <= max_bytes:
                await self._more()
            if not 0 <= size <= max_bytes:
                raise MessageTooLarge(len(self._kept), max_bytes)
            return self._take(size + len(separator))[:size]

        def keep(data: bytes) -> None:
            self._keep(data + separator)

        return self._call(recv_until, timeout, doing="receiving from", wait=wait, keep=keep)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.recv():
            yield chunk

    def send(self, data: "Buffer", *, timeout: float | None = None, wait: bool = True) -> None:
        """Send all of `data` once there is room for it: less waits to leave than the high-water mark.

        :raises ClosedError: the connection is closed or lost, or `send_eof` was called
        :raises TimeoutError: nothing of it was sent
        :raises WouldBlock: without `wait`, if there is no room; nothing of it was sent"""

        async def send() -> None:
            if self._is_full():
                await self.connection.flush()
            self.connection.send(data)

        self._call(send, timeout, doing="sending to", wait=wait, until=self._flushed)

    def send_some(self, data: "Buffer", *, timeout: float | None = None, wait: bool = True) -> bytes | memoryview:
        """Send as much of `data` as there is room for up to the high-water mark, once there is room for any, and return
        what is left: `b""` when that was all.

            rest = data
            while rest:
                rest = stream.send_some(rest)

        :raises ClosedError: the connection is closed or lost, or `send_eof` was called
        :raises TimeoutError: nothing of it was sent
        :raises WouldBlock: without `wait`, if there is no room at all; nothing of it was sent"""

        async def send_some() -> bytes | memoryview:
            room = self.connection.settings.high_water - self.connection.queued[1]
            if room <= 0:
                await self.connection.flush()
            view = memoryview(data).cast("B")
            if len(view) <= room:
                self.connection.send(data)
                return b""
            self.connection.send(view[:room])
            return view[room:]

        return self._call(send_some, timeout, doing="sending to", wait=wait, until=self._flushed)

    def send_fds(self, fds: Sequence[int], data: bytes = b"\0", *, timeout: float | None = None) -> None:
        """Pass descriptors to the peer of a Unix socket, along with `data`, as `Stream.send_fds` does. They stay open
        here, too.

        :raises UnsupportedError: not a plain Unix socket, or a platform without it
        :raises TimeoutError: they were not passed, unless that was what `data` behind them waits for"""

        async def send_fds() -> None:
            await self.connection.send_fds(fds, data)

        self._call(send_fds, timeout, doing="sending to", once=True)

    def recv_fds(
        self, most: int = 16, max_bytes: int | None = None, *, timeout: float | None = None, wait: bool = True
    ) -> tuple[bytes, list[int]]:
        """Return what has come, with the descriptors that came along; the caller closes these.

        :raises UnsupportedError: not a plain Unix socket, or a platform without it
        :raises WouldBlock: without `wait`, if nothing is there"""

        async def recv_fds() -> tuple[bytes, list[int]]:
            if not self._kept:
                return await self.connection.recv_fds(most, max_bytes)
            fds: list[int] = []
            for record in self._beside:
                if isinstance(record, Descriptors):
                    fds += record.take(most - len(fds))
            return self._take(max_bytes), fds

        def keep(received: tuple[bytes, list[int]]) -> None:
            self._keep(received[0])
            self._beside.append(Descriptors(received[1]))

        from portico.transports.ancillary import Descriptors

        return self._call(recv_fds, timeout, doing="receiving from", wait=wait, keep=keep)

    def send_with_ancillary(
        self, data: bytes, ancillary: "Sequence[Ancillary]", *, timeout: float | None = None
    ) -> None:
        """Send bytes with ancillary data, as `Stream.send_with_ancillary` does; at least one byte carries it.

        :raises UnsupportedError: no plain socket, or a platform without it
        :raises ConfigurationError: no data, or a record that cannot be sent
        :raises TimeoutError: it was not sent, unless that was what the rest of `data` waits for"""

        async def send_with_ancillary() -> None:
            await self.connection.send_with_ancillary(data, ancillary)

        self._call(send_with_ancillary, timeout, doing="sending to", once=True)

    def recv_with_ancillary(
        self, max_bytes: int | None = None, *, timeout: float | None = None, wait: bool = True
    ) -> "tuple[bytes, list[Ancillary]]":
        """Return what has come, with the ancillary data that has come by now: records of
        `portico.transports.ancillary`.

        :raises WouldBlock: without `wait`, if nothing is there"""

        async def recv_with_ancillary() -> "tuple[bytes, list[Ancillary]]":
            if not self._kept:
                return await self.connection.recv_with_ancillary(max_bytes)
            beside, self._beside = self._beside, []
            return self._take(max_bytes), beside

        def keep(received: "tuple[bytes, list[Ancillary]]") -> None:
            self._keep(received[0])
            self._beside += received[1]

        return self._call(recv_with_ancillary, timeout, doing="receiving from", wait=wait, keep=keep)

    def start_tls(
        self,
        tls: "TLS",
        *,
        server_side: bool = False,
        server_name: str | None = None,
        timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        """Go on in TLS, as client or server (STARTTLS). The handshake may take `timeout` seconds (10).

        :raises TLSError: the handshake failed; the connection is closed then, as it is by Ctrl-C
        :raises BusyError: a thread is receiving"""

        async def start_tls() -> None:
            self._check_handed_out()
            await self.connection.start_tls(tls, server_side=server_side, server_name=server_name, timeout=timeout)

        self._call(start_tls, doing="speaking TLS with", once=True)

    def channel(self, codec: Codec[T]) -> "BlockingChannel[T]":
        """Return the blocking face of a Channel that carries on with this connection.

        :raises BusyError: a thread is receiving"""

        async def channel() -> Channel[T]:
            self._check_handed_out()
            return self.connection.channel(codec)

        return BlockingChannel(self._call(channel, doing="making a channel of"), self._loop)

    def _check_handed_out(self) -> None:
        if self._kept:
            raise BusyError("an interrupted call left what had come for it: receive that first")


class BlockingChannel(BlockingFace[Channel[T]], Generic[T]):
    """A Channel for threads: the same calls, which return when they are done. Errors are those of Channel, and
    TimeoutError or WouldBlock (what came stays readable)."""

    def __init__(self, connection: Channel[T], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(connection, loop)
        self._kept: deque[tuple[T, list[Ancillary]]] = deque()  # for calls given up at that moment; only the loop's

    def recv(self, *, timeout: float | None = None, wait: bool = True) -> T:
        """Return the next message.

        :raises EndOfStream: the peer ended its side; `.partial` is what it sent of an unfinished message
        :raises ClosedError: the connection was closed or lost
        :raises MessageTooLarge: a message was over the codec's `max_size`; it was dropped, the next ones can be read
        :raises ProtocolError: what came is no message
        :raises BusyError: another thread is receiving
        :raises WouldBlock: without `wait`, if none is there"""

        async def recv() -> T:
            return self._kept.popleft()[0] if self._kept else await self.connection.recv()

        return self._call(recv, timeout, doing="receiving from", wait=wait, keep=self._keep)

    def _keep(self, message: T) -> None:
        self._kept.appendleft((message, []))

    def _check_handed_out(self) -> None:
        if self._kept:
            raise BusyError("an interrupted call left what had come for it: receive that first")

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                message = self.recv()
            except EndOfStream as error:
                if error.partial:
                    raise
                return
            yield message

    def batches(self) -> Iterator[list[T]]:
        """Iterate over lists of all the messages that are there at the time: cheapest at high rates, for each call
        costs a visit to the loop's thread."""
        batches = self.connection.batches()

        async def take() -> list[T] | None:
            if self._kept:
                kept = [message for message, _ in self._kept]
                self._kept.clear()
                return kept
            try:
                return await anext(batches)
            except StopAsyncIteration:
                return None

        def keep(batch: list[T] | None) -> None:
            for message in reversed(batch or ()):
                self._keep(message)

        while (batch := self._call(take, doing="receiving from", keep=keep)) is not None:
            yield batch

    def send(self, message: T, *, timeout: float | None = None, wait: bool = True) -> None:
        """Send a message once there is room for it: less waits to leave than the high-water mark.

        :raises ClosedError: the connection is closed or lost, or `send_eof` was called
        :raises MessageTooLarge: the message is over the codec's `max_size`
        :raises TimeoutError: it was not sent
        :raises WouldBlock: without `wait`, if there is no room; it was not sent"""

        async def send() -> None:
            if self._is_full():
                await self.connection.flush()
            self.connection.send(message)

        self._call(send, timeout, doing="sending to", wait=wait, until=self._flushed)

    def send_with_ancillary(
        self, message: T, ancillary: "Sequence[Ancillary]", *, timeout: float | None = None
    ) -> None:
        """Send a message with ancillary data, as `Channel.send_with_ancillary` does.

        :raises UnsupportedError: no plain socket, or a platform without it
        :raises ConfigurationError: a record that cannot be sent
        :raises TimeoutError: it was not sent, unless that was what the rest of the message waits for"""

        async def send_with_ancillary() -> None:
            await self.connection.send_with_ancillary(message, ancillary)

        self._call(send_with_ancillary, timeout, doing="sending to", once=True)

    def recv_with_ancillary(self, *, timeout: float | None = None, wait: bool = True) -> "tuple[T, list[Ancillary]]":
        """Return the next message, and the ancillary data that came with it: records of
        `portico.transports.ancillary`.

        :raises WouldBlock: without `wait`, if none is there"""

        async def recv_with_ancillary() -> "tuple[T, list[Ancillary]]":
            return self._kept.popleft() if self._kept else await self.connection.recv_with_ancillary()

        return self._call(recv_with_ancillary, timeout, doing="receiving from", wait=wait, keep=self._kept.appendleft)

    def disconnect(self) -> "BlockingDatagrams":
        """Take away the default peer of a UDP channel that `connect` made: return the face of Datagrams upon the same
        socket. This object is done with then; messages that wait in it are lost.

        :raises UnsupportedError: no UDP socket of its own, or a platform that cannot
        :raises BusyError: a thread is receiving"""
        from portico.transports.datagram_face import BlockingDatagrams

        async def disconnect() -> "Datagrams":
            return self.connection.disconnect()

        return BlockingDatagrams(self._call(disconnect, doing="disconnecting from"), self._loop)


def blocking_face(connection: Any, loop: asyncio.AbstractEventLoop | None = None) -> Any:
    """Return the face of a Stream, Channel or Datagrams for threads; without its `loop`, to be called there."""
    loop = loop or asyncio.get_running_loop()
    if hasattr(connection, "blocking"):  # it has more than a Channel
        return connection.blocking(loop)
    if isinstance(connection, Stream):
        return BlockingStream(connection, loop)
    if isinstance(connection, Channel):
        return BlockingChannel(connection, loop)
    from portico.transports.datagram_face import BlockingDatagrams

    return BlockingDatagrams(connection, loop)
