"""Handlers that are plain functions: each runs in a thread, with a face of its connection whose calls block."""

import asyncio
import concurrent.futures
import contextvars
import inspect
import threading
from collections.abc import Coroutine, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from portico._core import Codec
from portico.address import Address
from portico.errors import ConfigurationError, EndOfStream
from portico.options import Options
from portico.transports.connection import Channel, Signal, State, Stream

T = TypeVar("T")
C = TypeVar("C", bound=Stream | Channel[Any])


class BlockingFace(Generic[C]):
    """What both faces share. Any thread but the loop's own may call them; `timeout` is in seconds, None waits for
    ever."""

    def __init__(self, connection: C, loop: asyncio.AbstractEventLoop) -> None:
        self.connection, self._loop = connection, loop
        self._thread = threading.get_ident()

    def _call(self, coro: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        if threading.get_ident() == self._thread:
            coro.close()
            raise RuntimeError(
                "a blocking call in the event loop's own thread would wait for ever: use the async face there"
            )
        future = asyncio.run_coroutine_threadsafe(coro, self._loop)
        try:
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            if future.done():
                raise  # the call's own
            future.cancel()
            raise TimeoutError(f"timed out after {timeout:g} s") from None

    def flush(self, *, timeout: float | None = None) -> None:
        """Wait until the operating system has taken all that was sent."""

        async def flush() -> None:
            await self.connection.flush()

        self._call(flush(), timeout)

    def send_eof(self) -> None:
        """End this side after what was sent (half-close); receiving goes on."""

        async def send_eof() -> None:
            self.connection.send_eof()

        self._call(send_eof())

    def close(self) -> None:
        """Send what is queued and close; returns when the connection is over."""

        async def close() -> None:
            await self.connection.close()

        self._call(close())

    def abort(self) -> None:
        """Close at once and drop what is queued."""
        self._loop.call_soon_threadsafe(self.connection.abort)

    @property
    def state(self) -> State:
        """Tells open, half-closed (which side), closing or closed."""
        return self.connection.state

    @property
    def draining(self) -> Signal:
        """True once the server wants its handlers to come to an end."""
        return self.connection.draining

    @property
    def local_address(self) -> Address:
        """The address of this end."""
        return self.connection.local_address

    @property
    def remote_address(self) -> Address:
        """The address of the peer."""
        return self.connection.remote_address

    @property
    def options(self) -> Options:
        """The live socket options, by name."""
        return self.connection.options

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlockingStream(BlockingFace[Stream]):
    """A Stream for threads: the same calls, which return when they are done. Errors are those of Stream; TimeoutError
    where `timeout` seconds were not enough (what came stays readable)."""

    def recv(self, max_bytes: int | None = None, *, timeout: float | None = None) -> bytes:
        """Return what has come, at most `max_bytes`; `b""` at the end."""

        async def recv() -> bytes:
            return await self.connection.recv(max_bytes)

        return self._call(recv(), timeout)

    def recv_exactly(self, size: int, *, timeout: float | None = None) -> bytes:
        """Return exactly `size` bytes."""

        async def recv_exactly() -> bytes:
            return await self.connection.recv_exactly(size)

        return self._call(recv_exactly(), timeout)

    def recv_until(self, separator: bytes, max_bytes: int = 1 << 20, *, timeout: float | None = None) -> bytes:
        """Return the bytes before the next `separator`, which is taken, too."""

        async def recv_until() -> bytes:
            return await self.connection.recv_until(separator, max_bytes)

        return self._call(recv_until(), timeout)

    def send(self, data: bytes, *, timeout: float | None = None) -> None:
        """Send bytes; returns when there is room for more."""

        async def send() -> None:
            await self.connection.send(data)

        self._call(send(), timeout)

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.recv():
            yield chunk

    def channel(self, codec: Codec[T]) -> "BlockingChannel[T]":
        """Return the blocking face of a Channel that carries on with this connection."""

        async def channel() -> Channel[T]:
            return self.connection.channel(codec)

        face: BlockingChannel[T] = BlockingChannel(self._call(channel()), self._loop)
        face._thread = self._thread
        return face


class BlockingChannel(BlockingFace[Channel[T]], Generic[T]):
    """A Channel for threads: the same calls, which return when they are done."""

    def recv(self, *, timeout: float | None = None) -> T:
        """Return the next message."""

        async def recv() -> T:
            return await self.connection.recv()

        return self._call(recv(), timeout)

    def send(self, message: T, *, timeout: float | None = None) -> None:
        """Send a message; returns when there is room for more."""

        async def send() -> None:
            await self.connection.send(message)

        self._call(send(), timeout)

    def __iter__(self) -> Iterator[T]:
        while True:
            try:
                message = self.recv()
            except EndOfStream as error:
                if error.partial:
                    raise
                return
            yield message


def blocking_face(connection: Stream | Channel[Any]) -> BlockingStream | BlockingChannel[Any]:
    """Return the face of `connection` for threads; to be called in its loop."""
    loop = asyncio.get_running_loop()
    return BlockingStream(connection, loop) if isinstance(connection, Stream) else BlockingChannel(connection, loop)


class ThreadedHandler:
    """A handler for the loop that runs a plain function in a thread, at most `max_threads` at a time."""

    def __init__(self, function: Any, max_threads: int) -> None:
        self.function, self.max_threads = function, max_threads
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    async def __call__(self, connection: Stream | Channel[Any]) -> None:
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(self.max_threads, thread_name_prefix="portico-handler")
        context = contextvars.copy_context()
        face = blocking_face(connection)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._pool, lambda: context.run(self.function, face))
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                result.close()
            raise ConfigurationError(
                f"the handler {self.function!r} returned something to await: define it with async def"
            )

    def close(self) -> None:
        """Let the threads end; those whose handler still runs end with it."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None
