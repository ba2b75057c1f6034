"""Request smuggling: no second request is seen where a proxy in front sees one, and nothing gets by its rules."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from interop.test_proxies import program
from peers import need_program, nginx_settings
from ports import free_port
from server.support import scenario

import portico
from portico.protocols.http11 import END, BadRequest, RequestHead, RequestParser

from .http_kit import Browser, browser

INNER = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"

ODD_CODINGS = [
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked\t",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer-Encoding: ,chunked",
    b"Transfer-Encoding: chunked,",
    b'Transfer-Encoding: "chunked"',
    b"Transfer-Encoding: chunked;a=b",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
    b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding:\r\n chunked",
    b"Transfer-Encoding\t: chunked",
    b" Transfer-Encoding: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"Transfer-Encoding: chun\0ked",
    b"Transfer-Encoding:",
]
ODD_LENGTHS = [
    b"Content-Length: +%d",
    b"Content-Length: -%d",
    b"Content-Length: 0x%x",
    b"Content-Length: %d,%d",
    b"Content-Length: 1 %d",
    b"Content-Length: 1_%d",
    b"Content-Length: %d.0",
    b"Content-Length:",
    b"Content-Length: %d\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: 0",
    b"Content-Length : %d",
    b"Content-Length:\r\n %d",
    b"Content-Length: 18446744073709551616",
]
ODD_CHUNKS = [
    b"5 \r\nabcde\r\n0\r\n\r\n",
    b"0x5\r\nabcde\r\n0\r\n\r\n",
    b"+5\r\nabcde\r\n0\r\n\r\n",
    b"-5\r\nabcde\r\n0\r\n\r\n",
    b"5\nabcde\r\n0\r\n\r\n",
    b"5\r\nabcde0\r\n\r\n",
    b"5\r\nabcdeXX0\r\n\r\n",
    b"5;a=b\nabcde\r\n0\r\n\r\n",
    b"5;a\rb\r\nabcde\r\n0\r\n\r\n",
    b'5;a="\r\n"\r\nabcde\r\n0\r\n\r\n',
    b"10000000000000005\r\nabcde\r\n0\r\n\r\n",
    b"\r\nabcde\r\n0\r\n\r\n",
    b"0\r\nContent-Length: 5\r\n\r\n",
    b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"0\r\nA: b\r\n c\r\n\r\n",
    b"0\r\nA\n\r\n",
]
ODD_HOSTS = [
    b"Host: a\r\nHost: a",
    b"Host: a\r\nHost: b",
    b"Host: a\r\nhOST: b",
    b"Host: a, b",
    b"Host: a b",
    b"Host: a/b",
    b"Host: a@b",
    b"Host: a:b",
    b"Host: a#b",
    b"Host: [::1",
    b"Host: \xff",
    b"Host:\r\n a",
    b"Host: " + b"a" * 400,
    b"X: y",
]


def sized(line: bytes) -> bytes:
    """`line` with the length of what is smuggled wherever it has a number."""
    size = len(INNER)
    return line.replace(b"%d", b"%d" % size).replace(b"%x", b"%x" % size)


def seen(data: bytes) -> tuple[list[RequestHead], BadRequest | None]:
    """The requests that end within `data`, and what is wrong behind them."""
    parser: RequestParser[RequestHead] = RequestParser()
    heads: list[RequestHead] = []
    whole = 0
    try:
        for event in parser.feed(data):
            if isinstance(event, RequestHead):
                heads.append(event)
            whole += event is END
    except BadRequest as error:
        return [], error
    return heads[:whole], parser.failure


@pytest.mark.parametrize("coding", ODD_CODINGS)
def test_odd_codings_never_reach_a_route(coding: bytes) -> None:
    for more in (b"", b"Content-Length: 5\r\n"):
        heads, failure = seen(POST + more + coding + b"\r\n\r\n0\r\n\r\n" + INNER)
        assert not heads and failure is not None and failure.status in (400, 501)


def test_both_lengths_are_refused() -> None:
    for fields in (CHUNKED + b"Content-Length: 5\r\n", b"Content-Length: 5\r\n" + CHUNKED):
        heads, failure = seen(POST + fields + b"\r\n0\r\n\r\n" + INNER)
        assert not heads and failure is not None and failure.status == 400
    heads, failure = seen(b"POST / HTTP/1.0\r\nHost: a\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + INNER)
    assert not heads and failure is not None and failure.status == 400


@pytest.mark.parametrize("length", ODD_LENGTHS)
def test_odd_lengths_never_reach_a_route(length: bytes) -> None:
    heads, failure = seen(POST + sized(length) + b"\r\n\r\n" + INNER)
    assert not heads and failure is not None and failure.status == 400


@pytest.mark.parametrize("chunks", ODD_CHUNKS)
def test_behind_odd_chunks_nothing_is_a_request(chunks: bytes) -> None:
    heads, failure = seen(POST + CHUNKED + b"\r\n" + chunks + INNER)
    assert len(heads) == 0 and failure is not None and failure.status == 400


@pytest.mark.parametrize("host", ODD_HOSTS)
def test_odd_hosts_are_refused(host: bytes) -> None:
    heads, failure = seen(b"GET / HTTP/1.1\r\n" + host + b"\r\n\r\n")
    assert not heads and failure is not None and failure.status == 400


def test_the_host_of_a_whole_url_counts() -> None:
    (head,), _ = seen(b"GET http://b:80/x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (head.host, head.path) == ("b", "/x")
    for target in (b"http:///x", b"http://:80/x", b"http://u@b/x", b"http://b c/x", b"ftp://b/x", b"//b/x#y", b"b"):
        heads, failure = seen(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert not heads and failure is not None and failure.status in (400, 505), target


def test_a_field_that_looks_like_a_length_is_none() -> None:
    for name in (
        b"Transfer_Encoding: chunked",
        b"X-Content-Length: 9",
        b"Content-Length-X: 9",
        b"Trailer: Content-Length",
    ):
        (first, second), failure = seen(POST + name + b"\r\n\r\n" + INNER)
        assert (first.body_size, second.target, failure) == (0, "/smuggled", None)


def test_trailers_change_nothing() -> None:
    trailers = b"0\r\nHost: b\r\nUpgrade: websocket\r\nConnection: upgrade\r\nExpect: x\r\nContent-Type: x\r\n\r\n"
    (first, second), failure = seen(POST + CHUNKED + b"\r\n" + trailers + INNER)
    assert (first.host, len(first.headers), second.target, failure) == ("a", 2, "/smuggled", None)


# behind real proxies, which keep their connections to the door open for the requests of others

NGINX = nginx_settings("""
    upstream door {{ server 127.0.0.1:{behind}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1;
        proxy_set_header Connection $http_connection;
        proxy_set_header Upgrade $http_upgrade;
        proxy_request_buffering off;
        proxy_next_upstream off;
        location /smuggled {{ return 403; }}
        location / {{ proxy_pass http://door; }}
    }}
""")

HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    option http-keep-alive
    http-reuse always
listen door
    bind 127.0.0.1:{port}
    http-request deny if {{ path /smuggled }}
    server door 127.0.0.1:{behind}
"""


@contextlib.asynccontextmanager
async def proxied(kind: str, folder: Path, door: portico.Door) -> AsyncIterator[portico.Address]:
    path, port = need_program(kind), free_port()
    folder.chmod(0o755)
    file = folder / "conf"
    async with portico.serve(door, "tcp://127.0.0.1:0") as server:
        settings = NGINX if kind == "nginx" else HAPROXY
        file.write_text(settings.format(folder=folder, port=port, behind=server.address.port))
        arguments = (
            ("-p", str(folder), "-c", str(file), "-e", f"{folder}/error.log") if kind == "nginx" else ("-f", str(file))
        )
        async with program(path, *arguments, port=port):
            yield portico.Address.parse(f"tcp://127.0.0.1:{port}")


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
@scenario(("uvloop",), timeout=60)
async def test_nothing_is_smuggled_by_a_real_proxy(kind: str, tmp_path: Path) -> None:
    paths: list[str] = []
    door = portico.Door(body_timeout=1)

    @door.route(("GET", "POST"), "/{rest:path}")
    async def note(request: portico.Request) -> str:
        paths.append(request.path)
        await request.body()
        return "noted"

    async def chat(channel: portico.Channel[str | bytes]) -> None:
        async for message in channel:
            await channel.send(message)

    door.websocket("/chat", chat)
    upgrade = b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %b\r\n"
    attempts = [
        *(POST + coding + b"\r\n\r\n0\r\n\r\n" for coding in ODD_CODINGS),
        *(POST + b"Content-Length: 5\r\n" + coding + b"\r\n\r\n0\r\n\r\n" for coding in ODD_CODINGS),
        *(POST + b"Content-Length: %d\r\n" % len(INNER) + CHUNKED + b"\r\n0\r\n\r\n" for _ in range(1)),
        *(POST + sized(length) + b"\r\n\r\n" for length in ODD_LENGTHS),
        *(POST + CHUNKED + b"\r\n" + chunks for chunks in ODD_CHUNKS),
        *(b"GET / HTTP/1.1\r\n" + host + b"\r\n\r\n" for host in ODD_HOSTS),
        b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n",
        upgrade % b"websocket" + b"Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        upgrade % b"websocket" + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n",
        upgrade % b"h2c" + b"HTTP2-Settings: AAMAAABk\r\n\r\n",
        upgrade.replace(b"chat", b"other") % b"websocket" + b"\r\n",
    ]
    async with proxied(kind, tmp_path, door) as address:
        for attempt in attempts:
            async with browser(address) as client:
                await client.send(attempt + INNER)
                client.client.end()
                with contextlib.suppress(ConnectionResetError):
                    await asyncio.wait_for(client.rest(), 5)
            async with browser(address) as other:
                assert await said(other) == (200, b"noted"), attempt
            assert "/smuggled" not in paths, attempt
        assert paths.count("/innocent") == len(attempts)


async def said(client: Browser) -> tuple[int, bytes]:
    answer = await client.ask("GET /innocent")
    return answer.status, answer.body
