"""The closing handshake (RFC 6455, section 7): who begins, what is said, how long it may take, what else goes on."""

import asyncio
import time
from typing import Any

import pytest
from server.support import scenario, until

import portico
from portico import State, WebSocketSettings
from portico._core import Settings, driven

from .frames_kit import CONTINUATION, PING, TEXT, Fed, close_code, closing, fed, frame, head
from .talk import plain_client

CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
BOTH_ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])


@BOTH_ROLES
@pytest.mark.parametrize("code", CODES)
@fed
async def test_our_code_and_reason_reach_the_peer_and_it_ends(client: bool, code: int) -> None:
    ends = Fed(client=client)
    ends.socket.send("last words")
    waiting = ends.socket.close(code, "bye €")
    words, close = await ends.sent()
    assert (words.payload, close_code(close), close.payload[2:]) == (b"last words", code, "bye €".encode())
    assert ends.socket.state is State.CLOSING
    ends.feed(closing(code, key=ends.key))
    await asyncio.sleep(0)
    assert ("eof" in ends.transport.data) is not client  # the server closes the connection (section 7.1.1)
    ends.end()
    ends.lose()
    await waiting
    assert (ends.socket.state, ends.socket.close_code, ends.socket.close_reason) == (State.CLOSED, code, "")


@BOTH_ROLES
@pytest.mark.parametrize("code", CODES)
@fed
async def test_the_peers_code_and_reason_are_known_and_echoed(client: bool, code: int) -> None:
    ends = Fed(client=client)
    ends.frame(TEXT, b"one")
    ends.feed(closing(code, b"why", key=ends.key) + frame(TEXT, b"behind", key=ends.key))
    assert await ends.socket.recv() == "one"
    expected = portico.EndOfStream if code in (1000, 1001) else portico.ClosedError
    for _ in range(2):
        with pytest.raises(expected) as caught:
            await ends.socket.recv()
    (close,) = await ends.sent()
    assert (close_code(close), close.payload[2:]) == (code, b"")
    assert (ends.socket.close_code, ends.socket.close_reason) == (code, "why")
    if isinstance(caught.value, portico.ClosedError):
        assert (caught.value.code, caught.value.clean) == (code, True) and "why" in str(caught.value)
    with pytest.raises(portico.ClosedError) as caught:
        ends.socket.send("too late")
    assert caught.value.code == code
    iterated = [each async for each in ends.socket] if code in (1000, 1001) else []
    assert iterated == []


@fed
async def test_a_close_without_a_code_is_1005_and_answered_alike() -> None:
    ends = Fed()
    ends.feed(closing())
    assert [each async for each in ends.socket] == []
    (close,) = await ends.sent()
    assert (close.payload, ends.socket.close_code, ends.socket.close_reason) == (b"", 1005, "")


@fed
async def test_what_cannot_be_said_is_refused() -> None:
    ends = Fed()
    for code in (-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65536, 1 << 40):
        with pytest.raises(portico.ProtocolError, match="close code"):
            ends.socket.close(code)
    for reason in ("x" * 124, "€" * 42, "\ud800"):
        with pytest.raises(portico.ProtocolError):
            ends.socket.close(1000, reason)
    assert ends.socket.state is State.OPEN
    ends.socket.close(1000, "x" * 123)
    (close,) = await ends.sent()
    assert len(close.payload) == 125


@fed
async def test_the_first_close_counts() -> None:
    ends = Fed()
    for code in (4001, 4002):
        ends.socket.close(code, str(code))
    (close,) = await ends.sent()
    assert close_code(close) == 4001
    ends.socket.close(4003)
    ends.socket.send_eof()
    assert await ends.sent() == []


@fed
async def test_a_close_after_the_peers_says_what_the_peer_said() -> None:
    ends = Fed()
    ends.feed(closing(4000))
    ends.socket.close(4001)
    assert [close_code(each) for each in await ends.sent()] == [4000]


@fed
async def test_both_sides_close_at_once() -> None:
    ends = Fed()
    waiting = ends.socket.close(4001)
    await ends.sent()
    ends.feed(closing(4002, b"too"))
    await asyncio.sleep(0)
    assert "eof" in ends.transport.data
    ends.end()
    ends.lose()
    await waiting
    assert (ends.socket.close_code, ends.socket.close_reason) == (4002, "too")


@fed
async def test_answers_leave_before_the_close_though_the_end_comes_with_it() -> None:
    """Messages, Close and FIN in one arrival."""
    ends = Fed()

    async def echo() -> None:
        async for message in ends.socket:
            await ends.socket.send(message)

    handling = asyncio.create_task(driven(echo()))
    await asyncio.sleep(0)
    ends.feed(frame(TEXT, b"1") + frame(TEXT, b"2") + closing(1000))
    ends.end()
    one, two, close = await ends.sent()
    assert (one.payload, two.payload, close_code(close)) == (b"1", b"2", 1000)
    await handling


