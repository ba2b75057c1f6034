from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from typing_extensions import Buffer, disjoint_base

from portico.address import Address
from portico.errors import DeliveryError

from .channel import ChannelBase
from .packets import Endpoint, Packet, PacketPort, PortWire
from .sender import Settings

@disjoint_base
class DatagramsBase(ChannelBase[Packet]):
    def __init__(
        self,
        wire: PortWire,
        settings: Settings,
        locate: Callable[[object], Endpoint],
        *,
        max_packets: int,
        when_full: Literal["pause", "drop-new", "drop-old"],
        owner: Callable[[Any], object] | None = None,
    ) -> None: ...
    @property
    def port(self) -> PacketPort: ...
    @property
    def dropped(self) -> int: ...
    @property
    def failed(self) -> int: ...
    def send(self, data: Buffer, to: Address | str | Packet | None = None) -> Awaitable[None]: ...  # type: ignore[override]  # packets name their receiver
    def send_many(
        self,
        packets: Iterable[Buffer] | Iterable[tuple[Buffer, Address | str | Packet]],
        to: Address | str | Packet | None = None,
    ) -> Awaitable[None]: ...
    def send_control(self, data: bytes, control: bytes, to: Address | str | Packet | None = None) -> bool: ...
    def take_failures(self) -> list[DeliveryError]: ...
