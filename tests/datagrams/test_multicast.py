"""Multicast, broadcast and interfaces that go away, between two network namespaces."""

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

import portico
from portico.transports.datagrams import Datagrams, datagrams
from tests.datagrams.support import Network, heard, in_a_namespace, udp
from tests.server.support import EVERYWHERE, run, scenario


def between_machines(backend: str, main: Callable[[Network], Awaitable[None]]) -> None:
    in_a_namespace(lambda network: run(lambda: main(network), backend, timeout=40))


@contextlib.contextmanager
def sender_there(network: Network, host: str = "10.9.0.2") -> Iterator[socket.socket]:
    with network.there():
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        index = socket.if_nametoindex("there0")
    with sock:
        sock.bind((host, 0))
        sock.setblocking(False)
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(host))
        yield sock


async def hears(packets: Datagrams, *senders: tuple[socket.socket, str, bytes], others: int = 0) -> list[bytes]:
    """What arrives of those packets; a last one to the socket itself is the end."""
    port = packets.local_address.port
    for sock, group, data in senders:
        sock.sendto(data, (group, port))
    end = senders[0][0]
    end.sendto(b"end", ("fd09::1" if end.family == socket.AF_INET6 else "10.9.0.1", port))
    found = []
    while (packet := await packets.recv()).data != b"end":
        found.append(packet.data)
    return found


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_groups_are_joined_and_left_per_interface(backend: str) -> None:
    async def main(network: Network) -> None:
        async with datagrams("udp://*:0") as packets:
            with sender_there(network) as v4, sender_there(network, "fd09::2") as v6:
                assert await hears(packets, (v4, "239.1.2.3", b"before")) == []
                packets.join("239.1.2.3", interface="here0")
                packets.join("ff05::77", interface="here0")
                assert await hears(packets, (v4, "239.1.2.3", b"4"), (v4, "239.9.9.9", b"other")) == [b"4"]
                assert await hears(packets, (v6, "ff05::77", b"6"), (v6, "ff05::78", b"other")) == [b"6"]
                with pytest.raises(
                    portico.ConfigurationError, match=r"cannot join 239.1.2.3 on here0: address already"
                ):
                    packets.join("239.1.2.3", interface="here0")
                packets.leave("239.1.2.3", interface="here0")
                packets.leave("ff05::77", interface=socket.if_nametoindex("here0"))
                assert await hears(packets, (v4, "239.1.2.3", b"after")) == []
                assert await hears(packets, (v6, "ff05::77", b"after")) == []
                with pytest.raises(portico.ConfigurationError, match=r"cannot leave 239.1.2.3 on here0"):
                    packets.leave("239.1.2.3", interface="here0")
                packets.join("239.1.2.3", interface="lo")  # the wrong one
                assert await hears(packets, (v4, "239.1.2.3", b"elsewhere")) == []

    between_machines(backend, main)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_of_two_sources_only_the_wanted_one_is_heard(backend: str) -> None:
    async def main(network: Network) -> None:
        network.ip_there("addr add 10.9.0.3/24 dev there0")
        network.ip_there("addr add fd09::3/64 dev there0 nodad")
        for listen, group, wanted, other in (
            ("udp://0.0.0.0:0", "232.1.2.3", "10.9.0.2", "10.9.0.3"),
            ("udp://[::]:0", "ff35::77", "fd09::2", "fd09::3"),
        ):
            async with datagrams(listen) as packets:
                with sender_there(network, wanted) as one, sender_there(network, other) as two:
                    packets.join(group, interface="here0", source=wanted)
                    assert await hears(packets, (one, group, b"wanted"), (two, group, b"unwanted")) == [b"wanted"]
                    packets.join(group, interface="here0", source=other)
                    assert await hears(packets, (one, group, b"1"), (two, group, b"2")) == [b"1", b"2"]
                    packets.leave(group, interface="here0", source=wanted)
                    assert await hears(packets, (one, group, b"1"), (two, group, b"2")) == [b"2"]
                    with pytest.raises(portico.ConfigurationError, match=f"cannot leave {group} of {wanted} on here0"):
                        packets.leave(group, interface="here0", source=wanted)

    between_machines(backend, main)


