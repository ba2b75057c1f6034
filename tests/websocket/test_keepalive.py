"""Pings and pongs: who is alive, how far away, and who floods (RFC 6455, section 5.5.2). Time is what is tested."""

import asyncio
import time

import pytest
from server.support import scenario, until

import portico
from portico import WebSocketSettings
from portico._core import Settings

from .frames_kit import PING, PONG, TEXT, Fed, close_code, closing, fed, frame
from .talk import plain_client

SHORT = 0.05


async def answered(ends: Fed, seconds: float, answer: bool = True) -> list[float]:
    """Answer pings for a while; return when they came."""
    begun, came = time.monotonic(), []
    while time.monotonic() - begun < seconds:
        for each in await ends.sent():
            if each.opcode == PING:
                came.append(time.monotonic() - begun)
                if answer:
                    ends.frame(PONG, each.payload)
        await asyncio.sleep(0.002)
    return came


@pytest.mark.parametrize("timeout", [SHORT / 2, SHORT, 20.0, None])
@fed
async def test_a_ping_comes_each_interval_though_nobody_receives(timeout: float | None) -> None:
    ends = Fed(ping_interval=SHORT, ping_timeout=timeout)
    came = await answered(ends, 8 * SHORT)
    assert 4 <= len(came) <= 8
    assert ends.socket.state is portico.State.OPEN
    assert ends.socket.latency is not None and 0 < ends.socket.latency < SHORT


@fed
async def test_no_ping_comes_where_none_is_wanted() -> None:
    ends = Fed(ping_interval=None, ping_timeout=SHORT)
    assert await answered(ends, 3 * SHORT) == []
    assert ends.socket.latency is None


@fed
async def test_a_ping_that_nobody_answers_ends_the_connection() -> None:
    ends = Fed(Settings(close_timeout=SHORT), ping_interval=SHORT, ping_timeout=SHORT)
    ping_count = len(await answered(ends, 1.6 * SHORT, answer=False))
    assert ping_count == 1
    with pytest.raises(portico.ClosedError, match="ping_timeout") as caught:
        await ends.socket.recv()
    assert (caught.value.code, caught.value.clean) == (1006, False)
    assert isinstance(caught.value.__cause__, TimeoutError)
    assert [close_code(each) for each in await ends.sent()] == [1011]
    await until(lambda: ends.transport.closed, 2)


@pytest.mark.parametrize("sign", ["text", "half a frame", "another pong"])
@fed
async def test_whoever_says_anything_after_a_ping_is_alive(sign: str) -> None:
    ends = Fed(ping_interval=SHORT, ping_timeout=SHORT)
    begun = time.monotonic()
    while time.monotonic() - begun < 6 * SHORT:
        data = {"text": frame(TEXT, b"x"), "half a frame": b"", "another pong": frame(PONG, b"unasked")}[sign]
        ends.feed(data or frame(TEXT, b"x" * 100)[:7])
        if sign == "half a frame":
            ends.feed(frame(TEXT, b"x" * 100)[7:])
        await asyncio.sleep(SHORT / 5)
        await ends.received()
    assert ends.socket.state is portico.State.OPEN


@fed
async def test_the_answer_to_a_ping_gives_the_latency() -> None:
    ends = Fed()
    assert ends.socket.latency is None
    asking = asyncio.create_task(ends.socket.ping())
    await asyncio.sleep(0)
    (ping,) = await ends.sent()
    await asyncio.sleep(0.02)
    ends.frame(PONG, ping.payload)
    seconds = await asking
    assert 0.02 <= seconds < 1 and ends.socket.latency == seconds


@fed
async def test_pings_at_once_each_get_their_own_answer_in_any_order() -> None:
    ends = Fed()
    asking = [asyncio.create_task(ends.socket.ping()) for _ in range(5)]
    await asyncio.sleep(0)
    pings = await ends.sent()
    assert len({ping.payload for ping in pings}) == 5
    ends.frame(PONG, pings[2].payload)  # answers the older ones, too (section 5.5.3)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [task.done() for task in asking] == [True, True, True, False, False]
    ends.frame(PONG, pings[0].payload)  # an answer to an older ping, again
    ends.frame(PONG, b"unasked")
    ends.frame(PONG)
    await asyncio.sleep(0)
    assert not asking[3].done()
    ends.frame(PONG, pings[4].payload)
    assert all(0 <= seconds < 1 for seconds in await asyncio.gather(*asking))


@fed
async def test_a_ping_has_a_timeout_of_its_own_and_may_be_cancelled() -> None:
    ends = Fed()
    with pytest.raises(TimeoutError):
        await ends.socket.ping(timeout=0.01)
    asking = asyncio.create_task(ends.socket.ping())
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    for ping in await ends.sent():
        ends.frame(PONG, ping.payload)
    assert ends.socket.state is portico.State.OPEN


