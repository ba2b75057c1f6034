import asyncio
import contextlib
import os
import socket
import tempfile

import pytest
from poller_kit import BOTH, pipe, scenario

from portico import Events, Poller
from portico.errors import UnsupportedError
from portico.transports import descriptors as sets


@scenario
async def test_a_pipe_and_a_socket_are_watched_for_both_ways() -> None:
    ours, theirs = socket.socketpair()
    with pipe() as (reading, writing), ours, theirs, Poller() as poller:
        poller.register(reading, data="pipe")
        poller.register(ours, BOTH, "socket")
        assert await poller.wait(5) == [(ours, Events.WRITABLE, "socket")]
        os.write(writing, b"x")
        theirs.send(b"x")
        async with asyncio.timeout(5):
            while len(keys := await poller.wait()) < 2 or BOTH not in {key.events for key in keys}:
                pass
        assert set(keys) == {(reading, Events.READABLE, "pipe"), (ours, BOTH, "socket")}
        os.read(reading, 1)
        ours.recv(1)
        poller.modify(ours, Events.READABLE)
        assert await poller.wait(0) == []
        theirs.send(b"y")
        assert await poller.wait(5) == [(ours, Events.READABLE, "socket")]


@scenario
async def test_nothing_turns_the_loop_while_nobody_waits() -> None:
    with pipe() as (reading, writing), Poller() as poller:
        poller.register(reading)
        assert await poller.wait(0.01) == []
        os.write(writing, b"x")
        woken = 0
        real = poller._wake

        def wake() -> None:
            nonlocal woken
            woken += 1
            real()

        poller._files._wake = wake  # type: ignore[attr-defined]
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert woken <= 1
        assert await poller.wait(5) == [(reading, Events.READABLE, None)]


@scenario
async def test_the_writers_end_of_a_pipe_is_told() -> None:
    with pipe() as (reading, writing), Poller() as poller:
        poller.register(reading)
        waiting = asyncio.ensure_future(poller.wait(5))
        await asyncio.sleep(0)
        os.close(writing)
        assert await waiting == [(reading, Events.READABLE | Events.CLOSED, None)]


@scenario
async def test_the_readers_end_of_a_pipe_is_an_error() -> None:
    with pipe() as (reading, writing), Poller() as poller:
        poller.register(writing, Events.WRITABLE)
        os.close(reading)
        assert await poller.wait(5) == [(writing, Events.WRITABLE | Events.ERROR, None)]


@scenario
async def test_a_regular_file_is_always_ready() -> None:
    with tempfile.TemporaryFile() as file, Poller() as poller:
        poller.register(file, BOTH)
        for _ in range(2):
            assert await poller.wait() == [(file, BOTH, None)]
        poller.modify(file, Events.READABLE)
        assert await poller.wait() == [(file, Events.READABLE, None)]
        poller.unregister(file)
        assert await poller.wait(0) == []


@scenario
async def test_a_descriptor_that_was_closed_is_told_once() -> None:
    for end in ("before", "during"):
        with pipe() as (reading, _), Poller() as poller:
            poller.register(reading, data="gone")
            if end == "before":
                os.close(reading)
            waiting = asyncio.ensure_future(poller.wait(5))
            await asyncio.sleep(0.01)
            if end == "during":
                os.close(reading)
            assert await waiting == [(reading, Events.CLOSED | Events.INVALID, "gone")]
            assert len(poller) == 0
            assert await poller.wait(0) == []
            poller.unregister(reading)


@scenario
async def test_a_closed_socket_whose_duplicate_is_ready_is_told_once_and_its_number_can_be_used_again() -> None:
    ours, theirs = socket.socketpair()
    with theirs, ours.dup(), Poller() as poller:
        with contextlib.closing(ours.dup()) as duplicate:
            poller.register(ours)
            await poller.wait(0.01)
            number = ours.fileno()
            ours.close()
            theirs.send(b"x")  # the file lives on in the duplicate, and is ready
            assert await poller.wait(5) == [(ours, Events.CLOSED | Events.INVALID, None)]
            assert await poller.wait(0.05) == []
            with pipe() as (reading, writing):
                if reading != number:
                    os.dup2(reading, number)
                poller.register(number)
                assert await poller.wait(0.05) == []
                os.write(writing, b"y")
                assert await poller.wait(5) == [(number, Events.READABLE, None)]
                poller.unregister(number)
                if reading != number:
                    os.close(number)
            assert duplicate.recv(1) == b"x"


@scenario
async def test_unregistering_a_closed_descriptor_ends_its_reports() -> None:
    ours, theirs = socket.socketpair()
    with theirs, contextlib.closing(ours.dup()), pipe() as (reading, _), Poller() as poller:
        poller.register(reading)
        poller.register(ours)
        await poller.wait(0.01)
        ours.close()
        poller.unregister(ours)
        theirs.send(b"x")
        assert await poller.wait(0.05) == []


def test_a_loop_that_watches_no_descriptors_says_so() -> None:
    class Proactor:
        def add_reader(self, *_: object) -> None:
            raise NotImplementedError

    with pytest.raises(UnsupportedError, match="SelectorEventLoop"):
        sets.LoopSet(Proactor(), lambda: None).add(0, Events.READABLE)  # type: ignore[arg-type]
