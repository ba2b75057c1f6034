"""Where a server listens: ports, names, Unix paths, memory; and what stands in the way."""

import asyncio
import errno
import os
import socket
import stat
import threading
from pathlib import Path

import pytest
from ports import free_port

import portico
from portico import Address
from portico.errors import AddressError, BindError, ConfigurationError, ResolveError
from portico.server.running import banner_text, reach

from .support import EVERYWHERE, clients, echo, program, scenario

ANYWHERE = "tcp://127.0.0.1:0"
HAS_IPV6 = Path("/proc/net/if_inet6").exists() and " lo" in Path("/proc/net/if_inet6").read_text()
HOLDER = """
import socket, sys
sock = socket.socket(socket.AF_UNIX if sys.argv[1].startswith("/") else socket.AF_INET)
sock.bind(sys.argv[1] if sys.argv[1].startswith("/") else ("127.0.0.1", 0))
sock.listen()
print(sock.getsockname()[1] if sock.family == socket.AF_INET else "there", flush=True)
sys.stdin.read()
sock.close()
"""


class Resolver:
    """Gives the hosts it was made with."""

    def __init__(self, *hosts: str, error: OSError | None = None, slow: bool = False) -> None:
        self.hosts, self.error, self.slow = hosts, error, slow

    async def resolve(self, address: Address, *, family: int = 0) -> list[Address]:
        if self.slow:
            await asyncio.Event().wait()
        if self.error:
            raise self.error
        return [address.replace(host=each) for each in self.hosts]

    async def name_of(self, address: Address) -> tuple[str, str]:
        raise OSError("nobody asks")


async def works(address: Address) -> bool:
    async with clients(address) as (client,):
        return await client.ask(b"hello") == b"hello"


@scenario(on=EVERYWHERE)
async def test_port_0_becomes_a_port() -> None:
    async with portico.serve(echo, ANYWHERE) as server:
        assert server.address.port and server.addresses == [server.address]
        assert await works(server.address)


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6 loopback")
@scenario(on=EVERYWHERE)
async def test_port_0_of_a_name_is_the_same_port_on_all_its_addresses() -> None:
    service = portico.Service(resolver=Resolver("127.0.0.1", "::1"))
    async with portico.serve(service.listen("tcp://localhost:0", echo)) as server:
        assert {each.host for each in server.addresses} == {"127.0.0.1", "::1"}
        assert len({each.port for each in server.addresses}) == 1
        for each in server.addresses:
            assert await works(each)


@scenario(on=["uvloop"])
async def test_localhost_is_looked_up_by_the_system() -> None:
    async with portico.serve(echo, "tcp://localhost:0") as server:
        assert all(each.is_loopback for each in server.addresses)
        assert await works(server.address)


@scenario(on=["uvloop"])
async def test_addresses_of_a_name_that_this_machine_lacks_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    service = portico.Service(resolver=Resolver("203.0.113.1", "127.0.0.1"))
    async with portico.serve(service.listen("tcp://example.test:0", echo)) as server:
        assert [each.host for each in server.addresses] == ["127.0.0.1"]
    assert "203.0.113.1" in caplog.text
    service = portico.Service(resolver=Resolver("203.0.113.1", "203.0.113.2"))
    with pytest.raises(BindError, match="no interface of this machine has that address"):
        await portico.serve(service.listen("tcp://example.test:0", echo))


@scenario(on=["uvloop"])
async def test_every_interface_is_dual_stack() -> None:
    async with portico.serve(echo, "0") as server:
        assert server.address.is_wildcard
        assert await works(Address("tcp", "127.0.0.1", server.address.port))
        if HAS_IPV6:
            assert await works(Address("tcp", "::1", server.address.port))


@scenario(on=["uvloop"])
async def test_a_resolver_that_is_down_stops_the_start_with_its_reason() -> None:
    failure = socket.gaierror(socket.EAI_AGAIN, "temporary failure in name resolution")
    service = portico.Service(resolver=Resolver(error=failure))
    service.listen(f"tcp://127.0.0.1:{free_port()}", echo).listen("tcp://example.test:80", echo)
    server = portico.Server(service)
    with pytest.raises(ResolveError, match="temporary failure") as caught:
        await server.start()
    assert caught.value.code == socket.EAI_AGAIN and caught.value.host == "example.test"
    with pytest.raises(ConnectionRefusedError):
        await works(server.listeners[0].addresses[0])


