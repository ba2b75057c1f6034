"""The one event loop behind everything blocking: in a daemon thread, from the first use to the end of the program."""

import asyncio
import atexit
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from portico.errors import ClosedError
from portico.server.running import loop_factory
from portico.server.service import Server
from portico.transports.calls import Caller
from portico.transports.connection import ConnectionFace, State
from portico.transports.faces import blocking_face

__all__ = ["Background", "background", "shutdown"]

T = TypeVar("T")
C = TypeVar("C", bound=ConnectionFace)

SHUTDOWN_TIMEOUT = 5.0
"""Seconds that connections get to send what is queued: more than a round trip to anywhere, less than patience lasts."""

_lock = threading.Lock()
_current: "Background | None" = None
_inherited: "list[Background]" = []


class Background(Caller):
    """A loop in a thread of its own, and what is open in it."""

    def __init__(self) -> None:
        self.connections: set[ConnectionFace] = set()
        self.servers: set[Server] = set()
        self._stop = asyncio.Event()
        self._patience, self._at_exit = SHUTDOWN_TIMEOUT, False
        self._runner = asyncio.Runner(loop_factory=loop_factory())
        self.loop = self._runner.get_loop()
        super().__init__(self.loop)
        self._thread = threading.Thread(target=self._work, name="portico-blocking", daemon=True)
        self._thread.start()

    def _whom(self) -> str:
        return "portico.blocking"

    def call(
        self,
        make: Callable[[], Coroutine[Any, Any, T]],
        timeout: float | None = None,
        *,
        doing: str,
        keep: Callable[[T], object] | None = None,
    ) -> T:
        """Return what the coroutine `make()`, begun once, returns in the loop; `keep` gets what came too late."""
        return self._call(make, timeout, doing=doing, once=True, keep=keep)

    def hold(self, connection: ConnectionFace) -> None:
        """Close `connection` at the end of the program, unless it is over by then; to be called in the loop."""
        if connection.state is State.CLOSED:
            return
        owner = connection.owner

        def over(ended: object) -> None:
            self.connections.discard(connection)
            if owner is not None:
                owner(ended)

        connection.owner = over
        self.connections.add(connection)

    def face_of(self, make: Callable[[], Awaitable[C]], *, doing: str) -> Any:
        """Return the blocking face of the connection that `make()` makes."""

        async def made() -> C:
            connection = await make()
            self.hold(connection)
            return connection

        return blocking_face(self.call(made, doing=doing, keep=lambda late: late.abort()), self.loop)

    # the thread

    def _work(self) -> None:
        with self._runner as runner:
            runner.run(self._main())

    async def _main(self) -> None:
        await self._stop.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._end()
        for server in self.servers:
            for task in server.leftover_tasks():  # cancelled to no avail: the runner would wait for them for ever
                asyncio._unregister_task(task)
        if not self._at_exit:
            for connection in list(self.connections):
                connection.abort()

    async def _end(self) -> None:
        """Close everything. At the exit of the program what has left is enough: the system waits for the peers."""
        for connection in self.connections:
            connection.close()
        await asyncio.gather(*(server.drain(0) for server in self.servers))
        for connection in list(self.connections):
            with contextlib.suppress(ClosedError):
                await (connection.flush() if self._at_exit else connection.wait_closed())

    def stop(self, timeout: float, *, at_exit: bool = False) -> None:
        """End everything, and the thread."""
        self._patience, self._at_exit = timeout, at_exit
        with contextlib.suppress(RuntimeError):  # it has ended
            self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(timeout + 1)


def background() -> Background:
    """Return the loop of this process, started at the first call."""
    global _current
    with _lock:
        if _current is None:
            _current = Background()
        return _current


def shutdown(timeout: float = SHUTDOWN_TIMEOUT) -> None:
    """Close all that `portico.blocking` has open, and end its loop and its thread. The next call starts anew.

    Servers stop, and their handlers are cancelled; connections get `timeout` seconds (5) to send what is queued, then
    they are aborted. At the end of the program this is done by itself; then nobody waits for the peers to close."""
    _shut_down(timeout)


def _shut_down(timeout: float, *, at_exit: bool = False) -> None:
    global _current
    with _lock:
        if _current is not None and asyncio._get_running_loop() is _current.loop:
            raise RuntimeError("shutdown() in the loop's own thread would wait for ever")
        ended, _current = _current, None
    if ended is not None:
        ended.stop(timeout, at_exit=at_exit)


def _forget() -> None:
    """In a forked child there is no such thread. What it had is kept, for closing it would reach into the parent's."""
    global _current, _lock
    _lock = threading.Lock()
    if _current is not None:
        _inherited.append(_current)
        _current = None


atexit.register(_shut_down, SHUTDOWN_TIMEOUT, at_exit=True)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
