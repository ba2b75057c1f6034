"""Streams of bytes: by what comes, by number, up to a separator; cancelled anywhere without loss."""

# ruff: noqa: B023 (every function is over before its loop goes on)

import asyncio
import random

import pytest

from portico._core import driven
from portico.errors import BusyError, ClosedError, EndOfStream, MessageTooLarge

from .support import ALL, Fed, Server, connection, plain, scenario, turns, until

DATA = random.Random(5).randbytes(100_000)


async def echo_bytes(stream):
    async for chunk in stream:
        await stream.send(chunk)


@scenario(wires=ALL)
async def test_bytes_there_and_back(net):
    async with Server(net, echo_bytes, None) as server:
        client = await server.connect()

        async def pump():
            for i in range(0, len(DATA) * 4, 7777):
                await client.send(memoryview(DATA * 4)[i : i + 7777])
            client.send_eof()

        task = asyncio.create_task(driven(pump()))
        back = b""
        while chunk := await client.recv():
            back += chunk
        assert back == DATA * 4 and await client.recv() == b""
        await task


@scenario(loops=("asyncio",))
async def test_recv_takes_at_most_max_bytes():
    fed = Fed(None)
    fed.feed(b"abcdef")
    fed.feed(b"gh")
    with pytest.raises(ValueError):
        fed.connection.recv(0)
    assert [await fed.connection.recv(size) for size in (1, 4, 5)] == [b"a", b"bcde", b"f"]
    assert await fed.connection.recv() == b"gh"
    waiting = asyncio.ensure_future(fed.connection.recv(2))
    await turns()
    fed.feed(b"ijk")
    assert await waiting == b"ij"
    fed.end()
    assert [await fed.connection.recv(), await fed.connection.recv(), await fed.connection.recv(5)] == [b"k", b"", b""]
    assert [chunk async for chunk in fed.connection] == []
    fed.lose()


@scenario(loops=("asyncio",))
async def test_any_mix_of_calls_gives_the_same_bytes():
    for seed in range(150):
        rng = random.Random(seed)
        fed = Fed(None, read_limit=rng.choice((1, 100, 100_000)))
        stream, got, fed_to = fed.connection, b"", 0
        while len(got) < 3000:
            kind, size = rng.randrange(4), rng.choice((0, 1, 3, 50, 700))
            awaitable = (
                stream.recv()
                if kind == 0
                else stream.recv(size + 1)
                if kind == 1
                else stream.recv_exactly(size)
                if kind == 2
                else stream.recv_until(DATA[len(got) + size : len(got) + size + 2])
            )
            task = asyncio.ensure_future(awaitable)
            if rng.random() < 0.3:
                await turns(rng.randrange(3))
                if not task.done():
                    task.cancel()
            while not task.done():
                step = rng.choice((1, 2, 10, 400))
                fed.feed(DATA[fed_to : fed_to + step])
                fed_to += step
                await turns(rng.randrange(3))
            if task.cancelled():
                continue
            result = await task
            if kind == 3:
                result += DATA[len(got) + size : len(got) + size + 2]
            got += result
            assert DATA.startswith(got), (seed, kind)
        fed.lose()


@scenario(wires=ALL)
async def test_recv_exactly_more_than_read_limit(net):
    near, far = await net.pair()
    client, server = connection(near, None, read_limit=1000), connection(far, None)
    server.send(DATA * 10)
    await until(lambda: client.queued[0])
    assert await client.recv_exactly(len(DATA) * 10) == DATA * 10
    assert await client.recv_exactly(0) == b""
    await asyncio.gather(client.close(), server.close())


@scenario(loops=("asyncio",))
async def test_recv_exactly_at_the_end_leaves_what_came_readable():
    fed = Fed(None)
    fed.feed(b"abc")
    waiting = asyncio.ensure_future(fed.connection.recv_exactly(10))
    await turns()
    fed.feed(b"de")
    fed.end()
    with pytest.raises(EndOfStream) as caught:
        await waiting
    assert caught.value.partial == b"abcde"
    with pytest.raises(EndOfStream) as caught:
        await fed.connection.recv_until(b"\n")
    assert caught.value.partial == b"abcde"
    assert await fed.connection.recv_exactly(2) == b"ab" and await fed.connection.recv() == b"cde"
    assert await fed.connection.recv_exactly(0) == b"" and await fed.connection.recv() == b""
    fed.lose()


