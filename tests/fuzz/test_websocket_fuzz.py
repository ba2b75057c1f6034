"""Streams of frames, good and damaged: however they are cut, the same comes out, and nothing but documented errors."""

import asyncio
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websocket.frames_kit import FIN, KEY, RSV1, Fed, agreed, frame, head, squeezed

import portico

MAX_SIZE = 2000
FUZZ = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
DEFLATES = (None, agreed(), agreed(server_takeover=True, client_takeover=True, server_bits=9, client_bits=9))

texts = st.text(max_size=40).map(lambda text: text.encode(errors="surrogatepass"))
payloads = st.binary(max_size=140) | texts | st.integers(0, MAX_SIZE + 10).map(lambda size: b"z" * size)
opcodes = st.sampled_from([0, 0, 1, 1, 1, 2, 2, 8, 9, 10]) | st.integers(0, 15)


@st.composite
def streams(draw: st.DrawFn, key: bytes | None) -> bytes:
    """Frames in a row, most of them as they should be, and then some bytes changed."""
    out = bytearray()
    compressor = zlib.compressobj(wbits=-9)
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["text", "binary", "parts", "compressed", "control", "any"]))
        data = draw(payloads)
        if kind == "text":
            out += frame(1, draw(texts), key=key)
        elif kind == "binary":
            out += frame(2, data, key=key)
        elif kind == "parts":
            place = draw(st.integers(0, len(data)))
            out += frame(2, data[:place], fin=False, key=key) + frame(9, key=key) + frame(0, data[place:], key=key)
        elif kind == "compressed":
            squeeze = squeezed(data, draw(st.sampled_from([compressor, None])))
            out += frame(2, squeeze, bits=RSV1, key=key)
        elif kind == "control":
            out += frame(draw(st.sampled_from([9, 10])), data[:125], key=key)
        else:
            first = draw(opcodes) | draw(st.sampled_from([FIN, FIN, 0])) | draw(st.sampled_from([0, 0, RSV1, 0x20]))
            size = draw(st.sampled_from([len(data), len(data) + 1, 1 << 40, (1 << 63) - 1, 1 << 63]))
            out += head(first, size, key, draw(st.sampled_from([None, 8]))) + data
    if out and draw(st.booleans()):
        for _ in range(draw(st.integers(1, 4))):
            out[draw(st.integers(0, len(out) - 1))] = draw(st.integers(0, 255))
    return bytes(out)


def outcome(data: bytes, cuts: list[int], *, client: bool, deflate: Any, in_pieces: bool) -> tuple[Any, ...]:
    """Everything that can be told of a WebSocket that was given `data`, cut at `cuts`."""

    async def main() -> tuple[Any, ...]:
        ends = Fed(client=client, deflate=deflate, max_size=MAX_SIZE, max_fragments=6)
        if in_pieces:
            ends.socket.fragments()
        start = 0
        for end in [*sorted(cuts), len(data)]:
            ends.feed(data[start:end])
            assert ends.socket.queued[0] < len(data) * 70 + 20 * MAX_SIZE
            start = end
        received: list[Any] = []
        while ends.socket.readiness[0]:
            try:
                async with asyncio.timeout(0):
                    received.append(await ends.socket.recv())
            except portico.MessageTooLarge as error:
                received.append(("too large", error.limit))
                if not ends.socket.flags[0] and not ends.socket.queued[0]:  # it ended the connection
                    break
            except (portico.ProtocolError, portico.EndOfStream, portico.ClosedError) as error:
                received.append((type(error), str(error)))
                break
            except TimeoutError:  # of a message in pieces the end is missing
                break
        sent = [(each.first, each.payload) for each in await ends.sent()]
        told = ends.socket.close_code, ends.socket.close_reason, ends.socket.state
        ends.lose()
        return received, sent, told

    return asyncio.run(main())


@pytest.mark.parametrize("deflate", DEFLATES, ids=["plain", "deflate", "takeover"])
@pytest.mark.parametrize("client", [False, True], ids=["server", "client"])
@FUZZ
@given(data=st.data())
def test_the_same_comes_out_whatever_the_cuts(client: bool, deflate: Any, data: st.DataObject) -> None:
    stream = data.draw(streams(None if client else KEY))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    whole = outcome(stream, [], client=client, deflate=deflate, in_pieces=False)
    assert outcome(stream, cuts, client=client, deflate=deflate, in_pieces=False) == whole
    small = list(range(0, len(stream), 3)) if len(stream) < 600 else []
    assert outcome(stream, small, client=client, deflate=deflate, in_pieces=False) == whole


@pytest.mark.parametrize("deflate", DEFLATES, ids=["plain", "deflate", "takeover"])
@FUZZ
@given(data=st.data())
def test_messages_in_pieces_are_the_same_messages(deflate: Any, data: st.DataObject) -> None:
    stream = data.draw(streams(KEY))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6))
    whole = outcome(stream, [], client=False, deflate=deflate, in_pieces=True)
    assert [each for each in outcome(stream, cuts, client=False, deflate=deflate, in_pieces=True)[0]] == whole[0]


@pytest.mark.parametrize("in_pieces", [False, True])
@FUZZ
@given(stream=st.binary(max_size=400), deflate=st.sampled_from(DEFLATES), client=st.booleans())
def test_noise_gives_only_documented_errors(stream: bytes, deflate: Any, client: bool, in_pieces: bool) -> None:
    outcome(stream, [7], client=client, deflate=deflate, in_pieces=in_pieces)
