"""What services are called and say of themselves, and what becomes of what others say: nothing of it is trusted."""

import asyncio
import ipaddress
import socket
import subprocess
import sys

import pytest
from zeroconf.asyncio import AsyncServiceInfo

import portico
from portico import discovery
from portico.discovery import names
from portico.discovery.found import Found, found
from portico.discovery.network import Interface

LOOPBACK = Interface("lo", 1, (ipaddress.ip_interface("127.0.0.1/8"), ipaddress.ip_interface("::1/128")), True, True)
HOME = Interface("eth9", 9, tuple(map(ipaddress.ip_interface, ("192.0.2.7/24", "2001:db8::7/64"))), False, True)


@pytest.mark.parametrize(
    "text", ["_http._tcp", "_http._tcp.local.", "_a1-b._udp.local", "_ABC._TCP", "_a23456789012345._tcp"]
)
def test_a_service_type_is_taken_with_and_without_its_domain(text: str) -> None:
    assert names.service_type(text, own=True) == text.removesuffix(".").removesuffix(".local")


@pytest.mark.parametrize(
    "text",
    [
        *("", "http", "_http", "http._tcp", "_http._sctp", "_http._tcp.example", "_-a._tcp", "_a-._tcp", "_a--b._tcp"),
        *("_12._tcp", "_a b._tcp", "_._tcp", "_http._tcp\n", "x._http._tcp", "_a234567890123456._tcp", "_a_b._tcp"),
    ],
)
def test_what_is_no_service_type_of_ours_is_refused_at_once(text: str) -> None:
    with pytest.raises(portico.ConfigurationError, match="is no service type"):
        discovery.announce("tcp://127.0.0.1:1", text)


@pytest.mark.parametrize("text", ["_a_b._tcp", "_a-very-long-name-of-others._udp"])
def test_types_of_others_may_break_the_rules(text: str) -> None:
    assert discovery.browse(text).type == text


@pytest.mark.parametrize("text", ["", "_http", "_a--b._tcp", "_12._tcp", "_-a._tcp", "_a-._tcp", f"_{'a' * 63}._tcp"])
def test_but_not_those_that_the_library_cannot_ask_for(text: str) -> None:
    with pytest.raises(portico.ConfigurationError, match="is no service type"):
        discovery.browse(text)


@pytest.mark.parametrize("name", ["", "a.b", "a\nb", "\x1b[31m", "ä" * 32, "\udc80"])
def test_a_name_that_cannot_be_announced_is_refused_at_once(name: str) -> None:
    with pytest.raises(portico.ConfigurationError, match="cannot be announced") as raised:
        discovery.announce("tcp://127.0.0.1:1", "_x._tcp", name=name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "properties",
    [
        {"a": "\ud800"},
        {"": "x"},
        {"a=b": "x"},
        {"ä": "x"},
        {"a": "x", "A": "y"},
        {"a": "x" * 254},
        {f"k{n}": "x" * 250 for n in range(6)},
    ],
)
def test_properties_that_no_txt_record_holds_are_refused_at_once(properties: dict[str, str | None]) -> None:
    with pytest.raises(portico.ConfigurationError, match="propert"):
        discovery.announce("tcp://127.0.0.1:1", "_x._tcp", properties=properties)


def test_properties_come_back_as_they_were_with_keys_in_lower_case() -> None:
    said: dict[str, str | None] = {"Path": "/a=b", "empty": "", "flag": None, "raw": "\udcff\udc80ä", "long": "x" * 250}
    written = AsyncServiceInfo("_x._tcp.local.", "a._x._tcp.local.", 1, properties=names.written_properties(said)).text
    read = names.read_properties(
        AsyncServiceInfo("_x._tcp.local.", "a._x._tcp.local.", 1, properties=written).properties
    )
    assert read == {key.lower(): value for key, value in said.items()}


def heard(*ips: str, port: int | None = 7, kind: str = "_x._tcp", **more: str | None) -> Found | None:
    """What is made of an announcement on the home network with these addresses."""
    info = AsyncServiceInfo(
        kind + ".local.",
        f"the name.{kind}.local.",
        port,
        server="attic.local.",
        properties=more,
        parsed_addresses=list(ips),
    )
    return found(info, kind, [LOOPBACK, HOME])


def addresses(*ips: str, **more: str | None) -> list[str]:
    what = heard(*ips, **more)
    return [] if what is None else [str(each) for each in what.addresses]


def test_addresses_of_our_networks_come_first_and_link_local_ones_get_their_zone() -> None:
    given = ["198.51.100.1", "192.0.2.9", "169.254.3.4", "fe80::1", "2001:db8:1::1", "2001:db8::9"]
    assert addresses(*given) == [
        *("tcp://[2001:db8::9]:7", "tcp://192.0.2.9:7", "tcp://[fe80::1%9]:7", "tcp://169.254.3.4:7"),
        *("tcp://[2001:db8:1::1]:7", "tcp://198.51.100.1:7"),
    ]
    what = heard(*given)
    assert what is not None and (what.name, what.host, what.interface) == ("the name", "attic.local", "eth9")


