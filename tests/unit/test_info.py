import select
import socket
import struct
from collections.abc import Iterator

import pytest

from portico.transports.info import Info, parse_tcp_info, socket_info


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as near:
        far, _ = listener.accept()
        with far:
            yield near, far


def test_tcp_connection(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.sendall(b"x" * 1000)
    assert select.select([far], [], [], 5)[0]
    sent, got = socket_info(near, 5, 6), socket_info(far)
    assert (sent.queued_receive, sent.queued_send) == (5, 6)
    assert sent.state == got.state == "established"
    assert sent.rtt is not None and 0 < sent.rtt < 1
    assert sent.rtt_variance is not None and sent.minimum_rtt is not None
    assert sent.mss and sent.congestion_window and sent.path_mtu
    assert sent.retransmits == sent.lost == 0
    assert sent.total_retransmits is not None and sent.delivery_rate is not None and sent.unacked is not None
    assert sent.bytes_sent == 1000 and got.bytes_received == 1000
    assert got.kernel_receive_queue == 1000 and got.kernel_send_queue == 0
    far.recv(1000)
    assert socket_info(far).kernel_receive_queue == 0


def test_peer_that_does_not_read_fills_the_send_queue(pair: tuple[socket.socket, socket.socket]) -> None:
    near, _ = pair
    near.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            near.send(b"x" * 65536)
    assert (socket_info(near).kernel_send_queue or 0) > 0


def test_half_closed_states(pair: tuple[socket.socket, socket.socket]) -> None:
    near, far = pair
    near.shutdown(socket.SHUT_WR)
    assert far.recv(1) == b""
    assert socket_info(far).state == "close-wait"
    assert socket_info(near).state in ("fin-wait-1", "fin-wait-2")


def test_listener_and_unconnected_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert socket_info(listener) == Info(
            state="listening", kernel_send_queue=socket_info(listener).kernel_send_queue
        )
    with socket.socket() as sock:
        assert socket_info(sock).state == "closed" and socket_info(sock).rtt is None


def test_unix_socket_tells_its_receive_queue_only() -> None:
    near, far = socket.socketpair()
    with near, far:
        far.send(b"12345")
        assert socket_info(near, 1, 2) == Info(1, 2, kernel_receive_queue=5)


def test_closed_socket_tells_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert socket_info(pair[0]) == Info()


def test_struct_of_every_length_is_read(pair: tuple[socket.socket, socket.socket]) -> None:
    full = pair[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 208)
    before: dict[str, object] = {}
    for size in range(len(full) + 1):
        values = parse_tcp_info(full[:size])
        assert before.items() <= values.items()
        before = values
    assert set(before) <= set(Info.__dataclass_fields__)
    assert "bytes_acked" not in parse_tcp_info(full[:104])  # Linux before 4.1


def test_unmeasured_times_and_unknown_states() -> None:
    data = bytearray(208)
    data[0] = 99
    struct.pack_into("=I", data, 148, 2**32 - 1)
    struct.pack_into("=I", data, 68, 2500)
    values = parse_tcp_info(bytes(data))
    assert values["state"] == "99" and values["minimum_rtt"] is None and values["rtt"] == 0.0025