@fed
async def test_pings_that_nobody_waits_for_any_more_are_forgotten() -> None:
    ends = Fed()
    for _ in range(3):  # each with the same payload, which none that is on its way may have
        waiting = asyncio.get_running_loop().create_future()
        ends.socket.send_ping(b"same", waiting)
        with pytest.raises(portico.ProtocolError, match="on its way"):
            ends.socket.send_ping(b"same", asyncio.get_running_loop().create_future())
        waiting.cancel()
    assert [each.payload for each in await ends.sent()] == [b"same"] * 3


@pytest.mark.parametrize("end", ["close", "lose", "peer"])
@fed
async def test_the_end_of_the_connection_ends_the_wait_for_a_pong(end: str) -> None:
    ends = Fed(Settings(close_timeout=0.02))
    asking = asyncio.create_task(ends.socket.ping())
    await asyncio.sleep(0)
    if end == "close":
        ends.socket.close()
        await ends.sent()
        ends.feed(closing(1000))
        ends.end()
    elif end == "peer":
        ends.feed(closing(1001))
    if end != "lose":
        await ends.sent()
    ends.lose()
    with pytest.raises(portico.ClosedError):
        await asking
    with pytest.raises(portico.ClosedError):
        await ends.socket.ping()


@fed
async def test_pings_are_answered_with_what_they_carry() -> None:
    for size in (0, 1, 124, 125):
        ends = Fed()
        ends.frame(PING, b"p" * size)
        assert [(each.opcode, each.payload) for each in await ends.sent()] == [(PONG, b"p" * size)]


@fed
async def test_no_ping_or_pong_leaves_behind_a_close() -> None:
    ends = Fed(ping_interval=SHORT, ping_timeout=SHORT)
    ends.socket.close(1000)
    ends.frame(PING, b"late")
    await asyncio.sleep(3 * SHORT)
    assert [close_code(each) for each in await ends.sent()] == [1000]


# Over sockets.


@scenario()
async def test_a_flood_of_pings_from_a_peer_that_never_reads_takes_bounded_memory() -> None:
    over = asyncio.Event()

    async def handler(socket: portico.WebSocket) -> None:
        arrived.set_result(socket)
        await over.wait()

    arrived: asyncio.Future[portico.WebSocket] = asyncio.get_running_loop().create_future()
    async with plain_client(handler) as client:
        far = await arrived
        flood = frame(PING, b"x" * 125) * 2000
        most = 0
        for _ in range(120):
            await client.send(flood)
            most = max(most, sum(far.queued))
        assert most < 600_000
        client.reset()
        over.set()


@scenario()
async def test_a_living_peer_is_kept_while_this_side_reads_nothing() -> None:
    """Its pongs cannot be seen, but its machine confirms what is sent."""
    over = asyncio.Event()
    arrived: asyncio.Future[portico.WebSocket] = asyncio.get_running_loop().create_future()

    async def handler(socket: portico.WebSocket) -> None:
        arrived.set_result(socket)
        await over.wait()
        total = 0
        async for message in socket:
            total += len(message)
        assert total == 3_000_000

    settings = WebSocketSettings(ping_interval=SHORT, ping_timeout=SHORT, deflate=None)
    limits = portico.Limits(read_buffer=1000)
    async with portico.serve(handler, "ws://127.0.0.1:0", websocket=settings, limits=limits) as server:
        async with portico.connect(server.address, websocket=WebSocketSettings(deflate=None)) as near:
            for _ in range(300):
                near.send(b"x" * 10_000)
            far = await arrived
            await asyncio.sleep(8 * SHORT)
            assert far.state is portico.State.OPEN and far.queued[0] > 1000
            over.set()
            await near.flush()
        assert server.stats.handler_errors == 0


@scenario()
async def test_a_peer_that_has_gone_silent_is_noticed_while_nobody_receives() -> None:
    arrived: asyncio.Future[portico.WebSocket] = asyncio.get_running_loop().create_future()

    async def handler(socket: portico.WebSocket) -> None:
        arrived.set_result(socket)
        await socket.wait_closed()

    settings = WebSocketSettings(ping_interval=SHORT, ping_timeout=SHORT)
    limits = portico.Limits(close_timeout=SHORT)
    async with plain_client(handler, settings, limits=limits) as client:
        far = await arrived
        ping, close = await client.frame(), await client.frame()
        assert (ping.opcode, close_code(close)) == (PING, 1011)
        await far.wait_closed()
        assert far.close_code == 1006 and isinstance(far.cause, TimeoutError)
