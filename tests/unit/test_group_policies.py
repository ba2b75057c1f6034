import asyncio
import logging
import socket
from typing import Any

import pytest
from group_kit import FRAME, LOOPS, Pair, line, lines, only_this_task, pair, run, slow_pair, until

from portico._core import Lines, Settings, SocketWire, hub_of
from portico.server.group import Group, Membership
from portico.server.group_policy import LatestPerKey, OldestDropped, Policy
from portico.transports.connection import Channel


def fill(group: Group[Any], *numbers: int, key: object = None) -> None:
    for number in numbers:
        group.send(line(number), key=key)


async def read_until_quiet(each: Pair, membership: Membership[Any], count: int) -> list[Any]:
    """Read `count` messages; then the member keeps up again."""
    messages = await each.read(count)
    await until(lambda: membership._task is None)
    return messages


@pytest.mark.parametrize("loop", LOOPS)
def test_drop_new(loop: str) -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="drop-new")
        slow, fast = slow_pair(), pair()
        membership = group.add(slow.near)
        group.add(fast.near)
        fill(group, *range(6))
        assert (membership.sent, membership.dropped, membership.missed, membership.pending) == (2, 4, 4, 0)
        assert await read_until_quiet(slow, membership, 2) == lines(0, 1)
        assert membership.missed == 0
        fill(group, 6)
        assert await slow.read(1) == lines(6)
        assert (membership.sent, membership.dropped) == (3, 4)
        assert await fast.read_all() == lines(*range(7))
        stats = group.stats
        assert (stats.sent, stats.delivered, stats.dropped, stats.dropped_new, stats.closed) == (7, 10, 4, 4, 0)
        slow.near.abort()
        await until(lambda: not group)

    run(main, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_drop_old(loop: str) -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="drop-old", max_pending=3)
        slow = slow_pair()
        membership = group.add(slow.near)
        fill(group, *range(8))
        assert (membership.sent, membership.dropped, membership.pending) == (2, 3, 3)
        assert group.send(line(8)) == 0
        assert await read_until_quiet(slow, membership, 5) == lines(0, 1, 6, 7, 8)
        fill(group, 9)
        assert await slow.read_all() == lines(9)
        assert (membership.sent, membership.dropped, membership.pending) == (6, 4, 0)
        assert (group.stats.delivered, group.stats.dropped_old, group.stats.dropped) == (6, 4, 4)

    run(main, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_latest_per_key(loop: str) -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="latest", max_pending=3)
        slow = slow_pair()
        membership = group.add(slow.near)
        fill(group, 0, 1)
        for number, key in enumerate("abacb", 2):
            group.send(line(number), key=key)
        assert (membership.sent, membership.dropped, membership.pending) == (2, 2, 3)
        fill(group, 7)  # a fourth key: the oldest goes
        assert (membership.dropped, membership.pending) == (3, 3)
        assert await read_until_quiet(slow, membership, 5) == lines(0, 1, 6, 5, 7)
        assert group.stats.dropped_latest == group.stats.dropped == 3
        slow.near.abort()
        await until(lambda: not group)

    run(main, loop)


@pytest.mark.parametrize("loop", LOOPS)
def test_close(loop: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        group: Group[str] = Group("room", policy="close")
        slow, fast = slow_pair(), pair()
        membership = group.add(slow.near)
        group.add(fast.near)
        with caplog.at_level(logging.INFO, "portico.server"):
            fill(group, *range(4))
        assert "too slow" in caplog.text
        assert list(group) == [fast.near] and not membership.active
        assert (membership.sent, membership.dropped) == (2, 1)
        assert "room" in membership.reason and "20 bytes" in membership.reason
        assert await slow.read_all() == lines(0, 1)
        assert await fast.read_all() == lines(*range(4))
        stats = group.stats
        assert (stats.closed, stats.dropped_close, stats.dropped, stats.delivered) == (1, 1, 1, 6)

    run(main, loop)


def test_each_member_has_its_policy() -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="drop-new")
        policies: list[Policy | None] = [None, "drop-old", "latest", "close"]
        pairs = [slow_pair() for _ in policies]
        memberships = [group.add(each.near, policy=policy) for each, policy in zip(pairs, policies, strict=True)]
        fill(group, *range(5))
        assert [each.policy for each in memberships] == ["drop-new", "drop-old", "latest", "close"]
        assert [each.dropped for each in memberships] == [3, 0, 2, 1]
        stats = group.stats
        assert (stats.dropped_new, stats.dropped_old, stats.dropped_latest, stats.dropped_close) == (3, 0, 2, 1)
        heard = [lines(0, 1), lines(0, 1, 2, 3, 4), lines(0, 1, 4), lines(0, 1)]
        for each, membership, expected in zip(pairs, memberships, heard, strict=True):
            assert await read_until_quiet(each, membership, len(expected)) == expected
        assert stats.delivered + stats.dropped + 2 == 4 * 5  # the closed one had left before the last two
        for each in pairs:
            each.near.abort()
        await until(lambda: not group)

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_notice_comes_once_per_gap_before_what_follows(loop: str) -> None:
    async def main() -> None:
        group: Group[str] = Group(notice=lambda missed: f"({missed} missed)")
        slow = slow_pair()
        membership = group.add(slow.near)
        fill(group, *range(5))
        assert await slow.read(3) == [*lines(0, 1), "(3 missed)"]
        await until(lambda: membership._task is None)
        fill(group, 5, 6)
        assert await slow.read(2) == lines(5, 6)
        fill(group, *range(7, 10))
        assert await slow.read(3) == [*lines(7, 8), "(1 missed)"]
        await until(lambda: membership._task is None)
        assert (group.stats.notices, group.stats.dropped, membership.dropped, membership.sent) == (2, 4, 4, 6)
        slow.near.abort()
        await until(lambda: not group)

    run(main, loop)


