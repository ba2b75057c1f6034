"""Members of groups for tests: memory pairs whose far end reads only when the test does."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import uvloop

from portico._core import Codec, Lines, Settings
from portico.transports.connection import Channel, memory_pair

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}

FRAME = 10
"""Bytes of each line of `line`, its separator included."""


def run(main: Callable[[], Coroutine[Any, Any, None]], loop: str = "uvloop") -> None:
    """Run a test; it must leave no task behind."""

    async def checked() -> None:
        await main()
        await only_this_task()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(checked())


async def only_this_task() -> None:
    """Let the tasks that were cancelled end."""
    for _ in range(100):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if not others:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"left behind: {others}")


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until `condition` holds."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


@dataclass
class Pair:
    """`near` joins groups, `far` is its peer."""

    near: Channel[Any]
    far: Channel[Any]

    async def read(self, count: int) -> list[Any]:
        async with asyncio.timeout(5):
            return [await self.far.recv() for _ in range(count)]

    async def read_all(self) -> list[Any]:
        """Close the connection from the near end and return all that arrives until then."""
        self.near.close()
        async with asyncio.timeout(5):
            messages = [message async for message in self.far]
            await self.far.close()
            await self.near.wait_closed()
        return messages


def pair(codec: Codec[Any] | None = None, high_water: int = 64 * 1024, **settings: Any) -> Pair:
    """Return a fresh pair; the far end takes in next to nothing that nobody reads."""
    codec = codec or Lines()
    near, far = memory_pair(Settings(high_water=high_water, low_water=high_water // 2, read_limit=1, **settings))
    return Pair(near.channel(codec), far.channel(codec))


def slow_pair() -> Pair:
    """Return a pair that has room for two messages of `line` at a time while nobody reads."""
    return pair(high_water=FRAME)


def line(number: int) -> str:
    return f"m{number:08d}"


def lines(*numbers: int) -> list[str]:
    return [line(number) for number in numbers]
