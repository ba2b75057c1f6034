"""Promises 1, 2 and 4: order, corking, backpressure."""

import asyncio
import select
import socket
import struct

import pytest

import portico

from .codecs import FRAMINGS, RAW, codec_of
from .support import MAKERS, contract, in_packets, settled, spawn, taken, turns, until
from .transports import ALL, CODED, EVERY, LOSSLESS, PACKETS, SOME, TRANSPORTS

LINES = portico.Lines(text=False)
DATA_SEGMENTS = 156  # offset of tcpi_data_segs_out in struct tcp_info (linux/tcp.h)


@contract(CODED, framing=(RAW, *FRAMINGS))
async def test_messages_arrive_whole_and_in_order_both_ways(net, framing):
    async with net.pair(codec_of(framing)) as (near, far):
        for one, other in ((near, far), (far, near)):
            if framing == RAW and net.transport.keeps_records:
                messages = [b"%d " % i for i in range(50)] + [b"", b"." * 40_000]
                for message in messages:
                    one.send(message)
                assert [await other.recv() for _ in messages] == messages
                continue
            if framing == RAW:
                for i in range(50):
                    one.send(b"%d " % i)
                await one.send(b"." * 100_000)
                expected = b"".join(b"%d " % i for i in range(50)) + b"." * 100_000
                assert await other.recv_exactly(len(expected)) == expected
                continue
            messages = [framing.message(i, i % 7 + 4) for i in range(50)]
            messages.append(framing.message(50, min(framing.most, 20_000)))
            for message in messages:
                one.send(message)
            assert [await other.recv() for _ in messages] == messages


@contract(EVERY)
async def test_a_message_is_taken_at_the_call(net):
    """What the caller does with its buffer afterwards changes nothing, nor whether it awaits."""
    async with net.pair() as (near, far):
        small, large = bytearray(b"small"), bytearray(b"L" * 50_000)
        near.send(small)
        near.send(memoryview(large))
        small[:] = b"?????"
        large[:] = b"?" * 50_000
        near.send(b"end")
        assert await taken(far, 50_008) == b"small" + b"L" * 50_000 + b"end"


@contract([*ALL, *LOSSLESS], make=MAKERS)
async def test_a_send_cancelled_at_any_turn_has_sent_all_or_nothing(net, make):
    """As soon as `send` was called that is: all. Sizes beyond the watermark, so that awaiting waits."""
    async with net.pair(LINES, high_water=4096) as (near, far):
        sent, got = 0, 0

        async def receive():
            nonlocal got
            async for message in far:
                number, _, _ = message.partition(b" ")
                assert (int(number), len(message)) == (got, 40_000)
                got += 1

        async def send():
            nonlocal sent
            while True:
                awaitable = near.send((b"%d " % sent).ljust(40_000, b"."))
                sent += 1
                await awaitable

        receiving = spawn(receive(), MAKERS[make])
        for count in range(12):
            sending = spawn(send(), MAKERS[make])
            await turns(count)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
        await near.flush()
        net.end_sending(near)
        await receiving
        assert got == sent > 12


@contract([*SOME, *LOSSLESS])
async def test_a_send_that_waits_for_room_is_cancelled_at_every_turn(net):
    async with net.pair(LINES, high_water=1000) as (near, far):
        stuffing = b"s" * (50_000 if net.transport.keeps_records else 1_000_000)
        while near.queued[1] < 1_000_000:
            near.send(stuffing)
            await turns()
        stuffed = near.settings.messages_sent
        for count in range(6):
            for make in MAKERS.values():

                async def send():
                    await near.send(b"n")

                sending = spawn(send(), make)
                await turns(count)
                assert not sending.done()
                sending.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await sending
        sent = near.settings.messages_sent - stuffed
        net.end_sending(near)
        got = [message async for message in far]
        assert got == [stuffing] * stuffed + [b"n"] * sent and 10 <= sent <= 12


def writes_of(connection):
    """How many segments with data the kernel has sent for it."""
    told = connection.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, DATA_SEGMENTS + 4)
    return struct.unpack_from("I", told, DATA_SEGMENTS)[0]


@contract([name for name in ALL if TRANSPORTS[name].inet])
async def test_all_that_is_sent_in_a_turn_leaves_in_one_segment(net):
    async with net.pair() as (near, far):
        for one, other in ((near, far), (far, near)):
            await turns(20)  # what TLS had to say is said
            before = writes_of(one)
            for _ in range(20):
                one.send(b"0123456789")
            await other.recv_exactly(200)
            assert writes_of(one) == before + 1


@contract([name for name in ALL if TRANSPORTS[name].tls or TRANSPORTS[name].memory])
async def test_all_that_is_sent_in_a_turn_leaves_in_one_record(net):
    """Over TLS each record, in memory each write, arrives as one piece."""
    async with net.pair() as (near, far):
        for word in (b"a", b"b", b"c"):
            near.send(word * 10)
        assert await far.recv() == b"a" * 10 + b"b" * 10 + b"c" * 10
        near.send(b"one")
        near.flush()
        near.send(b"two")
        assert [await far.recv(), await far.recv()] == [b"one", b"two"]


@contract([name for name in EVERY if not TRANSPORTS[name].memory], wires=["epoll"])
async def test_flush_forces_it_out_at_once(net):
    async with net.pair() as (near, far):
        await turns(20)
        near.send(b"now")
        assert not select.select([far.socket], [], [], 0)[0]
        flushed = near.flush()
        assert select.select([far.socket], [], [], 5)[0]
        await flushed
        await near.flush()  # with nothing to do
        assert await far.recv() == b"now"


