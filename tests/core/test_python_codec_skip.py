"""A codec in Python that says how long an oversize frame is loses that message alone, wherever the bytes are cut."""

import asyncio

import pytest

from portico import Channel, Codec, Message, Messages, MessageTooLarge, memory_pair


class Sized(Codec[bytes]):
    """One byte of length, then the payload."""

    def encode(self, message: bytes) -> bytes:
        return bytes([len(message)]) + message

    def decode(self, data: memoryview) -> tuple[bytes, int] | int:
        size = data[0]
        if size > self.max_size:
            raise MessageTooLarge(size, self.max_size, frame=1 + size)
        return (bytes(data[1 : 1 + size]), 1 + size) if len(data) > size else 1 + size


async def received(codec: Codec, wire: bytes, cuts: list[int]) -> list[object]:
    near, far = memory_pair()
    channel: Channel = far.channel(codec)
    got: list[object] = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        near.send(wire[start:end])
        await near.flush()
    near.send_eof()
    while True:
        try:
            got.append(await channel.recv())
        except MessageTooLarge as error:
            got.append((error.size, error.limit))
        except EOFError:
            break
    await asyncio.gather(near.close(), channel.close())
    return got


def test_an_oversize_frame_is_skipped_at_every_cut() -> None:
    wire = b"\x01a" + b"\x14" + b"x" * 20 + b"\x02bc" + b"\x0b" + b"y" * 11 + b"\x00"
    want = [b"a", (20, 10), b"bc", (11, 10), b""]

    async def main() -> None:
        for cut in range(1, len(wire)):
            assert await received(Sized(10), wire, [cut]) == want
        assert await received(Sized(10), wire, list(range(1, len(wire)))) == want

    asyncio.run(main())


def test_headed_messages_go_on_after_content_that_is_too_large() -> None:
    codec = Messages(max_size=1000)
    large = Messages(max_size=10_000).encode(Message(b"z" * 5000, "binary/x", "binary"))
    wire = codec.encode("one") + large + codec.encode("two")

    async def main() -> list[object]:
        return await received(codec, wire, [40, 1000, 4000])

    one, lost, two = asyncio.run(main())
    assert isinstance(one, Message) and one.content == "one"
    assert lost == (5000, 1000)
    assert isinstance(two, Message) and two.content == "two"


@pytest.mark.parametrize("frame", [0, -1, "many"])
def test_a_frame_that_cannot_be_skipped_ends_reading(frame: object) -> None:
    class Odd(Sized):
        def decode(self, data: memoryview) -> tuple[bytes, int] | int:
            raise MessageTooLarge(99, 10, frame=frame)  # type: ignore[arg-type]

    async def main() -> None:
        near, far = memory_pair()
        channel = far.channel(Odd())
        near.send(b"x")
        for _ in range(2):
            with pytest.raises(MessageTooLarge):
                await channel.recv()
        await asyncio.gather(near.close(), channel.close())

    asyncio.run(main())
