"""Handlers that are plain functions: each runs in a thread, with a face of its connection whose calls block."""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from portico.errors import ConfigurationError
from portico.transports.connection import Channel, Stream
from portico.transports.faces import blocking_face

if TYPE_CHECKING:
    from portico.transports.datagrams import Datagrams

IDLE_THREAD = 5.0
"""Seconds after which a thread without work ends."""


class Threads:
    """At most `limit` daemon threads that take jobs in order.

    concurrent.futures joins its threads when the interpreter ends: one handler that hangs would keep the process."""

    def __init__(self, limit: int) -> None:
        """:raises ConfigurationError: `limit` is no whole number above 0"""
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigurationError(f"max_threads must be a whole number above 0, not {limit!r}")
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

    def take_back(self, job: "Job") -> bool:
        """Forget a job that nobody waits for any more; False: it runs already."""
        with self._changed, contextlib.suppress(ValueError):
            self._waiting.remove(job)
        return job.withdraw()

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
        if not self.ended.done():
            self.ended.set_result(None)
        if self.result.done():
            return
        if error is None:
            self.result.set_result(result)
        else:
            self.result.set_exception(error)


async def run_in(threads: Threads, call: "functools.partial[Any]", give_up: Callable[[], object]) -> Any:
    """Run `call`, a plain function with its arguments, in one of `threads`, and return what it returns.

    Cancelled, it calls `give_up()`, which lets the function fail, and waits for its end; cancelled again, it does not.

    :raises ConfigurationError: it is no plain function: it returned something to await or iterate"""
    context = contextvars.copy_context()
    job = Job(lambda: context.run(call))
    threads.start(job)
    try:
        result = await job.result
    except asyncio.CancelledError:
        give_up()
        if not threads.take_back(job):
            await job.ended
        raise
    if inspect.isgenerator(result):
        raise ConfigurationError(f"the handler {call.func!r} returned a generator, which nobody iterates: do not yield")
    if inspect.isawaitable(result) or inspect.isasyncgen(result):
        if inspect.iscoroutine(result):
            result.close()
        what = "an async generator" if inspect.isasyncgen(result) else "something to await"
        raise ConfigurationError(f"the handler {call.func!r} is a plain function that returned {what}: use async def")
    return result


class ThreadedHandler:
    """A handler for the loop that runs a plain function in a thread, at most `max_threads` at a time."""

    def __init__(self, function: Any, max_threads: int) -> None:
        self.function = function
        self._threads = Threads(max_threads)

    async def __call__(self, connection: "Stream | Channel[Any] | Datagrams", *before: object) -> None:
        """Call the function with `before` and the blocking face of `connection`."""
        face = blocking_face(connection)
        await run_in(self._threads, functools.partial(self.function, *before, face), connection.abort)

    def close(self) -> None:
        """Let the threads end with the handlers that run and wait."""
        self._threads.close()
