"""Where a socket lives: `tcp://[::1]:80`, `unix:/run/x.sock`, `udp://*:5353`, `mem:name`.

Which schemes there are is one table, `SCHEMES`; how each is written stands in `portico.address_grammar`.
"""

import dataclasses
import ipaddress
import os
import socket
from dataclasses import dataclass
from typing import Any, TypeAlias

from portico.address_grammar import (
    MAX_FLOW,
    MAX_UNIX,
    VMADDR_ANY,
    VMADDR_CID_LOCAL,
    Parts,
    checked,
    fail,
    looks_numeric,
    read,
    scheme_called,
    scheme_of,
    written,
)
from portico.schemes import SCHEMES, Scheme, register_scheme

__all__ = [
    "AF_PACKET",
    "AF_UNIX",
    "AF_VSOCK",
    "MAX_UNIX",
    "SCHEMES",
    "Address",
    "Scheme",
    "SockAddr",
    "register_scheme",
]

SockAddr: TypeAlias = tuple[str, int] | tuple[str, int, int, int] | tuple[int, int] | str

# AF_UNSPEC where the platform has no such sockets: Windows has none of them, only Linux has the last two
AF_UNIX: socket.AddressFamily = getattr(socket, "AF_UNIX", socket.AF_UNSPEC)
AF_PACKET: socket.AddressFamily = getattr(socket, "AF_PACKET", socket.AF_UNSPEC)
AF_VSOCK: socket.AddressFamily = getattr(socket, "AF_VSOCK", socket.AF_UNSPEC)

_IPV6_ICMP = 58  # RFC 4443: the protocol that IPv4 has not


