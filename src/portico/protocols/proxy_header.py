"""The header of the PROXY protocol, versions 1 and 2: what a proxy sends ahead of a connection's own bytes, so that the
server behind it learns who the client is.

Facts from HAProxy's doc/proxy-protocol.txt (2020/03/05), named "the specification" here. Version 1 is a line of text of
at most 107 bytes; version 2 is 16 bytes, the two addresses, and fields of type, length and value (TLV).
"""

import contextlib
import enum
import functools
import ipaddress
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, Protocol

from portico.address import AF_UNIX, SCHEMES, Address
from portico.errors import ConfigurationError, MessageTooLarge, ProtocolError

__all__ = ["MAX_LINE", "MAX_SIZE", "TLV", "ProxyHeader", "ProxySSL"]

LINE_START: Final = b"PROXY "
LINE_END: Final = b"\r\n"
MAX_LINE: Final = 107
"""Bytes of the longest line of version 1, its end included (specification, section 2.1)."""

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
FIXED: Final = struct.Struct("!12sBBH")
"""Signature, version and command, family and transport, length of the rest."""
MAX_SIZE: Final = 4096
"""Bytes of a header that `parse` takes by default. Headers are meant to fit into the smallest TCP segment, 536 bytes
(section 2); what the format allows is 16 + 65535."""

LOCAL, PROXY = 0, 1
INET, INET6, UNIX = 1, 2, 3
STREAM, DATAGRAM = 1, 2
ADDRESS_SIZES: Final = {INET: 12, INET6: 36, UNIX: 216}
MAPPED: Final = "::ffff:"
MAX_UNIX: Final = 108
MAX_UNIQUE_ID: Final = 128

TLVs = tuple[tuple[int, bytes], ...]


class TLV(enum.IntEnum):
    """The types of TLVs that the specification names (section 2.2); 0xE0 to 0xEF are free for applications."""

    ALPN = 0x01
    AUTHORITY = 0x02
    CRC32C = 0x03
    NOOP = 0x04
    UNIQUE_ID = 0x05
    SSL = 0x20
    SSL_VERSION = 0x21
    SSL_CN = 0x22
    SSL_CIPHER = 0x23
    SSL_SIG_ALG = 0x24
    SSL_KEY_ALG = 0x25
    NETNS = 0x30


class HasAddresses(Protocol):
    """A connection, as far as `ProxyHeader.of` looks at it."""

    @property
    def local_address(self) -> Address: ...
    @property
    def remote_address(self) -> Address: ...


