"""`connect`: from an address to a Stream or Channel, under one deadline, with the whole story when it fails."""

import asyncio
import contextlib
import functools
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar, Unpack, overload

from portico._core import Codec, Settings, TLSWire, Wire
from portico.address import SCHEMES, Address
from portico.client.racing import ATTEMPT_DELAY, interleaved, race
from portico.client.retry import Retry, sleep_before
from portico.errors import Attempt, ConfigurationError, ConnectError
from portico.interfaces import Resolver
from portico.transports.connection import Channel, Stream, handshake
from portico.transports.dial import dial
from portico.transports.memory import dial_memory
from portico.transports.resolve import resolve

if TYPE_CHECKING:
    import ssl

    from portico.transports.tls import TLS

__all__ = ["ConnectSettings", "Connecting", "connect"]

T = TypeVar("T")
C = TypeVar("C", bound="Stream | Channel[Any]")

KEPT_ATTEMPTS = 100
"""Attempts that a ConnectError tells of after many tries: the last ones."""


class ConnectSettings(TypedDict, total=False):
    """The settings of `connect` beside address and codec, which `reconnecting` takes, too."""

    timeout: float | None
    tls: "TLS | None"
    source: Address | str | None
    options: Mapping[str, object] | None
    retry: Retry | None
    resolver: Resolver | None
    numeric_only: bool
    idle_timeout: float | None
    close_timeout: float
    read_limit: int
    high_water: int
    max_unsent: int


@overload
def connect(
    address: Address | str, *, codec: None = None, **settings: Unpack[ConnectSettings]
) -> "Connecting[Stream]": ...
@overload
def connect(
    address: Address | str, *, codec: Codec[T], **settings: Unpack[ConnectSettings]
) -> "Connecting[Channel[T]]": ...
def connect(
    address: Address | str,
    *,
    codec: Codec[T] | None = None,
    timeout: float | None = 10.0,
    tls: "TLS | None" = None,
    source: Address | str | None = None,
    options: Mapping[str, object] | None = None,
    retry: Retry | None = None,
    resolver: Resolver | None = None,
    numeric_only: bool = False,
    idle_timeout: float | None = None,
    close_timeout: float = 10.0,
    read_limit: int = 64 * 1024,
    high_water: int = 64 * 1024,
    max_unsent: int = 16 << 20,
) -> "Connecting[Any]":
    """Connect to `address`: `await connect(...)` gives the connection, `async with connect(...) as it:` closes it, too
    (a cancelled body aborts it).

    All addresses of a name are raced (RFC 8305): the families take turns, the next address is tried when one fails or
    250 ms later, the first that accepts wins. TLS is spoken with the winner alone: if that fails, the try has failed,
    for the other addresses are the same server's. With a `source` that has a port they are tried one by one.

    :param address: `tcp://host:port`, `tls://host:port`, `unix:path` or `mem:name` (a server of the same event loop).
    :param codec: makes the result a Channel of its messages; without one it is a Stream.
    :param timeout: seconds for lookup, connecting and TLS together, anew for each try of `retry`; None for no end.
    :param tls: how to speak TLS; it makes `tcp`, `unix` and `mem` speak it, too. Default for `tls`: `TLS()`.
    :param source: local address to connect from: an IP address, with or without a port, or the path of a Unix socket.
    :param options: socket options by name, set before connecting.
    :param retry: whether and when to try again; default: once only.
    :param resolver: who is asked for the addresses of a name, in place of the system.
    :param numeric_only: never ask anybody: a name does not resolve.
    :param idle_timeout: seconds without a byte either way after which the connection is closed; None for no end.
    :param close_timeout: seconds that closing may take.
    :param read_limit: received bytes that wait for `recv` before the peer is made to wait.
    :param high_water: bytes on the way out from which on `await send(...)` waits.
    :param max_unsent: bytes on the way out from which on `send` raises LimitError.
    :raises AddressError: at once, if the address does not parse.
    :raises ConfigurationError: at once, if the settings cannot work; on connecting, if a file of `tls` does not load.
    :raises ConnectError: on connecting, if no connection came about; its `attempts` tell each thing that was tried."""
    limits = dict(idle_timeout=idle_timeout, close_timeout=close_timeout)
    limits |= dict(read_limit=read_limit, high_water=high_water, max_unsent=max_unsent)
    connector = Connector(
        address=target(address),
        codec=codec,
        timeout=timeout,
        tls=tls,
        source=None if source is None else local(source),
        options=options,
        retry=retry,
        resolver=resolver,
        numeric_only=numeric_only,
        limits=limits,
    )
    return Connecting(connector)


