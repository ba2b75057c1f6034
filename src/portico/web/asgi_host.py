"""`AsgiHost`: an ASGI 3 application behind a door."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from portico.errors import ConfigurationError
from portico.server.lifespans import cancel
from portico.server.service import STOP_TIMEOUT
from portico.web.accepting import admit
from portico.web.asgi_http import HttpExchange
from portico.web.asgi_lifespan import AppLifespan
from portico.web.asgi_websocket import WebSocketExchange
from portico.web.request import Request
from portico.web.response import Response
from portico.websocket.settings import WebSocketSettings

__all__ = ["AsgiHost"]

App = Callable[[Any, Any, Any], Awaitable[object]]

AFTERWORK = 10.0
"""Seconds that apps have at the end for what they do when their answers have left (background tasks)."""

logger = logging.getLogger("portico.web")


class AsgiHost:
    """Answers what comes at a mount path with an ASGI 3 application: HTTP, WebSocket and lifespan."""

    def __init__(self, app: App, root_path: str = "", websocket: WebSocketSettings | None = None) -> None:
        """
        :param root_path: the path that it is mounted at, without "/" at the end.
        :param websocket: whom to let in before the app is asked, and how to speak; the subprotocol is the app's choice.
        :raises ConfigurationError: `app` is no function, or the subprotocols are not left to it
        """
        if not callable(app):
            raise ConfigurationError(f"an ASGI application is a function of scope, receive and send, not {app!r}")
        self.root_path = root_path
        self._app = app
        self._websocket = websocket or WebSocketSettings()
        if self._websocket.subprotocols:
            raise ConfigurationError("websocket: an ASGI application chooses the subprotocol itself; leave it out here")
        self._lifespan: AppLifespan | None = None
        self._tasks: set[asyncio.Task[object]] = set()

    def __str__(self) -> str:
        return f"the app mounted at {self.root_path or '/'}"

    @property
    def state(self) -> dict[str, Any]:
        """What the app put into its state at startup."""
        return {} if self._lifespan is None else self._lifespan.state

    async def startup(self) -> None:
        """Begin the lifespan of the app.

        :raises ConfigurationError: it says that it cannot start"""
        lifespan = AppLifespan(self._app, str(self))
        await lifespan.startup()
        self._lifespan = lifespan

    async def shutdown(self) -> None:
        """Wait for what the app does still, then end its lifespan. Both are bounded in time; cancelled, it ends the app
        at once."""
        lifespan, self._lifespan = self._lifespan, None
        try:
            await self._end_tasks()
        except asyncio.CancelledError:
            if lifespan is not None:
                await lifespan.cancel()
            raise
        if lifespan is not None:
            await lifespan.shutdown()

    async def _end_tasks(self) -> None:
        if not self._tasks:
            return
        try:
            _, late = await asyncio.wait(self._tasks, timeout=AFTERWORK)
        except asyncio.CancelledError:
            logger.warning("%s: %d tasks were cancelled before their end", self, len(self._tasks))
            for task in self._tasks:
                task.cancel()
            raise
        if late:
            logger.warning("%s: %d tasks were cancelled, as they did not end", self, len(late))
            await cancel(late, f"a task of {self}", STOP_TIMEOUT)

    async def http(self, request: Request) -> Response:
        """Answer `request`.

        :raises BadRequest: its body is larger than allowed, malformed or too slow
        :raises Exception: what the app raised before it answered"""
        return await HttpExchange(self, request).run()

    async def websocket(self, request: Request) -> Response | Coroutine[Any, Any, object]:
        """Answer a request for a WebSocket with what refuses it, or with what serves it to its end.

        :raises Exception: what the app raised before it accepted"""
        admitted = await admit(request, self._websocket)
        if isinstance(admitted, Response):
            return admitted
        return await WebSocketExchange(self, request, admitted[0], self._websocket).run()

    def start(self, scope: dict[str, Any], receive: object, send: object) -> "asyncio.Task[object]":
        """Run the app in a task of its own."""
        task = asyncio.create_task(self._run(scope, receive, send))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, scope: dict[str, Any], receive: object, send: object) -> object:
        return await self._app(scope, receive, send)

    def report(self, owner: Any, error: BaseException) -> None:
        """Count and log an error of the app's that nobody else hears of."""
        failed = getattr(owner, "failed", None)
        if failed is not None:
            failed(error)
        else:
            logger.error("%s failed: %r", self, error, exc_info=error)
