"""Messages taken and sent in pieces: `fragments` and `send_fragments`, in every state and with all else between."""

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest

import portico
from portico._core import Settings, driven

from .frames_kit import (
    BINARY,
    CONTINUATION,
    FIN,
    PING,
    PONG,
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
)

MAKERS = pytest.mark.parametrize("make", [driven, asyncio.ensure_future], ids=["driven", "plain"])


async def pieces_of(ends: Fed) -> list[Any]:
    return [piece async for piece in ends.socket.fragments()]


# Receiving.


@fed
async def test_a_message_that_is_there_is_one_piece() -> None:
    for opcode, data, expected in ((TEXT, b"hello", ["hello"]), (BINARY, b"\0\1", [b"\0\1"]), (TEXT, b"", [])):
        ends = Fed()
        ends.frame(opcode, data)
        ends.frame(TEXT, b"next")
        assert await pieces_of(ends) == expected
        assert await ends.socket.recv() == "next"


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@fed
async def test_pieces_are_what_has_come_and_text_is_cut_between_characters(opcode: int) -> None:
    data = "a€𝄞κb".encode()
    frames = frame(opcode, data[:6], fin=False) + frame(PING) + frame(CONTINUATION, data[6:]) + frame(TEXT, b"next")
    for place in range(len(frames)):
        ends = Fed()
        taking = asyncio.create_task(pieces_of(ends))
        await asyncio.sleep(0)
        for part in cut(frames, [place]):
            ends.feed(part)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        got = await taking
        assert all(got) and got
        assert ("".join(got).encode() if opcode == TEXT else b"".join(got)) == data
        assert await ends.socket.recv() == "next"


@fed
async def test_a_message_larger_than_max_size_and_than_its_memory_passes_through() -> None:
    ends = Fed(Settings(read_limit=64 * 1024), max_size=1000, max_fragments=2)
    total = 0

    async def take() -> None:
        nonlocal total
        async for piece in ends.socket.fragments():
            total += len(piece)

    taking = asyncio.create_task(take())
    await asyncio.sleep(0)
    for number in range(200):
        ends.frame(CONTINUATION if number else BINARY, b"x" * 100_000, fin=number == 199)
        for _ in range(3):
            await asyncio.sleep(0)
        assert ends.socket.queued[0] < 500_000
    await taking
    assert total == 20_000_000


@fed
async def test_a_frame_of_the_largest_size_is_taken_in_pieces() -> None:
    ends = Fed(max_size=1000)
    ends.frame(TEXT, b"a")
    assert await pieces_of(ends) == ["a"]
    ends.feed(head(FIN | BINARY, (1 << 63) - 1))
    taken = ends.socket.fragments()
    for size in (5000, 1, 300_000):
        ends.feed(b"\0" * size)
        got = 0
        while got < size:
            got += len(await anext(taken))
        assert got == size
    ends.lose()
    with pytest.raises(portico.ClosedError):
        await anext(taken)


@fed
async def test_pieces_of_a_message_that_came_in_part_before_anybody_asked() -> None:
    ends = Fed()
    ends.frame(TEXT, b"first")
    ends.feed(frame(BINARY, b"0123456789", key=ends.key)[:-4])
    assert await pieces_of(ends) == ["first"]
    taken = ends.socket.fragments()
    assert await anext(taken) == b"012345"
    ends.feed(frame(BINARY, b"0123456789", key=ends.key)[-4:])
    assert [piece async for piece in taken] == [b"6789"]
    assert [piece async for piece in taken] == []


