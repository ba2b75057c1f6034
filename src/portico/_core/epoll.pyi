import socket as _socket
from asyncio import AbstractEventLoop
from collections.abc import Callable

from typing_extensions import disjoint_base

from .hub import Hub
from .wire import BottomWire

@disjoint_base
class EpollItem(BottomWire): ...

@disjoint_base
class EpollSet:
    def __init__(self, hub: Hub) -> None: ...

@disjoint_base
class SocketWire(EpollItem):
    def __init__(
        self,
        hub: Hub,
        fd: int,
        peer: bytes | None = None,
        *,
        max_passed: int = 0,
        is_file: bool = False,
        can_half_close: bool = True,
        only_writes: bool = False,
    ) -> None: ...
    @property
    def is_file(self) -> bool: ...
    @property
    def peer(self) -> bytes | None: ...
    @property
    def socket(self) -> _socket.socket | None: ...
    def expect_control(self) -> None: ...
    def send_control(self, data: bytes, control: bytes) -> int: ...

@disjoint_base
class Acceptor(EpollItem):
    def __init__(
        self,
        loop: AbstractEventLoop,
        fd: int,
        accepted: Callable[[int, bytes], object],
        failed: Callable[[int], object],
    ) -> None: ...
    @property
    def paused(self) -> bool: ...
    def pause_accepting(self) -> None: ...
    def resume_accepting(self) -> None: ...
    def stop(self) -> None: ...
