"""What `fetch` asks for: the request, checked at the call, and what a redirect makes of it. No I/O."""

import json as json_module
import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final

from portico.address import Address
from portico.errors import ConfigurationError
from portico.protocols.http_asking import PRIVATE, REDIRECTS, authority, authorization, has_same_origin, redirected
from portico.protocols.http_headers import Items, pairs
from portico.protocols.http_response import ResponseHead, request_head

__all__ = ["NOTHING", "Asked", "Body", "Login", "asked"]

Body = bytes | bytearray | memoryview | str | AsyncIterable[bytes] | None
Login = tuple[str, str] | str | None

OF_BODY: Final = frozenset({"content-type", "content-length", "content-encoding", "content-language"})
OF_CONNECTION: Final = frozenset(
    {"connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Header fields that say how the request is sent, which is decided here."""
STANDARD: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})  # a server waits for one: RFC 9110, section 8.6


class _Nothing:
    def __repr__(self) -> str:
        return "nothing"


NOTHING: Final[Any] = _Nothing()
"""No JSON at all, as None is a value of it."""


@dataclass(frozen=True)
class Asked:
    """A request: whom, for what, and with which body."""

    address: Address
    method: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | AsyncIterable[bytes] = b""

    @property
    def is_once_only(self) -> bool:
        """Whether the body is used up by sending it: an iterator, rather than what can be iterated over again."""
        return isinstance(self.body, AsyncIterator)

    @property
    def length(self) -> int | None:
        """How long a body that comes piece by piece says it is; None: it is sent chunked."""
        return next((int(value) for name, value in self.headers if name.lower() == "content-length"), None)

    def head(self) -> bytes:
        """Return the head as it is sent.

        :raises ConfigurationError: header fields that cannot be"""
        names = {name.lower() for name, _ in self.headers}
        items = [("Host", authority(self.address))] if "host" not in names else []
        items += self.headers
        for name, value in (("User-Agent", "portico"), ("Accept", "*/*"), ("Accept-Encoding", "identity")):
            if name.lower() not in names:
                items.append((name, value))
        if not isinstance(self.body, bytes):
            if self.length is None:
                items.append(("Transfer-Encoding", "chunked"))
        elif "content-length" not in names and (self.body or self.method in WITH_BODY):
            items.append(("Content-Length", str(len(self.body))))
        return request_head(self.method, self.address.path, [*items, ("Connection", "close")])

    def redirected(self, head: ResponseHead) -> "Asked | None":
        """Return what to ask for after this response to it; None where that is no redirect.

        :raises ProtocolError: it leads where a redirect must not
        :raises ConfigurationError: the body would have to be sent again, and cannot"""
        place = head.headers.get("Location")
        if head.status not in REDIRECTS or place is None:
            return None
        address = redirected(self.address, head.status, place)
        method, headers, body = self.method, self.headers, self.body
        if (head.status == 303 and method != "HEAD") or (head.status in (301, 302) and method == "POST"):
            method, body = "GET", b""  # RFC 9110, sections 15.4.2 to 15.4.4
            headers = tuple(each for each in headers if each[0].lower() not in OF_BODY)
        elif self.is_once_only:
            raise ConfigurationError(
                f"{self.address} answered {head.status} with {address}, and this body can be sent only once; "
                "fetch that URL, or give the body as bytes"
            )
        if not has_same_origin(self.address, address):
            headers = tuple(each for each in headers if each[0].lower() not in PRIVATE)
        return replace(self, address=address, method=method, headers=headers, body=body)


def asked(url: Address | str, method: str | None, headers: Items, body: Body, json: Any, credentials: Login) -> Asked:
    """Make a request of what a caller gave; without a `method` it is a GET, or a POST where there is something to send.

    :raises AddressError: the URL does not parse
    :raises ConfigurationError: a request that cannot be"""
    address = _address(url)
    if method is None:
        method = "GET" if body is None and json is NOTHING else "POST"
    method = method.upper() if method.upper() in STANDARD else method
    if method.upper() == "CONNECT":
        raise ConfigurationError("CONNECT is for proxies; give one as proxy= instead")
    items = [(name, str(value)) for name, value in pairs(headers)]
    names = {name.lower() for name, _ in items}
    if wrong := names & OF_CONNECTION:
        raise ConfigurationError(f"the header {min(wrong).title()!r} is fetch's own business; leave it out")
    data, content_type = _body(body, json)
    if content_type and "content-type" not in names:
        items.append(("Content-Type", content_type))
    _check_length(items, data)
    if credentials is not None:
        if "authorization" in names:
            raise ConfigurationError("credentials and a header 'Authorization' say the same; give one of them")
        items.append(("Authorization", authorization(credentials)))
    request = Asked(address, method, tuple(items), data)
    request.head()  # now, so that what cannot be sent is told at the call
    return request


def _address(url: Address | str) -> Address:
    text = url.partition("#")[0] if isinstance(url, str) else url  # a fragment is not sent: RFC 9110, section 4.2.1
    address = Address.parse(text, "http")
    if address.scheme not in ("http", "https", "http+unix"):
        raise ConfigurationError(f"{url} is no URL of http, https or http+unix, such as http://localhost:8000/healthz")
    return address


def _body(body: Body, json: Any) -> tuple[bytes | AsyncIterable[bytes], str]:
    """Return the body as it is sent, and its type."""
    if json is not NOTHING:
        if body is not None:
            raise ConfigurationError("body= and json= exclude one another; give one of them")
        try:
            return json_module.dumps(json, allow_nan=False).encode(), "application/json"
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"json= cannot be written as JSON: {error}") from error
    if body is None:
        return b"", ""
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), "application/octet-stream"
    if not isinstance(body, AsyncIterable):
        raise ConfigurationError(
            f"body= is bytes, str or an async iterable of bytes, not {type(body).__name__}; see json="
        )
    return body, "application/octet-stream"


def _check_length(items: list[tuple[str, str]], body: bytes | AsyncIterable[bytes]) -> None:
    given = [value for name, value in items if name.lower() == "content-length"]
    if not given:
        return
    if len(given) > 1 or not re.fullmatch(r"[0-9]{1,18}", given[0]):
        raise ConfigurationError(f"Content-Length is one number of bytes, not {', '.join(given)!r}")
    if isinstance(body, bytes) and int(given[0]) != len(body):
        raise ConfigurationError(f"Content-Length is {given[0]}, but the body has {len(body)} bytes; leave it out")
