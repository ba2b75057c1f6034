"""What the tests of mounted ASGI applications share: a door with one, and apps that are plain functions."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import portico
from portico.server.service import Server

from .http_kit import Browser, browser

App = Callable[[Any, Any, Any], Awaitable[object]]


def http_only(app: App) -> App:
    """`app`, which knows nothing of lifespans."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] != "lifespan"
        await app(scope, receive, send)

    return wrapped


@contextlib.asynccontextmanager
async def mounted(
    app: App,
    path: str = "/api",
    *,
    door: portico.Door | None = None,
    serving: dict[str, Any] | None = None,
    **mount: Any,
) -> AsyncIterator[tuple[Server, Browser]]:
    """Serve `app` behind a door, and come in by one connection."""
    door = door or portico.Door()
    door.mount(path, http_only(app), **mount)
    async with portico.serve(door, "tcp://127.0.0.1:0", **(serving or {})) as server:
        async with browser(server.address) as client:
            yield server, client


async def start(send: Any, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def body(send: Any, data: bytes = b"", *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": more})


class Told:
    """What an app has seen, and when."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, event: object) -> None:
        self.events.put_nowait(event)

    async def next(self) -> Any:
        async with asyncio.timeout(5):
            return await self.events.get()
