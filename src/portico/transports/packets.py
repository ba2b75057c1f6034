"""From an address to a packet port: sockets that keep packets apart, set up to tell all that the kernel knows."""

import contextlib
import errno
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Final

from portico import _core
from portico._core import Hub, LoopPort, PacketPort
from portico.address import AF_UNIX, SCHEMES, Address
from portico.errors import AddressError, PrivilegeError, UnsupportedError
from portico.transports.sockaddr import from_kernel, packed_sockaddr
from portico.transports.wires import set_options, unsupported_family

MAX_UDP: Final = {socket.AF_INET: 65_507, socket.AF_INET6: 65_527}
"""Payload of the largest UDP packet: 65,535 less the headers of UDP (8) and IPv4 (20); IPv6 does not count its own."""

# What every packet is asked to tell, where it is known: the constants for IPv4 sockets, and those for IPv6 ones, which
# carry IPv4, too.
_TELLING: Final = {
    "packet_info": (("IP_PKTINFO",), ("IPV6_RECVPKTINFO",)),
    "ttl": (("IP_RECVTTL",), ("IPV6_RECVHOPLIMIT", "IP_RECVTTL")),
    "errors": (("IP_RECVERR",), ("IPV6_RECVERR", "IP_RECVERR")),
    "gro": (("UDP_GRO",), ("UDP_GRO",)),
    "only_own_groups": (("IP_MULTICAST_ALL",), ("IPV6_MULTICAST_ALL",)),
}


class SocketNames:
    """Makes addresses of what the kernel says about the packets of one socket."""

    def __init__(self, scheme: str, sock: socket.socket) -> None:
        self.scheme, self._socket = scheme, sock
        self._bound: Address | None = None
        self._interfaces: dict[int, str] = {}

    def remote(self, packed: bytes) -> Address:
        """Return the address in a struct sockaddr; an unnamed Unix socket's has no path."""
        return from_kernel(self.scheme, packed)

    def bound(self) -> Address:
        """Return the socket's own address."""
        if self._bound is None or self._bound.port == 0:
            self._bound = Address.from_sockaddr(self.scheme, self._socket.family, self._socket.getsockname())
        return self._bound

    def local(self, packed: bytes, interface: int) -> Address:
        """Return the address that a packet was sent to, 4 or 16 bytes of it; b"": the socket's own."""
        bound = self.bound()
        if not packed:
            return bound
        address = Address.from_packed(self.scheme, packed, bound.port or 0)
        if len(packed) == 16 and packed[0] == 0xFE and packed[1] & 0xC0 == 0x80:  # link-local (RFC 4291 section 2.5.6)
            return address.replace(scope=self.interface(interface) or "")
        return address

    def interface(self, index: int) -> str | None:
        """Return the name of an interface, or its number where it is gone."""
        if not index:
            return None
        name = self._interfaces.get(index)
        if name is None:
            try:
                name = socket.if_indextoname(index)
            except OSError:
                return str(index)
            self._interfaces[index] = name
        return name

    def target(self, to: object) -> _core.Endpoint:
        """Return whom `to` means, an Address or its text.

        :raises AddressError: a name, which has to be resolved first, or another kind of address"""
        address = Address.parse(to, self.scheme) if isinstance(to, Address | str) else None
        if address is None:
            raise AddressError(f"a packet goes to an Address, its text or a Packet, not {type(to).__name__}")
        if address.scheme != self.scheme:
            raise AddressError(f"a {self.scheme} socket cannot send to {address}")
        if not address.is_numeric:
            raise AddressError(f"{address} is a name: resolve it first, await portico.resolve(...)", str(address))
        if self._socket.family == socket.AF_INET6 and address.family == socket.AF_INET:
            address = address.replace(host=f"::ffff:{address.host}")
        return _core.Endpoint(packed_sockaddr(self._socket.family, address.sockaddr), self)


def open_socket(address: Address, options: Mapping[str, object] | None, *, dual_stack: bool = False) -> socket.socket:
    """Return a socket of the kind that `address` is of, not blocking, with `options` set.

    :raises PrivilegeError: only privileged programs may have one
    :raises UnsupportedError: this platform has no such sockets"""
    family, kind, protocol = _kind_of(address)
    try:
        sock = socket.socket(family, kind, protocol)
    except PermissionError as error:
        what = "link-layer" if address.scheme == "packet" else "raw"
        raise PrivilegeError(
            f"{what} sockets are not for everybody", address, privilege="CAP_NET_RAW, or root"
        ) from error
    except OSError as error:
        if error.errno in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            raise UnsupportedError(f"this machine has no sockets for {address}: {error.strerror}") from error
        raise
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6 and kind == socket.SOCK_DGRAM:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual_stack)
        set_options(sock, options)
    except BaseException:
        sock.close()
        raise
    return sock


