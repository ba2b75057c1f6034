"""What happens to WebSockets in the field: peers that vanish in every state, floods, crowds, nothing left behind."""

import asyncio
import gc
import socket
import weakref
from typing import Any

import pytest
from server.support import EVERYWHERE, scenario, until

import portico
from portico import WebSocketSettings

from .frames_kit import BINARY, PING, TEXT, close_code, closing, frame, head
from .support import head_from, masked, request
from .talk import Talker, plain_client

STATES: dict[str, bytes] = {
    "open": b"",
    "behind a message": frame(TEXT, b"one"),
    "within a head": frame(BINARY, bytes(70_000))[:5],
    "within a payload": frame(BINARY, bytes(70_000))[:30_000],
    "within a message": frame(TEXT, b"half", fin=False),
    "within a ping": frame(PING, b"abc")[:-1],
    "behind its close": closing(1000),
    "behind a broken frame": frame(3),
}
WAYS = ("reset", "end", "close")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("state", STATES)
@scenario(EVERYWHERE)
async def test_a_peer_that_vanishes_is_noticed_in_every_state(state: str, way: str) -> None:
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def handler(channel: portico.WebSocket) -> None:
        try:
            async for _ in channel:
                pass
            ended.set_result(None)
        except portico.PorticoError as error:
            ended.set_result(error)

    async with plain_client(handler) as client:
        before = client.server.stats.bytes_received
        await client.send(STATES[state])
        await until(lambda: client.server.stats.bytes_received >= before + len(STATES[state]))
        getattr(client, way)()
        error = await ended
        if state == "behind its close":
            assert error is None
        elif state == "behind a broken frame":
            assert isinstance(error, portico.ProtocolError)
        else:
            assert isinstance(error, portico.ClosedError)
            assert (error.code, error.clean) == (1006, False)
        if way == "end":
            client.close()
        await until(lambda: client.server.stats.open == 0)
        assert client.server.stats.handler_errors == 0


@scenario()
async def test_a_peer_that_vanishes_while_a_lot_is_sent_to_it() -> None:
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def handler(channel: portico.WebSocket) -> None:
        try:
            while True:
                await channel.send(b"x" * 100_000)
        except portico.ClosedError as error:
            ended.set_result(error)

    for way in WAYS:
        ended = asyncio.get_running_loop().create_future()
        async with plain_client(handler) as client:
            await client.recv_exactly(1_000_000)
            getattr(client, way)()
            assert not (await ended).clean
            if way == "end":
                client.close()


@scenario()
async def test_a_close_while_a_lot_waits_for_a_reader_that_stopped() -> None:
    done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def handler(channel: portico.WebSocket) -> None:
        for _ in range(140):
            channel.send(b"x" * 100_000)
        begun = asyncio.get_running_loop().time()
        await channel.close()
        done.set_result(asyncio.get_running_loop().time() - begun)

    async with plain_client(handler, limits=portico.Limits(close_timeout=0.2)) as client:
        assert 0.15 < await done < 2
        client.reset()


@scenario()
async def test_frames_that_come_with_the_request_are_read_however_many() -> None:
    got: list[int] = []

    async def handler(channel: portico.WebSocket) -> None:
        async for message in channel:
            got.append(len(message))
        await asyncio.sleep(0)

    async with portico.serve(handler, "ws://127.0.0.1:0") as server:
        for count in (1, 3, 40):
            got.clear()
            with socket.create_connection(("127.0.0.1", server.address.port)) as sock:
                sock.setblocking(False)
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(sock, request() + frame(BINARY, bytes(9000)) * count + closing(1000))
                while await loop.sock_recv(sock, 65536):
                    pass
            assert got == [9000] * count


@scenario()
async def test_a_server_that_speaks_at_once_is_understood_however_much_it_says() -> None:
    async def handler(channel: portico.WebSocket) -> None:
        for number in range(400):
            channel.send(b"%d" % number + b"." * 5000)

    async with portico.serve(handler, "ws://127.0.0.1:0", websocket=WebSocketSettings(deflate=None)) as server:
        for _ in range(3):
            async with portico.connect(server.address) as near:
                assert [int(message.rstrip(b".")) async for message in near] == list(range(400))


@scenario()
async def test_a_flood_that_nobody_reads_is_held_back() -> None:
    over = asyncio.Event()
    arrived: asyncio.Future[portico.WebSocket] = asyncio.get_running_loop().create_future()

    async def handler(channel: portico.WebSocket) -> None:
        arrived.set_result(channel)
        await over.wait()

    async with plain_client(handler) as client:
        far = await arrived
        sending = asyncio.create_task(client.send(masked(b"x") * 4_000_000))
        await until(lambda: far.queued[0] > 60_000)
        await asyncio.sleep(0.05)
        assert far.queued[0] < 5_000_000 and not sending.done()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        over.set()
        client.reset()


@scenario()
async def test_a_crowd_that_comes_and_vanishes_leaves_nothing() -> None:
    kept: list[weakref.ref[Any]] = []

    async def handler(channel: portico.WebSocket) -> None:
        kept.append(weakref.ref(channel))
        async for message in channel:
            await channel.send(message)

    async with portico.serve(handler, "ws://127.0.0.1:0") as server:

        async def visit(number: int) -> None:
            near = await portico.connect(server.address)
            await near.send("x" * 1000)
            assert await near.recv() == "x" * 1000
            if number % 3 == 0:
                await near.close()
            elif number % 3 == 1:
                near.abort()
            else:
                near.send_piece("half", False)
                await near.close(4000)

        await asyncio.gather(*(visit(number) for number in range(60)))
        await until(lambda: server.stats.open == 0)
        assert server.stats.handler_errors == 0
        assert len(kept) == 60

        def all_gone() -> bool:
            gc.collect()
            return not any(each() is not None for each in kept)

        await until(all_gone)


@scenario()
async def test_a_broken_frame_does_not_reset_what_was_said_about_it() -> None:
    """The peer goes on sending; the Close that tells what was wrong arrives all the same."""

    async def handler(channel: portico.WebSocket) -> None:
        with pytest.raises(portico.ProtocolError):
            async for _ in channel:
                pass

    async with plain_client(handler) as client:
        await client.send(head(0x8B, 3))
        for _ in range(20):
            await client.send(bytes(50_000))
        close = await client.frame()
        assert close_code(close) == 1002
        client.end()
        assert await client.is_over()


@scenario()
async def test_a_request_answered_late_loses_no_frame() -> None:
    """`authorize` takes its time while frames come."""

    async def authorize(request: object) -> bool:
        await asyncio.sleep(0.05)
        return True

    async def handler(channel: portico.WebSocket) -> None:
        async for message in channel:
            await channel.send(message)

    settings = WebSocketSettings(authorize=authorize)
    async with portico.serve(handler, "ws://127.0.0.1:0", websocket=settings) as server:
        with socket.create_connection(("127.0.0.1", server.address.port)) as sock:
            sock.setblocking(False)
            client = Talker(sock)
            await client.send(request())
            await asyncio.sleep(0.01)
            for number in range(20):
                await client.send(frame(BINARY, b"%d" % number + b"." * 10_000))
            assert (await head_from(client)).startswith("HTTP/1.1 101 ")
            got = [int((await client.frame()).payload.rstrip(b".")) for _ in range(20)]
            assert got == list(range(20))
