import json
import struct
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs.messages import Message, Messages
from portico.errors import ConfigurationError, MessageTooLarge, ProtocolError

CODEC = Messages()


def frame(header: Any, content: bytes = b"") -> bytes:
    """Write a frame by the book; a dictionary only needs to name what differs from the usual."""
    if isinstance(header, dict):
        usual = {
            "byteorder": "little",
            "content-type": "text/json",
            "content-encoding": "utf-8",
            "content-length": len(content),
        }
        header = {name: value for name, value in (usual | header).items() if value is not ...}
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack(">H", len(raw)) + raw + content


def test_bytes_are_those_of_the_guide() -> None:
    # What the guide's client puts on the wire for `app-client.py HOST PORT search 🐶` on a little-endian machine.
    content = b'{"action": "search", "value": "\xf0\x9f\x90\xb6"}'
    header = (
        b'{"byteorder": "little", "content-type": "text/json", "content-encoding": "utf-8", "content-length": %d}'
        % len(content)
    )
    wire = bytes([0, len(header)]) + header + content
    message = Message({"action": "search", "value": "🐶"}, byteorder="little")
    assert CODEC.encode(message) == wire
    assert CODEC.decode(memoryview(wire)) == (message, len(wire))


@pytest.mark.parametrize("side", ["client", "server"])
def test_binary_content_of_the_guide(side: str) -> None:
    message = Message(b"\x00\xff binary", f"binary/custom-{side}-binary-type", "binary")
    wire = CODEC.encode(message)
    assert wire.endswith(b'"content-encoding": "binary", "content-length": 9}\x00\xff binary')
    assert CODEC.decode(wire) == (message, len(wire))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("häl", Message("häl", "text/plain")),
        (b"\xff", Message(b"\xff", "binary/octet-stream", "binary")),
        (bytearray(b"ab"), Message(b"ab", "binary/octet-stream", "binary")),
        ({"a": [1, None, "x"]}, Message({"a": [1, None, "x"]})),
        (None, Message(None)),
        (0, Message(0)),
    ],
)
def test_plain_content_is_wrapped(content: object, message: Message) -> None:
    assert CODEC.encode(content) == CODEC.encode(message)
    decoded = CODEC.decode(CODEC.encode(content))
    assert decoded == (message, len(CODEC.encode(content)))
    assert message.byteorder == sys.byteorder


def test_empty_content() -> None:
    for message in (Message("", "text/plain"), Message(b"", "binary/x", "binary")):
        wire = CODEC.encode(message)
        assert CODEC.decode(wire) == (message, len(wire))


@pytest.mark.parametrize("encoding", ["UTF-8", "utf-16", "utf-16-le", "latin-1", "windows-1252", "koi8-r", "shift_jis"])
def test_other_encodings(encoding: str) -> None:
    text = "Привет" if encoding == "koi8-r" else "plain"
    for message in (Message([text], content_encoding=encoding), Message(text, "text/plain", encoding)):
        wire = CODEC.encode(message)
        assert CODEC.decode(wire) == (message, len(wire))


def test_unknown_type_arrives_as_bytes_and_unknown_keys_are_ignored() -> None:
    wire = frame({"content-type": "image/png", "content-encoding": "utf-8", "extra": 1}, b"\x89PNG")
    assert CODEC.decode(wire) == (Message(b"\x89PNG", "image/png", "utf-8", "little"), len(wire))
    wire = frame({"content-type": "text/plain", "content-encoding": "binary"}, b"\xff")
    assert CODEC.decode(wire) == (Message(b"\xff", "text/plain", "binary", "little"), len(wire))


SAMPLES = [
    Message({"é": "🐰"}),
    Message("line\n", "text/plain"),
    Message(b"\x00" * 9, "binary/x", "binary"),
    Message(""),
]


@pytest.mark.parametrize("message", SAMPLES)
def test_cut_at_every_byte_asks_for_more_and_never_for_too_much(message: Message) -> None:
    wire = CODEC.encode(message)
    tail = b"next"
    for cut in range(len(wire)):
        needed = CODEC.decode(memoryview(wire)[:cut])
        assert isinstance(needed, int) and cut < needed <= len(wire)
    assert CODEC.decode(memoryview(wire + tail)) == (message, len(wire))


def test_stream_of_messages_fed_byte_by_byte() -> None:
    wire = b"".join(CODEC.encode(message) for message in SAMPLES)
    buffer, got, tries = bytearray(), [], 0
    needed = 0
    for byte in wire:
        buffer.append(byte)
        if len(buffer) < needed:
            continue
        tries += 1
        answer = CODEC.decode(memoryview(bytes(buffer)))
        if isinstance(answer, int):
            needed = answer
        else:
            got.append(answer[0])
            del buffer[: answer[1]]
            needed = 0
    assert got == SAMPLES and not buffer
    assert tries <= 4 * len(SAMPLES)  # first byte, length, header, content


