"""Between the two events of an ASGI server and a WebSocket in memory, whose other end a handler has."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from portico.errors import ClosedError, EndOfStream
from portico.websocket.channel import WebSocket

__all__ = ["Bridge", "Message", "Receive", "Send"]

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

NO_CODE: Final = 1005
NO_GOODBYE: Final = 1006
INTERNAL: Final = 1011
CLOSE_WITHOUT_CODE: Final = b"\x88\x80\0\0\0\0"
"""A close frame of a client that says nothing (RFC 6455, section 5.5.1), with a mask of zeros."""


class Bridge:
    """Carries messages and the words of the end both ways. Each way waits for room on the other side, so what is queued
    lies in the WebSocket's own queues, under its limits."""

    def __init__(self, peer: WebSocket, receive: Receive, send: Send) -> None:
        self._peer, self._receive, self._send = peer, receive, send
        self._gone = False  # the client has: nothing can be sent to it

    async def run(self) -> None:
        """Carry until either side has ended.

        :raises Exception: whatever the server raises"""
        incoming = asyncio.create_task(self._carry_in())
        try:
            await self._carry_out()
        finally:
            incoming.cancel()
            await asyncio.wait([incoming])
        if not incoming.cancelled() and (error := incoming.exception()) is not None:
            raise error

    async def _carry_in(self) -> None:
        peer = self._peer
        try:
            while (message := await self._receive())["type"] == "websocket.receive":
                text = message.get("text")
                await peer.send(message["bytes"] if text is None else text)
        except ClosedError:  # the handler has closed, and `_carry_out` tells that
            return
        except Exception:
            self._lose()
            raise
        self._gone = True
        self._close(message.get("code") or NO_CODE, message.get("reason") or "")

    def _close(self, code: int, reason: str) -> None:
        """Let the handler have the close code of the client."""
        try:
            if code == NO_CODE:
                self._peer.send_encoded(CLOSE_WITHOUT_CODE)
            else:
                self._peer.close(code, reason)
        except ClosedError:  # the handler was first
            return
        except ValueError:  # 1006 and what else no close frame carries
            self._lose()

    def _lose(self) -> None:
        self._gone = True
        self._peer.abort()

    async def _carry_out(self) -> None:
        peer = self._peer
        while True:
            try:
                message = await peer.recv()
            except (EndOfStream, ClosedError):
                break
            key = "text" if isinstance(message, str) else "bytes"
            await self._tell({"type": "websocket.send", key: message})
        code = peer.close_code
        if code == NO_GOODBYE or code is None:  # the handler aborted
            code = INTERNAL
        await self._tell({"type": "websocket.close", "code": code, "reason": peer.close_reason})

    async def _tell(self, message: Message) -> None:
        if self._gone:
            return
        try:
            await self._send(message)
        except OSError:  # the client has gone; how, `receive` tells
            self._gone = True
        except BaseException:
            self._lose()
            raise