@dataclass(frozen=True, slots=True)
class ProxySSL:
    """What the proxy tells of the client's TLS (PP2_TYPE_SSL, section 2.2.6)."""

    client: int
    """Bits: 1 the client spoke TLS, 2 it showed a certificate on this connection, 4 at least once in this session."""
    verify: int
    """0 where the client's certificate was verified."""
    version: str | None = None
    """Such as "TLSv1.3"."""
    common_name: str | None = None
    """Of the client's certificate."""
    cipher: str | None = None
    signature_algorithm: str | None = None
    """By which the proxy's own certificate was signed."""
    key_algorithm: str | None = None
    """Of the proxy's own certificate, such as "RSA2048"."""

    @property
    def verified(self) -> bool:
        """Whether the client showed a certificate and it was found good."""
        return bool(self.client & 6) and self.verify == 0

    @classmethod
    def _of(cls, value: bytes) -> "ProxySSL":
        client, verify = struct.unpack_from("!BI", value)
        parts = {kind: _text(part) for kind, part, _ in _fields(value, 5)}
        kinds = (TLV.SSL_VERSION, TLV.SSL_CN, TLV.SSL_CIPHER, TLV.SSL_SIG_ALG, TLV.SSL_KEY_ALG)
        return cls(client, verify, *(parts.get(kind) for kind in kinds))


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A PROXY protocol header: who the client of a relayed connection is, and whom it wanted.

    Neither `source` nor `destination` means that the proxy does not know them, or (`local`) that it connects on its
    own behalf: the addresses of the connection itself count then.

    :raises ConfigurationError: what no header can say"""

    version: Literal[1, 2] = 2
    local: bool = False
    """The proxy itself is the client, such as for a health check (version 2: the command LOCAL)."""
    source: Address | None = None
    """The client."""
    destination: Address | None = None
    """The address that the client connected to."""
    tlvs: TLVs = ()
    """Pairs of type and value, in order (version 2); types of the specification are in `TLV`, and have properties."""

    def __post_init__(self) -> None:
        if self.version not in (1, 2):
            raise ConfigurationError(f"the PROXY protocol has the versions 1 and 2, not {self.version!r}")
        if (self.source is None) != (self.destination is None):
            raise ConfigurationError("a PROXY header has a source and a destination, or neither")
        families = {_family_of(each) for each in (self.source, self.destination) if each is not None}
        if len(families) > 1:
            raise ConfigurationError(
                f"{self.source} and {self.destination} are of two families; a PROXY header has one"
            )
        if self.tlvs and self.version == 1:
            raise ConfigurationError("TLVs need version 2 of the PROXY protocol")
        size = 0
        for kind, value in self.tlvs:
            if not 0 <= kind <= 255 or not isinstance(value, bytes):
                raise ConfigurationError(f"a TLV is a type from 0 to 255 and bytes, not ({kind!r}, {value!r})")
            size += 3 + len(value)
        if size + 216 > 0xFFFF:
            raise ConfigurationError(f"TLVs of {size} bytes are too many: a PROXY header has 65551 bytes at most")

    @classmethod
    def of(
        cls,
        connection: HasAddresses,
        version: Literal[1, 2] = 2,
        tlvs: Mapping[int, bytes] | Iterable[tuple[int, bytes]] = (),
    ) -> "ProxyHeader":
        """Make the header with which to relay `connection`, one that a server has accepted.

        Its peer is the source; what it connected to, the destination; both are unknown for a `mem` connection. IPv4
        clients of an IPv6 socket (`::ffff:192.0.2.1`) are told as IPv4.

        :param tlvs: pairs of type and value, or a mapping; a CRC32C, whatever its value, is filled in by `encode`.
        :raises ClosedError: the connection is over, and its addresses were never asked for"""
        pairs = tuple(tlvs.items() if isinstance(tlvs, Mapping) else tlvs)
        source, destination = connection.remote_address, connection.local_address
        if SCHEMES[source.scheme].parts == "name":
            return cls(version, tlvs=pairs)
        if all(each.host.startswith(MAPPED) for each in (source, destination)):
            source, destination = (each.replace(host=each.host[len(MAPPED) :]) for each in (source, destination))
        return cls(version, source=source, destination=destination, tlvs=pairs)

    # in and out

    def encode(self) -> bytes:
        """Return the bytes of the header; they must be the first of the connection, before TLS."""
        return self._line() if self.version == 1 else self._block()

    @classmethod
    def parse(
        cls, data: "bytes | bytearray | memoryview", max_size: int = MAX_SIZE
    ) -> "tuple[ProxyHeader, int] | None":
        """Return the header at the start of `data` and its length in bytes; None: more bytes are needed.

        :param max_size: bytes that a header of version 2 may have (4096).
        :raises ProtocolError: it is no header, and no more bytes can make it one; `offset` is where it goes wrong
        :raises MessageTooLarge: it is longer than `max_size`"""
        data = bytes(data[: max(max_size, MAX_LINE)])
        if data.startswith(LINE_START):
            return _parse_line(data)
        if data.startswith(SIGNATURE):
            return _parse_block(data, max_size)
        for start in (LINE_START, SIGNATURE):
            if start.startswith(data):
                return None
        _fail(f"it begins with {data[:16]!r}", 0)

    def _line(self) -> bytes:
        source, destination = self.source, self.destination
        if source is None or destination is None or _family_of(source) not in ((INET, STREAM), (INET6, STREAM)):
            return b"PROXY UNKNOWN\r\n"
        kind = "TCP6" if ":" in source.host else "TCP4"
        return f"PROXY {kind} {source.host} {destination.host} {source.port} {destination.port}\r\n".encode("ascii")

    def _block(self) -> bytes:
        family, transport, rest = 0, 0, b""
        if self.source is not None and self.destination is not None and not self.local:
            family, transport = _family_of(self.source)
            rest = _packed(self.source, self.destination)
        checksum = None
        for kind, value in self.tlvs:
            if kind == TLV.CRC32C:
                checksum, value = FIXED.size + len(rest) + 3, bytes(4)
            rest += struct.pack("!BH", kind, len(value)) + value
        command = 0x20 | (LOCAL if self.local else PROXY)
        block = FIXED.pack(SIGNATURE, command, family << 4 | transport, len(rest)) + rest
        if checksum is not None:
            block = block[:checksum] + struct.pack("!I", crc32c(block)) + block[checksum + 4 :]
        return block

    # known TLVs

    def tlv(self, kind: int) -> bytes | None:
        """Return the value of the first TLV of type `kind`, or None."""
        return next((value for each, value in self.tlvs if each == kind), None)

    @property
    def alpn(self) -> bytes | None:
        """The protocol that the client negotiated by ALPN, such as b"h2"."""
        return self.tlv(TLV.ALPN)

    @property
    def authority(self) -> str | None:
        """The host name that the client asked for (SNI)."""
        return _text(self.tlv(TLV.AUTHORITY))

    @property
    def crc32c(self) -> int | None:
        """The checksum; `parse` has verified it."""
        value = self.tlv(TLV.CRC32C)
        return int.from_bytes(value, "big") if value is not None else None

    @property
    def unique_id(self) -> bytes | None:
        """What the proxy calls the connection, at most 128 bytes."""
        return self.tlv(TLV.UNIQUE_ID)

    @property
    def netns(self) -> str | None:
        """The name of the network namespace that the connection came from."""
        return _text(self.tlv(TLV.NETNS))

    @property
    def ssl(self) -> ProxySSL | None:
        """The client's TLS as the proxy saw it."""
        value = self.tlv(TLV.SSL)
        return ProxySSL._of(value) if value is not None else None


