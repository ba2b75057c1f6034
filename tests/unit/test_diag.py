"""The list of sockets, beside the sockets that it tells of."""

import contextlib
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import portico
from portico.address import Address
from portico.errors import ConfigurationError, UnsupportedError
from portico.transports import diag
from portico.transports.diag import SocketEntry, entries
from portico.transports.holders import port_holder, unix_holder
from portico.transports.info import socket_info
from portico.transports.processes import processes_with
from portico.transports.socket_list import list_sockets

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sock_diag is Linux's")

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root may open such sockets")
PATIENCE = 10.0


@pytest.fixture
def opened() -> Iterator[Callable[..., socket.socket]]:
    """Open sockets that are closed at the end."""
    with contextlib.ExitStack() as stack:

        def make(*arguments: int, bind: object = None) -> socket.socket:
            sock = stack.enter_context(socket.socket(*arguments))
            if bind is not None:
                sock.bind(bind)  # type: ignore[arg-type]
            return sock

        yield make


@pytest.fixture
def tcp_pair(opened: Callable[..., socket.socket]) -> Iterator[tuple[socket.socket, socket.socket, socket.socket]]:
    """A listener, a client and what was accepted."""
    listener = opened(bind=("127.0.0.1", 0))
    listener.listen(7)
    client = opened()
    client.connect(listener.getsockname())
    with listener.accept()[0] as accepted:
        yield listener, client, accepted


def entry_of(sock: socket.socket, kind: str) -> SocketEntry:
    inode = os.fstat(sock.fileno()).st_ino
    (found,) = [each for each in list_sockets([kind]) if each.inode == inode]
    assert [process.pid for process in found.processes] == [os.getpid()]
    assert found.uid == os.geteuid() and found.user == found.processes[0].user
    return found


def until(wanted: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not wanted():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


# -- TCP


def test_a_listener_tells_who_waits_and_how_many_may(opened: Callable[..., socket.socket]) -> None:
    listener = opened(bind=("127.0.0.1", 0))
    listener.listen(7)
    opened().connect(listener.getsockname())
    entry = entry_of(listener, "tcp")
    assert (entry.kind, entry.state, entry.remote) == ("tcp", "listening", None)
    assert entry.local == Address("tcp", *listener.getsockname())
    assert (entry.receive_queue, entry.send_queue) == (1, 7)
    assert entry.rtt is None


def test_a_connection_tells_its_ends_queues_and_round_trip_time(
    tcp_pair: tuple[socket.socket, socket.socket, socket.socket],
) -> None:
    _, client, accepted = tcp_pair
    client.sendall(b"x" * 1234)
    select.select([accepted], [], [], PATIENCE)
    here, there = entry_of(accepted, "tcp"), entry_of(client, "tcp")
    assert here.state == there.state == "established"
    assert (here.local, here.remote) == (there.remote, there.local)
    assert here.local == Address("tcp", *accepted.getsockname())
    assert (here.receive_queue, there.receive_queue) == (1234, 0)
    assert there.rtt is not None and 0 < there.rtt < 1
    assert there.info is not None and there.info.bytes_sent == 1234 and there.info.state == "established"
    assert here.receive_buffer == accepted.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert here.send_buffer == accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def test_a_peer_that_does_not_read_fills_the_send_queue(
    tcp_pair: tuple[socket.socket, socket.socket, socket.socket],
) -> None:
    _, client, accepted = tcp_pair
    client.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += client.send(bytes(1 << 16))
    # the kernel goes on moving bytes for a while, so that is true between two of its steps only
    until(
        lambda: (
            (entry_of(client, "tcp").send_queue, entry_of(accepted, "tcp").receive_queue)
            == (waiting := socket_info(client).kernel_send_queue or 0, sent - waiting)
            == (socket_info(client).kernel_send_queue, socket_info(accepted).kernel_receive_queue)
            and 0 < waiting < sent
        )
    )


def test_the_timer_is_told(tcp_pair: tuple[socket.socket, socket.socket, socket.socket]) -> None:
    _, client, accepted = tcp_pair
    assert entry_of(accepted, "tcp").timer is None
    client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 100)
    entry = entry_of(client, "tcp")
    assert entry.timer == "keepalive"
    assert entry.timer_left is not None and 90 < entry.timer_left <= 101


