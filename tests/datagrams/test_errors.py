"""What the network reports reaches the send that caused it, and never ends the socket."""

import asyncio
import contextlib
import socket
import time

import pytest
from ports import free_port

import portico
from portico._core import Settings
from portico.codecs import Records
from portico.transports.connection import Channel
from portico.transports.datagrams import Datagrams, datagrams
from portico.transports.dial import dial
from tests.datagrams.support import heard, socket_on, udp
from tests.namespaces import Machine, on_a_machine
from tests.peers import need_program
from tests.server.support import EVERYWHERE, LOOPS, NATIVE, run, scenario, until


async def channel_to(address: str) -> Channel[bytes]:
    return Channel(await dial(portico.Address.parse(address)), Records(), Settings(), scheme="udp")


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
@pytest.mark.parametrize("backend", NATIVE)
def test_a_port_that_nobody_has_is_reported_by_that_send(host: str, backend: str) -> None:
    async def main() -> None:
        async with datagrams(f"udp://{host}:0") as packets:
            with udp(host.strip("[]")) as alive:
                nobody = f"{host}:{free_port()}"
                somebody = f"{host}:{alive.getsockname()[1]}"
                for number in range(5):
                    with pytest.raises(portico.DeliveryError) as caught:
                        packets.send(b"lost", to=nobody)
                    assert str(caught.value) == f"a packet to udp://{nobody} was not delivered: connection refused"
                    assert (str(caught.value.address), caught.value.data) == (f"udp://{nobody}", b"lost")
                    await packets.send(b"found %d" % number, to=somebody)
                    assert (await heard(alive))[0] == b"found %d" % number
                assert packets.failures() == []
                assert packets.stats.failed == 5
                assert packets.state is portico.State.OPEN

    run(main, backend)


@scenario(NATIVE)
async def test_a_batch_reports_who_did_not_get_it_and_reaches_the_others() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        with udp() as alive:
            somebody = f"127.0.0.1:{alive.getsockname()[1]}"
            nobody, nobody_either = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
            with pytest.raises(portico.DeliveryError) as caught:
                packets.send_many(
                    [(b"1", somebody), (b"2", nobody), (b"3", somebody), (b"4", nobody_either), (b"5", somebody)]
                )
            assert [(await heard(alive))[0] for _ in range(3)] == [b"1", b"3", b"5"]
            (other,) = packets.failures()
            assert {str(caught.value.address), str(other.address)} == {f"udp://{nobody}", f"udp://{nobody_either}"}
            await packets.send_many([b"6"] * 3, to=somebody)
            assert [(await heard(alive))[0] for _ in range(3)] == [b"6"] * 3


@scenario(EVERYWHERE)
async def test_the_fault_of_one_address_is_no_other_addresses() -> None:
    """asyncio and Python's socket raise what one address caused when the next packet goes to another one."""
    async with datagrams("udp://127.0.0.1:0") as packets:
        with udp() as alive:
            somebody, nobody = f"127.0.0.1:{alive.getsockname()[1]}", f"127.0.0.1:{free_port()}"
            for number in range(50):
                with contextlib.suppress(portico.DeliveryError):
                    packets.send(b"lost", to=nobody)
                await packets.send(str(number).encode(), to=somebody)
                if number % 2:
                    await packets.send_with_ancillary(b"", [], to=somebody)
            assert packets.failures() == []
            got = [(await heard(alive))[0] for _ in range(75)]
            assert [int(data) for data in got if data] == list(range(50))


@scenario(EVERYWHERE)
async def test_reports_cost_no_time_while_nobody_sends() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets:
        for _ in range(100):
            with contextlib.suppress(portico.DeliveryError):
                packets.send(b"lost", to=f"127.0.0.1:{free_port()}")
        start = time.process_time()
        await asyncio.sleep(0.2)
        assert time.process_time() - start < 0.1


