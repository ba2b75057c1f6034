"""`Request`: what a route gets."""

import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

from portico.address import Address
from portico.errors import ClosedError
from portico.protocols.http11 import BadRequest, RequestHead
from portico.protocols.http_headers import Headers
from portico.transports.connection import Signal, Stream


class Incoming(Protocol):
    """What brings the body of a request."""

    stream: Stream

    @property
    def gone(self) -> Signal:
        """Happens when the client goes away, or ends its side."""
        ...

    async def next_piece(self) -> bytes:
        """Return what comes next of the body; b"" is its end."""
        ...


class Request(RequestHead):
    """A request, with its body and its connection. Its body comes piece by piece, when it is asked for."""

    __slots__ = ("_body", "_kept", "_shared_out", "incoming")

    def __init__(self, method: str, target: str, version: str = "1.1", headers: Headers = Headers()) -> None:  # noqa: B008
        super().__init__(method, target, version, headers)
        self.incoming: Incoming | None = None
        """What brings the body; None: the connection is somebody else's from here on."""
        self._body: bytes | None = None
        self._kept: list[bytes] | None = None  # what `body` has of it so far
        self._shared_out = False  # pieces of it went to who iterates

    @property
    def stream(self) -> Stream:
        """The connection that it came by. To write to it is to break HTTP.

        :raises ClosedError: the request was answered, or upgraded: the channel has the connection"""
        return self._at_hand().stream

    def _at_hand(self) -> Incoming:
        if self.incoming is None:
            raise ClosedError(
                "this request was answered, or became a channel: ask the channel, or keep what is needed before",
                clean=True,
            )
        return self.incoming

    @property
    def remote_address(self) -> Address:
        """The address of the client; behind a trusted proxy (`proxied_by`) that of the real one."""
        return self.stream.remote_address

    @property
    def local_address(self) -> Address:
        """The address that the client connected to."""
        return self.stream.local_address

    @property
    def secure(self) -> bool:
        """Whether it came over TLS."""
        return self.stream.tls is not None

    @property
    def draining(self) -> Signal:
        """True from the moment that the server wants its handlers to come to an end; may be awaited."""
        return self.stream.draining

    @property
    def gone(self) -> Signal:
        """True from the moment that the client has gone: it was lost, or has ended its side; may be awaited.

        A route is never cancelled for that: what it does may matter though nobody hears of it. One that waits long, for
        news or in an async generator, should wait for this, too. An answer still goes to who ended his side only, as
        HTTP/1.1 lets a client do; few do, and most have left.

        :raises ClosedError: the request was answered, or upgraded"""
        return self._at_hand().gone

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        if self._body is not None:
            if self._body:
                yield self._body
        elif self.body_size != 0:
            while piece := self._kept.pop(0) if self._kept else await self._at_hand().next_piece():
                self._shared_out = True
                yield piece

    async def body(self, max_size: int | None = None) -> bytes:
        """Return the whole body. It may be called again, after a time-out, too: what had come by then is kept.

        :param max_size: bytes; default: what the door or the route allows. More is answered with 413.
        :raises BadRequest: it is larger than allowed, malformed, or comes too slowly
        :raises EndOfStream: the client went away before its end
        :raises ClosedError: the connection was lost, or the body was taken in pieces before"""
        if self._body is None:
            self._body = await self._whole(max_size)
        if max_size is not None and len(self._body) > max_size:
            raise too_large(max_size)
        return self._body

    async def _whole(self, max_size: int | None) -> bytes:
        if self._shared_out:
            raise ClosedError("the body was taken in pieces, and they are not kept: body() comes first", clean=True)
        if self.body_size == 0:
            return b""
        kept = self._kept = self._kept or []
        size = self.body_size or sum(map(len, kept))
        while max_size is None or size <= max_size:
            piece = await self._at_hand().next_piece()
            if not piece:
                self._kept = None
                return b"".join(kept)
            kept.append(piece)
            if self.body_size is None:
                size += len(piece)
        raise too_large(max_size)

    async def text(self) -> str:
        """Return the body as text in UTF-8.

        :raises BadRequest: it is no UTF-8, or as `body`"""
        return as_text(await self.body())

    async def json(self) -> Any:
        """Return the value that the body says in JSON.

        :raises BadRequest: it is no JSON, or as `body`"""
        return as_json(await self.body())


class BlockingRequest(RequestHead):
    """The request that a route gets which is a plain function: its body is there already."""

    __slots__ = ("_body", "_draining", "_gone", "local_address", "remote_address", "secure")

    def __init__(self, request: Request, body: bytes) -> None:
        for name in RequestHead.__slots__:
            setattr(self, name, getattr(request, name))
        self.remote_address, self.local_address = request.remote_address, request.local_address
        self.secure = request.secure
        self._draining, self._gone = request.draining, request.gone
        self._body = body

    @property
    def draining(self) -> bool:
        """Whether the server wants its handlers to come to an end now."""
        return bool(self._draining)

    @property
    def gone(self) -> bool:
        """Whether the client has gone by now: it was lost, or has ended its side. Nobody stops the function then; one
        that takes long should look at this."""
        return bool(self._gone)

    def body(self) -> bytes:
        """Return the whole body."""
        return self._body

    def text(self) -> str:
        """Return the body as text in UTF-8.

        :raises BadRequest: it is no UTF-8"""
        return as_text(self._body)

    def json(self) -> Any:
        """Return the value that the body says in JSON.

        :raises BadRequest: it is no JSON"""
        return as_json(self._body)


def too_large(limit: int) -> BadRequest:
    """The error of a body over `limit` bytes."""
    return BadRequest(413, f"the body is over the limit of {limit} bytes")


def as_text(body: bytes) -> str:
    """Return `body` as text.

    :raises BadRequest: it is no UTF-8"""
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest(400, f"the body is no UTF-8: byte {error.start}") from error


def as_json(body: bytes) -> Any:
    """Return the value that `body` says in JSON.

    :raises BadRequest: it is no JSON"""
    try:
        return json.loads(as_text(body))
    except (ValueError, RecursionError) as error:
        if isinstance(error, BadRequest):
            raise
        raise BadRequest(400, f"the body is no JSON: {error}") from error
