"""The opening handshake of WebSockets (RFC 6455, section 4), both sides, without I/O: heads in, heads out."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from portico.errors import ProtocolError
from portico.protocols.deflate import Agreed, Deflate
from portico.protocols.http_headers import TOKEN, Headers

__all__ = ["Agreement", "Offer", "Refusal", "Upgrade", "accept_value", "is_own_field", "is_token", "read_request"]

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION: Final = "13"
KEY_SIZE: Final = 16
OWN_FIELDS: Final = frozenset({"upgrade", "connection", "content-length", "transfer-encoding", "http2-settings"})
"""Fields, beside those that begin with Sec-WebSocket-, that the handshake itself writes, or that it cannot have."""

Items = list[tuple[str, str]]


def accept_value(key: str) -> str:
    """Return the Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (section 4.2.2, 5.4)."""
    return base64.b64encode(hashlib.sha1(key.encode("latin-1") + GUID).digest()).decode()


def is_token(text: str) -> bool:
    """Whether `text` can be a subprotocol: a token of RFC 9110, section 5.6.2."""
    return TOKEN.fullmatch(text) is not None


def is_own_field(name: str) -> bool:
    """Whether the handshake alone writes the field `name`."""
    name = name.lower()
    return name in OWN_FIELDS or name.startswith("sec-websocket-")


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a handshake settled: the subprotocol and the compression, None for none."""

    subprotocol: str | None = None
    deflate: Agreed | None = None


# the client


@dataclass(frozen=True, slots=True)
class Offer:
    """What a client asks for.

    :param nonce: 16 random bytes, new for each handshake (section 4.1, 7).
    :param subprotocols: in order of preference.
    :param deflate: how messages may be compressed; None: not at all."""

    nonce: bytes
    subprotocols: Sequence[str] = ()
    deflate: Deflate | None = None
    key: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", base64.b64encode(self.nonce).decode())

    def fields(self) -> Items:
        """Return the fields of the request that belong to the handshake."""
        items = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", self.key),
            ("Sec-WebSocket-Version", VERSION),
        ]
        if self.subprotocols:
            items.append(("Sec-WebSocket-Protocol", ", ".join(self.subprotocols)))
        if self.deflate is not None:
            items.append(("Sec-WebSocket-Extensions", self.deflate.offer()))
        return items

    def check(self, headers: Headers) -> Agreement:
        """Read what stands in an answer with the status 101 (section 4.1, second list).

        :raises ProtocolError: it is not the answer to this request; the connection must be closed"""
        if [each.lower() for each in headers.get_all("upgrade")] != ["websocket"]:
            raise ProtocolError(f"the server switched to {headers.get('upgrade', 'nothing')!r:.100}, not to websocket")
        if "upgrade" not in headers.tokens("connection"):
            raise ProtocolError("the server's Connection field does not say Upgrade; check what proxies are between")
        if headers.get_all("sec-websocket-accept") != [accept_value(self.key)]:
            raise ProtocolError("the server's Sec-WebSocket-Accept does not fit the key; it may be a stale cache")
        return Agreement(self._subprotocol(headers), self._compression(headers))

    def _subprotocol(self, headers: Headers) -> str | None:
        chosen = headers.get_all("sec-websocket-protocol")
        if not chosen:
            return None
        if len(chosen) > 1 or chosen[0] not in self.subprotocols:
            offered = ", ".join(self.subprotocols) or "none"
            raise ProtocolError(f"the server chose the subprotocol {', '.join(chosen)!r:.100}; offered: {offered}")
        return chosen[0]

    def _compression(self, headers: Headers) -> Agreed | None:
        chosen = headers.get_all("sec-websocket-extensions")
        if self.deflate is not None:
            return self.deflate.agree(chosen)
        if any(each.strip() for each in chosen):
            raise ProtocolError(f"the server chose the extension {', '.join(chosen)!r:.100}; none was offered")
        return None


# the server


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer to a request that asks for no WebSocket, or not as it must: status, fields, and a line of text."""

    status: int
    reason: str
    fields: Items = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A request for a WebSocket that is as it must be: what it offers."""

    key: str
    subprotocols: Sequence[str]
    extensions: Sequence[str]

    def agree(self, subprotocols: Iterable[str], deflate: Deflate | None) -> tuple[Agreement, Items]:
        """Return what holds from now on, and the fields of the answer with the status 101 (section 4.2.2).

        :param subprotocols: those of the server, in its order of preference: the first that was offered is chosen.
        :param deflate: how messages may be compressed; None: not at all.
        :raises ProtocolError: the offered extensions are no list of such: answer with 400"""
        items = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_value(self.key)),
        ]
        chosen = next((each for each in subprotocols if each in self.subprotocols), None)
        if chosen is not None:
            items.append(("Sec-WebSocket-Protocol", chosen))
        accepted = None if deflate is None else deflate.accept(self.extensions)
        if accepted is None:
            return Agreement(chosen), items
        items.append(("Sec-WebSocket-Extensions", accepted[1]))
        return Agreement(chosen, accepted[0]), items


def read_request(method: str, version: str, headers: Headers) -> Upgrade | Refusal:
    """Read the head of a request for a WebSocket (section 4.2.1).

    :param version: of HTTP, such as "1.1"."""
    if method != "GET":
        return Refusal(405, "a WebSocket is asked for with GET", [("Allow", "GET")])
    if headers.tokens("upgrade") != ["websocket"]:
        # RFC 9110, section 15.5.22: a server that sends 426 must say what to upgrade to
        fields = [("Upgrade", "websocket"), ("Connection", "Upgrade")]
        return Refusal(426, "here is a WebSocket: the request must have the field Upgrade: websocket", fields)
    if "upgrade" not in headers.tokens("connection"):
        return Refusal(400, "the request must have the field Connection: Upgrade; a proxy may have dropped it")
    if version != "1.1":
        return Refusal(400, f"a WebSocket needs HTTP/1.1, not HTTP/{version}")
    if headers.get("transfer-encoding") is not None or headers.get("content-length", "0") != "0":
        return Refusal(400, "a request for a WebSocket has no body")
    versions = headers.get_all("sec-websocket-version")
    if len(versions) != 1:
        return Refusal(400, "the request must have the field Sec-WebSocket-Version: 13, once", [_version_field()])
    if versions[0].strip() != VERSION:  # section 4.2.2, 4 and section 4.4
        fields = [_version_field(), ("Upgrade", "websocket"), ("Connection", "Upgrade")]
        return Refusal(426, f"the WebSocket protocol has the version {VERSION} here", fields)
    keys = headers.get_all("sec-websocket-key")
    if len(keys) != 1 or not _is_key(keys[0]):
        return Refusal(400, "the request must have the field Sec-WebSocket-Key: 16 bytes in base64, once")
    offered = ",".join(headers.get_all("sec-websocket-protocol")).split(",")
    subprotocols = [name for each in offered if (name := each.strip(" \t"))]
    if not all(is_token(each) for each in subprotocols):
        return Refusal(400, "Sec-WebSocket-Protocol must be a list of tokens")
    return Upgrade(keys[0], subprotocols, headers.get_all("sec-websocket-extensions"))


def _version_field() -> tuple[str, str]:
    return "Sec-WebSocket-Version", VERSION


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == KEY_SIZE and len(text) == 24
    except ValueError:
        return False