@scenario(EVERYWHERE)
async def test_a_connected_channel_tells_once_and_goes_on() -> None:
    with udp() as reserved:
        port = reserved.getsockname()[1]
    channel = await channel_to(f"udp://127.0.0.1:{port}")
    await channel.send(b"lost")
    with pytest.raises(portico.DeliveryError, match=f"(udp://127.0.0.1:{port} )?was not delivered: connection refused"):
        await channel.recv()
    with udp(port=port) as alive:
        await channel.send(b"found")
        data, peer = await heard(alive)
        alive.sendto(b"answer", peer)
        assert (data, await channel.recv()) == (b"found", b"answer")
    await channel.send(b"lost again")
    await asyncio.sleep(0)
    with pytest.raises(portico.DeliveryError):
        for _ in range(100):
            await channel.send(b"told by the next send")
            await channel.flush()
            await asyncio.sleep(0.001)
    assert channel.state is portico.State.OPEN
    await channel.close()


@scenario(EVERYWHERE)
async def test_broadcast_needs_its_option() -> None:
    async with datagrams("udp://0.0.0.0:0") as packets:
        with pytest.raises(portico.DeliveryError, match=r"permission denied .*option broadcast"):
            packets.send(b"all", to="255.255.255.255:9")
        with pytest.raises(portico.DeliveryError, match="option broadcast"):
            packets.send_many([b"all"], to="255.255.255.255:9")
        assert packets.state is portico.State.OPEN


@scenario(EVERYWHERE)
async def test_a_path_that_nobody_listens_on_is_reported_by_that_send(tmp_path: object) -> None:
    async with datagrams(f"unixgram:{tmp_path}/sender") as packets:
        with pytest.raises(portico.DeliveryError, match="no such file or directory"):
            packets.send(b"lost", to=f"unixgram:{tmp_path}/nobody")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as dead:
            dead.bind(f"{tmp_path}/dead")
        with pytest.raises(portico.DeliveryError, match="connection refused"):
            packets.send(b"lost", to=f"unixgram:{tmp_path}/dead")
        await packets.send(b"to itself", to=packets.local_address)
        assert (await packets.recv()).data == b"to itself"
        with pytest.raises(portico.MessageTooLarge, match="message of at least 9000000 bytes"):
            packets.send(bytes(9_000_000), to=packets.local_address)


async def report_of(packets: Datagrams, to: str) -> BaseException:
    """What the network has to say of a packet, at once or later."""
    before = packets.stats.failed
    try:
        packets.send(b"lost", to=to)
    except portico.DeliveryError as error:
        return error
    await until(lambda: packets.stats.failed > before, 10)
    (later,) = packets.failures()
    return later


# In namespaces: routers and other machines.


@pytest.mark.parametrize("loop", LOOPS)
def test_unreachable_networks_and_hosts_are_reported(loop: str) -> None:
    def body(here: Machine, there: Machine) -> None:
        async def main() -> None:
            async with datagrams("udp://0.0.0.0:0") as packets, datagrams("udp://[::]:0") as packets6:
                with pytest.raises(portico.DeliveryError, match=r"203.0.113.1:9 was not delivered: network is unreach"):
                    packets.send(b"lost", to="203.0.113.1:9")
                with pytest.raises(portico.DeliveryError, match="network is unreachable"):
                    packets6.send(b"lost", to="[2001:db8::1]:9")
                # nobody answers ARP; a router that knows no way; a host that refuses
                here.ip("route add 198.51.100.0/24 via 10.99.0.2")
                there.ip("route add unreachable 198.51.100.0/25")
                there.ip("route add prohibit 198.51.100.128/25")
                there.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
                here.run("sh", "-c", "echo 100 > /proc/sys/net/ipv4/neigh/eth7/retrans_time_ms")  # ARP gives up sooner
                for to, reason in (
                    ("10.99.0.77:9", "no route to host"),
                    ("198.51.100.1:9", "no route to host"),
                    ("198.51.100.200:9", "no route to host"),
                    ("10.99.0.2:9", "connection refused"),
                ):
                    error = await report_of(packets, to)
                    assert str(error) == f"a packet to udp://{to} was not delivered: {reason}"
                    await packets.send(b"no fault of this one", to=packets.local_address.replace(host="127.0.0.1"))
                    assert packets.failures() == []
                before = packets.stats.failed
                packets.send(b"lost", to="10.99.0.77:9")  # of which ARP tells only later
                await until(lambda: packets.stats.failed > before, 10)
                with pytest.raises(portico.DeliveryError, match=r"10.99.0.77:9 was not delivered: no route to host"):
                    packets.send(b"lost", to="10.99.0.77:9")
                assert [(await packets.recv()).data for _ in range(4)] == [b"no fault of this one"] * 4

        run(main, loop, timeout=40)

    on_a_machine(body)


