"""`reconnecting`: a connection that comes back."""

from collections import deque
from collections.abc import AsyncGenerator, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from portico._core import Codec
from portico.address import Address
from portico.client import retry as pace
from portico.client.connect import KEPT_ATTEMPTS, Connector, ConnectSettings, StreamSettings, connect
from portico.client.retry import Retry, sleep_before
from portico.errors import Attempt, ConnectError
from portico.transports.connection import Channel, Stream

if TYPE_CHECKING:
    from portico.websocket.channel import WebSocket
    from portico.websocket.settings import WebSocketSettings

__all__ = ["reconnecting"]

T = TypeVar("T")

FOR_EVER = Retry(attempts=None)


@overload
def reconnecting(
    address: Address | str, *, codec: None = None, websocket: None = None, **settings: Unpack[StreamSettings]
) -> AsyncGenerator[Stream, None]: ...
@overload
def reconnecting(
    address: Address | str, *, codec: Codec[T], websocket: None = None, **settings: Unpack[StreamSettings]
) -> AsyncGenerator[Channel[T], None]: ...
@overload
def reconnecting(
    address: Address | str, *, codec: None = None, websocket: "WebSocketSettings", **settings: Unpack[StreamSettings]
) -> "AsyncGenerator[WebSocket, None]": ...
@overload
def reconnecting(
    address: Address | str, *, codec: Codec[Any] | None, **settings: Unpack[ConnectSettings]
) -> AsyncGenerator[Any, None]: ...
def reconnecting(
    address: Address | str, *, codec: Codec[Any] | None = None, **settings: Unpack[ConnectSettings]
) -> AsyncGenerator[Any, None]:
    """Iterate over fresh connections to `address`: each time the body is through with one, the next is made.

        async for channel in portico.reconnecting("tcp://feed.example:9000", codec=portico.Lines()):
            try:
                async for line in channel:
                    print(line)
            except portico.ClosedError:
                continue                # lost; without this the error would leave the loop, as any other does

    The connection is closed when the body ends, by `continue` or at its end, and soon after `break` or an error
    (`contextlib.aclosing` around the iterator, or its `aclose()`, closes at once and waits for it).

    Before each further connection it waits as `retry` says. The delays begin anew with the first after a connection
    that lived for `retry.maximum` seconds; shorter ones, even if they worked, are taken for a server in trouble.

    :param settings: as for `connect`. `retry` is `Retry(attempts=None)` by default; its `attempts` limit the failures
        in a row.
    :raises AddressError: at once, if the address does not parse.
    :raises ConfigurationError: at once, if the settings cannot work.
    :raises ConnectError: on iteration, if a failure is not worth another try, or `retry.attempts` in a row failed."""
    policy = settings.pop("retry", None) or FOR_EVER
    return _connections(connect(address, codec=codec, **settings).connector, policy)


async def _connections(connector: Connector, policy: Retry) -> AsyncGenerator[Any, None]:
    endless = replace(policy, attempts=None)
    delays = endless.delays()
    while True:
        connection = await _connect(connector, policy, delays)
        begun = pace.CLOCK.now()
        async with connection:
            yield connection
        if pace.CLOCK.now() - begun >= policy.maximum:
            delays = endless.delays()
        await sleep_before(delays)


async def _connect(connector: Connector, policy: Retry, delays: Iterator[float]) -> Any:
    """Connect, as often in a row as `policy` says."""
    told: deque[Attempt] = deque(maxlen=KEPT_ATTEMPTS)
    failures = 0
    while True:
        try:
            return await connector.open_once()
        except ConnectError as error:
            failures += 1
            told.extend(error.attempts)
            if failures == policy.attempts or not policy.is_worth_it(error):
                raise ConnectError(connector.named, told, timeout=error.timeout) from error.__cause__
            await sleep_before(delays, error)
