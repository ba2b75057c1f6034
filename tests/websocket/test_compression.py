"""permessage-deflate on the wire (RFC 7692, section 7.2): agreements against zlib by hand, and what attackers send."""

import functools
import itertools
import random
import time
import tracemalloc
import zlib
from typing import Any

import pytest

import portico
from portico._core.frames import Frames

from .frames_kit import (
    BINARY,
    CONTINUATION,
    FIN,
    PING,
    RSV1,
    TAIL,
    TEXT,
    Fed,
    Frame,
    agreed,
    close_code,
    cut,
    expanded,
    fed,
    frame,
    squeezed,
)
from .inflate_kit import distances

BOTH_ROLES = pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
AGREEMENTS = list(itertools.product([False, True], range(8, 16)))
"""Whether the context is kept, and the bits of the window, of one side."""


def texts(count: int = 12) -> list[str]:
    """Messages that resemble one another, far and near, and some that do not."""
    source = random.Random(7)
    near = "".join(source.choices("abcdef", k=300))
    return [f"{number}: {near} {source.random()} {near[::-1]} {near}" * (1 + number % 4) for number in range(count)]


@BOTH_ROLES
@pytest.mark.parametrize(("takeover", "bits"), AGREEMENTS)
@fed
async def test_what_is_sent_is_read_by_a_window_of_that_size(client: bool, takeover: bool, bits: int) -> None:
    side = "client" if client else "server"
    ends = Fed(client=client, deflate=agreed(**{f"{side}_takeover": takeover, f"{side}_bits": bits}))
    expander = zlib.decompressobj(-max(bits, 9))
    sizes = []
    for text in texts():
        ends.socket.send(text)
        (sent,) = await ends.sent()
        assert (sent.first, sent.masked) == (FIN | RSV1 | TEXT, client)
        assert expanded(sent.payload, max(bits, 9), expander if takeover else None) == text.encode()
        sizes.append(len(sent.payload))
    assert sum(sizes) < sum(map(len, texts())) * 0.8


@pytest.mark.parametrize("takeover", [False, True])
@fed
async def test_nothing_is_referred_to_that_a_window_of_256_bytes_has_lost(takeover: bool) -> None:
    ends = Fed(deflate=agreed(server_takeover=takeover, server_bits=8, level=9, memory_level=9))
    for text in (*texts(), "ab" * 5000, "".join(map(chr, range(97, 97 + 26))) * 300):
        ends.socket.send(text)
        (sent,) = await ends.sent()
        assert 0 < furthest(sent.payload) <= 256


def furthest(payload: bytes) -> int:
    """The greatest distance that a compressed payload refers back: RFC 1951, section 3.2."""
    return max(distances(payload), default=0)


@BOTH_ROLES
@pytest.mark.parametrize(("takeover", "bits"), AGREEMENTS)
@fed
async def test_what_such_a_window_made_is_received(client: bool, takeover: bool, bits: int) -> None:
    side = "server" if client else "client"
    ends = Fed(client=client, deflate=agreed(**{f"{side}_takeover": takeover, f"{side}_bits": bits}))
    compressor: Any = None
    for number, text in enumerate(texts()):
        if compressor is None or not takeover:
            compressor = zlib.compressobj(wbits=-max(bits, 9))
        data = squeezed(text.encode(), compressor)
        pieces = [data[:start] for start in ([] if number % 2 else [1, 7])]
        whole = frame(TEXT, data, bits=RSV1, key=ends.key)
        if pieces:
            whole = frame(TEXT, data[:1], fin=False, bits=RSV1, key=ends.key) + frame(PING, key=ends.key)
            whole += frame(CONTINUATION, data[1:7], fin=False, key=ends.key) + frame(
                CONTINUATION, data[7:], key=ends.key
            )
        for part in cut(whole, [number, 5]):
            ends.feed(part)
        assert await ends.socket.recv() == text


@fed
async def test_messages_with_and_without_compression_mix() -> None:
    ends = Fed(deflate=agreed(client_takeover=True, server_takeover=True, threshold=10))
    compressor, expander = zlib.compressobj(wbits=-15), zlib.decompressobj(-15)
    for number in range(6):
        text = f"message {number} " * 3
        if number % 2:
            ends.frame(TEXT, text.encode())
        else:
            ends.frame(TEXT, squeezed(text.encode(), compressor), bits=RSV1)
        assert await ends.socket.recv() == text
        ends.socket.send(text, compress=number % 3 != 0)
        (sent,) = await ends.sent()
        compressed = sent.first & RSV1 != 0
        assert compressed is (number % 3 != 0)
        data = expanded(sent.payload, expander=expander) if compressed else sent.payload
        assert data == text.encode()


@fed
async def test_the_threshold_decides_unless_the_call_does() -> None:
    ends = Fed(deflate=agreed(threshold=100))
    for size, compress, expected in (
        (99, None, False),
        (100, None, True),
        (99, True, True),
        (1000, False, False),
        (0, True, False),
        (0, None, False),
    ):
        ends.socket.send("x" * size, compress=compress)
        (sent,) = await ends.sent()
        assert (sent.first & RSV1 != 0) is expected
        assert (expanded(sent.payload) if expected else sent.payload) == b"x" * size
    plain = Fed()
    plain.socket.send("x" * 1000, compress=True)
    assert await plain.sent() == [Frame(FIN | TEXT, b"x" * 1000)]


@fed
async def test_whatever_cannot_be_made_smaller_goes_through() -> None:
    noise = random.Random(1).randbytes(200_000)
    ends = Fed(deflate=agreed(client_takeover=True, server_takeover=True))
    ends.socket.send(noise)
    (sent,) = await ends.sent()
    ends.frame(BINARY, sent.payload, bits=RSV1)
    assert await ends.socket.recv() == noise


