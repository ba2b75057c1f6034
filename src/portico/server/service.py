"""`Service`: what a program serves, and `Server`: a service at work."""

import asyncio
import contextlib
import errno
import logging
from collections.abc import Generator, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from portico._core import Codec
from portico.address import SCHEMES, Address
from portico.errors import BindError, ConfigurationError
from portico.interfaces import Lifespan
from portico.server.lifespans import finish
from portico.server.limits import Limits
from portico.server.listener import Listener, SpareDescriptor
from portico.server.listener_base import ListenerBase
from portico.server.spec import PEERS, Handler, ListenerSpec, served
from portico.server.stats import Stats
from portico.transports.connection import Signal
from portico.transports.listen import BACKLOG

if TYPE_CHECKING:
    import socket

    from portico.interfaces import Resolver
    from portico.transports.tls import TLS
    from portico.websocket.settings import WebSocketSettings

logger = logging.getLogger("portico.server")

DRAIN_TIMEOUT = 30.0
"""Seconds that handlers get to come to an end (Kubernetes' terminationGracePeriodSeconds and gunicorn's
graceful_timeout: 30)."""

STOP_TIMEOUT = 5.0
"""Seconds that aborted handlers get to clean up before they are reported and left alone."""

_current: ContextVar["Server | None"] = ContextVar("portico server", default=None)


def current_server() -> "Server | None":
    """Return the Server whose handler is running, in tasks and threads that it started, too; None elsewhere."""
    return _current.get()


class Service:
    """Listeners, their handlers and their limits: what `run` and `serve` run."""

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        drain_timeout: float = DRAIN_TIMEOUT,
        drain_delay: float = 0.0,
        resolver: "Resolver | None" = None,
    ) -> None:
        """Begin with no listeners.

        :param limits: the default of each listener.
        :param drain_timeout: seconds (30) that SIGTERM leaves to handlers, and then to the `shutdown` of each that is a
            Lifespan.
        :param drain_delay: seconds (0) before that in which everything goes on, but health checks (`door.health`) fail,
            so that load balancers send nobody any more when listening stops. Give it what they need to notice: interval
            of the checks times the number of failures that they want to see.
        :raises ConfigurationError: a negative delay
        """
        if drain_delay < 0:
            raise ConfigurationError(f"Service: drain_delay is seconds, 0 or more, not {drain_delay!r}")
        self.limits = limits or Limits()
        self.drain_timeout = drain_timeout
        self.drain_delay = drain_delay
        self.resolver = resolver
        self.specs: list[ListenerSpec] = []

    def listen(
        self,
        address: "Address | str | socket.socket | int",
        handler: Handler | None = None,
        *,
        packets: Handler | None = None,
        codec: Codec[Any] | None = None,
        websocket: "WebSocketSettings | None" = None,
        tls: "TLS | None" = None,
        limits: Limits | None = None,
        allow: Sequence[str] | None = None,
        deny: Sequence[str] | None = None,
        options: Mapping[str, object] | None = None,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        backlog: int = BACKLOG,
        proxied_by: Sequence[str] | None = None,
    ) -> Self:
        """Serve `address` by `handler(stream)`, or with `codec` by `handler(channel)`.

        The handler is an async function, or a plain one, which runs in a thread with the blocking face of the
        connection. When it ends the connection is closed.

        Over `udp`, `unixgram` and `unixpacket` the handler gets a Channel, with its own or any other codec: without one
        its messages are bytes, one a packet. Each remote address of `udp` and `unixgram` has its own: it begins with a
        packet from there, and ends with the handler, by `idle_timeout`, or when a packet cannot be delivered.
        `max_connections` bounds how many there are: packets of further ones are dropped and counted.

        At `ws://host:port/path`, `wss://…` and `ws+unix:path:/path` the handler gets a Channel whose messages are those
        of a WebSocket, str and bytes; other paths are answered with 404. At `http://…`, `https://…` and `http+unix:…`
        it is a `Door`.

        :param address: `tcp://…`, `tls://…` (needs `tls`), `udp://…`, `unix:…`, `unixpacket:…`, `unixgram:…`, `vsock://…`,
            `mem:…`, or one of those above; `*` or no host means every interface. Or a socket that exists, or its
            descriptor: one that listens, or a bound one for packets.
        :param websocket: for `ws`, `wss` and `ws+unix`: origins, subprotocols, who may come in, compression, sizes.
        :param packets: in place of `handler`, for `udp`, `unixgram`, `raw` and `packet`: a function
            `(packet, datagrams)` that gets every packet, one by one; `datagrams.send(data, to=packet)` answers. A plain
            one runs in a thread.
        :param tls: settings with certificate and key; secures Unix and `tcp` listeners, too.
        :param limits: for this listener alone, instead of the service's.
        :param allow: only peers in one of these: CIDR blocks, `loopback`, `private`, `any`; for Unix sockets
            `user:NAME`, `group:NAME`, `uid:N`, `gid:N`. Default: all.
        :param deny: no peer in one of these; comes before `allow`.
        :param options: socket options by name, set on the listening socket.
        :param mode: permissions of a Unix socket's file, such as `0o660`; default: as the umask has it.
        :param owner: user and group id of a Unix socket's file.
        :param backlog: connections that may wait to be accepted (1024).
        :param proxied_by: the proxies in front of this listener, named as in `allow`: `["loopback", "10.0.0.0/8"]`.
            Each connection of theirs must begin with a PROXY header (version 1 or 2, before TLS), and nobody else may
            connect: a header is never guessed, for then anybody could name an address of his liking. `remote_address`,
            `allow`, `deny` and the limits per address go by the client that the header names, `local_address` is what
            that client connected to, and `proxy_header` has the rest. Where it names none (LOCAL, UNKNOWN) the
            addresses are the connection's own; LOCAL, such as a health check, is let in by `proxied_by` alone.
            Default: headers are not looked for.
        :raises AddressError: the address does not parse
        :raises ConfigurationError: something that cannot work
        """
        where, sock = _place(address)
        if (handler is None) == (packets is None):
            raise ConfigurationError(f"{where} needs a handler, or packets=: one of the two")
        url = where if SCHEMES[where.scheme].served_by else None
        upon = None if url is None or handler is None else (handler, websocket)
        limits = limits or self.limits
        if url is not None and handler is not None:
            handler = served(url, handler, limits=limits, codec=codec, websocket=websocket)
            codec, where = None, url.carrier
        elif websocket is not None:
            raise ConfigurationError(f"websocket= is for ws, wss and ws+unix, not for {where}")
        spec = ListenerSpec(
            where,
            packets or handler,  # type: ignore[arg-type]  # one of them is there
            codec,
            tls,
            limits,
            allow,
            deny,
            options,
            mode,
            owner,
            backlog,
            proxied_by,
            packets is not None,
            sock,
            url,
            upon,
        )
        spec.check()
        self.specs.append(spec)
        return self


