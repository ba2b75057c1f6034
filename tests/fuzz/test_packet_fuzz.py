"""Random packets into channels over sockets: only documented errors come of them, and the channel goes on."""

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import portico
from portico._core import hub_of
from portico.codecs import Codec, LengthPrefix, Lines, Message, Messages, Netstrings, Records
from portico.errors import MessageTooLarge, ProtocolError

CODECS: list[tuple[Codec[Any], Any]] = [
    (Records(), b"message"),
    (Records(text=True, max_size=300), "message"),
    (Lines(max_size=100), "message"),
    (Lines(text=False, separator=b"aab", max_size=100), b"message"),
    (LengthPrefix(1), b"message"),
    (LengthPrefix(2, byteorder="little", max_size=300), b"message"),
    (LengthPrefix(4), b"message"),
    (LengthPrefix(8), b"message"),
    (LengthPrefix("varint", max_size=300), b"message"),
    (Netstrings(max_size=300), b"message"),
    (Messages(300), Message({"a": 1})),
]
PLACES = ("udp://127.0.0.1:0", "unixpacket:{dir}/fuzz.sock", "unixgram:{dir}/fuzz.sock")
WIRES = ("epoll", "loop")
QUIET = list(HealthCheck)


@st.composite
def packets(draw: st.DrawFn, codec: Codec[Any], message: Any) -> list[bytes]:
    """Packets of random bytes, and of frames that were cut, joined or changed."""
    frame = codec.encode(message)
    whole = st.integers(0, 3).map(lambda count: frame * count)
    cut = st.tuples(whole, st.integers(0, 3 * len(frame))).map(lambda pair: pair[0][: pair[1]])
    changed = st.tuples(whole, st.integers(0, 80), st.binary(max_size=3)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
    )
    return draw(st.lists(st.one_of(st.binary(max_size=400), whole, cut, changed), max_size=8))


async def taken(channel: Any, last: Any, most: int = 4000) -> int:
    """Receive until `last` comes; return how many errors there were on the way. No other error may come."""
    errors = 0
    for _ in range(most):
        try:
            if await channel.recv() == last:
                return errors
        except (MessageTooLarge, ProtocolError):
            errors += 1
    raise AssertionError("the last message never came")


def last_of(message: Any) -> Any:
    """A message like `message` that no random packet holds."""
    if isinstance(message, Message):
        return Message({"the": "last one of all"})
    return message * 3 + message[:1] * 20


async def conversation(place: str, codec: Codec[Any], message: Any, sent: list[bytes]) -> None:
    arrived = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def handler(channel: Any) -> None:
        arrived.set_result(channel)
        await over.wait()

    last = last_of(message)
    async with portico.serve(handler, place, codec=codec) as server:
        kind = socket.SOCK_SEQPACKET if server.address.scheme == "unixpacket" else socket.SOCK_DGRAM
        with socket.socket(server.address.family, kind) as sock:  # type: ignore[arg-type]
            if server.address.scheme == "unixgram":
                sock.bind("")
            sock.connect(server.address.sockaddr)
            for data in sent:
                sock.send(data)
            sock.send(codec.encode(last))
            async with asyncio.timeout(5):
                channel = await arrived
                await taken(channel, last)
                assert channel.state is portico.State.OPEN
                for _ in range(2):  # it goes on, both ways
                    sock.send(codec.encode(last))
                    assert await channel.recv() == last
                    await channel.send(last)
                    await channel.flush()
                    assert sock.recv(4000) == codec.encode(last)
            channel.abort()
            over.set()
            assert server.stats.handler_errors == 0


def run(wire: str, main: Callable[[], Any]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        reported: list[Any] = []
        loop.set_exception_handler(lambda loop, context: reported.append(context))
        hub_of(loop).native_sockets = wire == "epoll"
        await main()
        assert not reported, reported

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(body())


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("codec", "message"), CODECS)
@settings(max_examples=12, deadline=None, suppress_health_check=QUIET)
@given(data=st.data())
def test_random_packets_cost_themselves_alone(
    codec: Codec[Any], message: Any, place: str, wire: str, data: st.DataObject, tmp_path_factory: Any
) -> None:
    sent = data.draw(packets(codec, message))
    directory: Path = tmp_path_factory.getbasetemp()
    run(wire, lambda: conversation(place.format(dir=directory), codec, message, sent))


def fits(sizes: list[int]) -> bool:
    """Whether the kernel's receive buffer holds them all: nothing makes a sender wait."""
    return sum(sizes) <= 66_000


@pytest.mark.parametrize("place", PLACES)
@settings(max_examples=25, deadline=None, suppress_health_check=QUIET)
@given(
    sizes=st.lists(st.integers(0, 3000) | st.sampled_from([0, 1, 9000, 65_000]), max_size=8).filter(fits),
    ways=st.lists(st.sampled_from(["go on", "flush", "await", "turn"]), min_size=1),
)
def test_random_packets_arrive_as_they_were_sent(
    place: str, sizes: list[int], ways: list[str], tmp_path_factory: Any
) -> None:
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]

    async def main() -> None:
        async def echo(channel: Any) -> None:
            async for packet in channel:
                channel.send(packet)

        limits = portico.Limits(read_buffer=1 << 20)  # beyond it packets are dropped
        async with portico.serve(echo, place.format(dir=tmp_path_factory.getbasetemp()), limits=limits) as server:
            async with portico.connect(server.address) as channel, asyncio.timeout(5):
                for number, packet in enumerate(sent):
                    way, room = ways[number % len(ways)], channel.send(packet)
                    if way == "flush":
                        channel.flush()
                    elif way == "await":
                        await room
                    elif way == "turn":
                        await asyncio.sleep(0)
                assert [await channel.recv() for _ in sent] == sent

    run("epoll", main)


@settings(max_examples=40, deadline=None, suppress_health_check=QUIET)
@given(sent=st.lists(st.binary(max_size=6), max_size=40))
def test_random_records_before_an_end_arrive_but_for_empty_ones_at_the_end(
    sent: list[bytes], tmp_path_factory: Any
) -> None:
    """An empty record reads as the end does (unix(7)): behind the last one with bytes they cannot be told apart."""
    wanted = list(sent)
    while wanted and not wanted[-1]:
        wanted.pop()

    async def main() -> None:
        got = asyncio.get_running_loop().create_future()

        async def handler(channel: Any) -> None:
            got.set_result([each async for each in channel])

        async with portico.serve(handler, f"unixpacket:{tmp_path_factory.getbasetemp()}/fuzz.sock") as server:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.connect(server.address.sockaddr)
                for record in sent:
                    sock.send(record)
            async with asyncio.timeout(5):
                received = await got
            assert received[: len(wanted)] == wanted and not any(received[len(wanted) :])

    for wire in WIRES:
        run(wire, main)
