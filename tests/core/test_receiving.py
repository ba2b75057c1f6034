"""Receiving whole messages: cut anywhere, in order, bounded, and readable up to the very end."""

# ruff: noqa: B023 (every function is over before its loop goes on)

import asyncio
import random
import struct

import pytest

from portico._core import Codec, LengthPrefix, Lines, Netstrings, driven
from portico.errors import BusyError, ClosedError, EndOfStream, MessageTooLarge, ProtocolError

from .support import ALL, BYTES, PLAIN, Fed, Server, connection, echo, plain, received, run, scenario, turns, until

NATIVE = {
    "lines": BYTES,
    "long separator": Lines(text=False, separator="\r\n--\r\n"),
    "prefix": LengthPrefix(),
    "little prefix": LengthPrefix(2, byteorder="little"),
    "varint": LengthPrefix("varint"),
    "netstrings": Netstrings(),
}
MESSAGES = [b"", b"a", b"hello world", b"x" * 300, b"", b"\r", b"end"]


def cuts_of(size, random_ones=100):
    """Yield where to cut `size` bytes: at each place, at all places, at five places."""
    yield from ([place] for place in range(size + 1))
    yield list(range(size))
    for _ in range(random_ones):
        yield sorted(random.sample(range(size), 5))


def feed_in_pieces(fed, data, cut):
    for start, end in zip([0, *cut], [*cut, len(data)], strict=True):
        fed.feed(data[start:end])


async def outcomes(channel):
    """Receive to the end; errors stand in place of messages."""
    found = []
    while True:
        try:
            found.append(await channel.recv())
        except MessageTooLarge as error:
            found.append(("too large", error.limit))
        except ProtocolError as error:
            if found and found[-1] == ("invalid", error.reason):
                return found  # it is the end
            found.append(("invalid", error.reason))
        except EndOfStream as error:
            return [*found, error.partial]


@pytest.mark.parametrize("codec", NATIVE.values(), ids=NATIVE)
def test_cut_at_every_place(codec):
    async def main():
        data = b"".join(codec.encode(message) for message in MESSAGES)
        for cut in cuts_of(len(data)):
            fed = Fed(codec)
            feed_in_pieces(fed, data, cut)
            fed.end()
            assert [message async for message in fed.connection] == MESSAGES
            with pytest.raises(EndOfStream) as caught:
                await fed.connection.recv()
            assert caught.value.partial == b""
            fed.lose()

    run("asyncio", main)


@pytest.mark.parametrize(
    ("codec", "data", "expected"),
    [
        (
            Lines(text=False, max_size=10),
            b"ok\n" + b"x" * 11 + b"\nnext\n" + b"y" * 40 + b"\nlast\n",
            [b"ok", b"next", b"last"],
        ),
        (
            Lines(text=False, separator="\r\n", max_size=10),
            b"ok\r\n" + b"x\r" * 20 + b"\r\nnext\r\n" + b"y" * 11 + b"\r\nlast\r\n",
            [b"ok", b"next", b"last"],
        ),
        (
            LengthPrefix(1, max_size=10),
            b"\2ok\x0bxxxxxxxxxxx\4next\xff" + b"y" * 255 + b"\4last",
            [b"ok", b"next", b"last"],
        ),
        (
            LengthPrefix("varint", max_size=10),
            b"\2ok\x0bxxxxxxxxxxx\4next\xff\1" + b"y" * 255 + b"\4last",
            [b"ok", b"next", b"last"],
        ),
        (
            Netstrings(max_size=10),
            b"2:ok,11:xxxxxxxxxxx,4:next,99:" + b"y" * 99 + b",4:last,",
            [b"ok", b"next", b"last"],
        ),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, Codec) else "",
)
def test_an_oversize_message_is_dropped_wherever_it_is_cut(codec, data, expected):
    big = ("too large", 10)

    async def main():
        for cut in cuts_of(len(data)):
            fed = Fed(codec)
            feed_in_pieces(fed, data, cut)
            fed.end()
            assert await outcomes(fed.connection) == [expected[0], big, expected[1], big, expected[2], b""], cut
            fed.lose()

    run("asyncio", main)


@scenario(loops=("asyncio",))
async def test_a_line_that_is_not_utf8_fails_alone():
    data = b"one\n\xff\xfe\ntwo\n"
    for cut in cuts_of(len(data), 20):
        fed = Fed(Lines())
        feed_in_pieces(fed, data, cut)
        fed.end()
        first, bad, second, end = await outcomes(fed.connection)
        assert (first, second, end) == ("one", "two", b"") and "not UTF-8" in bad[1]
        fed.lose()


