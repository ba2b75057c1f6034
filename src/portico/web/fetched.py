"""`Fetched`: what a server answered to `fetch`, and the one exchange of request and response on its Stream."""

import asyncio
import codecs
import contextlib
import json
import re
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, Final

from portico.address import Address
from portico.errors import ClosedError, ConfigurationError, EndOfStream, MessageTooLarge, ProtocolError, describe
from portico.protocols.http_headers import Headers
from portico.protocols.http_response import ResponseHead, ResponseParser
from portico.transports.connection import Stream
from portico.transports.tls_errors import is_tls
from portico.web.fetch_request import Asked

__all__ = ["MAX_BODY", "Exchange", "Fetched"]

MAX_BODY: Final = 16 << 20
"""Bytes of a body that is collected, unless said otherwise: enough for scripts, too few to fill a machine with."""

PIECE: Final = 64 * 1024
"""Bytes of a body of ours that are sent at a time: the high-water mark of connections."""

NO_CHARSETS: Final = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})
"""What Python decodes and nobody sends; some take time by the square of the length."""


class Exchange:
    """One request on a Stream and the response to it, read as it is asked for, before a deadline."""

    def __init__(self, stream: Stream, asked: Asked, timeout: float | None, deadline: float | None) -> None:
        self.asked = asked
        self.stream, self._timeout, self._deadline = stream, timeout, deadline
        self._parser = ResponseParser(asked.method)
        self._found: deque[ResponseHead | bytes] = deque()
        self._pouring: asyncio.Task[None] | None = None
        self._failure: Exception | None = None  # of the body that is sent
        self._first = b""  # what came first

    async def begin(self) -> ResponseHead:
        """Send the request, and return the head of the response; the body may be under way still.

        :raises ClosedError: no response within the deadline
        :raises EndOfStream: the connection ended before
        :raises ProtocolError: that is not HTTP"""
        head, body = self.asked.head(), self.asked.body
        if isinstance(body, bytes) and len(body) <= PIECE:
            self._send(head + body)
        else:
            self._send(head)
            self._pouring = asyncio.ensure_future(self._pour())
        await self._more()
        found = self._found.popleft()
        assert isinstance(found, ResponseHead)  # as that comes first
        if found.status == 101:
            raise ProtocolError(
                f"{self.asked.address} answered 101 {found.reason}: it switches to what nobody asked for"
            )
        return found

    async def piece(self) -> bytes:
        """Return what comes next of the body, b"" at its end; errors as of `begin`."""
        while not self._found:
            if self._parser.complete:
                return b""
            await self._more()
        found = self._found.popleft()
        assert isinstance(found, bytes)  # as there is one head
        return found

    async def close(self) -> None:
        """Be done with it: gently where all was said, else at once."""
        if self._parser.complete and (self._pouring is None or self._pouring.done()):
            await self.stream.close()
        else:
            self.stream.abort()
            if self._pouring is not None:
                self._pouring.cancel()
                await asyncio.wait([self._pouring])
            await self.stream.close()

    def abort(self) -> None:
        """Be done with it at once."""
        self.stream.abort()
        if self._pouring is not None:
            self._pouring.cancel()

    # receiving

    async def _more(self) -> None:
        """Receive until there is something new."""
        self._parse_on(b"")
        while not self._found and not self._parser.complete:
            try:
                async with asyncio.timeout_at(self._deadline):
                    data = await self.stream.recv()
            except TimeoutError as error:
                what = "answer" if self._parser.head is None else "answer whole"
                raise ClosedError(
                    f"{self.asked.address} did not {what} within {self._timeout:g} s; give it more timeout"
                ) from error
            except ClosedError as error:
                if self._failure is not None:
                    raise self._failure from None
                raise self._cut_short(describe(error)) from error
            self._parse_on(data, ended=not data)

    def _parse_on(self, data: bytes, *, ended: bool = False) -> None:
        self._first = self._first or data[:2]
        try:
            if ended:
                self._parser.end()
            else:
                self._found += self._parser.feed(data)
        except EndOfStream as error:
            if self._failure is not None:
                raise self._failure from None
            raise self._cut_short("the server closed the connection") from error
        except ProtocolError as error:
            if self.asked.address.scheme == "http" and is_tls(self._first):
                told = f"{self.asked.address} answers with TLS; write https:// in place of http://"
                raise ProtocolError(told) from error
            raise ProtocolError(
                f"{self.asked.address} answered what is not HTTP/1.1: {error.reason}", error.offset
            ) from error

    def _cut_short(self, reason: str) -> EndOfStream:
        what = "before it had answered" if self._parser.head is None else "in the middle of its answer"
        hint = ""
        if self.asked.address.scheme == "http" and not self._first:
            hint = "; check that it is a web server, and whether it wants TLS (https://)"
        return EndOfStream(reason=f"{self.asked.address} was gone {what}: {reason}{hint}")

    # sending

    def _send(self, data: bytes) -> None:
        with contextlib.suppress(ClosedError):  # receiving tells why, and what the server said before
            self.stream.send(data)

    async def _pour(self) -> None:
        """Send the body beside receiving: a server may answer before it has all, or take no more until it is read."""
        body = self.asked.body
        try:
            if isinstance(body, bytes):
                view = memoryview(body)
                for start in range(0, len(view), PIECE):
                    await self.stream.send(view[start : start + PIECE])
            else:
                await self._pour_pieces(body.__aiter__())
        except ClosedError:
            pass  # likewise
        except Exception as error:
            self._failure = error
            self.stream.abort()  # an end would make the half look whole

    async def _pour_pieces(self, pieces: AsyncIterator[bytes]) -> None:
        length = left = self.asked.length
        try:
            async for piece in pieces:
                if not isinstance(piece, bytes | bytearray | memoryview):
                    raise ConfigurationError(f"the pieces of a body are bytes, not {type(piece).__name__}")
                data = bytes(piece)
                if left is not None:
                    left -= len(data)
                    if left < 0:
                        break
                    await self.stream.send(data)
                elif data:  # a chunk of nothing would be the last
                    await self.stream.send(b"%x\r\n%b\r\n" % (len(data), data))
            if left:
                raise ConfigurationError(f"Content-Length is {length}, but the body has another length")
            if left is None:
                await self.stream.send(b"0\r\n\r\n")
        finally:
            if hasattr(pieces, "aclose"):
                await pieces.aclose()


