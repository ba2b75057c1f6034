"""Memory of large messages that is used again: nobody sees it but who has the message, and it does not stay."""

import asyncio
import random

import pytest
from websocket.frames_kit import BINARY, TEXT, Fed, fed, frame

from portico._core import hub_of
from tests.core.support import until

SMALLEST = 128 * 1024
TOGETHER = 16 * 1024 * 1024


def spare() -> int:
    """Bytes that are kept."""
    spares = hub_of(asyncio.get_running_loop()).spares
    return 0 if spares is None else spares.size


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@fed
async def test_a_message_that_somebody_has_stays_as_it_is() -> None:
    ends = Fed(max_size=1 << 20)
    kept = {}
    for number in range(60):
        size = SMALLEST + number % 3 * 1000
        ends.feed(frame(BINARY, noise(size, number)))
        message = await ends.socket.recv()
        if number % 4 == 0:
            kept[number] = message if number % 8 else memoryview(message)
        del message
    for number, message in kept.items():
        assert bytes(message) == noise(SMALLEST + number % 3 * 1000, number)


@fed
async def test_a_message_in_used_memory_is_like_any_other() -> None:
    ends = Fed(max_size=1 << 20)
    places = set()
    for number, size in enumerate([300_000, 299_000, 280_000, 300_000, 170_000]):
        data = noise(size, number)
        ends.feed(frame(BINARY, data))
        message = await ends.socket.recv()
        places.add(id(message))
        assert (message, len(message), hash(message)) == (data, size, hash(data))
        assert {message: 1}[data] == 1
        del message
    assert len(places) < 5
    ends.feed(frame(TEXT, "€".encode() * 90_000))
    assert await ends.socket.recv() == "€" * 90_000


@pytest.mark.parametrize("size", [SMALLEST - 5, SMALLEST + 100, 1 << 20, TOGETHER + 1])
@fed
async def test_what_is_kept_is_bounded(size: int) -> None:
    ends = Fed(max_size=1 << 26)
    messages, most = [], 0
    for _ in range(80 if size < 1 << 20 else 20 if size < TOGETHER else 2):
        ends.feed(frame(BINARY, bytes(size)))
        messages.append(await ends.socket.recv())
        most = max(most, spare())
    assert most <= TOGETHER
    assert (most > 0) == (SMALLEST <= size + 4 <= TOGETHER)


@fed
async def test_it_does_not_stay() -> None:
    ends = Fed(max_size=1 << 20)
    ends.feed(frame(BINARY, bytes(1 << 20)))
    message = await ends.socket.recv()
    assert spare() >= 1 << 20
    await until(lambda: not spare())
    assert message == bytes(1 << 20)


@fed
async def test_what_is_large_in_memory_only_is_cut_to_its_size() -> None:
    ends = Fed(max_size=1 << 22)
    data = noise(3 << 20, 1)
    whole = frame(BINARY, data)
    for start in range(0, len(whole), 10_000):
        ends.feed(whole[start : start + 10_000])
    assert await ends.socket.recv() == data
    assert spare() < 3.5 * (1 << 20)