@scenario(loops=("asyncio",))
async def test_recv_until_finds_a_separator_cut_at_every_place():
    for separator in (b"\n", b"\r\n", b"--end--", b"aab"):
        data = b"aa" + b"head" + separator + b"aaab" * 3 + b"-" + separator + separator
        expected = data.split(separator)
        for cut in [*([place] for place in range(len(data))), list(range(len(data)))]:
            fed = Fed(None)
            tasks = []

            async def collect():
                for _ in expected[:-1]:
                    tasks.append(await fed.connection.recv_until(separator))

            task = asyncio.create_task(driven(collect()))
            await turns(1)
            for start, end in zip([0, *cut], [*cut, len(data)], strict=True):
                fed.feed(data[start:end])
                await turns(2)
            await task
            assert tasks == expected[:-1], (separator, cut)
            fed.lose()


@scenario(loops=("asyncio",))
async def test_recv_until_over_its_limit_leaves_everything_readable():
    fed = Fed(None, read_limit=1 << 30)
    fed.feed(b"x" * 10 + b"\nrest")
    assert await fed.connection.recv_until(b"\n", 10) == b"x" * 10
    for feed in (b"yyyyyy\n", b"yyyyyyy"):
        waiting = asyncio.ensure_future(fed.connection.recv_until(b"\n", 9))
        await turns()
        fed.feed(feed)
        with pytest.raises(MessageTooLarge) as caught:
            await waiting
        assert caught.value.limit == 9 and caught.value.size == 10 + (feed[-1:] == b"y")
        assert await fed.connection.recv(4) == b"rest"
        assert await fed.connection.recv() == feed
        fed.feed(b"rest")
    await fed.connection.recv()
    for _ in range(5):
        fed.feed(b"z" * 250_000)
    with pytest.raises(MessageTooLarge) as caught:
        await fed.connection.recv_until(b"\n")
    assert caught.value.limit == 1 << 20
    assert await fed.connection.recv_exactly(1_250_000) == b"z" * 1_250_000
    with pytest.raises(ValueError):
        fed.connection.recv_until(b"")
    fed.lose()


@scenario(loops=("asyncio",))
async def test_a_second_reader_is_told_at_once():
    fed = Fed(None)
    calls = (
        fed.connection.recv,
        lambda: fed.connection.recv_exactly(3),
        lambda: fed.connection.recv_until(b"\n"),
        lambda: anext(fed.connection),
    )
    for first in calls:
        for make in (driven, plain):

            async def body():
                return await first()

            task = asyncio.create_task(make(body()))
            await turns()
            for second in calls:
                with pytest.raises(BusyError):
                    await second()
            fed.feed(b"ab\n")
            await task
            while fed.connection.queued[0]:
                await fed.connection.recv()
    fed.lose()


@scenario(wires=ALL)
async def test_cancelled_at_any_turn_no_byte_is_lost_or_doubled(net):
    async with Server(net, echo_bytes, None) as server:
        client = await server.connect(read_limit=500)
        sent, got = 0, 0

        def take(data):
            nonlocal got
            assert data == DATA[got : got + len(data)]
            got += len(data)

        async def body(kind):
            while True:
                if kind == 0:
                    take(await client.recv())
                elif kind == 1:
                    take(await client.recv(7))
                elif kind == 2:
                    take(await client.recv_exactly(23))
                else:
                    separator = DATA[got + 11 : got + 14]
                    take(await client.recv_until(separator) + separator)

        for make in (driven, plain):
            for kind in range(4):
                for k in range(25):
                    task = asyncio.create_task(make(body(kind)))
                    for _ in range(k):
                        client.send(DATA[sent : sent + 17])
                        sent += 17
                        await asyncio.sleep(0 if sent % 5 else 0.0003)
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
        while got < sent:
            take(await asyncio.wait_for(client.recv(), 2))
        assert got == sent < len(DATA)


@scenario(loops=("asyncio",))
async def test_a_close_ends_every_kind_of_wait():
    for call in (lambda s: s.recv(), lambda s: s.recv_exactly(5), lambda s: s.recv_until(b"\n")):
        fed = Fed(None)
        waiting = asyncio.ensure_future(call(fed.connection))
        await turns()
        fed.feed(b"ab")
        if not waiting.done():
            fed.connection.close()
        result = (await asyncio.gather(waiting, return_exceptions=True))[0]
        assert result == b"ab" or isinstance(result, ClosedError)
        fed.end()
        fed.lose()
