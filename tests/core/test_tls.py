"""TLS upon any wire: half-close in both versions, truncation, bad peers, and nothing held back."""

# ruff: noqa: B023 (every function is over before its loop goes on)

import asyncio
import os
import socket
import ssl

import pytest

from portico._core import LoopWire, TLSWire, driven, hub_of
from portico.errors import ClosedError

from .support import SECURE, Net, client_tls, connection, native, scenario, server_tls, socket_pair, turns, until


async def wire_to(kind):
    """Return a plain wire of the engine and the socket at its other end."""
    one, other = socket_pair()
    if kind == "tls-tcp":
        return native(one), other
    loop = asyncio.get_running_loop()
    _, wire = await loop.connect_accepted_socket(lambda: LoopWire(hub_of(loop)), one)
    return wire, other


def guarded(wire, **options):
    """Return a TLS wire of the server's side upon `wire`, and the future of its handshake."""
    done = asyncio.get_running_loop().create_future()

    def on_handshake(error):
        assert not done.done()
        done.set_result(None) if error is None else done.set_exception(error)

    return TLSWire(wire, server_tls(), server_side=True, on_handshake=on_handshake, **options), done


class Peer:
    """A TLS client made of the standard library's parts, on a plain socket, that the test moves by hand."""

    def __init__(self, sock, newest=True):
        self.sock, self.loop = sock, asyncio.get_running_loop()
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = client_tls()
        if not newest:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    async def leave(self, pieces=False):
        data = self.outgoing.read()
        for piece in [data[i : i + 1] for i in range(len(data))] if pieces else [data]:
            await self.loop.sock_sendall(self.sock, piece)
            if pieces:
                await asyncio.sleep(0)

    async def do(self, function, *args, pieces=False):
        """Call `function` of the ssl object until it needs no more input."""
        while True:
            try:
                result = function(*args)
            except ssl.SSLWantReadError:
                await self.leave(pieces)
                data = await self.loop.sock_recv(self.sock, 65536)
                self.incoming.write(data) if data else self.incoming.write_eof()
                continue
            await self.leave(pieces)
            return result


@scenario(wires=SECURE)
async def test_half_close_with_both_versions(net):
    """Either side ends first; the other's words still arrive, also those that came in the same read as its end."""
    for newest in (True, False):
        for first in (0, 1):
            ends = [connection(wire, None) for wire in await Net(net.kind, newest_tls=newest).pair()]
            one, other = ends[first], ends[1 - first]
            one.send(b"last words")
            one.send_eof()
            assert await other.recv_exactly(10) == b"last words" and await other.recv() == b""
            for _ in range(3):
                await other.send(b"x" * 100_000)
                assert len(await one.recv_exactly(100_000)) == 100_000
            other.send(b"and out")
            other.send_eof()
            assert await one.recv_exactly(7) == b"and out" and await one.recv() == b""
            version = one.wire.ssl_object.version()
            assert version == ("TLSv1.3" if newest else "TLSv1.2")
            async with asyncio.timeout(1):
                await asyncio.gather(one.close(), other.close())
            assert one.cause is None and other.cause is None


@scenario(wires=SECURE)
async def test_ends_that_cross_data_on_its_way(net):
    """send_eof while the peer's data lies unread in the TLS layer, or is paused below it."""
    for newest in (True, False):
        near, far = await Net(net.kind, newest_tls=newest).pair()
        client, server = connection(near, None, read_limit=1000), connection(far, None)
        server.send(b"x" * 600_000)
        client.send(b"y")
        await until(lambda: client.queued[0])
        client.send_eof()
        assert await server.recv() == b"y" and await server.recv() == b""
        server.send(b"z")
        server.send_eof()
        assert await client.recv_exactly(600_001) == b"x" * 600_000 + b"z"
        assert await client.recv() == b""
        await asyncio.gather(client.close(), server.close())


@scenario(wires=("tls-tcp", "tls-loop"))
async def test_a_peer_that_ends_without_close_notify_may_have_cut_us_short(net):
    wire, sock = await wire_to(net.kind)
    secure, handshake = guarded(wire)
    channel = connection(secure)
    secure.start()
    peer = Peer(sock)
    await peer.do(peer.tls.do_handshake)
    await handshake
    await peer.do(peer.tls.write, b"whole\nhal")
    assert await channel.recv() == b"whole"
    sock.shutdown(socket.SHUT_WR)
    with pytest.raises(ClosedError, match="close_notify") as caught:
        await channel.recv()
    assert isinstance(caught.value.__cause__, ConnectionAbortedError) and not caught.value.clean
    async with asyncio.timeout(0.8):
        while await peer.loop.sock_recv(sock, 65536):
            pass
    sock.close()