@dataclass(frozen=True, slots=True)
class Address:
    """Where a socket lives; `Address.parse(str(address)) == address`.

    :ivar scheme: a name in `SCHEMES`.
    :ivar host: "" for every interface, an IP address as inet_ntop(3) writes it, or a name in lower case. A name with
        letters outside ASCII is kept in its IDNA 2003 form (`xn--...`), which is what is looked up. Of `packet`: the
        name of the network interface; of `vsock`: the context identifier as a decimal number.
    :ivar port: 0 to 65535, 0 for any free one. Of `vsock` 0 to 4294967294; of `raw` the protocol above IP, 0 to 255;
        of `packet` the ethertype, 0 to 65535, where 3 is every type. None for what has a path only.
    :ivar path: of `unix`, `unixgram` and `unixpacket`: the path, "@name" if abstract, "" if the socket has none; of
        `fifo` and `device`: the path; the name of `mem`; path and query of a URL (of `ws+unix` and `http+unix`, too,
        whose `host` is the path of the socket).
    :ivar flow: IPv6 flow label, 0 to 1048575.
    :ivar scope: IPv6 zone, the name ("eth0") or the number ("2") of an interface.
    :raises AddressError: if a part cannot be so; its `position` counts within that part.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    path: str = ""
    flow: int = 0
    scope: str = ""

    def __post_init__(self) -> None:
        parts = checked(scheme_called(self.scheme, self.scheme), self._parts())
        for name, value in parts._asdict().items():
            object.__setattr__(self, name, value)

    @classmethod
    def parse(cls, text: "str | Address", default_scheme: str | None = None) -> "Address":
        """Read an address as a person writes it; an `Address` is given back as it is.

        Without a scheme, what begins with `/`, `./`, `../` or `@` is a Unix socket, anything else is of
        `default_scheme`, which is `tcp` if not given.

        :raises AddressError: if it does not parse; its `position` is where in `text` it goes wrong.
        """
        if isinstance(text, Address):
            return text
        if not text:
            fail("the address is empty", "")
        scheme, start = scheme_of(text, default_scheme)
        return cls(scheme.name, *read(scheme, text, start))

    def __str__(self) -> str:
        return written(SCHEMES[self.scheme], self._parts())

    def _parts(self) -> Parts:
        return Parts(self.host, self.port, self.path, self.flow, self.scope)

    # -- what the socket calls take

    @property
    def family(self) -> socket.AddressFamily | None:
        """The address family of its sockets; None for a name, and for `mem`, `fifo` and `device`.

        Every interface is `AF_INET6`, of which one socket takes IPv4, too. Raw sockets do not (raw(7)): there it is
        `AF_INET`, or `AF_INET6` for the protocol ipv6-icmp; write 0.0.0.0 or [::] to choose.
        """
        scheme = SCHEMES[self.scheme]
        if not scheme.is_internet:
            return {"path": AF_UNIX, "pathurl": AF_UNIX, "device": AF_PACKET, "cid": AF_VSOCK}.get(scheme.parts)
        if not self.host and scheme.parts == "protocol" and self.port != _IPV6_ICMP:
            return socket.AF_INET
        if not self.host or ":" in self.host:
            return socket.AF_INET6
        return socket.AF_INET if looks_numeric(self.host) else None

    @property
    def sockaddr(self) -> SockAddr:
        """What bind(2) and connect(2) of Python's `socket` take.

        Of `packet` it is the pair of interface and ethertype; one without an interface cannot be bound, but a packet
        socket that is not bound hears every interface anyway (packet(7)). Of `raw` the port is 0, as raw(7) wants it.

        :raises AddressError: if it is a name (resolve it first), of a scheme without socket addresses (`mem`, `fifo`,
            `device`), or of a scope unknown here.
        """
        parts, port = SCHEMES[self.scheme].parts, self.port or 0
        if parts in ("path", "pathurl"):
            path = self.path if parts == "path" else self.host
            return "\0" + path[1:] if path.startswith("@") else path
        if parts == "device":
            return (self.host, port)
        if parts == "cid":
            return (int(self.host) if self.host else VMADDR_ANY, port or VMADDR_ANY)
        if parts == "protocol":
            port = 0
        ip = self._numeric_host()
        return (ip, port, self.flow, self._scope_id()) if ":" in ip else (ip, port)

    @property
    def packed(self) -> bytes:
        """The 4 or 16 bytes of the IP address, in network order (inet_pton(3)).

        :raises AddressError: if it is not numeric, or not of the internet.
        """
        ip = self._numeric_host()
        return socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)

    @classmethod
    def from_sockaddr(cls, scheme: str, family: int, sockaddr: tuple[Any, ...] | str | bytes | None) -> "Address":
        """Make the address out of what getsockname(2), accept(2), recvfrom(2) or getaddrinfo(3) gave.

        The kernel does not tell the protocol with each packet of a raw socket (raw(7)): it is 0 then.

        :raises AddressError: if `family` is none that `scheme` can have, or the parts are not addresses.
        """
        known = scheme_called(scheme, scheme)
        if family == AF_UNIX and known.parts == "path" and not isinstance(sockaddr, tuple):
            # not checked for length: Linux lets others bind 108 bytes without a NUL, and their peers get to see it
            return _unchecked(cls, scheme, path=_path_from_kernel(sockaddr or ""))
        if isinstance(sockaddr, tuple):
            if family in (socket.AF_INET, socket.AF_INET6) and known.is_internet:
                host, port, *rest = sockaddr
                if not rest:
                    return cls(scheme, host, port)
                flow, index = rest
                scope = "" if not index or "%" in host else _interface(index)
                return cls(scheme, host, port, flow=flow & MAX_FLOW, scope=scope)
            if family == AF_PACKET and known.parts == "device":
                return cls(scheme, sockaddr[0], sockaddr[1])
            if family == AF_VSOCK and known.parts == "cid":
                cid, port = sockaddr
                return cls(scheme, "" if cid == VMADDR_ANY else str(cid), port)
        fail(f"no {scheme} address has the socket address family {family} with {sockaddr!r}", scheme)

    @classmethod
    def from_packed(cls, scheme: str, data: bytes, port: int) -> "Address":
        """Make the address out of the 4 or 16 bytes of an IP address (inet_ntop(3)).

        :raises AddressError: if `data` has another length.
        """
        if len(data) not in (4, 16):
            fail(f"an IP address has 4 or 16 bytes, not {len(data)}", data.hex())
        return cls(scheme, socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data), port)

    def _numeric_host(self) -> str:
        """The IP address, with every interface as one."""
        scheme = SCHEMES[self.scheme]
        if scheme.parts == "file":
            fail(f"a {scheme.name} is opened as a file, it has no socket address", str(self))
        if not scheme.is_internet:
            fail("there is no IP address in it", str(self))
        if self.family is None:
            fail(f"{self.host!r} is a name; resolve it first", str(self))
        return self.host or ("::" if self.family == socket.AF_INET6 else "0.0.0.0")

    def _scope_id(self) -> int:
        if not self.scope or self.scope.isdigit():
            return int(self.scope or 0)
        try:
            return socket.if_nametoindex(self.scope)
        except OSError:
            text = str(self)
            fail(f"this machine has no network interface {self.scope!r}", text, text.index("%") + 1)

    @property
    def carrier(self) -> "Address":
        """The address of the connection beneath: `tls://host:443` for `wss://host/chat`; else this one itself."""
        scheme = SCHEMES[self.scheme]
        if not scheme.carrier:
            return self
        if scheme.parts == "pathurl":
            return Address(scheme.carrier, path=self.host)
        return Address(scheme.carrier, self.host, self.port, flow=self.flow, scope=self.scope)

    # -- who can reach it

    @property
    def is_numeric(self) -> bool:
        """Whether nobody needs to be asked where it is: everything but names."""
        return not SCHEMES[self.scheme].is_internet or self.family is not None

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every interface: no host, `0.0.0.0` or `::`; of `vsock` every context identifier."""
        scheme, ip = SCHEMES[self.scheme], self._ip()
        if ip is None:
            return not self.host and not scheme.is_path and scheme.parts != "pathurl"
        return ip.is_unspecified

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it: 127.0.0.0/8, ::1, `localhost`, CID 1 of `vsock`, and all paths."""
        scheme, ip = SCHEMES[self.scheme], self._ip()
        if ip is not None:
            return ip.is_loopback
        if scheme.is_internet:
            return self.host in ("localhost", "localhost.")
        if scheme.is_path or scheme.parts == "pathurl":
            return True
        return scheme.parts == "cid" and self.host == str(VMADDR_CID_LOCAL)

    @property
    def is_private(self) -> bool:
        """Whether the internet cannot reach it: what the IANA registries do not route, what is loopback, and `vsock`.

        A name other than `localhost` is neither private nor public until it is resolved; a wildcard is neither, too,
        nor is a network interface.
        """
        ip = self._ip()
        if ip is None:
            return self.is_loopback or (SCHEMES[self.scheme].parts == "cid" and not self.is_wildcard)
        return ip.is_private and not ip.is_unspecified

    @property
    def is_public(self) -> bool:
        """Whether the internet can reach it, as far as the address tells; always False for a name and a wildcard."""
        ip = self._ip()
        return ip is not None and ip.is_global and not ip.is_unspecified

    def _ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        if not SCHEMES[self.scheme].is_internet or not self.is_numeric:
            return None
        ip = ipaddress.ip_address(self.host or "::")
        return ip.ipv4_mapped or ip if isinstance(ip, ipaddress.IPv6Address) else ip

    # -- others like it

    def with_port(self, port: int) -> "Address":
        """The same with another port."""
        return self.replace(port=port)

    def replace(self, **changes: Any) -> "Address":
        """The same with other parts, by the names of the fields.

        :raises AddressError: if the whole cannot be so.
        """
        return dataclasses.replace(self, **changes)


def _unchecked(cls: type[Address], scheme: str, *, path: str) -> Address:
    """An address of a path that the kernel has taken."""
    address = object.__new__(cls)
    for name, value in {"scheme": scheme, **Parts(path=path)._asdict()}.items():
        object.__setattr__(address, name, value)
    return address


def _path_from_kernel(path: str | bytes) -> str:
    try:
        data = os.fsencode(path)
    except UnicodeEncodeError as error:
        fail("not a path", str(path), error.start)
    if data[:1] == b"\0":
        return "@" + os.fsdecode(data[1:])
    return os.fsdecode(b"./" + data if data[:1] == b"@" else data)


def _interface(index: int) -> str:
    """The name of interface `index`, or its number when it has none (any more)."""
    try:
        return socket.if_indextoname(index)
    except (OSError, OverflowError):
        return str(index)
