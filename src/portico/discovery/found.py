"""`Found` and `Lost`: what there is on the network, and was."""

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from portico.address import Address
from portico.client.connect import Connecting, connect
from portico.discovery.names import LOCAL, SCHEME, is_for, is_udp, read_properties
from portico.discovery.network import IP, Interface
from portico.errors import AddressError

if TYPE_CHECKING:
    from zeroconf import ServiceInfo


@dataclass(frozen=True, slots=True)
class Found:
    """A service on the network, as it is announced: nothing of it is proven.

    :ivar name: what people call it: any text.
    :ivar type: its service type, such as `_http._tcp`.
    :ivar host: the name of the machine, such as `attic.local`.
    :ivar addresses: where it listens, best first: what is on a network of this machine's, link-local addresses, what is
        behind a router. The scheme is the one that the announcement tells, else `tcp` or `udp` as the type says.
    :ivar interface: the network interface that leads to the first address; "" if that is behind a router.
    :ivar properties: the TXT record, keys in lower case; None is a key without value. Bytes that are not UTF-8
        are kept as surrogates.
    """

    name: str
    type: str
    host: str
    addresses: tuple[Address, ...]
    interface: str = ""
    properties: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def address(self) -> Address:
        """The host by its name, or the only address it has; the name is known to multicast DNS alone, so to `connect`
        from here, and to whom passes `resolver=found`."""
        if len(self.addresses) > 1:
            try:
                return self.addresses[0].replace(host=self.host, scope="")
            except AddressError:
                pass  # not every host name of the network is one of the internet's
        return self.addresses[0]

    def connect(self, **settings: Any) -> Connecting[Any]:
        """Connect to it as `portico.connect` does: all its addresses are raced; `settings` are the same, too.

        :raises ConnectError: on connecting, if no connection came about"""
        return connect(self.address, resolver=self, **settings)

    async def resolve(self, address: Address, *, family: int = 0) -> Sequence[Address]:
        """Give its addresses, as a `Resolver` for its host name."""
        found = [each for each in self.addresses if family in (0, each.family)]
        if not found or address.host != self.address.host:
            raise socket.gaierror(socket.EAI_NONAME, f"{self.name!r} has no such address")
        return [address.replace(host=each.host, scope=each.scope) for each in found]

    async def name_of(self, address: Address) -> tuple[str, str]:
        """Give its host name for an address of its own."""
        if address not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, f"not an address of {self.name!r}")
        return self.host, str(address.port)


@dataclass(frozen=True, slots=True)
class Lost:
    """A service that went away: it said so, or nobody has renewed it (75 minutes, RFC 6762 section 10).

    :ivar found: what was told of it last."""

    found: Found

    @property
    def name(self) -> str:
        """What people call it."""
        return self.found.name


def found(info: "ServiceInfo", service_type: str, on: Sequence[Interface]) -> Found | None:
    """Return what was found out, None if nobody can connect to that.

    :param on: the interfaces that it was found on"""
    if not info.port:
        return None  # it keeps a name and serves nothing (RFC 6763 section 8)
    properties = read_properties(info.properties)
    scheme = properties.get(SCHEME) or ""
    if not is_for(scheme, service_type):
        scheme = "udp" if is_udp(service_type) else "tcp"
    ranked = sorted(
        (_rank(ip, on), ip.version == 4, position, ip)
        for position, ip in enumerate(_scoped(each, on) for each in info.parsed_scoped_addresses())
        if _leads_somewhere(ip)
    )
    ips = [ip for *_, ip in ranked]
    if any(not ip.is_loopback for ip in ips):
        ips = [ip for ip in ips if not ip.is_loopback]  # another machine's would lead to this one
    if not ips:
        return None
    addresses = tuple(_address(scheme, ip, info.port) for ip in ips)
    host = (info.server or "").removesuffix(".")
    leading = next((each.name for each in on if each.reaches(_bare(ips[0]))), "")
    interface = addresses[0].scope or leading
    name = info.name[: -len(service_type + LOCAL) - 1]
    return Found(name, service_type, host, addresses, interface, properties)


def _scoped(text: str, on: Sequence[Interface]) -> IP:
    """Return the IP address, with its zone where that is known, or only one can be meant."""
    ip = ipaddress.ip_address(text)
    networks = [each for each in on if not each.is_loopback]
    if isinstance(ip, ipaddress.IPv6Address) and ip.is_link_local and not ip.scope_id and len(networks) == 1:
        return ipaddress.IPv6Address(f"{ip}%{networks[0].index}")
    return ip


def _leads_somewhere(ip: IP) -> bool:
    """Whether it can be connected to; connecting to the unspecified address would lead to this machine."""
    if ip.is_unspecified or ip.is_multicast or (isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None):
        return False
    return not (isinstance(ip, ipaddress.IPv6Address) and ip.is_link_local and not ip.scope_id)


def _rank(ip: IP, on: Sequence[Interface]) -> int:
    if ip.is_link_local:
        return 1
    return 0 if any(each.reaches(_bare(ip)) for each in on) else 2


def _bare(ip: IP) -> IP:
    """The same without its zone."""
    return ipaddress.ip_address(ip.packed)


def _address(scheme: str, ip: IP, port: int) -> Address:
    if isinstance(ip, ipaddress.IPv4Address):
        return Address(scheme, str(ip), port)
    index = int(ip.scope_id) if ip.scope_id and ip.is_link_local else 0
    return Address.from_sockaddr(scheme, socket.AF_INET6, (str(_bare(ip)), port, 0, index))