def _kind_of(address: Address) -> tuple[int, int, int]:
    """Return family, type and protocol of the socket for `address`."""
    scheme = address.scheme
    if SCHEMES[scheme].parts == "path":
        if AF_UNIX == socket.AF_UNSPEC:
            raise unsupported_family("Unix")
        return AF_UNIX, socket.SOCK_SEQPACKET if scheme == "unixpacket" else socket.SOCK_DGRAM, 0
    family = address.family or socket.AF_INET
    if scheme == "raw":
        return family, socket.SOCK_RAW, address.port or 0
    if scheme == "packet":
        if not hasattr(socket, "AF_PACKET"):
            raise unsupported_family("link-layer")
        return family, socket.SOCK_RAW, socket.htons(address.port or 0)
    return family, socket.SOCK_DGRAM, 0


def let_tell(
    sock: socket.socket, *, packet_info: bool = True, ttl: bool = True, timestamps: bool = True, gro: bool = True
) -> None:
    """Have the kernel tell of each packet what it can (Linux), and of those that were not delivered."""
    if sys.platform != "linux":
        return
    wanted = dict(packet_info=packet_info, ttl=ttl, gro=gro and sock.type == socket.SOCK_DGRAM, errors=True)
    for name, on in wanted.items():
        if on:
            _tell(sock, name, True)
    _tell(sock, "only_own_groups", False)
    if timestamps:
        _set(sock, "SO_TIMESTAMPNS", True)
    _set(sock, "SO_RXQ_OVFL", True)


def _tell(sock: socket.socket, name: str, value: bool) -> None:
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        for constant in _TELLING[name][sock.family == socket.AF_INET6]:
            _set(sock, constant, value)


def _set(sock: socket.socket, constant: str, value: bool) -> None:
    from portico.option_numbers import place_of  # not before there is such a socket

    level, number, _ = place_of(constant)
    if number is not None:
        with contextlib.suppress(OSError):  # an older kernel does without
            sock.setsockopt(level, number, value)


def port_of(hub: Hub, sock: socket.socket, names: SocketNames, *, is_connected: bool, max_fds: int = 0) -> PacketPort:
    """Return a port upon `sock`, which it owns: read natively where the hub does so, else by what the loop offers."""
    if hub.native_sockets:
        reports = sock.family in (socket.AF_INET, socket.AF_INET6)
        return _core.NativePort(hub, sock, names, is_connected=is_connected, reports=reports, max_passed=max_fds)
    for name in ("gro", "errors"):  # what comes of them only control messages and the error queue tell
        _tell(sock, name, False)
    return LoopPort(hub, sock, names, packed_sockaddr, is_connected=is_connected)


def largest(sock: socket.socket) -> int:
    """Return the bytes of the largest packet that can be sent; 0: the kernel will tell."""
    return MAX_UDP.get(sock.family, 0) if sock.type == socket.SOCK_DGRAM else 0


def record_wire(hub: Hub, sock: socket.socket, scheme: str, max_fds: int = 0) -> _core.PortWire:
    """Return the wire of a connected socket that keeps packets apart."""
    port = port_of(hub, sock, SocketNames(scheme, sock), is_connected=True, max_fds=max_fds)
    port.coalesces = scheme == "udp"
    return _core.PortWire(port, largest(sock))


def peers(
    hub: Hub, sock: socket.socket, names: SocketNames, newcomer: Callable[[_core.PeerWire], object], most: int
) -> _core.PeerSet:
    """Return the set of wires for those who send to the bound socket `sock`."""
    port = port_of(hub, sock, names, is_connected=False)
    port.answers_from_source = names.bound().is_wildcard
    port.coalesces = names.scheme == "udp"
    return _core.PeerSet(port, newcomer, most, largest(sock))


def disconnect(sock: socket.socket) -> None:
    """Take away the address that a datagram socket is connected to (connect(2): AF_UNSPEC), keeping its own.

    :raises UnsupportedError: this platform cannot, or this kind of socket"""
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise UnsupportedError("only IP datagram sockets on Linux can be disconnected from their peer")
    bound = sock.getsockname()
    import ctypes

    unspecified = struct.pack("=H14x", socket.AF_UNSPEC)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(sock.fileno(), unspecified, len(unspecified)):
        raise OSError(ctypes.get_errno(), "the socket could not be disconnected")
    if not sock.getsockname()[1]:  # a port that connect(2) had chosen went with it
        sock.bind(bound)
