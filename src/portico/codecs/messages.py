"""Messages with a JSON header, as in Real Python's "Socket Programming in Python (Guide)", byte for byte.

A frame is a 2-byte big-endian length, a JSON header of that length in UTF-8, and the content:

    {"byteorder": "little", "content-type": "text/json", "content-encoding": "utf-8", "content-length": 42}
"""

import sys
from dataclasses import dataclass
from encodings import normalize_encoding
from encodings.aliases import aliases
from typing import Any, Final, Literal

from portico._core import Codec
from portico.errors import ConfigurationError, MessageTooLarge, ProtocolError

__all__ = ["Message", "Messages"]

JSON: Final = "text/json"
TEXT: Final = "text/plain"
BINARY: Final = "binary/octet-stream"

LENGTH_SIZE: Final = 2
HEADER_CEILING: Final = 2 ** (8 * LENGTH_SIZE) - 1


@dataclass(frozen=True, slots=True)
class Message:
    """One message: `content` and how it lies on the wire.

    With `content_type` "text/json" the content is any JSON value, with any other "text/..." a `str`, else `bytes`. An
    encoding of "binary" means `bytes`, whatever the type.

    :param content_encoding: the name of a character encoding, or "binary".
    :param byteorder: that of the sender's machine, for binary content that depends on it.
    """

    content: object
    content_type: str = JSON
    content_encoding: str = "utf-8"
    byteorder: Literal["little", "big"] = sys.byteorder


class Messages(Codec[Message]):
    """Codec of `Message`s; sends a plain `str` as text, `bytes` as binary and anything else as JSON, too."""

    max_header: int

    def __init__(self, max_size: int = 1 << 20, max_header: int = 8192) -> None:
        """Set the limits.

        :param max_size: bytes of content. The default is that of the websockets library.
        :param max_header: bytes of header, at most 65535. The four keys take about 100; 8192 is what nginx and
            Apache allow a line of an HTTP header.
        """
        super().__init__(max_size)
        if not 2 <= max_header <= HEADER_CEILING:
            raise ConfigurationError(
                f"max_header={max_header} is not from 2 to {HEADER_CEILING}, which 2 bytes can tell"
            )
        self.max_header = max_header

    def encode(self, message: object) -> bytes:
        """Return the frame of a `Message`, or of a `str`, `bytes` or JSON value.

        :raises TypeError: if the content is not what its type asks for.
        :raises ConfigurationError: if it cannot be written in its encoding.
        :raises MessageTooLarge: if content or header are over their limit.
        """
        if not isinstance(message, Message):
            message = _wrap(message)
        content = _pack(message)
        if len(content) > self.max_size:
            raise MessageTooLarge(len(content), self.max_size)
        fields = {
            "byteorder": message.byteorder,
            "content-type": message.content_type,
            "content-encoding": message.content_encoding,
            "content-length": len(content),
        }
        import json  # here and below: what few programs need is not imported by all

        header = _write(json.dumps(fields, ensure_ascii=False), "utf-8", "header")
        if len(header) > self.max_header:
            raise MessageTooLarge(len(header), self.max_header, setting="max_header")
        return len(header).to_bytes(LENGTH_SIZE, "big") + header + content

    def decode(self, data: bytes | bytearray | memoryview) -> tuple[Message, int] | int:
        """Return the first message in `data` and the bytes it took, or how many bytes must be there to go on.

        :raises ProtocolError: if header or content are not what they should be.
        :raises MessageTooLarge: if one of them is over its limit; told by the header, before the content is there.
        """
        view = memoryview(data)
        if len(view) < LENGTH_SIZE:
            return LENGTH_SIZE
        size = int.from_bytes(view[:LENGTH_SIZE], "big")
        if size > self.max_header:
            raise MessageTooLarge(size, self.max_header, setting="max_header")
        start = LENGTH_SIZE + size
        if len(view) < start:
            return start
        byteorder, kind, encoding, length = _read_header(bytes(view[LENGTH_SIZE:start]))
        if length > self.max_size:
            raise MessageTooLarge(length, self.max_size, frame=start + length)
        if not _is_binary(kind, encoding):
            _codec_of(encoding, ProtocolError)  # before the content is waited for
        end = start + length
        if len(view) < end:
            return end
        return Message(_unpack(bytes(view[start:end]), kind, encoding, start), kind, encoding, byteorder), end