@pytest.mark.parametrize("backend", ["uvloop", "asyncio"])
def test_a_packet_tells_the_group_and_the_answer_comes_from_the_machine(backend: str) -> None:
    async def main(network: Network) -> None:
        for host, own, group, ttl in (("10.9.0.2", "10.9.0.1", "239.1.2.3", 1), ("fd09::2", "fd09::1", "ff05::77", 1)):
            listen = "udp://0.0.0.0:0" if "." in host else "udp://[::]:0"
            async with datagrams(listen) as packets:
                packets.join(group, interface="here0")
                with sender_there(network, host) as plain:
                    plain.sendto(b"hello", (group, packets.local_address.port))
                    packet = await packets.recv()
                    assert packet.local_address.host == group
                    assert (packet.interface, packet.ttl, packet.address.host) == ("here0", ttl, host)
                    await packets.send(b"answer", to=packet)
                    data, source = await heard(plain)
                    assert (data, source[:2]) == (b"answer", (own, packets.local_address.port))

    between_machines(backend, main)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_what_is_sent_to_a_group_obeys_the_options(backend: str) -> None:
    async def main(network: Network) -> None:
        with network.there():
            plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with plain:
            plain.bind(("0.0.0.0", 0))
            plain.setblocking(False)
            port = plain.getsockname()[1]
            plain.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
            member = socket.inet_aton("239.1.2.3") + socket.inet_aton("10.9.0.2")
            plain.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
            options = {"multicast_ttl": 7, "multicast_interface": "here0", "multicast_loop": False}
            async with datagrams("udp://0.0.0.0:0", options=options) as packets:
                packets.join("239.1.2.3", interface="here0")
                await packets.send(b"hello", to=f"239.1.2.3:{port}")
                await packets.send(b"not to itself", to=f"239.1.2.3:{packets.local_address.port}")
                loop = asyncio.get_running_loop()
                ready = loop.create_future()
                loop.add_reader(plain, lambda: ready.done() or ready.set_result(None))
                await ready
                loop.remove_reader(plain)
                data, control, _, source = plain.recvmsg(100, 100)
                assert (data, source[0]) == (b"hello", "10.9.0.1")
                assert int.from_bytes(control[0][2], "little") == 7
                packets.options["multicast_loop"] = True
                await packets.send(b"to itself", to=f"239.1.2.3:{packets.local_address.port}")
                assert (await packets.recv()).data == b"to itself"

    between_machines(backend, main)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_broadcast_reaches_the_network(backend: str) -> None:
    async def main(network: Network) -> None:
        with network.there():
            plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with plain:
            plain.bind(("0.0.0.0", 0))
            plain.setblocking(False)
            async with datagrams("udp://0.0.0.0:0", options={"broadcast": True}) as packets:
                await packets.send(b"all of you", to=f"10.9.0.255:{plain.getsockname()[1]}")
                data, source = await heard(plain)
                assert (data, source) == (b"all of you", ("10.9.0.1", packets.local_address.port))
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                plain.sendto(b"you too", ("10.9.0.255", packets.local_address.port))
                packet = await packets.recv()
                assert packet.data == b"you too"
                if not backend.endswith("transports"):
                    assert packet.local_address.host == "10.9.0.255"
                plain.sendto(b"answer me", ("10.9.0.255", packets.local_address.port))
                await packets.send(b"answer", to=await packets.recv())
                assert await heard(plain) == (b"answer", ("10.9.0.1", packets.local_address.port))

    between_machines(backend, main)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_link_local_addresses_keep_their_interface(backend: str) -> None:
    async def main(network: Network) -> None:
        network.ip("addr add fe80::1/64 dev here0 nodad")
        network.ip_there("addr add fe80::2/64 dev there0 nodad")
        async with datagrams("udp://[::]:0") as packets:
            with network.there():
                plain = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
                index = socket.if_nametoindex("there0")
            with plain:
                plain.bind(("fe80::2", 0, 0, index))
                plain.setblocking(False)
                plain.sendto(b"hello", ("fe80::1", packets.local_address.port, 0, index))
                packet = await packets.recv()
                assert str(packet.address) == f"udp://[fe80::2%here0]:{plain.getsockname()[1]}"
                if not backend.endswith("transports"):
                    assert str(packet.local_address) == f"udp://[fe80::1%here0]:{packets.local_address.port}"
                await packets.send(b"to the packet", to=packet)
                await packets.send(b"to its address", to=str(packet.address))
                assert (await heard(plain))[0] == b"to the packet"
                data, source = await heard(plain)
                assert (data, source[0]) == (b"to its address", "fe80::1")

    between_machines(backend, main)


