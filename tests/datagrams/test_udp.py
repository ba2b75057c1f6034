"""UDP: what arrives is what was sent, in order, whole, from where it is said to be."""

import asyncio
import random
import socket
import struct
import time

import pytest

import portico
from portico.transports.datagrams import datagrams
from tests.core.support import received
from tests.datagrams.support import UDP_GRO, UDP_SEGMENT, fallback, heard, taken, udp
from tests.server.support import EVERYWHERE, NATIVE, run, scenario, until


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("backend", EVERYWHERE)
def test_packets_of_every_size_arrive_whole_and_in_order(host: str, backend: str) -> None:
    async def main() -> None:
        largest = 65_507 if host == "127.0.0.1" else 65_527
        async with datagrams(f"udp://{host}:0") as one, datagrams(f"udp://{host}:0") as other:
            for size in (0, 1, 2, 100, 1472, 1473, 9000, 65_000, largest):
                data = random.Random(size).randbytes(size)
                await one.send(data, to=other.local_address)
                packet = await other.recv()
                assert (packet.data, packet.address, packet.truncated) == (data, one.local_address, False)
            with pytest.raises(portico.MessageTooLarge, match=f"{largest + 1} bytes is over the limit of {largest}"):
                one.send(bytes(largest + 1), to=other.local_address)
            for number in range(50):
                await one.send(str(number).encode(), to=other.local_address)
            assert [int(each.data) for each in await taken(other, 50)] == list(range(50))

    run(main, backend)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("backend", EVERYWHERE)
def test_a_socket_on_every_interface_speaks_both_families(host: str, backend: str) -> None:
    async def main() -> None:
        async with datagrams("udp://*:0") as both:
            with udp(host) as plain:
                plain.sendto(b"hello", (host, both.local_address.port))
                packet = await both.recv()
                assert packet.address.sockaddr[1] == plain.getsockname()[1]
                await both.send(b"answer", to=packet)
                assert (await heard(plain))[0] == b"answer"
                await both.send(b"by address", to=f"[{host}]:{packet.address.port}" if ":" in host else
                                f"{host}:{packet.address.port}")  # fmt: skip
                data, source = await heard(plain)
                assert (data, source[:2]) == (b"by address", (host, both.local_address.port))

    run(main, backend)


@scenario(NATIVE)
async def test_the_answer_leaves_from_the_address_that_the_packet_came_to() -> None:
    for listen, family in (("*", "::ffff:"), ("0.0.0.0", "")):
        async with datagrams(f"udp://{listen}:0") as server:
            port = server.local_address.port
            with udp("127.0.0.1") as plain:
                plain.sendto(b"hello", ("127.0.0.2", port))
                packet = await server.recv()
                assert packet.local_address == portico.Address("udp", host=f"{family}127.0.0.2", port=port)
                await server.send(b"one", to=packet)
                assert await heard(plain) == (b"one", ("127.0.0.2", port))
                await server.send_many([b"two", b"three"], to=packet)
                assert await heard(plain) == (b"two", ("127.0.0.2", port))
                assert await heard(plain) == (b"three", ("127.0.0.2", port))
                await server.send_many([(b"four", packet)])
                assert await heard(plain) == (b"four", ("127.0.0.2", port))
                await server.send_with_ancillary(b"five", [], to=packet)
                assert await heard(plain) == (b"five", ("127.0.0.2", port))


@scenario(NATIVE)
async def test_a_packet_tells_interface_ttl_and_time() -> None:
    for host in ("127.0.0.1", "::1"):
        async with datagrams(portico.Address("udp", host=host, port=0)) as packets:
            with udp(host) as plain:
                if host == "127.0.0.1":
                    plain.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
                else:
                    plain.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 33)
                before = time.time()
                plain.sendto(b"hello", packets.local_address.sockaddr)
                packet = await packets.recv()
                assert (packet.interface, packet.ttl) == ("lo", 33)
                assert before - 0.01 < packet.timestamp < time.time() + 0.01
                assert packet.local_address == packets.local_address
                assert repr(packet) == f"<Packet of 5 bytes from {packet.address}>"


@scenario(EVERYWHERE)
async def test_what_is_not_asked_for_is_not_told() -> None:
    async with datagrams("udp://127.0.0.1:0", packet_info=False, ttl=False, timestamps=False) as packets:
        with udp() as plain:
            plain.sendto(b"hello", packets.local_address.sockaddr)
            packet = await packets.recv()
            assert (packet.interface, packet.ttl, packet.timestamp, packet.tos) == (None, None, None, None)
            assert packet.local_address == packets.local_address