@pytest.mark.parametrize("loop", LOOPS)
def test_packets_too_large_for_the_path_name_the_size_that_fits(loop: str) -> None:
    def body(here: Machine, there: Machine) -> None:
        here.ip("link set eth7 mtu 1400")

        async def main() -> None:
            for host, option, fits in (
                ("10.99.0.1", {"mtu_discover": "do"}, 1372),
                ("fd09::1", {"mtu_discover_v6": "do"}, 1352),
            ):
                other = "10.99.0.2" if "." in host else "fd09::2"
                with socket_on(there, other) as alive:
                    to = portico.Address("udp", host=other, port=alive.getsockname()[1])
                    async with datagrams(portico.Address("udp", host=host, port=0), options=option) as packets:
                        for size in (fits + 1, 9000):
                            with pytest.raises(portico.MessageTooLarge) as caught:
                                packets.send(bytes(size), to=to)
                            assert (caught.value.size, caught.value.limit) == (size, fits)
                            assert packets.failures() == []
                        assert packets.stats.failed == 2
                        with pytest.raises(portico.MessageTooLarge, match=f"over the limit of {fits} bytes"):
                            packets.send_many([bytes(10), bytes(5000), bytes(fits)], to=to)
                        assert [len((await heard(alive))[0]) for _ in range(2)] == [10, fits]
                        with pytest.raises(portico.MessageTooLarge, match=f"over the limit of {fits} bytes"):
                            await packets.send_with_ancillary(bytes(5000), [], to=to)
                        await packets.send_many([bytes(1300)] * 50, to=to)  # still as one for the kernel
                        assert [len((await heard(alive))[0]) for _ in range(50)] == [1300] * 50

        run(main, loop)

    on_a_machine(body)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_router_that_wants_smaller_packets_is_heard(loop: str) -> None:
    """Path MTU discovery (RFC 1191): the report may come later: then the next send to that address raises it."""

    def body(here: Machine, there: Machine) -> None:
        here.ip("route add 198.51.100.0/24 via 10.99.0.2")
        there.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        there.ip("link add narrow0 type veth peer name narrow1")
        there.ip("link set narrow0 mtu 1000 up")
        there.ip("addr add 198.51.100.1/24 dev narrow0")

        async def main() -> None:
            async with datagrams("udp://0.0.0.0:0", options={"mtu_discover": "do"}) as packets:
                with pytest.raises(portico.MessageTooLarge, match="973 bytes is over the limit of 972 bytes"):
                    packets.send(bytes(1400), to="198.51.100.9:9")
                    await until(lambda: packets.stats.failed)
                    packets.send(bytes(100), to="198.51.100.9:9")
                with pytest.raises(portico.MessageTooLarge, match="1400 bytes is over the limit of 972 bytes"):
                    packets.send(bytes(1400), to="198.51.100.9:9")

        run(main, loop)

    on_a_machine(body)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_full_interface_makes_the_sender_wait_and_costs_no_time(loop: str) -> None:
    def body(here: Machine, there: Machine) -> None:
        need_program("tc")
        limited = "qdisc add dev eth7 root tbf rate 400kbit burst 2000 limit 6000"
        here.run("tc", *limited.split())

        async def main() -> None:
            async with datagrams("udp://10.99.0.1:0", high_water=1000) as packets:
                to = f"10.99.0.2:{alive.getsockname()[1]}"
                start = time.process_time()
                for number in range(30):
                    await packets.send(bytes([number]) * 1000, to=to)
                await packets.flush()
                assert time.process_time() - start < 0.25
                assert [(await heard(alive))[0][0] for _ in range(30)] == list(range(30))

        with socket_on(there, "10.99.0.2") as alive:
            run(main, loop)

    on_a_machine(body)
