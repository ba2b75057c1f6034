import copy
import ipaddress
import os
import pickle
import socket
import string
from collections.abc import Iterator

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from portico.address import MAX_UNIX, SCHEMES, Address, Scheme, register_scheme
from portico.errors import AddressError, ConfigurationError, PorticoError

INET = ("tcp", "tls", "udp")
LOOPBACK_INTERFACE = socket.if_nameindex()[0]


@pytest.fixture
def url_scheme() -> Iterator[str]:
    name = "url-under-test"
    register_scheme(Scheme(name, default_port=80, parts="url"))
    yield name
    del SCHEMES[name]


# -- strategies

LABEL = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,8}[a-z0-9_])?", fullmatch=True)
NAMES = st.builds(
    lambda labels, last, dot: ".".join([*labels, last]) + dot,
    st.lists(LABEL, max_size=3),
    st.from_regex(r"[a-z_]([a-z0-9_-]{0,8}[a-z_])?", fullmatch=True).filter(lambda each: not each.startswith("0x")),
    st.sampled_from(["", "."]),
)
IPV4 = st.ip_addresses(v=4).map(str)
IPV6 = st.ip_addresses(v=6)
PORTS = st.integers(0, 65535)
SCOPES = st.one_of(
    st.just(""), st.integers(1, 2**32 - 1).map(str), st.from_regex(r"[a-z][a-z0-9.:@-]{0,9}", fullmatch=True)
)
FLOWS = st.integers(0, 0xFFFFF)
NO_LONE_SURROGATES = st.characters(exclude_categories=("Cs",))
BYTE_PATHS = (
    st.binary(min_size=1, max_size=MAX_UNIX).filter(lambda data: 0 not in data and data[:1] != b"@").map(os.fsdecode)
)
ABSTRACT = st.binary(min_size=1, max_size=MAX_UNIX).map(lambda data: "@" + os.fsdecode(data))

inet_addresses = st.one_of(
    st.builds(Address, st.sampled_from(INET), st.one_of(st.just(""), IPV4, NAMES), PORTS),
    st.builds(
        lambda scheme, host, port, flow, scope: Address(scheme, str(host), port, flow=flow, scope=scope),
        st.sampled_from(INET),
        IPV6,
        PORTS,
        FLOWS,
        SCOPES,
    ),
)
path_addresses = st.one_of(
    st.builds(lambda path: Address("unix", path=path), st.one_of(BYTE_PATHS, ABSTRACT, st.just(""))),
    st.builds(lambda name: Address("mem", path=name), st.text(NO_LONE_SURROGATES, min_size=1)),
)
addresses = st.one_of(inet_addresses, path_addresses)

# text that is nearly an address, which plain random text hardly ever is
PIECES = [
    *["tcp", "unix", "mem", "udp", ":", "://", "//", "/", "[", "]", "::1", "fe80::1", "%", "%41", "%zz", "eth0", "?"],
    *["?flow=", "flow=5", "*", "<broadcast>", "<unnamed>", "127.0.0.1", "host", ".", "-", "http", "80", "65536", "@"],
    *["raw", "packet", "vsock", "fifo", "unixgram", "icmp", "arp", "0x0806", "any", "hypervisor", "4294967295"],
    *["ü", "。", "٣", "xn--", "0x1", "#", "\x00", " ", "\n", "\ud800", "\udc80", "a" * 64],
]
texts = st.one_of(st.text(st.characters()), st.lists(st.sampled_from(PIECES), max_size=8).map("".join))


# -- parse and print


@given(addresses)
@example(Address("unix", path="//run/x"))
@example(Address("mem", path="//x"))
@example(Address("unix", path="<unnamed>"))
@example(Address("unix", path=" a b "))
@example(Address("unix", path="%41"))
def test_every_address_prints_as_text_that_parses_to_it(address: Address) -> None:
    text = str(address)
    assert Address.parse(text) == address
    assert text.isprintable()


@settings(max_examples=400)
@given(texts, st.sampled_from([None, *SCHEMES]))
def test_arbitrary_text_parses_to_what_round_trips_or_raises_address_error(text: str, default: str | None) -> None:
    try:
        address = Address.parse(text, default)
    except AddressError as error:
        assert error.text == text or "…@" in error.text  # a password is not shown
        assert 0 <= error.position <= len(error.text)
    else:
        assert Address.parse(str(address)) == address