def test_notice_comes_before_what_waited() -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="drop-old", max_pending=2, notice=lambda missed: f"({missed} missed)")
        slow = slow_pair()
        membership = group.add(slow.near)
        fill(group, *range(7))
        assert await slow.read(1) == lines(0)
        assert await read_until_quiet(slow, membership, 4) == [line(1), "(3 missed)", line(5), line(6)]
        assert membership.missed == 0
        slow.near.abort()
        await until(lambda: not group)

    run(main)


def test_no_notice_when_nothing_was_missed() -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="drop-old", notice=lambda missed: f"({missed} missed)")
        slow = slow_pair()
        membership = group.add(slow.near)
        fill(group, *range(7))
        assert await read_until_quiet(slow, membership, 7) == lines(*range(7))
        assert group.stats.notices == 0
        slow.near.abort()
        await until(lambda: not group)

    run(main)


def test_notice_in_the_codec_of_the_member() -> None:
    async def main() -> None:
        group: Group[Any] = Group(notice=lambda missed: b"%d" % missed)
        pairs = [pair(Lines(text=False, separator=mark), high_water=1) for mark in (b"\n", b"\0")]
        for each in pairs:
            group.add(each.near)
        for _ in range(3):
            group.send(b"x" * 5)
        for each in pairs:
            assert await each.read(2) == [b"x" * 5, b"2"]
        for each in pairs:
            each.near.abort()
        await until(lambda: not group)

    run(main)


@pytest.mark.parametrize("fault", ["raises", "cannot be encoded"])
def test_a_notice_that_fails_is_logged_and_left_out(fault: str, caplog: pytest.LogCaptureFixture) -> None:
    def notice(missed: int) -> Any:
        return 5 if fault == "cannot be encoded" else 1 / 0

    async def main() -> None:
        group: Group[Any] = Group(notice=notice)
        slow = slow_pair()
        membership = group.add(slow.near)
        fill(group, *range(5))
        assert await read_until_quiet(slow, membership, 2) == lines(0, 1)
        assert "3 missed messages" in caplog.text
        fill(group, 5)
        assert await slow.read_all() == lines(5)

    run(main)


def test_a_notice_may_end_the_membership() -> None:
    async def main() -> None:
        def notice(missed: int) -> str:
            group.discard(slow.near)
            return "never sent twice"

        group: Group[str] = Group(policy="drop-old", max_pending=1, notice=notice)
        slow = slow_pair()
        group.add(slow.near)
        fill(group, *range(5))
        await slow.read(2)
        await until(lambda: not group)
        await only_this_task()
        assert group.stats.abandoned == 1
        slow.near.abort()

    run(main)


def test_order_is_kept_when_messages_come_while_the_member_catches_up() -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="drop-old", max_pending=200)
        slow = slow_pair()
        group.add(slow.near)
        heard: list[str] = []
        for number in range(300):
            group.send(line(number))
            if number % 3:
                heard += await slow.read(1)
            if number % 7 == 0:
                await asyncio.sleep(0)
        heard += await slow.read(300 - len(heard))
        assert heard == lines(*range(300))
        assert group.stats.delivered == 300 and group.stats.dropped == 0
        slow.near.abort()
        await until(lambda: not group)

    run(main)


def test_every_message_is_counted_once_whatever_the_pace() -> None:
    async def main() -> None:
        for policy in ("drop-new", "drop-old", "latest"):
            group: Group[str] = Group(policy=policy, max_pending=4)
            slow, fast = slow_pair(), pair()
            membership = group.add(slow.near)
            group.add(fast.near)
            heard: list[str] = []
            for number in range(500):
                group.send(line(number), key=number % 3)
                if number % 5 == 0:
                    heard += await slow.read(1)
                assert membership.sent + membership.dropped + membership.pending == number + 1
            sent = membership.sent + membership.pending
            heard += await slow.read(sent - len(heard))
            assert heard == sorted(heard) or policy == "latest"
            assert len(set(heard)) == len(heard) == membership.sent == 500 - membership.dropped
            assert await fast.read(500) == lines(*range(500))
            for each in (slow, fast):
                each.near.abort()
            await until(lambda group=group: not group)  # type: ignore[misc]

    run(main)