@pytest.mark.parametrize("backend", EVERYWHERE)
def test_an_interface_that_goes_away_takes_nothing_else_along(backend: str) -> None:
    async def main(network: Network) -> None:
        network.ip("addr add fe80::1/64 dev here0 nodad")
        async with (
            datagrams("udp://*:0") as packets,
            datagrams("udp://10.9.0.1:0") as bound,
            datagrams("packet://here0") as frames,
        ):
            packets.join("239.1.2.3", interface="here0")
            packets.join("ff05::77", interface="here0")
            with sender_there(network) as plain, udp() as local:
                assert await hears(packets, (plain, "239.1.2.3", b"4")) == [b"4"]
                assert (await frames.recv()).interface in ("here0", None)
                targets = ["10.9.0.2:9", "[fe80::2%here0]:9", "[fd09::2]:9", "239.1.2.3:9", "[ff05::77]:9"]
                for to in targets:
                    with contextlib.suppress(portico.DeliveryError):
                        packets.send(b"before", to=to)
                receiving = asyncio.ensure_future(anext(bound.batches()))
                network.ip("link del here0")
                for to in targets * 3:
                    with contextlib.suppress(portico.DeliveryError, portico.AddressError):
                        packets.send(b"lost", to=to)
                    with contextlib.suppress(portico.DeliveryError):
                        bound.send(b"lost", to="10.9.0.2:9")
                    with contextlib.suppress(portico.DeliveryError):
                        frames.send(bytes(60))
                    local.sendto(b"alive", ("127.0.0.1", packets.local_address.port))
                    assert (await packets.recv()).data == b"alive"
                with contextlib.suppress(portico.ConfigurationError):
                    packets.leave("239.1.2.3", interface="here0")
                with pytest.raises(portico.ConfigurationError, match="no network interface 'here0'; it has lo"):
                    packets.join("239.1.2.3", interface="here0")
                for each in (packets, bound, frames):
                    assert each.state is portico.State.OPEN
                    each.failures()
                # the same name comes again, with another number
                network.ip(f"link add here0 type veth peer name there0 netns {network.holder.pid}")
                network.ip("addr add 10.9.0.1/24 dev here0")
                network.ip("addr add fe80::1/64 dev here0 nodad")
                network.ip("link set here0 up")
                network.ip_there("addr add 10.9.0.2/24 dev there0")
                network.ip_there("addr add fe80::2/64 dev there0 nodad")
                network.ip_there("link set there0 up")
                packets.join("239.1.2.3", interface="here0")
                with network.there():
                    again = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
                    index = socket.if_nametoindex("there0")
                with again, sender_there(network) as plain:
                    again.bind(("fe80::2", 9, 0, index))
                    again.setblocking(False)
                    assert await hears(packets, (plain, "239.1.2.3", b"again")) == [b"again"]
                    packets.failures()
                    for _ in range(2):
                        with contextlib.suppress(portico.DeliveryError):
                            packets.send(b"found again", to="[fe80::2%here0]:9")
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
            ("239.1.1.1", {"interface": "nowhere0"}, "no network interface 'nowhere0'; it has .*lo"),
            ("239.1.1.1", {"source": "::1"}, "must be of one IP version"),
            ("ff05::1", {}, "ff05::1 is an IPv6 group, and this an IPv4 socket"),
        ):
            with pytest.raises(portico.ConfigurationError, match=complaint):
                packets.join(group, **settings)
        with pytest.raises(portico.ConfigurationError, match="only UDP sockets join"):
            unix.join("239.1.1.1")
