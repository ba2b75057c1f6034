"""permessage-deflate (RFC 7692): the settings, the offer of a client, the answer of a server, and what both then do.

Only the negotiation is here; messages are compressed by the native frames.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from portico.errors import ConfigurationError, ProtocolError
from portico.protocols.http_headers import TOKEN

__all__ = ["Agreed", "Deflate", "parse_extensions"]

NAME: Final = "permessage-deflate"
SERVER_TAKEOVER: Final = "server_no_context_takeover"
CLIENT_TAKEOVER: Final = "client_no_context_takeover"
SERVER_BITS: Final = "server_max_window_bits"
CLIENT_BITS: Final = "client_max_window_bits"
BITS: Final = {str(bits): bits for bits in range(8, 16)}
"""The values of both window parameters: decimal, without leading zeros (RFC 7692, section 7.1.2)."""
FULL_WINDOW: Final = 15
LEAST_WINDOW: Final = 9
"""zlib writes no raw deflate stream with less. It looks back no further than 512 - 262 bytes then (its MIN_LOOKAHEAD),
so that a peer with a window of 256 bytes, 8 bits, can read that, too."""
MAX_EXTENSIONS: Final = 32
"""Extensions, alternatives included, that are looked at in one head; browsers send one."""

QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
SPACE: Final = re.compile(r"[ \t]*")

Extension = tuple[str, list[tuple[str, str | None]]]


@dataclass(frozen=True, slots=True)
class Deflate:
    """How messages of a WebSocket are compressed: permessage-deflate, RFC 7692.

    The default costs an idle connection no memory: nothing is kept from one message to the next, so that connections
    share what compresses and what expands. With `context_takeover` messages that resemble each other get smaller, and
    each connection keeps two windows: about 2 ** (window_bits + 2) + 2 ** (memory_level + 9) bytes for what it sends,
    and 2 ** window_bits + 10 KiB for what it receives (zlib's zconf.h). That is 32 and 14 KiB by the defaults, 256 and
    42 KiB by those of zlib, 15 and 8.

    :param window_bits: how far back repetition is looked for, 9 to 15: 2 ** window_bits bytes. The peer is asked to
        keep within it, too.
    :param memory_level: 1 to 9, memory for the compressing side.
    :param level: 0 to 9, from quick to small, or -1 for zlib's own choice (6). For short messages 1 gives almost the
        size of 6 in half the time.
    :param threshold: bytes from which on a message is compressed, unless `send(..., compress=...)` says otherwise.
    :param context_takeover: keep the window from message to message.
    :raises ConfigurationError: a number out of its range."""

    window_bits: int = 12
    memory_level: int = 5
    level: int = 1
    threshold: int = 256
    context_takeover: bool = False

    def __post_init__(self) -> None:
        for name, least, most in (("window_bits", LEAST_WINDOW, FULL_WINDOW), ("memory_level", 1, 9), ("level", -1, 9)):
            value = getattr(self, name)
            if not isinstance(value, int) or not least <= value <= most:
                raise ConfigurationError(f"{name}={value!r} of Deflate cannot be; it must be {least} to {most}")
        if not isinstance(self.threshold, int) or self.threshold < 0:
            raise ConfigurationError(f"threshold={self.threshold!r} of Deflate must be 0 or more bytes")

    def offer(self) -> str:
        """Return what a client puts into Sec-WebSocket-Extensions.

        Without a server that keeps within the window there is no compression: its messages would take more memory
        here than was allowed (sections 7.1.1.1 and 7.1.2.1)."""
        words = [NAME]
        if not self.context_takeover:
            words += [SERVER_TAKEOVER, CLIENT_TAKEOVER]
        if self.window_bits < FULL_WINDOW:
            words += [f"{SERVER_BITS}={self.window_bits}", f"{CLIENT_BITS}={self.window_bits}"]
        else:
            words.append(CLIENT_BITS)
        return "; ".join(words)

    def accept(self, values: Iterable[str]) -> "tuple[Agreed, str] | None":
        """Choose among the offers of a client, and return what holds then with what to answer; None: no compression.

        The first offer that can be met is taken. One that names an unknown parameter, one twice, or a value that it
        cannot have, is passed over (section 7).

        :param values: the values of all Sec-WebSocket-Extensions fields, in order.
        :raises ProtocolError: they are no list of extensions (RFC 6455, section 9.1)"""
        for name, parameters in parse_extensions(values):
            offered = _read(parameters, in_offer=True) if name == NAME else None
            if offered is None:
                continue
            server_bits = min(self.window_bits, offered.server_bits or FULL_WINDOW)
            client_bits = FULL_WINDOW
            if offered.client_bits is not None:  # else the client could not be told (section 7.1.2.2)
                client_bits = min(self.window_bits, offered.client_bits)
            agreed = Agreed(
                offered.server_fresh or not self.context_takeover,
                offered.client_fresh or not self.context_takeover,
                server_bits,
                client_bits,
                self,
            )
            return agreed, agreed.response(say_bits=offered.server_bits is not None)
        return None

    def agree(self, values: Iterable[str]) -> "Agreed | None":
        """Read what the server answered to `offer`; None: no compression.

        :param values: the values of all Sec-WebSocket-Extensions fields, in order.
        :raises ProtocolError: something that was not offered, or that cannot be (sections 7.1 and 5.1)"""
        extensions = parse_extensions(values)
        if not extensions:
            return None
        (name, parameters), *more = extensions
        if name != NAME or more:
            wrong = more[0][0] if name == NAME else name
            raise ProtocolError(f"the server chose the extension {wrong!r}, which was not offered like this")
        answer = _read(parameters, in_offer=False)
        if answer is None:
            raise ProtocolError(f"the server answered {NAME} with parameters that cannot be: {_shown(parameters)}")
        if not self.context_takeover and not answer.server_fresh:
            raise ProtocolError(f"the server took {NAME} without {SERVER_TAKEOVER}, which was asked for")
        if (answer.server_bits or FULL_WINDOW) > self.window_bits:
            raise ProtocolError(f"the server took {NAME} with a larger window than {SERVER_BITS}={self.window_bits}")
        return Agreed(
            answer.server_fresh,
            answer.client_fresh or not self.context_takeover,  # a client may always keep less than it was allowed
            answer.server_bits or FULL_WINDOW,
            min(answer.client_bits or FULL_WINDOW, self.window_bits),
            self,
        )


@dataclass(frozen=True, slots=True)
class Agreed:
    """What both sides keep to when they compress; zlib takes a window of 8 bits as one of 9.

    :ivar server_no_context_takeover: each message of the server stands alone.
    :ivar client_no_context_takeover: each message of the client does.
    :ivar server_max_window_bits: what the server's messages need to be read, 8 to 15.
    :ivar client_max_window_bits: what the client's do.
    :ivar settings: this side's own."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: int
    client_max_window_bits: int
    settings: Deflate

    def response(self, *, say_bits: bool) -> str:
        """Return what a server answers in Sec-WebSocket-Extensions.

        :param say_bits: name the server's window though it is the full one, as the client asked for a limit."""
        words = [NAME]
        words += [SERVER_TAKEOVER] * self.server_no_context_takeover
        words += [CLIENT_TAKEOVER] * self.client_no_context_takeover
        if say_bits or self.server_max_window_bits < FULL_WINDOW:
            words.append(f"{SERVER_BITS}={self.server_max_window_bits}")
        if self.client_max_window_bits < FULL_WINDOW:
            words.append(f"{CLIENT_BITS}={self.client_max_window_bits}")
        return "; ".join(words)


@dataclass(slots=True)
class _Parameters:
    """The parameters of one offer or answer; None: not there."""

    server_fresh: bool = False
    client_fresh: bool = False
    server_bits: int | None = None
    client_bits: int | None = None


def _read(parameters: Sequence[tuple[str, str | None]], *, in_offer: bool) -> _Parameters | None:
    """Return what `parameters` say; None if they cannot be so (RFC 7692, sections 7.1.1 and 7.1.2)."""
    if len({name for name, _ in parameters}) < len(parameters):
        return None
    read = _Parameters()
    for name, value in parameters:
        if name == SERVER_TAKEOVER and value is None:
            read.server_fresh = True
        elif name == CLIENT_TAKEOVER and value is None:
            read.client_fresh = True
        elif name == SERVER_BITS and value in BITS:
            read.server_bits = BITS[value]
        elif name == CLIENT_BITS and value in BITS:
            read.client_bits = BITS[value]
        elif name == CLIENT_BITS and value is None and in_offer:
            read.client_bits = FULL_WINDOW
        else:
            return None
    return read


def _shown(parameters: Sequence[tuple[str, str | None]]) -> str:
    return "; ".join(name if value is None else f"{name}={value}" for name, value in parameters)[:100]


def parse_extensions(values: Iterable[str]) -> list[Extension]:
    """Return the extensions that Sec-WebSocket-Extensions lists: their names, each with its parameters in order.

    :param values: the values of all fields of that name (RFC 6455, section 9.1; lists as in RFC 9110, section 5.6.1).
    :raises ProtocolError: they are no such list, or of more than 32 extensions"""
    found: list[Extension] = []
    for value in values:
        place = 0
        while True:
            place = _skip(value, place)
            if place < len(value) and value[place] != ",":
                extension, place = _extension(value, place)
                found.append(extension)
                if len(found) > MAX_EXTENSIONS:
                    raise ProtocolError(f"Sec-WebSocket-Extensions lists more than {MAX_EXTENSIONS} extensions")
            if place == len(value):
                break
            if value[place] != ",":
                raise _malformed(place)
            place += 1
    return found


def _extension(text: str, place: int) -> tuple[Extension, int]:
    """Return the extension at `place`, and where it ends."""
    name, place = _token(text, place)
    parameters: list[tuple[str, str | None]] = []
    while (place := _skip(text, place)) < len(text) and text[place] == ";":
        key, place = _token(text, _skip(text, place + 1))
        value = None
        place = _skip(text, place)
        if place < len(text) and text[place] == "=":
            value, place = _value(text, _skip(text, place + 1))
        parameters.append((key, value))
    return (name, parameters), place


def _value(text: str, place: int) -> tuple[str, int]:
    """Return a token, or what quotes hold, which must be a token, too."""
    quoted = QUOTED.match(text, place)
    if quoted is None:
        return _token(text, place)
    value = re.sub(r"\\(.)", r"\1", quoted[1])
    if not TOKEN.fullmatch(value):
        raise _malformed(place)
    return value, quoted.end()


def _token(text: str, place: int) -> tuple[str, int]:
    match = TOKEN.match(text, place)
    if match is None:
        raise _malformed(place)
    return match[0], match.end()


def _skip(text: str, place: int) -> int:
    space = SPACE.match(text, place)
    assert space is not None  # as it matches nothing, too
    return space.end()


def _malformed(place: int) -> ProtocolError:
    return ProtocolError(f"Sec-WebSocket-Extensions is no list of extensions (RFC 6455, section 9.1), from {place} on")
