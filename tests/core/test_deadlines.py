"""Deadlines: silence, a message that dribbles, a peer that does not read; and no deadline outlives its connection."""

# ruff: noqa: B023 (every function is over before its loop goes on)

import asyncio
import contextlib
import gc
import itertools
import time
import weakref

import pytest

from portico._core import LengthPrefix, Settings, StreamBase, hub_of, memory_wires
from portico.errors import ClosedError

from .support import ALL, Server, connection, echo, run, scenario, until

SOME = ("tcp", "loop", "memory", "tls-tcp")


async def lost_by(peer, words):
    with pytest.raises(ClosedError, match=words) as caught:
        while True:
            await peer.recv()
    assert isinstance(caught.value.__cause__, TimeoutError)


@scenario(wires=ALL)
async def test_idle_timeout(net):
    near, far = await net.pair()
    client, server = connection(near), connection(far, idle_timeout=0.15)
    begun = time.monotonic()
    for _ in range(4):  # whoever talks is not idle
        await asyncio.sleep(0.08)
        client.send(b"x")
        assert await server.recv() == b"x"
    await lost_by(server, "idle_timeout")
    assert 0.4 < time.monotonic() - begun < 2 and server.settings.timeouts == 1
    with pytest.raises((EOFError, ClosedError)):
        await client.recv()
    await asyncio.gather(client.close(), server.wait_closed())


@scenario(wires=SOME)
async def test_message_timeout_ends_a_message_that_dribbles(net):
    for codec, data, limits in ((None, b"x", {}), (LengthPrefix(max_size=5), b"\0\0\1\0x", {})):
        near, far = await net.pair()
        client = connection(near, None)
        server = (
            connection(far, message_timeout=0.1, **limits)
            if codec is None
            else connection(far, codec, message_timeout=0.1)
        )
        client.send(b"ok\n" if codec is None else b"\0\0\0\2ok")
        assert await server.recv() == b"ok"
        await asyncio.sleep(0.15)  # between messages it does not count
        assert server.flags[0]
        client.send(data)

        async def dribble():
            while client.flags[0]:
                client.send(b"x")
                await asyncio.sleep(0.02)

        task = asyncio.create_task(dribble())
        begun = time.monotonic()
        if codec is not None:  # the rest of what is too large may not dribble for ever either
            with pytest.raises(ValueError):
                await server.recv()
        await lost_by(server, "message_timeout")
        assert 0.05 < time.monotonic() - begun < 1.5
        task.cancel()
        client.abort()
        await client.wait_closed()
        await server.wait_closed()


@scenario(wires=ALL)
async def test_send_timeout(net):
    near, far = await net.pair()
    client, server = connection(near, None, send_timeout=0.2), connection(far, None)
    begun = time.monotonic()
    client.send(b"x" * 12_000_000)
    await lost_by(client, "send_timeout")
    assert 0.15 < time.monotonic() - begun < 2
    async with asyncio.timeout(2):
        await client.wait_closed()
    server.abort()
    await server.wait_closed()


@scenario(wires=ALL)
async def test_a_peer_that_reads_slowly_is_no_peer_that_does_not_read(net):
    near, far = await net.pair()
    client, server = connection(near, None, send_timeout=0.25), connection(far, None)
    client.send(b"x" * 8_000_000)
    for _ in range(8):
        await server.recv_exactly(1_000_000)
        await asyncio.sleep(0.05)
    assert client.flags[0] and client.queued[1] == 0
    await asyncio.gather(client.close(), server.close())


@scenario(wires=SOME)
async def test_a_handler_that_does_not_read_is_not_the_peers_silence(net):
    near, far = await net.pair()
    client, server = connection(near, None), connection(far, idle_timeout=0.1, message_timeout=0.1, read_limit=10)
    client.send(b"one\ntwo\nthree\nfour\nhalf")
    await until(lambda: server.queued[0])
    await asyncio.sleep(0.3)
    assert server.flags[0]
    for word in (b"one", b"two", b"three", b"four"):
        assert await server.recv() == word
    client.send(b" a line\n")
    assert await server.recv() == b"half a line"
    await asyncio.gather(client.close(), server.close())


@scenario(wires=SOME)
async def test_close_is_not_put_off_by_other_deadlines(net):
    near, far = await net.pair()
    client, server = connection(near, idle_timeout=50, close_timeout=0.1), connection(far)
    await until(lambda: client.flags[0])
    client.send(b"x")
    assert await server.recv() == b"x"
    async with asyncio.timeout(1.5):
        await client.close()
    server.abort()
    await server.wait_closed()


def test_no_deadline_keeps_its_connection():
    async def main():
        hub = hub_of(asyncio.get_running_loop())

        class Watched(StreamBase):
            pass

        settings = Settings(idle_timeout=1000, message_timeout=1000, send_timeout=1000)
        alive = weakref.WeakSet()

        async def some(count):
            pairs = [memory_wires(hub) for _ in range(count)]
            streams = [Watched(wire, settings) for pair in pairs for wire in pair]
            alive.update(streams)
            for stream in streams:
                stream.send(b"x")
            for index, stream in enumerate(streams):
                assert await stream.recv() == b"x"
                if index % 3 == 0:
                    stream.abort()
                else:
                    stream.close()
            for stream in streams:
                await stream.wait_closed()

        await some(500)
        await asyncio.sleep(0)
        gc.collect()
        assert not len(alive)

    run("asyncio", main)


@scenario(wires=("tcp", "memory"))
async def test_many_deadlines_come_in_their_order(net):
    pairs = [await net.pair() for _ in range(60)]
    order, ends = [], []
    for index, (near, far) in enumerate(pairs):
        due = ((index * 37) % 60) * 0.01 + 0.05
        stream = connection(near, None, idle_timeout=due)
        stream.owner = lambda stream, due=due: order.append(due)
        ends.append(stream)
        ends.append(connection(far, None))
    for index in range(0, 60, 7):
        ends[2 * index].abort()
    count = len(range(0, 60, 7))

    async def follow(stream):
        with contextlib.suppress(ClosedError):  # the aborted ones
            assert await stream.recv() == b""
        stream.close()

    await asyncio.gather(*(follow(stream) for stream in ends[1::2]))
    await asyncio.gather(*(stream.wait_closed() for stream in ends))
    assert len(order) == 60
    timed = order[count:]
    assert all(later - sooner > -0.011 for sooner, later in itertools.pairwise(timed)), timed


@scenario(wires=SOME)
async def test_counters(net):
    async with Server(net, echo) as server:
        client = await server.connect()
        for _ in range(10):
            client.send(b"12345")
            assert await client.recv() == b"12345"
        for settings in (client.settings, server.connections[0].settings):
            assert (settings.messages_sent, settings.messages_received) == (10, 10)
            assert (settings.bytes_sent, settings.bytes_received) == (60, 60)
