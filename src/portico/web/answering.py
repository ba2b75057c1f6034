"""The bytes of an answer: status line, Date, the fields that frame the body, and the body."""

import time
from collections.abc import AsyncIterable, Iterable

from portico.errors import ConfigurationError
from portico.protocols.http11 import REASONS, RequestHead, http_date
from portico.protocols.http_headers import encode_text, to_wire
from portico.transports.connection import Stream
from portico.web.response import Response

JOINED = 8192
"""Bodies below this many bytes are joined to their head; larger ones are sent from where they lie."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_OURS = frozenset(("connection", "content-length", "date", "server", "transfer-encoding"))
_MAX_KEPT = 256

Fields = Iterable[tuple[str, str]]


class Head:
    """The head of an answer, and what it says about the body and the connection."""

    __slots__ = ("chunked", "data", "has_body", "keep_alive", "length")

    def __init__(self, data: bytes, *, keep_alive: bool, has_body: bool, chunked: bool, length: int | None) -> None:
        self.data, self.keep_alive, self.has_body, self.chunked = data, keep_alive, has_body, chunked
        self.length = length
        """Bytes of the body; None: its end is the end of the chunks, or of the connection."""


class Heads:
    """Makes heads. Those of equal answers within a second, which is how often Date changes, are made once."""

    def __init__(self, server: str = "") -> None:
        self._server = encode_text([("Server", server)]) if server else ""
        self._made: dict[object, Head] = {}
        self._second = 0

    def get(self, response: Response, request: RequestHead | None, keep_alive: bool) -> Head:
        """Return the head of the answer to `request`; None: what came could not be read.

        :raises ConfigurationError: a header field that cannot be sent"""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._made.clear()
        size = len(response.body) if isinstance(response.body, bytes) else None
        for_head = request is not None and request.method == "HEAD"
        old = request is not None and request.version == "1.0"
        key = (response.status, size, keep_alive, for_head, old, tuple(response.headers))
        head = self._made.get(key)
        if head is None:
            head = self._make(response, size, for_head, old, keep_alive)
            if len(self._made) < _MAX_KEPT:
                self._made[key] = head
        return head

    def _make(self, response: Response, size: int | None, for_head: bool, old: bool, keep_alive: bool) -> Head:
        status = response.status
        fields, options, given = _sorted_out(response.headers)
        bodyless = status == 204 or status == 304
        length = given if size is None or (for_head and not size and given is not None) else size
        chunked = length is None and not old and not bodyless
        if "close" in options or (
            length is None and old and not bodyless
        ):  # the end of the connection is that of the body
            keep_alive = False
        if not keep_alive:
            options = [option for option in options if option != "close"] + ["close"]
        elif old:
            options.append("keep-alive")
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, '')}\r\nDate: {http_date(self._second)}\r\n{self._server}"]
        if chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        elif length is not None and not bodyless:
            lines.append(f"Content-Length: {length}\r\n")
        if options:
            lines.append(f"Connection: {', '.join(options)}\r\n")
        data = to_wire(f"{''.join(lines)}{encode_text(fields)}\r\n")
        has_body = not bodyless and not for_head and size != 0
        return Head(data, keep_alive=keep_alive, has_body=has_body, chunked=chunked, length=length)


def _sorted_out(headers: Fields) -> tuple[list[tuple[str, str]], list[str], int | None]:
    """Return the fields that are sent as they are, the connection options, and the length that was given."""
    others: list[tuple[str, str]] = []
    options: list[str] = []
    length: int | None = None
    for name, value in headers:
        key = name.lower()
        if key == "connection":
            found = (option.strip() for option in value.split(","))
            options += ["close" if option.lower() == "close" else option for option in found if option]
            options = [option for option in options if option.lower() != "keep-alive"]
        elif key == "content-length":
            if not (isinstance(value, str) and value.isascii() and value.isdigit()):
                raise ConfigurationError(f"Content-Length is a number written as text, not {value!r}")
            length = int(value)
        elif key not in _OURS:
            others.append((name, value))
    return others, options, length


async def send(stream: Stream, head: Head, body: bytes) -> None:
    """Send an answer, and wait for room.

    :raises ClosedError: the connection was lost"""
    if not head.has_body:
        await stream.send(head.data)
    elif len(body) < JOINED:
        await stream.send(head.data + body)
    else:
        stream.send(head.data)
        await stream.send(body)


async def send_pieces(stream: Stream, head: Head, pieces: AsyncIterable[bytes]) -> None:
    """Send an answer whose body comes in `pieces`; that of HEAD and the like is not asked for any.

    :raises ConfigurationError: the body is longer or shorter than its Content-Length, or not of bytes
    :raises ClosedError: the connection was lost"""
    await stream.send(head.data)
    if not head.has_body:
        return
    left = head.length
    async for piece in pieces:
        if type(piece) is not bytes:
            piece = _as_bytes(piece)
        size = len(piece)
        if not size:
            continue
        if head.chunked:
            if size < JOINED:
                await stream.send(b"%x\r\n%b\r\n" % (size, piece))
            else:
                stream.send(b"%x\r\n" % size)
                stream.send(piece)
                await stream.send(b"\r\n")
            continue
        if left is not None:
            left -= size
            if left < 0:
                raise ConfigurationError(f"the body of an answer is longer than its Content-Length {head.length}")
        await stream.send(piece)
    if head.chunked:
        await stream.send(b"0\r\n\r\n")
    elif left:
        raise ConfigurationError(f"the body of an answer is {left} bytes short of its Content-Length {head.length}")


def _as_bytes(piece: object) -> bytes:
    """Return a piece that is no bytes as such: what is counted must be what is sent."""
    try:
        return bytes(memoryview(piece))  # type: ignore[arg-type]  # that is the question
    except TypeError:
        raise ConfigurationError(
            f"the pieces of an answer are bytes, not {type(piece).__name__}; encode text before"
        ) from None


async def drop(body: object) -> None:
    """Let a streamed body clear away what it holds, whether it was begun or not."""
    close = getattr(body, "aclose", None)
    if close is not None:
        await close()
