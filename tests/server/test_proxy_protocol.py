"""Listeners behind a proxy: who is believed, what a header changes, and headers forged, late, cut, too long."""

import asyncio
import contextlib
import logging
import os
import ssl
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import portico
from portico import Address, Limits, ProxyHeader
from portico.protocols.proxy_header import SIGNATURE, TLV

from .support import EVERYWHERE, Certificates, Client, certificates, client_of, echo, scenario, until, wait_for_end

__all__ = ["certificates"]
ANYWHERE = "tcp://127.0.0.1:0"
CLIENT, WANTED = Address.parse("tcp://203.0.113.5:1000"), Address.parse("tcp://198.51.100.7:443")


def head(client: str = "203.0.113.5", *, version: int = 2, tlvs: Any = ()) -> bytes:
    """The header of a client's connection."""
    source = Address("tcp", client, 1000)
    wanted = Address("tcp", "2001:db8::7", 443) if ":" in client else WANTED
    return ProxyHeader(version, source=source, destination=wanted, tlvs=tlvs).encode()  # type: ignore[arg-type]


LOCAL = ProxyHeader(local=True).encode()
HEADS = {
    "v1": head(version=1),
    "v1-tcp6": head("2001:db8::5", version=1),
    "v2": head(),
    "v2-tlvs": head("2001:db8::5", tlvs=((TLV.AUTHORITY, b"example.org"), (TLV.CRC32C, b""))),
    "local": LOCAL,
    "unknown": b"PROXY UNKNOWN\r\n",
}


class Guests:
    """A handler that keeps what it is called with, then echoes."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    async def __call__(self, connection: Any) -> None:
        self.seen.append(connection)
        await echo(connection)

    @property
    def hosts(self) -> list[str]:
        return [each.remote_address.host for each in self.seen]


class Lines(logging.Handler):
    """Keeps what the server logs from INFO on."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(f"{record.levelname} {record.getMessage()}")


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
    logger, lines = logging.getLogger("portico.server"), Lines()
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        yield lines.seen
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)


@contextlib.asynccontextmanager
async def guest(server: portico.Server, data: bytes = b"", source: str | None = None) -> Any:
    """A plain socket connected to the server, which has sent `data`."""
    client = await client_of(server.address, source)
    try:
        await client.send(data)
        yield client
    finally:
        client.close()


def received(server: portico.Server) -> int:
    return server.listeners[0].settings.bytes_received


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
                assert len(guests.seen) == cut - (cut < len(data) - 5)
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


# Bad days.


BAD = {
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    "version-3": SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
    "command": SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
    "family": SIGNATURE + b"\x21\x51\x00\x0c" + bytes(12),
    "short-addresses": SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
    "signature-cut-wrong": SIGNATURE[:-1] + b"\r\x21\x11\x00\x00",
    "endless-line": b"PROXY UNKNOWN " + b"x" * 200,
    "bad-port": b"PROXY TCP4 1.2.3.4 1.2.3.4 99999 1\r\n",
    "bad-address": b"PROXY TCP4 1.2.3.400 1.2.3.4 1 1\r\n",
    "oversize": SIGNATURE + b"\x21\x11\xff\xff",
    "checksum": head(tlvs=((TLV.CRC32C, b""),))[:-1] + b"?",
    "tlv-beyond-the-end": SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 16) + bytes(12) + b"\x01\xff\xff\x00",
}


@pytest.mark.parametrize("name", BAD)
@scenario(on=EVERYWHERE)
async def test_a_forged_header_ends_the_connection(name: str) -> None:
    guests = Guests()
    with logged() as lines:
        async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"]) as server:
            async with guest(server, BAD[name]) as client:
                proxy = "tcp://{}:{}".format(*client.sock.getsockname())
                assert await client.is_over()
                await until(lambda: server.stats.open == 0, 1)  # at once, though the proxy does not close
            assert server.stats.proxy_headers_failed == 1 and server.stats.handshakes == 0
            async with guest(server, head() + b"x") as client:
                assert await client.recv() == b"x"
    assert guests.hosts == ["203.0.113.5"]
    assert [line for line in lines if line.startswith(f"INFO {proxy}: ")] == lines, lines


@scenario()
async def test_a_larger_header_is_taken_where_the_limit_says_so() -> None:
    data = head(tlvs=((0xE0, bytes(9000)),))
    guests = Guests()
    for size, taken in ((len(data) - 1, False), (len(data), True)):
        limits = Limits(max_proxy_header=size, read_buffer=1024)
        async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"], limits=limits) as server:
            async with guest(server, data + b"x") as client:
                assert await client.recv() == b"x" if taken else await client.is_over()
            assert server.stats.proxy_headers_failed == (not taken)
    assert guests.seen[0].proxy_header.tlv(0xE0) == bytes(9000)


@pytest.mark.parametrize("part", [b"", b"P", b"PROXY TCP4 1.2.3.4", SIGNATURE, head()[:-1]], ids=len)
@scenario()
async def test_a_header_that_is_late_or_never_comes_ends_the_connection(part: bytes) -> None:
    guests = Guests()
    with logged() as lines:
        limits = Limits(handshake_timeout=0.2)
        async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"], limits=limits) as server:
            async with guest(server, part) as client:
                assert await client.is_over()
            async with guest(server, part) as client:
                client.end()
                assert await client.is_over()
            async with guest(server, part) as client:
                client.reset()
                await until(lambda: server.stats.proxy_headers_failed == 3)
            await until(lambda: server.stats.open == 0)
            assert server.stats.handshakes == 0
    assert not guests.seen
    assert "within 0.2 s (handshake_timeout)" in lines[0] and "the connection ended" in lines[1]


