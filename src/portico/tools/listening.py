"""`portico listen`: the terminal of whoever comes, whatever it is that they come by."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final

from portico.address import SCHEMES, Address
from portico.errors import ConfigurationError, PorticoError
from portico.server.limits import Limits
from portico.server.running import banner_text
from portico.server.service import Service, serve
from portico.tools.crowd import hear, is_group
from portico.tools.piping import EndOfInput, Piping, cutter_for, give_up, secured, telling
from portico.tools.report import Stop, failure, note
from portico.tools.terminal import Terminal
from portico.transports.connection import Channel, Stream
from portico.transports.files import open_fifo
from portico.transports.tls import TLS

if TYPE_CHECKING:
    from portico.websocket.settings import WebSocketSettings

SLOW_PEER: Final = 60.0
"""Seconds after which `listen --keep-open` gives up a peer that takes nothing, for the others wait for it."""

FORGOTTEN: Final = 300.0
"""Seconds without a packet either way after which `listen --keep-open` forgets a peer that can tell no end."""


async def run_listen(
    address: Address | str,
    *,
    tls: TLS | None = None,
    interface: str | None = None,
    websocket: "WebSocketSettings | None" = None,
    binary: bool = False,
    eof: EndOfInput = "keep",
    hex: bool = False,
    keep_open: bool = False,
    timeout: float | None = None,
    verbose: bool = False,
) -> None:
    """Listen, and be a terminal for the first connection, or for all of them with `keep_open`; also for a FIFO, and for
    the packets of a multicast group, an IP protocol or a network interface.

    :param interface: on which a multicast group is joined.
    :param websocket: whom to let in and how to speak, where `address` is that of WebSockets; there the input leaves as
        texts, a line each, unless it is `binary`."""
    address = Address.parse(address)
    if interface is not None and not is_group(address):
        raise ConfigurationError(f"--interface is for multicast groups, and {address} is none")
    if address.scheme == "device":
        raise ConfigurationError(f"nobody connects to a device; open it with: portico connect {address}")
    cutter = cutter_for(address, websocket, binary)
    piping = Piping(Terminal(), eof, hex, names=keep_open, patient=keep_open and cutter is not None, cutter=cutter)
    try:
        if tls is None and address.scheme == "fifo":
            await _read_fifo(address, piping, keep_open, timeout)
        elif tls is None and (address.scheme in ("raw", "packet") or is_group(address)):
            await _hear(address, interface, piping, timeout)
        else:
            await _serve(address, tls, websocket, Listening(piping, keep_open, verbose), timeout)
    finally:
        await piping.end()


async def _serve(
    address: Address,
    tls: TLS | None,
    websocket: "WebSocketSettings | None",
    listening: "Listening",
    timeout: float | None,
) -> None:
    """Be the terminal of those who connect, or whose packets come."""
    keep_open = listening.keep_open
    limits = Limits(
        idle_timeout=FORGOTTEN if keep_open and SCHEMES[address.scheme].kind == "datagram" else None,
        send_timeout=SLOW_PEER if keep_open else None,
        trust_loopback=True,
    )
    service = Service(limits=limits).listen(address, listening.handle, tls=tls, websocket=websocket)
    async with serve(service) as server:
        for line in banner_text(server.addresses).splitlines():
            note(line)
        listening.stop = server.close
        async with _patience(timeout, "nobody connected") as deadline:
            await listening.first
            deadline.reschedule(None)
            await listening.over


@contextlib.asynccontextmanager
async def _patience(timeout: float | None, what: str) -> AsyncIterator[asyncio.Timeout]:
    """Limit how long it may take until somebody comes; `what` tells that it was too long."""
    try:
        async with asyncio.timeout(timeout) as deadline:
            yield deadline
    except TimeoutError:
        if not deadline.expired():
            raise
        raise Stop(f"{what} within {timeout:g} s", hint="give it more --timeout") from None


async def _read_fifo(address: Address, piping: Piping, keep_open: bool, timeout: float | None) -> None:
    """Write out what others write to a FIFO, up to the end of the last of them; it is made, and removed again, where
    there is none."""
    with contextlib.ExitStack() as stack:
        if _make(address.path):
            stack.callback(_remove, address.path)
        stream = await open_fifo(address.path)
        stack.callback(stream.abort)
        if keep_open:  # a writer of its own, so that there is no last one
            stack.callback(os.close, os.open(address.path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        note(f"listening on {address}  reads what is written to it")
        async with _patience(timeout, "nothing came") as deadline:
            piping.on_first = lambda: deadline.reschedule(None)
            await piping.serve(stream, takes=False)


def _make(path: str) -> bool:
    """Make a FIFO, unless something is there already; return whether it was made."""
    try:
        os.mkfifo(path)
    except FileExistsError:
        return False
    return True


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


async def _hear(address: Address, interface: str | None, piping: Piping, timeout: float | None) -> None:
    """Write out every packet that comes, and send the input to the group, if it is one, until Ctrl-C."""
    piping.names = piping.patient = True
    crowd = await hear(address, interface)
    try:
        what = {"packet": "every frame, in and out", "raw": "every packet that comes in"}
        note(f"listening on {address}  hears {what.get(address.scheme, 'what is sent to the group')}")
        async with _patience(timeout, "nothing came") as deadline:
            piping.on_first = lambda: deadline.reschedule(None)
            await piping.serve(crowd, takes=crowd.to is not None)
    finally:
        crowd.abort()


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

    async def handle(self, stream: Stream | Channel[Any]) -> None:
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
                note(f"connection from {stream.remote_address}{secured(stream)}")
            with telling(stream, f"{stream.remote_address}: " if self.keep_open else "", verbose=self.verbose):
                await self.piping.serve(stream)
        except asyncio.CancelledError:
            give_up(stream)
            raise
        except Exception as error:
            self._failed(stream, error)
        else:
            self._ended()

    def _failed(self, stream: Stream | Channel[Any], error: Exception) -> None:
        give_up(stream)
        if self.keep_open and isinstance(error, PorticoError):
            note(f"{stream.remote_address}: {failure(error)[0]}")
            self._ended()
        elif not self.over.done():
            self.over.set_exception(error)

    def _ended(self) -> None:
        finished = self.piping.eof == "close" and self.piping.feeding.done() and not self.piping.members
        if (finished or not self.keep_open) and not self.over.done():
            self.over.set_result(None)