@pytest.mark.parametrize("then", ["recv", "iterate", "batches", "fragments", "control"])
@fed
async def test_what_is_not_taken_of_a_message_is_dropped_when_the_next_is_asked_for(then: str) -> None:
    for come in (0, 1, 2):
        ends = Fed()
        taken = ends.socket.fragments()
        ends.frame(BINARY, b"taken", fin=False)
        assert await anext(taken) == b"taken"
        if come > 0:
            ends.frame(CONTINUATION, b"dropped", fin=False)
        if come > 1:
            ends.frame(CONTINUATION, b"dropped, too")
            ends.frame(TEXT, b"next")
        calls: dict[str, Any] = {
            "recv": ends.socket.recv,
            "iterate": ends.socket.__anext__,
            "batches": ends.socket.batches().__anext__,
            "fragments": functools.partial(pieces_of, ends),
            "control": ends.socket.recv_with_control,
        }
        expected = {"batches": ["next"], "fragments": ["next"], "control": ("next", [])}.get(then, "next")

        async def call(asked: Any = calls[then]) -> Any:
            return await asked()

        asking = asyncio.create_task(call())
        await asyncio.sleep(0)
        if come < 2:
            ends.frame(CONTINUATION, b"dropped, three", fin=False)
            ends.frame(CONTINUATION, b"dropped, four")
            ends.frame(TEXT, b"next")
        assert await asking == expected
        assert ends.socket.queued == (0, 0)


@fed
async def test_recv_puts_a_message_together_that_came_in_pieces() -> None:
    for how in ("recv", "batches", "control", "views"):
        ends = Fed(memoryviews=how == "views")
        ends.socket.fragments()
        whole = frame(BINARY, b"0123456789") + frame(TEXT, "€uro".encode())
        asking = asyncio.create_task(_recv(ends, how))
        for byte in whole:
            ends.feed(bytes([byte]))
            await asyncio.sleep(0)
        got = await asking
        if how == "views":
            assert type(got) is memoryview and bytes(got) == b"0123456789"
        else:
            data = b"0123456789"
            assert got == {"batches": [data], "control": (data, [])}.get(how, data)
        assert await ends.socket.recv() == "€uro"


async def _recv(ends: Fed, how: str = "recv") -> Any:
    if how == "batches":
        return await anext(ends.socket.batches())
    return await (ends.socket.recv_with_control() if how == "control" else ends.socket.recv())


@pytest.mark.parametrize("at_once", [False, True])
@fed
async def test_after_pieces_max_size_bounds_what_recv_takes(at_once: bool) -> None:
    ends = Fed(max_size=1000)
    ends.frame(TEXT, b"a")
    assert await pieces_of(ends) == ["a"]
    data = frame(BINARY, b"x" * 1001)
    for part in cut(data, [] if at_once else [500]):
        ends.feed(part)
    with pytest.raises(portico.MessageTooLarge) as caught:
        await ends.socket.recv()
    assert caught.value.limit == 1000
    ends.frame(TEXT, b"goes on")
    assert await ends.socket.recv() == "goes on"
    ends.frame(BINARY, b"x" * 1001)
    assert await pieces_of(ends) == [b"x" * 1001]


@fed
async def test_many_tiny_pieces_are_put_together_in_time_that_grows_with_them_only() -> None:
    """And in memory that does."""
    ends = Fed(max_size=1 << 20)
    ends.socket.fragments()
    asking = asyncio.create_task(_recv(ends))
    ends.feed(head(FIN | BINARY, 60_000, b"\0\0\0\0"))
    async with asyncio.timeout(10):
        for number in range(60_000):
            ends.feed(b"x")
            if number % 64 == 0:
                await asyncio.sleep(0)
        assert ends.socket.queued[0] < 1_000_000
        assert await asking == b"x" * 60_000


@fed
async def test_text_in_pieces_is_checked_as_it_comes() -> None:
    ends = Fed()
    taken = ends.socket.fragments()
    ends.frame(TEXT, b"good", fin=False)
    assert await anext(taken) == "good"
    ends.frame(CONTINUATION, b"\xe2\x82", fin=False)
    ends.frame(CONTINUATION, b"a", fin=False)
    with pytest.raises(portico.ProtocolError, match="UTF-8"):
        await anext(taken)
    assert [close_code(each) for each in await ends.sent()] == [1007]


@pytest.mark.parametrize("end", ["close", "code", "fin", "lost", "ours", "abort"])
@fed
async def test_the_end_of_the_connection_within_a_message_is_told(end: str) -> None:
    ends = Fed()
    taken = ends.socket.fragments()
    ends.frame(TEXT, b"half", fin=False)
    ends.frame(CONTINUATION, b"more", fin=False)
    got = [await anext(taken)]
    if end == "close":
        ends.feed(closing(1000))
    elif end == "code":
        ends.feed(closing(4000))
    elif end == "fin":
        ends.end()
    elif end == "lost":
        ends.lose(ConnectionResetError("reset"))
    elif end == "ours":
        ends.socket.close()
    else:
        ends.socket.abort()
    with pytest.raises((portico.EndOfStream, portico.ClosedError)) as caught:
        while True:
            got.append(await anext(taken))
    assert "".join(got) == "halfmore"
    assert isinstance(caught.value, portico.EndOfStream) is (end == "close")


