"""Addresses of the kinds of sockets beside TCP, UDP and Unix streams: what they look like and what the kernel gets."""

import os
import socket
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.address import AF_PACKET, AF_VSOCK, MAX_UNIX, Address
from portico.errors import AddressError

LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has packet and vsock sockets")

INTERFACES = st.one_of(
    st.just(""),
    st.text(st.characters(categories=["L", "N", "P", "S"], exclude_characters="/:"), min_size=1, max_size=15).filter(
        lambda name: len(name.encode()) <= 15 and name not in (".", "..", "*")
    ),
)
FILES = st.binary(min_size=1, max_size=300).filter(lambda data: 0 not in data and data[:1] != b"@").map(os.fsdecode)
SOCKET_PATHS = st.one_of(
    st.just(""),
    st.binary(min_size=1, max_size=MAX_UNIX).filter(lambda data: 0 not in data and data[:1] != b"@").map(os.fsdecode),
    st.binary(min_size=1, max_size=MAX_UNIX).map(lambda data: "@" + os.fsdecode(data)),
)
CIDS = st.one_of(st.just(""), st.integers(0, 2**32 - 2).map(str))
HOSTS = st.one_of(st.sampled_from(["", "host.example"]), st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))

raw_addresses = st.builds(Address, st.just("raw"), HOSTS, st.integers(0, 255))
packet_addresses = st.builds(Address, st.just("packet"), INTERFACES, st.integers(0, 0xFFFF))
vsock_addresses = st.builds(Address, st.just("vsock"), CIDS, st.integers(0, 2**32 - 2))
unix_addresses = st.builds(
    lambda scheme, path: Address(scheme, path=path), st.sampled_from(["unixgram", "unixpacket"]), SOCKET_PATHS
)
file_addresses = st.builds(lambda scheme, path: Address(scheme, path=path), st.sampled_from(["fifo", "device"]), FILES)


@given(st.one_of(raw_addresses, packet_addresses, vsock_addresses, unix_addresses, file_addresses))
def test_every_address_prints_as_text_that_parses_to_it(address: Address) -> None:
    text = str(address)
    assert Address.parse(text) == address
    assert text.isprintable()


@given(st.one_of(packet_addresses, vsock_addresses, unix_addresses))
def test_sockaddr_round_trips(address: Address) -> None:
    assert address.family is not None
    assert Address.from_sockaddr(address.scheme, address.family, address.sockaddr) == address


