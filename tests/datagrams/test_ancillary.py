"""Ancillary data as typed records, and descriptors that nobody can leak."""

import array
import os
import socket
import time
from pathlib import Path

import pytest
from leaks import descriptors

import portico
from portico._core import Descriptors
from portico.transports.adopting import adopt, socketpair
from portico.transports.ancillary import TOS, TTL, PacketInfo, RawAncillary, Timestamp, Truncated
from portico.transports.connection import Credentials
from portico.transports.datagrams import datagrams
from tests.datagrams.support import aborted, heard, udp
from tests.server.support import NATIVE, scenario, until

KINDS = ("stream", "seqpacket", "datagram")


def pipes(count: int) -> list[int]:
    """Descriptors to pass: the reading ends of pipes whose writing ends are closed."""
    found = []
    for _ in range(count):
        reading, writing = os.pipe()
        os.close(writing)
        found.append(reading)
    return found


def open_files() -> int:
    return len(descriptors())


def pass_by_hand(sock: socket.socket, fds: list[int], data: bytes = b"x") -> None:
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


@scenario(NATIVE)
@pytest.mark.parametrize("kind", KINDS)
async def test_descriptors_are_passed_and_belong_to_who_takes_them(kind: str) -> None:
    one, other = await socketpair(kind=kind)
    async with aborted(one, other):
        fds = pipes(3)
        before = open_files()
        await one.send_with_ancillary(b"take them", [Descriptors(fds)])
        data, records = await other.recv_with_ancillary()
        assert data == b"take them"
        (passed,) = [record for record in records if isinstance(record, Descriptors)]
        assert len(passed) == 3
        taken = passed.take(1)
        passed.close()
        assert open_files() <= before + 1
        assert os.fstat(taken[0]).st_ino
        os.close(taken[0])
        await one.send(b"nothing with this one")
        assert await other.recv_with_ancillary() == (b"nothing with this one", [])


@scenario(NATIVE)
@pytest.mark.parametrize("kind", KINDS)
async def test_descriptors_that_nobody_takes_are_closed(kind: str) -> None:
    for how in ("received", "closed", "aborted"):
        before = open_files()
        one, other = await socketpair(kind=kind)
        fds = pipes(2)
        for _ in range(3):
            await one.send_with_ancillary(b"x", [Descriptors([os.dup(fd) for fd in fds])])
        if how == "received":
            assert await other.recv()
        else:
            await until(lambda o=other: o.readiness[0])
        for fd in fds:
            os.close(fd)
        if how == "aborted":
            other.abort()
        one.abort()
        await other.close()
        await one.wait_closed()
        del one, other
        assert open_files() <= before, how


@scenario(NATIVE)
@pytest.mark.parametrize("kind", KINDS)
async def test_more_descriptors_than_allowed_are_closed_and_that_is_told(kind: str) -> None:
    one, other = socket.socketpair(
        socket.AF_UNIX,
        {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET, "datagram": socket.SOCK_DGRAM}[kind],
    )
    with other:
        async with await adopt(one) as connection:
            fds = pipes(100)
            before = open_files()
            pass_by_hand(other, fds)
            _, records = await connection.recv_with_ancillary()
            (passed,) = [record for record in records if isinstance(record, Descriptors)]
            assert (len(passed), Truncated() in records) == (16, True)
            assert open_files() == before + 16
            del passed, records
            assert open_files() == before
            pass_by_hand(other, fds[:16])  # there is room again
            _, records = await connection.recv_with_ancillary()
            assert Truncated() not in records
            del records
            for fd in fds:
                os.close(fd)
            other.close()  # so that closing waits for nothing


@scenario(NATIVE)
async def test_datagrams_carry_descriptors_and_credentials(tmp_path: Path) -> None:
    options = {"pass_credentials": True}
    async with (
        datagrams(f"unixgram:{tmp_path}/one", options=options, max_fds=4) as one,
        datagrams(f"unixgram:{tmp_path}/other") as other,
    ):
        fds = pipes(6)
        before = open_files()
        await other.send_with_ancillary(b"x", [Descriptors([os.dup(fd) for fd in fds])], to=one.local_address)
        packet, records = await one.recv_with_ancillary()
        assert Credentials(os.getpid(), os.getuid(), os.getgid()) in records
        (passed,) = [record for record in records if isinstance(record, Descriptors)]
        assert (len(passed), Truncated() in records) == (4, True)
        del packet, passed, records
        assert open_files() == before
        for _ in range(3):  # those that wait in the queue go with the socket
            await other.send_with_ancillary(b"x", [Descriptors([os.dup(fds[0])])], to=one.local_address)
        await until(lambda: one.stats.packets_received == 4)
        one.abort()
        while True:
            try:
                await one.recv()
            except portico.ClosedError:
                break
        assert open_files() <= before
        for fd in fds:
            os.close(fd)


