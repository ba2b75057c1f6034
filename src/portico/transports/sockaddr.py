"""Between the kernel's struct sockaddr, Python's addresses of sockets, and `Address`."""

import os
import socket
import struct
import sys
from typing import Any, Final

from portico.address import AF_UNIX, Address

_IN: Final = struct.Struct("=H2s4s")
_IN6: Final = struct.Struct("=H2sI16sI")
_LL: Final = struct.Struct("=HHiHBB8s")  # packet(7)
_VM: Final = struct.Struct("=HHII")  # vsock(7)
_AF_PACKET: Final = getattr(socket, "AF_PACKET", -1)
_AF_VSOCK: Final = getattr(socket, "AF_VSOCK", -1)


def packed_sockaddr(family: int, address: Any) -> bytes:
    """Return the struct sockaddr (as Linux has it) of Python's `address`; an unnamed Unix one is the family alone."""
    if family == socket.AF_INET and isinstance(address, tuple):
        return _IN.pack(family, address[1].to_bytes(2, "big"), socket.inet_pton(family, address[0])) + bytes(8)
    if family == socket.AF_INET6 and isinstance(address, tuple):
        host, _, _ = address[0].partition("%")
        port, flow = address[1].to_bytes(2, "big"), socket.htonl(address[2])
        return _IN6.pack(family, port, flow, socket.inet_pton(family, host), address[3])
    if family == _AF_PACKET and isinstance(address, tuple):
        index = socket.if_nametoindex(address[0]) if address[0] else 0
        hardware = address[4] if len(address) > 4 else b""
        kinds = (address[3] if len(address) > 3 else 0, address[2] if len(address) > 2 else 0)
        return _LL.pack(family, socket.htons(address[1]), index, *kinds, len(hardware), hardware)
    if family == _AF_VSOCK and isinstance(address, tuple):
        return _VM.pack(family, 0, address[1], address[0]) + bytes(4)
    path = os.fsencode(address) if isinstance(address, str | bytes) else b""
    ending = b"\0" if path and not path.startswith(b"\0") else b""
    return family.to_bytes(2, sys.byteorder) + path + ending


def from_kernel(scheme: str, packed: bytes) -> Address:
    """Return the address in a struct sockaddr of the kernel's."""
    family = int.from_bytes(packed[:2], sys.byteorder)
    if family == socket.AF_INET:
        port = int.from_bytes(packed[2:4], "big")
        return Address.from_sockaddr(scheme, family, (socket.inet_ntop(family, packed[4:8]), port))
    if family == socket.AF_INET6:
        port, flow = int.from_bytes(packed[2:4], "big"), int.from_bytes(packed[4:8], "big")
        scope = int.from_bytes(packed[24:28], sys.byteorder)
        return Address.from_sockaddr(scheme, family, (socket.inet_ntop(family, packed[8:24]), port, flow, scope))
    if family == _AF_PACKET:
        _, protocol, index, hardware_kind, kind, size, hardware = _LL.unpack(packed[: _LL.size].ljust(_LL.size, b"\0"))
        try:
            name = socket.if_indextoname(index)
        except OSError:
            name = ""
        parts = (name, socket.ntohs(protocol), kind, hardware_kind, hardware[:size])
        return Address.from_sockaddr(scheme, family, parts)
    if family == _AF_VSOCK:
        _, _, port, cid = _VM.unpack(packed[: _VM.size])
        return Address.from_sockaddr(scheme, family, (cid, port))
    path = packed[2:]
    if path[:1] == b"\0":
        return Address.from_sockaddr(scheme, AF_UNIX, path)
    return Address.from_sockaddr(scheme, AF_UNIX, path.rstrip(b"\0").decode(errors="surrogateescape"))
