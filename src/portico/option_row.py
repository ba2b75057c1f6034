"""What a row of the table of socket options says, and which sockets it is for."""

import socket
import sys
from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple

from portico.option_numbers import place_of

__all__ = ["INT", "UNSIGNED", "Kind", "Option", "Scope", "Sysctl", "describe_scope", "row"]

Kind = Literal[
    "bool",
    "int",
    "seconds",
    "milliseconds",
    "microseconds",
    "duration",
    "linger",
    "str",
    "enum",
    "flags",
    "interface",
    "address",
    "ports",
    "numbers",
    "bytes",
]
Scope = Literal[
    "any",
    "inet",
    "ipv4",
    "ipv6",
    "tcp",
    "datagram",
    "udp",
    "packets_v4",
    "packets_v6",
    "raw",
    "raw_v4",
    "raw_v6",
    "icmp",
    "icmp_v6",
    "unix",
    "vsock",
    "packet",
]

INT: Final = 2**31 - 1
UNSIGNED: Final = 2**32 - 1


class Sysctl(NamedTuple):
    """A setting of the kernel that bounds or presets an option; `name` is as sysctl(8) writes it."""

    name: str
    role: Literal["maximum", "default"]
    column: int | None = None
    """Which of its numbers, where it has several, from 0."""
    scope: Scope = "any"
    """The sockets that it is for; a later setting of a row goes before an earlier one."""


class Option(NamedTuple):
    """One row of the table.

    `kind` says which Python value goes in and comes out:

    ==============  ====================================================================================
    bool            `True` or `False`
    int             an `int`
    seconds, milliseconds, microseconds     an `int`, a time in the unit that the system counts in
    duration        a `float`, seconds
    linger          whole seconds, or `None` for off
    str             a name
    enum            a name of `choices`; the number is taken, too
    flags           a tuple of names of `choices`; one name, or any iterable of names, is taken, too
    interface       the name of a network interface, '' for none; its index is taken, too
    address         an IPv4 address; the name of an interface is taken, too
    ports           the pair of the lowest and the highest port, or `None` for the system's range
    numbers         a tuple of `int`, laid out as `layout` (struct's letters)
    bytes           `bytes`, as the manual page has them
    ==============  ====================================================================================
    """

    name: str
    constant: str
    """Its name in C, as manual pages have it."""
    level: int
    number: int | None
    """`None` where this platform does not have it."""
    kind: Kind
    scope: Scope
    """The sockets that it is for."""
    doc: str
    page: str = ""
    """The manual page that tells of it, or of its kind."""
    unit: str = ""
    minimum: int = 0
    maximum: int = INT
    """The largest number; for `str` and `bytes` the greatest length."""
    none: int | None = None
    """The number that `None` stands for, where `None` is a value."""
    size: int = 4
    """Bytes of an `int`."""
    layout: str = ""
    """How `numbers` lie; "I*" is any number of unsigned ints."""
    choices: tuple[tuple[str, int], ...] = ()
    platform: str = "any"
    """Where it is found, and since which version."""
    privilege: str = ""
    """What setting it needs; nothing where this is empty."""
    settable: bool = True
    readable: bool = True
    listed: bool = True
    """Whether iteration shows it; no where reading it changes something."""
    hint: str = ""
    """What to do when the system refuses a value."""
    sysctls: tuple[Sysctl, ...] = ()
    """The settings of the kernel that bound or preset it; see `kernel_limits`."""

    def applies_to(self, sock: socket.socket) -> bool:
        """Tell whether this platform has the option and it means something on a socket of this family and type."""
        return self.number is not None and in_scope(self.scope, sock)


def in_scope(scope: Scope, sock: socket.socket) -> bool:
    """Tell whether `sock` is one of the sockets that `scope` means."""
    return _SCOPES[scope][1](sock)


def describe_scope(scope: Scope) -> str:
    """Return what `scope` means, in the plural: "TCP sockets"."""
    return _SCOPES[scope][0]


_LINUX: Final = sys.platform == "linux"
_IPPROTO_MPTCP: Final = 262  # linux/in.h


def _family(name: str) -> int:
    return int(getattr(socket, name, -1))


def _is_inet(sock: socket.socket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def _is_ipv4(sock: socket.socket) -> bool:
    # An IPv6 socket may carry IPv4 (dual stack), and Linux then takes IPv4's options on it; on a raw one it does not.
    dual = sock.family == socket.AF_INET6 and _LINUX and sock.type != socket.SOCK_RAW
    return sock.family == socket.AF_INET or dual


def _is_ipv6(sock: socket.socket) -> bool:
    return sock.family == socket.AF_INET6


def _is_raw(sock: socket.socket) -> bool:
    return _is_inet(sock) and sock.type == socket.SOCK_RAW


def _is(sock: socket.socket, kind: int, *protocols: int) -> bool:
    return _is_inet(sock) and sock.type == kind and sock.proto in (0, *protocols)


_SCOPES: Final[dict[Scope, tuple[str, Callable[[socket.socket], bool]]]] = {
    "any": ("all sockets", lambda sock: True),
    "inet": ("IP sockets", _is_inet),
    "ipv4": ("IPv4 sockets", _is_ipv4),
    "ipv6": ("IPv6 sockets", _is_ipv6),
    "tcp": ("TCP sockets", lambda sock: _is(sock, socket.SOCK_STREAM, socket.IPPROTO_TCP, _IPPROTO_MPTCP)),
    "datagram": ("IP datagram sockets", lambda sock: _is_inet(sock) and sock.type == socket.SOCK_DGRAM),
    "udp": ("UDP sockets", lambda sock: _is(sock, socket.SOCK_DGRAM, socket.IPPROTO_UDP)),
    "packets_v4": ("IPv4 datagram and raw sockets", lambda sock: _is_ipv4(sock) and sock.type != socket.SOCK_STREAM),
    "packets_v6": ("IPv6 datagram and raw sockets", lambda sock: _is_ipv6(sock) and sock.type != socket.SOCK_STREAM),
    "raw": ("raw IP sockets", _is_raw),
    "raw_v4": ("raw IPv4 sockets", lambda sock: _is_raw(sock) and sock.family == socket.AF_INET),
    "raw_v6": ("raw IPv6 sockets", lambda sock: _is_raw(sock) and _is_ipv6(sock)),
    "icmp": (
        "raw ICMP sockets",
        lambda sock: _is_raw(sock) and sock.family == socket.AF_INET and sock.proto == socket.IPPROTO_ICMP,
    ),
    "icmp_v6": (
        "raw ICMPv6 sockets",
        lambda sock: _is_raw(sock) and _is_ipv6(sock) and sock.proto == socket.IPPROTO_ICMPV6,
    ),
    "unix": ("Unix sockets", lambda sock: sock.family == _family("AF_UNIX")),
    "vsock": ("vsock sockets", lambda sock: sock.family == _family("AF_VSOCK")),
    "packet": ("packet sockets", lambda sock: sock.family == _family("AF_PACKET")),
}


def row(name: str, constant: str, kind: Kind, scope: Scope, doc: str, **more: Any) -> Option:
    """Make a row; level, number and manual page come from the constant's name, unless the page is given."""
    level, number, page = place_of(constant)
    return Option(name, constant, level, number, kind, scope, doc, **{"page": page, **more})
