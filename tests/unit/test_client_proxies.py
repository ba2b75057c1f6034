"""Proxies as settings: URLs, the environment, and what cannot be."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from client_kit import accept, listening, on_both_loops
from proxy_kit import TALKS, TARGET, failure, playing

from portico.address import Address
from portico.client import connect
from portico.client.proxies import Proxy, from_environment
from portico.errors import ConfigurationError
from portico.transports.tls import TLS

# What cannot be


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (dict(address="unix:/run/x", proxy="http://p"), "unix:/run/x cannot be reached through a proxy"),
        (dict(address="udp://far.test:1", proxy="http://p"), "which carries tcp and tls only"),
        (dict(address="tcp://[::1]:1", proxy="socks4a://p"), "SOCKS4 knows no IPv6, so tcp://p:1080 cannot connect to"),
        (dict(address="tcp://[fe80::1%25eth0]:1", proxy="http://p"), "scope or flow label, which means nothing to"),
        (dict(address="tcp://a:1", proxy=["socks4://p", "http://[::1]:2"]), "SOCKS4 knows no IPv6"),
        (dict(address="udp://a:1", proxy_header="v1"), "udp://a:1 carries packets, so proxy_header= cannot be"),
        (dict(address="udp://a:1", tls=TLS()), "udp://a:1 carries packets, so tls= cannot be: there is no DTLS here"),
        (dict(address="tcp://a:1", proxy_header="v3"), "proxy_header='v3' must be 'v1', 'v2' or a ProxyHeader"),
        (dict(address="tcp://a:1", proxy_header="v1", proxy="http://p"), "the IP address of tcp://a:1 behind proxies"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_told_at_once(settings: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        connect(**settings)


@on_both_loops
async def test_no_proxies_is_a_direct_connection() -> None:
    with listening() as (sock, address):
        async with connect(address, proxy=()) as stream:
            (await accept(sock)).close()
            assert stream.remote_address == address


# URLs


@pytest.mark.parametrize(
    ("url", "kind", "address", "remote"),
    [
        ("socks4://p.test", "socks4", "tcp://p.test:1080", False),
        ("socks4a://p.test:1", "socks4", "tcp://p.test:1", True),
        ("socks5://192.0.2.1", "socks5", "tcp://192.0.2.1:1080", False),
        ("SOCKS5H://[2001:db8::1]", "socks5", "tcp://[2001:db8::1]:1080", True),
        ("socks5h://[::1]:9/", "socks5", "tcp://[::1]:9", True),
        ("http://p.test/", "http", "tcp://p.test:80", True),
        ("https://p.test", "http", "tls://p.test:443", True),
        ("http+tls://p.test:3129", "http", "tls://p.test:3129", True),
        ("socks5h+tls://p.test", "socks5", "tls://p.test:1080", True),
        ("socks4+tls://p.test", "socks4", "tls://p.test:1080", False),
    ],
)
def test_the_url_of_a_proxy(url: str, kind: str, address: str, remote: bool) -> None:
    proxy = Proxy.parse(url)
    assert (proxy.kind, str(proxy.address), proxy.remote_names) == (kind, address, remote)
    assert (proxy.tls is not None) is address.startswith("tls") and proxy.username is proxy.password is None


def test_user_and_password_of_a_url() -> None:
    proxy = Proxy.parse("socks5://jo%65:se%2Fcr@e:t@p.test:1080")
    assert (proxy.username, proxy.password, proxy.address.host) == ("joe", "se/cr@e:t", "p.test")
    assert "cr@e" not in repr(proxy) and "joe" in repr(proxy)
    assert Proxy.parse("socks4://joe@p.test").username == "joe"
    tls = TLS(verify=False)
    assert Proxy.parse("https://p.test", tls=tls).tls is tls
    assert Proxy("http", Address.parse("tls://p.test:1")).tls is not None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("joe:secret@p.test:1", "the URL of a proxy begins with socks4://, socks4a://, socks5://, socks5h://, http://, https://"),
        ("ftp://joe:secret@p.test", "not with ftp://"),
        ("secret joe://p.test", "https://"),
        ("socks5://joe:secret", "is socks5://user:password@host:port"),
        ("socks5://joe:secret@", "has a host and a port"),
        ("socks5://joe:secret@:1080", "has a host and a port"),
        ("socks5://joe:secret@p.test:0", "has a host and a port"),
        ("socks5://joe:secret@p.test:x", "is socks5://user:password@host:port"),
        ("socks5://joe:secret@p.test/path", "is socks5://user:password@host:port"),
        ("socks5://joe:secret%FF@p.test", "is socks5://user:password@host:port"),
        ("socks5://joe@p.test", "user and password go together"),
        ("http://:secret@p.test", "user and password go together"),
        ("http://jo%3Ae:secret@p.test", "cannot hold ':'"),
        ("socks4://joe:secret@p.test", "SOCKS4 knows no password; use socks5://"),
        ("socks4://j%00e@p.test", "ASCII without NUL"),
        ("socks5://joe:secret%C3%AB@p.test", "255 ASCII letters at most"),
        ("socks5://joe:secret" + "x" * 250 + "@p.test", "255 ASCII letters at most"),
    ],
)  # fmt: skip
def test_a_url_that_cannot_be_does_not_show_the_password(url: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Proxy.parse(url)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    shown = caught.value
    while shown is not None:
        assert "secret" not in str(shown)
        assert shown.__cause__ is None and (shown.__context__ is None or shown.__suppress_context__)
        shown = shown.__cause__  # type: ignore[assignment]


def test_other_proxies_that_cannot_be() -> None:
    with pytest.raises(ConfigurationError, match="of the kind 'socks4', 'socks5' or 'http', not 'ftp'"):
        Proxy("ftp", Address.parse("tcp://p:1"))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not unix:/run/p"):
        Proxy("http", Address.parse("unix:/run/p"))
    with pytest.raises(ConfigurationError, match="tls= is for proxies that speak TLS: https:// or socks5"):
        Proxy.parse("socks5://p", tls=TLS())


# The environment


@pytest.mark.parametrize(
    ("environ", "plain", "secure"),
    [
        ({}, None, None),
        ({"all_proxy": "socks5://p:1"}, "tcp://p:1", "tcp://p:1"),
        ({"ALL_PROXY": "socks5://p:1", "all_proxy": ""}, "tcp://p:1", "tcp://p:1"),
        ({"ALL_PROXY": "socks5://p:1", "all_proxy": "http://q:2"}, "tcp://q:2", "tcp://q:2"),
        ({"https_proxy": "http://p:1"}, None, "tcp://p:1"),
        ({"HTTPS_PROXY": "p:1", "ALL_PROXY": "socks5://q:2"}, "tcp://q:2", "tcp://p:1"),
        ({"http_proxy": "http://p:1", "HTTP_PROXY": "http://p:1"}, None, None),
    ],
)
def test_which_variable_counts(environ: dict[str, str], plain: str | None, secure: str | None) -> None:
    for name, wanted in ((False, plain), (True, secure)):
        found = from_environment(Address.parse("tcp://far.test:443"), secure=name, environ=environ)
        assert [str(each.address) for each in found] == ([wanted] if wanted else [])


@pytest.mark.parametrize(
    ("exceptions", "host", "direct"),
    [
        ("*", "far.test", True),
        ("far.test", "far.test", True),
        ("FAR.test.", "far.test", True),
        (".far.test", "far.test", True),
        ("far.test", "www.far.test", True),
        ("far.test", "notfar.test", False),
        ("near.test, far.test", "far.test.", True),
        ("near.test far.test", "far.test", True),
        ("far.test:443", "far.test", True),
        ("far.test:80", "far.test", False),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.0/24", "192.0.2.7", True),
        ("192.0.3.0/24,10.0.0.0/8", "192.0.2.7", False),
        ("192.0.2.0/24", "far.test", False),
        ("2.7", "192.0.2.7", False),
        ("2001:db8::/32", "[2001:db8::1]", True),
        ("[2001:db8::1]:443", "[2001:db8::1]", True),
        ("[2001:db8::1]", "[2001:db8::2]", False),
        ("2001:db8::1", "192.0.2.7", False),
        ("", "far.test", False),
        (" , ", "far.test", False),
    ],
)
def test_whom_to_connect_to_directly(exceptions: str, host: str, direct: bool) -> None:
    address = Address.parse(f"tcp://{host}:443")
    for name in ("no_proxy", "NO_PROXY"):
        environ = {"all_proxy": "socks5://p:1", name: exceptions}
        assert (from_environment(address, secure=False, environ=environ) == ()) is direct


def test_a_variable_that_is_no_proxy_is_named() -> None:
    with pytest.raises(
        ConfigurationError, match=r"^the environment variable all_proxy: the URL of a proxy is"
    ) as caught:
        from_environment(Address.parse(TARGET), secure=False, environ={"all_proxy": "http://joe:secret"})
    assert "secret" not in str(caught.value)


@pytest.fixture
def all_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    for name in ("https_proxy", "HTTPS_PROXY", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    yield lambda url: monkeypatch.setenv("all_proxy", url)


@on_both_loops
async def test_the_environment_is_looked_at_if_asked(all_proxy: Callable[[str], None], tmp_path: Any) -> None:
    async with playing(TALKS["socks5"]) as played:
        all_proxy(played.url("socks5://"))
        async with connect(TARGET, proxy="environment") as stream:
            assert stream.socket.getpeername()[1] == played.address.port
        with listening() as (sock, address):
            async with connect(address):
                (await accept(sock)).close()
        error = await failure(connect(f"unix:{tmp_path}/nobody", proxy="environment"))
        assert [each.stage for each in error.attempts] == ["connect"]
