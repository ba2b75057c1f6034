"""Joining and leaving multicast groups, per interface and per source (RFC 3678)."""

import ipaddress
import socket
import struct
import sys
from typing import Final

from portico.errors import ConfigurationError, UnsupportedError, describe
from portico.transports.sockaddr import packed_sockaddr

# linux/in.h; the calls of RFC 3678 section 5 are the same for IPv4 and IPv6.
_JOIN_GROUP: Final = 42
_LEAVE_GROUP: Final = 45
_JOIN_SOURCE_GROUP: Final = 46
_LEAVE_SOURCE_GROUP: Final = 47


def change_membership(
    sock: socket.socket, group: str, interface: str | int | None, source: str | None, *, join: bool
) -> None:
    """Join or leave `group` on `interface` (name or index; None: the one that the kernel routes it through), for
    packets of `source` alone where it is given (source-specific multicast, RFC 4607).

    :raises ConfigurationError: no multicast address, no such interface, joined already or not at all
    :raises UnsupportedError: this platform has no source-specific multicast"""
    address = _checked(sock, group, source)
    index = interface_index(interface)
    what = "join" if join else "leave"
    try:
        if sys.platform == "linux":
            level = socket.IPPROTO_IP if address.version == 4 else socket.IPPROTO_IPV6
            request = struct.pack("I4x", index) + _storage(address)
            if source is None:
                sock.setsockopt(level, _JOIN_GROUP if join else _LEAVE_GROUP, request)
            else:
                number = _JOIN_SOURCE_GROUP if join else _LEAVE_SOURCE_GROUP
                sock.setsockopt(level, number, request + _storage(ipaddress.ip_address(source)))
        elif source is not None:
            raise UnsupportedError("source-specific multicast needs Linux here")
        else:
            _change_elsewhere(sock, address, index, join)
    except OSError as error:
        if isinstance(error, UnsupportedError):
            raise
        of = f" of {source}" if source else ""
        on = f" on {interface}" if interface is not None else ""
        raise ConfigurationError(f"cannot {what} {group}{of}{on}: {describe(error)}") from error


def _checked(sock: socket.socket, group: str, source: str | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        address = ipaddress.ip_address(group)
        others = [] if source is None else [ipaddress.ip_address(source)]
    except ValueError as error:
        raise ConfigurationError(f"multicast: {error}") from None
    if not address.is_multicast:
        raise ConfigurationError(f"{group} is no multicast address (224.0.0.0/4, ff00::/8)")
    if any(other.version != address.version for other in others):
        raise ConfigurationError(f"the group {group} and the source {source} must be of one IP version")
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_DGRAM:
        raise ConfigurationError("only UDP sockets join multicast groups")
    if address.version == 6 and sock.family == socket.AF_INET:
        raise ConfigurationError(
            f"{group} is an IPv6 group, and this an IPv4 socket: bind it to an IPv6 address or to *"
        )
    return address


def interface_index(interface: str | int | None) -> int:
    """Return the index of an interface that is given by name or index; None: 0.

    :raises ConfigurationError: there is none"""
    if interface is None:
        return 0
    if isinstance(interface, int) or interface.isdigit():
        return int(interface)
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        names = ", ".join(name for _, name in socket.if_nameindex())
        raise ConfigurationError(f"this machine has no network interface {interface!r}; it has {names}") from None


def _storage(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    """Return a struct sockaddr_storage."""
    if address.version == 4:
        return packed_sockaddr(socket.AF_INET, (str(address), 0)).ljust(128, b"\0")
    return packed_sockaddr(socket.AF_INET6, (str(address), 0, 0, 0)).ljust(128, b"\0")


def _change_elsewhere(
    sock: socket.socket, address: ipaddress.IPv4Address | ipaddress.IPv6Address, index: int, join: bool
) -> None:
    if address.version == 6:
        number = socket.IPV6_JOIN_GROUP if join else socket.IPV6_LEAVE_GROUP
        sock.setsockopt(socket.IPPROTO_IPV6, number, address.packed + struct.pack("@I", index))
    else:
        number = socket.IP_ADD_MEMBERSHIP if join else socket.IP_DROP_MEMBERSHIP
        sock.setsockopt(socket.IPPROTO_IP, number, address.packed + struct.pack("=I", socket.htonl(index)))