# Bad input


@pytest.mark.parametrize(
    ("wire", "said", "offset"),
    [
        (frame(b""), "header is not JSON", 2),
        (frame(b"{bad"), "header is not JSON", 3),
        (frame(b'{"a"'), "header is not JSON", 6),
        (frame(b"\xff\xfe"), "header is not in utf_8", 2),
        (frame(b'{"\xc3"}'), "header is not in utf_8", 4),
        (frame([1]), "header is list, not a JSON object", 2),
        (frame(b"null"), "header is NoneType", 2),
        (frame(b"9" * 5000), "header is not JSON that can be read", 2),
        (frame({"byteorder": ...}), "lacks 'byteorder'", 2),
        (frame({"content-type": ...}), "lacks 'content-type'", 2),
        (frame({"content-encoding": ...}), "lacks 'content-encoding'", 2),
        (frame({"content-length": ...}), "lacks 'content-length'", 2),
        (frame({"byteorder": 1}), "'byteorder' in the header is not text", 2),
        (frame({"byteorder": "middle"}), "neither 'little' nor 'big'", 2),
        (frame({"content-type": None}), "'content-type' in the header is not text", 2),
        (frame({"content-encoding": ["utf-8"]}), "'content-encoding' in the header is not text", 2),
        (frame({"content-length": "7"}), "'content-length' in the header is not a whole number", 2),
        (frame({"content-length": 7.0}), "not a whole number", 2),
        (frame({"content-length": True}), "not a whole number", 2),
        (frame({"content-length": -1}), "negative", 2),
        (frame({"content-encoding": "klingon"}, b"1"), "encoding 'klingon' is not known", 0),
        (frame({"content-encoding": "binary"}, b"1"), "encoding 'binary' is not known", 0),
        (frame({"content-encoding": "zlib", "content-type": "text/x"}, b"1"), "encoding 'zlib' is not known", 0),
        (frame({"content-encoding": "é"}, b"1"), "is not known", 0),
        (frame({"content-encoding": "x" * 999}, b"1"), "is not known", 0),
    ],
)
def test_bad_header(wire: bytes, said: str, offset: int) -> None:
    with pytest.raises(ProtocolError, match=said) as caught:
        CODEC.decode(memoryview(wire))
    assert caught.value.offset == offset
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("fields", "content", "said", "at"),
    [
        ({}, b"{", "content is not JSON", 1),
        ({}, b"", "content is not JSON", 0),
        ({}, '["é", x]'.encode(), "content is not JSON", 7),
        ({}, b'"\xff"', "content is not in utf_8", 1),
        ({}, b"[" * 200_000, "nested too deeply", 0),
        ({}, b"1" * 5000, "content is not JSON that can be read", 0),
        ({"content-type": "text/plain"}, b"a\xff", "content is not in utf_8", 1),
        ({"content-type": "text/plain", "content-encoding": "utf-16-le"}, b"a", "content is not in utf_16_le", 0),
    ],
)
def test_bad_content(fields: dict[str, Any], content: bytes, said: str, at: int) -> None:
    wire = frame(fields, content)
    with pytest.raises(ProtocolError, match=said) as caught:
        CODEC.decode(memoryview(wire))
    assert caught.value.offset == len(wire) - len(content) + at


def test_bad_encoding_is_told_before_the_content_is_there() -> None:
    with pytest.raises(ProtocolError, match="not known"):
        CODEC.decode(frame({"content-encoding": "nope", "content-length": 10}))


def test_encodings_that_peers_make_up_are_not_remembered() -> None:
    import encodings

    before = len(encodings._cache)  # type: ignore[attr-defined]
    for number in range(50):
        with pytest.raises(ProtocolError):
            CODEC.decode(frame({"content-encoding": f"made-up-{number}"}, b"1"))
    assert len(encodings._cache) == before  # type: ignore[attr-defined]


def test_header_over_the_limit_is_refused_from_its_length() -> None:
    codec = Messages(max_header=200)
    with pytest.raises(MessageTooLarge) as caught:
        codec.decode(b"\x00\xc9")
    assert (caught.value.size, caught.value.limit) == (201, 200)
    with pytest.raises(MessageTooLarge) as caught:
        codec.encode(Message(b"", "binary/" + "x" * 200, "binary"))
    assert caught.value.limit == 200


def test_content_over_the_limit_is_refused_from_the_header() -> None:
    codec = Messages(max_size=10)
    with pytest.raises(MessageTooLarge) as caught:
        codec.decode(frame({"content-length": 11}))
    assert (caught.value.size, caught.value.limit) == (11, 10)
    with pytest.raises(MessageTooLarge):
        codec.encode(b"x" * 11)
    assert isinstance(codec.decode(codec.encode(b"x" * 10)), tuple)


