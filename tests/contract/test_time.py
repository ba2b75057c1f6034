"""Promise 9: deadlines of one's own around everything, and those that are settings."""

import asyncio
import contextlib

import pytest

import portico

from .support import MAKERS, client_tls, contract, in_packets, rest_of, settled, spawn, turns
from .transports import ALL, EVERY, LOSSLESS, MESSAGES, SECURE, TRANSPORTS

LINES = portico.Lines(text=False)
SHORT = 0.06


@contract(make=MAKERS)
async def test_a_timeout_cuts_every_operation_short_and_harms_nothing(net, make):
    async with net.pair() as (near, far):
        near.send(b"x" * 8_000_000)
        await settled(lambda: near.queued[1])

        async def cut(operation):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001):
                    await operation()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(operation(), 0)

        for operation in (
            lambda: near.send(b"y"),
            near.flush,
            near.wait_closed,
            near.recv,
            lambda: near.recv_exactly(1),
            lambda: near.recv_until(b"!"),
            near.__anext__,
        ):
            await spawn(cut(operation), MAKERS[make])
        assert await far.recv_exactly(8_000_000) == b"x" * 8_000_000
        near.send(b"!")
        assert (await far.recv_until(b"!")).strip(b"y") == b""
        await near.flush()


@contract(EVERY)
async def test_idle_timeout_of_a_server(net):
    async with net.pair(limits=portico.Limits(idle_timeout=SHORT, close_timeout=SHORT)) as (near, far):
        with pytest.raises(portico.ClosedError, match="idle_timeout") as caught:
            await far.recv()
        assert isinstance(caught.value.__cause__, TimeoutError) and not caught.value.clean
        if net.transport.tells_end:
            assert await rest_of(near) == b""


@contract(EVERY)
async def test_idle_timeout_of_a_client_counts_from_the_last_byte(net):
    loop = asyncio.get_running_loop()
    async with net.pair(idle_timeout=0.15) as (near, far):
        begun = loop.time()
        receiving = spawn(rest_of(near))
        for _ in range(6):
            await asyncio.sleep(0.05)  # time is what is tested
            far.send(b".")
        with pytest.raises(portico.ClosedError, match="idle_timeout"):
            await receiving
        assert loop.time() - begun > 0.4


@contract()
async def test_message_timeout_of_a_server(net):
    """Dribbling does not help."""
    limits = portico.Limits(message_timeout=SHORT, close_timeout=SHORT)
    async with net.pair(LINES, near_codec=None, limits=limits) as (near, far):

        async def dribble():
            with contextlib.suppress(portico.ClosedError):
                while True:
                    await near.send(b"x")
                    await asyncio.sleep(0.01)

        near.send(b"whole\n")
        dribbling = spawn(dribble())
        assert await far.recv() == b"whole"
        with pytest.raises(portico.ClosedError, match="message_timeout"):
            await far.recv()
        await far.close()
        near.abort()
        await dribbling


@contract(MESSAGES)
async def test_message_timeout_does_not_count_between_messages(net):
    async with net.pair(LINES, limits=portico.Limits(message_timeout=SHORT)) as (near, far):
        near.send(b"one")
        assert await far.recv() == b"one"
        await asyncio.sleep(2 * SHORT)
        near.send(b"two")
        assert await far.recv() == b"two"


@contract([*ALL, *LOSSLESS])
async def test_send_timeout_of_a_server(net):
    async with net.pair(limits=portico.Limits(send_timeout=SHORT, close_timeout=SHORT)) as (_, far):
        waiting = [far.send(part) for part in in_packets(net, b"x" * 14_000_000)][-1]
        with pytest.raises(portico.ClosedError, match="send_timeout") as caught:
            await waiting
        assert isinstance(caught.value.__cause__, TimeoutError)
        await far.wait_closed()


@contract(SECURE)
async def test_a_client_that_says_nothing_in_the_handshake(net):
    if net.transport.upgraded:
        return
    limits = portico.Limits(handshake_timeout=SHORT)

    async def handler(stream):
        raise AssertionError("no handshake, no handler")

    async with net.serve(handler, limits=limits) as server:
        client = await net.connect(server, secure=False)
        with contextlib.suppress(portico.ClosedError):
            await rest_of(client)
        await client.close()
        assert server.stats.handshakes_failed == 1


@contract(SECURE)
async def test_a_server_that_says_nothing_in_the_handshake(net):
    over = asyncio.Event()

    async def handler(stream):
        await over.wait()

    async with net.serve(handler, secure=False) as server:
        if net.transport.upgraded:
            stream = await net.connect(server, secure=False)

            with pytest.raises(portico.TLSError, match="in time"):
                await stream.start_tls(client_tls(), timeout=SHORT)
            await stream.wait_closed()
        else:
            with pytest.raises(portico.ConnectError, match="tls: timed out"):
                await portico.connect(server.address, tls=client_tls(), timeout=SHORT, **net.greeting)
        over.set()


@contract([name for name in (*ALL, *LOSSLESS) if TRANSPORTS[name].tls is None])
async def test_while_nobody_takes_it_silence_is_nobodys_fault(net):
    """Reading is paused: neither the idle nor the message timeout may strike, for nothing can come."""
    limits = portico.Limits(idle_timeout=SHORT, message_timeout=SHORT, read_buffer=1000)
    async with net.pair(LINES, limits=limits) as (near, far):
        for _ in range(300):
            near.send(b"x" * 10_000)
        await settled(lambda: far.queued[0])
        await asyncio.sleep(3 * SHORT)
        for _ in range(300):
            assert len(await far.recv()) == 10_000
        await turns()
