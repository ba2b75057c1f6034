"""Promise 10 is checked after every test by the runner: here, that the runner sees what it should."""

import asyncio
import logging
import os
import threading

import pytest

import portico

from .support import contract, run, spawn
from .transports import EVERY, cases

CASE = cases(["mem"], ["asyncio"])[0]


def test_the_runner_sees_whatever_is_left():
    ends = threading.Event()
    thread = threading.Thread(target=ends.wait)
    opened = []

    async def task(net):
        net.forgotten = spawn(asyncio.Event().wait())

    async def descriptor(net):
        opened.extend(os.pipe())

    async def logs(net):
        logging.getLogger("portico.server").warning("something")

    async def reports(net):
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    async def failing_handler(net):
        async def handler(stream):
            raise KeyError("not expected")

        async with net.serve(handler) as server:
            client = await net.connect(server)
            assert await client.recv() == b""
            await client.close()

    async def starts_thread(net):
        thread.start()

    for main, message in (
        (task, "tasks left"),
        (descriptor, "descriptors left"),
        (logs, "logged"),
        (reports, "reported"),
        (failing_handler, "handler errors: 1"),
        (starts_thread, "threads left"),
    ):
        with pytest.raises(AssertionError, match=message):
            run(CASE, main)
    ends.set()
    thread.join()
    for fd in opened:
        os.close(fd)


@contract(EVERY)
async def test_a_clean_life_leaves_nothing(net):
    """Many connections, with everything that makes an object: sockets, channels, queues, a connection unread."""

    async def echo(channel):
        async for message in channel:
            await channel.send(message)

    limits = portico.Limits(idle_timeout=None if net.transport.tells_end else 0.2)  # a handler has to end somehow
    async with net.serve(echo, portico.Lines(), limits=limits) as server:
        clients = [await net.connect(server, portico.Lines()) for _ in range(5)]
        for number, client in enumerate(clients):
            client.send(f"from {number}")
        for number, client in enumerate(clients[:-1]):
            assert await client.recv() == f"from {number}"
        for client in clients:
            assert "open" in repr(client) and client.info() and client.local_address
            client.close()
        await asyncio.gather(*(spawn(client.wait_closed()) for client in clients))
        assert server.stats.accepted == 5


@contract(EVERY, loops=["asyncio"])
async def test_nothing_is_left_where_the_loop_is_in_debug_mode(net):
    asyncio.get_running_loop().set_debug(True)
    asyncio.get_running_loop().slow_callback_duration = 10
    async with net.pair(portico.Lines()) as (near, far):
        await near.send("hello")
        assert await far.recv() == "hello"
        await far.send("x" * 50_000)
        assert len(await near.recv()) == 50_000
