"""The promises where packets are kept apart: what is broken costs its packet, what finds no room is counted."""

import asyncio
import contextlib
import errno
import socket

import pytest

import portico

from .codecs import FRAMINGS
from .support import MAKERS, contract, settled, spawn, turns, until
from .transports import LOSSLESS, LOSSY, PACKETS, TRANSPORTS, WHOLE

LINES = portico.Lines(text=False)
UDP = [name for name in PACKETS if TRANSPORTS[name].scheme == "udp"]
PREFIXED = [each for each in FRAMINGS if not each.name.startswith("lines")]
"""Those that can tell a message that was cut short."""


async def failing(channel):
    """Receive what must be an error; return it."""
    with pytest.raises((portico.ProtocolError, portico.MessageTooLarge)) as caught:
        await channel.recv()
    return caught.value


# Messages and packets.


@contract(PACKETS, framing=FRAMINGS)
async def test_several_messages_of_a_packet_arrive_one_by_one(net, framing):
    async with net.pair(framing.codec(), near_codec=None) as (near, far):
        messages = [framing.message(i, size) for i, size in enumerate((4, 60, 20))]
        codec = framing.codec()
        frames = [codec.encode(message) for message in messages]
        for count in (1, 2, 3):
            near.send(b"".join(frames[:count]))
            assert [await far.recv() for _ in range(count)] == messages[:count]


@contract(PACKETS, framing=PREFIXED)
async def test_a_packet_cut_at_every_place_costs_that_packet_alone(net, framing):
    async with net.pair(framing.codec(), near_codec=None) as (near, far):
        messages = [framing.message(i, size) for i, size in enumerate((3, 2, 12))]
        codec = framing.codec()
        frames = [codec.encode(message) for message in messages]
        whole, ends = b"".join(frames), [sum(map(len, frames[:count])) for count in range(4)]
        for cut in range(1, len(whole)):
            near.send(whole[:cut])
            near.send(whole)
            for message in messages[: sum(end <= cut for end in ends) - 1]:
                assert await far.recv() == message
            if cut not in ends:
                assert isinstance(await failing(far), portico.ProtocolError)
            assert [await far.recv() for _ in messages] == messages


@contract(PACKETS, framing=FRAMINGS[:2])
async def test_the_end_of_a_packet_ends_a_line(net, framing):
    async with net.pair(framing.codec(40), near_codec=None) as (near, far):
        codec, line = framing.codec(), framing.message(0)
        frame = codec.encode(line)
        near.send(frame + frame.removesuffix(codec.separator))
        near.send(codec.encode(line)[:-2])
        assert [await far.recv(), await far.recv()] == [line, line]
        assert await far.recv() == line[: len(frame) - 2]
        near.send(b"x" * 41)
        assert (await failing(far)).limit == 40
        near.send(frame)
        assert await far.recv() == line


@contract(PACKETS, framing=FRAMINGS)
async def test_garbage_costs_its_packet_alone(net, framing):
    async with net.pair(framing.codec(200), near_codec=None) as (near, far):
        frame = framing.codec().encode(framing.message(1))
        for garbage in (b"\xff" * 30, b"\xff" * 3, b"\0" * 7, b"?", b"9" * 100):
            near.send(garbage)
            near.send(frame)
            for _ in range(200):
                with contextlib.suppress(portico.ProtocolError, portico.MessageTooLarge):
                    if await far.recv() == framing.message(1):
                        break
            else:
                raise AssertionError("the message behind it was lost")
        assert far.state is portico.State.OPEN
        await far.send(framing.message(2))
        assert await near.recv() == framing.codec().encode(framing.message(2))


@contract(WHOLE)
async def test_empty_packets_are_messages_of_a_channel_without_codec(net):
    async with net.pair() as (near, far):
        for one, other in ((near, far), (far, near)):
            for packet in (b"", b"a", b"", b"", b"b"):
                await one.send(packet)
            assert [await other.recv() for _ in range(5)] == [b"", b"a", b"", b"", b"b"]


