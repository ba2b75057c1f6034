"""Groups of WebSockets: one frame for members that agreed on different compression, and members that are slow."""

import asyncio
import zlib
from typing import Any

import pytest

import portico
from portico._core import Settings

from .frames_kit import FIN, RSV1, TEXT, Fed, agreed, close_code, expanded, fed

POLICIES = ("drop-new", "drop-old", "latest", "close")


@fed
async def test_members_with_different_agreements_each_get_what_they_can_read() -> None:
    room: portico.Group[Any] = portico.Group()
    members = {
        "plain": Fed(),
        "client": Fed(client=True),
        "small window": Fed(deflate=agreed(server_bits=9)),
        "large window": Fed(deflate=agreed(server_bits=15)),
        "takeover": Fed(deflate=agreed(server_takeover=True)),
        "later": Fed(deflate=agreed(threshold=10_000)),
    }
    for each in members.values():
        room.add(each.socket)
    text = "the same for everybody " * 30
    assert room.send(text) == len(members)
    assert room.send(text, skip=members["plain"].socket) == len(members) - 1
    for name, each in members.items():
        sent = await each.sent()
        assert len(sent) == (1 if name == "plain" else 2)
        for got in sent:
            compressed = name not in ("plain", "client", "later")
            assert got.first == FIN | TEXT | (RSV1 if compressed else 0)
            assert (expanded(got.payload, 9 if name == "small window" else 15) if compressed else got.payload) == (
                text.encode()
            )


@pytest.mark.parametrize("bits", [9, 15])
@fed
async def test_a_shared_message_between_others_breaks_no_context(bits: int) -> None:
    ends = Fed(deflate=agreed(server_takeover=True, server_bits=bits))
    room: portico.Group[Any] = portico.Group()
    room.add(ends.socket)
    expander = zlib.decompressobj(-bits)
    for number in range(12):
        text = f"message {number} " + "looks like the one before " * 8
        if number % 3 == 1:
            room.send(text)
        else:
            ends.socket.send(text)
        (sent,) = await ends.sent()
        assert sent.first == FIN | RSV1 | TEXT
        assert expanded(sent.payload, expander=expander) == text.encode()


@fed
async def test_a_message_that_is_too_large_for_a_member_reaches_nobody() -> None:
    small, large = Fed(max_size=10), Fed()
    room: portico.Group[Any] = portico.Group()
    room.add(small.socket)
    room.add(large.socket)
    with pytest.raises(portico.MessageTooLarge):
        room.send("x" * 11)
    assert await small.sent() == await large.sent() == []


class Slow(Fed):
    """A member that takes nothing, until `take`."""

    def __init__(self, **frames: Any) -> None:
        super().__init__(Settings(high_water=100, low_water=50), **frames)
        self.full = True
        self.waiting = 0
        self.transport.get_write_buffer_size = lambda: 1000 if self.full else 0  # type: ignore[method-assign]

    def take(self) -> None:
        self.full = False
        self.wire.resume_writing()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
@fed
async def test_a_slow_member_falls_under_its_policy_and_goes_on(policy: Any, compressed: bool) -> None:
    deflate = agreed(server_takeover=True) if compressed else None
    slow, quick = Slow(deflate=deflate), Fed(deflate=deflate)
    room: portico.Group[Any] = portico.Group(policy=policy, max_pending=2, notice=lambda missed: f"missed {missed}")
    room.add(slow.socket)
    room.add(quick.socket)
    for number in range(6):
        room.send(f"{number} " * 20, key="price")
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    if policy == "close":
        assert len(room) == 1 and slow.socket.state is portico.State.CLOSING
        assert close_code((await slow.sent())[-1]) == 1008
    slow.take()
    await asyncio.sleep(0.01)
    if policy != "close":
        slow.socket.send("own")
        expander = zlib.decompressobj(-15)
        texts = []
        for each in await slow.sent():
            assert (each.first & RSV1 != 0) is compressed
            texts.append((expanded(each.payload, expander=expander) if compressed else each.payload).decode())
        assert texts[0] == "0 " * 20 and texts[-1] == "own"
        waiting = {"drop-new": [], "drop-old": ["4", "5"], "latest": ["5"]}[policy]
        notice = [f"missed {5 - len(waiting)}"]
        assert sorted(text.split()[0] if "missed" not in text else text for text in texts[1:-1]) == waiting + notice
    assert len(await quick.sent()) == 6


@fed
async def test_a_member_that_is_closed_or_lost_is_none_any_more() -> None:
    for end in ("close", "lose"):
        ends = Fed()
        room: portico.Group[Any] = portico.Group()
        room.add(ends.socket)
        ends.socket.close() if end == "close" else ends.lose()
        assert room.send("x") == 0
        ends.lose()
        assert len(room) == 0
