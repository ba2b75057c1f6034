"""Input cut at every place, and random conversations."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import portico

from .codecs import FRAMINGS
from .support import contract, rest_of, run, spawn, turns
from .transports import SOME, cases


@contract(SOME, framing=FRAMINGS)
async def test_messages_cut_at_every_place_arrive_whole(net, framing):
    """In each round all messages come in two pieces, cut one byte later than in the round before."""
    async with net.pair(framing.codec(), near_codec=None) as (near, far):
        messages = [framing.message(i, size) for i, size in enumerate((3, 2, 12))]
        codec = framing.codec()
        frames = b"".join(codec.encode(message) for message in messages)
        for cut in range(1, len(frames)):
            near.send(frames[:cut])
            receiving = spawn(far.recv())
            await near.flush()
            await turns(1)
            near.send(frames[cut:])
            assert [await receiving, await far.recv(), await far.recv()] == messages


@contract(SOME, framing=FRAMINGS)
async def test_messages_that_come_byte_by_byte_arrive_whole(net, framing):
    async with net.pair(framing.codec(), near_codec=None) as (near, far):
        messages = [framing.message(i, size) for i, size in enumerate((3, 2, 12))]
        codec = framing.codec()
        for byte in b"".join(codec.encode(message) for message in messages):
            near.send(bytes([byte]))
            near.flush()
            await turns(1)
        near.send_eof()
        assert [message async for message in far] == messages


@contract(SOME)
async def test_a_separator_cut_at_every_place_is_found(net):
    async with net.pair() as (near, far):
        text = b"--boundary of many bytes--"
        for cut in range(len(text)):
            near.send(b"head" + text[:cut])
            receiving = spawn(far.recv_until(text))
            await near.flush()
            await turns(2)
            near.send(text[cut:] + b"tail")
            assert await receiving == b"head"
            assert await far.recv_exactly(4) == b"tail"


SIZES = st.one_of(st.integers(0, 40), st.sampled_from([8191, 8192, 8193, 65_537, 200_000]))
WAYS = st.sampled_from(["go on", "flush", "await", "turn", "bytearray"])
STEPS = st.lists(st.tuples(st.booleans(), SIZES, WAYS), max_size=30)


async def act(end, steps):
    """Send pieces of the given sizes; return what was sent."""
    sent = bytearray()
    for number, (size, then) in enumerate(steps):
        data = bytes([number % 251]) * size
        sent += data
        awaitable = end.send(bytearray(data) if then == "bytearray" else data)
        if then == "flush":
            end.flush()
        elif then == "await":
            await awaitable
        elif then == "turn":
            await turns(1)
    end.send_eof()
    return bytes(sent)


async def take(end, seed):
    """Receive by changing means until the end; return what came."""
    got = bytearray()
    while True:
        seed = (seed * 1103515245 + 12345) % 2**31
        try:
            if seed % 3 == 0:
                got += await end.recv_exactly(seed // 3 % 5000)
            elif seed % 3 == 1:
                data = await end.recv(seed // 3 % 9000 + 1)
                if not data:
                    return bytes(got)
                got += data
            else:
                got += await end.recv_until(b"\x07", 1 << 22) + b"\x07"
        except portico.EndOfStream:
            return bytes(got) + await rest_of(end)


@pytest.mark.parametrize("case", cases(SOME), ids=str)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, seed=st.integers(0, 2**31))
def test_random_conversations_arrive_as_they_were_sent(case, steps, seed):
    async def main(net):
        async with net.pair(idle_timeout=5) as (near, far):
            ours = [(size, then) for mine, size, then in steps if mine]
            theirs = [(size, then) for mine, size, then in steps if not mine]
            sent, answered, got, answers = await asyncio.gather(
                act(near, ours), act(far, theirs), take(far, seed), take(near, seed + 1)
            )
            assert got == sent and answers == answered

    run(case, main)


@pytest.mark.parametrize("case", cases(SOME), ids=str)
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    framing=st.sampled_from(FRAMINGS),
    sizes=st.lists(st.integers(3, 250), max_size=20),
    cuts=st.lists(st.integers(1, 300), min_size=1, max_size=20),
)
def test_random_messages_in_random_pieces_arrive_as_they_were_sent(case, framing, sizes, cuts):
    async def main(net):
        async with net.pair(framing.codec(), near_codec=None) as (near, far):
            messages = [framing.message(i, size) for i, size in enumerate(sizes)]
            codec, got = framing.codec(), []

            async def receive():
                async for batch in far.batches():
                    got.extend(batch)

            receiving = spawn(receive())
            rest = b"".join(codec.encode(message) for message in messages)
            for number in range(len(rest)):
                if not rest:
                    break
                cut = cuts[number % len(cuts)]
                near.send(rest[:cut])
                rest = rest[cut:]
                await near.flush()
                await turns(number % 3)
            near.send_eof()
            await receiving
            assert got == messages

    run(case, main)
