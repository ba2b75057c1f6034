"""Frames by hand (RFC 6455, section 5.2), and a WebSocket whose bytes the test hands in and takes out."""

import asyncio
import functools
import struct
import zlib
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, NamedTuple

from core.support import FakeTransport, run

import portico
from portico._core import LoopWire, Settings, hub_of
from portico._core.frames import Frames
from portico.protocols.deflate import Agreed, Deflate
from portico.protocols.http_request import RequestHead
from portico.websocket.channel import WebSocket

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2, RSV3 = 0x80, 0x40, 0x20, 0x10
ARRIVAL = 256 * 1024
"""Bytes that come at most at a time: the size of the receive buffer."""
KEY = b"\x37\xfa\x21\x3d"
TAIL = b"\0\0\xff\xff"
"""What a compressed message is sent without (RFC 7692, section 7.2.1)."""


class Frame(NamedTuple):
    """One frame as it lies on the wire, unmasked."""

    first: int
    payload: bytes
    masked: bool = False

    @property
    def opcode(self) -> int:
        return self.first & 15

    @property
    def final(self) -> bool:
        return self.first & FIN != 0


def masking(data: bytes, key: bytes) -> bytes:
    keys = (key * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(keys, "big")).to_bytes(len(data), "big")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, bits: int = 0, key: bytes | None = KEY) -> bytes:
    """A whole frame; `key`: None for one without a mask, as servers send them."""
    return head((FIN if fin else 0) | bits | opcode, len(payload), key) + (masking(payload, key) if key else payload)


def head(first: int, size: int, key: bytes | None = KEY, form: int | None = None) -> bytes:
    """The head of a frame, its length in `form` bytes more (0, 2 or 8), or in the shortest form."""
    if form is None:
        form = 0 if size < 126 else 2 if size < 65536 else 8
    mask = 0x80 if key else 0
    length = {0: struct.pack(">B", mask | size & 127), 2: struct.pack(">BH", mask | 126, size & 65535)}.get(form)
    return bytes([first]) + (length or struct.pack(">BQ", mask | 127, size)) + (key or b"")


def closing(code: int | None = None, reason: bytes = b"", key: bytes | None = KEY) -> bytes:
    return frame(CLOSE, b"" if code is None else struct.pack(">H", code) + reason, key=key)


def frames_in(data: bytes) -> Iterator[Frame]:
    """Cut whole frames out of `data`; nothing may be left."""
    while data:
        first, second = data[0], data[1]
        size, at = second & 127, 2
        if size >= 126:
            more = 2 if size == 126 else 8
            size, at = int.from_bytes(data[2 : 2 + more], "big"), 2 + more
        key = b""
        if second & 0x80:
            key, at = data[at : at + 4], at + 4
        payload, data = data[at : at + size], data[at + size :]
        assert len(payload) == size, "the end of a frame is missing"
        yield Frame(first, masking(payload, key) if key else payload, bool(key))


def close_code(frame: Frame) -> int | None:
    """The code of a close frame."""
    assert frame.opcode == CLOSE, frame
    return int.from_bytes(frame.payload[:2], "big") if frame.payload else None


def cut(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """`data` in pieces of those sizes, the rest as the last one."""
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


# --- permessage-deflate --------------------------------------------------------------------------------


def agreed(
    *,
    server_takeover: bool = False,
    client_takeover: bool = False,
    server_bits: int = 15,
    client_bits: int = 15,
    **settings: Any,
) -> Agreed:
    """What two sides may have agreed upon; every message that is not empty is compressed."""
    return Agreed(
        not server_takeover, not client_takeover, server_bits, client_bits, Deflate(**{"threshold": 1, **settings})
    )


def squeezed(data: bytes, compressor: Any = None) -> bytes:
    """The payload of a compressed message."""
    compressor = compressor or zlib.compressobj(wbits=-15)
    whole: bytes = compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert whole.endswith(TAIL)
    return whole[:-4]


def expanded(payload: bytes, bits: int = 15, expander: Any = None) -> bytes:
    """The data of a compressed payload."""
    data: bytes = (expander or zlib.decompressobj(-bits)).decompress(payload + TAIL)
    return data


# --- a WebSocket without a network ---------------------------------------------------------------------


class Fed:
    """A WebSocket whose bytes the test hands in, without a turn of the loop in between, and takes out."""

    def __init__(
        self, settings: Settings | None = None, *, early: bytes = b"", codec: Frames | None = None, **frames: Any
    ) -> None:
        self.wire = LoopWire(hub_of(asyncio.get_running_loop()))
        self.transport = FakeTransport()
        self.wire.connection_made(self.transport)
        stream = _stream(self.wire, settings or Settings())
        if early:
            stream.unread(early)
        frames = {"ping_interval": None, **frames}
        self.socket = WebSocket(stream, codec or Frames(**frames), RequestHead("GET", "/"))
        self.key = None if frames.get("client") else KEY
        """What the peer masks with."""

    def feed(self, data: bytes) -> None:
        for start in range(0, len(data), ARRIVAL):
            part = data[start : start + ARRIVAL]
            self.wire.get_buffer(-1)[: len(part)] = part
            self.wire.buffer_updated(len(part))

    def frame(self, opcode: int, payload: bytes = b"", **details: Any) -> None:
        """Hand in a frame of the peer."""
        self.feed(frame(opcode, payload, **{"key": self.key, **details}))

    def end(self) -> None:
        self.wire.eof_received()

    def lose(self, error: Exception | None = None) -> None:
        self.wire.connection_lost(error)

    async def sent(self) -> list[Frame]:
        """Take out the frames that have left by the end of this turn."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        data, self.transport.data = self.transport.data, []
        return list(frames_in(b"".join(each for each in data if isinstance(each, bytes))))

    async def received(self) -> list[Any]:
        """Take what can be received, ending with the error or None where nothing more has come yet."""
        got: list[Any] = []
        while True:
            receivable, _ = self.socket.readiness
            if not receivable:
                return [*got, None]
            try:
                got.append(await self.socket.recv())
            except portico.PorticoError as error:
                return [*got, error]


def _stream(wire: LoopWire, settings: Settings) -> Any:
    from portico.transports.connection import Stream

    return Stream(wire, settings, scheme="tcp")


def fed(function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine function that needs a loop and no network."""

    @functools.wraps(function)
    def test(*args: Any, **values: Any) -> None:
        run("asyncio", lambda: function(*args, **values), timeout=20)

    return test
