"""`WebSocket`: a Channel whose messages are str and bytes, kept alive, and closed with a word of why."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from typing_extensions import Buffer

from portico._core.websocket import WebSocketBase
from portico.errors import BusyError, ClosedError
from portico.transports.connection import Channel, Stream

if TYPE_CHECKING:
    from portico._core.frames import Frames
    from portico.protocols.http_request import RequestHead
    from portico.protocols.http_response import ResponseHead
    from portico.websocket.face import BlockingWebSocket

__all__ = ["WebSocket"]

PING_SIZE = 8
"""Bytes of a ping's payload, enough that no two are alike."""

NOT_KEPT = 1011
"""The close code of who cannot end a message that it has begun (RFC 6455 section 7.4.1: internal error)."""


class WebSocket(WebSocketBase, Channel[str | bytes]):
    """A Channel over a WebSocket (RFC 6455): text is str, binary is bytes (or memoryview, where the settings say so).

    Iterating ends when the peer closes with 1000 or 1001; another code is a `ClosedError` with `code` and `reason`, as
    is a connection that ends without a closing handshake (1006). What breaks the rules of the protocol, is too large or
    not UTF-8 is an error of `recv` after all that came before it, and the peer is told by close codes 1002, 1009, 1007.

    :ivar request: the request that it began with, as it came or, of a client, as it was sent.
    :ivar response: of a client, what the server answered: `response.headers` has its cookies; of a server None.
    :ivar subprotocol: the one that both sides chose, or None.
    :ivar data: what `authorize` attached."""

    __slots__ = ()

    request: "RequestHead"
    response: "ResponseHead | None" = None
    subprotocol: str | None = None
    data: Any = None
    _sends_fragments = False

    def __init__(
        self,
        stream: Stream,
        frames: "Frames",
        request: "RequestHead",
        *,
        response: "ResponseHead | None" = None,
        scheme: str | None = None,
        subprotocol: str | None = None,
        data: Any = None,
    ) -> None:
        """Take over `stream` behind its opening handshake; what it has received already is the first frames.

        :raises BusyError: a task is receiving from the stream
        :raises ClosedError: the stream is closed"""
        self.scheme = scheme or self._scheme_upon(stream)
        self.draining = stream.draining
        self._local, self._remote = stream._local, stream._remote
        if stream.proxy_header is not None:
            self.proxy_header = stream.proxy_header
        self.request = request
        if response is not None:
            self.response = response
        if subprotocol is not None:
            self.subprotocol = subprotocol
        if data is not None:
            self.data = data
        WebSocketBase.__init__(self, stream.wire, frames, stream.settings, None, stream)

    @staticmethod
    def _scheme_upon(stream: Stream) -> str:
        if stream.scheme == "unix":
            return "ws+unix"
        return "wss" if stream.tls is not None else "ws"

    async def ping(self, timeout: float | None = None) -> float:
        """Send a ping, and return the seconds until its pong came; nobody needs to receive meanwhile.

        :param timeout: seconds to wait for it; None: as long as the connection lasts
        :raises TimeoutError: it did not come in time
        :raises ClosedError: the connection is closed or lost"""
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self.send_ping(os.urandom(PING_SIZE), answer)
        if timeout is None:
            return await answer
        async with asyncio.timeout(timeout):
            return await answer

    def blocking(self, loop: asyncio.AbstractEventLoop) -> "BlockingWebSocket":
        """Return its face for threads, which calls into `loop`."""
        from portico.websocket.face import BlockingWebSocket

        return BlockingWebSocket(self, loop)

    def fragments(self) -> "Fragments":
        """Iterate over the next message in pieces, as they come: all str, or all bytes. It may be larger than
        `max_size` and than memory; what was compressed is inflated as it is taken, at most 64 KiB at a time. What is
        not taken of it is dropped when the next message is asked for.

        From the first call on, messages that do not come at once are kept in pieces; `recv` puts them together.
        Errors are those of `recv`. Where compression keeps its context (`context_takeover`), what is dropped has to be
        inflated, too, and `max_size` bounds it: more closes the connection (1009)."""
        return Fragments(self)

    async def send_fragments(self, pieces: Iterable[str | Buffer] | AsyncIterable[str | Buffer]) -> None:
        """Send one message in as many frames as there are `pieces`, all str or all bytes-like, as they come and as
        there is room; `max_size` does not bound it. What is sent meanwhile leaves behind it.

        An exception of `pieces`, or being cancelled, closes the connection (1011), as the message cannot be ended.

        :raises TypeError: str and bytes in one message
        :raises BusyError: another task is sending a message in fragments
        :raises ClosedError: the connection is closed or lost"""
        with self.one_message():
            if isinstance(pieces, AsyncIterable):
                async for piece in pieces:
                    await self.send_piece(piece, False)
            else:
                for piece in pieces:
                    await self.send_piece(piece, False)
            await self.send_piece(b"", True)

    @contextlib.contextmanager
    def one_message(self) -> Iterator[None]:
        """A message is sent with `send_piece` within; an exception there closes the connection (1011).

        :raises BusyError: another task, or thread, is sending one"""
        if self._sends_fragments:
            raise BusyError("another task is sending a message in fragments")
        self._sends_fragments = True
        try:
            yield
        except BaseException as error:
            if not isinstance(error, ClosedError):
                self.close(NOT_KEPT, "a message could not be ended")
            raise
        finally:
            del self._sends_fragments


class Fragments(AsyncIterator[str | bytes]):
    """The pieces of one message."""

    __slots__ = ("_over", "_websocket")

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket: WebSocket | None = websocket
        self._over = False
        websocket.receive_in_pieces()

    def __anext__(self) -> Awaitable[str | bytes]:
        return self._next()

    async def _next(self) -> str | bytes:
        while not self._over:
            assert self._websocket is not None
            piece, self._over = await self._websocket.recv_piece()
            if self._over:
                self._websocket = None
            if piece:
                return piece  # type: ignore[no-any-return]  # the queue holds nothing else
        raise StopAsyncIteration
