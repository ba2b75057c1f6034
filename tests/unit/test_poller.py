import asyncio
import contextlib
import gc
import os
import weakref
from typing import Any

import pytest
from poller_kit import BOTH, Counted, pipe, scenario, tcp_pair
from ports import free_port

import portico
from portico import Events, Poller
from portico._core import LengthPrefix, Lines
from portico.errors import BusyError, ClosedError, ConfigurationError
from portico.transports import poller as poller_module
from portico.transports.connection import memory_pair
from portico.transports.datagrams import datagrams


@scenario
async def test_a_stream_is_readable_until_all_is_received_and_again_when_more_comes() -> None:
    async with tcp_pair() as (near, far):
        with Poller() as poller:
            poller.register(near, data="near")
            assert await poller.wait(0) == []
            far.send(b"abc")
            for _ in range(2):  # level-triggered
                assert await poller.wait(5) == [(near, Events.READABLE, "near")]
            assert await near.recv(1) == b"a"
            assert await poller.wait(0) == [(near, Events.READABLE, "near")]
            assert await near.recv() == b"bc"
            assert await poller.wait(0) == []
            far.send(b"d")
            assert await poller.wait(5) == [(near, Events.READABLE, "near")]


@scenario
async def test_a_channel_is_readable_when_a_whole_message_is_there() -> None:
    async with tcp_pair(codec=LengthPrefix()) as (near, far):
        with Poller() as poller:
            poller.register(near)
            far.send_encoded(b"\0\0\0\3ab")
            assert await poller.wait(0.05) == []
            far.send_encoded(b"c")
            assert [key.events for key in await poller.wait(5)] == [Events.READABLE]
            assert await near.recv() == b"abc"
            assert await poller.wait(0) == []


@scenario
async def test_a_stream_is_writable_unless_the_peer_takes_nothing() -> None:
    async with tcp_pair() as (near, far):
        with Poller() as poller:
            poller.register(near, BOTH)
            assert await poller.wait(5) == [(near, Events.WRITABLE, None)]
            while await poller.wait(0):
                near.send(bytes(1 << 20))
            waiting = asyncio.ensure_future(poller.wait(5))
            while not waiting.done():
                await far.recv()
            assert waiting.result() == [(near, Events.WRITABLE, None)]


@scenario
async def test_the_peers_end_is_readable_and_closed_to_those_who_read() -> None:
    async with tcp_pair() as (near, far):
        with Poller() as reading, Poller() as sending:
            reading.register(near)
            sending.register(near, Events.WRITABLE)
            far.send_eof()
            assert await reading.wait(5) == [(near, Events.READABLE | Events.CLOSED, None)]
            assert await sending.wait(5) == [(near, Events.WRITABLE, None)]
            assert await near.recv() == b""
            assert await reading.wait(0) == [(near, Events.READABLE | Events.CLOSED, None)]
            await near.close()
            assert await sending.wait(5) == [(near, Events.WRITABLE | Events.CLOSED, None)]


@scenario
async def test_a_lost_connection_is_told_to_those_who_want_nothing_as_an_error() -> None:
    async with tcp_pair() as (near, far):
        with Poller() as poller:
            poller.register(near, Events(0))
            waiting = asyncio.ensure_future(poller.wait(5))
            await asyncio.sleep(0)
            far.abort()
            assert await waiting == [(near, Events.CLOSED | Events.ERROR, None)]


@scenario
async def test_closing_here_ends_a_wait() -> None:
    for end in ("close", "abort"):
        async with tcp_pair() as (near, _):
            with Poller() as poller:
                poller.register(near)
                waiting = asyncio.ensure_future(poller.wait(5))
                await asyncio.sleep(0)
                getattr(near, end)()
                assert await waiting == [(near, Events.READABLE | Events.CLOSED, None)]


@scenario
async def test_send_eof_without_room_makes_writable_for_sending_raises() -> None:
    async with tcp_pair() as (near, _):
        with Poller() as poller:
            poller.register(near, Events.WRITABLE)
            while await poller.wait(0):
                near.send(bytes(1 << 20))
            near.send_eof()
            assert await poller.wait(5) == [(near, Events.WRITABLE, None)]
            with pytest.raises(ClosedError):
                near.send(b"x")


@scenario
async def test_a_stream_that_became_a_channel_is_closed_and_the_channel_can_be_registered() -> None:
    async with tcp_pair() as (near, far):
        with Poller() as poller:
            poller.register(near)
            waiting = asyncio.ensure_future(poller.wait(5))
            await asyncio.sleep(0)
            channel = near.channel(Lines())
            assert await waiting == [(near, Events.READABLE | Events.CLOSED, None)]
            with pytest.raises(ClosedError):
                await near.recv()
            poller.unregister(near)
            poller.register(channel)
            assert await poller.wait(0) == []
            far.send(b"line\n")
            assert await poller.wait(5) == [(channel, Events.READABLE, None)]


