"""What `fetch` asks for: the request, checked at the call, and what a redirect makes of it. No I/O."""

import base64
import json as json_module
import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, urljoin

from portico.address import SCHEMES, Address
from portico.errors import AddressError, ConfigurationError, ProtocolError
from portico.protocols.http_headers import Items, pairs
from portico.protocols.http_response import ResponseHead, request_head

__all__ = ["Asked", "Body", "Login", "asked"]

Body = bytes | bytearray | memoryview | str | AsyncIterable[bytes] | None
Login = tuple[str, str] | str | None

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})  # RFC 9110, section 15.4
PRIVATE: Final = frozenset({"authorization", "cookie", "host", "proxy-authorization"})
"""Header fields that are meant for one origin."""
OF_BODY: Final = frozenset({"content-type", "content-length", "content-encoding", "content-language"})
OF_CONNECTION: Final = frozenset(
    {"connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)
"""Header fields that say how the request is sent, which is decided here."""
STANDARD: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})
WITH_BODY: Final = frozenset({"POST", "PUT", "PATCH"})  # a server waits for one: RFC 9110, section 8.6
LOCAL: Final = "localhost"
"""The host that a server on a Unix socket is asked for."""


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
        items = [("Host", _authority(self.address))] if "host" not in names else []
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
        address = self._place(head.status, place)
        method, headers, body = self.method, self.headers, self.body
        if (head.status == 303 and method != "HEAD") or (head.status in (301, 302) and method == "POST"):
            method, body = "GET", b""  # RFC 9110, sections 15.4.2 to 15.4.4
            headers = tuple(each for each in headers if each[0].lower() not in OF_BODY)
        elif self.is_once_only:
            raise ConfigurationError(
                f"{self.address} answered {head.status} with {address}, and this body can be sent only once; "
                "fetch that URL, or give the body as bytes"
            )
        if not self.has_origin_of(address):
            headers = tuple(each for each in headers if each[0].lower() not in PRIVATE)
        return replace(self, address=address, method=method, headers=headers, body=body)

    def has_origin_of(self, address: Address) -> bool:
        """Whether `address` is of the same server: RFC 6454, section 4."""
        return self.address.replace(path="/") == address.replace(path="/")

    def _place(self, status: int, place: str) -> Address:
        """Where a Location leads: RFC 9110, section 10.2.2."""
        told = f"{self.address} answered {status} with {place[:200]!r}"
        escaped = quote(place.encode("latin-1"), safe="%/:=&?~#+!$,;'@()*[]")
        local = self.address.scheme == "http+unix"
        base = f"http://{LOCAL}{self.address.path}" if local else str(self.address)
        try:
            joined = urljoin(base, escaped).partition("#")[0]
            if joined.partition(":")[0].lower() not in ("http", "https"):
                raise ProtocolError(f"{told}, which is no URL of http or https")
            address = Address.parse(joined)
            if address.is_wildcard or not address.port:
                raise ProtocolError(f"{told}, where no server can be")
        except (AddressError, ValueError) as error:
            if isinstance(error, ProtocolError):
                raise
            raise ProtocolError(f"{told}, which is no URL that can be fetched") from error
        if local and _authority(address) == LOCAL and address.scheme == "http":
            return self.address.replace(path=address.path)
        if self.address.scheme == "https" and address.scheme != "https":
            raise ProtocolError(f"{told}: from https to http no redirect is followed; fetch that URL if it is right")
        return address


def asked(url: Address | str, method: str, headers: Items, body: Body, json: Any, credentials: Login) -> Asked:
    """Make a request of what a caller gave.

    :raises AddressError: the URL does not parse
    :raises ConfigurationError: a request that cannot be"""
    address = _address(url)
    method = method.upper() if method.upper() in STANDARD else method
    if method.upper() == "CONNECT":
        raise ConfigurationError("CONNECT is for proxies; give one as proxy= instead")
    items = pairs(headers)
    names = {name.lower() for name, _ in items}
    if wrong := names & OF_CONNECTION:
        raise ConfigurationError(f"the header {min(wrong).title()!r} is fetch's own business; leave it out")
    data, content_type = _body(body, json)
    if content_type and "content-type" not in names:
        items.append(("Content-Type", content_type))
    _check_length(items, data)
    if credentials is not None:
        if "authorization" in names:
            raise ConfigurationError("credentials= and a header 'Authorization' say the same; give one of them")
        items.append(("Authorization", _authorization(credentials)))
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
    if json is not None:
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


def _authorization(credentials: tuple[str, str] | str) -> str:
    """Write Authorization: RFC 7617 for a user and a password, RFC 6750 for a token."""
    if isinstance(credentials, str):
        if not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", credentials):
            raise ConfigurationError("credentials= is a user and a password as a pair, or a bearer token (RFC 6750)")
        return f"Bearer {credentials}"
    user, password = credentials
    if ":" in user:
        raise ConfigurationError("the user of credentials= cannot hold ':' (RFC 7617, section 2)")
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


def _authority(address: Address) -> str:
    """Write whom a request is for, as Host has it: RFC 9110, section 7.2. A scope means nothing to others."""
    if address.scheme == "http+unix":
        return LOCAL
    host = f"[{address.host}]" if ":" in address.host else address.host
    return host if address.port == SCHEMES[address.scheme].default_port else f"{host}:{address.port}"
