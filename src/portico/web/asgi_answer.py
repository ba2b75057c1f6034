"""An answer that an ASGI application sends message by message, and the Response that becomes of it."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from portico.errors import ClosedError, ConfigurationError, ProtocolError
from portico.protocols.http_headers import encode_text
from portico.web.response import Response

Message = dict[str, Any]

_UNSTARTED, _STARTED, _STREAMED, _COMPLETE = range(4)


class AppAnswer:
    """Takes the messages `<kind>.start` and `<kind>.body`; `response` becomes the Response with the first body, so that
    an app which fails before that is answered with 500.

    :param kind: "http.response", or "websocket.http.response" of a WebSocket that is denied.
    :param method: of the request; bodies of answers to HEAD are taken and dropped.
    :param finished: called once when nothing more of the answer will come or be wanted."""

    def __init__(self, kind: str, method: str, finished: Callable[[], object]) -> None:
        self.response: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.pieces: Pieces | None = None
        self._kind, self._method, self._finished = kind, method, finished
        self._stage = _UNSTARTED
        self._status = 0
        self._headers: list[tuple[str, str]] = []

    @property
    def begun(self) -> bool:
        """Whether the app has sent a start."""
        return self._stage > _UNSTARTED

    @property
    def complete(self) -> bool:
        """Whether the app has sent all of it."""
        return self._stage == _COMPLETE

    async def take(self, message: Message) -> None:
        """Take one message, and wait until the client has room for more.

        :raises ProtocolError: a message that cannot come now, or has not what it must
        :raises ConfigurationError: header fields that cannot be sent
        :raises ClosedError: the client has gone"""
        name = message["type"]
        if name == f"{self._kind}.start" and self._stage == _UNSTARTED:
            self._start(message)
        elif name == f"{self._kind}.body" and self._stage in (_STARTED, _STREAMED):
            await self._body(message)
        else:
            wanted = f"{self._kind}.body" if self.begun else f"{self._kind}.start"
            raise ProtocolError(
                f"the app sent {name!r} after the end of its answer"
                if self.complete
                else f"the app sent {name!r} where {wanted!r} has to come"
            )

    def _start(self, message: Message) -> None:
        status = message.get("status")
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ProtocolError(f"{self._kind}.start has a status of 200 to 599, not {status!r}")
        if message.get("trailers"):
            raise ProtocolError(f"{self._kind}.start announces trailers, an extension that this server does not offer")
        self._headers = header_items(message.get("headers") or ())
        self._status, self._stage = status, _STARTED

    async def _body(self, message: Message) -> None:
        body = message.get("body", b"")
        if not isinstance(body, bytes | bytearray | memoryview):
            raise ProtocolError(f"the body of {self._kind}.body is bytes, not {type(body).__name__}")
        body, more = bytes(body), bool(message.get("more_body"))
        if self._stage == _STARTED and not more:
            self._stage = _COMPLETE
            self._hand_out(Response(body, status=self._status))
            self._finished()
            return
        if self.pieces is None:
            drops = self._method == "HEAD" or self._status in (204, 304)
            self._stage = _STREAMED
            self.pieces = Pieces(drops, self._finished)
            self._hand_out(Response(self.pieces, status=self._status))
        if not more:
            self._stage = _COMPLETE
            self._finished()
        if body or not more:
            await self.pieces.put(body, not more)

    def _hand_out(self, response: Response) -> None:
        response.headers = self._headers  # a Response would have added a type to its own
        if self.response.done():
            raise gone()
        self.response.set_result(response)

    def fail(self, error: BaseException) -> bool:
        """The app has ended with `error`: raise that where the answer is waited for; False: nobody does."""
        if not self.response.done():
            self.response.set_exception(error)
            return True
        if self.pieces is not None and not self.complete:
            return self.pieces.fail(error)
        return False


class Pieces:
    """The body of an answer, from the app that sends it to the connection that it leaves by: one piece at a time, and
    the next when there is room."""

    outlasts_end = True
    """It goes on to a client that has ended its side: the app hears of that, and some send all that they say so."""

    def __init__(self, drops: bool, finished: Callable[[], object]) -> None:
        self.drops = drops
        """Nobody wants them: they are taken and dropped."""
        self.closed = False
        """Whether the connection takes no more, before the end."""
        self.over: Callable[[], Any] | None = None
        """Awaited before the last of the answer leaves, and where that never will."""
        self._finished = finished
        self._ended = False
        self._error: BaseException | None = None
        self._piece = b""
        self._wanted: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    # the app's side

    async def put(self, piece: bytes, last: bool) -> None:
        """Hand over a piece and wait until it was sent and there is room.

        :raises ClosedError: the client has gone"""
        while self._room is not None and not self.closed:  # another task of the app sends, too
            await asyncio.wait([self._room])
        if self.drops:
            return
        if self.closed:
            raise gone()
        self._piece, self._ended = piece, last
        _wake(self._wanted)
        if last:
            return
        self._room = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._room)
        if self.closed:
            raise gone()

    def fail(self, error: BaseException) -> bool:
        """Break off with `error`; False: nobody would hear it."""
        self._error = error
        _wake(self._wanted)
        return not self.closed and not self.drops

    # the connection's side

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> bytes:
        self._make_room()
        while not self._piece:
            if self._error is not None:
                raise self._error
            if self._ended:
                if self.over is not None:
                    await self.over()
                raise StopAsyncIteration
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        piece, self._piece = self._piece, b""
        return piece

    async def aclose(self) -> None:
        """The connection takes no more."""
        if self.closed:
            return
        self.closed = True
        self._make_room()
        if not self._ended:
            self._finished()
            if self.over is not None:
                await self.over()

    def _make_room(self) -> None:
        room, self._room = self._room, None
        _wake(room)


def gone() -> ClosedError:
    """What sending raises when there is nobody to send to: an OSError, as the specification wants."""
    return ClosedError("the client has gone; nothing more can be sent to it")


def header_items(headers: Iterable[Iterable[bytes]]) -> list[tuple[str, str]]:
    """Return the header fields of a message as text.

    :raises ProtocolError: they are no pairs of bytes
    :raises ConfigurationError: they cannot be sent"""
    try:
        items = [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers]
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"headers are pairs of bytes: {error}") from error
    try:
        encode_text(items)
    except ConfigurationError as error:
        raise ConfigurationError(f"the app's headers cannot be sent: {error}") from None
    return items


def _wake(waiting: "asyncio.Future[None] | None") -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)
