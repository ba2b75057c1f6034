"""Who may open a WebSocket: the origins that are let in, and what `authorize` says."""

import inspect
import json
import logging
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

from portico.errors import ConfigurationError
from portico.protocols.http11 import REASONS
from portico.protocols.http_headers import Headers
from portico.protocols.origins import same_origin
from portico.websocket.settings import WebSocketSettings

__all__ = ["Asking", "Denial", "attached", "is_welcome", "refused", "settled"]

logger = logging.getLogger("portico.websocket")

TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
BYTES: Final = ("Content-Type", "application/octet-stream")
JSON: Final = ("Content-Type", "application/json")


class Asking(Protocol):
    """A request for a WebSocket, as far as it matters here."""

    headers: Headers

    @property
    def raw_path(self) -> str:
        """The path, as it was sent."""
        ...

    @property
    def secure(self) -> bool:
        """Whether it came over TLS."""
        ...


@runtime_checkable
class Denial(Protocol):
    """An answer that refuses, such as a `portico.Response`."""

    @property
    def status(self) -> int:
        """300 to 599."""
        ...

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Its fields."""
        ...

    @property
    def body(self) -> bytes | AsyncIterable[bytes]:
        """What it says."""
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


def refused(answer: object, request: Asking, settings: WebSocketSettings) -> "Refused | None":
    """Return what refuses where that is what `authorize` said, whose answer is no `Denial`; None: come in, with what is
    `attached`. Nothing, and what is empty, refuses: a forgotten `return` or an unknown user opens no door.

    :raises ConfigurationError: a status that refuses nobody, or a body that cannot be"""
    if isinstance(answer, tuple) and len(answer) == 2 and isinstance(answer[0], int):
        status, body = answer
        return _with_body(_checked(status, answer), body)
    if isinstance(answer, int) and not isinstance(answer, bool) and answer:
        return _plain(_checked(answer, answer))
    if answer is None and settings.is_first_none():
        logger.warning(
            "authorize of %s (%s) returned None, which refuses: return True to let in, or what channel.data is to be",
            request.raw_path,
            getattr(settings.authorize, "__qualname__", settings.authorize),
        )
    return None if answer else _plain(403)


def attached(answer: object) -> object:
    """Return what `authorize` attached to the channel that it let in."""
    return None if answer is True else answer


@dataclass(frozen=True)
class Refused:
    """An answer that refuses."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes | AsyncIterable[bytes]


def _checked(status: int, answer: object) -> int:
    if isinstance(status, bool) or not 300 <= status <= 599:
        raise ConfigurationError(
            f"authorize answered {answer!r}; a status that refuses is 300 to 599, alone or in a pair with a body: "
            "return True to let in, or something else than these for channel.data, such as a dict"
        )
    return status


def _plain(status: int) -> Refused:
    return Refused(status, [TEXT], f"{status} {REASONS.get(status, 'Refused')}\n".encode())


def _with_body(status: int, body: Any) -> Refused:
    """Return the answer that a route would make of this pair (`Response.of`)."""
    if isinstance(body, Denial):
        return Refused(status, body.headers, body.body)
    if body is None:
        return Refused(status, [], b"")
    if isinstance(body, str):
        return Refused(status, [TEXT], body.encode())
    if isinstance(body, bytes | bytearray | memoryview):
        return Refused(status, [BYTES], bytes(body))
    if isinstance(body, dict | list):
        return Refused(status, [JSON], json.dumps(body, separators=(",", ":"), allow_nan=False).encode())
    if hasattr(body, "__aiter__"):
        return Refused(status, [], body)
    raise ConfigurationError(
        f"authorize answered {status} with {type(body).__name__}; a body is str, bytes, a dict, a list, an async "
        "iterable of bytes, a Response or None"
    )
