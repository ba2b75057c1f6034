"""Servers over packets on bad days: too many peers, floods, peers that are gone; and nothing spins."""

import asyncio
import errno
import gc
import socket
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

import portico

from .packet_kit import UDP, counting, idle_cpu, peer_of, peers_of
from .support import EVERYWHERE, echo, scenario, until, wait_for_end


def spoofed(count: int) -> list[tuple[str, int]]:
    """Sources that look like many machines."""
    return [(f"127.{1 + number // 250}.7.{1 + number % 250}", 0) for number in range(count)]


# Too many peers.


@scenario(on=EVERYWHERE)
async def test_peers_past_the_cap_are_counted_and_those_who_are_in_are_not_disturbed() -> None:
    limits = portico.Limits(max_connections=10)
    channels: list[Any] = []
    async with portico.serve(counting(channels, echo), UDP, limits=limits) as server:
        async with peers_of(server.address, 10) as peers:
            for number, each in enumerate(peers):
                assert await each.ask(b"%d" % number) == b"%d" % number
            for source in spoofed(400):
                stranger = peer_of(server.address, source)
                stranger.send(b"let me in")
                stranger.close()
                if source[0].endswith(".100"):
                    assert await peers[0].ask(b"still") == b"still"
            assert await peers[9].ask(b"last") == b"last"
            await until(lambda: server.stats.rejected_full == 400)
            assert server.stats.open == len(channels) == server.stats.accepted == 10
            for each in peers:
                assert await each.ask(b"here") == b"here"


@scenario(on=EVERYWHERE)
async def test_a_place_that_becomes_free_is_given_to_the_next_peer() -> None:
    async def once(channel: Any) -> None:
        await channel.send(await channel.recv())
        await channel.recv()

    async with portico.serve(once, UDP, limits=portico.Limits(max_connections=1)) as server:
        async with peers_of(server.address, 2) as (one, other):
            assert await one.ask(b"a") == b"a"
            other.send(b"too early")
            await until(lambda: server.stats.rejected_full == 1)
            one.send(b"and out")
            await until(lambda: server.stats.open == 0)
            assert await other.ask(b"b") == b"b"


@scenario(on=["uvloop"])
async def test_the_cap_holds_over_all_sockets_of_a_listener() -> None:
    """`localhost` is two addresses, with a socket each."""

    class Both:
        async def resolve(self, address: portico.Address, *, family: int = 0) -> list[portico.Address]:
            return [address.replace(host=host) for host in ("127.0.0.1", "::1")]

        async def name_of(self, address: portico.Address) -> tuple[str, str]:
            raise OSError("not asked")

    service = portico.Service(limits=portico.Limits(max_connections=2), resolver=Both()).listen("udp://both:0", echo)
    async with portico.serve(service) as server:
        four, six = server.addresses
        assert four.port == six.port
        async with peers_of(four, 2) as peers:
            for each in peers:
                assert await each.ask(b"x") == b"x"
            late = peer_of(six, ("::1", 0))
            late.send(b"no room")
            await until(lambda: server.stats.rejected_full == 1)
            assert server.stats.open == 2
            late.close()


@scenario(on=["uvloop"])
async def test_peers_that_come_and_go_leave_no_memory_behind() -> None:
    """5,500 peers, 50 at a time: what was kept of the first ones is gone, but for a bounded number of endpoints."""

    def objects() -> dict[str, int]:
        gc.collect()
        names = [type(each).__name__ for each in gc.get_objects()]
        return {kind: names.count(kind) for kind in ("Channel", "PeerWire", "Session", "Task", "Endpoint")}

    async def once(channel: Any) -> None:
        await channel.send(await channel.recv())

    async with portico.serve(once, UDP) as server:

        async def crowd(rounds: int) -> None:
            for _ in range(rounds):
                async with peers_of(server.address, 50) as peers:
                    for each in peers:
                        each.send(b"x")
                    for each in peers:
                        assert await each.recv() == b"x"
            await until(lambda: server.stats.open == 0)

        await crowd(10)
        before = objects()
        await crowd(100)
        after = objects()
        assert after.pop("Endpoint") < before.pop("Endpoint") + 300
        assert after == before and server.stats.accepted == 5500


# Limits by address, as for connections.


@scenario(on=EVERYWHERE)
async def test_peers_of_one_address_are_limited() -> None:
    limits = portico.Limits(max_per_address=2, trust_loopback=False)
    async with portico.serve(echo, UDP, limits=limits) as server:
        async with peers_of(server.address, 3) as peers:
            for each in peers[:2]:
                assert await each.ask(b"x") == b"x"
            peers[2].send(b"third")
            await until(lambda: server.stats.rejected_address == 1)
            other = peer_of(server.address, ("127.0.0.9", 0))
            assert await other.ask(b"y") == b"y"
            other.close()
            assert server.stats.open == 3


