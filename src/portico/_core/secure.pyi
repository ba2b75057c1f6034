from collections.abc import Callable
from ssl import SSLContext, SSLObject

from typing_extensions import Buffer, disjoint_base

from .wire import Wire

def explain_errors_with(function: Callable[[BaseException], BaseException]) -> None: ...

@disjoint_base
class TLSWire(Wire):
    def __init__(
        self,
        below: Wire,
        context: SSLContext,
        *,
        server_side: bool,
        server_name: str | None = None,
        timeout: float = ...,
        on_handshake: Callable[[BaseException | None], object] | None = None,
    ) -> None: ...
    @property
    def lower(self) -> Wire: ...
    @property
    def ssl_object(self) -> SSLObject: ...
    def start(self, already_read: bytes = b"") -> None: ...
    def write_early(self, data: Buffer) -> int: ...