@contract(["unixpacket"])
async def test_empty_records_before_the_end_are_not_the_end(net):
    async with net.pair() as (near, far):
        for record in (b"one", b"", b"two", b"", b"", b"three"):
            near.send(record)
        near.send_eof()
        assert [each async for each in far] == [b"one", b"", b"two", b"", b"", b"three"]


@contract(WHOLE, make=MAKERS)
async def test_a_timeout_around_every_receiver_of_a_channel_loses_nothing(net, make):
    async with net.pair() as (near, far):

        async def impatient(operation):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.002):
                    await operation()

        for operation in (far.recv, far.__anext__, far.batches().__anext__):
            await spawn(impatient(operation), MAKERS[make])
            near.send(b"abc")
            assert await far.recv() == b"abc"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(far.recv(), 0.002)
        near.send(b"end")
        assert await far.recv() == b"end"


# Sizes.


@contract(PACKETS)
async def test_a_packet_that_is_too_large_for_the_transport_is_refused_alone(net):
    async with net.pair() as (near, far):
        for one, other in ((near, far), (far, near)):
            most = one.wire.max_record
            if not most:
                continue
            with pytest.raises(portico.MessageTooLarge) as caught:
                one.send(b"x" * (most + 1))
            assert (caught.value.size, caught.value.limit) == (most + 1, most)
            await one.send(b"small")
            assert await other.recv() == b"small"
        if not near.wire.max_record:  # where only the kernel knows, it tells when it is asked
            near.send(b"before")
            near.send(b"x" * 900_000)
            near.send(b"behind")
            await near.flush()
            with pytest.raises(portico.MessageTooLarge) as caught:
                await near.recv()
            assert caught.value.size == 900_000
            assert [await far.recv(), await far.recv()] == [b"before", b"behind"]


@contract(UDP)
async def test_the_largest_packet_arrives_whole(net):
    async with net.pair() as (near, far):
        most = near.wire.max_record
        for one, other in ((near, far), (far, near)):
            await one.send(b"x" * most)
            assert len(await other.recv()) == most


@contract(["unixpacket", "unixgram"], wires=["epoll"])
async def test_a_packet_that_is_larger_than_the_buffer_says_that_its_rest_is_lost(net):
    async with net.pair() as (near, far):
        near.options["send_buffer_force"] = 2_000_000
        near.send(b"x" * 300_000)
        near.send(b"next")
        with pytest.raises(portico.MessageTooLarge, match="rest") as caught:
            await far.recv()
        assert caught.value.size == 300_000
        assert await far.recv() == b"next"


# Room.


@contract(LOSSY)
async def test_what_finds_no_room_is_dropped_and_counted(net):
    """Nobody receives at a server: memory stays bounded, and each packet is received or counted."""
    sent, limits = 400, portico.Limits(read_buffer=10_000)
    servers = []
    serve = net.serve

    @contextlib.asynccontextmanager
    async def remembered(*arguments, **settings):
        async with serve(*arguments, **settings) as server:
            servers.append(server)
            yield server

    net.serve = remembered
    async with net.pair(limits=limits) as (near, far):
        for number in range(sent):
            near.send(b"%d" % number + b"x" * 1000)
            await turns(2)
        await near.flush()
        await settled(lambda: servers[0].stats.packets_dropped)
        assert far.queued[0] < 13_000
        got = []
        while far.queued[0]:
            got.append(int((await far.recv()).rstrip(b"x")))
        assert got == list(range(len(got))) and 5 < len(got) < 15
        assert len(got) + servers[0].stats.packets_dropped == sent
        near.send(b"heard again")
        assert await far.recv() == b"heard again"


