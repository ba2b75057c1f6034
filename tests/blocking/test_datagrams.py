"""Blocking packets."""

import socket

import pytest
from ports import free_port

from portico import blocking
from portico.errors import BusyError, ClosedError, ConfigurationError, DeliveryError, MessageTooLarge, WouldBlock

from .support import PATIENCE, Aside, interrupted_answer

ANYWHERE = "udp://127.0.0.1:0"


def test_packets_go_to_anyone_and_answers_back() -> None:
    with blocking.datagrams(ANYWHERE) as server, blocking.datagrams(ANYWHERE) as client:
        client.send(b"hello", to=server.local_address)
        packet = server.recv(timeout=PATIENCE)
        assert (packet.data, packet.address) == (b"hello", client.local_address)
        server.send(b"answer", to=packet)
        assert next(iter(client)).data == b"answer"
        assert server.stats.packets_received == server.stats.packets_sent == 1
        assert str(server.local_address) in repr(server)


def test_many_packets_leave_at_once_and_come_in_batches() -> None:
    with blocking.datagrams(ANYWHERE) as server, blocking.datagrams(ANYWHERE) as client:
        client.send_many([b"%d" % number for number in range(10)], to=server.local_address)
        client.send_many([(b"last", server.local_address)])
        got: list[bytes] = []
        batches = server.batches(timeout=PATIENCE)
        while len(got) < 11:
            got += [packet.data for packet in next(batches)]
        assert got == [b"%d" % number for number in range(10)] + [b"last"]
        with pytest.raises(TimeoutError):
            next(server.batches(timeout=0.02))


def test_receiving_without_waiting_and_with_a_timeout() -> None:
    with blocking.datagrams(ANYWHERE) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        with pytest.raises(WouldBlock, match=f"receiving at {server.local_address} would have to wait"):
            server.recv(wait=False)
        for timeout in (0, 0.02):
            with pytest.raises(TimeoutError):
                server.recv(timeout=timeout)
        client.sendto(b"x", ("127.0.0.1", server.local_address.port))
        assert server.recv(wait=False).data == b"x"


def test_what_an_interrupted_call_took_is_kept() -> None:
    with blocking.datagrams(ANYWHERE) as server, blocking.datagrams(ANYWHERE) as client:
        for data in (b"one", b"two", b"three"):
            client.send(data, to=server.local_address)
        with interrupted_answer():
            server.recv()
        with pytest.raises(BusyError):
            server.detach()
        with interrupted_answer():
            server.recv_with_ancillary()
        assert server.recv().data == b"one"
        with interrupted_answer():
            next(server.batches())
        with interrupted_answer():
            server.recv()
        assert [packet.data for packet in next(server.batches())] == [b"two", b"three"]


def test_errors_concern_one_packet() -> None:
    nobody = f"udp://127.0.0.1:{free_port()}"
    with blocking.datagrams(ANYWHERE) as packets:
        with pytest.raises(MessageTooLarge):
            packets.send(bytes(70_000), to=nobody)
        with pytest.raises(DeliveryError):
            for _ in range(100):
                packets.send(b"x", to=nobody)
        assert all(isinstance(each, DeliveryError) for each in packets.failures())
        packets.send_with_ancillary(b"self", [], to=packets.local_address)
        packet, _ = packets.recv_with_ancillary(timeout=PATIENCE)
        assert packet.data == b"self"


def test_multicast_groups_are_joined_and_left() -> None:
    with blocking.datagrams("udp://0.0.0.0:0") as packets:
        packets.join("239.1.2.3", interface="lo")
        packets.leave("239.1.2.3", interface="lo")
        with pytest.raises(ConfigurationError):
            packets.leave("239.1.2.3", interface="lo")


def test_closing_ends_receiving() -> None:
    packets = blocking.datagrams(ANYWHERE)
    reader = Aside(packets.recv)
    reader.waits()
    packets.close()
    assert isinstance(reader.over().error, ClosedError)


def test_a_udp_channel_is_a_blocking_channel_until_it_is_disconnected() -> None:
    with blocking.datagrams(ANYWHERE) as server:
        channel = blocking.connect(server.local_address)
        channel.send(b"hello")
        server.send(b"answer", to=server.recv(timeout=PATIENCE))
        assert channel.recv(timeout=PATIENCE) == b"answer"
        with channel.disconnect() as packets:
            packets.send(b"again", to=server.local_address)
            assert server.recv(timeout=PATIENCE).data == b"again"


def test_a_unix_socket_file_goes_with_its_socket(tmp_path) -> None:
    path = tmp_path / "packets"
    with blocking.datagrams(f"unixgram:{path}"):
        assert path.exists()
    assert not path.exists()