@contract(PACKETS)
async def test_all_packets_of_a_turn_leave_at_its_end(net):
    async with net.pair() as (near, far):
        await near.flush()
        for one, other in ((near, far), (far, near)):
            sent = [b"%d" % i for i in range(8)]
            for packet in sent:
                one.send(packet)
            assert one.queued[1] == 8 and not select.select([other.socket], [], [], 0)[0]
            await turns(1)
            assert one.queued[1] == 0
            assert [await other.recv() for _ in sent] == sent


@contract([*ALL, *LOSSLESS])
async def test_flush_waits_until_all_has_left(net):
    async with net.pair() as (near, far):
        for part in in_packets(net, b"x" * 14_000_000):
            near.send(part)
        flushing = spawn(near.flush())
        await settled(lambda: near.queued[1])
        assert not flushing.done() and near.queued[1]
        assert len(await taken(far, 14_000_000)) == 14_000_000
        await flushing
        assert near.queued[1] == 0


@contract([*ALL, *LOSSLESS])
async def test_nobody_reads_and_memory_stays_bounded_while_many_wait_for_room(net):
    senders, each, size = 8, 10, 65_536
    async with net.pair() as (near, far):
        if not net.transport.memory:
            near.options["send_buffer"] = 65_536
        done = 0

        async def pump():
            nonlocal done
            for _ in range(each):
                await near.send(b"x" * size)
            done += 1

        tasks = [spawn(pump(), make) for make in MAKERS.values() for _ in range(senders // 2)]
        unsent = await settled(lambda: near.queued[1])
        assert done < senders and 0 < unsent < 65_536 + (senders + 1) * size * 1.1
        assert far.queued[0] < 1_000_000
        total = 0
        while total < senders * each * size:
            total += len(await far.recv())
            assert far.queued[0] < 1_000_000
        await asyncio.gather(*tasks)
        assert total == senders * each * size


@contract([*SOME, *LOSSLESS])
async def test_a_receiver_that_takes_little_at_a_time_keeps_its_queue_short(net):
    async with net.pair(LINES, limits=portico.Limits(read_buffer=10_000)) as (near, far):
        for _ in range(3000):
            near.send(b"x" * 1000)
        await settled(lambda: far.queued[0])
        most = 0
        for _ in range(3000):
            assert len(await far.recv()) == 1000
            most = max(most, far.queued[0])
        assert most < 10_000 + 600_000


@contract(EVERY)
async def test_a_second_receiver_is_told_at_once(net):
    async with net.pair(LINES) as (near, far):
        for make in MAKERS.values():
            first = spawn(far.recv(), make)
            await turns()
            for second in (far.recv, far.__anext__, far.batches().__anext__):
                with pytest.raises(portico.BusyError, match="another task"):
                    await second()
                with pytest.raises(portico.BusyError):
                    await spawn(second(), make)
            near.send(b"for the first")
            assert await first == b"for the first"
        if net.transport.can_half_close:
            near.send_eof()
            with pytest.raises(portico.EndOfStream):
                await far.recv()


@contract(SOME)
async def test_a_second_receiver_of_a_stream_is_told_at_once(net):
    async with net.pair() as (near, far):
        for operation in (far.recv, far.__anext__, lambda: far.recv_exactly(2), lambda: far.recv_until(b"!")):
            first = spawn(operation())
            await turns()
            for second in (far.recv(), far.recv(1), far.recv_exactly(1), far.recv_until(b"x"), far.__anext__()):
                with pytest.raises(portico.BusyError):
                    await second
            near.send(b"a!")
            assert (await first).startswith(b"a")


@contract([*SOME, *LOSSLESS])
async def test_a_loss_wakes_all_that_wait_for_room(net):
    async with net.pair() as (near, far):
        for part in in_packets(net, b"x" * 14_000_000):
            near.send(part)
        operations = (lambda: near.send(b"y"), near.flush)
        waiting = [spawn(operation(), make) for make in MAKERS.values() for operation in operations]
        await settled(lambda: near.queued[1])
        assert not any(task.done() for task in waiting)
        far.abort()
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, portico.ClosedError) and error.__cause__ is not None and not error.clean


@contract([*SOME, *LOSSLESS])
async def test_what_nobody_awaits_is_limited(net):
    async with net.pair(max_unsent=200_000) as (near, _):
        with pytest.raises(portico.LimitError) as caught:
            for _ in range(100_000):
                near.send(b"x" * 10_000)
                if near.queued[1] > 100_000:
                    await turns(1)
        assert caught.value.limit == "max_unsent"
        near.abort()


@contract([*SOME, *LOSSLESS], make=MAKERS)
async def test_room_is_there_again_for_each_who_waits(net, make):
    """One waiter after the other, on a connection that goes on being used."""
    async with net.pair(LINES, high_water=2000) as (near, far):

        async def pump(number):
            for _ in range(20):
                await near.send((b"%d " % number).ljust(3000, b"."))

        tasks = [spawn(pump(number), MAKERS[make]) for number in range(5)]
        counts = [0] * 5
        for _ in range(100):
            counts[int((await far.recv()).partition(b" ")[0])] += 1
        assert counts == [20] * 5
        await asyncio.gather(*tasks)
        await until(lambda: near.queued[1] == 0)