@scenario
async def test_memory_streams_are_watched_too() -> None:
    near, far = memory_pair()
    with Poller() as poller:
        poller.register(near)
        far.send(b"x")
        assert await poller.wait(5) == [(near, Events.READABLE, None)]
        await near.recv()
        far.close()
        assert await poller.wait(5) == [(near, Events.READABLE | Events.CLOSED, None)]
    await near.close()


@scenario
async def test_datagrams_are_readable_when_a_packet_is_there() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        with Poller() as poller:
            poller.register(packets, BOTH)
            assert await poller.wait(5) == [(packets, Events.WRITABLE, None)]
            poller.modify(packets, Events.READABLE, "changed")
            packets.send(b"packet", packets.local_address)
            assert await poller.wait(5) == [(packets, Events.READABLE, "changed")]
            assert (await packets.recv()).data == b"packet"
            assert await poller.wait(0) == []


@scenario
async def test_a_packet_that_was_not_delivered_makes_a_channel_readable() -> None:
    async with portico.connect(f"udp://127.0.0.1:{free_port()}") as channel:
        with Poller() as poller:
            poller.register(channel)
            channel.send(b"to nobody")
            assert await poller.wait(5) == [(channel, Events.READABLE, None)]
            with pytest.raises(portico.DeliveryError):
                await channel.recv()
            assert await poller.wait(0) == []


@scenario
async def test_two_pollers_watch_one_object_and_leave_it_one_by_one() -> None:
    near, far = memory_pair()
    with Poller() as one, Poller() as other:
        one.register(near)
        other.register(near)
        far.send(b"x")
        assert await one.wait(5) == await other.wait(5) == [(near, Events.READABLE, None)]
        one.close()
        await near.recv()
        assert await other.wait(0) == []
        far.send(b"y")
        assert len(await other.wait(5)) == 1
    near.abort()
    far.abort()


# --- fairness and cost


@scenario
async def test_a_wait_looks_at_what_may_be_ready_only() -> None:
    many = [Counted() for _ in range(5000)]
    with Poller() as poller:
        for each in many:
            poller.register(each)
        assert await poller.wait(0) == []
        before = sum(each.looks for each in many)
        busy = many[17]
        busy.become_readable()
        for _ in range(100):
            assert await poller.wait() == [(busy, Events.READABLE, None)]
        assert sum(each.looks for each in many) == before + 100
        assert len(poller) == 5000
    assert all(each.watcher is None for each in many)


@scenario
async def test_idle_descriptors_cost_a_wait_no_more_than_a_bounded_look() -> None:
    with contextlib.ExitStack() as stack:
        pipes = [stack.enter_context(pipe()) for _ in range(200)]
        with Poller() as poller:
            for reading, _ in pipes:
                poller.register(reading)
            await poller.wait(0)
            os.write(pipes[0][1], b"x")
            looked: list[int] = []
            real = poller_module.identity
            poller_module.identity = lambda fd: (looked.append(fd), real(fd))[1]  # type: ignore[func-returns-value]
            try:
                for _ in range(10):
                    assert await poller.wait(5) == [(pipes[0][0], Events.READABLE, None)]
            finally:
                poller_module.identity = real
            assert len(looked) <= 10 * (poller_module.INSPECTED + 4)  # one of them may look in vain first


@scenario
async def test_what_comes_and_goes_without_a_wait_leaves_nothing() -> None:
    with pipe() as (reading, _), Poller() as poller:
        for _ in range(1000):
            one = Counted()
            for each in (one, reading):
                poller.register(each)
            for each in (one, reading):
                poller.unregister(each)
        assert len(poller._noted) + len(poller._round) <= 2 * poller_module.GONE


@scenario
async def test_with_few_keys_everybody_gets_a_turn() -> None:
    pairs = [memory_pair() for _ in range(7)]
    with contextlib.ExitStack() as stack, Poller() as poller:
        pipes = [stack.enter_context(pipe()) for _ in range(5)]
        for near, far in pairs:
            poller.register(near)
            far.send(b"x")
        for reading, writing in pipes:
            poller.register(reading)
            os.write(writing, b"x")
        seen: list[Any] = []
        for _ in range(14):
            keys = await poller.wait(5, max_keys=1)
            assert len(keys) == 1
            seen.append(keys[0].object)
        assert set(seen) == {near for near, _ in pairs} | {reading for reading, _ in pipes}
    for near, far in pairs:
        near.abort()
        far.abort()


