"""One address that a service listens on: accepting, admitting, securing, and starting handlers."""

import asyncio
import contextlib
import errno
import functools
import logging
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from portico._core import Hub, Records, Settings, TLSWire, Wire
from portico.address import AF_UNIX, SCHEMES, Address
from portico.errors import BindError, ClosedError, PorticoError
from portico.server.admission import packed_host
from portico.server.listener_base import ListenerBase
from portico.server.session import Session
from portico.server.spec import ListenerSpec
from portico.transports.connection import Channel, Signal, State, Stream
from portico.transports.listen import ListeningSocket, listen
from portico.transports.memory import listen_memory
from portico.transports.packets import record_wire
from portico.transports.resolve import resolve
from portico.transports.wires import adopt

if TYPE_CHECKING:
    from portico.interfaces import Resolver

logger = logging.getLogger("portico.server")

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

BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
"""What clients of the web are told at a limit, unless it is said (RFC 9110, section 15.6.4)."""

PAUSE = 1.0
"""Seconds without accepting when not even the spare descriptor helped."""

REPORT_INTERVAL = 60.0
"""Seconds between two reports that connections are turned away for want of descriptors."""


MAX_REFUSED = 128
"""Clients of the web that are told at a time, with patience, why they are turned away; each costs a descriptor and some
4 KiB. More are told in passing."""

REQUEST_TIME = 2.0
"""Seconds that such a client gets to send its request: some do not take an answer that comes before."""


class Listener(ListenerBase):
    """A `ListenerSpec` at work, for what is accepted: streams, and records of Unix sockets."""

    def __init__(
        self, spec: ListenerSpec, draining: Signal, spare: "SpareDescriptor", changed: Callable[[], None]
    ) -> None:
        super().__init__(spec, draining, changed)
        self.spare = spare
        self.sockets: list[ListeningSocket] = []
        self._memory: Any = None
        self._waiting_in_memory: deque[Wire] = deque()
        self._paused = True  # until `accept`
        self._closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._reported = -REPORT_INTERVAL
        self._keeps_records = SCHEMES[self.scheme].kind == "seqpacket"
        self._max_fds = spec.limits.max_fds if spec.address.family == AF_UNIX else 0
        self._proxied = spec.proxied_by is not None
        self.refusals = Refusals(spec, self._hub, self.scheme)
        self._admit: Callable[[bytes, int], bool | None]
        self._admit, self._welcome = self.admission.admit, self._secure
        if spec.proxied_by is not None:
            from portico.server.proxied import Proxied

            proxied = Proxied(self, spec.proxied_by)
            self._admit, self._welcome = proxied.trusts, proxied.begin

    @property
    def addresses(self) -> list[Address]:
        """All the addresses that it listens on."""
        if self._memory is not None:
            return [self.spec.name]
        return [self._named(each.address) for each in self.sockets]

    def _named(self, bound: Address) -> Address:
        """Return `bound` as what is served there is called."""
        url = self.spec.url
        if url is None:
            return bound.replace(scheme=self.scheme)
        if url.port is None:
            return url
        return url.replace(host=bound.host, port=bound.port, flow=bound.flow, scope=bound.scope)

    # listening

    async def start(self, resolver: "Resolver | None") -> None:
        """Listen, but do not accept before `accept`.

        :raises BindError: the address cannot be had
        :raises ResolveError: its name is unknown"""
        spec = self.spec
        if spec.address.scheme == "mem":
            self._memory = listen_memory(spec.address.path, self._accepted_memory)
            return
        if spec.socket is not None:
            self.sockets = [ListeningSocket(spec.socket, spec.address)]
            return
        numeric = [spec.address]
        if not spec.address.is_wildcard:
            numeric = await resolve(spec.address, resolver=resolver)
        try:
            self.sockets = listen(
                spec.address, numeric, backlog=spec.backlog, options=spec.options, mode=spec.mode, owner=spec.owner
            )
        except BindError as error:
            if isinstance(error.address, Address):
                error.address = self._named(error.address)
            raise

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
        self.refusals.close()
        self.stop_threads()

    def _accepted(self, fd: int, peer: bytes) -> None:
        limits, stats = self.spec.limits, self.stats
        stats.accepted += 1
        host = packed_host(peer)
        if limits.max_connections is not None and stats.open >= limits.max_connections:
            stats.rejected_full += 1
            self.refusals.refuse(fd, peer)
            return
        admitted = self._admit(host, fd)
        if not admitted:
            self.refusals.refuse(fd, peer, denied=admitted is None)
            return
        session = self._enter(b"" if self._proxied else host)
        if self._keeps_records:
            wire = record_wire(self._hub, socket.socket(fileno=fd), self.scheme, self._max_fds)
            self._welcome(wire, session)
            return
        adopt(
            self._hub,
            fd,
            peer,
            self._max_fds,
            lambda wire: self._welcome(wire, session),
            lambda: self._forget(session),
        )

    def _enter(self, host: bytes) -> Session:
        session = self.enter(host)
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
            if full or not self._admit(b"", -1):
                stats.rejected_full += full
                refused = Stream(wire, self.settings, scheme="mem")
                if limits.refusal and self.spec.tls is None:
                    refused.send(limits.refusal)
                refused.close()
            else:
                self._welcome(wire, self._enter(b""))

    def _failed(self, listening: ListeningSocket, code: int) -> None:
        """accept(2) failed: shed what waits rather than spin, or wait until there is something to be had."""
        if code in GONE_MEANWHILE:
            return
        outcome = self.spare.shed(listening.socket, self.refusals.pass_by) if code in OUT_OF_RESOURCES else "failed"
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
            self.drop(wire, session)
            return
        if tls is None:
            self._begin(wire, session)
            return
        try:
            context = tls.server_context()
        except PorticoError as error:
            logger.error("%s: %s", self.address, error)
            self.drop(wire, session)
            return
        self.handshake_begun()
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

    def handshake_begun(self) -> None:
        """Count a handshake; at `max_handshakes`, accepting pauses."""
        self.stats.handshakes += 1
        if not self._paused and self._is_full():
            self._pause()

    def handshake_over(self) -> None:
        """Count the end of a handshake, however it went; accepting may go on."""
        self.stats.handshakes -= 1
        self._resume_if_room()

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

    def drop(self, wire: Wire, session: Session) -> None:
        """Close a connection at once that never got as far as a handler."""
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
        if codec is None and not self._keeps_records:
            connection = Stream(wire, self.settings, session, scheme=self.scheme, draining=self.draining)
        else:
            connection = Channel(
                wire, codec or Records(), self.settings, session, scheme=self.scheme, draining=self.draining
            )
        if self.scheme == "mem":
            connection._local = connection._remote = self.spec.address
        session.wire = None
        self.serve(connection, session)

    def place_freed(self) -> None:
        """One more may come in."""
        if self._paused:
            self._resume_if_room()


