"""Happy Eyeballs, RFC 8305: try several addresses at a short distance, keep the first that answers."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

from portico.address import Address

__all__ = ["ATTEMPT_DELAY", "interleaved", "race"]

T = TypeVar("T")

ATTEMPT_DELAY = 0.25
"""Seconds until the next address is tried beside those under way (RFC 8305 section 8: recommended)."""


def interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Order `addresses` so that the families alternate, beginning with that of the first one; within a family the order
    stays (RFC 8305 section 4, with a First Address Family Count of 1)."""
    families: dict[object, list[Address]] = {}
    for each in addresses:
        families.setdefault(each.family, []).append(each)
    return [each for row in zip_longest(*families.values()) for each in row if each is not None]


async def race(
    addresses: Sequence[Address],
    attempt: Callable[[Address], Coroutine[Any, Any, T]],
    *,
    discard: Callable[[T], object],
    delay: float | None = ATTEMPT_DELAY,
) -> tuple[Address, T]:
    """Start an attempt at each address in order, the next one when the last has failed or after `delay` seconds, and
    return the first that succeeds with its result; the others are cancelled, and over when this returns.

    :param discard: gets each result that nobody wants any more.
    :param delay: None to wait for the end of each attempt before the next.
    :raises OSError: what the last attempt to fail failed with, if all do."""
    if len(addresses) == 1:
        return addresses[0], await attempt(addresses[0])
    waiting = deque(addresses)
    running: dict[asyncio.Task[T], Address] = {}
    failure: BaseException | None = None
    try:
        while waiting or running:
            if waiting:
                address = waiting.popleft()
                running[asyncio.ensure_future(attempt(address))] = address
            await asyncio.wait(running, timeout=delay if waiting else None, return_when=asyncio.FIRST_COMPLETED)
            for task in [each for each in running if each.done()]:
                failure = task.exception()
                if failure is None:
                    winner = task, running.pop(task)
                    break
                del running[task]
                if not isinstance(failure, OSError):
                    raise failure
            else:
                continue
            break
        else:
            raise failure or ValueError("there is no address to connect to")
    except BaseException:
        await _call_off(running, discard)
        raise
    try:
        await _call_off(running, discard)
    except BaseException:
        discard(winner[0].result())
        raise
    return winner[1], winner[0].result()


async def _call_off(running: dict[asyncio.Task[T], Address], discard: Callable[[T], object]) -> None:
    """Cancel what runs, wait for its end, and discard what came all the same, even if this wait is cancelled."""

    def ended(task: asyncio.Task[T]) -> None:
        if not task.cancelled() and task.exception() is None:
            discard(task.result())

    unfinished = []
    for task in running:
        if task.done():
            ended(task)
        else:
            task.add_done_callback(ended)
            task.cancel()
            unfinished.append(task)
    if unfinished:
        await asyncio.wait(unfinished)