class Server:
    """A service at work, within one event loop. Made by `serve` and `run`."""

    def __init__(self, service: Service) -> None:
        if not service.specs:
            raise ConfigurationError("the service listens nowhere: call service.listen(address, handler) first")
        self.service = service
        self.leaving = Signal()
        """True from the moment that a drain was asked for, `drain_delay` before `draining`: health checks fail."""
        self.draining = Signal()
        """True from the moment that the server wants its handlers to come to an end; each connection shows it."""
        self.listeners: list[ListenerBase] = []
        self._spare = SpareDescriptor()
        self._changed = asyncio.Event()
        self._closed = Signal()
        self._lifespans: list[Lifespan] = []

    async def start(self) -> None:
        """Listen on every address, then begin to accept on all of them.

        :raises BindError: an address cannot be had; nothing listens then
        :raises ResolveError: a name is unknown"""
        before = _current.set(self)  # listeners hand their context on to handlers
        try:
            for handler in {id(spec.handler): spec.handler for spec in self.service.specs}.values():
                if isinstance(handler, Lifespan):
                    await handler.startup()
                    self._lifespans.append(handler)
            for spec in self.service.specs:
                listener: ListenerBase
                if spec.wants_packets or spec.address.scheme in PEERS:
                    from portico.server.packet_listener import PacketListener

                    listener = PacketListener(spec, self.draining, self._changed.set)
                else:
                    listener = Listener(spec, self.draining, self._spare, self._changed.set)
                try:
                    await listener.start(self.service.resolver)
                except BindError as error:
                    error.hint = self._one_door(spec, error) or error.hint
                    raise
                finally:
                    self.listeners.append(listener)
            for listener in self.listeners:
                listener.accept()
        except BaseException:
            self.close()
            await self._shut_down()
            raise
        finally:
            _current.reset(before)

    def _one_door(self, spec: ListenerSpec, error: BindError) -> str:
        """Return what to do where it is this server that has the address already, for the web, too; or ""."""
        if spec.url is None or error.errno != errno.EADDRINUSE:
            return ""
        for other in (each.spec for each in self.listeners):
            if other.url is not None and (other.tls is None) == (spec.tls is None) and _is_same(other.url, spec.url):
                both = (other.url, spec.url)
                paths = [f'door.websocket("{each.path}", …)' for each in both if SCHEMES[each.scheme].opened_by]
                at = other.url.replace(scheme=other.url.scheme.replace("ws", "http"), path="/")
                return f"one Door serves both at {at}" + (f": {' and '.join(paths)}" if paths else "")
        return ""

    @property
    def addresses(self) -> list[Address]:
        """Every address that it listens on, port 0 replaced by the port it became."""
        return [address for listener in self.listeners for address in listener.addresses]

    @property
    def address(self) -> Address:
        """The first of `addresses`."""
        return self.listeners[0].address

    @property
    def stats(self) -> Stats:
        """The counters of all listeners together, as they are now."""
        return Stats.total(listener.stats for listener in self.listeners)

    def close(self) -> None:
        """Stop listening. Connections that are established go on; `drain` ends them. May be called twice."""
        if not self._closed:
            self._closed.set()
            for listener in self.listeners:
                listener.close()
            self._spare.close()

    async def wait_closed(self) -> None:
        """Wait until every connection and handler has come to its end by itself."""
        await self._all_over()
        if self._closed:
            await self._shut_down()

    async def _shut_down(self, timeout: float | None = None) -> None:
        """Let handlers clear away what they began with, each within `timeout` seconds (default: `drain_timeout`)."""
        patience = max(self.service.drain_timeout, STOP_TIMEOUT) if timeout is None else timeout
        while self._lifespans:
            handler = self._lifespans.pop()
            await finish(handler.shutdown(), handler, patience, STOP_TIMEOUT)

    async def _all_over(self) -> None:
        while any(listener.sessions for listener in self.listeners):
            self._changed.clear()
            await self._changed.wait()

    async def drain(self, timeout: float | None = None) -> None:
        """Stop listening, tell the handlers (`connection.draining`), wait up to `timeout` seconds (default: the
        service's `drain_timeout`) for them to end, then abort what is left. Connections whose handler has ended may
        still send what it left behind, within `close_timeout`. Peers of packets, whose end nobody tells, are received
        from no more: their handlers get what has come, and then the end.

        Before all that the service's `drain_delay` passes, unless `timeout` is 0 or nothing listens any more."""
        self.leaving.set()
        if self.service.drain_delay and timeout != 0 and not self._closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.service.drain_delay):
                    await self._closed
        self.close()
        self.draining.set()
        for listener in self.listeners:
            listener.drain()
        timeout = self.service.drain_timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(timeout):
                await self._all_over()
        except TimeoutError:
            closing = max(listener.spec.limits.close_timeout for listener in self.listeners)
            await self._end(everything=False, timeout=STOP_TIMEOUT + closing)
        await self._shut_down()

    async def abort(self) -> None:
        """Stop listening and end every handler and connection now. A handler that does not end within 5 s though it
        was cancelled is reported, and left alone; so is one whose `shutdown` (`portico.Lifespan`) takes longer."""
        self.leaving.set()
        self.close()
        self.draining.set()
        await self._end(everything=True, timeout=STOP_TIMEOUT)
        await self._shut_down(STOP_TIMEOUT)

    async def _end(self, *, everything: bool, timeout: float) -> None:
        for listener in self.listeners:
            for session in list(listener.sessions):
                if everything or session.task is not None or session.connection is None:
                    listener.stats.aborted += not session.stopped
                    session.stop()
        try:
            async with asyncio.timeout(timeout):
                await self._all_over()
        except TimeoutError:
            for listener in self.listeners:
                for session in listener.sessions:
                    logger.error("%s: the handler does not end though it was cancelled", session.name())

    def leftover_tasks(self) -> list[asyncio.Task[Any]]:
        """Return the tasks of the handlers that still run."""
        sessions = [session for listener in self.listeners for session in listener.sessions]
        return [session.task for session in sessions if session.task is not None]

    async def serve_forever(self) -> None:
        """Wait until `close` or `drain` was called and every connection is over."""
        await self._closed
        await self.wait_closed()


