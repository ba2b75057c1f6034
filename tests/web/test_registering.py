"""What a Door takes when something is registered, and what it refuses; how functions that yield are served."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server.support import scenario
from unit.test_stubs import run_module

import portico
from portico.errors import ConfigurationError

from .http_kit import door_of, visiting


def yields(request: Any) -> Iterator[bytes]:
    yield b"a"


async def yields_later(request: Any) -> AsyncIterator[bytes]:
    yield b"a"
    await asyncio.sleep(0)
    yield (await request.body()) if isinstance(request, portico.Request) else b""


class Yields:
    def __call__(self, request: Any) -> Iterator[bytes]:
        yield b"a"


class YieldsLater:
    async def __call__(self, request: Any) -> AsyncIterator[bytes]:
        async for piece in yields_later(request):
            yield piece


def named(prefix: str, request: Any) -> Iterator[bytes]:
    yield prefix.encode()


async def named_later(prefix: str, request: Any) -> AsyncIterator[bytes]:
    yield prefix.encode()


class NotAsync:
    """Callable, and plain."""

    def __call__(self, request: Any) -> str:
        return "a"


SYNC = [yields, Yields(), functools.partial(named, "a"), functools.partial(Yields())]
ASYNC = [yields_later, YieldsLater(), functools.partial(named_later, "ab"), functools.partial(YieldsLater())]


@pytest.mark.parametrize("function", SYNC)
def test_a_route_that_yields_without_being_async_is_refused(function: Callable[..., object]) -> None:
    door = portico.Door()
    for register in (door.get, door.post, functools.partial(door.route, "PUT")):
        with pytest.raises(ConfigurationError, match="the route /a must be a function that does not yield"):
            register("/a", function)
        with pytest.raises(ConfigurationError, match="the route /a must be a function that does not yield"):
            register("/a")(function)


@pytest.mark.parametrize("function", [*SYNC, *ASYNC])
def test_a_handler_of_websockets_that_yields_is_refused(function: Callable[..., object]) -> None:
    door = portico.Door()
    with pytest.raises(ConfigurationError, match="the handler of /a must be a function that does not yield"):
        door.websocket("/a", function)
    with pytest.raises(ConfigurationError, match="the handler of /a must be a function that does not yield"):
        door.websocket("/a")(function)


@pytest.mark.parametrize("function", ASYNC)
@scenario()
async def test_an_async_function_that_yields_is_answered_piece_by_piece(function: Callable[..., object]) -> None:
    door = portico.Door()
    door.route(["GET", "POST"], "/a", function)
    async with visiting(door) as (server, client):
        answer = await client.ask("POST /a|Content-Length: 1", b"b")
        assert (answer.status, answer.body, answer.headers["transfer-encoding"]) == (200, b"ab", "chunked")
        assert (await client.ask("HEAD /a")).body == b""
        assert server.stats.accepted == 1 and not server.stats.handler_errors


def test_what_cannot_be_called_is_refused() -> None:
    door = portico.Door()
    wrong: Any = "notcallable"
    with pytest.raises(ConfigurationError, match="the route /x must be a function, not 'notcallable'"):
        door.get("/x", wrong)
    with pytest.raises(ConfigurationError, match="the handler of /x must be a function, not 'notcallable'"):
        door.websocket("/x", wrong)
    door.get("/x", NotAsync())  # nothing was registered before


def test_settings_that_are_none_are_refused() -> None:
    door = portico.Door()
    wrong: Any = 5
    for register in (door.websocket, door.mount):
        with pytest.raises(ConfigurationError, match="websocket=5 must be a WebSocketSettings"):
            register("/x", yields_later, websocket=wrong)
    with pytest.raises(ConfigurationError, match="websocket=5 must be a WebSocketSettings"):
        door.websocket("/x", websocket=wrong)


@pytest.mark.parametrize("size", [-1, 1.5, True, "1"])
def test_no_size_of_a_body_is_refused(size: Any) -> None:
    door = portico.Door()
    for register in (door.get, door.post, functools.partial(door.route, "PUT"), door.mount):
        with pytest.raises(ConfigurationError, match="max_body must be a whole number of bytes, at least 0"):
            register("/x", yields_later, max_body=size)


@scenario()
async def test_a_route_without_a_body_refuses_one() -> None:
    door = door_of()

    @door.post("/none", max_body=0)
    async def none(request: portico.Request) -> str:
        return f"{len(await request.body())}"

    async with portico.serve(door, "tcp://127.0.0.1:0"), visiting(door) as (_, client):
        assert (await client.ask("POST /none|Content-Length: 0")).body == b"0"
        assert (await client.ask("POST /none|Content-Length: 5", b"hello")).status == 413
    async with visiting(door) as (_, client):
        assert (await client.ask("POST /none|Transfer-Encoding: chunked", b"1\r\nx\r\n0\r\n\r\n")).status == 413


TYPED = """
from collections.abc import AsyncIterator

import portico

door = portico.Door()


@door.get("/a")
async def a(request: portico.Request) -> str:
    return request.path


@door.post("/b", max_body=10)
def b(request: portico.BlockingRequest) -> tuple[int, dict[str, str]]:
    return 201, {"b": request.text()}


@door.route(["GET", "PUT"], "/c")
async def c(request: portico.Request) -> AsyncIterator[bytes]:
    yield b"c"


@door.websocket("/d", websocket=portico.WebSocketSettings(only="text"))
async def d(channel: portico.WebSocket) -> None:
    async for message in channel:
        await channel.send(message)


door.get("/e", lambda request: "e")
reveal_type(door.get("/f", a))
reveal_type(door.websocket("/g", d))
reveal_type(a)
reveal_type(d)
for add in (door.put, door.delete, door.patch, door.head, door.options):
    add("/h", a)
"""


def test_decorators_leave_the_types_of_functions_alone(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(TYPED)
    code, output = run_module("mypy", "--strict", program.name, directory=tmp_path)
    shown = [line.partition('Revealed type is "')[2].rstrip('"') for line in output.splitlines() if "note:" in line]
    assert code == 0, output
    route = "def (request: portico.web.request.Request) -> typing.Coroutine[Any, Any, str]"
    handler = "def (channel: portico.websocket.channel.WebSocket) -> typing.Coroutine[Any, Any, None]"
    assert shown == [route, handler, route, handler], output