class Refusals:
    """How the connections of a listener are turned away."""

    def __init__(self, spec: ListenerSpec, hub: Hub, scheme: str) -> None:
        self.spec, self._hub, self._scheme = spec, hub, scheme
        self._settings = Settings(close_timeout=spec.limits.close_timeout)  # of its own: nobody is served, or counted
        self._open: dict[Stream, asyncio.Task[None]] = {}
        self._closed = False

    def text(self, *, denied: bool = False) -> bytes:
        """Return what a client is told, with `denied` one that no limit keeps out, but `allow` or `deny`."""
        spec = self.spec
        if spec.tls is not None:  # nobody reads plain text who expects TLS
            return b""
        return spec.limits.refusal or (BUSY if spec.url is not None and not denied else b"")

    def refuse(self, fd: int, peer: bytes, *, denied: bool = False) -> None:
        """Turn away the connection `fd`. A client of the web is answered when it has asked, or after `REQUEST_TIME`,
        and then listened to until it ends or for 2 s: what came unread would make the end a reset, which may overtake
        the refusal."""
        text = self.text(denied=denied)
        if not text or self.spec.url is None or len(self._open) >= MAX_REFUSED:
            self._tell(fd, text)
        else:
            adopt(self._hub, fd, peer, 0, functools.partial(self._tell_patiently, text), lambda: None)

    def pass_by(self, fd: int) -> None:
        """Turn away the connection `fd` and be done with it."""
        self._tell(fd, self.text())

    def _tell(self, fd: int, text: bytes) -> None:
        with socket.socket(fileno=fd) as sock, contextlib.suppress(OSError):
            if text:
                sock.send(text)
                sock.shutdown(socket.SHUT_WR)
                sock.recv(65536)  # what is left unread would make it a reset, which may overtake the refusal

    def _tell_patiently(self, text: bytes, wire: Wire) -> None:
        stream = Stream(wire, self._settings, self._forget, scheme=self._scheme)
        if self._closed:
            stream.abort()
        elif stream.state is not State.CLOSED:
            self._open[stream] = self._hub.loop.create_task(self._answer(stream, text))

    async def _answer(self, stream: Stream, text: bytes) -> None:
        with contextlib.suppress(ClosedError):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REQUEST_TIME):
                    await stream.recv()
            stream.send(text)
        stream.close()

    def _forget(self, stream: Stream) -> None:
        self._open.pop(stream, None)

    def close(self) -> None:
        """Be done with all of them."""
        self._closed = True
        for each in list(self._open):
            each.abort()


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