@scenario(wires=("tls-tcp", "tls-loop"))
async def test_a_handshake_one_byte_at_a_time(net):
    for newest in (True, False):
        wire, sock = await wire_to(net.kind)
        secure, handshake = guarded(wire)
        stream = connection(secure, None)
        secure.start()
        peer = Peer(sock, newest)
        await peer.do(peer.tls.do_handshake, pieces=True)
        await handshake
        await peer.do(peer.tls.write, b"dribbled", pieces=True)
        assert await stream.recv_exactly(8) == b"dribbled"
        stream.send(b"answer")
        assert await peer.do(peer.tls.read, 100) == b"answer"
        stream.close()
        assert await peer.do(peer.tls.read, 100) == b""
        sock.close()
        await stream.wait_closed()


@scenario(wires=("tls-tcp", "tls-loop"))
async def test_garbage_instead_of_tls_is_answered_by_an_alert(net):
    wire, sock = await wire_to(net.kind)
    secure, handshake = guarded(wire)
    stream = connection(secure, None)
    secure.start()
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ssl.SSLError):
        await handshake
    with pytest.raises(ClosedError) as caught:
        await stream.recv()
    assert isinstance(caught.value.__cause__, ssl.SSLError)
    answer = b""
    while data := await loop.sock_recv(sock, 100):
        answer += data
    assert answer[:1] in (b"\x15", b"")  # an alert record, where OpenSSL has one for this
    sock.close()
    await stream.wait_closed()


@scenario(wires=("tls-tcp", "tls-loop"))
async def test_a_client_that_refuses_the_certificate_is_heard(net):
    wire, sock = await wire_to(net.kind)
    secure, handshake = guarded(wire)
    stream = connection(secure, None)
    secure.start()
    peer = Peer(sock)
    strict = ssl.create_default_context()
    peer.tls = strict.wrap_bio(peer.incoming, peer.outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLCertVerificationError):
        await peer.do(peer.tls.do_handshake)
    await peer.leave()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert|unknown ca"):
        await handshake
    sock.close()
    await stream.wait_closed()
    await turns()


@scenario(wires=("tls-tcp", "tls-loop"))
async def test_an_alert_reaches_the_peer(net):
    """A server that asks for a certificate tells why it turns the client away, before it closes."""
    wire, sock = await wire_to(net.kind)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    secure = TLSWire(wire, context, server_side=True)  # without a certificate nothing can be agreed on
    stream = connection(secure, None)
    secure.start()
    peer = Peer(sock)
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        await peer.do(peer.tls.do_handshake)
    sock.close()
    await stream.wait_closed()


@scenario(wires=("tls-tcp", "tls-loop"))
async def test_a_handshake_that_takes_too_long(net):
    for first in (b"", b"\x16\x03\x01"):
        wire, sock = await wire_to(net.kind)
        secure, handshake = guarded(wire, timeout=0.1)
        stream = connection(secure, None)
        secure.start()
        await asyncio.get_running_loop().sock_sendall(sock, first)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(handshake, 2)
        with pytest.raises(ClosedError) as caught:
            await stream.recv()
        assert isinstance(caught.value.__cause__, TimeoutError)
        sock.close()


@scenario(wires=("tls-tcp", "tls-loop"))
async def test_a_peer_that_leaves_in_the_handshake(net):
    for leave in ("eof", "reset"):
        wire, sock = await wire_to(net.kind)
        secure, handshake = guarded(wire)
        stream = connection(secure, None)
        secure.start()
        if leave == "reset":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()
        with pytest.raises(EOFError if leave == "eof" else ConnectionResetError):
            await asyncio.wait_for(handshake, 2)
        await asyncio.wait_for(stream.wait_closed(), 0.5)


@scenario(wires=SECURE)
async def test_what_came_before_a_connection_stood_on_the_wire(net):
    """A wire whose handshake ends before anyone is attached keeps what comes."""
    for end in (False, True):
        near, far = await net.plain_pair()
        secure, handshake = guarded(far)
        client_wire = TLSWire(near, client_tls(), server_side=False, server_name="localhost")
        client = connection(client_wire)
        secure.start()
        client_wire.start()
        client.send(b"early")
        if end:
            client.send_eof()
        await handshake
        await turns(20)
        server = connection(secure)
        assert await server.recv() == b"early"
        if end:
            assert [message async for message in server] == []
        client.send(b"x") if not end else None
        assert end or await server.recv() == b"x"
        await asyncio.gather(client.close(), server.close())


@scenario(wires=SECURE)
async def test_large_records_both_ways_at_once(net):
    near, far = await net.pair()
    ends = [connection(near, None), connection(far, None)]
    data = os.urandom(3_000_000)

    async def body(stream):
        for i in range(0, len(data), 100_000):
            await stream.send(data[i : i + 100_000])
            assert await stream.recv_exactly(100_000) == data[i : i + 100_000]

    await asyncio.gather(*(asyncio.create_task(driven(body(end))) for end in ends))
    await asyncio.gather(*(end.close() for end in ends))
