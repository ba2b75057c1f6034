"""Multicast, broadcast and interfaces that go away, between two network namespaces."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest

import portico
from portico.transports.datagrams import Datagrams, datagrams
from tests.datagrams.support import heard, socket_on, udp
from tests.namespaces import Machine, on_a_machine
from tests.server.support import EVERYWHERE, run, scenario


def between_machines(backend: str, main: Callable[[Machine, Machine], Awaitable[None]]) -> None:
    on_a_machine(lambda here, there: run(lambda: main(here, there), backend, timeout=40))


async def hears(packets: Datagrams, *senders: tuple[socket.socket, str, bytes]) -> list[bytes]:
    """What arrives of those packets; a last one to the socket itself is the end."""
    port = packets.local_address.port
    for sock, group, data in senders:
        sock.sendto(data, (group, port))
    end = senders[0][0]
    end.sendto(b"end", ("fd09::1" if end.family == socket.AF_INET6 else "10.99.0.1", port))
    found = []
    while (packet := await packets.recv()).data != b"end":
        found.append(packet.data)
    return found


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_groups_are_joined_and_left_per_interface(backend: str) -> None:
    async def main(here: Machine, there: Machine) -> None:
        async with datagrams("udp://*:0") as packets:
            with socket_on(there, "10.99.0.2") as v4, socket_on(there, "fd09::2") as v6:
                assert await hears(packets, (v4, "239.1.2.3", b"before")) == []
                packets.join("239.1.2.3", interface="eth7")
                packets.join("ff05::77", interface="eth7")
                assert await hears(packets, (v4, "239.1.2.3", b"4"), (v4, "239.9.9.9", b"other")) == [b"4"]
                assert await hears(packets, (v6, "ff05::77", b"6"), (v6, "ff05::78", b"other")) == [b"6"]
                with pytest.raises(portico.ConfigurationError, match=r"cannot join 239.1.2.3 on eth7: address already"):
                    packets.join("239.1.2.3", interface="eth7")
                packets.leave("239.1.2.3", interface="eth7")
                packets.leave("ff05::77", interface=socket.if_nametoindex("eth7"))
                assert await hears(packets, (v4, "239.1.2.3", b"after")) == []
                assert await hears(packets, (v6, "ff05::77", b"after")) == []
                with pytest.raises(portico.ConfigurationError, match=r"cannot leave 239.1.2.3 on eth7"):
                    packets.leave("239.1.2.3", interface="eth7")
                packets.join("239.1.2.3", interface="lo")  # the wrong one
                assert await hears(packets, (v4, "239.1.2.3", b"elsewhere")) == []

    between_machines(backend, main)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_of_two_sources_only_the_wanted_one_is_heard(backend: str) -> None:
    async def main(here: Machine, there: Machine) -> None:
        there.ip("addr add 10.99.0.3/24 dev eth7")
        there.ip("addr add fd09::3/64 dev eth7 nodad")
        for listen, group, wanted, other in (
            ("udp://0.0.0.0:0", "232.1.2.3", "10.99.0.2", "10.99.0.3"),
            ("udp://[::]:0", "ff35::77", "fd09::2", "fd09::3"),
        ):
            async with datagrams(listen) as packets:
                with socket_on(there, wanted) as one, socket_on(there, other) as two:
                    packets.join(group, interface="eth7", source=wanted)
                    assert await hears(packets, (one, group, b"wanted"), (two, group, b"unwanted")) == [b"wanted"]
                    packets.join(group, interface="eth7", source=other)
                    assert await hears(packets, (one, group, b"1"), (two, group, b"2")) == [b"1", b"2"]
                    packets.leave(group, interface="eth7", source=wanted)
                    assert await hears(packets, (one, group, b"1"), (two, group, b"2")) == [b"2"]
                    with pytest.raises(portico.ConfigurationError, match=f"cannot leave {group} of {wanted} on eth7"):
                        packets.leave(group, interface="eth7", source=wanted)

    between_machines(backend, main)


@pytest.mark.parametrize("backend", ["uvloop", "asyncio"])
def test_a_packet_tells_the_group_and_the_answer_comes_from_the_machine(backend: str) -> None:
    async def main(here: Machine, there: Machine) -> None:
        for host, own, group in (("10.99.0.2", "10.99.0.1", "239.1.2.3"), ("fd09::2", "fd09::1", "ff05::77")):
            listen = "udp://0.0.0.0:0" if "." in host else "udp://[::]:0"
            async with datagrams(listen) as packets:
                packets.join(group, interface="eth7")
                with socket_on(there, host) as plain:
                    plain.sendto(b"hello", (group, packets.local_address.port))
                    packet = await packets.recv()
                    assert packet.local_address.host == group
                    assert (packet.interface, packet.ttl, packet.address.host) == ("eth7", 1, host)
                    await packets.send(b"answer", to=packet)
                    data, source = await heard(plain)
                    assert (data, source[:2]) == (b"answer", (own, packets.local_address.port))

    between_machines(backend, main)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_what_is_sent_to_a_group_obeys_the_options(backend: str) -> None:
    async def main(here: Machine, there: Machine) -> None:
        with socket_on(there) as plain:
            port = plain.getsockname()[1]
            plain.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
            member = socket.inet_aton("239.1.2.3") + socket.inet_aton("10.99.0.2")
            plain.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            options = {"multicast_ttl": 7, "multicast_interface": "eth7", "multicast_loop": False}
            async with datagrams("udp://0.0.0.0:0", options=options) as packets:
                packets.join("239.1.2.3", interface="eth7")
                await packets.send(b"hello", to=f"239.1.2.3:{port}")
                await packets.send(b"not to itself", to=f"239.1.2.3:{packets.local_address.port}")
                loop = asyncio.get_running_loop()
                ready = loop.create_future()
                loop.add_reader(plain, lambda: ready.done() or ready.set_result(None))
                await ready
                loop.remove_reader(plain)
                data, control, _, source = plain.recvmsg(100, 100)
                assert (data, source[0]) == (b"hello", "10.99.0.1")
                assert int.from_bytes(control[0][2], "little") == 7
                packets.options["multicast_loop"] = True
                await packets.send(b"to itself", to=f"239.1.2.3:{packets.local_address.port}")
                assert (await packets.recv()).data == b"to itself"

    between_machines(backend, main)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_broadcast_reaches_the_network(backend: str) -> None:
    async def main(here: Machine, there: Machine) -> None:
        with socket_on(there) as plain:
            async with datagrams("udp://0.0.0.0:0", options={"broadcast": True}) as packets:
                await packets.send(b"all of you", to=f"10.99.0.255:{plain.getsockname()[1]}")
                data, source = await heard(plain)
                assert (data, source) == (b"all of you", ("10.99.0.1", packets.local_address.port))
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                plain.sendto(b"you too", ("10.99.0.255", packets.local_address.port))
                packet = await packets.recv()
                assert packet.data == b"you too"
                if not backend.endswith("transports"):
                    assert packet.local_address.host == "10.99.0.255"
                plain.sendto(b"answer me", ("10.99.0.255", packets.local_address.port))
                await packets.send(b"answer", to=await packets.recv())
                assert await heard(plain) == (b"answer", ("10.99.0.1", packets.local_address.port))

    between_machines(backend, main)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_link_local_addresses_keep_their_interface(backend: str) -> None:
    async def main(here: Machine, there: Machine) -> None:
        here.ip("addr add fe80::1/64 dev eth7 nodad")
        there.ip("addr add fe80::2/64 dev eth7 nodad")
        async with datagrams("udp://[::]:0") as packets:
            with socket_on(there, "fe80::2") as plain:
                plain.sendto(b"hello", ("fe80::1", packets.local_address.port, 0, plain.getsockname()[3]))
                packet = await packets.recv()
                assert str(packet.address) == f"udp://[fe80::2%eth7]:{plain.getsockname()[1]}"
                if not backend.endswith("transports"):
                    assert str(packet.local_address) == f"udp://[fe80::1%eth7]:{packets.local_address.port}"
                await packets.send(b"to the packet", to=packet)
                await packets.send(b"to its address", to=str(packet.address))
                assert (await heard(plain))[0] == b"to the packet"
                data, source = await heard(plain)
                assert (data, source[0]) == (b"to its address", "fe80::1")

    between_machines(backend, main)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_an_interface_that_goes_away_takes_nothing_else_along(backend: str) -> None:
    async def main(here: Machine, there: Machine) -> None:
        here.ip("addr add fe80::1/64 dev eth7 nodad")
        async with (
            datagrams("udp://*:0") as packets,
            datagrams("udp://10.99.0.1:0") as bound,
            datagrams("packet://eth7") as frames,
        ):
            packets.join("239.1.2.3", interface="eth7")
            packets.join("ff05::77", interface="eth7")
            with socket_on(there, "10.99.0.2") as plain, udp() as local:
                assert await hears(packets, (plain, "239.1.2.3", b"4")) == [b"4"]
                assert (await frames.recv()).interface in ("eth7", None)
                targets = ["10.99.0.2:9", "[fe80::2%eth7]:9", "[fd09::2]:9", "239.1.2.3:9", "[ff05::77]:9"]
                for to in targets:
                    with contextlib.suppress(portico.DeliveryError):
                        packets.send(b"before", to=to)
                receiving = asyncio.ensure_future(anext(bound.batches()))
                here.ip("link del eth7")
                for to in targets * 3:
                    with contextlib.suppress(portico.DeliveryError, portico.AddressError):
                        packets.send(b"lost", to=to)
                    with contextlib.suppress(portico.DeliveryError):
                        bound.send(b"lost", to="10.99.0.2:9")
                    with contextlib.suppress(portico.DeliveryError):
                        frames.send(bytes(60))
                    local.sendto(b"alive", ("127.0.0.1", packets.local_address.port))
                    assert (await packets.recv()).data == b"alive"
                with contextlib.suppress(portico.ConfigurationError):
                    packets.leave("239.1.2.3", interface="eth7")
                with pytest.raises(portico.ConfigurationError, match="no network interface 'eth7'; it has lo"):
                    packets.join("239.1.2.3", interface="eth7")
                for each in (packets, bound, frames):
                    assert each.state is portico.State.OPEN
                    each.failures()
                # the same name comes again, with another number
                here.ip(f"link add eth7 type veth peer name eth7 netns {there.name}")
                here.ip("addr add 10.99.0.1/24 dev eth7")
                here.ip("addr add fe80::1/64 dev eth7 nodad")
                here.ip("link set eth7 up")
                there.ip("addr add 10.99.0.2/24 dev eth7")
                there.ip("addr add fe80::2/64 dev eth7 nodad")
                there.ip("link set eth7 up")
                packets.join("239.1.2.3", interface="eth7")
                with socket_on(there, "fe80::2", 9) as again, socket_on(there, "10.99.0.2") as plain:
                    assert await hears(packets, (plain, "239.1.2.3", b"again")) == [b"again"]
                    packets.failures()
                    for _ in range(2):
                        with contextlib.suppress(portico.DeliveryError):
                            packets.send(b"found again", to="[fe80::2%eth7]:9")
                    assert (await heard(again))[0] == b"found again"
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)

    between_machines(backend, main)


@scenario(EVERYWHERE)
async def test_groups_that_cannot_be_joined_are_named() -> None:
    async with datagrams("udp://127.0.0.1:0") as packets, datagrams("unixgram:@" + "x" * 20) as unix:
        for group, settings, complaint in (
            ("10.0.0.1", {}, "10.0.0.1 is no multicast address"),
            ("nonsense", {}, "nonsense"),
            ("239.1.1.1", {"interface": "noweth7"}, "no network interface 'noweth7'; it has .*lo"),
            ("239.1.1.1", {"source": "::1"}, "must be of one IP version"),
            ("ff05::1", {}, "ff05::1 is an IPv6 group, and this an IPv4 socket"),
        ):
            with pytest.raises(portico.ConfigurationError, match=complaint):
                packets.join(group, **settings)
        with pytest.raises(portico.ConfigurationError, match="only UDP sockets join"):
            unix.join("239.1.1.1")
