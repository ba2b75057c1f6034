"""What the tests of the contract share: a runner that looks for leftovers, and both ends of a connection."""

import asyncio
import atexit
import contextlib
import functools
import gc
import logging
import os
import shutil
import ssl
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any

import pytest
import trustme
import uvloop
from leaks import descriptors, opened_since

import portico
from portico._core import driven, hub_of

from .relay import relay
from .transports import ALL, LOOPS, Case, cases

FACTORIES = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
Test = Callable[..., Coroutine[Any, Any, None]]

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _warm:  # libuv keeps a pipe from its first loop on
    _warm.get_loop()


def plain(coro: Any) -> Any:
    """The counterpart of `driven`: nothing around the coroutine."""
    return coro


MAKERS = {"driven": driven, "plain": plain}
"""How a coroutine becomes a task: as a server's handler is run, and as anybody's own task."""


def contract(
    names: Iterable[str] = ALL,
    *,
    loops: Sequence[str] = LOOPS,
    wires: Sequence[str] | None = None,
    timeout: float = 4,
    **parameters: Iterable[Any],
) -> Callable[[Test], Callable[..., None]]:
    """Make a test of `async def test(net, …)`: once for each case, and each value of each of `parameters`."""

    def decorate(function: Test) -> Callable[..., None]:
        def test(case: Case, **values: Any) -> None:
            run(case, lambda net: function(net, **values), timeout=timeout)

        names_of_values = "".join(f", {name}" for name in parameters)
        scope: dict[str, Any] = {"test": test}
        given = ", ".join(f"{name}={name}" for name in parameters)
        exec(f"def wrapper(case{names_of_values}):\n    test(case, {given})", scope)  # a signature that pytest reads
        wrapper: Callable[..., None] = scope["wrapper"]
        wrapper.__name__, wrapper.__doc__, wrapper.__module__ = function.__name__, function.__doc__, function.__module__
        for name, values in parameters.items():
            wrapper = pytest.mark.parametrize(name, list(values), ids=str)(wrapper)
        return pytest.mark.parametrize("case", cases(names, loops, wires), ids=str)(wrapper)

    return decorate


# --- running, and what must not be left ----------------------------------------------------------------


