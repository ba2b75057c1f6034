"""Promises 3, 5 (receiving) and 6: cancellation, ends in mid-message, oversize messages."""

import asyncio

import pytest

import portico

from .codecs import FRAMINGS, NATIVE, RAW, codec_of
from .support import MAKERS, contract, rest_of, spawn, taken, turns
from .transports import CODED, DIRECT, EVERY, HALF_CLOSING, PACKETS, SOME

LINES = portico.Lines(text=False)
MOST_TURNS = 40
"""More turns of the loop than anything here takes to arrive."""


async def cancelled_at(count, body, make):
    """Run `body`, cancel it after `count` turns; return (what it gave or None, whether it ended by itself)."""
    task = spawn(body, make)
    await turns(count)
    ended = task.done()
    task.cancel()
    try:
        return await task, ended
    except asyncio.CancelledError:
        return None, ended


async def received_in_spite_of_cancelling(near, operation, messages, make):
    """Send each message anew and cancel each receiver after 0, 1, 2, … turns, until one ends by itself."""
    got = []
    for message in messages:
        near.send(message)
        for count in range(MOST_TURNS):
            answer, ended = await cancelled_at(count, operation(), make)
            if answer is not None:
                got.append(answer)
            if ended:
                break
        else:
            raise AssertionError("nothing arrived")
    return got


@contract([*DIRECT, *PACKETS], framing=FRAMINGS[:1], make=MAKERS)
async def test_recv_cancelled_at_any_turn_loses_and_doubles_nothing(net, framing, make):
    async with net.pair(framing.codec()) as (near, far):
        messages = [framing.message(i) for i in range(8)]
        for operation in (far.recv, far.__anext__):
            assert await received_in_spite_of_cancelling(near, operation, messages, MAKERS[make]) == messages
        got = await received_in_spite_of_cancelling(near, far.batches().__anext__, messages, MAKERS[make])
        assert [message for batch in got for message in batch] == messages


@contract(DIRECT, make=MAKERS)
async def test_receiving_bytes_cancelled_at_any_turn_loses_and_doubles_nothing(net, make):
    async with net.pair() as (near, far):
        chunks = [b"%07d\n" % i for i in range(8)]
        for operation, cut in (
            (far.recv, 0),
            (lambda: far.recv(5), 0),
            (far.__anext__, 0),
            (lambda: far.recv_exactly(8), 0),
            (lambda: far.recv_until(b"\n"), 1),
        ):
            got = await received_in_spite_of_cancelling(near, operation, chunks, MAKERS[make])
            near.send(b"!")
            got.append(await far.recv_until(b"!"))
            assert b"".join(got) == b"".join(chunk[: 8 - cut] for chunk in chunks)


@contract(SOME, make=MAKERS)
async def test_half_of_what_is_wanted_survives_a_cancelled_receiver(net, make):
    async with net.pair() as (near, far):
        for half in (b"12345", b"67890"):
            near.send(half)
            await near.flush()
            for count in range(8):
                await cancelled_at(count, far.recv_exactly(20), MAKERS[make])
                await cancelled_at(count, far.recv_until(b"\n"), MAKERS[make])
        near.send(b"abcdefghij")
        assert await far.recv_exactly(20) == b"1234567890abcdefghij"


@contract(make=MAKERS)
async def test_a_timeout_around_every_receiver_loses_nothing(net, make):
    async with net.pair() as (near, far):

        async def impatient(operation):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.002):
                    await operation()

        for operation in (far.recv, far.__anext__, lambda: far.recv_exactly(3), lambda: far.recv_until(b"c")):
            await spawn(impatient(operation), MAKERS[make])
            near.send(b"abc")
            assert await far.recv_exactly(3) == b"abc"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(far.recv(), 0.002)
        near.send(b"end")
        assert await far.recv_exactly(3) == b"end"


@contract([*SOME, *HALF_CLOSING], framing=(RAW, *FRAMINGS))
async def test_the_end_is_told_as_often_as_asked(net, framing):
    async with net.pair(codec_of(framing)) as (near, far):
        message = b"last" if framing == RAW else framing.message(1)
        await near.send(message)
        near.send_eof()
        if framing == RAW and not net.transport.keeps_records:
            assert await far.recv_exactly(4) == message
            for _ in range(3):
                assert await far.recv() == b""
                for operation in (lambda: far.recv_exactly(1), lambda: far.recv_until(b"x")):
                    with pytest.raises(portico.EndOfStream) as caught:
                        await operation()
                    assert caught.value.partial == b""
            assert await far.recv_exactly(0) == b""
        else:
            assert [each async for each in far] == [message]
            for _ in range(3):
                with pytest.raises(portico.EndOfStream) as caught:
                    await far.recv()
                assert caught.value.partial == b""
            assert [each async for each in far.batches()] == []
        assert [each async for each in far] == []


@contract()
async def test_an_end_in_the_middle_gives_what_came(net):
    async with net.pair() as (near, far):
        near.send(b"half of it")
        waiting = spawn(far.recv_exactly(20))
        await near.flush()
        near.send_eof()
        with pytest.raises(portico.EndOfStream) as caught:
            await waiting
        assert caught.value.partial == b"half of it"
        with pytest.raises(portico.EndOfStream) as caught:
            await far.recv_until(b"\n")
        assert caught.value.partial == b"half of it"
        assert await far.recv_exactly(4) == b"half"  # it stays readable
        assert await far.recv() == b" of it"
        assert await far.recv() == b""


