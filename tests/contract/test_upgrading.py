"""A connection that changes on the way: a Stream becomes a Channel, plain becomes TLS."""

import asyncio
import contextlib

import pytest

import portico
from portico import State

from .codecs import FRAMINGS
from .support import MAKERS, client_tls, contract, rest_of, server_tls, spawn, turns
from .transports import ALL, SOME, TRANSPORTS

LINES = portico.Lines(text=False)
CLEAR = [name for name in ALL if TRANSPORTS[name].tls is None]


async def arrived(stream, size):
    """Wait until the stream holds `size` bytes that nobody took."""
    while stream.queued[0] < size:
        await turns(1)


@contract(SOME, framing=FRAMINGS)
async def test_a_channel_takes_over_bytes_already_read(net, framing):
    async with net.pair() as (near, far):
        codec = framing.codec()
        frames = b"".join(codec.encode(framing.message(i)) for i in range(3))
        near.send(b"HELLO\n" + frames[:-3])
        assert await far.recv_until(b"\n") == b"HELLO"
        await arrived(far, len(frames) - 3)
        channel = far.channel(framing.codec())
        near.send(frames[-3:])
        assert [await channel.recv() for _ in range(3)] == [framing.message(i) for i in range(3)]
        await channel.send(framing.message(9))
        answer = codec.encode(framing.message(9))
        assert await near.recv_exactly(len(answer)) == answer
        assert channel.remote_address == far.remote_address and channel.local_address == far.local_address


@contract(make=MAKERS)
async def test_a_channel_takes_over_an_end_already_seen(net, make):
    async with net.pair() as (near, far):
        near.send(b"one\ntwo\nhalf")
        near.send_eof()
        assert await far.recv_exactly(4) == b"one\n"
        while far.state is not State.HALF_CLOSED_REMOTE:
            await turns(1)
        channel = far.channel(LINES)

        async def receive():
            assert await channel.recv() == b"two"
            with pytest.raises(portico.EndOfStream) as caught:
                await channel.recv()
            assert caught.value.partial == b"half"

        await spawn(receive(), MAKERS[make])
        assert channel.state is far.state is State.HALF_CLOSED_REMOTE
        await channel.send(b"answer")
        channel.send_eof()
        assert await rest_of(near) == b"answer\n"


@contract()
async def test_a_stream_that_became_a_channel_is_done_with(net):
    async with net.pair() as (near, far):
        far.send(b"before ")
        channel = far.channel(LINES)
        await channel.send(b"after")
        assert await near.recv_exactly(13) == b"before after\n"
        for operation in (lambda: far.send(b"x"), far.recv, lambda: far.recv_exactly(1), lambda: far.channel(LINES)):
            with pytest.raises(portico.ClosedError, match="handed its connection on"):
                result = operation()
                await result
        waiting = spawn(far.wait_closed())
        near.close()
        await far.close()
        await waiting
        assert channel.state is far.state is State.CLOSED


@contract(SOME)
async def test_nothing_changes_while_a_task_receives(net):
    async with net.pair() as (near, far):
        receiving = spawn(far.recv())
        await turns()
        with pytest.raises(portico.BusyError):
            far.channel(LINES)
        with pytest.raises(portico.BusyError):
            await far.start_tls(server_tls(), server_side=True)
        near.send(b"x")
        assert await receiving == b"x"
        near.close()
        far.close()
        await far.wait_closed()
        with pytest.raises(portico.ClosedError):
            far.channel(LINES)
        with pytest.raises(portico.ClosedError):
            await far.start_tls(server_tls(), server_side=True)


@contract(CLEAR, make=MAKERS, server_first=[False, True])
async def test_start_tls_with_bytes_before_and_behind_the_upgrade(net, make, server_first):
    """What is pipelined behind the request to upgrade is the start of the handshake and is kept, whoever is first."""
    async with net.pair() as (near, far):

        async def client():
            await near.send(b"STARTTLS\n")
            if server_first:
                assert await near.recv_until(b"\n") == b"go ahead"
            await near.start_tls(client_tls())
            near.send(b"over TLS")
            return await near.recv_exactly(13)

        async def server():
            assert await far.recv_until(b"\n") == b"STARTTLS"
            if server_first:
                far.send(b"go ahead\n")
            else:
                await arrived(far, 100)  # the ClientHello
            await far.start_tls(server_tls(), server_side=True)
            assert await far.recv_exactly(8) == b"over TLS"
            await far.send(b"over TLS, too")

        serving = spawn(server(), MAKERS[make])
        assert await spawn(client(), MAKERS[make]) == b"over TLS, too"
        await serving
        assert near.tls.version == far.tls.version == "TLSv1.3"
        assert near.state is far.state is State.OPEN
        near.send_eof()
        assert await far.recv() == b""
        channel = far.channel(LINES)
        await channel.send(b"half-closed")
        assert await near.recv_until(b"\n") == b"half-closed"


@contract(CLEAR)
async def test_start_tls_with_a_peer_that_does_not_speak_it(net):
    async with net.pair() as (near, far):
        near.send(b"this is no TLS at all\r\n" * 20)
        with pytest.raises(portico.TLSError, match="plain text"):
            await far.start_tls(server_tls(), server_side=True)
        with pytest.raises(portico.ClosedError):
            far.send(b"x")
        with contextlib.suppress(portico.ClosedError):
            await rest_of(near)


@contract(CLEAR)
async def test_start_tls_refused_by_the_client(net):
    async with net.pair() as (near, far):
        serving = spawn(far.start_tls(server_tls(), server_side=True))
        with pytest.raises(portico.TLSError, match="unknown authority"):
            await near.start_tls(portico.TLS(server_name="localhost"))
        with pytest.raises(portico.TLSError):
            await serving


@contract(CLEAR)
async def test_a_start_tls_that_is_cancelled_drops_the_connection(net):
    for count in range(4):
        async with net.pair() as (near, far):
            upgrading = spawn(near.start_tls(client_tls()))
            await turns(count)
            upgrading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await upgrading
            if count > 1:
                assert near.state is State.CLOSED or near.state is State.CLOSING
            near.close()
            far.close()


@contract()
async def test_what_a_client_sends_at_once_is_not_lost(net):
    """The server may not have made its connection yet when the first bytes come."""

    async def echo(stream):
        async for data in stream:
            await stream.send(data)

    async with net.serve(echo) as server:
        for _ in range(3):
            client = await net.connect(server)
            client.send(b"at once")
            client.flush()
            client.send_eof()
            assert await rest_of(client) == b"at once"
            await client.close()
