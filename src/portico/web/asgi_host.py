"""`AsgiHost`: an ASGI 3 application behind a door."""

from collections.abc import Coroutine
from typing import Any

from portico.web.request import Request
from portico.web.response import Response


class AsgiHost:
    """Answers what comes at a mount path with an ASGI application."""

    def __init__(self, app: Any, root_path: str = "") -> None:
        self._app, self._root_path = app, root_path

    async def startup(self) -> None:
        """Begin the lifespan of the application."""

    async def shutdown(self) -> None:
        """End the lifespan of the application."""

    async def http(self, request: Request) -> Response:
        """Answer `request`."""
        raise NotImplementedError

    async def websocket(self, request: Request) -> Response | Coroutine[Any, Any, object]:
        """Answer a request for a WebSocket."""
        raise NotImplementedError