class Connecting(Generic[C]):
    """What `connect` returns: await it, or use it with `async with`. Each time it makes a new connection."""

    def __init__(self, connector: "Connector") -> None:
        self.connector = connector
        self._made: list[C] = []

    def __await__(self) -> Generator[Any, Any, C]:
        return self.connector.open().__await__()

    async def __aenter__(self) -> C:
        connection: C = await self.connector.open()
        self._made.append(connection)
        return connection

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        await self._made.pop().__aexit__(kind, error, traceback)


def target(address: Address | str) -> Address:
    """Return whom to connect to.

    :raises AddressError: it does not parse.
    :raises ConfigurationError: nobody can be there."""
    address = Address.parse(address)
    scheme = SCHEMES[address.scheme]
    if scheme.kind != "stream" or scheme.parts == "url":
        raise ConfigurationError(f"connect makes tcp, tls, unix and mem connections, not {scheme.name}: {address}")
    if scheme.parts == "inet" and address.is_wildcard:
        there = address.replace(host="localhost", flow=0, scope="")
        raise ConfigurationError(f"{address} is every interface, which only a server can use; connect to {there}")
    if address.port == 0:
        raise ConfigurationError(f"port 0 in {address} is for servers, who get a free one; give the port to connect to")
    if scheme.parts == "path" and not address.path:
        raise ConfigurationError(f"{address} is a socket without a path: nobody can connect to it")
    return address


def local(source: Address | str) -> Address:
    """Return the address to connect from, port 0 if none is given.

    :raises AddressError: it does not parse.
    :raises ConfigurationError: it is a name, or of a kind that connections cannot come from."""
    if isinstance(source, str):
        source = Address("tcp", source.strip("[]"), 0) if _is_host(source) else Address.parse(source)
    if not source.is_numeric or source.scheme not in ("tcp", "tls", "unix"):
        raise ConfigurationError(f"source={str(source)!r} must be an IP address or the path of a Unix socket")
    return source


def _is_host(text: str) -> bool:
    """Whether `text` is a host without a port."""
    if text.startswith("["):
        return text.endswith("]")
    return not {"/", "@"} & set(text) and text.count(":") != 1


