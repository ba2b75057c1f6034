"""Limits: each one holds, is counted, and gives way again."""

import asyncio
import math
import socket

import pytest

import portico
from portico import Limits
from portico.errors import ConfigurationError
from portico.server.admission import MAX_REMEMBERED, AddressRule, Admission, packed_host
from portico.transports.sockaddr import packed_sockaddr

from .support import (
    EVERYWHERE,
    NATIVE,
    Certificates,
    certificates,
    client_of,
    clients,
    echo,
    scenario,
    until,
    wait_for_end,
)

ANYWHERE = "tcp://127.0.0.1:0"
__all__ = ["certificates"]


# The settings.


@pytest.mark.parametrize(
    "setting",
    [
        {"max_connections": 0},
        {"max_connections": 1.5},
        {"max_per_address": True},
        {"accept_rate": math.nan},
        {"accept_rate": "fast"},
        {"idle_timeout": -1},
        {"close_timeout": None},
        {"read_buffer": None},
        {"when_full": "drop"},
        {"refusal": "full"},
        {"max_fds": 254},
        {"max_fds": -1},
        {"max_fds": "3"},
        {"max_fds": None},
        {"max_fds": True},
        {"trust_loopback": "no"},
        {"trust_loopback": 1},
    ],
)
def test_a_limit_that_cannot_work_is_refused_by_name(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(setting))):
        Limits(**setting)  # type: ignore[arg-type]


def test_limits_come_from_a_mapping_and_unknown_ones_are_named() -> None:
    assert Limits.of({"max_connections": 5, "idle_timeout": 1.5}) == Limits(max_connections=5, idle_timeout=1.5)
    with pytest.raises(ConfigurationError, match="max_conections"):
        Limits.of({"max_conections": 5})


def test_every_limit_can_be_switched_off_but_those_that_bound_memory() -> None:
    off = Limits(
        max_connections=None, max_per_address=None, accept_rate=None, accept_burst=None, handshake_timeout=None
    )
    off = Limits(idle_timeout=None, message_timeout=None, send_timeout=None, max_handshakes=None)
    assert off.settings().idle_timeout == math.inf


def test_defaults_are_safe_on_the_open_internet() -> None:
    limits = Limits()
    finite = (
        "max_connections",
        "max_per_address",
        "accept_rate",
        "handshake_timeout",
        "idle_timeout",
        "max_handshakes",
    )
    assert all(getattr(limits, name) for name in (*finite, "message_timeout", "send_timeout", "max_unsent"))


# Connections at a time.


@scenario(on=EVERYWHERE)
async def test_reject_answers_and_closes_what_is_over_max_connections() -> None:
    limits = Limits(max_connections=2, when_full="reject", refusal=b"server is full\r\n")
    async with portico.serve(echo, ANYWHERE, limits=limits) as server, clients(server.address, 2) as (one, two):
        await one.ask(b"one")
        await two.ask(b"two")
        async with clients(server.address) as (third,):
            assert await third.recv_all() == b"server is full\r\n"
        assert (server.stats.rejected_full, server.stats.rejected, server.stats.open) == (1, 1, 2)
        two.close()
        await until(lambda: server.stats.open == 1)
        async with clients(server.address) as (fourth,):
            await fourth.ask(b"there is room again")
        await one.ask(b"and I was left alone")


@scenario(on=EVERYWHERE)
async def test_pause_lets_what_is_over_max_connections_wait() -> None:
    limits = Limits(max_connections=2)
    async with portico.serve(echo, ANYWHERE, limits=limits) as server, clients(server.address, 2) as (one, two):
        await one.ask(b"one")
        await two.ask(b"two")
        async with clients(server.address) as (third,):
            await third.send(b"me, too")
            await one.ask(b"still served")
            assert (server.stats.open, server.stats.accepted, server.stats.paused) == (2, 2, 1)
            two.close()
            assert await third.recv_exactly(7) == b"me, too"
            assert server.stats.rejected == 0


