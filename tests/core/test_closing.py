"""Closing: in order, in bounded time, from anywhere; and what a lost peer looks like."""

import asyncio
import gc
import socket
import struct
import time
import warnings

import pytest
from leaks import descriptors, opened_since

from portico._core import Lines, LoopWire, driven, hub_of
from portico.errors import ClosedError, EndOfStream

from .support import (
    ALL,
    LOOPS,
    PLAIN,
    Net,
    Server,
    connection,
    echo,
    native,
    plain,
    scenario,
    socket_pair,
    turns,
    until,
)

RESET = struct.pack("ii", 1, 0)
SOME = ("tcp", "loop", "memory", "tls-tcp")


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    sock.close()


@scenario(wires=ALL)
async def test_close_sends_what_is_queued(net):
    async def handler(channel):
        for i in range(2000):
            channel.send(b"%d" % i * 50)
        channel.close()
        channel.close()

    async with Server(net, handler) as server:
        client = await server.connect()
        assert len([message async for message in client]) == 2000


@scenario(wires=ALL)
async def test_half_close(net):
    async def handler(channel):
        words = [message async for message in channel]
        await asyncio.sleep(0.01)
        await channel.send(b"%d words" % len(words))

    async with Server(net, handler) as server:
        client = await server.connect()
        client.send(b"a")
        client.send(b"b")
        client.send_eof()
        assert client.flags == (True, False, False, False)
        assert await client.recv() == b"2 words"
        assert [message async for message in client] == []


@scenario(wires=ALL)
async def test_answers_to_what_came_before_the_end(net):
    async with Server(net, echo) as server:
        client = await server.connect()
        client.send(b"a")
        client.send(b"b")
        client.send_eof()
        assert [message async for message in client] == [b"a", b"b"]


@scenario(wires=ALL)
async def test_abort_may_be_called_twice_and_ends_the_peer(net):
    ended = asyncio.Event()

    async def handler(channel):
        with pytest.raises((ClosedError, EndOfStream)):
            while True:
                await channel.recv()
        ended.set()

    async with Server(net, handler) as server:
        client = await server.connect()
        client.send(b"x")
        await client.flush()
        client.abort()
        client.abort()
        client.close()
        with pytest.raises(ClosedError) as caught:
            await client.recv()
        assert caught.value.clean
        with pytest.raises(ClosedError):
            client.send(b"x")
        await ended.wait()


@scenario(wires=("tcp", "loop"))
async def test_a_reset_has_its_cause(net):
    loop = asyncio.get_running_loop()
    hub_wire, sock = await half(net, loop)
    channel = connection(hub_wire)
    sock.send(b"whole\nhal")
    assert await channel.recv() == b"whole"
    reset(sock)
    for _ in range(2):
        with pytest.raises(ClosedError) as caught:
            await channel.recv()
        assert isinstance(caught.value.__cause__, ConnectionResetError) and not caught.value.clean
    with pytest.raises(ClosedError):
        async for _ in channel:
            raise AssertionError
    with pytest.raises(ClosedError) as caught:
        channel.send(b"x")
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert isinstance(channel.cause, ConnectionResetError)
    await channel.close()


async def half(net, loop):
    """Return a wire of the engine and the plain socket at its other end."""
    one, other = socket_pair(net.kind == "unix")
    if net.kind == "loop":
        _, wire = await loop.connect_accepted_socket(lambda: LoopWire(hub_of(loop)), one)
        return wire, other
    return native(one), other


@scenario(wires=("tcp", "loop"))
async def test_a_stream_keeps_what_came_before_a_reset(net):
    wire, sock = await half(net, asyncio.get_running_loop())
    stream = connection(wire, None)
    sock.send(b"0123456789")
    assert await stream.recv(3) == b"012"
    sock.send(b"abc")
    await until(lambda: stream.queued[0] > 10)
    reset(sock)
    await until(lambda: stream.flags[3])
    assert await stream.recv(2) == b"34" and await stream.recv_until(b"9") == b"5678"
    with pytest.raises(ClosedError) as caught:
        await stream.recv_exactly(4)
    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert await stream.recv() == b"abc"
    with pytest.raises(ClosedError):
        await stream.recv()


@scenario(wires=("tcp",))
async def test_a_reset_that_our_own_send_meets_is_no_clean_end(net):
    wire, sock = await half(net, None)
    channel = connection(wire)
    sock.send(b"x\n")
    assert await channel.recv() == b"x"
    reset(sock)
    channel.send(b"late")
    with pytest.raises(ClosedError) as caught:
        async for _ in channel:
            raise AssertionError
    assert isinstance(caught.value.__cause__, ConnectionError)


