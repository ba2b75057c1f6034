import array
from collections.abc import Callable
from typing import Any

import pytest
from codec_engine import close, outcomes, pair, run, sent, shape

from portico.codecs import Codec, LengthPrefix, Lines, Netstrings
from portico.errors import EndOfStream, MessageTooLarge, ProtocolError

# Messages and their bytes, written by hand.
VECTORS = [
    # https://cr.yp.to/proto/netstrings.txt, its two examples and one of bytes that are no text
    pytest.param(Netstrings(), b"hello world!", bytes.fromhex("31323a68656c6c6f20776f726c64212c"), id="netstring"),
    pytest.param(Netstrings(), b"", b"0:,", id="netstring-empty"),
    pytest.param(Netstrings(), b"\0,:\xff", b"4:\0,:\xff,", id="netstring-binary"),
    # https://protobuf.dev/programming-guides/encoding/: 1, 150 and "testing"; 300 as its older text had it
    pytest.param(LengthPrefix("varint"), b"x", b"\x01x", id="varint-1"),
    pytest.param(LengthPrefix("varint"), b"testing", bytes.fromhex("0774657374696e67"), id="varint-testing"),
    pytest.param(LengthPrefix("varint"), b"v" * 127, b"\x7f" + b"v" * 127, id="varint-127"),
    pytest.param(LengthPrefix("varint"), b"v" * 150, b"\x96\x01" + b"v" * 150, id="varint-150"),
    pytest.param(LengthPrefix("varint"), b"v" * 300, b"\xac\x02" + b"v" * 300, id="varint-300"),
    pytest.param(LengthPrefix("varint"), b"", b"\0", id="varint-empty"),
    # Erlang's inet, {packet, 1 | 2 | 4}: "the length of the header ... with the most significant byte first"
    pytest.param(LengthPrefix(1), b"abc", b"\x03abc", id="1"),
    pytest.param(LengthPrefix(2), b"abc", b"\0\x03abc", id="2-big"),
    pytest.param(LengthPrefix(2), b"a" * 258, b"\x01\x02" + b"a" * 258, id="2-big-258"),
    pytest.param(LengthPrefix(), b"abc", b"\0\0\0\x03abc", id="4-big"),
    pytest.param(LengthPrefix(8), b"abc", b"\0\0\0\0\0\0\0\x03abc", id="8-big"),
    # Chrome's native messaging on little-endian machines: "preceded with 32-bit message length in native byte order"
    pytest.param(LengthPrefix(4, byteorder="little"), b"abc", b"\x03\0\0\0abc", id="4-little"),
    pytest.param(LengthPrefix(1, byteorder="little"), b"abc", b"\x03abc", id="1-little"),
    pytest.param(LengthPrefix(2, byteorder="little"), b"a" * 258, b"\x02\x01" + b"a" * 258, id="2-little-258"),
    pytest.param(LengthPrefix(8, byteorder="little"), b"abc", b"\x03\0\0\0\0\0\0\0abc", id="8-little"),
    pytest.param(LengthPrefix(), b"", b"\0\0\0\0", id="4-empty"),
    # RFC 3629, section 7: A, not identical to, alpha, full stop
    pytest.param(Lines(), "A\u2262\u0391.", bytes.fromhex("41e289a2ce912e0a"), id="text"),
    pytest.param(Lines(), "", b"\n", id="text-empty"),
    pytest.param(Lines(text=False), b"\xff\0\r", b"\xff\0\r\n", id="bytes"),
    # RFC 5321, section 2.3.8
    pytest.param(Lines(separator="\r\n"), "EHLO bar.com", b"EHLO bar.com\r\n", id="crlf"),
    pytest.param(Lines(separator=b"\r\n"), "a\rb\nc\n\r", b"a\rb\nc\n\r\r\n", id="crlf-halves"),
    pytest.param(Lines(text=False, separator=b"aab"), b"aa", b"aaaab", id="aab-behind-aa"),
    pytest.param(Lines(text=False, separator=b"aab"), b"aaXaX", b"aaXaXaab", id="aab"),
    pytest.param(Lines(separator=b"\0"), "a\nb", b"a\nb\0", id="nul"),
    pytest.param(Lines(separator="\u2028"), "a\u2027b", "a\u2027b\u2028".encode(), id="separator-not-ascii"),
    pytest.param(Lines(separator="0123456789abcdef"), "0123", b"01230123456789abcdef", id="16-bytes"),
]

