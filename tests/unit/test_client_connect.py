import asyncio
import errno
import re
import select
import socket
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from client_kit import (
    FakeResolver,
    accept,
    black_hole,
    leftovers_gone,
    listening,
    on_both_loops,
)
from leaks import descriptors
from ports import free_port

from portico._core import Lines, driven
from portico.address import Address
from portico.client import connect
from portico.client.connect import local, target
from portico.errors import AddressError, ConfigurationError, ConnectError, ResolveError
from portico.transports.connection import Channel, State, Stream
from portico.transports.tls import TLS


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def shown(error: BaseException) -> str:
    """The text of an error without what differs from run to run."""
    return re.sub(r":\d{4,5}\b", ":PORT", re.sub(r"after \d+\.\d+ s", "after N s", str(error)))


async def reason(connecting: Awaitable[object]) -> ConnectError:
    with pytest.raises(ConnectError) as caught:
        await connecting
    return caught.value


# What comes out


@on_both_loops
async def test_without_a_codec_it_is_a_stream() -> None:
    with listening() as (sock, address):
        async with connect(address) as stream:
            assert type(stream) is Stream
            with await accept(sock) as peer:
                await stream.send(b"hello")
                assert await asyncio.get_running_loop().sock_recv(peer, 10) == b"hello"
                assert stream.remote_address == address
                assert str(stream.local_address) == f"tcp://127.0.0.1:{peer.getpeername()[1]}"
                assert stream.state is State.OPEN
        assert stream.state is State.CLOSED


@on_both_loops
async def test_with_a_codec_it_is_a_channel() -> None:
    with listening() as (sock, address):
        channel = await connect(str(address), codec=Lines())
        assert type(channel) is Channel
        with await accept(sock) as peer:
            peer.send(b"one\ntwo\n")
            assert [await channel.recv(), await channel.recv()] == ["one", "two"]
        await channel.close()


@on_both_loops
async def test_the_body_ends_and_the_peer_sees_the_end() -> None:
    with listening() as (sock, address):
        async with connect(address) as stream:
            peer = await accept(sock)
            await stream.send(b"last words")
            closing = asyncio.ensure_future(_read_all(peer))
        assert await closing == b"last words"


async def _read_all(peer: socket.socket) -> bytes:
    read = b""
    with peer:
        while chunk := await asyncio.get_running_loop().sock_recv(peer, 100):
            read += chunk
    return read


@on_both_loops
async def test_a_cancelled_body_aborts() -> None:
    with listening() as (sock, address):
        inside = asyncio.Event()

        async def body() -> None:
            async with connect(address):
                inside.set()
                await asyncio.Event().wait()

        running = asyncio.ensure_future(body())
        with await accept(sock) as peer:
            await inside.wait()
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            with pytest.raises(ConnectionResetError):
                await asyncio.get_running_loop().sock_recv(peer, 10)


@on_both_loops
async def test_an_error_in_the_body_closes_and_comes_through() -> None:
    with listening() as (sock, address):
        with pytest.raises(KeyError):
            async with connect(address) as stream:
                (await accept(sock)).close()
                raise KeyError
        assert stream.state is State.CLOSED


@on_both_loops
async def test_one_object_connects_anew_each_time() -> None:
    with listening() as (sock, address):
        connecting = connect(address)
        one, two = await connecting, await connecting
        assert one is not two
        for each in (one, two):
            (await accept(sock)).close()
            await each.close()


@on_both_loops
async def test_a_handler_of_the_native_driver_can_connect() -> None:
    with listening() as (sock, address):

        async def handler() -> bytes:
            async with connect(address, timeout=5) as stream:
                with await accept(sock) as peer:
                    peer.send(b"hello")
                    return await stream.recv_exactly(5)

        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def outer() -> None:
            ended.set_result(await handler())

        task = asyncio.ensure_future(driven(outer()))
        assert await ended == b"hello"
        await task


@on_both_loops
async def test_settings_reach_the_connection() -> None:
    with listening() as (sock, address):
        options = {"keepalive": True}
        async with connect(address, idle_timeout=0.05, read_limit=1000, close_timeout=0.1, options=options) as stream:
            with await accept(sock):
                assert stream.settings.read_limit == 1000
                assert stream.options["keepalive"] is True
                await stream.wait_closed()
                with pytest.raises(ConnectionError, match="idle_timeout"):
                    await stream.send(b"")


# Several addresses


@on_both_loops
async def test_the_second_address_answers_when_the_first_refuses() -> None:
    with listening("127.0.0.2") as (sock, address):
        resolver = FakeResolver("127.0.0.1", "127.0.0.2")
        async with connect(address.replace(host="two.test"), resolver=resolver) as stream:
            assert stream.remote_address == address
            (await accept(sock)).close()