def _is_same(one: Address, other: Address) -> bool:
    """Whether two addresses of the web are of one port, or of one Unix socket."""
    return one.port == other.port and (one.port is not None or one.host == other.host)


def _place(address: "Address | str | socket.socket | int") -> "tuple[Address, socket.socket | None]":
    """Return where to listen, and the socket where there is one."""
    if isinstance(address, Address | str):
        return Address.parse(address), None
    from portico.transports.adopting import listening_address

    return listening_address(address)


class Serving:
    """What `serve` returns: await it for a Server, or use it with `async with`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._server: Server | None = None

    async def _start(self) -> Server:
        server = Server(self._service)
        await server.start()
        return server

    def __await__(self) -> Generator[Any, None, Server]:
        return self._start().__await__()

    async def __aenter__(self) -> Server:
        self._server = await self._start()
        return self._server

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        await self._server.drain(0)


def serve(
    service: Service | Handler | None = None,
    address: "Address | str | socket.socket | int | None" = None,
    **settings: Any,
) -> Serving:
    """Serve within the running loop: `async with serve(handler, "tcp://127.0.0.1:0") as server`, or
    `server = await serve(service)`.

    Leaving the context stops listening and ends the handlers that still run; `server.drain()` before gives them time.

    :param service: a Service, or a handler for the one `address`.
    :param settings: with a handler: as for `Service.listen`.
    :raises BindError: an address cannot be had
    :raises ResolveError: a name is unknown
    :raises ConfigurationError: something that cannot work
    """
    if isinstance(service, Service):
        if address is not None or settings:
            raise ConfigurationError("serve(service) takes no address: the service has its own")
        return Serving(service)
    if address is None:
        raise ConfigurationError('serve(handler) needs an address, such as "tcp://127.0.0.1:0"')
    return Serving(Service().listen(address, service, **settings))
