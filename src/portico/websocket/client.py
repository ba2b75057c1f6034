"""Opening a WebSocket as a client: the handshake of RFC 6455, section 4.1, upon a connection of `connect`."""

import asyncio
import functools
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from portico.address import SCHEMES, Address
from portico.client.connect import Connector, Story
from portico.errors import ConfigurationError, EndOfStream, ProtocolError, StatusError, TLSError
from portico.protocols.http_asking import PRIVATE, REDIRECTS, authority, authorization, has_same_origin, redirected
from portico.protocols.http_headers import Headers
from portico.protocols.http_request import RequestHead
from portico.protocols.http_response import ResponseHead, ResponseParser, request_head
from portico.protocols.websocket import KEY_SIZE, Offer
from portico.transports.connection import Stream
from portico.transports.tls import TLS
from portico.transports.tls_errors import is_tls, without_tls
from portico.websocket.settings import WebSocketSettings

if TYPE_CHECKING:
    from portico.websocket.channel import WebSocket

__all__ = ["Opening", "opened"]

ALPN: Final = ("http/1.1",)  # RFC 7301; WebSockets over HTTP/2 (RFC 8441) are not spoken here
MAX_SHOWN_BODY: Final = 4096
"""Bytes that a StatusError has of the body."""
BODY_TIME: Final = 2.0
"""Seconds that the body of a refusal may take; the status is told with what has come by then."""
DEADLINE_PART: Final = 0.9
"""How much of the time left it may take, so that the status is told before the deadline is over."""


def opened(address: Address, *, codec: object, tls: TLS | None, settings: WebSocketSettings | None) -> "Opening":
    """Return what opens WebSockets to `address`, for `connect`.

    :raises ConfigurationError: settings that do not fit."""
    if codec is not None:
        raise ConfigurationError(f"{address} has messages of its own, str and bytes: it takes no codec=")
    if settings is None:
        settings = WebSocketSettings()
    elif not isinstance(settings, WebSocketSettings):
        raise ConfigurationError(f"websocket={settings!r} must be a WebSocketSettings")
    if tls is not None and address.scheme == "ws":
        raise ConfigurationError(f"{address} is without TLS; write wss:// where tls= is meant")
    if tls is None and SCHEMES[address.scheme].secure:
        tls = TLS()
    opening = Opening(address, settings, None if tls is None else _with_alpn(tls))
    opening.request(Offer(bytes(KEY_SIZE)))  # now, so that what cannot be sent is told at the call
    return opening


@functools.lru_cache(32)
def _with_alpn(tls: TLS) -> TLS:
    """Return `tls` asking for HTTP/1.1; the same one each time, as it keeps what it has loaded."""
    return replace(tls, alpn=ALPN)


@functools.lru_cache(32)
def _elsewhere(tls: TLS) -> TLS:
    """Return `tls` for a server that was not meant by it: without what tells who is here, and whom to expect."""
    return replace(tls, certificate=None, key=None, key_password=None, server_name=None)


