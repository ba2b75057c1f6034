"""Bad days of a door: clients that vanish, routes that misbehave, answers that are kept, races at the end."""

import asyncio
import threading
from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from server.support import EVERYWHERE, scenario, turns, until

import portico
from portico.server.threads import Job

from .http_kit import browser, door_of, visiting

ASK = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"


# clients that vanish


@pytest.mark.parametrize("vanish", ["end", "reset"])
@scenario(EVERYWHERE)
async def test_a_route_that_waits_learns_that_its_client_has_gone(vanish: str) -> None:
    door, told = door_of(), asyncio.Event()

    @door.get("/slow")
    async def slow(request: portico.Request) -> str:
        assert not request.gone
        waiting.set()
        await request.gone
        assert request.gone
        told.set()
        return "to whom it may concern"

    async with visiting(door) as (server, client):
        for _ in range(2):
            assert (await client.ask("GET /")).status == 200
        waiting = asyncio.Event()
        await client.send(ASK)
        await waiting.wait()
        getattr(client.client, vanish)()
        await told.wait()
        if vanish == "end":  # it may listen still
            assert (await client.answer()).body == b"to whom it may concern"
        await until(lambda: not server.stats.open)
        assert server.stats.handler_errors == 0


@scenario()
async def test_gone_is_known_at_once_where_the_client_had_ended_before() -> None:
    door = door_of()

    @door.get("/slow")
    async def slow(request: portico.Request) -> str:
        await until(lambda: request.stream.state is portico.State.HALF_CLOSED_REMOTE)
        return str(bool(request.gone))

    async with visiting(door) as (_, client):
        await client.send(ASK)
        client.client.end()
        assert (await client.answer()).body == b"True"


@scenario()
async def test_the_request_after_one_that_watched_is_watched_anew() -> None:
    door, kept = door_of(), []

    @door.get("/slow")
    async def slow(request: portico.Request) -> str:
        kept.append(request.gone)
        return "yes"

    async with visiting(door) as (_, client):
        await client.ask("GET /slow")
        await client.ask("GET /slow")
        assert kept[0] is not kept[1] and not kept[0] and not kept[1]


@scenario(EVERYWHERE)
async def test_an_answer_in_pieces_ends_when_its_client_is_lost() -> None:
    door, ended = door_of(), asyncio.Event()

    @door.get("/slow")
    async def slow(request: portico.Request) -> portico.Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await asyncio.Event().wait()  # news that never comes
            finally:
                ended.set()

        return portico.Response(pieces())

    async with visiting(door) as (server, client):
        await client.send(ASK)
        assert (await client.until(b"first")).endswith(b"first")
        client.client.reset()
        await ended.wait()
        await until(lambda: server.stats.peer_errors == 1)
        assert server.stats.handler_errors == 0


@scenario()
async def test_an_answer_in_pieces_that_is_silent_too_long_ends_with_its_connection() -> None:
    door, ended = door_of(), []

    @door.get("/slow")
    async def slow(request: portico.Request) -> portico.Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await asyncio.Event().wait()
            finally:
                ended.append(bool(request.gone))

        return portico.Response(pieces())

    async with visiting(door, limits=portico.Limits(idle_timeout=0.3)) as (server, client):
        await client.send(ASK)
        await client.until(b"first")
        await until(lambda: bool(ended), 5)
        await until(lambda: not server.stats.open, 5)
        assert (ended, server.stats.timeouts, server.stats.handler_errors) == ([True], 1, 0)


@scenario()
async def test_who_ended_his_side_gets_all_of_an_answer_in_pieces() -> None:
    door = door_of()

    @door.get("/slow")
    async def slow(request: portico.Request) -> portico.Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            await request.gone
            yield b"last"

        return portico.Response(pieces())

    async with visiting(door) as (_, client):
        await client.send(ASK)
        client.client.end()
        assert (await client.answer()).body == b"firstlast"


@scenario()
async def test_a_drain_without_time_cancels_an_answer_in_pieces() -> None:
    door, ended = door_of(), []

    @door.get("/slow")
    async def slow(request: portico.Request) -> portico.Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await asyncio.Event().wait()
            except BaseException as error:
                ended.append(type(error))
                raise

        return portico.Response(pieces())

    async with visiting(door) as (server, client):
        await client.send(ASK)
        await client.until(b"first")
        await server.drain(0)
        assert ended == [asyncio.CancelledError]


