"""Announcing and browsing on loopback: two sides of this library, and packets that are none."""

import asyncio
import contextlib
import itertools
import os
import random
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from zeroconf import DNSOutgoing, DNSPointer, DNSService, DNSText
from zeroconf.const import _CLASS_IN, _FLAGS_QR_RESPONSE, _TYPE_PTR, _TYPE_SRV, _TYPE_TXT

import portico
from portico import Address, discovery
from portico.discovery import Found, Lost, browsing
from server.support import echo, scenario, until

NEAR = ["lo"]
GROUP = ("224.0.0.251", 5353)

numbers = itertools.count()


def a_type(protocol: str = "tcp") -> str:
    """A service type that no other test uses, in no other process either."""
    return f"_p{os.getpid():x}-{next(numbers):x}._{protocol}"


async def upcoming(changes: discovery.Browser) -> Found | Lost:
    return await asyncio.wait_for(anext(changes), 10)


@contextlib.asynccontextmanager
async def announced(what: Any, kind: str, **settings: Any) -> AsyncIterator[discovery.Announcement]:
    async with portico.discovery.announce(what, kind, interfaces=NEAR, **settings) as it:
        yield it


@scenario()
async def test_a_server_that_is_announced_is_found_and_connected_to() -> None:
    kind = a_type()
    async with portico.serve(echo, "tcp://127.0.0.1:0") as server:
        async with announced(server, kind, name="the echo", properties={"note": "ä", "flag": None}) as it:
            assert (it.name, it.names, it.interfaces) == ("the echo", ("the echo",), ("lo",))
            found = await discovery.find(kind, "THE echo", interfaces=NEAR)
            assert (found.name, found.type, found.interface) == ("the echo", kind, "lo")
            assert found.addresses == (server.address,) and found.host.endswith(".local")
            assert found.properties == {"scheme": "tcp", "note": "ä", "flag": None}
            async with found.connect(codec=portico.Lines()) as channel:
                await channel.send("hello")
                assert await channel.recv() == "hello"
            assert kind in await discovery.service_types(timeout=2, interfaces=NEAR)


@scenario()
async def test_who_watches_is_told_what_comes_and_what_goes() -> None:
    kind = a_type()
    async with discovery.browse(kind, interfaces=NEAR) as changes:
        async with announced("tcp://127.0.0.1:7", kind, name="a"):
            came = await upcoming(changes)
            assert isinstance(came, Found) and came.name == "a" and changes.services == [came]
        gone = await upcoming(changes)  # at once: leaving says good-bye
        assert gone == Lost(came) and gone.name == "a" and changes.services == []


@scenario(on=["uvloop"])
async def test_a_name_that_is_taken_becomes_another() -> None:
    kind = a_type()
    async with (
        announced("tcp://127.0.0.1:7", kind, name="a") as first,
        announced("tcp://127.0.0.1:8", kind, name="a") as it,
    ):
        assert (first.name, it.name) == ("a", "a-2")
        assert (await discovery.find(kind, "a-2", interfaces=NEAR)).address.port == 8
        assert (await discovery.find(kind, "a", interfaces=NEAR)).address.port == 7


@scenario(on=["uvloop"])
async def test_each_door_of_a_server_is_a_service_and_what_does_not_fit_is_left_out() -> None:
    kind = a_type()
    doors = [
        "tcp://127.0.0.1:7",
        "tcp://127.0.0.1:8",
        "tcp://127.0.0.1:9",
        "tls://[::1]:7",
        "udp://127.0.0.1:7",
        "unix:x",
    ]
    async with announced(doors, kind, name="a") as it:
        assert it.names == ("a", "a (tcp)", "a (tcp 9)", "a (tls)")
        async with discovery.browse(kind, interfaces=NEAR) as changes:
            there = [await upcoming(changes) for _ in it.names]
        addresses = {str(one.addresses[0]) for one in there if isinstance(one, Found)}
        assert addresses == {"tcp://127.0.0.1:7", "tcp://127.0.0.1:8", "tcp://127.0.0.1:9", "tls://[::1]:7"}


@scenario(on=["uvloop"])
async def test_packets_are_announced_under_udp() -> None:
    kind = a_type("udp")
    async with announced(["udp://localhost:7", "tcp://localhost:7"], kind):
        found = await discovery.find(kind, interfaces=NEAR)
    assert {each.scheme for each in found.addresses} == {"udp"} and Address("udp", "127.0.0.1", 7) in found.addresses


@scenario(on=["uvloop"])
async def test_a_listener_on_loopback_is_announced_there_alone_without_being_told() -> None:
    async with discovery.announce("tcp://127.0.0.1:7", a_type()) as it:
        assert it.interfaces == ("lo",)


@scenario()
async def test_what_nobody_announces_is_not_found_in_time() -> None:
    kind = a_type()
    with pytest.raises(portico.ResolveError) as raised:
        await discovery.find(kind, timeout=0.1, interfaces=NEAR)
    assert str(raised.value) == f"cannot resolve '{kind}': nobody on this network announced it within 0.1 s"
    async with discovery.browse(kind, timeout=0.1, interfaces=NEAR) as changes:
        assert [each async for each in changes] == []


