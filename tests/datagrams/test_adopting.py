"""Taking over what exists already, and giving it back."""

import os
import pty
import socket
from collections.abc import Iterator

import pytest
from leaks import descriptors
from ports import free_port

import portico
from portico._core import Settings
from portico.codecs import Records
from portico.transports.adopting import adopt, socketpair
from portico.transports.connection import Channel
from portico.transports.datagrams import Datagrams, datagrams
from portico.transports.dial import dial
from tests.core.support import received
from tests.datagrams.support import aborted, heard, udp
from tests.server.support import EVERYWHERE, NATIVE, leftovers, scenario


@pytest.fixture
def tcp_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    yield one, other
    other.close()
    one.close()


@scenario(EVERYWHERE)
async def test_a_tcp_connection_by_object_and_by_number(tcp_pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = tcp_pair
    stream, channel = await adopt(one), await adopt(os.dup(other.fileno()), codec=portico.Lines())
    async with aborted(stream, channel):
        other.close()
        assert isinstance(stream, portico.Stream)
        assert isinstance(channel, portico.Channel)
        assert stream.remote_address == channel.local_address
        await stream.send(b"a line\nanother\n")
        assert [await channel.recv(), await channel.recv()] == ["a line", "another"]
        await channel.send("back")
        assert await stream.recv() == b"back\n"


@scenario(EVERYWHERE)
async def test_every_kind_of_pair() -> None:
    for kind in ("stream", "seqpacket", "datagram"):
        one, other = await socketpair(kind=kind)
        async with aborted(one, other):
            await one.send(b"hello")
            assert await other.recv() == b"hello"
            await other.send(b"")
            await other.send(b"back")
            assert await one.recv() == (b"back" if kind == "stream" else b"")
            if kind != "stream":
                assert await one.recv() == b"back"
    one, other = await socketpair(codec=portico.Lines())
    async with aborted(one, other):
        await one.send("hello")
        assert await other.recv() == "hello"
    one, other = await socketpair(codec=portico.Lines(), kind="seqpacket")
    async with aborted(one, other):
        await one.send("hello")
        assert await other.recv() == "hello"
        one.send_eof()
        with pytest.raises(portico.EndOfStream):
            await other.recv()
    with pytest.raises(portico.ConfigurationError, match="socketpair makes stream, seqpacket, datagram, not 'tcp'"):
        await socketpair(kind="tcp")


@scenario(EVERYWHERE)
async def test_a_bound_udp_socket_becomes_datagrams_that_report_errors() -> None:
    nobody = f"127.0.0.1:{free_port()}"
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    async with await adopt(sock.detach()) as packets:
        assert isinstance(packets, Datagrams)
        with udp() as plain:
            plain.sendto(b"hello", packets.local_address.sockaddr)
            packet = await packets.recv()
            await packets.send_many([packet.data + b"!"] * 3, to=packet)
            assert [(await heard(plain))[0] for _ in range(3)] == [b"hello!"] * 3
            if hasattr(packets.wire.port, "dropped_by_kernel") and packet.ttl is not None:
                with pytest.raises(portico.DeliveryError, match=nobody):
                    packets.send(b"lost", to=nobody)


@scenario(EVERYWHERE)
async def test_a_connected_udp_socket_becomes_a_channel() -> None:
    with udp() as plain:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.connect(plain.getsockname())
        async with await adopt(sock) as channel:
            assert isinstance(channel, portico.Channel)
            await channel.send(b"hello")
            data, peer = await heard(plain)
            plain.sendto(data + b"!", peer)
            assert await channel.recv() == b"hello!"


@scenario(NATIVE)
async def test_pipe_ends_and_a_terminal() -> None:
    reading, writing = os.pipe()
    async with await adopt(reading) as source, await adopt(writing) as sink:
        await sink.send(b"through the pipe")
        assert await source.recv() == b"through the pipe"
        with pytest.raises(portico.ClosedError):
            source.send(b"wrong way")
        await sink.close()
        assert await source.recv() == b""
    master, slave = pty.openpty()
    async with await adopt(master) as terminal, await adopt(slave, codec=portico.Lines()) as program:
        await terminal.send(b"typed\n")
        assert await program.recv() == "typed"
    master, slave = pty.openpty()
    only_reading = os.open(os.ttyname(slave), os.O_RDONLY | os.O_NOCTTY)
    os.close(slave)
    async with await adopt(master) as terminal, await adopt(only_reading) as program:
        await terminal.send(b"typed\n")
        assert await program.recv() == b"typed\n"
        with pytest.raises(portico.ClosedError):
            program.send(b"wrong way")


@scenario(EVERYWHERE)
async def test_what_cannot_be_adopted_is_named_and_stays_the_callers(tmp_path: object) -> None:
    before = descriptors()
    regular = os.open(f"{tmp_path}/file", os.O_RDWR | os.O_CREAT)
    null = os.open("/dev/null", os.O_RDWR)
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        socket.socket() as unconnected,
        udp() as unbound,
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW) as unknown,
        socket.create_connection(listening.getsockname()) as connected,
    ):
        for what, settings, error, complaint in (
            (listening, {}, portico.ConfigurationError, "listens: give it to Service.listen"),
            (unconnected, {}, portico.ConfigurationError, "is not connected: portico.connect makes"),
            (unbound, {"codec": portico.Lines()}, portico.ConfigurationError, "takes no codec"),
            (connected, {"codec": Records()}, portico.ConfigurationError, "needs one such as Lines"),
            (unknown, {}, portico.UnsupportedError, "no kind that Portico knows"),
        ):
            for each in (what, what.fileno()):
                with pytest.raises(error, match=complaint) as caught:
                    await adopt(each, **settings)
                assert "\n" not in str(caught.value)
            assert what.fileno() >= 0
            what.getsockname()
    for each in (regular, null):
        with pytest.raises(portico.UnsupportedError):
            await adopt(each)
        os.close(each)
    with pytest.raises(portico.ConfigurationError, match=f"{regular} is no open descriptor"):
        await adopt(regular)
    assert not leftovers(before)


