"""Servers behind a blocking program, and its ways to them."""

import socket
import threading
from pathlib import Path

import pytest

import portico
from portico import blocking
from portico.blocking.loop import background
from portico.errors import AddressError, BindError, ClosedError, ConfigurationError, ConnectError, ResolveError

from .support import PATIENCE, Aside, echo, interrupted_answer, shout, until

ANYWHERE = "tcp://127.0.0.1:0"


@pytest.mark.parametrize("handler", [shout, echo])
def test_plain_and_async_handlers_serve(handler) -> None:
    with blocking.serve(handler, ANYWHERE, codec=portico.Lines()) as server:
        assert server.addresses == [server.address] and str(server.address) in repr(server)
        with blocking.connect(server.address, codec=portico.Lines()) as channel:
            channel.send("HELLO")
            assert channel.recv() == "HELLO"
            assert server.stats.open == 1 and not server.draining


def test_a_service_serves_many_addresses_memory_included() -> None:
    service = portico.Service().listen(ANYWHERE, echo).listen("mem:room", echo)
    with blocking.serve(service) as server:
        for address in server.addresses:
            with blocking.connect(address) as stream:
                stream.send(b"hello")
                assert stream.recv_exactly(5) == b"hello"


def test_a_plain_handler_may_use_the_blocking_client() -> None:
    def relay(stream: portico.BlockingStream) -> None:
        with blocking.connect(behind.address) as other:
            other.send(stream.recv())
            stream.send(other.recv())

    with blocking.serve(echo, ANYWHERE) as behind, blocking.serve(relay, ANYWHERE) as server:
        with blocking.connect(server.address) as stream:
            stream.send(b"through")
            assert stream.recv() == b"through"


def test_an_async_handler_may_not_block_its_loop() -> None:
    async def handler(stream: portico.Stream) -> None:
        with pytest.raises(RuntimeError, match="event loop"):
            blocking.connect(server.address)
        with pytest.raises(RuntimeError):
            blocking.shutdown()
        await stream.send(b"refused")

    with blocking.serve(handler, ANYWHERE) as server, blocking.connect(server.address) as stream:
        assert stream.recv() == b"refused"


def test_what_cannot_be_served_or_reached_says_so() -> None:
    with pytest.raises(ConfigurationError):
        blocking.serve(echo, "tls://127.0.0.1:0")
    with pytest.raises(AddressError):
        blocking.connect("tcp:/nowhere:")
    with pytest.raises(ConfigurationError):
        blocking.connect("tcp://127.0.0.1:1", timeout=0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BindError):
            blocking.serve(echo, where)
    with pytest.raises(ConnectError, match=where):
        blocking.connect(where)


def test_waiting_for_the_end_of_a_server() -> None:
    with blocking.serve(echo, ANYWHERE) as server:
        for timeout in (0, 0.02):
            with pytest.raises(TimeoutError, match=f"the end of the server at {server.address}"):
                server.serve_forever(timeout=timeout)
        with blocking.connect(server.address) as stream:
            stream.send(b"x")
            stream.recv()
            with pytest.raises(TimeoutError):
                server.wait_closed(timeout=0.02)
            waiting = Aside(server.serve_forever)
            waiting.waits()
            server.close()
            server.close()
            stream.send(b"y")
            assert stream.recv() == b"y"
        assert waiting.over().error is None
        server.wait_closed()


def test_draining_tells_the_handlers_and_gives_them_time() -> None:
    def handler(stream: portico.BlockingStream) -> None:
        stream.send(b"hello")
        while not stream.draining:
            try:
                stream.recv(timeout=0.005)
            except TimeoutError:
                continue
        stream.send(b"goodbye")

    server = blocking.serve(handler, ANYWHERE)
    with blocking.connect(server.address) as stream:
        assert stream.recv_exactly(5) == b"hello"
        draining = Aside(lambda: server.drain(PATIENCE))
        assert stream.recv() == b"goodbye"
    assert draining.over().error is None and server.stats.aborted == 0


def test_abort_ends_everything_at_once() -> None:
    server = blocking.serve(echo, ANYWHERE)
    with blocking.connect(server.address) as stream:
        stream.send(b"x")
        stream.recv()
        server.abort()
        assert server.stats.open == 0
        with pytest.raises(ClosedError):
            stream.recv()


def test_an_error_in_the_body_ends_the_server() -> None:
    with pytest.raises(ValueError), blocking.serve(echo, ANYWHERE) as server:
        where = server.address
        raise ValueError
    with pytest.raises(ConnectError):
        blocking.connect(where)


def test_reconnecting_comes_back_and_closes_what_the_body_leaves() -> None:
    seen: list[int] = []
    gone = threading.Event()

    def handler(stream: portico.BlockingStream) -> None:
        seen.append(1)
        stream.send(b"x")
        if len(seen) == 3:
            assert stream.recv() == b""
            gone.set()

    with blocking.serve(handler, ANYWHERE) as server:
        retry = portico.Retry(attempts=None, first=0.001)
        for stream in blocking.reconnecting(server.address, retry=retry):
            assert stream.recv() == b"x"
            if len(seen) == 3:
                break
        del stream
        assert gone.wait(PATIENCE)


def test_names_and_addresses_are_looked_up() -> None:
    (found,) = blocking.resolve("127.0.0.1", 80)
    assert str(found) == "tcp://127.0.0.1:80"
    assert blocking.name_of(found, numeric_only=True) == ("127.0.0.1", "80")
    with pytest.raises(ResolveError):
        blocking.resolve("a-name.invalid", numeric_only=True)


def test_a_socket_that_exists_is_adopted() -> None:
    one, other = socket.socketpair()
    with blocking.adopt(one, codec=portico.Lines()) as channel, other:
        other.sendall(b"hello\n")
        assert channel.recv() == "hello"


def test_a_fifo_is_opened_on_both_sides(tmp_path: Path) -> None:
    path = str(tmp_path / "pipe")
    with blocking.open_fifo(path, create=True) as reader, blocking.open_fifo(path, "w") as writer:
        writer.send(b"hello")
        assert reader.recv(timeout=5) == b"hello"
        writer.close()
        assert reader.recv(timeout=5) == b""
    with pytest.raises(portico.ConfigurationError, match="no FIFO"):
        blocking.open_fifo(__file__)


def test_a_connection_that_comes_too_late_is_not_left_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"tcp://127.0.0.1:{listening.getsockname()[1]}"
        with interrupted_answer():
            blocking.connect(address)
        until(lambda: not background().connections)
        peer = listening.accept()[0]
        with peer, pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_a_server_that_comes_too_late_does_not_listen() -> None:
    with interrupted_answer():
        blocking.serve(echo, "mem:late")
    until(lambda: not background().servers)
    with blocking.serve(echo, "mem:late"):
        pass


def test_the_proxy_header_can_be_seen() -> None:
    def handler(stream: portico.BlockingStream) -> None:
        assert stream.proxy_header is not None
        stream.send(f"{stream.remote_address}".encode())

    with blocking.serve(handler, ANYWHERE, proxied_by=["loopback"]) as server:
        with socket.create_connection(("127.0.0.1", server.address.port)) as client:
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n")
            assert client.recv(100) == b"tcp://192.0.2.1:1234"
