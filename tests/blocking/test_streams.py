"""Blocking streams: receiving and sending, with timeouts and without waiting."""

import os
import socket
import threading
import time

import pytest
from server.support import Certificates, certificates

import portico
from portico import blocking
from portico.errors import BusyError, ClosedError, ConfigurationError, EndOfStream, MessageTooLarge, WouldBlock

from .support import PATIENCE, Aside, connected, interrupted_answer, pair, until

__all__ = ["certificates"]

ANYWHERE = "tcp://127.0.0.1:0"
READERS = {
    "recv": lambda stream, **how: stream.recv(**how),
    "recv_exactly": lambda stream, **how: stream.recv_exactly(6, **how),
    "recv_until": lambda stream, **how: stream.recv_until(b"\n", **how) + b"\n",
}


def test_a_stream_receives_by_number_by_separator_and_as_it_comes() -> None:
    with connected() as (stream, peer):
        peer.sendall(b"5\nhelloabcdef")
        assert stream.recv_exactly(int(stream.recv_until(b"\n"))) == b"hello"
        assert stream.recv(3) == b"abc"
        assert stream.recv() == b"def"
        peer.sendall(b"one ")
        peer.sendall(b"two")
        peer.shutdown(socket.SHUT_WR)
        assert b"".join(stream) == b"one two"
        with pytest.raises(EndOfStream):
            stream.recv_exactly(1)


def test_facts_of_the_connection_can_be_asked() -> None:
    with connected(options={"no_delay": True}) as (stream, peer):
        assert str(stream.local_address) == f"tcp://127.0.0.1:{peer.getpeername()[1]}"
        assert str(stream.remote_address) == f"tcp://127.0.0.1:{peer.getsockname()[1]}"
        assert stream.state is portico.State.OPEN and not stream.draining
        assert stream.options["no_delay"] and stream.tls is None and stream.proxy_header is None
        assert stream.info().queued_send == 0
        assert repr(stream) == f"<BlockingStream open {stream.remote_address}>"


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_receiving_without_waiting_takes_nothing_that_is_not_there(read) -> None:
    with connected() as (stream, peer):
        with pytest.raises(WouldBlock, match=f"receiving from {stream.remote_address} would have to wait"):
            read(stream, wait=False)
        peer.sendall(b"hello\n")
        assert read(stream, wait=False) == b"hello\n"


@pytest.mark.parametrize("read", [READERS["recv_exactly"], READERS["recv_until"]])
def test_what_is_too_little_without_waiting_stays(read) -> None:
    with connected() as (stream, peer):
        peer.sendall(b"hell")
        with pytest.raises(WouldBlock):
            read(stream, wait=False)
        with pytest.raises(TimeoutError):
            read(stream, timeout=0.01)
        peer.sendall(b"o\n")
        assert read(stream) == b"hello\n"


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("timeout", [0, 0.02])
def test_a_timeout_says_whom_it_waited_for_and_loses_nothing(read, timeout: float) -> None:
    with connected() as (stream, peer):
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=f"receiving from tcp://.* took more than {timeout:g} s") as raised:
            read(stream, timeout=timeout)
        assert timeout <= time.monotonic() - begun < PATIENCE and "\n" not in str(raised.value)
        peer.sendall(b"hello\n")
        assert read(stream, timeout=PATIENCE) == b"hello\n"


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_timeout_that_is_no_time_is_refused(timeout: float) -> None:
    with connected() as (stream, _):
        with pytest.raises(ConfigurationError, match=r"timeout=.* must be 0 or more seconds"):
            stream.recv(timeout=timeout)


def test_sending_waits_for_room_and_a_timeout_sends_nothing_of_it() -> None:
    with connected(high_water=1000) as (stream, peer):
        sent = 0
        with pytest.raises(TimeoutError, match="sending to tcp://"):
            while True:
                stream.send(bytes(100_000), timeout=0.05)
                sent += 100_000
        with pytest.raises(WouldBlock):
            stream.send(b"more", wait=False)
        with pytest.raises(WouldBlock):
            stream.flush(wait=False)
        with pytest.raises(TimeoutError):
            stream.flush(timeout=0.01)
        sender = Aside(lambda: stream.send(b"end", timeout=PATIENCE))
        with peer.makefile("rb") as file:
            assert len(file.read(sent)) == sent and file.read(3) == b"end"
        assert sender.over().error is None
        stream.flush()