@fed
async def test_while_closing_messages_are_dropped_and_the_close_is_found_among_them() -> None:
    ends = Fed(max_size=1000)
    ends.frame(TEXT, b"half", fin=False)
    ends.socket.close()
    await ends.sent()
    ends.frame(CONTINUATION, b"x" * 500, fin=False)
    ends.frame(CONTINUATION, b"\xff" * 400, fin=False)
    ends.frame(PING, b"ping")
    ends.frame(CONTINUATION, b"x")
    for _ in range(50):
        ends.frame(TEXT, b"y" * 900)
    assert ends.socket.queued[0] == 0
    ends.feed(closing(1000))
    await asyncio.sleep(0)
    assert ends.transport.data == ["eof"] and ends.socket.close_code == 1000


@fed
async def test_what_breaks_the_rules_while_closing_ends_it() -> None:
    ends = Fed()
    ends.socket.close()
    await ends.sent()
    ends.feed(head(0x83, 5) + b"xxxxx")
    await asyncio.sleep(0)
    assert ends.transport.data == ["eof"]


@BOTH_ROLES
@fed
async def test_an_end_without_good_bye_is_1006(client: bool) -> None:
    for partly in (b"", frame(TEXT, b"half", fin=False), b"\x81"):
        ends = Fed(client=client)
        ends.frame(TEXT, b"one")
        ends.feed(partly if not client else b"")
        ends.end()
        assert await ends.socket.recv() == "one"
        for operation in (ends.socket.recv, ends.socket.__anext__, ends.socket.batches().__anext__):
            with pytest.raises(portico.ClosedError) as caught:
                await operation()
            assert (caught.value.code, caught.value.clean) == (1006, False)
        assert ends.socket.close_code == 1006
        assert await ends.sent() == []
        with pytest.raises(portico.ClosedError):
            ends.socket.send("x")


@fed
async def test_a_loss_is_1006_too_and_what_came_before_it_stays() -> None:
    for error in (ConnectionResetError("reset"), None):
        ends = Fed()
        ends.frame(TEXT, b"one")
        ends.lose(error)
        assert await ends.socket.recv() == "one"
        for operation in (ends.socket.recv, ends.socket.__anext__):
            with pytest.raises(portico.ClosedError) as caught:
                await operation()
            assert (caught.value.code, caught.value.clean) == (1006, False)
            assert caught.value.__cause__ is error
        assert ends.socket.close_code == 1006


@fed
async def test_one_side_alone_cannot_be_closed() -> None:
    ends = Fed()
    with pytest.raises(portico.UnsupportedError, match="close"):
        ends.socket.send_eof()
    ends.socket.send("goes on")
    assert [each.payload for each in await ends.sent()] == [b"goes on"]


@fed
async def test_a_close_within_a_message_in_pieces_leaves_at_once_and_tells_that_it_is_not_whole() -> None:
    ends = Fed()
    ends.socket.send_piece("half", False)
    ends.socket.send("held back")
    ends.socket.close(4001)
    half, close = await ends.sent()
    assert (half.payload, close_code(close)) == (b"half", 1011)


@fed
async def test_who_closed_first_is_told() -> None:
    for code, peer, told in (
        (4002, 4002, "this side closed the WebSocket with 4002: bye"),
        (1000, 4003, "this side closed the WebSocket with 1000 normal closure: bye"),
        (None, 4003, "the peer closed the WebSocket with 4003"),
    ):
        ends = Fed()
        if code is not None:
            ends.socket.close(code, "bye")
            await asyncio.sleep(0)
        ends.feed(closing(peer))
        await asyncio.sleep(0)
        with pytest.raises(portico.ClosedError) as caught:
            ends.socket.send("too late")
        assert str(caught.value) == told
        assert caught.value.code == (code or peer)
        assert ends.socket.close_code == peer


# Deadlines.


@fed
async def test_a_peer_that_never_answers_is_waited_for_close_timeout() -> None:
    for client in (False, True):
        ends = Fed(Settings(close_timeout=0.05), client=client)
        begun = time.monotonic()
        ends.socket.close()
        await ends.sent()
        for _ in range(4):
            ends.frame(TEXT, b"more")
        await until(lambda ends=ends: ends.transport.closed, 2)
        assert 0.04 < time.monotonic() - begun < 1
        ends.lose()
        await ends.socket.wait_closed()
        assert ends.socket.close_code == 1006


@fed
async def test_a_client_waits_for_the_server_to_end_the_connection_but_not_for_ever() -> None:
    ends = Fed(Settings(close_timeout=0.05), client=True)
    ends.feed(closing(1000, key=None))
    await ends.sent()
    assert not ends.transport.closed
    await until(lambda: ends.transport.closed, 2)


