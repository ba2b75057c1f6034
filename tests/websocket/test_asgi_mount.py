"""A channel handler as an ASGI application: driven by its three functions, in uvicorn, and within Starlette."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
import websockets
from server.support import ErrorRecords, scenario, until
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute

import portico
import portico.websocket
from portico.errors import ConfigurationError

IMPLEMENTATIONS = ["websockets-sansio", "wsproto"]


class Server:
    """An ASGI server that the test plays, for one WebSocket."""

    def __init__(self, app: Any, **scope: Any) -> None:
        self.scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "scheme": "ws",
            "path": "/chat/ü",
            "raw_path": b"/chat/%C3%BC",
            "query_string": b"a=1",
            "root_path": "",
            "headers": [(b"host", b"test"), (b"cookie", b"id=7")],
            "client": ("192.0.2.1", 5000),
            "server": ("192.0.2.2", 80),
            "subprotocols": ["b", "a"],
            "extensions": {"websocket.http.response": {}},
            **scope,
        }
        self.coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.coming.put_nowait({"type": "websocket.connect"})
        self.room = asyncio.Event()
        self.room.set()
        self.task = asyncio.create_task(app(self.scope, self.coming.get, self._take))
        self.failure: Exception | None = None

    async def _take(self, message: dict[str, Any]) -> None:
        await self.room.wait()
        if self.failure is not None:
            raise self.failure
        self.sent.put_nowait(message)

    def put(self, data: str | bytes) -> None:
        self.coming.put_nowait({"type": "websocket.receive", "text" if isinstance(data, str) else "bytes": data})

    def disconnect(self, code: int, reason: str = "") -> None:
        self.coming.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(5):
            return await self.sent.get()

    async def accepted(self) -> "Server":
        assert (await self.next())["type"] == "websocket.accept"
        return self

    async def over(self) -> None:
        async with asyncio.timeout(5):
            await self.task


class Seen:
    """What a handler has had."""

    def __init__(self) -> None:
        self.channel: Any = None
        self.messages: list[str | bytes] = []
        self.end: BaseException | None = None
        self.over = asyncio.Event()

    async def __call__(self, channel: portico.WebSocket) -> None:
        """Send back what comes, but for some words."""
        self.channel = channel
        try:
            async for message in channel:
                self.messages.append(message)
                if message == "close":
                    await channel.close(4000, "so it is")
                elif message == "fail":
                    raise RuntimeError("so it is")
                elif message == "abort":
                    channel.abort()
                elif message == "return":
                    return
                else:
                    await channel.send(message)
        except BaseException as error:
            self.end = error
            raise
        finally:
            self.over.set()


@scenario()
async def test_the_handler_has_a_channel_that_knows_its_request() -> None:
    seen = Seen()
    app = portico.websocket.asgi(
        seen, subprotocols=("a",), headers={"X-App": "1"}, authorize=lambda request: {"user": 7}
    )
    server = Server(app, path_params={"room": "x"})
    accept = {"type": "websocket.accept", "subprotocol": "a", "headers": [(b"x-app", b"1")]}
    assert await server.next() == accept
    server.put("hello")
    server.put(b"\0")
    assert await server.next() == {"type": "websocket.send", "text": "hello"}
    assert await server.next() == {"type": "websocket.send", "bytes": b"\0"}
    channel = seen.channel
    assert isinstance(channel, portico.WebSocket) and (channel.subprotocol, channel.data) == ("a", {"user": 7})
    request = channel.request
    assert (request.path, request.query, request.cookies, request.host) == ("/chat/ü", "a=1", {"id": "7"}, "test")
    assert (request.params, request.secure, request.scope) == ({"room": "x"}, False, server.scope)
    assert str(channel.remote_address) == str(request.remote_address) == "tcp://192.0.2.1:5000"
    assert str(channel.local_address) == str(request.local_address) == "tcp://192.0.2.2:80"
    server.disconnect(1000)
    await server.over()
    assert server.sent.empty() and seen.end is None


@scenario()
@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 4321])
async def test_the_handler_hears_how_the_client_ended(code: int) -> None:
    seen = Seen()
    server = await Server(portico.websocket.asgi(seen)).accepted()
    server.put("last words")
    assert (await server.next())["text"] == "last words"
    server.disconnect(code, "why" if code not in (1005, 1006) else "")
    await server.over()
    assert seen.messages == ["last words"]
    assert seen.channel.close_code == code
    assert seen.channel.close_reason == ("why" if code not in (1005, 1006) else "")
    assert (seen.end is None) == (code in (1000, 1001, 1005))
    assert seen.end is None or (isinstance(seen.end, portico.ClosedError) and seen.end.code == code)


@scenario(errors=True)
@pytest.mark.parametrize(
    ("word", "code", "reason"),
    [("close", 4000, "so it is"), ("return", 1000, ""), ("fail", 1011, ""), ("abort", 1011, "")],
)
async def test_the_client_hears_how_the_handler_ended(word: str, code: int, reason: str) -> None:
    app = portico.websocket.asgi(Seen())
    server = await Server(app).accepted()
    server.put(word)
    assert await server.next() == {"type": "websocket.close", "code": code, "reason": reason}
    await server.over()


@scenario(errors=True)
async def test_a_handler_that_fails_is_logged_with_the_client() -> None:
    with ErrorRecords() as logged:
        server = await Server(portico.websocket.asgi(Seen())).accepted()
        server.put("fail")
        await server.over()
    (record,) = logged.records
    assert "192.0.2.1" in record.getMessage() and "so it is" in record.getMessage()


@scenario()
async def test_what_is_too_large_is_said_and_ends_it() -> None:
    seen = Seen()
    server = await Server(portico.websocket.asgi(seen, max_size=10)).accepted()
    server.put("x" * 10)
    assert (await server.next())["text"] == "x" * 10
    server.put("x" * 11)
    assert (await server.next())["code"] == 1009
    await server.over()
    assert isinstance(seen.end, portico.MessageTooLarge)


@scenario()
async def test_a_client_that_does_not_read_makes_the_handler_wait_and_memory_stays_bounded() -> None:
    sent = 0

    async def handler(channel: portico.WebSocket) -> None:
        nonlocal sent
        for _ in range(1000):
            await channel.send(bytes(10_000))
            sent += 1

    server = await Server(portico.websocket.asgi(handler)).accepted()
    server.room.clear()
    last = -1
    while sent != last:
        last = sent
        await asyncio.sleep(0.05)
    assert 0 < sent < 60
    server.room.set()
    for _ in range(1000):
        assert (await server.next())["bytes"] == bytes(10_000)
    assert (await server.next())["code"] == 1000
    await server.over()


@scenario()
async def test_a_handler_that_does_not_receive_makes_the_server_wait() -> None:
    go = asyncio.Event()
    count = 0

    async def handler(channel: portico.WebSocket) -> None:
        nonlocal count
        await go.wait()
        async for _ in channel:
            count += 1

    server = await Server(portico.websocket.asgi(handler)).accepted()
    for _ in range(1000):
        server.put(bytes(10_000))
    server.disconnect(1000)
    last = -1
    while server.coming.qsize() != last:
        last = server.coming.qsize()
        await asyncio.sleep(0.05)
    assert last > 900
    go.set()
    await server.over()
    assert count == 1000


@scenario()
async def test_a_client_that_has_gone_while_the_handler_sends_is_an_end_for_it() -> None:
    seen = Seen()
    server = await Server(portico.websocket.asgi(seen)).accepted()
    server.failure = OSError("gone")
    server.put("a")
    server.disconnect(1006)
    await server.over()
    assert isinstance(seen.end, portico.ClosedError) and seen.end.code == 1006


@scenario()
async def test_a_server_that_breaks_ends_the_handler_and_hears_its_own_error() -> None:
    seen = Seen()
    server = await Server(portico.websocket.asgi(seen)).accepted()
    server.failure = RuntimeError("no such message")
    server.put("a")
    with pytest.raises(RuntimeError, match="no such message"):
        await server.over()
    assert isinstance(seen.end, portico.ClosedError)


@scenario()
async def test_a_server_that_cancels_cancels_the_handler() -> None:
    seen = Seen()
    server = await Server(portico.websocket.asgi(seen)).accepted()
    server.put("a")
    await server.next()
    server.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await server.task
    assert isinstance(seen.end, asyncio.CancelledError) and seen.channel.state is portico.State.CLOSED


# who gets in


REFUSALS: dict[str, tuple[dict[str, Any], list[Any], int]] = {
    "a wrong origin": ({}, [(b"host", b"test"), (b"origin", b"https://elsewhere.example")], 403),
    "two origins": ({"origins": "*"}, [(b"origin", b"http://a"), (b"origin", b"http://b")], 403),
    "False": ({"authorize": lambda request: False}, [], 403),
    "None": ({"authorize": lambda request: None}, [], 403),
    "empty": ({"authorize": lambda request: ""}, [], 403),
    "a pair": ({"authorize": lambda request: (402, {"pay": 1})}, [], 402),
    "a status": ({"authorize": lambda request: 402}, [], 402),
    "a Response": ({"authorize": lambda request: portico.Response("no", status=418)}, [], 418),
}


@scenario()
@pytest.mark.parametrize("extended", [True, False])
@pytest.mark.parametrize("name", REFUSALS)
async def test_who_may_not_come_in_is_refused(name: str, extended: bool) -> None:
    settings, headers, status = REFUSALS[name]
    seen = Seen()
    extensions = {"websocket.http.response": {}} if extended else {}
    server = Server(portico.websocket.asgi(seen, **settings), headers=headers, extensions=extensions)
    await server.over()
    sent = [server.sent.get_nowait() for _ in range(server.sent.qsize())]
    if extended:
        assert [each["type"] for each in sent] == ["websocket.http.response.start", "websocket.http.response.body"]
        assert sent[0]["status"] == status
        if name == "a Response":
            assert sent[1]["body"] == b"no" and (b"content-length", b"2") in sent[0]["headers"]
        if name == "a pair":
            assert sent[1]["body"] == b'{"pay":1}' and (b"content-type", b"application/json") in sent[0]["headers"]
    else:
        assert sent == [{"type": "websocket.close"}]
    assert seen.channel is None


@scenario()
async def test_origins_come_in_as_the_settings_say() -> None:
    headers = [(b"host", b"test"), (b"origin", b"https://page.example")]
    for origins in (
        "*",
        ["https://*.example", "https://page.example"],
        lambda origin, request: origin.endswith("example"),
    ):
        server = await Server(portico.websocket.asgi(Seen(), origins=origins), headers=headers).accepted()
        server.disconnect(1000)
        await server.over()


def test_settings_that_cannot_work_are_told_at_once() -> None:
    async def generator(channel: Any) -> AsyncIterator[int]:
        yield 1

    for wrong in (
        lambda: portico.websocket.asgi("module:handler"),  # type: ignore[arg-type]
        lambda: portico.websocket.asgi(generator),
        lambda: portico.websocket.asgi(Seen.__call__, max_size=0),
        lambda: portico.websocket.asgi(Seen.__call__, websocket=portico.WebSocketSettings(), max_size=5),
    ):
        with pytest.raises(ConfigurationError) as caught:
            wrong()
        assert "\n" not in str(caught.value)


# other scopes


@scenario()
async def test_plain_http_is_answered_with_426() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await portico.websocket.asgi(Seen())({"type": "http"}, asyncio.Event().wait, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 426 and (b"upgrade", b"websocket") in sent[0]["headers"]


@scenario()
async def test_the_lifespan_is_handed_on_to_a_handler_that_has_one() -> None:
    log: list[str] = []

    class Handler:
        async def startup(self) -> None:
            log.append("startup")
            if len(log) > 2:
                raise OSError("no more")

        async def shutdown(self) -> None:
            log.append("shutdown")

        async def __call__(self, channel: Any) -> None: ...

    app = portico.websocket.asgi(Handler())
    server = Server(app, type="lifespan")
    server.coming.get_nowait()
    server.coming.put_nowait({"type": "lifespan.startup"})
    assert await server.next() == {"type": "lifespan.startup.complete"}
    server.coming.put_nowait({"type": "lifespan.shutdown"})
    assert await server.next() == {"type": "lifespan.shutdown.complete"}
    await server.over()
    assert log == ["startup", "shutdown"]
    again = Server(app, type="lifespan")
    again.coming.get_nowait()
    again.coming.put_nowait({"type": "lifespan.startup"})
    assert await again.next() == {"type": "lifespan.startup.failed", "message": "no more"}
    with pytest.raises(OSError, match="no more"):
        await again.over()


# in a server


@contextlib.asynccontextmanager
async def serving(app: Any, implementation: str = "auto") -> AsyncIterator[str]:
    """Run uvicorn in this loop, without its signal handlers."""
    config = uvicorn.Config(app, port=0, ws=implementation, log_config=None, log_level=logging.CRITICAL)  # type: ignore[arg-type]
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[assignment, method-assign]
    running = asyncio.create_task(server.serve())
    await until(lambda: server.started or running.done())
    try:
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await running


@scenario()
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
async def test_within_uvicorn(implementation: str) -> None:
    seen = Seen()
    async with serving(portico.websocket.asgi(seen, subprotocols=("chat",)), implementation) as url:
        settings = portico.WebSocketSettings(subprotocols=("other", "chat"))
        channel: Any = await portico.connect(f"{url}/room?x", websocket=settings)
        assert channel.subprotocol == "chat"
        for message in ("text", b"bytes", "", "ü" * 50_000, bytes(300_000)):
            await channel.send(message)
            assert await channel.recv() == message
        await channel.send("close")
        with pytest.raises(portico.ClosedError):
            await channel.recv()
        assert (channel.close_code, channel.close_reason) == (4000, "so it is")
        await channel.close()
        async with websockets.connect(url) as client:
            await client.send("hello")
            assert await client.recv() == "hello"
            seen.over.clear()
            await client.close(4444, "bye")
        await seen.over.wait()
        assert (seen.channel.close_code, seen.channel.close_reason) == (4444, "bye")


@scenario()
async def test_a_plain_handler_runs_in_a_thread() -> None:
    threads: list[threading.Thread] = []

    def handler(channel: portico.BlockingChannel[str]) -> None:
        threads.append(threading.current_thread())
        for message in channel:
            channel.send(message.upper())

    async with serving(portico.websocket.asgi(handler)) as url:
        async with websockets.connect(url) as client:
            await client.send("hello")
            assert await client.recv() == "HELLO"
    assert threads and threads[0] is not threading.main_thread()


@scenario()
async def test_within_starlette_beside_other_routes() -> None:
    seen = Seen()
    app = portico.websocket.asgi(seen)
    routes = [WebSocketRoute("/rooms/{room}", app), Mount("/all", app)]
    async with serving(Starlette(routes=routes)) as url:
        for path, params in (("/rooms/blue", {"room": "blue"}), ("/all/more", None)):
            async with websockets.connect(url + path) as client:
                await client.send("hello")
                assert await client.recv() == "hello"
                assert seen.channel.request.path == path
                assert params is None or seen.channel.request.params == params


@scenario()
async def test_a_group_has_members_behind_uvicorn_and_behind_portico() -> None:
    group: portico.Group[Any] = portico.Group()

    async def chat(channel: Any) -> None:
        async with group.join(channel):
            async for message in channel:
                group.send(message)

    lines: Callable[..., Any] = portico.Lines
    async with serving(portico.websocket.asgi(chat)) as url:
        async with (
            portico.serve(chat, "ws://127.0.0.1:0/") as server,
            portico.serve(chat, "tcp://127.0.0.1:0", codec=lines()) as plain,
        ):
            one: Any = await portico.connect(url)
            two: Any = await portico.connect(str(server.address))
            three: Any = await portico.connect(str(plain.address), codec=lines())
            await until(lambda: len(group) == 3)
            for sender in (one, two, three):
                await sender.send("hello")
                assert [await each.recv() for each in (one, two, three)] == ["hello"] * 3
            for each in (one, two, three):
                await each.close()
            await until(lambda: len(group) == 0)