@scenario(on=["uvloop"])
@pytest.mark.parametrize("when_full", ["reject", "pause"])
async def test_memory_listeners_hold_their_limits_too(when_full: str) -> None:
    limits = Limits(max_connections=1, when_full=when_full, refusal=b"full")  # type: ignore[arg-type]
    async with portico.serve(echo, "mem:limited", limits=limits) as server:
        one = await portico.connect("mem:limited")
        other = await portico.connect("mem:limited")
        await other.send(b"x")
        await one.send(b"one")
        assert await one.recv() == b"one"
        if when_full == "reject":
            assert await other.recv() == b"full" and await other.recv() == b""
            assert server.stats.rejected_full == 1
        else:
            await one.close()
            assert await other.recv() == b"x"
        await one.close()
        await other.close()
    async with portico.serve(echo, "mem:limited", deny=["any"]) as server:
        async with portico.connect("mem:limited") as refused:
            assert await refused.recv() == b""
        assert server.stats.rejected_denied == 1


@scenario(on=["uvloop"])
async def test_the_counts_of_two_listeners_are_apart_and_add_up() -> None:
    service = portico.Service(limits=Limits(max_connections=1, when_full="reject"))
    service.listen(ANYWHERE, echo).listen(ANYWHERE, echo, limits=Limits(max_connections=2, when_full="reject"))
    async with (
        portico.serve(service) as server,
        clients(server.addresses[0]) as (one,),
        clients(server.addresses[1], 2) as (two, three),
    ):
        for each in (one, two, three):
            await each.ask(b"in")
        for address in server.addresses:
            async with clients(address) as (refused,):
                assert await refused.is_over()
        assert (server.stats.open, server.stats.rejected_full) == (3, 2)
        assert [each.stats.open for each in server.listeners] == [1, 2]
        assert server.stats.as_dict()["bytes_received"] == 6


# By address.


@scenario(on=NATIVE)
async def test_max_per_address_counts_each_address_alone() -> None:
    limits = Limits(max_per_address=2, trust_loopback=False, refusal=b"too many\n")
    async with portico.serve(echo, ANYWHERE, limits=limits) as server, clients(server.address, 2) as (one, two):
        await one.ask(b"one")
        await two.ask(b"two")
        async with clients(server.address) as (third,):
            assert await third.recv_all() == b"too many\n"
        assert server.stats.rejected_address == 1
        neighbour = await client_of(server.address, source="127.0.0.2")
        await neighbour.ask(b"from elsewhere")
        neighbour.close()
        two.close()
        await until(lambda: server.stats.open == 1)
        async with clients(server.address) as (fourth,):
            await fourth.ask(b"room again")
    assert not server.listeners[0].admission.counts


@scenario(on=["uvloop"])
async def test_loopback_is_trusted_unless_told_otherwise() -> None:
    limits = Limits(max_per_address=1, accept_rate=1, accept_burst=1)
    async with portico.serve(echo, ANYWHERE, limits=limits) as server, clients(server.address, 5) as many:
        for each in many:
            await each.ask(b"in")
        assert server.stats.rejected == 0


@scenario(on=NATIVE)
async def test_the_accept_rate_lets_a_burst_through_and_then_so_many_a_second() -> None:
    limits = Limits(accept_rate=20, accept_burst=3, trust_loopback=False)
    async with portico.serve(echo, ANYWHERE, limits=limits) as server:
        async with clients(server.address, 4) as many:
            for each in many[:3]:
                await each.ask(b"in")
            assert await many[3].is_over()
            assert server.stats.rejected_rate == 1
            neighbour = await client_of(server.address, source="127.0.0.2")
            await neighbour.ask(b"from elsewhere")
            neighbour.close()

        async def comes_in() -> bool:
            async with clients(server.address) as (late,):
                try:
                    return await late.ask(b"in") == b"in"
                except (EOFError, ConnectionError):
                    return False

        async with asyncio.timeout(5):
            while not await comes_in():
                await asyncio.sleep(0.01)


def admission(**limits: object) -> Admission:
    return Admission(Limits(trust_loopback=False, **limits), portico.Stats(), None, None)  # type: ignore[arg-type]


