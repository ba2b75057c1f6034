"""Accepting WebSockets: what a server does with a request for one (RFC 6455, section 4.2)."""

import asyncio
import logging
from math import inf
from typing import Any, Final

from portico.errors import ProtocolError
from portico.protocols.http11 import response_head
from portico.protocols.websocket import Refusal, Upgrade, read_request
from portico.web.request import Request
from portico.web.response import Response
from portico.web.serving import Conversation
from portico.websocket.admission import attached, is_welcome, refused, settled
from portico.websocket.channel import WebSocket
from portico.websocket.settings import WebSocketSettings

__all__ = ["accept", "admit", "upgrade"]

logger = logging.getLogger("portico.web")

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
    `authorize` attached, or what refuses: 503 where that takes longer than the head may. Errors are those of
    `accept`."""
    found = read_request(request.method, request.version, request.headers)
    if isinstance(found, Refusal):
        return Response.error(found.status, found.reason, headers=found.fields)
    if request.stream.draining:
        return Response.error(503, "the server is about to stop", headers=[COME_BACK])
    patience = _patience(request, settings)
    try:
        async with asyncio.timeout(patience) as deadline:
            data = await _asked(request, settings)
    except TimeoutError:
        if not deadline.expired():  # it is what a function of the user's raised
            raise
        where = f"{request.stream.remote_address}: authorize of {request.raw_path}"
        logger.warning("%s did not answer within %g s: refused with 503", where, patience)
        return Response.error(503, "it took too long to find out who may come in", headers=[COME_BACK])
    return data if isinstance(data, Response) else (found, data)


async def _asked(request: Request, settings: WebSocketSettings) -> object:
    """Ask who may come in: what refuses, or what `authorize` attached."""
    if not await is_welcome(request, settings):
        return Response.error(403, "pages of this origin may not come here")
    data = True if settings.authorize is None else await settled(settings.authorize(request))
    if isinstance(data, Response):
        return data
    refusal = refused(data, request, settings)
    if refusal is not None:
        return Response(refusal.body, status=refusal.status, headers=refusal.headers)
    return attached(data)


def _patience(request: Request, settings: WebSocketSettings) -> float | None:
    """Return how many seconds the functions of the user's may take: as many as the head."""
    asks = settings.authorize is not None or callable(settings.origins)
    if not asks or not isinstance(request.incoming, Conversation):
        return None
    seconds = request.incoming.limits.head_timeout
    return None if seconds == inf else seconds


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
