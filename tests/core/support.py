"""What the tests of the native core share: loops, pairs of wires, handlers at their ends, a search for leftovers."""

import asyncio
import functools
import gc
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import pytest
import trustme
import uvloop
from leaks import descriptors, opened_since

from portico import _core
from portico._core import (
    ChannelBase,
    Lines,
    LoopWire,
    Settings,
    SocketWire,
    StreamBase,
    TLSWire,
    driven,
    hub_of,
    memory_wires,
)

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
PLAIN = ("tcp", "unix", "loop", "memory")  # tcp and unix: our epoll set; loop: transports of the event loop
SECURE = ("tls-tcp", "tls-loop", "tls-memory")
ALL = PLAIN + SECURE
BYTES = Lines(text=False)


with asyncio.Runner(loop_factory=uvloop.new_event_loop) as warm:  # libuv keeps a pipe from its first loop on
    warm.get_loop()


# --- running a test ------------------------------------------------------------------------------------


def scenario(
    *, wires: Sequence[str] | None = None, loops: Sequence[str] = tuple(LOOPS), debug: bool = False, timeout: float = 30
) -> Callable[[Callable[..., Coroutine[Any, Any, None]]], Callable[..., None]]:
    """Make a test of a coroutine function: once per loop and, with `wires`, per kind of wire (it is given a Net)."""

    def decorate(function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
        if wires is None:

            @pytest.mark.parametrize("loop", loops)
            def test(loop: str) -> None:
                run(loop, function, timeout=timeout, debug=debug)
        else:

            @pytest.mark.parametrize("wire", wires)
            @pytest.mark.parametrize("loop", loops)
            def test(loop: str, wire: str) -> None:
                run(loop, lambda: function(Net(wire)), timeout=timeout, debug=debug)

        test.__name__, test.__doc__ = function.__name__, function.__doc__
        test.__module__ = function.__module__
        return test

    return decorate


def run(kind: str, main: Callable[[], Coroutine[Any, Any, Any]], *, timeout: float = 30, debug: bool = False) -> Any:
    """Run `main()` on a fresh loop, then check that it left no task, thread, descriptor, warning or logged error."""
    gc.freeze()  # so that the search for leftovers looks at what comes from here on, and costs little
    threads, files = set(threading.enumerate()), descriptors()
    reported: list[dict[str, Any]] = []
    loop = LOOPS[kind]()
    loop.set_debug(debug)
    loop.slow_callback_duration = 10
    loop.set_exception_handler(lambda loop, context: reported.append(context))
    try:
        result = loop.run_until_complete(asyncio.wait_for(main(), timeout))
        left = loop.run_until_complete(tasks_left())
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
    assert not left, f"tasks left: {left}"
    del loop
    gc.collect()
    gc.unfreeze()
    assert not reported, f"reported to the loop: {reported}"
    assert set(threading.enumerate()) <= threads, "threads left"
    assert not opened_since(files), f"descriptors left: {opened_since(files)}"
    return result


async def tasks_left() -> set[asyncio.Task[Any]]:
    """Let tasks that are about to end do so; return the others."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=0.5)
    return {task for task in others if not task.done()}


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait for what has no event of its own."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


async def turns(count: int = 3) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def plain(coro: Any) -> Any:
    """The counterpart of `driven`: nothing around the coroutine."""
    return coro


async def received(connection: Any) -> Any:
    return await connection.recv()


async def echo(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


# --- wires ---------------------------------------------------------------------------------------------


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


@functools.cache
def server_tls(newest: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("localhost").configure_cert(context)
    if not newest:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@functools.cache
def client_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context


def socket_pair(unix: bool = False) -> tuple[socket.socket, socket.socket]:
    """Return two connected non-blocking sockets: TCP over loopback, or Unix."""
    if unix:
        one, other = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            one = socket.create_connection(listener.getsockname())
            other, _ = listener.accept()
        for sock in (one, other):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    one.setblocking(False)
    other.setblocking(False)
    return one, other


def native(sock: socket.socket, **options: Any) -> SocketWire:
    return SocketWire(hub_of(asyncio.get_running_loop()), sock.detach(), **options)


class Net:
    """Pairs of wires of one kind."""

    def __init__(self, kind: str, *, newest_tls: bool = True) -> None:
        self.kind, self.newest_tls = kind, newest_tls
        self.secure, self.below = kind.startswith("tls-"), kind.removeprefix("tls-")

    async def plain_pair(self) -> tuple[_core.Wire, _core.Wire]:
        loop = asyncio.get_running_loop()
        hub = hub_of(loop)
        if self.below == "memory":
            return memory_wires(hub)
        one, other = socket_pair(self.below == "unix")
        if self.below != "loop":
            return native(one), native(other)
        _, client = await loop.create_connection(lambda: LoopWire(hub), sock=one)
        _, server = await loop.connect_accepted_socket(lambda: LoopWire(hub), other)
        return client, server

    async def pair(self) -> tuple[_core.Wire, _core.Wire]:
        """Return the client's and the server's wire; TLS is on its way."""
        client, server = await self.plain_pair()
        if self.secure:
            server = TLSWire(server, server_tls(self.newest_tls), server_side=True)
            client = TLSWire(client, client_tls(), server_side=False, server_name="localhost")
            server.start()
            client.start()
        return client, server


def connection(wire: _core.Wire, codec: _core.Codec | None = BYTES, **limits: Any) -> Any:
    """Return a ChannelBase, or a StreamBase where `codec` is None."""
    settings = Settings(**limits)
    return StreamBase(wire, settings) if codec is None else ChannelBase(wire, codec, settings)


class Server:
    """Runs a handler at the far end of each connection made with `connect`; closes everything in the end.

    A handler's error is in `errors`; those that a test expects it takes out."""

    def __init__(
        self,
        net: Net,
        handler: Callable[[Any], Awaitable[Any]],
        codec: _core.Codec | None = BYTES,
        *,
        make: Callable[..., Any] = driven,
        **limits: Any,
    ) -> None:
        self.net, self.handler, self.codec, self.make, self.limits = net, handler, codec, make, limits
        self.connections: list[Any] = []
        self.clients: list[Any] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.errors: list[BaseException] = []

    async def __aenter__(self) -> "Server":
        return self

    async def connect(self, codec: Any = ..., **limits: Any) -> Any:
        near, far = await self.net.pair()
        server = connection(far, self.codec, **self.limits)
        client = connection(near, self.codec if codec is ... else codec, **limits)
        self.connections.append(server)
        self.clients.append(client)
        self.tasks.append(asyncio.get_running_loop().create_task(self.make(self.handle(server))))
        return client

    async def handle(self, server: Any) -> None:
        try:
            await self.handler(server)
        except Exception as error:
            self.errors.append(error)
        finally:
            server.close()

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        async with asyncio.timeout(10):
            for each in self.clients + self.connections:
                each.close()
            for each in self.clients + self.connections:
                await each.wait_closed()
            await asyncio.gather(*self.tasks, return_exceptions=True)
        if error is None:
            assert not self.errors, self.errors


class FakeTransport(asyncio.Transport):
    """Records what a LoopWire does with its transport."""

    def __init__(self) -> None:
        super().__init__()
        self.data: list[Any] = []
        self.closed = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.data.append(bytes(data))

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return self.closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def write_eof(self) -> None:
        self.data.append("eof")

    def close(self) -> None:
        self.closed = True
        self.data.append("close")

    abort = close


class Fed:
    """A connection whose bytes the test hands in one piece at a time, without a loop turn in between."""

    def __init__(self, codec: _core.Codec | None, **limits: Any) -> None:
        self.wire = LoopWire(hub_of(asyncio.get_running_loop()))
        self.transport = FakeTransport()
        self.wire.connection_made(self.transport)
        self.connection = connection(self.wire, codec, **limits)

    def feed(self, data: bytes) -> None:
        if data:
            self.wire.get_buffer(-1)[: len(data)] = data
            self.wire.buffer_updated(len(data))

    def end(self) -> None:
        self.wire.eof_received()

    def lose(self, error: Exception | None = None) -> None:
        self.wire.connection_lost(error)