def _fail(reason: str, offset: int) -> NoReturn:
    raise ProtocolError(f"bad PROXY header: {reason}", offset)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


# Version 1.


def _parse_line(data: bytes) -> tuple[ProxyHeader, int] | None:
    end = data.find(LINE_END, 0, MAX_LINE)
    if end < 0:
        if len(data) >= MAX_LINE:
            _fail(f"the line does not end within {MAX_LINE} bytes", MAX_LINE)
        return None
    kind, *words = data[len(LINE_START) : end].split(b" ")
    size = end + len(LINE_END)
    if kind == b"UNKNOWN":
        return ProxyHeader(1), size
    start = len(LINE_START)
    if kind not in (b"TCP4", b"TCP6"):
        _fail("behind PROXY must follow TCP4, TCP6 or UNKNOWN", start)
    start += 5
    if len(words) != 4:
        _fail(f"{kind.decode()} must be followed by two addresses and two ports, one space between them", start)
    offsets = [start + sum(len(word) + 1 for word in words[:index]) for index in range(4)]
    hosts = [_line_host(kind, word, offset) for word, offset in zip(words[:2], offsets[:2], strict=True)]
    ports = [_line_port(word, offset) for word, offset in zip(words[2:], offsets[2:], strict=True)]
    source, destination = (Address.from_packed("tcp", host, port) for host, port in zip(hosts, ports, strict=True))
    return ProxyHeader(1, source=source, destination=destination), size


def _line_host(kind: bytes, word: bytes, offset: int) -> bytes:
    with contextlib.suppress(ValueError):
        text = word.decode("ascii")
        if kind == b"TCP4":
            return ipaddress.IPv4Address(text).packed
        if "%" not in text:  # a zone means something on the proxy only
            return ipaddress.IPv6Address(text).packed
    _fail(f"{word!r} is no {'IPv4' if kind == b'TCP4' else 'IPv6'} address", offset)


def _line_port(word: bytes, offset: int) -> int:
    if not word.isdigit() or len(word) > 5 or (word.startswith(b"0") and word != b"0") or int(word) > 65535:
        _fail(f"{word!r} is no port", offset)
    return int(word)


# Version 2.


def _parse_block(data: bytes, max_size: int) -> tuple[ProxyHeader, int] | None:
    place = len(SIGNATURE)
    if len(data) > place and (data[place] >> 4 != 2 or data[place] & 15 > PROXY):
        _fail(f"version and command are {data[place]:#04x}, not 0x20 (LOCAL) or 0x21 (PROXY)", place)
    if len(data) < FIXED.size:
        return None
    _, command, kind, length = FIXED.unpack_from(data)
    local = command & 15 == LOCAL
    family, transport = kind >> 4, kind & 15
    if not local and (family > UNIX or transport > DATAGRAM):
        _fail(f"there is no address family and transport {kind:#04x}", place + 1)
    size = FIXED.size + length
    if size > max_size:
        raise MessageTooLarge(size, max_size, setting="max_proxy_header")
    if len(data) < size:
        return None
    block = data[:size]
    known = family in ADDRESS_SIZES and transport in (STREAM, DATAGRAM)
    start = FIXED.size + (ADDRESS_SIZES[family] if known else 0)
    if local or not known:
        return ProxyHeader(local=local, tlvs=_lenient_tlvs(block, start) if known or not kind else ()), size
    if size < start:
        _fail(f"{length} bytes are too few for two addresses, which take {ADDRESS_SIZES[family]}", FIXED.size)
    source, destination = _unpacked(family, transport, block[FIXED.size : start])
    return ProxyHeader(source=source, destination=destination, tlvs=_tlvs(block, start)), size