@pytest.mark.parametrize(
    ("codec", "data", "offset"),
    [
        (Netstrings(), b"1:a,1:bX1:c,", 3),
        (Netstrings(), b"1:a,x", 0),
        (Netstrings(), b"1:a,01:b,", 1),
        (Netstrings(), b"1:a,:b,", 0),
        (LengthPrefix("varint"), b"\1a" + b"\xff" * 9 + b"\1", 8),
    ],
)
def test_what_cannot_be_understood_is_the_end_behind_what_came_before(codec, data, offset):
    async def main():
        for cut in cuts_of(len(data), 0):
            fed = Fed(codec)
            feed_in_pieces(fed, data, cut)
            assert await fed.connection.recv() == b"a"
            for _ in range(3):
                with pytest.raises(ProtocolError) as caught:
                    await fed.connection.recv()
                assert caught.value.offset == offset
            with pytest.raises(ProtocolError):
                async for _ in fed.connection:
                    raise AssertionError
            fed.connection.send(b"the other direction stays open")
            fed.connection.close()
            await turns()
            assert fed.transport.data[0].find(b"stays open") >= 0
            fed.end()
            fed.lose()

    run("asyncio", main)


@scenario(wires=ALL)
async def test_dribbled_over_the_wire(net):
    async with Server(net, echo) as server:
        stream = await server.connect(codec=None)
        for byte in b"hello\nworld\n":
            await stream.send(bytes([byte]))
            await asyncio.sleep(0.001)
        assert await stream.recv_until(b"\n") == b"hello" and await stream.recv_until(b"\n") == b"world"


@scenario(wires=ALL)
async def test_the_end_comes_behind_messages_and_tells_what_was_cut_off(net):
    got = []

    async def handler(channel):
        await go.wait()
        try:
            async for message in channel:
                got.append(message)
        except EndOfStream as error:
            got.append(("partial", error.partial))
        for _ in range(2):
            with pytest.raises(EndOfStream) as caught:
                await channel.recv()
            got.append(caught.value.partial)
        done.set()

    go, done = asyncio.Event(), asyncio.Event()
    async with Server(net, handler) as server:
        stream = await server.connect(codec=None)
        stream.send(b"a\nb\ntail")
        stream.send_eof()
        await until(lambda: not server.connections[0].flags[0])
        go.set()
        await done.wait()
        assert got == [b"a", b"b", ("partial", b"tail"), b"tail", b"tail"]


@scenario(wires=ALL)
async def test_an_oversize_message_does_not_end_the_conversation(net):
    async def handler(channel):
        assert await channel.recv() == b"fine"
        with pytest.raises(MessageTooLarge) as caught:
            await channel.recv()
        assert caught.value.limit == 1000 < caught.value.size
        await channel.send(await channel.recv())
        with pytest.raises(MessageTooLarge):
            channel.send(b"x" * 1001)

    cases = (
        (Lines(text=False, max_size=1000), b"fine\n" + b"x" * 500_000 + b"\nstill fine\n"),
        (
            LengthPrefix(max_size=1000),
            b"\0\0\0\4fine" + struct.pack(">I", 500_000) + b"x" * 500_000 + b"\0\0\0\x0astill fine",
        ),
    )
    for codec, data in cases:
        async with Server(net, handler, codec) as server:
            stream = await server.connect(codec=None)
            await stream.send(data)
            assert (await stream.recv(100)).strip(b"\0\n\x0a") == b"still fine"


@scenario(wires=("tcp", "loop", "memory", "tls-tcp"))
async def test_one_reader_at_a_time(net):
    async with Server(net, echo) as server:
        client = await server.connect()
        for make in (driven, plain):
            first = asyncio.create_task(make(received(client)))
            await turns()
            with pytest.raises(BusyError):
                await client.recv()
            with pytest.raises(BusyError):
                await asyncio.create_task(driven(received(client)))
            first.cancel()  # from here on the place is free, even before the task ran
            client.send(b"x")
            assert await client.recv() == b"x"
            with pytest.raises(asyncio.CancelledError):
                await first
        once = client.recv()
        both = [asyncio.ensure_future(once), asyncio.ensure_future(once)]
        await turns()
        client.send(b"y")
        results = await asyncio.gather(*both, return_exceptions=True)
        assert b"y" in results and any(isinstance(result, RuntimeError) for result in results)