@dataclass(frozen=True)
class Opening:
    """A WebSocket to be opened at `address`.

    :ivar trusted: whether `address` is of the server that was named, which gets credentials and cookies."""

    address: Address
    settings: WebSocketSettings
    tls: TLS | None
    trusted: bool = True

    async def open(self, connector: Connector, story: Story) -> "WebSocket":
        """Connect, shake hands, follow redirects.

        :raises StatusError: the server answered with something else than a WebSocket
        :raises ProtocolError: its answer is not as RFC 6455 has it
        :raises OSError: no connection came about
        :raises ConfigurationError: settings that turn out not to work"""
        at = self
        for _ in range(self.settings.max_redirects + 1):
            found = await at._try(connector, story)
            if not isinstance(found, Opening):
                return found
            at, connector = found, connector.leading_to(found.address.carrier, found.tls)
        with story.trying(at.address, "handshake"):
            raise ProtocolError(
                f"{self.address} redirected more than max_redirects={self.settings.max_redirects} times, "
                f"at last to {at.address}"
            )

    async def _try(self, connector: Connector, story: Story) -> "WebSocket | Opening":
        """Return the WebSocket, or what to open in its place."""
        try:
            stream = await replace(connector, upper=None).carry(story)
        except TLSError as error:
            without_tls(error, "ws")
            raise
        try:
            with story.trying(self.address, "handshake"):
                found = await self._shake(stream, story.deadline)
        except BaseException:
            stream.abort()
            raise
        if isinstance(found, Opening):
            stream.abort()
        return found

    async def _shake(self, stream: Stream, deadline: float | None) -> "WebSocket | Opening":
        offer = Offer(os.urandom(KEY_SIZE), self.settings.subprotocols, self.settings.deflate)
        request, head = self.request(offer)
        await stream.send(head)
        parser = ResponseParser()
        body = bytearray()
        first = b""
        try:
            while parser.head is None:
                data = await stream.recv()
                first = first or data
                self._feed(parser, data, body)
        except ProtocolError as error:
            if self.address.scheme == "ws" and is_tls(first):
                raise ProtocolError(f"{self.address} answers with TLS; write wss:// in place of ws://") from error
            raise ProtocolError(f"{self.address} does not answer as a web server does: {error}") from error
        except EndOfStream as error:
            told = f"{self.address} hung up before it had answered; check that it is a web server"
            if self.address.scheme == "ws" and not first:
                told += ", and whether it wants TLS (wss://)"
            raise EndOfStream(reason=told) from error
        if parser.head.status == 101:
            stream.unread(parser.rest)
            return self._upgraded(stream, offer, request, parser.head)
        place = parser.head.headers.get("Location")
        if parser.head.status in REDIRECTS and place is not None and self.settings.max_redirects:
            return self._redirected(parser.head.status, place)
        await self._read_body(stream, parser, body, deadline)
        raise StatusError(
            parser.head.status,
            parser.head.reason,
            address=self.address,
            headers=list(parser.head.headers),
            body=bytes(body),
        )

    def _feed(self, parser: ResponseParser, data: bytes, body: bytearray) -> None:
        """Let `parser` have what came; the start of the body is collected."""
        if not data:
            parser.end()
        for part in parser.feed(data):
            if isinstance(part, bytes):
                body += part[: MAX_SHOWN_BODY - len(body)]

    async def _read_body(self, stream: Stream, parser: ResponseParser, body: bytearray, deadline: float | None) -> None:
        """Read the start of the body, as far as it comes in time."""
        now = asyncio.get_running_loop().time()
        seconds = BODY_TIME if deadline is None else min(BODY_TIME, DEADLINE_PART * (deadline - now))
        try:
            async with asyncio.timeout(seconds):
                while not parser.complete and len(body) < MAX_SHOWN_BODY:
                    self._feed(parser, await stream.recv(), body)
        except (OSError, EndOfStream, ProtocolError):  # TimeoutError is an OSError
            pass  # the status is what counts

    def _upgraded(self, stream: Stream, offer: Offer, request: RequestHead, head: ResponseHead) -> "WebSocket":
        from portico.websocket.channel import WebSocket

        try:
            agreement = offer.check(head.headers)
        except ProtocolError as error:
            raise ProtocolError(f"{self.address} answered the handshake wrongly: {error}") from error
        frames = self.settings.frames(True, agreement.deflate)
        return WebSocket(
            stream, frames, request, response=head, scheme=self.address.scheme, subprotocol=agreement.subprotocol
        )

    def _redirected(self, status: int, place: str) -> "Opening":
        """Return what to open after a redirect to `place`."""
        there = redirected(self.address, status, place)
        if has_same_origin(self.address, there):
            return replace(self, address=there)
        tls = None if self.tls is None else _elsewhere(self.tls)
        if tls is None and SCHEMES[there.scheme].secure:
            tls = _with_alpn(TLS())
        return Opening(there, self.settings, tls, trusted=False)

    def request(self, offer: Offer) -> tuple[RequestHead, bytes]:
        """Return the request, and how it is sent.

        :raises ConfigurationError: settings that cannot be sent"""
        settings = self.settings
        given = [each for each in settings.fields if self.trusted or each[0].lower() not in PRIVATE]
        items: list[tuple[str, str]] = []
        if all(name.lower() != "host" for name, _ in given):
            items.append(("Host", authority(self.address)))
        items += offer.fields()
        if settings.origin is not None:
            items.append(("Origin", settings.origin))
        if self.trusted:
            if settings.credentials is not None:
                items.append(("Authorization", authorization(settings.credentials)))
            if settings.cookies:
                items.append(("Cookie", "; ".join(f"{name}={value}" for name, value in settings.cookies.items())))
        items += given
        head = request_head("GET", self.address.path, items)
        return RequestHead("GET", self.address.path, headers=Headers(items)), head
