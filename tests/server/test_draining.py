"""Coming to an end: close, drain, abort; who is told, who is waited for, and what is left."""

import asyncio
import contextlib

import pytest
from ports import free_port

import portico
from portico.errors import ClosedError
from portico.server import service as serving

from .support import EVERYWHERE, Certificates, certificates, client_of, clients, echo, scenario, until, wait_for_end

ANYWHERE = "tcp://127.0.0.1:0"
__all__ = ["certificates"]


async def until_drained(connection: portico.Stream) -> None:
    """Echo until the server drains, then say goodbye."""
    told = asyncio.ensure_future(connection.draining.wait())
    try:
        while not connection.draining:
            receiving = asyncio.ensure_future(connection.recv())
            await asyncio.wait({told, receiving}, return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                receiving.cancel()
                await asyncio.wait({receiving})
                break
            if not receiving.result():
                return
            await connection.send(receiving.result())
        await connection.send(b"goodbye")
    finally:
        told.cancel()


@scenario(on=EVERYWHERE)
async def test_close_stops_listening_and_leaves_connections_alone() -> None:
    server = await portico.serve(echo, f"tcp://127.0.0.1:{free_port()}")
    async with clients(server.address) as (client,):
        await client.ask(b"before")
        server.close()
        server.close()
        with pytest.raises((ConnectionRefusedError, TimeoutError)):
            async with asyncio.timeout(0.2):
                await client_of(server.address)
        await client.ask(b"after")
        assert not server.draining and server.stats.open == 1
        forever = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        assert not forever.done()
        client.end()
        assert await client.is_over()
        await forever
        await server.wait_closed()
    assert (server.stats.open, server.stats.aborted) == (0, 0)


@scenario(on=EVERYWHERE)
async def test_drain_tells_handlers_and_waits_for_them() -> None:
    server = await portico.serve(until_drained, ANYWHERE)
    async with clients(server.address, 3) as many:
        for each in many:
            await each.ask(b"hello")
        draining = asyncio.ensure_future(server.drain(5))
        for each in many:
            assert await each.recv_all() == b"goodbye"
            each.close()
        await draining
    assert server.draining and server.stats.aborted == 0 and server.stats.closed == 3


@scenario(on=EVERYWHERE)
async def test_drain_aborts_what_is_left_after_its_time() -> None:
    ended: list[BaseException] = []

    async def hang(stream: portico.Stream) -> None:
        try:
            await stream.send(b"x")
            await asyncio.Event().wait()
        except BaseException as error:
            ended.append(error)
            raise

    server = await portico.serve(hang, ANYWHERE)
    async with clients(server.address) as (client,):
        await client.recv_exactly(1)
        await server.drain(0.05)
        assert await client.is_over()
    assert server.stats.aborted == 1 and server.stats.open == 0 and server.stats.handler_errors == 0
    assert isinstance(ended[0], asyncio.CancelledError)


@scenario(errors=True)
async def test_a_handler_that_suppresses_its_cancellation_is_reported(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "STOP_TIMEOUT", 0.1)
    go = asyncio.Event()

    async def stubborn(stream: portico.Stream) -> None:
        await stream.send(b"x")
        while not go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go.wait()

    limits = portico.Limits(close_timeout=0.1)
    server = await portico.serve(stubborn, ANYWHERE, limits=limits)
    async with clients(server.address) as (client,):
        await client.recv_exactly(1)
        await server.drain(0)
        assert await client.is_over()
        assert "does not end though it was cancelled" in caplog.text
        assert str(client.sock.getsockname()[1]) in caplog.text
        assert len(server.leftover_tasks()) == 1
    go.set()
    await server.wait_closed()
    assert server.leftover_tasks() == []


async def leave_much_behind(stream: portico.Stream) -> None:
    stream.send(b"x" * (8 << 20))


@scenario(on=EVERYWHERE)
async def test_abort_ends_everything_now_even_what_is_still_closing() -> None:
    server = await portico.serve(leave_much_behind, ANYWHERE)
    async with clients(server.address) as (client,):
        await client.recv_exactly(1)
        await until(lambda: not server.leftover_tasks())
        assert server.stats.open == 1
        async with asyncio.timeout(2):
            await server.abort()
        assert server.stats.open == 0
        with pytest.raises(ConnectionResetError):
            await client.recv_all()


@scenario(on=EVERYWHERE)
async def test_drain_lets_what_a_handler_left_behind_leave() -> None:
    server = await portico.serve(leave_much_behind, ANYWHERE)
    async with clients(server.address) as (client,):
        await client.recv_exactly(1)
        await until(lambda: not server.leftover_tasks())
        draining = asyncio.ensure_future(server.drain(0))
        assert len(await client.recv_all()) == (8 << 20) - 1
        client.close()
        await draining
    assert server.stats.aborted == 0


@scenario(on=EVERYWHERE)
async def test_a_handshake_that_never_ends_holds_up_nobody(certificates: Certificates) -> None:
    async with asyncio.timeout(3):
        async with portico.serve(echo, "tls://127.0.0.1:0", tls=certificates.server()) as server:
            silent = await client_of(server.address)
            await until(lambda: server.stats.handshakes == 1)
        assert (server.stats.handshakes, server.stats.open) == (0, 0)
    assert await silent.is_over()
    silent.close()


@pytest.mark.parametrize("scheme", ["tcp", "unix"])
@scenario(on=EVERYWHERE)
async def test_who_had_connected_before_the_close_is_served(scheme: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    """The kernel resets what waits in the backlog of a socket that is closed, with all that it has sent."""
    server = await portico.serve(echo, ANYWHERE if scheme == "tcp" else f"unix:{tmp_path}/server.sock")
    loop = asyncio.get_running_loop()
    async with clients(server.address) as (first,):
        await first.ask(b"first")
        import socket

        waiting = [socket.socket(server.address.family) for _ in range(5)]
        for each in waiting:  # the server cannot accept them before this task waits
            each.connect(server.address.sockaddr)
            each.sendall(b"hello")
            each.setblocking(False)
        server.close()
        for each in waiting:
            assert await loop.sock_recv(each, 100) == b"hello"
            each.close()
    await server.drain(1)
    assert server.stats.accepted == 6 and server.stats.aborted == 0


@scenario()
async def test_a_paused_server_lets_nobody_in_when_it_closes() -> None:
    async with (
        portico.serve(echo, ANYWHERE, limits=portico.Limits(max_connections=1)) as server,
        clients(server.address, 2) as (one, two),
    ):
        await one.ask(b"in")
        server.close()
        assert await two.is_over()
        await one.ask(b"still in")
        assert server.stats.accepted == 1


@scenario()
async def test_draining_can_be_awaited_and_is_false_elsewhere() -> None:
    told: list[bool] = []

    async def handler(stream: portico.Stream) -> None:
        told.append(bool(stream.draining))
        await stream.send(b"x")
        await stream.draining
        told.append(bool(stream.draining))

    server = await portico.serve(handler, ANYWHERE)
    async with portico.connect(server.address) as stream:
        assert not stream.draining
        assert await stream.recv() == b"x"
        draining = asyncio.ensure_future(server.drain(5))
        assert await stream.recv() == b""
    await draining
    assert told == [False, True]


@scenario()
async def test_a_channel_made_of_a_stream_shows_draining_too() -> None:
    async def handler(stream: portico.Stream) -> None:
        channel = stream.channel(portico.Lines())
        await channel.send("hello")
        await channel.draining
        await channel.send("goodbye")

    server = await portico.serve(handler, ANYWHERE)
    async with portico.connect(server.address, codec=portico.Lines()) as channel:
        assert await channel.recv() == "hello"
        draining = asyncio.ensure_future(server.drain(5))
        assert [text async for text in channel] == ["goodbye"]
    await draining


@scenario()
async def test_a_handler_may_go_on_with_its_connection_after_close() -> None:
    async def handler(stream: portico.Stream) -> None:
        stream.close()
        with pytest.raises(ClosedError):
            await stream.send(b"too late")
        with pytest.raises(ClosedError):
            await stream.recv()

    async with portico.serve(handler, ANYWHERE) as server, clients(server.address) as (client,):
        assert await client.is_over()
        client.close()
        await until(lambda: server.stats.open == 0)
        assert server.stats.handler_errors == 0


@scenario()
async def test_leaving_serve_ends_the_handlers_that_still_run() -> None:
    async with portico.serve(wait_for_end, ANYWHERE) as server:
        client = await client_of(server.address)
        await until(lambda: server.stats.open == 1)
    assert await client.is_over()
    client.close()
    assert server.stats.aborted == 1
