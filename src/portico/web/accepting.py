"""Accepting WebSockets: what a server does with a request for one (RFC 6455, section 4.2)."""

from typing import Any, Final

from portico.errors import ProtocolError
from portico.protocols.http11 import response_head
from portico.protocols.websocket import Refusal, Upgrade, read_request
from portico.web.request import Request
from portico.web.response import Response
from portico.websocket.admission import is_welcome, refusing_status, settled
from portico.websocket.channel import WebSocket
from portico.websocket.settings import WebSocketSettings

__all__ = ["accept", "admit", "upgrade"]

COME_BACK: Final = ("Retry-After", "1")
"""What a client hears while the server drains: another one is there in its place soon."""


async def accept(request: Request, settings: WebSocketSettings) -> WebSocket | Response:
    """Answer a request for a WebSocket: check it, ask `settings.authorize`, and return the channel, or what refuses.

    :raises ClosedError: the client has gone
    :raises ConfigurationError: `authorize` answers what it cannot
    :raises Exception: whatever `authorize` and `origins` raise"""
    admitted = await admit(request, settings)
    if isinstance(admitted, Response):
        return admitted
    found, data = admitted
    return upgrade(request, found, settings, data)


async def admit(request: Request, settings: WebSocketSettings) -> tuple[Upgrade, object] | Response:
    """Check a request and ask `settings.authorize`; nothing is answered yet. Return what the request offers and what
    `authorize` attached, or what refuses. Errors are those of `accept`."""
    found = read_request(request.method, request.version, request.headers)
    if isinstance(found, Refusal):
        return Response.error(found.status, found.reason, headers=found.fields)
    if request.stream.draining:
        return Response.error(503, "the server is about to stop", headers=[COME_BACK])
    if not await is_welcome(request, settings):
        return Response.error(403, "pages of this origin may not come here")
    data = None if settings.authorize is None else await settled(settings.authorize(request))
    if isinstance(data, Response):
        return data
    status = refusing_status(data)
    if status is not None:
        return Response.error(status)
    return found, None if data is True else data


def upgrade(request: Request, found: Upgrade, settings: WebSocketSettings, data: object = None) -> WebSocket | Response:
    """Answer 101 to a request that was admitted, and return the channel; a Response where it offers what cannot be.

    :raises ClosedError: the client has gone"""
    try:
        agreement, items = found.agree(settings.subprotocols, settings.deflate)
    except ProtocolError as error:
        return Response.error(400, error.reason)
    stream = request.stream
    stream.send(response_head(101, [*items, *settings.fields]))
    frames = settings.frames(False, agreement.deflate)
    channel = WebSocket(stream, frames, request, subprotocol=agreement.subprotocol, data=data)
    session: Any = channel.owner
    if session is not None and hasattr(session, "connection"):
        session.connection = channel  # else it would keep the stream
    return channel
