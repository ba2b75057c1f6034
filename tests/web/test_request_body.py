"""The body of a request, taken whole or in pieces, and what becomes of it when the taking was broken off."""

import asyncio
from typing import Any

import pytest
from server.support import EVERYWHERE, ErrorRecords, scenario

import portico

from .http_kit import visiting

POST = b"POST /body HTTP/1.1\r\nHost: a\r\n"
LONG = POST + b"Content-Length: 10\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@scenario(EVERYWHERE)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_whose_taking_was_cancelled_is_whole_the_next_time(framing: str) -> None:
    door = portico.Door()
    tried = asyncio.Event()

    @door.post("/body")
    async def body(request: portico.Request) -> bytes:
        first = asyncio.ensure_future(request.body())
        assert request.incoming is not None
        while not getattr(request.incoming, "_received", 0):
            await asyncio.sleep(0)
        first.cancel()
        await asyncio.wait([first])
        tried.set()
        assert await request.body() == await request.body()
        return await request.body()

    async with visiting(door) as (_, client):
        await client.send(LONG + b"hello" if framing == "length" else CHUNKED + b"5\r\nhello\r\n")
        await tried.wait()
        await client.send(b"world" if framing == "length" else b"5\r\nworld\r\n0\r\n\r\n")
        assert (await client.answer()).body == b"helloworld"


@scenario()
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_that_was_refused_as_too_large_is_whole_the_next_time(framing: str) -> None:
    door = portico.Door()

    @door.post("/body")
    async def body(request: portico.Request) -> bytes:
        for _ in range(2):
            with pytest.raises(portico.ProtocolError, match="limit of 4 bytes"):
                await request.body(4)
        whole = await request.body()
        with pytest.raises(portico.ProtocolError, match="limit of 4 bytes"):
            await request.body(4)
        return whole

    async with visiting(door) as (_, client):
        await client.send(LONG + b"helloworld" if framing == "length" else CHUNKED)
        if framing == "chunked":
            await client.send(b"5\r\nhello\r\n")
            await client.send(b"5\r\nworld\r\n0\r\n\r\n")
        assert (await client.answer()).body == b"helloworld"


@scenario()
async def test_a_body_over_the_doors_limit_stays_refused() -> None:
    door = portico.Door(max_body=4)

    @door.post("/body")
    async def body(request: portico.Request) -> bytes:
        with pytest.raises(portico.ProtocolError, match="limit of 4 bytes"):
            await request.body()
        return await request.body()

    async with visiting(door) as (_, client):
        await client.send(CHUNKED + b"a\r\nhelloworld\r\n0\r\n\r\n")
        assert (await client.answer()).status == 413


@scenario()
async def test_what_was_kept_of_a_body_comes_first_when_it_is_iterated() -> None:
    door = portico.Door()

    @door.post("/body")
    async def body(request: portico.Request) -> bytes:
        with pytest.raises(portico.ProtocolError):
            await request.body(4)
        return b"".join([piece async for piece in request])

    async with visiting(door) as (_, client):
        await client.send(CHUNKED + b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n")
        assert (await client.answer()).body == b"helloworld"


@scenario()
async def test_what_is_left_of_a_body_does_not_pass_for_the_whole() -> None:
    door = portico.Door()

    @door.post("/body")
    async def body(request: portico.Request) -> str:
        async for _ in request:
            break
        try:
            await request.body()
        except portico.ClosedError as error:
            return str(error)
        return "the rest"

    async with visiting(door) as (_, client):
        await client.send(LONG + b"helloworld")
        assert b"taken in pieces" in (await client.answer()).body


# what a plain function gets


@scenario()
async def test_the_request_of_a_plain_function_says_all_that_its_head_said() -> None:
    door = portico.Door()
    names = ("body_size", "keep_alive", "expects_continue", "authority", "upgrade", "params", "path", "query")

    @door.post("/{kind}")
    async def asynchronous(request: portico.Request) -> dict[str, Any]:
        await request.body()
        return {name: getattr(request, name) for name in names}

    @door.post("/plain/{kind}")
    def plain(request: Any) -> dict[str, Any]:
        return {name: getattr(request, name) for name in names}

    fields = "Content-Length: 3|Expect: 100-continue"
    async with visiting(door) as (_, client):
        told = []
        for path in ("/x", "/plain/x"):
            answer = await client.ask(f"POST http://test{path}?q|{fields}", b"abc")
            told.append(await client.answer() if answer.status == 100 else answer)
        assert told[0].body == told[1].body.replace(b"/plain", b"")
        assert b'"body_size":3' in told[1].body and b'"authority":"test"' in told[1].body
        told = [await client.ask("POST /plain/x|Content-Length: 0|Connection: close")]
        assert b'"keep_alive":false' in told[0].body


# answers


@scenario()
async def test_json_is_utf_8_whatever_came_in() -> None:
    door = portico.Door()

    @door.post("/json")
    async def back(request: portico.Request) -> Any:
        return await request.json()

    async with visiting(door) as (_, client):
        for sent, said in ((b'["\\ud800"]', b'["\\ud800"]'), (b'["\\u00e9"]', '["é"]'.encode())):
            answer = await client.ask(f"POST /json|Content-Length: {len(sent)}", sent)
            assert (answer.status, answer.body) == (200, said)


@scenario(errors=True)
@pytest.mark.parametrize("cors", [None, portico.CORS("https://a.example")])
async def test_a_header_that_is_none_is_an_error_of_the_route_with_cors_as_without(cors: portico.CORS | None) -> None:
    door = portico.Door(cors=cors)
    closed = asyncio.Event()

    class Pieces:
        def __aiter__(self) -> "Pieces":
            return self

        async def __anext__(self) -> bytes:
            raise StopAsyncIteration

        async def aclose(self) -> None:
            closed.set()

    @door.get("/")
    async def bad(request: portico.Request) -> portico.Response:
        response = portico.Response(Pieces())
        response.headers.append((1, "x"))  # type: ignore[arg-type]  # that is the mistake
        return response

    with ErrorRecords() as logged:
        async with visiting(door) as (server, client):
            answer = await client.ask("GET /|Origin: https://a.example")
            assert answer.status == 500 and closed.is_set() and server.stats.handler_errors == 1
            assert ("access-control-allow-origin" in answer.headers) == (cors is not None)
    assert len(logged.records) == 1
