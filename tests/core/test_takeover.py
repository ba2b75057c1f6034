"""A wire changes hands: from bytes to messages, and from plain to TLS, with what came already."""

import asyncio
import ssl

import pytest

from portico._core import ChannelBase, Settings, driven
from portico.errors import BusyError, ClosedError, EndOfStream

from .support import (
    ALL,
    BYTES,
    PLAIN,
    Fed,
    client_tls,
    connection,
    echo,
    plain,
    received,
    scenario,
    server_tls,
    turns,
    until,
)


def channel_on(stream, **limits):
    return ChannelBase(stream.wire, BYTES, Settings(**limits), predecessor=stream)


@scenario(wires=ALL)
async def test_a_stream_becomes_a_channel_with_what_it_had_read(net):
    near, far = await net.pair()
    client, stream = connection(near, None), connection(far, None)
    client.send(b"hello 3\none\ntwo\nthr")
    assert await stream.recv_until(b" ") == b"hello"
    count = int(await stream.recv_until(b"\n"))
    channel = channel_on(stream)
    got = [await channel.recv() for _ in range(count - 1)]
    client.send(b"ee\n")
    got.append(await channel.recv())
    assert got == [b"one", b"two", b"three"]
    channel.send(b"bye")
    assert await client.recv_exactly(4) == b"bye\n"
    await asyncio.gather(client.close(), channel.close())


@scenario(loops=("asyncio",))
async def test_taken_over_at_every_place():
    data = b"first line\n" + b"a\n" * 5 + b"tail"
    for place in range(len(data) + 1):
        for ended in (False, True):
            fed = Fed(None)
            fed.feed(data[:place])
            if ended:
                fed.feed(data[place:])
                fed.end()
            first = await fed.connection.recv(3) if place else b""
            channel = channel_on(fed.connection)
            if not ended:
                fed.feed(data[place:])
                fed.end()
            got = [first]
            with pytest.raises(EndOfStream) as caught:
                async for message in channel:
                    got += [message, b"\n"]
            assert b"".join(got) + caught.value.partial == data
            fed.lose()


@scenario(wires=ALL)
async def test_the_peers_end_is_handed_on(net):
    near, far = await net.pair()
    client, stream = connection(near, None), connection(far, None)
    client.send(b"a\nb\n")
    client.send_eof()
    await until(lambda: not stream.flags[0])
    channel = channel_on(stream)
    assert [message async for message in channel] == [b"a", b"b"]
    channel.send(b"answer")
    assert await client.recv_until(b"\n") == b"answer"
    await asyncio.gather(client.close(), channel.close())


@scenario(wires=("tcp", "loop", "memory", "tls-tcp"))
async def test_what_was_sent_before_goes_first_and_our_end_last(net):
    near, far = await net.pair()
    client, stream = connection(near, None), connection(far, None)
    stream.send(b"before ")
    stream.send_eof()
    channel = channel_on(stream)
    with pytest.raises(ClosedError):
        channel.send(b"x")
    assert await client.recv_exactly(7) == b"before " and await client.recv() == b""
    client.send(b"more\n")
    assert await channel.recv() == b"more"
    await asyncio.gather(client.close(), channel.close())


@scenario(wires=ALL)
async def test_the_object_that_handed_on_is_only_a_pointer(net):
    near, far = await net.pair()
    client, stream = connection(near, None), connection(far, None)
    told = []
    stream.owner = told.append

    async def over():
        await stream.wait_closed()
        return stream

    waiting = [asyncio.create_task(make(over())) for make in (driven, plain)]
    await turns()
    channel = channel_on(stream)
    assert stream.successor is channel
    for call in (stream.recv, lambda: stream.recv_exactly(1), lambda: anext(stream)):
        with pytest.raises(ClosedError, match="handed"):
            await call()
    with pytest.raises(ClosedError, match="handed"):
        stream.send(b"x")
    with pytest.raises(ClosedError, match="handed"):
        channel_on(stream)
    assert stream.flags == channel.flags == (True, True, False, False)
    client.send(b"x\n")
    assert await channel.recv() == b"x"
    stream.send_eof()
    assert await client.recv() == b""
    client.close()
    await stream.close()
    assert await asyncio.gather(*waiting) == [stream, stream]
    assert told == [channel]


@scenario(wires=("tcp", "memory"))
async def test_a_busy_stream_is_not_taken_over(net):
    near, far = await net.pair()
    client, stream = connection(near, None), connection(far, None, idle_timeout=10)
    task = asyncio.create_task(driven(received(stream)))
    await turns()
    with pytest.raises(BusyError):
        ChannelBase(stream.wire, BYTES, Settings(idle_timeout=0.05), predecessor=stream)
    await asyncio.sleep(0.1)  # what was not made has no deadline
    client.send(b"x")
    assert await task == b"x"
    await asyncio.gather(client.close(), stream.close())