@given(
    st.sampled_from(sorted(SCHEMES)),
    st.text(st.characters()),
    st.text(st.characters()),
    st.text(st.characters()),
)
def test_arbitrary_parts_make_what_round_trips_or_raise_address_error(
    scheme: str, host: str, path: str, scope: str
) -> None:
    for parts in ({"host": host, "port": 1}, {"path": path}, {"host": "fe80::1", "port": 1, "scope": scope}):
        try:
            address = Address(scheme, **parts)  # type: ignore[arg-type]
        except AddressError:
            continue
        assert Address.parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "expected", "printed"),
    [
        ("tcp://127.0.0.1:80", Address("tcp", "127.0.0.1", 80), "tcp://127.0.0.1:80"),
        ("tcp://[::1]:80", Address("tcp", "::1", 80), "tcp://[::1]:80"),
        ("tcp://[0:0:0:0:0:0:0:1]:80", Address("tcp", "::1", 80), "tcp://[::1]:80"),
        ("tcp://[FE80::1]:80", Address("tcp", "fe80::1", 80), "tcp://[fe80::1]:80"),
        ("tcp://[::ffff:1.2.3.4]:80", Address("tcp", "::ffff:1.2.3.4", 80), "tcp://[::ffff:1.2.3.4]:80"),
        ("[fe80::1%eth0]:80", Address("tcp", "fe80::1", 80, scope="eth0"), "tcp://[fe80::1%eth0]:80"),
        ("[fe80::1%2]:80", Address("tcp", "fe80::1", 80, scope="2"), "tcp://[fe80::1%2]:80"),
        ("[fe80::1%0]:80", Address("tcp", "fe80::1", 80), "tcp://[fe80::1]:80"),
        ("[fe80::1?flow=5]:80", Address("tcp", "fe80::1", 80, flow=5), "tcp://[fe80::1?flow=5]:80"),
        (
            "tls://[fe80::1%eth0?flow=1048575]:0",
            Address("tls", "fe80::1", 0, flow=1048575, scope="eth0"),
            "tls://[fe80::1%eth0?flow=1048575]:0",
        ),
        ("tcp://Example.COM:0", Address("tcp", "example.com", 0), "tcp://example.com:0"),
        ("tcp://example.com.:1", Address("tcp", "example.com.", 1), "tcp://example.com.:1"),
        ("tcp://my_db:1", Address("tcp", "my_db", 1), "tcp://my_db:1"),
        ("tcp://bücher.example:1", Address("tcp", "xn--bcher-kva.example", 1), "tcp://xn--bcher-kva.example:1"),
        ("tcp://*:80", Address("tcp", "", 80), "tcp://*:80"),
        ("tcp://:80", Address("tcp", "", 80), "tcp://*:80"),
        ("tcp://80", Address("tcp", "", 80), "tcp://*:80"),
        (":80", Address("tcp", "", 80), "tcp://*:80"),
        ("*:80", Address("tcp", "", 80), "tcp://*:80"),
        ("80", Address("tcp", "", 80), "tcp://*:80"),
        ("0", Address("tcp", "", 0), "tcp://*:0"),
        ("localhost:65535", Address("tcp", "localhost", 65535), "tcp://localhost:65535"),
        ("TCP://h:1", Address("tcp", "h", 1), "tcp://h:1"),
        ("udp://*:5353", Address("udp", "", 5353), "udp://*:5353"),
        ("udp://<broadcast>:9", Address("udp", "255.255.255.255", 9), "udp://255.255.255.255:9"),
        ("unix:/run/x.sock", Address("unix", path="/run/x.sock"), "unix:/run/x.sock"),
        ("unix:///run/x.sock", Address("unix", path="/run/x.sock"), "unix:/run/x.sock"),
        ("unix:x.sock", Address("unix", path="x.sock"), "unix:x.sock"),
        ("unix:@name", Address("unix", path="@name"), "unix:@name"),
        ("unix://@name", Address("unix", path="@name"), "unix:@name"),
        ("unix:/my app/100%/ü?#", Address("unix", path="/my app/100%/ü?#"), "unix:/my app/100%25/ü?#"),
        ("unix:/a%0Ab", Address("unix", path="/a\nb"), "unix:/a%0Ab"),
        ("unix:<unnamed>", Address("unix"), "unix:<unnamed>"),
        ("/run/x", Address("unix", path="/run/x"), "unix:/run/x"),
        ("./x", Address("unix", path="./x"), "unix:./x"),
        ("../x", Address("unix", path="../x"), "unix:../x"),
        ("@name", Address("unix", path="@name"), "unix:@name"),
        ("mem:name", Address("mem", path="name"), "mem:name"),
        ("mem://name", Address("mem", path="name"), "mem:name"),
    ],
)
def test_forms(text: str, expected: Address, printed: str) -> None:
    address = Address.parse(text)
    assert address == expected
    assert str(address) == printed


