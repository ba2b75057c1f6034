"""A socket of packets whose peer is not one alone: a multicast group, a broadcast address, a protocol, an interface."""

import ipaddress
from collections.abc import AsyncIterator
from typing import Any

from portico.address import Address
from portico.transports.datagrams import Datagrams, datagrams
from portico.transports.resolve import resolve


def is_group(address: Address) -> bool:
    """Whether packets for `address` go to a multicast group."""
    return address.scheme == "udp" and address.is_numeric and ipaddress.ip_address(address.host or "::").is_multicast


class Crowd:
    """What anybody sends comes out here, and what goes in is sent to one address, or nowhere where there is none."""

    def __init__(self, packets: Datagrams, to: Address | None) -> None:
        self._packets, self.to = packets, to
        self.scheme = packets.scheme
        self.sender = ""
        """Who has sent what was received last."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for packet in self._packets:
            self.sender = str(packet.address)
            yield packet.data

    async def send(self, data: bytes) -> None:
        """Send a packet.

        :raises DeliveryError: it was refused, or an earlier one was not delivered"""
        assert self.to is not None
        await self._packets.send(data, self.to)

    @property
    def local_address(self) -> Address:
        """Where the socket is bound."""
        return self._packets.local_address

    @property
    def remote_address(self) -> Address:
        """Whom it sends to, or where it listens."""
        return self.to or self.local_address

    async def flush(self) -> None:
        """Wait until all has left."""
        await self._packets.flush()

    async def close(self) -> None:
        """Let what was sent leave, then close the socket."""
        await self._packets.close()

    def abort(self) -> None:
        """Close the socket now."""
        self._packets.abort()

    async def wait_closed(self) -> None:
        """Wait until the socket is closed."""
        await self._packets.wait_closed()


async def hear(address: Address, interface: str | None) -> Crowd:
    """Listen to everybody who sends to `address`: a group, which is joined and sent to, or all that raw and link-layer
    sockets hear, who send nothing.

    :raises ConfigurationError: there is no such interface
    :raises BindError: the address cannot be had
    :raises PrivilegeError: only privileged programs may hear that"""
    if not is_group(address):
        return Crowd(await datagrams(address), None)
    interface = interface or address.scope or None
    options = {"reuse_address": True, **_leaving_by(address, interface)}  # as many as like may hear a group
    packets = await datagrams(address, options=options)
    try:
        packets.join(address.host, interface=interface)
    except BaseException:
        packets.abort()
        raise
    return Crowd(packets, address)


async def speak(address: Address, source: str | None, interface: str | None, *, broadcast: bool) -> Crowd:
    """Send to a group or broadcast address, and hear whoever answers.

    :raises ConfigurationError: there is no such interface
    :raises BindError: the source address cannot be had
    :raises ResolveError: the name is unknown"""
    if not address.is_numeric:
        address = (await resolve(address))[0]
    options: dict[str, Any] = _leaving_by(address, interface or address.scope or None) if is_group(address) else {}
    if broadcast:
        options["broadcast"] = True
    where = Address("udp", "::" if ":" in address.host else "0.0.0.0", 0)
    if source is not None:
        from portico.client.connect import local

        where = local(source).replace(scheme="udp")
    return Crowd(await datagrams(where, options=options), address)


def _leaving_by(group: Address, interface: str | None) -> dict[str, Any]:
    if interface is None:
        return {}
    return {"multicast_interface_v6" if ":" in group.host else "multicast_interface": interface}
