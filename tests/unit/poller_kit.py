"""What the tests of the poller share: both loops with both ways to watch, ends to watch, and a count of looks."""

import asyncio
import contextlib
import functools
import gc
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop

import portico
from portico import Events
from portico._core import hub_of
from portico.transports import descriptors as sets
from portico.transports import poller as poller_module

FACTORIES = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}
WIRES = ("epoll", "loop")
BOTH = Events.READABLE | Events.WRITABLE

with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _warm:  # libuv keeps a pipe from its first loop on
    _warm.get_loop()


def scenario(function: Callable[[], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on both loops, by native sockets and epoll and by what any loop offers; look for leftovers."""

    @pytest.mark.parametrize("wire", WIRES)
    @pytest.mark.parametrize("loop", FACTORIES)
    @functools.wraps(function, assigned=("__name__", "__doc__", "__module__"))
    def test(loop: str, wire: str, monkeypatch: pytest.MonkeyPatch) -> None:
        reported: list[Any] = []
        if wire == "loop":
            monkeypatch.setattr(poller_module, "descriptor_set", sets.LoopSet)
        gc.collect()
        before = os.listdir("/proc/self/fd")
        with asyncio.Runner(loop_factory=FACTORIES[loop]) as runner:
            runner.get_loop().set_exception_handler(lambda _, context: reported.append(context))
            hub_of(runner.get_loop()).native_sockets = wire == "epoll"
            runner.run(asyncio.wait_for(function(), 10))
        del runner
        gc.collect()
        assert not reported
        assert sorted(os.listdir("/proc/self/fd")) == sorted(before)

    del test.__wrapped__  # type: ignore[attr-defined]
    return test


@contextlib.asynccontextmanager
async def tcp_pair(**settings: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Give the client's end and the server's."""
    arrived: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def handler(connection: Any) -> None:
        arrived.set_result(connection)
        await over.wait()

    async with portico.serve(handler, "tcp://127.0.0.1:0", **settings) as server:
        near = await portico.connect(server.address, **settings)
        far = await arrived
        try:
            yield near, far
        finally:
            near.abort()
            far.abort()
            over.set()


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for each in ends:
            with contextlib.suppress(OSError):
                os.close(each)


class Counted:
    """A Pollable that counts how often it is looked at."""

    def __init__(self) -> None:
        self.readable, self.looks = False, 0
        self.watcher: Callable[[], object] | None = None

    @property
    def readiness(self) -> tuple[bool, bool]:
        self.looks += 1
        return self.readable, False

    def watch(self, watcher: Callable[[], object] | None) -> None:
        self.watcher = watcher

    def become_readable(self) -> None:
        self.readable = True
        assert self.watcher is not None
        self.watcher()