def test_an_ipv6_customer_is_a_64() -> None:
    gate = admission(max_per_address=1, accept_rate=None)
    one, same, other = (
        socket.inet_pton(socket.AF_INET6, each) for each in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")
    )
    assert gate.admit(one, -1) and not gate.admit(same, -1) and gate.admit(other, -1)
    gate.release(one)
    assert gate.admit(same, -1)


def test_exactly_the_burst_comes_through_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("portico.server.admission.time.monotonic", lambda: now[0])
    for burst, rate in ((1, 1.0), (3, 0.7), (500, 100.0)):
        gate = admission(accept_rate=rate, accept_burst=burst, max_per_address=None)
        assert sum(gate.admit(b"\1\2\3\4", -1) for _ in range(2 * burst + 1)) == burst
        now[0] += 2 / rate
        assert sum(gate.admit(b"\1\2\3\4", -1) for _ in range(2 * burst + 1)) == min(2, burst)
        now[0] += 1e6


def test_what_is_remembered_of_rates_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = admission(accept_rate=0.001, accept_burst=2, max_per_address=None)
    busy = b"\xff\xff\xff\xff"
    assert gate.admit(busy, -1) and gate.admit(busy, -1) and not gate.admit(busy, -1)
    for number in range(MAX_REMEMBERED + 10):
        gate.admit(number.to_bytes(4, "big"), -1)
    assert len(gate.expected) <= MAX_REMEMBERED
    assert not gate.admit(busy, -1)  # not the one that came most


# Who may come in.


def test_the_peer_is_read_from_the_kernels_address() -> None:
    assert packed_host(packed_sockaddr(socket.AF_INET, ("192.0.2.7", 80))) == bytes([192, 0, 2, 7])
    mapped = packed_sockaddr(socket.AF_INET6, ("::ffff:192.0.2.7", 80, 0, 0))
    assert packed_host(mapped) == bytes([192, 0, 2, 7])
    assert packed_host(packed_sockaddr(socket.AF_INET6, ("2001:db8::1", 80, 0, 0))) == socket.inet_pton(
        socket.AF_INET6, "2001:db8::1"
    )
    assert packed_host(packed_sockaddr(socket.AF_UNIX, b"\0name")) == b""


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        ("10.0.0.0/8", "10.1.2.3", "11.1.2.3"),
        ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
        ("2001:db8::/32", "2001:db8::1", "2001:db9::1"),
        ("10.0.0.0/8", "10.1.2.3", "2001:db8::1"),
        ("loopback", "127.3.2.1", "10.0.0.1"),
        ("loopback", "::1", "::2"),
        ("private", "192.168.1.1", "1.1.1.1"),
        ("private", "fd00::1", "2606:4700::1"),
    ],
)
def test_rules_know_networks_and_words(rule: str, inside: str, outside: str) -> None:
    def packed(host: str) -> bytes:
        return socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)

    for gate, first in (
        (Admission(Limits(), portico.Stats(), [rule], None), True),
        (Admission(Limits(), portico.Stats(), None, [rule]), False),
    ):
        assert gate.permits(packed(inside), -1) is first
        assert gate.permits(packed(outside), -1) is not first


@pytest.mark.parametrize(
    "rule", ["10.0.0.1/8", "lan", "", "user:", "uid:root", "user:nobody-has-this-name", "300.0.0.0/8"]
)
def test_a_rule_that_is_none_says_what_is(rule: str) -> None:
    with pytest.raises(ConfigurationError, match="allow/deny"):
        AddressRule(rule)
    with pytest.raises(ConfigurationError, match="allow/deny"):
        portico.Service().listen(ANYWHERE, echo, allow=[rule])


@scenario(on=EVERYWHERE)
async def test_deny_comes_before_allow() -> None:
    rules = {"allow": ["loopback"], "deny": ["127.0.0.2/32"]}
    async with portico.serve(echo, ANYWHERE, limits=Limits(refusal=b"no\n"), **rules) as server:
        async with clients(server.address) as (welcome,):
            await welcome.ask(b"in")
        refused = await client_of(server.address, source="127.0.0.2")
        assert await refused.recv_all() == b"no\n"
        refused.close()
        assert server.stats.rejected_denied == 1
    async with portico.serve(echo, ANYWHERE, allow=["192.0.2.0/24"]) as server, clients(server.address) as (client,):
        assert await client.is_over()