def test_limits_have_bounds() -> None:
    assert (CODEC.max_size, CODEC.max_header) == (1 << 20, 8192)
    for size in (0, 1, 65536):
        with pytest.raises(ConfigurationError, match="max_header"):
            Messages(max_header=size)
    assert Messages(max_header=65535).max_header == 65535


# Messages that cannot be sent


@pytest.mark.parametrize(
    ("message", "error", "said"),
    [
        (Message(object()), TypeError, "not JSON serializable"),
        (Message("text", "binary/x", "binary"), TypeError, "is bytes, not str"),
        (Message("text", "text/plain", "binary"), TypeError, "is bytes, not str"),
        (Message({}, "text/plain"), TypeError, "is a str, not dict"),
        (Message(b"x", "text/plain"), TypeError, "is a str, not bytes"),
        (Message("é", "text/plain", "ascii"), ConfigurationError, "content cannot be written in 'ascii'"),
        (Message("\ud800", "text/plain"), ConfigurationError, "content cannot be written in 'utf-8'"),
        (Message(b"", "binary/\ud800", "binary"), ConfigurationError, "header cannot be written"),
        (Message("x", "text/plain", "klingon"), ConfigurationError, "encoding 'klingon' is not known"),
    ],
)
def test_message_that_cannot_be_sent(message: Message, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        CODEC.encode(message)


def test_endless_content_cannot_be_sent() -> None:
    loop: list[object] = []
    loop.append(loop)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    for content in (loop, deep):
        with pytest.raises(ConfigurationError, match="cannot be written as JSON"):
            CODEC.encode(content)
    while deep:  # taken apart by hand: dropping it whole recurses
        deep = deep[0]  # type: ignore[assignment]


# Properties

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=10,
)
BYTEORDERS = st.sampled_from(["little", "big"])
MESSAGES = st.one_of(
    st.builds(Message, JSON_VALUES, st.just("text/json"), st.sampled_from(["utf-8", "utf-16", "utf-32"]), BYTEORDERS),
    st.builds(Message, st.text(st.characters(codec="utf-8")), st.just("text/plain"), st.just("utf-8"), BYTEORDERS),
    st.builds(Message, st.binary(), st.sampled_from(["binary/x", "image/png"]), st.just("binary"), BYTEORDERS),
)


@given(st.lists(MESSAGES, min_size=1, max_size=4), st.data())
def test_round_trip_in_any_pieces(messages: list[Message], data: st.DataObject) -> None:
    wire = b"".join(CODEC.encode(message) for message in messages)
    got: list[Message] = []
    start = end = 0
    while start < len(wire):
        answer = CODEC.decode(memoryview(wire)[start:end])
        if isinstance(answer, int):
            assert answer > end - start
            end = data.draw(st.integers(end + 1, len(wire)))
        else:
            got.append(answer[0])
            start += answer[1]
    assert got == messages


def attempt(wire: bytes) -> None:
    try:
        answer = CODEC.decode(memoryview(wire))
    except (ProtocolError, MessageTooLarge):
        return
    if isinstance(answer, int):
        assert answer > len(wire)
    else:
        assert 2 < answer[1] <= len(wire)


@given(st.binary(max_size=300))
def test_garbage_gives_documented_errors_only(wire: bytes) -> None:
    attempt(wire)
    attempt(frame(wire, wire))


FIELD = JSON_VALUES | st.sampled_from(
    ["little", "text/json", "text/plain", "utf-8", "utf-7", "hz", "iso2022_jp", "gbk"]
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "byteorder": FIELD,
            "content-type": FIELD,
            "content-encoding": FIELD,
            "content-length": FIELD | st.integers(-5, 50),
        },
    ),
    st.binary(max_size=50),
)
def test_odd_headers_give_documented_errors_only(fields: dict[str, Any], content: bytes) -> None:
    attempt(frame(fields, content))


@given(st.sampled_from(SAMPLES), st.integers(0, 200), st.integers(0, 255))
def test_flipped_bytes_give_documented_errors_only(message: Message, position: int, value: int) -> None:
    wire = bytearray(CODEC.encode(message))
    wire[position % len(wire)] = value
    attempt(bytes(wire))


def test_every_encoding_of_python_gives_documented_errors_only() -> None:
    from encodings.aliases import aliases

    content = bytes(range(256))
    for name in {*aliases, *aliases.values(), "idna", "punycode", "unicode_escape", "undefined"}:
        for kind in ("text/plain", "text/json"):
            attempt(frame({"content-encoding": name, "content-type": kind}, content))
            attempt(frame({"content-encoding": name, "content-type": kind}, content[:0]))


def test_a_header_nested_deeply_is_refused_however_deep_this_python_reads() -> None:
    with pytest.raises(ProtocolError, match=r"nested too deeply|not JSON"):
        CODEC.decode(memoryview(frame(b"[" * 8000)))
