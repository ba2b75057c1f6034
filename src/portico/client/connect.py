"""`connect`: from an address to a Stream or Channel, under one deadline, with the whole story when it fails."""

import asyncio
import contextlib
import functools
import importlib
import math
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypedDict, TypeVar, Unpack, overload

from portico._core import Codec, Settings, TLSWire, Wire
from portico.address import AF_UNIX, SCHEMES, Address, Scheme
from portico.client.racing import ATTEMPT_DELAY, interleaved, race
from portico.client.retry import Retry, sleep_before
from portico.errors import Attempt, ConfigurationError, ConnectError, EndOfStream, ProtocolError, ProxyError
from portico.interfaces import Resolver
from portico.transports.connection import Channel, Stream, handshake
from portico.transports.dial import dial
from portico.transports.memory import dial_memory
from portico.transports.resolve import resolve

if TYPE_CHECKING:
    import ssl

    from portico.client.proxies import Proxies, Proxy
    from portico.protocols.proxy_header import ProxyHeader
    from portico.transports.tls import TLS
    from portico.websocket.channel import WebSocket
    from portico.websocket.settings import WebSocketSettings

__all__ = ["ConnectSettings", "Connecting", "connect"]

T = TypeVar("T")
C = TypeVar("C", bound="Stream | Channel[Any]")

NOT_CONNECTED = ("url", "device")
"""The parts of schemes that have no connections here, unless something opens them: what a URL names needs more, and
packet(7) knows no peer."""

FAILURES = (OSError, EndOfStream, ProtocolError)
"""How an attempt ends that leads to no connection."""

KEPT_ATTEMPTS = 100
"""Attempts that a ConnectError tells of after many tries: the last ones."""


class StreamSettings(TypedDict, total=False):
    """The settings of `connect` beside address and codec, but for what is spoken upon the connection."""

    timeout: float | None
    tls: "TLS | None"
    proxy: "Proxies"
    proxy_header: "ProxyHeader | Literal['v1', 'v2'] | None"
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


class ConnectSettings(StreamSettings, total=False):
    """The settings of `connect` beside address and codec, which `reconnecting` takes, too."""

    websocket: "WebSocketSettings | None"


