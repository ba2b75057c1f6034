import socket as _socket
from collections.abc import Callable
from typing import Any

from typing_extensions import disjoint_base

from .hub import Hub
from .packets import PacketPort, _Names

@disjoint_base
class LoopPort(PacketPort):
    def __init__(
        self,
        hub: Hub,
        sock: _socket.socket,
        names: _Names,
        pack: Callable[[int, Any], bytes],
        *,
        is_connected: bool = False,
    ) -> None: ...
