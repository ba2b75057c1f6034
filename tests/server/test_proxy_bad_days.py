"""Bad days of the PROXY protocol: forged, late and endless headers, and servers and proxies that end at any time."""

import asyncio
import struct

import pytest

import portico
from portico import Limits
from portico.protocols.proxy_header import SIGNATURE, TLV

from .proxy_kit import ANYWHERE, Guests, guest, head, logged, received
from .support import EVERYWHERE, Certificates, certificates, echo, scenario, until

__all__ = ["certificates"]


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
