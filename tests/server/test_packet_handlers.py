"""`service.listen(..., packets=handler)`: every packet of a socket goes to one handler, in order."""

import asyncio
import functools
import logging
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

import portico

from .packet_kit import UDP, idle_cpu, peer_of, peers_of
from .support import EVERYWHERE, echo, scenario, until

Packet, Datagrams = portico.Packet, portico.Datagrams
PLACES = ("udp://127.0.0.1:0", "udp://[::1]:0", "udp://*:0", "unixgram:{dir}/server.sock")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may open such sockets")


def serve(handler: Any, place: str = UDP, **settings: Any) -> Any:
    return portico.serve(portico.Service().listen(place, packets=handler, **settings))


async def answer(packet: portico.Packet, datagrams: portico.Datagrams) -> None:
    await datagrams.send(packet.data.upper(), to=packet)


@pytest.mark.parametrize("place", PLACES)
@scenario(on=EVERYWHERE)
async def test_every_packet_is_handed_over_and_can_be_answered(place: str, tmp_path: Path) -> None:
    async with serve(answer, place.format(dir=tmp_path)) as server:
        address = server.address
        if address.is_wildcard:
            address = portico.Address("udp", "::1", address.port)
        source = ("::1", 0) if address.host == "::1" else ("127.0.0.1", 0)
        peers = [peer_of(address, source) for _ in range(3)]
        for each in peers:
            assert await each.ask(b"hello") == b"HELLO"
            each.close()
        assert server.stats.messages_received == 3 and server.stats.open == 1


@scenario(on=EVERYWHERE)
async def test_packets_come_one_by_one_and_in_order() -> None:
    got: list[bytes] = []
    busy = False

    async def slow(packet: portico.Packet, datagrams: portico.Datagrams) -> None:
        nonlocal busy
        assert not busy
        busy = True
        await asyncio.sleep(0)
        got.append(packet.data)
        busy = False

    async with serve(slow) as server, peers_of(server.address) as (peer,):
        for number in range(100):
            peer.send(b"%d" % number)
        await until(lambda: len(got) == 100)
        assert got == [b"%d" % number for number in range(100)]


@scenario(on=EVERYWHERE, errors=True)
async def test_an_error_of_the_handler_is_logged_and_the_next_packet_comes(caplog: pytest.LogCaptureFixture) -> None:
    async def touchy(packet: portico.Packet, datagrams: portico.Datagrams) -> None:
        if packet.data.startswith(b"bad"):
            raise KeyError(packet.data.decode())
        await datagrams.send(packet.data, to=packet)

    with caplog.at_level(logging.ERROR, "portico.server"):
        async with serve(touchy) as server, peers_of(server.address) as (peer,):
            for number in range(3):
                peer.send(b"bad %d" % number)
                assert await peer.ask(b"good %d" % number) == b"good %d" % number
            assert server.stats.handler_errors == 3 and server.stats.open == 1
    assert [record.getMessage().count("bad") for record in caplog.records] == [1, 1, 1]


@scenario(on=EVERYWHERE)
async def test_an_answer_that_cannot_be_delivered_is_counted_and_the_next_packet_comes() -> None:
    async def handler(packet: portico.Packet, datagrams: portico.Datagrams) -> None:
        await datagrams.send(b"x" * 70_000 if packet.data == b"large" else packet.data, to=packet)

    async with serve(handler) as server, peers_of(server.address) as (peer,):
        peer.send(b"large")
        await until(lambda: server.stats.protocol_errors == 1)
        gone = peer_of(server.address)
        gone.send(b"to nobody")
        gone.close()
        for number in range(5):
            assert await peer.ask(b"%d" % number) == b"%d" % number
        assert server.stats.handler_errors == 0


@scenario(on=EVERYWHERE)
async def test_whatever_is_callable_is_a_handler() -> None:
    class Handler:
        async def __call__(self, packet: portico.Packet, datagrams: portico.Datagrams) -> None:
            await answer(packet, datagrams)

    def plain(packet: portico.Packet, datagrams: Any) -> None:
        assert threading.current_thread() is not threading.main_thread()
        datagrams.send(packet.data.upper(), to=packet)

    for handler in (Handler(), functools.partial(answer), plain):
        async with serve(handler) as server, peers_of(server.address) as (peer,):
            for number in range(5):
                assert await peer.ask(b"no %d" % number) == b"NO %d" % number


@scenario(on=EVERYWHERE)
async def test_packets_are_allowed_and_denied_by_address() -> None:
    async with serve(answer, allow=["127.0.0.0/24"], deny=["127.0.0.66"]) as server:
        for source, answered in (("127.0.0.5", True), ("127.0.0.66", False), ("127.9.9.9", False)):
            peer = peer_of(server.address, (source, 0))
            denied = server.stats.rejected_denied
            if answered:
                assert await peer.ask(b"x") == b"X"
            else:
                peer.send(b"x")
                await until(lambda denied=denied: server.stats.rejected_denied == denied + 1)  # type: ignore[misc]
            peer.close()


