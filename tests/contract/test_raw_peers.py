"""Plain sockets at one end: what is on the wire, and peers that misbehave."""

import asyncio
import contextlib
import socket
import struct

import pytest

import portico

from .codecs import FRAMINGS
from .support import MAKERS, contract, rest_of, spawn, turns
from .transports import PLAIN, TRANSPORTS

SOCKETS = [name for name in PLAIN if not TRANSPORTS[name].memory]
INET = [name for name in SOCKETS if TRANSPORTS[name].inet]
LINES = portico.Lines(text=False)


@contextlib.asynccontextmanager
async def raw_client(net, codec=None, limits=None):
    """Give a plain socket and the server's end of its connection."""
    arrived, over = asyncio.get_running_loop().create_future(), asyncio.Event()

    async def handler(connection):
        arrived.set_result(connection)
        await over.wait()

    async with net.serve(handler, codec, limits=limits) as server:
        address = server.address
        with socket.socket(address.family) as sock:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
            far = await arrived
            try:
                yield sock, far
            finally:
                sock.close()
                over.set()
                far.close()
                await far.wait_closed()


@contextlib.asynccontextmanager
async def raw_server(net, codec=None, **settings):
    """Give a plain socket and the client's end of a connection to it."""
    loop = asyncio.get_running_loop()
    address = portico.Address.parse(net.transport.address.format(dir=net.directory))
    with socket.socket(address.family) as listening:
        listening.bind(address.sockaddr)
        listening.listen()
        listening.setblocking(False)
        bound = portico.Address.from_sockaddr(address.scheme, address.family, listening.getsockname())
        near = await portico.connect(bound, codec=codec, timeout=5, **settings)
        sock, _ = await loop.sock_accept(listening)
        with sock:
            try:
                yield near, sock
            finally:
                sock.close()
                near.close()
                await near.wait_closed()


async def read_all(sock):
    loop, got = asyncio.get_running_loop(), bytearray()
    while data := await loop.sock_recv(sock, 65536):
        got += data
    return bytes(got)


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contract(SOCKETS, framing=FRAMINGS)
async def test_the_bytes_on_the_wire_are_the_codecs(net, framing):
    codec, messages = framing.codec(), [framing.message(i) for i in range(5)]
    frames = b"".join(codec.encode(message) for message in messages)
    async with raw_server(net, framing.codec()) as (near, sock):
        for message in messages:
            near.send(message)
        near.send_eof()
        assert await read_all(sock) == frames
        await asyncio.get_running_loop().sock_sendall(sock, frames)
        sock.shutdown(socket.SHUT_WR)
        assert [message async for message in near] == messages


@contract(SOCKETS)
async def test_one_turn_is_one_read_and_flush_needs_none(net):
    async with raw_server(net) as (near, sock):
        for word in (b"a", b"b", b"c"):
            near.send(word)
        with pytest.raises(BlockingIOError):
            sock.recv(100)
        assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"abc"
        near.send(b"flushed")
        flushed = near.flush()
        if net.native:
            assert sock.recv(100) == b"flushed"
            await flushed
        else:
            await flushed
            assert await asyncio.get_running_loop().sock_recv(sock, 100) == b"flushed"


@contract(INET, make=MAKERS)
async def test_a_reset_in_the_middle_of_a_message(net, make):
    for ends in (raw_client, lambda net, codec: swapped(raw_server(net, codec))):
        async with ends(net, LINES) as (sock, end):
            await asyncio.get_running_loop().sock_sendall(sock, b"whole\nhalf")
            assert await end.recv() == b"whole"
            receiving = spawn(end.recv(), MAKERS[make])
            await turns()
            reset(sock)
            with pytest.raises(portico.ClosedError) as caught:
                await receiving
            assert isinstance(caught.value.__cause__, ConnectionResetError) and not caught.value.clean
            with pytest.raises(portico.ClosedError) as caught:
                end.send(b"x")
            assert isinstance(caught.value.__cause__, ConnectionResetError)


@contextlib.asynccontextmanager
async def swapped(pair):
    async with pair as (one, other):
        yield other, one


@contract(SOCKETS)
async def test_a_peer_that_is_gone_for_good_is_noticed_by_sending(net):
    async with raw_server(net) as (near, sock):
        sock.close()
        with pytest.raises(portico.ClosedError) as caught:
            while True:
                await near.send(b"x" * 1000)
                await turns()
        assert isinstance(caught.value.__cause__, OSError)


@contract(SOCKETS)
async def test_last_words_before_the_peer_went_can_be_read(net):
    """The peer closed with our bytes unread, which is a reset; what it said before still counts."""
    async with raw_server(net) as (near, sock):
        await asyncio.get_running_loop().sock_sendall(sock, b"last words")
        sock.shutdown(socket.SHUT_WR)
        assert await near.recv_exactly(10) == b"last words"
        assert await near.recv() == b""
        near.send(b"into the void")
        await near.flush()
        sock.close()
        await turns()


@contract(SOCKETS)
async def test_close_ends_our_side_and_waits_for_the_peers(net):
    async with raw_server(net) as (near, sock):
        near.send(b"bye")
        closing = spawn(near.close())
        assert await read_all(sock) == b"bye"
        await turns(5)
        assert not closing.done()
        sock.close()
        await closing


@contract(INET)
async def test_abort_is_a_reset(net):
    async with raw_server(net) as (near, sock):
        near.abort()
        await near.wait_closed()
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(sock, 10)


@contract(SOCKETS)
async def test_a_peer_that_sends_all_at_once_is_held_back(net):
    limits = portico.Limits(read_buffer=10_000)
    async with raw_client(net, limits=limits) as (sock, far):
        sending = spawn(asyncio.get_running_loop().sock_sendall(sock, b"x" * 12_000_000))
        await turns(50)
        assert not sending.done() and far.queued[0] < 1_000_000
        assert await far.recv_exactly(12_000_000) == b"x" * 12_000_000
        await sending
        sock.shutdown(socket.SHUT_WR)
        assert await rest_of(far) == b""
