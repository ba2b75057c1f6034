"""One address that a service listens on: accepting, admitting, securing, and starting handlers."""

import asyncio
import contextlib
import contextvars
import errno
import functools
import inspect
import logging
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from portico._core import Codec, Hub, Settings, TLSWire, Wire, driven, hub_of
from portico.address import Address
from portico.errors import ConfigurationError, PorticoError, UnsupportedError
from portico.server.admission import Admission, packed_host
from portico.server.limits import Limits
from portico.server.session import Session
from portico.server.stats import Stats
from portico.server.threads import ThreadedHandler
from portico.transports.connection import Channel, Signal, Stream
from portico.transports.listen import BACKLOG, ListeningSocket, listen
from portico.transports.memory import listen_memory
from portico.transports.resolve import resolve
from portico.transports.wires import adopt

if TYPE_CHECKING:
    from portico.interfaces import Resolver
    from portico.transports.tls import TLS

logger = logging.getLogger("portico.server")

Handler = Callable[[Any], object]

OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of accept(2) that say the system is short of something; the connection still waits in the backlog."""

GONE_MEANWHILE = frozenset(
    getattr(errno, "E" + name)
    for name in (
        "CONNABORTED",
        "PROTO",
        "PERM",
        "NETDOWN",
        "NETUNREACH",
        "HOSTDOWN",
        "HOSTUNREACH",
        "NONET",
        "NOPROTOOPT",
    )
    if hasattr(errno, "E" + name)
)
"""Errors of accept(2) that belong to the connection that it would have been: to be taken like EAGAIN."""

PAUSE = 1.0
"""Seconds without accepting when not even the spare descriptor helped."""

REPORT_INTERVAL = 60.0
"""Seconds between two reports that connections are turned away for want of descriptors."""


@dataclass(frozen=True, slots=True)
class ListenerSpec:
    """What was asked for with `Service.listen`."""

    address: Address
    handler: Handler
    codec: Codec[Any] | None
    tls: "TLS | None"
    limits: Limits
    allow: Sequence[str] | None
    deny: Sequence[str] | None
    options: Mapping[str, object] | None
    mode: int | None
    owner: tuple[int, int] | None
    backlog: int = BACKLOG

    def check(self) -> None:
        """:raises ConfigurationError: something that cannot work"""
        scheme = self.address.scheme
        if scheme not in ("tcp", "tls", "unix", "mem"):
            raise UnsupportedError(
                f"cannot serve {self.address}: {scheme}: is no stream transport; known: tcp, tls, unix, mem"
            )
        if not callable(self.handler):
            raise ConfigurationError(f"the handler of {self.address} must be a function, not {self.handler!r}")
        if inspect.isasyncgenfunction(self.handler) or inspect.isgeneratorfunction(self.handler):
            raise ConfigurationError(f"the handler of {self.address} must not yield: a generator never runs by itself")
        if self.codec is not None and not isinstance(self.codec, Codec):
            raise ConfigurationError(f"the codec of {self.address} must be a Codec such as Lines(), not {self.codec!r}")
        if scheme == "tls" and self.tls is None:
            raise ConfigurationError(f"{self.address} needs tls=TLS(certificate=…, key=…)")
        if (self.mode is not None or self.owner is not None) and scheme != "unix":
            raise ConfigurationError(f"mode and owner are for Unix sockets, not for {self.address}")
        if self.tls is not None:
            self.tls.server_context()
        Admission(self.limits, Stats(), self.allow, self.deny)


class Listener:
    """A `ListenerSpec` at work."""

    def __init__(
        self, spec: ListenerSpec, draining: Signal, spare: "SpareDescriptor", changed: Callable[[], None]
    ) -> None:
        self.spec, self.draining, self.spare, self.changed = spec, draining, spare, changed
        self.settings: Settings = spec.limits.settings()
        self.stats = Stats(_sources=[self.settings])
        self.admission = Admission(spec.limits, self.stats, spec.allow, spec.deny)
        self.sessions: set[Session] = set()
        self.sockets: list[ListeningSocket] = []
        self.scheme = "tls" if spec.tls is not None and spec.address.scheme == "tcp" else spec.address.scheme
        self._memory: Any = None
        self._waiting_in_memory: deque[Wire] = deque()
        self._paused = True  # until `accept`
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._reported = -REPORT_INTERVAL
        self._context = contextvars.copy_context()
        self._hub: Hub = hub_of(asyncio.get_running_loop())
        self._serve = self._handler(spec.handler)

    @property
    def address(self) -> Address:
        """Where it listens, with the port that port 0 became."""
        bound = self.addresses
        return bound[0] if bound else self.spec.address

    @property
    def addresses(self) -> list[Address]:
        """All the addresses that it listens on."""
        if self._memory is not None:
            return [self.spec.address]
        return [each.address.replace(scheme=self.scheme) for each in self.sockets]

    def _handler(self, handler: Handler) -> Callable[[Any], Awaitable[object]]:
        call: Any = handler
        while isinstance(call, functools.partial):
            call = call.func
        if inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(getattr(call, "__call__", None)):  # noqa: B004
            return handler  # type: ignore[return-value]
        return ThreadedHandler(handler, self.spec.limits.max_threads)

    # listening

    async def start(self, resolver: "Resolver | None") -> None:
        """Listen, but do not accept before `accept`.

        :raises BindError: the address cannot be had
        :raises ResolveError: its name is unknown"""
        spec = self.spec
        if spec.address.scheme == "mem":
            self._memory = listen_memory(spec.address.path, self._accepted_memory)
            return
        numeric = [spec.address]
        if spec.address.scheme != "unix" and not spec.address.is_wildcard:
            numeric = await resolve(spec.address, resolver=resolver)
        self.sockets = listen(
            spec.address, numeric, backlog=spec.backlog, options=spec.options, mode=spec.mode, owner=spec.owner
        )

    def accept(self) -> None:
        """Begin to take connections."""
        self._paused = False
        for each in self.sockets:
            each.start(self._accepted, functools.partial(self._failed, each))
        self._take_from_memory()

    def close(self) -> None:
        """Stop listening; connections stay. Who has connected by now, and was not accepted yet, is let in first: the
        kernel would reset it, whatever it may have sent."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        for each in self.sockets:
            each.take_waiting(self._accepted, lambda: self._paused)
            each.close()
        if self._memory is not None:
            self._memory.close()
        self._paused = self._closed = True
        while self._waiting_in_memory:
            Stream(self._waiting_in_memory.popleft(), self.settings, scheme="mem").abort()
        if isinstance(self._serve, ThreadedHandler):
            self._serve.close()

    def _accepted(self, fd: int, peer: bytes) -> None:
        limits, stats = self.spec.limits, self.stats
        stats.accepted += 1
        host = packed_host(peer)
        if limits.max_connections is not None and stats.open >= limits.max_connections:
            stats.rejected_full += 1
            self._refuse(fd)
            return
        if not self.admission.admit(host, fd):
            self._refuse(fd)
            return
        session = self._enter(host)
        adopt(
            self._hub,
            fd,
            peer,
            limits.max_fds if self.scheme == "unix" else 0,
            lambda wire: self._secure(wire, session),
            lambda: self._forget(session),
        )

    def _enter(self, host: bytes) -> Session:
        session = Session(self, host)
        self.sessions.add(session)
        self.stats.open += 1
        if not self._paused and self._is_full():
            self._pause()
        return session

    def _accepted_memory(self, wire: Wire) -> None:
        self._waiting_in_memory.append(wire)
        self._take_from_memory()

    def _take_from_memory(self) -> None:
        limits, stats = self.spec.limits, self.stats
        while self._waiting_in_memory and not self._paused:
            wire = self._waiting_in_memory.popleft()
            stats.accepted += 1
            full = limits.max_connections is not None and stats.open >= limits.max_connections
            if full or not self.admission.admit(b"", -1):
                stats.rejected_full += full
                refused = Stream(wire, self.settings, scheme="mem")
                if limits.refusal and self.spec.tls is None:
                    refused.send(limits.refusal)
                refused.close()
            else:
                self._secure(wire, self._enter(b""))

    def _refuse(self, fd: int) -> None:
        refusal = self.spec.limits.refusal
        if not refusal or self.spec.tls is not None:  # nobody reads plain text who expects TLS
            os.close(fd)
            return
        with socket.socket(fileno=fd) as sock, contextlib.suppress(OSError):
            sock.send(refusal)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(65536)  # what is left unread would make it a reset, which may overtake the refusal

    def _failed(self, listening: ListeningSocket, code: int) -> None:
        """accept(2) failed: shed what waits rather than spin, or wait until there is something to be had."""
        if code in GONE_MEANWHILE:
            return
        outcome = self.spare.shed(listening.socket, self._refuse) if code in OUT_OF_RESOURCES else "failed"
        if outcome == "nobody":  # Linux says EMFILE even where nobody waits
            return
        self.stats.accept_errors += 1
        if outcome == "shed":
            self.stats.accepted += 1
            self.stats.shed += 1
        else:
            self._pause()
            if self._retry is None:
                self._retry = self._hub.loop.call_later(PAUSE, self._resume_after_failure)
        now = self._hub.loop.time()
        if now - self._reported >= REPORT_INTERVAL:
            self._reported = now
            what = "new connections are turned away" if outcome == "shed" else "new connections wait"
            logger.error("%s: accept failed: %s; %s", listening.address, os.strerror(code).lower(), what)

    def _resume_after_failure(self) -> None:
        self._retry = None
        self.spare.refill()
        self._resume_if_room()

    def _is_full(self) -> bool:
        limits = self.spec.limits
        if (
            limits.when_full == "pause"
            and limits.max_connections is not None
            and self.stats.open >= limits.max_connections
        ):
            return True
        return limits.max_handshakes is not None and self.stats.handshakes >= limits.max_handshakes

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.stats.paused += 1
            for each in self.sockets:
                each.pause()

    def _resume_if_room(self) -> None:
        if self._paused and not self._closed and self._retry is None and not self._is_full():
            self._paused = False
            for each in self.sockets:
                each.resume()
            self._take_from_memory()

    # connections

    def _secure(self, wire: Wire, session: Session) -> None:
        """Let TLS come first where it is wanted."""
        tls = self.spec.tls
        if session.stopped:
            self._drop(wire, session)
            return
        if tls is None:
            self._begin(wire, session)
            return
        try:
            context = tls.server_context()
        except PorticoError as error:
            logger.error("%s: %s", self.address, error)
            self._drop(wire, session)
            return
        self.stats.handshakes += 1
        if not self._paused and self._is_full():
            self._pause()
        secure: list[TLSWire] = []
        secure.append(
            TLSWire(
                wire,
                context,
                server_side=True,
                timeout=self.spec.limits.handshake_timeout or float("inf"),
                on_handshake=lambda error: self._secured(secure[0], session, error),
            )
        )
        session.wire = secure[0]
        secure[0].start()

    def _secured(self, wire: TLSWire, session: Session, error: BaseException | None) -> None:
        self.stats.handshakes -= 1
        if error is None:
            self._begin(wire, session)
            self._resume_if_room()
            return
        self.stats.handshakes_failed += 1
        if logger.isEnabledFor(logging.INFO):
            from portico.transports.tls import explain

            logger.info("%s: %s", session.name(), explain(error, server_side=True))
        self._forget(session)

    def _drop(self, wire: Wire, session: Session) -> None:
        Stream(wire, self.settings, scheme=self.scheme).abort()
        self._forget(session)

    def _forget(self, session: Session) -> None:
        """A connection that never got as far as a handler is over."""
        session.wire = None
        session.lost = True
        self.left(session)
        self.ended(session)

    def _begin(self, wire: Wire, session: Session) -> None:
        """Make the connection and start its handler."""
        codec = self.spec.codec
        connection: Stream | Channel[Any]
        if codec is None:
            connection = Stream(wire, self.settings, session, scheme=self.scheme, draining=self.draining)
        else:
            connection = Channel(wire, codec, self.settings, session, scheme=self.scheme, draining=self.draining)
        if self.scheme == "mem":
            connection._local = connection._remote = self.spec.address
        session.connection, session.wire = connection, None
        try:
            coro: Any = self._serve(connection)
        except Exception as error:  # it does not take one argument
            session.done(error)
            return
        session.task = self._hub.loop.create_task(driven(coro, session.done), context=self._context.copy())

    def left(self, session: Session) -> None:
        """The connection of `session` is over; its place is free."""
        self.stats.open -= 1
        self.stats.closed += 1
        if session.host:
            self.admission.release(session.host)
        if self._paused:
            self._resume_if_room()

    def ended(self, session: Session) -> None:
        """Connection and handler of `session` are both over."""
        self.sessions.discard(session)
        self.changed()


class SpareDescriptor:
    """One descriptor kept for the day when there are none: closed for a moment, it lets a connection be taken and
    turned away instead of waiting for ever (as libev's manual advises)."""

    def __init__(self) -> None:
        self._fd = -1
        self.refill()

    def refill(self) -> None:
        """Have one again, if possible."""
        if self._fd < 0:
            with contextlib.suppress(OSError):
                self._fd = os.open(os.devnull, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def shed(self, listening: socket.socket, refuse: Callable[[int], None]) -> Literal["shed", "nobody", "failed"]:
        """Take one connection and turn it away; say whether that worked, or that nobody waits."""
        if self._fd < 0:
            return "failed"
        os.close(self._fd)
        self._fd = -1
        try:
            connected, _ = listening.accept()
        except BlockingIOError:
            return "nobody"
        except OSError:
            return "failed"
        else:
            connected.setblocking(False)
            refuse(connected.detach())
            return "shed"
        finally:
            self.refill()

    def close(self) -> None:
        """Give it back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
