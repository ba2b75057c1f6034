from asyncio import Future
from collections.abc import Awaitable, Callable
from typing import Any

from typing_extensions import Buffer, disjoint_base

from .connection import Connection
from .frames import Frames
from .pieces import PieceReader
from .sender import Settings
from .wire import Wire

@disjoint_base
class WebSocketBase(PieceReader):
    def __init__(
        self,
        wire: Wire,
        frames: Frames,
        settings: Settings,
        owner: Callable[[Any], object] | None = None,
        predecessor: Connection | None = None,
    ) -> None: ...
    @property
    def close_code(self) -> int | None: ...
    @property
    def close_reason(self) -> str: ...
    @property
    def latency(self) -> float | None: ...
    def send(self, message: str | Buffer, compress: bool | None = None) -> Awaitable[None]: ...
    def send_piece(self, piece: str | Buffer, last: bool) -> Awaitable[None]: ...
    def send_ping(self, payload: bytes, waiting: Future[float]) -> None: ...
    def close(self, code: int | None = None, reason: str = "") -> Awaitable[None]: ...
