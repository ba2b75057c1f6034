"""Every socket option by name: one table that code, command line and documentation read."""

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Literal

from portico.errors import ClosedError, ConfigurationError, UnsupportedError, describe

__all__ = ["OPTIONS", "Option", "Options", "get_option", "set_option"]

Kind = Literal["bool", "int", "seconds", "milliseconds", "microseconds", "linger", "str"]
Scope = Literal["any", "inet", "ipv4", "ipv6", "tcp", "datagram"]

INT: Final = 2**31 - 1
UNSIGNED: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table.

    `kind` says which Python value goes in and comes out: `bool`; `int`, `seconds`, `milliseconds` and `microseconds`
    an `int`, a duration in the unit that the system counts in; `linger` `None` for off or whole seconds; `str` a name.
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
    unit: str = ""
    minimum: int = 0
    maximum: int = INT
    platform: str = "any"
    """Where it is found, and since which version when that is younger than Linux 3.0."""
    settable: bool = True
    listed: bool = True
    """Whether iteration shows it; no where reading it changes something."""
    hint: str = ""
    """What to do when the system refuses a value."""

    def applies_to(self, sock: socket.socket) -> bool:
        """Tell whether this platform has the option and it means something on a socket of this family and type."""
        return self.number is not None and _SCOPES[self.scope][1](sock)


def _is_inet(sock: socket.socket) -> bool:
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def _is_ipv4(sock: socket.socket) -> bool:
    # An IPv6 socket may carry IPv4 (dual stack), and Linux then takes IPv4's options on it.
    return sock.family == socket.AF_INET or (sock.family == socket.AF_INET6 and sys.platform == "linux")


_SCOPES: Final[dict[Scope, tuple[str, Callable[[socket.socket], bool]]]] = {
    "any": ("all sockets", lambda sock: True),
    "inet": ("IP sockets", _is_inet),
    "ipv4": ("IPv4 sockets", _is_ipv4),
    "ipv6": ("IPv6 sockets", lambda sock: sock.family == socket.AF_INET6),
    "tcp": ("TCP sockets", lambda sock: _is_inet(sock) and sock.type == socket.SOCK_STREAM),
    "datagram": ("IP datagram sockets", lambda sock: _is_inet(sock) and sock.type == socket.SOCK_DGRAM),
}

# Linux numbers that Python's socket module of some version lacks (asm-generic/socket.h, linux/tcp.h).
_LINUX_NUMBERS: Final = {
    "SO_PRIORITY": 12,
    "SO_MARK": 36,
    "SO_BUSY_POLL": 46,
    "SO_INCOMING_CPU": 49,
    "TCP_CONGESTION": 13,
    "TCP_USER_TIMEOUT": 18,
    "TCP_FASTOPEN": 23,
    "TCP_NOTSENT_LOWAT": 25,
    "TCP_FASTOPEN_CONNECT": 30,
}
_OWN_NUMBERS: Final = ("alpha", "mips", "parisc", "sparc")  # machines that do not use the generic SO_ numbers


def _number(constant: str) -> int | None:
    number: int | None = getattr(socket, constant, None)
    if number is None and constant == "TCP_KEEPIDLE":
        number = getattr(socket, "TCP_KEEPALIVE", None)  # its name on macOS
    if number is None and sys.platform == "linux":
        if constant.startswith("SO_") and os.uname().machine.startswith(_OWN_NUMBERS):
            return None
        return _LINUX_NUMBERS.get(constant)
    return number


_LEVELS: Final[dict[str, int]] = {
    "SO": socket.SOL_SOCKET,
    "TCP": socket.IPPROTO_TCP,
    "IP": socket.IPPROTO_IP,
    "IPV6": socket.IPPROTO_IPV6,
}


def _row(name: str, constant: str, kind: Kind, scope: Scope, doc: str, **more: Any) -> Option:
    level = _LEVELS[constant.partition("_")[0]]
    return Option(name, constant, level, _number(constant), kind, scope, doc, **more)


_BUFFER: Final = {"unit": "bytes", "minimum": 1}