@pytest.mark.parametrize("gso", [True, False])
@pytest.mark.parametrize("gro", [True, False])
@pytest.mark.parametrize("backend", EVERYWHERE)
def test_a_batch_keeps_every_packet_as_it_is(gso: bool, gro: bool, backend: str) -> None:
    """Packets of any sizes, to any of three: none is joined, cut, lost or put before another one."""

    async def main() -> None:
        chance = random.Random(gso * 2 + gro)
        async with (
            datagrams("udp://127.0.0.1:0", gso=gso) as sender,
            datagrams("udp://127.0.0.1:0", gro=gro, options={"receive_buffer": 4 << 20}) as a,
            datagrams("udp://127.0.0.1:0", gro=gro, options={"receive_buffer": 4 << 20}) as b,
            datagrams("udp://127.0.0.1:0", gro=gro, options={"receive_buffer": 4 << 20}) as c,
        ):
            for _ in range(60):
                size = chance.choice([1, 10, 100, 1000, 5000])
                batch = []
                for _ in range(chance.randrange(1, 150)):
                    if chance.random() < 0.2:
                        size = chance.choice([0, 1, size, max(size - 1, 0), size + 1, chance.randrange(3000)])
                    target = chance.choice([a, a, a, a, b, c]) if chance.random() < 0.3 else a
                    batch.append((chance.randbytes(size), target))
                if chance.random() < 0.3:
                    batch = [(data, a) for data, _ in batch]
                    await sender.send_many([data for data, _ in batch], to=a.local_address)
                else:
                    await sender.send_many([(data, target.local_address) for data, target in batch])
                for target in (a, b, c):
                    wanted = [data for data, to in batch if to is target]
                    assert [each.data for each in await taken(target, len(wanted))] == wanted
            for each in (a, b, c):
                assert each.stats.dropped == each.stats.dropped_by_kernel == 0
            counted = [each.stats for each in (a, b, c)]
            assert sender.stats.packets_sent == sum(each.packets_received for each in counted)
            assert sender.stats.bytes_sent == sum(each.bytes_received for each in counted)

    run(main, backend)


@scenario(EVERYWHERE)
async def test_packets_that_the_kernel_cuts_for_a_plain_sender_arrive_one_by_one() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        with udp() as plain:
            parts = [bytes([number]) * 100 for number in range(40)] + [b"short"]
            plain.setsockopt(socket.SOL_UDP, UDP_SEGMENT, 100)
            plain.sendto(b"".join(parts), packets.local_address.sockaddr)
            assert [each.data for each in await taken(packets, 41)] == parts


@scenario(NATIVE)
async def test_a_batch_goes_through_the_kernel_as_one() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        with udp() as plain:
            plain.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
            await packets.send_many([bytes(200)] * 60, to=f"127.0.0.1:{plain.getsockname()[1]}")
            await until(lambda: len(plain.recv(65536, socket.MSG_PEEK)) == 60 * 200)
            _, control, _, _ = plain.recvmsg(65536, 100)
            assert [struct.unpack("i", data) for _, kind, data in control if kind == UDP_GRO] == [(200,)]


@scenario(EVERYWHERE)
async def test_batches_are_all_that_is_there() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        with udp() as plain:
            for number in range(200):
                plain.sendto(str(number).encode(), packets.local_address.sockaddr)
            seen, lists = [], 0
            async for batch in packets.batches():
                seen += [int(each.data) for each in batch]
                lists += 1
                if len(seen) == 200:
                    break
            assert seen == list(range(200))
            assert lists < 20


@scenario(EVERYWHERE)
async def test_a_cancelled_recv_loses_no_packet() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        with udp() as plain:
            for number in range(100):
                receiving = asyncio.create_task(received(packets))
                for _ in range(number % 5):
                    await asyncio.sleep(0)
                plain.sendto(str(number).encode(), packets.local_address.sockaddr)
                for _ in range(number % 3):
                    await asyncio.sleep(0)
                receiving.cancel()
                (answer,) = await asyncio.gather(receiving, return_exceptions=True)
                packet = await packets.recv() if isinstance(answer, asyncio.CancelledError) else answer
                assert int(packet.data) == number


@scenario(EVERYWHERE)
async def test_only_one_task_receives() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        first = asyncio.create_task(received(packets))
        await asyncio.sleep(0)
        with pytest.raises(portico.BusyError):
            await packets.recv()
        await packets.send(b"to itself", to=packets.local_address)
        assert (await first).data == b"to itself"


