"""Requests of HTTP/1.1 (RFC 9112), as a server reads them, and the heads of its answers: bytes in, events out.

llhttp, Node's parser, reads the grammar in its strict form: it refuses bare CR and LF, folded lines, white space before
a colon, NUL and other control characters, two lengths, signs and lists in Content-Length. What it lets through and
nobody should is refused here: see `_check_framing` and `_check_target`."""

import contextlib
import functools
import re
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Generic, TypeVar

from httptools import HttpParserError, HttpParserInvalidMethodError, HttpParserUpgrade, HttpRequestParser

from portico.errors import ProtocolError
from portico.protocols.http_headers import KNOWN_KEYS, Headers, encode_text, key_of, length_of, to_wire
from portico.protocols.http_request import RequestHead

__all__ = ["END", "REASONS", "BadRequest", "End", "RequestHead", "RequestParser", "http_date", "response_head"]

MAX_HEAD = 16 * 1024
"""Bytes of a request line and its header fields (Node: 16 KiB; nginx: 4 buffers of 8 KiB)."""

MAX_HEADERS = 100
"""Header fields of a request (Apache's LimitRequestFields: 100)."""

OVERHEAD = 16
"""Bytes of framing that a chunked body may have for each byte that it carries, beyond `max_head` (Go's net/http counts
alike): chunk extensions and trailers are read by nobody, and endless ones are an attack."""

REASONS = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
    422: "Unprocessable Content",
}
"""The phrases of RFC 9110, section 15."""


class BadRequest(ProtocolError):
    """A request that is answered with an error `status`, after which its connection closes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class End:
    """The event that ends a request."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "END"


END = End()

H = TypeVar("H", bound=RequestHead)

_BETWEEN, _HEAD, _BODY, _OVER = range(4)

_MAX_HOST = 300
"""Bytes of host and port: names have 253 letters at most (RFC 1035), and what is long takes long to look up."""

_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


@functools.lru_cache(256)
def _is_host(value: bytes) -> bool:
    """Whether that is a host with or without port (RFC 9110, 7.2)."""
    return len(value) <= _MAX_HOST and _HOST.fullmatch(value) is not None


