"""Frames as they come and go: sizes, cuts at every byte, masks, fragments, text, limits (RFC 6455, section 5)."""

import asyncio
import itertools
import time
from typing import Any

import pytest

import portico
from portico._core import Settings

from .frames_kit import (
    ARRIVAL,
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    TEXT,
    Fed,
    Frame,
    cut,
    fed,
    frame,
    head,
    masking,
)

BOTH_ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
SIZES = (0, 1, 2, 7, 8, 9, 125, 126, 127, 65535, 65536, 65537, ARRIVAL - 14, ARRIVAL, ARRIVAL + 1, 1 << 20)
TEXTS = (
    "",
    "a",
    "é",
    "€uro",
    "𝄞" * 3,
    "x" * 125,
    "Kosme κόσμε",
    "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff",
)


def payload(size: int) -> bytes:
    return bytes(itertools.islice(itertools.cycle(range(251)), size))


@BOTH_ROLES
@pytest.mark.parametrize("size", SIZES)
@fed
async def test_messages_of_every_size_come_and_go(client: bool, size: int) -> None:
    ends = Fed(client=client)
    ends.frame(BINARY, payload(size))
    ends.frame(TEXT, b"t" * size)
    assert await ends.received() == [payload(size), "t" * size, None]
    ends.socket.send(payload(size))
    ends.socket.send("t" * size)
    assert await ends.sent() == [Frame(FIN | BINARY, payload(size), client), Frame(FIN | TEXT, b"t" * size, client)]


@BOTH_ROLES
@fed
async def test_the_length_of_what_is_sent_is_in_its_shortest_form(client: bool) -> None:
    for size, form in ((0, 0), (125, 0), (126, 2), (65535, 2), (65536, 8)):
        ends = Fed(client=client)
        ends.socket.send(bytes(size))
        await asyncio.sleep(0)
        data = b"".join(ends.transport.data)
        assert len(data) == 2 + form + (4 if client else 0) + size
        assert data[1] & 127 == {0: size, 2: 126, 8: 127}[form] and data[1] >> 7 == client


@fed
async def test_each_frame_of_a_client_has_a_mask_of_its_own() -> None:
    ends = Fed(client=True)
    for _ in range(3000):
        ends.socket.send(b"x")
    await asyncio.sleep(0)
    data = b"".join(ends.transport.data)
    keys = {data[at + 2 : at + 6] for at in range(0, len(data), 7)}
    assert len(data) == 3000 * 7 and len(keys) > 2990
    assert len({key[0] for key in keys}) == 256


CONVERSATION: list[tuple[int, bytes, bool]] = [
    (TEXT, "κόσμε".encode(), True),
    (BINARY, b"", True),
    (TEXT, "𝄞€".encode()[:5], False),
    (PING, b"in between", True),
    (CONTINUATION, b"", False),
    (PONG, b"", True),
    (CONTINUATION, "𝄞€".encode()[5:], True),
    (BINARY, payload(130), True),
    (BINARY, b"", False),
    (CONTINUATION, b"abc", False),
    (PING, b"", True),
    (CONTINUATION, b"", True),
    (TEXT, b"", False),
    (CONTINUATION, b"", True),
    (TEXT, b"end", True),
]
MESSAGES = ["κόσμε", b"", "𝄞€", payload(130), b"abc", "", "end"]


def conversation(key: bytes | None) -> bytes:
    return b"".join(frame(opcode, data, fin=fin, key=key) for opcode, data, fin in CONVERSATION)


async def hears_all(ends: Fed) -> None:
    assert await ends.received() == [*MESSAGES, None]
    assert [(each.opcode, each.payload) for each in await ends.sent()] == [(PONG, b"in between"), (PONG, b"")]


@BOTH_ROLES
@fed
async def test_a_conversation_cut_in_two_at_every_byte(client: bool) -> None:
    size = len(conversation(Fed(client=client).key))
    for place in range(size + 1):
        ends = Fed(client=client)
        for part in cut(conversation(ends.key), [place]):
            ends.feed(part)
        await hears_all(ends)