# One codec of each kind, with messages that are awkward for it.
STREAMS = [
    pytest.param(Netstrings(), [b"", b"12:,", b"a" * 12, b"\xff,"], id="netstrings"),
    pytest.param(LengthPrefix("varint"), [b"", b"\x80\x01", b"v" * 130], id="varint"),
    *(
        pytest.param(LengthPrefix(size, byteorder=order), [b"", b"\0\0\0\x01x", b"abc"], id=f"{size}-{order}")
        for size in (1, 2, 4, 8)
        for order in ("big", "little")
    ),
    pytest.param(Lines(), ["", "A\u2262\u0391.", "\r", "\U0001f600"], id="text"),
    pytest.param(Lines(text=False), [b"", b"\xff\0", b"\r"], id="bytes"),
    pytest.param(Lines(separator="\r\n"), ["", "\r", "\n", "a\r", "\n\r", "a\rb\nc"], id="crlf"),
    pytest.param(Lines(text=False, separator=b"aab"), [b"", b"a", b"aa", b"aaa", b"baXab", b"ba"], id="aab"),
    pytest.param(Lines(text=False, separator=b"0123456789abcdef"), [b"", b"0123456789abcde", b"f00"], id="16-bytes"),
]

Factory = Callable[[int], Codec[Any]]

# Codecs by their limit.
LIMITED: list[Any] = [
    pytest.param(lambda most: Lines(max_size=most), "x", id="text"),
    pytest.param(lambda most: Lines(text=False, max_size=most), b"x", id="bytes"),
    pytest.param(lambda most: Lines(separator="\r\n", max_size=most), "x", id="crlf"),
    pytest.param(lambda most: Lines(text=False, separator=b"aab", max_size=most), b"x", id="aab"),
    pytest.param(lambda most: LengthPrefix(1, max_size=most), b"x", id="1"),
    pytest.param(lambda most: LengthPrefix(4, max_size=most), b"x", id="4"),
    pytest.param(lambda most: LengthPrefix(8, byteorder="little", max_size=most), b"x", id="8-little"),
    pytest.param(lambda most: LengthPrefix("varint", max_size=most), b"x", id="varint"),
    pytest.param(lambda most: Netstrings(max_size=most), b"x", id="netstrings"),
]


def framed(codec: Codec[Any], messages: list[Any]) -> bytes:
    return b"".join(codec.encode(message) for message in messages)


# The bytes on the wire


@pytest.mark.parametrize(("codec", "message", "wire"), VECTORS)
def test_bytes_are_those_of_the_vector(codec: Codec[Any], message: Any, wire: bytes) -> None:
    assert codec.encode(message) == wire
    assert codec.decode(wire) == (message, len(wire))
    assert codec.decode(memoryview(wire + b"\0next")) == (message, len(wire))


@pytest.mark.parametrize(("codec", "message", "wire"), VECTORS)
def test_a_channel_sends_the_bytes_of_the_vector(codec: Codec[Any], message: Any, wire: bytes) -> None:
    assert run(sent(codec, lambda channel: [channel.send(message), channel.send(message)])) == 2 * wire
    assert run(sent(codec, lambda channel: channel.send_encoded(codec.encode(message)))) == wire


@pytest.mark.parametrize(("codec", "message", "wire"), VECTORS)
def test_a_frame_that_is_not_whole_wants_more(codec: Codec[Any], message: Any, wire: bytes) -> None:
    assert [codec.decode(wire[:size]) for size in range(len(wire))] == [0] * len(wire)


def test_a_varint_may_have_more_bytes_than_needed() -> None:
    assert LengthPrefix("varint").decode(b"\x81\x80\x00x") == (b"x", 4)


# Cuts