def test_partial_sends_show_what_is_left() -> None:
    data = bytes(range(256)) * 4
    with connected(high_water=1000) as (stream, peer):
        rest = stream.send_some(data)
        assert bytes(rest) == data[1000:]
        assert stream.send_some(rest) == b""
        got = b""
        while len(got) < len(data):
            got += peer.recv(4096)
        assert got == data


def test_partial_sends_wait_for_any_room() -> None:
    with connected(high_water=1000) as (stream, peer):
        sent = 0
        with pytest.raises(WouldBlock):
            while True:
                stream.send(bytes(100_000), wait=False)
                sent += 100_000
        with pytest.raises(WouldBlock):
            stream.send_some(b"x", wait=False)
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                stream.send_some(b"x", timeout=timeout)
        sender = Aside(lambda: stream.send_some(b"end" + bytes(1000)))
        sender.waits()
        with peer.makefile("rb") as file:
            assert len(file.read(sent)) == sent and file.read(3) == b"end"
        assert sender.over().result == bytes(3)


def test_half_close_and_the_end_of_both_sides() -> None:
    with connected() as (stream, peer):
        stream.send(b"request")
        stream.send_eof()
        assert peer.recv(100) == b"request" and peer.recv(100) == b""
        assert stream.state is portico.State.HALF_CLOSED_LOCAL
        with pytest.raises(ClosedError, match="send_eof"):
            stream.send(b"more")
        peer.sendall(b"answer")
        peer.close()
        assert b"".join(stream) == b"answer"
        stream.close()
        stream.wait_closed()
        assert stream.state is portico.State.CLOSED
        stream.close()
        with pytest.raises(ClosedError):
            stream.flush()


def test_closing_need_not_be_waited_for() -> None:
    with connected() as (stream, peer):
        with pytest.raises(TimeoutError):
            stream.wait_closed(timeout=0.01)
        stream.close(wait=False)
        with pytest.raises(TimeoutError, match="closing"):
            stream.close(timeout=0.01)
        assert peer.recv(1) == b""
        peer.close()
        stream.wait_closed(timeout=PATIENCE)


def test_abort_resets_the_connection() -> None:
    with connected() as (stream, peer):
        stream.abort()
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_leaving_the_context_by_ctrl_c_aborts() -> None:
    with connected() as (stream, peer):
        with pytest.raises(KeyboardInterrupt), stream:
            raise KeyboardInterrupt
        with pytest.raises(ConnectionResetError):
            peer.recv(1)


def test_two_threads_may_send_and_receive_but_only_one_receive() -> None:
    with connected() as (stream, peer):
        reader = Aside(stream.recv)
        reader.waits()
        with pytest.raises(BusyError):
            stream.recv()
        stream.send(b"meanwhile")
        assert peer.recv(100) == b"meanwhile"
        peer.sendall(b"late")
        assert reader.over().result == b"late"


def test_a_stream_goes_on_as_a_channel_with_what_has_come() -> None:
    with connected() as (stream, peer):
        peer.sendall(b"head\none\ntwo\n")
        assert stream.recv_until(b"\n") == b"head"
        channel = stream.channel(portico.Lines())
        assert channel.recv() == "one" and channel.recv() == "two"


def test_a_stream_is_upgraded_to_tls(certificates: Certificates) -> None:
    def handler(stream: portico.BlockingStream) -> None:
        assert stream.recv_until(b"\n") == b"STARTTLS"
        stream.send(b"go\n")
        stream.start_tls(tls, server_side=True)
        stream.send(stream.recv_until(b"\n").upper())

    tls = certificates.server()
    with blocking.serve(handler, ANYWHERE) as server, blocking.connect(server.address) as stream:
        stream.send(b"STARTTLS\n")
        assert stream.recv_until(b"\n") == b"go"
        stream.start_tls(certificates.client(), server_name="localhost")
        assert stream.tls.version == "TLSv1.3"
        stream.send(b"secret\n")
        assert stream.recv_exactly(6) == b"SECRET"


def test_descriptors_and_credentials_pass_over_a_unix_socket() -> None:
    reading, writing = os.pipe()
    try:
        with pair(kind="stream") as (one, other):
            assert one.peer_credentials.pid == os.getpid()
            with pytest.raises(WouldBlock):
                other.recv_fds(wait=False)
            one.send_fds([writing], b"here")
            data, (passed,) = other.recv_fds(timeout=PATIENCE)
            assert data == b"here"
            os.write(passed, b"through")
            os.close(passed)
            assert os.read(reading, 100) == b"through"
    finally:
        os.close(reading)
        os.close(writing)


