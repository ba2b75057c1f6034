"""Byte ranges (RFC 9110, section 14): which parts of a file are asked for, and how they are sent."""

import re
import secrets

MAX_RANGES = 32
"""Ranges that one request may ask for; who asks for more gets the whole (Apache's MaxRanges: 200)."""

Range = tuple[int, int]
"""The first byte and the one behind the last."""

_SPEC = re.compile(r"(\d*)-(\d*)", re.ASCII)
_DIGITS = 18


def parse_ranges(value: str, size: int) -> list[Range] | None:
    """Return what the Range field `value` asks for of `size` bytes, in its order; empty: nothing that there is (416).

    None: the field is not heeded, and everything is sent, as RFC 9110, 14.2 allows and in part demands: another unit, a
    malformed one, too many ranges, or ranges that overlap so much that they are more than the whole."""
    unit, mark, listed = value.partition("=")
    if unit.strip().lower() != "bytes" or not mark:
        return None
    specs = [spec for each in listed.split(",") if (spec := each.strip(" \t"))]
    if not 1 <= len(specs) <= MAX_RANGES:
        return None
    ranges: list[Range] = []
    for spec in specs:
        found = _SPEC.fullmatch(spec)
        if found is None or spec == "-":
            return None
        first, last = found.groups()
        if not first:
            length = _number(last)
            if length and not size:
                return None  # all of nothing, which Content-Range cannot say
            if length:
                ranges.append((max(size - length, 0), size))
            continue
        begin = _number(first)
        end = _number(last) + 1 if last else size
        if last and end <= begin:
            return None
        if begin < size:
            ranges.append((begin, min(end, size)))
    if sum(end - begin for begin, end in ranges) > size:
        return None
    return ranges


def content_range(part: Range | None, size: int) -> str:
    """Return the value of Content-Range for a part of `size` bytes; None: nothing of it."""
    return f"bytes */{size}" if part is None else f"bytes {part[0]}-{part[1] - 1}/{size}"


def multipart(ranges: list[Range], size: int, content_type: str) -> tuple[str, list[bytes | Range]]:
    """Return the Content-Type of several ranges in one answer, and what its body is made of: the parts, and the text
    between them (RFC 9110, 14.6)."""
    boundary = secrets.token_hex(16)
    pieces: list[bytes | Range] = []
    for each in ranges:
        lead = "\r\n" if pieces else ""
        head = f"Content-Type: {content_type}\r\nContent-Range: {content_range(each, size)}"
        pieces += [f"{lead}--{boundary}\r\n{head}\r\n\r\n".encode("latin-1"), each]
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return f"multipart/byteranges; boundary={boundary}", pieces


def total(pieces: list[bytes | Range]) -> int:
    """Return how many bytes that is."""
    return sum(len(each) if isinstance(each, bytes) else each[1] - each[0] for each in pieces)


def _number(digits: str) -> int:
    """Return the number; one that no file reaches where it is longer than any size."""
    digits = digits.lstrip("0")
    return int(digits or 0) if len(digits) <= _DIGITS else 10**_DIGITS