@pytest.mark.parametrize(("codec", "messages"), STREAMS)
def test_messages_arrive_whole_wherever_the_bytes_are_cut(codec: Codec[Any], messages: list[Any]) -> None:
    wire = framed(codec, messages)

    async def main() -> None:
        for cut in range(len(wire) + 1):
            *found, end = await outcomes(codec, [wire[:cut], wire[cut:]])
            assert (found, shape(end)) == (messages, (EndOfStream, b"")), f"cut at {cut}"
        *found, _ = await outcomes(codec, [wire[place : place + 1] for place in range(len(wire))])
        assert found == messages

    run(main())


@pytest.mark.parametrize(("codec", "messages"), STREAMS)
def test_an_end_within_a_message_tells_what_came_of_it(codec: Codec[Any], messages: list[Any]) -> None:
    whole = framed(codec, messages[:-1])
    wire = whole + codec.encode(messages[-1])

    async def main() -> None:
        for size in range(len(whole), len(wire)):
            for pieces in [wire[:size]], [wire[place : place + 1] for place in range(size)]:
                *found, end = await outcomes(codec, pieces)
                assert (found, shape(end)) == (messages[:-1], (EndOfStream, wire[len(whole) : size]))

    run(main())


@pytest.mark.parametrize(
    ("codec", "message"),
    [
        pytest.param(Lines(), "\u00e9" * 50_000, id="text"),
        pytest.param(Lines(text=False, separator=b"\r\n"), b"\r" * 100_000, id="crlf"),
        pytest.param(LengthPrefix(), b"b" * 100_000, id="4"),
        pytest.param(LengthPrefix("varint"), b"b" * 100_000, id="varint"),
        pytest.param(Netstrings(), b"b" * 100_000, id="netstrings"),
    ],
)
def test_long_messages_keep_their_place_among_short_ones(codec: Codec[Any], message: Any) -> None:
    messages = [message[:1], message, message[:8192], message[:1], message[:8191], message]
    wire = framed(codec, messages)
    assert run(sent(codec, lambda channel: [channel.send(each) for each in messages])) == wire
    *found, _ = run(outcomes(codec, [wire[place : place + 5000] for place in range(0, len(wire), 5000)]))
    assert found == messages


# Limits


@pytest.mark.parametrize(("make", "unit"), LIMITED)
def test_a_message_of_exactly_the_limit_passes_both_ways(make: Factory, unit: Any) -> None:
    codec, message = make(10), 10 * unit
    wire = codec.encode(message)
    assert codec.decode(wire) == (message, len(wire))
    assert run(sent(codec, lambda channel: channel.send(message))) == wire

    async def main() -> None:
        for cut in range(len(wire) + 1):
            *found, _ = await outcomes(codec, [wire[:cut], wire[cut:] + wire])
            assert found == [message, message]

    run(main())


@pytest.mark.parametrize(("make", "unit"), LIMITED)
def test_one_byte_more_is_not_sent(make: Factory, unit: Any) -> None:
    codec = make(10)
    with pytest.raises(MessageTooLarge, match="max_size") as raised:
        codec.encode(11 * unit)
    assert (raised.value.size, raised.value.limit) == (11, 10)

    def send(channel: Any) -> None:
        with pytest.raises(MessageTooLarge) as raised:
            channel.send(11 * unit)
        assert (raised.value.size, raised.value.limit) == (11, 10)
        channel.send(unit)

    assert run(sent(codec, send)) == codec.encode(unit)


@pytest.mark.parametrize(("make", "unit"), LIMITED)
def test_one_byte_more_is_not_received_and_the_next_message_is(make: Factory, unit: Any) -> None:
    codec, wire = make(10), make(100).encode(11 * unit)
    with pytest.raises(MessageTooLarge) as raised:
        codec.decode(wire)
    assert (raised.value.size, raised.value.limit) == (11, 10)
    whole = codec.encode(unit) + wire + codec.encode(2 * unit) + wire

    async def main() -> None:
        for cut in range(len(whole) + 1):
            found = await outcomes(codec, [whole[:cut], whole[cut:]])
            assert [shape(each) for each in found] == [
                unit,
                (MessageTooLarge, 10),
                2 * unit,
                (MessageTooLarge, 10),
                (EndOfStream, b""),
            ], f"cut at {cut}"
            assert isinstance(found[1], MessageTooLarge)
            assert found[1].size == 11

    run(main())


