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
    """The dump of one connection: `>` before what was sent, `<` before what was received. Bytes in a row have an offset
    that goes on, for each direction; of packets each begins at 0. A str is marked as text."""

    def __init__(self, name: str = "", *, packets: bool = False) -> None:
        self._name, self._packets = name, packets
        self._offsets = {">": 0, "<": 0}

    def sent(self, data: bytes | str) -> str:
        """Return the lines for what was sent."""
        return self._dump(">", data, self._name)

    def received(self, data: bytes | str, sender: str = "") -> str:
        """Return the lines for what was received; `sender` is put before them in place of the connection's name."""
        return self._dump("<", data, sender or self._name)

    def _dump(self, arrow: str, data: bytes | str, name: str) -> str:
        if isinstance(data, str):
            data, name = data.encode(), f"{name} text".lstrip()
        offset = 0 if self._packets else self._offsets[arrow]
        self._offsets[arrow] += len(data)
        prefix = f"{name} {arrow}" if name else arrow
        if not data:
            return f"{prefix} {offset:08x}  (an empty packet)\n"
        return "".join(f"{prefix} {line}\n" for line in lines(data, offset))