@pytest.mark.parametrize(
    ("text", "expected", "printed"),
    [
        ("raw://127.0.0.1:icmp", Address("raw", "127.0.0.1", 1), "raw://127.0.0.1:1"),
        ("raw://127.0.0.1:ICMP", Address("raw", "127.0.0.1", 1), "raw://127.0.0.1:1"),
        ("raw://*:udp", Address("raw", "", 17), "raw://*:17"),
        ("raw://:17", Address("raw", "", 17), "raw://*:17"),
        ("raw://17", Address("raw", "", 17), "raw://*:17"),
        ("raw://[::1]:ipv6-icmp", Address("raw", "::1", 58), "raw://[::1]:58"),
        (
            "raw://[fe80::1%lo?flow=5]:0",
            Address("raw", "fe80::1", 0, flow=5, scope="lo"),
            "raw://[fe80::1%lo?flow=5]:0",
        ),
        ("raw://host.example:255", Address("raw", "host.example", 255), "raw://host.example:255"),
        ("packet://eth0", Address("packet", "eth0", 3), "packet://eth0"),
        ("packet://eth0:all", Address("packet", "eth0"), "packet://eth0"),
        ("packet://eth0:arp", Address("packet", "eth0", 0x0806), "packet://eth0:0x0806"),
        ("packet://eth0:IPv6", Address("packet", "eth0", 0x86DD), "packet://eth0:0x86dd"),
        ("packet://eth0.5:2048", Address("packet", "eth0.5", 0x0800), "packet://eth0.5:0x0800"),
        ("packet://br-lan@x:0X88CC", Address("packet", "br-lan@x", 0x88CC), "packet://br-lan@x:0x88cc"),
        ("packet://*", Address("packet"), "packet://*"),
        ("packet://:ip", Address("packet", "", 0x0800), "packet://*:0x0800"),
        ("packet://7:0", Address("packet", "7", 0), "packet://7:0x0000"),
        ("vsock://2:1024", Address("vsock", "2", 1024), "vsock://2:1024"),
        ("vsock://host:1024", Address("vsock", "2", 1024), "vsock://2:1024"),
        ("vsock://LOCAL:1", Address("vsock", "1", 1), "vsock://1:1"),
        ("vsock://hypervisor:1", Address("vsock", "0", 1), "vsock://0:1"),
        ("vsock://any:5", Address("vsock", "", 5), "vsock://*:5"),
        ("vsock://4294967295:5", Address("vsock", "", 5), "vsock://*:5"),
        ("vsock://:4294967294", Address("vsock", "", 2**32 - 2), "vsock://*:4294967294"),
        ("vsock://*:4294967295", Address("vsock", "", 0), "vsock://*:0"),
        ("vsock://007:08", Address("vsock", "7", 8), "vsock://7:8"),
        ("unixgram:/run/x", Address("unixgram", path="/run/x"), "unixgram:/run/x"),
        ("unixgram:@x", Address("unixgram", path="@x"), "unixgram:@x"),
        ("unixgram:<unnamed>", Address("unixgram"), "unixgram:<unnamed>"),
        ("unixpacket:///run/x", Address("unixpacket", path="/run/x"), "unixpacket:/run/x"),
        ("fifo:/run/queue", Address("fifo", path="/run/queue"), "fifo:/run/queue"),
        ("fifo:///run/queue", Address("fifo", path="/run/queue"), "fifo:/run/queue"),
        ("fifo:queue%0A", Address("fifo", path="queue\n"), "fifo:queue%0A"),
        ("fifo:./@queue", Address("fifo", path="./@queue"), "fifo:./@queue"),
        ("fifo:<unnamed>", Address("fifo", path="<unnamed>"), "fifo:%3Cunnamed>"),
        ("device:/dev/ttyS0", Address("device", path="/dev/ttyS0"), "device:/dev/ttyS0"),
        ("fifo:/" + "a" * 1000, Address("fifo", path="/" + "a" * 1000), "fifo:/" + "a" * 1000),
    ],
)
def test_forms(text: str, expected: Address, printed: str) -> None:
    address = Address.parse(text)
    assert address == expected
    assert str(address) == printed


def test_default_scheme() -> None:
    assert Address.parse("eth0:arp", "packet") == Address("packet", "eth0", 0x0806)
    assert Address.parse("local:9", "vsock") == Address("vsock", "1", 9)
    assert Address.parse("*:icmp", "raw") == Address("raw", "", 1)
    assert Address.parse("/run/x", "unixgram") == Address("unixgram", path="/run/x")
    assert Address.parse("@x", "unixpacket") == Address("unixpacket", path="@x")
    assert Address.parse("./x", "fifo") == Address("fifo", path="./x")
    assert Address.parse("/run/x", "packet") == Address("unix", path="/run/x")


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("raw:1", 4, "'//' must follow: raw://HOST:PROTOCOL"),
        ("raw://", 6, "host and the protocol are missing"),
        ("raw://127.0.0.1", 15, "protocol is missing"),
        ("raw://127.0.0.1:", 16, "protocol is missing"),
        ("raw://127.0.0.1:256", 16, "protocol must be 0 to 255"),
        ("raw://127.0.0.1:-1", 16, "protocol must be 0 to 255 or the name of a protocol"),
        ("raw://127.0.0.1:no-such", 16, "no IP protocol 'no-such'; give its number"),
        ("raw://127.0.0.1:1/x", 17, "nothing can follow the protocol"),
        ("raw://::1:icmp", 6, "needs brackets: [ADDRESS]:PROTOCOL"),
        ("raw://[::1]x", 11, "only ':' and the protocol"),
        ("packet:eth0", 7, "'//' must follow: packet://INTERFACE"),
        ("packet://", 9, "interface is missing"),
        ("packet://eth0:", 14, "ethertype is missing"),
        ("packet://eth0:65536", 14, "ethertype must be 0 to 65535"),
        ("packet://eth0:0x10000", 14, "ethertype must be"),
        ("packet://eth0:0x", 14, "ethertype must be"),
        ("packet://eth0:appletalk", 14, "all, ip, arp, ipv6"),
        ("packet://eth0:arp:1", 14, "ethertype must be"),
        ("packet://et/h0", 11, "'/' cannot be in the name of an interface"),
        ("packet://eth 0", 12, "' ' cannot"),
        ("packet://..", 9, "no interface can be called '..'"),
        ("packet://abcdefghijklmnop", 9, "at most 15 bytes"),
        ("packet://" + "ü" * 8, 9, "at most 15 bytes"),
        ("vsock:2:1", 6, "'//' must follow: vsock://CID:PORT"),
        ("vsock://", 8, "CID and the port are missing"),
        ("vsock://2", 9, "port is missing"),
        ("vsock://2:", 10, "port is missing"),
        ("vsock://2:4294967296", 10, "port must be 0 to 4294967295"),
        ("vsock://2:http", 10, "port must be 0 to 4294967295"),
        ("vsock://4294967296:1", 8, "CID must be 0 to 4294967295"),
        ("vsock://example.com:1", 8, "hypervisor, local, host, any"),
        ("vsock://٣:1", 8, "CID must be"),
        ("unixgram:", 9, "path is missing"),
        ("unixgram:/" + "a" * MAX_UNIX, 9, f"at most {MAX_UNIX} bytes"),
        ("unixpacket:@", 12, "name behind '@'"),
        ("fifo:", 5, "path is missing"),
        ("fifo://", 7, "fifo:PATH"),
        ("fifo:@queue", 5, "write ./@queue for the file"),
        ("fifo:%40queue", 5, "write ./%40queue for the file"),
        ("device:/dev/%00", 7, "NUL"),
    ],
)
def test_what_does_not_parse_raises_an_error_that_points_at_it(text: str, position: int, reason: str) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    assert reason in caught.value.reason
    assert (caught.value.text, caught.value.position) == (text, position)


