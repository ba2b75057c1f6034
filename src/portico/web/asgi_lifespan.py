"""The lifespan of an ASGI application (its specification 2.0): startup before anybody comes in, shutdown at the end."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from portico.errors import ConfigurationError
from portico.server.lifespans import cancel
from portico.server.service import STOP_TIMEOUT

Message = dict[str, Any]
App = Callable[..., Awaitable[object]]

SHUTDOWN_TIMEOUT = 10.0
"""Seconds that an app has to end its lifespan (`docker stop` leaves 10 to a whole program; uvicorn waits for ever)."""

logger = logging.getLogger("portico.web")


class AppLifespan:
    """One life of an app, in a task of its own.

    :ivar state: what the app put there at startup; each scope gets a copy."""

    def __init__(self, app: App, name: str) -> None:
        self.state: dict[str, Any] = {}
        self._app, self._name = app, name
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._answer: asyncio.Future[Message] | None = None

    async def startup(self) -> None:
        """Let the app start. One that does not know about lifespans, and fails with any exception, goes without.

        :raises ConfigurationError: it says that it cannot start"""
        self._task = asyncio.create_task(self._run())
        try:
            answer = await self._ask("lifespan.startup")
        except asyncio.CancelledError:
            await self._cancel(self._task)
            raise
        if answer is None:
            self._task = None
        elif answer["type"] == "lifespan.startup.failed":
            await self._cancel(self._task)
            raise failure(f"{self._name} did not start", answer)

    async def shutdown(self) -> None:
        """Let the app end, and wait for that, SHUTDOWN_TIMEOUT at most. What goes wrong is logged."""
        task, self._task = self._task, None
        if task is None:
            return
        try:
            async with asyncio.timeout(SHUTDOWN_TIMEOUT):
                answer = await self._ask("lifespan.shutdown", task)
                if answer is not None and answer["type"] == "lifespan.shutdown.failed":
                    error = failure(f"{self._name} did not shut down well", answer)
                    logger.error("%s", error, exc_info=error)
                await asyncio.wait([task])
        except TimeoutError:
            logger.error("%s did not shut down within %g seconds", self._name, SHUTDOWN_TIMEOUT)
            await self._cancel(task)
        except asyncio.CancelledError:
            self._task = task
            await self.cancel()
            raise

    async def cancel(self) -> None:
        """End the app without asking it."""
        task, self._task = self._task, None
        if task is not None:
            logger.error("%s was not given the time to shut down", self._name)
            await self._cancel(task)

    async def _ask(self, event: str, task: "asyncio.Task[None] | None" = None) -> Message | None:
        """Send `event` and return the answer; None: the app has ended without one."""
        task = task or self._task
        assert task is not None
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._events.put_nowait({"type": event})
        await asyncio.wait([task, answer], return_when=asyncio.FIRST_COMPLETED)
        return answer.result() if answer.done() else None

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        started = failed = False

        async def send(message: Message) -> None:
            nonlocal started, failed
            name, answer = message["type"], self._answer
            wanted = "lifespan.shutdown" if started else "lifespan.startup"
            if answer is None or answer.done() or name not in (f"{wanted}.complete", f"{wanted}.failed"):
                raise ConfigurationError(f"the app sent {name!r} where {wanted}.complete or .failed may come, once")
            started, failed = True, name.endswith(".failed")
            answer.set_result(message)

        try:
            await self._app(scope, self._events.get, send)
        except Exception as error:
            if failed:  # it has said so before it raised
                return
            if started:
                logger.error("%s: its lifespan failed: %r", self._name, error, exc_info=error)
            else:
                logger.info("%s: goes without lifespan, as it does not support it: %r", self._name, error)

    async def _cancel(self, task: "asyncio.Task[None]") -> None:
        await cancel([task], f"the lifespan of {self._name}", STOP_TIMEOUT)


def failure(what: str, answer: Message) -> ConfigurationError:
    """Return the error for a message `….failed`: its last line, as frameworks send tracebacks; a note has all."""
    told = str(answer.get("message") or "").strip()
    error = ConfigurationError(f"{what}: {told.splitlines()[-1].strip() if told else 'it did not say why'}")
    if "\n" in told:
        error.add_note(told)
    return error
