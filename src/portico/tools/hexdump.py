"""Bytes as a person can read them: offset, hexadecimal, and the characters among them."""

from collections.abc import Iterator

WIDTH = 16

_SHOWN = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in range(256))


def lines(data: bytes, offset: int = 0) -> Iterator[str]:
    """Yield a line for each 16 bytes; `offset` is the place of the first one, modulo 2**32 where it is printed."""
    for start in range(0, len(data), WIDTH):
        part = data[start : start + WIDTH]
        left, right = part[:8].hex(" "), part[8:].hex(" ")
        text = "".join(_SHOWN[byte] for byte in part)
        yield f"{(offset + start) & 0xFFFFFFFF:08x}  {left:<23}  {right:<23}  |{text}|"


class Dump:
    """The dump of one connection: `>` before what was sent, `<` before what was received, each with its own offset."""

    def __init__(self, name: str = "") -> None:
        self._prefix = f"{name} " if name else ""
        self._offsets = {">": 0, "<": 0}

    def sent(self, data: bytes) -> str:
        """Return the lines for what was sent."""
        return self._dump(">", data)

    def received(self, data: bytes) -> str:
        """Return the lines for what was received."""
        return self._dump("<", data)

    def _dump(self, arrow: str, data: bytes) -> str:
        offset = self._offsets[arrow]
        self._offsets[arrow] += len(data)
        return "".join(f"{self._prefix}{arrow} {line}\n" for line in lines(data, offset))
