"""Sending: in order, one write a turn, bounded by watermarks, and flushed on request."""

# ruff: noqa: B023 (every function is over before its loop goes on)

import asyncio
import os
import random

import pytest

from portico._core import LengthPrefix, Lines, driven, send_all
from portico.errors import ClosedError, LimitError

from .support import ALL, BYTES, Fed, Server, connection, echo, plain, received, scenario, turns, until

SOME = ("tcp", "loop", "memory", "tls-tcp")


async def sends(client, count, size=1000):
    for i in range(count):
        await client.send((b"%d " % i).ljust(size, b"."))


async def settled(what):
    """Wait until `what()` stays the same for a tenth of a second; return it."""
    before = None
    while (now := what()) != before:
        before = now
        await asyncio.sleep(0.1)
    return now


@scenario(wires=ALL)
async def test_a_slow_reader_gets_everything_in_order(net):
    async def handler(channel):
        async for message in channel:
            i = int(message)
            for j in range(50):
                channel.send(b"%d %d %s" % (i, j, b"z" * 200))
            if i % 7 == 0:
                await channel.send(b"%d 50 %s" % (i, b"y" * 20_000))
            if i % 11 == 0:
                await channel.send(bytearray(b"%d 51 %s" % (i, b"w" * 9_000)))

    async with Server(net, handler) as server:
        client, total = await server.connect(read_limit=4096), 300

        async def ask():
            for i in range(total):
                await client.send(b"%d" % i)
                if i % 100 == 0:
                    await asyncio.sleep(0.01)

        task = asyncio.create_task(ask())
        for i in range(total):
            for j in [*range(50), *([50] if i % 7 == 0 else []), *([51] if i % 11 == 0 else [])]:
                first, second, _ = (await client.recv()).split(b" ")
                assert (int(first), int(second)) == (i, j)
            if i % 50 == 0:
                await asyncio.sleep(0.02)
        await task


@scenario(wires=ALL)
async def test_send_waits_for_room_and_a_loss_wakes_all_that_wait(net):
    async def handler(channel):
        await asyncio.Event().wait()

    async with Server(net, handler) as server:
        client, sent = await server.connect(), 0

        async def pump():
            nonlocal sent
            for _ in range(30_000):
                await client.send(b"x" * 1000)
                sent += 1

        tasks = [asyncio.create_task(driven(pump()) if i % 2 else pump()) for i in range(8)]
        await settled(lambda: sent)
        assert sent < 100_000 and client.queued[1] < 400_000
        tasks[0].cancel()
        tasks[1].cancel()
        await turns()
        server.connections[0].abort()
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        assert all(isinstance(result, asyncio.CancelledError) for result in results[:2])
        assert all(isinstance(result, ClosedError) for result in results[2:]), results
        server.tasks[0].cancel()


@scenario(wires=ALL)
async def test_room_comes_back(net):
    async with Server(net, echo) as server:
        client, total = await server.connect(), 4000
        task = asyncio.create_task(driven(sends(client, total)))
        for i in range(total):
            assert (await client.recv()).startswith(b"%d " % i)
        await task


@scenario(wires=ALL)
async def test_large_payloads_are_sent_from_where_they_are(net):
    for codec in (Lines(text=False, max_size=1 << 24), LengthPrefix(max_size=1 << 24)):
        async with Server(net, echo, codec) as server:
            client = await server.connect()
            sizes = [random.choice((0, 1, 100, 8191, 8192, 8193, 70_000, 300_000)) for _ in range(200)]
            payloads = [bytes([65 + i % 26]) * size for i, size in enumerate(sizes)]

            async def pump():
                for i, payload in enumerate(payloads):
                    awaitable = client.send(payload)
                    if i % 37 == 36:
                        await awaitable

            task = asyncio.create_task(driven(pump()))
            for payload in payloads:
                assert await client.recv() == payload
            await task


@scenario(wires=ALL)
async def test_large_transfers_both_ways_stay_bounded(net):
    """Both sides send 8 MiB while they receive; neither ever holds more than its limits and what is in one read."""
    near, far = await net.pair()
    ends = [connection(near, None), connection(far, None)]
    data, most = os.urandom(8 << 20), [0, 0]

    async def pump(stream):
        for i in range(0, len(data), 50_000):
            await stream.send(data[i : i + 50_000])
            most[0], most[1] = max(most[0], stream.queued[0]), max(most[1], stream.queued[1])
        stream.send_eof()

    async def drain(stream):
        got = bytearray()
        async for chunk in stream:
            got += chunk
            most[0] = max(most[0], stream.queued[0])
        assert got == data

    await asyncio.gather(*(asyncio.create_task(driven(body(end))) for end in ends for body in (pump, drain)))
    assert most[0] < 1_500_000 and most[1] < 400_000, most
    await asyncio.gather(*(end.close() for end in ends))