@scenario(EVERYWHERE)
async def test_detaching_and_adopting_again_loses_no_byte(tcp_pair: tuple[socket.socket, socket.socket]) -> None:
    one, other = tcp_pair
    stream = await adopt(one)
    other.sendall(b"first second third")
    assert await stream.recv_exactly(6) == b"first "
    sock, rest = await stream.detach()
    assert isinstance(sock, socket.socket)
    other.sendall(b" fourth")
    with pytest.raises(portico.ClosedError):
        await stream.recv()
    async with await adopt(sock) as again:
        assert rest + await again.recv_exactly(len(b"second third fourth") - len(rest)) == b"second third fourth"
        await again.send(b"still connected")
        await again.flush()
        assert other.recv(100) == b"still connected"
        other.close()  # so that closing waits for nothing


@scenario(EVERYWHERE)
async def test_detaching_a_channel_of_packets() -> None:
    one, other = await socketpair(kind="seqpacket")
    async with aborted(other):
        await one.send(b"before")
        sock, rest = await one.detach()
        with sock:
            assert rest == b""
            sock.send(b"by hand")
            assert [await other.recv(), await other.recv()] == [b"before", b"by hand"]


@scenario(NATIVE)
async def test_detaching_a_pipe_gives_its_number() -> None:
    reading, writing = os.pipe()
    source = await adopt(reading)
    os.write(writing, b"ab")
    assert await source.recv_exactly(1) == b"a"
    fd, rest = await source.detach()
    os.write(writing, b"c")
    os.close(writing)
    assert (fd, rest, os.read(fd, 10)) == (reading, b"b", b"c")
    os.close(fd)


@scenario(EVERYWHERE)
async def test_a_default_peer_can_be_taken_away() -> None:
    with udp() as plain, udp() as stranger:
        wire = await dial(portico.Address("udp", host="127.0.0.1", port=plain.getsockname()[1]))
        channel: Channel[bytes] = Channel(wire, Records(), Settings(), scheme="udp")
        local = channel.local_address
        await channel.send(b"hello")
        await heard(plain)
        for number in range(3):
            plain.sendto(b"%d" % number, local.sockaddr)
        assert await channel.recv() == b"0"
        stranger.sendto(b"not for the channel", local.sockaddr)
        async with channel.disconnect() as packets:
            assert packets.local_address == local
            stranger.sendto(b"hello", local.sockaddr)
            while (packet := await packets.recv()).data in (b"1", b"2"):
                pass
            assert packet.data == b"hello"
            assert packet.address.port == stranger.getsockname()[1]
            await packets.send(b"answer", to=packet)
            assert await heard(stranger) == (b"answer", local.sockaddr)
        with pytest.raises(portico.ClosedError):
            await received(channel)


@scenario(EVERYWHERE)
async def test_only_udp_channels_have_a_peer_to_take_away() -> None:
    one, other = await socketpair(kind="seqpacket")
    async with aborted(one, other):
        with pytest.raises(portico.UnsupportedError, match="only a UDP channel"):
            one.disconnect()
    async with datagrams("udp://127.0.0.1:0") as packets:
        assert not hasattr(packets, "disconnect")
