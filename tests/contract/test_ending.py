"""Promises 5 (half-close) and 7: every way in which a connection ends."""

import asyncio

import pytest

import portico
from portico import State

from .support import MAKERS, contract, in_packets, rest_of, settled, spawn, turns
from .transports import ALL, EVERY, HALF_CLOSING, LOSSLESS, SOME, TRANSPORTS, WHOLE

LINES = portico.Lines(text=False)
LARGE = b"0123456789abcdef" * 125_000


@contract()
async def test_after_our_end_receiving_goes_on_and_after_the_peers_sending(net):
    for turned in (False, True):
        async with net.pair() as (near, far):
            one, other = (far, near) if turned else (near, far)
            one.send(b"last words")
            one.send_eof()
            one.send_eof()  # changes nothing
            with pytest.raises(portico.ClosedError, match="send_eof"):
                one.send(b"more")
            assert await rest_of(other) == b"last words"
            assert (one.state, other.state) == (State.HALF_CLOSED_LOCAL, State.HALF_CLOSED_REMOTE)
            answering = spawn(other.send(LARGE))
            assert await one.recv_exactly(len(LARGE)) == LARGE
            await answering
            other.send(b"bye")
            other.send_eof()
            assert await one.recv_exactly(3) == b"bye"
            assert await one.recv() == b""


@contract([*SOME, *HALF_CLOSING])
async def test_after_an_end_channels_go_on_in_the_other_direction(net):
    async with net.pair(LINES) as (near, far):
        near.send_eof()
        assert [each async for each in far] == []
        for word in (b"one", b"two"):
            await far.send(word)
            assert await near.recv() == word
        far.send_eof()
        assert [each async for each in near] == []


@contract([*ALL, *LOSSLESS])
async def test_close_sends_what_is_queued_to_a_slow_reader(net):
    async with net.pair() as (near, far):
        for part in in_packets(net, LARGE):
            near.send(part)
        near.send(b"end")
        closing = spawn(near.close())
        with pytest.raises(portico.ClosedError) as caught:
            near.send(b"more")
        assert caught.value.clean and near.state in (State.CLOSING, State.CLOSED)
        await settled(lambda: near.queued[1])
        got = bytearray()
        async for data in far:
            got += data
            await turns(1)
        assert got == LARGE + b"end"
        await far.close()
        await closing
        assert near.state is far.state is State.CLOSED


@contract(EVERY, make=MAKERS)
async def test_close_while_another_task_receives(net, make):
    make = MAKERS[make]
    async with net.pair() as (near, _):
        whole = near.recv if net.transport.keeps_records else lambda: near.recv_exactly(5)
        receiving, reading = spawn(whole(), make), None
        await turns()
        near.close()
        with pytest.raises(portico.ClosedError) as caught:
            await receiving
        assert caught.value.clean and caught.value.__cause__ is None
        reading = spawn(rest_of(near), make)
        assert await reading == b""
        with pytest.raises(portico.ClosedError):
            await near.recv()
    async with net.pair(LINES) as (near, _):

        async def iterate():
            return [each async for each in near]

        iterating = spawn(iterate(), make)
        await turns()
        near.close()
        assert await iterating == []
        with pytest.raises(portico.ClosedError) as caught:
            await near.recv()
        assert caught.value.clean


@contract(EVERY)
async def test_closing_twice_from_anywhere(net):
    async with net.pair() as (near, far):
        tasks = [spawn(end(), make) for end in (near.close, near.close, near.wait_closed) for make in MAKERS.values()]
        far.close()
        await asyncio.gather(*tasks)
        await near.close()
        near.abort()
        near.send_eof()
        await near.wait_closed()
        await near.close()
        assert near.state is State.CLOSED


@contract(EVERY)
async def test_both_sides_close_at_once(net):
    async with net.pair() as (near, far):
        near.send(b"unread")
        far.send(b"unread")
        near.close()
        far.close()
        await asyncio.gather(near.wait_closed(), far.wait_closed())


@contract([*ALL, *LOSSLESS])
async def test_close_gives_up_on_a_peer_that_never_reads(net):
    loop = asyncio.get_running_loop()
    async with net.pair(close_timeout=0.1) as (near, far):
        for part in in_packets(net, LARGE * 6):
            near.send(part)
        begun = loop.time()
        await near.close()
        assert 0.09 < loop.time() - begun < 1.5
        assert near.state is State.CLOSED
        got = 0
        try:
            async for data in far:
                got += len(data)
        except portico.ClosedError as error:
            assert not error.clean and isinstance(error.__cause__, OSError) is net.transport.gives_cause
        else:
            assert not net.transport.tells_abort
        assert got < 6 * len(LARGE) or net.transport.memory  # where what was written has reached the peer