@contract(UDP)
async def test_a_burst_past_the_read_buffer_is_not_lost_on_a_receiver_that_waits(net):
    """All of it is read in one turn, before the receiver could take any."""
    async with net.pair(limits=portico.Limits(read_buffer=16_000)) as (near, far):
        for make in MAKERS.values():

            async def receive():
                return [await far.recv() for _ in range(40)]

            receiving = spawn(receive(), make)
            await turns(5)
            for number in range(40):
                near.send(bytes([number]) * 1400)
            assert await receiving == [bytes([number]) * 1400 for number in range(40)]


@contract(LOSSLESS)
async def test_nothing_is_dropped_where_the_transport_can_make_the_sender_wait(net):
    async with net.pair(limits=portico.Limits(read_buffer=10_000)) as (near, far):
        for number in range(2000):
            near.send(b"%d" % number + b"x" * 6000)
        sending = spawn(near.flush())
        await settled(lambda: near.queued[1])
        assert not sending.done() and far.queued[0] < 500_000
        assert [int((await far.recv()).rstrip(b"x")) for _ in range(2000)] == list(range(2000))
        await sending


# Whom nobody hears.


@contract(UDP, make=MAKERS)
async def test_a_receiver_hears_at_once_that_nobody_listens_and_the_channel_goes_on(net, make):
    async with net.pair() as (near, _):
        address = near.remote_address
    near = await portico.connect(address)
    try:
        receiving = spawn(near.recv(), MAKERS[make])
        await turns(5)
        near.send(b"is anybody there?")
        with pytest.raises(portico.DeliveryError) as caught:
            await receiving
        assert caught.value.errno == errno.ECONNREFUSED
        if net.native:
            assert (caught.value.address, caught.value.data) == (address, b"is anybody there?")
        assert near.state is portico.State.OPEN
        await hears_an_answer(near, address)
    finally:
        near.abort()


@contract(UDP)
async def test_where_nobody_receives_the_next_call_tells_once_that_nobody_listens(net):
    async with net.pair() as (near, _):
        address = near.remote_address
    near = await portico.connect(address)
    try:
        for call in (near.recv, lambda: near.send(b"next"), near.__anext__, near.batches().__anext__):
            await near.send(b"is anybody there?")
            await until(lambda: near.readiness[0])
            for _ in range(2):
                near.flush()
                await turns()
            with pytest.raises(portico.DeliveryError):
                await call()
            await near.flush()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(near.recv(), 0.02)
        await hears_an_answer(near, address)
    finally:
        near.abort()


async def hears_an_answer(near, address):
    """Have somebody listen at `address` after all."""

    async def echo(channel):
        await channel.send(await channel.recv())

    async with portico.serve(echo, address):
        await near.send(b"now?")
        assert await near.recv() == b"now?"


@contract(["unixgram"])
async def test_a_unix_server_that_is_gone_is_a_loss(net):
    """The kernel forgets whom the socket was connected to."""
    async with net.pair() as (near, far):
        other = await portico.connect(near.remote_address)
        await other.send(b"x")
        far.abort()
        near.abort()
    receiving = spawn(other.recv())
    await turns()
    other.send(b"to nobody")
    with pytest.raises(portico.ClosedError) as caught:
        await receiving
    assert isinstance(caught.value.__cause__, ConnectionRefusedError) and not caught.value.clean
    with pytest.raises(portico.ClosedError):
        other.send(b"x")
    assert other.state is portico.State.CLOSED


# Plain sockets at the other end.


@contextlib.asynccontextmanager
async def plain_client(net, codec=None):
    """Give a plain socket and the server's end of its connection, which an empty packet has begun if need be."""
    arrived, over = asyncio.get_running_loop().create_future(), asyncio.Event()

    async def handler(channel):
        arrived.set_result(channel)
        await over.wait()

    kind = socket.SOCK_SEQPACKET if net.transport.scheme == "unixpacket" else socket.SOCK_DGRAM
    async with net.serve(handler, codec) as server:
        with socket.socket(server.address.family, kind) as sock:
            if net.transport.scheme == "unixgram":
                sock.bind("")
            sock.connect(server.address.sockaddr)
            sock.settimeout(1)
            if not net.transport.tells_start:
                sock.send(b"")
            far = await arrived
            try:
                yield sock, far
            finally:
                over.set()
                far.abort()


