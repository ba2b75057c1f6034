"""Listeners behind a proxy: who is believed, what a header changes, and whom limits count then."""

import asyncio
import contextlib
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import portico
from portico import Address, Limits, ProxyHeader
from portico.protocols.proxy_header import TLV

from .proxy_kit import ANYWHERE, CLIENT, HEADS, LOCAL, WANTED, Guests, guest, head, logged, received
from .support import EVERYWHERE, Certificates, Client, certificates, echo, scenario, until, wait_for_end

__all__ = ["certificates"]


# What a header changes.


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("codec", [None, portico.Lines()], ids=["stream", "channel"])
@scenario(on=EVERYWHERE)
async def test_the_connection_has_the_addresses_of_the_client(version: int, codec: Any) -> None:
    guests = Guests()
    async with portico.serve(guests, ANYWHERE, codec=codec, proxied_by=["loopback"]) as server:
        async with guest(server, head(version=version) + b"hello\n") as client:
            assert await client.recv_exactly(5) == b"hello"
            (connection,) = guests.seen
            assert (connection.remote_address, connection.local_address) == (CLIENT, WANTED)
            assert connection.proxy_header == ProxyHeader(version, source=CLIENT, destination=WANTED)  # type: ignore[arg-type]
            assert str(CLIENT) in repr(connection)
            assert server.stats.open == 1 and server.stats.handshakes == 0
        await until(lambda: server.stats.open == 0)
        assert connection.remote_address == CLIENT
    assert received(server) == 6
    assert server.stats.rejected == server.stats.proxy_headers_failed == 0


@scenario()
async def test_a_stream_made_a_channel_keeps_what_the_proxy_said() -> None:
    async def handler(stream: portico.Stream) -> None:
        channel = stream.channel(portico.Lines())
        assert channel.proxy_header is stream.proxy_header is not None
        await channel.send(f"{channel.remote_address} {channel.proxy_header.authority}")

    async with portico.serve(handler, ANYWHERE, proxied_by=["loopback"]) as server:
        async with guest(server, head(tlvs=((TLV.AUTHORITY, b"example.org"),))) as client:
            assert await client.recv_all() == b"tcp://203.0.113.5:1000 example.org\n"


@scenario()
async def test_without_proxied_by_a_header_is_data() -> None:
    guests = Guests()
    async with portico.serve(guests, ANYWHERE) as server:
        async with guest(server) as client:
            assert await client.ask(HEADS["v1"]) == HEADS["v1"]
        assert guests.hosts == ["127.0.0.1"] and guests.seen[0].proxy_header is None


@pytest.mark.parametrize("name", HEADS)
@scenario(on=EVERYWHERE)
async def test_a_header_may_come_split_at_every_byte(name: str) -> None:
    data = HEADS[name] + b"hello"
    guests = Guests()
    async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"]) as server:
        for cut in range(1, len(data)):
            before = received(server)
            async with guest(server, data[:cut]) as client:
                await until(lambda before=before, cut=cut: received(server) != before or len(guests.seen) == cut)
                expected = cut - (cut < len(data) - 5)
                await until(lambda expected=expected: len(guests.seen) == expected)
                await client.send(data[cut:])
                assert await client.recv_exactly(5) == b"hello"
        async with guest(server) as client:
            for byte in data:
                await client.send(bytes([byte]))
            assert await client.recv_exactly(5) == b"hello"
        assert server.stats.proxy_headers_failed == 0 and len(guests.seen) == len(data)
        assert len({str(each.proxy_header) for each in guests.seen}) == 1


@scenario()
async def test_the_end_right_behind_the_header_is_the_handlers() -> None:
    answered: list[bytes] = []

    async def handler(stream: portico.Stream) -> None:
        async for data in stream:
            answered.append(data)
        await stream.send(b"bye")

    async with portico.serve(handler, ANYWHERE, proxied_by=["loopback"]) as server:
        for last in (b"", b"last words"):
            async with guest(server, head() + last) as client:
                client.end()
                assert await client.recv_all() == b"bye"
    assert answered == [b"last words"]