@contract(SOME, framing=FRAMINGS)
async def test_an_end_in_the_middle_of_a_message_gives_what_came_of_it(net, framing):
    async with net.pair(framing.codec(), near_codec=None) as (near, far):
        frames = [framing.codec().encode(framing.message(i)) for i in range(2)]
        near.send(frames[0] + frames[1][:-1])
        near.send_eof()
        assert await far.recv() == framing.message(0)
        for operation in (far.recv, far.__anext__):
            with pytest.raises(portico.EndOfStream) as caught:
                await operation()
            assert caught.value.partial == frames[1][:-1]


@contract(CODED, framing=NATIVE)
async def test_an_oversize_message_costs_that_message_alone(net, framing):
    limit, size = 40, 200
    async with net.pair(framing.codec(limit), near_codec=None) as (near, far):
        codec = framing.codec()
        for i in range(0, 9, 3):
            near.send(codec.encode(framing.message(i, 30)))
            near.send(codec.encode(framing.message(i + 1, size)))
            near.send(codec.encode(framing.message(i + 2, limit)))
        if net.transport.can_half_close:
            near.send_eof()
        for i in range(0, 9, 3):
            assert await far.recv() == framing.message(i, 30)
            with pytest.raises(portico.MessageTooLarge, match="limit of 40 bytes") as caught:
                await far.recv()
            assert (caught.value.limit, caught.value.size) == (limit, size)
            assert await far.recv() == framing.message(i + 2, limit)
        if net.transport.can_half_close:
            with pytest.raises(portico.EndOfStream):
                await far.recv()


@contract(SOME, framing=NATIVE)
async def test_an_oversize_message_that_dribbles_in_is_not_kept(net, framing):
    size = min(framing.most, 30_000)
    async with net.pair(framing.codec(100), near_codec=None) as (near, far):
        frame = framing.codec().encode(framing.message(0, size)) + framing.codec().encode(framing.message(1))
        for start in range(0, len(frame), 1000):
            near.send(frame[start : start + 1000])
            await near.flush()
            await turns()
            assert far.queued[0] < 3000
        with pytest.raises(portico.MessageTooLarge):
            await far.recv()
        assert await far.recv() == framing.message(1)


@contract(CODED, framing=[each for each in FRAMINGS if not each.native])
async def test_an_oversize_message_of_a_codec_in_python_leaves_what_can_be_read(net, framing):
    """`Messages` says how long the frame is, so that the next one can be read; `own` does not, and reading ends, but
    where packets are kept apart, for the next one begins anew."""
    async with net.pair(framing.codec(100), near_codec=None) as (near, far):
        codec = framing.codec()
        for i, size in enumerate((20, 500, 20)):
            near.send(codec.encode(framing.message(i, size)))
        assert await far.recv() == framing.message(0)
        with pytest.raises(portico.MessageTooLarge) as caught:
            await far.recv()
        assert caught.value.size >= 500 and caught.value.limit == 100
        if framing.name == "messages" or net.transport.keeps_records:
            assert await far.recv() == framing.message(2)
        else:
            with pytest.raises(portico.MessageTooLarge):
                await far.recv()
        answer = codec.encode(framing.message(7))
        await far.send(framing.message(7))  # sending goes on
        assert await taken(near, len(answer)) == answer


@contract(CODED, framing=[each for each in FRAMINGS if each.name not in ("messages", "own")])
async def test_an_oversize_message_is_refused_at_the_call_and_harms_nothing(net, framing):
    async with net.pair(framing.codec(40)) as (near, far):
        with pytest.raises(portico.MessageTooLarge) as caught:
            near.send(framing.message(0, 41))
        assert (caught.value.size, caught.value.limit) == (41, 40)
        await near.send(framing.message(1, 40))
        assert await far.recv() == framing.message(1, 40)


@contract()
async def test_a_separator_that_does_not_come_in_time_is_too_large_and_stays_readable(net):
    async with net.pair() as (near, far):
        near.send(b"x" * 5000 + b"\nrest")
        with pytest.raises(portico.MessageTooLarge) as caught:
            await far.recv_until(b"\n", max_bytes=1000)
        assert caught.value.limit == 1000 < caught.value.size
        assert await far.recv_until(b"\n", max_bytes=5000) == b"x" * 5000
        near.send_eof()
        assert await rest_of(far) == b"rest"


@contract(SOME)
async def test_garbage_ends_reading_with_a_protocol_error(net):
    async with net.pair(portico.Netstrings(), near_codec=None) as (near, far):
        near.send(b"3:abc,hello")
        assert await far.recv() == b"abc"
        for _ in range(2):
            with pytest.raises(portico.ProtocolError):
                await far.recv()


@contract(EVERY, make=MAKERS)
async def test_batches_and_iteration_give_everything_in_order(net, make):
    count = 2000 if net.transport.lossless else 8  # what a Unix datagram socket has room for
    async with net.pair(LINES) as (near, far):
        for i in range(count):
            near.send(b"%d" % i)
        if net.transport.can_half_close:
            near.send_eof()

        async def receive():
            got = [await far.recv()]
            async for message in far:
                got.append(message)
                if len(got) == count // 3:
                    break
            async for batch in far.batches():
                assert batch
                got += batch
                if len(got) == count and not net.transport.can_half_close:
                    break
            return got

        assert await spawn(receive(), MAKERS[make]) == [b"%d" % i for i in range(count)]