_ROWS: Final = (
    # Keepalive and dead peers
    _row("keepalive", "SO_KEEPALIVE", "bool", "tcp", "Probe an idle connection, to notice a peer that is gone."),
    _row("keepalive_idle", "TCP_KEEPIDLE", "seconds", "tcp", "Idle time before the first probe.",
         unit="s", minimum=1, maximum=32767),
    _row("keepalive_interval", "TCP_KEEPINTVL", "seconds", "tcp", "Time between two probes.",
         unit="s", minimum=1, maximum=32767),
    _row("keepalive_count", "TCP_KEEPCNT", "int", "tcp", "Probes without an answer before the connection is dropped.",
         unit="probes", minimum=1, maximum=127),
    _row("user_timeout", "TCP_USER_TIMEOUT", "milliseconds", "tcp",
         "How long sent data may stay unacknowledged before the connection is dropped; 0 is the system's default.",
         unit="ms", platform="Linux"),
    _row("linger", "SO_LINGER", "linger", "any",
         "How long close waits for unsent data: None leaves it to the system, 0 drops it and resets the connection.",
         unit="s", maximum=65535),
    # Latency and throughput
    _row("no_delay", "TCP_NODELAY", "bool", "tcp", "Send small segments at once (no Nagle's algorithm)."),
    _row("quick_ack", "TCP_QUICKACK", "bool", "tcp", "Acknowledge at once; the kernel may go back to delaying.",
         platform="Linux"),
    _row("cork", "TCP_CORK", "bool", "tcp", "Hold partial segments back until uncorked, 200 ms at most.",
         platform="Linux"),
    _row("receive_buffer", "SO_RCVBUF", "int", "any",
         "Size of the kernel's receive buffer; Linux gives, and reads back, twice what is asked for.", **_BUFFER),
    _row("send_buffer", "SO_SNDBUF", "int", "any",
         "Size of the kernel's send buffer; Linux gives, and reads back, twice what is asked for.", **_BUFFER),
    _row("receive_lowat", "SO_RCVLOWAT", "int", "any", "Bytes that must be there before the socket is readable.",
         **_BUFFER),
    _row("notsent_lowat", "TCP_NOTSENT_LOWAT", "int", "tcp",
         "The socket is writable only while fewer unsent bytes wait in the kernel.",
         unit="bytes", maximum=UNSIGNED, platform="Linux 3.12, macOS"),
    _row("congestion", "TCP_CONGESTION", "str", "tcp", "Congestion control algorithm, such as cubic or bbr.",
         maximum=15, platform="Linux, FreeBSD", hint="/proc/sys/net/ipv4/tcp_available_congestion_control lists them"),
    _row("max_segment", "TCP_MAXSEG", "int", "tcp", "Largest segment to send; set it before connecting.",
         unit="bytes", minimum=88, maximum=32767),
    _row("busy_poll", "SO_BUSY_POLL", "microseconds", "any", "Time to poll the device when there is no data.",
         unit="µs", platform="Linux 3.11", hint="raising it needs CAP_NET_ADMIN"),
    # Listening
    _row("reuse_address", "SO_REUSEADDR", "bool", "any", "Listen on a port whose old connections still linger."),
    _row("reuse_port", "SO_REUSEPORT", "bool", "inet", "Let several sockets listen on one port and share the load.",
         platform="Linux 3.9, BSD, macOS"),
    _row("v6_only", "IPV6_V6ONLY", "bool", "ipv6", "Serve IPv6 only; False is dual stack. Set it before binding."),
    _row("fast_open", "TCP_FASTOPEN", "int", "tcp", "Listener: how many connections may open with data in the SYN.",
         unit="connections", platform="Linux 3.7, macOS"),
    _row("fast_open_connect", "TCP_FASTOPEN_CONNECT", "bool", "tcp", "Client: send the first data in the SYN.",
         platform="Linux 4.11"),
    _row("defer_accept", "TCP_DEFER_ACCEPT", "seconds", "tcp",
         "Listener: accept a connection when its first data comes, or after about this time.",
         unit="s", platform="Linux"),
    _row("incoming_cpu", "SO_INCOMING_CPU", "int", "inet", "The CPU that handles the socket's packets; -1 is none.",
         minimum=-1, platform="Linux 4.4"),
    # Routing and marking
    _row("bind_to_device", "SO_BINDTODEVICE", "str", "inet", "Use one network interface only; '' is any.",
         maximum=15, platform="Linux", hint="`ip link` lists the interfaces; changing it needs CAP_NET_RAW"),
    _row("mark", "SO_MARK", "int", "any", "Mark of the packets, for routing and filters.",
         maximum=UNSIGNED, platform="Linux", hint="it needs CAP_NET_ADMIN or CAP_NET_RAW"),
    _row("priority", "SO_PRIORITY", "int", "any", "Queueing priority of the packets.",
         platform="Linux", hint="more than 6 needs CAP_NET_ADMIN"),
    _row("type_of_service", "IP_TOS", "int", "ipv4", "DSCP and ECN bits of IPv4 packets (RFC 2474).", maximum=255),
    _row("traffic_class", "IPV6_TCLASS", "int", "ipv6", "DSCP and ECN bits of IPv6 packets (RFC 2474).", maximum=255),
    _row("ttl", "IP_TTL", "int", "ipv4", "How many routers an IPv4 packet may cross.",
         unit="hops", minimum=1, maximum=255),
    _row("hop_limit", "IPV6_UNICAST_HOPS", "int", "ipv6", "How many routers an IPv6 packet may cross.",
         unit="hops", minimum=1, maximum=255),
    _row("broadcast", "SO_BROADCAST", "bool", "datagram", "Allow sending to broadcast addresses."),
    # What the kernel tells
    _row("error", "SO_ERROR", "int", "any", "The pending error as an errno; reading clears it.",
         settable=False, listed=False),
    _row("type", "SO_TYPE", "int", "any", "The socket's type, such as SOCK_STREAM.", settable=False),
    _row("domain", "SO_DOMAIN", "int", "any", "The socket's address family.", settable=False, platform="Linux"),
    _row("protocol", "SO_PROTOCOL", "int", "any", "The socket's protocol, such as IPPROTO_TCP.",
         settable=False, platform="Linux"),
    _row("accepting", "SO_ACCEPTCONN", "bool", "any", "Whether the socket listens.", settable=False),
)  # fmt: skip

