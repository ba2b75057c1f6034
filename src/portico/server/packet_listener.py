"""One address that packets come to: a Channel for each peer, or one handler for all packets."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from portico._core import Packet, PeerSet, PeerWire, Records, Settings, driven
from portico.address import SCHEMES, Address
from portico.server.admission import packed_host
from portico.server.listener_base import ListenerBase
from portico.server.session import Session
from portico.server.spec import ListenerSpec
from portico.server.stats import Stats
from portico.server.threads import ThreadedHandler
from portico.transports.connection import Channel, Signal
from portico.transports.datagrams import READ_BUFFER, Datagrams, bound_socket, opened
from portico.transports.listen import SocketFile, on_every_address
from portico.transports.packets import SocketNames, let_tell, peers
from portico.transports.resolve import resolve

if TYPE_CHECKING:
    import socket

    from portico.interfaces import Resolver

UNLIMITED = 2**31 - 1


class BoundPackets:
    """A packet socket, what it is called, and the file of a Unix one."""

    def __init__(self, scheme: str, sock: "socket.socket", file: SocketFile | None) -> None:
        self.sock, self.file, self.names = sock, file, SocketNames(scheme, sock)

    @property
    def address(self) -> Address:
        """Where it is bound, port 0 replaced by the port it became."""
        return self.names.bound()

    def close(self) -> None:
        """Give the address up, before anybody has used it."""
        self.sock.close()
        if self.file is not None:
            self.file.remove()


class PacketListener(ListenerBase):
    """A `ListenerSpec` at work, for sockets that nobody connects to."""

    def __init__(self, spec: ListenerSpec, draining: Signal, changed: Callable[[], None]) -> None:
        super().__init__(spec, draining, changed)
        self._bound: list[BoundPackets] = []
        self._peers: list[PeerSet] = []
        self._datagrams: list[Datagrams] = []
        self._closed = False
        self._refused = 0

    @property
    def stats(self) -> Stats:
        """The counters of this listener."""
        stats = self._stats
        stats.rejected_full = self._refused + sum(each.refused for each in self._peers)
        stats.packets_dropped = sum(each.dropped + each.port.dropped_by_kernel for each in self._peers)
        for each in self._datagrams:
            counted = each.stats
            stats.packets_dropped += counted.dropped + counted.dropped_by_kernel
        return stats

    @property
    def addresses(self) -> list[Address]:
        """All the addresses that it listens on."""
        return [each.address for each in self._bound]

    async def start(self, resolver: "Resolver | None") -> None:
        """Bind, but take no packets before `accept`.

        :raises BindError: the address cannot be had
        :raises ResolveError: its name is unknown
        :raises PrivilegeError: only privileged programs may have such a socket"""
        spec = self.spec
        numeric = [spec.address]
        if spec.socket is not None:
            spec.socket.setblocking(False)
            self._take(BoundPackets(self.scheme, spec.socket, None))
            return
        if SCHEMES[spec.address.scheme].is_internet and not spec.address.is_wildcard:
            numeric = list(await resolve(spec.address, resolver=resolver))

        def bind(each: Address) -> BoundPackets:
            return BoundPackets(self.scheme, *bound_socket(spec.address, each, spec.options, spec.mode, spec.owner))

        for bound in on_every_address(spec.address, numeric, bind):
            self._take(bound)

    def _take(self, bound: "BoundPackets") -> None:
        self._bound.append(bound)
        if SCHEMES[self.scheme].is_internet:
            let_tell(bound.sock, timestamps=self.spec.wants_packets, ttl=self.spec.wants_packets)

    def accept(self) -> None:
        """Begin to take packets."""
        for bound in self._bound:
            if self.spec.wants_packets:
                self._serve_packets(bound.sock)
            else:
                most = self.spec.limits.max_connections or UNLIMITED
                self._peers.append(peers(self._hub, bound.sock, bound.names, self._newcomer, most))

    def close(self) -> None:
        """Let no new peer in; those that are in stay. With `packets=`, what has been received is still handled."""
        if self._closed:
            return
        self._closed = True
        for each in self._peers:
            each.accepting = False
        for sock in self._datagrams:
            sock.end_receiving()
        if not self._peers and not self._datagrams:
            for bound in self._bound:
                bound.sock.close()
        self.stop_threads()
        self._close_sockets()

    def drain(self) -> None:
        """Let no peer send more: nobody tells when one has ended, so its handler would wait for ever."""
        for session in self.sessions:
            if isinstance(session.connection, Channel):
                session.connection.end_receiving()

    def _close_sockets(self) -> None:
        """Close the sockets as soon as nobody needs them."""
        if self._closed and not self.sessions:
            for each in self._peers:
                each.close()
            for bound in self._bound:
                if bound.file is not None:
                    bound.file.remove()

    # a channel for each peer

    def _newcomer(self, wire: PeerWire) -> bool:
        """Let the first packet of a new peer in, or not."""
        most = self.spec.limits.max_connections
        if most is not None and self._stats.open >= most:  # over all sockets, where a peer set knows its own
            self._refused += 1
            return False
        self._stats.accepted += 1
        host = packed_host(wire.peer)
        if not self.admission.admit(host, -1):
            return False
        session = self.enter(host)
        codec = self.spec.codec or Records()
        channel: Channel[Any] = Channel(wire, codec, self.settings, session, scheme=self.scheme, draining=self.draining)
        self.serve(channel, session)
        return True

    def ended(self, session: Session) -> None:
        """Connection and handler of `session` are both over."""
        super().ended(session)
        self._close_sockets()

    # one handler for all packets

    def _serve_packets(self, sock: "socket.socket") -> None:
        limits = self.spec.limits
        settings = Settings(
            read_limit=READ_BUFFER,
            high_water=limits.send_buffer,
            max_unsent=limits.max_unsent,
            close_timeout=limits.close_timeout,
        )
        session = self.enter(b"")
        datagrams = opened(sock, self.scheme, settings, owner=session, draining=self.draining, max_fds=limits.max_fds)
        self._datagrams.append(datagrams)
        self._stats.add_source(datagrams.settings)
        session.connection = datagrams
        coro = self._handle(datagrams, session)
        session.task = self._hub.loop.create_task(driven(coro, session.done), context=self._context.copy())

    async def _handle(self, datagrams: Datagrams, session: Session) -> None:
        """Hand each packet to the handler; an error of one is logged, and the next one comes."""
        handler: Any = self.spec.handler
        if isinstance(self._serve, ThreadedHandler):
            handler = functools.partial(_in_thread, self._serve)
        checks = self.spec.allow is not None or bool(self.spec.deny)
        while True:
            try:
                async for packet in datagrams:
                    if not checks or self._permits(packet):
                        await handler(packet, datagrams)
                return
            except Exception as error:
                if not session.count(error):
                    raise

    def _permits(self, packet: Packet) -> bool:
        if self.admission.permits(packed_host(packet.origin.packed), -1):
            return True
        self._stats.rejected_denied += 1
        return False


async def _in_thread(handler: ThreadedHandler, packet: Packet, datagrams: Datagrams) -> None:
    await handler(datagrams, packet)
