import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from client_kit import FakeClock, accept, clock, listening, on_both_loops, wait_until
from ports import free_port

from portico._core import Lines
from portico.address import Address
from portico.client import Retry, reconnecting
from portico.errors import AddressError, ClosedError, ConfigurationError, ConnectError, EndOfStream
from portico.transports.connection import Channel, State, Stream

__all__ = ["clock"]


@contextlib.asynccontextmanager
async def greeting(port: int = 0, words: str = "hello") -> AsyncIterator[Address]:
    """A server that says one line and hangs up."""

    async def serve(sock: socket.socket) -> None:
        while True:
            with await accept(sock) as peer:
                peer.send(f"{words}\n".encode())

    with listening(port=port) as (sock, address):
        serving = asyncio.ensure_future(serve(sock))
        try:
            yield address
        finally:
            serving.cancel()
            await asyncio.wait([serving])


@on_both_loops
async def test_each_time_a_fresh_connection(clock: FakeClock) -> None:
    seen: list[Channel[str]] = []
    async with greeting() as address:
        async for channel in reconnecting(address, codec=Lines()):
            assert all(each.state is State.CLOSED for each in seen)
            seen.append(channel)
            assert [line async for line in channel] == ["hello"]
            if len(seen) == 3:
                break
        await wait_until(lambda: channel.state is State.CLOSED)
    assert clock.slept == [0.5, 1.0]


@on_both_loops
async def test_it_outlives_a_restart_of_the_server(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    heard = []
    async with contextlib.AsyncExitStack() as servers:
        await servers.enter_async_context(greeting(port, "first"))

        async def restart_at_the_fourth(seconds: float) -> None:
            await clock.sleep(seconds)
            if len(clock.slept) == 1:
                await servers.aclose()
            if len(clock.slept) == 4:
                await servers.enter_async_context(greeting(port, "second"))

        monkeypatch.setattr("portico.client.retry.sleep", restart_at_the_fourth)
        async for channel in reconnecting(f"tcp://127.0.0.1:{port}", codec=Lines()):
            heard.append(await channel.recv())
            if len(heard) == 2:
                break
    assert heard == ["first", "second"]
    assert clock.slept == [0.5, 1.0, 2.0, 4.0]


@on_both_loops
async def test_the_delays_begin_anew_after_a_long_life(clock: FakeClock) -> None:
    times = 0
    async with greeting() as address:
        async for stream in reconnecting(address, retry=Retry(attempts=None, maximum=10.0)):
            await stream.recv()
            times += 1
            if times == 3:
                clock.time += 10.0
            if times == 5:
                break
    assert clock.slept == [0.5, 1.0, 0.5, 1.0]


@on_both_loops
async def test_a_lost_connection_is_left_by_continue(clock: FakeClock) -> None:
    lost = 0
    with listening() as (sock, address):
        async for stream in reconnecting(address):
            peer = await accept(sock)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            peer.close()
            try:
                await stream.recv_exactly(1)
            except (ClosedError, EndOfStream):
                lost += 1
                if lost < 3:
                    continue
                break
    assert lost == 3


@on_both_loops
async def test_an_error_of_the_body_leaves_the_loop_and_closes() -> None:
    with listening() as (sock, address):
        kept: list[Stream] = []
        with pytest.raises(KeyError):
            async for stream in reconnecting(address):
                kept.append(stream)
                (await accept(sock)).close()
                raise KeyError
        await wait_until(lambda: kept[0].state is State.CLOSED)


@on_both_loops
async def test_aclose_closes_and_waits() -> None:
    with listening() as (sock, address):
        async with contextlib.aclosing(reconnecting(address)) as connections:
            stream = await anext(connections)
            (await accept(sock)).close()
        assert stream.state is State.CLOSED


@on_both_loops
async def test_what_stays_is_raised(clock: FakeClock) -> None:
    with pytest.raises(ConnectError, match="only numeric addresses"):
        async for _ in reconnecting("tcp://name.test:80", numeric_only=True):
            pass
    assert clock.slept == []


@on_both_loops
async def test_so_many_failures_in_a_row_are_raised(clock: FakeClock) -> None:
    port = free_port()
    connected = 0
    server = contextlib.AsyncExitStack()
    await server.enter_async_context(greeting(port))
    with pytest.raises(ConnectError) as caught:
        async for _ in reconnecting(f"tcp://127.0.0.1:{port}", retry=Retry(attempts=3)):
            connected += 1
            if connected == 5:
                await server.aclose()
    assert connected == 5
    assert len(caught.value.attempts) == 3


@on_both_loops
async def test_cancelled_while_it_waits() -> None:
    async def iterate() -> None:
        async for _ in reconnecting(f"tcp://127.0.0.1:{free_port()}"):
            pass

    running = asyncio.ensure_future(iterate())
    await asyncio.sleep(0.02)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


def test_what_cannot_be_is_told_at_once() -> None:
    with pytest.raises(AddressError):
        reconnecting("tcp://localhost")
    with pytest.raises(ConfigurationError):
        reconnecting("tcp://localhost:80", timeout=0)
