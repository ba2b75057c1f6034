"""Compressed messages that are taken in pieces: inflated as they are taken, and what nobody takes is bounded."""

import asyncio
import random
import tracemalloc
import zlib
from typing import Any

import pytest

import portico
from portico._core import Settings

from .frames_kit import (
    BINARY,
    CONTINUATION,
    FIN,
    KEY,
    RSV1,
    TEXT,
    Fed,
    agreed,
    close_code,
    closing,
    cut,
    fed,
    frame,
    head,
    masking,
    squeezed,
)

INFLATED_SIZE = 64 * 1024
TAKEOVER = pytest.mark.parametrize("takeover", [False, True], ids=["alone", "takeover"])


async def pieces_of(ends: Fed) -> list[Any]:
    return [piece async for piece in ends.socket.fragments()]


def compressor() -> Any:
    return zlib.compressobj(wbits=-15)


def words(count: int, seed: int = 1) -> str:
    drawn = random.Random(seed)
    return " ".join(drawn.choice(["door", "wire", "größe", "𝄞", "socket", "€"]) for _ in range(count))


@TAKEOVER
@fed
async def test_a_message_far_larger_than_max_size_passes_through(takeover: bool) -> None:
    ends = Fed(Settings(read_limit=64 * 1024), deflate=agreed(client_takeover=takeover), max_size=1000)
    one = compressor()
    data = bytes(50_000_000) + b"end"
    taken = ends.socket.fragments()
    ends.feed(frame(BINARY, squeezed(data, one), bits=RSV1))
    ends.feed(frame(TEXT, squeezed(b"next", one if takeover else None), bits=RSV1))
    size, last = 0, b""
    async for piece in taken:
        assert isinstance(piece, bytes) and len(piece) <= INFLATED_SIZE
        size, last = size + len(piece), piece
    assert (size, last[-3:]) == (len(data), b"end")
    assert await ends.socket.recv() == "next"
    assert ends.socket.queued == (0, 0)