def test_default_scheme() -> None:
    assert Address.parse("h:1", "udp") == Address("udp", "h", 1)
    assert Address.parse("tls://h:1", "udp") == Address("tls", "h", 1)
    assert Address.parse("x", default_scheme="mem") == Address("mem", path="x")
    assert Address.parse("/x", "udp") == Address("unix", path="/x")
    with pytest.raises(AddressError, match="no scheme"):
        Address.parse("h:1", "nope")


def test_an_address_parses_to_itself() -> None:
    address = Address("tcp", "h", 1)
    assert Address.parse(address) is address


def test_service_names_are_those_of_the_schemes_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    def getservbyname(name: str, protocol: str) -> int:
        if (name, protocol) in known:
            return known[name, protocol]
        raise OSError("service/proto not found")

    known = {("http", "tcp"): 80, ("game", "tcp"): 1, ("game", "udp"): 2}
    monkeypatch.setattr(socket, "getservbyname", getservbyname)
    assert Address.parse("tcp://host:http") == Address("tcp", "host", 80)
    assert Address.parse("host:HTTP").port == 80
    assert Address.parse("tcp://[::1]:game").port == 1
    assert Address.parse("udp://host:game").port == 2
    with pytest.raises(AddressError, match="knows no udp service 'http'") as caught:
        Address.parse("udp://host:http")
    assert caught.value.position == len("udp://host:")


