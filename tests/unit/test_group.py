import asyncio
import gc
from typing import Any

import pytest
from group_kit import LOOPS, Pair, line, lines, pair, run, slow_pair, until

from portico._core import Codec, LengthPrefix, Lines, Netstrings, Settings
from portico.errors import ClosedError, ConfigurationError, MessageTooLarge, ProtocolError
from portico.server.group import Group
from portico.server.service import Service, serve
from portico.transports.connection import Channel, memory_pair


class Counted(Codec[bytes]):
    """Frames of 4 bytes that count how often they were made."""

    def __init__(self, mark: bytes = b"") -> None:
        super().__init__()
        self.mark = mark
        self.calls: list[bytes] = []

    def encode(self, message: bytes) -> bytes:
        self.calls.append(message)
        return (self.mark + message)[:4].ljust(4)

    def decode(self, data: memoryview) -> tuple[bytes, int] | int:
        return (bytes(data[:4]), 4) if len(data) >= 4 else 4


class Padded(Codec[bytes]):
    """As Counted, with settings alone."""

    made = 0

    def __init__(self, pad: bytes) -> None:
        super().__init__()
        self.pad = pad

    def encode(self, message: bytes) -> bytearray:  # type: ignore[override]
        Padded.made += 1
        return bytearray(message[:4].ljust(4, self.pad))

    def decode(self, data: memoryview) -> tuple[bytes, int] | int:
        return (bytes(data[:4]), 4) if len(data) >= 4 else 4


@pytest.mark.parametrize("loop", LOOPS)
def test_members_get_what_is_sent_while_they_are_members(loop: str) -> None:
    async def main() -> None:
        group: Group[str] = Group("room")
        one, other = pair(), pair()
        assert group.send("nobody hears it") == 0
        async with group.join(one.near) as first:
            assert group.send("alone") == 1
            async with group.join(other.near):
                assert len(group) == 2 and list(group) == [one.near, other.near]
                assert group.send("both") == 2
            assert other.near not in group and one.near in group
            assert group.send("alone again") == 1
            assert (first.sent, first.dropped, first.missed, first.pending) == (3, 0, 0, 0)
        assert not first.active and first.sent == 3
        assert group.send("nobody") == 0 and len(group) == 0
        assert await one.read_all() == ["alone", "both", "alone again"]
        assert await other.read_all() == ["both"]
        assert group.stats.as_dict() == {
            **dict.fromkeys(group.stats.as_dict(), 0),
            "sent": 5,
            "delivered": 4,
        }

    run(main, loop)


def test_skip_takes_a_channel_or_many() -> None:
    async def main() -> None:
        group: Group[str] = Group()
        pairs = [pair(Lines(max_size=100 + n % 2)) for n in range(6)]
        memberships = [group.add(each.near) for each in pairs]
        stranger = pair()
        assert group.send("a", skip=pairs[0].near) == 5
        assert group.send("b", skip={pairs[0].near, pairs[2].near, pairs[5].near}) == 3
        assert group.send("c", skip=[each.near for each in pairs]) == 0
        assert group.send("d", skip=stranger.near) == 6
        assert group.send("e", skip=()) == 6
        with pytest.raises(TypeError):
            group.send("f", skip=5)  # type: ignore[arg-type]
        heard = ["de", "abde", "ade", "abde", "abde", "ade"]
        assert ["".join(await each.read_all()) for each in pairs] == heard
        assert [each.sent for each in memberships] == [len(each) for each in heard]
        stranger.near.abort()
        await until(lambda: not group)

    run(main)


def test_one_encoding_for_equal_codecs() -> None:
    async def main() -> None:
        group: Group[Any] = Group()
        shared = Counted()
        pairs = [pair(shared), pair(shared), pair(Padded(b".")), pair(Padded(b".")), pair(Padded(b"-"))]
        pairs += [pair(Lines(text=False)), pair(Lines(text=False)), pair(Netstrings()), pair(LengthPrefix(2))]
        for each in pairs:
            group.add(each.near)
        Padded.made = 0
        assert group.send(b"hi") == 9
        assert shared.calls == [b"hi"] and Padded.made == 2
        assert len(group._audiences) == 6
        expected = [b"hi  ", b"hi  ", b"hi..", b"hi..", b"hi--", b"hi", b"hi", b"hi", b"hi"]
        assert [(await each.read_all()) for each in pairs] == [[each] for each in expected]
        await until(lambda: not group)
        assert not group._audiences

    run(main)


