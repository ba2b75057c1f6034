"""Ancillary data (cmsg(3)): what travels beside the bytes, as typed records."""

import array
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from portico.errors import ConfigurationError, UnsupportedError
from portico.option_numbers import place_of
from portico.transports.credentials import Credentials

if TYPE_CHECKING:
    from portico._core import Descriptors as _Descriptors

if sys.platform == "linux":
    from portico._core import Descriptors as Descriptors
    from portico._core import control_bytes
else:

    class Descriptors:
        """Descriptors that a peer passed: Linux only."""

        def __init__(self, fds: Iterable[int]) -> None:
            raise UnsupportedError("descriptors can be passed only on Linux")


MAX_PASSED: Final = 253
"""Descriptors in one message: SCM_MAX_FD of unix(7)."""


@dataclass(frozen=True, slots=True)
class Timestamp:
    """When the kernel received it (SO_TIMESTAMPNS, SO_TIMESTAMP of socket(7))."""

    nanoseconds: int
    """Since 1970."""

    @property
    def seconds(self) -> float:
        """Since 1970."""
        return self.nanoseconds / 1e9


@dataclass(frozen=True, slots=True)
class PacketInfo:
    """Where a packet came to, or is to leave from (IP_PKTINFO of ip(7), IPV6_PKTINFO of RFC 3542 section 6)."""

    address: str
    """The IP address in the packet's header; in sending the one that it leaves from ("" leaves it to the kernel)."""
    interface: int = 0
    """The index of the interface; 0 leaves it to the kernel."""
    ipv6: bool = False
    """Which of the two it is."""


@dataclass(frozen=True, slots=True)
class TTL:
    """How many more routers a packet may cross (IP_TTL of ip(7)), for IPv6 its hop limit (IPV6_HOPLIMIT)."""

    hops: int
    ipv6: bool = False


@dataclass(frozen=True, slots=True)
class TOS:
    """DSCP and ECN bits (RFC 2474, RFC 3168): IP_TOS of ip(7), for IPv6 its traffic class (IPV6_TCLASS)."""

    value: int
    ipv6: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """How many packets the kernel has dropped so far for want of room (SO_RXQ_OVFL of socket(7))."""

    count: int


@dataclass(frozen=True, slots=True)
class Truncated:
    """Some ancillary data did not fit: the kernel dropped it (MSG_CTRUNC of recvmsg(2)), or more descriptors came than
    `Limits.max_fds` lets wait. Descriptors that did not fit are closed."""


@dataclass(frozen=True, slots=True)
class RawAncillary:
    """Anything else, as the kernel has it."""

    level: int
    type: int
    data: bytes


Ancillary: TypeAlias = (
    "_Descriptors | Credentials | Timestamp | PacketInfo | TTL | TOS | Dropped | Truncated | RawAncillary"
)
"""One record of ancillary data."""


def _type(constant: str) -> int:
    """Return the type of the messages that a socket option makes come."""
    number = place_of(constant)[1]
    return _NONE if number is None else number


_TRUNCATED: Final = -1
_NONE: Final = -2
_IPV6: Final = socket.IPPROTO_IPV6
_SCM_RIGHTS, _SCM_CREDENTIALS = 1, 2  # linux/socket.h
_SCM_TIMESTAMP, _SCM_TIMESTAMPNS, _RXQ_OVFL = map(_type, ("SO_TIMESTAMP", "SO_TIMESTAMPNS", "SO_RXQ_OVFL"))
_IP_TOS, _IP_TTL, _IP_PKTINFO = map(_type, ("IP_TOS", "IP_TTL", "IP_PKTINFO"))
_IPV6_PKTINFO, _IPV6_HOPLIMIT, _IPV6_TCLASS = map(_type, ("IPV6_PKTINFO", "IPV6_HOPLIMIT", "IPV6_TCLASS"))

_CREDENTIALS: Final = struct.Struct("3i")
_TIME: Final = struct.Struct("ll")
_INFO: Final = struct.Struct("i4s4s")
_INFO6: Final = struct.Struct("16sI")


def unpacked(messages: Iterable[Any]) -> list[Any]:
    """Return the typed records of control messages as the core gives them."""
    return [each if isinstance(each, Descriptors) else _record(*each) for each in messages]


def _record(level: int, kind: int, data: bytes) -> Ancillary:
    if level == _TRUNCATED:
        return Truncated()
    try:
        if level == socket.SOL_SOCKET:
            return _socket_record(kind, data)
        if level == 0:
            return _ip_record(kind, data)
        if level == _IPV6:
            return _ipv6_record(kind, data)
    except struct.error:  # not as long as it should be
        pass
    return RawAncillary(level, kind, data)