@pytest.mark.parametrize("separator", [b"\n", b"\r\n", b"aab", b"0123456789abcdef"])
def test_a_line_without_end_is_refused_before_it_ends(separator: bytes) -> None:
    codec = Lines(text=False, separator=separator, max_size=10)
    enough = 10 + len(separator)
    assert codec.decode(b"x" * (enough - 1)) == 0
    with pytest.raises(MessageTooLarge):
        codec.decode(b"x" * enough)

    async def main() -> None:
        pieces = [b"x" * 7] * 1000 + [separator[:1], separator[1:], b"y", separator]
        failure, line, end = await outcomes(codec, pieces)
        assert shape(failure) == (MessageTooLarge, 10)
        assert (line, shape(end)) == (b"y", (EndOfStream, b""))

    run(main())


def test_a_text_is_measured_in_bytes() -> None:
    assert Lines(max_size=4).encode("\u00e9\u00e9") == b"\xc3\xa9\xc3\xa9\n"
    with pytest.raises(MessageTooLarge) as raised:
        Lines(max_size=4).encode("\u00e9\u00e9x")
    assert raised.value.size == 5


@pytest.mark.parametrize(
    ("codec", "most"),
    [
        (LengthPrefix(1), 2**8 - 1),
        (LengthPrefix(2), 2**16 - 1),
        (LengthPrefix(4), 2**20),
        (LengthPrefix(4, max_size=2**40), 2**32 - 1),
        (LengthPrefix(8, max_size=2**40), 2**40),
        (LengthPrefix("varint", max_size=2**40), 2**40),
        (Netstrings(), 2**20),
        (Netstrings(max_size=2**40), 9_999_999_999),
        (Lines(), 2**20),
        (Codec(), 2**20),
        (Codec(5), 5),
    ],
)
def test_the_limit_is_1_mib_and_never_more_than_the_length_can_tell(codec: Codec[Any], most: int) -> None:
    assert codec.max_size == most


@pytest.mark.parametrize(
    ("codec", "head", "size"),
    [
        (LengthPrefix(1, max_size=9), b"\xff", 2**8 - 1),
        (LengthPrefix(2), b"\xff\xff", None),
        (LengthPrefix(2, max_size=9), b"\xff\xfe", 2**16 - 2),
        (LengthPrefix(2, byteorder="little", max_size=9), b"\xff\xfe", 0xFEFF),
        (LengthPrefix(4), b"\xff" * 4, 2**32 - 1),
        (LengthPrefix(8), b"\x7f" + b"\xff" * 7, 2**62 - 1),
        (LengthPrefix(8), b"\xff" * 8, 2**62 - 1),
        (LengthPrefix("varint"), b"\xff" * 8 + b"\x7f", 2**62 - 1),
        (LengthPrefix("varint"), b"\x81\x80\x40", 2**20 + 1),
        (Netstrings(), b"9999999999:", 9_999_999_999),
    ],
)
def test_a_length_over_the_limit_is_told_before_the_message_comes(
    codec: Codec[Any], head: bytes, size: int | None
) -> None:
    if size is None:
        assert codec.decode(head) == 0
        return
    with pytest.raises(MessageTooLarge) as raised:
        codec.decode(head)
    assert (raised.value.size, raised.value.limit) == (size, codec.max_size)
    found = run(outcomes(codec, [head[place : place + 1] for place in range(len(head))] + [b"xyz"] * 3))
    assert [shape(each) for each in found] == [(MessageTooLarge, codec.max_size), (EndOfStream, b"")]


# What is no message


