"""What a server asks of those who want a WebSocket, and what it answers to each."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from interop.support import running
from peers import need_program
from server.support import EVERYWHERE, Certificates, certificates, clients, echo, scenario

import portico
from portico import WebSocketSettings
from portico.errors import ConfigurationError, StatusError
from portico.protocols.http_headers import Headers
from portico.web.accepting import accept
from portico.web.request import Request
from portico.web.response import Response

from .support import KEY, SWITCHING, YES, basic, failure, framed, head_from, masked, request, status_from

__all__ = ["certificates"]

Channel = Any
"""A WebSocket, or its blocking face."""


async def status_for(
    settings: WebSocketSettings, *fields: str, handler: Callable[[Channel], object] = echo, path: str = "/"
) -> int:
    """The status that a request with `fields` is answered with."""
    async with (
        portico.serve(handler, "ws://127.0.0.1:0/", websocket=settings) as server,
        clients(server.address) as (client,),
    ):
        await client.send(request(*fields, path=path))
        return await status_from(client)


# what comes in


@scenario(EVERYWHERE)
async def test_the_answer_is_as_the_rfc_has_it() -> None:
    async with portico.serve(echo, "ws://127.0.0.1:0/") as server, clients(server.address) as (client,):
        await client.send(request())
        assert await head_from(client) == YES.replace("{accept}", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        await client.send(masked(b"hello"))
        assert await client.recv_exactly(7) == framed(b"hello")


@scenario()
async def test_a_request_split_at_every_byte_is_one_request() -> None:
    whole = request("Cookie: a=b") + masked(b"hello")
    async with portico.serve(echo, "ws://127.0.0.1:0/", limits=portico.Limits(max_connections=1000)) as server:
        for cut in range(1, len(whole)):
            async with clients(server.address) as (client,):
                await client.send(whole[:cut])
                await asyncio.sleep(0.001)
                await client.send(whole[cut:])
                assert (await head_from(client)).startswith(SWITCHING)
                assert await client.recv_exactly(7) == framed(b"hello")


@scenario(EVERYWHERE)
async def test_a_request_byte_by_byte_is_one_request() -> None:
    async with portico.serve(echo, "ws://127.0.0.1:0/") as server, clients(server.address) as (client,):
        for byte in request() + masked(b"hello"):
            await client.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await head_from(client)).startswith(SWITCHING)
        assert await client.recv_exactly(7) == framed(b"hello")


@scenario()
async def test_after_a_refusal_the_connection_ends_and_what_stands_behind_it_is_nobodys() -> None:
    async with portico.serve(echo, "ws://127.0.0.1:0/") as server, clients(server.address) as (client,):
        await client.send(request("Origin: https://evil.example") + request())
        assert await status_from(client) == 403
        assert await client.is_over()


@scenario()
async def test_a_handler_may_be_a_plain_function() -> None:
    threads = []

    def plain(channel: Channel) -> None:
        threads.append(threading.current_thread())
        for message in channel:
            channel.send(message.upper())

    async with portico.serve(plain, "ws://127.0.0.1:0/") as server:
        async with portico.connect(server.address) as channel:
            await channel.send("hello")
            assert await channel.recv() == "HELLO"
    assert threads[0] is not threading.main_thread()


# the handler's view


@scenario()
async def test_the_channel_knows_its_request() -> None:
    seen: list[Channel] = []

    async def handler(channel: Channel) -> None:
        seen.append((channel.request.path, channel.request.query, channel.request.params, channel.request.cookies))
        seen.append((channel.request.credentials, channel.request.headers.get("x-one"), channel.subprotocol))

    settings = WebSocketSettings(
        credentials=("joe", "secret"), cookies={"a": "b"}, headers={"X-One": "1"}, subprotocols=["v1", "v2"]
    )
    own = WebSocketSettings(subprotocols=["v3", "v2", "v1"])
    async with portico.serve(handler, "ws://127.0.0.1:0/rooms/{room}", websocket=own) as server:
        address = f"ws://127.0.0.1:{server.address.port}/rooms/a%20b?x=1"
        async with portico.connect(address, websocket=settings) as channel:
            assert [message async for message in channel] == []
            assert channel.subprotocol == "v2"
    assert seen == [
        ("/rooms/a b", "x=1", {"room": "a b"}, {"a": "b"}),
        (("basic", "joe", "secret"), "1", "v2"),
    ]


@scenario()
async def test_the_answer_has_the_headers_of_the_settings() -> None:
    settings = WebSocketSettings(headers=[("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")])
    async with (
        portico.serve(echo, "ws://127.0.0.1:0/", websocket=settings) as server,
        clients(server.address) as (client,),
    ):
        await client.send(request())
        assert (await head_from(client)).endswith("\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n")


@scenario()
async def test_compression_is_answered_as_it_was_offered() -> None:
    async with portico.serve(echo, "ws://127.0.0.1:0/") as server, clients(server.address, 2) as (one, other):
        await one.send(request("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
        assert "\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover" in await head_from(one)
        await other.send(request("Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7"))
        assert "Extensions" not in await head_from(other)


# what is refused

WRONG = {
    "no upgrade": (request(without=["Upgrade"]), 426),
    "another upgrade": (request("Upgrade: h2c", without=["Upgrade"]), 426),
    "no connection": (request(without=["Connection"]), 426),
    "no key": (request(without=["Sec-WebSocket-Key"]), 400),
    "a short key": (request("Sec-WebSocket-Key: c2hvcnQ=", without=["Sec-WebSocket-Key"]), 400),
    "a doubled key": (request(f"Sec-WebSocket-Key: {KEY}"), 400),
    "no version": (request(without=["Sec-WebSocket-Version"]), 400),
    "an old version": (request("Sec-WebSocket-Version: 8", without=["Sec-WebSocket-Version"]), 426),
    "a doubled version": (request("Sec-WebSocket-Version: 13"), 400),
    "a folded field": (request("X-One: 1\r\n 2"), 400),
    "a space before a colon": (request("X-One : 1"), 400),
    "a field without a name": (request(": 1"), 400),
    "NUL in a field": (request("X-One: a\0b"), 400),
    "both lengths": (request("Content-Length: 4", "Transfer-Encoding: chunked"), 400),
    "two lengths": (request("Content-Length: 4", "Content-Length: 5"), 400),
    "a large field": (request("X-One: " + "1" * 20_000), 431),
    "many fields": (request(*(f"X-{i}: 1" for i in range(200))), 431),
    "another path": (request(path="/other"), 404),
    "extensions that are no list": (request("Sec-WebSocket-Extensions: ;"), 400),
    "subprotocols that are no list": (request("Sec-WebSocket-Protocol: a b"), 400),
}


@pytest.mark.parametrize(("asked", "status"), WRONG.values(), ids=WRONG)
@scenario()
async def test_wrong_requests_are_refused_with_their_status(asked: bytes, status: int) -> None:
    async with portico.serve(echo, "ws://127.0.0.1:0/") as server, clients(server.address) as (client,):
        await client.send(asked)
        head = await head_from(client)
        assert head.startswith(f"HTTP/1.1 {status} "), head
        if status == 426:
            assert "\r\nUpgrade: websocket\r\n" in head and "\r\nSec-WebSocket-Version: 13\r\n" in head


@scenario()
async def test_a_body_is_no_way_to_smuggle_a_request() -> None:
    inner = request(path="/inner")
    asked = request(f"Content-Length: {len(inner)}") + inner
    async with portico.serve(echo, "ws://127.0.0.1:0/") as server, clients(server.address) as (client,):
        await client.send(asked)
        client.end()
        answers = await client.recv_all()
        assert b" 101 " not in answers and answers.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], "426"),
        (["-X", "POST", "-d", "x"], "405"),
        (["-I"], "426"),
        (["--http1.0"], "426"),
        (["-H", "Upgrade: websocket", "-H", "Connection: Upgrade"], "400"),
        (["-H", "Upgrade: websocket", "-H", "Connection: Upgrade", "-H", "Sec-WebSocket-Version: 7"], "426"),
    ],
    ids=repr,
)
@scenario()
async def test_curl_hears_the_status(arguments: list[str], status: str) -> None:
    curl = need_program("curl")
    async with portico.serve(echo, "ws://127.0.0.1:0/chat") as server:
        url = str(server.address).replace("ws:", "http:")
        async with running(curl, "-s", "-m", "10", "-D", "-", "-o", "/dev/null", *arguments, url) as process:
            out, _ = await process.communicate()
    assert out.decode().split(" ")[1] == status


# origins


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        (None, None, 101),
        (None, "http://localhost", 101),
        (None, "HTTP://LOCALHOST:80", 101),
        (None, "https://localhost", 101),
        (None, "http://localhost:81", 403),
        (None, "http://localhost.evil.example", 403),
        (None, "http://evil.example", 403),
        (None, "null", 403),
        (None, "", 403),
        (None, "http://localhost\r\nOrigin: http://localhost", 403),
        ("*", "http://evil.example", 101),
        ("*", "null", 101),
        (["https://example.org"], "https://example.org", 101),
        (["https://example.org"], "http://localhost", 101),
        (["https://example.org"], "https://example.org:444", 403),
        (["https://*.example.org"], "https://a.b.example.org", 101),
        (["https://*.example.org"], "https://example.org", 403),
        (["https://*.example.org"], "https://evil.example/.example.org", 403),
    ],
    ids=repr,
)
@scenario()
async def test_pages_of_other_origins_stay_out(origins: Any, origin: str | None, status: int) -> None:
    fields = [] if origin is None else [f"Origin: {origin}"]
    assert await status_for(WebSocketSettings(origins=origins), *fields) == status


@scenario()
async def test_behind_a_proxy_that_takes_tls_away_a_secure_page_has_the_same_origin() -> None:
    settings = WebSocketSettings()
    async with (
        portico.serve(echo, "ws://127.0.0.1:0/", websocket=settings) as server,
        clients(server.address) as (client,),
    ):
        await client.send(request("Host: example.org", "Origin: https://example.org", without=["Host"]))
        assert await status_from(client) == 101


@scenario()
async def test_over_tls_a_page_without_is_of_another_origin(certificates: Certificates) -> None:
    async with portico.serve(echo, "wss://localhost:0/", tls=certificates.server()) as server:
        address = server.address.replace(host="localhost")
        for scheme, fine in (("https", True), ("http", False)):
            settings = WebSocketSettings(origin=f"{scheme}://localhost:{address.port}")
            connecting = portico.connect(address, tls=certificates.client(), websocket=settings)
            if fine:
                await (await connecting).close()
            else:
                error = (await failure(connecting)).__cause__
                assert isinstance(error, StatusError) and error.status == 403


@pytest.mark.parametrize("is_async", [False, True])
@scenario()
async def test_a_function_may_tell_which_origins_come_in(is_async: bool) -> None:
    asked = []

    def tell(origin: str, request: Request) -> bool:
        asked.append((origin, request.path))
        return origin.endswith(".test")

    async def tell_later(origin: str, request: Request) -> bool:
        return tell(origin, request)

    settings = WebSocketSettings(origins=tell_later if is_async else tell)
    assert await status_for(settings, "Origin: http://a.test") == 101
    assert await status_for(settings, "Origin: http://a.evil") == 403
    assert await status_for(settings, "Origin: http://localhost") == 101
    assert asked == [("http://a.test", "/"), ("http://a.evil", "/")]


# authorize


@pytest.mark.parametrize(
    ("answer", "status", "data"),
    [
        (True, 101, None),
        (False, 403, None),
        (None, 403, None),
        ("", 403, None),
        ({}, 403, None),
        ([], 403, None),
        (0, 403, None),
        (401, 401, None),
        (503, 503, None),
        ({"user": "joe"}, 101, {"user": "joe"}),
        ("joe", 101, "joe"),
        (("joe", 7), 101, ("joe", 7)),
        ((401, "who", "are you"), 101, (401, "who", "are you")),
        ((401, "who are you?"), 401, None),
        (Response("teapot", status=418, headers={"X-One": "1"}), 418, None),
    ],
    ids=repr,
)
@pytest.mark.parametrize("is_async", [False, True])
@scenario()
async def test_authorize_lets_in_refuses_or_attaches(is_async: bool, answer: object, status: int, data: object) -> None:
    attached: asyncio.Queue[object] = asyncio.Queue()

    async def handler(channel: Channel) -> None:
        await attached.put(channel.data)

    async def later(request: Request) -> object:
        await asyncio.sleep(0)
        return answer

    settings = WebSocketSettings(authorize=later if is_async else lambda request: answer)
    assert await status_for(settings, handler=handler) == status
    if status == 101:
        assert await attached.get() == data


@scenario()
async def test_a_refusal_has_the_body_and_fields_of_its_response() -> None:
    def authorize(request: Request) -> object:
        if request.credentials == ("basic", "joe", "secret"):
            return True
        return Response("who are you?", status=401, headers={"WWW-Authenticate": "Basic"})

    async with portico.serve(echo, "ws://127.0.0.1:0/", websocket=WebSocketSettings(authorize=authorize)) as server:
        error = (await failure(portico.connect(server.address))).__cause__
        assert isinstance(error, StatusError)
        assert (error.status, error.body) == (401, b"who are you?")
        assert ("WWW-Authenticate", "Basic") in error.headers
        settings = WebSocketSettings(credentials=("joe", "secret"))
        async with portico.connect(server.address, websocket=settings) as channel:
            await channel.send("hello")
            assert await channel.recv() == "hello"


@pytest.mark.parametrize(
    ("answer", "content_type", "body"),
    [
        (401, "text/plain; charset=utf-8", b"401 Unauthorized\n"),
        (False, "text/plain; charset=utf-8", b"403 Forbidden\n"),
        ((402, "pay é"), "text/plain; charset=utf-8", "pay é".encode()),
        ((402, b"pay"), "application/octet-stream", b"pay"),
        ((402, {"pay": "é"}), "application/json", b'{"pay":"\\u00e9"}'),
        ((402, ["pay"]), "application/json", b'["pay"]'),
        ((402, None), None, b""),
        ((402, Response("<b>pay", content_type="text/html")), "text/html", b"<b>pay"),
    ],
    ids=repr,
)
@scenario()
async def test_a_refusal_is_answered_as_a_route_would_answer_it(
    answer: object, content_type: str | None, body: bytes
) -> None:
    settings = WebSocketSettings(authorize=lambda request: answer)
    async with portico.serve(echo, "ws://127.0.0.1:0/", websocket=settings) as server:
        error = (await failure(portico.connect(server.address))).__cause__
        assert isinstance(error, StatusError)
        assert (dict(error.headers).get("Content-Type"), error.body) == (content_type, body)


@scenario()
async def test_a_refusal_may_come_in_pieces() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"not "
        yield b"you"

    settings = WebSocketSettings(authorize=lambda request: (403, pieces()))
    async with portico.serve(echo, "ws://127.0.0.1:0/", websocket=settings) as server:
        error = (await failure(portico.connect(server.address))).__cause__
        assert isinstance(error, StatusError) and error.body == b"not you"


@scenario()
async def test_none_is_told_once_with_what_to_return(caplog: pytest.LogCaptureFixture) -> None:
    def forgets(request: Request) -> None: ...

    for _ in range(2):
        settings = WebSocketSettings(authorize=forgets)
        for _ in range(2):
            assert await status_for(settings) == 403
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 2
    for line in told:
        assert line.startswith("authorize of / (") and "forgets) returned None, which refuses: return True" in line


@pytest.mark.parametrize(
    "answer", [200, 7, 101, 1000, -1, (200, "ok"), (7, "joe"), (True, "joe"), (403, 5), ValueError("no")], ids=repr
)
@scenario(errors=True)
async def test_authorize_that_fails_is_the_servers_fault(answer: object) -> None:
    def authorize(request: Request) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert await status_for(WebSocketSettings(authorize=authorize)) == 500


@scenario()
async def test_who_vanishes_while_authorize_thinks_leaves_nothing() -> None:
    thinking, gone = asyncio.Event(), asyncio.Event()

    async def authorize(request: Request) -> bool:
        thinking.set()
        await gone.wait()
        return True

    settings = WebSocketSettings(authorize=authorize)
    async with portico.serve(echo, "ws://127.0.0.1:0/", websocket=settings) as server:
        async with clients(server.address) as (client,):
            await client.send(request())
            await thinking.wait()
            client.reset()
        gone.set()
        await server.drain(2)


@scenario()
async def test_a_server_that_drains_sends_them_elsewhere() -> None:
    class Draining:
        draining = True
        tls = None

    class Incoming:
        stream: Any = Draining()

        async def next_piece(self) -> bytes:
            return b""

    fields = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}
    asked = Request("GET", "/", headers=Headers(fields))
    asked.incoming = Incoming()
    answered = await accept(asked, WebSocketSettings())
    assert isinstance(answered, Response)
    assert answered.status == 503 and answered.get("Retry-After") == "1"


# where to listen


@pytest.mark.parametrize(
    ("address", "handler", "settings", "said"),
    [
        ("ws://127.0.0.1:0/", echo, {"codec": portico.Lines()}, "it takes no codec="),
        ("ws://127.0.0.1:0/?x=1", echo, {}, "listens at a path"),
        ("ws://127.0.0.1:0/{a", echo, {}, "a parameter is a whole segment"),
        ("ws://127.0.0.1:0/", portico.Door(), {}, "a Door serves http"),
        ("ws://127.0.0.1:0/", 5, {}, "must be a function"),
        ("http://127.0.0.1:0/", echo, {}, "is served by a portico.Door"),
        ("http://127.0.0.1:0/x", portico.Door(), {}, "paths are the Door's"),
        ("http://127.0.0.1:0/", portico.Door(), {"websocket": WebSocketSettings()}, "door.websocket"),
        ("tcp://127.0.0.1:0", echo, {"websocket": WebSocketSettings()}, "websocket= is for ws"),
        ("wss://127.0.0.1:0/", echo, {}, "tls="),
    ],
)
def test_listeners_that_cannot_work_are_refused_at_once(
    address: str, handler: Any, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        portico.Service().listen(address, handler, **settings)


# basic credentials, as others write them


@scenario()
async def test_credentials_outside_ascii_are_read_as_they_were_written() -> None:
    seen = []

    def authorize(request: Request) -> bool:
        seen.append(request.credentials)
        return True

    settings = WebSocketSettings(authorize=authorize)
    assert await status_for(settings, f"Authorization: {basic('jürgen', 'geheim:ß')}") == 101
    assert seen == [("basic", "jürgen", "geheim:ß")]