@on_both_loops
async def test_an_address_that_is_silent_costs_a_quarter_of_a_second() -> None:
    with black_hole("127.0.0.3") as silent, listening("127.0.0.2", port=silent.port or 0) as (sock, address):
        resolver = FakeResolver("127.0.0.3", "127.0.0.2")
        begun = asyncio.get_running_loop().time()
        async with connect(address.replace(host="two.test"), resolver=resolver) as stream:
            assert 0.24 <= asyncio.get_running_loop().time() - begun < 2
            assert stream.remote_address == address
            (await accept(sock)).close()


@ipv6
@on_both_loops
async def test_families_take_turns_on_real_sockets() -> None:
    with listening("::1") as (sock, address):
        resolver = FakeResolver("127.0.0.1", "127.0.0.2", "::1")
        async with connect(address.replace(host="mixed.test"), resolver=resolver) as stream:
            assert stream.remote_address == address
            (await accept(sock)).close()


def link_local() -> list[str]:
    """The IPv6 addresses of this machine that mean something only with their scope."""
    try:
        rows = [line.split() for line in Path("/proc/net/if_inet6").read_text().splitlines()]
    except OSError:
        return []
    return [f"{socket.inet_ntop(socket.AF_INET6, bytes.fromhex(row[0]))}%{row[5]}" for row in rows if row[3] == "20"]


@pytest.mark.skipif(not link_local(), reason="this machine has no link-local address")
@on_both_loops
async def test_the_scope_of_an_address_is_kept() -> None:
    with listening("::") as (sock, address):
        target = Address("tcp", link_local()[0], address.port)
        async with connect(target) as stream:
            assert stream.socket.getpeername()[3] == socket.if_nametoindex(target.scope)
            (await accept(sock)).close()


@on_both_loops
async def test_localhost_is_resolved_by_the_system() -> None:
    with listening() as (sock, address):
        async with connect(f"tcp://localhost:{address.port}") as stream:
            assert stream.remote_address == address
            (await accept(sock)).close()


# Errors


@on_both_loops
async def test_refused_is_told_in_one_line() -> None:
    error = await reason(connect(f"tcp://127.0.0.1:{free_port()}"))
    assert shown(error) == "cannot connect to tcp://127.0.0.1:PORT: connect: connection refused"
    assert isinstance(error.__cause__, ConnectionRefusedError)
    assert isinstance(error, ConnectionError)


@on_both_loops
async def test_each_address_is_told() -> None:
    resolver = FakeResolver("127.0.0.1", "127.0.0.2")
    error = await reason(connect(f"tcp://two.test:{free_port()}", resolver=resolver))
    assert shown(error) == (
        "cannot connect to tcp://two.test:PORT; tcp://127.0.0.1:PORT: connect: connection refused after N s; "
        "tcp://127.0.0.2:PORT: connect: connection refused after N s"
    )
    assert [each.stage for each in error.attempts] == ["connect", "connect"]
    assert all(0 <= each.seconds < 1 for each in error.attempts)


