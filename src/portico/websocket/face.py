"""`BlockingWebSocket`: the blocking face of a WebSocket, for threads and the interactive prompt."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from typing_extensions import Buffer

from portico.transports.faces import BlockingChannel
from portico.websocket.channel import WebSocket

if TYPE_CHECKING:
    from portico.protocols.http_request import RequestHead
    from portico.protocols.http_response import ResponseHead

__all__ = ["BlockingWebSocket"]


class BlockingWebSocket(BlockingChannel[str | bytes]):
    """A WebSocket for threads: the same calls, which return when they are done. Errors are those of WebSocket, and
    TimeoutError or WouldBlock."""

    connection: WebSocket

    def __init__(self, connection: WebSocket, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(connection, loop)

    @property
    def request(self) -> "RequestHead":
        """The request that it began with, as it came or, of a client, as it was sent."""
        return self.connection.request

    @property
    def response(self) -> "ResponseHead | None":
        """Of a client, what the server answered; of a server None."""
        return self.connection.response

    @property
    def subprotocol(self) -> str | None:
        """The one that both sides chose, or None."""
        return self.connection.subprotocol

    @property
    def data(self) -> Any:
        """What `authorize` attached."""
        return self.connection.data

    @property
    def latency(self) -> float | None:
        """Seconds that the last ping and its pong took; None: not known yet."""
        return self.connection.latency

    @property
    def close_code(self) -> int | None:
        """The code that the peer closed with; 1005: it gave none, 1006: it went without a word; None: it has not."""
        return self.connection.close_code

    @property
    def close_reason(self) -> str:
        """What the peer said beside it."""
        return self.connection.close_reason

    def ping(self, *, timeout: float | None = None) -> float:
        """Send a ping, and return the seconds until its pong came.

        :raises TimeoutError: it did not come within `timeout` seconds
        :raises ClosedError: the connection is closed or lost"""
        return self._call(self.connection.ping, timeout, doing="pinging")

    def close(
        self, code: int | None = None, reason: str = "", *, timeout: float | None = None, wait: bool = True
    ) -> None:
        """Close with a closing handshake; returns when the connection is over, or without `wait` at once.

        :param code: default 1000 (normal closure), or 1001 (going away) while the server drains

        :raises ProtocolError: a code that may not be sent, or too long a reason"""

        async def close() -> None:
            over = self.connection.close(code, reason)
            if wait:
                await over

        self._call(close, timeout, doing="closing")

    def fragments(self) -> Iterator[str | bytes]:
        """Iterate over the next message in pieces, as `WebSocket.fragments`."""

        async def begin() -> Any:
            return self.connection.fragments()

        pieces = self._call(begin, doing="receiving from")

        async def take() -> str | bytes | None:
            try:
                piece: str | bytes = await anext(pieces)
            except StopAsyncIteration:
                return None
            return piece

        while (piece := self._call(take, doing="receiving from")) is not None:
            yield piece

    def send_fragments(self, pieces: Iterable[str | Buffer], *, timeout: float | None = None) -> None:
        """Send one message in as many frames as there are `pieces`; `timeout` is for each of them.

        An exception of `pieces`, or being interrupted, closes the connection (1011), as the message cannot be ended.
        Errors are those of `WebSocket.send_fragments`; another thread may be who sends one."""
        message = self.connection.one_message()
        failed: BaseException | None = None

        async def begin() -> None:
            message.__enter__()

        async def end() -> None:
            message.__exit__(type(failed), failed, None) if failed else message.__exit__(None, None, None)

        self._call(begin, doing="sending to")
        try:
            for piece in pieces:
                self._send_piece(piece, False, timeout)
            self._send_piece(b"", True, timeout)
        except BaseException as error:
            failed = error
            raise
        finally:
            self._call(end, doing="sending to")

    def _send_piece(self, piece: str | Buffer, last: bool, timeout: float | None) -> None:
        async def send() -> None:
            await self.connection.send_piece(piece, last)

        self._call(send, timeout, doing="sending to")