@scenario(on=["uvloop"])
async def test_a_client_whose_resolver_is_down_hears_it_within_its_timeout() -> None:
    with pytest.raises(portico.ConnectError, match=r"resolve: .*temporary failure"):
        await portico.connect(
            "tcp://example.test:80", resolver=Resolver(error=socket.gaierror(socket.EAI_AGAIN, "temporary failure"))
        )
    with pytest.raises(portico.ConnectError, match="resolve"):
        await portico.connect("tcp://example.test:80", resolver=Resolver(slow=True), timeout=0.05)


# Who is in the way.


@scenario(on=["uvloop"])
async def test_a_taken_port_names_its_holder() -> None:
    with program(HOLDER, "tcp") as holder:
        assert holder.stdout is not None
        port = int(await asyncio.to_thread(holder.stdout.readline))
        with pytest.raises(BindError) as caught:
            await portico.serve(echo, f"tcp://127.0.0.1:{port}")
        assert caught.value.errno == errno.EADDRINUSE
        assert caught.value.holder is not None and f"(pid {holder.pid})" in caught.value.holder
        for part in (f"127.0.0.1:{port}", "address already in use", f"(pid {holder.pid})", "listen on another port"):
            assert part in str(caught.value)
    await asyncio.get_running_loop().shutdown_default_executor()


@scenario()
async def test_an_address_of_the_web_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for address in (f"ws://127.0.0.1:{port}/chat", f"http://127.0.0.1:{port}/", f"ws+unix:{tmp_path}/taken:/chat"):
            with pytest.raises(BindError) as caught:
                await portico.serve(portico.Door() if address.startswith("http") else echo, address)
            assert str(caught.value).startswith(f"cannot listen on {address}: ")
    await asyncio.get_running_loop().shutdown_default_executor()


@scenario(on=["uvloop"])
async def test_a_port_that_this_process_holds_says_so() -> None:
    async with portico.serve(echo, ANYWHERE) as server:
        with pytest.raises(BindError, match="in use by this process"):
            await portico.serve(echo, server.address)


@scenario(on=EVERYWHERE)
async def test_one_listener_that_fails_leaves_nothing_listening(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    async with portico.serve(echo, ANYWHERE) as holder:
        service = portico.Service().listen(f"tcp://127.0.0.1:{free_port()}", echo).listen(f"unix:{path}", echo)
        service.listen("mem:together", echo).listen(holder.address, echo)
        server = portico.Server(service)
        with pytest.raises(BindError):
            await server.start()
        assert not path.exists()
        with pytest.raises(ConnectionRefusedError):
            await works(server.listeners[0].addresses[0])
        with pytest.raises(portico.ConnectError):
            await portico.connect("mem:together")


@scenario(on=EVERYWHERE)
async def test_nobody_is_let_in_before_every_listener_is_there() -> None:
    resolver = Resolver("127.0.0.1", slow=True)
    service = portico.Service(resolver=resolver).listen(ANYWHERE, echo).listen("tcp://example.test:0", echo)
    server = portico.Server(service)
    starting = asyncio.ensure_future(server.start())
    while not server.listeners or not server.listeners[0].sockets:
        await asyncio.sleep(0)
    async with clients(server.listeners[0].addresses[0]) as (early,):
        await early.send(b"early")
        for _ in range(20):
            await asyncio.sleep(0)
        assert server.stats.accepted == 0
        starting.cancel()
        assert await early.is_over()
        await asyncio.wait({starting})
    assert server.stats.accepted == 0


@scenario(on=["uvloop"])
async def test_privileged_and_foreign_addresses_are_explained() -> None:
    with pytest.raises(BindError, match="no interface of this machine has that address"):
        await portico.serve(echo, "tcp://203.0.113.1:0")
    if os.geteuid():
        with pytest.raises(BindError, match="root"):
            await portico.serve(echo, "tcp://127.0.0.1:80")


def test_what_cannot_be_served_is_said_at_once() -> None:
    service = portico.Service()
    with pytest.raises(ConfigurationError, match="needs tls="):
        service.listen("tls://127.0.0.1:0", echo)
    with pytest.raises(portico.UnsupportedError, match="fifo"):
        service.listen("fifo:/tmp/none", echo)
    with pytest.raises(ConfigurationError, match="mode"):
        service.listen(ANYWHERE, echo, mode=0o600)
    with pytest.raises(AddressError):
        service.listen("tcp://127.0.0.1:http:", echo)
    with pytest.raises(ConfigurationError, match="listens nowhere"):
        portico.Server(service)
    with pytest.raises(ConfigurationError, match="address"):
        portico.serve(echo)
    with pytest.raises(ConfigurationError, match="its own"):
        portico.serve(service, ANYWHERE)


# Unix sockets.


@scenario(on=EVERYWHERE)
async def test_the_file_of_a_unix_socket_has_its_mode_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    owner = (os.getuid(), os.getgid())
    async with portico.serve(echo, f"unix:{path}", mode=0o640, owner=owner) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert (path.stat().st_uid, path.stat().st_gid) == owner
        assert await works(server.address)
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may give files away")
@scenario(on=["uvloop"])
async def test_a_file_that_cannot_be_given_away_is_not_left_behind_for_users(tmp_path: Path) -> None:
    with pytest.raises(BindError, match="only root"):
        await portico.serve(echo, f"unix:{tmp_path}/server.sock", owner=(0, 0))
    assert not list(tmp_path.iterdir())


@scenario(on=["uvloop"])
async def test_a_socket_that_cannot_be_set_up_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*unused: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refuse)
    with pytest.raises(BindError, match="only root gives a file to another user"):
        await portico.serve(echo, f"unix:{tmp_path}/server.sock", owner=(12345, 12345))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@scenario(on=["uvloop"])