# -- what does not parse


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 0, "empty"),
        (" ", 0, "' ' cannot"),
        ("nope://h:1", 0, "'nope' is no scheme"),
        ("://h:1", 0, "no scheme"),
        ("tcp:", 4, "'//' must follow"),
        ("tcp:80", 4, "'//' must follow"),
        ("tcp://", 6, "host and the port are missing"),
        ("localhost", 9, "port is missing"),
        ("tcp://h", 7, "port is missing"),
        ("tcp://h:", 8, "port is missing"),
        ("tcp://[::1]", 11, "port is missing"),
        ("tcp://h:65536", 8, "0 to 65535"),
        ("tcp://h:99999999999999999999", 8, "0 to 65535"),
        ("tcp://65536", 6, "0 to 65535"),
        ("tcp://h:-1", 8, "0 to 65535"),
        ("tcp://h:+1", 8, "0 to 65535"),
        ("tcp://h:1_0", 8, "0 to 65535"),
        ("tcp://h:٣", 8, "0 to 65535"),
        ("tcp://h:no-such-service", 8, "no tcp service"),
        ("tcp://h :1", 7, "' ' cannot"),
        ("tcp://h: 1", 8, "' ' cannot"),
        ("tcp://h:1\n", 9, "cannot be in an address"),
        ("tcp://h\x00:1", 7, "cannot be in an address"),
        ("tcp://h\x7f:1", 7, "cannot be in an address"),
        ("tcp://ho\u200bst:1", 8, "cannot be in an address"),
        ("tcp://ho\ud800st:1", 8, "cannot be in an address"),
        ("tcp://u@h:1", 6, "user name"),
        ("ws://u@h/", 5, "user name or password: give them as credentials="),
        ("tcp://h:1/", 9, "nothing can follow"),
        ("tcp://h:1?x=1", 9, "nothing can follow"),
        ("tcp://h:1#x", 9, "nothing can follow"),
        ("h:1/chat", 3, "nothing can follow the port of a tcp address: write ws:// or http:// before it"),
        ("wss+unix:/x", 0, "'wss+unix' is no scheme; there are tcp, tls"),
        ("Tcp+tls:80", 0, "'Tcp+tls' is no scheme"),
        ("http://h:99999/@u", 9, "0 to 65535"),
        ("tcp://::1:80", 6, "needs brackets"),
        ("::1", 0, "needs brackets"),
        ("tcp://[::1:80", 6, "never closed"),
        ("tcp://::1]:80", 6, "needs brackets"),
        ("tcp://[::1]80", 11, "only ':'"),
        ("tcp://[::1]]:80", 11, "only ':'"),
        ("tcp://[[::1]]:80", 7, "not an IPv6"),
        ("tcp://h[::1]:80", 6, "needs brackets"),
        ("tcp://h]:80", 7, "']' cannot"),
        ("tcp://[]:80", 7, "only an IPv6"),
        ("tcp://[127.0.0.1]:80", 7, "only an IPv6"),
        ("tcp://[host]:80", 7, "only an IPv6"),
        ("tcp://[::1::]:80", 7, "not an IPv6"),
        ("tcp://[::12345]:80", 7, "not an IPv6"),
        ("tcp://[fe80::1%]:80", 15, "scope behind '%' is missing"),
        ("tcp://[fe80::1%a b]:80", 16, "' ' cannot"),
        ("tcp://[fe80::1%a%b]:80", 16, "'%' cannot be in a scope"),
        ("tcp://[fe80::1%4294967296]:80", 15, "scope must be"),
        ("tcp://[fe80::1?]:80", 14, "'?flow='"),
        ("tcp://[fe80::1?flow=]:80", 14, "'?flow='"),
        ("tcp://[fe80::1?flow=x]:80", 14, "'?flow='"),
        ("tcp://[fe80::1?flow=1048576]:80", 20, "flow label must be"),
        ("tcp://[fe80::1?flow=99999999999]:80", 20, "flow label must be"),
        ("tcp://127.0.0.1%eth0:80", 15, "'%' cannot"),
        ("tcp://127.1:80", 6, "not an IPv4"),
        ("tcp://256.0.0.1:80", 6, "not an IPv4"),
        ("tcp://01.2.3.4:80", 6, "not an IPv4"),
        ("tcp://1.2.3.4.:80", 6, "not an IPv4"),
        ("tcp://0x7f000001:80", 6, "not an IPv4"),
        ("tcp://2130706433:80", 6, "not an IPv4"),
        ("tcp://\N{FULLWIDTH DIGIT ONE}27.0.0.1:80", 6, "cannot end in a number"),
        ("tcp://a..b:80", 8, "part of the name is empty"),
        ("tcp://.:80", 6, "part of the name is empty"),
        ("tcp://a.-b:80", 8, "begin or end with '-'"),
        ("tcp://a.b-:80", 8, "begin or end with '-'"),
        ("tcp://a.b$c:80", 9, "'$' cannot"),
        ("tcp://**:80", 6, "'*' cannot"),
        ("tcp://<all>:80", 6, "'<' cannot"),
        ("tcp://a." + "b" * 64 + ":80", 8, "1 to 63"),
        ("tcp://" + "a." * 127 + "a:80", 6, "longer than 253"),
        ("tcp://x." + "ü" * 100 + ":80", 8, "IDNA"),
        ("tcp://x.\N{ARABIC LETTER ALEF}a:80", 8, "IDNA"),
        ("tcp://a\N{FULLWIDTH SOLIDUS}b:80", 6, "'/' cannot"),
        ("unix:", 5, "path is missing"),
        ("unix://", 7, "unix:PATH"),
        ("unix://x", 7, "unix:PATH"),
        ("unix:@", 6, "name behind '@'"),
        ("unix:/a\x00b", 7, "write it as %XX"),
        ("unix:/a\nb", 7, "write it as %XX"),
        ("unix:/a%00b", 5, "NUL"),
        ("unix:/a\ud800b", 7, "cannot be in an address"),
        ("unix:/a ", 7, "%20"),
        ("unix: /a", 5, "%20"),
        ("unix:/" + "a" * MAX_UNIX, 5, f"at most {MAX_UNIX} bytes, not {MAX_UNIX + 1}"),
        ("unix:@" + "a" * (MAX_UNIX + 1), 5, f"at most {MAX_UNIX} bytes, not {MAX_UNIX + 1}"),
        ("unix:/" + "ü" * 60, 5, "not 121"),
        ("mem:", 4, "name is missing"),
        ("mem://", 6, "name is missing"),
    ],
)
def test_what_does_not_parse_raises_an_error_that_points_at_it(text: str, position: int, reason: str) -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse(text)
    assert reason in caught.value.reason
    assert (caught.value.text, caught.value.position) == (text, position)
    assert isinstance(caught.value, PorticoError)
    assert isinstance(caught.value, ValueError)