@scenario()
async def test_a_handler_in_a_thread_sees_the_client() -> None:
    def handler(stream: Any) -> None:
        stream.send(f"{stream.remote_address} {stream.local_address}".encode())

    async with portico.serve(handler, ANYWHERE, proxied_by=["loopback"]) as server:
        async with guest(server, head()) as client:
            assert await client.recv_all() == f"{CLIENT} {WANTED}".encode()


@scenario(errors=True)
async def test_logs_name_the_client() -> None:
    async def handler(stream: portico.Stream) -> None:
        raise RuntimeError("a fault of the handler")

    with logged() as lines:
        async with portico.serve(handler, ANYWHERE, proxied_by=["loopback"]) as server:
            async with guest(server, head()) as client:
                assert await client.is_over()
    assert server.stats.handler_errors == 1
    assert [line for line in lines if line.startswith(f"ERROR {CLIENT}: the handler failed")]


# TLS behind the header.


class ClientTLS:
    """TLS as a client on a plain socket, its records in the hands of the test."""

    def __init__(self, client: Client, certificates: Certificates) -> None:
        self.client = client
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=certificates.ca)
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.hello = self.outgoing.read()

    async def do(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                await self.client.send(self.outgoing.read())
                data = await self.client.recv()
                self.incoming.write(data) if data else self.incoming.write_eof()
            else:
                await self.client.send(self.outgoing.read())
                return result


@pytest.mark.parametrize("codec", [None, portico.Lines()], ids=["stream", "channel"])
@pytest.mark.parametrize("scheme", ["tls", "tcp"])
@scenario(on=EVERYWHERE, timeout=60)
async def test_tls_follows_the_header(scheme: str, codec: Any, certificates: Certificates) -> None:
    guests = Guests()
    settings = {"codec": codec, "tls": certificates.server(), "proxied_by": ["loopback"]}
    async with portico.serve(guests, f"{scheme}://127.0.0.1:0", **settings) as server:
        header = HEADS["v2"]
        for cut in (0, 1, 6, len(header) - 1, len(header), len(header) + 1, len(header) + 100):
            async with guest(server) as client:
                secure = ClientTLS(client, certificates)
                data, before = header + secure.hello, received(server)
                if cut:
                    await client.send(data[:cut])
                    await until(lambda before=before: received(server) != before or server.stats.handshakes)
                await client.send(data[cut:])
                await secure.do(secure.tls.do_handshake)
                secure.tls.write(b"hello\n")
                assert (await secure.do(secure.tls.read)).startswith(b"hello")
                connection = guests.seen[-1]
                assert connection.tls is not None and connection.tls.version == "TLSv1.3"
                assert connection.remote_address == CLIENT.replace(scheme="tls")
                assert connection.local_address == WANTED.replace(scheme="tls")
                assert server.stats.handshakes == 0
        assert server.stats.handshakes_failed == server.stats.proxy_headers_failed == 0


@scenario()
async def test_a_failed_handshake_is_the_clients(certificates: Certificates) -> None:
    guests = Guests()
    with logged() as lines:
        settings = {"tls": certificates.server(), "proxied_by": ["loopback"]}
        async with portico.serve(guests, "tls://127.0.0.1:0", **settings) as server:
            async with guest(server, head() + b"GET / HTTP/1.1\r\n\r\n") as client:
                with contextlib.suppress(ConnectionResetError):
                    await client.recv_all()
                await until(lambda: server.stats.open == 0)
            assert server.stats.handshakes_failed == 1
            assert server.stats.proxy_headers_failed == server.stats.handshakes == 0
    assert not guests.seen
    assert [line for line in lines if line.startswith("INFO tls://203.0.113.5:1000: ")]


@scenario()
async def test_header_and_tls_share_one_deadline(certificates: Certificates) -> None:
    guests = Guests()
    settings = {"tls": certificates.server(), "proxied_by": ["loopback"], "limits": Limits(handshake_timeout=0.3)}
    async with portico.serve(guests, "tls://127.0.0.1:0", **settings) as server:
        began = asyncio.get_running_loop().time()
        async with guest(server, head()) as client:
            assert await client.is_over()
        assert 0.2 < asyncio.get_running_loop().time() - began < 3
        await until(lambda: server.stats.open == 0)
        assert server.stats.handshakes_failed == 1 and server.stats.handshakes == 0
    assert not guests.seen


# Who is believed.


@scenario(on=EVERYWHERE)
async def test_nobody_but_the_proxies_may_connect() -> None:
    guests = Guests()
    limits = Limits(refusal=b"go away\n")
    async with portico.serve(guests, ANYWHERE, proxied_by=["127.0.0.2", "10.0.0.0/8"], limits=limits) as server:
        async with guest(server, source="127.0.0.3") as client:
            assert await client.recv_all() == b"go away\n"
        async with guest(server, head("127.0.0.2"), source="127.0.0.1") as client:
            with contextlib.suppress(ConnectionResetError):  # what it sent was never read
                await client.recv_all()
        async with guest(server, head() + b"hello", source="127.0.0.2") as client:
            assert await client.recv_exactly(5) == b"hello"
        assert server.stats.rejected_untrusted == server.stats.rejected == 2
        assert server.stats.as_dict()["rejected_untrusted"] == 2
        assert guests.hosts == ["203.0.113.5"]


@pytest.mark.parametrize("believed", [True, False])
@scenario()
async def test_proxies_on_a_unix_socket_are_believed_by_user(believed: bool, tmp_path: Path) -> None:
    guests = Guests()
    rule = f"uid:{os.getuid() + (not believed)}"
    async with portico.serve(guests, f"unix:{tmp_path}/server.sock", proxied_by=[rule]) as server:
        async with guest(server) as client:
            if believed:
                await client.send(head() + b"hello")
                assert await client.recv_exactly(5) == b"hello"
                assert (guests.seen[0].remote_address, guests.seen[0].local_address) == (CLIENT, WANTED)
            else:
                assert await client.is_over()
        assert server.stats.rejected_untrusted == (not believed)


@scenario()
async def test_a_memory_listener_takes_headers_too() -> None:
    guests = Guests()
    async with portico.serve(guests, "mem:behind", proxied_by=["loopback"]) as server:
        for data, expected in ((head(), CLIENT), (LOCAL, server.address)):
            stream = await portico.connect("mem:behind")
            await stream.send(data + b"hello")
            assert await stream.recv_exactly(5) == b"hello"
            assert guests.seen[-1].remote_address == expected
            await stream.close()
    async with portico.serve(guests, "mem:behind", proxied_by=["10.0.0.0/8"]) as server:
        stream = await portico.connect("mem:behind")
        assert await stream.recv() == b""
        await stream.close()
        assert server.stats.rejected_untrusted == 1


@pytest.mark.parametrize("wrong", ["loopback", [], ["neighbours"], ["10.0.0.1/8"], ["uid:x"]], ids=str)
def test_proxied_by_that_cannot_work_is_refused_at_once(wrong: Any) -> None:
    with pytest.raises(portico.ConfigurationError, match="proxied_by"):
        portico.Service().listen(ANYWHERE, echo, proxied_by=wrong)


# Limits go by the client.


@scenario()
async def test_connections_count_for_the_client_and_not_for_the_proxy() -> None:
    limits = Limits(max_per_address=2, trust_loopback=False, refusal=b"too many\n")
    async with portico.serve(wait_for_end, ANYWHERE, proxied_by=["loopback"], limits=limits) as server:
        async with contextlib.AsyncExitStack() as stack:
            for address in ("203.0.113.5", "203.0.113.5", "203.0.113.6", "::ffff:203.0.113.6", "2001:db8::1"):
                await stack.enter_async_context(guest(server, head(address)))
            await until(
                lambda: (
                    server.listeners[0].admission.counts
                    == {bytes([203, 0, 113, 5]): 2, bytes([203, 0, 113, 6]): 2, bytes.fromhex("20010db800000000"): 1}
                )
            )
            for address in ("203.0.113.5", "203.0.113.6"):
                async with guest(server, head(address)) as client:
                    assert await client.recv_all() == b"too many\n"
            assert server.stats.rejected_address == 2
        await until(lambda: server.stats.open == 0)
        assert server.listeners[0].admission.counts == {}


@scenario()
async def test_the_accept_rate_counts_by_the_client() -> None:
    limits = Limits(accept_rate=0.01, accept_burst=2, trust_loopback=False)
    guests = Guests()
    async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"], limits=limits) as server:
        for address, welcome in (("203.0.113.5", 1), ("203.0.113.5", 1), ("203.0.113.5", 0), ("203.0.113.6", 1)):
            async with guest(server, head(address) + b"x") as client:
                assert await client.recv() == b"x" if welcome else await client.is_over()
        assert server.stats.rejected_rate == 1
        assert guests.hosts == ["203.0.113.5", "203.0.113.5", "203.0.113.6"]


@pytest.mark.parametrize("secure", [False, True], ids=["tcp", "tls"])
@scenario()
async def test_allow_and_deny_go_by_the_client(secure: bool, certificates: Certificates) -> None:
    guests = Guests()
    settings: dict[str, Any] = {"allow": ["203.0.113.0/24", "uid:0"], "deny": ["203.0.113.66"]}
    if secure:
        settings["tls"] = certificates.server()
    unix = ProxyHeader(source=Address("unix", path="/a"), destination=Address("unix", path="/b")).encode()
    limits = Limits(refusal=b"denied\n")
    async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"], limits=limits, **settings) as server:
        for data in (head("203.0.113.66"), head("192.0.2.1"), head("127.0.0.1"), HEADS["unknown"], unix):
            async with guest(server, data) as client:
                if secure:
                    assert await client.is_over()
                else:
                    assert await client.recv_all() == b"denied\n"
        assert server.stats.rejected_denied == 5 and not guests.seen
        if not secure:
            async with guest(server, head("203.0.113.65") + b"x") as client:
                assert await client.recv() == b"x"


@scenario()
async def test_the_user_of_the_proxy_is_not_the_clients(tmp_path: Path) -> None:
    guests = Guests()
    allow = [f"uid:{os.getuid()}"]
    unix = ProxyHeader(source=Address("unix", path="/a"), destination=Address("unix", path="/b")).encode()
    async with portico.serve(guests, f"unix:{tmp_path}/s.sock", proxied_by=["loopback"], allow=allow) as server:
        async with guest(server, unix) as client:
            assert await client.is_over()
        assert server.stats.rejected_denied == 1 and not guests.seen
        async with guest(server, HEADS["unknown"] + b"x") as client:
            assert await client.recv() == b"x"


@scenario()
async def test_the_proxys_failures_take_nothing_off_the_clients_count() -> None:
    """Even where the client is on the proxy's own machine."""
    limits = Limits(trust_loopback=False)
    async with portico.serve(echo, ANYWHERE, proxied_by=["loopback"], limits=limits) as server:
        async with guest(server, head("127.0.0.1") + b"x") as client:
            assert await client.recv() == b"x"
            async with guest(server, b"nonsense") as another:
                assert await another.is_over()
            await until(lambda: server.stats.open == 1)
            assert server.listeners[0].admission.counts == {b"\x7f\0\0\1": 1}


@scenario()
async def test_a_health_check_is_let_in_and_counted_for_nobody() -> None:
    guests = Guests()
    limits = Limits(max_per_address=1, trust_loopback=False)
    allow = ["203.0.113.0/24"]
    async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"], limits=limits, allow=allow) as server:
        async with guest(server, LOCAL + b"a") as one, guest(server, LOCAL + b"b") as other:
            assert await one.recv() + await other.recv() == b"ab"
            for client, connection in zip((one, other), guests.seen, strict=True):
                assert connection.proxy_header.local
                assert connection.remote_address.sockaddr == client.sock.getsockname()
                assert connection.local_address == server.address
        assert server.listeners[0].admission.counts == {} and server.stats.rejected == 0


@scenario()
async def test_an_unknown_client_is_taken_for_the_proxy() -> None:
    guests = Guests()
    limits = Limits(max_per_address=1, trust_loopback=False)
    async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"], limits=limits) as server:
        for data in (HEADS["unknown"], ProxyHeader().encode()):
            async with guest(server, data + b"x") as client:
                assert await client.recv() == b"x"
                assert guests.seen[-1].remote_address.sockaddr == client.sock.getsockname()
                async with guest(server, data) as another:
                    assert await another.is_over()
            await until(lambda: server.stats.open == 0)
        assert server.stats.rejected_address == 2