@dataclass(frozen=True, kw_only=True)
class Connector:
    """The settings of `connect`, and how to get a connection by them."""

    address: Address
    codec: Codec[Any] | None
    timeout: float | None
    tls: "TLS | None"
    source: Address | None
    options: Mapping[str, object] | None
    retry: Retry | None
    resolver: Resolver | None
    numeric_only: bool
    limits: dict[str, Any]

    def __post_init__(self) -> None:
        scheme = self.address.scheme
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigurationError(f"timeout={self.timeout!r} must be more than 0 seconds, or None for no end")
        if scheme == "mem" and (self.source is not None or self.options):
            raise ConfigurationError("a memory connection has no socket, so no source= and no options=")
        if self.source is not None and (self.source.scheme == "unix") != (scheme == "unix"):
            raise ConfigurationError(f"{self.address} cannot be reached from source={str(self.source)!r}")
        for name, value in self.limits.items():
            if value is not None and value < 0:
                raise ConfigurationError(f"{name}={value!r} must not be negative")
        if self.tls is not None:
            self.tls.name_for(self.address.host)

    async def open(self) -> Any:
        """Connect, as often as the retry policy says."""
        if self.retry is None:
            return await self.open_once()
        told: deque[Attempt] = deque(maxlen=KEPT_ATTEMPTS)
        delays = self.retry.delays()
        while True:
            try:
                return await self.open_once()
            except ConnectError as error:
                told.extend(error.attempts)
                if not self.retry.is_worth_it(error) or not await sleep_before(delays):
                    raise ConnectError(self.address, told, timeout=error.timeout) from error.__cause__

    async def open_once(self) -> Any:
        """Connect in one try."""
        context = self._context()
        story = Story()
        deadline = asyncio.timeout(self.timeout)
        try:
            async with deadline:
                return await self._open(story, context)
        except OSError as error:  # of which TimeoutError is one
            within = self.timeout if deadline.expired() else None
            raise ConnectError(self.address, story.told(within), timeout=within) from error

    async def _open(self, story: "Story", context: "ssl.SSLContext | None") -> Any:
        addresses = await self._find(story)
        one_by_one = self.source is not None and self.source.port  # a second socket could not be bound to it
        address, wire = await race(
            addresses,
            functools.partial(self._dial, story),
            discard=discard,
            delay=None if one_by_one else ATTEMPT_DELAY,
        )
        story.interrupted.clear()  # they lost, which is no failure
        if context is None:
            return self._wrap(wire, address)
        with story.trying(address, "tls"):
            return await self._secure(wire, address, context)

    async def _find(self, story: "Story") -> Sequence[Address]:
        family = 0 if self.source is None or not self.source.host else self.source.family or 0
        if self.address.is_numeric and not family:
            return [self.address]
        with story.trying(self.address, "resolve"):
            found = await resolve(self.address, family=family, numeric_only=self.numeric_only, resolver=self.resolver)
        return interleaved(found)

    async def _dial(self, story: "Story", address: Address) -> Wire:
        with story.trying(address, "connect"):
            if address.scheme == "mem":
                return dial_memory(address.path)
            source = self.source
            if source is not None and source.scheme != "unix" and not source.host:
                source = source.replace(host="::" if address.host.count(":") else "0.0.0.0")
            return await dial(address, source=source, options=self.options)

    # TLS

    def _context(self) -> "ssl.SSLContext | None":
        tls = self._tls()
        return None if tls is None else tls.client_context()

    def _tls(self) -> "TLS | None":
        if self.tls is None and SCHEMES[self.address.scheme].secure:
            return default_tls()
        return self.tls

    async def _secure(self, wire: Wire, address: Address, context: "ssl.SSLContext") -> Any:
        from portico.transports.tls import explain

        tls = self._tls()
        assert tls is not None  # as there is a context
        name = tls.name_for(self.address.host)
        made: list[Any] = []

        def start(done: Callable[[BaseException | None], None]) -> None:
            secure = TLSWire(wire, context, server_side=False, server_name=name, timeout=math.inf, on_handshake=done)
            made.append(self._wrap(secure, address))
            secure.start()

        try:
            error = await handshake(start, lambda: made[0].abort())
        except ValueError as refused:  # by OpenSSL, before anything was sent
            discard(wire)
            raise ConfigurationError(f"server_name={name!r} cannot be sent to a TLS server: {refused}") from refused
        if error is None:
            return made[0]
        made[0].close()
        failure = explain(error, server_name=name, minimum_version=tls.minimum_version)
        failure.address = address  # the attempt's text has it already
        raise failure from error

    # the result

    def _wrap(self, wire: Wire, address: Address) -> Any:
        scheme = "tls" if self.tls is not None and address.scheme == "tcp" else address.scheme
        settings = Settings(**self.limits)
        connection: Stream | Channel[Any]
        if self.codec is None:
            connection = Stream(wire, settings, scheme=scheme)
        else:
            connection = Channel(wire, self.codec, settings, scheme=scheme)
        connection._remote = address if scheme == address.scheme else address.replace(scheme=scheme)
        if scheme == "mem":
            connection._local = connection._remote
        return connection


class Story:
    """What was tried so far, and what was broken off."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.interrupted: list[Attempt] = []

    @contextlib.contextmanager
    def trying(self, address: Address, stage: str) -> Iterator[None]:
        """Keep how this ends, unless it ends well."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            yield
        except OSError as error:
            self.attempts.append(Attempt(address, stage, error, clock() - begun))
            raise
        except asyncio.CancelledError:
            self.interrupted.append(Attempt(address, stage, TimeoutError(), clock() - begun))
            raise

    def told(self, timeout: float | None) -> list[Attempt]:
        """Return each thing tried, in order of its end, and if the `timeout` was over those that it cut off."""
        return self.attempts if timeout is None else self.attempts + self.interrupted


def discard(wire: Wire) -> None:
    """Close a wire that gets no connection."""
    close = getattr(wire, "discard", None)
    if close is not None:
        close()
    else:
        Stream(wire, Settings(), scheme="tcp").abort()


@functools.cache
def default_tls() -> "TLS":
    """One for all, so that the system's authorities are loaded once."""
    from portico.transports.tls import TLS

    return TLS()