def test_the_error_shows_where() -> None:
    with pytest.raises(AddressError) as caught:
        Address.parse("tcp://h:99999")
    assert str(caught.value).splitlines()[1:] == ["  tcp://h:99999", "          ^"]


@pytest.mark.parametrize("path", ["/" + "a" * (MAX_UNIX - 1), "@" + "a" * MAX_UNIX])
def test_the_longest_unix_path_is_one_that_the_kernel_takes(path: str) -> None:
    sockaddr = Address.parse(f"unix:{path}").sockaddr
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises((FileNotFoundError, ConnectionRefusedError)):
        probe.connect(sockaddr)  # one byte more is OSError("AF_UNIX path too long")


@pytest.mark.parametrize(
    ("scheme", "parts"),
    [
        ("nope", {"host": "h", "port": 1}),
        ("tcp", {"host": "h"}),
        ("tcp", {"host": "h", "port": -1}),
        ("tcp", {"host": "h", "port": 65536}),
        ("tcp", {"host": "h", "port": "80"}),
        ("tcp", {"host": "h", "port": True}),
        ("tcp", {"host": "h", "port": 1, "path": "/"}),
        ("tcp", {"host": "h", "port": 1, "scope": "eth0"}),
        ("tcp", {"host": "127.0.0.1", "port": 1, "flow": 1}),
        ("tcp", {"port": 1, "flow": 1}),
        ("tcp", {"host": "::1", "port": 1, "flow": 1 << 20}),
        ("tcp", {"host": "::1", "port": 1, "flow": -1}),
        ("tcp", {"host": "[::1]", "port": 1}),
        ("tcp", {"host": "fe80::1%", "port": 1}),
        ("unix", {"path": "/x", "port": 1}),
        ("unix", {"path": "/x", "host": "h"}),
        ("unix", {"path": "/x\0"}),
        ("mem", {}),
    ],
)
def test_parts_that_cannot_be_raise_address_error(scheme: str, parts: dict[str, object]) -> None:
    with pytest.raises(AddressError):
        Address(scheme, **parts)  # type: ignore[arg-type]


# -- value


def test_an_address_is_a_frozen_slotted_hashable_value() -> None:
    address = Address("tcp", "FE80:0::1%eth0", 80)
    assert address == Address("tcp", "fe80::1", 80, scope="eth0")
    assert len({address, Address.parse("[fe80::1%eth0]:80")}) == 1
    assert not hasattr(address, "__dict__")
    with pytest.raises(AttributeError):
        address.port = 1  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(address)) == copy.copy(address) == address


def test_with_port_and_replace() -> None:
    address = Address.parse("tcp://[fe80::1%eth0?flow=5]:80")
    assert address.with_port(0) == Address("tcp", "fe80::1", 0, flow=5, scope="eth0")
    assert address.replace(scheme="tls").scheme == "tls"
    with pytest.raises(AddressError):
        address.with_port(65536)
    with pytest.raises(AddressError):
        address.replace(scheme="unix")


# -- packed and unpacked


@given(st.sampled_from(INET), st.one_of(IPV4, IPV6.map(str)), PORTS)
def test_packed_form_round_trips_and_is_inet_ptons(scheme: str, host: str, port: int) -> None:
    address = Address(scheme, host, port)
    assert address.packed == ipaddress.ip_address(host).packed
    assert Address.from_packed(scheme, address.packed, port) == address