class RequestParser(Generic[H]):
    """Cuts what a client sends into events: a head, pieces of its body, `END`; then the next head.

    A request that asks to go on in another protocol stops it behind the head: `rest` has the bytes that follow, and
    `resume()` goes on as if nothing had been asked (RFC 9110, 7.8: a server may ignore Upgrade)."""

    def __init__(
        self,
        *,
        max_head: int = MAX_HEAD,
        max_headers: int = MAX_HEADERS,
        head: Callable[[str, str, str, Headers], H] = RequestHead,  # type: ignore[assignment]  # the default H
    ) -> None:
        """
        :param max_head: bytes of request line and header fields; more are refused with 431, or 414 where the target
            alone takes half of them.
        :param max_headers: how many header fields there may be; more are refused with 431.
        :param head: what makes the heads.
        """
        self.rest: bytes | None = None
        self.failure: BadRequest | None = None
        """Why nothing more can come: raised by the next `feed`."""
        self._max_head, self._max_headers, self._make = max_head, max_headers, head
        self._llhttp: Any = HttpRequestParser(self)
        self._events: list[H | bytes | End] = []
        self._url = b""
        self._raw: list[tuple[bytes, bytes]] = []
        self._state = _BETWEEN
        self._chunk = self._fed = 0  # bytes of this call of feed; of all since the head began, or the body
        self._carried = 0
        self._last: H | None = None
        self._muted = self._stops = False

    @property
    def in_head(self) -> bool:
        """Whether a head has begun and not ended."""
        return self._state == _HEAD

    def close(self) -> None:
        """Let go of the parser below, which refers to this one."""
        self._llhttp = self._last = None
        self._events = []

    def feed(self, data: bytes) -> list[H | bytes | End]:
        """Return the events that `data` completes.

        :raises BadRequest: what comes next is no good request; the events before it have been returned"""
        if self.failure is not None:
            raise self.failure
        if self.rest is not None:
            self.rest += data
            return []
        if self._state == _OVER:  # the last request said close; what follows is nobody's
            return []
        events = self._events = []
        state, self._chunk = self._state, len(data)
        self._fed += self._chunk
        try:
            self._llhttp.feed_data(data)
            if self._state == _HEAD or self._state == state == _BODY:
                self._check_growth()
        except HttpParserUpgrade as stop:
            self.rest = data[stop.args[0] :]
        except HttpParserError as error:
            if self._state != _OVER:
                self._fail(self._explain(error, data), events)
        except BadRequest as error:
            self._fail(error, events)
        return events

    def _fail(self, failure: BadRequest, events: list[H | bytes | End]) -> None:
        self.failure = failure
        if not events:
            raise failure

    def take_rest(self) -> bytes:
        """Return what followed a request to upgrade, for whoever speaks next; it is no longer here."""
        rest, self.rest = self.rest or b"", b""
        return rest

    def resume(self) -> list[H | bytes | End]:
        """Go on after a request to upgrade that is not met: its body and what follows are read as usual."""
        assert self.rest is not None and self._last is not None
        rest, self.rest, self._stops = self.rest, None, False
        size = self._last.body_size
        self._llhttp = HttpRequestParser(self)
        before: list[H | bytes | End] = []
        if size == 0:
            self._state = _BETWEEN if self._last.keep_alive else _OVER
            before.append(END)
        else:
            framing = b"Transfer-Encoding: chunked" if size is None else b"Content-Length: %d" % size
            self._muted = True  # the body follows a head that was read already
            self._llhttp.feed_data(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
            self._muted = False
            self._state, self._fed, self._carried = _BODY, 0, 0
        with contextlib.suppress(BadRequest):  # the next `feed` raises it
            before += self.feed(rest)
        return before

    # what llhttp calls

    def on_message_begin(self) -> None:
        if not self._muted:
            self._url, self._raw = b"", []
            self._state = _HEAD
            self._fed = 0 if self._events else self._chunk  # how much of it was another request's, nobody knows

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._max_head // 2 and not self._muted:
            raise BadRequest(414, f"the target is over the limit of {self._max_head // 2} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._state == _HEAD:  # not a trailer, which nobody reads
            self._raw.append((name, value))

    def on_headers_complete(self) -> None:
        if self._muted:
            return
        raw = self._raw
        first: dict[str, bytes] = {}
        for name, value in raw:
            key = KNOWN_KEYS.get(name) or key_of(name)  # a call less for each field
            if key in first:
                if key in _ONCE:
                    raise BadRequest(400, f"two {name.decode('latin-1')} fields")
                first[key] += b", " + value.strip()
            else:
                first[key] = value.strip()  # of the white space behind it
        if self._fed + self._chunk > self._max_head or len(raw) > self._max_headers:
            self._check_size()
        version = self._llhttp.get_http_version()
        if version != "1.1" and version != "1.0":
            raise BadRequest(505, "HTTP/1.1 and HTTP/1.0 are spoken here")
        method = self._llhttp.get_method().decode("ascii")
        target = self._url.decode("ascii")
        head = self._make(method, target, version, Headers.from_wire(raw, first))
        host = first.get("host")
        if (host is None and version == "1.1") or (host is not None and not _is_host(host)):
            raise BadRequest(400, "no Host field" if host is None else "the Host field names no host")
        if target[0] != "/" or "#" in target or "%00" in head.raw_path:
            _check_target(method, target, head)
        head.body_size = _check_framing(version, first)
        if head.body_size is None and any(key_of(name) == _CODING and value[-1:] == b"\t" for name, value in raw):
            raise BadRequest(400, "a tab behind Transfer-Encoding")  # llhttp would not take it for chunked then
        head.keep_alive = self._llhttp.should_keep_alive()
        if "expect" in first and version == "1.1":
            if first["expect"].lower() != b"100-continue":
                raise BadRequest(417, "no other expectation than 100-continue can be met")
            head.expects_continue = True
        head.upgrade = self._stops = "upgrade" in first and self._llhttp.should_upgrade()
        self._state, self._fed, self._carried = _BODY, 0, 0
        self._last = head
        self._events.append(head)

    def on_body(self, body: bytes) -> None:
        self._carried += len(body)
        self._events.append(body)

    def on_message_complete(self) -> None:
        head = self._last
        if self._muted or head is None or self._stops:
            return
        self._state = _BETWEEN if head.keep_alive else _OVER
        self._events.append(END)

    # limits and errors

    def _check_growth(self) -> None:
        """Bound what is kept of a head, or read beside a body, that has not ended."""
        if self._state == _HEAD:
            if self._fed > self._max_head:
                raise self._head_too_large()
        elif self._fed - self._carried > self._max_head + OVERHEAD * self._carried:
            raise BadRequest(400, "the chunked body is mostly framing")

    def _check_size(self) -> None:
        size = len(self._url) + sum(len(name) + len(value) + 4 for name, value in self._raw)
        if size > self._max_head:
            raise self._head_too_large()
        if len(self._raw) > self._max_headers:
            raise BadRequest(431, f"more than {self._max_headers} header fields")

    def _head_too_large(self) -> BadRequest:
        return BadRequest(431, f"the head is over the limit of {self._max_head} bytes")

    def _explain(self, error: HttpParserError, data: bytes) -> BadRequest:
        cause = error.__context__
        if isinstance(cause, BadRequest):
            return cause
        if isinstance(error, HttpParserInvalidMethodError):
            if data[:1].isalpha():
                return BadRequest(501, "that method is not known here")
            if data[:2] == b"\x16\x03":
                return BadRequest(400, "this is TLS, sent to a port that speaks plain HTTP")
            return BadRequest(400, "this is not HTTP")
        if "PRI/Upgrade" in str(error):
            return BadRequest(505, "HTTP/1.1 and HTTP/1.0 are spoken here")
        reason = str(error)
        return BadRequest(505 if "HTTP version" in reason else 400, reason[:1].lower() + reason[1:])


_CODING = "transfer-encoding"
_ONCE = frozenset(("host", "content-length", "transfer-encoding"))


def _check_target(method: str, target: str, head: RequestHead) -> None:
    """Refuse targets that llhttp lets through (RFC 9112, 3.2), or that file systems cut short."""
    if method == "CONNECT":
        raise BadRequest(501, "CONNECT is for proxies")
    if "#" in target:
        raise BadRequest(400, "a target has no fragment")
    if "%00" in head.raw_path:
        raise BadRequest(400, "a path has no NUL in it")
    if target[0] == "/" or (target == "*" and method == "OPTIONS"):
        return
    authority = head.authority.encode("ascii")
    if not target[:8].lower().startswith(("http://", "https://")) or authority[:1] in b":" or not _is_host(authority):
        raise BadRequest(400, "the target is no path and no http URL")


def _check_framing(version: str, first: dict[str, bytes]) -> int | None:
    """Return the length of the body, None where it is chunked; refuse whatever two programs could understand
    differently (RFC 9112, 6.1 and 6.3)."""
    length, coding = first.get("content-length"), first.get("transfer-encoding")
    if coding is None:
        if length is None:
            return 0
        size = length_of(length.decode("latin-1"))
        if size is None:
            raise BadRequest(400, "Content-Length is no number of bytes")
        return size
    if length is not None:
        raise BadRequest(400, "Content-Length and Transfer-Encoding together")
    if version == "1.0":
        raise BadRequest(400, "Transfer-Encoding in HTTP/1.0")
    if coding.lower() != b"chunked":
        raise BadRequest(501 if coding else 400, "no other Transfer-Encoding than chunked is known here")
    return None


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def http_date(now: float) -> str:
    """Return seconds since 1970 as HTTP writes a time (RFC 9110, 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`."""
    at = datetime.fromtimestamp(int(now), UTC)
    return f"{_DAYS[at.weekday()]}, {at:%d} {_MONTHS[at.month - 1]} {at.year:04} {at:%H:%M:%S} GMT"


def response_head(status: int, items: list[tuple[str, str]], reason: str | None = None) -> bytes:
    """Return the head of an answer: status line, `items`, and the empty line.

    :raises ConfigurationError: a header field that cannot be sent"""
    phrase = REASONS.get(status, "") if reason is None else reason
    return to_wire(f"HTTP/1.1 {status} {phrase}\r\n{encode_text(items)}\r\n")
