"""Header fields of HTTP messages (RFC 9110, section 5): ordered pairs, whose names match in any case."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from portico.errors import ConfigurationError

Items = Iterable[tuple[str, str]] | Mapping[str, str]
"""How header fields are given: pairs of name and value, or a mapping."""

TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A word of RFC 9110, section 5.6.2."""

MAX_DIGITS: Final = 18
"""Digits of a Content-Length: more than any body needs, and less than int() refuses, which are 4300."""

_known: set[str] = set()  # names that were found good; bounded, for programs may make names up
KNOWN_KEYS: dict[bytes, str] = {}  # names as they came, and in lower case; bounded, for clients may make names up
_MAX_KNOWN = 1024
_MAX_NAME = 64


def pairs(items: Items) -> list[tuple[str, str]]:
    """Return `items` as a list of pairs."""
    if type(items) is list:  # most often, and asking for a Mapping takes long
        return items.copy()
    return list(items.items() if isinstance(items, Mapping) else items)


def encode_text(items: Iterable[tuple[str, str]]) -> str:
    """Return lines `Name: value`, each ended by CRLF.

    :raises ConfigurationError: a name that is no token (RFC 9110, 5.6.2), or a value that is no text, or has CR, LF or
        NUL in it, which would begin a field or a message of its own"""
    lines = []
    for name, value in items:
        if name not in _known:
            _check_name(name)
        if not isinstance(value, str):
            raise ConfigurationError(f"the value of a header is text: {name} cannot be {value!r}")
        lines.append(f"{name}: {value}\r\n")
    text = "".join(lines)
    if text.count("\r") != len(lines) or text.count("\n") != len(lines) or "\0" in text:
        raise ConfigurationError(f"a header value must not have CR, LF or NUL in it: {_culprit(lines)!r}")
    return text


def encode(items: Iterable[tuple[str, str]]) -> bytes:
    """Return lines `Name: value`, each ended by CRLF, as bytes.

    :raises ConfigurationError: a name that is no token, or a value with CR, LF, NUL or what latin-1 has not"""
    return to_wire(encode_text(items))


def to_wire(text: str) -> bytes:
    """Return the text of a head as bytes.

    :raises ConfigurationError: a character that latin-1 has not"""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError as error:
        place = text[max(error.start - 40, 0) : error.end]
        raise ConfigurationError(
            f"a header holds latin-1 only, not {place!r}: percent-encode it, or use a form such as filename*=UTF-8''…"
        ) from None


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not TOKEN.fullmatch(name):
        raise ConfigurationError(f"a header name is letters, digits and !#$%&'*+-.^_`|~, not {name!r}")
    if len(_known) < _MAX_KNOWN:
        _known.add(name)


def _culprit(lines: list[str]) -> str:
    return next(line for line in lines if line.count("\r") != 1 or line.count("\n") != 1 or "\0" in line)[:-2]


def key_of(name: bytes) -> str:
    """Return a name off the wire in lower case."""
    key = KNOWN_KEYS.get(name)
    if key is None:
        key = name.lower().decode("latin-1")
        if len(KNOWN_KEYS) < _MAX_KNOWN and len(name) <= _MAX_NAME:
            KNOWN_KEYS[name] = key
    return key


def length_of(value: str) -> int | None:
    """Return the number that a Content-Length (RFC 9110, 8.6) is; None if it is none that a body could have."""
    return int(value) if value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS else None


class Headers:
    """The fields of a message in the order they came: names match in any case, values are str (latin-1 on the wire)."""

    __slots__ = ("_first", "_raw")

    def __init__(self, items: Items = ()) -> None:
        """:raises ConfigurationError: a character that latin-1 has not"""
        self._raw: list[tuple[bytes, bytes]] | bytes
        self._raw = [(to_wire(name), to_wire(value)) for name, value in pairs(items)]
        self._first: dict[str, bytes] | None = None

    @classmethod
    def from_wire(cls, raw: list[tuple[bytes, bytes]], first: dict[str, bytes] | None = None) -> "Headers":
        """Make one of the pairs that a parser found; decoding waits until somebody asks.

        :param first: the values by name in lower case, those of one name joined by ", ", where they are known."""
        made = cls.__new__(cls)
        made._raw, made._first = raw, first
        return made

    def pack(self) -> None:
        """Keep them in one piece of memory, and take them apart each time that somebody asks: for a message that is
        kept long and looked at seldom."""
        if isinstance(self._raw, list):
            self._raw = b"\n".join([b"%b:%b" % pair for pair in self._raw])
            self._first = None

    @property
    def _pairs(self) -> list[tuple[bytes, bytes]]:
        if isinstance(self._raw, list):
            return self._raw
        return [(name, value) for name, _, value in (line.partition(b":") for line in self._raw.split(b"\n")) if name]

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the value of `name`; several are joined by ", " (RFC 9110, 5.3; not for Set-Cookie)."""
        first = self._index()
        value = first.get(name)
        if value is None:
            value = first.get(name.lower())
        return default if value is None else value.decode("latin-1")

    def get_all(self, name: str) -> list[str]:
        """Return the value of every field `name`, in order."""
        wanted = name.lower()
        return [value.decode("latin-1") for each, value in self._pairs if key_of(each) == wanted]

    def tokens(self, name: str) -> list[str]:
        """Return the elements of a comma-separated list, in lower case: `tokens("Connection")`."""
        value = self.get(name)
        return [part for each in value.split(",") if (part := each.strip(" \t").lower())] if value else []

    def __contains__(self, name: object) -> bool:
        first = self._index()
        return name in first or (isinstance(name, str) and name.lower() in first)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        for name, value in self._pairs:
            yield name.decode("latin-1"), value.decode("latin-1")

    def __len__(self) -> int:
        return len(self._pairs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._folded() == other._folded()

    def __hash__(self) -> int:
        return hash(tuple(self._folded()))

    def __repr__(self) -> str:
        return f"Headers({list(self)!r})"

    def _folded(self) -> list[tuple[str, bytes]]:
        return [(key_of(name), value) for name, value in self._pairs]

    def _index(self) -> dict[str, bytes]:
        if self._first is None:
            first: dict[str, bytes] = {}
            for name, value in self._pairs:
                key = key_of(name)
                first[key] = first[key] + b", " + value if key in first else value
            if not isinstance(self._raw, list):
                return first
            self._first = first
        return self._first