@scenario(wires=ALL)
async def test_more_than_the_limits_is_taken_over_at_once(net):
    near, far = await net.pair()
    client, stream = connection(near, None), connection(far, None, read_limit=1 << 22)
    client.send(b"0123456789abcde\n" * 50_000)
    await until(lambda: stream.queued[0] >= 800_000)
    channel = channel_on(stream, read_limit=1000, idle_timeout=5)
    for _ in range(50_000):
        assert await channel.recv() == b"0123456789abcde"
    client.send(b"more\n")
    assert await channel.recv() == b"more"
    await asyncio.gather(client.close(), channel.close())


# --- TLS on the way -------------------------------------------------------------------------------------


def secured(stream, **kind):
    """Start TLS under `stream`; return what tells of the handshake."""
    done = asyncio.get_running_loop().create_future()

    def on_handshake(error):
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    stream.upgrade(kind.pop("context"), timeout=kind.pop("timeout", 5.0), on_handshake=on_handshake, **kind)
    return done


SERVER = {"server_side": True}
CLIENT = {"server_side": False, "server_name": "localhost"}


@scenario(wires=PLAIN)
async def test_the_hello_right_behind_the_request_is_kept(net):
    near, far = await net.pair()
    client, server = connection(near, None), connection(far, None)
    client.send(b"STARTTLS\r\n")
    ready = secured(client, context=client_tls(), **CLIENT)  # the ClientHello follows in the same turn
    client.send(b"first\n")
    await until(lambda: server.queued[0] > 10 + 64)
    assert await server.recv_until(b"\r\n") == b"STARTTLS"
    await secured(server, context=server_tls(), **SERVER)
    channel = channel_on(server)
    assert await channel.recv() == b"first"
    await ready
    channel.send(b"secret")
    assert await client.recv_until(b"\n") == b"secret"
    assert client.wire.ssl_object.version() == "TLSv1.3"
    await asyncio.gather(client.close(), channel.close())


@scenario(wires=PLAIN)
async def test_plain_words_go_before_the_handshake(net):
    """The server answers and starts TLS in one turn; the client reads the answer, then what is left is TLS."""
    near, far = await net.pair()
    client, server = connection(near, None), connection(far, None)
    client.send(b"STARTTLS\n")
    assert await server.recv_until(b"\n") == b"STARTTLS"
    server.send(b"go on\n")
    accepted = secured(server, context=server_tls(), **SERVER)
    server.send(b"welcome\n")
    assert await client.recv_until(b"\n") == b"go on"
    ready = secured(client, context=client_tls(), **CLIENT)
    assert await client.recv_until(b"\n") == b"welcome"
    await asyncio.gather(ready, accepted)
    await asyncio.gather(client.close(), server.close())


@scenario(wires=PLAIN)
async def test_a_client_that_says_no_more_when_tls_should_start(net):
    near, far = await net.pair()
    client, server = connection(near, None), connection(far, None)
    client.send(b"STARTTLS\n")
    client.send_eof()
    assert await server.recv_until(b"\n") == b"STARTTLS"
    await until(lambda: not server.flags[0])
    with pytest.raises(EOFError):
        await asyncio.wait_for(secured(server, context=server_tls(), **SERVER), 1)
    with pytest.raises(ClosedError):
        await server.wait_closed() or server.send(b"x")
    await client.close()


@scenario(wires=PLAIN)
async def test_garbage_where_tls_should_start_and_an_abort_meanwhile(net):
    for disturb in ("garbage", "abort", "close"):
        near, far = await net.pair()
        client, server = connection(near, None), connection(far, None)
        handshake = secured(server, context=server_tls(), **SERVER)
        if disturb == "garbage":
            client.send(b"GET / HTTP/1.0\r\n\r\n")
        else:
            getattr(server, disturb)()
            client.close()
        with pytest.raises((ssl.SSLError, OSError, EOFError)):
            await asyncio.wait_for(handshake, 4)
        await asyncio.wait_for(server.wait_closed(), 4)
        client.close()
        await client.wait_closed()


@scenario(wires=PLAIN)
async def test_an_echo_over_tls_started_on_the_way(net):
    near, far = await net.pair()
    client, server = connection(near, None), connection(far, None)
    await asyncio.gather(
        secured(server, context=server_tls(), **SERVER), secured(client, context=client_tls(), **CLIENT)
    )
    one, other = channel_on(client), channel_on(server)
    task = asyncio.create_task(driven(echo(other)))
    for i in range(100):
        one.send(b"%d" % i * 100)
    for i in range(100):
        assert await one.recv() == b"%d" % i * 100
    one.send_eof()
    await task
    await asyncio.gather(one.close(), other.close())
