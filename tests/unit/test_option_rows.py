"""Every row of the table on live sockets: read, set and read back, refused."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portico.errors import ConfigurationError, PorticoError, UnsupportedError
from portico.option_limits import kernel_limits
from portico.option_row import Option
from portico.options import OPTIONS, get_option, set_option

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the whole table is there on Linux only")


def _connected() -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return socket.create_connection(listener.getsockname())


def _connected_v6() -> socket.socket:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as listener:
        return socket.create_connection(listener.getsockname()[:2])


def _unix() -> socket.socket:
    first, second = socket.socketpair()
    second.close()
    return first


def _bound_packet() -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    sock.bind(("lo", 3))
    return sock


KINDS: dict[str, Callable[[], socket.socket]] = {
    "tcp": _connected,
    "new tcp": socket.socket,
    "tcp v6": _connected_v6,
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "udp v6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "unix": _unix,
    "unix datagram": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    "vsock": lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM),
    "packet": _bound_packet,
    "icmp": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    "icmp v6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6),
    "raw v6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW),
}


@contextlib.contextmanager
def opened(kind: str) -> Iterator[socket.socket]:
    """A socket of that kind; skips where this machine, or this user, cannot have one."""
    try:
        sock = KINDS[kind]()
    except OSError as error:
        pytest.skip(f"no {kind} socket here: {error}")
    with sock:
        yield sock


def kind_for(option: Option) -> str:
    """Return the first kind of socket that the option is for."""
    for kind, make in KINDS.items():
        try:
            sock = make()
        except OSError:
            continue
        with sock:
            if option.applies_to(sock):
                return kind
    pytest.skip(f"no socket here for {option.name}")


def is_net_admin() -> bool:
    """Tell whether this process has CAP_NET_ADMIN (linux/capability.h), as root in a container often has not."""
    found = re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.M)
    assert found
    return bool(int(found[1], 16) >> 12 & 1)


def younger_than_this_kernel(option: Option) -> bool:
    """Tell whether the row says that this kernel does not have it yet."""
    since = re.search(r"Linux (\d+)\.(\d+)", option.platform)
    running = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert running
    return since is not None and tuple(map(int, since.groups())) > tuple(map(int, running.groups()))


# Reading

KERNELS_MAY_LACK = {
    "peer_security",
    "prefer_busy_poll",
    "busy_poll",
    "incoming_napi_id",
    "fanout_rollovers",
    "wifi_status",
}
"""Parts of the kernel that are not built everywhere, or that need more than a socket."""


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if option.readable])
def test_every_row_reads_on_a_socket_that_it_is_for(name: str) -> None:
    option = OPTIONS[name]
    assert option.number is not None, "Linux has it"
    kind = "tcp v6" if name == "path_mtu_v6" else kind_for(option)
    with opened(kind) as sock:
        try:
            value = get_option(sock, name)
        except PorticoError:
            if name in KERNELS_MAY_LACK or younger_than_this_kernel(option):
                return
            raise
        expected: dict[str, tuple[type, ...]] = {
            "bool": (bool,),
            "int": (int, type(None)),
            "linger": (type(None),),
            "duration": (float,),
            "str": (str,),
            "enum": (str,),
            "flags": (tuple,),
            "interface": (str,),
            "address": (str,),
            "ports": (tuple, type(None)),
            "numbers": (tuple,),
            "bytes": (bytes,),
        }
        assert isinstance(value, expected.get(option.kind, (int,))), value


@pytest.mark.parametrize("kind", KINDS)
def test_the_mapping_of_every_kind_of_socket_reads_whole(kind: str) -> None:
    from portico.options import Options

    with opened(kind) as sock:
        everything = dict(Options(lambda: sock))
        assert {"receive_buffer", "type", "priority"} <= set(everything)
        assert not {"error", "saved_syn", "packet_statistics", "receive_buffer_force"} & set(everything)
        assert ("keepalive" in everything) is ("tcp" in kind)
        assert ("hop_limit" in everything) is ("v6" in kind)
        assert ("vsock_buffer" in everything) is (kind == "vsock")


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if not option.readable])
def test_what_can_only_be_set_says_so(name: str) -> None:
    with opened(kind_for(OPTIONS[name])) as sock, pytest.raises(ConfigurationError, match="can only be set"):
        get_option(sock, name)


@pytest.mark.parametrize("name", [name for name, option in OPTIONS.items() if not option.settable])
def test_what_can_only_be_read_says_so(name: str) -> None:
    with opened(kind_for(OPTIONS[name])) as sock, pytest.raises(ConfigurationError, match="can only be read"):
        set_option(sock, name, 1)


def test_what_the_kernel_tells_of_a_connection() -> None:
    with opened("tcp") as sock:
        info = get_option(sock, "tcp_info")
        assert isinstance(info, bytes) and len(info) > 100
        assert get_option(sock, "path_mtu") == 65535
        assert get_option(sock, "cookie") != get_option(sock, "namespace_cookie")
        memory = get_option(sock, "memory")
        assert isinstance(memory, tuple) and memory[1] == get_option(sock, "receive_buffer")


def test_what_is_not_known_before_connecting_says_so() -> None:
    with opened("new tcp") as sock, pytest.raises(ConfigurationError, match=r"not connected; it is known once"):
        get_option(sock, "path_mtu")


def test_peer_of_a_unix_socket_is_this_process() -> None:
    with opened("unix") as sock:
        assert get_option(sock, "peer_credentials") == (os.getpid(), os.getuid(), os.getgid())
        groups = get_option(sock, "peer_groups")
        assert isinstance(groups, tuple) and set(groups) == set(os.getgroups())


def test_saved_syn_is_that_of_the_accepted_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        set_option(listener, "save_syn", 1)
        with socket.create_connection(listener.getsockname()):
            accepted, _ = listener.accept()
            with accepted:
                headers = get_option(accepted, "saved_syn")
                assert isinstance(headers, bytes) and headers[:1] == b"E", "an IPv4 header"
                assert get_option(accepted, "saved_syn") == b""


# Setting

SET: dict[str, list[tuple[object, object]]] = {
    # What is set, and what is read back.
    "keepalive_interval": [(5, 5)],
    "keepalive_count": [(3, 3)],
    "keepalive_idle": [(30, 30)],
    "user_timeout": [(20_000, 20_000)],
    "linger": [(7, 7), (0, 0), (None, None)],
    "receive_buffer": [(10_000, 20_000)],
    "send_buffer": [(10_000, 20_000)],
    "buffer_lock": [("send", ("send",)), (("receive", "send"), ("send", "receive")), ((), ())],
    "receive_lowat": [(10, 10)],
    "max_pacing_rate": [(1_000_000, 1_000_000), (2**40, 2**40), (None, None)],
    "incoming_cpu": [(0, 0)],
    "bind_to_device": [("lo", "lo"), ("", "")],
    "bind_to_interface": [("lo", "lo"), ("", ""), (socket.if_nametoindex("lo"), "lo")],
    "mark": [(7, 7), (2**32 - 1, 2**32 - 1), (0, 0)],
    "priority": [(3, 3)],
    "busy_poll": [(50, 50), (0, 0)],
    "send_time": [((1, 2), (1, 2))],
    "timestamping": [(("rx_software", "software"), ("rx_software", "software")), ((), ())],
    "peek_offset": [(5, 5), (None, None)],
    "syn_count": [(3, 3)],
    "fin_timeout": [(9, 9), (None, None)],
    "max_retransmit_timeout": [(5_000, 5_000)],
    "min_retransmit_timeout": [(100_000, 100_000)],
    "max_ack_delay": [(40_000, 40_000)],
    "notsent_lowat": [(16_384, 16_384), (2**32 - 1, 2**32 - 1)],
    "window_clamp": [(1 << 20, 1 << 20)],
    "send_delay": [(1000, 1000), (0, 0)],
    "fast_open_key": [(b"k" * 16, b"k" * 16), (b"k" * 16 + b"o" * 16, b"k" * 16 + b"o" * 16)],
    "save_syn": [(2, 2), (0, 0)],
    "udp_segment": [(1200, 1200), (0, 0)],
    "udp_encapsulation": [("espinudp", "espinudp")],
    "type_of_service": [(0x10, 0x10)],
    "ttl": [(33, 33), (None, 64)],
    "min_ttl": [(2, 2)],
    "mtu_discover": [("do", "do"), (3, "probe"), ("omit", "omit")],
    "mtu_discover_v6": [("dont", "dont"), (0, "dont"), ("interface", "interface")],
    "ip_options": [(b"\x01\x01\x01\x00", b"\x01\x01\x01\x00"), (b"", b"")],
    "local_ports": [((40_000, 50_000), (40_000, 50_000)), ([1024, 1024], (1024, 1024)), (None, None)],
    "unicast_interface": [("lo", "lo"), ("", "")],
    "unicast_interface_v6": [("lo", "lo"), ("", "")],
    "multicast_interface": [("127.0.0.1", "127.0.0.1"), ("lo", "0.0.0.0"), ("0.0.0.0", "0.0.0.0")],
    "multicast_interface_v6": [("lo", "lo"), ("", "")],
    "multicast_ttl": [(5, 5), (0, 0), (None, 1)],
    "multicast_hops": [(5, 5), (0, 0), (None, 1)],
    "traffic_class": [(32, 32)],
    "hop_limit": [(5, 5), (None, 64)],
    "min_hop_limit": [(2, 2)],
    "address_preferences": [("tmp", ("tmp", "home")), (("public", "home"), ("public", "home"))],
    "hop_by_hop_options": [(b"\0\0\1\4\0\0\0\0", b"\0\0\1\4\0\0\0\0"), (b"", b"")],
    "destination_options": [(b"\0\0\1\4\0\0\0\0", b"\0\0\1\4\0\0\0\0"), (b"", b"")],
    "icmp_filter": [(1 << 8, 1 << 8), (2**32 - 1, 2**32 - 1)],
    "icmp_v6_filter": [(b"\xff" * 32, b"\xff" * 32)],
    "vsock_buffer": [(1 << 16, 1 << 16)],
    "vsock_buffer_minimum": [(1 << 10, 1 << 10)],
    "vsock_buffer_maximum": [(1 << 20, 1 << 20)],
    "vsock_connect_timeout": [(1.5, 1.5), (3, 3.0)],
    "packet_timestamp": [("raw_hardware", ("raw_hardware",)), ((), ())],
    "virtio_header_size": [(10, 10), (0, 0)],
}
ON_A_NEW_SOCKET = {"fast_open", "fast_open_connect", "fast_open_no_cookie", "defer_accept", "max_segment", "v6_only"}
"""Read back by the tests of `Options`, or not to be had once connected."""
FOR_GOOD = {
    "lock_filter",
    "route_advice",
    "fanout",
    "routing_header",
    "checksum_offset",
    "path_mtu_v6",
    "reserved_memory",
}
"""Tested one by one below."""
WITHOUT_EFFECT = {"thin_dupack", "quick_ack"}
"""The kernel does not keep what is set."""


def _plain(option: Option) -> list[tuple[object, object]]:
    return [(True, True), (False, False)] if option.kind == "bool" else SET.get(option.name, [])


@pytest.mark.parametrize(
    "name",
    [name for name, option in OPTIONS.items() if option.settable and option.readable
     and name not in ON_A_NEW_SOCKET | FOR_GOOD | WITHOUT_EFFECT],
)  # fmt: skip
def test_what_is_set_reads_back(name: str) -> None:
    option = OPTIONS[name]
    assert option.kind == "bool" or name in SET or name == "congestion", "say here what to set"
    with opened("new tcp" if name in ("fast_open_key", "tx_rehash") else kind_for(option)) as sock:
        for value, expected in _plain(option):
            try:
                set_option(sock, name, value)
            except ConfigurationError as error:
                if is_net_admin() or f"it needs {option.privilege}" not in str(error):
                    raise
                return
            except UnsupportedError:
                if name in KERNELS_MAY_LACK or younger_than_this_kernel(option):
                    return
                raise
            assert get_option(sock, name) == expected
            assert type(get_option(sock, name)) is type(expected)


def test_congestion_control_by_name() -> None:
    available = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control").read_text().split()
    with opened("tcp") as sock:
        for name in available:
            set_option(sock, "congestion", name)
            assert get_option(sock, "congestion") == name


def test_locked_filter_stays_locked() -> None:
    with opened("udp") as sock:
        set_option(sock, "lock_filter", True)
        assert get_option(sock, "lock_filter") is True
        with pytest.raises(ConfigurationError, match="once on, it stays on"):
            set_option(sock, "lock_filter", False)


def test_forced_buffers_go_past_the_maximum() -> None:
    if not is_net_admin():
        pytest.skip("needs CAP_NET_ADMIN")
    for way in ("receive_buffer", "send_buffer"):
        with opened("udp") as sock:
            most = kernel_limits(way, sock).maximum
            assert isinstance(most, int)
            set_option(sock, way, 2 * most)
            assert get_option(sock, way) == 2 * most, "cut to the maximum, then doubled"
            set_option(sock, f"{way}_force", 2 * most)
            assert get_option(sock, way) == 4 * most


def test_advice_budget_and_alerts_are_taken() -> None:
    with opened("udp") as sock:
        set_option(sock, "route_advice", 1)
        set_option(sock, "busy_poll_budget", 0)
    with opened("icmp") as sock:
        set_option(sock, "router_alert", True)
        set_option(sock, "router_alert", False)
    with opened("raw v6") as sock:
        set_option(sock, "router_alert_v6", 3)
        set_option(sock, "router_alert_v6", None)


def test_smaller_path_mtu_is_set_before_connecting() -> None:
    with opened("udp v6") as sock:
        sock.connect(("::1", 9))
        whole = get_option(sock, "path_mtu_v6")
        set_option(sock, "path_mtu_v6", 1280)
        set_option(sock, "dont_fragment", True)
        with pytest.raises(OSError, match="too long"):
            sock.send(bytes(1281))
        set_option(sock, "path_mtu_v6", None)
        sock.send(bytes(1281))
        assert get_option(sock, "path_mtu_v6") == whole


def test_rest_of_a_read_is_told_as_ancillary_data() -> None:
    option = OPTIONS["receive_unread"]
    first, second = socket.socketpair()
    with first, second:
        try:
            set_option(second, option.name, True)
        except UnsupportedError:
            assert younger_than_this_kernel(option)
            return
        first.send(b"abcdef")
        data, ancillary, _, _ = second.recvmsg(2, 64)
        assert data == b"ab"
        assert ancillary == [(socket.SOL_SOCKET, option.number, (4).to_bytes(4, sys.byteorder))]


def test_checksum_offset_of_a_raw_socket() -> None:
    with opened("icmp v6") as sock:
        assert get_option(sock, "checksum_offset") == 2
    try:
        sock = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 200)
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    with sock:
        set_option(sock, "checksum_offset", 4)
        assert get_option(sock, "checksum_offset") == 4
        set_option(sock, "checksum_offset", None)
        assert get_option(sock, "checksum_offset") is None
        with pytest.raises(ConfigurationError, match="it is even"):
            set_option(sock, "checksum_offset", 3)


def test_fanout_group_and_its_statistics() -> None:
    with opened("packet") as first, opened("packet") as second:
        group = 0x1000 << 16 | os.getpid() & 0xFFFF  # rolls over
        for sock in (first, second):
            set_option(sock, "fanout", group)
            assert get_option(sock, "fanout") == group
            assert get_option(sock, "fanout_rollovers") == (0, 0, 0)
        assert get_option(first, "packet_statistics") == (0, 0) or get_option(first, "packet_statistics") == (0, 0)


def test_routing_header_of_a_type_that_is_not_sent() -> None:
    with opened("udp v6") as sock, pytest.raises(ConfigurationError, match="it is of type 2 or 4"):
        set_option(sock, "routing_header", b"\0\0\0\0\0\0\0\0")


# Refusals


@pytest.mark.parametrize(
    ("kind", "name", "value", "said"),
    [
        ("udp", "mtu_discover", "always", "takes one of dont, want, do, probe, interface, omit, not 'always'"),
        ("udp", "mtu_discover", True, "takes one of"),
        ("udp", "mtu_discover", 9, "takes one of"),
        ("udp", "timestamping", ("software", "hardware"), "takes names of tx_hardware"),
        ("udp", "timestamping", 3, "takes names of"),
        ("udp", "unicast_interface", "nonesuch0", "there is no interface 'nonesuch0', `ip link` lists them"),
        ("udp", "unicast_interface", -1, "takes the name of a network interface, or '' for none, not -1"),
        ("udp", "unicast_interface", None, "takes the name of a network interface"),
        ("udp", "multicast_interface", "127.0.0.300", "takes the IPv4 address or the name of a network interface"),
        ("udp", "multicast_interface", "", "takes the IPv4 address"),
        ("udp", "multicast_interface", 7, "takes the IPv4 address"),
        ("udp", "local_ports", (0, 7), "takes a pair of ports, the lower one first, or None"),
        ("udp", "local_ports", (9, 7), "takes a pair of ports"),
        ("udp", "local_ports", 9, "takes a pair of ports"),
        ("udp", "local_ports", (1, 65536), "takes a pair of ports"),
        ("udp", "multicast_ttl", 256, "takes a whole number from 0 to 255 hops, or None, not 256"),
        ("udp", "multicast_ttl", -1, "takes a whole number from 0 to 255 hops, or None, not -1"),
        ("udp", "priority", None, "takes a whole number from 0 to 2147483647, not None"),
        ("udp", "send_time", (1,), "takes 2 numbers, not (1,)"),
        ("udp", "send_time", 1, "takes 2 numbers, not 1"),
        ("udp", "send_time", (1, -1), "takes 2 numbers"),
        ("udp", "ip_options", b"x" * 41, "takes at most 40 bytes, not 41 bytes"),
        ("udp", "ip_options", "text", "takes at most 40 bytes, not 'text'"),
        ("udp", "max_pacing_rate", 2**64, "takes a whole number"),
        ("new tcp", "fast_open_key", b"short", "a key has 16 or 32 bytes"),
        ("vsock", "vsock_connect_timeout", -1, "takes seconds from 0"),
        ("vsock", "vsock_connect_timeout", True, "takes seconds from 0"),
        ("vsock", "vsock_connect_timeout", float("nan"), "takes seconds from 0"),
        ("vsock", "vsock_buffer", "1M", "takes a whole number from 0"),
    ],
)
def test_wrong_value_is_one_clear_line(kind: str, name: str, value: object, said: str) -> None:
    with opened(kind) as sock, pytest.raises(ConfigurationError) as caught:
        set_option(sock, name, value)
    assert f"option {name!r}" in str(caught.value) and said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("udp", "no_delay", "is for TCP sockets; this one is AF_INET/SOCK_DGRAM"),
        ("tcp", "udp_gro", "is for UDP sockets"),
        ("tcp", "multicast_ttl", "is for IPv4 datagram and raw sockets"),
        ("udp", "multicast_hops", "is for IPv6 datagram and raw sockets"),
        ("udp", "pass_credentials", "is for Unix sockets"),
        ("unix", "vsock_buffer", "is for vsock sockets"),
        ("unix", "bypass_queue", "is for packet sockets"),
        ("udp", "header_included", "is for raw IPv4 sockets"),
        ("icmp v6", "icmp_filter", "is for raw ICMP sockets"),
        ("icmp v6", "ttl", "is for IPv4 sockets; this one is AF_INET6/SOCK_RAW"),
    ],
)
def test_option_for_another_kind_of_socket(kind: str, name: str, said: str) -> None:
    with opened(kind) as sock, pytest.raises(ConfigurationError) as caught:
        get_option(sock, name)
    assert said in str(caught.value)


PRIVILEGED: dict[str, object] = {
    "receive_buffer_force": 65536,
    "send_buffer_force": 65536,
    "busy_poll": 50,
    "prefer_busy_poll": True,
    "busy_poll_budget": 100,
    "bind_to_device": "",
    "bind_to_interface": "",
    "mark": 7,
    "priority": 7,
    "send_time": (0, 0),
    "receive_mark": True,
    "debug": True,
    "transparent": True,
    "transparent_v6": True,
    "hop_by_hop_options": b"\0\0\1\4\0\0\0\0",
    "destination_options": b"\0\0\1\4\0\0\0\0",
    "congestion": "",
}

UNPRIVILEGED = """
import ast, contextlib, json, os, pathlib, socket, sys
import portico
from portico.options import OPTIONS, set_option
values = ast.literal_eval(sys.argv[1])
if not os.geteuid():
    with contextlib.suppress(PermissionError):  # root without capabilities is nobody, too
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
net = pathlib.Path("/proc/sys/net/ipv4")
forbidden = set((net / "tcp_available_congestion_control").read_text().split())
forbidden -= set((net / "tcp_allowed_congestion_control").read_text().split())
said = {}
for name, value in values.items():
    if name == "congestion" and not forbidden:
        continue
    family = socket.AF_INET6 if OPTIONS[name].scope == "ipv6" else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM if OPTIONS[name].scope == "tcp" else socket.SOCK_DGRAM) as sock:
        try:
            if name.startswith("bind_to"):
                set_option(sock, name, "lo")  # anybody may bind to a device once
            set_option(sock, name, min(forbidden) if name == "congestion" else value)
        except portico.PorticoError as error:
            said[name] = str(error)
        else:
            said[name] = "was allowed"
print(json.dumps(said))
"""


def test_missing_privilege_is_named() -> None:
    assert set(PRIVILEGED) == {name for name, option in OPTIONS.items() if option.privilege}
    child = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, repr(PRIVILEGED)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    for name, said in json.loads(child.stdout).items():
        if "does not have it" in said:
            assert name in KERNELS_MAY_LACK or younger_than_this_kernel(OPTIONS[name])
            continue
        if said == "was allowed" and OPTIONS[name].privilege.endswith("on older kernels"):
            continue
        assert f"it needs {OPTIONS[name].privilege}" in said, said
        assert said.startswith(f"option {name!r} ({OPTIONS[name].constant}) cannot be set to ") and "\n" not in said


# The table itself


def test_numbers_are_those_of_this_python_too() -> None:
    for option in OPTIONS.values():
        theirs = getattr(socket, option.constant, None)
        assert theirs is None or theirs == option.number


def test_options_are_not_made_twice() -> None:
    places = [(option.level, option.number) for option in OPTIONS.values() if option.constant != "ICMPV6_FILTER"]
    assert len(places) == len(set(places))
