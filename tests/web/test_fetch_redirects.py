"""Where redirects lead `fetch`, what goes along, and where it does not follow."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from server.support import Certificates, certificates, scenario

import portico

from .fetch_kit import OK, playing, redirect

__all__ = ["certificates"]


@pytest.mark.parametrize(
    ("method", "status", "then"),
    [
        ("GET", 301, "GET"),
        ("GET", 308, "GET"),
        ("POST", 301, "GET"),
        ("POST", 302, "GET"),
        ("POST", 303, "GET"),
        ("PUT", 303, "GET"),
        ("PUT", 301, "PUT"),
        ("PUT", 302, "PUT"),
        ("POST", 307, "POST"),
        ("POST", 308, "POST"),
        ("HEAD", 303, "HEAD"),
        ("DELETE", 302, "DELETE"),
    ],
)
@scenario()
async def test_the_method_after_a_redirect(method: str, status: int, then: str) -> None:
    body = b"data" if method in ("POST", "PUT") else None
    async with playing(redirect(status, "/new"), OK) as server:
        got = await portico.fetch(f"{server.url}/old", method, body=body, headers={"X-Kept": "1"})
        assert server.lines == [f"{method} /old", f"{then} /new"] and str(got.url) == f"{server.url}/new"
        kept = then == method
        assert server.bodies[1] == (body or b"" if kept else b"")
        assert ("content-type" in server.fields()) == (kept and body is not None) and server.fields()["x-kept"] == "1"
        assert ("content-length" in server.fields()) == (kept and body is not None)


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("/new", "/new"),
        ("new?a=b", "/dir/new?a=b"),
        ("../up", "/up"),
        ("?other", "/dir/old?other"),
        ("#part", "/dir/old?query"),
        ("/a b/\N{LATIN SMALL LETTER E WITH ACUTE}#part", "/a%20b/%E9"),
        ("{url}/whole", "/whole"),
        ("//{host}/network", "/network"),
        ("/%2e%2E/kept%zz", "/%2e%2E/kept%zz"),
    ],
)
@scenario()
async def test_a_place_is_read_as_a_reference(place: str, line: str) -> None:
    async with playing(OK) as target:
        place = place.format(url=target.url, host=target.url.removeprefix("http://"))
        played = playing(redirect(302, place).decode().encode("latin-1"), OK)
        async with played as server:
            await portico.fetch(f"{server.url}/dir/old?query")
            assert [*target.lines, *server.lines[1:]] == [f"GET {line}"]


@scenario()
async def test_another_origin_gets_nothing_that_was_meant_for_this_one() -> None:
    secrets = {"Cookie": "a=b", "Proxy-Authorization": "x", "Host": "virtual.example", "X-Kept": "1"}
    async with playing(OK) as other:
        async with playing(redirect(307, "/here"), redirect(307, other.url)) as server:
            await portico.fetch(server.url, "POST", body=b"x", headers=secrets, credentials=("joe", "secret"))
            for index in (0, 1):
                assert server.fields(index)["authorization"] and server.fields(index)["cookie"] == "a=b"
                assert server.fields(index)["host"] == "virtual.example"
            fields = other.fields()
            assert not {"authorization", "cookie", "proxy-authorization"} & set(fields)
            assert fields["host"] == other.url.removeprefix("http://") and fields["x-kept"] == "1"
            assert other.bodies == [b"x"]


@scenario()
async def test_they_do_not_come_back_with_the_first_origin() -> None:
    async with playing(b"HTTP/1.1 200 OK\r\n\r\n") as first:
        async with playing(redirect(302, f"{first.url}/back")) as other:
            async with playing(redirect(302, other.url)) as start:
                await portico.fetch(start.url, credentials="token")
                assert "authorization" in start.fields()
                assert "authorization" not in other.fields() and "authorization" not in first.fields()


@scenario()
async def test_redirects_end() -> None:
    async with playing(redirect(302, "/again")) as server:
        with pytest.raises(
            portico.LimitError, match=r"redirected more than 5 times, at last to .*/again; raise"
        ) as caught:
            await portico.fetch(server.url)
        assert caught.value.limit == "max_redirects" and len(server.lines) == 6
    async with playing(redirect(302, "/1"), redirect(302, "/2"), OK) as server:
        assert (await portico.fetch(server.url, max_redirects=2)).body == b"hello"
    async with playing(redirect(302, "/1")) as server:
        got = await portico.fetch(server.url, max_redirects=0)
        assert (got.status, got.headers.get("Location"), got.body) == (302, "/1", b"over there")


@scenario()
async def test_what_is_no_redirect_is_an_answer() -> None:
    plain = [
        b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 300 Choices\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 304 Same\r\nLocation: /x\r\n\r\n",
        b"HTTP/1.1 201 Created\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    ]
    async with playing(*plain) as server:
        assert [(await portico.fetch(server.url)).status for _ in plain] == [302, 300, 304, 201]


@pytest.mark.parametrize(
    "place",
    [
        "ftp://localhost/x",
        "file:///etc/passwd",
        "http+unix:/run/docker.sock:/containers",
        "unix:/run/docker.sock",
        "javascript:alert(1)",
        "http://user:password@localhost/",
        "http://[::1/",
        "https://",
        "http://*/",
        "http://0.0.0.0/",
        "http://localhost:0/",
        "http://localhost:99999/",
        "http://local host/",
    ],
)
@scenario()
async def test_a_redirect_to_elsewhere_is_refused(place: str) -> None:
    async with playing(redirect(302, place)) as server:
        with pytest.raises(portico.ProtocolError, match=f"{server.url}/ answered 302 with '") as caught:
            await portico.fetch(server.url)
        assert "\n" not in str(caught.value) and len(server.lines) == 1


@scenario()
async def test_a_body_that_was_used_up_is_not_sent_again() -> None:
    async def once() -> AsyncIterator[bytes]:
        yield b"x"

    async with playing(redirect(307, "/new"), redirect(303, "/new"), OK) as server:
        with pytest.raises(portico.ConfigurationError, match=r"307 with .*/new, and this body can be sent only once"):
            await portico.fetch(server.url, "POST", body=once())
        assert (await portico.fetch(server.url, "POST", body=once())).body == b"hello"


@scenario()
async def test_on_a_unix_socket_localhost_is_the_same_server_and_there_is_no_other(tmp_path: Path) -> None:
    unix = tmp_path / "s"
    async with playing(OK) as other:
        places = ["new", "http://localhost/whole", other.url]
        async with playing(*(redirect(302, place) for place in places), unix=unix) as server:
            with pytest.raises(portico.ProtocolError, match="a Unix socket leads to no other server"):
                await portico.fetch(f"{server.url}/dir/old", credentials="token")
            assert server.lines == ["GET /dir/old", "GET /dir/new", "GET /whole"]
            assert all("authorization" in server.fields(index) for index in range(3))
            assert other.lines == []


# With TLS.


def server_context(file: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@scenario()
async def test_https_with_a_tls_object(certificates: Certificates) -> None:
    context = server_context(certificates.issue("127.0.0.1"))
    async with playing(OK, b"HTTP/1.1 200 OK\r\n\r\nhello", tls=context) as server:
        tls = certificates.client(alpn=("h2",))
        assert [(await portico.fetch(server.url, tls=tls)).body for _ in range(2)] == [b"hello"] * 2
        with pytest.raises(portico.ConnectError, match=f"{server.url.replace('https', 'tls')}: tls: .*certificate"):
            await portico.fetch(server.url)
        with pytest.raises((portico.ProtocolError, portico.EndOfStream), match="http://"):
            await portico.fetch(server.url.replace("https", "http"), tls=tls)


@scenario()
async def test_from_https_to_http_no_redirect_is_followed(certificates: Certificates) -> None:
    context = server_context(certificates.issue("127.0.0.1"))
    async with playing(OK) as plain, playing(redirect(302, plain.url), tls=context) as secure:
        with pytest.raises(portico.ProtocolError, match="from TLS to none no redirect is followed"):
            await portico.fetch(secure.url, tls=certificates.client())
        assert plain.lines == []
    async with playing(OK, tls=context) as secure, playing(redirect(302, secure.url)) as plain:
        assert (await portico.fetch(plain.url, tls=certificates.client())).body == b"hello"


@scenario()
async def test_another_origin_does_not_see_the_client_certificate(certificates: Certificates) -> None:
    mine = certificates.issue("joe.example", file="joe.pem")
    seen: list[bool] = []

    def serving(data: bytes) -> Callable[[portico.Stream], Awaitable[None]]:
        async def handler(stream: portico.Stream) -> None:
            await stream.recv_until(b"\r\n\r\n")
            assert stream.tls is not None
            seen.append(bool(stream.tls.peer_certificate))
            await stream.send(data)

        return handler

    both = portico.TLS(
        certificate=certificates.issue("127.0.0.1", "first.example"),
        client_authority=certificates.ca,
        client_certificate="optional",
    )
    async with portico.serve(serving(OK), "tls://127.0.0.1:0", tls=both) as other:
        place = f"https://127.0.0.1:{other.address.port}/"
        async with portico.serve(serving(redirect(302, place)), "tls://127.0.0.1:0", tls=both) as first:
            tls = certificates.client(certificate=mine, server_name="first.example")
            got = await portico.fetch(f"https://127.0.0.1:{first.address.port}/", tls=tls)
            assert got.body == b"hello" and seen == [True, False]
