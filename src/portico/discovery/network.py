"""The network interfaces that multicast DNS runs over, and the zeroconf library upon them."""

import asyncio
import errno
import ipaddress
import socket
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from portico.errors import BindError, ConfigurationError, UnsupportedError, describe
from portico.transports.holders import port_holder

if TYPE_CHECKING:
    from zeroconf.asyncio import AsyncZeroconf

IP: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: TypeAlias = ipaddress.IPv4Interface | ipaddress.IPv6Interface

_PORT: Final = 5353  # RFC 6762 section 3
_WHERE: Final = f"udp://*:{_PORT}"

# netdevice(7), linux/if.h
_SIOCGIFFLAGS: Final = 0x8913
_IFF_UP, _IFF_POINTOPOINT, _IFF_MULTICAST = 0x1, 0x10, 0x1000
_IFREQ: Final = struct.Struct("16sH22x")


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface and its addresses.

    :ivar is_default: whether it is used without being named: up, carries multicast, and leads to a network rather than
        to one peer (tunnels are left out, as Avahi does)."""

    name: str
    index: int
    networks: tuple[Network, ...]
    is_loopback: bool
    is_default: bool

    def has(self, ip: IP) -> bool:
        """Whether `ip` is an address of it."""
        return any(each.ip == ip for each in self.networks)

    def reaches(self, ip: IP) -> bool:
        """Whether `ip` is of a network that it is on, so that no router is needed."""
        return any(ip in each.network for each in self.networks)


def need_zeroconf() -> None:
    """Check that the library is there.

    :raises UnsupportedError: it is not"""
    try:
        import ifaddr
        import zeroconf
    except ImportError as error:
        raise UnsupportedError(
            "discovery needs the zeroconf library; install it with: pip install 'portico[discovery]'"
        ) from error
    del ifaddr, zeroconf


def network_interfaces() -> list[Interface]:
    """The interfaces of this machine that have an address."""
    import ifaddr

    found = []
    for adapter in ifaddr.get_adapters():
        networks = tuple(
            ipaddress.ip_interface(f"{each.ip if isinstance(each.ip, str) else each.ip[0]}/{each.network_prefix}")
            for each in adapter.ips
        )
        loopback = any(each.ip.is_loopback for each in networks)
        usual = loopback or _leads_to_a_network(adapter.name)
        found.append(Interface(adapter.name, adapter.index or 0, networks, loopback, usual))
    return found


def _leads_to_a_network(name: str) -> bool:
    if sys.platform != "linux":
        return True
    from fcntl import ioctl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            answer = ioctl(sock, _SIOCGIFFLAGS, _IFREQ.pack(name.encode()[:15], 0))
        except OSError:  # it went away
            return False
    flags: int = _IFREQ.unpack(answer)[1]
    return flags & (_IFF_UP | _IFF_MULTICAST | _IFF_POINTOPOINT) == _IFF_UP | _IFF_MULTICAST


def chosen(wanted: Sequence[str] | None) -> list[Interface]:
    """Return the interfaces called so, by their name or by an address of theirs; None: all that are in use by default.

    :raises ConfigurationError: there is none called so"""
    there = network_interfaces()
    if wanted is None:
        return [each for each in there if each.is_default]
    if isinstance(wanted, str):
        raise ConfigurationError(f'interfaces={wanted!r} is one string; write a list: interfaces=["{wanted}"]')
    result = []
    for text in wanted:
        ip = _ip(text)
        named = [each for each in there if each.name == text or (ip is not None and each.has(ip))]
        if not named:
            names = ", ".join(each.name for each in there)
            raise ConfigurationError(f"this machine has no network interface {text!r} with an address; it has: {names}")
        result += [each for each in named if each not in result]
    return result


def _ip(text: str) -> IP | None:
    try:
        return ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None


async def opened(on: Iterable[Interface]) -> "AsyncZeroconf":
    """Begin to speak multicast DNS on these interfaces, over IPv4 and IPv6 as they have it; on loopback IPv4 alone.

    :raises BindError: the port 5353 cannot be had"""
    from zeroconf import Error, IPVersion
    from zeroconf.asyncio import AsyncZeroconf

    four: list[str | int] = []
    six: list[str | int] = []
    for each in on:
        versions = {network.version: str(network.ip) for network in reversed(each.networks)}
        if 4 in versions:
            four.append(versions[4])
        if 6 in versions and not each.is_loopback:
            six.append(each.index)
    version = IPVersion.All if four and six else IPVersion.V6Only if six else IPVersion.V4Only
    _need_port()
    try:
        mdns = AsyncZeroconf(interfaces=[*four, *six], ip_version=version)
    except (OSError, RuntimeError) as error:  # an interface went away just now
        code = error.errno if isinstance(error, OSError) and error.errno is not None else errno.ENODEV
        raise BindError(code, describe(error), _WHERE) from error
    try:
        await mdns.zeroconf.async_wait_for_start()
    except BaseException as error:
        await closed(mdns)
        if isinstance(error, Error):
            raise BindError(errno.EIO, "multicast DNS did not start", _WHERE) from error
        raise
    return mdns


def _need_port() -> None:
    """Check that the port can be shared, before the library tries: it would log that, and leave a socket behind.

    :raises BindError: it cannot"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind(("", _PORT))
        except OSError as error:
            holder = port_holder(_PORT, "udp")
            hint = "it has to let others use the port, too" if error.errno == errno.EADDRINUSE else ""
            raise BindError(error.errno or errno.EIO, describe(error), _WHERE, holder=holder, hint=hint) from error


async def closed(mdns: "AsyncZeroconf") -> None:
    """Take back what was announced, which takes a quarter of a second, and close the sockets.

    The good-bye (RFC 6762 section 10.1) is said three times; cancelled, as often as there was time, at least once."""
    try:
        await mdns.async_unregister_all_services()
    finally:
        cancelled: asyncio.CancelledError | None = None
        closing = asyncio.ensure_future(mdns.async_close())
        while not closing.done():
            try:
                await asyncio.wait((closing,))
            except asyncio.CancelledError as error:
                cancelled = error
            if closing.cancelled() and not mdns.zeroconf.done:  # a loop that ends cancels every task, this one, too
                closing = asyncio.ensure_future(mdns.async_close())
        if cancelled is not None:
            raise cancelled
        if not closing.cancelled():
            closing.result()