@scenario(on=EVERYWHERE)
async def test_unix_peers_are_checked_by_their_credentials(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import os
    import pwd

    user = pwd.getpwuid(os.getuid()).pw_name
    for number, (rules, comes_in) in enumerate(
        [
            ({"allow": [f"uid:{os.getuid()}"]}, True),
            ({"allow": [f"user:{user}"]}, True),
            ({"allow": [f"gid:{os.getgid()}"]}, True),
            ({"allow": ["uid:54321"]}, False),
            ({"deny": [f"user:{user}"]}, False),
            ({"allow": ["loopback"]}, True),
            ({"allow": ["10.0.0.0/8"]}, False),
        ]
    ):
        async with (
            portico.serve(echo, f"unix:{tmp_path}/{number}.sock", **rules) as server,
            clients(server.address) as (client,),
        ):
            if comes_in:
                await client.ask(b"in")
            else:
                assert await client.is_over()
                assert server.stats.rejected_denied == 1


# Deadlines, and memory.


@scenario(on=EVERYWHERE)
async def test_idle_message_and_send_timeouts_close_and_are_counted() -> None:
    limits = Limits(idle_timeout=0.1, close_timeout=0.1)
    async with portico.serve(wait_for_end, ANYWHERE, limits=limits) as server, clients(server.address) as (client,):
        assert await client.is_over()
        client.close()
        await until(lambda: server.stats.open == 0)
        assert server.stats.timeouts == 1 and server.stats.handler_errors == 0
    limits = Limits(message_timeout=0.1, close_timeout=0.1)
    async with (
        portico.serve(wait_for_end, ANYWHERE, codec=portico.Lines(), limits=limits) as server,
        clients(server.address) as (client,),
    ):
        await client.send(b"whole\n")
        await client.send(b"ha")
        assert await client.is_over()
        assert server.stats.timeouts == 1 and server.stats.messages_received == 1

    async def flood(stream: portico.Stream) -> None:
        while True:
            await stream.send(b"x" * 65536)

    limits = Limits(send_timeout=0.1, close_timeout=0.1)
    async with portico.serve(flood, ANYWHERE, limits=limits) as server, clients(server.address):
        await until(lambda: server.stats.closed == 1 and not server.listeners[0].sessions)
        assert (server.stats.timeouts, server.stats.peer_errors, server.stats.handler_errors) == (1, 1, 0)


@scenario(on=["uvloop"])
async def test_active_connections_outlive_the_idle_timeout() -> None:
    limits = Limits(idle_timeout=0.2)
    async with portico.serve(echo, ANYWHERE, limits=limits) as server, clients(server.address) as (client,):
        for _ in range(8):
            await client.ask(b"tick")
            await asyncio.sleep(0.05)
        assert server.stats.timeouts == 0


@scenario(on=["uvloop"])
async def test_a_handler_that_never_awaits_send_meets_max_unsent() -> None:
    told: list[BaseException] = []

    async def flood(stream: portico.Stream) -> None:
        try:
            while True:
                stream.send(b"x" * 65536)
        except portico.LimitError as error:
            told.append(error)

    limits = Limits(max_unsent=1 << 20, close_timeout=0.1)
    async with portico.serve(flood, ANYWHERE, limits=limits) as server, clients(server.address):
        await until(lambda: server.stats.closed == 1)
    assert told and "max_unsent" in str(told[0])


@scenario(on=EVERYWHERE)
async def test_max_handshakes_pauses_and_goes_on(certificates: Certificates) -> None:
    limits = Limits(max_handshakes=1, handshake_timeout=0.2)
    async with (
        portico.serve(echo, "tls://127.0.0.1:0", tls=certificates.server(), limits=limits) as server,
        clients(server.address) as (silent,),
    ):
        await until(lambda: server.stats.handshakes == 1 and server.stats.paused == 1)
        async with portico.connect(server.address, tls=certificates.client()) as stream:
            await stream.send(b"hello")
            assert await stream.recv() == b"hello"
        assert server.stats.handshakes_failed == 1
        await silent.recv_all()
