"""However messages come and are taken, each is the next one, whole; only what was begun in pieces is dropped."""

import asyncio
import random
from collections.abc import Awaitable
from typing import Any

import pytest
from websocket.frames_kit import BINARY, CONTINUATION, PING, RSV1, TEXT, Fed, agreed, fed, frame, squeezed
from websocket.test_compressed_pieces import compressor

from portico._core import Settings

Message = str | bytes


def drawn_message(drawn: random.Random, number: int) -> Message:
    size = drawn.choice([0, 1, 50, 3000, 20_000, 70_000, 200_000])
    if drawn.random() < 0.5:
        return "".join(drawn.choice(["a", "€", "𝄞", "word "]) for _ in range(size // 3)) + f"#{number}"
    return bytes(drawn.choices(b"abcdef\0", k=size)) + b"#%d" % number


class Talk:
    """A client that sends messages, cut anyhow, and a server that takes them anyhow."""

    def __init__(self, seed: int) -> None:
        self.drawn = drawn = random.Random(seed)
        self.takeover = drawn.random() < 0.5
        limits = Settings(read_limit=drawn.choice([1000, 64 * 1024, 1 << 20]))
        self.ends = Fed(limits, deflate=agreed(client_takeover=self.takeover), memoryviews=drawn.random() < 0.3)
        self.messages = [drawn_message(drawn, number) for number in range(drawn.randrange(3, 12))]
        self.stream = self.sent_as_frames()
        self.position = 0
        self.next = 0
        self.pieces: Any = None
        self.taken: Message | None = None
        """What was taken of the next message, piece by piece."""

    def sent_as_frames(self) -> bytes:
        drawn, one, data = self.drawn, compressor(), b""
        for message in self.messages:
            kind, raw = (TEXT, message.encode()) if isinstance(message, str) else (BINARY, message)
            bits = RSV1 if drawn.random() < 0.7 else 0
            payload = squeezed(raw, one if self.takeover else None) if bits else raw
            cuts = sorted(drawn.randrange(len(payload) + 1) for _ in range(drawn.choice([0, 0, 1, 4, 29])))
            for start, end in zip([0, *cuts], [*cuts, len(payload)], strict=True):
                last = end == len(payload) and (not cuts or start == cuts[-1])
                data += frame(kind, payload[start:end], fin=last, bits=bits)
                kind, bits = CONTINUATION, 0
                if drawn.random() < 0.05:
                    data += frame(PING, b"p")
                if last:
                    break
        return data

    def feed(self) -> None:
        size = self.drawn.choice([1, 10, 100, 1000, 16_000, 16_384, 17_000, 100_000])
        self.ends.feed(self.stream[self.position : self.position + size])
        self.position += size

    async def tried(self, taking: Awaitable[Any]) -> Any:
        """What is taken if it comes in some turns; else whoever takes gives up, and it is None."""
        task = asyncio.ensure_future(taking)
        for _ in range(self.drawn.choice([3, 5, 200])):
            await asyncio.sleep(0)
            if task.done():
                break
            if self.drawn.random() < 0.7:
                self.feed()
        task.cancel()
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    async def take(self) -> None:
        """Take something in one of the ways that there are."""
        socket = self.ends.socket
        how = self.drawn.choice(["recv", "anew", "piece", "piece", "piece", "batch", "control", "iterate"])
        if how == "anew" or (how == "piece" and self.pieces is None):
            self.drop_begun()
            self.pieces = socket.fragments()
        elif how == "piece":
            await self.take_piece()
        else:
            self.drop_begun()
            self.pieces = None
            if self.next == len(self.messages):
                return
            if how == "batch":
                found = await self.tried(anext(aiter(socket.batches()))) or []
            elif how == "control":
                both = await self.tried(socket.recv_with_control())
                found = [] if both is None else [both[0]]
            else:
                one = await self.tried(socket.recv() if how == "recv" else anext(socket))
                found = [] if one is None else [one]
            for each in found:
                self.came(each)

    def drop_begun(self) -> None:
        if self.taken is not None:
            self.next, self.taken = self.next + 1, None

    async def take_piece(self) -> None:
        expected = self.messages[self.next]
        try:
            piece = await self.tried(anext(self.pieces))
        except StopAsyncIteration:
            piece = expected[:0]
            assert self.pieces._over
        if piece is None:
            return
        got: Any = bytes(piece) if isinstance(piece, memoryview) else piece
        assert type(got) is type(expected)
        self.taken = got if self.taken is None else self.taken + got
        assert expected.startswith(self.taken)  # type: ignore[arg-type]
        if self.pieces._over:
            whole, self.taken, self.pieces = self.taken, None, None
            self.came(whole)

    def came(self, message: Any) -> None:
        assert (bytes(message) if isinstance(message, memoryview) else message) == self.messages[self.next]
        self.next += 1


@pytest.mark.parametrize("seed", range(100))
@fed
async def test_messages_come_in_order_and_whole(seed: int) -> None:
    talk = Talk(seed)
    for _ in range(5000):
        if talk.next == len(talk.messages):
            break
        for _ in range(talk.drawn.choice([0, 1, 1, 3])):
            talk.feed()
        await talk.take()
    assert talk.next == len(talk.messages)
    talk.ends.socket.abort()
    await asyncio.sleep(0)