@scenario(on=EVERYWHERE)
async def test_an_address_gets_new_channels_at_a_bounded_rate() -> None:
    limits = portico.Limits(accept_rate=0.01, accept_burst=3, trust_loopback=False)
    async with portico.serve(echo, UDP, limits=limits) as server:
        async with peers_of(server.address, 5) as peers:
            for each in peers:
                each.send(b"x")
            await until(lambda: server.stats.rejected_rate == 2)
            assert server.stats.open == 3
            assert await peers[0].ask(b"y") == b"x"


@scenario(on=EVERYWHERE)
async def test_peers_are_allowed_and_denied_by_address() -> None:
    async with portico.serve(echo, UDP, allow=["127.0.0.0/24"], deny=["127.0.0.66"]) as server:
        for source, answered in (("127.0.0.5", True), ("127.0.0.66", False), ("127.9.9.9", False)):
            peer = peer_of(server.address, (source, 0))
            denied = server.stats.rejected_denied
            if answered:
                assert await peer.ask(b"x") == b"x"
            else:
                peer.send(b"x")
                await until(lambda denied=denied: server.stats.rejected_denied == denied + 1)  # type: ignore[misc]
            peer.close()
        assert server.stats.open == 1


# Floods.


@scenario(on=EVERYWHERE)
async def test_a_flood_that_nobody_reads_is_dropped_and_counted_and_others_are_served() -> None:
    channels: list[Any] = []

    async def deaf(channel: Any) -> None:
        if await channel.recv() == b"deaf":
            channels.append(channel)
            await channel.draining
        await echo(channel)

    limits = portico.Limits(read_buffer=20_000)
    async with portico.serve(deaf, UDP, limits=limits) as server:
        async with peers_of(server.address, 2) as (flooding, polite):
            flooding.send(b"deaf")
            polite.send(b"polite")
            await until(lambda: channels)
            for number in range(2000):
                flooding.send(b"x" * 1000)
                if number % 20 == 0:
                    assert await polite.ask(b"%d" % number) == b"%d" % number
            stats = server.stats
            assert stats.packets_dropped > 1500
            assert channels[0].queued[0] < 40_000
            assert stats.packets_dropped + channels[0].queued[0] // 1000 >= 1900
            assert await polite.ask(b"end") == b"end"
            got = 0
            while channels[0].queued[0]:
                assert await channels[0].recv() == b"x" * 1000
                got += 1
            flooding.send(b"heard again")
            assert await channels[0].recv() == b"heard again"
            assert got + server.stats.packets_dropped == 2000
            channels[0].abort()


@scenario(on=EVERYWHERE)
async def test_what_the_kernel_drops_is_counted_where_it_tells() -> None:
    async with portico.serve(echo, UDP, options={"receive_buffer": 4096}) as server:
        async with peers_of(server.address) as (peer,):
            for _ in range(500):
                peer.send(b"x" * 1000)  # without a turn of the loop
            await peer.recv()
            native = server.listeners[0]._hub.native_sockets
            assert server.stats.packets_dropped > 300 or not native


# Peers that are gone.


@scenario(on=EVERYWHERE)
async def test_a_peer_that_is_gone_ends_its_channel_and_no_other() -> None:
    """An ICMP error in mid-stream: the handler hears of it as DeliveryError. Where the loop reads the sockets nobody
    tells whose packet it was, and the channel goes on until it is idle."""
    failed: list[Any] = []
    channels: list[Any] = []

    async def talk(channel: Any) -> None:
        channels.append(channel)
        try:
            async for packet in channel:
                await channel.send(packet)
        except portico.DeliveryError as error:
            failed.append(error)
            raise

    async with portico.serve(talk, UDP) as server, peers_of(server.address, 2) as (gone, stays):
        assert await gone.ask(b"a") == b"a" and await stays.ask(b"b") == b"b"
        address = gone.address
        gone.close()
        await channels[0].send(b"to nobody")
        native = server.listeners[0]._hub.native_sockets
        if native:
            await until(lambda: server.stats.open == 1)
            (error,) = failed
            assert error.errno == errno.ECONNREFUSED and error.address == address
            assert (error.data, error.size) == (b"to nobody", 9)
            assert server.stats.peer_errors == 1 and server.stats.handler_errors == 0
        for _ in range(3):
            assert await stays.ask(b"goes on") == b"goes on"
        assert await idle_cpu() < 0.1
        channels[0].abort()


