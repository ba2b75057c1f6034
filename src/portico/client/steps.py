"""Connecting in steps: through proxies, one behind the other, or with a PROXY header ahead of TLS."""

import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from portico._core import Settings
from portico.address import SCHEMES, Address
from portico.client.connect import Connector, Story
from portico.client.tunnel import ask, is_about_target, secure
from portico.errors import ProxyError, TLSError
from portico.transports.connection import Stream

if TYPE_CHECKING:
    from portico.client.proxies import Proxy
    from portico.transports.tls import TLS

__all__ = ["Steps"]


class Steps:
    """One try of `connector`, told to `story`. Each step is taken on the Stream of the step before."""

    def __init__(self, connector: Connector, story: Story) -> None:
        self.connector, self.story = connector, story

    async def open(self) -> Any:
        """Return the Stream or Channel.

        :raises OSError: the last attempt of the story
        :raises ConfigurationError: settings that turn out not to work"""
        connector = self.connector
        stream, address = await self._reach(connector.address, connector.proxies)
        try:
            with self.story.trying(address, "connect"):  # it may have been lost just now
                stream.scheme = _plain(address.scheme)
                if connector.proxy_header is not None:
                    await stream.send(self._header(stream.local_address, address))
            tls = connector.tls_settings()
            if tls is not None:
                await self._secure(stream, address, tls, connector.address.host)
            stream._remote = address.replace(scheme=stream.scheme)
            if stream.scheme == "mem":
                stream._local = stream._remote
            if connector.codec is None:
                return stream
            with self.story.trying(address, "connect"):
                return stream.channel(connector.codec)
        except BaseException as error:
            _drop(stream, error)
            raise

    async def _reach(self, address: Address, proxies: "tuple[Proxy, ...]") -> tuple[Stream, Address]:
        """Return a Stream that leads to `address` through `proxies`, and to which address exactly."""
        if not proxies:
            found, wire = await self.connector.nearest(self.story, address)
            return Stream(wire, Settings(**self.connector.limits), scheme=_plain(found.scheme)), found
        *nearer, proxy = proxies
        failure: ProxyError | None = None
        for place in await self._places(proxy, address):
            stream, _ = await self._reach(proxy.address, tuple(nearer))
            try:
                await self._pass(stream, proxy, place)
            except BaseException as error:
                _drop(stream, error)
                if not isinstance(error, ProxyError) or not is_about_target(error):
                    raise
                failure = error
            else:
                return stream, address
        assert failure is not None  # as resolving gives one place at least, or raises
        raise failure

    async def _places(self, proxy: "Proxy", address: Address) -> Sequence[Address]:
        """Return what `proxy` is asked for, one after the other, to get to `address`."""
        if proxy.remote_names or address.is_numeric:
            return [address]
        return await self.connector.resolve(self.story, address, socket.AF_INET if proxy.kind == "socks4" else 0)

    async def _pass(self, stream: Stream, proxy: "Proxy", place: Address) -> None:
        if proxy.tls is not None:
            stream.scheme = "tcp"  # as the TLS with the proxy before it is not that with this one
            await self._secure(stream, proxy.address, proxy.tls, proxy.address.host)
        with self.story.trying(proxy.address, "proxy"):
            await ask(stream, proxy, place)

    async def _secure(self, stream: Stream, address: Address, tls: "TLS", host: str) -> None:
        with self.story.trying(address, "tls"):
            try:
                await secure(stream, tls, host)
            except TLSError as error:
                error.address = address  # the attempt's text has it already
                raise

    def _header(self, near: Address, far: Address) -> bytes:
        header = self.connector.proxy_header
        if isinstance(header, str):
            from portico.protocols.proxy_header import ProxyHeader

            version: Literal[1, 2] = 1 if header == "v1" else 2
            named = SCHEMES[far.scheme].parts == "name"
            header = ProxyHeader(version) if named else ProxyHeader(version, source=near, destination=far)
        assert header is not None  # else nobody asks
        return header.encode()


def _plain(scheme: str) -> str:
    """Return the scheme of the same bytes without TLS."""
    return "tcp" if SCHEMES[scheme].secure else scheme


def _drop(stream: Stream, error: BaseException) -> None:
    """Close at once; after a handshake that failed an alert may be on its way, and the stream closes by itself."""
    if not isinstance(error, TLSError):
        stream.abort()