def test_codecs_with_state_of_their_own_are_kept_apart() -> None:
    class Slotted(Padded):
        __slots__ = ("secret",)

    class Unhashable(Padded):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    async def main() -> None:
        group: Group[Any] = Group()
        pairs = [pair(kind(b".")) for kind in (Slotted, Unhashable) for _ in range(2)] + [
            pair(Counted()),
            pair(Counted()),
        ]
        for each in pairs:
            group.add(each.near)
        assert len(group._audiences) == 6
        for each in pairs:
            group.discard(each.near)
            each.near.abort()

    run(main)


def test_what_one_codec_cannot_encode_reaches_nobody() -> None:
    async def main() -> None:
        group: Group[Any] = Group()
        text, small, binary = pair(Lines()), pair(Lines(max_size=4)), pair(Lines(text=False))
        for each in (text, small):
            group.add(each.near)
        with pytest.raises(MessageTooLarge):
            group.send("12345")
        with pytest.raises(ProtocolError):
            group.send("1\n2")
        group.add(binary.near)
        with pytest.raises(TypeError):
            group.send("text")
        group.discard(binary.near)
        with pytest.raises(TypeError):
            group.send("1234", key=[])  # type: ignore[arg-type]
        assert group.send("1234") == 2
        assert (group.stats.sent, group.stats.delivered) == (1, 2)
        assert await text.read_all() == await small.read_all() == ["1234"]
        binary.near.abort()

    run(main)


def test_joining_twice_and_joining_what_is_closed() -> None:
    async def main() -> None:
        group: Group[str] = Group()
        one, closed, ended = pair(), pair(), pair()
        membership = group.add(one.near)
        assert group.add(one.near, policy="close") is membership and membership.policy == "drop-new"
        with pytest.raises(ConfigurationError, match="already"):
            async with group.join(one.near):
                pass
        assert one.near in group
        group.discard(one.near)
        group.discard(one.near)
        closed.near.close()
        ended.near.send_eof()
        for each in (closed, ended):
            with pytest.raises(ClosedError):
                group.add(each.near)
        with pytest.raises(TypeError, match="Channel"):
            group.add(memory_pair()[0])  # type: ignore[arg-type]
        assert not group
        one.near.abort()

    run(main)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="drop-old"):
        Group(policy="newest")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="max_pending"):
        Group(max_pending=0)
    with pytest.raises(ConfigurationError, match="max_pending"):
        Group(max_pending_bytes=0)
    assert repr(Group("room")) == "<Group 'room': 0 members>"


@pytest.mark.parametrize("loop", LOOPS)
def test_lost_members_leave_by_themselves(loop: str) -> None:
    async def main() -> None:
        room, other = Group[str](), Group[str]()
        owners: list[Channel[str]] = []
        lost, kept = pair(), pair()
        lost.near.owner = owners.append
        for group in (room, other):
            group.add(lost.near)
            group.add(kept.near)
        other.discard(kept.near)
        lost.far.abort()
        await lost.near.wait_closed()
        assert list(room) == [kept.near] and not other
        assert owners == [lost.near]
        assert room.send("still here") == 1
        await kept.read_all()
        assert not room

    run(main, loop)


def test_leaving_gives_the_owner_its_place_back() -> None:
    async def main() -> None:
        owners: list[Channel[str]] = []
        each = pair()
        before = each.near.owner = owners.append
        one, other = Group[str](), Group[str]()
        async with one.join(each.near), other.join(each.near):
            assert each.near.owner is not before
        assert each.near.owner is before
        each.near.abort()
        await each.near.wait_closed()
        assert owners == [each.near]

    run(main)


def test_a_member_that_is_closing_or_has_ended_leaves_at_the_next_message() -> None:
    async def main() -> None:
        group: Group[str] = Group()
        closing, ended, kept = pair(), pair(), pair()
        memberships = [group.add(each.near) for each in (closing, ended, kept)]
        closing.near.close()
        ended.near.send_eof()
        assert group.send("hello") == 1
        assert list(group) == [kept.near] and [each.sent for each in memberships] == [0, 0, 1]
        for each in (closing, ended, kept):
            each.near.abort()
        await until(lambda: not group)

    run(main)


