"""What becomes of an answer when the client leaves by ending its side, as browsers do, or ends it and listens still."""

import asyncio
import subprocess
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from peers import need_program
from server.support import EVERYWHERE, scenario, until

import portico

from .http_kit import browser, door_of, visiting

ASK = b"GET /feed HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /feed HTTP/1.1\r\nHost: a\r\n"


class Feed:
    """A route that says one thing, and then waits for news that never come."""

    def __init__(self, *, reads: bool = False) -> None:
        self.reads = reads
        self.ended = asyncio.Event()
        self.saw_gone = False

    async def __call__(self, request: portico.Request) -> portico.Response:
        return portico.Response(self._pieces(request), content_type="text/event-stream")

    async def _pieces(self, request: portico.Request) -> AsyncIterator[bytes]:
        try:
            yield b"first"
            if self.reads:
                yield await request.body()
            await asyncio.Event().wait()
        finally:
            self.saw_gone = bool(request.gone)
            self.ended.set()


@pytest.mark.parametrize("how", ["close", "end"])
@scenario(EVERYWHERE)
async def test_a_feed_that_waits_is_cut_off_when_a_browser_leaves(how: str) -> None:
    door, feed = door_of(), Feed()
    door.get("/feed", feed)
    async with visiting(door) as (server, client):
        await client.send(ASK)
        await client.until(b"first")
        getattr(client.client, how)()
        await feed.ended.wait()
        assert feed.saw_gone
        await until(lambda: not server.stats.open)
        assert (server.stats.peer_errors, server.stats.handler_errors) == (1, 0)


@scenario()
async def test_half_an_answer_does_not_look_whole_to_who_listens_still() -> None:
    door, feed = door_of(), Feed()
    door.get("/feed", feed)
    async with visiting(door) as (_, client):
        await client.send(b"GET /feed HTTP/1.0\r\nHost: a\r\n\r\n")
        await client.until(b"first")
        client.client.end()
        with pytest.raises(ConnectionResetError):
            await client.rest()


@pytest.mark.parametrize(
    "body", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("reads", [True, False])
@scenario()
async def test_a_feed_that_answers_a_body_is_cut_off_once_that_is_whole(reads: bool, body: bytes) -> None:
    door, feed = door_of(), Feed(reads=reads)
    door.post("/feed", feed)
    async with visiting(door) as (server, client):
        await client.send(POST + body)
        client.client.end()
        await feed.ended.wait()
        await until(lambda: not server.stats.open)
        assert server.stats.handler_errors == 0


@scenario(EVERYWHERE)
async def test_a_body_that_is_read_while_it_is_answered_goes_there_and_back_whole() -> None:
    """The client ends its side long before the server has read all."""
    size = 3 << 20
    async with visiting(door_of(max_body=size)) as (_, client):
        sending = asyncio.ensure_future(
            client.send(b"POST /stream HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
        )
        sending.add_done_callback(lambda done: client.client.end())
        assert len((await client.answer()).body) == size
        await sending
        assert await client.is_over()


@scenario()
async def test_pieces_that_need_not_be_waited_for_go_to_who_ended_his_side() -> None:
    door = door_of()

    @door.get("/feed")
    async def feed(request: portico.Request) -> portico.Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(300):
                yield bytes(65536)

        return portico.Response(pieces())

    async with visiting(door) as (_, client):
        await client.send(ASK)
        client.client.end()
        assert len((await client.answer()).body) == 300 * 65536


@scenario()
async def test_who_ended_his_side_gets_whole_answers_and_files(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(5 << 20))
    door = door_of()
    door.files("/files", tmp_path)
    waiting = asyncio.Event()

    @door.get("/slow")
    async def slow(request: portico.Request) -> str:
        waiting.set()
        await request.gone
        return "late"

    async with portico.serve(door, "tcp://127.0.0.1:0") as server:
        async with browser(server.address) as client:
            await client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
            await waiting.wait()
            client.client.end()
            assert (await client.answer()).body == b"late"
        async with browser(server.address) as client:
            await client.send(b"GET /files/large HTTP/1.1\r\nHost: a\r\n\r\n")
            client.client.end()
            assert len((await client.answer()).body) == 5 << 20
            assert await client.is_over()


@scenario()
async def test_ncat_that_ends_its_side_gets_a_whole_answer() -> None:
    program = need_program("ncat")
    async with portico.serve(door_of(), "tcp://127.0.0.1:0") as server:
        process = await asyncio.create_subprocess_exec(
            program, "127.0.0.1", str(server.address.port), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        out, _ = await process.communicate(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert out.endswith(b"\r\n\r\nhello")


@scenario(EVERYWHERE)
async def test_a_plain_function_may_look_whether_its_client_has_gone() -> None:
    door, waiting = door_of(), threading.Event()
    seen: list[bool] = []

    @door.get("/feed")
    def slow(request: portico.BlockingRequest) -> str:
        seen.append(request.gone)
        waiting.set()
        while not request.gone:
            time.sleep(0.001)
        seen.append(request.gone)
        return "late"

    async with visiting(door) as (_, client):
        assert (await client.ask("GET /")).status == 200
        await client.send(ASK)
        await until(waiting.is_set)
        client.client.end()
        assert (await client.answer()).body == b"late"
    assert seen == [False, True]


@scenario(EVERYWHERE)
async def test_a_plain_function_may_look_whether_the_server_drains() -> None:
    door, waiting = door_of(), threading.Event()

    @door.get("/feed")
    def slow(request: portico.BlockingRequest) -> str:
        assert request.draining is False
        waiting.set()
        while not request.draining:
            time.sleep(0.001)
        return "at the end"

    async with visiting(door) as (server, client):
        await client.send(ASK)
        await until(waiting.is_set)
        draining = asyncio.ensure_future(server.drain())
        assert (await client.answer()).body == b"at the end"
        await draining