BROKEN = [
    pytest.param(Netstrings(), b":", 0, "length", id="no-length"),
    pytest.param(Netstrings(), b"a", 0, "length", id="no-digit"),
    pytest.param(Netstrings(), b"\xff", 0, "length", id="no-ascii"),
    pytest.param(Netstrings(), b"-1:,", 0, "length", id="negative"),
    pytest.param(Netstrings(), b"+1:a,", 0, "length", id="plus"),
    pytest.param(Netstrings(), b" 1:a,", 0, "length", id="space"),
    pytest.param(Netstrings(), b"00:,", 1, "length", id="zero-zero"),
    pytest.param(Netstrings(), b"01:a,", 1, "length", id="leading-zero"),
    pytest.param(Netstrings(), b"1;a,", 1, "length", id="semicolon"),
    pytest.param(Netstrings(), b"12345678901:", 10, "length", id="eleven-digits"),
    pytest.param(Netstrings(), b"3:abcd,", 5, "comma", id="longer-than-told"),
    pytest.param(Netstrings(), b"0:\0", 2, "comma", id="no-comma"),
    pytest.param(LengthPrefix("varint"), b"\x80" * 9, 8, "63 bits", id="varint"),
    pytest.param(LengthPrefix("varint"), b"\xff" * 9, 8, "63 bits", id="varint-ones"),
]


@pytest.mark.parametrize(("codec", "wire", "offset", "words"), BROKEN)
def test_bytes_that_are_no_frame_are_refused_with_their_place(
    codec: Codec[Any], wire: bytes, offset: int, words: str | None
) -> None:
    with pytest.raises(ProtocolError, match=words) as raised:
        codec.decode(wire)
    assert raised.value.offset == offset


@pytest.mark.parametrize(("codec", "wire", "offset", "words"), BROKEN)
def test_after_bytes_that_are_no_frame_a_channel_gives_what_came_before(
    codec: Codec[Any], wire: bytes, offset: int, words: str | None
) -> None:
    whole = codec.encode(b"first") + wire

    async def main() -> None:
        for cut in range(len(whole) + 1):
            first, failure = await outcomes(codec, [whole[:cut], whole[cut:], codec.encode(b"late")])
            assert first == b"first"
            assert isinstance(failure, ProtocolError)
            assert failure.offset == offset

    run(main())


@pytest.mark.parametrize(("line", "offset"), [(b"ab\xff", 2), (b"\xc3", 0), (b"a\xed\xa0\x80", 1), (b"\xc0\x80", 0)])
def test_a_line_that_is_not_utf_8_is_refused_and_the_next_one_is_not(line: bytes, offset: int) -> None:
    with pytest.raises(ProtocolError, match="UTF-8") as raised:
        Lines().decode(line + b"\n")
    assert raised.value.offset == offset
    before, failure, behind, _ = run(outcomes(Lines(), [b"before\n" + line, b"\nbehind\n"]))
    assert (before, behind) == ("before", "behind")
    assert isinstance(failure, ProtocolError)
    assert failure.offset == offset


def test_a_surrogate_cannot_be_sent() -> None:
    with pytest.raises(ProtocolError, match="UTF-8") as raised:
        Lines().encode("ab\ud800")
    assert raised.value.offset == 2


@pytest.mark.parametrize(
    ("codec", "line"),
    [
        (Lines(), "a\nb"),
        (Lines(), "\n"),
        (Lines(text=False), b"a\nb"),
        (Lines(separator="\r\n"), "a\r\n"),
        (Lines(separator="\r\n"), "\r\nb"),
        (Lines(text=False, separator=b"aab"), b"aaab"),
        (Lines(separator="0123456789abcdef"), "x0123456789abcdefx"),
    ],
)
def test_a_line_that_contains_its_separator_is_not_sent(codec: Codec[Any], line: Any) -> None:
    with pytest.raises(ProtocolError, match="separator"):
        codec.encode(line)

    def send(channel: Any) -> None:
        with pytest.raises(ProtocolError, match="separator"):
            channel.send(line)
        channel.send(line[:0])

    assert run(sent(codec, send)) == codec.encode(line[:0])