@overload
def connect(
    address: Address | str, *, codec: None = None, websocket: None = None, **settings: Unpack[StreamSettings]
) -> "Connecting[Stream]": ...
@overload
def connect(
    address: Address | str, *, codec: Codec[T], websocket: None = None, **settings: Unpack[StreamSettings]
) -> "Connecting[Channel[T]]": ...
@overload
def connect(
    address: Address | str, *, codec: None = None, websocket: "WebSocketSettings", **settings: Unpack[StreamSettings]
) -> "Connecting[WebSocket]": ...
@overload
def connect(
    address: Address | str, *, codec: Codec[Any] | None, **settings: Unpack[ConnectSettings]
) -> "Connecting[Any]": ...
def connect(
    address: Address | str,
    *,
    codec: Codec[T] | None = None,
    timeout: float | None = 10.0,
    tls: "TLS | None" = None,
    proxy: "Proxies" = None,
    proxy_header: "ProxyHeader | Literal['v1', 'v2'] | None" = None,
    source: Address | str | None = None,
    options: Mapping[str, object] | None = None,
    websocket: "WebSocketSettings | None" = None,
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

    Through proxies it is the addresses of the nearest one that are raced, and a name that is looked up here rather than
    by the proxy is tried address by address.

    :param address: `tcp://host:port`, `tls://host:port`, `unix:path`, `mem:name` (a server of the same event loop),
        whom packets go to, such as `udp://host:port`, or a WebSocket: `ws://host/path`, `wss://host/path`,
        `ws+unix:path:/resource`.
    :param codec: makes the result a Channel of its messages; without one it is a Stream, where packets are carried a
        Channel of `bytes`, one message each, and of a WebSocket a Channel of `str` and `bytes`.
    :param timeout: seconds for lookup, connecting, proxies, TLS and the handshake of a WebSocket, redirects included,
        together, anew for each try of `retry`; None for no end.
    :param tls: how to speak TLS; it makes other streams than `tls` speak it, too. Default for `tls`: `TLS()`.
    :param proxy: through which proxies: a `Proxy`, its URL such as `socks5h://user:password@host:port`, several of them
        (a chain, the nearest first), or "environment" for what `https_proxy`, `all_proxy` and `no_proxy` say (as curl
        reads them, see `portico.client.proxies.from_environment`). Default: none, and the environment is not looked at.
    :param proxy_header: a PROXY protocol header to send first, before TLS, to a server that wants one; "v1" or "v2"
        for one of this version with the connection's own addresses.
    :param source: local address to connect from: an IP address, with or without a port, or the path of a Unix socket.
    :param options: socket options by name, set before connecting.
    :param websocket: the `WebSocketSettings` of a WebSocket.
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
    address = target(address)
    upper = _spoken_upon(address, codec, tls, websocket)
    if upper is not None:
        address, tls = address.carrier, upper.tls
    connector = Connector(
        address=address,
        upper=upper,
        codec=codec,
        timeout=timeout,
        tls=tls,
        proxy=proxy,
        proxies=_chain(address, proxy, tls),
        proxy_header=proxy_header,
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
    if not _is_connectable(scheme):
        raise ConfigurationError(f"connect makes {_connectable()} connections, not {scheme.name}: {address}")
    if address.is_wildcard:
        there = address.replace(host="localhost" if scheme.is_internet else "local", flow=0, scope="")
        raise ConfigurationError(f"{address} is every interface, which only a server can use; connect to {there}")
    if address.port == 0 and scheme.parts != "protocol":
        raise ConfigurationError(f"port 0 in {address} is for servers, who get a free one; give the port to connect to")
    if scheme.parts == "path" and not address.path:
        raise ConfigurationError(f"{address} is a socket without a path: nobody can connect to it")
    return address


def _connectable() -> str:
    """Say which schemes `connect` takes."""
    *most, last = (each.name for each in SCHEMES.values() if _is_connectable(each))
    return f"{', '.join(most)} and {last}"


def _is_connectable(scheme: Scheme) -> bool:
    return bool(scheme.opened_by) or (scheme.parts not in NOT_CONNECTED and not scheme.carrier)


def _spoken_upon(
    address: Address, codec: Codec[Any] | None, tls: "TLS | None", websocket: "WebSocketSettings | None"
) -> "Upper | None":
    """Return what is spoken upon the connection to the carrier of `address`; None: nothing is.

    :raises ConfigurationError: settings that do not fit."""
    opener = SCHEMES[address.scheme].opened_by
    if not opener:
        if websocket is not None:
            raise ConfigurationError(f"websocket= is for ws, wss and ws+unix, not for {address}")
        return None
    module, _, name = opener.partition(":")
    upper: Upper = getattr(importlib.import_module(module), name)(address, codec=codec, tls=tls, settings=websocket)
    return upper


def _chain(address: Address, proxy: "Proxies", tls: "TLS | None") -> "tuple[Proxy, ...]":
    if proxy is None:
        return ()
    from portico.client.proxies import proxies_to

    return proxies_to(address, proxy, secure=tls is not None or SCHEMES[address.scheme].secure)


def local(source: Address | str) -> Address:
    """Return the address to connect from, port 0 if none is given.

    :raises AddressError: it does not parse.
    :raises ConfigurationError: it is a name, or of a kind that connections cannot come from."""
    if isinstance(source, str):
        source = Address("tcp", source.strip("[]"), 0) if _is_host(source) else Address.parse(source)
    if source.family is None or SCHEMES[source.scheme].parts not in ("inet", "path"):
        raise ConfigurationError(f"source={str(source)!r} must be an IP address or the path of a Unix socket")
    return source


def _is_host(text: str) -> bool:
    """Whether `text` is a host without a port."""
    if text.startswith("["):
        return text.endswith("]")
    return not {"/", "@"} & set(text) and text.count(":") != 1


class Upper(Protocol):
    """What is spoken upon a connection before it is the one that was asked for, as the handshake of a WebSocket."""

    address: Address
    """What was asked for."""
    tls: "TLS | None"
    """How to speak TLS beneath."""

    async def open(self, connector: "Connector", story: "Story") -> Any:
        """Return the connection that was asked for, made of a Stream that `connector.carry(story)` gives.

        :raises OSError: it does not come about; so do EndOfStream and ProtocolError
        :raises ConfigurationError: settings that turn out not to work"""
        ...


@dataclass(frozen=True, kw_only=True)
class Connector:
    """The settings of `connect`, and how to get a connection by them.

    :ivar address: where to connect to; the carrier where something is spoken upon it.
    :ivar proxy: what the caller said of proxies, of which `proxies` are those on the way to `address`."""

    address: Address
    upper: Upper | None
    codec: Codec[Any] | None
    timeout: float | None
    tls: "TLS | None"
    proxy: "Proxies"
    proxies: "tuple[Proxy, ...]"
    proxy_header: "ProxyHeader | Literal['v1', 'v2'] | None"
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
        if self.source is not None and self._kind_of(self.source) != self._kind_of(self.address):
            raise ConfigurationError(f"{self.address} cannot be reached from source={str(self.source)!r}")
        for name, value in self.limits.items():
            if value is not None and value < 0:
                raise ConfigurationError(f"{name}={value!r} must not be negative")
        self._check_layers()

    def _check_layers(self) -> None:
        """Check what is to be spoken over the connection."""
        if SCHEMES[self.address.scheme].kind != "stream":
            if self.tls is not None:
                raise ConfigurationError(f"{self.address} carries packets, so tls= cannot be: there is no DTLS here")
            if self.proxy_header is not None:
                raise ConfigurationError(
                    f"{self.address} carries packets, so proxy_header= cannot be: it is for streams"
                )
        if self.tls is not None:
            self.tls.name_for(self.address.host)
        if isinstance(self.proxy_header, str):
            if self.proxy_header not in ("v1", "v2"):
                raise ConfigurationError(f"proxy_header={self.proxy_header!r} must be 'v1', 'v2' or a ProxyHeader")
            if self.proxies and not self.address.is_numeric:
                raise ConfigurationError(
                    f"the IP address of {self.address} behind proxies is not known; give a ProxyHeader as proxy_header="
                )

    @staticmethod
    def _kind_of(address: Address) -> str:
        """Tell apart what a source address must have in common with the target."""
        if SCHEMES[address.scheme].is_internet:
            return "ip"
        return "unix" if address.family == AF_UNIX else address.scheme

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
                if not self.retry.is_worth_it(error) or not await sleep_before(delays, error):
                    raise ConnectError(self.named, told, timeout=error.timeout) from error.__cause__

    async def open_once(self) -> Any:
        """Connect in one try."""
        context = self._context()
        story = Story()
        deadline = asyncio.timeout(self.timeout)
        try:
            async with deadline:
                story.deadline = deadline.when()
                if self.upper is not None:
                    return await self.upper.open(self, story)
                return await self._open(story, context)
        except FAILURES as error:  # TimeoutError is an OSError, too
            within = self.timeout if deadline.expired() else None
            raise ConnectError(self.named, story.told(within), timeout=within) from error

    @property
    def named(self) -> Address:
        """What was asked for, as errors name it."""
        return self.address if self.upper is None else self.upper.address

    async def carry(self, story: "Story") -> Stream:
        """Connect to the carrier, for what is spoken upon it."""
        stream: Stream = await self._open(story, self._context())
        return stream

    def leading_to(self, address: Address, tls: "TLS | None") -> "Connector":
        """Return one with the same settings to another carrier.

        :raises ConfigurationError: the settings cannot work for that one."""
        return replace(self, address=address, tls=tls, proxies=_chain(address, self.proxy, tls))

    async def _open(self, story: "Story", context: "ssl.SSLContext | None") -> Any:
        if self.proxies or self.proxy_header is not None:
            from portico.client.steps import Steps

            return await Steps(self, story).open()
        address, wire = await self.nearest(story, self.address)
        if context is None:
            return self._wrap(wire, address)
        with story.trying(address, "tls"):
            return await self._secure(wire, address, context)

    async def nearest(self, story: "Story", address: Address) -> tuple[Address, Wire]:
        """Connect to what no proxy is before."""
        addresses = await self._find(story, address)
        one_by_one = self.source is not None and self.source.port  # a second socket could not be bound to it
        address, wire = await race(
            addresses,
            functools.partial(self._dial, story),
            discard=discard,
            delay=None if one_by_one else ATTEMPT_DELAY,
        )
        story.interrupted.clear()  # they lost, which is no failure
        return address, wire

    async def _find(self, story: "Story", address: Address) -> Sequence[Address]:
        family = 0 if self.source is None or not self.source.host else self.source.family or 0
        if address.is_numeric and not family:
            return [address]
        return interleaved(await self.resolve(story, address, family))

    async def resolve(self, story: "Story", address: Address, family: int) -> Sequence[Address]:
        """Look up the addresses of a name."""
        with story.trying(address, "resolve"):
            return await resolve(address, family=family, numeric_only=self.numeric_only, resolver=self.resolver)

    async def _dial(self, story: "Story", address: Address) -> Wire:
        with story.trying(address, "connect"):
            if address.scheme == "mem":
                return dial_memory(address.path)
            source = self.source
            if source is not None and SCHEMES[source.scheme].parts == "inet" and not source.host:
                source = source.replace(host="::" if address.host.count(":") else "0.0.0.0")
            return await dial(address, source=source, options=self.options)

    # TLS

    def _context(self) -> "ssl.SSLContext | None":
        for each in self.proxies:
            if each.tls is not None:
                each.tls.client_context()  # now, so that a file that does not load is told before anything is tried
        tls = self.tls_settings()
        return None if tls is None else tls.client_context()

    def tls_settings(self) -> "TLS | None":
        """Return how to speak TLS with the target; None: not at all."""
        if self.tls is None and SCHEMES[self.address.scheme].secure:
            return default_tls()
        return self.tls

    async def _secure(self, wire: Wire, address: Address, context: "ssl.SSLContext") -> Any:
        from portico.transports.tls import explain

        tls = self.tls_settings()
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
        codec = self.codec
        if codec is None and wire.keeps_records:
            from portico.codecs import Records

            codec = Records()
        connection: Stream | Channel[Any]
        if codec is None:
            connection = Stream(wire, settings, scheme=scheme)
        else:
            connection = Channel(wire, codec, settings, scheme=scheme)
        connection._remote = address if scheme == address.scheme else address.replace(scheme=scheme)
        if scheme == "mem":
            connection._local = connection._remote
        return connection


class Story:
    """What was tried so far, and what was broken off."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        """When the try must be over, by the loop's clock."""
        self.attempts: list[Attempt] = []
        self.interrupted: list[Attempt] = []

    @contextlib.contextmanager
    def trying(self, address: Address, stage: str) -> Iterator[None]:
        """Keep how this ends, unless it ends well."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            yield
        except FAILURES as error:
            self.attempts.append(Attempt(address, stage, error, clock() - begun))
            raise
        except asyncio.CancelledError:
            late: OSError = TimeoutError()
            if stage == "proxy":
                late = ProxyError("did not answer in time; check what it speaks, and whom it can reach", address)
                late.__cause__ = TimeoutError()
            self.interrupted.append(Attempt(address, stage, late, clock() - begun))
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
