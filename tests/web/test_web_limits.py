"""Limits of a listener of the web: threads and handshakes at `ws://…`, and what a Door has of its own."""

import asyncio
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from server.support import echo, scenario, until

import portico
from portico import Limits, WebSocketSettings
from portico.tools.loading import FileSettings

from .http_kit import Browser, browser, door_of

ASK = (
    "GET /|Connection: Upgrade|Upgrade: websocket|Sec-WebSocket-Version: 13|Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="
)
WS = "ws://127.0.0.1:0/"


class Plain:
    """A plain handler that says hello and stays until the client ends; how many run at a time."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, channel: Any) -> None:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
        channel.send("hello")
        for _ in channel:
            pass
        with self._lock:
            self.running -= 1


async def visited_by(three: portico.Service, plain: Plain, places: int) -> None:
    """Let three clients come to where `places` of them have a thread: the third waits until one has left."""
    async with portico.serve(three) as server:
        channels = [await portico.connect(server.address) for _ in range(3)]
        for channel in channels[:places]:
            assert await channel.recv() == "hello"
        waiting = asyncio.ensure_future(channels[-1].recv())
        if places < 3:
            await until(lambda: server.stats.open == 3)
            assert plain.running == places and not waiting.done()
            await channels[0].close()
        else:
            waiting.cancel()
        if places < 3:
            assert await waiting == "hello"
        for channel in channels:
            await channel.close()
    assert plain.most == places


# Threads.


@scenario()
async def test_max_threads_of_the_listener_holds_for_websockets() -> None:
    plain = Plain()
    await visited_by(portico.Service(limits=Limits(max_threads=2)).listen(WS, plain), plain, 2)


@scenario()
async def test_max_threads_of_one_listener_comes_before_that_of_the_service() -> None:
    plain = Plain()
    service = portico.Service(limits=Limits(max_threads=1)).listen(WS, plain, limits=Limits(max_threads=2))
    await visited_by(service, plain, 2)


@scenario()
async def test_max_threads_of_a_file_holds_for_websockets() -> None:
    plain = Plain()
    service = portico.Service().listen(WS, plain)
    FileSettings(limits={"max_threads": 2}).apply(service)
    await visited_by(service, plain, 2)


@scenario()
async def test_settings_of_websockets_in_a_file_leave_the_limits() -> None:
    plain = Plain()
    service = portico.Service().listen(WS, plain)
    FileSettings(limits={"max_threads": 2}, websocket={"max_size": 10}).apply(service)
    await visited_by(service, plain, 2)


@scenario()
async def test_a_door_has_max_threads_of_its_own() -> None:
    plain = Plain()
    door = portico.Door(max_threads=2)
    door.websocket("/", plain)
    service = portico.Service(limits=Limits(max_threads=1)).listen("http://127.0.0.1:0", door)
    FileSettings(limits={"max_threads": 1}).apply(service)
    async with portico.serve(service) as server:
        url = f"ws://127.0.0.1:{server.address.port}/"
        first, second = [await portico.connect(url) for _ in range(2)]
        assert await first.recv() == await second.recv() == "hello"
        await first.close()
        await second.close()


# Handshakes.


class Hanging:
    """An `authorize`, or `origins`, that answers too late, if ever."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()

    async def __call__(self, *asked: object) -> object:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        raise AssertionError


@pytest.fixture
def warned(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "portico.web"):
        yield caplog


async def refused(client: Browser, *more: str) -> None:
    """Ask for a WebSocket; the answer is 503, and the end."""
    answer = await client.ask("|".join([ASK, *more]))
    assert answer.status == 503 and answer.headers["retry-after"] == "1"
    assert await client.is_over()


@scenario()
async def test_authorize_that_is_too_slow_is_cancelled_and_answered_with_503(warned: Any) -> None:
    hanging = Hanging()
    service = portico.Service(limits=Limits(handshake_timeout=0.1))
    service.listen(WS, echo, websocket=WebSocketSettings(authorize=hanging))
    async with portico.serve(service) as server, browser(server.address) as client:
        where = client.client.sock.getsockname()
        await refused(client)
        assert hanging.cancelled.is_set()
        (record,) = warned.records
        assert f"tcp://127.0.0.1:{where[1]}: authorize of / did not answer within 0.1 s" in record.getMessage()
    assert server.stats.handler_errors == 0
    warned.clear()


@scenario()
async def test_origins_that_is_too_slow_is_answered_with_503() -> None:
    hanging = Hanging()
    service = portico.Service(limits=Limits(handshake_timeout=0.1))
    service.listen(WS, echo, websocket=WebSocketSettings(origins=hanging))
    async with portico.serve(service) as server, browser(server.address) as client:
        await refused(client, "Origin: http://elsewhere.example")
        assert hanging.cancelled.is_set()


@scenario()
async def test_authorize_at_a_door_has_as_long_as_a_head() -> None:
    hanging = Hanging()
    door = door_of(head_timeout=0.1)
    door.websocket("/chat", echo, websocket=WebSocketSettings(authorize=hanging))
    async with portico.serve(door, "http://127.0.0.1:0") as server, browser(server.address) as client:
        answer = await client.ask(ASK.replace("GET /", "GET /chat"))
        assert answer.status == 503 and hanging.cancelled.is_set()


@scenario(errors=True)
async def test_a_timeout_of_authorize_itself_is_an_error_of_its_own() -> None:
    async def authorize(request: portico.Request) -> object:
        raise TimeoutError("the database")

    settings = WebSocketSettings(authorize=authorize)
    async with portico.serve(echo, WS, websocket=settings) as server, browser(server.address) as client:
        assert (await client.ask(ASK)).status == 500
        assert server.stats.handler_errors == 1


@scenario()
async def test_a_head_that_is_too_slow_is_ended_by_handshake_timeout() -> None:
    async with portico.serve(echo, WS, limits=Limits(handshake_timeout=0.1)) as server:
        async with browser(server.address) as client:
            await client.send(b"GET / HT")
            answer = await client.answer()
            assert answer.status == 408
            assert await client.is_over()


@scenario()
async def test_without_handshake_timeout_nothing_is_bounded() -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    async def authorize(request: portico.Request) -> object:
        asked.set()
        return await go.wait()

    settings = WebSocketSettings(authorize=authorize)
    async with portico.serve(echo, WS, limits=Limits(handshake_timeout=None), websocket=settings) as server:
        async with browser(server.address) as client:
            answering = asyncio.ensure_future(client.ask(ASK))
            await asked.wait()
            go.set()
            assert (await answering).status == 101