@scenario(on=["uvloop", "asyncio"])
async def test_a_peer_that_is_gone_is_told_to_the_next_send_where_nobody_receives() -> None:
    channels: list[Any] = []

    async def talk(channel: Any) -> None:
        channels.append(channel)
        await channel.draining

    for place in (UDP, "udp://[::1]:0", "udp://*:0"):
        channels.clear()
        async with portico.serve(talk, place) as server:
            port = server.address.port
            assert port
            host = "::1" if "::1" in place else "127.0.0.1"
            peer = peer_of(portico.Address("udp", host, port), (host, free_port()))
            peer.send(b"hello")
            await until(lambda: channels)
            peer.close()
            channel = channels[0]
            assert await channel.recv() == b"hello"
            await channel.send(b"one")
            await until(lambda: channels[0].readiness[0])
            with pytest.raises(portico.DeliveryError, match="refused") as caught:
                await channel.send(b"two")
            assert caught.value.address == channel.remote_address
            assert channel.state is portico.State.OPEN
            channel.abort()


@scenario(on=["uvloop", "asyncio"])
async def test_errors_for_many_peers_at_once_reach_their_own() -> None:
    failed: list[Any] = []
    channels: list[Any] = []

    async def talk(channel: Any) -> None:
        channels.append(channel)
        try:
            await wait_for_end(channel)
        except portico.DeliveryError as error:
            failed.append((channel.remote_address, error.address))

    async with portico.serve(talk, UDP) as server, peers_of(server.address, 100) as peers:
        for each in peers:
            each.send(b"hello")
        await until(lambda: len(channels) == 100)
        for each in peers[::2]:
            each.close()
        for channel in channels:
            channel.send(b"x")
        await until(lambda: server.stats.open == 50)
        assert len(failed) == 50 and all(one == other for one, other in failed)
        assert [await each.recv() for each in peers[1::2]] == [b"x"] * 50
        assert await idle_cpu() < 0.1


@scenario(on=EVERYWHERE)
async def test_a_unix_peer_that_is_gone_is_a_delivery_error(tmp_path: Path) -> None:
    failed: list[Any] = []

    async def talk(channel: Any) -> None:
        await channel.recv()
        gone.close()
        channel.send(b"to nobody")
        with pytest.raises(portico.DeliveryError) as caught:
            await channel.recv()
        failed.append(caught.value)

    async with portico.serve(talk, f"unixgram:{tmp_path}/server.sock") as server:
        gone = peer_of(server.address)
        address = gone.address
        gone.send(b"hello")
        await until(lambda: failed)
        assert failed[0].errno == errno.ECONNREFUSED and failed[0].address == address


# Nothing spins.


@pytest.mark.parametrize("place", ["udp://127.0.0.1:0", "unixgram:{dir}/s", "unixpacket:{dir}/s"])
@scenario(on=EVERYWHERE)
async def test_peers_who_are_paused_cost_no_processor(place: str, tmp_path: Path) -> None:
    """The channel's queue is full, and so is the kernel's."""
    limits = portico.Limits(read_buffer=1000)

    async def deaf(channel: Any) -> None:
        await channel.draining

    async with portico.serve(deaf, place.format(dir=tmp_path), limits=limits) as server:
        async with portico.connect(server.address, high_water=1 << 20) as client:
            for _ in range(100):
                client.send(b"x" * 5000)
            await until(lambda: server.stats.open == 1)
            assert await idle_cpu() < 0.1
            client.abort()
            assert await idle_cpu() < 0.1


@pytest.mark.parametrize("paused", [False, True])
@scenario(on=EVERYWHERE)
async def test_a_seqpacket_peer_that_is_half_dead_costs_no_processor(paused: bool, tmp_path: Path) -> None:
    """It has closed (EPOLLHUP stays) while nobody receives here, or while reading is paused."""

    async def deaf(channel: Any) -> None:
        await channel.draining

    async with portico.serve(deaf, f"unixpacket:{tmp_path}/s", limits=portico.Limits(read_buffer=1000)) as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(f"{tmp_path}/s")
            for _ in range(20 if paused else 1):
                sock.send(b"x" * 500)
            await until(lambda: server.stats.open == 1 and server.stats.messages_received)
        assert await idle_cpu() < 0.1


@scenario(on=EVERYWHERE)
async def test_an_error_that_nobody_takes_costs_no_processor() -> None:
    probe = peer_of(None)
    nobody = probe.address
    probe.close()
    async with portico.connect(nobody) as channel:
        await channel.send(b"to nobody")
        assert await idle_cpu() < 0.1
        with pytest.raises(portico.DeliveryError):
            await channel.recv()


@scenario(on=EVERYWHERE)
async def test_a_server_of_peers_at_rest_costs_no_processor() -> None:
    async with portico.serve(echo, UDP) as server, peers_of(server.address, 50) as peers:
        for each in peers:
            assert await each.ask(b"x") == b"x"
        assert await idle_cpu() < 0.05
        await asyncio.sleep(0)
