"""Random cancels, timeouts, sleeps and sizes on many connections; each checks its exact sequence."""

import asyncio
import os
import random

import pytest

from portico._core import driven

from .support import LOOPS, Net, Server, plain, run

SECONDS = float(os.environ.get("PORTICO_FUZZ_SECONDS", "1.5"))  # for each of the runs below
CONNECTIONS = 40


async def answering(channel):
    rng = random.Random(1)
    expected = 0
    async for message in channel:
        number, size = message.split(b" ")[:2]
        assert int(number) == expected
        expected += 1
        if expected % 17 == 0:
            await asyncio.sleep(0)
        if expected % 101 == 0:
            try:
                async with asyncio.timeout(rng.random() * 0.003):
                    await asyncio.sleep(rng.random() * 0.003)
            except TimeoutError:
                pass
        awaitable = channel.send(b"%d %s" % (int(number), b"r" * int(size)))
        if expected % 3:
            await awaitable


class Talk:
    """One client connection: what it asked for, and how much of it has come."""

    def __init__(self, channel, rng):
        self.channel, self.rng, self.sizes, self.received = channel, rng, [], 0

    async def read(self):
        while self.received < len(self.sizes):
            message = await self.channel.recv()
            number, _, rest = message.partition(b" ")
            assert int(number) == self.received and len(rest) == self.sizes[self.received]
            self.received += 1

    async def write(self):
        rng = self.rng
        for _ in range(rng.randrange(1, 40)):
            size = rng.choice((0, 3, 100, 100, 100, 5000, 9000, 60_000 if rng.random() < 0.1 else 1))
            self.sizes.append(size)
            await self.channel.send(b"%d %d" % (len(self.sizes) - 1, size) + b" " + b"q" * rng.choice((0, 10, 10_000)))

    async def disturbed_read(self, make):
        rng, choice = self.rng, self.rng.random()
        if choice < 0.3:
            task = asyncio.create_task(make(self.read()))
            await asyncio.sleep(rng.random() * 0.005)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled():
                task.result()
        elif choice < 0.6:
            try:
                if choice < 0.5:
                    async with asyncio.timeout(rng.random() * 0.005):
                        await self.read()
                else:
                    await asyncio.wait_for(self.read(), rng.random() * 0.005)
            except TimeoutError:
                pass
        else:
            await self.read()

    async def round(self):
        make = driven if self.rng.random() < 0.7 else plain
        writing = asyncio.create_task(make(self.write()))
        if self.rng.random() < 0.3:
            await asyncio.sleep(self.rng.random() * 0.002)
            writing.cancel()
        await self.disturbed_read(make)
        while not writing.done():  # who only writes waits for a peer that only writes
            await self.read()
            await asyncio.sleep(0)
        await asyncio.gather(writing, return_exceptions=True)


async def client(server, index, counts):
    rng = random.Random(index)
    loop = asyncio.get_running_loop()
    end = loop.time() + SECONDS
    while loop.time() < end:
        talk = Talk(await server.connect(), rng)
        stop = min(end, loop.time() + rng.random() * SECONDS)
        while loop.time() < stop:
            await talk.round()
        await asyncio.wait_for(talk.read(), 20)
        await talk.channel.close()
        counts.append(talk.received)


@pytest.mark.parametrize("wire", ["tcp", "loop", "memory", "tls-tcp"])
@pytest.mark.parametrize("loop", LOOPS)
def test_random_cancels_timeouts_and_sends(loop, wire):
    counts = []

    async def main():
        async with Server(Net(wire), answering) as server:
            make = (driven, plain)
            tasks = [asyncio.create_task(make[i % 2](client(server, i, counts))) for i in range(CONNECTIONS)]
            for task in tasks:
                await task

    run(loop, main, timeout=SECONDS + 60)
    assert len(counts) >= CONNECTIONS and sum(counts) > 100
