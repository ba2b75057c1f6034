"""From a connected socket to a wire: our own epoll set on Linux, a transport of the loop elsewhere."""

import asyncio
import socket
from collections.abc import Callable, Mapping

from portico import _core
from portico._core import Hub, LoopWire, Wire
from portico.errors import UnsupportedError
from portico.transports.sockaddr import packed_sockaddr


def adopt(
    hub: Hub,
    fd: int,
    peer: bytes | None,
    max_fds: int,
    ready: Callable[[Wire], object],
    failed: Callable[[], object],
) -> None:
    """Hand a wire upon the connected, non-blocking socket `fd` to `ready`: at once where the hub reads its sockets
    itself, else as soon as the loop has made a transport; `failed` is called instead where it makes none. `fd` is
    taken over in any case."""
    if hub.native_sockets:
        ready(native_wire(hub, fd, peer, max_fds))
        return
    task = hub.loop.create_task(_through_loop(hub, socket.socket(fileno=fd), peer, ready, failed))
    _pending.add(task)
    task.add_done_callback(_pending.discard)


def native_wire(hub: Hub, fd: int, peer: bytes | None, max_fds: int) -> Wire:
    """Return a wire that the hub reads and writes itself (Linux)."""
    return _core.SocketWire(hub, fd, peer, max_passed=max_fds)


_pending: set[asyncio.Task[None]] = set()


async def _through_loop(
    hub: Hub,
    sock: socket.socket,
    peer: bytes | None,
    ready: Callable[[Wire], object],
    failed: Callable[[], object],
) -> None:
    try:
        wire = await loop_wire(hub, sock, peer)
    except BaseException as error:
        sock.close()
        failed()
        if not isinstance(error, OSError):  # else it was gone before the loop had it
            raise
    else:
        ready(wire)


async def loop_wire(hub: Hub, sock: socket.socket, peer: bytes | None) -> Wire:
    """Return a wire upon a transport that the loop makes for `sock`."""
    _, wire = await hub.loop.connect_accepted_socket(lambda: LoopWire(hub, peer), sock)
    return wire


class LoopAcceptor:
    """As the native `Acceptor`, by what any loop offers: readiness of the listening socket, or `sock_accept`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        accepted: Callable[[int, bytes], object],
        failed: Callable[[int], object],
    ) -> None:
        self._loop, self._sock, self._accepted, self._failed = loop, sock, accepted, failed
        self._task: asyncio.Task[None] | None = None
        self.paused = True
        self.resume_accepting()

    def pause_accepting(self) -> None:
        """Let new connections wait in the backlog."""
        if not self.paused:
            self.paused = True
            if self._task is not None:
                self._task.cancel()
                self._task = None
            else:
                self._loop.remove_reader(self._sock)

    def resume_accepting(self) -> None:
        """Take new connections again."""
        if self.paused:
            self.paused = False
            try:
                self._loop.add_reader(self._sock, self._ready)
            except NotImplementedError:
                self._task = self._loop.create_task(self._accept_one_by_one())

    def stop(self) -> None:
        """Stop for good; the socket stays its owner's."""
        self.pause_accepting()

    def _ready(self) -> None:
        for _ in range(64):
            try:
                connected, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._failed(error.errno or 0)
                return
            self._take(connected, address)
            if self.paused:
                return

    def _take(self, connected: socket.socket, address: object) -> None:
        connected.setblocking(False)
        peer = packed_sockaddr(connected.family, address)
        self._accepted(connected.detach(), peer)

    async def _accept_one_by_one(self) -> None:
        while True:
            try:
                connected, address = await self._loop.sock_accept(self._sock)
            except OSError as error:
                self._failed(error.errno or 0)
                await asyncio.sleep(0.1)
            else:
                self._take(connected, address)


def set_options(sock: socket.socket, options: Mapping[str, object] | None) -> None:
    """Set socket options by name.

    :raises ConfigurationError: there is no such option, or not such a value
    :raises UnsupportedError: this platform does not have it"""
    if options:
        from portico.options import set_option  # the table takes a while to make, and most programs need none of it

        for name, value in options.items():
            set_option(sock, name, value)


def unsupported_family(name: str) -> UnsupportedError:
    """Return the error for a kind of socket that this platform does not have."""
    return UnsupportedError(f"this platform has no {name} sockets")