@BOTH_ROLES
@pytest.mark.parametrize("step", [1, 2, 3, 5, 7, 11, 64])
@fed
async def test_a_conversation_in_small_pieces(client: bool, step: int) -> None:
    ends = Fed(client=client)
    data = conversation(ends.key)
    for part in cut(data, [step] * (len(data) // step)):
        ends.feed(part)
    await hears_all(ends)


@pytest.mark.parametrize("size", [0, 5, 200, 70_000])
@fed
async def test_what_came_with_the_handshake_are_frames(size: int) -> None:
    data = frame(BINARY, payload(size)) + frame(TEXT, b"next")
    for early in (len(data), len(data) - 1, 3):
        ends = Fed(early=data[:early])
        ends.feed(data[early:])
        assert await ends.received() == [payload(size), "next", None]


@fed
async def test_a_mask_is_gone_on_with_wherever_the_payload_is_cut() -> None:
    data = payload(37)
    for key in (b"\0\0\0\0", b"\x01\x02\x03\x04", b"\xff\0\xff\0"):
        for first in range(len(data)):
            for second in range(first, min(first + 6, len(data))):
                ends = Fed()
                ends.feed(head(FIN | BINARY, len(data), key))
                for part in cut(masking(data, key), [first, second - first]):
                    ends.feed(part)
                assert await ends.received() == [data, None]


# Text.


@pytest.mark.parametrize("text", TEXTS)
@fed
async def test_text_goes_through_whole_and_cut_within_its_characters(text: str) -> None:
    data = text.encode()
    for place in range(len(data) + 1):
        ends = Fed()
        ends.frame(TEXT, data[:place], fin=False)
        ends.frame(CONTINUATION, data[place:])
        whole = frame(TEXT, data)
        for part in cut(whole, [len(whole) - len(data) + place]):
            ends.feed(part)
        assert await ends.received() == [text, text, None]
    ends = Fed()
    ends.socket.send(text)
    assert await ends.sent() == [Frame(FIN | TEXT, data)]


class Name(str):
    """A str of a kind of its own."""


@fed
async def test_whatever_has_a_buffer_is_binary_and_whatever_is_a_str_is_text() -> None:
    import array

    ends = Fed()
    held = bytearray(b"held")
    for message in (held, memoryview(b"--x--")[2:3], array.array("H", [1]), memoryview(b"abcdef")[::1], Name("text")):
        ends.socket.send(message)
    held[:] = b"????"
    assert [each.payload for each in await ends.sent()] == [b"held", b"x", b"\x01\0", b"abcdef", b"text"]
    for wrong in (None, 5, ["a"], object()):
        with pytest.raises(TypeError):
            ends.socket.send(wrong)  # type: ignore[arg-type]
    with pytest.raises(portico.ProtocolError, match="UTF-8"):
        ends.socket.send("\ud800")
    assert await ends.sent() == []


@fed
async def test_binary_messages_are_memoryviews_where_that_was_asked_for() -> None:
    ends = Fed(memoryviews=True)
    ends.frame(BINARY, b"whole")
    ends.frame(BINARY, b"in ", fin=False)
    ends.frame(CONTINUATION, b"parts")
    ends.frame(BINARY, b"")
    ends.frame(TEXT, b"text")
    got = await ends.received()
    assert [type(each) for each in got[:3]] == [memoryview] * 3
    assert [bytes(each) for each in got[:3]] == [b"whole", b"in parts", b""] and got[3:] == ["text", None]


# Limits.


async def told(ends: Fed, code: int) -> Any:
    """The error of `recv` where the peer is told `code`."""
    *_, error = await ends.received()
    (close,) = await ends.sent()
    assert close.opcode == CLOSE and int.from_bytes(close.payload[:2], "big") == code
    assert str(error).startswith(close.payload[2:].decode()[:60])
    return error


@pytest.mark.parametrize("parts", [1, 2, 5])
@fed
async def test_a_message_of_max_size_comes_and_one_byte_more_is_told_with_1009(parts: int) -> None:
    for size in (1000, 1001):
        ends = Fed(max_size=1000)
        ends.frame(TEXT, b"before")
        share = size // parts
        for number in range(parts):
            last = number == parts - 1
            data = b"x" * (size - share * (parts - 1) if last else share)
            ends.frame(CONTINUATION if number else BINARY, data, fin=last)
        if size == 1000:
            assert await ends.received() == ["before", b"x" * 1000, None]
            continue
        assert await ends.socket.recv() == "before"
        error = await told(ends, 1009)
        assert isinstance(error, portico.MessageTooLarge) and (error.size, error.limit) == (1001, 1000)


@fed
async def test_what_is_too_large_is_told_by_its_head_before_it_comes() -> None:
    for size in (1001, 1 << 20, (1 << 63) - 1):
        ends = Fed(max_size=1000)
        ends.feed(head(FIN | BINARY, size))
        assert isinstance(await told(ends, 1009), portico.MessageTooLarge)
        ends.feed(b"x" * 5000)
        assert ends.socket.queued == (0, 0)


@fed
async def test_max_size_holds_for_what_is_sent_too() -> None:
    ends = Fed(max_size=10)
    for message in (b"x" * 11, "x" * 11, "€" * 4):
        with pytest.raises(portico.MessageTooLarge):
            ends.socket.send(message)
    ends.socket.send("€€€")
    assert [each.payload for each in await ends.sent()] == ["€€€".encode()]


@pytest.mark.parametrize("empty", [False, True])
@fed
async def test_a_message_comes_in_at_most_max_fragments_frames(empty: bool) -> None:
    for count in (4, 5):
        ends = Fed(max_fragments=4)
        for number in range(count):
            ends.frame(CONTINUATION if number else BINARY, b"" if empty else b"x", fin=number == count - 1)
        if count == 4:
            assert await ends.received() == [b"" if empty else b"xxxx", None]
            ends.frame(BINARY, b"again", fin=False)  # each message counts for itself
            ends.frame(CONTINUATION, b"")
            assert await ends.received() == [b"again", None]
        else:
            assert "max_fragments" in str(await told(ends, 1008))


@fed
async def test_memory_is_set_aside_for_what_has_come_and_not_for_what_was_announced() -> None:
    import tracemalloc

    tracemalloc.start()
    try:
        crowd = [Fed(max_size=1 << 30) for _ in range(20)]
        before = tracemalloc.get_traced_memory()[0]
        for each in crowd:
            each.feed(head(FIN | BINARY, 1 << 30) + b"x" * 1000)
        assert tracemalloc.get_traced_memory()[0] - before < 20 * 70_000  # 64 times what has come, as yet untouched
    finally:
        tracemalloc.stop()


@fed
async def test_a_flood_of_tiny_frames_costs_time_that_grows_with_it_only() -> None:
    def seconds(count: int) -> float:
        ends = Fed(max_fragments=1 << 20)
        flood = frame(BINARY, b"", fin=False) + frame(CONTINUATION, b"x", fin=False) * count + frame(CONTINUATION)
        begun = time.process_time()
        ends.feed(flood)
        return time.process_time() - begun

    seconds(1000)
    assert seconds(400_000) < 40 * max(seconds(20_000), 0.002)


@fed
async def test_messages_that_straddle_arrivals_each_have_their_own_time() -> None:
    """Each arrival ends within the next message, so that there is never a moment without one that has begun."""
    ends = Fed(Settings(message_timeout=0.15))
    data = frame(TEXT, b"hello")
    ends.feed(data[:4])
    begun = time.monotonic()
    while time.monotonic() - begun < 0.4:
        ends.feed(data[4:] + data[:4])
        assert await ends.received() == ["hello", None]
        await asyncio.sleep(0.005)  # time is what is tested
    assert ends.socket.state is portico.State.OPEN


@fed
async def test_a_message_that_does_not_end_in_time_ends_the_connection() -> None:
    for data in (frame(TEXT, b"hello")[:-1], frame(TEXT, b"hel", fin=False), frame(PING, b"12")[:-1], b"\x81"):
        ends = Fed(Settings(message_timeout=0.03, close_timeout=0.03))
        ends.feed(data)
        with pytest.raises(portico.ClosedError, match="message_timeout"):
            await ends.socket.recv()
        (close,) = await ends.sent()
        assert close.opcode == CLOSE and close.payload[:2] == (1008).to_bytes(2, "big")
