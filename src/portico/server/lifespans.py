"""`Lifespans`: what begins before the first server of a handler and ends after the last."""

import asyncio

from portico.interfaces import Lifespan


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
