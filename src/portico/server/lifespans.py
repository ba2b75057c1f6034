"""`Lifespans`: what begins before the first server of a handler and ends after the last."""

import asyncio
import logging
from collections.abc import Collection, Coroutine
from typing import Any

from portico.interfaces import Lifespan

logger = logging.getLogger("portico.server")


async def cancel(tasks: Collection["asyncio.Task[Any]"], what: object, timeout: float) -> None:
    """Cancel `tasks` and wait for their end, `timeout` seconds at most; what goes on is reported, and left alone."""
    for task in tasks:
        task.cancel()
    ended, late = await asyncio.wait(tasks, timeout=timeout)
    if late:
        logger.error("%s does not end though it was cancelled", what)
    for task in ended:
        if not task.cancelled():
            task.exception()  # nobody else asks


async def finish(work: Coroutine[Any, Any, None], what: object, patience: float, stop: float) -> None:
    """Await `work`, which lets `what` shut down, for `patience` seconds, and for `stop` more when it was cancelled."""
    task = asyncio.create_task(work)
    try:
        await asyncio.wait([task], timeout=patience)
    except asyncio.CancelledError:
        await cancel([task], what, stop)
        raise
    if task.done():
        task.result()
    else:
        logger.error("%s was not shut down within %g seconds", what, patience)
        await cancel([task], what, stop)


class Lifespans:
    """The parts of a handler that have a life of their own, however many servers use that handler."""

    def __init__(self) -> None:
        self._parts: list[Lifespan] = []
        self._started: list[Lifespan] = []
        self._servers = 0
        self._turn = asyncio.Lock()  # to start, or to end

    def add(self, part: object) -> None:
        """Start and end `part`, too, if it is a Lifespan that is not here yet."""
        if isinstance(part, Lifespan) and not any(part is each for each in self._parts):
            self._parts.append(part)

    async def startup(self) -> None:
        """Start what has not been started; a second server waits for the first. If a part fails, all is taken back."""
        self._servers += 1
        if self._servers == 1 and not self._turn.locked():
            self._turn = asyncio.Lock()  # of this loop
        try:
            async with self._turn:
                for each in self._parts[len(self._started) :]:
                    await each.startup()
                    self._started.append(each)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> bool:
        """End all, the last one first, if this was the last server; say whether it was."""
        self._servers -= 1
        if self._servers:
            return False
        async with self._turn:
            while self._started and not self._servers:
                await self._started.pop().shutdown()
        return True