def _lenient_tlvs(block: bytes, start: int) -> TLVs:
    """Behind LOCAL, or where the family is unknown, anything may follow, which is to be skipped (section 2.2). But a
    checksum that does not match is refused there, too: the header was damaged on its way."""
    try:
        found = list(_fields(block, start))
    except ProtocolError:
        return ()
    for kind, value, offset in found:
        if kind == TLV.CRC32C and len(value) == 4:
            _check_sum(block, value, offset)
    with contextlib.suppress(ProtocolError):
        return _tlvs(block, start)
    return ()


def _fields(data: bytes, start: int) -> Iterator[tuple[int, bytes, int]]:
    """Yield the type, the value and the offset of the value of each TLV."""
    while start < len(data):
        if len(data) - start < 3:
            _fail("it ends within the type and length of a TLV", start)
        kind, length = struct.unpack_from("!BH", data, start)
        start += 3
        if len(data) - start < length:
            _fail(f"a TLV of {length} bytes reaches beyond the end", start - 2)
        yield kind, data[start : start + length], start
        start += length


def _tlvs(block: bytes, start: int) -> TLVs:
    found = []
    for kind, value, offset in _fields(block, start):
        if kind == TLV.CRC32C:
            if len(value) != 4:
                _fail(f"a CRC32C has 4 bytes, not {len(value)}", offset)
            _check_sum(block, value, offset)
        elif kind == TLV.UNIQUE_ID and len(value) > MAX_UNIQUE_ID:
            _fail(f"a unique id of {len(value)} bytes is longer than {MAX_UNIQUE_ID}", offset)
        elif kind == TLV.SSL:
            if len(value) < 5:
                _fail("the TLV on SSL has 5 bytes at least", offset)
            for _ in _fields(block[: offset + len(value)], offset + 5):
                pass
        found.append((kind, value))
    return tuple(found)


def _check_sum(block: bytes, value: bytes, offset: int) -> None:
    if crc32c(block[:offset] + bytes(4) + block[offset + 4 :]) != int.from_bytes(value, "big"):
        _fail("its CRC32C does not match", offset)


def _family_of(address: Address) -> tuple[int, int]:
    scheme = SCHEMES[address.scheme]
    transport = DATAGRAM if scheme.kind == "datagram" else STREAM
    if scheme.parts == "path":
        return UNIX, transport
    if scheme.parts == "name" or not address.host or not address.is_numeric:
        raise ConfigurationError(f"a PROXY header cannot name {address}: it needs an IP address or a Unix path")
    return INET6 if ":" in address.host else INET, transport


def _packed(source: Address, destination: Address) -> bytes:
    if SCHEMES[source.scheme].parts == "path":
        return _packed_path(source) + _packed_path(destination)
    return source.packed + destination.packed + struct.pack("!HH", source.port, destination.port)


def _packed_path(address: Address) -> bytes:
    path = address.path.encode(errors="surrogateescape")
    if path.startswith(b"@"):
        path = b"\0" + path[1:]
    return path.ljust(MAX_UNIX, b"\0")


def _unpacked(family: int, transport: int, data: bytes) -> tuple[Address, Address]:
    if family == UNIX:
        scheme = "unix" if transport == STREAM else "unixgram"
        halves: Any = (data[:MAX_UNIX], data[MAX_UNIX:])
        source, destination = (Address.from_sockaddr(scheme, AF_UNIX, _path(half)) for half in halves)
        return source, destination
    scheme = "tcp" if transport == STREAM else "udp"
    size = 4 if family == INET else 16
    ports = struct.unpack_from("!HH", data, 2 * size)
    return (
        Address.from_packed(scheme, data[:size], ports[0]),
        Address.from_packed(scheme, data[size : 2 * size], ports[1]),
    )


def _path(data: bytes) -> bytes:
    """Return the path in sun_path: up to a NUL, or where that comes first an abstract name (unix(7))."""
    if data.startswith(b"\0"):
        return data.rstrip(b"\0")
    return data.partition(b"\0")[0]


@functools.cache
def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return tuple(table)


def crc32c(data: bytes) -> int:
    """Return the CRC-32 by Castagnoli of `data` (RFC 4960, appendix B)."""
    table = _crc_table()
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
