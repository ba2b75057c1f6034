import socket as _socket

from typing_extensions import disjoint_base

from .epoll import EpollItem
from .hub import Hub
from .packets import PacketPort, _Names

@disjoint_base
class Batch:
    def __init__(self) -> None: ...

@disjoint_base
class PortItem(EpollItem): ...

@disjoint_base
class NativePort(PacketPort):
    def __init__(
        self,
        hub: Hub,
        sock: _socket.socket,
        names: _Names,
        *,
        is_connected: bool = False,
        reports: bool = False,
        max_passed: int = 0,
    ) -> None: ...