@pytest.mark.parametrize(
    ("scheme", "parts"),
    [
        ("raw", {"host": "127.0.0.1"}),
        ("raw", {"host": "127.0.0.1", "port": 256}),
        ("raw", {"host": "127.0.0.1", "port": 1, "path": "/"}),
        ("packet", {"host": "eth 0"}),
        ("packet", {"host": "eth0", "port": 0x10000}),
        ("packet", {"host": "eth0", "scope": "2"}),
        ("packet", {"host": "eth0", "path": "/"}),
        ("vsock", {"host": "2"}),
        ("vsock", {"host": "-1", "port": 1}),
        ("vsock", {"host": "2", "port": 2**32}),
        ("vsock", {"host": "2", "port": 1, "flow": 1}),
        ("fifo", {}),
        ("fifo", {"path": "@x"}),
        ("fifo", {"path": "x\0"}),
        ("device", {"path": "/dev/x", "host": "h"}),
    ],
)
def test_parts_that_cannot_be_raise_address_error(scheme: str, parts: dict[str, object]) -> None:
    with pytest.raises(AddressError):
        Address(scheme, **parts)  # type: ignore[arg-type]


# -- what the kernel gets, and gives


def test_sockaddr_forms() -> None:
    assert Address.parse("raw://127.0.0.1:icmp").sockaddr == ("127.0.0.1", 0)
    assert Address.parse("raw://*:icmp").sockaddr == ("0.0.0.0", 0)
    assert Address.parse("raw://*:ipv6-icmp").sockaddr == ("::", 0, 0, 0)
    assert Address.parse("raw://[fe80::1%7?flow=5]:58").sockaddr == ("fe80::1", 0, 5, 7)
    assert Address.parse("packet://eth0:arp").sockaddr == ("eth0", 0x0806)
    assert Address.parse("vsock://host:9").sockaddr == (2, 9)
    assert Address.parse("vsock://*:0").sockaddr == (0xFFFFFFFF, 0xFFFFFFFF)
    assert Address.parse("unixgram:@x").sockaddr == "\0x"
    assert Address.parse("unixpacket:/x").sockaddr == "/x"


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("raw://127.0.0.1:1", socket.AF_INET),
        ("raw://[::1]:58", socket.AF_INET6),
        ("raw://*:udp", socket.AF_INET),
        ("raw://*:ipv6-icmp", socket.AF_INET6),
        ("raw://host:1", None),
        ("packet://lo", AF_PACKET),
        ("vsock://*:1", AF_VSOCK),
        ("unixgram:/x", socket.AF_UNIX),
        ("unixpacket:/x", socket.AF_UNIX),
        ("fifo:/x", None),
        ("device:/x", None),
    ],
)
def test_family_and_is_numeric(text: str, family: int | None) -> None:
    address = Address.parse(text)
    assert address.family == family
    assert address.is_numeric == (text != "raw://host:1")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("fifo:/x", "opened as a file"),
        ("device:/dev/x", "opened as a file"),
        ("raw://host:1", "'host' is a name; resolve it first"),
    ],
)
def test_what_has_no_sockaddr_says_why(text: str, reason: str) -> None:
    with pytest.raises(AddressError, match=reason):
        _ = Address.parse(text).sockaddr


