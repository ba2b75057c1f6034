"""What the tests of the blocking face share: a plain peer, and waiting for what has no event."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest

import portico
from portico import blocking
from portico.blocking.loop import background
from portico.transports.calls import Call

PATIENCE = 10.0


@contextlib.contextmanager
def connected(**settings: Any) -> Iterator[tuple[Any, socket.socket]]:
    """A blocking connection, and the plain socket at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with blocking.connect(f"tcp://127.0.0.1:{listening.getsockname()[1]}", **settings) as connection:
            peer = listening.accept()[0]
            with peer:
                peer.settimeout(PATIENCE)
                yield connection, peer


@contextlib.contextmanager
def pair(**settings: Any) -> Iterator[tuple[Any, Any]]:
    """Two blocking connections, each the peer of the other: in memory, or with settings a socket pair."""
    both = blocking.socketpair(**settings) if settings else blocking.memory_pair()
    yield both
    for each in both:
        each.close(wait=False)
    for each in both:
        each.close()


def until(condition: Callable[[], object]) -> None:
    """Wait for what has no event of its own."""
    due = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < due, "it does not come about"
        time.sleep(0.001)


class Aside:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._call()
        except BaseException as error:
            self.error = error

    def waits(self) -> None:
        """Wait until it waits in the loop."""
        loop = background().loop
        until(lambda: len(asyncio.all_tasks(loop)) > 1)  # beside the loop's own
        background().call(self._step, doing="looking by")

    async def _step(self) -> None:
        await asyncio.sleep(0)

    def over(self) -> "Aside":
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self


def shout(channel: portico.BlockingChannel[str]) -> None:
    for text in channel:
        channel.send(text.upper())


async def echo(connection: Any) -> None:
    async for message in connection:
        await connection.send(message)


@contextlib.contextmanager
def interrupted_answer() -> Iterator[None]:
    """Let Ctrl-C come between the answer of a call and its return."""

    def interrupt(call: Call[Any], timeout: float | None) -> bool:
        assert wait(call, timeout)
        raise KeyboardInterrupt

    wait = Call._wait
    with pytest.raises(KeyboardInterrupt), mock.patch.object(Call, "_wait", interrupt):
        yield
