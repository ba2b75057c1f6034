"""From an address to a blocking connection, once or again and again; names and addresses."""

import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from portico._core import Codec
from portico.address import Address
from portico.blocking.loop import Background, background
from portico.client.connect import ConnectSettings, StreamSettings
from portico.client.connect import connect as connecting_to
from portico.client.reconnecting import reconnecting as connections_to
from portico.errors import ClosedError
from portico.interfaces import Resolver
from portico.transports.faces import BlockingChannel, BlockingStream
from portico.transports.resolve import name_of as look_up_names
from portico.transports.resolve import resolve as look_up

if TYPE_CHECKING:
    from portico.websocket.face import BlockingWebSocket
    from portico.websocket.settings import WebSocketSettings

__all__ = ["connect", "name_of", "reconnecting", "resolve"]

T = TypeVar("T")


@overload
def connect(
    address: Address | str, *, codec: None = None, websocket: None = None, **settings: Unpack[StreamSettings]
) -> BlockingStream: ...
@overload
def connect(
    address: Address | str, *, codec: Codec[T], websocket: None = None, **settings: Unpack[StreamSettings]
) -> BlockingChannel[T]: ...
@overload
def connect(
    address: Address | str, *, codec: None = None, websocket: "WebSocketSettings", **settings: Unpack[StreamSettings]
) -> "BlockingWebSocket": ...
@overload
def connect(address: Address | str, *, codec: Codec[Any] | None, **settings: Unpack[ConnectSettings]) -> Any: ...
def connect(address: Address | str, *, codec: Codec[Any] | None = None, **settings: Unpack[ConnectSettings]) -> Any:
    """Connect to `address`, and return the connection; `with connect(...) as it:` closes it, too.

    :param settings: as for `portico.connect`, its `timeout` of 10 seconds for lookup, connecting and TLS included.
    :raises AddressError: the address does not parse
    :raises ConfigurationError: the settings cannot work
    :raises ConnectError: no connection came about; its `attempts` tell each thing that was tried"""
    connecting = connecting_to(address, codec=codec, **settings)

    async def made() -> Any:
        return await connecting

    return background().face_of(made, doing=f"connecting to {address} by")


@overload
def reconnecting(
    address: Address | str, *, codec: None = None, websocket: None = None, **settings: Unpack[StreamSettings]
) -> Iterator[BlockingStream]: ...
@overload
def reconnecting(
    address: Address | str, *, codec: Codec[T], websocket: None = None, **settings: Unpack[StreamSettings]
) -> Iterator[BlockingChannel[T]]: ...
@overload
def reconnecting(
    address: Address | str, *, codec: None = None, websocket: "WebSocketSettings", **settings: Unpack[StreamSettings]
) -> "Iterator[BlockingWebSocket]": ...
@overload
def reconnecting(
    address: Address | str, *, codec: Codec[Any] | None, **settings: Unpack[ConnectSettings]
) -> Iterator[Any]: ...
def reconnecting(
    address: Address | str, *, codec: Codec[Any] | None = None, **settings: Unpack[ConnectSettings]
) -> Iterator[Any]:
    """Iterate over fresh connections to `address`: each time the body is through with one, it is closed and the next is
    made, after a wait, as `portico.reconnecting` does.

        for channel in blocking.reconnecting("tcp://feed.example:9000", codec=portico.Lines()):
            try:
                for line in channel:
                    print(line)
            except portico.ClosedError:
                continue                # lost; without this the error would leave the loop, as any other does

    :param settings: as for `portico.connect`; `retry` is `Retry(attempts=None)` by default.
    :raises ConnectError: on iteration, if a failure is not worth another try, or `retry.attempts` in a row failed."""
    return _connections(connections_to(address, codec=codec, **settings), background(), f"{address}")


def _connections(connections: AsyncGenerator[Any, None], home: Background, whom: str) -> Iterator[Any]:
    async def made() -> Any:
        return await anext(connections)

    try:
        while True:
            yield home.face_of(made, doing=f"connecting to {whom} by")
    finally:
        with contextlib.suppress(ClosedError):  # the loop has ended, and all connections with it
            home.call(connections.aclose, doing=f"closing {whom} by")


def resolve(
    host: str | Address,
    port: int | str | None = None,
    *,
    scheme: str = "tcp",
    family: int = 0,
    numeric_only: bool = False,
    resolver: Resolver | None = None,
    timeout: float | None = None,
) -> list[Address]:
    """Give the addresses to try for `host`, each once, in the order to try them in, as `portico.resolve` does.

    :raises ResolveError: there are none, or none within `timeout` seconds"""

    async def ask() -> list[Address]:
        return await look_up(
            host, port, scheme=scheme, family=family, numeric_only=numeric_only, resolver=resolver, timeout=timeout
        )

    return background().call(ask, doing="resolving by")


def name_of(
    address: Address,
    *,
    numeric_only: bool = False,
    resolver: Resolver | None = None,
    timeout: float | None = None,
) -> tuple[str, str]:
    """Give the names of the host and the service at a numeric `address`, as `portico.name_of` does.

    :raises ResolveError: it cannot be found out, or not within `timeout` seconds"""

    async def ask() -> tuple[str, str]:
        return await look_up_names(address, numeric_only=numeric_only, resolver=resolver, timeout=timeout)

    return background().call(ask, doing="naming by")
