"""`asgi`: a channel handler as an ASGI application, for any server that speaks WebSocket to those."""

import asyncio
import contextvars
import math
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from portico._core import hub_of, memory_wires
from portico._core.frames import Frames
from portico.address import Address
from portico.errors import ConfigurationError, describe
from portico.interfaces import Lifespan
from portico.server.limits import Limits
from portico.server.listener_base import ListenerBase
from portico.server.session import Session
from portico.server.spec import ListenerSpec
from portico.transports.connection import Signal, Stream
from portico.websocket.admission import Denial, attached, is_welcome, refused, settled
from portico.websocket.asgi_bridge import Bridge, Message, Receive, Send
from portico.websocket.asgi_request import ScopeRequest
from portico.websocket.channel import WebSocket
from portico.websocket.settings import WebSocketSettings

__all__ = ["asgi"]

HERE: Final = Address("mem", path="asgi")
DENIAL: Final = "websocket.http.response"
ANY_SIZE: Final = 1 << 40
"""The handler's side has the limits; the server's side takes whatever they let through."""

PUMP: Final = Limits(idle_timeout=None, message_timeout=None, send_timeout=None, close_timeout=math.inf)
"""The server's side waits for the handler as long as that takes; the client's patience is the server's business."""


def asgi(
    handler: Callable[[Any], object],
    *,
    websocket: WebSocketSettings | None = None,
    limits: Limits | None = None,
    **settings: Any,
) -> "AsgiMount":
    """Return an ASGI 3 application that serves every WebSocket by `handler(channel)`, an async function or a plain one
    that runs in a thread:

        app = portico.websocket.asgi(chat, subprotocols=("chat",))      # uvicorn module:app
        routes = [Mount("/chat", app)]                                  # within Starlette or FastAPI

    The channel is a `portico.WebSocket` as behind a `Door`; `Group`s may have it together with any other channels of
    the same event loop. Who gets in is decided by `origins` and `authorize`; its `request` has the head, the addresses,
    `params` (what a router found in the path) and `scope`. Compression, pings and their timeouts are the server's.

    :param websocket: the settings, in place of `settings`.
    :param limits: `read_buffer`, `send_buffer`, `max_unsent`, `send_timeout`, `close_timeout` and `max_threads` count.
    :param settings: those of `WebSocketSettings`.
    :raises ConfigurationError: something that cannot work
    """
    if websocket is not None and settings:
        raise ConfigurationError("asgi: give websocket=WebSocketSettings(…), or single settings, not both")
    return AsgiMount(handler, websocket or WebSocketSettings(**settings), limits or Limits())


