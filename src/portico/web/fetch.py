"""`fetch`: a tiny HTTP/1.1 client for health checks and scripts. One connection for each request, made by `connect`."""

import asyncio
import contextlib
import functools
from collections.abc import Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from portico.address import SCHEMES, Address
from portico.client.connect import Connecting, connect
from portico.client.retry import Retry
from portico.errors import ConfigurationError, ConnectError, LimitError, PorticoError, StatusError, TLSError
from portico.interfaces import Resolver
from portico.protocols.http_asking import has_same_origin
from portico.protocols.http_headers import Items
from portico.transports.connection import Stream
from portico.web.fetch_request import NOTHING, Asked, Body, Login, asked
from portico.web.fetched import MAX_BODY, Exchange, Fetched

if TYPE_CHECKING:
    from portico.client.proxies import Proxies
    from portico.transports.tls import TLS

__all__ = ["Fetching", "fetch"]

MAX_SHOWN_BODY = 16 * 1024
"""Bytes that a StatusError has of the body."""

CLOSE_TIMEOUT = 0.5
"""Seconds to wait for the server's end of a connection once its whole answer is there: nothing more is expected."""

SHORTEST = 0.001
"""Seconds that a further connection gets when the deadline is as good as over."""


def fetch(
    url: Address | str,
    method: str | None = None,
    *,
    headers: Items = (),
    body: Body = None,
    json: Any = NOTHING,
    credentials: Login = None,
    check: bool = True,
    max_redirects: int = 5,
    max_size: int | None = None,
    timeout: float | None = 10.0,
    tls: "TLS | None" = None,
    proxy: "Proxies" = None,
    source: Address | str | None = None,
    options: Mapping[str, object] | None = None,
    resolver: Resolver | None = None,
    retry: Retry | None = None,
) -> "Fetching":
    """Ask an HTTP server: `answer = await fetch(url)` has the whole body, `async with fetch(url) as answer:` streams it
    with `async for piece in answer`. A client for health checks and scripts: no cookies, cache, pool or decoding.

    :param url: `http://host[:port]/path?query`, `https://…`, or `http+unix:PATH:/resource` for a Unix socket.
    :param method: default: GET, or POST where there is a `body` or `json`.
    :param headers: more header fields, or others in place of those sent by itself (Host, User-Agent, Accept,
        Accept-Encoding: identity).
    :param body: what is sent: bytes, str (as UTF-8), or an async iterable of bytes, which is sent chunked, or as long
        as a header Content-Length says.
    :param json: sent as JSON, in place of `body`; None is `null`.
    :param credentials: a user and a password for Basic (RFC 7617), or a Bearer token (RFC 6750).
    :param check: raise StatusError for 4xx and 5xx.
    :param max_redirects: how many redirects are followed; with 0 a redirect is the answer. A POST becomes a GET with
        301, 302 and 303; 307 and 308 keep method and body. Another origin gets neither credentials nor the headers
        Authorization, Cookie and Host, nor the client certificate. From https to http none is followed, nor from a Unix
        socket to another server.
    :param max_size: bytes that the body may have; default: 16 MiB if it is awaited, no limit if it is streamed.
    :param timeout: seconds for everything up to the end of the body, redirects included; None for no end.
    :param tls: how to speak TLS with `https`; its `alpn` is http/1.1, whatever it says.
    :param proxy: through which proxies, as for `connect`. HTTP proxies are asked for a tunnel, for `http`, too.
    :param source, options, resolver: as for `connect`.
    :param retry: whether and when to try again to connect, as for `connect`; `timeout` counts anew for each try.
    :raises AddressError: at once, if the URL does not parse.
    :raises ConfigurationError: at once, if the settings cannot work; later, if a redirect wants a body again that can
        be sent only once, or a body does not fit its Content-Length.
    :raises ConnectError: on asking, if no connection came about.
    :raises StatusError: the server answered 4xx or 5xx.
    :raises ProtocolError: what it answered is not HTTP/1.1, or a redirect that leads where none must.
    :raises LimitError: more than `max_redirects`.
    :raises MessageTooLarge: the body is longer than `max_size`.
    :raises EndOfStream: the connection ended before the answer; `partial` has what came of an awaited body.
    :raises ClosedError: `timeout` was over after the connection was there."""
    request = asked(url, method, headers, body, json, credentials)
    if max_redirects < 0 or (max_size is not None and max_size < 0):
        raise ConfigurationError("max_redirects and max_size must not be negative")
    connecting = _Connecting(timeout, tls, proxy, source, options, resolver, retry)
    connecting.to(request.address, timeout)  # now, so that settings which cannot work are told at the call
    return Fetching(request, connecting, check=check, max_redirects=max_redirects, max_size=max_size)