class Fetched:
    """What a server answered: status line, header fields and body.

    :ivar url: whose answer it is, after redirects.
    :ivar status: such as 200.
    :ivar reason: the words behind it, which HTTP gives no meaning.
    :ivar version: "1.1" or "1.0".
    :ivar headers: the fields, by names in any case."""

    def __init__(self, url: Address, head: ResponseHead, exchange: Exchange, max_size: int | None) -> None:
        self.url = url
        self.status, self.reason, self.version = head.status, head.reason, head.version
        self.headers: Headers = head.headers
        self._exchange, self._max_size = exchange, max_size
        self._size = 0 if exchange.asked.method == "HEAD" else head.content_length or 0
        self._came = 0
        self._read: list[bytes] = []  # of a body that is being collected
        self._back: deque[bytes] = deque()
        self._body: bytes | None = None

    @property
    def stream(self) -> Stream:
        """The connection that it comes by, over at the latest when the body is there. To receive from it is to break
        the answer."""
        return self._exchange.stream

    @property
    def is_read(self) -> bool:
        """Whether the body is there."""
        return self._body is not None

    @property
    def body(self) -> bytes:
        """The body, once it is there: of an awaited `fetch` always, of a streamed one after `read`.

        :raises ConfigurationError: nobody has read it"""
        if self._body is None:
            raise ConfigurationError(f"the answer of {self.url} is streamed; iterate over it, or use read() first")
        return self._body

    @property
    def text(self) -> str:
        """The body as text, by the charset that Content-Type names, else UTF-8; what does not decode becomes U+FFFD.

        :raises ProtocolError: a charset that is unknown here, or a content coding that was not asked for"""
        coding = self.headers.get("Content-Encoding", "identity")
        if coding != "identity":
            raise ProtocolError(f"{self.url} answered with the content coding {coding!r}; decode the body yourself")
        match = re.search(r';\s*charset="?([^\s;"]+)', self.headers.get("Content-Type") or "", re.I)
        charset = match[1] if match else "utf-8"
        try:
            if codecs.lookup(charset).name.replace("_", "-") not in NO_CHARSETS:
                return self.body.decode(charset, "replace")
        except (LookupError, UnicodeError):
            pass
        raise ProtocolError(
            f"{self.url} answered with the charset {charset[:40]!r}, unknown here; decode the body yourself"
        )

    def json(self) -> Any:
        """Return what the body says as JSON (RFC 8259).

        :raises ProtocolError: it is no JSON"""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            if isinstance(error, ConfigurationError):
                raise
            offset = getattr(error, "pos", 0)
            raise ProtocolError(f"{self.url} answered what is not JSON: {error}", offset) from error

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """Return the next piece of the body, as it came.

        :raises EndOfStream: the connection ended before the body
        :raises MessageTooLarge: the body is longer than `max_size`
        :raises ClosedError: the deadline is over
        :raises ProtocolError: that is not HTTP"""
        if self._back:
            return self._back.popleft()
        self._check_size()
        data = await self._exchange.piece()
        if not data:
            raise StopAsyncIteration
        self._came += len(data)
        self._check_size()
        return data

    def _check_size(self) -> None:
        """Refuse a body as soon as it says, or shows, that it is too long."""
        size = max(self._size, self._came)
        if self._max_size is not None and size > self._max_size:
            hint = f"raise max_size, or stream the answer of {self.url}"
            raise MessageTooLarge(size, self._max_size, hint=hint)

    async def read(self) -> bytes:
        """Return what has not been read of the body, and keep it as `body`; without a `max_size` 16 MiB at most.

        :raises EndOfStream: the connection ended before; `partial` has what came
        :raises MessageTooLarge: it is longer
        :raises ClosedError: the deadline is over
        :raises ProtocolError: that is not HTTP"""
        if self._body is not None:
            return self._body
        if self._max_size is None:
            self._max_size = MAX_BODY
        try:
            async for piece in self:
                self._read.append(piece)
        except EndOfStream as error:
            error.partial = b"".join(self._read)
            raise
        self._body = b"".join(self._read)
        self._read.clear()
        return self._body

    def give_back(self, piece: bytes) -> None:
        """Let what was taken of the body come again, in front."""
        self._back.appendleft(piece)

    def abort(self) -> None:
        """Close the connection at once."""
        self._exchange.abort()

    async def close(self) -> None:
        """Close the connection; what has not been read of the body is lost."""
        await self._exchange.close()

    def __repr__(self) -> str:
        return f"<Fetched {self.status} {self.reason} {self.url}>"