@pytest.mark.parametrize(
    ("separator", "line"),
    [(b"aa", b"a"), (b"\r\n\r\n", b"x\r\n"), (b"aba", b"xab"), (b"abaaba", b"aba"), (b"abaaba", b"abaab")],
)
def test_a_line_that_would_end_early_is_not_sent(separator: bytes, line: bytes) -> None:
    """Such a line does not contain its separator, but with it behind, the first one starts within the line."""
    assert (line + separator).index(separator) < len(line)
    with pytest.raises(ProtocolError, match="separator"):
        Lines(text=False, separator=separator).encode(line)


# Types


@pytest.mark.parametrize("codec", [Lines(text=False), LengthPrefix(), LengthPrefix("varint"), Netstrings()])
def test_codecs_of_bytes_take_all_bytes_and_no_text(codec: Codec[Any]) -> None:
    wire = codec.encode(b"abcd")
    for message in bytearray(b"abcd"), memoryview(b"abcd"), array.array("B", b"abcd"):
        assert codec.encode(message) == wire
        assert run(sent(codec, lambda channel, message=message: channel.send(message))) == wire
    with pytest.raises(TypeError, match="encode the text"):
        codec.encode("abcd")
    for wrong in None, 4, [b"abcd"]:
        with pytest.raises(TypeError):
            codec.encode(wrong)

    def send(channel: Any) -> None:
        with pytest.raises(TypeError, match="encode the text"):
            channel.send("abcd")
        channel.send(b"abcd")

    assert run(sent(codec, send)) == wire


def test_lines_of_text_take_text_alone() -> None:
    for wrong in b"ab", bytearray(b"ab"), None, 4:
        with pytest.raises(TypeError, match=r"Lines\(text=False\)"):
            Lines().encode(wrong)

    def send(channel: Any) -> None:
        with pytest.raises(TypeError, match=r"Lines\(text=False\)"):
            channel.send(b"ab")
        channel.send("ab")

    assert run(sent(Lines(), send)) == b"ab\n"


def test_a_bytearray_may_change_once_it_was_sent() -> None:
    message = bytearray(b"a" * 10_000)

    def send(channel: Any) -> None:
        channel.send(message)
        message[:] = b"b" * 20_000

    assert run(sent(Netstrings(), send)) == b"10000:" + b"a" * 10_000 + b","


def test_decode_takes_bytes_alone() -> None:
    for codec in Lines(), LengthPrefix(), Netstrings():
        with pytest.raises(TypeError):
            codec.decode("abc")
        assert codec.decode(bytearray()) == 0


# Making a codec


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: Lines(separator=""), ValueError, "1 to 16 bytes"),
        (lambda: Lines(separator=b"x" * 17), ValueError, "1 to 16 bytes"),
        (lambda: Lines(separator="\u00e9" * 9), ValueError, "1 to 16 bytes"),
        (lambda: Lines(separator=None), TypeError, None),
        (lambda: Lines(separator=10), TypeError, None),
        (lambda: Lines("\n"), TypeError, None),
        (lambda: Lines(max_size=0), ValueError, "at least 1 byte"),
        (lambda: LengthPrefix(max_size=-1), ValueError, "at least 1 byte"),
        (lambda: Netstrings(max_size=0), ValueError, "at least 1 byte"),
        (lambda: Codec(0), ValueError, "at least 1 byte"),
        (lambda: Codec("1"), TypeError, None),
        (lambda: Codec(1.5), TypeError, None),
        (lambda: LengthPrefix(3), ValueError, "1, 2, 4, 8 or 'varint', not 3"),
        (lambda: LengthPrefix(0), ValueError, "1, 2, 4, 8 or 'varint'"),
        (lambda: LengthPrefix("4"), ValueError, "1, 2, 4, 8 or 'varint'"),
        (lambda: LengthPrefix(4, byteorder="network"), ValueError, "'big' or 'little'"),
        (lambda: LengthPrefix(4, "big"), TypeError, None),
        (lambda: Netstrings(100), TypeError, None),
    ],
)
def test_settings_that_cannot_work_are_refused(
    make: Callable[[], object], error: type[Exception], words: str | None
) -> None:
    with pytest.raises(error, match=words):
        make()