def _wrap(content: object) -> Message:
    if isinstance(content, str):
        return Message(content, TEXT)
    if isinstance(content, bytes | bytearray | memoryview):
        return Message(content, BINARY, "binary")
    return Message(content)


def _is_binary(kind: str, encoding: str) -> bool:
    return kind != JSON and (encoding == "binary" or not kind.startswith("text/"))


# Writing


def _pack(message: Message) -> bytes:
    content, kind, encoding = message.content, message.content_type, message.content_encoding
    if _is_binary(kind, encoding):
        if not isinstance(content, bytes | bytearray | memoryview):
            raise TypeError(f"content of type {kind!r} in {encoding!r} is bytes, not {type(content).__name__}")
        return bytes(content)
    if kind != JSON:
        if not isinstance(content, str):
            raise TypeError(f"content of type {kind!r} in {encoding!r} is a str, not {type(content).__name__}")
        return _write(content, encoding, "content")
    try:
        import json

        text = json.dumps(content, ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"content cannot be written as JSON: {error}") from error
    return _write(text, encoding, "content")


def _write(text: str, encoding: str, part: str) -> bytes:
    try:
        return text.encode(_codec_of(encoding, ConfigurationError))
    except UnicodeError as error:
        raise ConfigurationError(f"{part} cannot be written in {encoding!r}: {error}") from error


# Reading


def _read_header(raw: bytes) -> tuple[Literal["little", "big"], str, str, int]:
    fields = _load(raw, "utf_8", LENGTH_SIZE, "header")
    if not isinstance(fields, dict):
        raise ProtocolError(f"the header is {type(fields).__name__}, not a JSON object", LENGTH_SIZE)
    values: list[Any] = []
    for name in ("byteorder", "content-type", "content-encoding", "content-length"):
        if name not in fields:
            raise ProtocolError(f"the header lacks {name!r}", LENGTH_SIZE)
        wanted = int if name == "content-length" else str
        if type(fields[name]) is not wanted:
            what = "a whole number" if wanted is int else "text"
            raise ProtocolError(f"{name!r} in the header is not {what}", LENGTH_SIZE)
        values.append(fields[name])
    byteorder, kind, encoding, length = values
    if byteorder not in ("little", "big"):
        raise ProtocolError(f"'byteorder' in the header is neither 'little' nor 'big': {byteorder[:40]!r}", LENGTH_SIZE)
    if length < 0:
        raise ProtocolError("'content-length' in the header is negative", LENGTH_SIZE)
    return byteorder, kind, encoding, length


def _unpack(raw: bytes, kind: str, encoding: str, start: int) -> object:
    if _is_binary(kind, encoding):
        return raw
    codec = _codec_of(encoding, ProtocolError)
    return _load(raw, codec, start, "content") if kind == JSON else _decode(raw, codec, start, "content")


def _decode(raw: bytes, codec: str, start: int, part: str) -> str:
    try:
        return raw.decode(codec)
    except UnicodeDecodeError as error:
        raise ProtocolError(f"the {part} is not in {codec}: {error.reason}", start + error.start) from error
    except UnicodeError as error:
        raise ProtocolError(f"the {part} is not in {codec}: {error}", start) from error


def _load(raw: bytes, codec: str, start: int, part: str) -> object:
    import json

    text = _decode(raw, codec, start, part)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        offset = len(text[: error.pos].encode()) if codec == "utf_8" else 0
        raise ProtocolError(f"the {part} is not JSON: {error.msg}", start + offset) from error
    except RecursionError as error:
        raise ProtocolError(f"the {part} is JSON nested too deeply", start) from error
    except ValueError as error:  # a whole number of thousands of digits
        raise ProtocolError(f"the {part} is not JSON that can be read: {error}", start) from error


# A peer names the encoding. codecs.lookup would import by that name and remember each that it does not know, for ever;
# so only those that Python lists are looked up, without those that are no character encodings.
_NO_CHARACTERS: Final = frozenset(
    ("base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec", "mbcs", "oem")
)
_ENCODINGS: Final = {name: name for name in aliases.values()} | aliases


def _codec_of(encoding: str, error: type[ConfigurationError] | type[ProtocolError]) -> str:
    """Return Python's name of a character encoding."""
    if encoding == "utf-8":
        return "utf_8"
    known = None
    if encoding.isascii() and len(encoding) <= 40:
        known = _ENCODINGS.get(normalize_encoding(encoding).lower())
    if known is None or known in _NO_CHARACTERS:
        raise error(f"content encoding {encoding[:40]!r} is not known")
    return known
