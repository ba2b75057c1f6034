from typing import Any

from typing_extensions import disjoint_base

from portico.errors import ClosedError

from .hub import Hub, Wait
from .wire import Sink, Wire

@disjoint_base
class Settings:
    bytes_received: int
    bytes_sent: int
    messages_received: int
    messages_sent: int
    timeouts: int
    def __init__(
        self,
        *,
        read_limit: int = 65536,
        high_water: int = 65536,
        low_water: int = 16384,
        max_unsent: int = 16777216,
        idle_timeout: float | None = None,
        message_timeout: float | None = None,
        send_timeout: float | None = None,
        close_timeout: float = 10.0,
    ) -> None: ...
    @property
    def read_limit(self) -> int: ...
    @property
    def high_water(self) -> int: ...
    @property
    def low_water(self) -> int: ...
    @property
    def max_unsent(self) -> int: ...
    @property
    def idle_timeout(self) -> float: ...
    @property
    def message_timeout(self) -> float: ...
    @property
    def send_timeout(self) -> float: ...
    @property
    def close_timeout(self) -> float: ...

@disjoint_base
class Sender(Sink):
    @property
    def hub(self) -> Hub: ...
    @property
    def wire(self) -> Wire: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def cause(self) -> BaseException | None: ...
    @property
    def successor(self) -> Any: ...
    def closed_error(self) -> ClosedError: ...

@disjoint_base
class Room(Wait): ...

class Done(Wait): ...
