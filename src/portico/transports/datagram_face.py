"""The blocking face of Datagrams, for threads and the interactive prompt."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from portico.address import Address
from portico.errors import BusyError, DeliveryError, PorticoError
from portico.transports.datagrams import Datagrams, DatagramsStats, Packet
from portico.transports.faces import BlockingFace

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from portico.transports.ancillary import Ancillary

__all__ = ["BlockingDatagrams"]


class BlockingDatagrams(BlockingFace[Datagrams]):
    """Datagrams for threads: the same calls, which return when they are done. Errors are those of Datagrams, and
    TimeoutError or WouldBlock (what came stays to be received)."""

    def __init__(self, connection: Datagrams, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(connection, loop)
        # for calls that were given up at that moment; only the loop touches it
        self._kept: deque[tuple[Packet, list[Ancillary]]] = deque()

    def _whom(self) -> str:
        with contextlib.suppress(PorticoError):
            return str(self.connection.local_address)
        return "a socket that is closed"

    @property
    def stats(self) -> DatagramsStats:
        """The counters of this socket, as they are now."""
        return self.connection.stats

    def recv(self, *, timeout: float | None = None, wait: bool = True) -> Packet:
        """Return the next packet.

        :raises ClosedError: the socket is closed
        :raises BusyError: another thread is receiving
        :raises WouldBlock: without `wait`, if none is there"""

        async def recv() -> Packet:
            return self._kept.popleft()[0] if self._kept else await self.connection.recv()

        return self._call(recv, timeout, doing="receiving at", wait=wait, keep=self._keep)

    def _keep(self, packet: Packet) -> None:
        self._kept.appendleft((packet, []))

    def _check_handed_out(self) -> None:
        if self._kept:
            raise BusyError("an interrupted call left what had come for it: receive that first")

    def recv_with_ancillary(
        self, *, timeout: float | None = None, wait: bool = True
    ) -> "tuple[Packet, list[Ancillary]]":
        """Return the next packet, and what came with it that `Packet` has no field for.

        :raises ClosedError: the socket is closed
        :raises WouldBlock: without `wait`, if none is there"""

        async def recv_with_ancillary() -> "tuple[Packet, list[Ancillary]]":
            return self._kept.popleft() if self._kept else await self.connection.recv_with_ancillary()

        return self._call(recv_with_ancillary, timeout, doing="receiving at", wait=wait, keep=self._kept.appendleft)

    def __iter__(self) -> Iterator[Packet]:
        while True:
            yield self.recv()

    def batches(self, *, timeout: float | None = None) -> Iterator[list[Packet]]:
        """Iterate over lists of all the packets that are there at the time: cheapest at high rates, for each call costs
        a visit to the loop's thread.

        :raises TimeoutError: none came for `timeout` seconds; it ends the iteration"""
        batches = self.connection.batches()

        async def take() -> list[Packet]:
            if self._kept:
                kept = [packet for packet, _ in self._kept]
                self._kept.clear()
                return kept
            return await anext(batches)

        def keep(batch: list[Packet]) -> None:
            for packet in reversed(batch):
                self._keep(packet)

        while True:
            yield self._call(take, timeout, doing="receiving at", keep=keep)

    def send(
        self,
        data: "Buffer",
        to: "Address | str | Packet | None" = None,
        *,
        timeout: float | None = None,
        wait: bool = True,
    ) -> None:
        """Send one packet once there is room for it.

        :param to: an Address, its text, or a Packet to answer; default: whom the socket is connected to.
        :raises DeliveryError: the kernel refused it, or the network has reported that an earlier packet to the same
            address did not arrive (ICMP); the socket goes on
        :raises MessageTooLarge: it is larger than a packet can be, or than the path takes
        :raises AddressError: `to` is a name, or of another kind than the socket
        :raises TimeoutError: it was not sent
        :raises WouldBlock: without `wait`, if there is no room; it was not sent"""

        async def send() -> None:
            if self._is_full():
                await self.connection.flush()
            self.connection.send(data, to)

        self._call(send, timeout, doing="sending from", wait=wait, until=self._flushed)

    def send_many(
        self,
        packets: "Iterable[Buffer] | Iterable[tuple[Buffer, Address | str | Packet]]",
        to: "Address | str | Packet | None" = None,
        *,
        timeout: float | None = None,
        wait: bool = True,
    ) -> None:
        """Send packets in as few system calls as possible: `(data, to)` each, or all to one address: data each, and
        `to`.

        :raises DeliveryError: one of them failed, as for `send`; the others were sent
        :raises MessageTooLarge: one is larger than a packet can be; those before it were sent
        :raises TimeoutError: there was no room, and none was sent
        :raises WouldBlock: without `wait`, likewise"""
        every: Any = list(packets)

        async def send_many() -> None:
            if self._is_full():
                await self.connection.flush()
            self.connection.send_many(every, to)

        self._call(send_many, timeout, doing="sending from", wait=wait, until=self._flushed)

    def send_with_ancillary(
        self,
        data: bytes,
        ancillary: "Sequence[Ancillary]",
        to: "Address | str | Packet | None" = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Send a packet with ancillary data, behind all that was sent before.

        :raises DeliveryError: the kernel refused it
        :raises ConfigurationError: a record that cannot be sent
        :raises TimeoutError: it was not sent"""

        async def send_with_ancillary() -> None:
            await self.connection.send_with_ancillary(data, ancillary, to)

        self._call(send_with_ancillary, timeout, doing="sending from", once=True)

    def failures(self) -> list[DeliveryError]:
        """Return the failures that the network has reported and that no `send` has raised, and forget them."""

        async def failures() -> list[DeliveryError]:
            return self.connection.failures()

        return self._call(failures, doing="asking")

    def join(self, group: str, *, interface: str | int | None = None, source: str | None = None) -> None:
        """Join a multicast group, on one interface and for one source where they are given, as `Datagrams.join` does.

        :raises ConfigurationError: no multicast address, no such interface, joined already
        :raises UnsupportedError: a `source`, where the platform cannot"""

        async def join() -> None:
            self.connection.join(group, interface=interface, source=source)

        self._call(join, doing="joining at")

    def leave(self, group: str, *, interface: str | int | None = None, source: str | None = None) -> None:
        """Leave a multicast group again, as it was joined.

        :raises ConfigurationError: it was not joined so"""

        async def leave() -> None:
            self.connection.leave(group, interface=interface, source=source)

        self._call(leave, doing="leaving at")
