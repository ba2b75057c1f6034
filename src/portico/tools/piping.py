"""`portico connect` and `portico listen`: bytes between the terminal and sockets, both ways, as they are.
Where a socket keeps packets apart, what is read at once from the input leaves as one."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from portico.address import SCHEMES, Address
from portico.client.connect import connect
from portico.errors import ClosedError, DeliveryError, PorticoError
from portico.interfaces import Resolver
from portico.server.limits import Limits
from portico.server.running import banner_text
from portico.server.service import Service, serve
from portico.tools.hexdump import Dump
from portico.tools.report import Stop, failure, note
from portico.tools.terminal import Terminal
from portico.transports.connection import Channel, Stream
from portico.transports.tls import TLS

EndOfInput = Literal["keep", "close"]
"""What the end of one direction means for the other: `keep` lets it go on, `close` ends it, too."""

SLOW_PEER = 60.0
"""Seconds after which `listen --keep-open` gives up a peer that takes nothing, for the others wait for it."""


PACKET = 8192
"""Bytes of the input that one packet takes at most (as socat has it); what is typed leaves line by line."""

SILENCE = 1.0
"""Seconds without a packet after the end of the input that are taken for the end of a peer that can tell none."""


@dataclass
class Member:
    """A connection that the input goes to."""

    stream: Stream | Channel[bytes]
    dump: Dump | None
    error: ClosedError | DeliveryError | None = None
    """Set when it could not be sent what it should."""
    heard: float = 0.0
    """When something last came, in the loop's time."""

    @property
    def is_endless(self) -> bool:
        """Whether the peer cannot tell that it ends (UDP, Unix datagram)."""
        return SCHEMES[self.stream.scheme].kind == "datagram"

    def send_eof(self) -> None:
        """Tell the end of the input, where that can be told."""
        if not self.is_endless:
            self.stream.send_eof()

    def pieces(self, data: bytes) -> list[bytes]:
        """Return what leaves at a time."""
        if not self.stream.wire.keeps_records:
            return [data]
        return [data[start : start + PACKET] for start in range(0, len(data), PACKET)]


@dataclass
class Piping:
    """The terminal on one side, any number of connections on the other. Memory stays bounded: input is read when every
    connection has room, and a connection is read when the output has been written."""

    terminal: Terminal
    eof: EndOfInput = "keep"
    hex: bool = False
    names: bool = False
    """Whether the hex dump says whose bytes they are."""
    members: dict[Stream | Channel[bytes], Member] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._someone = asyncio.Event()
        self.feeding: asyncio.Task[None] = asyncio.ensure_future(self._feed())

    async def _feed(self) -> None:
        """Send the input to all who are connected, wait for the first one before reading any; end with it."""
        while True:
            await self._someone.wait()
            data = await self.terminal.read()
            if not data:
                break
            while not self.members:
                self._someone.clear()
                await self._someone.wait()
            await self._to_all(data)
        if self.eof == "keep":
            for member in self.members.values():
                member.send_eof()

    async def _to_all(self, data: bytes) -> None:
        members = list(self.members.values())
        if len(members) == 1:
            await self._send(members[0], data)
        else:
            await asyncio.gather(*(self._send(member, data) for member in members))

    async def _send(self, member: Member, data: bytes) -> None:
        try:
            for piece in member.pieces(data):
                await member.stream.send(piece)
        except (ClosedError, DeliveryError) as error:
            member.error = error
            self._leave(member)
            return
        if member.dump is not None:
            await self.terminal.write(member.dump.sent(data).encode())

    async def _receive(self, member: Member) -> None:
        """Write out what a connection brings, until its end."""
        clock = asyncio.get_running_loop().time
        async for data in member.stream:
            member.heard = clock()
            await self.terminal.write(data if member.dump is None else member.dump.received(data).encode())

    def _leave(self, member: Member) -> None:
        self.members.pop(member.stream, None)
        if not self.members:
            self._someone.clear()

    async def serve(self, stream: Stream | Channel[bytes]) -> None:
        """Be the terminal of one connection until that is over.

        :raises ClosedError: the peer was lost, or went without taking all that was sent
        :raises DeliveryError: a packet did not arrive
        :raises OSError: input or output failed"""
        member = Member(stream, Dump(str(stream.remote_address) if self.names else "") if self.hex else None)
        self.members[stream] = member
        self._someone.set()
        if self.feeding.done() and self.eof == "keep":
            member.send_eof()
        receiving = asyncio.ensure_future(self._receive(member))
        lost = asyncio.ensure_future(_lost(stream))
        try:
            while not self._is_over(receiving, lost):
                busy = [each for each in (receiving, lost, self.feeding) if not each.done()]
                if self.feeding.done() and member.is_endless:
                    await asyncio.wait(busy, timeout=SILENCE, return_when=asyncio.FIRST_COMPLETED)
                    if asyncio.get_running_loop().time() - member.heard >= SILENCE:
                        break
                else:
                    await asyncio.wait(busy, return_when=asyncio.FIRST_COMPLETED)
            if receiving.done():
                receiving.result()
            if self.feeding.done():
                self.feeding.result()
            if member.error is not None:
                raise member.error
            await stream.flush()
        finally:
            self._leave(member)
            receiving.cancel()
            lost.cancel()
            await asyncio.wait((receiving, lost))
            if not receiving.cancelled():
                receiving.exception()  # was told, or something else was
        await stream.close()

    def _is_over(self, receiving: "asyncio.Task[None]", lost: "asyncio.Task[None]") -> bool:
        for each in (receiving, self.feeding):
            if each.done() and (each.cancelled() or each.exception() is not None):
                return True
        if self.eof == "close":
            return receiving.done() or self.feeding.done()
        return receiving.done() and (self.feeding.done() or lost.done() or self.terminal.is_interactive)

    async def end(self) -> None:
        """Stop reading input."""
        self.feeding.cancel()
        await asyncio.wait((self.feeding,))
        if not self.feeding.cancelled():
            self.feeding.exception()