@pytest.mark.parametrize("ip", ["0.0.0.0", "::", "224.0.0.1", "ff02::1", "::ffff:127.0.0.1"])
def test_addresses_that_nobody_can_be_at_are_left_out(ip: str) -> None:
    assert heard(ip) is None
    assert addresses(ip, "192.0.2.9") == ["tcp://192.0.2.9:7"]


def test_loopback_counts_only_where_there_is_nothing_else() -> None:
    assert addresses("127.0.0.1") == ["tcp://127.0.0.1:7"]
    assert addresses("127.0.0.1", "192.0.2.9") == ["tcp://192.0.2.9:7"]


def test_a_service_without_port_or_address_is_none() -> None:
    assert heard("192.0.2.9", port=0) is None
    assert heard() is None


@pytest.mark.parametrize(
    ("kind", "said", "scheme"),
    [
        *(("_x._tcp", None, "tcp"), ("_x._tcp", "tls", "tls"), ("_x._tcp", "udp", "tcp"), ("_x._tcp", "unix", "tcp")),
        *(
            ("_x._tcp", "nonsense", "tcp"),
            ("_x._udp", None, "udp"),
            ("_x._udp", "tls", "udp"),
            ("_x._udp", "device", "udp"),
        ),
    ],
)
def test_the_scheme_is_what_is_told_if_that_can_be(kind: str, said: str | None, scheme: str) -> None:
    what = heard("192.0.2.9", kind=kind, **({} if said is None else {"scheme": said}))
    assert what is not None and what.addresses[0].scheme == scheme


def test_what_is_found_is_the_resolver_of_its_own_name() -> None:
    what = heard("192.0.2.9", "2001:db8::9")
    assert what is not None and str(what.address) == "tcp://attic.local:7"

    async def ask() -> None:
        assert await portico.resolve(what.address, resolver=what) == list(what.addresses)
        assert await portico.resolve(what.address, resolver=what, family=socket.AF_INET) == [what.addresses[1]]
        assert await portico.name_of(what.addresses[0], resolver=what) == ("attic.local", "7")
        with pytest.raises(portico.ResolveError):
            await portico.resolve("other.local:7", resolver=what)
        with pytest.raises(portico.ResolveError):
            await portico.name_of(what.addresses[0].with_port(8), resolver=what)

    asyncio.run(ask())


def test_a_host_name_that_is_none_of_the_internets_is_not_needed() -> None:
    what = Found(
        "x",
        "_x._tcp",
        "My Printer._x._tcp.local",
        (portico.Address("tcp", "192.0.2.9", 7), portico.Address("tcp", "::1", 7)),
    )
    assert what.address == what.addresses[0]


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("unix:/run/x", "_x._tcp", "unix:/run/x cannot be announced as _x._tcp"),
        ("udp://127.0.0.1:1", "_x._tcp", "streams on the internet, such as tcp and tls"),
        ("tcp://127.0.0.1:1", "_x._udp", "packets, such as udp"),
        ("tcp://127.0.0.1:0", "_x._tcp", "give it the port that it listens on"),
        ([], "_x._tcp", "nothing cannot be announced"),
        ("tcp://192.0.2.77:1", "_x._tcp", "tcp://192.0.2.77:1 cannot be announced: it is not reached on an interface"),
    ],
)
def test_what_cannot_be_announced_is_said_in_one_line(what: object, kind: str, said: str) -> None:
    async def enter() -> None:
        async with discovery.announce(what, kind):  # type: ignore[arg-type]
            pass

    with pytest.raises(portico.ConfigurationError, match=said) as raised:
        asyncio.run(enter())
    assert "\n" not in str(raised.value)


def test_an_unknown_interface_is_named_beside_those_that_there_are() -> None:
    async def look(interfaces: object) -> None:
        await discovery.find("_x._tcp", interfaces=interfaces)  # type: ignore[arg-type]

    with pytest.raises(portico.ConfigurationError, match=r"no network interface 'nope0' with an address; it has: .*lo"):
        asyncio.run(look(["nope0"]))
    with pytest.raises(portico.ConfigurationError, match="write a list"):
        asyncio.run(look("lo"))


def test_without_the_library_one_line_says_what_to_install() -> None:
    code = """
import sys
sys.modules["zeroconf"] = None
import portico
from portico import discovery
for call in (lambda: discovery.browse("_x._tcp"), lambda: discovery.announce("tcp://*:1", "_x._tcp")):
    try:
        call()
    except portico.UnsupportedError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = "discovery needs the zeroconf library; install it with: pip install 'portico[discovery]'\n"
    assert (done.stdout, done.stderr) == (line * 2, "")


def test_neither_the_package_nor_the_room_imports_the_library_early() -> None:
    code = "import sys, portico, portico.discovery; assert not {'zeroconf', 'ifaddr'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