@contract(EVERY, make=MAKERS)
async def test_abort_drops_at_once_and_the_peer_hears_of_a_loss(net, make):
    async with net.pair() as (near, far):
        receiving = spawn(near.recv(), MAKERS[make])
        await turns()
        for part in in_packets(net, LARGE):
            near.send(part)
        near.abort()
        near.abort()
        near.close()
        with pytest.raises(portico.ClosedError) as caught:
            await receiving
        assert caught.value.clean
        with pytest.raises(portico.ClosedError):
            near.send(b"x")
        async with asyncio.timeout(1):
            await near.wait_closed()
        assert near.state is State.CLOSED
        if not net.transport.tells_end:
            return
        if net.transport.tells_abort:
            with pytest.raises(portico.ClosedError) as caught:
                await rest_of(far)
            assert not caught.value.clean
            assert isinstance(caught.value.__cause__, OSError) is net.transport.gives_cause
            await turns()
            assert far.state is State.CLOSED
            for operation in (far.recv, far.__anext__, far.flush, lambda: far.send(b"x")):
                with pytest.raises(portico.ClosedError) as caught:
                    await operation()
                assert (caught.value.__cause__ is not None) is net.transport.gives_cause
        else:
            assert len(await rest_of(far)) < len(LARGE)


@contract(names=[name for name in ALL if TRANSPORTS[name].tells_abort])
async def test_what_came_before_a_loss_stays_readable(net):
    async with net.pair(LINES) as (near, far):
        for word in (b"one", b"two"):
            near.send(word)
        await near.flush()
        while not far.queued[0]:
            await turns(1)
        near.abort()
        assert [await far.recv(), await far.recv()] == [b"one", b"two"]
        for operation in (far.recv, far.__anext__):
            with pytest.raises(portico.ClosedError) as caught:
                await operation()
            assert isinstance(caught.value.__cause__, OSError)


@contract(EVERY)
async def test_close_crosses_an_abort(net):
    """The loop does not know of the loss yet when this side ends its own."""
    for end in ("close", "send_eof", "abort") if net.transport.can_half_close else ("close", "abort"):
        async with net.pair() as (near, far):
            await turns(5)
            near.abort()
            getattr(far, end)()
            await turns()
            await far.close()


@contract([*ALL, *LOSSLESS])
async def test_a_handler_that_returns_closes_its_connection_after_what_it_sent(net):
    async def handler(stream):
        for part in in_packets(net, LARGE):
            stream.send(part)

    async with net.serve(handler) as server:
        client = await net.connect(server)
        assert await rest_of(client) == LARGE
        await client.close()


@contract(WHOLE)
async def test_what_a_handler_sent_before_it_returned_arrives_in_order(net):
    async def handler(channel):
        asked = await channel.recv()
        for number in range(8):
            channel.send(b"%b %d" % (asked, number))

    async with net.serve(handler) as server:
        client = await net.connect(server)
        await client.send(b"answer")
        assert [await client.recv() for _ in range(8)] == [b"answer %d" % number for number in range(8)]
        await client.close()


@contract([name for name in WHOLE if name not in HALF_CLOSING])
async def test_where_one_side_cannot_be_ended_send_eof_says_so(net):
    async with net.pair() as (near, far):
        for one, other in ((near, far), (far, near)):
            with pytest.raises(portico.UnsupportedError, match="one side"):
                one.send_eof()
            await one.send(b"goes on")
            assert await other.recv() == b"goes on"


@contract([*ALL, *LOSSLESS])
async def test_a_cancelled_close_goes_on(net):
    async with net.pair() as (near, far):
        for part in in_packets(net, LARGE):
            near.send(part)
        for count in range(4):
            closing = spawn(near.close())
            await turns(count)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
        assert await rest_of(far) == LARGE
        far.close()
        await near.wait_closed()


@contract(EVERY)
async def test_the_context_manager_closes_and_a_cancelled_body_aborts(net):
    async with net.pair() as (near, far):
        async with near as same:
            assert same is near
            await near.send(b"all")
            far.close()
        assert near.state is State.CLOSED
    async with net.pair() as (near, far):

        async def body():
            async with near:
                for part in in_packets(net, LARGE):
                    near.send(part)
                await near.recv()

        task = spawn(body())
        await turns(3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert near.state is State.CLOSED


@contract(WHOLE)
async def test_the_state_of_a_channel_through_a_whole_life(net):
    async with net.pair() as (near, far):
        assert near.state is far.state is State.OPEN
        if net.transport.can_half_close:
            near.send_eof()
            assert near.state is State.HALF_CLOSED_LOCAL
            with pytest.raises(portico.EndOfStream):
                await far.recv()
            assert far.state is State.HALF_CLOSED_REMOTE
        far.send(b"x")
        far.close()
        assert far.state is State.CLOSING
        assert await near.recv() == b"x"
        await near.close()
        await far.wait_closed()
        assert near.state is far.state is State.CLOSED
        assert repr(near).startswith(f"<{type(near).__name__} closed ")


@contract()
async def test_the_state_through_a_whole_life(net):
    async with net.pair() as (near, far):
        assert near.state is far.state is State.OPEN
        near.send_eof()
        assert near.state is State.HALF_CLOSED_LOCAL
        assert await far.recv() == b""
        assert far.state is State.HALF_CLOSED_REMOTE
        far.send(b"x")
        far.close()
        assert far.state is State.CLOSING
        assert await near.recv() == b"x"
        assert await near.recv() == b""
        await near.close()
        await far.wait_closed()
        assert near.state is far.state is State.CLOSED
        assert repr(near).startswith("<Stream closed ")