class Fetching:
    """What `fetch` returns: await it, or use it with `async with`. Each time it asks anew."""

    def __init__(
        self, asked: Asked, connecting: "_Connecting", *, check: bool, max_redirects: int, max_size: int | None
    ) -> None:
        self._asked, self._connecting = asked, connecting
        self._check, self._max_redirects, self._max_size = check, max_redirects, max_size
        self._open: list[Exchange] = []

    def __await__(self) -> Generator[Any, Any, Fetched]:
        return self._whole().__await__()

    async def __aenter__(self) -> Fetched:
        exchange, answer = await self._answer(self._max_size)
        self._open.append(exchange)
        return answer

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        exchange = self._open.pop()
        if kind is not None:
            exchange.abort()
        await exchange.close()

    async def _whole(self) -> Fetched:
        exchange, answer = await self._answer(MAX_BODY if self._max_size is None else self._max_size)
        try:
            await answer.read()
        except BaseException:
            exchange.abort()
            raise
        finally:
            await exchange.close()
        return answer

    async def _answer(self, max_size: int | None) -> tuple[Exchange, Fetched]:
        """Ask, follow redirects, and return the answer that counts, checked."""
        request, connecting, followed = self._asked, self._connecting, 0
        timeout = connecting.timeout
        clock = asyncio.get_running_loop().time
        deadline = None if timeout is None else clock() + timeout
        while True:
            left = timeout
            if deadline is not None and followed:
                left = max(round(deadline - clock(), 3), SHORTEST)
            stream = await connecting.open(request.address, left)
            if deadline is not None and timeout is not None and connecting.retry is not None:
                deadline = clock() + timeout
            exchange = Exchange(stream, request, timeout, deadline)
            try:
                head = await exchange.begin()
                onward = request.redirected(head) if self._max_redirects else None
                if onward is None:
                    answer = Fetched(request.address, head, exchange, max_size)
                    if self._check and answer.status >= 400:
                        raise await _refused(answer)
                    return exchange, answer
            except BaseException:
                exchange.abort()
                await exchange.close()
                raise
            await exchange.close()
            followed += 1
            if followed > self._max_redirects:
                raise LimitError(
                    f"{self._asked.address} was redirected more than {self._max_redirects} times, at last to "
                    f"{onward.address}; raise max_redirects, or fetch that URL",
                    "max_redirects",
                )
            if not has_same_origin(request.address, onward.address):
                connecting = connecting.to_others()
            request = onward


class _Connecting:
    """How the connections of a fetch are made."""

    def __init__(
        self,
        timeout: float | None,
        tls: "TLS | None",
        proxy: "Proxies",
        source: Address | str | None,
        options: Mapping[str, object] | None,
        resolver: Resolver | None,
        retry: Retry | None,
    ) -> None:
        self.timeout, self.retry = timeout, retry
        self._tls, self._proxy, self._source = tls, proxy, source
        self._options, self._resolver = options, resolver

    def to(self, url: Address, timeout: float | None) -> Connecting[Stream]:
        """Return the connection to the server of `url`, as `connect` does."""
        return connect(
            url.carrier,
            timeout=timeout,
            tls=_http_tls(self._tls) if SCHEMES[url.scheme].secure else None,
            proxy=self._proxy,
            source=self._source,
            options=self._options,
            resolver=self._resolver,
            retry=self.retry,
            close_timeout=CLOSE_TIMEOUT,
        )

    async def open(self, url: Address, timeout: float | None) -> Stream:
        """Connect to the server of `url`.

        :raises ConnectError: no connection came about; it names `url`, and its attempts the addresses"""
        try:
            return await self.to(url, timeout)
        except ConnectError as error:
            for each in error.attempts:
                if isinstance(each.error, TLSError):
                    from portico.transports.tls_errors import without_tls

                    without_tls(each.error, "http")
            raise ConnectError(url, error.attempts, timeout=error.timeout) from error.__cause__

    def to_others(self) -> "_Connecting":
        """Return how to connect to another origin than was asked for: nothing that is meant for that one goes there."""
        tls = self._tls
        if tls is not None:
            tls = replace(tls, certificate=None, key=None, key_password=None, server_name=None)
        return _Connecting(self.timeout, tls, self._proxy, self._source, self._options, self._resolver, self.retry)


@functools.lru_cache(maxsize=16)
def _http_tls(tls: "TLS | None") -> "TLS":
    """One for all with the same settings, so that files are loaded once."""
    from portico.transports.tls import TLS

    return TLS(alpn=("http/1.1",)) if tls is None else replace(tls, alpn=("http/1.1",))


async def _refused(answer: Fetched) -> StatusError:
    """Make the error of an answer that is none, with the start of its body as far as it comes."""
    body = b""
    with contextlib.suppress(PorticoError):  # the status says enough
        async for piece in answer:
            body += piece
            if len(body) >= MAX_SHOWN_BODY:
                break
    return StatusError(
        answer.status, answer.reason, address=answer.url, headers=tuple(answer.headers), body=body[:MAX_SHOWN_BODY]
    )
