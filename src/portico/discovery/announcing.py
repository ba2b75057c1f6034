"""`announce`: a listener becomes known to the local network, and is taken back in the end."""

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from portico.address import Address
from portico.discovery import names
from portico.discovery.network import Interface, chosen, closed, need_zeroconf, opened
from portico.errors import ConfigurationError, describe
from portico.server.service import Server
from portico.transports.resolve import resolve

if TYPE_CHECKING:
    from zeroconf import ServiceInfo

Announced: TypeAlias = Server | Address | str | Iterable[Address | str]


def announce(
    what: Announced,
    service_type: str,
    *,
    name: str | None = None,
    properties: Mapping[str, str | None] | None = None,
    interfaces: Sequence[str] | None = None,
) -> "Announcement":
    """Announce where something listens: `async with announce(server, "_portico-chat._tcp", name="our chat") as it:`.

    Entering takes about 1.2 s, in which the name is asked for; who has it already keeps it, and this one becomes
    `our chat-2` (RFC 6762 sections 8 and 9): `it.name` tells. Leaving takes it back, so that everybody forgets it at
    once. A name that turns out to be double later, when two networks are joined, stays double.

    A listener on every interface is announced with the addresses of the interfaces that it is announced on; one on
    loopback is announced on loopback, so on this machine alone, and left out where there are others. Link-local
    addresses are told when there is one interface only, for they mean nothing on another.

    :param what: a server, whose addresses are all announced as far as they fit the type, or an address, or several.
        Each scheme and port becomes a service of its own; the second and further ones have the scheme behind the name.
    :param service_type: `_name._tcp`, or `_name._udp` for those of packets (RFC 6763 section 7).
    :param name: what people call it, up to 63 bytes and without dots. Default: the name of this machine.
    :param properties: the TXT record, up to 1300 bytes; None is a key without a value. `scheme` is added if it is not
        among them.
    :param interfaces: names ("eth0") or addresses of the interfaces to announce it on. Default: all that are up, carry
        multicast and lead to a network that the listener can be reached from; those that come up later do not.
    :raises ConfigurationError: at once or on entering, if something of this cannot be
    :raises UnsupportedError: at once, if the zeroconf library is not installed
    :raises BindError: on entering, if the port of multicast DNS, 5353, cannot be had
    :raises ResolveError: on entering, if a name among the addresses is unknown
    """
    need_zeroconf()
    kind = names.service_type(service_type, own=True)
    title = names.checked_name(names.default_name() if name is None else name)
    names.written_properties(properties or {})
    return Announcement(what, kind, title, properties or {}, interfaces)


class Announcement:
    """What `announce` returns: a context that lasts as long as the service is known."""

    def __init__(
        self,
        what: Announced,
        service_type: str,
        name: str,
        properties: Mapping[str, str | None],
        interfaces: Sequence[str] | None,
    ) -> None:
        self.type = service_type
        self._what, self._name, self._properties, self._wanted = what, name, properties, interfaces
        self._infos: list[ServiceInfo] = []
        self.interfaces: tuple[str, ...] = ()
        """The names of the interfaces that it is announced on."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the services are called in the end."""
        return tuple(info.name[: -len(self.type + names.LOCAL) - 1] for info in self._infos)

    @property
    def name(self) -> str:
        """The first of `names`."""
        return self.names[0]

    async def __aenter__(self) -> "Announcement":
        doors = await _doors(self._what, self.type)
        on = _where(doors, self._wanted)
        self._infos = self._described(doors, on)
        self._mdns = await opened(on)
        try:
            async with asyncio.TaskGroup() as group:
                registering = [
                    group.create_task(self._mdns.async_register_service(info, allow_name_change=True))
                    for info in self._infos
                ]
        except BaseException as error:
            await closed(self._mdns)
            if isinstance(error, BaseExceptionGroup):
                raise _mapped(error.exceptions[0], self._name) from error.exceptions[0]
            raise
        self._repeating = [asyncio.ensure_future(task.result()) for task in registering]
        self.interfaces = tuple(each.name for each in on)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._repeating:  # it says three times that the service is there; not after it has gone
            task.cancel()
        await closed(self._mdns)

    def _described(self, doors: list[Address], on: list[Interface]) -> "list[ServiceInfo]":
        """Return one service for each scheme and port."""
        from zeroconf.asyncio import AsyncServiceInfo

        told: dict[tuple[str, int], dict[str, None]] = {}
        for door in doors:
            told.setdefault((door.scheme, door.port or 0), {}).update(dict.fromkeys(_reached_at(door, on)))
        taken = set[str]()
        hosts: dict[tuple[str, ...], str] = {}  # a host has the addresses of all services that are on it
        infos: list[ServiceInfo] = []
        for (scheme, port), ips in told.items():
            title = next(each for each in _titles(self._name, scheme, port) if each not in taken)
            taken.add(names.checked_name(title))
            properties = names.written_properties({names.SCHEME: scheme, **self._properties})
            infos.append(
                AsyncServiceInfo(
                    self.type + names.LOCAL,
                    f"{title}.{self.type}{names.LOCAL}",
                    port,
                    properties=properties,
                    server=hosts.setdefault(tuple(ips), names.own_host()),
                    parsed_addresses=list(ips),
                )
            )
        return infos