@contract(PACKETS, framing=FRAMINGS)
async def test_each_message_is_a_packet_of_the_codecs_bytes(net, framing):
    async with plain_client(net, framing.codec()) as (sock, far):
        codec, messages = framing.codec(), [framing.message(i) for i in range(5)]
        for message in messages:
            far.send(message)
        await far.flush()
        assert [sock.recv(1000) for _ in messages] == [codec.encode(message) for message in messages]
        for message in messages:
            sock.send(codec.encode(message))
        assert [await far.recv() for _ in messages] == messages


@contract(PACKETS)
async def test_a_peer_of_a_server_is_flushed_at_once_too(net):
    async with plain_client(net, LINES) as (sock, far):
        await turns(5)
        sock.setblocking(False)
        far.send(b"later")
        with pytest.raises(BlockingIOError):
            sock.recv(100)
        flushed = far.flush()
        assert sock.recv(100) == b"later\n"
        await flushed


@contract(["unixpacket"])
async def test_a_peer_that_is_gone_for_good_is_noticed_by_sending(net):
    async with plain_client(net) as (sock, far):
        sock.send(b"last words")
        sock.close()
        far.send(b"x" * 1000)
        far.flush()
        assert await far.recv() == b"last words"
        with pytest.raises(portico.ClosedError) as caught:
            while True:
                await far.send(b"x" * 1000)
                await turns()
        assert isinstance(caught.value.__cause__, BrokenPipeError)


@contract(["unixpacket"])
async def test_a_peer_that_went_with_messages_unread(net):
    async with plain_client(net) as (sock, far):
        await far.send(b"never read")
        sock.send(b"last words")
        sock.close()
        assert await far.recv() == b"last words"
        with pytest.raises((portico.EndOfStream, portico.ClosedError)):
            await far.recv()
        with pytest.raises(portico.ClosedError):
            while True:
                await far.send(b"x")
                await turns()


@contract(["unixpacket"])
async def test_close_waits_for_the_end_of_a_plain_peer(net):
    async with plain_client(net) as (sock, far):
        far.send(b"bye")
        closing = spawn(far.close())
        await turns(5)
        assert sock.recv(100) == b"bye" and sock.recv(100) == b""
        assert not closing.done()
        sock.close()
        await closing


# Without a peer.


@contract(UDP, wires=["epoll"])
async def test_disconnected_it_hears_and_reaches_everybody(net):
    async with net.pair() as (near, far):
        near.send(b"before")
        assert await far.recv() == b"before"
        name = near.local_address
        packets = near.disconnect()
        assert near.state is not portico.State.OPEN
        with pytest.raises(portico.ClosedError):
            near.send(b"x")
        assert packets.local_address.port == name.port
        async with portico.datagrams(str(name.with_port(0))) as stranger:
            await stranger.send(b"hello", to=name)
            packet = await packets.recv()
            assert packet.data == b"hello" and packet.address == stranger.local_address
            await packets.send(b"answer", to=packet)
            assert (await stranger.recv()).data == b"answer"
        await packets.send(b"to the server, too", to=far.local_address)
        assert await far.recv() == b"to the server, too"
        with pytest.raises(portico.DeliveryError):
            await packets.send(b"to whom?")
            await packets.flush()
            await packets.send(b"to whom?")
        await packets.close()


@contract(["unixpacket", "unixgram", *UDP])
async def test_what_cannot_be_disconnected_says_so(net):
    async with net.pair() as (near, far):
        with pytest.raises(portico.UnsupportedError, match="default peer"):
            far.disconnect()
        if net.transport.scheme != "udp":
            with pytest.raises(portico.UnsupportedError, match="default peer"):
                near.disconnect()