@scenario(on=EVERYWHERE)
async def test_a_flood_is_left_to_the_kernel_which_counts_what_it_drops() -> None:
    go_on = asyncio.Event()
    handled = 0

    async def blocked(packet: portico.Packet, datagrams: portico.Datagrams) -> None:
        nonlocal handled
        await go_on.wait()
        handled += 1

    async with serve(blocked, options={"receive_buffer": 4096}) as server, peers_of(server.address) as (peer,):
        for _ in range(6000):
            peer.send(b"x")
        await asyncio.sleep(0.01)
        assert await idle_cpu() < 0.1
        native = server.listeners[0]._hub.native_sockets
        assert server.stats.packets_dropped > 1000 or not native
        go_on.set()
        await until(lambda: handled == server.stats.messages_received)
        assert handled + server.stats.packets_dropped == 6000 or not native


@pytest.mark.parametrize("end", ["close", "drain"])
@scenario(on=EVERYWHERE)
async def test_what_was_received_before_the_end_is_handled_and_answered(end: str) -> None:
    go_on = asyncio.Event()
    drained: list[bool] = []

    async def slow(packet: portico.Packet, datagrams: portico.Datagrams) -> None:
        await go_on.wait()
        drained.append(bool(datagrams.draining))
        await datagrams.send(packet.data, to=packet)

    server = await serve(slow)
    async with peers_of(server.address) as (peer,):
        for number in range(5):
            peer.send(b"%d" % number)
        await until(lambda: server.stats.messages_received == 5)
        if end == "close":
            server.close()
        else:
            draining = asyncio.ensure_future(server.drain(5))
            await until(lambda: server.draining)
        for _ in range(20):
            peer.send(b"too late")
        go_on.set()
        assert [await peer.recv() for _ in range(5)] == [b"%d" % number for number in range(5)]
        await server.wait_closed()
        if end == "drain":
            await draining
        assert drained == [end == "drain"] * 5
        assert server.stats.open == 0 and server.stats.aborted == 0


@scenario(on=EVERYWHERE)
async def test_a_handler_that_does_not_end_in_time_is_aborted() -> None:
    async def hangs(packet: portico.Packet, datagrams: portico.Datagrams) -> None:
        await asyncio.Event().wait()

    for end in ("drain", "abort"):
        server = await serve(hangs)
        async with peers_of(server.address) as (peer,):
            peer.send(b"x")
            await until(lambda server=server: server.stats.messages_received)  # type: ignore[misc]
            await (server.drain(0.05) if end == "drain" else server.abort())
            assert server.stats.aborted == 1 and server.stats.open == 0


@scenario(on=EVERYWHERE)
async def test_a_drain_of_a_server_at_rest_is_at_once() -> None:
    server = await serve(answer)
    async with asyncio.timeout(1):
        await server.drain(30)
    assert server.stats.aborted == 0


@pytest.mark.parametrize("as_number", [False, True])
@scenario(on=EVERYWHERE)
async def test_a_socket_that_is_bound_already(as_number: bool) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    async with serve(answer, sock.detach() if as_number else sock) as server:  # type: ignore[arg-type]
        async with peers_of(server.address) as (peer,):
            assert await peer.ask(b"hello") == b"HELLO"


@scenario(on=EVERYWHERE)
async def test_packets_and_peers_and_streams_in_one_service() -> None:
    service = portico.Service().listen(UDP, packets=answer).listen(UDP, echo).listen("tcp://127.0.0.1:0", echo)
    async with portico.serve(service) as server:
        packets, peers, stream = server.addresses
        one, other = peer_of(packets), peer_of(peers)
        assert await one.ask(b"x") == b"X" and await other.ask(b"x") == b"x"
        async with portico.connect(stream) as client:
            await client.send(b"x")
            assert await client.recv() == b"x"
        one.close()
        other.close()


# Sockets of privileged programs.


@root_only
@scenario(on=EVERYWHERE)
async def test_raw_ip_packets_are_served() -> None:
    got: list[portico.Packet] = []

    async def handler(packet: portico.Packet, datagrams: portico.Datagrams) -> None:
        got.append(packet)

    async with serve(handler, "raw://127.0.0.1:253") as server:
        assert server.address == portico.Address("raw", "127.0.0.1", 253)
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as sock:
            sock.sendto(b"experiment", ("127.0.0.1", 0))
        await until(lambda: got)
        assert got[0].data.endswith(b"experiment") and got[0].address.host == "127.0.0.1"


@root_only
@scenario(on=EVERYWHERE)
async def test_frames_of_the_link_layer_are_served() -> None:
    got: list[bytes] = []

    async def handler(packet: portico.Packet, datagrams: portico.Datagrams) -> None:
        if b"seen by many" in packet.data:
            got.append(packet.data)

    async with serve(handler, "packet://lo:ip") as server, serve(answer) as other:
        assert server.address.scheme == "packet"
        async with peers_of(other.address) as (peer,):
            while not got:  # the kernel drops frames when others flood `lo`
                assert await peer.ask(b"seen by many") == b"SEEN BY MANY"
                await asyncio.sleep(0.01)
