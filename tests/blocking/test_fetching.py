"""`blocking.fetch`: an HTTP request without asyncio."""

import asyncio
import contextlib
import inspect
import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ports import free_port
from server.support import ended, program

import portico
from portico import blocking
from portico.blocking.fetching import FetchSettings
from portico.blocking.loop import background

from .support import PATIENCE, until
from .test_process import INTERRUPT


class Site:
    """A door to ask, in the background."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        door = portico.Door(max_body=1 << 24)
        door.get("/hello", lambda request: "hello")
        door.post("/say", self.say)
        door.put("/say", self.say)
        door.get("/pieces", self.pieces)
        door.post("/early", lambda request: "early", max_body=1)
        door.get("/moved", lambda request: portico.Response(status=302, headers={"Location": "/hello"}))
        door.route(["POST"], "/over", lambda request: portico.Response(status=307, headers={"Location": "/say"}))
        self.server = blocking.serve(door, "http://127.0.0.1:0")
        self.url = str(self.server.address).rstrip("/")

    def say(self, request: portico.BlockingRequest) -> str:
        return f"{request.method} {request.headers.get('Content-Type')} {request.text()}"

    async def pieces(self, request: portico.Request) -> portico.Response:
        async def pieces() -> Any:
            yield b"one"
            while not self.go_on.is_set() and not request.gone:
                await asyncio.sleep(0.005)
            yield b"two"

        return portico.Response(pieces())


def cut(stream: portico.BlockingStream) -> None:
    stream.recv_until(b"\r\n\r\n")
    stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    yield site
    with contextlib.suppress(portico.ClosedError):  # a test has shut everything down
        site.server.drain(0)


def test_the_answer_is_there_when_the_call_returns(site: Site) -> None:
    answer = blocking.fetch(f"{site.url}/moved")
    assert (answer.status, answer.reason, answer.version, answer.text) == (200, "OK", "1.1", "hello")
    assert str(answer.url) == f"{site.url}/hello" and answer.headers.get("content-length") == "5"
    assert answer.body == answer.read() == b"".join(answer) == b"hello"
    assert repr(answer) == f"<BlockingFetched 200 OK {site.url}/hello>"
    with answer as same:
        assert same is answer
    with pytest.raises(portico.ProtocolError, match="not JSON"):
        answer.json()
    assert blocking.fetch(f"{site.url}/say", json=None).text == "POST application/json null"
    assert blocking.fetch(f"{site.url}/say", "PUT", body="é").text == "PUT text/plain; charset=utf-8 é"


def test_a_status_and_what_cannot_be_are_raised(site: Site) -> None:
    with pytest.raises(portico.StatusError, match=f"{site.url}/none answered 404"):
        blocking.fetch(f"{site.url}/none")
    assert blocking.fetch(f"{site.url}/none", check=False).status == 404
    with pytest.raises(portico.ConnectError, match="cannot connect to http:"):
        blocking.fetch(f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(portico.ConfigurationError, match="an iterable of bytes, not int"):
        blocking.fetch(site.url, body=3)  # type: ignore[arg-type]
    with blocking.serve(cut, "tcp://127.0.0.1:0") as server:
        with pytest.raises(portico.EndOfStream) as caught:
            blocking.fetch(str(server.address).replace("tcp", "http"))
        assert caught.value.partial == b"half"


def test_an_answer_is_streamed(site: Site) -> None:
    with blocking.fetch(f"{site.url}/pieces", stream=True) as answer:
        with pytest.raises(portico.ConfigurationError, match=r"use read\(\)"):
            _ = answer.text
        pieces = iter(answer)
        assert next(pieces) == b"one"
        site.go_on.set()
        assert b"".join(pieces) == b"two"
    with blocking.fetch(f"{site.url}/pieces", stream=True) as answer:
        assert answer.read() == answer.body == b"onetwo"
    until(lambda: not background().connections)


def test_who_leaves_a_streamed_answer_closes_it(site: Site) -> None:
    with blocking.fetch(f"{site.url}/pieces", stream=True) as answer:
        assert next(iter(answer)) == b"one"
        assert background().connections
    until(lambda: not background().connections)
    until(lambda: not site.server.stats.open)


def test_an_answer_that_nobody_closes_ends_with_the_loop(site: Site) -> None:
    answer = blocking.fetch(f"{site.url}/pieces", stream=True)
    blocking.shutdown()
    with pytest.raises(portico.ClosedError):
        answer.read()


@pytest.mark.parametrize("stream", [False, True])
def test_the_timeout_is_for_everything(site: Site, stream: bool) -> None:
    with pytest.raises(portico.ClosedError, match=r"did not answer whole within 0\.2 s"):
        blocking.fetch(f"{site.url}/pieces", stream=stream, timeout=0.2).read()


# Bodies that come in pieces.


def test_a_body_is_iterated_over_beside_the_caller(site: Site) -> None:
    here, seen = threading.get_ident(), []

    def pieces() -> Iterator[bytes]:
        try:
            for piece in (b"a", b"", b"bc"):
                seen.append(threading.get_ident())
                yield piece
        finally:
            seen.append(0)

    assert blocking.fetch(f"{site.url}/say", body=pieces()).text == "POST application/octet-stream abc"
    until(lambda: len(seen) == 4 and seen[3] == 0)
    assert here not in seen
    assert blocking.fetch(f"{site.url}/over", body=[b"a", b"bc"]).text.endswith(" abc")  # it is sent again
    with pytest.raises(portico.ConfigurationError, match="can be sent only once"):
        blocking.fetch(f"{site.url}/over", body=iter([b"a", b"bc"]))


def test_an_error_of_a_body_is_the_callers(site: Site) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        blocking.fetch(f"{site.url}/say", body=pieces())


def test_a_server_that_answers_early_does_not_wait_for_a_body_that_does_not_come(site: Site) -> None:
    closed, reading = threading.Event(), os.pipe()

    def pieces() -> Iterator[bytes]:
        try:
            yield b"too much"
            yield os.read(reading[0], 1)
        finally:
            closed.set()

    with pytest.raises(portico.StatusError, match="413"):
        blocking.fetch(f"{site.url}/early", body=pieces())
    assert not closed.is_set()
    os.close(reading[1])
    assert closed.wait(PATIENCE)
    os.close(reading[0])


# As the rest of portico.blocking.


def test_it_takes_what_portico_fetch_takes() -> None:
    there = {name for name, each in inspect.signature(portico.fetch).parameters.items() if each.kind.value == 3}
    here = {name for name, each in inspect.signature(blocking.fetch).parameters.items() if each.kind.value == 3}
    assert here - {"stream"} | set(FetchSettings.__annotations__) == there
    assert not here & set(FetchSettings.__annotations__)


def test_ctrl_c_ends_the_wait_for_a_piece_and_loses_none(site: Site) -> None:
    code = """
answer = blocking.fetch(sys.argv[1], stream=True, timeout=60)
pieces = iter(answer)
print(next(pieces), flush=True)
interrupted(lambda: next(pieces))
print("interrupted", flush=True)
sys.stdin.readline()
print(answer.read())
answer.close()
"""
    with program(INTERRUPT + code, f"{site.url}/pieces") as running:
        assert running.stdout is not None
        assert [running.stdout.readline() for _ in range(2)] == ["b'one'\n", "interrupted\n"]
        site.go_on.set()
        assert ended(running) == (0, "b'two'\n", "")
