"""Any messages, any bytes, any cuts: the engine and `decode` agree, and nothing but what is documented comes out."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from codec_engine import outcomes, run, sent, shape
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs import Codec, LengthPrefix, Lines, Netstrings
from portico.errors import EndOfStream, MessageTooLarge, ProtocolError

SEPARATORS = [b"\n", b"\r\n", b"aab", b"\r\n\r\n", b"abaaba", b"0123456789abcdef"]
MAX_SIZE = 20

CODECS: dict[str, Codec[Any]] = {
    "netstrings": Netstrings(max_size=MAX_SIZE),
    "varint": LengthPrefix("varint", max_size=MAX_SIZE),
    "1": LengthPrefix(1, max_size=MAX_SIZE),
    "2-little": LengthPrefix(2, byteorder="little", max_size=MAX_SIZE),
    "4": LengthPrefix(4, max_size=MAX_SIZE),
    "8-little": LengthPrefix(8, byteorder="little", max_size=MAX_SIZE),
    **{f"bytes-{mark!r}": Lines(text=False, separator=mark, max_size=MAX_SIZE) for mark in SEPARATORS},
    **{f"text-{mark!r}": Lines(separator=mark, max_size=MAX_SIZE) for mark in SEPARATORS[:2]},
}
EVERY = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)


def alphabet(codec: Codec[Any]) -> list[bytes]:
    """Return pieces of which bytes that nearly are frames of `codec` are easily made."""
    if isinstance(codec, Lines):
        return [
            codec.separator,
            *(codec.separator[at : at + 1] for at in range(len(codec.separator))),
            b"x",
            b"\xc3\xa9",
        ]
    if isinstance(codec, Netstrings):
        return [b"0:,", b"3:abc,", b"1", b"2", b"0", b":", b",", b"x" * 7]
    return [b"\0", b"\x01", b"\x02", b"\x07", b"\x80", b"\xff", b"x" * 7]


def contents(codec: Codec[Any]) -> st.SearchStrategy[Any]:
    """Make payloads up to a little over the limit."""
    if isinstance(codec, Lines):
        if codec.text:
            return st.text(st.sampled_from([*codec.separator.decode(), "\u00e9", "\U0001f600"]) | st.characters())
        return st.lists(st.sampled_from(alphabet(codec)), max_size=MAX_SIZE).map(b"".join)
    return st.binary(max_size=MAX_SIZE + 2)


def pieces(wire: bytes, cuts: Iterable[int]) -> list[bytes]:
    return [wire[start:end] for start, end in pairwise([0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)])]


CUTS = st.lists(st.integers(0, 1000), max_size=6)


@EVERY
@given(data=st.data(), cuts=CUTS)
def test_what_is_sent_arrives_as_it_was(codec: Codec[Any], data: st.DataObject, cuts: list[int]) -> None:
    messages: list[Any] = []
    wire = b""
    for message in data.draw(st.lists(contents(codec), max_size=6)):
        try:
            frame = codec.encode(message)
        except (MessageTooLarge, ProtocolError):
            continue
        assert codec.decode(frame) == (message, len(frame))
        messages.append(message)
        wire += frame
    *found, end = run(outcomes(codec, pieces(wire, cuts)))
    assert found == messages
    assert shape(end) == (EndOfStream, b"")
    assert run(sent(codec, lambda channel: [channel.send(message) for message in messages])) == wire


@EVERY
@given(data=st.data())
def test_what_encode_takes_is_what_the_limit_and_the_separator_allow(codec: Codec[Any], data: st.DataObject) -> None:
    message = data.draw(contents(codec))
    try:
        payload = message.encode() if isinstance(message, str) else message
    except UnicodeEncodeError:
        payload = None
    allowed = payload is not None and len(payload) <= MAX_SIZE
    if payload is not None and isinstance(codec, Lines):
        allowed = allowed and (payload + codec.separator).index(codec.separator) == len(payload)
    try:
        codec.encode(message)
    except (MessageTooLarge, ProtocolError):
        assert not allowed
    else:
        assert allowed


def decoded(codec: Codec[Any], wire: bytes) -> list[object]:
    """Return the messages of `wire` by repeated `decode`, and how they end: the bytes that are left, or an error."""
    found: list[object] = []
    while True:
        try:
            answer = codec.decode(memoryview(wire))
        except (MessageTooLarge, ProtocolError) as error:
            return [*found, error]
        if isinstance(answer, int):
            assert answer == 0
            return [*found, EndOfStream(wire)]
        message, size = answer
        assert 0 < size <= len(wire)
        found.append(message)
        wire = wire[size:]


@EVERY
@given(data=st.data(), cuts=CUTS)
def test_any_bytes_give_messages_or_documented_errors(codec: Codec[Any], data: st.DataObject, cuts: list[int]) -> None:
    wire = data.draw(st.binary(max_size=80) | st.lists(st.sampled_from(alphabet(codec)), max_size=30).map(b"".join))
    whole = run(outcomes(codec, [wire]))
    kind = str if isinstance(codec, Lines) and codec.text else bytes
    for outcome in whole:
        assert isinstance(outcome, kind | EndOfStream | MessageTooLarge | ProtocolError)
        if isinstance(outcome, kind):
            assert len(outcome) <= MAX_SIZE
        elif isinstance(outcome, MessageTooLarge):
            assert outcome.size > outcome.limit == MAX_SIZE
    shapes = [shape(each) for each in whole]
    assert [shape(each) for each in run(outcomes(codec, pieces(wire, cuts)))] == shapes
    alone = [shape(each) for each in decoded(codec, wire)]
    assert alone == shapes[: len(alone)]