@TAKEOVER
@pytest.mark.parametrize("frames", [1, 2, 7])
@fed
async def test_text_is_whole_wherever_it_is_cut(takeover: bool, frames: int) -> None:
    one, text = compressor(), words(40)
    second = words(20, 2)
    payload = squeezed(text.encode(), one)
    step = -(-len(payload) // frames)
    parts = [payload[place : place + step] for place in range(0, len(payload), step)]
    data = b"".join(
        frame(CONTINUATION if number else TEXT, part, fin=number == len(parts) - 1, bits=0 if number else RSV1)
        for number, part in enumerate(parts)
    ) + frame(TEXT, squeezed(second.encode(), one if takeover else None), bits=RSV1)
    for place in range(1, len(data)):
        ends = Fed(deflate=agreed(client_takeover=takeover))
        taking = asyncio.create_task(pieces_of(ends))
        await asyncio.sleep(0)
        for part in cut(data, [place]):
            ends.feed(part)
            await asyncio.sleep(0)
        assert "".join(await taking) == text
        assert await ends.socket.recv() == second


@fed
async def test_each_byte_by_itself() -> None:
    text = words(30)
    ends = Fed(deflate=agreed())
    taking = asyncio.create_task(pieces_of(ends))
    await asyncio.sleep(0)
    for byte in frame(TEXT, squeezed(text.encode()), bits=RSV1):
        ends.feed(bytes([byte]))
        await asyncio.sleep(0)
    pieces = await taking
    assert "".join(pieces) == text and all(pieces)


@pytest.mark.parametrize("size", [0, 1, INFLATED_SIZE - 1, INFLATED_SIZE, INFLATED_SIZE + 1, 3 * INFLATED_SIZE])
@fed
async def test_sizes_around_a_piece(size: int) -> None:
    for memoryviews in (False, True):
        ends = Fed(deflate=agreed(), memoryviews=memoryviews, max_size=10)
        taken = ends.socket.fragments()
        ends.frame(BINARY, squeezed(b"x" * size), bits=RSV1)
        pieces = [piece async for piece in taken]
        assert all(isinstance(piece, memoryview if memoryviews else bytes) for piece in pieces)
        assert b"".join(pieces) == b"x" * size
        ends.frame(TEXT, b"next")
        assert await ends.socket.recv() == "next"


@fed
async def test_a_queue_of_what_is_compressed_stops_reading() -> None:
    ends = Fed(Settings(read_limit=64 * 1024), deflate=agreed(), max_size=1000)
    taken = ends.socket.fragments()
    noise = random.Random(1).randbytes(300_000)
    ends.frame(BINARY, squeezed(noise), bits=RSV1, fin=False)
    assert not ends.transport.reading
    first = await anext(taken)
    assert first == noise[: len(first)]
    ends.socket.abort()


# What nobody takes.


@TAKEOVER
@pytest.mark.parametrize("when", ["whole", "half", "first"])
@pytest.mark.parametrize("taken", [False, True])
@fed
async def test_what_is_not_taken_is_dropped_when_the_next_is_asked_for(takeover: bool, when: str, taken: bool) -> None:
    one = compressor()
    ends = Fed(deflate=agreed(client_takeover=takeover), max_size=1 << 20)
    text = words(20_000)
    data = frame(TEXT, squeezed(text.encode(), one), bits=RSV1)
    after = frame(TEXT, squeezed(words(50).encode(), one if takeover else None), bits=RSV1)
    place = {"whole": len(data), "half": len(data) // 2, "first": 3000}[when]
    pieces = ends.socket.fragments()
    ends.feed(data[:place])
    if taken:
        assert text.startswith(await anext(pieces))
    next_one = asyncio.create_task(ends.socket.recv() if taken else pieces_of(ends))
    await asyncio.sleep(0)
    ends.feed(data[place:])
    ends.feed(after)
    if taken:
        assert await next_one == words(50)
    else:
        assert "".join(await next_one) == text
        assert await ends.socket.recv() == words(50)


@TAKEOVER
@fed
async def test_dropping_a_bomb_costs_max_size_at_most(takeover: bool) -> None:
    one = compressor()
    ends = Fed(deflate=agreed(client_takeover=takeover), max_size=1 << 20)
    taken = ends.socket.fragments()
    ends.feed(frame(BINARY, squeezed(bytes(1 << 30), one), bits=RSV1))
    ends.feed(frame(TEXT, squeezed(b"next", one if takeover else None), bits=RSV1))
    assert len(await anext(taken)) == INFLATED_SIZE
    if takeover:  # its window has to be known
        with pytest.raises(portico.MessageTooLarge):
            await ends.socket.recv()
        assert [close_code(each) for each in await ends.sent()] == [1009]
    else:
        assert await ends.socket.recv() == "next"


@TAKEOVER
@fed
async def test_dropped_messages_leave_the_window_as_it_is(takeover: bool) -> None:
    one = compressor()
    ends = Fed(deflate=agreed(client_takeover=takeover))
    ends.socket.fragments()
    data = frame(TEXT, squeezed(words(60_000).encode(), one), bits=RSV1)
    ends.feed(data[: len(data) // 2])
    assert ends.socket.queued[0]
    ends.socket.drop_received()
    assert ends.socket.queued == (0, 0)
    ends.feed(data[len(data) // 2 :])
    ends.feed(frame(TEXT, squeezed(words(9).encode(), one if takeover else None), bits=RSV1))
    assert await ends.socket.recv() == words(9)


# Taken whole.


@TAKEOVER
@pytest.mark.parametrize("memoryviews", [False, True])
@fed
async def test_recv_and_batches_put_them_together(takeover: bool, memoryviews: bool) -> None:
    one = compressor()
    ends = Fed(deflate=agreed(client_takeover=takeover), memoryviews=memoryviews)
    ends.socket.fragments()
    for number in range(4):
        kind, data = (TEXT, words(9000, number).encode()) if number % 2 else (BINARY, bytes([number]) * 90_000)
        payload = squeezed(data, one if takeover else None)
        ends.feed(frame(kind, payload[:100], bits=RSV1, fin=False))
        ends.feed(frame(CONTINUATION, payload[100:]))
    first = await ends.socket.recv()
    assert isinstance(first, memoryview if memoryviews else bytes) and bytes(first) == bytes(90_000)
    assert await anext(ends.socket) == words(9000, 1)
    batches = aiter(ends.socket.batches())
    assert [bytes(each) for each in await anext(batches)] == [b"\2" * 90_000]
    assert await anext(batches) == [words(9000, 3)]


@fed
async def test_taken_whole_they_are_bounded() -> None:
    for data in (bytes(1001), random.Random(1).randbytes(50_000), bytes(1 << 28)):
        for kind in (TEXT, BINARY):
            ends = Fed(deflate=agreed(), max_size=1000)
            ends.socket.fragments()
            ends.frame(kind, squeezed(data), bits=RSV1)
            with pytest.raises(portico.MessageTooLarge):
                await ends.socket.recv()


# Bad input.


@pytest.mark.parametrize("by", ["pieces", "recv"])
@fed
async def test_what_cannot_be_inflated_is_told_where_it_is_taken(by: str) -> None:
    for kind, payload in (
        (BINARY, b"\xff" * 50),
        (TEXT, squeezed(b"abc\xff")),
        (TEXT, squeezed("€".encode()[:2])),
        (TEXT, squeezed(b"x" * 70_000 + b"\xc3(")),
        (BINARY, squeezed(b"fine")[:-1] + b"\x07"),
    ):
        ends = Fed(deflate=agreed())
        ends.frame(TEXT, b"before")
        pieces = ends.socket.fragments()
        ends.frame(kind, payload, bits=RSV1)
        ends.frame(TEXT, b"behind")
        assert await ends.socket.recv() == "before"
        with pytest.raises(portico.ProtocolError):
            if by == "recv":
                await ends.socket.recv()
            else:
                async for _ in pieces:
                    pass
        with pytest.raises(portico.ProtocolError):
            await ends.socket.recv()
        assert [close_code(each) for each in await ends.sent()] == [1007]


@fed
async def test_a_message_that_ends_again_and_again() -> None:
    final = zlib.compressobj(wbits=-15)
    block = final.compress(b"block ") + final.flush(zlib.Z_FINISH)
    for count, kept in ((3, True), (100, False)):
        ends = Fed(deflate=agreed())
        pieces = ends.socket.fragments()
        ends.frame(TEXT, block * count, bits=RSV1)
        if kept:
            assert "".join([piece async for piece in pieces]) == "block " * count
        else:
            with pytest.raises(portico.ProtocolError, match="again and again"):
                await anext(pieces)


@pytest.mark.parametrize("seed", range(40))
@fed
async def test_only_documented_errors_come_out_of_noise(seed: int) -> None:
    drawn = random.Random(seed)
    takeover = bool(seed % 2)
    ends = Fed(deflate=agreed(client_takeover=takeover), max_size=5000)
    pieces = ends.socket.fragments()
    for _ in range(30):
        payload = bytearray(squeezed(words(drawn.randrange(800), seed).encode()))
        if payload and drawn.random() < 0.2:
            payload[drawn.randrange(len(payload))] ^= 1 << drawn.randrange(8)
        kind = drawn.choice([TEXT, BINARY])
        place = drawn.randrange(len(payload) + 1)
        ends.feed(frame(kind, bytes(payload[:place]), bits=RSV1, fin=False))
        try:
            if drawn.random() < 0.3:
                async with asyncio.timeout(0):
                    await anext(pieces)
        except (TimeoutError, StopAsyncIteration, portico.PorticoError):
            pass
        ends.feed(frame(CONTINUATION, bytes(payload[place:])))
        try:
            async with asyncio.timeout(0):  # what is there is taken at once
                if drawn.random() < 0.5:
                    pieces = ends.socket.fragments()
                    async for _ in pieces:
                        pass
                else:
                    await ends.socket.recv()
        except (TimeoutError, portico.MessageTooLarge):
            pass
        except portico.PorticoError:
            break
    ends.socket.abort()


# Ends, and those who give up.


@TAKEOVER
@fed
async def test_what_came_before_the_connection_ended_is_still_inflated(takeover: bool) -> None:
    one = compressor()
    ends = Fed(deflate=agreed(client_takeover=takeover))
    pieces = ends.socket.fragments()
    text = words(30_000)
    ends.feed(frame(TEXT, squeezed(text.encode(), one), bits=RSV1))
    ends.feed(frame(TEXT, squeezed(words(99).encode(), one if takeover else None), bits=RSV1))
    got = await anext(pieces)
    ends.feed(closing(1000))
    ends.end()
    ends.lose()
    await asyncio.sleep(0)
    async for piece in pieces:
        got += piece  # type: ignore[operator]
    assert got == text
    assert await ends.socket.recv() == words(99)


@TAKEOVER
@pytest.mark.parametrize("how", ["recv waits", "recv after", "dropped"])
@fed
async def test_after_our_close_nothing_is_kept(takeover: bool, how: str) -> None:
    ends = Fed(deflate=agreed(client_takeover=takeover), max_size=100_000)
    ends.socket.fragments()
    noise = squeezed(random.Random(1).randbytes(200_000))
    waiting = asyncio.create_task(ends.socket.recv()) if how == "recv waits" else None
    await asyncio.sleep(0)
    ends.feed(head(FIN | RSV1 | BINARY, 1 << 40) + masking(noise[:40_000], KEY))
    ends.socket.close()
    if how == "recv after":
        waiting = asyncio.create_task(ends.socket.recv())
    if how == "dropped":
        ends.socket.drop_received()
    await asyncio.sleep(0)
    tracemalloc.start()
    try:
        for _ in range(20):
            ends.feed(bytes(200_000))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()
    ends.lose()
    if waiting is not None:
        with pytest.raises((portico.ClosedError, portico.MessageTooLarge)):
            await waiting


@pytest.mark.parametrize("then", ["pieces", "recv"])
@fed
async def test_who_gave_up_before_anything_came_of_it_has_lost_nothing(then: str) -> None:
    for kind, data in ((BINARY, random.Random(3).randbytes(600)), (TEXT, words(200).encode())):
        payload = squeezed(data)
        for place in range(1, 60):
            ends = Fed(deflate=agreed())
            waiting = asyncio.ensure_future(anext(ends.socket.fragments()))
            await asyncio.sleep(0)
            ends.feed(frame(kind, payload[:place], bits=RSV1, fin=False))
            await asyncio.sleep(0)
            if waiting.done():
                break
            waiting.cancel()
            await asyncio.sleep(0)
            ends.feed(frame(CONTINUATION, payload[place:]) + frame(TEXT, b"behind"))
            got = b"".join(await pieces_of(ends)) if then == "pieces" and kind == BINARY else None
            if got is None:
                got = "".join(await pieces_of(ends)) if then == "pieces" else await ends.socket.recv()
            assert (got.encode() if isinstance(got, str) else got) == data
            assert await ends.socket.recv() == "behind"


@fed
async def test_pieces_of_which_nothing_comes_are_no_sign_of_life() -> None:
    ends = Fed(Settings(message_timeout=0.2), deflate=agreed())
    waiting = asyncio.ensure_future(anext(ends.socket.fragments()))
    await asyncio.sleep(0)
    ends.frame(BINARY, b"\0\0\0\xff\xff", bits=RSV1, fin=False)
    while not waiting.done():
        ends.frame(CONTINUATION, b"\0\0\0\xff\xff", fin=False)
        await asyncio.sleep(0.01)
    with pytest.raises(portico.ClosedError, match="message_timeout"):
        await waiting


@fed
async def test_what_is_broken_after_our_close_leaves_the_good_bye_to_the_peer() -> None:
    ends = Fed(deflate=agreed())
    ends.socket.fragments()
    ends.frame(BINARY, b"\xff" * 50, bits=RSV1)
    ends.socket.close(4000)
    with pytest.raises(portico.ProtocolError):
        await ends.socket.recv()
    ends.feed(closing(4001))
    await asyncio.sleep(0)
    assert ends.socket.close_code == 4001


@fed
async def test_a_message_that_came_in_one_go_before_is_inflated_bit_by_bit() -> None:
    ends = Fed(Settings(read_limit=1 << 24), deflate=agreed(), max_size=1 << 24)
    data = random.Random(1).randbytes(3_000_000)
    ends.feed(frame(BINARY, squeezed(data), bits=RSV1)[:2_000_000])
    pieces = ends.socket.fragments()
    got, waits = await anext(pieces), ends.socket.queued[0]
    while ends.socket.queued[0]:
        got += await anext(pieces)  # type: ignore[operator]
        assert waits - ends.socket.queued[0] < 300_000
        waits = ends.socket.queued[0]
    ends.feed(frame(BINARY, squeezed(data), bits=RSV1)[2_000_000:])
    async for piece in pieces:
        got += piece  # type: ignore[operator]
    assert got == data


@fed
async def test_half_a_message_is_not_left_behind_when_the_connection_is_handed_on() -> None:
    for pieces in (False, True):
        ends = Fed(deflate=agreed())
        if pieces:
            ends.socket.fragments()
        ends.feed(frame(BINARY, bytes(500))[:200])
        with pytest.raises(portico.BusyError):
            ends.socket.take_received()