# Other ways to compress: RFC 7692, section 7.2.3.


@pytest.mark.parametrize(
    "payload",
    [
        b"\xf2\x48\xcd\xc9\xc9\x07\x00",  # 7.2.3.1
        b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00",  # 7.2.3.3: a block that is stored
        b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00",  # 7.2.3.4: the last block has BFINAL
        b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00",  # 7.2.3.5: two blocks
    ],
)
@fed
async def test_the_examples_of_the_rfc(payload: bytes) -> None:
    for takeover in (False, True):
        for place in range(len(payload)):
            ends = Fed(deflate=agreed(client_takeover=takeover))
            for _ in range(2):
                ends.frame(TEXT, payload[:place], fin=False, bits=RSV1)
                ends.frame(CONTINUATION, payload[place:])
            assert await ends.received() == ["Hello", "Hello", None]


@fed
async def test_a_shared_window_as_in_the_rfc() -> None:
    ends = Fed(deflate=agreed(client_takeover=True))
    for payload in (b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"\xf2\x00\x11\x00\x00"):  # 7.2.3.2
        ends.frame(TEXT, payload, bits=RSV1)
    assert await ends.received() == ["Hello", "Hello", None]


@fed
async def test_empty_messages_in_every_form() -> None:
    ends = Fed(deflate=agreed(client_takeover=True))
    for payload in (b"\x00", b"\x02\x00", b"\x03\x00\x00"):
        ends.frame(TEXT, payload, bits=RSV1)
        ends.frame(BINARY, payload[:1], bits=RSV1, fin=False)
        ends.frame(CONTINUATION, payload[1:])
        assert await ends.received() == ["", b"", None]


# What an attacker sends.


@functools.cache
def bomb(size: int) -> bytes:
    compressor = zlib.compressobj(9, wbits=-15)
    data = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(size >> 20))
    return (data + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


@pytest.mark.parametrize("takeover", [False, True])
@fed
async def test_a_bomb_costs_little_memory_and_time_and_is_told_with_1009(takeover: bool) -> None:
    data = bomb(200 << 20)
    assert len(data) < 300_000
    ends = Fed(deflate=agreed(client_takeover=takeover), max_size=1 << 20)
    whole = frame(BINARY, data, bits=RSV1, key=b"\0\0\0\0")
    tracemalloc.start()
    try:
        begun = time.process_time()
        ends.feed(whole)
        assert time.process_time() - begun < 1
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    (error,) = await ends.received()
    assert isinstance(error, portico.MessageTooLarge) and error.limit == 1 << 20
    assert [close_code(each) for each in await ends.sent()] == [1009]


@fed
async def test_exactly_max_size_after_inflating() -> None:
    for size in (1000, 1001):
        for data in (b"\0" * size, random.Random(size).randbytes(size)):
            ends = Fed(deflate=agreed(), max_size=1000)
            ends.frame(BINARY, squeezed(data), bits=RSV1)
            (got, *_) = await ends.received()
            assert got == data if size == 1000 else isinstance(got, portico.MessageTooLarge)


@fed
async def test_many_final_blocks_cost_no_time() -> None:
    ends = Fed(deflate=agreed(), max_size=1 << 20)
    begun = time.process_time()
    ends.frame(BINARY, b"\x03\x00" * 500_000, bits=RSV1, key=b"\0\0\0\0")
    assert time.process_time() - begun < 0.5
    (error, *_) = await ends.received()
    assert error == b"" or isinstance(error, portico.ProtocolError)


@fed
async def test_one_final_block_in_a_message_keeps_the_messages_after_it_readable() -> None:
    ends = Fed(deflate=agreed(client_takeover=True))
    for _ in range(3):
        final = zlib.compressobj(wbits=-15)
        ends.frame(TEXT, final.compress(b"final " * 20) + final.flush() + b"\0", bits=RSV1)
        ends.frame(TEXT, squeezed(b"fresh " * 20), bits=RSV1)
    assert await ends.received() == ["final " * 20, "fresh " * 20] * 3 + [None]


@fed
async def test_many_small_bombs_in_a_row_are_held_back_like_any_messages() -> None:
    ends = Fed(deflate=agreed(), max_size=1 << 20)
    each = frame(BINARY, squeezed(bytes(1 << 20)), bits=RSV1, key=b"\0\0\0\0")
    tracemalloc.start()
    try:
        ends.feed(each * 30)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert len([each for each in await ends.received() if each is not None]) == 30


@fed
async def test_a_socket_without_takeover_keeps_no_window() -> None:
    tracemalloc.start()
    try:
        kept = {}
        for takeover in (False, True):
            deflate = agreed(client_takeover=takeover, server_takeover=takeover, window_bits=15, memory_level=8)
            codec = Frames(deflate=deflate, ping_interval=None)  # one for all, as a server has it
            codec.encode("x" * 1000)
            crowd = [Fed(codec=codec) for _ in range(10)]
            before = tracemalloc.get_traced_memory()[0]
            for ends in crowd:
                ends.frame(TEXT, squeezed(b"hello " * 100), bits=RSV1)
                ends.socket.send(await ends.socket.recv())
                await ends.sent()
            kept[takeover] = (tracemalloc.get_traced_memory()[0] - before) / 10
            for ends in crowd:
                ends.lose()
        assert kept[False] < 10_000 < 100_000 < kept[True]
    finally:
        tracemalloc.stop()