def test_a_cancelled_handler_leaves() -> None:
    async def main() -> None:
        group: Group[str] = Group()
        each = pair()

        async def handler() -> None:
            async with group.join(each.near):
                await each.near.recv()

        task = asyncio.create_task(handler())
        await until(lambda: len(group) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not group
        each.near.abort()

    run(main)


def test_members_come_and_go_between_messages_of_one_turn() -> None:
    async def main() -> None:
        group: Group[str] = Group()
        pairs = [pair() for _ in range(50)]
        expected: dict[int, list[str]] = {n: [] for n in range(50)}
        for number in range(200):
            place = number * 7 % 50
            if pairs[place].near in group:
                group.discard(pairs[place].near)
            else:
                group.add(pairs[place].near)
            members = [n for n in range(50) if pairs[n].near in group]
            assert group.send(line(number)) == len(members) == len(group)
            for n in members:
                expected[n].append(line(number))
        assert [await each.read_all() for each in pairs] == list(expected.values())
        await until(lambda: not group)

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_thousand_members(loop: str) -> None:
    async def main() -> None:
        group: Group[str] = Group()
        codecs = [Lines(), Lines(), Lines()]
        settings = Settings()
        pairs = []
        for n in range(1000):
            near, far = memory_pair(settings)
            pairs.append(Pair(near.channel(codecs[n % 3]), far.channel(codecs[n % 3])))
            group.add(pairs[-1].near)
        assert len(group._audiences) == 1
        for number in range(16):
            assert group.send(line(number)) == 1000
        for each in pairs:
            assert await each.read(16) == lines(*range(16))
        for each in pairs[::2]:
            group.discard(each.near)
        assert group.send("half") == len(group) == 500
        for each in pairs[1::2]:
            assert await each.read(1) == ["half"]
        assert group.stats.delivered == 16_500
        for each in pairs:
            each.near.abort()
            each.far.abort()
        await until(lambda: not group)

    run(main, loop)


def test_what_is_sent_in_one_turn_leaves_in_one_write() -> None:
    async def main() -> None:
        group: Group[str] = Group()
        each = pair()
        group.add(each.near)
        for number in range(100):
            group.send(line(number))
        batches = aiter(each.far.batches())
        assert await anext(batches) == lines(*range(100))
        each.near.abort()

    run(main)


def test_a_group_is_used_by_one_loop_after_the_other() -> None:
    group: Group[str] = Group()

    async def main() -> None:
        each = pair()
        async with group.join(each.near):
            assert group.send("hello") == 1
        assert await each.read_all() == ["hello"]

    run(main, "uvloop")
    run(main, "asyncio")


def test_members_of_a_closed_loop_are_forgotten() -> None:
    group: Group[str] = Group(policy="drop-old")

    async def leave_it() -> None:
        group.add(slow_pair().near)
        for number in range(5):
            group.send(line(number))

    with asyncio.Runner() as runner:
        runner.run(leave_it())

    async def main() -> None:
        each = pair()
        async with group.join(each.near):
            assert len(group) == 1 and group.send("hello") == 1
        each.near.abort()

    run(main)
    gc.collect()


def test_another_loop_or_thread_is_told() -> None:
    async def main() -> None:
        group: Group[str] = Group("room")
        each = pair()
        group.add(each.near)
        errors: list[str] = []

        def elsewhere() -> None:
            async def misuse() -> None:
                attempts = (
                    lambda: group.send("hello"),
                    lambda: Group[str]().add(each.near),
                    lambda: group.add(pair().near),
                )
                for attempt in attempts:
                    try:
                        attempt()
                    except RuntimeError as error:
                        errors.append(str(error))

            asyncio.run(misuse())
            try:
                group.send("hello")
            except RuntimeError as error:
                errors.append(str(error))

        await asyncio.to_thread(elsewhere)
        assert len(errors) == 4 and all("event loop" in error for error in errors)
        assert group.send("hello") == 1
        each.near.abort()

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_room_over_tcp(loop: str) -> None:
    async def main() -> None:
        group: Group[str] = Group("room", policy="drop-old")

        async def chat(channel: Channel[str]) -> None:
            async with group.join(channel):
                async for text in channel:
                    group.send(text, skip=channel)

        service = Service()
        service.listen("tcp://127.0.0.1:0", chat, codec=Lines())
        async with asyncio.timeout(10), serve(service) as server:
            address = server.address
            _, writer = await asyncio.open_connection(address.host, address.port)
            quiet, quiet_writer = await asyncio.open_connection(address.host, address.port)
            await until(lambda: len(group) == 2)
            writer.write(b"".join(b"%d %s\n" % (n, b"x" * 1000) for n in range(2000)))
            for n in range(2000):
                assert (await quiet.readline()).startswith(b"%d " % n)
            writer.close()
            await writer.wait_closed()
            await until(lambda: len(group) == 1)
            quiet_writer.close()
            await quiet_writer.wait_closed()
            await until(lambda: not group)
            assert group.stats.dropped == 0

    run(main, loop)
