"""Accepting WebSockets: what a server does with a request for one (RFC 6455, section 4.2)."""

import inspect
from typing import Any, Final

from portico.errors import ConfigurationError, ProtocolError
from portico.protocols.http11 import response_head
from portico.protocols.origins import same_origin
from portico.protocols.websocket import Refusal, Upgrade, read_request
from portico.web.request import Request
from portico.web.response import Response
from portico.websocket.channel import WebSocket
from portico.websocket.settings import WebSocketSettings

__all__ = ["accept"]

COME_BACK: Final = ("Retry-After", "1")
"""What a client hears while the server drains: another one is there in its place soon."""


async def accept(request: Request, settings: WebSocketSettings) -> WebSocket | Response:
    """Answer a request for a WebSocket: check it, ask `settings.authorize`, and return the channel, or what refuses.

    :raises ClosedError: the client has gone
    :raises ConfigurationError: `authorize` answers what it cannot
    :raises Exception: whatever `authorize` and `origins` raise"""
    found = read_request(request.method, request.version, request.headers)
    if isinstance(found, Refusal):
        return Response.error(found.status, found.reason, headers=found.fields)
    stream = request.stream
    if stream.draining:
        return Response.error(503, "the server is about to stop", headers=[COME_BACK])
    if not await _is_welcome(request, settings):
        return Response.error(403, "pages of this origin may not come here")
    data = None if settings.authorize is None else await _settled(settings.authorize(request))
    refusal = _refusal(data)
    if refusal is not None:
        return refusal
    try:
        return _upgraded(request, found, settings, None if data is True else data)
    except ProtocolError as error:
        return Response.error(400, error.reason)


def _upgraded(request: Request, found: Upgrade, settings: WebSocketSettings, data: object) -> WebSocket:
    agreement, items = found.agree(settings.subprotocols, settings.deflate)
    stream = request.stream
    stream.send(response_head(101, [*items, *settings.fields]))
    frames = settings.frames(False, agreement.deflate)
    return WebSocket.upgrade(stream, frames, request=request, subprotocol=agreement.subprotocol, data=data)


async def _is_welcome(request: Request, settings: WebSocketSettings) -> bool:
    """Whether the page that asks may: section 10.2. What is no browser sends no Origin and could send any."""
    origins = request.headers.get_all("origin")
    if not origins:
        return True
    origin = origins[0]
    if len(origins) > 1:
        return False
    if same_origin(origin, request.headers.get("host", "") or "", secure=request.secure):
        return True
    if callable(settings.origins):
        return bool(await _settled(settings.origins(origin, request)))
    return origin in settings.listed_origins


async def _settled(result: Any) -> Any:
    return await result if inspect.isawaitable(result) else result


def _refusal(answer: object) -> Response | None:
    """Return what refuses where that is what `authorize` said.

    :raises ConfigurationError: a status that refuses nobody"""
    if isinstance(answer, Response):
        return answer
    if answer is False:
        return Response.error(403)
    if isinstance(answer, int) and answer is not True:
        if not 300 <= answer <= 599:
            raise ConfigurationError(f"authorize answered {answer}; a status that refuses is 300 to 599")
        return Response.error(answer)
    return None
