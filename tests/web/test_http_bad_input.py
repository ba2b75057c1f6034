"""Bad requests and bad days: what is refused is said and counted, and nobody holds a connection by being slow."""

import asyncio

import pytest
from server.support import scenario, until

import portico

from .http_kit import browser, door_of, visiting

HOST = b"\r\nHost: a\r\n"


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (501, b"nonsense\r\n\r\n"),
        (400, b"\0\1\2"),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"POST /echo HTTP/1.1" + HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, b"POST /echo HTTP/1.1" + HOST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (413, b"POST /echo HTTP/1.1" + HOST + b"Content-Length: 1001\r\n\r\n"),
        (413, b"POST /echo HTTP/1.1" + HOST + b"Transfer-Encoding: chunked\r\n\r\n7d0\r\n" + b"x" * 2000),
        (414, b"GET /" + b"x" * 9000 + b" HTTP/1.1" + HOST + b"\r\n"),
        (417, b"POST /echo HTTP/1.1" + HOST + b"Expect: more\r\nContent-Length: 1\r\n\r\nx"),
        (431, b"GET / HTTP/1.1" + HOST + b"X: " + b"y" * 17_000),
        (431, b"GET / HTTP/1.1" + HOST + b"X: y\r\n" * 200 + b"\r\n"),
        (501, b"BREW / HTTP/1.1" + HOST + b"\r\n"),
        (501, b"CONNECT a:80 HTTP/1.1" + HOST + b"\r\n"),
        (505, b"GET / HTTP/2.0" + HOST + b"\r\n"),
    ],
)
@scenario()
async def test_a_bad_request_is_answered_and_the_connection_closed(status: int, data: bytes) -> None:
    async with visiting(door_of(max_body=1000)) as (server, client):
        assert (await client.ask("GET /")).status == 200  # first, a good one
        await client.send(data)
        answer = await client.answer()
        assert answer.status == status and answer.headers["connection"] == "close"
        assert answer.body.startswith(b"%d " % status) and answer.body.count(b"\n") == 1
        assert await client.is_over()
        await until(lambda: server.stats.protocol_errors == 1)
        assert server.stats.handler_errors == server.stats.peer_errors == 0


@scenario()
async def test_what_is_smuggled_behind_a_bad_request_is_never_answered() -> None:
    inner = b"GET /target/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
    for framing in (
        b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (len(inner) + 5),
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"Content-Length: 0\r\nContent-Length: %d\r\n\r\n" % len(inner),
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ):
        async with visiting(door_of()) as (_, client):
            await client.send(b"POST /echo HTTP/1.1\r\nHost: a\r\n" + framing + inner)
            answer = await client.answer()
            assert answer.status in (400, 501), framing
            assert await client.rest() == b""


@scenario()
async def test_good_requests_before_a_bad_one_are_answered() -> None:
    async with visiting(door_of()) as (_, client):
        await client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 2 + b"BREW /\r\n\r\n")
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 501]
        assert await client.is_over()


@scenario()
async def test_a_body_that_nobody_wants_is_read_or_the_connection_closes() -> None:
    async with portico.serve(door_of(max_body=10 << 20), "tcp://127.0.0.1:0") as server:
        async with browser(server.address) as client:
            for framing, body in (
                ("Content-Length: 100000", b"x" * 100_000),
                ("Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n\r\n"),
            ):
                for path in ("/ignore", "/nowhere"):
                    answer = await client.ask(f"POST {path}|{framing}", body)
                    assert answer.status in (200, 404) and "connection" not in answer.headers
            answer = await client.ask("POST /ignore|Content-Length: 1000000")
            assert answer.headers["connection"] == "close"
        async with browser(server.address) as client:
            answer = await client.ask("POST /ignore|Transfer-Encoding: chunked")
            await client.send(b"40000\r\n" + b"x" * 0x40000 + b"\r\n1\r\nx")
            assert answer.status == 200 and await client.is_over()
        assert server.stats.handler_errors == 0


@scenario()
async def test_nonsense_behind_an_answer_that_left_the_body_is_not_answered_twice() -> None:
    async with visiting(door_of()) as (_, client):
        await client.ask("POST /ignore|Transfer-Encoding: chunked")
        await client.send(b"nonsense\r\n")
        assert await client.is_over()


# Slow senders.


@scenario()
async def test_a_head_has_one_deadline_however_it_dribbles() -> None:
    for started in (False, True):
        async with visiting(door_of(head_timeout=0.3)) as (server, client):
            if started:
                assert (await client.ask("GET /")).status == 200
            over = asyncio.ensure_future(client.answer())
            begun = asyncio.get_running_loop().time()
            await client.send(b"GET / HTTP/1.1\r\nX: ")
            while not over.done():
                await asyncio.wait([over], timeout=0.02)
                if not over.done():
                    await client.send(b"y")
            answer = await over
            assert answer.status == 408 and 0.25 < asyncio.get_running_loop().time() - begun < 2
            assert server.stats.protocol_errors == 1