def _socket_record(kind: int, data: bytes) -> Ancillary:
    if kind == _SCM_CREDENTIALS:
        return Credentials(*_CREDENTIALS.unpack(data))
    if kind == _SCM_TIMESTAMPNS:
        seconds, nanoseconds = _TIME.unpack(data)
        return Timestamp(seconds * 10**9 + nanoseconds)
    if kind == _SCM_TIMESTAMP:
        seconds, microseconds = _TIME.unpack(data)
        return Timestamp(seconds * 10**9 + microseconds * 1000)
    if kind == _RXQ_OVFL:
        return Dropped(*struct.unpack("I", data))
    return RawAncillary(socket.SOL_SOCKET, kind, data)


def _ip_record(kind: int, data: bytes) -> Ancillary:
    if kind == _IP_TTL:
        return TTL(*struct.unpack("i", data))
    if kind == _IP_TOS:
        return TOS(data[0] if len(data) == 1 else struct.unpack("i", data)[0])
    if kind == _IP_PKTINFO:
        interface, _, address = _INFO.unpack(data)
        return PacketInfo(socket.inet_ntop(socket.AF_INET, address), interface)
    return RawAncillary(0, kind, data)


def _ipv6_record(kind: int, data: bytes) -> Ancillary:
    if kind == _IPV6_HOPLIMIT:
        return TTL(struct.unpack("i", data)[0], ipv6=True)
    if kind == _IPV6_TCLASS:
        return TOS(struct.unpack("i", data)[0], ipv6=True)
    if kind == _IPV6_PKTINFO:
        address, interface = _INFO6.unpack(data)
        return PacketInfo(socket.inet_ntop(socket.AF_INET6, address), interface, ipv6=True)
    return RawAncillary(_IPV6, kind, data)


def packed(records: Sequence[Any]) -> bytes:
    """Return the control buffer that sendmsg(2) takes for `records`.

    :raises ConfigurationError: a record that cannot be sent
    :raises UnsupportedError: this platform cannot send any"""
    if sys.platform != "linux":
        raise UnsupportedError("ancillary data can be sent only on Linux")
    return control_bytes([_message(record) for record in records])


def _message(record: object) -> tuple[int, int, bytes]:
    if isinstance(record, Descriptors):
        return _rights(record.fds)
    if isinstance(record, Credentials):
        return socket.SOL_SOCKET, _SCM_CREDENTIALS, _CREDENTIALS.pack(*record)
    if isinstance(record, TTL):
        return (_IPV6, _IPV6_HOPLIMIT, struct.pack("i", record.hops)) if record.ipv6 else (
            0, _IP_TTL, struct.pack("i", record.hops))  # fmt: skip
    if isinstance(record, TOS):
        return (_IPV6, _IPV6_TCLASS, struct.pack("i", record.value)) if record.ipv6 else (
            0, _IP_TOS, struct.pack("i", record.value))  # fmt: skip
    if isinstance(record, PacketInfo):
        return _packet_info(record)
    if isinstance(record, RawAncillary):
        return record.level, record.type, record.data
    raise ConfigurationError(f"{record!r} is no ancillary data that can be sent")


def packed_fds(fds: Sequence[int]) -> bytes:
    """Return the control buffer that passes `fds`.

    :raises ConfigurationError: none, or more than 253"""
    return control_bytes([_rights(fds)])


def _rights(fds: Sequence[int]) -> tuple[int, int, bytes]:
    if not 1 <= len(fds) <= MAX_PASSED:
        raise ConfigurationError(f"1 to {MAX_PASSED} descriptors can be passed at once, not {len(fds)}")
    return socket.SOL_SOCKET, _SCM_RIGHTS, array.array("i", fds).tobytes()


def _packet_info(info: PacketInfo) -> tuple[int, int, bytes]:
    try:
        if info.ipv6:
            address = socket.inet_pton(socket.AF_INET6, info.address or "::")
            return _IPV6, _IPV6_PKTINFO, _INFO6.pack(address, info.interface)
        address = socket.inet_pton(socket.AF_INET, info.address or "0.0.0.0")
    except OSError:
        version = 6 if info.ipv6 else 4
        raise ConfigurationError(f"PacketInfo: {info.address!r} is no IPv{version} address") from None
    return 0, _IP_PKTINFO, _INFO.pack(info.interface, address, bytes(4))
