from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Generic, Self, TypeVar

from typing_extensions import Buffer, disjoint_base

from .codec import Codec
from .connection import Connection, Settings
from .wire import Wire

_T = TypeVar("_T")
_Member = TypeVar("_Member", bound=ChannelBase[Any])

@disjoint_base
class ChannelBase(Connection, Generic[_T]):
    def __init__(
        self,
        wire: Wire,
        codec: Codec[_T],
        settings: Settings,
        owner: Callable[[Any], object] | None = None,
        predecessor: Connection | None = None,
    ) -> None: ...
    @property
    def codec(self) -> Codec[_T]: ...
    def recv(self) -> Awaitable[_T]: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[_T]: ...
    def batches(self) -> AsyncIterator[list[_T]]: ...
    def send(self, message: _T) -> Awaitable[None]: ...
    def send_encoded(self, data: Buffer) -> Awaitable[None]: ...

@disjoint_base
class Batches:
    def __aiter__(self) -> Self: ...
    async def __anext__(self) -> list[Any]: ...

def send_all(members: list[_Member], data: bytes, skip: object = None) -> list[_Member]: ...
