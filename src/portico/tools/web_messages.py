"""What WebSockets need beside the piping: the input as messages, messages as output, round-trip times, the end."""

import asyncio
import contextlib
from collections.abc import Iterator

from portico._core.frames import Frames
from portico.errors import ClosedError, MessageTooLarge
from portico.tools.report import FAILED, Stop, note
from portico.websocket.channel import WebSocket

MAX_SIZE = 1 << 20
"""Bytes of the longest message, unless the settings say otherwise (theirs is the same)."""

BINARY = 64 * 1024
"""Bytes of the input that one binary message takes at most."""

ORDINARY = (1000, 1005)
"""Close codes that tell nothing: a normal closure, and none (RFC 6455 section 7.4.1)."""

GOING_AWAY = 1001


class Lines:
    """One text message for each line."""

    def __init__(self, max_size: int) -> None:
        self._max_size = max_size
        self._begun = b""

    def cut(self, data: bytes) -> Iterator[str]:
        """Yield the lines that are whole with `data`.

        :raises Stop: one is not UTF-8
        :raises MessageTooLarge: one is over the limit, maybe without an end"""
        *lines, last = data.split(b"\n")
        for line in lines:
            whole, self._begun = self._begun + line, b""
            yield self._text(whole.removesuffix(b"\r"))
        self._begun += last
        if len(self._begun) > self._max_size + 1:  # there may be a \r
            raise MessageTooLarge(len(self._begun), self._max_size)

    def rest(self) -> Iterator[str]:
        """Yield the last line, if it has no end."""
        if self._begun:
            yield self._text(self._begun)

    def _text(self, line: bytes) -> str:
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            what = f"the input is not UTF-8, as text must be: {line[error.start : error.start + 8]!r}"
            raise Stop(what, FAILED, "send it with --binary") from error


class Pieces:
    """Binary messages, as large as what was read at once, up to a limit."""

    def __init__(self, max_size: int) -> None:
        self._size = min(BINARY, max_size)

    def cut(self, data: bytes) -> Iterator[bytes]:
        """Yield `data`, which may take several messages."""
        for start in range(0, len(data), self._size):
            yield data[start : start + self._size]

    def rest(self) -> Iterator[bytes]:
        """Nothing is left."""
        return iter(())


def agreed(websocket: object) -> str:
    """Return what both sides agreed on, to be put behind the addresses."""
    assert isinstance(websocket, WebSocket)
    subprotocol = f", subprotocol {websocket.subprotocol}" if websocket.subprotocol else ""
    return subprotocol + (", compressed" if _framing(websocket).deflates else "")


def _framing(websocket: WebSocket) -> Frames:
    codec: object = websocket.codec
    assert isinstance(codec, Frames)
    return codec


async def tell_round_trips(websocket: WebSocket, name: str) -> None:
    """Tell the round-trip time now, and again as often as pings are sent, until the end."""
    every = _framing(websocket).ping_interval
    with contextlib.suppress(ClosedError):
        while every < float("inf"):
            note(f"{name}round trip {await websocket.ping() * 1000:.1f} ms")
            await asyncio.sleep(every)


@contextlib.contextmanager
def telling(peer: object, name: str, *, verbose: bool) -> Iterator[None]:
    """Tell about the WebSocket `peer` while it lasts, and how it ended."""
    assert isinstance(peer, WebSocket)
    trips = asyncio.ensure_future(tell_round_trips(peer, name)) if verbose else None
    try:
        yield
    finally:
        if trips is not None:
            trips.cancel()  # it awaits nothing that must be cleared away
    tell_end(peer, name, verbose=verbose)


def tell_end(websocket: WebSocket, name: str, *, verbose: bool) -> None:
    """Tell with which code and reason the peer closed, where that tells anything."""
    code, reason = websocket.close_code, websocket.close_reason
    if code is not None and (verbose or reason or code not in ORDINARY):
        meaning = {1000: " normal closure", GOING_AWAY: " going away", 1005: " no status code"}.get(code, "")
        note(f"{name}closed with {code}{meaning}" + (f": {reason}" if reason else ""))
