"""The bytes of an answer: status line, Date, the fields that frame the body, and the body."""

import time
from collections.abc import AsyncIterable

from portico.errors import ConfigurationError
from portico.protocols.http11 import REASONS, RequestHead, http_date
from portico.protocols.http_headers import encode_text, to_wire
from portico.transports.connection import Stream
from portico.web.response import Response

JOINED = 8192
"""Bodies below this many bytes are joined to their head; larger ones are sent from where they lie."""

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_OURS = frozenset(("connection", "content-length", "date", "server", "transfer-encoding"))


class StatusLines:
    """The beginning of answers: status line, Date and Server, made once for each status and second."""

    def __init__(self, server: str = "") -> None:
        self._server = encode_text([("Server", server)]) if server else ""
        self._made: dict[int, str] = {}
        self._second = 0

    def get(self, status: int) -> str:
        """Return the beginning of an answer that is sent now."""
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._made.clear()
        text = self._made.get(status)
        if text is None:
            text = f"HTTP/1.1 {status} {REASONS.get(status, '')}\r\nDate: {http_date(now)}\r\n{self._server}"
            self._made[status] = text
        return text


async def drop(body: object) -> None:
    """Let a streamed body clear away what it holds, whether it was begun or not."""
    close = getattr(body, "aclose", None)
    if close is not None:
        await close()


class Answer:
    """One response on its way to the client that made `request`; None: what came could not be read."""

    __slots__ = ("_head", "_length", "_streamed", "body", "chunked", "keep_alive")

    def __init__(self, response: Response, request: RequestHead | None, keep_alive: bool, lines: StatusLines) -> None:
        """:raises ConfigurationError: a header field that cannot be sent"""
        status, body = response.status, response.body
        old = request is not None and request.version == "1.0"
        bodyless = status == 204 or status == 304
        self.body: bytes | AsyncIterable[bytes] = body
        self._streamed = None if isinstance(body, bytes) else body
        self.keep_alive, self.chunked = keep_alive, False
        headers = response.headers
        options: list[str] = []
        given: int | None = None
        if any(name.lower() in _OURS for name, _ in headers):
            headers, options, given = _sorted_out(headers)
            if "close" in (option.lower() for option in options):
                self.keep_alive = False
        self._length = given
        if isinstance(body, bytes) and (body or given is None or request is None or request.method != "HEAD"):
            self._length = len(body)
        elif given is None and not bodyless:
            self.chunked = not old
            if old:
                self.keep_alive = False  # the end of the connection is the end of the body
        framing = ""
        if self.chunked:
            framing = "Transfer-Encoding: chunked\r\n"
        elif self._length is not None and not bodyless:
            framing = f"Content-Length: {self._length}\r\n"
        if bodyless or (request is not None and request.method == "HEAD"):
            self.body = b""
        if not self.keep_alive:
            options = [option for option in options if option.lower() != "close"] + ["close"]
        elif old:
            options.append("keep-alive")
        connection = f"Connection: {', '.join(options)}\r\n" if options else ""
        self._head = to_wire(f"{lines.get(status)}{framing}{connection}{encode_text(headers)}\r\n")

    @property
    def whole(self) -> bytes:
        """Head and body in one, where the body is bytes."""
        assert isinstance(self.body, bytes)
        return self._head + self.body

    async def send(self, stream: Stream) -> None:
        """Send it, and wait for room.

        :raises ConfigurationError: the body is longer or shorter than its Content-Length
        :raises ClosedError: the connection was lost"""
        try:
            body = self.body
            if not isinstance(body, bytes):
                stream.send(self._head)
                await self._send_pieces(stream, body)
            elif len(body) < JOINED:
                await stream.send(self.whole)
            else:
                stream.send(self._head)
                await stream.send(body)
        finally:
            if self._streamed is not None:
                await drop(self._streamed)

    async def _send_pieces(self, stream: Stream, pieces: AsyncIterable[bytes]) -> None:
        left = self._length
        async for piece in pieces:
            size = len(piece)
            if not size:
                continue
            if self.chunked:
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
                    raise ConfigurationError(f"the body of an answer is longer than its Content-Length {self._length}")
            await stream.send(piece)
        if self.chunked:
            await stream.send(b"0\r\n\r\n")
        elif left:
            raise ConfigurationError(
                f"the body of an answer is {left} bytes short of its Content-Length {self._length}"
            )


def _sorted_out(headers: list[tuple[str, str]]) -> tuple[list[tuple[str, str]], list[str], int | None]:
    """Return the fields that are sent as they are, the connection options, and the length that was given."""
    others, options, length = [], [], None
    for name, value in headers:
        key = name.lower()
        if key == "connection":
            options += [
                option for each in value.split(",") if (option := each.strip()).lower() not in ("", "keep-alive")
            ]
        elif key == "content-length":
            if not (value.isascii() and value.isdigit()):
                raise ConfigurationError(f"Content-Length is a number, not {value!r}")
            length = int(value)
        elif key not in _OURS:
            others.append((name, value))
    return others, options, length