@pytest.mark.parametrize("text", ["host:1", "unix:/x", "mem:x"])
def test_what_has_no_ip_address_has_no_packed_form(text: str) -> None:
    with pytest.raises(AddressError):
        _ = Address.parse(text).packed


@pytest.mark.parametrize("length", [0, 3, 5, 15, 17])
def test_packed_form_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(AddressError, match="4 or 16"):
        Address.from_packed("tcp", bytes(length), 1)


@given(st.one_of(inet_addresses.filter(lambda each: each.is_numeric and each.host != ""), path_addresses))
def test_sockaddr_round_trips(address: Address) -> None:
    if address.scheme == "mem":
        return
    address = address.replace(scope="") if address.scope else address  # interfaces of the machine: below
    assert address.family is not None
    again = Address.from_sockaddr(address.scheme, address.family, address.sockaddr)
    assert again == address


def test_sockaddr_forms() -> None:
    index, name = LOOPBACK_INTERFACE
    assert Address.parse("127.0.0.1:80").sockaddr == ("127.0.0.1", 80)
    assert Address.parse("[::1?flow=7]:80").sockaddr == ("::1", 80, 7, 0)
    assert Address.parse("*:80").sockaddr == ("::", 80, 0, 0)
    assert Address.parse(f"[fe80::1%{name}]:80").sockaddr == ("fe80::1", 80, 0, index)
    assert Address.parse("[fe80::1%77]:80").sockaddr == ("fe80::1", 80, 0, 77)
    assert Address.parse("unix:/x").sockaddr == "/x"
    assert Address.parse("unix:@x").sockaddr == "\0x"
    assert Address("unix").sockaddr == ""


def test_scope_comes_back_from_sockaddr_as_the_name_of_the_interface() -> None:
    index, name = LOOPBACK_INTERFACE
    address = Address.from_sockaddr("tcp", socket.AF_INET6, ("fe80::1", 80, 0, index))
    assert str(address) == f"tcp://[fe80::1%{name}]:80"
    assert Address.from_sockaddr("tcp", socket.AF_INET6, (f"fe80::1%{name}", 80, 0, index)) == address
    assert Address.from_sockaddr("tcp", socket.AF_INET6, ("fe80::1", 80, 0, 4_000_000_000)).scope == "4000000000"


def test_sockaddr_of_an_unknown_interface_points_at_it() -> None:
    with pytest.raises(AddressError, match="no network interface") as caught:
        _ = Address.parse("[fe80::1%nope0]:80").sockaddr
    assert caught.value.text[caught.value.position :].startswith("nope0")


@pytest.mark.parametrize("text", ["host:1", "mem:x"])
def test_names_have_no_sockaddr(text: str) -> None:
    with pytest.raises(AddressError):
        _ = Address.parse(text).sockaddr


@pytest.mark.parametrize(
    ("sockaddr", "path"),
    [
        ("", ""),
        (b"", ""),
        (None, ""),
        ("/x", "/x"),
        (b"\0name", "@name"),
        ("\0name", "@name"),
        ("@x", "./@x"),
        (b"\0\n\xff", "@\n\udcff"),
        ("/" + "a" * 107, "/" + "a" * 107),
    ],
)
def test_whatever_the_kernel_calls_a_unix_socket_is_an_address(sockaddr: str | bytes | None, path: str) -> None:
    address = Address.from_sockaddr("unix", socket.AF_UNIX, sockaddr)
    assert address.path == path
    assert str(address).isprintable()


@pytest.mark.parametrize(
    ("scheme", "family", "sockaddr"),
    [
        ("nope", socket.AF_INET, ("127.0.0.1", 1)),
        ("tcp", socket.AF_UNIX, "/x"),
        ("unix", socket.AF_INET, ("127.0.0.1", 1)),
        ("tcp", socket.AF_INET, "127.0.0.1"),
        ("mem", socket.AF_INET, ("127.0.0.1", 1)),
        ("unix", socket.AF_UNIX, "\ud800"),
    ],
)
def test_sockaddr_of_another_family_is_refused(scheme: str, family: int, sockaddr: tuple[str, int] | str) -> None:
    with pytest.raises(AddressError):
        Address.from_sockaddr(scheme, family, sockaddr)