def test_a_codec_shows_its_settings_and_keeps_them() -> None:
    lines = Lines(text=False, separator="\r\n", max_size=100)
    assert (lines.text, lines.separator, lines.max_size) == (False, b"\r\n", 100)
    assert repr(lines) == r"Lines(text=False, separator=b'\r\n', max_size=100)"
    prefix = LengthPrefix("varint", byteorder="little", max_size=100)
    assert (prefix.size, prefix.byteorder, prefix.max_size) == ("varint", "little", 100)
    assert repr(prefix) == "LengthPrefix('varint', byteorder='little', max_size=100)"
    assert repr(Netstrings(max_size=100)) == "Netstrings(max_size=100)"
    for codec, name in (lines, "separator"), (prefix, "size"), (prefix, "max_size"):
        with pytest.raises(AttributeError):
            setattr(codec, name, 1)


# Codecs in Python


class Records(Codec[bytes]):
    """Frames of a digit and that many bytes; remembers how many bytes each call of decode was shown."""

    def __init__(self) -> None:
        super().__init__(9)
        self.shown: list[int] = []

    def encode(self, message: bytes) -> bytes:
        return b"%d" % len(message) + message

    def decode(self, data: memoryview) -> tuple[bytes, int] | int:
        self.shown.append(len(data))
        if not data:
            return 0
        end = 1 + int(data[:1])
        return (bytes(data[1:end]), end) if len(data) >= end else end


def test_a_codec_in_python_gets_its_messages_wherever_the_bytes_are_cut() -> None:
    messages = [b"", b"a", b"bc", b"ninebytes"]
    wire = framed(Records(), messages)

    async def main() -> None:
        for cut in range(len(wire) + 1):
            *found, end = await outcomes(Records(), [wire[:cut], wire[cut:]])
            assert (found, shape(end)) == (messages, (EndOfStream, b"")), f"cut at {cut}"

    run(main())
    assert run(sent(Records(), lambda channel: [channel.send(each) for each in messages])) == wire


def test_a_codec_in_python_is_asked_again_once_there_are_the_bytes_it_wants() -> None:
    codec = Records()
    found = run(outcomes(codec, [b"8", *[b"x"] * 8]))
    assert found[:-1] == [b"xxxxxxxx"]
    assert codec.shown == [1, 9]


def test_an_error_of_a_codec_in_python_ends_the_messages_and_stays_the_cause() -> None:
    first, failure = run(outcomes(Records(), [b"1a?", b"1b"]))
    assert first == b"a"
    assert isinstance(failure, ProtocolError)
    assert isinstance(failure.__cause__, ValueError)
    assert "Records" in failure.reason


@pytest.mark.parametrize("taken", [-1, 0, 4])
def test_a_codec_in_python_cannot_take_what_is_not_there(taken: int) -> None:
    class Greedy(Codec[bytes]):
        def decode(self, data: memoryview) -> tuple[bytes, int]:
            return bytes(data), taken

    (failure,) = run(outcomes(Greedy(), [b"abc"]))
    assert isinstance(failure, ProtocolError)
    assert "Greedy" in failure.reason


def test_a_codec_in_python_must_say_how() -> None:
    class Empty(Codec[bytes]):
        pass

    with pytest.raises(NotImplementedError, match=r"Empty must define encode\(message\)"):
        Empty().encode(b"")
    with pytest.raises(NotImplementedError, match=r"Empty must define decode\(data\)"):
        Empty().decode(memoryview(b""))


# Batches


def test_a_batch_ends_before_a_message_that_was_too_large() -> None:
    async def main() -> None:
        raw, channel = pair(Lines(max_size=3))
        raw.send(b"a\nb\nlong\nc\n")
        raw.send_eof()
        batches = channel.batches()
        assert await anext(batches) == ["a", "b"]
        with pytest.raises(MessageTooLarge):
            await anext(batches)
        assert await anext(batches) == ["c"]
        with pytest.raises(StopAsyncIteration):
            await anext(batches)
        await close(raw, channel)

    run(main())