def test_a_connection_that_is_over_belongs_to_nobody(opened: Callable[..., socket.socket]) -> None:
    listener = opened(bind=("127.0.0.1", 0))
    listener.listen()
    with socket.create_connection(listener.getsockname()) as client:
        near = Address("tcp", *client.getsockname())
        accepted, _ = listener.accept()
    with accepted:
        assert accepted.recv(1) == b""
    found: list[SocketEntry] = []

    def over() -> bool:
        found[:] = [each for each in list_sockets(["tcp"]) if each.local == near]
        return bool(found) and found[0].state == "time-wait"

    until(over)
    assert (found[0].processes, found[0].inode, found[0].uid, found[0].user) == ((), 0, None, "")
    assert found[0].timer == "time-wait" and found[0].timer_left is not None and 0 < found[0].timer_left <= 60


def test_a_socket_that_is_bound_only(opened: Callable[..., socket.socket]) -> None:
    entry = entry_of(opened(bind=("127.0.0.1", 0)), "tcp")
    assert (entry.state, entry.remote) == ("bound", None)


def test_every_interface_of_both_families_is_told_apart_from_that_of_ipv6(
    opened: Callable[..., socket.socket],
) -> None:
    hosts = []
    for only_6 in (0, 1):
        listener = opened(socket.AF_INET6)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only_6)
        listener.bind(("::", 0))
        listener.listen()
        hosts.append(entry_of(listener, "tcp").local.host)
    assert hosts == ["", "::"]