@scenario()
async def test_who_connects_and_says_nothing_is_shown_out() -> None:
    async with visiting(door_of(head_timeout=0.1)) as (server, client):
        assert await client.is_over()
        await until(lambda: not server.stats.open)
        assert server.stats.protocol_errors == server.stats.peer_errors == 0


@scenario()
async def test_who_asks_no_more_is_shown_out() -> None:
    async with visiting(door_of(keep_alive=0.1)) as (server, client):
        assert (await client.ask("GET /")).status == 200
        assert await client.is_over()
        await until(lambda: not server.stats.open)
        assert server.stats.protocol_errors == server.stats.peer_errors == 0


@scenario()
async def test_a_request_in_time_is_not_shown_out() -> None:
    async with visiting(door_of(keep_alive=0.4, head_timeout=0.2)) as (_, client):
        for _ in range(4):
            assert (await client.ask("GET /")).status == 200
            await asyncio.sleep(0.15)  # longer than all deadlines together, shorter than each


@scenario()
async def test_a_body_that_stops_is_given_up() -> None:
    async with visiting(door_of(body_timeout=0.1)) as (server, client):
        answer = await client.ask("POST /echo|Content-Length: 9", b"abc")
        assert answer.status == 408 and answer.headers["connection"] == "close"
        assert await client.is_over()
        await until(lambda: not server.stats.open)
        assert server.stats.handler_errors == 0 and server.stats.protocol_errors >= 1


@scenario()
async def test_a_body_that_dribbles_is_given_up() -> None:
    async with visiting(door_of(body_timeout=0.3, body_rate=1000)) as (_, client):
        over = asyncio.ensure_future(client.ask("POST /echo|Content-Length: 1000"))
        begun = asyncio.get_running_loop().time()
        while not over.done():
            await asyncio.wait([over], timeout=0.03)  # 33 bytes a second, and never 0.3 s of silence
            if not over.done():
                await client.send(b"x")
        assert (await over).status == 408 and asyncio.get_running_loop().time() - begun < 3


@scenario()
async def test_a_body_that_stops_after_the_answer_closes_the_connection() -> None:
    async with visiting(door_of(body_timeout=0.1)) as (server, client):
        answer = await client.ask("POST /ignore|Content-Length: 9", b"abc")
        assert answer.status == 200
        assert await client.is_over()
        assert server.stats.handler_errors == 0


@scenario()
async def test_a_slow_route_is_no_slow_client() -> None:
    door = door_of(head_timeout=0.05, body_timeout=0.05, keep_alive=0.05)

    @door.post("/slow")
    async def slow(request: portico.Request) -> bytes:
        await asyncio.sleep(0.2)  # what the deadlines must not count
        return await request.body()

    async with visiting(door) as (_, client):
        assert (await client.ask("POST /slow|Content-Length: 3", b"abc")).body == b"abc"


# Draining.


@scenario()
async def test_draining_closes_idle_connections_at_once_and_answers_what_is_under_way() -> None:
    door = door_of()
    began, go_on = asyncio.Event(), asyncio.Event()

    @door.get("/slow")
    async def slow(request: portico.Request) -> str:
        began.set()
        await go_on.wait()
        return f"draining: {bool(request.draining)}"

    async with visiting(door) as (server, idle), browser(server.address) as busy, browser(server.address) as half:
        assert (await idle.ask("GET /")).status == 200
        await half.send(b"GET / HTTP/1.1\r\n")
        await busy.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await began.wait()
        await until(lambda: server.stats.bytes_received > 100)
        draining = asyncio.ensure_future(server.drain(5))
        assert await idle.is_over()
        go_on.set()
        answer = await busy.answer()
        assert answer.body == b"draining: True" and answer.headers["connection"] == "close"
        assert await busy.is_over()
        await half.send(b"Host: a\r\n\r\n")
        answer = await half.answer()
        assert answer.body == b"hello" and answer.headers["connection"] == "close"
        await draining
        assert server.stats.aborted == 0


@scenario()
async def test_draining_leaves_a_new_connection_a_moment_to_ask() -> None:
    async with visiting(door_of()) as (server, client), browser(server.address) as silent:
        await until(lambda: server.stats.open == 2)
        draining = asyncio.ensure_future(server.drain(5))
        await asyncio.sleep(0)
        answer = await client.ask("GET /")
        assert answer.body == b"hello" and answer.headers["connection"] == "close"
        assert await silent.is_over()
        await draining
        assert server.stats.aborted == 0
