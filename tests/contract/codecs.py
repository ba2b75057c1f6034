"""The codecs that the contract runs over, with messages of theirs."""

from dataclasses import dataclass
from typing import Any

import portico


class Dotted(portico.Codec[str]):
    """A user's own codec in pure Python: the length in decimal, a dot, the text."""

    def encode(self, message: str) -> bytes:
        data = message.encode()
        return b"%d.%b" % (len(data), data)

    def decode(self, data: memoryview) -> tuple[str, int] | int:
        head, dot, _ = bytes(data[:12]).partition(b".")
        if not dot:
            if len(head) == 12:
                raise portico.ProtocolError("no length")
            return 0
        if not head.isdigit():
            raise portico.ProtocolError("no length")
        size = int(head)
        if size > self.max_size:
            raise portico.MessageTooLarge(size, self.max_size)
        end = len(head) + 1 + size
        if len(data) < end:
            return end
        return bytes(data[len(head) + 1 : end]).decode(), end


@dataclass(frozen=True)
class Framing:
    """One codec, and how to make a message of its."""

    name: str
    make: Any
    """`make(max_size)` returns the codec."""
    text: bool = False
    native: bool = True
    most: int = 1 << 20
    """Bytes that its frames can hold at most."""

    def codec(self, max_size: int = 1 << 20) -> Any:
        return self.make(max_size)

    def message(self, number: int, size: int = 20) -> Any:
        """Return a message of `size` bytes that tells its number."""
        data = (b"%d:" % number).ljust(size, b"x")
        if self.name == "messages":
            return portico.Message({"n": data.decode()})
        return data.decode() if self.text else data

    def __str__(self) -> str:
        return self.name


FRAMINGS = (
    Framing("lines-text", lambda size: portico.Lines(max_size=size), text=True),
    Framing("lines-bytes", lambda size: portico.Lines(text=False, separator="\r\n", max_size=size)),
    Framing("length-1", lambda size: portico.LengthPrefix(1, max_size=min(size, 255)), most=255),
    Framing("length-2", lambda size: portico.LengthPrefix(2, max_size=min(size, 65535)), most=65535),
    Framing("length-4", lambda size: portico.LengthPrefix(4, max_size=size)),
    Framing("length-8", lambda size: portico.LengthPrefix(8, byteorder="little", max_size=size)),
    Framing("varint", lambda size: portico.LengthPrefix("varint", max_size=size)),
    Framing("netstrings", lambda size: portico.Netstrings(max_size=size)),
    Framing("messages", lambda size: portico.Messages(size), native=False),
    Framing("own", lambda size: Dotted(size), text=True, native=False),
)
NATIVE = tuple(each for each in FRAMINGS if each.native)
RAW = "raw"
"""In place of a framing: a Stream."""


def codec_of(framing: Framing | str) -> Any:
    return None if isinstance(framing, str) else framing.codec()