@MAKERS
@fed
async def test_taking_pieces_is_cancelled_at_every_turn_and_loses_none(make: Any) -> None:
    ends = Fed()
    taken = ends.socket.fragments()
    expected, got = b"", b""
    for number in range(40):

        async def take() -> None:
            nonlocal got
            got += await anext(taken)

        taking = asyncio.get_running_loop().create_task(make(take()) if make is driven else take())
        for _ in range(number % 4):
            await asyncio.sleep(0)
        data = b"%d," % number
        expected += data
        ends.frame(CONTINUATION if number else BINARY, data, fin=False)
        if number % 3:
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
    ends.frame(CONTINUATION, b"end")
    async for piece in taken:
        got += piece
    assert got == expected + b"end"


@fed
async def test_a_second_reader_of_pieces_is_told_at_once() -> None:
    ends = Fed()
    taken = ends.socket.fragments()
    first = asyncio.create_task(_next(taken))
    await asyncio.sleep(0)
    for second in (anext(taken), ends.socket.recv()):
        with pytest.raises(portico.BusyError):
            await second
    ends.frame(TEXT, b"x")
    assert await first == "x"


async def _next(taken: Any) -> Any:
    return await anext(taken)


@fed
async def test_a_message_in_pieces_may_take_longer_than_message_timeout_while_pieces_come() -> None:
    ends = Fed(Settings(message_timeout=0.1, close_timeout=0.05))
    taken = ends.socket.fragments()
    for number in range(12):
        ends.frame(CONTINUATION if number else TEXT, b"x", fin=False)
        assert await anext(taken) == "x"
        await asyncio.sleep(0.025)  # time is what is tested
    with pytest.raises(portico.ClosedError, match="message_timeout"):
        await anext(taken)


@fed
async def test_dropped_messages_take_their_pieces_that_are_to_come_along() -> None:
    ends = Fed()
    ends.socket.fragments()
    ends.frame(TEXT, b"part" * 20_000, fin=False)
    ends.socket.drop_received()
    assert ends.socket.queued == (0, 0)
    ends.frame(CONTINUATION, b"rest")
    ends.frame(TEXT, b"next")
    assert await ends.socket.recv() == "next"


# Sending.


async def each(*pieces: Any, after: Any = None) -> AsyncIterator[Any]:
    for number, piece in enumerate(pieces):
        if after is not None:
            await after(number)
        yield piece


async def shown(ends: Fed) -> list[tuple[int, bytes]]:
    return [(frame.first, frame.payload) for frame in await ends.sent()]


@pytest.mark.parametrize("plain", [False, True])
@fed
async def test_pieces_leave_as_the_frames_of_one_message(plain: bool) -> None:
    ends = Fed(max_size=5)
    for pieces, opcode in (
        (["one", "", "€"], TEXT),
        ([b"larger than max_size", bytearray(b"2"), memoryview(b"3")], BINARY),
    ):
        await ends.socket.send_fragments(pieces if plain else each(*pieces))
        sent = await shown(ends)
        assert [first for first, _ in sent] == [opcode, CONTINUATION, CONTINUATION, FIN | CONTINUATION]
        expected = [piece.encode() if isinstance(piece, str) else bytes(piece) for piece in pieces]
        assert [data for _, data in sent] == [*expected, b""]


@fed
async def test_a_message_of_no_pieces_is_empty() -> None:
    ends = Fed()
    await ends.socket.send_fragments([])
    assert await shown(ends) == [(FIN | BINARY, b"")]