@scenario(wires=ALL)
async def test_reading_pauses_while_nobody_reads(net):
    go, count, total = asyncio.Event(), 0, 20_000

    async def handler(channel):
        nonlocal count
        await go.wait()
        async for message in channel:
            assert len(message) == 1000 and message.startswith(b"%d " % count)
            count += 1
            if count == total:
                return

    async with Server(net, handler) as server:
        client = await server.connect()

        async def pump():
            for i in range(total):
                await client.send((b"%d " % i).ljust(1000, b"."))

        task = asyncio.create_task(driven(pump()))
        before = -1, -1
        while (now := (server.connections[0].queued[0], client.queued[1])) != before:
            before = now
            await asyncio.sleep(0.1)
        assert not task.done()
        assert 64 * 1024 < now[0] < 800_000 and now[1] < 400_000, now
        go.set()
        await task
        await server.tasks[0]
        assert count == total


@scenario(loops=("asyncio",))
async def test_a_busy_connection_starves_nobody():
    async def handler(channel):
        name = None
        async for message in channel:
            name = name or message[:1]
            order.append(name)

    for make in (driven, plain):
        order = []
        busy, quiet = Fed(BYTES), Fed(BYTES)
        tasks = [asyncio.create_task(make(handler(fed.connection))) for fed in (busy, quiet)]
        await asyncio.sleep(0)
        busy.feed(b"b\n" * 5000)
        quiet.feed(b"q\n")
        await until(lambda: len(order) == 5001)
        assert order.index(b"q") < 600
        for task, fed in zip(tasks, (busy, quiet), strict=True):
            fed.end()
            await task
            fed.lose()


# --- batches --------------------------------------------------------------------------------------------


@scenario(loops=("asyncio",))
async def test_a_batch_is_all_that_is_there():
    fed = Fed(Lines(text=False, max_size=5))
    batches = fed.connection.batches()
    fed.feed(b"a\nb\nc\n")
    assert await anext(batches) == [b"a", b"b", b"c"]
    waiting = asyncio.ensure_future(anext(batches))
    await turns()
    with pytest.raises(BusyError):
        await anext(batches)
    fed.feed(b"d\n")
    assert await waiting == [b"d"]
    fed.feed(b"e\ntoo large\nf\n")
    assert await anext(batches) == [b"e"]
    with pytest.raises(MessageTooLarge):
        await anext(batches)
    assert await anext(batches) == [b"f"]
    fed.feed(b"g\ntail")
    fed.end()
    assert await anext(batches) == [b"g"]
    with pytest.raises(EndOfStream) as caught:
        await anext(batches)
    assert caught.value.partial == b"tail"
    fed.lose()


@scenario(wires=ALL)
async def test_batches_lose_nothing_and_end(net):
    async def handler(channel):
        async for batch in channel.batches():
            for message in batch:
                channel.send(message)
            await channel.send(b"of %d" % len(batch))
        ended.set()

    ended = asyncio.Event()
    async with Server(net, handler) as server:
        client, got, total = await server.connect(), [], 3000
        for i in range(total):
            client.send(b"%d" % i)
            if i % 500 == 499:
                await client.flush()
        while len(got) < total:
            message = await client.recv()
            if not message.startswith(b"of "):
                got.append(message)
        assert got == [b"%d" % i for i in range(total)]
        client.send_eof()
        await ended.wait()


@scenario(wires=("tcp", "memory"))
async def test_iteration_stops_when_our_own_side_closes(net):
    async def iterate():
        return [message async for message in client]

    async def iterate_batches():
        return [batch async for batch in client.batches()]

    async with Server(net, echo) as server:
        for body in (iterate, iterate_batches):
            for make in (driven, plain):
                client = await server.connect()
                task = asyncio.create_task(make(body()))
                await turns()
                client.close()
                assert await task == []
                with pytest.raises(ClosedError) as caught:
                    await client.recv()
                assert caught.value.clean


# --- codecs in Python -----------------------------------------------------------------------------------


