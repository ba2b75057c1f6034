"""Servers over sockets that keep packets apart: the handler that was written for TCP serves them, too."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

import portico
from portico.errors import ConfigurationError
from portico.server import packet_listener

from .packet_kit import UDP, Peer, counting, peer_of, peers_of
from .support import EVERYWHERE, Certificates, certificates, clients, echo, scenario, until

__all__ = ["certificates"]

PLACES = ("udp://127.0.0.1:0", "udp://[::1]:0", "unixgram:{dir}/server.sock", "unixpacket:{dir}/server.sock")
everyplace = pytest.mark.parametrize("place", PLACES)
QUICK = portico.Limits(idle_timeout=0.1)


@everyplace
@scenario(on=EVERYWHERE)
async def test_the_handler_written_for_tcp_serves_packets_unchanged(place: str, tmp_path: Path) -> None:
    async with portico.serve(echo, place.format(dir=tmp_path), codec=portico.Lines()) as server:
        async with portico.connect(server.address, codec=portico.Lines()) as client:
            for line in ("hello", "", "größer", "x" * 20_000):
                await client.send(line)
                assert await client.recv() == line
            assert server.stats.accepted == server.stats.open == 1


@everyplace
@scenario(on=EVERYWHERE)
async def test_a_plain_function_serves_packets_in_a_thread(place: str, tmp_path: Path) -> None:
    def handler(channel: Any) -> None:
        for line in channel:
            channel.send(line.upper())

    limits = portico.Limits(idle_timeout=0.2)
    async with portico.serve(handler, place.format(dir=tmp_path), codec=portico.Lines(), limits=limits) as server:
        async with portico.connect(server.address, codec=portico.Lines()) as client:
            for line in ("one", "two"):
                await client.send(line)
                assert await client.recv() == line.upper()
        await until(lambda: server.stats.closed == 1)


@everyplace
@scenario(on=EVERYWHERE)
async def test_a_group_reaches_everybody(place: str, tmp_path: Path) -> None:
    room: portico.Group[str] = portico.Group()

    async def chat(channel: Any) -> None:
        async with room.join(channel):
            async for text in channel:
                room.send(text, skip=channel)

    async with portico.serve(chat, place.format(dir=tmp_path), codec=portico.Lines()) as server:
        people: list[Any] = []
        for count in range(1, 5):
            people.append(await portico.connect(server.address, codec=portico.Lines()))
            await people[-1].send("I am here")
            await until(lambda count=count: len(room) == count)  # type: ignore[misc]
            for each in people[:-1]:
                assert await each.recv() == "I am here"
        await people[0].send("hello all")
        for each in people[1:]:
            assert await each.recv() == "hello all"
        for each in people:
            each.abort()


@scenario(on=EVERYWHERE)
async def test_tcp_tls_unix_udp_and_seqpacket_people_are_in_one_room(
    tmp_path: Path, certificates: Certificates
) -> None:
    room: portico.Group[str] = portico.Group()

    async def chat(channel: Any) -> None:
        async with room.join(channel):
            async for text in channel:
                room.send(text, skip=channel)

    service = portico.Service()
    lines = portico.Lines()
    for number, place in enumerate(("tcp://127.0.0.1:0", "unix:{dir}/server.sock", *PLACES)):
        (tmp_path / str(number)).mkdir()
        service.listen(place.format(dir=tmp_path / str(number)), chat, codec=lines)
    service.listen("tls://127.0.0.1:0", chat, codec=lines, tls=certificates.server())
    async with portico.serve(service) as server:
        addresses = server.addresses
        assert {each.scheme for each in addresses} == {"tcp", "tls", "unix", "udp", "unixgram", "unixpacket"}
        people = []
        for count, address in enumerate(addresses, 1):
            tls = certificates.client() if address.scheme == "tls" else None
            people.append(await portico.connect(address, codec=lines, tls=tls))
            await people[-1].send("in")
            await until(lambda count=count: len(room) == server.stats.messages_received == count)  # type: ignore[misc]
            for each in people[:-1]:
                assert await each.recv() == "in"
        for speaker in people:
            await speaker.send(f"from {speaker.remote_address.scheme}")
            for each in people:
                if each is not speaker:
                    assert await each.recv() == f"from {speaker.remote_address.scheme}"
        assert server.stats.open == len(people)
        for each in people:
            each.abort()


# A channel for each remote address.


@scenario(on=EVERYWHERE)
async def test_each_remote_address_has_a_channel_of_its_own() -> None:
    channels: list[Any] = []
    async with portico.serve(counting(channels, echo), UDP) as server, peers_of(server.address, 20) as peers:
        for round_ in range(3):
            for number, each in enumerate(peers):
                each.send(b"%d of %d" % (round_, number))
            for number, each in enumerate(peers):
                assert await each.recv() == b"%d of %d" % (round_, number)
        assert len(channels) == server.stats.open == server.stats.accepted == 20
        assert [each.remote_address for each in channels] == [each.address for each in peers]
        assert {each.local_address for each in channels} == {server.address}


@scenario(on=EVERYWHERE)
async def test_an_idle_peer_ends_and_its_next_packet_begins_a_new_channel() -> None:
    channels: list[Any] = []
    async with portico.serve(counting(channels, echo), UDP, limits=QUICK) as server:
        async with peers_of(server.address) as (peer,):
            for life in range(1, 4):
                assert await peer.ask(b"hello") == b"hello"
                assert len(channels) == life and server.stats.open == 1
                await until(lambda: server.stats.open == 0)
                assert server.stats.closed == server.stats.timeouts == life
        with pytest.raises(portico.ClosedError, match="idle_timeout"):
            await channels[0].recv()


@scenario(on=EVERYWHERE)
async def test_a_handler_that_returns_ends_its_channel_and_the_next_packet_begins_another() -> None:
    async def once(channel: Any) -> None:
        await channel.send(b"answer to " + await channel.recv())

    async with portico.serve(once, UDP) as server, peers_of(server.address) as (peer,):
        for number in range(5):
            assert await peer.ask(b"%d" % number) == b"answer to %d" % number
            await until(lambda: server.stats.open == 0)
        assert server.stats.accepted == 5


@scenario(on=EVERYWHERE, errors=True)
async def test_the_exception_of_a_handler_ends_its_peer_alone() -> None:
    async def touchy(channel: Any) -> None:
        async for packet in channel:
            if packet == b"bad":
                raise KeyError("of the test")
            await channel.send(packet)

    async with portico.serve(touchy, UDP) as server, peers_of(server.address, 2) as (one, other):
        assert await one.ask(b"a") == b"a" and await other.ask(b"b") == b"b"
        one.send(b"bad")
        await until(lambda: server.stats.handler_errors == 1 and server.stats.open == 1)
        assert await other.ask(b"c") == b"c"
        assert await one.ask(b"d") == b"d"  # by a new channel
        assert server.stats.accepted == 3


@scenario(on=EVERYWHERE)
async def test_a_message_that_is_none_costs_its_packet_and_the_peer_goes_on() -> None:
    async def patient(channel: Any) -> None:
        while True:
            try:
                await channel.send(await channel.recv())
            except portico.ProtocolError as error:
                await channel.send(str(error)[:5].encode())
            except portico.MessageTooLarge:
                await channel.send(b"large")

    codec = portico.Netstrings(max_size=10)
    async with portico.serve(patient, UDP, codec=codec) as server, peers_of(server.address) as (peer,):
        assert await peer.ask(b"5:hello,") == b"5:hello,"
        assert await peer.ask(b"garbage") == b"5:a net,"
        assert await peer.ask(b"5:hel") == b"5:the p,"
        assert await peer.ask(b"11:hello world,") == b"5:large,"
        assert await peer.ask(b"2:ok,") == b"2:ok,"
        assert server.stats.accepted == 1


@scenario(on=["uvloop", "asyncio"])
async def test_the_answer_leaves_from_the_address_that_the_packet_came_to() -> None:
    channels: list[Any] = []
    async with portico.serve(counting(channels, echo), "udp://0.0.0.0:0") as server:
        port = server.address.port
        assert port
        peer = peer_of(None)
        for host in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
            peer.send(b"who?", portico.Address("udp", host, port))
            assert await peer.heard() == (b"who?", (host, port))
        assert len(channels) == 1  # the remote address is the same
        assert channels[0].local_address.host in ("127.0.0.2", "127.0.0.3")
        peer.close()


@scenario(on=["uvloop", "asyncio"])
async def test_a_dual_stack_listener_answers_both_families_from_where_they_asked() -> None:
    channels: list[Any] = []
    async with portico.serve(counting(channels, echo), "udp://*:0") as server:
        port = server.address.port
        assert port
        four, six = peer_of(None), peer_of(portico.Address("udp", "::1", port), ("::1", 0))
        four.send(b"four", portico.Address("udp", "127.0.0.2", port))
        assert await four.heard() == (b"four", ("127.0.0.2", port))
        assert await six.ask(b"six") == b"six"
        assert [each.remote_address.host for each in channels] == ["::ffff:127.0.0.1", "::1"]
        four.close()
        six.close()


@scenario(on=EVERYWHERE)
async def test_a_unix_client_without_a_name_is_heard_but_cannot_be_answered(tmp_path: Path) -> None:
    heard: list[bytes] = []
    failed: list[BaseException] = []

    async def handler(channel: Any) -> None:
        async for packet in channel:
            heard.append(packet)
            try:
                await channel.send(packet)
                await channel.flush()
                await channel.recv()
            except portico.DeliveryError as error:
                failed.append(error)

    async with portico.serve(handler, f"unixgram:{tmp_path}/server.sock") as server:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"anonymous", server.address.sockaddr)
            await until(lambda: failed)
            assert heard == [b"anonymous"]
        async with portico.connect(server.address) as client:
            await client.send(b"named")
            assert await client.recv() == b"named"


# Sockets that exist already.


@pytest.mark.parametrize("as_number", [False, True])
@scenario(on=EVERYWHERE)
async def test_a_bound_packet_socket_can_be_served(as_number: bool) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    name = sock.getsockname()
    async with portico.serve(echo, sock.detach() if as_number else sock) as server:
        assert server.address == portico.Address("udp", *name)
        async with peers_of(server.address) as (peer,):
            assert await peer.ask(b"hello") == b"hello"


@pytest.mark.parametrize("kind", ["tcp", "unix", "unixpacket", "unixgram"])
@scenario(on=EVERYWHERE)
async def test_a_listening_socket_can_be_served(kind: str, tmp_path: Path) -> None:
    kinds = {"unixpacket": socket.SOCK_SEQPACKET, "unixgram": socket.SOCK_DGRAM}
    sock = socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX, kinds.get(kind, socket.SOCK_STREAM))
    sock.bind(("127.0.0.1", 0) if kind == "tcp" else f"{tmp_path}/server.sock")
    if kind != "unixgram":
        sock.listen()
    async with portico.serve(echo, sock, codec=portico.Lines()) as server:
        assert server.address.scheme == kind
        async with portico.connect(server.address, codec=portico.Lines()) as client:
            await client.send("hello")
            assert await client.recv() == "hello"


@scenario(on=["uvloop"])
async def test_a_socket_that_cannot_be_served_stays_the_callers() -> None:
    with socket.socket() as stream:
        stream.bind(("127.0.0.1", 0))
        for given in (stream, stream.fileno()):
            with pytest.raises(ConfigurationError, match="does not listen"):
                portico.serve(echo, given)
        assert stream.fileno() >= 0
        stream.listen()
    one, other = socket.socketpair()
    with one, other, pytest.raises(ConfigurationError, match="does not listen"):
        portico.serve(echo, one)


class Resolver:
    """Knows one name."""

    def __init__(self, *hosts: str) -> None:
        self.hosts = hosts

    async def resolve(self, address: portico.Address, *, family: int = 0) -> list[portico.Address]:
        return [address.replace(host=each) for each in self.hosts]

    async def name_of(self, address: portico.Address) -> tuple[str, str]:
        raise OSError


@pytest.mark.parametrize("hosts", [("203.0.113.1", "127.0.0.1"), ("127.0.0.1", "203.0.113.1")])
@scenario()
async def test_addresses_of_a_name_that_this_machine_lacks_are_left_out(hosts: tuple[str, str]) -> None:
    service = portico.Service(resolver=Resolver(*hosts)).listen("udp://name.test:0", echo)
    async with portico.serve(service) as server, peers_of(server.address, 1) as (peer,):
        assert [each.host for each in server.addresses] == ["127.0.0.1"]
        assert await peer.ask(b"in") == b"in"
    service = portico.Service(resolver=Resolver("203.0.113.1", "203.0.113.2")).listen("udp://name.test:0", echo)
    with pytest.raises(portico.BindError):
        await portico.serve(service)


@scenario()
async def test_one_port_0_is_tried_again_until_all_addresses_of_a_name_have_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bound_socket, taken = packet_listener.bound_socket, []

    def bound(address: portico.Address, numeric: portico.Address, *settings: Any) -> Any:
        made = bound_socket(address, numeric, *settings)
        if not taken:
            taken.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            taken[0].bind(("127.0.0.2", made[0].getsockname()[1]))
        return made

    monkeypatch.setattr(packet_listener, "bound_socket", bound)
    service = portico.Service(resolver=Resolver("127.0.0.1", "127.0.0.2")).listen("udp://name.test:0", echo)
    async with portico.serve(service) as server:
        one, other = server.addresses
        assert one.port == other.port != taken[0].getsockname()[1]
    taken[0].close()


# The end.


async def is_refused(peer: Peer) -> bool:
    """Wait until nobody has the port any more."""
    for _ in range(1000):
        try:
            peer.send(b"anybody?")
        except ConnectionRefusedError:
            return True
        await asyncio.sleep(0.002)
    return False


@scenario(on=EVERYWHERE)
async def test_close_lets_no_new_peer_in_and_serves_those_who_are(tmp_path: Path) -> None:
    server = await portico.serve(echo, f"udp://127.0.0.1:{free_port()}", limits=QUICK)
    async with peers_of(server.address, 2) as (old, new):
        assert await old.ask(b"in") == b"in"
        server.close()
        new.send(b"let me in")
        for _ in range(3):
            assert await old.ask(b"still in") == b"still in"
        assert server.stats.accepted == 1 and server.stats.rejected_full == 0
        await server.wait_closed()
        assert await is_refused(new)


@scenario(on=EVERYWHERE)
async def test_a_drain_tells_the_handlers_of_peers_and_what_they_say_then_arrives() -> None:
    async def handler(channel: Any) -> None:
        await channel.send(await channel.recv())
        await channel.draining
        await channel.send(b"goodbye")

    server = await portico.serve(handler, f"udp://127.0.0.1:{free_port()}")
    async with peers_of(server.address, 3) as peers:
        for each in peers:
            assert await each.ask(b"hello") == b"hello"
        await server.drain(5)
        assert [await each.recv() for each in peers] == [b"goodbye"] * 3
        assert server.stats.aborted == 0 and server.stats.open == 0
        assert await is_refused(peers[0])


@scenario(on=EVERYWHERE)
async def test_a_drain_that_takes_too_long_aborts_peers_as_abort_does_at_once() -> None:
    async def handler(channel: Any) -> None:
        await asyncio.Event().wait()

    for end in ("drain", "abort"):
        server = await portico.serve(handler, f"udp://127.0.0.1:{free_port()}")
        async with peers_of(server.address, 3) as peers:
            for each in peers:
                each.send(b"hello")
            await until(lambda server=server: server.stats.open == 3)  # type: ignore[misc]
            await (server.drain(0.05) if end == "drain" else server.abort())
            assert server.stats.aborted == 3 and server.stats.open == 0
            assert await is_refused(peers[0])


@scenario(on=EVERYWHERE)
async def test_the_file_of_a_unix_datagram_server_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    async with portico.serve(echo, f"unixgram:{path}", mode=0o640) as server:
        assert path.stat().st_mode & 0o777 == 0o640
        with pytest.raises(portico.BindError):
            await portico.serve(echo, f"unixgram:{path}")
        async with portico.connect(server.address) as client:
            await client.send(b"x")
            assert await client.recv() == b"x"
    assert not path.exists()


# What cannot be served.


async def on_packet(packet: portico.Packet, datagrams: portico.Datagrams) -> None:
    pass


TLS = portico.TLS(certificate="none.pem")


@pytest.mark.parametrize(
    ("address", "settings", "message"),
    [
        ("udp://127.0.0.1:0", {"tls": TLS}, "tls is for streams of bytes, not for udp://127.0.0.1:0"),
        ("udp://127.0.0.1:0", {"proxied_by": ["any"]}, "proxied_by is for streams of bytes"),
        ("unixpacket:x", {"tls": TLS}, "tls is for streams of bytes"),
        ("raw://127.0.0.1:253", {}, "no connections at raw:; with packets=handler it can"),
        ("packet://lo", {}, "no connections at packet:; with packets=handler it can"),
        ("fifo:x", {}, "no connections at fifo:"),
        ("device:x", {}, "no connections at device:"),
        ("udp://127.0.0.1:0", {"mode": 0o600}, "mode and owner are for Unix sockets"),
        ("tcp://127.0.0.1:0", {"codec": portico.Records()}, "it needs a codec such as Lines"),
    ],
)
def test_what_cannot_be_served_says_so_in_one_line(address: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigurationError, portico.UnsupportedError), match=message) as caught:
        portico.Service().listen(address, echo, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "settings", "message"),
    [
        ("tcp://127.0.0.1:0", {"packets": on_packet}, "packets= is for udp, unixgram, raw, packet, not for tcp:"),
        ("unixpacket:x", {"packets": on_packet}, "packets= is for udp, unixgram, raw, packet, not for unixpacket:"),
        ("udp://127.0.0.1:0", {"packets": "nothing to call"}, "must be a function"),
        ("udp://127.0.0.1:0", {"packets": on_packet, "codec": portico.Lines()}, "takes no codec with it"),
        ("udp://127.0.0.1:0", {"packets": on_packet, "handler": echo}, "a handler, or packets=: one of the two"),
        ("udp://127.0.0.1:0", {}, "a handler, or packets=: one of the two"),
        ("udp://127.0.0.1:0", {"packets": on_packet, "tls": TLS}, "tls is for streams of bytes"),
    ],
)
def test_what_packets_cannot_do_is_said_in_one_line(address: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        portico.Service().listen(address, **settings)
    assert "\n" not in str(caught.value)


@scenario(on=EVERYWHERE)
async def test_tcp_beside_packets_still_waits_for_its_end() -> None:
    service = portico.Service().listen(UDP, echo).listen("tcp://127.0.0.1:0", echo)
    async with portico.serve(service) as server:
        udp, tcp = server.addresses
        assert (udp.scheme, tcp.scheme) == ("udp", "tcp")
        async with peers_of(udp) as (peer,), clients(tcp) as (client,):
            assert await peer.ask(b"x") == await client.ask(b"x") == b"x"
            assert server.stats.open == 2


@scenario(EVERYWHERE)
async def test_a_drain_lets_peers_finish_and_waits_for_nobody_who_is_silent() -> None:
    answered = asyncio.Event()

    async def handler(channel: portico.Channel[str]) -> None:
        async for line in channel:
            await answered.wait()
            await channel.send(line.upper())

    server = await portico.serve(handler, "udp://127.0.0.1:0", codec=portico.Lines())
    async with (
        portico.connect(server.address, codec=portico.Lines()) as silent,
        portico.connect(server.address, codec=portico.Lines()) as asking,
    ):
        await silent.send("hello")
        await asking.send("first")
        await asking.send("second")
        await until(lambda: server.stats.messages_received == 3)
        draining = asyncio.ensure_future(server.drain(10))
        await until(lambda: bool(server.draining))
        answered.set()
        assert [await asking.recv(), await asking.recv()] == ["FIRST", "SECOND"]
        async with asyncio.timeout(5):
            await draining
    assert server.stats.aborted == 0