def test_memory_of_a_slow_member_is_bounded() -> None:
    async def main() -> None:
        high_water, limit, size = 1000, 2000, 100
        group: Group[str] = Group(policy="drop-old", max_pending=10_000, max_pending_bytes=limit)
        slow = pair(high_water=high_water)
        membership = group.add(slow.near)
        for _ in range(500):
            group.send("x" * (size - 1))
            assert slow.near.queued[1] <= high_water + size
        assert membership.pending == limit // size
        group.send("x" * limit)  # larger than the bound: dropped itself
        assert membership.pending == limit // size
        slow.near.abort()
        await until(lambda: not group)

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_member_lost_while_messages_wait(loop: str) -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="drop-old")
        slow = slow_pair()
        membership = group.add(slow.near)
        fill(group, *range(5))
        await asyncio.sleep(0)  # its task has begun
        slow.far.abort()
        await until(lambda: not group)
        assert not membership.active and membership.pending == 0
        assert group.stats.abandoned > 0 and membership.sent + group.stats.abandoned == 5
        await only_this_task()
        fill(group, 5)

    run(main, loop)


def test_leaving_while_messages_wait() -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="drop-old")
        slow = slow_pair()
        async with group.join(slow.near) as membership:
            fill(group, *range(5))
        assert (group.stats.abandoned, membership.pending, membership.sent) == (3, 0, 2)
        await only_this_task()
        async with group.join(slow.near) as again:
            assert await slow.read(2) == lines(0, 1)
            fill(group, 7)
            assert await slow.read(1) == lines(7)
            assert again.sent == 1
        slow.near.abort()

    run(main)


def test_cancelling_every_task_lets_the_slow_member_go() -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="drop-old")
        slow = slow_pair()
        group.add(slow.near)
        fill(group, *range(5))
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await until(lambda: not group)
        slow.near.abort()

    run(main)


def test_skip_holds_for_members_that_are_behind() -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="drop-old")
        slow, other = slow_pair(), slow_pair()
        memberships = [group.add(each.near) for each in (slow, other)]
        fill(group, *range(3))
        group.send(line(3), skip=slow.near)
        group.send(line(4), skip={slow.near, other.near})
        fill(group, 5)
        assert await read_until_quiet(slow, memberships[0], 4) == lines(0, 1, 2, 5)
        assert await read_until_quiet(other, memberships[1], 5) == lines(0, 1, 2, 3, 5)
        for each in (slow, other):
            each.near.abort()
        await until(lambda: not group)

    run(main)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_burst_over_the_high_water_mark_is_no_fault_of_a_member_that_reads(loop: str) -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="close")
        near, far = socket.socketpair()
        near.setblocking(False)
        hub = hub_of(asyncio.get_running_loop())
        channel: Channel[str] = Channel(
            SocketWire(hub, near.detach()), Lines(), Settings(high_water=100), scheme="unix"
        )
        group.add(channel)
        fill(group, *range(1000))
        assert group.stats.delivered == 1000 and channel in group
        far.setblocking(False)
        data = b""
        while len(data) < 1000 * FRAME:
            data += await asyncio.get_running_loop().sock_recv(far, 65536)
        assert data.decode().splitlines() == lines(*range(1000))
        far.close()
        await channel.close()
        assert not group

    run(main, loop)


def test_a_slow_member_over_a_socket_catches_up() -> None:
    async def main() -> None:
        group: Group[str] = Group(policy="drop-old", max_pending=100_000, max_pending_bytes=100 << 20)
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        hub = hub_of(asyncio.get_running_loop())
        settings = Settings()
        slow = Pair(*(Channel(SocketWire(hub, end.detach()), Lines(), settings, scheme="unix") for end in (near, far)))
        membership = group.add(slow.near)
        for number in range(5000):
            group.send(line(number) * 100)
        assert membership.pending > 1000 and slow.near.queued[1] < 70_000
        heard = await slow.read(5000)
        assert [text[: FRAME - 1] for text in heard] == lines(*range(5000))
        assert group.stats.dropped == 0 and group.stats.delivered == 5000
        slow.near.close()
        await slow.far.close()
        await slow.near.wait_closed()
        assert not group

    run(main)


def test_pending_queues_keep_their_bounds() -> None:
    old = OldestDropped(3, 10)
    assert [old.hold(frame, None) for frame in (b"aaaa", b"bbbb", b"cccc", b"d" * 11)] == [0, 0, 1, 1]
    assert [old.take(), old.take(), old.take()] == [b"bbbb", b"cccc", None]
    latest = LatestPerKey(2, 10)
    assert latest.hold(b"1", "a") == 0
    assert latest.hold(b"2", "b") == 0
    assert latest.hold(b"333", "a") == 1
    assert latest.hold(b"4" * 10, "a") == 2  # takes the place of 333, and 2 has to go
    assert latest.hold(b"5" * 11, "a") == 2 and latest.take() is None
    assert latest.hold(b"6", "c") == latest.hold(b"7", "d") == 0
    assert latest.hold(b"8", "e") == 1
    assert [latest.take(), latest.take(), latest.take()] == [b"7", b"8", None]
