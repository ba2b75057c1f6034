"""Who may open a WebSocket: the origins that are let in, and what `authorize` says."""

import inspect
from typing import Any, Protocol

from portico.errors import ConfigurationError
from portico.protocols.http_headers import Headers
from portico.protocols.origins import same_origin
from portico.websocket.settings import WebSocketSettings

__all__ = ["Asking", "is_welcome", "refusing_status", "settled"]


class Asking(Protocol):
    """A request for a WebSocket, as far as it matters here."""

    headers: Headers

    @property
    def secure(self) -> bool:
        """Whether it came over TLS."""
        ...


async def is_welcome(request: Asking, settings: WebSocketSettings) -> bool:
    """Say whether the page that asks may come in (RFC 6455, section 10.2). What is no browser sends no Origin and could
    send any.

    :raises Exception: whatever `settings.origins` raises"""
    origins = request.headers.get_all("origin")
    if not origins:
        return True
    origin = origins[0]
    if len(origins) > 1:
        return False
    if same_origin(origin, request.headers.get("host", "") or "", secure=request.secure):
        return True
    if callable(settings.origins):
        return bool(await settled(settings.origins(origin, request)))
    return origin in settings.listed_origins


async def settled(result: Any) -> Any:
    """Return what a function of the user's answers, which may be async."""
    return await result if inspect.isawaitable(result) else result


def refusing_status(answer: object) -> int | None:
    """Return the status that refuses where that is what `authorize` said.

    :raises ConfigurationError: a status that refuses nobody"""
    if answer is False:
        return 403
    if isinstance(answer, int) and answer is not True:
        if not 300 <= answer <= 599:
            raise ConfigurationError(f"authorize answered {answer}; a status that refuses is 300 to 599")
        return answer
    return None
