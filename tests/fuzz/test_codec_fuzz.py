"""Frames that were damaged: `decode` gives a message, wants more, or raises what its docstring names."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.codecs import Codec, LengthPrefix, Lines, Message, Messages, Netstrings
from portico.errors import MessageTooLarge, ProtocolError

CODECS: list[tuple[Codec[Any], list[Any]]] = [
    (Lines(), ["", "A\u2262\u0391.", "x" * 300]),
    (Lines(text=False, separator=b"\r\n", max_size=64), [b"", b"\r", b"x" * 64]),
    (Lines(text=False, separator=b"aab"), [b"", b"aa", b"xa"]),
    (LengthPrefix(1), [b"", b"x" * 255]),
    (LengthPrefix(2, byteorder="little", max_size=999), [b"", b"x" * 300]),
    (LengthPrefix(), [b"", b"abc"]),
    (LengthPrefix(8), [b"", b"abc"]),
    (LengthPrefix("varint"), [b"", b"x" * 300]),
    (Netstrings(), [b"", b"hello world!", b"x" * 300]),
    (Messages(), [Message({"a": [1, None]}), Message("text", "text/plain"), Message(b"\0", "binary/octet-stream")]),
]


@st.composite
def damaged(draw: st.DrawFn, frame: bytes) -> bytes:
    """Change, insert, drop or repeat some bytes of `frame`."""
    data = bytearray(frame)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.integers(0, 3))
        data[start:end] = draw(st.binary(max_size=3) | st.just(bytes(data[start:end]) * 2))
    return bytes(data)


@pytest.mark.parametrize(("codec", "messages"), CODECS)
@given(data=st.data())
def test_damaged_frames_give_only_documented_errors(
    codec: Codec[Any], messages: list[Any], data: st.DataObject
) -> None:
    wire = data.draw(damaged(b"".join(codec.encode(message) for message in messages)))
    while wire:
        try:
            answer = codec.decode(memoryview(wire))
        except (MessageTooLarge, ProtocolError):
            return
        if isinstance(answer, int):
            assert answer == 0 or answer > len(wire)
            return
        size = answer[1]
        assert 0 < size <= len(wire)
        wire = wire[size:]
