"""Frames that break the rules: what the peer is told, what was before them, and what is left (RFC 6455, 5 and 7)."""

import asyncio
import gc
import struct
import weakref

import pytest

import portico
from portico._core import driven

from .frames_kit import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    KEY,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TAIL,
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

BROKEN, NOT_UTF8, TOO_MANY, TOO_BIG = 1002, 1007, 1008, 1009

BAD: dict[str, tuple[int, bytes]] = {
    **{f"the opcode {code}": (BROKEN, frame(code)) for code in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"the opcode {code} with a payload": (BROKEN, frame(code, b"x" * 200)) for code in (3, 11)},
    "the first reserved bit": (BROKEN, frame(TEXT, b"x", bits=RSV1)),
    "the second reserved bit": (BROKEN, frame(TEXT, b"x", bits=RSV2)),
    "the third reserved bit": (BROKEN, frame(BINARY, b"x", bits=RSV3)),
    "a reserved bit in a ping": (BROKEN, frame(PING, b"", bits=RSV1)),
    "a reserved bit in a close": (BROKEN, frame(CLOSE, b"", bits=RSV2)),
    "no mask": (BROKEN, frame(TEXT, b"x", key=None)),
    "no mask on a ping": (BROKEN, frame(PING, b"", key=None)),
    "no mask on a close": (BROKEN, closing(1000, key=None)),
    "a length of 2 bytes that fits into none": (BROKEN, head(FIN | TEXT, 125, form=2) + bytes(125)),
    "a length of 8 bytes that fits into none": (BROKEN, head(FIN | TEXT, 5, form=8) + bytes(5)),
    "a length of 8 bytes that fits into two": (BROKEN, head(FIN | BINARY, 65535, form=8) + bytes(65535)),
    "a length of zero in 8 bytes": (BROKEN, head(FIN | BINARY, 0, form=8)),
    "a length of 64 bits": (BROKEN, head(FIN | BINARY, 1 << 63)),
    "the largest length": (BROKEN, head(FIN | BINARY, (1 << 64) - 1)),
    "a ping in parts": (BROKEN, frame(PING, b"x", fin=False)),
    "a close in parts": (BROKEN, frame(CLOSE, b"", fin=False)),
    "a ping of 126 bytes": (BROKEN, frame(PING, bytes(126))),
    "a pong of 65536 bytes": (BROKEN, frame(PONG, bytes(65536))),
    "a close of 126 bytes": (BROKEN, closing(1000, b"x" * 124)),
    "a continuation of nothing": (BROKEN, frame(CONTINUATION, b"x")),
    "an open continuation of nothing": (BROKEN, frame(CONTINUATION, b"x", fin=False)),
    "text within a message": (BROKEN, frame(TEXT, b"x", fin=False) + frame(TEXT, b"y")),
    "binary within a text": (BROKEN, frame(TEXT, b"x", fin=False) + frame(BINARY, b"y", fin=False)),
    "a close of one byte": (BROKEN, frame(CLOSE, b"\x03")),
    **{
        f"the close code {code}": (BROKEN, closing(code))
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "a reason that is not UTF-8": (NOT_UTF8, closing(1000, b"\xce\xba\xff")),
    "a reason that ends in a character": (NOT_UTF8, closing(1000, b"ok\xe2\x82")),
    **{
        f"text {bad!r}": (NOT_UTF8, frame(TEXT, bad))
        for bad in (
            b"\xff",
            b"\x80",
            b"\xc0\x80",
            b"\xc1\xbf",
            b"\xe0\x80\xaf",
            b"\xed\xa0\x80",
            b"\xed\xbf\xbf",
            b"\xf0\x80\x80\xaf",
            b"\xf4\x90\x80\x80",
            b"\xf5\x80\x80\x80",
            b"\xe2\x82",
            b"12345678\xe2",
            b"\xf0\x9d\x84",
            b"abc\xc3",
        )
    },
    "bad text in parts": (NOT_UTF8, frame(TEXT, b"\xce\xba", fin=False) + frame(CONTINUATION, b"\xff", fin=False)),
    "a character that never ends": (NOT_UTF8, frame(TEXT, b"\xe2\x82", fin=False) + frame(CONTINUATION)),
    "a character broken by the next frame": (NOT_UTF8, frame(TEXT, b"\xe2", fin=False) + frame(CONTINUATION, b"a")),
    "a message too large": (TOO_BIG, frame(BINARY, bytes(100_001))),
    "too many frames": (TOO_MANY, frame(TEXT, b"", fin=False) + frame(CONTINUATION, b"", fin=False) * 100),
}
LIMITS = {"max_size": 100_000, "max_fragments": 50}
EVERY = pytest.mark.parametrize("name", BAD)


@EVERY
@fed
async def test_what_came_before_is_received_and_answered_and_then_the_peer_is_told(name: str) -> None:
    code, bad = BAD[name]
    ends = Fed(**LIMITS)

    async def echo() -> None:
        async for message in ends.socket:
            await ends.socket.send(message)

    handling = asyncio.create_task(driven(echo()))
    await asyncio.sleep(0)
    ends.feed(frame(TEXT, b"one") + frame(PING, b"p") + frame(BINARY, b"two", fin=False) + frame(CONTINUATION) + bad)
    ends.feed(frame(TEXT, b"behind") + frame(PING, b"behind"))
    with pytest.raises((portico.ProtocolError, portico.MessageTooLarge)) as caught:
        await handling
    pong, one, two, close = await ends.sent()
    assert (pong.opcode, one.payload, two.payload, close_code(close)) == (PONG, b"one", b"two", code)
    assert close.payload[2:].decode() and "\n" not in str(caught.value)
    for _ in range(2):
        with pytest.raises(type(caught.value)):
            await ends.socket.recv()
    with pytest.raises(portico.ClosedError):
        ends.socket.send("too late")


@EVERY
@fed
async def test_the_answer_is_the_same_wherever_the_bytes_are_cut(name: str) -> None:
    code, bad = BAD[name]
    places = range(len(bad)) if len(bad) < 300 else (*range(20), len(bad) // 2, len(bad) - 1)
    for place in places:
        ends = Fed(**LIMITS)
        for part in cut(bad, [place]):
            ends.feed(part)
        assert [close_code(each) for each in await ends.sent()] == [code]
        (error,) = await ends.received()
        assert isinstance(error, portico.ProtocolError | portico.MessageTooLarge)
        assert ends.socket.queued == (0, 0)


@EVERY
@fed
async def test_nothing_of_it_is_kept(name: str) -> None:
    """No reference holds the socket, its buffers or what it was sent, as soon as the wire is gone."""
    _, bad = BAD[name]
    ends = Fed(**LIMITS)
    ends.feed(frame(BINARY, b"y" * 50_000, fin=False) + frame(CONTINUATION) + bad)
    await ends.sent()
    ends.lose()
    await ends.received()
    kept = weakref.ref(ends.socket)
    del ends
    gc.collect()
    assert kept() is None


def unmasked(data: bytes) -> bytes:
    """`data`, of frames that are masked with `KEY`, as a server sends it."""
    out = b""
    while data:
        first, second = data[0], data[1] & 127
        more = {126: 2, 127: 8}.get(second, 0)
        size = int.from_bytes(data[2 : 2 + more], "big") if more else second
        start = 2 + more + 4
        body = data[start : start + size]
        out += bytes([first, second]) + data[2 : 2 + more] + masking(body, KEY)
        data = data[start + size :]
    return out


@pytest.mark.parametrize("name", [each for each in BAD if not each.startswith("no mask")])
@fed
async def test_a_client_tells_a_server_the_same(name: str) -> None:
    code, bad = BAD[name]
    ends = Fed(client=True, **LIMITS)
    ends.feed(unmasked(frame(TEXT, b"one") + bad))
    one, error = await ends.received()
    assert one == "one" and isinstance(error, portico.ProtocolError | portico.MessageTooLarge)
    (close,) = await ends.sent()
    assert close_code(close) == code and close.masked


@pytest.mark.parametrize("opcode", [TEXT, PING, CLOSE])
@fed
async def test_a_client_refuses_frames_with_a_mask(opcode: int) -> None:
    ends = Fed(client=True)
    ends.feed(frame(opcode, b""))
    assert [close_code(each) for each in await ends.sent()] == [BROKEN]
    assert isinstance((await ends.received())[0], portico.ProtocolError)


COMPRESSED: dict[str, tuple[int, bytes]] = {
    "the bit on a continuation": (
        BROKEN,
        frame(TEXT, squeezed(b"x"), fin=False, bits=RSV1) + frame(CONTINUATION, b"", bits=RSV1),
    ),
    "the bit on a ping": (BROKEN, frame(PING, b"", bits=RSV1)),
    "the bit on a close": (BROKEN, frame(CLOSE, b"", bits=RSV1)),
    "another bit, too": (BROKEN, frame(TEXT, squeezed(b"x"), bits=RSV1 | RSV2)),
    "a block of no kind": (NOT_UTF8, frame(BINARY, b"\x06\xff\xff", bits=RSV1)),
    "a stored block that lies": (NOT_UTF8, frame(BINARY, b"\x00\x05\x00\x00\x00abc", bits=RSV1)),
    "a distance too far": (NOT_UTF8, frame(BINARY, b"\x4b\x04\x13\x00", bits=RSV1)),
    "text that is not UTF-8": (NOT_UTF8, frame(TEXT, squeezed(b"ab\xff"), bits=RSV1)),
    "text that ends in a character": (NOT_UTF8, frame(TEXT, squeezed(b"ab\xe2\x82"), bits=RSV1)),
    "more than max_size": (TOO_BIG, frame(BINARY, squeezed(bytes(100_001)), bits=RSV1)),
    "more than max_size by a frame's length": (TOO_BIG, head(FIN | RSV1 | BINARY, 200_000)),
}


@pytest.mark.parametrize("name", COMPRESSED)
@fed
async def test_compressed_frames_that_break_the_rules(name: str) -> None:
    code, bad = COMPRESSED[name]
    for place in range(min(len(bad), 200)):
        ends = Fed(deflate=agreed(client_takeover=True), **LIMITS)
        ends.frame(TEXT, squeezed(b"one"), bits=RSV1)
        for part in cut(bad, [place]):
            ends.feed(part)
        one, error = await ends.received()
        assert one == "one" and isinstance(error, portico.ProtocolError | portico.MessageTooLarge)
        assert [close_code(each) for each in await ends.sent()] == [code]


@fed
async def test_the_reason_that_the_peer_is_told_is_whole_utf8() -> None:
    assert TAIL not in squeezed(b"")  # what the kit compresses is as the RFC has it
    for _, bad in BAD.values():
        ends = Fed(**LIMITS)
        ends.feed(bad)
        for close in await ends.sent():
            assert 3 <= len(close.payload) <= 125 and struct.unpack(">H", close.payload[:2])[0] >= 1002
            close.payload[2:].decode()


@pytest.mark.parametrize(("only", "fine", "other"), [("text", TEXT, BINARY), ("binary", BINARY, TEXT)])
@fed
async def test_messages_of_a_kind_that_is_not_taken_are_refused_with_1003(only: str, fine: int, other: int) -> None:
    ends = Fed(only=only)
    ends.frame(fine, b"one")
    ends.frame(other, b"two")
    one, error = await ends.received()
    assert one in ("one", b"one") and isinstance(error, portico.ProtocolError)
    assert [close_code(each) for each in await ends.sent()] == [1003]
    with pytest.raises(portico.ConfigurationError, match="only="):
        portico.WebSocketSettings(only="both")  # type: ignore[arg-type]  # that is the point
