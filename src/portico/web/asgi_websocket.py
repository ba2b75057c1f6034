"""One WebSocket of an ASGI application."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from portico.errors import ClosedError, EndOfStream, MessageTooLarge, ProtocolError
from portico.protocols.websocket import Upgrade
from portico.web.accepting import upgrade
from portico.web.asgi_answer import AppAnswer, Message, gone, header_items
from portico.web.asgi_http import end
from portico.web.asgi_scope import websocket_scope
from portico.web.request import Request
from portico.web.response import Response
from portico.websocket.channel import WebSocket
from portico.websocket.settings import WebSocketSettings

if TYPE_CHECKING:
    from portico.web.asgi_host import AsgiHost

logger = logging.getLogger("portico.web")

NO_GOODBYE = 1006
GOING_AWAY = 1001
DENIAL = "websocket.http.response"


class WebSocketExchange:
    """Runs the app for one request for a WebSocket, which it accepts, closes, or answers with a Response."""

    def __init__(self, host: "AsgiHost", request: Request, found: Upgrade, settings: WebSocketSettings) -> None:
        self._host, self._request, self._found, self._settings = host, request, found, settings
        self._stream = request.stream
        self._denial = AppAnswer(DENIAL, request.method, self._wake)
        self._channel: WebSocket | None = None
        self._task: asyncio.Task[object] | None = None
        self._connected = False
        self._changed: asyncio.Future[None] | None = None
        self._code: int | None = None  # with which the app closed
        self._failure: Exception | None = None  # by which the channel ended
        self._left = False

    async def run(self) -> Response | Coroutine[Any, Any, object]:
        """Return what refuses, or, when the app has accepted, what serves the channel to its end.

        :raises ClosedError: the client has gone
        :raises Exception: what the app raised before it accepted"""
        scope = websocket_scope(self._request, self._host.root_path, self._host.state, list(self._found.subprotocols))
        self._task = task = self._host.start(scope, self._receive, self._send)
        task.add_done_callback(self._ended)
        try:
            outcome = await self._denial.response
        except asyncio.CancelledError:
            await end(task)
            raise
        if isinstance(outcome, Response):
            if self._denial.pieces is not None:
                self._denial.pieces.over = self._denied
            return outcome
        return self._serve(task, outcome)

    async def _serve(self, task: asyncio.Task[object], channel: WebSocket) -> None:
        """Wait for the end of the app; a drain is told to it as the end of the channel."""
        draining, drain = channel.draining, self._drain
        draining.call(drain)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await end(task)
            raise
        finally:
            draining.call_off(drain)
        error = None if task.cancelled() else task.exception()
        if error is not None and not (self._left and isinstance(error, ClosedError)):
            raise error
        if self._failure is not None:
            raise self._failure

    def _drain(self) -> None:
        if self._channel is not None:
            self._code = self._code or GOING_AWAY
            self._channel.close(GOING_AWAY, "the server is about to stop")

    async def _denied(self) -> None:
        """The client has gone while the answer that denies was sent."""
        task = self._task
        if task is not None and not self._denial.complete:
            await end(task)

    # what the app calls

    async def _receive(self) -> Message:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        while self._channel is None:
            if self._denial.complete or self._is_gone():
                self._left = True
                return disconnect(NO_GOODBYE)
            if self._changed is None:
                self._changed = asyncio.get_running_loop().create_future()
                self._request.gone.call(self._wake)
            await asyncio.shield(self._changed)
        return await self._next(self._channel)

    async def _next(self, channel: WebSocket) -> Message:
        try:
            message = await channel.recv()
        except (EndOfStream, ClosedError, ProtocolError, MessageTooLarge) as error:
            self._left = True
            if not isinstance(error, EndOfStream) and self._code is None:
                self._failure = error
            return disconnect(self._code or code_of(channel, error), channel.close_reason)
        if isinstance(message, str):
            return {"type": "websocket.receive", "text": message}
        return {"type": "websocket.receive", "bytes": bytes(message)}

    async def _send(self, message: Message) -> None:
        name = message["type"]
        if self._channel is not None:
            await self._send_to(self._channel, message)
        elif name.startswith(DENIAL):
            await self._denial.take(message)
        elif self._denial.begun or self._denial.response.done():
            raise ProtocolError(f"the app sent {name!r} when it had denied the WebSocket")
        elif self._is_gone():
            self._left = True
            raise gone()
        elif name == "websocket.accept":
            self._accept(message)
        elif name == "websocket.close":
            self._denial.response.set_result(Response.error(403))
        else:
            raise ProtocolError(f"the app sent {name!r} where websocket.accept or websocket.close has to come")

    def _accept(self, message: Message) -> None:
        subprotocol = message.get("subprotocol")
        if subprotocol is not None and subprotocol not in self._found.subprotocols:
            offered = ", ".join(self._found.subprotocols) or "none"
            raise ProtocolError(f"the app chose the subprotocol {subprotocol!r}; offered: {offered}")
        settings = replace(
            self._settings,
            subprotocols=() if subprotocol is None else (subprotocol,),
            headers=[*self._settings.fields, *header_items(message.get("headers") or ())],
        )
        outcome = upgrade(self._request, self._found, settings)
        if isinstance(outcome, WebSocket):
            self._channel = outcome
        self._denial.response.set_result(outcome)
        self._wake()
        if self._channel is None:
            self._left = True
            raise gone()

    async def _send_to(self, channel: WebSocket, message: Message) -> None:
        name = message["type"]
        if name == "websocket.send":
            text, data = message.get("text"), message.get("bytes")
            if (text is None) == (data is None):
                raise ProtocolError("websocket.send has text, or bytes: one of the two")
            if self._left:
                raise gone()
            try:
                await channel.send(message["bytes"] if text is None else text)
            except ClosedError:
                self._left = True
                raise
        elif name == "websocket.close":
            code = message.get("code") or 1000
            channel.close(code, message.get("reason") or "")
            self._code = code
        else:
            raise ProtocolError(f"the app sent {name!r} where websocket.send or websocket.close may come")

    # ends

    def _is_gone(self) -> bool:
        reading, _, closing, lost = self._stream.flags
        return not reading or closing or lost

    def _wake(self) -> None:
        """Something has changed for who waits before the channel is there."""
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.set_result(None)

    def _ended(self, task: asyncio.Task[object]) -> None:
        """The app has ended; behind an accepted channel `_serve` says with what."""
        self._task = None
        if self._channel is not None:
            return
        error = None if task.cancelled() else task.exception()
        if self._denial.complete or self._has_refused():
            if error is not None and not (self._left and isinstance(error, ClosedError)):
                self._host.report(self._stream.owner, error)
        elif self._left:
            self._stream.close()  # the client may have ended its side only
            self._denial.fail(gone())
        else:
            self._denial.fail(error or ProtocolError(f"{self._host} ended without an answer to a WebSocket"))

    def _has_refused(self) -> bool:
        return self._denial.response.done() and self._denial.pieces is None


def disconnect(code: int, reason: str = "") -> Message:
    """Return the message that tells the end of a WebSocket."""
    return {"type": "websocket.disconnect", "code": code, "reason": reason}


def code_of(channel: WebSocket, error: Exception) -> int:
    """Return the close code of a channel that has ended with `error`."""
    if channel.close_code is not None:
        return channel.close_code
    if isinstance(error, MessageTooLarge):
        return 1009
    return 1002 if isinstance(error, ProtocolError) else NO_GOODBYE
