"""What serves the addresses of the web, such as `ws://127.0.0.1:8000/chat`: a Door each, behind `Service.listen`."""

import inspect
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from portico.address import Address
from portico.errors import ConfigurationError
from portico.web.door import Door

if TYPE_CHECKING:
    from portico.server.limits import Limits
    from portico.websocket.settings import WebSocketSettings

__all__ = ["served"]


def served(
    address: Address,
    handler: Callable[..., object],
    *,
    limits: "Limits",
    codec: object = None,
    websocket: "WebSocketSettings | None" = None,
) -> Door:
    """Return what serves the connections of `address`: of `ws`, `wss` and `ws+unix` a Door whose one path leads to
    `handler(channel)`, of `http`, `https` and `http+unix` the Door that `handler` is.

    :param limits: those of the listener; a Door has its own.
    :raises ConfigurationError: something that does not fit `address`."""
    if codec is not None:
        raise ConfigurationError(f"{address} has messages of its own, str and bytes: it takes no codec=")
    if address.scheme.startswith("ws"):
        return _with_websocket(address, handler, limits, websocket)
    if websocket is not None:
        raise ConfigurationError(
            f"websocket= is for ws, wss and ws+unix; at {address} it is door.websocket(…) that takes it"
        )
    if not isinstance(handler, Door):
        raise ConfigurationError(f"{address} is served by a portico.Door, not by {handler!r}")
    if address.path != "/":
        raise ConfigurationError(f"{address}: paths are the Door's; listen without {address.path!r}")
    return handler


def _with_websocket(
    address: Address, handler: Callable[..., Any], limits: "Limits", settings: "WebSocketSettings | None"
) -> Door:
    if "?" in address.path:
        raise ConfigurationError(
            f"{address}: a server listens at a path; what is behind '?' is in channel.request.query"
        )
    if isinstance(handler, Door):
        raise ConfigurationError(f"{address}: a Door serves http and https; give the WebSocket's handler")
    if not callable(handler) or inspect.isasyncgenfunction(handler) or inspect.isgeneratorfunction(handler):
        raise ConfigurationError(f"the handler of {address} must be a function that does not yield, not {handler!r}")
    door = Door(head_timeout=limits.handshake_timeout or inf, max_threads=limits.max_threads)
    door.websocket(unquote(address.path), handler, websocket=settings)
    return door