class Hinting(Codec[bytes]):
    """Two digits, then as many bytes; says how much it needs and counts how often it is asked."""

    def __init__(self, hints=True):
        super().__init__()
        self.hints, self.calls, self.kept = hints, 0, []

    def encode(self, message):
        return b"%02d" % len(message) + bytes(message)

    def decode(self, data):
        self.calls += 1
        if len(data) < 2:
            return 2 if self.hints else 0
        if data[0] == 0x21:
            raise ProtocolError("exclaimed", 0)
        size = int(bytes(data[:2]))
        if len(data) < size + 2:
            return size + 2 if self.hints else 0
        message = data[2 : size + 2]
        self.kept.append(message)
        return message, size + 2


@scenario(wires=("tcp", "loop", "memory", "tls-tcp"))
async def test_a_codec_in_python(net):
    async with Server(net, echo, Hinting()) as server:
        client = await server.connect()
        for _ in range(3):
            for size in (0, 1, 50, 99):
                client.send(b"x" * size)
            for size in (0, 1, 50, 99):
                assert await client.recv() == b"x" * size


@scenario(loops=("asyncio",))
async def test_a_codec_in_python_is_cut_at_every_place_and_its_views_stay_valid():
    messages = [b"a", b"", b"hello world", b"x" * 90, b"end"]
    for hints in (True, False):
        data = b"".join(Hinting().encode(message) for message in messages)
        for cut in cuts_of(len(data), 20):
            codec = Hinting(hints)
            fed = Fed(codec)
            feed_in_pieces(fed, data, cut)
            fed.feed(b"9")
            fed.end()
            got = []
            with pytest.raises(EndOfStream) as caught:
                async for message in fed.connection:
                    got.append(message)
            assert caught.value.partial == b"9"
            assert got == messages and codec.kept == messages
            fed.lose()


@scenario(loops=("asyncio",))
async def test_a_codec_that_says_what_it_needs_is_not_asked_in_vain():
    codec = Hinting()
    fed = Fed(codec)
    for byte in b"99" + b"x" * 99:
        fed.feed(bytes([byte]))
    assert codec.calls == 3 and len(await fed.connection.recv()) == 99
    fed.lose()


class Broken(Hinting):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def decode(self, data):
        if bytes(data[:2]) != b"!!":
            return super().decode(data)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer",
    [
        KeyError("oops"),
        ProtocolError("no", 3),
        MessageTooLarge(5, 3),
        (b"x", 0),
        (b"x", -1),
        (b"x", 99),
        (b"x",),
        "text",
        (1, "2"),
    ],
    ids=repr,
)
def test_a_codec_that_fails_ends_the_channel_behind_what_came_before(answer):
    async def main():
        fed = Fed(Broken(answer))
        fed.feed(b"01a01b!!")
        assert [await fed.connection.recv(), await fed.connection.recv()] == [b"a", b"b"]
        for _ in range(2):
            with pytest.raises(
                type(answer) if isinstance(answer, ProtocolError | MessageTooLarge) else ProtocolError
            ) as caught:
                await fed.connection.recv()
        if isinstance(answer, KeyError):
            assert caught.value.__cause__ is answer and "KeyError" in str(caught.value)
        fed.lose()

    run("asyncio", main)


@scenario(loops=("asyncio",))
async def test_what_a_codec_cannot_send_raises_at_the_call():
    class Odd(Codec[str]):
        def encode(self, message):
            return message  # not bytes

        def decode(self, data):
            return 0

    for codec, message, error in (
        (Odd(), "text", TypeError),
        (Codec(), b"x", NotImplementedError),
        (Lines(), b"x", TypeError),
        (Lines(), "a\nb", ProtocolError),
        (Lines(), "\ud800", ProtocolError),
        (BYTES, "x", TypeError),
        (BYTES, memoryview(b"abcd")[::2], BufferError),
        (LengthPrefix(1), b"x" * 256, MessageTooLarge),
    ):
        fed = Fed(codec)
        with pytest.raises(error):
            fed.connection.send(message)
        await turns()
        assert fed.transport.data == []
        fed.lose()


@scenario(wires=PLAIN)
async def test_what_came_before_a_reset_stays_readable(net):
    client, server = await net.pair()
    client, server = connection(client), connection(server)
    client.send(b"one")
    client.send(b"two")
    await client.flush()
    await until(lambda: server.queued[0])
    client.abort()
    assert await server.recv() == b"one" and await server.recv() == b"two"
    if net.kind == "unix":  # no reset there: the kernel tells of an end
        with pytest.raises(EndOfStream):
            await server.recv()
    else:
        with pytest.raises(ClosedError) as caught:
            await server.recv()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
    server.close()
    await server.wait_closed()