@scenario(wires=("tcp", "unix"))
async def test_the_last_words_of_a_peer_that_left_while_we_send(net):
    """Its close resets the connection, as it has not read all that we sent."""
    for count in (1, 4_000_000):
        wire, sock = await half(net, None)
        channel = connection(wire, Lines(text=False, max_size=1 << 24))
        channel.send(b"x" * count)
        await turns()
        sock.send(b"too much\nbye\n")
        sock.close()
        sent = 0
        with pytest.raises(ClosedError):
            while sent < 50_000_000:
                await channel.send(b"y" * 10_000)
                sent += 10_000
        assert await channel.recv() == b"too much" and await channel.recv() == b"bye"
        with pytest.raises((ClosedError, EndOfStream)):
            await channel.recv()
        await channel.close()


@scenario(wires=SOME)
async def test_a_handler_error_closes_that_connection_alone(net):
    async def handler(channel):
        async for message in channel:
            if message == b"boom":
                raise ValueError("boom")
            await channel.send(message)

    async with Server(net, handler) as server:
        good, bad = await server.connect(), await server.connect()
        bad.send(b"boom")
        good.send(b"fine")
        assert await good.recv() == b"fine"
        assert [message async for message in bad] == []
        good.send(b"fine")
        assert await good.recv() == b"fine"
        assert isinstance(server.errors.pop(), ValueError)


@scenario(wires=ALL)
async def test_closed_means_closed(net):
    async with Server(net, echo) as server:
        client = await server.connect()
        client.send(b"x")
        assert await client.recv() == b"x"
        await client.close()
        assert client.flags == (False, True, False, True) or client.flags == (False, False, False, True)
        await client.close()
        await client.wait_closed()
        client.send_eof()
        with pytest.raises(ClosedError) as caught:
            client.send(b"y")
        assert caught.value.clean
        with pytest.raises(ClosedError):
            await client.flush()
        assert client.cause is None


@scenario(wires=ALL)
async def test_close_takes_at_most_close_timeout_where_the_peer_does_not_read(net):
    near, far = await net.pair()
    client, server = connection(near, None, close_timeout=0.2), connection(far, None)
    await turns(20)
    client.send(b"x" * 12_000_000)
    begun = time.monotonic()
    await client.close()
    assert 0.15 < time.monotonic() - begun < 1.5
    server.abort()
    await server.wait_closed()


@scenario(wires=PLAIN)
async def test_a_peer_that_never_ends_is_not_waited_for(net):
    """What it still sends is read and dropped, so that no reset overtakes our last words."""
    near, far = await net.pair()
    client, server = connection(near, None, close_timeout=0.3), connection(far, None)
    client.send(b"bye")
    server.send(b"x" * 500_000)
    begun = time.monotonic()
    await client.close()
    assert 0.2 < time.monotonic() - begun < 1.5
    assert await server.recv_exactly(3) == b"bye"
    assert await server.recv() == b""
    server.abort()
    await server.wait_closed()


@scenario(wires=ALL)
async def test_closed_on_both_sides_at_once(net):
    near, far = await net.pair()
    client, server = connection(near), connection(far)
    client.send(b"a")
    server.send(b"b")
    async with asyncio.timeout(1.5):
        await asyncio.gather(client.close(), server.close())
    assert client.cause is None and server.cause is None


@scenario(wires=ALL)
async def test_close_is_quick_when_the_peer_ends_too(net):
    async with Server(net, echo) as server:
        for make in (driven, plain):
            server.make = make
            client = await server.connect()
            client.send(b"x")
            assert await client.recv() == b"x"
            async with asyncio.timeout(1.5):
                await client.close()
                await server.connections[-1].wait_closed()


@scenario(wires=ALL)
async def test_the_owner_is_told_once(net):
    near, far = await net.pair()
    client, server = connection(near), connection(far)
    told = []
    client.owner, server.owner = told.append, told.append
    await asyncio.gather(client.close(), server.close())
    await turns()
    assert sorted(map(id, told)) == sorted((id(client), id(server)))


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("wire", ["tcp", "memory", "tls-tcp", "loop"])
def test_a_loop_closed_under_its_connections_is_collected(loop, wire):
    """Handlers are parked, others wait; all of it goes, descriptors included."""
    seen = []

    async def handler(channel):
        try:
            async for message in channel:
                channel.send(message)
        finally:
            seen.append("finally")
            channel.close()
            channel.abort()

    async def start():
        server = Server(Net(wire), handler)
        client = await server.connect()
        client.send(b"x")
        assert await client.recv() == b"x"
        client.send(b"y")
        return server, client

    gc.collect()
    before = descriptors()
    running = LOOPS[loop]()
    running.set_exception_handler(lambda loop, context: None)
    objects = running.run_until_complete(start())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        running.close()
        del objects, running
        for _ in range(3):
            gc.collect()
    assert seen
    assert opened_since(before) == {}