@scenario()
async def test_a_trickled_header_gets_no_more_time() -> None:
    limits = Limits(handshake_timeout=0.3)
    async with portico.serve(echo, ANYWHERE, proxied_by=["loopback"], limits=limits) as server:
        async with guest(server) as client:

            async def trickle() -> None:
                for byte in b"PROXY UNKNOWN " + b"x" * 80:
                    await client.send(bytes([byte]))
                    await asyncio.sleep(0.05)

            sending = asyncio.create_task(trickle())
            async with asyncio.timeout(3):
                assert await client.is_over()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        assert server.stats.proxy_headers_failed == 1


@scenario(on=EVERYWHERE)
async def test_a_flood_behind_the_header_waits_in_the_kernel() -> None:
    """What comes before the header is judged, and behind it, is bounded by the read buffer."""
    waiting = asyncio.Event()

    async def handler(stream: portico.Stream) -> None:
        await waiting.wait()

    limits = Limits(read_buffer=64 * 1024)
    async with portico.serve(handler, ANYWHERE, proxied_by=["loopback"], limits=limits) as server:

        def queued() -> list[int]:
            connections = [each.connection for each in server.listeners[0].sessions]
            return [each.queued[0] for each in connections if each is not None]

        async with guest(server, head()) as client:
            flood = asyncio.create_task(client.send(bytes(30 << 20)))
            await until(lambda: max(queued(), default=0) > 64 * 1024)
            await asyncio.wait([flood], timeout=0.3)
            assert not flood.done()
            assert max(queued()) < 1 << 20
            flood.cancel()
            await asyncio.gather(flood, return_exceptions=True)
        waiting.set()


@scenario()
async def test_headers_awaited_count_as_handshakes() -> None:
    guests = Guests()
    limits = Limits(max_handshakes=2)
    async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"], limits=limits) as server:
        async with guest(server) as one, guest(server) as other:
            await until(lambda: server.stats.handshakes == 2)
            async with guest(server, head("203.0.113.9") + b"x") as third:
                assert server.stats.accepted == 2 and server.stats.paused == 1
                await one.send(head() + b"x")
                assert await one.recv() == b"x"
                assert await third.recv() == b"x"
            await other.send(b"nonsense")
            assert await other.is_over()
            await until(lambda: server.stats.handshakes == 0)
        assert guests.hosts == ["203.0.113.5", "203.0.113.9"]


@scenario()
async def test_connections_without_a_header_yet_count_for_max_connections() -> None:
    limits = Limits(max_connections=2, when_full="reject", refusal=b"full\n")
    async with portico.serve(echo, ANYWHERE, proxied_by=["loopback"], limits=limits) as server:
        async with guest(server), guest(server):
            await until(lambda: server.stats.open == 2)
            async with guest(server) as third:
                assert await third.recv_all() == b"full\n"
            assert server.stats.rejected_full == 1
        await until(lambda: server.stats.open == 0)
        async with guest(server, head() + b"x") as client:
            assert await client.recv() == b"x"


@pytest.mark.parametrize("end", ["drain", "abort", "leave"])
@pytest.mark.parametrize("data", [b"", SIGNATURE, head() + b"\x16\x03"], ids=["nothing", "part", "in-tls"])
@scenario(on=EVERYWHERE)
async def test_the_server_may_end_at_any_time(end: str, data: bytes, certificates: Certificates) -> None:
    guests = Guests()
    settings = {"tls": certificates.server(), "proxied_by": ["loopback"]}
    async with portico.serve(guests, "tls://127.0.0.1:0", **settings) as server:
        async with guest(server, data) as client:
            await until(lambda: server.stats.handshakes == 1 and (received(server) > 0 or not data))
            if end != "leave":
                await (server.drain(0.05) if end == "drain" else server.abort())
                assert await client.is_over()
                assert server.stats.open == server.stats.handshakes == 0 and server.stats.aborted == 1
    assert not guests.seen and server.stats.open == server.stats.handshakes == 0


@scenario(on=EVERYWHERE)
async def test_the_server_may_end_while_the_connection_is_being_set_up() -> None:
    async with portico.serve(echo, ANYWHERE, proxied_by=["loopback"]) as server:
        async with guest(server) as client:
            while not server.stats.accepted:
                await asyncio.sleep(0)
            await asyncio.wait_for(server.abort(), 2)
            assert await client.is_over()
            assert server.stats.open == server.stats.handshakes == 0


@scenario(on=EVERYWHERE)
async def test_a_proxy_that_resets_at_any_point_leaves_nothing() -> None:
    guests = Guests()
    data = head() + b"hello"
    async with portico.serve(guests, ANYWHERE, proxied_by=["loopback"]) as server:
        for cut in range(len(data) + 1):
            async with guest(server, data[:cut]) as client:
                client.reset()
        await until(lambda: server.stats.accepted == len(data) + 1 and not server.stats.open)
        assert server.stats.handshakes == 0 and not server.listeners[0].admission.counts
        assert server.stats.handler_errors == server.stats.aborted == 0
