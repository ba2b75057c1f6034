"""Handlers that are plain functions: each runs in a thread, with a face of its connection whose calls block."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import inspect
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from portico._core import Codec
from portico.address import Address
from portico.errors import ClosedError, ConfigurationError, EndOfStream
from portico.options import Options
from portico.transports.connection import Channel, Credentials, Signal, State, Stream

if TYPE_CHECKING:
    from portico.transports.info import Info
    from portico.transports.tls import TLS, TLSInfo

IDLE_THREAD = 5.0
"""Seconds after which a thread without work ends."""

T = TypeVar("T")
C = TypeVar("C", bound=Stream | Channel[Any])


class BlockingFace(Generic[C]):
    """What both faces share. Any thread but the loop's own may call them; `timeout` is in seconds, None waits for
    ever."""

    def __init__(self, connection: C, loop: asyncio.AbstractEventLoop) -> None:
        self.connection, self._loop = connection, loop

    def _call(self, coro: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        if asyncio._get_running_loop() is self._loop:
            coro.close()
            raise RuntimeError(
                "a blocking call in the event loop's own thread would wait for ever: use the async face there"
            )
        try:
            future = asyncio.run_coroutine_threadsafe(coro, self._loop)
        except RuntimeError:
            coro.close()
            raise ClosedError("the event loop of this connection has ended") from None
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
        with contextlib.suppress(RuntimeError):  # the loop has ended, and all connections with it
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

    @property
    def tls(self) -> "TLSInfo | None":
        """What TLS agreed on, where the connection is secure."""
        return self.connection.tls

    @property
    def peer_credentials(self) -> Credentials:
        """Process, user and group of the peer of a Unix socket."""
        return self.connection.peer_credentials

    def info(self) -> "Info":
        """The kernel's view, and the sizes of the queues here."""
        return self.connection.info()

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

    def start_tls(
        self, tls: "TLS", *, server_side: bool = False, server_name: str | None = None, timeout: float | None = None
    ) -> None:
        """Go on in TLS, as client or server (STARTTLS)."""

        async def start_tls() -> None:
            await self.connection.start_tls(tls, server_side=server_side, server_name=server_name)

        self._call(start_tls(), timeout)

    def channel(self, codec: Codec[T]) -> "BlockingChannel[T]":
        """Return the blocking face of a Channel that carries on with this connection."""

        async def channel() -> Channel[T]:
            return self.connection.channel(codec)

        return BlockingChannel(self._call(channel()), self._loop)


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


class Threads:
    """At most `limit` daemon threads that take jobs in order.

    concurrent.futures joins its threads when the interpreter ends: one handler that hangs would keep the process."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[Callable[[], None]] = deque()
        self._count = self._idle = 0
        self._closed = False

    def start(self, job: Callable[[], None]) -> None:
        """Let `job` run, as soon as there is a thread for it.

        :raises RuntimeError: the system gives no thread"""
        with self._changed:
            self._waiting.append(job)
            if len(self._waiting) <= self._idle:
                self._changed.notify()
            elif self._count < self._limit:
                self._count += 1
                try:
                    threading.Thread(target=self._work, name="portico-handler", daemon=True).start()
                except RuntimeError:
                    self._count -= 1
                    if not self._count:
                        self._waiting.remove(job)
                        raise

    def _work(self) -> None:
        while True:
            with self._changed:
                self._idle += 1
                self._changed.wait_for(lambda: self._waiting or self._closed, IDLE_THREAD)
                self._idle -= 1
                if not self._waiting:
                    self._count -= 1
                    return
                job = self._waiting.popleft()
            job()
            del job

    def close(self) -> None:
        """Let the threads end when there is nothing more to do."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Job:
    """One call of a plain handler, between the loop that waits for it and the thread that does it."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._claimed = threading.Lock()
        self.result: asyncio.Future[object] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def withdraw(self) -> bool:
        """Say that it need not run any more; False: it does already."""
        return self._claimed.acquire(blocking=False)

    def __call__(self) -> None:
        if not self._claimed.acquire(blocking=False):
            return
        result: object = None
        error: BaseException | None = None
        try:
            result = self._call()
        except StopIteration as raised:  # no future takes that
            error = RuntimeError("the handler raised StopIteration")
            error.__cause__ = raised
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._settle, result, error)

    def _settle(self, result: object, error: BaseException | None) -> None:
        self.ended.set_result(None)
        if self.result.done():
            return
        if error is None:
            self.result.set_result(result)
        else:
            self.result.set_exception(error)


class ThreadedHandler:
    """A handler for the loop that runs a plain function in a thread, at most `max_threads` at a time."""

    def __init__(self, function: Any, max_threads: int) -> None:
        self.function = function
        self._threads = Threads(max_threads)

    async def __call__(self, connection: Stream | Channel[Any]) -> None:
        context = contextvars.copy_context()
        face = blocking_face(connection)
        job = Job(lambda: context.run(self.function, face))
        self._threads.start(job)
        try:
            result = await job.result
        except asyncio.CancelledError:
            connection.abort()  # so that its calls fail
            if not job.withdraw():
                await job.ended
            raise
        if inspect.isawaitable(result) or inspect.isasyncgen(result) or inspect.isgenerator(result):
            if inspect.iscoroutine(result):
                result.close()
            raise ConfigurationError(
                f"the handler {self.function!r} returned something to await or iterate: define it with async def"
            )

    def close(self) -> None:
        """Let the threads end with the handlers that run and wait."""
        self._threads.close()
