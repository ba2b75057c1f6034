import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import portico
from portico import blocking
from portico.errors import ClosedError, ConfigurationError
from portico.transports.faces import BlockingStream

FOREVER = 20.0

blocking.loop.background()  # libuv keeps a pipe from its first loop on
blocking.shutdown()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    blocking.shutdown()
    before = set(threading.enumerate()), sorted(os.listdir("/proc/self/fd"))
    yield
    blocking.shutdown()
    assert (set(threading.enumerate()), sorted(os.listdir("/proc/self/fd"))) == before


@contextlib.contextmanager
def tcp_pair(**settings: Any) -> Iterator[tuple[Any, socket.socket]]:
    """Give a blocking connection and a plain socket, its peer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = blocking.connect(f"tcp://127.0.0.1:{listener.getsockname()[1]}", **settings)
        far, _ = listener.accept()
        with far:
            yield near, far
            near.abort()


def test_everything_that_is_ready_is_returned_in_the_given_order() -> None:
    ours, theirs = socket.socketpair()
    reading, writing = os.pipe()
    with (
        tcp_pair() as (stream, stream_peer),
        tcp_pair(codec=portico.Lines()) as (channel, channel_peer),
        blocking.datagrams("udp://127.0.0.1:0") as packets,
        ours,
        theirs,
        os.fdopen(writing, "wb", buffering=0) as pipe,
    ):
        readers = [stream, channel, packets, ours, reading, stream.connection]
        assert blocking.select(readers, [], [], 0) == ([], [], [])
        stream_peer.sendall(b"x")
        channel_peer.sendall(b"line\n")
        packets.send(b"packet", packets.local_address)
        theirs.sendall(b"x")
        pipe.write(b"x")
        deadline = time.monotonic() + FOREVER
        while blocking.select(readers, [], [], FOREVER)[0] != readers:
            assert time.monotonic() < deadline
        assert blocking.select(readers, [stream, ours], readers, None) == (readers, [stream, ours], [])
        assert stream.recv() == b"x"
        assert channel.recv() == "line"
        assert blocking.select([stream, channel, reading], [], [], 0) == ([reading], [], [])
        os.close(reading)


def test_it_waits_for_what_comes_and_for_the_timeout() -> None:
    with tcp_pair() as (stream, peer):
        begun = time.monotonic()
        assert blocking.select([stream], [], [stream], 0.05) == ([], [], [])
        assert 0.04 < time.monotonic() - begun < FOREVER
        timer = threading.Timer(0.02, peer.sendall, [b"x"])
        timer.start()
        assert blocking.select([stream], [], [stream]) == ([stream], [], [])
        timer.join()


def test_without_objects_it_waits_for_the_timeout() -> None:
    assert blocking.select([], [], [], 0.01) == ([], [], [])


def test_a_full_connection_is_not_writable_until_the_peer_takes() -> None:
    with tcp_pair() as (stream, peer):
        with contextlib.suppress(portico.WouldBlock):
            while True:
                stream.send(bytes(1 << 18), wait=False)
        assert blocking.select([], [stream], [], 0) == ([], [], [])
        peer.settimeout(FOREVER)
        while blocking.select([], [stream], [], 0) == ([], [], []):
            assert peer.recv(1 << 20)
        assert blocking.select([], [stream], [], FOREVER) == ([], [stream], [])


def test_an_end_is_readable_and_a_loss_is_an_error_too() -> None:
    with tcp_pair() as (stream, peer):
        peer.shutdown(socket.SHUT_WR)
        assert blocking.select([stream], [], [stream], FOREVER) == ([stream], [], [])
        assert stream.recv() == b""
    with tcp_pair() as (stream, peer):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.close()
        assert blocking.select([], [], [stream], FOREVER) == ([], [], [stream])
        assert blocking.select([stream], [stream], [stream]) == ([stream], [stream], [stream])
        with pytest.raises(ClosedError):
            stream.recv()


def test_what_was_closed_here_is_returned_by_every_list_that_has_it_alone() -> None:
    with tcp_pair() as (stream, _):
        stream.abort()
        stream.wait_closed()
        assert blocking.select([], [], [stream]) == ([], [], [stream])
        assert blocking.select([], [stream], []) == ([], [stream], [])
        assert blocking.select([stream], [], []) == ([stream], [], [])


def test_urgent_data_is_an_exceptional_condition() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as ours:
        theirs, _ = listener.accept()
        with theirs:
            theirs.send(b"!", socket.MSG_OOB)
            assert blocking.select([], [], [ours], FOREVER) == ([], [], [ours])
            assert ours.recv(1, socket.MSG_OOB) == b"!"


def test_a_socket_and_its_descriptor_are_the_same() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"x")
        number = ours.fileno()
        assert blocking.select([ours, number], [number], [], FOREVER)[1] == [number]
        assert blocking.select([ours, number], [], [], FOREVER) == ([ours, number], [], [])


def test_what_an_interrupted_call_left_is_readable() -> None:
    with tcp_pair() as (stream, _):

        async def keep() -> None:
            stream._keep(b"kept")

        blocking.loop.background().call(keep, doing="keeping by")
        assert blocking.select([stream], [], [], FOREVER) == ([stream], [], [])
        assert stream.recv() == b"kept"
        assert blocking.select([stream], [], [], 0) == ([], [], [])


def test_many_threads_select_the_same_objects() -> None:
    with tcp_pair() as (stream, peer):
        found: list[Any] = []

        def wait() -> None:
            found.append(blocking.select([stream], [], [], FOREVER))

        threads = [threading.Thread(target=wait) for _ in range(5)]
        for each in threads:
            each.start()
        peer.sendall(b"x")
        for each in threads:
            each.join()
        assert found == [([stream], [], [])] * 5


def test_ctrl_c_ends_the_wait() -> None:
    with tcp_pair() as (stream, peer):
        timer = threading.Timer(0.05, signal.raise_signal, [signal.SIGINT])
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            blocking.select([stream], [], [], FOREVER)
        timer.join()
        peer.sendall(b"x")
        assert blocking.select([stream], [], [], FOREVER) == ([stream], [], [])


def test_a_handlers_thread_selects_in_the_loop_of_its_server() -> None:
    async def main() -> tuple[Any, ...]:
        near, far = portico.memory_pair()
        face = BlockingStream(near, asyncio.get_running_loop())
        far.send(b"x")
        found = await asyncio.to_thread(blocking.select, [face], [face], [], FOREVER)
        with pytest.raises(ConfigurationError, match="several"), tcp_pair() as (other, _):
            blocking.select([face, other], [], [], 0)
        near.abort()
        far.abort()
        return found[0] == [face], found[1] == [face]

    assert asyncio.run(main()) == (True, True)


def test_nonsense_is_refused() -> None:
    reading, writing = os.pipe()
    try:
        for lists, timeout, text in [
            (([], [], []), None, "wait for ever"),
            (([writing], [], []), -1, "timeout"),
            (([writing], [], []), float("nan"), "timeout"),
            (([reading, 1 << 20], [], []), 0, "is not open"),
            (([-1], [], []), 0, "is not open"),
            ((["stdin"], [], []), 0, "cannot be watched"),
        ]:
            with pytest.raises(ConfigurationError, match=text):
                blocking.select(*lists, timeout)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_descriptor_that_is_closed_meanwhile_ends_the_wait() -> None:
    reading, writing = os.pipe()
    timer = threading.Timer(0.02, os.close, [reading])
    timer.start()
    with pytest.raises(ConfigurationError, match="closed while"):
        blocking.select([reading], [], [], FOREVER)
    timer.join()
    os.close(writing)


def test_after_the_loop_has_ended_a_connection_raises() -> None:
    with tcp_pair() as (stream, _):
        blocking.shutdown()
        with pytest.raises(ClosedError):
            blocking.select([stream], [], [], FOREVER)