class AsgiMount:
    """What `asgi` returns. Its handlers are counted in `stats`, where it has run."""

    def __init__(self, handler: Callable[[Any], object], settings: WebSocketSettings, limits: Limits) -> None:
        self.settings = replace(settings, ping_interval=None, ping_timeout=None)
        limits = replace(limits, idle_timeout=None)  # it would count what the server's pings do not reach
        self._spec = ListenerSpec(HERE, handler, None, None, limits, None, None, None, None, None)
        self._spec.check()
        self._far_frames = Frames(
            client=True, max_size=ANY_SIZE, max_fragments=1 << 30, ping_interval=None, ping_timeout=None
        )
        self._sessions: Sessions | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one scope."""
        kind = scope["type"]
        if kind == "websocket":
            await self._serve(scope, receive, send)
        elif kind == "lifespan":
            await self._live(receive, send)
        elif kind == "http":
            await refuse_http(send)
        else:
            raise ConfigurationError(f"{kind!r} is no kind of ASGI scope that can be served: websocket is")

    # one WebSocket

    async def _serve(self, scope: Message, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        request = ScopeRequest(scope)
        data = await self._admit(request, send)
        if data is _REFUSED:
            return
        offered = scope.get("subprotocols") or ()
        subprotocol = next((each for each in self.settings.subprotocols if each in offered), None)
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in self.settings.fields]
        await send({"type": "websocket.accept", "subprotocol": subprotocol, "headers": headers})
        sessions = self._sessions_here()
        session = sessions.enter(b"")
        near, far = memory_wires(hub_of(asyncio.get_running_loop()))
        channel = self._channel(
            Stream(near, sessions.settings, session, scheme="mem", draining=sessions.draining), request
        )
        if subprotocol is not None:
            channel.subprotocol = subprotocol
        if data is not None:
            channel.data = data
        peer = WebSocket(Stream(far, PUMP.settings(), scheme="mem"), self._far_frames, request)
        over = sessions.begin(channel, session)
        del channel
        try:
            await Bridge(peer, receive, send).run()
            await over.wait()
        except BaseException:
            session.stop()
            await over.wait()
            raise
        finally:
            peer.abort()

    def _channel(self, stream: Stream, request: ScopeRequest) -> WebSocket:
        stream._local, stream._remote = request.known_addresses
        return WebSocket(stream, self.settings.frames(False, None), request, scheme="mem")

    async def _admit(self, request: ScopeRequest, send: Send) -> object:
        """Return what `authorize` attached, or `_REFUSED` when that has been sent."""
        if self._sessions is not None and self._sessions.draining:
            return await deny(request, send, 503, b"the server is about to stop")
        if not await is_welcome(request, self.settings):
            return await deny(request, send, 403, b"pages of this origin may not come here")
        authorize = self.settings.authorize
        data = True if authorize is None else await settled(authorize(request))
        denial = data if isinstance(data, Denial) else refused(data, request, self.settings)
        if denial is not None:
            return await deny(request, send, denial.status, denial.body, denial.headers)
        return attached(data)

    def _sessions_here(self) -> "Sessions":
        loop = asyncio.get_running_loop()
        if self._sessions is None or self._sessions.loop is not loop:
            self._sessions = Sessions(self._spec, loop)
        return self._sessions

    # its life

    async def _live(self, receive: Receive, send: Send) -> None:
        """Answer the lifespan, and hand it on to a handler that has one."""
        part = self._spec.handler
        while True:
            event = (await receive())["type"]
            try:
                if event == "lifespan.startup":
                    self._sessions_here()
                    if isinstance(part, Lifespan):
                        await part.startup()
                else:
                    self._end()
                    if isinstance(part, Lifespan):
                        await part.shutdown()
            except Exception as error:
                await send({"type": f"{event}.failed", "message": describe(error)})
                raise
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                return

    def _end(self) -> None:
        sessions, self._sessions = self._sessions, None
        if sessions is not None:
            sessions.draining.set()
            sessions.stop_threads()


class Sessions(ListenerBase):
    """What serves the channels, as any listener does, but for how connections come about."""

    def __init__(self, spec: ListenerSpec, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(spec, Signal(), lambda: None)
        self.loop = loop
        self._over: dict[Session, Signal] = {}

    @property
    def addresses(self) -> list[Address]:
        """None: the server knows."""
        return []

    def begin(self, channel: WebSocket, session: Session) -> Signal:
        """Start the handler of `channel` in the context of the caller; return what tells of the end of both."""
        self.stats.accepted += 1
        self._over[session] = over = Signal()
        self._context = contextvars.copy_context()
        self.serve(channel, session)
        return over

    def ended(self, session: Session) -> None:
        """Connection and handler of `session` are both over."""
        super().ended(session)
        self._over.pop(session).set()


_REFUSED: Final = object()


async def deny(
    request: ScopeRequest,
    send: Callable[[Message], Awaitable[object]],
    status: int,
    body: bytes | AsyncIterable[bytes] = b"",
    headers: Sequence[tuple[str, str]] = (("Content-Type", "text/plain; charset=utf-8"),),
) -> object:
    """Refuse a WebSocket: with an answer where the server can send one, else with 403, which is all that it has."""
    if DENIAL not in (request.scope.get("extensions") or {}):
        await send({"type": "websocket.close"})
        return _REFUSED
    items = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
    if isinstance(body, bytes):
        items = [each for each in items if each[0] != b"content-length"]
        items.append((b"content-length", b"%d" % len(body)))
    await send({"type": f"{DENIAL}.start", "status": status, "headers": items})
    if not isinstance(body, bytes):
        async for piece in body:
            await send({"type": f"{DENIAL}.body", "body": piece, "more_body": True})
        body = b""
    await send({"type": f"{DENIAL}.body", "body": body})
    return _REFUSED


async def refuse_http(send: Callable[[Message], Awaitable[object]]) -> None:
    """Answer a request that asks for no WebSocket (RFC 9110, section 15.5.22)."""
    body = b"426 Upgrade Required: this path speaks WebSocket\n"
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(body)),
        (b"upgrade", b"websocket"),
        (b"connection", b"Upgrade"),
        (b"sec-websocket-version", b"13"),
    ]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": body})