@scenario(NATIVE)
@pytest.mark.parametrize("kind", KINDS)
async def test_credentials_come_with_the_message(kind: str) -> None:
    one, other = await socketpair(kind=kind)
    async with aborted(one, other):
        other.options["pass_credentials"] = True
        me = Credentials(os.getpid(), os.getuid(), os.getgid())
        await one.send(b"who am I")
        data, records = await other.recv_with_ancillary()
        assert (data, [each for each in records if isinstance(each, Credentials)]) == (b"who am I", [me])
        await one.send_with_ancillary(b"said by me", [me])
        data, records = await other.recv_with_ancillary()
        assert (data, [each for each in records if isinstance(each, Credentials)]) == (b"said by me", [me])


@scenario(NATIVE)
async def test_udp_tells_time_ttl_tos_and_interface_as_records() -> None:
    for host in ("127.0.0.1", "::1"):
        is_ipv6 = ":" in host
        async with datagrams(portico.Address("udp", host=host, port=0)) as packets:
            if is_ipv6:
                packets.socket.setsockopt(41, 66, 1)  # IPV6_RECVTCLASS
            else:
                packets.socket.setsockopt(0, 13, 1)  # IP_RECVTOS
            to = packets.local_address
            await packets.send_with_ancillary(b"hello", [TTL(9, is_ipv6), TOS(0x28, is_ipv6)], to=to)
            packet, records = await packets.recv_with_ancillary()
            assert (packet.ttl, packet.tos) == (9, 0x28)
            by_kind = {type(record): record for record in records}
            assert len(by_kind) == len(records)
            assert by_kind[TTL] == TTL(9, is_ipv6)
            assert by_kind[TOS] == TOS(0x28, is_ipv6)
            assert by_kind[PacketInfo] == PacketInfo(host, socket.if_nametoindex("lo"), is_ipv6)
            assert abs(by_kind[Timestamp].seconds - time.time()) < 5


@scenario(NATIVE)
async def test_a_udp_channel_tells_records_once_it_is_asked() -> None:
    with udp() as plain:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, 35, 1)  # SO_TIMESTAMPNS
        sock.connect(plain.getsockname())
        async with await adopt(sock) as channel:
            await channel.send_with_ancillary(b"hello", [TTL(5)])
            data, peer = await heard(plain)
            assert data == b"hello"
            channel.wire.expect_control()
            plain.sendto(b"back", peer)
            data, records = await channel.recv_with_ancillary()
            assert data == b"back"
            assert {Timestamp, TTL} <= {type(record) for record in records}


@scenario(NATIVE)
async def test_the_source_address_can_be_chosen() -> None:
    async with datagrams("udp://0.0.0.0:0") as packets:
        with udp() as plain:
            to = f"127.0.0.1:{plain.getsockname()[1]}"
            await packets.send_with_ancillary(b"from there", [PacketInfo("127.0.0.9")], to=to)
            assert await heard(plain) == (b"from there", ("127.0.0.9", packets.local_address.port))
            with pytest.raises(portico.DeliveryError):
                await packets.send_with_ancillary(b"x", [PacketInfo("192.0.2.7")], to=to)
            with pytest.raises(portico.ConfigurationError, match="'nonsense' is no IPv4 address"):
                await packets.send_with_ancillary(b"x", [PacketInfo("nonsense")], to=to)
            with pytest.raises(portico.ConfigurationError, match="no ancillary data that can be sent"):
                await packets.send_with_ancillary(b"x", [Truncated()], to=to)
            with pytest.raises(portico.MessageTooLarge, match="65508"):
                await packets.send_with_ancillary(bytes(65_508), [], to=to)


@scenario(NATIVE)
async def test_what_is_not_known_comes_raw() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        packets.socket.setsockopt(0, 20, 1)  # IP_RECVORIGDSTADDR
        await packets.send(b"x", to=packets.local_address)
        _, records = await packets.recv_with_ancillary()
        (raw,) = [record for record in records if isinstance(record, RawAncillary)]
        port = packets.local_address.port.to_bytes(2, "big")
        assert (raw.level, raw.type, raw.data[2:8]) == (0, 20, port + socket.inet_aton("127.0.0.1"))
        assert len({type(record) for record in records}) == len(records)
