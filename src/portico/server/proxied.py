"""Connections that come through a proxy: the PROXY header before anything else, and who is let in by it."""

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from portico._core import Wire, driven
from portico.address import SCHEMES, Address
from portico.errors import ConfigurationError, EndOfStream, MessageTooLarge, PorticoError, ProtocolError
from portico.protocols.proxy_header import FIXED, LINE_END, LINE_START, MAX_LINE, SIGNATURE, ProxyHeader
from portico.server.admission import MAPPED, AddressRule, credentials_of
from portico.transports.connection import Channel, Stream, handshake

if TYPE_CHECKING:
    from portico.server.listener import Listener
    from portico.server.session import Session

logger = logging.getLogger("portico.server")


def trusted_rules(proxied_by: Sequence[str]) -> list[AddressRule]:
    """Return what `proxied_by` says.

    :raises ConfigurationError: it names nobody, or something that is no address rule"""
    if isinstance(proxied_by, str) or not proxied_by:
        raise ConfigurationError(
            f'proxied_by must be a list of proxies such as ["loopback", "10.0.0.0/8"], not {proxied_by!r}; leave it '
            "out where no proxy sends a PROXY header"
        )
    return [AddressRule(text, "proxied_by") for text in proxied_by]


class Proxied:
    """What a listener does with each connection where it has `proxied_by`."""

    def __init__(self, listener: "Listener", proxied_by: Sequence[str]) -> None:
        self.listener = listener
        self.rules = trusted_rules(proxied_by)

    def trusts(self, host: bytes, fd: int) -> bool | None:
        """Say whether the connection comes from one of the proxies; None: it does not."""
        credentials = credentials_of(fd) if not host else None
        if any(rule.matches(host, credentials) for rule in self.rules):
            return True
        self.listener.stats.rejected_untrusted += 1
        return None

    def begin(self, wire: Wire, session: "Session") -> None:
        """Await the header of a new connection."""
        listener = self.listener
        if session.stopped:
            listener.drop(wire, session)
            return
        listener.handshake_begun()
        stream = Stream(wire, listener.settings, session, scheme=listener.scheme, draining=listener.draining)
        if listener.scheme == "mem":
            stream._local = stream._remote = listener.spec.address
        arrival = Arrival(listener, stream, session)
        session.connection, session.wire = stream, None
        session.task = stream.hub.loop.create_task(driven(arrival.run(), arrival.over))


class Arrival:
    """One connection on its way to its handler: header, admission, TLS."""

    __slots__ = ("connection", "due", "listener", "session", "stream")

    def __init__(self, listener: "Listener", stream: Stream, session: "Session") -> None:
        self.listener, self.stream, self.session = listener, stream, session
        timeout = listener.spec.limits.handshake_timeout
        self.due = math.inf if timeout is None else stream.hub.loop.time() + timeout
        self.connection: Stream | Channel[Any] | None = None  # once it may have its handler

    async def run(self) -> None:
        """Take the connection through all that comes before its handler."""
        try:
            async with asyncio.timeout_at(None if self.due == math.inf else self.due):
                header = await read_header(self.stream, self.listener.spec.limits.max_proxy_header)
        except (PorticoError, TimeoutError) as error:
            self.listener.stats.proxy_headers_failed += 1
            if logger.isEnabledFor(logging.INFO):
                logger.info("%s: %s", self.session.name(), self.why(error))
            self.stream.abort()
            return
        self.name_peers(header)
        codec = self.listener.spec.codec
        if self.admit(header) and await self.secure():
            self.connection = self.stream if codec is None else self.stream.channel(codec)

    def name_peers(self, header: ProxyHeader) -> None:
        """Let the connection have the addresses of the header, in the listener's scheme where both are of TCP."""
        stream = self.stream
        stream.proxy_header = header
        if header.source is not None and header.destination is not None:
            stream._remote, stream._local = (
                each.replace(scheme=stream.scheme) if (each.scheme, stream.scheme) == ("tcp", "tls") else each
                for each in (header.source, header.destination)
            )

    def admit(self, header: ProxyHeader) -> bool:
        """Let in whom `deny`, `allow` and the limits per address let in, and refuse others."""
        listener, session = self.listener, self.session
        if header.local:
            return True
        host = packed(self.stream.remote_address)
        own = header.source is None  # the client is not known, so the proxy answers for it
        admitted = listener.admission.admit(host, self.stream.wire.fileno() if own else -1)
        if admitted:
            session.host = host
            return True
        refusal = listener.refusals.text(denied=admitted is None)
        if refusal:
            self.stream.send(refusal)
            self.stream.close()
        else:
            self.stream.abort()
        return False

    async def secure(self) -> bool:
        """Let TLS come where it is wanted."""
        tls, stream = self.listener.spec.tls, self.stream
        if tls is None:
            return True
        try:
            context = tls.server_context()
        except PorticoError as error:
            logger.error("%s: %s", self.listener.address, error)
            stream.abort()
            return False
        left = max(self.due - stream.hub.loop.time(), 0.001)
        problem = await handshake(
            lambda done: stream.upgrade(context, server_side=True, timeout=left, on_handshake=done), stream.abort
        )
        if problem is not None:
            self.listener.stats.handshakes_failed += 1
            if logger.isEnabledFor(logging.INFO):
                from portico.transports.tls import explain

                logger.info("%s: %s", self.session.name(), explain(problem, server_side=True))
        return problem is None

    def over(self, error: BaseException | None) -> bool:
        """Start the handler, or clear away what did not get as far."""
        lost = isinstance(error, PorticoError)  # on the way from the header to the handler
        if lost:
            logger.debug("%s: %s", self.session.name(), error)
        if self.connection is None:
            handled = self.session.done(None if lost else error)
        else:
            self.listener.serve(self.connection, self.session)
            handled = True
        self.listener.handshake_over()
        return handled

    def why(self, error: BaseException) -> str:
        """Say why the header did not come."""
        if isinstance(error, TimeoutError):
            timeout = self.listener.spec.limits.handshake_timeout
            return f"no PROXY header came within {timeout:g} s (handshake_timeout)"
        if isinstance(error, EndOfStream):
            return "the connection ended before its PROXY header was whole"
        return str(error)


async def read_header(stream: Stream, max_size: int) -> ProxyHeader:
    """Take a PROXY header, and nothing behind it, off the start of `stream`.

    :raises ProtocolError: there is none
    :raises MessageTooLarge: it has more than `max_size` bytes
    :raises EndOfStream: the stream ends before
    :raises ClosedError: the connection was lost before"""
    data = await stream.recv_exactly(len(LINE_START))
    if data == LINE_START:
        room = MAX_LINE - len(LINE_START) - len(LINE_END)
        try:
            data += await stream.recv_until(LINE_END, room) + LINE_END
        except MessageTooLarge:
            raise ProtocolError(f"bad PROXY header: the line does not end within {MAX_LINE} bytes", MAX_LINE) from None
    elif SIGNATURE.startswith(data):
        data += await stream.recv_exactly(FIXED.size - len(data))
        if ProxyHeader.parse(data, max_size) is None:
            data += await stream.recv_exactly(int.from_bytes(data[-2:], "big"))
    found = ProxyHeader.parse(data, max_size)
    if found is None:
        raise ProtocolError("bad PROXY header", len(data))
    stream.settings.bytes_received -= len(data)
    return found[0]


def packed(address: Address) -> bytes:
    """Return the address as admission knows it: 4 or 16 bytes; none where it is not of the internet."""
    if SCHEMES[address.scheme].parts in ("path", "name"):
        return b""
    host = address.packed
    return host[12:] if host.startswith(MAPPED) else host