OPTIONS: Final[Mapping[str, Option]] = MappingProxyType({row.name: row for row in _ROWS})
"""The table, by name."""


def get_option(sock: socket.socket, name: str) -> object:
    """Return the live value of an option; see `Option` for its type.

    :raises ConfigurationError: if there is no such option, or it is not for this kind of socket.
    :raises UnsupportedError: if this platform does not have it.
    :raises ClosedError: if the socket is closed.
    """
    option = _find(sock, name)
    assert option.number is not None
    try:
        if option.kind == "linger":
            on, seconds = struct.unpack("ii", sock.getsockopt(option.level, option.number, struct.calcsize("ii")))
            return seconds if on else None
        if option.kind == "str":
            return sock.getsockopt(option.level, option.number, 16).partition(b"\0")[0].decode("ascii", "replace")
        value = sock.getsockopt(option.level, option.number)
    except OSError as error:
        raise _refusal(option, "cannot be read", error) from error
    if option.kind == "bool":
        return bool(value)
    return value & UNSIGNED if option.maximum == UNSIGNED else value


def set_option(sock: socket.socket, name: str, value: object) -> None:
    """Set an option; see `Option` for the type of its value.

    :raises ConfigurationError: if there is no such option, it is not for this kind of socket or only to be read, the
        value is of the wrong type or out of range, or the system refuses it.
    :raises UnsupportedError: if this platform does not have it.
    :raises ClosedError: if the socket is closed.
    """
    option = _find(sock, name)
    assert option.number is not None
    if not option.settable:
        raise ConfigurationError(f"option {name!r} ({option.constant}) can only be read")
    packed = _pack(option, value)
    try:
        sock.setsockopt(option.level, option.number, packed)
    except OSError as error:
        raise _refusal(option, f"cannot be set to {value!r}", error) from error


def _find(sock: socket.socket, name: str) -> Option:
    option = _lookup(name)
    if option.number is None:
        raise UnsupportedError(
            f"option {name!r} ({option.constant}) is not there on this platform; it is on {option.platform}"
        )
    if not option.applies_to(sock):
        raise ConfigurationError(
            f"option {name!r} ({option.constant}) is for {_SCOPES[option.scope][0]}; this one is {_describe(sock)}"
        )
    return option