@ROOT_ONLY
def test_the_interface_that_a_socket_is_bound_to(opened: Callable[..., socket.socket]) -> None:
    sock = opened(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    sock.bind(("127.0.0.1", 0))
    assert entry_of(sock, "udp").interface == "lo"


# -- packets


def test_datagram_sockets_with_and_without_a_peer(opened: Callable[..., socket.socket]) -> None:
    receiver = opened(socket.AF_INET, socket.SOCK_DGRAM, bind=("127.0.0.1", 0))
    sender = opened(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(receiver.getsockname())
    sender.send(b"x" * 100)
    here, there = entry_of(receiver, "udp"), entry_of(sender, "udp")
    assert (here.state, here.remote, there.state, there.remote) == ("unconnected", None, "established", here.local)
    assert here.receive_queue is not None and here.receive_queue >= 100


def test_packets_that_were_dropped_are_counted(opened: Callable[..., socket.socket]) -> None:
    receiver = opened(socket.AF_INET, socket.SOCK_DGRAM, bind=("127.0.0.1", 0))
    receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    receiver.setblocking(False)
    sender = opened(socket.AF_INET, socket.SOCK_DGRAM)
    for _ in range(100):
        sender.sendto(b"x" * 1000, receiver.getsockname())
    drops = entry_of(receiver, "udp").drops
    received = 0
    with contextlib.suppress(BlockingIOError):
        while receiver.recv(2000):
            received += 1
    assert 0 < received < 100 and drops == 100 - received


@ROOT_ONLY
def test_raw_sockets_even_where_the_kernel_lists_them_in_proc_only(opened: Callable[..., socket.socket]) -> None:
    sock = opened(socket.AF_INET, socket.SOCK_RAW, 253, bind=("127.0.0.1", 0))
    six = opened(socket.AF_INET6, socket.SOCK_RAW, 253, bind=("::1", 0))
    assert (entry_of(sock, "raw").local, entry_of(sock, "raw").state) == (
        Address("raw", "127.0.0.1", 253),
        "unconnected",
    )
    assert entry_of(six, "raw").local == Address("raw", "::1", 253)
    sock.connect(("127.0.0.2", 0))
    assert entry_of(sock, "raw").remote == Address("raw", "127.0.0.2", 253)
    inode = os.fstat(sock.fileno()).st_ino
    assert inode not in [each.inode for each in entries("raw", waiting=True)]
    sock.send(b"x" * 50)


@ROOT_ONLY
def test_packet_sockets(opened: Callable[..., socket.socket]) -> None:
    arp = opened(socket.AF_PACKET, socket.SOCK_RAW, 0, bind=("lo", 0x0806))
    everything = opened(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))
    try:
        entry = entry_of(arp, "packet")
    except UnsupportedError as error:
        pytest.skip(str(error))
    assert (entry.local, entry.remote, entry.interface) == (Address("packet", "lo", 0x0806), None, "lo")
    assert entry_of(everything, "packet").local == Address("packet")


# -- Unix


def test_unix_sockets_of_all_kinds(opened: Callable[..., socket.socket], tmp_path: Path) -> None:
    name = f"\0portico-diag-{os.getpid()}"
    for kind, number in (("unix", socket.SOCK_STREAM), ("unixpacket", socket.SOCK_SEQPACKET)):
        listener = opened(socket.AF_UNIX, number, bind=name)
        listener.listen(3)
        client = opened(socket.AF_UNIX, number)
        client.connect(name)
        here, there = entry_of(listener, kind), entry_of(client, kind)
        assert (here.state, str(here.local)) == ("listening", f"{kind}:@{name[1:]}")
        assert (here.receive_queue, here.send_queue) == (1, 3)
        assert (there.state, there.local, there.remote) == ("established", Address(kind), here.local)
        with listener.accept()[0] as accepted:
            client.send(b"x" * 77)
            taken = entry_of(accepted, kind)
            assert (taken.local, taken.remote, taken.receive_queue) == (here.local, Address(kind), 77)
            assert taken.peer_inode == there.inode and entry_of(client, kind).peer_inode == taken.inode
            assert entry_of(client, kind).remote == here.local
        listener.close()
    path = str(tmp_path / "with space and \n")
    gram = entry_of(opened(socket.AF_UNIX, socket.SOCK_DGRAM, bind=path), "unixgram")
    assert (gram.local, gram.state) == (Address("unixgram", path=path), "unconnected")


# -- which


def test_listening_means_listeners_and_what_takes_packets_from_anybody(
    tcp_pair: tuple[socket.socket, socket.socket, socket.socket], opened: Callable[..., socket.socket]
) -> None:
    listener, client, accepted = tcp_pair
    bound = opened(bind=("127.0.0.1", 0))
    receiver = opened(socket.AF_INET, socket.SOCK_DGRAM, bind=("127.0.0.1", 0))
    sender = opened(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect(receiver.getsockname())
    idle = opened(socket.AF_UNIX)
    wanted, unwanted = (
        {os.fstat(sock.fileno()).st_ino for sock in each}
        for each in ([listener, receiver], [client, accepted, bound, sender, idle])
    )
    found = {each.inode for each in list_sockets(listening=True)}
    assert wanted <= found and not unwanted & found
    assert wanted | unwanted <= {each.inode for each in list_sockets()}


def test_kinds_are_told_apart() -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        assert {each.kind for each in list_sockets(["unixgram"])} == {"unixgram"}
        assert os.fstat(one.fileno()).st_ino not in [each.inode for each in list_sockets(["unix", "tcp"])]
    with pytest.raises(ConfigurationError, match="no 'sctp' sockets to list; there are tcp, udp"):
        list_sockets(["sctp"])


def test_without_processes_nobody_is_looked_up(tcp_pair: tuple[socket.socket, ...]) -> None:
    assert all(not each.processes for each in list_sockets(["tcp"], processes=False))


def test_it_is_public() -> None:
    assert portico.list_sockets is list_sockets
    assert portico.SocketEntry is SocketEntry


# -- who


def test_all_processes_that_have_a_socket_are_told(opened: Callable[..., socket.socket]) -> None:
    sock = opened(bind=("127.0.0.1", 0))
    os.set_inheritable(sock.fileno(), True)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[sock.fileno()]) as child:
        inode = os.fstat(sock.fileno()).st_ino
        holders = processes_with([inode])[inode]
        assert {(each.pid, each.name) for each in holders} >= {(child.pid, "cat")}
        assert {each.pid for each in holders} == {os.getpid(), child.pid}
        assert "this process" in map(str, holders) and f"cat (pid {child.pid})" in map(str, holders)


def test_who_is_in_the_way(opened: Callable[..., socket.socket], tmp_path: Path) -> None:
    receiver = opened(socket.AF_INET, socket.SOCK_DGRAM, bind=("127.0.0.1", 0))
    assert port_holder(receiver.getsockname()[1], "udp") == "this process"
    path = str(tmp_path / "gram")
    opened(socket.AF_UNIX, socket.SOCK_DGRAM, bind=path)
    assert unix_holder(path, "unixgram") == "this process"
    assert unix_holder(path) is None
    bound = opened(bind=("127.0.0.1", 0))
    assert port_holder(bound.getsockname()[1]) is None
    bound.listen()
    assert port_holder(bound.getsockname()[1]) == "this process"


# -- what the kernel may answer


def test_a_vsock_answer() -> None:
    """Few kernels list these, so the answer is written by hand (linux/vm_sockets_diag.h)."""
    listening = struct.pack("=4B4II8x", 40, socket.SOCK_STREAM, 10, 0, 2**32 - 1, 1024, 0, 2**32 - 1, 7)
    connected = struct.pack("=4B4II8x", 40, socket.SOCK_STREAM, 1, 0, 2, 1024, 3, 55555, 8)
    assert diag._vsock_entry(listening) == SocketEntry("vsock", "listening", Address("vsock", "", 1024), None, inode=7)
    assert diag._vsock_entry(connected) == SocketEntry(
        "vsock", "established", Address("vsock", "2", 1024), Address("vsock", "3", 55555), inode=8
    )


def test_link_local_addresses_have_the_interface_for_a_scope() -> None:
    index, name = socket.if_nameindex()[0]
    host = socket.inet_pton(socket.AF_INET6, "fe80::1")
    identity = struct.pack("!HH16s16s", 80, 443, host, host) + struct.pack("=I8x", index)
    entry = diag._inet_entry(
        "tcp", struct.pack("=4B", socket.AF_INET6, 1, 0, 0) + identity + struct.pack("=5I", *[0] * 5)
    )
    assert str(entry.local) == f"tcp://[fe80::1%{name}]:80"
    assert entry.remote == Address("tcp", "fe80::1", 443, scope=name)


@given(st.binary(max_size=200), st.integers(0, 20))
def test_attributes_and_messages_of_any_bytes_come_to_an_end(data: bytes, start: int) -> None:
    assert sum(map(len, diag._attributes(data, start).values())) <= len(data)
    assert sum(len(body) for _, body in diag._messages(data)) <= len(data)


def test_memory_of_an_older_kernel_has_no_drops() -> None:
    assert diag._memory(struct.pack("=8I", *range(8))) == {"receive_buffer": 1, "send_buffer": 3, "drops": None}
    assert diag._memory(b"\0" * 8) == {}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("NETLINK_SOCK_DIAG", 99, "does not list tcp sockets (sock_diag): protocol not supported"),
        ("SOCK_DIAG_BY_FAMILY", 99, "does not list tcp sockets (sock_diag): invalid argument"),
    ],
)
def test_a_kernel_that_does_not_answer(
    name: str, value: int, reason: str, monkeypatch: pytest.MonkeyPatch, opened: Callable[..., socket.socket]
) -> None:
    listener = opened(bind=("127.0.0.1", 0))
    listener.listen()
    monkeypatch.setattr(diag, name, value)
    with pytest.raises(UnsupportedError) as caught:
        list_sockets()
    assert reason in str(caught.value)
    assert port_holder(listener.getsockname()[1]) is None


@pytest.mark.parametrize("kind", diag.KINDS)
def test_other_platforms_say_so(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diag.sys, "platform", "darwin")
    with pytest.raises(UnsupportedError, match=r"^sockets can be listed only on Linux$"):
        list_sockets([kind])