@on_both_loops
async def test_a_name_that_is_unknown() -> None:
    resolver = FakeResolver(error=socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    error = await reason(connect("tcp://nosuch.test:80", resolver=resolver))
    assert str(error) == (
        "cannot connect to tcp://nosuch.test:80: resolve: cannot resolve 'nosuch.test': Name or service not known"
    )
    assert isinstance(error.attempts[0].error, ResolveError)


@on_both_loops
async def test_numeric_only_asks_nobody() -> None:
    resolver = FakeResolver("127.0.0.1")
    error = await reason(connect("tcp://localhost:80", resolver=resolver, numeric_only=True))
    assert "only numeric addresses are allowed" in str(error)
    assert resolver.asked == []


@on_both_loops
async def test_one_deadline_cuts_off_the_resolver() -> None:
    error = await reason(connect("tcp://slow.test:80", resolver=FakeResolver(hangs=True), timeout=0.05))
    assert str(error) == "cannot connect to tcp://slow.test:80 within 0.05 s: resolve: timed out"


@on_both_loops
async def test_one_deadline_cuts_off_all_connects_and_tells_each() -> None:
    with black_hole("127.0.0.3") as silent, black_hole("127.0.0.4") as other:
        assert silent.port and other.port
        resolver = FakeResolver("127.0.0.1", "127.0.0.3")
        error = await reason(connect(silent.replace(host="slow.test"), resolver=resolver, timeout=0.1))
        assert shown(error) == (
            "cannot connect to tcp://slow.test:PORT within 0.1 s; "
            "tcp://127.0.0.1:PORT: connect: connection refused after N s; "
            "tcp://127.0.0.3:PORT: connect: timed out after N s"
        )
        assert isinstance(error.attempts[1].error, TimeoutError)
        assert 0.09 <= error.attempts[1].seconds < 1


@on_both_loops
async def test_the_deadline_runs_through_all_stages() -> None:
    class Slow(FakeResolver):
        async def resolve(self, address: Address, *, family: int = 0) -> Any:
            await asyncio.sleep(0.06)
            return await super().resolve(address, family=family)

    with listening() as (_, address):
        begun = asyncio.get_running_loop().time()
        connecting = connect(
            address.replace(host="slow.test", scheme="tls"),
            resolver=Slow("127.0.0.1"),
            timeout=0.1,
            tls=TLS(verify=False),
        )
        error = await reason(connecting)
        assert 0.09 <= asyncio.get_running_loop().time() - begun < 0.5
        assert shown(error) == (
            "cannot connect to tls://slow.test:PORT within 0.1 s; tls://127.0.0.1:PORT: tls: timed out after N s"
        )
        assert error.attempts[0].seconds < 0.06


@on_both_loops
async def test_a_kernel_timeout_is_an_attempt_and_not_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    async def dial(*args: object, **settings: object) -> None:
        raise OSError(errno.ETIMEDOUT, "Connection timed out")

    monkeypatch.setattr(sys.modules["portico.client.connect"], "dial", dial)
    error = await reason(connect("tcp://192.0.2.1:80"))
    assert str(error) == "cannot connect to tcp://192.0.2.1:80: connect: connection timed out"
    assert error.timeout is None


@on_both_loops
async def test_a_wrong_option_is_an_error_of_the_caller() -> None:
    with listening() as (_, address), pytest.raises(ConfigurationError, match="nosuch"):
        await connect(address, options={"nosuch": 1})


# Cancelled


@pytest.mark.parametrize("stage", ["resolve", "connect", "race", "tls", "unix"])
@on_both_loops
async def test_cancelled_at_any_stage_it_leaves_nothing(stage: str, tmp_path: Path) -> None:
    with black_hole("127.0.0.3") as silent, listening() as (_, address):
        full = socket.socket(socket.AF_UNIX)
        full.bind(str(tmp_path / "full"))
        full.listen(0)
        filler = [socket.socket(socket.AF_UNIX) for _ in range(3)]
        for each in filler:
            each.setblocking(False)
            each.connect_ex(str(tmp_path / "full"))
        connecting: dict[str, Any] = {
            "resolve": connect("tcp://slow.test:80", resolver=FakeResolver(hangs=True)),
            "connect": connect(silent),
            "race": connect(
                silent.replace(host="x.test"), resolver=FakeResolver("127.0.0.1", "127.0.0.3", "127.0.0.3")
            ),
            "tls": connect(address.replace(scheme="tls"), tls=TLS(verify=False)),
            "unix": connect(f"unix:{tmp_path}/full"),
        }
        before = descriptors()
        running = asyncio.ensure_future(connecting[stage].connector.open())
        await asyncio.sleep(0.05)
        assert not running.done()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await leftovers_gone(before, within=0.1)
        for each in (full, *filler):
            each.close()


@on_both_loops
async def test_cancelled_after_any_number_of_turns_it_leaves_nothing() -> None:
    with listening(backlog=200) as (_, address):
        resolver = FakeResolver("127.0.0.2", "127.0.0.1")
        for turns in range(12):
            before = descriptors()
            running = asyncio.ensure_future(connect(address.replace(host="x.test"), resolver=resolver).connector.open())
            for _ in range(turns):
                await asyncio.sleep(0)
            running.cancel()
            try:
                stream = await running
            except asyncio.CancelledError:
                pass
            else:
                stream.abort()
            await leftovers_gone(before, within=0.1)


# Where from


@on_both_loops
async def test_the_source_is_where_it_comes_from() -> None:
    with listening() as (sock, address):
        for source in ("127.0.0.9", "127.0.0.9:0", "tcp://127.0.0.9:0", Address("tcp", "127.0.0.9", 0)):
            async with connect(address, source=source) as stream:
                with await accept(sock) as peer:
                    assert peer.getpeername()[0] == "127.0.0.9"
                assert stream.local_address.host == "127.0.0.9"


@on_both_loops
async def test_a_source_port_alone_is_kept_for_either_family() -> None:
    port = free_port()
    with listening("127.0.0.2") as (sock, address):
        resolver = FakeResolver("127.0.0.1", "127.0.0.2")
        async with connect(address.replace(host="two.test"), source=f":{port}", resolver=resolver) as stream:
            assert stream.local_address.port == port
            stream.options["linger"] = 0
            (await accept(sock)).close()


@on_both_loops
async def test_the_source_chooses_the_family() -> None:
    with listening() as (sock, address):
        resolver = FakeResolver("::1", "127.0.0.1")
        async with connect(address.replace(host="both.test"), source="127.0.0.1", resolver=resolver):
            (await accept(sock)).close()
        error = await reason(connect("tcp://[::1]:80", source="127.0.0.1"))
        assert str(error) == (
            "cannot connect to tcp://[::1]:80: resolve: cannot resolve '::1': it is not an IPv4 address"
        )


@on_both_loops
async def test_a_source_that_is_not_ours() -> None:
    with listening() as (_, address):
        error = await reason(connect(address, source="192.0.2.1"))
        assert "connect: cannot assign requested address" in str(error)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.2", "tcp://127.0.0.2:0"),
        ("127.0.0.2:5", "tcp://127.0.0.2:5"),
        ("::1", "tcp://[::1]:0"),
        ("[::1]", "tcp://[::1]:0"),
        ("[::1]:5", "tcp://[::1]:5"),
        ("*", "tcp://*:0"),
        (":5", "tcp://*:5"),
        ("unix:here.sock", "unix:here.sock"),
        ("/run/here.sock", "unix:/run/here.sock"),
        ("@here", "unix:@here"),
    ],
)
def test_a_source_needs_no_port(text: str, address: str) -> None:
    assert str(local(text)) == address