def _lookup(name: str) -> Option:
    option = OPTIONS.get(name)
    if option is None:
        import difflib  # takes 5 ms, for those who mistype only

        near = difflib.get_close_matches(str(name).lower(), OPTIONS, 1, 0.5)
        raise ConfigurationError(f"there is no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    return option


def _describe(sock: socket.socket) -> str:
    # The socket that uvloop shows has plain numbers here.
    return f"{socket.AddressFamily(sock.family).name}/{socket.SocketKind(sock.type).name}"


def _pack(option: Option, value: object) -> int | bytes:
    """Check `value` and return what setsockopt(2) takes."""
    name = option.name
    if option.kind == "bool":
        if not isinstance(value, int) or value not in (0, 1):
            raise ConfigurationError(f"option {name!r} takes True or False, not {value!r}")
        return int(value)
    if option.kind == "str":
        if not isinstance(value, str) or not value.isascii() or "\0" in value or len(value) > option.maximum:
            raise ConfigurationError(f"option {name!r} takes a name of at most {option.maximum} letters, not {value!r}")
        return value.encode("ascii") + b"\0"
    if option.kind == "linger" and (value is None or value is False):
        return struct.pack("ii", 0, 0)
    number = int(value) if isinstance(value, float) and value.is_integer() else value
    if not isinstance(number, int) or isinstance(number, bool) or not option.minimum <= number <= option.maximum:
        unit = f" {option.unit}" if option.unit else ""
        also = ", or None" if option.kind == "linger" else ""
        raise ConfigurationError(
            f"option {name!r} takes a whole number from {option.minimum} to {option.maximum}{unit}{also}, not {value!r}"
        )
    if option.kind == "linger":
        return struct.pack("ii", 1, number)
    return number - (UNSIGNED + 1) if number > INT else number


_NOT_THERE: Final = (errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENOTSUP)


def _refusal(option: Option, what: str, error: OSError) -> ClosedError | ConfigurationError | UnsupportedError:
    text = f"option {option.name!r} ({option.constant}) {what}: {describe(error)}"
    if error.errno == errno.EBADF:
        return ClosedError(f"option {option.name!r} {what}: the socket is closed")
    if error.errno in _NOT_THERE:
        return UnsupportedError(f"{text}; this kernel or this kind of socket does not have it")
    return ConfigurationError(f"{text}; {option.hint}" if option.hint else text)


class Options(MutableMapping[str, object]):
    """The live options of one socket, by name: `options["keepalive"]` and `options.keepalive` are the same.

    Nothing is remembered here: each read and each assignment is a system call. Iteration gives the names that apply to
    the socket's family and type. An option cannot be deleted.
    """

    __slots__ = ("_socket",)
    _socket: Callable[[], socket.socket | None]

    def __init__(self, live_socket: Callable[[], socket.socket | None]) -> None:
        """:param live_socket: returns the socket, or None once there is none."""
        object.__setattr__(self, "_socket", live_socket)

    def _live(self) -> socket.socket:
        sock = self._socket()
        if sock is None or sock.fileno() < 0:
            raise ClosedError("the connection is closed; its socket has no options any more")
        return sock

    def __getitem__(self, name: str) -> object:
        _lookup(name)
        return get_option(self._live(), name)

    def __setitem__(self, name: str, value: object) -> None:
        _lookup(name)
        set_option(self._live(), name, value)

    def __delitem__(self, name: str) -> None:
        raise ConfigurationError(f"option {name!r} cannot be deleted; set it to another value")

    def __getattr__(self, name: str) -> Any:
        if name not in OPTIONS:
            try:
                _lookup(name)
            except ConfigurationError as error:
                raise AttributeError(str(error), name=name, obj=self) from None
        return self[name]

    def __setattr__(self, name: str, value: object) -> None:
        self[name] = value

    def __contains__(self, name: object) -> bool:
        option = OPTIONS.get(name) if isinstance(name, str) else None
        return option is not None and option.applies_to(self._live())

    def __iter__(self) -> Iterator[str]:
        sock = self._live()
        return iter([name for name, option in OPTIONS.items() if option.listed and option.applies_to(sock)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *OPTIONS]

    def __repr__(self) -> str:
        sock = self._socket()
        return f"<Options of {_describe(sock)}>" if sock is not None and sock.fileno() >= 0 else "<Options, closed>"