class Records(logging.Handler):
    """Keeps what is logged from WARNING on."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(f"{record.name}: {record.getMessage()}")


def run(case: Case, main: Callable[["Net"], Coroutine[Any, Any, Any]], *, timeout: float = 4) -> Any:
    """Run `main(net)` on a fresh loop; fail if it leaves, logs or reports anything (promise 10)."""
    if case.transport.proxied:
        relay()  # before anyone counts
    gc.freeze()  # so that the search for leftovers looks at what comes from here on, and costs little
    threads, files = set(threading.enumerate()), descriptors()
    reported: list[Any] = []
    records = Records()
    directory = tempfile.mkdtemp(prefix="portico-")
    unraisable, sys.unraisablehook = sys.unraisablehook, reported.append
    logging.getLogger().addHandler(records)
    try:
        with asyncio.Runner(loop_factory=FACTORIES[case.loop]) as runner:
            loop = runner.get_loop()
            loop.set_exception_handler(lambda loop, context: reported.append(context))
            if case.wire == "loop":
                hub_of(loop).native_sockets = False
            net = Net(case, directory)
            body = _until_closed(main(net)) if case.transport.proxied else main(net)
            result = runner.run(_bounded(body, timeout))
            assert not net.problems, net.problems
        del loop, net, runner
        gc.collect()
    finally:
        logging.getLogger().removeHandler(records)
        sys.unraisablehook = unraisable
        shutil.rmtree(directory)
        gc.unfreeze()
    assert not reported, f"reported to the loop or to nobody: {reported}"
    assert not records.seen, f"logged: {records.seen}"
    kept = {thread for thread in threading.enumerate() if thread.name.startswith("Trio")}  # trio's, for 10 idle seconds
    assert set(threading.enumerate()) - kept <= threads, "threads left"
    assert not opened_since(files), f"descriptors left: {opened_since(files)}"
    return result


async def _until_closed(main: Coroutine[Any, Any, Any]) -> Any:
    """Run `main`, and wait for the sockets whose end has to come through another process."""
    before = set(descriptors().values())
    result = await main
    await until(lambda: not [each for each in descriptors().values() if each[:7] == "socket:" and each not in before])
    return result


async def _bounded(main: Coroutine[Any, Any, Any], timeout: float) -> Any:
    async with asyncio.timeout(timeout):
        result = await main
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:  # some are about to end
        await asyncio.wait(others, timeout=0.5)
    left = [task for task in others if not task.done()]
    assert not left, f"tasks left: {left}"
    return result


# --- waiting for what has no event of its own ----------------------------------------------------------


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait until `condition()` holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.001)


async def settled(what: Callable[[], Any], looks: int = 15) -> Any:
    """Wait until `what()` was the same for that many looks, a millisecond apart; return it."""
    value, same = what(), 0
    while same < looks:
        await asyncio.sleep(0.001)
        now = what()
        value, same = now, same + 1 if now == value else 0
    return value


async def turns(count: int = 3) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


def spawn(body: Awaitable[Any] | Coroutine[Any, Any, Any], make: Callable[[Any], Any] = plain) -> "asyncio.Task[Any]":
    """Run `body`, any awaitable, in a task."""

    async def wait() -> Any:
        return await body

    return asyncio.get_running_loop().create_task(make(body if asyncio.iscoroutine(body) else wait()))


async def taken(end: "portico.Stream | portico.Channel[bytes]", size: int) -> bytes:
    """Return the next `size` bytes, which may come as packets."""
    if isinstance(end, portico.Stream):
        return await end.recv_exactly(size)
    got = bytearray()
    while len(got) < size:
        got += await end.recv()
    return bytes(got)


def in_packets(net: "Net", data: bytes, size: int = 50_000) -> Sequence[bytes]:
    """Return `data` as it can be sent: whole, or in packets."""
    if not net.transport.keeps_records:
        return [data]
    return [data[start : start + size] for start in range(0, len(data), size)]


async def rest_of(stream: "portico.Stream | portico.Channel[bytes]") -> bytes:
    """Return all that comes until the end."""
    got = bytearray()
    async for data in stream:
        got += data
    return bytes(got)


# --- TLS -----------------------------------------------------------------------------------------------


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@functools.cache
def server_tls() -> portico.TLS:
    """Return the settings of every server here: a certificate for `localhost` and the loopback addresses."""
    directory = tempfile.mkdtemp(prefix="portico-tls-")
    atexit.register(shutil.rmtree, directory)
    path = os.path.join(directory, "server.pem")
    issued = authority().issue_cert("localhost", "127.0.0.1", "::1", key_type=trustme.KeyType.ECDSA)
    issued.private_key_and_cert_chain_pem.write_to_path(path)
    tls = portico.TLS(certificate=path)
    tls.server_context()
    return tls


@functools.cache
def client_tls(version: str = "TLSv1.3") -> portico.TLS:
    """Return settings that trust `server_tls` and speak just that version."""
    tls = portico.TLS(ca=authority().cert_pem.bytes().decode(), server_name="localhost")
    tls.client_context().maximum_version = getattr(ssl.TLSVersion, version.replace(".", "_"))
    return tls


server_tls(), client_tls("TLSv1.2"), client_tls("TLSv1.3")  # what ssl opens stays open: before anyone counts


UNCOMPRESSED = portico.WebSocketSettings(deflate=None)
"""Of WebSockets, so that as many bytes leave as are sent."""


# --- both ends -----------------------------------------------------------------------------------------


class Net:
    """Servers and clients over the transport of one case."""

    def __init__(self, case: Case, directory: str) -> None:
        self.case, self.transport, self.directory = case, case.transport, directory
        self.native = case.wire == "epoll"
        self.greeting: dict[str, Any] = {"proxy_header": "v2"} if self.transport.header else {}
        if self.transport.proxied:
            self.greeting["proxy"] = relay()
        """What `portico.connect` is told for the server to listen at all."""
        self.problems: list[str] = []
        """What the servers counted though no test asked for it."""

    @contextlib.asynccontextmanager
    async def serve(
        self,
        handler: Callable[[Any], Awaitable[object]],
        codec: portico.Codec[Any] | None = None,
        *,
        limits: portico.Limits | None = None,
        secure: bool = True,
        **settings: Any,
    ) -> AsyncIterator[portico.Server]:
        """Serve by `portico.serve`; leaving it, the handlers must end by themselves."""
        tls = server_tls() if self.transport.tls is not None and secure else None
        address = self.transport.address.format(dir=self.directory)
        if not secure:
            address = address.replace("tls:", "tcp:")
        given: Any = handler
        if self.transport.upgraded and secure:

            async def upgrade(stream: portico.Stream) -> None:
                await stream.start_tls(server_tls(), server_side=True)
                await handler(stream if codec is None else stream.channel(codec))

            given, tls = upgrade, None
        if self.transport.framed:
            codec, settings["websocket"] = None, UNCOMPRESSED
        limits = limits or portico.Limits()
        wanted = None if given is not handler else codec
        if self.transport.header:
            settings["proxied_by"] = ["loopback"]
        server = await portico.serve(given, address, codec=wanted, tls=tls, limits=limits, **settings)
        try:
            yield server
        except BaseException:
            await server.abort()
            raise
        await server.drain(5)
        stats = server.stats
        if stats.aborted or stats.handler_errors:
            self.problems.append(f"aborted: {stats.aborted}, handler errors: {stats.handler_errors}")

    async def connect(
        self, server: portico.Server, codec: portico.Codec[Any] | None = None, *, secure: bool = True, **settings: Any
    ) -> Any:
        """Connect by `portico.connect`."""
        version = self.transport.tls if secure else None
        settings |= self.greeting
        if self.transport.framed:
            codec, settings["websocket"] = None, UNCOMPRESSED
        if version is None:
            plain = self.transport.inet and not self.transport.framed
            address = server.address.replace(scheme="tcp") if plain else server.address
            return await portico.connect(address, codec=codec, timeout=10, **settings)
        tls = client_tls(version)
        if not self.transport.upgraded:
            return await portico.connect(server.address, codec=codec, timeout=10, tls=tls, **settings)
        stream = await portico.connect(server.address, timeout=10, **settings)
        await stream.start_tls(tls)
        return stream if codec is None else stream.channel(codec)

    def end_sending(self, end: Any) -> None:
        """End what `end` sends, and all of it where one side cannot be ended."""
        if self.transport.can_half_close:
            end.send_eof()
        else:
            end.close()

    @contextlib.asynccontextmanager
    async def pair(
        self,
        codec: portico.Codec[Any] | None = None,
        *,
        near_codec: Any = ...,
        limits: portico.Limits | None = None,
        secure: bool = True,
        listen: dict[str, Any] | None = None,
        **settings: Any,
    ) -> AsyncIterator[tuple[Any, Any]]:
        """Give the client's end and the server's; both are closed in the end, and must be within 5 seconds.

        `near_codec`: the client's, if it is another one; `listen`: more settings of the server."""
        arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        over = asyncio.Event()

        async def handler(connection: Any) -> None:
            if arrived.done() and not self.transport.tells_start:
                return  # a packet that came when its channel was over has begun another one
            arrived.set_result(connection)
            await over.wait()

        async with self.serve(handler, codec, limits=limits, secure=secure, **(listen or {})) as server:
            near = await self.connect(server, codec if near_codec is ... else near_codec, secure=secure, **settings)
            if not self.transport.tells_start:
                near.socket.send(b"")  # an empty packet, which is no message of a codec's
            far = await arrived
            if not self.transport.tells_start and codec is None:
                assert await far.recv() == b""
            try:
                yield near, far
                near.close()
                far.close()
                async with asyncio.timeout(5):
                    await near.wait_closed()
                    await far.wait_closed()
            finally:
                near.abort()
                over.set()
