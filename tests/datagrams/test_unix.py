"""Unix datagram sockets: names, files, sizes, and what is too long."""

import os
import socket
import stat
from pathlib import Path

import pytest

import portico
from portico._core import Settings
from portico.codecs import Records
from portico.transports.connection import Channel
from portico.transports.datagrams import datagrams
from portico.transports.dial import dial
from tests.datagrams.support import taken
from tests.server.support import EVERYWHERE, NATIVE, scenario


@scenario(EVERYWHERE)
async def test_packets_go_both_ways_between_paths_and_abstract_names(tmp_path: Path) -> None:
    for name in (f"{tmp_path}/one", f"@portico-test-{os.getpid()}"):
        async with datagrams(f"unixgram:{name}") as one, datagrams(f"unixgram:{tmp_path}/other") as other:
            assert str(one.local_address) == f"unixgram:{name}"
            for data in (b"", b"x", bytes(range(256)) * 400):
                await other.send(data, to=one.local_address)
                packet = await one.recv()
                assert (packet.data, packet.address, packet.truncated) == (data, other.local_address, False)
                assert packet.local_address == one.local_address
                await one.send(data[::-1], to=packet)
                assert (await other.recv()).data == data[::-1]
            await other.send_many([b"%d" % number for number in range(8)], to=str(one.local_address))
            assert [int(each.data) for each in await taken(one, 8)] == list(range(8))


@scenario(EVERYWHERE)
async def test_a_sender_without_a_name_is_heard_but_cannot_be_answered(tmp_path: Path) -> None:
    async with datagrams(f"unixgram:{tmp_path}/here") as packets:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            nameless.sendto(b"guess who", f"{tmp_path}/here")
            packet = await packets.recv()
            assert (packet.data, packet.address.path) == (b"guess who", "")
            with pytest.raises(portico.PorticoError) as caught:
                packets.send(b"answer", to=packet)
            assert "\n" not in str(caught.value)
            nameless.sendto(b"once more", f"{tmp_path}/here")
            assert (await packets.recv()).data == b"once more"


@scenario(EVERYWHERE)
async def test_the_file_of_a_dead_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "name"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
        dead.bind(str(path))
    async with datagrams(f"unixgram:{path}", mode=0o620) as packets:
        found = path.stat()
        assert (stat.S_ISSOCK(found.st_mode), found.st_mode & 0o777) == (True, 0o620)
        with pytest.raises(portico.BindError, match=f"cannot listen on unixgram:{path}: .*in use"):
            await datagrams(f"unixgram:{path}")
        await packets.send(b"still alive", to=packets.local_address)
        assert (await packets.recv()).data == b"still alive"
    assert not path.exists()
    path.write_text("no socket")
    with pytest.raises(portico.BindError):
        await datagrams(f"unixgram:{path}")
    assert path.read_text() == "no socket"


@scenario(EVERYWHERE)
async def test_abort_removes_the_file_but_not_that_of_a_successor(tmp_path: Path) -> None:
    path = tmp_path / "name"
    packets = await datagrams(f"unixgram:{path}")
    packets.abort()
    await packets.wait_closed()
    assert not path.exists()
    packets = await datagrams(f"unixgram:{path}")
    path.unlink()
    async with datagrams(f"unixgram:{path}"):
        await packets.close()
        assert path.exists()
    assert not path.exists()


@scenario(EVERYWHERE)
async def test_a_packet_longer_than_the_room_for_it_is_marked_truncated(tmp_path: Path) -> None:
    async with datagrams(f"unixgram:{tmp_path}/here") as packets:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as plain:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            data = os.urandom(262_144)
            plain.sendto(data, f"{tmp_path}/here")
            packet = await packets.recv()
            assert (packet.data, packet.truncated) == (data, False)
            plain.sendto(data + b"too much", f"{tmp_path}/here")
            packet = await packets.recv()
            assert (packet.data, packet.truncated) == (data, True)
            assert repr(packet).startswith("<Packet of 262144 bytes, truncated from")
            plain.sendto(b"next", f"{tmp_path}/here")
            assert (await packets.recv()).data == b"next"


@scenario(NATIVE)
async def test_a_channel_says_that_a_packet_was_too_long(tmp_path: Path) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    from portico.transports.adopting import adopt

    with other:
        channel = await adopt(one)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        other.send(bytes(262_145))
        with pytest.raises(portico.MessageTooLarge, match="262145 bytes is over the limit of 262144"):
            await channel.recv()
        other.send(b"next")
        assert await channel.recv() == b"next"
        await channel.close()


@scenario(EVERYWHERE)
async def test_a_connected_channel_can_be_answered(tmp_path: Path) -> None:
    async with datagrams(f"unixgram:{tmp_path}/server") as server:
        wire = await dial(portico.Address.parse(f"unixgram:{tmp_path}/server"))
        channel: Channel[bytes] = Channel(wire, Records(), Settings(), scheme="unixgram")
        for data in (b"", b"x", bytes(100_000)):
            await channel.send(data)
            packet = await server.recv()
            assert packet.data == data
            await server.send(data + b"!", to=packet)
            assert await channel.recv() == data + b"!"
        for number in range(100):
            await channel.send(number.to_bytes(4, "big") * 1000)
        assert [int.from_bytes(each.data[:4], "big") for each in await taken(server, 100)] == list(range(100))
        await channel.close()
