"""What goes on upon the way that proxies made: TLS with them and through them, and the PROXY header."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trustme
from client_kit import accept, listening, on_both_loops, wait_until
from proxy_kit import HTTP_YES, TALKS, TARGET, failure, hear, playing

from portico._core import Lines
from portico.address import Address
from portico.client import connect
from portico.client.proxies import Proxy
from portico.errors import ConfigurationError, TLSError
from portico.protocols.proxy_header import ProxyHeader
from portico.server.service import serve
from portico.transports.connection import Stream
from portico.transports.tls import TLS

# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def context_for(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


class Inside:
    """TLS as a server by memory BIOs upon asyncio's streams or upon another of these: a peer that is not Portico's."""

    def __init__(self, below: Any, context: ssl.SSLContext) -> None:
        self.below, self.incoming, self.outgoing = below, ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    async def do(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                await self.below.write(self.outgoing.read())
                data = await self.below.read()
                if not data:
                    raise EOFError from None
                self.incoming.write(data)
            else:
                await self.below.write(self.outgoing.read())
                return result

    async def read(self) -> bytes:
        return await self.do(lambda: self.tls.read(1000))  # type: ignore[no-any-return]

    async def write(self, data: bytes) -> None:
        if data:
            await self.do(lambda: self.tls.write(data))


class Outside:
    def __init__(self, peer: Any) -> None:
        self.peer, self.loop = peer, asyncio.get_running_loop()

    async def read(self) -> bytes:
        return await self.loop.sock_recv(self.peer, 1000)

    async def write(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.peer, data)


@contextlib.asynccontextmanager
async def secure_proxy(proxy: ssl.SSLContext | None, target: ssl.SSLContext | None) -> AsyncIterator[Address]:
    """An HTTP proxy that is its own target: it says yes, and then echoes; each part in TLS where there is a context."""
    with listening() as (sock, address):

        async def serve() -> None:
            with await accept(sock) as peer:
                layer: Any = Outside(peer)
                with contextlib.suppress(EOFError, OSError):  # of which SSLError is one
                    if proxy is not None:
                        layer = Inside(layer, proxy)
                        await layer.do(layer.tls.do_handshake)
                    asked = b""
                    while not asked.endswith(b"\r\n\r\n"):
                        asked += await layer.read()
                    await layer.write(HTTP_YES)
                    if target is not None:
                        layer = Inside(layer, target)
                        await layer.do(layer.tls.do_handshake)
                    while data := await layer.read():
                        await layer.write(data)

        task = asyncio.ensure_future(serve())
        try:
            yield address
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("to_target", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("to_proxy", [False, True], ids=["plain", "tls"])
@on_both_loops
async def test_tls_with_the_proxy_and_through_it(authority: trustme.CA, to_proxy: bool, to_target: bool) -> None:
    tls = TLS(ca=authority.cert_pem.bytes().decode())
    contexts = context_for(authority, "127.0.0.1") if to_proxy else None, context_for(authority, "far.test")
    async with secure_proxy(contexts[0], contexts[1] if to_target else None) as address:
        proxy = Proxy("http", address, tls=tls if to_proxy else None)
        scheme = "tls" if to_target else "tcp"
        settings: Any = dict(tls=tls) if to_target else {}
        async with connect("tcp://far.test:443", proxy=proxy, timeout=5, codec=Lines(), **settings) as channel:
            for text in ("hello", "x" * 50_000):
                await channel.send(text)
                assert await channel.recv() == text
            assert str(channel.remote_address) == f"{scheme}://far.test:443"
            assert channel.local_address.scheme == scheme
            if to_target:
                assert channel.tls is not None and channel.tls.server_name == "far.test"
            else:
                assert channel.tls is None  # that of the proxy ends there


@on_both_loops
async def test_the_proxy_has_a_certificate_of_another(authority: trustme.CA) -> None:
    tls = TLS(ca=authority.cert_pem.bytes().decode())
    async with secure_proxy(context_for(authority, "other.test"), None) as address:
        error = await failure(connect(TARGET, proxy=Proxy("http", address, tls=tls)))
        last = error.attempts[-1]
        assert (last.stage, last.address) == ("tls", address.replace(scheme="tls"))
        assert isinstance(last.error, TLSError) and "is not for '127.0.0.1'" in str(error)


@on_both_loops
async def test_the_target_has_a_certificate_of_another(authority: trustme.CA) -> None:
    tls = TLS(ca=authority.cert_pem.bytes().decode())
    async with secure_proxy(None, context_for(authority, "other.test")) as address:
        error = await failure(connect("tls://far.test:443", tls=tls, proxy=Proxy("http", address)))
        assert str(error).startswith(
            "cannot connect to tls://far.test:443: tls: TLS failed: the certificate of the server is not for 'far.test'"
        )


@on_both_loops
async def test_a_file_of_the_proxys_tls_that_does_not_load_is_told_before_anything_is_tried() -> None:
    proxy = Proxy("http", Address.parse("tcp://192.0.2.1:1"), tls=TLS(ca="/nowhere/ca.pem"))
    with pytest.raises(ConfigurationError, match=re.escape("/nowhere/ca.pem")):
        await connect(TARGET, proxy=proxy)


# The PROXY header


@pytest.mark.parametrize("through", [False, True], ids=["directly", "through a proxy"])
@pytest.mark.parametrize("codec", [None, Lines()], ids=["stream", "channel"])
@on_both_loops
async def test_a_proxy_header_goes_first(codec: Any, through: bool) -> None:
    header = ProxyHeader(1, source=Address.parse("tcp://192.0.2.1:1"), destination=Address.parse("tcp://192.0.2.2:2"))
    wanted = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nhello\n"
    async with playing([*(TALKS["socks5"] if through else []), (wanted, b"ok\n")]) as played:
        settings: Any = dict(proxy=played.url("socks5://")) if through else {}
        address = TARGET if through else played.address
        async with connect(address, proxy_header=header, codec=codec, **settings) as connection:
            await connection.send("hello" if codec else b"hello\n")
            assert await connection.recv() == ("ok" if codec else b"ok\n")
        assert played.heard[-1] == wanted


@pytest.mark.parametrize("version", ["v1", "v2"])
@on_both_loops
async def test_a_proxy_header_of_the_connections_own_addresses(version: Any) -> None:
    async with playing([(b"hello", b"")]) as played:
        async with connect(played.address, proxy_header=version) as stream:
            await stream.send(b"hello")
            await wait_until(lambda: played.heard)
            header = ProxyHeader.parse(played.heard[0])
            assert header is not None
            assert (header[0].source, header[0].destination) == (stream.local_address, stream.remote_address)
            assert played.heard[0][header[1] :] == b"hello" and header[0].version == int(version[1])


@on_both_loops
async def test_a_proxy_header_goes_before_tls(authority: trustme.CA) -> None:
    with listening() as (sock, address):

        async def serve() -> bytes:
            with await accept(sock) as peer:
                header = await hear(peer, b"\r\n")
                layer = Inside(Outside(peer), context_for(authority, "127.0.0.1"))
                await layer.do(layer.tls.do_handshake)
                await layer.write(await layer.read())
                return header

        serving = asyncio.ensure_future(serve())
        tls = TLS(ca=authority.cert_pem.bytes().decode())
        async with connect(address, tls=tls, proxy_header="v1", timeout=5) as stream:
            await stream.send(b"hello")
            assert await stream.recv_exactly(5) == b"hello"
            port = stream.local_address.port
            assert await serving == f"PROXY TCP4 127.0.0.1 127.0.0.1 {port} {address.port}\r\n".encode()
            assert str(stream.remote_address) == f"tls://127.0.0.1:{address.port}"


@on_both_loops
async def test_a_proxy_header_over_a_unix_socket(tmp_path: Any) -> None:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def handler(stream: Stream) -> None:
        got.set_result(await stream.recv_exactly(16))

    async with serve(handler, f"unix:{tmp_path}/socket") as server:
        async with connect(server.address, proxy_header="v2") as stream:
            assert (await got)[12:14] == b"\x21\x31"
            assert stream.remote_address == server.address
