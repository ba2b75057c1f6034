"""Calls into an event loop from other threads, which wait for the answer, or give up without losing anything."""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from portico.errors import ClosedError, ConfigurationError, WouldBlock

__all__ = ["Caller"]

T = TypeVar("T")

TURNS = 2
"""Turns of the loop in which a call that must not wait looks again: in them the loop reads what the kernel has."""

LOOK = 1.0
"""Seconds after which a thread that waits sees whether the loop is still there: one that was closed answers nobody."""

_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


class Caller:
    """What lives in `loop` and is called from other threads."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._born = _forks
        self._leaving: set[asyncio.Task[None]] = set()  # calls that were given up and have not ended yet

    def _whom(self) -> str:
        """Name what is called, for errors."""
        raise NotImplementedError

    def _check_process(self) -> None:
        if self._born != _forks:
            raise ClosedError(
                f"{self._whom()} belongs to the process that made it: a forked child must make one of its own"
            )

    def _call(
        self,
        make: Callable[[], Coroutine[Any, Any, T]],
        timeout: float | None = None,
        *,
        doing: str,
        wait: bool = True,
        once: bool = False,
        keep: Callable[[T], object] | None = None,
        until: Callable[[], Awaitable[object]] | None = None,
    ) -> T:
        """Return what the coroutine `make()` returns in the loop.

        :param timeout: seconds, None for no end; 0 looks once, as `wait=False` does.
        :param doing: such as "receiving from", for errors.
        :param wait: False raises WouldBlock where `make()` would wait.
        :param once: `make()` is begun once only. Else it may be begun, dropped where it would wait, and begun again.
        :param keep: gets what was returned too late, in the loop, before any later call begins.
        :param until: awaited before `make()` is tried again; it is never waited for in `make()` then.
        :raises TimeoutError: it took longer. Only `keep` sees the answer then, and with `until` nothing was done"""
        self._check_process()
        if asyncio._get_running_loop() is self._loop:
            raise RuntimeError(
                "a blocking call in the event loop's own thread would wait for ever: use the async face there"
            )
        if timeout is not None and not timeout >= 0:
            raise ConfigurationError(f"timeout={timeout!r} must be 0 or more seconds, or None for no end")
        at_once = not once and (not wait or timeout == 0)
        call = Call(self._loop, make, once=once, at_once=at_once, keep=keep, until=until, leaving=self._leaving)
        try:
            if call.wait(None if at_once else timeout):
                return call.answer()
        except WouldBlock:
            if not wait:
                raise WouldBlock(f"{doing} {self._whom()} would have to wait") from None
        raise TimeoutError(f"{doing} {self._whom()} took more than {timeout:g} s") from None


class Call(Generic[T]):
    """One call, between the thread that waits and the loop. Whoever holds the guard may settle it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        make: Callable[[], Coroutine[Any, Any, T]],
        *,
        once: bool,
        at_once: bool,
        keep: Callable[[T], object] | None,
        until: Callable[[], Awaitable[object]] | None,
        leaving: set[asyncio.Task[None]],
    ) -> None:
        self._loop, self._make, self._once, self._at_once = loop, make, once, at_once
        self._keep, self._until, self._leaving = keep, until, leaving
        self._guard = threading.Lock()
        self._answered = threading.Lock()
        self._answered.acquire()
        self._settled = self._given_up = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None

    # in the thread

    def wait(self, timeout: float | None) -> bool:
        """Begin, and say whether there is an answer within `timeout`; else there will be none."""
        try:
            try:
                self._loop.call_soon_threadsafe(self._begin)
            except RuntimeError:
                raise _ended() from None
            return self._wait(timeout) or not self._give_up()
        except BaseException:  # Ctrl-C
            if not self._give_up():
                self._give_back()
            raise

    def _wait(self, timeout: float | None) -> bool:
        due = None if timeout is None else time.monotonic() + timeout
        while True:
            left = LOOK if due is None else min(LOOK, due - time.monotonic())
            if self._answered.acquire(timeout=max(left, 0)):
                return True
            if left <= 0:
                return False
            if self._loop.is_closed():
                raise _ended()

    def _give_up(self) -> bool:
        """Want no answer any more; False: it is there already."""
        with self._guard:
            if self._settled:
                return False
            if self._given_up:
                return True
            self._given_up = True
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)
        return True

    def _give_back(self) -> None:
        if self._error is None and self._keep is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._keep, self._result)

    def answer(self) -> T:
        """Return or raise what came."""
        if self._error is None:
            return self._result  # type: ignore[no-any-return]  # T, as `_put` says
        try:
            raise self._error
        finally:
            self._error = None  # it refers to this frame

    # in the loop

    def _begin(self) -> None:
        if self._leaving:  # they end in the next turn, and may still hold what this needs
            self._loop.call_soon(self._begin)
        elif self._once or not self._try():
            self._task = self._loop.create_task(self._run())

    def _cancel(self) -> None:
        if self._task is None or self._task.done():
            return
        self._task.cancel()
        if not self._once:
            self._leaving.add(self._task)
            self._task.add_done_callback(self._leaving.discard)

    def _try(self) -> bool:
        """Do it if that needs no waiting; False: it does."""
        with self._guard:
            if self._given_up:
                return True
            coro = self._make()
            try:
                coro.send(None)
            except StopIteration as done:
                self._put(done.value, None)
            except BaseException as error:
                self._put(None, error)
            else:
                coro.close()
                return False
        return True

    async def _run(self) -> None:
        try:
            if self._given_up:
                return
            if self._at_once:
                await self._look()
            elif self._until is None:
                self._settle(await self._make(), None)
            else:
                await self._until()
                while not self._try():
                    await self._until()
        except asyncio.CancelledError:
            self._settle(None, _ended())
            raise
        except BaseException as error:
            self._settle(None, error)

    async def _look(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)
            if self._try():
                return
        raise WouldBlock("it would have to wait")

    def _settle(self, result: T | None, error: BaseException | None) -> None:
        with self._guard:
            if not self._given_up:
                self._put(result, error)
                return
        if error is None and self._keep is not None:
            self._keep(result)  # type: ignore[arg-type]  # without an error it is a T

    def _put(self, result: T | None, error: BaseException | None) -> None:
        """Let the thread go on; the guard is held."""
        self._result, self._error, self._settled = result, error, True
        self._answered.release()


def _ended() -> ClosedError:
    return ClosedError("the event loop of this connection has ended")