# Unix and memory


@pytest.mark.parametrize("path", ["{tmp_path}/here", "@portico-test-{tmp_path.name}"])
@on_both_loops
async def test_unix_sockets(path: str, tmp_path: Path) -> None:
    address = Address.parse("unix:" + path.format(tmp_path=tmp_path))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(address.sockaddr)
        sock.listen()
        sock.setblocking(False)
        async with connect(address, codec=Lines()) as channel:
            with await accept(sock) as peer:
                peer.send(b"hello\n")
                assert await channel.recv() == "hello"
            assert channel.remote_address == address


@on_both_loops
async def test_a_unix_socket_that_is_not_there(tmp_path: Path) -> None:
    error = await reason(connect(f"unix:{tmp_path}/nobody"))
    assert str(error) == f"cannot connect to unix:{tmp_path}/nobody: connect: no such file or directory"


# Packets


@on_both_loops
async def test_where_packets_are_carried_each_is_a_message() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.setblocking(False)
        peer.bind(("127.0.0.1", 0))
        async with connect(f"udp://127.0.0.1:{peer.getsockname()[1]}", timeout=5) as channel:
            assert type(channel) is Channel
            await channel.send(b"question")
            data, back = await asyncio.get_running_loop().run_in_executor(None, _received, peer)
            assert data == b"question"
            peer.sendto(b"answer\n", back)
            assert await channel.recv() == b"answer\n"
        address = channel.remote_address
        async with connect(address, codec=Lines(), source="127.0.0.1") as channel:
            await channel.send("line")
            data, _ = await asyncio.get_running_loop().run_in_executor(None, _received, peer)
            assert data == b"line\n"


def _received(peer: socket.socket) -> Any:
    select.select([peer], [], [], 5)
    return peer.recvfrom(100)


# What cannot be


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("tcp://*:80", "tcp://*:80 is every interface, which only a server can use; connect to tcp://localhost:80"),
        ("tcp://0.0.0.0:80", "connect to tcp://localhost:80"),
        ("tls://[::]:443", "connect to tls://localhost:443"),
        ("tcp://localhost:0", "port 0 in tcp://localhost:0 is for servers"),
        ("packet://eth0", "not packet"),
        ("vsock://any:5000", "connect to vsock://1:5000"),
        ("raw://*:icmp", "connect to raw://localhost:1"),
        ("unix:<unnamed>", "without a path"),
    ],
)
def test_an_address_where_nobody_can_be(address: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        target(address)


def test_an_address_that_does_not_parse_is_told_at_once() -> None:
    with pytest.raises(AddressError, match="the port is missing"):
        connect("tcp://localhost")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: connect("tcp://localhost:80", timeout=0), "timeout=0 must be more than 0 seconds"),
        (lambda: connect("tcp://localhost:80", high_water=-1), "high_water=-1 must not be negative"),
        (lambda: connect("tcp://localhost:80", source="some.test"), "must be an IP address"),
        (lambda: connect("tcp://localhost:80", source="unix:/here"), "cannot be reached from source='unix:/here'"),
        (lambda: connect("unix:/there", source="127.0.0.1"), "cannot be reached from source='tcp://127.0.0.1:0'"),
        (lambda: connect("mem:there", source="127.0.0.1"), "a memory connection has no socket"),
        (lambda: connect("unix:/there", tls=TLS()), "set server_name="),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(make: Callable[[], object], said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        make()