@scenario()
@pytest.mark.parametrize("steps", [1, 3, 8, 30, 300])
async def test_cancelled_anywhere_announcing_leaves_nothing(steps: int) -> None:
    async def announce() -> None:
        async with announced("tcp://127.0.0.1:7", a_type()):
            await asyncio.sleep(60)

    task = asyncio.create_task(announce())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@scenario()
async def test_cancelled_while_it_says_good_bye_it_has_said_so_once() -> None:
    kind = a_type()
    async with discovery.browse(kind, interfaces=NEAR) as changes:
        leave, inside = asyncio.Event(), asyncio.Event()

        async def announce() -> None:
            async with announced("tcp://127.0.0.1:7", kind, name="a"):
                inside.set()
                await leave.wait()

        task = asyncio.create_task(announce())
        await inside.wait()
        assert isinstance(await upcoming(changes), Found)
        leave.set()
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(await upcoming(changes), Lost)


@scenario(on=["uvloop"])
@pytest.mark.parametrize("steps", [0, 2, 4])
async def test_a_loop_that_ends_and_cancels_every_task_leaves_no_socket(steps: int) -> None:
    inside = asyncio.Event()

    async def announce() -> None:
        async with announced("tcp://127.0.0.1:7", a_type()):
            inside.set()

    before = asyncio.all_tasks()
    task = asyncio.create_task(announce())
    await inside.wait()
    for _ in range(2):  # the second time while it closes
        for _ in range(steps):
            await asyncio.sleep(0)
        for each in asyncio.all_tasks() - before:
            each.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@scenario()
async def test_a_cancelled_wait_loses_no_change() -> None:
    kind, leave, cancelled = a_type(), asyncio.Event(), 0

    async def announce() -> None:
        async with announced("tcp://127.0.0.1:7", kind, name="a"):
            await leave.wait()

    async with discovery.browse(kind, interfaces=NEAR) as changes:
        announcing = asyncio.create_task(announce())
        while True:
            waiting = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            if not waiting.cancel():
                break
            await asyncio.wait([waiting])
            cancelled += 1
        assert cancelled > 0 and isinstance(waiting.result(), Found)
        leave.set()
        await announcing


@scenario(on=["uvloop"])
async def test_a_flood_of_services_is_told_of_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = a_type()
    monkeypatch.setattr(browsing, "MAX_SERVICES", 3)
    async with announced([f"tcp://127.0.0.1:{port}" for port in range(1, 7)], kind):
        async with discovery.browse(kind, timeout=3, interfaces=NEAR) as changes:
            assert len([each async for each in changes]) == 3


def response(kind: str, port: int) -> bytes:
    """An announcement of the service `bad` at 127.0.0.1, in one packet."""
    out = DNSOutgoing(_FLAGS_QR_RESPONSE)
    name = f"bad.{kind}.local."
    for record in (
        DNSPointer(f"{kind}.local.", _TYPE_PTR, _CLASS_IN, 120, name),
        DNSService(name, _TYPE_SRV, _CLASS_IN, 120, 0, 0, port, "bad.local."),
        DNSText(name, _TYPE_TXT, _CLASS_IN, 120, b"\x0bscheme=unix\x02\xff=\x00"),
    ):
        out.add_answer_at_time(record, 0)
    (packet,) = out.packets()
    return packet


@scenario(on=["uvloop"])
async def test_packets_that_are_cut_or_spoilt_anywhere_harm_nobody() -> None:
    kind = a_type()
    packet = response(kind, 7)
    dice = random.Random(kind)
    async with discovery.browse(kind, interfaces=NEAR) as changes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            for cut in range(len(packet)):
                sock.sendto(packet[:cut], GROUP)
            for _ in range(500):
                spoilt = bytearray(packet)
                spoilt[dice.randrange(2, len(packet))] = dice.randrange(256)
                sock.sendto(spoilt, GROUP)
                await asyncio.sleep(0)
        async with announced("tcp://127.0.0.1:7", kind, name="good"):
            change = await upcoming(changes)
            while change.name != "good":  # a packet may have been spoilt so that it makes sense
                change = await upcoming(changes)
        assert isinstance(change, Found) and change.addresses == (Address("tcp", "127.0.0.1", 7),)


@scenario(on=["uvloop"])
async def test_many_at_once_do_not_disturb_one_another() -> None:
    kind = a_type()
    async with announced("tcp://127.0.0.1:7", kind, name="a"):
        found = await asyncio.gather(*(discovery.find(kind, interfaces=NEAR) for _ in range(10)))
    assert {each.name for each in found} == {"a"}


@scenario()
async def test_an_announcement_of_a_server_that_drains_ends_with_it() -> None:
    kind = a_type()
    async with portico.serve(echo, "tcp://127.0.0.1:0") as server:
        async with announced(server, kind, name="a"), discovery.browse(kind, interfaces=NEAR) as changes:
            found = await upcoming(changes)
            assert isinstance(found, Found)
            async with found.connect() as stream:
                await server.drain(0)
                await until(lambda: stream.state is not portico.State.OPEN)
            with pytest.raises(portico.ConnectError):
                await found.connect(timeout=5)