def test_ancillary_data_travels_beside_the_bytes() -> None:
    from portico.transports.ancillary import Descriptors

    with pair(kind="stream") as (one, other), open(os.devnull, "rb") as file:
        with pytest.raises(WouldBlock):
            other.recv_with_ancillary(wait=False)
        one.send_with_ancillary(b"here", [Descriptors([os.dup(file.fileno())])])
        data, (record,) = other.recv_with_ancillary(timeout=PATIENCE)
        with record:
            assert data == b"here" and len(record) == 1


def test_detaching_gives_the_socket_back_with_what_was_received() -> None:
    one, other = blocking.socketpair()
    with other:
        other.send(b"early")
        until(lambda: one.info().queued_receive)
        sock, received = one.detach(timeout=PATIENCE)
        with sock:
            assert received == b"early" and one.state is portico.State.CLOSED
            other.send(b"late")
            sock.setblocking(True)
            assert sock.recv(10) == b"late"


# Calls that are given up at the very moment that their answer comes.


@pytest.fixture(params=READERS.values(), ids=READERS)
def reader(request):
    return request.param


def test_what_comes_just_too_late_is_kept_for_the_next_call(reader) -> None:
    given_up = threading.Event()
    with pair() as (one, other):
        late = Aside(lambda: reader(one, timeout=0.1))
        late.waits()
        one.connection.watch(lambda: given_up.wait(PATIENCE))  # it has come, and holds the loop before it is taken
        other.send(b"hello\n")
        assert isinstance(late.over().error, TimeoutError)
        one.connection.watch(None)
        given_up.set()
        other.send(b"world\n")
        assert one.recv_exactly(12) == b"hello\nworld\n"


@pytest.mark.parametrize("again", READERS.values(), ids=READERS)
def test_ctrl_c_keeps_an_answer_for_the_next_call(reader, again) -> None:
    with pair() as (one, other):
        other.send(b"hello\n")
        with interrupted_answer():
            reader(one)
        with pytest.raises(BusyError, match="an interrupted call left"):
            one.channel(portico.Lines())
        with pytest.raises(BusyError):
            one.detach()
        with interrupted_answer():
            one.recv(2)
        assert again(one) == b"hello\n"
        other.send(b"world\n")
        assert again(one) == b"world\n"


def test_what_was_kept_is_joined_by_what_comes_later() -> None:
    with pair() as (one, other):
        other.send(b"hel")
        with interrupted_answer():
            one.recv()
        with pytest.raises(WouldBlock):
            one.recv_exactly(5, wait=False)
        other.send(b"lo\nwor")
        assert one.recv_exactly(5) == b"hello" and one.recv_until(b"\n") == b""
        assert one.recv() == b"wor"
        other.send(b"ld")
        with interrupted_answer():
            one.recv()
        with pytest.raises(MessageTooLarge):
            one.recv_until(b"\n", 1)
        other.send_eof()
        for read in READERS.values():
            if read is not READERS["recv"]:
                with pytest.raises(EndOfStream) as raised:
                    read(one)
                assert raised.value.partial == b"ld"
        assert one.recv(1) == b"l" and one.recv() == b"d" and one.recv() == b""


def test_descriptors_of_an_interrupted_call_are_kept_or_closed() -> None:
    for taken in (True, False):
        with pair(kind="stream") as (one, other), open(os.devnull, "rb") as file:
            one.send_fds([file.fileno()], b"here")
            with interrupted_answer():
                other.recv_fds()
            if taken:
                data, fds = other.recv_fds()
                assert data == b"here" and len(fds) == 1
                os.close(fds[0])


def test_an_interrupted_send_is_not_sent() -> None:
    with connected(high_water=1000) as (stream, peer):
        with pytest.raises(WouldBlock):
            while True:
                stream.send(bytes(100_000), wait=False)
        late = Aside(lambda: stream.send(b"lost", timeout=0.05))
        assert isinstance(late.over().error, TimeoutError)
        stream.send_eof()
        got = b""
        while more := peer.recv(1 << 20):
            got += more
        assert not got.strip(b"\0")