async def _lost(stream: Stream | Channel[bytes]) -> None:
    await stream.wait_closed()


async def run_connect(
    address: Address | str,
    *,
    tls: TLS | None = None,
    timeout: float | None = 10.0,
    source: str | None = None,
    proxy: Sequence[str] | str | None = None,
    eof: EndOfInput = "keep",
    hex: bool = False,
    verbose: bool = False,
    resolver: Resolver | None = None,
) -> None:
    """Connect, and be a terminal until both directions are over."""
    stream: Stream | Channel[bytes] = await connect(
        address, tls=tls, timeout=timeout, source=source, proxy=proxy, resolver=resolver
    )
    piping = Piping(Terminal(), eof, hex)
    try:
        if verbose:
            note(f"connected to {stream.remote_address} from {stream.local_address}{_secured(stream)}")
        await piping.serve(stream)
    except BaseException:
        stream.abort()
        raise
    finally:
        await piping.end()


def _secured(stream: Stream | Channel[bytes]) -> str:
    info = stream.tls
    return "" if info is None else f", {info.version} {info.cipher}"


async def run_listen(
    address: Address | str,
    *,
    tls: TLS | None = None,
    eof: EndOfInput = "keep",
    hex: bool = False,
    keep_open: bool = False,
    timeout: float | None = None,
    verbose: bool = False,
) -> None:
    """Listen, and be a terminal for the first connection, or for all of them with `keep_open`."""
    listening = Listening(Piping(Terminal(), eof, hex, names=keep_open), keep_open, verbose)
    limits = Limits(idle_timeout=None, send_timeout=SLOW_PEER if keep_open else None, trust_loopback=True)
    try:
        service = Service(limits=limits).listen(address, listening.handle, tls=tls)
        async with serve(service) as server:
            for line in banner_text(server.addresses).splitlines():
                note(line)
            listening.stop = server.close
            try:
                async with asyncio.timeout(timeout) as deadline:
                    await listening.first
                    deadline.reschedule(None)
                    await listening.over
            except TimeoutError:
                raise Stop(f"nobody connected within {timeout:g} s", hint="give it more --timeout") from None
    finally:
        await listening.piping.end()


class Listening:
    """What becomes of the connections that come in."""

    def __init__(self, piping: Piping, keep_open: bool, verbose: bool) -> None:
        self.piping, self.keep_open, self.verbose = piping, keep_open, verbose
        loop = asyncio.get_running_loop()
        self.first: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.stop: Any = None
        if keep_open:
            piping.feeding.add_done_callback(self._input_over)

    def _input_over(self, feeding: "asyncio.Task[None]") -> None:
        """The end of input ends all with `--eof close`; an error of it ends all in any case."""
        if feeding.cancelled() or self.over.done():
            return
        error = feeding.exception()
        if error is not None:
            self.over.set_exception(error)
        elif self.piping.eof == "close" and not self.piping.members:
            self.over.set_result(None)

    async def handle(self, stream: Stream | Channel[bytes]) -> None:
        """Serve one connection; without `keep_open` the first ends the program, and others are turned away."""
        if self.first.done() and not self.keep_open:
            stream.abort()
            return
        if not self.first.done():
            self.first.set_result(None)
        try:
            if not self.keep_open:
                self.stop()
            if self.verbose:
                note(f"connection from {stream.remote_address}{_secured(stream)}")
            await self.piping.serve(stream)
        except asyncio.CancelledError:
            stream.abort()
            raise
        except Exception as error:
            self._failed(stream, error)
        else:
            self._ended()

    def _failed(self, stream: Stream | Channel[bytes], error: Exception) -> None:
        stream.abort()
        if self.keep_open and isinstance(error, PorticoError):
            note(f"{stream.remote_address}: {failure(error)[0]}")
            self._ended()
        elif not self.over.done():
            self.over.set_exception(error)

    def _ended(self) -> None:
        finished = self.piping.eof == "close" and self.piping.feeding.done() and not self.piping.members
        if (finished or not self.keep_open) and not self.over.done():
            self.over.set_result(None)
