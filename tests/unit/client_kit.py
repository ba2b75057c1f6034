"""What the tests of the client room share: both loops, leak counters, and peers that are plain sockets."""

import asyncio
import contextlib
import inspect
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import pytest
import uvloop
from leaks import descriptors, opened_since

from portico.address import Address

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def on_both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make a test out of a coroutine function: it runs on asyncio and uvloop, and must leave no descriptor or task."""

    def on_loop(loop: str, **fixtures: Any) -> None:
        run(lambda: test(**fixtures), LOOPS[loop])

    signature = inspect.signature(test)
    loop = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    on_loop.__signature__ = signature.replace(parameters=[loop, *signature.parameters.values()])  # type: ignore[attr-defined]
    on_loop.__name__, on_loop.__doc__, on_loop.__module__ = test.__name__, test.__doc__, test.__module__
    on_loop.pytestmark = getattr(test, "pytestmark", [])  # type: ignore[attr-defined]
    return pytest.mark.parametrize("loop", LOOPS)(on_loop)


def run(main: Callable[[], Awaitable[None]], factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def watched() -> None:
        before = descriptors()
        async with asyncio.timeout(20):
            await main()
            await leftovers_gone(before)

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(watched())


async def leftovers_gone(before: dict[str, str], within: float = 4.0) -> None:
    """A connection that was closed may linger for its peer; nothing else may be left."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        left = [target for target in opened_since(before).values() if target != "/dev/null"]  # libuv's first server's
        if not tasks and not left:
            return
        assert asyncio.get_running_loop().time() < deadline, f"left over: {tasks} {left}"
        await asyncio.sleep(0.005)


@contextlib.contextmanager
def listening(host: str = "127.0.0.1", backlog: int = 16, port: int = 0) -> Iterator[tuple[socket.socket, Address]]:
    """A listening TCP socket and its address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(backlog)
        sock.setblocking(False)
        yield sock, Address("tcp", host, sock.getsockname()[1])


@contextlib.contextmanager
def black_hole(host: str = "127.0.0.1") -> Iterator[Address]:
    """An address where a connect is never answered: the backlog of who listens there is full."""
    with listening(host, backlog=0) as (_, address), contextlib.ExitStack() as stack:
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, address.port))
        yield address


async def accept(sock: socket.socket) -> socket.socket:
    connected, _ = await asyncio.get_running_loop().sock_accept(sock)
    connected.setblocking(False)
    return connected


async def wait_until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


class FakeResolver:
    """Answers with the hosts it was given, after an optional event."""

    def __init__(self, *hosts: str, error: OSError | None = None, hangs: bool = False) -> None:
        self.hosts, self.error, self.hangs = hosts, error, hangs
        self.asked: list[Address] = []

    async def resolve(self, address: Address, *, family: int = 0) -> Sequence[Address]:
        self.asked.append(address)
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        found = [address.replace(host=each) for each in self.hosts]
        return [each for each in found if family in (0, each.family)]

    async def name_of(self, address: Address) -> tuple[str, str]:
        raise OSError("nobody asks")


class FakeClock:
    """Time that passes only by sleeping, and randomness that is the same every time."""

    def __init__(self, random: float = 0.0) -> None:
        self.time, self.chance = 1000.0, random
        self.slept: list[float] = []

    def now(self) -> float:
        return self.time

    def random(self) -> float:
        return self.chance

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    from portico.client import retry

    fake = FakeClock()
    monkeypatch.setattr(retry, "CLOCK", fake)
    monkeypatch.setattr(retry, "sleep", fake.sleep)
    return fake
