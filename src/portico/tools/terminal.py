"""Standard input and output as seen from an event loop, whatever they are: terminal, pipe, file or nothing.

Reading and writing happen in threads, which can wait for anything: epoll refuses regular files, and to make a terminal
non-blocking would make it so for the shell, too.
"""

import asyncio
import contextlib
import errno
import os
import queue
import select
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

CHUNK = 256 * 1024
"""Bytes read at a time: what one read(2) gives of a file; a pipe gives at most its capacity (64 KiB, pipe(7))."""


class BlockingThread:
    """A thread for calls that may block for ever; it does not keep the program from ending."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def call(self, function: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        """Call it in the thread, after what was called before; await the result."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(error: BaseException | None, result: Any) -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def work() -> None:
            error, result = None, None
            try:
                result = function(*arguments)
            except BaseException as raised:
                error = raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(settle, error, result)

        self._calls.put(work)
        return future

    def _work(self) -> None:
        while True:
            self._calls.get()()


class Terminal:
    """Where the command's input comes from and its output goes."""

    def __init__(self, source: int = 0, sink: int = 1) -> None:
        self._source, self._sink = source, sink
        self._reader = BlockingThread("stdin")
        self._writer = BlockingThread("stdout")

    @property
    def is_interactive(self) -> bool:
        """Whether a person types the input."""
        return os.isatty(self._source)

    async def read(self) -> bytes:
        """Return what comes next, b"" at the end. Cancelled, it may lose what comes next."""
        return await self._reader.call(read_some, self._source)

    async def write(self, data: bytes) -> None:
        """Return when all of `data` is written.

        :raises BrokenPipeError: nobody reads it any more"""
        await self._writer.call(write_all, self._sink, data)


def read_some(descriptor: int) -> bytes:
    """Wait for input, also where another process has made the descriptor non-blocking."""
    while True:
        try:
            return os.read(descriptor, CHUNK)
        except BlockingIOError:
            select.select([descriptor], [], [])
        except OSError as error:
            if error.errno == errno.EIO:  # the terminal is gone, or belongs to another job
                return b""
            raise


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, however long that takes."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