@scenario()
async def test_the_body_of_a_request_that_is_over_is_no_empty_one() -> None:
    door, kept = door_of(), []

    @door.post("/keep")
    async def keep(request: portico.Request) -> None:
        kept.append(request)

    async with visiting(door) as (_, client):
        assert (await client.ask("POST /keep|Content-Length: 3", b"abc")).status == 204
        with pytest.raises(portico.ClosedError, match="was answered"):
            await kept[0].body()
        with pytest.raises(portico.ClosedError, match="was answered"):
            _ = kept[0].gone


STATES = {
    "nothing said": b"",
    "within the request line": b"GET /tar",
    "within the head": b"GET / HTTP/1.1\r\nHost: a\r\nX",
    "behind a head that has a body": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
    "where 100 is awaited": b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    "within a body": b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
    "within a chunk": b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "within a trailer": b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    "within a body that nobody reads": b"POST /ignore HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
    "while a body goes back": b"POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc",
    "while a route works": b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n" * 3,
    "while a large answer waits": b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n" * 3,
    "while a long answer comes": b"GET /long HTTP/1.1\r\nHost: a\r\n\r\n",
    "idle": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("state", STATES)
@scenario(EVERYWHERE)
async def test_a_client_may_vanish_in_every_state(state: str) -> None:
    door = door_of()

    @door.get("/wait")
    async def wait(request: portico.Request) -> str:
        await request.gone
        return "too late"

    @door.get("/large")
    async def large(request: portico.Request) -> bytes:
        return bytes(12 << 20)

    @door.get("/long")
    async def long(request: portico.Request) -> portico.Response:
        async def pieces() -> AsyncIterator[bytes]:
            while True:
                yield bytes(100_000)

        return portico.Response(pieces())

    for vanish in ("reset", "close"):
        async with visiting(door) as (server, client):
            await client.send(STATES[state])
            await until(lambda server=server: server.stats.bytes_received >= len(STATES[state]))
            await turns()
            getattr(client.client, vanish)()
            await until(lambda server=server: not server.stats.open, 5)
            assert (server.stats.handler_errors, server.stats.protocol_errors) == (0, 0)


@pytest.mark.parametrize("path", ["/large", "/pieces"])
@scenario()
async def test_a_client_that_takes_nothing_of_its_answer_is_let_go(path: str) -> None:
    door, ended = door_of(), asyncio.Event()

    @door.get("/large")
    async def large(request: portico.Request) -> bytes:
        ended.set()
        return bytes(12 << 20)

    @door.get("/pieces")
    async def many(request: portico.Request) -> portico.Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield bytes(100_000)
            finally:
                ended.set()

        return portico.Response(pieces())

    async with visiting(door, limits=portico.Limits(send_timeout=0.3)) as (server, client):
        await client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        await until(lambda: not server.stats.open, 10)
        await ended.wait()
        assert (server.stats.timeouts, server.stats.handler_errors) == (1, 0)


# routes that misbehave


@scenario(errors=True)
async def test_something_cancelled_in_a_route_is_an_error_of_the_route() -> None:
    door = door_of()

    @door.get("/slow")
    async def slow(request: portico.Request) -> None:
        task = asyncio.ensure_future(asyncio.sleep(10))
        asyncio.get_running_loop().call_soon(task.cancel)
        await task

    async with visiting(door) as (server, client):
        assert (await client.ask("GET /slow")).status == 500
        assert (await client.ask("GET /")).status == 200
        assert server.stats.handler_errors == 1


@scenario()
async def test_a_bad_body_that_is_read_while_answering_is_no_error_of_the_route() -> None:
    async with visiting(door_of()) as (server, client):
        head = b"POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.send(head + b"3\r\nabc\r\nnonsense\r\n")
        await until(lambda: not server.stats.open)
        assert (server.stats.protocol_errors, server.stats.handler_errors) == (1, 0)


@scenario(errors=True)
async def test_pieces_are_counted_as_they_are_sent() -> None:
    door = door_of()
    pieces: dict[str, Any] = {
        "array": memoryview(array("I", range(100))),
        "large": memoryview(array("I", range(10_000))),
        "bytearray": bytearray(b"abc"),
        "text": "abc",
        "number": 7,
    }

    @door.get("/pieces/{kind}")
    async def slow(request: portico.Request) -> portico.Response:
        async def body() -> AsyncIterator[bytes]:
            yield pieces[request.params["kind"]]

        return portico.Response(body())

    async with visiting(door) as (_, client):
        for kind in ("array", "large", "bytearray"):
            assert (await client.ask(f"GET /pieces/{kind}")).body == bytes(pieces[kind])
    for kind in ("text", "number"):
        async with visiting(door) as (server, client):
            await client.send(f"GET /pieces/{kind} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            await until(lambda server=server: server.stats.handler_errors == 1)


def test_a_body_that_no_encoding_has_is_told_plainly() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for make in (
        lambda: portico.Response("\udc80"),
        lambda: portico.Response.json(deep),
        lambda: portico.Response(status=200.0),  # type: ignore[arg-type]  # that is the test
    ):
        with pytest.raises(portico.ConfigurationError):
            make()


@scenario()
async def test_a_response_may_be_answered_again_and_again() -> None:
    kept = portico.Response("kept", headers={"X-Kept": "1"})
    door = door_of(cors=portico.CORS(["https://a.example", "https://b.example"]))

    @door.get("/kept")
    async def answer(request: portico.Request) -> portico.Response:
        return kept

    @door.get("/again")
    async def again(request: portico.Request) -> tuple[int, portico.Response]:
        return 201, kept

    before = list(kept.headers)
    async with visiting(door) as (_, client):
        for origin in ("https://a.example", "https://b.example"):
            answered = await client.ask(f"GET /kept|Origin: {origin}")
            assert answered.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-origin" not in (await client.ask("GET /kept")).headers
        assert (await client.ask("GET /again")).status == 201
        assert (await client.ask("GET /kept")).status == 200
        assert kept.headers == before and kept.status == 200


@scenario()
async def test_what_waits_for_a_thread_is_forgotten_with_who_asked() -> None:
    door, go_on = door_of(max_threads=1), threading.Event()
    began: list[str] = []

    @door.get("/plain/{name}")
    def plain(request: Any) -> str:
        began.append(request.params["name"])
        assert go_on.wait(10)
        return "done"

    async with visiting(door) as (_, client):
        await client.send(b"GET /plain/first HTTP/1.1\r\nHost: a\r\n\r\n")
        await until(lambda: began == ["first"])
        jobs = [Job(lambda: began.append("late")) for _ in range(3)]
        for job in jobs:
            door._threads.start(job)
        assert all(door._threads.take_back(job) for job in jobs) and not door._threads._waiting
        go_on.set()
        assert (await client.answer()).body == b"done"
    assert began == ["first"]


@dataclass
class Unhashable:
    greeting: bytes

    async def __call__(self, stream: portico.Stream) -> None:
        await stream.send(self.greeting)


@scenario()
async def test_a_handler_need_not_be_hashable() -> None:
    async with portico.serve(Unhashable(b"hi"), "tcp://127.0.0.1:0") as server, browser(server.address) as client:
        assert await client.rest() == b"hi"


@scenario()
async def test_of_two_servers_of_one_door_neither_begins_before_what_is_mounted() -> None:
    door, go_on, log = door_of(), asyncio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        log.append("startup")
        await go_on.wait()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        log.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    async def begin() -> portico.Server:
        server = await portico.serve(door, "tcp://127.0.0.1:0")
        assert go_on.is_set()
        return server

    door.mount("/api", app)
    starting = [asyncio.ensure_future(begin()) for _ in range(2)]
    await until(lambda: log == ["startup"])
    await turns()
    go_on.set()
    first, second = await asyncio.gather(*starting)
    await first.drain(1)
    assert log == ["startup"]
    await second.drain(1)
    assert log == ["startup", "shutdown"]


# races at the end


@scenario()
async def test_a_request_that_came_in_the_moment_of_a_drain_is_answered() -> None:
    async with visiting(door_of()) as (server, client):
        assert (await client.ask("GET /")).status == 200
        (session,) = server.listeners[0].sessions
        received = server.stats.bytes_received
        draining: list[asyncio.Future[None]] = []

        def drain() -> None:  # called as the bytes are in, and before who waits for them goes on
            if server.stats.bytes_received > received and not draining:
                session.connection.watch(None)
                server.draining.set()
                draining.append(asyncio.ensure_future(server.drain(5)))

        session.connection.watch(drain)
        answer = await client.ask("GET /")
        assert answer.body == b"hello" and answer.headers["connection"] == "close"
        await draining[0]
        assert server.stats.aborted == 0


@scenario()
async def test_line_ends_that_begin_no_request_do_not_hold_up_a_drain() -> None:
    async with visiting(door_of()) as (server, client), browser(server.address) as other:
        assert (await client.ask("GET /")).status == 200
        await client.send(b"\r\n")
        await other.send(b"\r\n" * 1000)
        await until(lambda: server.stats.bytes_received > 2000)
        await server.drain(5)
        assert server.stats.aborted == 0
