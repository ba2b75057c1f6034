"""WebSockets: their settings, how one is opened, and the channel that carries their messages. Imported when needed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from portico.websocket.asgi_mount import asgi as asgi

__all__ = ["asgi"]


def __getattr__(name: str) -> object:
    if name == "asgi":
        from portico.websocket.asgi_mount import asgi

        return asgi
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
