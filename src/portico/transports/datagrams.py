"""`Datagrams`: a socket that sends packets to anyone and receives from anyone."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from portico._core import DatagramsBase, Packet, PortWire, Settings, hub_of
from portico.address import SCHEMES, Address
from portico.errors import ClosedError, ConfigurationError, DeliveryError, PorticoError, UnsupportedError, describe
from portico.transports.ancillary import TOS, TTL, Ancillary, PacketInfo, Timestamp, packed, unpacked
from portico.transports.connection import NEVER, ConnectionFace, Signal
from portico.transports.listen import SocketFile, bind_error, bind_unix, remove_stale
from portico.transports.multicast import change_membership
from portico.transports.packets import SocketNames, largest, let_tell, open_socket, port_of
from portico.transports.resolve import resolve

if TYPE_CHECKING:
    from portico.interfaces import Resolver

__all__ = ["Datagrams", "DatagramsStats", "Opening", "Packet", "datagrams", "opened"]

WhenFull = Literal["pause", "drop-new", "drop-old"]

MAX_PACKETS = 4096
"""Packets that wait to be received."""

READ_BUFFER = 4 << 20
"""Bytes that they may take, some 64 a packet beside its payload."""


HIGH_WATER = 1 << 20
"""Bytes waiting to leave at which awaiting `send` waits."""


@dataclass(frozen=True, slots=True)
class DatagramsStats:
    """What a socket of packets has seen since it was opened."""

    packets_received: int
    packets_sent: int
    bytes_received: int
    """Payload only, as `bytes_sent`."""
    bytes_sent: int
    dropped: int
    """Packets that were received and found the queue full (`when_full`)."""
    dropped_by_kernel: int
    """Packets that found the kernel's receive buffer full (SO_RXQ_OVFL, SO_MEMINFO); 0 where that is not told. Packets
    that the kernel had joined (GRO) count as one."""
    failed: int
    """Packets that the kernel refused to send or the network reported as not delivered (ICMP)."""


class Datagrams(DatagramsBase, ConnectionFace):
    """A socket that sends packets to anyone and receives from anyone: UDP, Unix datagram, raw IP, link layer.

    Iteration gives each `Packet`; `batches()` lists of all that are there, which is cheapest at high rates. Made by
    `portico.datagrams`."""

    __slots__ = ("__dict__", "__weakref__", "_file", "_owner")

    def __init__(
        self,
        wire: PortWire,
        settings: Settings,
        *,
        scheme: str,
        max_packets: int = MAX_PACKETS,
        when_full: WhenFull = "pause",
        owner: Callable[[Any], object] | None = None,
        draining: Signal = NEVER,
        file: SocketFile | None = None,
    ) -> None:
        self.scheme, self.draining, self._file = scheme, draining, file
        self._local: Address | None = None
        self._remote: Address | None = None
        self._owner = owner
        names: Any = wire.port.names
        super().__init__(wire, settings, names.target, max_packets=max_packets, when_full=when_full, owner=self._over)

    def _over(self, connection: object) -> None:
        if self._file is not None:
            self._file.remove()
        owner, self._owner = self._owner, None
        if owner is not None:
            owner(self)

    def __repr__(self) -> str:
        try:
            local = str(self.local_address)
        except ClosedError:
            local = "?"
        return f"<Datagrams {self.state.value} at {local}>"

    @property
    def stats(self) -> DatagramsStats:
        """The counters of this socket, as they are now."""
        counted = self.settings
        return DatagramsStats(
            packets_received=counted.messages_received,
            packets_sent=counted.messages_sent,
            bytes_received=counted.bytes_received,
            bytes_sent=counted.bytes_sent,
            dropped=self.dropped,
            dropped_by_kernel=self.port.dropped_by_kernel,
            failed=self.failed,
        )

    @property
    def remote_address(self) -> Address:
        """The address that the socket is connected to.

        :raises UnsupportedError: it is connected to nobody: each packet has the address of its sender"""
        try:
            self.socket.getpeername()
        except OSError as error:
            if isinstance(error, PorticoError):
                raise
            raise UnsupportedError("packets come from anybody: `Packet.address` tells from whom") from None
        return super().remote_address

    async def recv_with_ancillary(self) -> tuple[Packet, list[Ancillary]]:
        """Return the next packet, and all that the kernel told with it, as records: what `Packet` has a field for, too.

        :raises ClosedError: the socket is closed"""
        packet: Packet = await self.recv()
        records = unpacked(packet.control)
        kinds = {type(record) for record in records}
        return packet, records + [record for record in _told(packet) if type(record) not in kinds]

    async def send_with_ancillary(
        self, data: bytes, ancillary: Sequence[Ancillary], to: "Address | str | Packet | None" = None
    ) -> None:
        """Send a packet with ancillary data, behind all that was sent before.

        :raises DeliveryError: the kernel refused it
        :raises ConfigurationError: a record that cannot be sent
        :raises ClosedError: the socket is closed"""
        control = packed(ancillary)

        def send() -> int:
            try:
                return len(data) if self.send_control(bytes(data), control, to) else -1
            except OSError as error:
                if isinstance(error, PorticoError):
                    raise
                raise DeliveryError(error.errno or 0, describe(error), to, size=len(data)) from error

        await self._in_turn(send)

    def failures(self) -> list[DeliveryError]:
        """Return the failures that the network has reported and that no `send` has raised, and forget them."""
        return self.take_failures()

    def join(self, group: str, *, interface: str | int | None = None, source: str | None = None) -> None:
        """Join a multicast group, on one interface and for one source (RFC 4607) where they are given.

        TTL, loop and interface of what is sent are options: `multicast_ttl`, `multicast_loop`, `multicast_interface`
        and their IPv6 twins.

        :raises ConfigurationError: no multicast address, no such interface, joined already
        :raises UnsupportedError: a `source`, where the platform cannot"""
        change_membership(self.socket, group, interface, source, join=True)

    def leave(self, group: str, *, interface: str | int | None = None, source: str | None = None) -> None:
        """Leave a multicast group again, as it was joined.

        :raises ConfigurationError: it was not joined so"""
        change_membership(self.socket, group, interface, source, join=False)


def _told(packet: Packet) -> Iterator[Ancillary]:
    """The records of what `packet` has fields for."""
    is_ipv6 = packet.local_address.family == socket.AF_INET6
    if packet.timestamp_ns:
        yield Timestamp(packet.timestamp_ns)
    if packet.origin.interface:
        yield PacketInfo(packet.local_address.host, packet.origin.interface, is_ipv6)
    if packet.ttl is not None:
        yield TTL(packet.ttl, is_ipv6)
    if packet.tos is not None:
        yield TOS(packet.tos, is_ipv6)


class Opening:
    """What `datagrams` returns: await it for Datagrams, or use it with `async with`."""

    def __init__(self, make: Callable[[], Awaitable[Datagrams]]) -> None:
        self._make = make
        self._made: list[Datagrams] = []

    def __await__(self) -> Generator[Any, Any, Datagrams]:
        return self._make().__await__()

    async def __aenter__(self) -> Datagrams:
        made = await self._make()
        self._made.append(made)
        return made

    async def __aexit__(self, kind: object, error: object, traceback: object) -> None:
        await self._made.pop().__aexit__(kind, error, traceback)


def datagrams(
    address: Address | str,
    *,
    options: Mapping[str, object] | None = None,
    max_packets: int = MAX_PACKETS,
    read_buffer: int = READ_BUFFER,
    when_full: WhenFull = "pause",
    packet_info: bool = True,
    ttl: bool = True,
    timestamps: bool = True,
    gro: bool = True,
    gso: bool = True,
    high_water: int = HIGH_WATER,
    max_unsent: int = 16 << 20,
    max_fds: int = 16,
    idle_timeout: float | None = None,
    close_timeout: float = 10.0,
    mode: int | None = None,
    resolver: "Resolver | None" = None,
) -> Opening:
    """Open a socket for packets at `address`: await it for `Datagrams`, or use it with `async with`.

    :param address: where it is bound: `udp://HOST:PORT` (port 0: any free one; `*`: every interface, IPv6 and IPv4),
        `unixgram:PATH`, `raw://HOST:PROTOCOL` (raw IP, needs CAP_NET_RAW), `packet://INTERFACE[:ETHERTYPE]` (whole
        frames, likewise).
    :param options: socket options by name, set before binding.
    :param max_packets: packets that may wait to be received (4096), and
    :param read_buffer: bytes that they may take (4 MiB), before `when_full` says what to do:
    :param when_full: `pause` leaves further ones to the kernel's buffer, which drops and counts those that find it
        full; `drop-new` and `drop-old` drop the newest or the oldest here, and count it in `stats.dropped`.
    :param packet_info: have the kernel tell where each packet came to, and through which interface (IP_PKTINFO).
    :param ttl: have it tell the TTL or hop limit.
    :param timestamps: have it tell the time of receipt (SO_TIMESTAMPNS).
    :param gro: let it hand over many UDP packets of one sender as one (UDP_GRO), which costs a fraction.
    :param gso: hand it packets of one size for one address as one, which it cuts (UDP_SEGMENT).
    :param high_water: bytes waiting to leave at which awaiting `send` waits (1 MiB).
    :param max_unsent: bytes waiting to leave at which `send` raises LimitError (16 MiB).
    :param max_fds: descriptors that Unix peers may pass before they are taken; more are closed on arrival.
    :param idle_timeout: seconds without a packet either way after which it is closed; None: never.
    :param mode: permissions of a Unix socket's file, such as `0o660`.
    :raises AddressError: (at once) the address does not parse
    :raises ConfigurationError: (at once) the address is of no packet socket, or a setting cannot work
    :raises BindError: the address cannot be had
    :raises PrivilegeError: raw and link-layer sockets are for privileged programs
    :raises ResolveError: the name is unknown"""
    where = Address.parse(address)
    if SCHEMES[where.scheme].kind != "datagram":
        raise ConfigurationError(
            f"{where} is no address of packets: udp, unixgram, raw, packet (connect and serve take the others)"
        )
    if when_full not in ("pause", "drop-new", "drop-old"):
        raise ConfigurationError(f"when_full must be 'pause', 'drop-new' or 'drop-old', not {when_full!r}")
    if max_packets < 1 or read_buffer < 1:
        raise ConfigurationError("max_packets and read_buffer must be at least 1")
    sizes = dict(read_limit=read_buffer, high_water=high_water, max_unsent=max_unsent)
    limits: dict[str, Any] = sizes | dict(idle_timeout=idle_timeout, close_timeout=close_timeout)

    async def make() -> Datagrams:
        numeric = where
        if SCHEMES[where.scheme].is_internet and not where.is_wildcard:
            numeric = (await resolve(where, resolver=resolver))[0]
        sock, file = bound_socket(where, numeric, options, mode)
        try:
            if SCHEMES[where.scheme].is_internet:
                let_tell(sock, packet_info=packet_info, ttl=ttl, timestamps=timestamps, gro=gro)
            made = opened(sock, where.scheme, Settings(**limits), max_packets, when_full, max_fds=max_fds, file=file)
        except BaseException:
            sock.close()
            if file is not None:
                file.remove()
            raise
        made.port.coalesces &= gso
        return made

    return Opening(make)


def opened(
    sock: socket.socket,
    scheme: str,
    settings: Settings,
    max_packets: int = MAX_PACKETS,
    when_full: WhenFull = "pause",
    *,
    max_fds: int = 16,
    file: SocketFile | None = None,
    owner: Callable[[Any], object] | None = None,
    draining: Signal = NEVER,
) -> Datagrams:
    """Return Datagrams upon a socket that is bound already."""
    names = SocketNames(scheme, sock)
    port = port_of(hub_of(asyncio.get_running_loop()), sock, names, is_connected=False, max_fds=max_fds)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        port.answers_from_source = names.bound().is_wildcard
    port.coalesces = scheme == "udp"
    wire = PortWire(port, largest(sock))
    return Datagrams(
        wire,
        settings,
        scheme=scheme,
        max_packets=max_packets,
        when_full=when_full,
        file=file,
        owner=owner,
        draining=draining,
    )


def bound_socket(
    address: Address,
    numeric: Address,
    options: Mapping[str, object] | None,
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
) -> tuple[socket.socket, SocketFile | None]:
    """Return a packet socket bound to `numeric`, which is what `address` resolved to, and the file of a Unix one.

    :raises BindError: the address cannot be had"""
    dual = numeric.is_wildcard and numeric.family == socket.AF_INET6 and address.host == "" and address.scheme == "udp"
    sock = open_socket(numeric, options, dual_stack=dual)
    file = None
    try:
        if address.scheme == "unixgram":
            remove_stale(address, socket.SOCK_DGRAM)
            bind_unix(sock, address, mode)
            file = SocketFile(address)
            if owner is not None and not address.path.startswith("@"):
                os.chown(address.path, *owner)
        elif address.scheme != "packet" or address.host:
            sock.bind(numeric.sockaddr)
    except BaseException as error:
        sock.close()
        if file is not None:
            file.remove()
        if isinstance(error, OSError) and not isinstance(error, PorticoError):
            raise bind_error(error, numeric) from error
        raise
    return sock, file
