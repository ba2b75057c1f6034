"""What the tests of the server share: loops and kinds of sockets, a search for leftovers, plain clients, programs."""

import asyncio
import contextlib
import functools
import gc
import inspect
import logging
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from leaks import descriptors, opened_since

import portico
from portico._core import hub_of
from portico.transports import resolve as resolving

LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
NATIVE = ("uvloop", "asyncio")
EVERYWHERE = (*NATIVE, "uvloop-transports", "asyncio-transports")
"""Both loops, with sockets that the hub reads itself, and with the loop's transports."""

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as warm:  # libuv keeps a pipe from its first loop on
    warm.get_loop()


# Running a test.


def scenario(
    on: Sequence[str] = NATIVE, *, timeout: float = 20, errors: bool = False
) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Make a test of a coroutine function, once for each loop; fixtures are handed on. It must leave nothing behind,
    and without `errors` log no error."""

    def decorate(function: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        def test(backend: str, **fixtures: Any) -> None:
            run(lambda: function(**fixtures), backend, timeout=timeout, errors=errors)

        signature = inspect.signature(function)
        backend = inspect.Parameter("backend", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        test.__signature__ = signature.replace(parameters=[backend, *signature.parameters.values()])  # type: ignore[attr-defined]
        test.__name__, test.__doc__, test.__module__ = function.__name__, function.__doc__, function.__module__
        test.pytestmark = getattr(function, "pytestmark", [])  # type: ignore[attr-defined]
        return pytest.mark.parametrize("backend", on)(test)

    return decorate


def run(main: Callable[[], Awaitable[None]], backend: str, *, timeout: float = 20, errors: bool = False) -> None:
    """Run `main()` on a fresh loop; then no task, thread, descriptor, logged error or report to the loop is left."""
    gc.freeze()  # so that the search for leftovers looks at what comes from here on, and costs little
    threads, files = set(threading.enumerate()), descriptors()
    reported: list[dict[str, Any]] = []
    logged = ErrorRecords()
    name, _, transports = backend.partition("-")

    async def watched() -> None:
        loop = asyncio.get_running_loop()
        before = descriptors()
        loop.set_exception_handler(lambda loop, context: reported.append(context))
        hub_of(loop).native_sockets = not transports
        async with asyncio.timeout(timeout):
            await main()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            await asyncio.wait(others, timeout=2)
        left = {task for task in others if not task.done()}
        assert not left, f"tasks left: {left}"
        await until(lambda: not leftovers(before), 4, lambda: f"descriptors left: {leftovers(before)}")

    with logged, asyncio.Runner(loop_factory=LOOPS[name]) as runner:
        runner.run(watched())
    if resolving._default is not None:
        resolving._default.close()
    gc.collect()
    gc.unfreeze()
    assert not reported, f"reported to the loop: {reported}"
    assert errors or not logged.records, [record.getMessage() for record in logged.records]
    for thread in set(threading.enumerate()) - threads:
        thread.join(2)
    assert set(threading.enumerate()) <= threads, "threads left"
    assert not leftovers(files), f"descriptors left: {leftovers(files)}"


class ErrorRecords(logging.Handler):
    """Keeps what Portico logs as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def __enter__(self) -> "ErrorRecords":
        logging.getLogger("portico").addHandler(self)
        return self

    def __exit__(self, *unused: object) -> None:
        logging.getLogger("portico").removeHandler(self)


def leftovers(before: dict[str, str]) -> dict[str, str]:
    """The descriptors that were not there before, but for those of the loop itself."""
    own = ("anon_inode:[eventpoll]", "anon_inode:[eventfd]", "pipe:", "/dev/null")
    running = asyncio._get_running_loop() is not None
    return {name: target for name, target in opened_since(before).items() if not (running and target.startswith(own))}


async def until(
    condition: Callable[[], object], seconds: float = 5.0, complaint: Callable[[], object] | None = None
) -> None:
    """Wait for what has no event of its own."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(complaint() if complaint else inspect.getsource(condition).strip())
        await asyncio.sleep(0.002)


async def turns(count: int = 10) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


# Handlers.


async def echo(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


async def wait_for_end(connection: Any) -> None:
    async for _ in connection:
        pass


# Plain clients.


RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: close(2) resets the connection."""


class Client:
    """A plain socket of the test: nothing of Portico's."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.sock, data)

    async def recv(self, size: int = 65536) -> bytes:
        """What comes next; `b""` at the end."""
        return await self.loop.sock_recv(self.sock, size)

    async def recv_exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = await self.recv(size - len(data))
            if not more:
                raise EOFError(data)
            data += more
        return data

    async def recv_all(self) -> bytes:
        data = b""
        while more := await self.recv():
            data += more
        return data

    async def is_over(self) -> bool:
        """Wait for the server to close or reset; nothing may come before."""
        try:
            return await self.recv() == b""
        except ConnectionResetError:
            return True

    async def ask(self, line: bytes) -> bytes:
        """Send a line, and return as much as was sent."""
        await self.send(line)
        return await self.recv_exactly(len(line))

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


async def client_of(address: portico.Address, source: str | None = None) -> Client:
    """Connect a plain socket to `address`, from the IPv4 address `source` where that matters."""
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        if source is not None:
            sock.bind((source, 0))
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return Client(sock)


@contextlib.asynccontextmanager
async def clients(address: portico.Address, count: int = 1) -> AsyncIterator[list[Client]]:
    """Connect `count` plain sockets; they are closed in the end."""
    made: list[Client] = []
    try:
        for _ in range(count):
            made.append(await client_of(address))
        yield made
    finally:
        for each in made:
            each.close()


# Certificates.


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA()


class Certificates:
    """Files of one authority and of the certificates it signed, in a directory of the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = str(directory / "ca.pem")
        authority().cert_pem.write_to_path(self.ca)

    def issue(self, *names: str, file: str = "server.pem", **settings: Any) -> str:
        """Write certificate and key for `names`, and return the path."""
        certificate = authority().issue_cert(*names, **settings)
        path = self.directory / file
        fresh = self.directory / (file + ".new")
        certificate.private_key_and_cert_chain_pem.write_to_path(str(fresh))
        fresh.rename(path)
        return str(path)

    def server(self, **settings: Any) -> portico.TLS:
        return portico.TLS(certificate=self.issue("localhost", "127.0.0.1"), **settings)

    def client(self, **settings: Any) -> portico.TLS:
        return portico.TLS(ca=self.ca, **settings)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


# Programs of their own.


@contextlib.contextmanager
def program(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python `code` in a process of its own; it is killed in the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str], seconds: float = 15) -> tuple[int, str, str]:
    """Wait for the end of `process`, and return its exit code and what it wrote."""
    out, error = process.communicate(timeout=seconds)
    return process.returncode, out, error