@scenario(EVERYWHERE)
async def test_a_closed_socket_says_so_and_gives_what_had_come() -> None:
    packets = await datagrams("udp://127.0.0.1:0")
    address = packets.local_address
    with udp() as plain:
        plain.sendto(b"last", address.sockaddr)
        await until(lambda: packets.stats.packets_received)
    await packets.close()
    assert (await packets.recv()).data == b"last"
    with pytest.raises(portico.ClosedError):
        await packets.recv()
    with pytest.raises(portico.ClosedError):
        packets.send(b"more", to="127.0.0.1:9")
    with pytest.raises(portico.ClosedError):
        packets.send_many([b"more"], to="127.0.0.1:9")
    assert [each async for each in packets] == []
    await packets.close()
    await packets.wait_closed()
    packets.abort()
    assert packets.local_address == address
    assert packets.state is portico.State.CLOSED
    assert packets.stats.packets_received == 1


@scenario(EVERYWHERE)
async def test_whoever_waits_for_a_packet_is_told_of_the_close() -> None:
    for how in ("close", "abort"):
        packets = await datagrams("udp://127.0.0.1:0")
        iterating = asyncio.create_task(anext(packets.batches(), None))
        await asyncio.sleep(0)
        getattr(packets, how)()
        assert await iterating is None
        await packets.wait_closed()


@scenario(EVERYWHERE)
async def test_silence_ends_a_socket_and_packets_either_way_keep_it() -> None:
    async with datagrams("udp://127.0.0.1:0", idle_timeout=0.3) as packets:
        with udp() as plain:
            loop = asyncio.get_running_loop()
            start = loop.time()
            while loop.time() - start < 0.6:
                packets.send(b"still here", to=f"127.0.0.1:{plain.getsockname()[1]}")
                await asyncio.sleep(0.05)
            assert packets.state is portico.State.OPEN
            with pytest.raises(portico.ClosedError, match="idle_timeout"):
                await packets.recv()
            assert loop.time() - start > 0.85


@scenario(EVERYWHERE)
async def test_wrong_targets_are_named() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        for wrong, complaint in (
            ("localhost:9", "is a name: resolve it first"),
            ("unix:/tmp/x", "a udp socket cannot send to unix:/tmp/x"),
            (("127.0.0.1", 9), "not tuple"),
        ):
            with pytest.raises(portico.AddressError, match=complaint):
                packets.send(b"", to=wrong)
        with pytest.raises(portico.DeliveryError, match="say to whom"):
            packets.send(b"")
        with pytest.raises(portico.UnsupportedError, match=r"Packet.address"):
            packets.remote_address  # noqa: B018
        assert repr(packets) == f"<Datagrams open at {packets.local_address}>"


@scenario(EVERYWHERE)
async def test_settings_that_cannot_work_are_refused_at_once() -> None:
    for address, settings, complaint in (
        ("tcp://127.0.0.1:0", {}, "no address of packets"),
        ("unixpacket:/tmp/x", {}, "no address of packets"),
        ("udp://127.0.0.1:0", {"when_full": "explode"}, "when_full must be"),
        ("udp://127.0.0.1:0", {"max_packets": 0}, "at least 1"),
    ):
        with pytest.raises(portico.ConfigurationError, match=complaint):
            datagrams(address, **settings)
    async with datagrams("udp://127.0.0.1:0") as packets:
        with pytest.raises(portico.BindError, match=f"cannot listen on {packets.local_address}: "):
            await datagrams(packets.local_address)


@scenario(EVERYWHERE)
async def test_the_fallback_says_what_it_cannot() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        with udp() as plain:
            to = f"127.0.0.1:{plain.getsockname()[1]}"
            from portico.transports.ancillary import TTL

            if fallback():
                with pytest.raises(portico.UnsupportedError, match="own sockets on Linux"):
                    await packets.send_with_ancillary(b"x", [TTL(3)], to=to)
            else:
                await packets.send_with_ancillary(b"x", [TTL(3)], to=to)
                assert (await heard(plain))[0] == b"x"
                assert packets.stats.packets_sent == 1


@scenario(EVERYWHERE)
async def test_detaching_gives_the_socket() -> None:
    packets = await datagrams("udp://127.0.0.1:0")
    address = packets.local_address
    sock, rest = await packets.detach()
    with sock, udp() as plain:
        assert (rest, sock.getsockname()) == (b"", address.sockaddr)
        plain.sendto(b"yours", address.sockaddr)
        assert (await heard(sock))[0] == b"yours"
    with pytest.raises(portico.ClosedError):
        await packets.recv()