# Over sockets.


@scenario()
async def test_between_portico_and_portico_with_code_and_reason_both_ways() -> None:
    for who in ("client", "server"):
        arrived: asyncio.Future[portico.WebSocket] = asyncio.get_running_loop().create_future()

        async def handler(socket: portico.WebSocket, arrived: Any = arrived, who: str = who) -> None:
            arrived.set_result(socket)
            if who == "server":
                await socket.close(4001, "from here")
            else:
                with pytest.raises(portico.ClosedError) as caught:
                    await socket.recv()
                assert (caught.value.code, socket.close_reason) == (4001, "from here")

        async with portico.serve(handler, "ws://127.0.0.1:0") as server:
            near = await portico.connect(server.address)
            begun = time.monotonic()
            if who == "client":
                await near.close(4001, "from here")
            else:
                with pytest.raises(portico.ClosedError, match="from here"):
                    await near.recv()
                await near.wait_closed()
            far = await arrived
            await far.wait_closed()
            assert time.monotonic() - begun < 1
            assert near.close_code == far.close_code == 4001
            assert server.stats.handler_errors == 0


@scenario()
async def test_all_that_was_sent_reaches_a_slow_reader_before_the_close() -> None:
    async def handler(socket: portico.WebSocket) -> None:
        for number in range(300):
            socket.send(b"%03d" % number + b"x" * 10_000)

    async with portico.serve(handler, "ws://127.0.0.1:0", websocket=WebSocketSettings(deflate=None)) as server:
        async with portico.connect(server.address) as near:
            got = []
            async for message in near:
                got.append(int(message[:3]))
                await asyncio.sleep(0.0005)
            assert got == list(range(300)) and near.close_code == 1000


@scenario(errors=True)
async def test_a_handler_that_fails_closes_with_1011_and_tells_nothing_of_why() -> None:
    async def handler(socket: portico.WebSocket) -> None:
        await socket.recv()
        raise ValueError("a secret")

    async with plain_client(handler) as client:
        await client.send(frame(TEXT, b"x"))
        close = await client.frame()
        assert (close_code(close), b"secret" in close.payload) == (1011, False)
        await client.send(closing(1011))
        assert await client.is_over()
        assert client.server.stats.handler_errors == 1


@scenario()
async def test_a_handler_that_returns_closes_with_1000() -> None:
    async def handler(socket: portico.WebSocket) -> None:
        await socket.recv()

    async with plain_client(handler) as client:
        await client.send(frame(TEXT, b"x"))
        assert close_code(await client.frame()) == 1000
        await client.send(closing(1000))
        assert await client.is_over()


@scenario()
async def test_a_drain_tells_1001_whether_handlers_end_or_not() -> None:
    for ends in (True, False):

        async def handler(socket: portico.WebSocket, ends: bool = ends) -> None:
            await (socket.draining.wait() if ends else asyncio.Event().wait())

        async with plain_client(handler) as client:
            draining = asyncio.create_task(client.server.drain(0.1))
            assert close_code(await client.frame()) == 1001
            await client.send(closing(1001))
            client.end()
            assert await client.is_over()
            await draining
            assert client.server.stats.aborted == (0 if ends else 1)


@scenario()
async def test_a_code_that_was_chosen_stands_during_a_drain() -> None:
    for code in (1000, 4001):

        async def handler(socket: portico.WebSocket, code: int = code) -> None:
            await socket.draining.wait()
            await socket.close(code, "chosen")

        async with plain_client(handler) as client:
            draining = asyncio.create_task(client.server.drain(1))
            close = await client.frame()
            assert (close_code(close), close.payload[2:]) == (code, b"chosen")
            await client.send(closing(code))
            await draining


@scenario()
async def test_a_drain_waits_not_long_for_a_client_that_answers_nothing() -> None:
    async def handler(socket: portico.WebSocket) -> None:
        await asyncio.Event().wait()

    async with plain_client(handler) as client:
        begun = time.monotonic()
        await client.server.drain(0.1)
        assert time.monotonic() - begun < 4
        assert close_code(await client.frame()) == 1001
        assert await client.is_over()


@scenario()
async def test_cancelling_the_clients_block_ends_the_connection() -> None:
    heard, over = asyncio.Event(), asyncio.Event()

    async def handler(socket: portico.WebSocket) -> None:
        try:
            async for _ in socket:
                heard.set()
        except portico.ClosedError as error:
            assert error.code == 1006
            over.set()

    async with portico.serve(handler, "ws://127.0.0.1:0") as server:

        async def body() -> None:
            async with portico.connect(server.address) as near:
                await near.send("x")
                await near.recv()

        task = asyncio.create_task(body())
        await heard.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await over.wait()