def test_family_and_is_numeric() -> None:
    expected = {
        "127.0.0.1:1": socket.AF_INET,
        "[::1]:1": socket.AF_INET6,
        "*:1": socket.AF_INET6,
        "unix:/x": socket.AF_UNIX,
        "mem:x": None,
        "host:1": None,
    }
    for text, family in expected.items():
        assert Address.parse(text).family == family
        assert Address.parse(text).is_numeric == (text != "host:1")


# -- exposure


@pytest.mark.parametrize(
    ("text", "traits"),
    [
        ("127.0.0.1:1", "loopback private"),
        ("127.9.9.9:1", "loopback private"),
        ("[::1]:1", "loopback private"),
        ("[::ffff:127.0.0.1]:1", "loopback private"),
        ("localhost:1", "loopback private"),
        ("unix:/x", "loopback private"),
        ("unix:@x", "loopback private"),
        ("mem:x", "loopback private"),
        ("10.0.0.1:1", "private"),
        ("192.168.1.1:1", "private"),
        ("172.16.0.1:1", "private"),
        ("169.254.1.1:1", "private"),
        ("[fe80::1%eth0]:1", "private"),
        ("[fd00::1]:1", "private"),
        ("[::ffff:10.0.0.1]:1", "private"),
        ("8.8.8.8:1", "public"),
        ("[2606:4700::1111]:1", "public"),
        ("[::ffff:8.8.8.8]:1", "public"),
        ("*:1", "wildcard"),
        ("0.0.0.0:1", "wildcard"),
        ("[::]:1", "wildcard"),
        ("[::ffff:0.0.0.0]:1", "wildcard"),
        ("example.com:1", ""),
        ("100.64.0.1:1", ""),
    ],
)
def test_who_can_reach_it(text: str, traits: str) -> None:
    address = Address.parse(text)
    found = [name for name in ("loopback", "private", "public", "wildcard") if getattr(address, f"is_{name}")]
    assert " ".join(found) == traits


# -- schemes


def test_the_schemes_of_the_table() -> None:
    kinds = {name: scheme.kind for name, scheme in SCHEMES.items()}
    assert [name for name in kinds if kinds[name] == "stream"] == [
        "tcp",
        "tls",
        "unix",
        "mem",
        "vsock",
        "fifo",
        "device",
        "ws",
        "wss",
        "http",
        "https",
        "ws+unix",
        "http+unix",
    ]
    assert [name for name in kinds if kinds[name] == "datagram"] == ["udp", "unixgram", "raw", "packet"]
    assert [name for name in kinds if kinds[name] == "seqpacket"] == ["unixpacket"]
    assert [name for name, scheme in SCHEMES.items() if scheme.secure] == ["tls", "wss", "https"]


def test_another_scheme_registers_itself(url_scheme: str) -> None:
    address = Address.parse(f"{url_scheme}://host/chat?room=1")
    assert address == Address(url_scheme, "host", 80, "/chat?room=1")
    assert str(address) == f"{url_scheme}://host/chat?room=1"
    assert str(Address.parse(f"{url_scheme}://[::1]:8080")) == f"{url_scheme}://[::1]:8080/"
    assert str(Address.parse(f"{url_scheme}://h?q")) == f"{url_scheme}://h/?q"
    assert Address.parse(f"{url_scheme}://8080/x") == Address(url_scheme, "", 8080, "/x")
    for bad in ("host/a#b", "host/ü", "host/a b", "u@host/", "/chat"):
        with pytest.raises(AddressError):
            Address.parse(f"{url_scheme}://{bad}")
    assert Address.parse(f"{url_scheme}://host/a@b").path == "/a@b"


def test_a_scheme_keeps_its_meaning() -> None:
    register_scheme(Scheme("tcp"))
    with pytest.raises(ConfigurationError, match="taken"):
        register_scheme(Scheme("tcp", secure=True))
    for name in ("", "A", "1a", "a:b", "a b"):
        with pytest.raises(ConfigurationError):
            register_scheme(Scheme(name))
    assert set(string.ascii_uppercase).isdisjoint("".join(SCHEMES))
