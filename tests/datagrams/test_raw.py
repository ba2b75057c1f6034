"""Raw IP and link-layer sockets: ping, frames, and who may have them."""

import os
import socket
import struct
import subprocess
import sys

import pytest
from namespaces import machines

import portico
from portico.transports.datagrams import Datagrams, Packet, datagrams
from tests.datagrams.support import udp
from tests.server.support import EVERYWHERE, scenario

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets need root")

ECHO, ECHO_REPLY = 8, 0
ECHO6, ECHO6_REPLY = 128, 129


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo_request(kind: int, number: int) -> bytes:
    data = struct.pack("!BBHHH", kind, 0, 0, os.getpid() & 0xFFFF, number) + b"ping"
    return data[:2] + struct.pack("!H", checksum(data)) + data[4:]


async def answer(packets: Datagrams, kind: int, number: int, skip: int) -> Packet:
    while True:
        packet = await packets.recv()
        if packet.data[skip] == kind and packet.data[skip + 4 : skip + 8] == struct.pack(
            "!HH", os.getpid() & 0xFFFF, number
        ):
            return packet


@scenario(EVERYWHERE)
async def test_ping() -> None:
    for address in ("raw://127.0.0.1:icmp", "raw://0.0.0.0:icmp", "raw://*:1"):
        async with datagrams(address) as packets:
            for number in range(3):
                await packets.send(echo_request(ECHO, number), to="raw://127.0.0.1:icmp")
                packet = await answer(packets, ECHO_REPLY, number, 20)  # behind the IP header
                assert packet.data[28:] == b"ping"
                assert packet.address.host == "127.0.0.1"
                assert packet.local_address.host in ("127.0.0.1", "0.0.0.0", "")
            await packets.send(echo_request(ECHO, 7), to=packet)
            await answer(packets, ECHO_REPLY, 7, 20)


@scenario(EVERYWHERE)
async def test_ping_over_ipv6() -> None:
    for address in ("raw://[::1]:ipv6-icmp", "raw://*:ipv6-icmp"):
        async with datagrams(address) as packets:
            for number in range(3):
                await packets.send(echo_request(ECHO6, number), to="raw://[::1]:ipv6-icmp")
                packet = await answer(packets, ECHO6_REPLY, number, 0)
                assert packet.data[8:] == b"ping"
            await packets.send(echo_request(ECHO6, 7), to=packet)
            await answer(packets, ECHO6_REPLY, 7, 0)


@scenario(EVERYWHERE)
async def test_frames_of_an_interface_are_seen() -> None:
    with machines(1) as (machine,), machine.entered():  # where nobody else talks
        for address in ("packet://lo", "packet://lo:0x0800", "packet://*"):
            async with datagrams(address) as frames, datagrams("udp://127.0.0.1:0") as packets:
                await packets.send(b"look here", to=packets.local_address)
                while not (frame := await frames.recv()).data.endswith(b"look here"):
                    pass
                assert frame.data[12:14] == b"\x08\x00"
                assert (frame.address.host, frame.address.port) == ("lo", 0x0800)
                assert frame.interface in ("lo", None)


@scenario(EVERYWHERE)
async def test_a_frame_is_sent_as_it_is() -> None:
    ethertype = 0x88B5  # for local experiments (IEEE 802)
    async with datagrams(f"packet://lo:{ethertype:#06x}") as frames:
        frame = bytes(12) + ethertype.to_bytes(2, "big") + b"a frame of our own"
        await frames.send(frame)
        assert (await frames.recv()).data == frame
        await frames.send(frame + b"!", to=frames.local_address)
        while (got := await frames.recv()).data != frame + b"!":
            pass
        assert got.address.host == "lo"
        with pytest.raises(portico.MessageTooLarge):
            await frames.send(frame + bytes(100_000))
        await frames.send(frame)


@scenario(EVERYWHERE)
async def test_only_frames_of_that_interface_and_type_are_seen() -> None:
    async with datagrams("packet://lo:0x88b5") as frames:
        with udp() as plain:
            plain.sendto(b"another type", plain.getsockname())
        frame = bytes(12) + b"\x88\xb5" + b"end"
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as plain_frames:
            plain_frames.sendto(frame, ("lo", 0x88B5))
        assert (await frames.recv()).data == frame


@scenario(EVERYWHERE)
async def test_an_interface_that_is_not_there_is_named() -> None:
    with pytest.raises(portico.PorticoError, match="nowhere0") as caught:
        await datagrams("packet://nowhere0")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("address", ["raw://127.0.0.1:icmp", "packet://lo"])
def test_without_the_privilege_the_error_names_it(address: str) -> None:
    code = f"""
import asyncio, os, portico
from portico.transports.datagrams import datagrams
async def main():
    import portico.transports.resolve
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
    try:
        await datagrams({address!r})
    except portico.PrivilegeError as error:
        print(error)
asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=20, check=False
    )
    what = "link-layer" if address.startswith("packet") else "raw"
    where = portico.Address.parse(address)
    wanted = f"cannot open {where}: {what} sockets are not for everybody; it needs CAP_NET_RAW, or root\n"
    assert (done.stdout, done.stderr) == (wanted, "")