@pytest.mark.parametrize("text", ["packet://lo", "vsock://1:1", "fifo:/x", "unixgram:/x"])
def test_only_what_is_of_the_internet_has_a_packed_form(text: str) -> None:
    with pytest.raises(AddressError):
        _ = Address.parse(text).packed


def test_packed_form_of_every_interface_has_the_length_of_its_family() -> None:
    assert Address.parse("raw://*:udp").packed == bytes(4)
    assert Address.parse("raw://*:ipv6-icmp").packed == bytes(16)


@LINUX_ONLY
def test_from_sockaddr_takes_what_the_kernel_gives() -> None:
    packet = ("eth0", 0x0806, socket.PACKET_BROADCAST, 1, b"\x02\0\0\0\0\1")
    assert Address.from_sockaddr("packet", socket.AF_PACKET, packet) == Address("packet", "eth0", 0x0806)
    assert Address.from_sockaddr("packet", socket.AF_PACKET, ("", 3, 0, 0, b"")) == Address("packet")
    assert Address.from_sockaddr("raw", socket.AF_INET, ("127.0.0.1", 0)) == Address("raw", "127.0.0.1", 0)
    assert Address.from_sockaddr("raw", socket.AF_INET6, ("::1", 58, 0, 0)) == Address("raw", "::1", 58)
    assert Address.from_sockaddr("vsock", socket.AF_VSOCK, (2**32 - 1, 2**32 - 1)) == Address("vsock", "", 0)
    for scheme, family, sockaddr in (
        ("packet", socket.AF_INET, ("127.0.0.1", 1)),
        ("vsock", socket.AF_PACKET, packet),
        ("tcp", socket.AF_VSOCK, (1, 1)),
        ("fifo", socket.AF_UNIX, "/x"),
    ):
        with pytest.raises(AddressError):
            Address.from_sockaddr(scheme, family, sockaddr)


@LINUX_ONLY
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("raw://127.0.0.1:icmp", socket.SOCK_RAW),
        ("raw://*:udp", socket.SOCK_RAW),
        ("raw://[::1]:ipv6-icmp", socket.SOCK_RAW),
        ("packet://lo:ip", socket.SOCK_DGRAM),
        ("vsock://*:0", socket.SOCK_STREAM),
        ("unixgram:@portico-test-address", socket.SOCK_DGRAM),
        ("unixpacket:@portico-test-address", socket.SOCK_SEQPACKET),
    ],
)
def test_the_kernel_takes_the_sockaddr_and_gives_it_back(text: str, kind: int) -> None:
    address = Address.parse(text)
    protocol = address.port if address.scheme == "raw" else 0
    try:
        sock = socket.socket(address.family, kind, protocol)  # type: ignore[arg-type]
    except OSError as error:
        pytest.skip(f"no such sockets here: {error}")
    with sock:
        sock.bind(address.sockaddr)
        bound = Address.from_sockaddr(address.scheme, sock.family, sock.getsockname())
    if address.scheme == "vsock":
        assert bound.is_wildcard and bound.port  # it was given a free port
    elif not address.host and not address.path:
        assert bound == address.replace(host="0.0.0.0")
    else:
        assert bound == address


# -- exposure


@pytest.mark.parametrize(
    ("text", "traits"),
    [
        ("raw://127.0.0.1:1", "loopback private"),
        ("raw://8.8.8.8:1", "public"),
        ("raw://*:1", "wildcard"),
        ("raw://0.0.0.0:1", "wildcard"),
        ("raw://localhost:1", "loopback private"),
        ("packet://lo", ""),
        ("packet://eth0", ""),
        ("packet://*", "wildcard"),
        ("vsock://local:1", "loopback private"),
        ("vsock://host:1", "private"),
        ("vsock://*:1", "wildcard"),
        ("unixgram:/x", "loopback private"),
        ("unixpacket:@x", "loopback private"),
        ("fifo:/x", "loopback private"),
        ("device:/dev/x", "loopback private"),
    ],
)
def test_who_can_reach_it(text: str, traits: str) -> None:
    address = Address.parse(text)
    found = [name for name in ("loopback", "private", "public", "wildcard") if getattr(address, f"is_{name}")]
    assert " ".join(found) == traits