async def test_root_gives_the_file_to_another_user(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    async with portico.serve(echo, f"unix:{path}", owner=(12345, 23456)):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


@scenario(on=["uvloop"])
async def test_a_stale_path_is_replaced_and_a_live_one_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    assert path.exists()
    async with portico.serve(echo, f"unix:{path}") as server:
        assert await works(server.address)
        with pytest.raises(BindError, match="in use by this process; a server answers there"):
            await portico.serve(echo, f"unix:{path}")
        assert await works(server.address)
    with program(HOLDER, str(path)) as holder:
        assert holder.stdout is not None
        await asyncio.to_thread(holder.stdout.readline)
        with pytest.raises(BindError, match=rf"\(pid {holder.pid}\)"):
            await portico.serve(echo, f"unix:{path}")
    await asyncio.get_running_loop().shutdown_default_executor()


@scenario(on=["uvloop"])
async def test_a_path_that_is_no_socket_stays_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "precious.txt"
    path.write_text("precious")
    with pytest.raises(BindError, match="no socket"):
        await portico.serve(echo, f"unix:{path}")
    assert path.read_text() == "precious"
    with pytest.raises(BindError, match="directory does not exist"):
        await portico.serve(echo, f"unix:{tmp_path}/nowhere/server.sock")


def test_a_path_that_is_too_long_says_how_long_it_may_be(tmp_path: Path) -> None:
    with pytest.raises(AddressError, match="at most 107 bytes"):
        portico.serve(echo, "unix:" + "/x" * 60)


@scenario(on=["uvloop"])
async def test_a_file_that_somebody_else_has_replaced_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "server.sock"
    monkeypatch.chdir(tmp_path)
    server = await portico.serve(echo, "unix:server.sock")
    monkeypatch.chdir("/")
    path.unlink()
    async with portico.serve(echo, f"unix:{path}") as successor:
        await server.drain(0)
        assert await works(successor.address)
    assert not path.exists()


@scenario(on=["uvloop"])
async def test_a_relative_path_is_removed_wherever_the_process_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with portico.serve(echo, "unix:server.sock"):
        assert (tmp_path / "server.sock").exists()
        monkeypatch.chdir("/")
    assert not (tmp_path / "server.sock").exists()


@scenario(on=EVERYWHERE)
async def test_abstract_names_need_no_file(tmp_path: Path) -> None:
    name = f"unix:@portico-test-{os.getpid()}-{threading.get_ident()}"
    async with portico.serve(echo, name) as server:
        assert await works(server.address)
        with pytest.raises(BindError):
            await portico.serve(echo, name)


@scenario(on=["uvloop"])
async def test_a_memory_name_is_one_servers_at_a_time() -> None:
    async with portico.serve(echo, "mem:mine"):
        with pytest.raises(BindError):
            await portico.serve(echo, "mem:mine")
        async with portico.connect("mem:mine") as stream:
            await stream.send(b"hello")
            assert await stream.recv() == b"hello"
    async with portico.serve(echo, "mem:mine"):
        pass


# Exposure.


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tcp://127.0.0.1:80", "this machine only"),
        ("tcp://[::1]:80", "this machine only"),
        ("unix:/run/x.sock", "this machine only"),
        ("unix:@x", "this machine only"),
        ("tcp://*:80", "every network this machine is on"),
        ("80", "every network this machine is on"),
        ("tcp://0.0.0.0:80", "every network this machine is on"),
        ("tcp://192.168.1.2:80", "the private network of that address"),
        ("tcp://8.8.8.8:80", "other machines, the internet included"),
        ("mem:x", "this event loop only"),
    ],
)
def test_the_banner_says_who_can_reach_an_address(address: str, words: str) -> None:
    parsed = Address.parse(address)
    assert reach(parsed) == words
    assert banner_text([parsed]) == f"listening on {parsed}  reached from {words}"
