"""ASGI applications behind a door: what they are told, what becomes of what they send, and how everything ends."""

import asyncio
import contextlib
from typing import Any

import pytest
from server.support import EVERYWHERE, Certificates, ErrorRecords, certificates, client_of, scenario, until

import portico
from portico.errors import ConfigurationError

from .asgi_kit import Told, body, mounted, start
from .http_kit import Browser, browser

__all__ = ["certificates"]

POST = "POST /api/up HTTP/1.1\r\nHost: test\r\n{}\r\n\r\n"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Sends back what comes, as it comes."""
    await start(send)
    more = True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        more = message["more_body"]
        await body(send, message["body"], more=more)


async def collecting(scope: Any, receive: Any, send: Any) -> None:
    """Answers the whole body at once."""
    data, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        data, more = data + message["body"], message["more_body"]
    await start(send, 200, (b"content-length", b"%d" % len(data)))
    await body(send, data)


# scopes


@scenario(EVERYWHERE)
async def test_the_scope_tells_the_request_as_it_was_sent() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await start(send, 200, (b"x-one", b"1"), (b"set-cookie", b"a"), (b"set-cookie", b"b"))
        await body(send, b"fine")

    async with mounted(app) as (server, client):
        await client.send(
            b"PATCH /api/a%2Fb%20c?q=%20&r HTTP/1.1\r\nHost: Test\r\nX-B: 1\r\nx-a: \xe9\r\nX-B: 2\r\n\r\n"
        )
        raw = await client.until(b"\r\n\r\n")
        assert raw.index(b"x-one: 1") < raw.index(b"set-cookie: a\r\nset-cookie: b")
        assert await client.exactly(4) == b"fine"
        (scope,) = seen
        ours = client.client.sock.getsockname()
        assert scope == {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": "PATCH",
            "scheme": "http",
            "path": "/api/a/b c",
            "raw_path": b"/api/a%2Fb%20c",
            "query_string": b"q=%20&r",
            "root_path": "/api",
            "headers": [(b"host", b"Test"), (b"x-b", b"1"), (b"x-a", b"\xe9"), (b"x-b", b"2")],
            "client": ("127.0.0.1", ours[1]),
            "server": ("127.0.0.1", server.address.port),
            "state": {},
            "extensions": {},
        }


@scenario()
async def test_over_tls_the_scheme_is_https_and_over_unix_there_is_no_client(
    certificates: Certificates, tmp_path: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, repr((scope["scheme"], scope["client"] and "client", scope["server"])).encode())

    door = portico.Door()
    door.mount("/", app)
    async with portico.serve(door, "tls://127.0.0.1:0", tls=certificates.server()) as server:
        url = f"https://127.0.0.1:{server.address.port}/x"
        answer = await portico.fetch(url, tls=certificates.client())
        assert answer.body == repr(("https", "client", ("127.0.0.1", server.address.port))).encode()
    path = str(tmp_path / "socket")
    async with portico.serve(door, f"unix:{path}") as server, browser(server.address) as client:
        assert (await client.ask("GET /")).body == repr(("http", None, (path, None))).encode()


# bodies


@scenario(EVERYWHERE)
@pytest.mark.parametrize("chunked", [False, True])
async def test_bodies_stream_both_ways(chunked: bool) -> None:
    async with mounted(echo, max_body=4 << 20) as (_, client):
        sent = bytes(range(256)) * 4096
        if chunked:
            head = POST.format("Transfer-Encoding: chunked")
            coded = b"".join(b"%x\r\n%b\r\n" % (65536, sent[i : i + 65536]) for i in range(0, len(sent), 65536))
            coded += b"0\r\n\r\n"
        else:
            head, coded = POST.format(f"Content-Length: {len(sent)}"), sent
        sending = asyncio.create_task(client.send(head.encode() + coded))
        answer = await client.answer()
        await sending
        assert answer.headers["transfer-encoding"] == "chunked" and answer.body == sent
        assert (await client.ask("GET /api/again")).body == b""  # the connection goes on


@scenario()
async def test_a_whole_answer_leaves_with_its_length_and_the_connection_goes_on() -> None:
    async with mounted(collecting) as (server, client):
        for size in (0, 1, 3000):
            answer = await client.ask(f"POST /api|Content-Length: {size}", b"x" * size)
            assert answer.headers["content-length"] == str(size) and answer.body == b"x" * size
            assert "content-type" not in answer.headers  # the app's headers are all there are
        assert server.stats.accepted == 1


@scenario()
async def test_a_request_may_come_byte_by_byte() -> None:
    async with mounted(collecting) as (_, client):
        for byte in POST.format("Transfer-Encoding: chunked").encode() + b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n":
            await client.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await client.answer()).body == b"abc"


@scenario()
async def test_who_does_not_read_makes_the_app_wait() -> None:
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await start(send)
        for _ in range(400):
            await body(send, bytes(65536), more=True)
            sent += 1
        await body(send)

    async with mounted(app) as (_, client):
        await client.send(b"GET /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        last = -1
        while sent != last:  # until nothing fits anywhere any more
            last = sent
            await asyncio.sleep(0.1)
        assert 0 < sent < 300
        received = 0
        while data := await client.client.recv(1 << 20):
            received += len(data)
        assert received > 400 * 65536


@scenario()
async def test_a_body_that_is_not_read_makes_the_client_wait() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        size = len((await receive())["body"])
        await go.wait()
        while (message := await receive())["more_body"]:
            size += len(message["body"])
        await start(send)
        await body(send, b"%d" % (size + len(message["body"])))

    async with mounted(app, max_body=64 << 20) as (_, client):
        size = 32 << 20
        sending = asyncio.create_task(client.send(POST.format(f"Content-Length: {size}").encode() + bytes(size)))
        _, pending = await asyncio.wait([sending], timeout=0.5)
        assert pending
        go.set()
        assert (await client.answer()).body == b"%d" % size
        await sending


@scenario()
@pytest.mark.parametrize("streams", [False, True])
async def test_head_and_204_have_no_body(streams: bool) -> None:
    done = Told()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        status = 204 if scope["path"] == "/api/none" else 200
        await start(send, status, *([] if streams else [(b"content-length", b"5")]))
        if streams:
            await body(send, b"he", more=True)
            await body(send, b"l", more=True)
            await body(send, b"lo")
        else:
            await body(send, b"hello")
        done.put((await receive())["type"])

    async with mounted(app) as (server, client):
        answer = await client.ask("HEAD /api")
        assert answer.status == 200 and answer.headers.get("content-length") == (None if streams else "5")
        assert (await client.ask("GET /api/none")).status == 204
        assert (await client.ask("GET /api")).body == b"hello"
        assert [await done.next() for _ in range(3)] == ["http.disconnect"] * 3
        assert server.stats.accepted == 1 and not server.stats.handler_errors


@scenario()
async def test_100_continue_is_sent_when_the_app_asks_for_the_body() -> None:
    async with mounted(collecting) as (_, client):
        await client.send(POST.format("Content-Length: 2\r\nExpect: 100-continue").encode())
        assert (await client.answer()).status == 100
        await client.send(b"ok")
        assert (await client.answer()).body == b"ok"


@scenario()
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_answered_with_413(chunked: bool) -> None:
    told = Told()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        told.put(message["type"])
        await start(send, 400)
        await body(send, b"not heard")

    async with mounted(app, max_body=10) as (_, client):
        field = "Transfer-Encoding: chunked" if chunked else "Content-Length: 11"
        await client.send(
            POST.format(field).encode() + (b"b\r\nhello world\r\n0\r\n\r\n" if chunked else b"hello world")
        )
        answer = await client.answer()
        assert answer.status == 413
        if chunked:  # else the app was not even asked
            assert await told.next() == "http.disconnect"


# the client goes away


def open_for_reading(server: portico.Server) -> bool:
    (session,) = server.listeners[0].sessions
    assert session.connection is not None
    reading, _, _, lost = session.connection.flags
    return reading and not lost


@scenario(EVERYWHERE)
@pytest.mark.parametrize("how", ["end", "reset"])
@pytest.mark.parametrize("waits", [True, False])
async def test_an_app_hears_that_its_client_has_gone(how: str, waits: bool) -> None:
    told, go = Told(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await receive() == {"type": "http.request", "body": b"", "more_body": False}
        told.put("in")
        if not waits:
            await go.wait()
        told.put((await receive())["type"])
        told.put((await receive())["type"])

    async with mounted(app) as (server, client):
        await client.send(b"GET /api HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await told.next() == "in"
        if how == "reset":
            client.client.reset()
        else:
            client.client.close()
        if not waits:
            await until(lambda: not open_for_reading(server))
        go.set()
        assert [await told.next(), await told.next()] == ["http.disconnect"] * 2
        await until(lambda: server.stats.open == 0)
        assert server.stats.handler_errors == 0


@scenario()
async def test_sending_to_a_client_that_has_gone_raises_an_oserror() -> None:
    told = Told()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        try:
            while True:
                await body(send, bytes(65536), more=True)
        except OSError as error:
            told.put(error)
            raise

    async with mounted(app) as (server, client):
        await client.send(b"GET /api HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await client.client.recv()
        client.client.reset()
        assert isinstance(await told.next(), portico.ClosedError)
        await until(lambda: server.stats.peer_errors == 1)
        assert server.stats.handler_errors == 0  # it is no error of the app's


@scenario()
async def test_an_app_that_answers_nobody_is_no_error() -> None:
    told, go = Told(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        told.put("in")
        await go.wait()
        try:
            await start(send)
            await body(send, b"late")
        finally:
            told.put("out")

    async with mounted(app) as (server, client):
        await client.send(b"GET /api HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await told.next() == "in"
        client.client.reset()
        await until(lambda: server.stats.open == 0)
        go.set()
        assert await told.next() == "out"
        await until(lambda: server.stats.peer_errors == 1)
        assert server.stats.handler_errors == 0


@scenario()
async def test_a_body_that_breaks_off_anywhere_ends_in_a_disconnect() -> None:
    told = Told()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            pass
        told.put(message["type"])

    async with mounted(app) as (server, _):
        whole = b"5\r\nhello\r\n3\r\nyou\r\n0\r\n\r\n"
        for cut in range(len(whole)):
            client = await client_of(server.address)
            await client.send(POST.format("Transfer-Encoding: chunked").encode() + whole[:cut])
            client.end()
            assert await told.next() == "http.disconnect"
            assert await client.is_over()
            client.close()
        await until(lambda: server.stats.open == 1)
        assert server.stats.handler_errors == 0


# errors of the app


@scenario(errors=True)
async def test_an_app_that_fails_before_its_answer_is_answered_with_500_and_counted() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/api/started":
            await start(send)
        if scope["path"] != "/api/nothing":
            raise RuntimeError("so it is")

    async with mounted(app) as (server, client):
        with ErrorRecords() as logged:
            for path in ("failing", "started", "nothing"):
                assert (await client.ask(f"GET /api/{path}")).status == 500
            assert server.stats.handler_errors == 3 and server.stats.accepted == 1
        texts = [record.getMessage() for record in logged.records]
        assert "so it is" in texts[0] and "the app mounted at /api ended without an answer" in texts[2]


@scenario(errors=True)
async def test_an_app_that_fails_in_its_answer_breaks_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"half", more=True)
        if scope["path"] == "/api/raises":
            raise RuntimeError("so it is")

    async with mounted(app) as (server, _):
        for path in ("raises", "returns"):
            async with browser(server.address) as other:
                await other.send(f"GET /api/{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                with pytest.raises((EOFError, ConnectionResetError)):
                    await other.answer()
        assert server.stats.handler_errors == 2


@scenario(errors=True)
async def test_an_app_that_fails_behind_its_answer_is_counted() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"fine")
        await asyncio.sleep(0)
        raise RuntimeError("afterwards")

    async with mounted(app) as (server, client):
        with ErrorRecords() as logged:
            assert (await client.ask("GET /api")).body == b"fine"
            await until(lambda: server.stats.handler_errors == 1)
        assert "afterwards" in logged.records[0].getMessage()


WRONG = {
    "no start": ([{"type": "http.response.body"}], "http.response.start"),
    "two starts": ([{"type": "http.response.start", "status": 200}] * 2, "http.response.body"),
    "behind the end": (
        [
            {"type": "http.response.start", "status": 200},
            {"type": "http.response.body"},
            {"type": "http.response.body"},
        ],
        "after the end",
    ),
    "another kind": ([{"type": "websocket.send"}], "http.response.start"),
    "no status": ([{"type": "http.response.start"}], "status"),
    "text": ([{"type": "http.response.start", "status": 200}, {"type": "http.response.body", "body": "x"}], "bytes"),
    "text in headers": ([{"type": "http.response.start", "status": 200, "headers": [("a", "b")]}], "pairs of bytes"),
    "a split header": ([{"type": "http.response.start", "status": 200, "headers": [(b"a", b"b\r\nc: d")]}], "CR, LF"),
}


@scenario()
@pytest.mark.parametrize("name", WRONG)
async def test_wrong_messages_are_told_to_the_app(name: str) -> None:
    messages, word = WRONG[name]
    told = Told()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            for message in messages:
                await send(message)
        except (portico.ProtocolError, ConfigurationError) as error:
            told.put(str(error))
        if name != "behind the end":
            with contextlib.suppress(portico.ProtocolError):
                await start(send)
            await body(send, b"after all")

    async with mounted(app) as (_, client):
        answer = await client.ask("GET /api")
        assert answer.status == 200 and answer.body in (b"after all", b"")
        text = await told.next()
        assert word in text and "\n" not in text


# ends of the server


@scenario()
async def test_a_server_that_is_closed_at_once_cancels_the_app() -> None:
    told = Told()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/api/streams":
            await start(send)
            await body(send, b"begun", more=True)
        told.put("in")
        try:
            await asyncio.Event().wait()
        finally:
            told.put("cancelled")

    for path in ("waits", "streams"):
        async with mounted(app) as (server, client):
            await client.send(f"GET /api/{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            assert await told.next() == "in"
            await server.drain(0)
            assert await told.next() == "cancelled"


@scenario()
async def test_what_an_app_does_behind_its_answer_is_waited_for() -> None:
    told = Told()
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await start(send)
        await body(send, b"fine")
        await go.wait()
        told.put("done")

    async with mounted(app) as (server, client):
        assert (await client.ask("GET /api")).body == b"fine"
        assert (await client.ask("GET /api")).body == b"fine"  # the connection does not wait for it
        client.client.close()
        asyncio.get_running_loop().call_later(0.1, go.set)
        await server.drain(1)
    assert [await told.next(), await told.next()] == ["done", "done"]


def test_what_is_no_application_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="ASGI"):
        portico.Door().mount("/", "module:app")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="subprotocol"):
        portico.Door().mount("/", echo, websocket=portico.WebSocketSettings(subprotocols=("a",)))


async def _answers(client: Browser, count: int) -> list[bytes]:
    return [(await client.answer()).body for _ in range(count)]


@scenario()
async def test_pipelined_requests_to_an_app_are_answered_in_order() -> None:
    async with mounted(collecting) as (_, client):
        await client.send(b"".join(POST.format("Content-Length: 3").encode() + b"%03d" % n for n in range(50)))
        assert await _answers(client, 50) == [b"%03d" % n for n in range(50)]