@scenario
async def test_waiting_for_what_is_always_ready_lets_others_work() -> None:
    steps: list[int] = []

    async def other() -> None:
        for step in range(5):
            steps.append(step)
            await asyncio.sleep(0)

    ready = Counted()
    with Poller() as poller:
        poller.register(ready)
        ready.become_readable()
        task = asyncio.ensure_future(other())
        for _ in range(10):
            await poller.wait()
        assert steps == [0, 1, 2, 3, 4]
        await task


# --- the calls


@scenario
async def test_a_task_that_waits_learns_of_new_registrations() -> None:
    near, far = memory_pair()
    with pipe() as (reading, writing), Poller() as poller:
        far.send(b"x")
        os.write(writing, b"x")
        for each in (near, reading):
            waiting = asyncio.ensure_future(poller.wait(5))
            await asyncio.sleep(0.001)
            poller.register(each)
            assert await waiting == [(each, Events.READABLE, None)]
            poller.unregister(each)
            assert each not in poller
    near.abort()
    far.abort()


@scenario
async def test_a_cancelled_wait_loses_nothing() -> None:
    near, far = memory_pair()
    with Poller() as poller:
        poller.register(near)
        for turns in range(4):
            waiting = asyncio.ensure_future(poller.wait())
            for _ in range(turns):
                await asyncio.sleep(0)
            far.send(b"x")
            waiting.cancel()
            await asyncio.wait([waiting])
            assert await poller.wait(5) == [(near, Events.READABLE, None)]
            await near.recv()
    near.abort()
    far.abort()


@scenario
async def test_one_task_waits_at_a_time() -> None:
    with Poller() as poller:
        waiting = asyncio.ensure_future(poller.wait())
        await asyncio.sleep(0)
        with pytest.raises(BusyError):
            await poller.wait()
        waiting.cancel()
        await asyncio.wait([waiting])
        assert await poller.wait(0.001) == []


@scenario
async def test_closing_the_poller_ends_the_wait_and_leaves_objects_open() -> None:
    near, far = memory_pair()
    poller = Poller()
    poller.register(near)
    waiting = asyncio.ensure_future(poller.wait())
    await asyncio.sleep(0)
    poller.close()
    poller.close()
    with pytest.raises(ClosedError):
        await waiting
    with pytest.raises(ClosedError):
        await poller.wait()
    with pytest.raises(ClosedError):
        poller.register(near)
    assert len(poller) == 0
    far.send(b"x")
    assert await near.recv() == b"x"
    near.abort()
    far.abort()


@scenario
async def test_nonsense_is_refused() -> None:
    near, far = memory_pair()
    with pipe() as (reading, writing), Poller() as poller:
        poller.register(near)
        poller.register(reading)
        with os.fdopen(os.dup(reading)) as file:
            poller.register(file)
        for target, text in [
            (near, "registered already"),
            (reading, "registered already"),
            (file, "registered already"),
            (-1, "is not open"),
            (1 << 20, "is not open"),
            ("stdin", "cannot be watched"),
        ]:
            with pytest.raises(ConfigurationError, match=text):
                poller.register(target)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="no longer open"):
            poller.modify(file, Events.WRITABLE)
        with pytest.raises(ConfigurationError, match="not registered"):
            poller.modify(writing, Events.WRITABLE)
        with pytest.raises(ConfigurationError, match=r"portico\.Events"):
            poller.register(writing, 1)  # type: ignore[arg-type]
        for timeout in (-1, float("nan")):
            with pytest.raises(ConfigurationError, match="timeout"):
                await poller.wait(timeout)
        with pytest.raises(ConfigurationError, match="max_keys"):
            await poller.wait(max_keys=0)
    near.abort()
    far.abort()


@scenario
async def test_a_poller_that_nobody_holds_takes_its_watchers_along() -> None:
    near, far = memory_pair()
    poller = Poller()
    poller.register(near)
    gone = weakref.ref(near)
    near.abort()
    far.abort()
    await near.wait_closed()
    del poller, near, far
    gc.collect()
    assert gone() is None


def test_connections_of_another_loop_are_refused() -> None:
    async def make() -> Any:
        return memory_pair()

    with asyncio.Runner() as one, asyncio.Runner() as other:
        near, far = one.run(make())

        async def register() -> None:
            with Poller() as poller, pytest.raises(ConfigurationError, match="another event loop"):
                poller.register(near)

        other.run(register())

        async def end() -> None:
            near.abort()
            far.abort()

        one.run(end())


def test_outside_of_a_loop_there_is_no_poller() -> None:
    with pytest.raises(ConfigurationError, match=r"blocking\.select"):
        Poller()