@fed
async def test_what_is_sent_meanwhile_leaves_behind_it_but_for_control_frames() -> None:
    ends = Fed(deflate=agreed(threshold=50))
    room: portico.Group[Any] = portico.Group()
    async with room.join(ends.socket):

        async def between(number: int) -> None:
            if number == 1:
                ends.socket.send("sent")
                ends.socket.send("s" * 60, compress=False)
                ends.socket.send("tiny", compress=True)
                room.send("to all")
                ends.socket.send_encoded(ends.socket.frames.encode("encoded"))
                ends.frame(PING, b"asked")

        await ends.socket.send_fragments(each("a", "b", after=between))
        sent = await shown(ends)
    assert sent[:4] == [(TEXT, b"a"), (FIN | PONG, b"asked"), (CONTINUATION, b"b"), (FIN | CONTINUATION, b"")]
    assert sent[4:6] == [(FIN | TEXT, b"sent"), (FIN | TEXT, b"s" * 60)]
    assert sent[6][0] == FIN | RSV1 | TEXT
    assert sent[7:] == [(FIN | TEXT, b"to all"), (FIN | TEXT, b"encoded")]


@fed
async def test_what_waits_behind_a_message_in_pieces_does_not_hold_it_up() -> None:
    ends = Fed()

    async def between(number: int) -> None:
        ends.socket.send(b"z" * 70_000)

    async with asyncio.timeout(5):
        await ends.socket.send_fragments(each("a", "b", "c", after=between))
    sent = await ends.sent()
    assert [len(frame.payload) for frame in sent] == [70_000, 1, 1, 1, 0, 70_000, 70_000]
    assert ends.socket.queued == (0, 0)


@fed
async def test_what_waits_behind_it_counts_as_unsent_and_is_limited() -> None:
    ends = Fed(Settings(high_water=1000, max_unsent=5000))
    ends.socket.send_piece("a", False)
    await ends.sent()
    with pytest.raises(portico.LimitError):
        for _ in range(10):
            ends.socket.send(b"z" * 1000)
    assert ends.socket.queued[1] > 5000
    ends.lose()
    assert ends.socket.queued[1] == 0


@fed
async def test_text_and_bytes_in_one_message_are_refused_and_it_cannot_be_ended() -> None:
    ends = Fed()
    with pytest.raises(TypeError, match="all str or all bytes"):
        await ends.socket.send_fragments(["text", b"bytes"])  # type: ignore[list-item]
    first, close = await ends.sent()
    assert (first.payload, close_code(close)) == (b"text", 1011)


@fed
async def test_a_failure_of_the_pieces_closes_with_1011() -> None:
    ends = Fed()

    async def broken() -> AsyncIterator[str]:
        yield "a"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        await ends.socket.send_fragments(broken())
    ends.socket.close(1000)
    first, close = await ends.sent()
    assert (first.payload, close_code(close), close.payload[2:]) == (b"a", 1011, b"a message could not be ended")


@MAKERS
@pytest.mark.parametrize("count", range(4))
@fed
async def test_cancelled_within_a_message_it_closes_with_1011(make: Any, count: int) -> None:
    ends = Fed()

    async def endless() -> AsyncIterator[str]:
        while True:
            yield "x"
            await asyncio.sleep(0)

    async def send() -> None:
        await ends.socket.send_fragments(endless())

    sending = asyncio.get_running_loop().create_task(make(send()) if make is driven else send())
    for _ in range(count + 1):
        await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert close_code((await ends.sent())[-1]) == 1011


@fed
async def test_two_messages_in_pieces_at_once_are_refused() -> None:
    ends = Fed()

    async def between(number: int) -> None:
        if number == 1:
            with pytest.raises(portico.BusyError):
                await ends.socket.send_fragments(["other"])

    await ends.socket.send_fragments(each("a", "b", after=between))
    await ends.socket.send_fragments(["next"])
    assert [data for _, data in await shown(ends)] == [b"a", b"b", b"", b"next", b""]


@fed
async def test_pieces_wait_for_room() -> None:
    ends = Fed()
    ends.transport.get_write_buffer_size = lambda: 1_000_000  # type: ignore[method-assign]  # the peer takes nothing
    given = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield b"x" * 10_000

    sending = asyncio.create_task(ends.socket.send_fragments(endless()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert given < 12 and not sending.done()
    ends.lose(ConnectionResetError("reset"))
    with pytest.raises(portico.ClosedError):
        await sending
