"""HTTP/1.1 as a client reads and writes it (RFC 9112): heads of requests, and responses on llhttp, without I/O."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import httptools

from portico.errors import ConfigurationError, EndOfStream, ProtocolError
from portico.protocols.http_headers import TOKEN, Headers, encode, length_of

__all__ = ["MAX_HEAD", "ResponseHead", "ResponseParser", "request_head"]

MAX_HEAD: Final = 16 * 1024
"""Bytes of the head of a response, the interim ones before it included (as Go's net/http counts them); Node takes
16 KiB, nginx 4 to 8 KiB from those behind it."""

FRAMING: Final = 8
"""Bytes of chunk headers that each byte of a chunked body may cost on average; a chunk of one byte costs 5."""

MAX_REASON: Final = 200
"""Letters of the reason that are kept: it is for people to read, and stands in errors."""

_START: Final = b"HTTP/"  # llhttp takes RTSP and ICE, too
_TARGET: Final = re.compile(r"[!-~]+")


def request_head(method: str, target: str, items: Iterable[tuple[str, str]]) -> bytes:
    """Return the head of a request (RFC 9112, section 3).

    :param target: path and query, percent-encoded.
    :raises ConfigurationError: a method, target or header field that would make another request of it."""
    if not TOKEN.fullmatch(method):
        raise ConfigurationError(f"{method!r} is no HTTP method; it is a word such as GET (RFC 9110, section 9.1)")
    if not _TARGET.fullmatch(target):
        raise ConfigurationError(f"{target!r} cannot be asked for; percent-encode what is not printable ASCII")
    return f"{method} {target} HTTP/1.1\r\n".encode() + encode(items) + b"\r\n"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status line and header fields of a response; `version` is "1.1" or "1.0", `content_length` None without one."""

    status: int
    reason: str
    version: str
    headers: Headers
    content_length: int | None


class ResponseParser:
    """Reads one response: `feed` what comes until `complete`. Interim responses (1xx but 101) are skipped.

    A body that nobody asked to be coded is given as it is; `rest` has what followed the head of a 101."""

    def __init__(self, method: str = "GET", *, max_head: int = MAX_HEAD) -> None:
        """:param method: of the request: a response to HEAD has no body, whatever its head says."""
        self.head: ResponseHead | None = None
        self.complete = False
        self.rest = b""
        self._method, self._max_head = method, max_head
        self._parser = httptools.HttpResponseParser(self)
        self._refused: ProtocolError | None = None  # in a call of llhttp, from where it must not be raised
        self._failure: ProtocolError | None = None
        self._until_close = False
        self._fed = 0  # bytes up to the end of the head
        self._framing_left = 2 * max_head  # for all of a chunked body but its data; the head before it is part of it
        self._status = b""
        self._raw: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []

    def feed(self, data: bytes) -> list[ResponseHead | bytes]:
        """Take what came and return what is new of the response: its head, a piece of its body.

        :raises ProtocolError: it is no response, is not framed as RFC 9112 has it, or takes too much for its head; what
            came before is returned first, and the next call raises, `feed(b"")` too"""
        found: list[ResponseHead | bytes] = []
        known = self.head
        try:
            if self._failure is None:
                self._read(data)
        except ProtocolError as failure:
            self._failure = failure
        if self.head is not None and known is None:
            found.append(self.head)
        if self._body:
            found.append(b"".join(self._body))
            self._body.clear()
        if self._failure is not None and not found:
            raise self._failure
        return found

    def _read(self, data: bytes) -> None:
        while data and self.head is None and not self.complete:
            left = self._max_head - self._fed
            piece, data = data[:left], data[left:]
            self._check_start(piece)
            self._feed(piece)
            self._fed += len(piece)
            if self.head is None and self._fed >= self._max_head:
                raise ProtocolError(f"the head of the response is longer than {self._max_head} bytes", self._fed)
        if data and not self.complete:
            self._feed(data)
        elif data and self.head is not None and self.head.status == 101:
            self.rest += data  # it is of the protocol that was switched to

    def end(self) -> None:
        """Take note of the end of the connection, which is that of a response without a length.

        :raises EndOfStream: the response is cut short
        :raises ProtocolError: as `feed`"""
        if self._failure is not None:
            raise self._failure
        if self._until_close:
            self.complete = True
        elif not self.complete:
            raise EndOfStream

    def _check_start(self, piece: bytes) -> None:
        """Tell at the first byte that somebody does not speak HTTP."""
        if self._fed < len(_START):
            wanted = _START[self._fed :][: len(piece)]
            if piece[: len(wanted)] != wanted:
                raise ProtocolError("it does not begin with HTTP/", self._fed)

    def _feed(self, data: bytes) -> None:
        before = sum(map(len, self._body))
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switched:
            self.rest = data[switched.args[0] :]
        except httptools.HttpParserError as error:
            if not self.complete:  # else it is about what follows, and nothing was asked for that could
                raise ProtocolError(str(error), self._fed) from error
        if self._refused is not None:
            raise self._refused
        if self.head is not None and not self._until_close and not self.complete:
            body = sum(map(len, self._body)) - before
            self._count_framing(len(data) - body, body)

    def _count_framing(self, framing: int, body: int) -> None:
        """Bound what extensions of chunks and trailers may take; a length in the head leaves no framing."""
        if self.head is not None and self.head.content_length is None:
            self._framing_left += FRAMING * body - framing
            if self._framing_left < 0:
                raise ProtocolError("the chunks of the body have more about them than in them")

    # what llhttp calls; errors must not leave from here

    def on_status(self, reason: bytes) -> None:
        self._status += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.head is None:  # else a trailer, which nobody asked for
            self._raw.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        status, version = self._parser.get_status_code(), self._parser.get_http_version()
        headers, self._raw = Headers.from_wire(self._raw), []
        reason, self._status = _shown(self._status), b""
        if self.complete or self._refused is not None:
            return
        if version not in ("1.1", "1.0") or not 100 <= status <= 999:
            self._refused = ProtocolError(f"it is HTTP/{version} with the status {status}")
        elif status >= 200 or status == 101:
            given = headers.get("Content-Length")
            length = None if given is None else length_of(given)
            if given is not None and length is None:
                self._refused = ProtocolError("its Content-Length is no number of bytes")
                return
            self.head = ResponseHead(status, reason, version, headers, length)
            self._find_end(status, headers)

    def _find_end(self, status: int, headers: Headers) -> None:
        """Where the body ends: RFC 9112, section 6.3."""
        if self._method == "HEAD" or status in (101, 204, 304):
            self.complete = True
        elif "Transfer-Encoding" in headers:
            if headers.tokens("Transfer-Encoding") != ["chunked"]:
                self._refused = ProtocolError("its body is in a transfer coding that nobody asked for")
        else:
            self._until_close = "Content-Length" not in headers

    def on_body(self, data: bytes) -> None:
        if not self.complete and self._refused is None:
            self._body.append(data)

    def on_message_complete(self) -> None:
        if self.head is not None:
            self.complete = True


def _shown(reason: bytes) -> str:
    """Return a reason phrase without what would do something to a terminal or a log."""
    text = reason[:MAX_REASON].decode("latin-1")
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)