@scenario(loops=("asyncio",))
async def test_one_write_a_turn():
    fed = Fed(BYTES)
    for word in (b"a", b"b", b"c"):
        await fed.connection.send(word)
    assert fed.transport.data == []
    await turns()
    assert fed.transport.data == [b"a\nb\nc\n"]
    fed.connection.send(b"last")
    fed.connection.send_eof()
    fed.connection.send_eof()
    with pytest.raises(ClosedError, match="send_eof"):
        fed.connection.send(b"x")
    await turns()
    assert fed.transport.data == [b"a\nb\nc\n", b"last\n", "eof"]
    fed.connection.close()
    with pytest.raises(ClosedError) as caught:
        fed.connection.send(b"x")
    assert caught.value.clean
    fed.end()
    await turns()
    assert fed.transport.data[-1] == "close"
    fed.lose()


@scenario(loops=("asyncio",))
async def test_flush_leaves_at_once_and_tells_when_all_has_left():
    fed = Fed(BYTES)
    fed.connection.send(b"a")
    flushed = fed.connection.flush()
    assert fed.transport.data == [b"a\n"]
    await flushed
    await fed.connection.flush()  # with nothing to do
    fed.connection.send(b"b")
    await turns()
    assert fed.transport.data == [b"a\n", b"b\n"]
    fed.lose(OSError("gone"))
    with pytest.raises(ClosedError, match="gone"):
        await fed.connection.flush()


@scenario(wires=ALL)
async def test_flush_waits_for_a_peer_that_does_not_read(net):
    near, far = await net.pair()
    client, server = connection(near, None), connection(far, None, read_limit=1000)
    client.send(b"x" * 12_000_000)
    for make in (driven, plain):

        async def flush():
            await client.flush()

        waiting = asyncio.create_task(make(flush()))
        await settled(lambda: client.queued[1])
        assert not waiting.done() and client.queued[1] > 0
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    waiting = asyncio.create_task(driven(flush()))
    assert len(await server.recv_exactly(12_000_000)) == 12_000_000
    await waiting
    assert client.queued[1] == 0
    client.send(b"x" * 12_000_000)
    waiting = asyncio.create_task(driven(flush()))
    await turns()
    server.abort()
    with pytest.raises(ClosedError):
        await waiting
    await client.wait_closed()
    await server.wait_closed()


@scenario(wires=ALL)
async def test_flush_and_send_cancelled_at_any_turn_lose_and_double_nothing(net):
    near, far = await net.pair()
    client, server = connection(near, high_water=2000), connection(far)
    sent, got, size = 0, 0, 30_000

    async def reader():
        nonlocal got
        while True:
            message = await server.recv()
            assert message.startswith(b"%d " % got) and len(message) == size
            got += 1

    async def body():
        nonlocal sent
        while True:
            awaitable = client.send((b"%d " % sent).ljust(size, b"."))
            sent += 1
            await awaitable
            await client.flush()

    reading = asyncio.create_task(driven(reader()))
    for make in (driven, plain):
        for k in range(30):
            task = asyncio.create_task(make(body()))
            await turns(k)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    await until(lambda: got == sent or reading.done())
    assert not reading.done()
    client.send_eof()
    with pytest.raises(EOFError):
        await reading
    await asyncio.gather(client.close(), server.close())


@scenario(wires=SOME)
async def test_what_nobody_awaits_is_limited_by_max_unsent(net):
    near, far = await net.pair()
    client, server = connection(near, max_unsent=300_000), connection(far)
    with pytest.raises(LimitError) as caught:
        for _ in range(40_000):
            client.send(b"x" * 1000)
            if client.queued[1] > 100_000:
                await asyncio.sleep(0)
    assert caught.value.limit == "max_unsent" and client.queued[1] < 310_000
    client.abort()
    server.abort()
    await client.wait_closed()
    await server.wait_closed()


@scenario(wires=ALL)
async def test_what_is_sent_while_the_wire_is_made_ready_arrives_and_flushes(net):
    """Over TLS that is: before the handshake is over."""
    async with Server(net, echo) as server:
        client = await server.connect()
        for _ in range(50):
            client.send(b"x" * 3000)
        await asyncio.wait_for(client.flush(), 5)
        for _ in range(50):
            assert await client.recv() == b"x" * 3000
        hasty = await server.connect()
        hasty.send(b"only word")
        far = server.connections[-1]
        async with asyncio.timeout(1.5):  # no deadline of the engine had to help
            await hasty.close()
        await far.wait_closed()


@scenario(wires=("tcp", "memory", "tls-tcp"))
async def test_send_all_sends_one_frame_to_many_and_names_those_it_cannot_reach(net):
    pairs = [await net.pair() for _ in range(4)]
    members = [connection(near) for near, _ in pairs]
    peers = [connection(far) for _, far in pairs]
    await turns(20)
    members[0].send(b"x" * 70_000)  # over its watermark now
    members[1].send_eof()
    frame = BYTES.encode(b"news")
    assert send_all(members, frame, members[3]) == [members[0], members[1]]  # the second has ended its side
    members[3].send(b"skipped")
    assert await received(peers[2]) == b"news" and await received(peers[3]) == b"skipped"
    assert len(await received(peers[0])) == 70_000
    with pytest.raises(EOFError):
        await received(peers[1])
    members[2].send_encoded(frame)
    assert await received(peers[2]) == b"news"
    await asyncio.gather(*(each.close() for each in members + peers))