def _titles(name: str, scheme: str, port: int) -> list[str]:
    return [name, f"{name} ({scheme})", f"{name} ({scheme} {port})"]


def _mapped(error: BaseException, name: str) -> BaseException:
    """Return the error of ours for one of the library's."""
    from zeroconf import Error

    if isinstance(error, Error):
        return ConfigurationError(f"{name!r} cannot be announced: {describe(error)}")
    return error


async def _doors(what: Announced, service_type: str) -> list[Address]:
    """Return the numeric addresses that are announced under that type; loopback ones only where there are no others."""
    if isinstance(what, Server):
        given = listened(what)
    else:
        given = [Address.parse(each) for each in ([what] if isinstance(what, Address | str) else what)]
    fitting = [each for each in given if names.is_for(each.scheme, service_type)]
    if not fitting:
        there = ", ".join(map(str, given)) or "nothing"
        want = "packets, such as udp" if names.is_udp(service_type) else "streams on the internet, such as tcp and tls"
        raise ConfigurationError(f"{there} cannot be announced as {service_type}, which is for addresses of {want}")
    for each in fitting:
        if not each.port:
            raise ConfigurationError(f"{each} cannot be announced: give it the port that it listens on")
    numeric = [each for one in fitting for each in ([one] if one.is_numeric else await resolve(one))]
    return [each for each in numeric if not each.is_loopback] or numeric


def listened(server: Server) -> list[Address]:
    """Return the addresses of a server; every interface has no host where one socket serves IPv4, too."""
    return [
        each.replace(host="") if each.host == "::" and not listener.spec.address.host else each
        for listener in server.listeners
        for each in listener.addresses
    ]


def _where(doors: list[Address], wanted: Sequence[str] | None) -> list[Interface]:
    """Return the interfaces through which the doors can be reached, as far as they are wanted."""
    near = all(door.is_loopback for door in doors)
    there = chosen(wanted)
    if wanted is None:
        # without any network a listener on every interface is reached on loopback alone
        there = [each for each in there if each.is_loopback == near] or there
    on = [each for each in there if any(_reached_at(door, [each], alone=True) for door in doors)]
    if not on:
        which = ", ".join(map(str, doors))
        remedy = f"on {', '.join(wanted)}" if wanted is not None else "on an interface that is up and carries multicast"
        raise ConfigurationError(f"{which} cannot be announced: it is not reached {remedy}")
    return on


def _reached_at(door: Address, on: Sequence[Interface], *, alone: bool = False) -> list[str]:
    """Return the IP addresses under which a door is reached through these interfaces.

    :param alone: ask whether each of them reaches it at all, link-local addresses included."""
    if not door.is_wildcard:
        ip = ipaddress.ip_address(door.host)
        known = [each for each in on if each.has(ip) or (ip.is_loopback and each.is_loopback)]
        return [door.host] if known else []
    versions = {"": (4, 6), "0.0.0.0": (4,)}.get(door.host, (6,))
    ips = [network.ip for each in on for network in each.networks if network.version in versions]
    local = alone or len(on) == 1
    return [str(ip) for ip in ips if local or not (ip.version == 6 and ip.is_link_local)]
